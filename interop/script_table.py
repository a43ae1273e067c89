"""`python -m interop.script_table`: what each gateway answered to the scripts, as the table in docs/PEER.md.

Must not know: a script or a gateway. It reads the facts that the last run of the cases `scripts-*` left.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path("docs/PEER.md")
FACTS = Path("build/interop")
BEGIN, END = "<!-- the table is made by python -m interop.script_table -->", "<!-- end of the table -->"


def table(gateways: list[dict[str, Any]]) -> str:
    """A row for each script, a column for each gateway; `gateways` are the facts of the cases."""
    heads = [str(one["peer_version"]) for one in gateways]
    rows = [f"| script | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name in gateways[0]["scripts"]:
        cells = [_cell(one["scripts"][name]) for one in gateways]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(told: dict[str, Any]) -> str:
    answered = told["answered"] or f"ended early: {told['problem']}"
    after_s = told["serves_after_s"]
    if after_s is None:
        return f"{answered}; **serves no more**"
    return f"{answered}; serves after {after_s:.0f} s" if after_s else str(answered)


def main() -> int:
    files = sorted(FACTS.glob("scripts-*/facts.json"))
    if not files:
        print(f"{FACTS}: no facts of scripts; make interop ONLY='scripts-*'", file=sys.stderr)
        return 1
    text = PAGE.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    made = table([json.loads(file.read_text()) for file in files])
    PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
