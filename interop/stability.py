"""`python -m interop.stability [--runs N] [--only PATTERN]`: runs the lab several times; the verdicts must not differ.

Must not know: any case. What came of it goes to build/interop-stability.json.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPORT = Path("build/interop.json")
STABILITY = Path("build/interop-stability.json")
SECOND_ATTEMPT = re.compile("second attempt")


def compare(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The cases whose verdict or peer is not the same in every run, or that needed a second attempt: name, and what
    each run had.
    """
    found: dict[str, list[list[str] | None]] = {}
    for number, results in enumerate(runs):
        for result in results:
            seen = found.setdefault(result["name"], [None] * len(runs))
            seen[number] = [
                result["result"],
                result["peer_version"],
                *SECOND_ATTEMPT.findall(str(result["evidence"])),
            ]
    return [
        {"name": name, "runs": seen} for name, seen in found.items() if any(one != seen[0] for one in seen)
    ]


def record(runs: list[list[dict[str, Any]]], seconds: list[float], codes: list[int]) -> dict[str, Any]:
    """The document: a line of figures for each run, and the differences."""
    return {
        "runs": [
            {
                "seconds": round(took, 1),
                "exit_code": code,
                "cases": len(results),
                "passed": sum(result["result"] == "passed" for result in results),
            }
            for results, took, code in zip(runs, seconds, codes, strict=True)
        ],
        "differences": compare(runs),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m interop.stability", description="Run the lab repeatedly."
    )
    parser.add_argument("--runs", metavar="N", type=int, default=3)
    parser.add_argument("--only", metavar="PATTERN", default="*")
    options = parser.parse_args()
    runs, seconds, codes = [], [], []
    for number in range(1, options.runs + 1):
        print(f"run {number} of {options.runs}", flush=True)
        began = time.monotonic()
        command = [sys.executable, "-m", "interop", "--only", options.only, "--json", str(REPORT)]
        codes.append(subprocess.run(command, check=False).returncode)
        seconds.append(time.monotonic() - began)
        runs.append(json.loads(REPORT.read_text()))
        found = record(runs, seconds, codes)
        STABILITY.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{len(found['differences'])} differences in {options.runs} runs: {STABILITY}")
    return 1 if found["differences"] or any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
