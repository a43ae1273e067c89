"""`python -m interop.report`: INTEROP.md, made from build/interop.json of a whole run.

Must not know: any case. What it says is what the last run proved, and nothing else.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROLES = ("initiator", "responder")
HEADING = "# Interop: what other people's programs agreed with"
INTRODUCTION = """\
Made by `python -m interop.report` from the report of `make interop`. That runs mplsec against each peer, captures
the wire, decodes it with tshark by the peer's keys, and fails unless the feature is seen there. For each cell
`build/interop.html` has the messages, the packets and both logs; [interop/README.md](interop/README.md) says how it
works.

A cell names our roles that were proven: `i` initiator and `r` responder of the IKE SA. In brackets: run, not proven."""
SIGNS = {"passed": "{}", "failed": "({} failed)", "unsupported": "({} unsupported)"}


def render(results: list[dict[str, Any]]) -> str:
    """INTEROP.md of the results (interop.json)."""
    peers = sorted({result["peer"] for result in results})
    cells: dict[tuple[str, str], dict[str, set[str]]] = {}
    for result in results:
        roles = cells.setdefault((result["feature"], result["peer"]), {})
        roles.setdefault(result["role"], set()).add(result["result"])
    features = list(dict.fromkeys(result["feature"] for result in results))
    rows = [[feature, *(_cell(cells.get((feature, peer), {})) for peer in peers)] for feature in features]
    versions = [
        [peer, *_versions(results, peer), str(sum(one["result"] == "passed" for one in _of(results, peer)))]
        for peer in peers
    ]
    parts = [
        HEADING,
        INTRODUCTION,
        summary(results),
        "## Peers",
        table(["peer", "version", "cases passed"], versions),
        "## Features",
        table(["feature", *peers], rows),
    ]
    reasons = [
        f"* {result['peer']}, {result['feature']}, we as {result['role']}: {' '.join(result['evidence'])}"
        for result in results
        if result["result"] == "unsupported"
    ]
    if reasons:
        parts += ["## What a peer cannot do", "\n".join(reasons)]
    return "\n\n".join(parts) + "\n"


def proven(results: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """What passed, counted once: (feature, peer, role)."""
    return {(one["feature"], one["peer"], one["role"]) for one in results if one["result"] == "passed"}


def summary(results: list[dict[str, Any]]) -> str:
    """One line of figures."""
    unique = proven(results)
    verdicts = [result["result"] for result in results]
    return (
        f"{len(unique)} proven (feature, peer, role) over {len({peer for _, peer, _ in unique})} peers; "
        f"{verdicts.count('passed')} of {len(results)} cases passed, "
        f"{verdicts.count('unsupported')} unsupported, {verdicts.count('failed')} failed."
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', ' ') for cell in line)} |" for line in lines)


def _cell(roles: dict[str, set[str]]) -> str:
    """`i r`, `i (r failed)` …; a role with several cases is proven when all of them are."""
    said = []
    for role in ROLES:
        verdicts = roles.get(role, set())
        worst = next((one for one in ("failed", "unsupported", "passed") if one in verdicts), "")
        if worst:
            said.append(SIGNS[worst].format(role[0]))
    return " ".join(said)


def _of(results: list[dict[str, Any]], peer: str) -> list[dict[str, Any]]:
    return [result for result in results if result["peer"] == peer]


def _versions(results: list[dict[str, Any]], peer: str) -> list[str]:
    versions = {one["peer_version"] for one in _of(results, peer) if one["result"] != "failed"}
    return ["; ".join(sorted(versions))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m interop.report", description="Make INTEROP.md.")
    parser.add_argument("--json", metavar="FILE", type=Path, default=Path("build/interop.json"))
    parser.add_argument("--to", metavar="FILE", type=Path, default=Path("INTEROP.md"))
    options = parser.parse_args()
    options.to.write_text(render(json.loads(options.json.read_text())))
    print(options.to)


if __name__ == "__main__":
    main()
