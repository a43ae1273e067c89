"""`python -m interop [--only PATTERN] [--json FILE]`: the cases, then each check on the others' evidence.

Must not know: any particular case.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from .capture import decode
from .cases import CASES
from .cases.case import Case, CheckError, Evidence, Lab, UnsupportedError
from .containers import ContainerDaemon
from .ladder import ladder
from .networks import remove_leftovers
from .packages import cache_folder, ensure_roots, install_tools, locked
from .page import write_page
from .processes import Interrupted, LabError, signals_unwind, tail_of, time_limit

STATE = Path("/run/mplsec-lab")
CASE_LIMIT_S = 180


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m interop", description="Interop cases against other people's programs."
    )
    parser.add_argument("--only", metavar="PATTERN", default="*", help="cases whose name contains this")
    parser.add_argument("--json", metavar="FILE", type=Path, default=Path("build/interop.json"))
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    options = parser.parse_args()
    pattern = options.only if any(sign in options.only for sign in "*?[") else f"*{options.only}*"
    cases = [case for case in CASES if fnmatch.fnmatch(case.name, pattern)]
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    if not cases:
        print(f"no case matches {options.only} (--list names them)", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("the interop lab needs root: network namespaces, TUN devices, containers", file=sys.stderr)
        return 1
    try:
        with signals_unwind():
            return run_cases(cases, options.json)
    except Interrupted as signal_name:
        print(f"interrupted by {signal_name}: everything of the lab was ended", file=sys.stderr)
        return 130
    except LabError as error:
        print(f"the lab does not work: {error}", file=sys.stderr)
        return 1


def run_cases(cases: list[Case], report: Path) -> int:
    """Run them all; exit code 0 only if all passed and no check passes on another case's evidence."""
    began = time.monotonic()
    folder = report.parent.resolve() / "interop"
    with locked(STATE / "lock"):
        install_tools()
        remove_leftovers()
        ensure_roots({root for case in cases for root in case.roots})
        print(f"lab ready after {time.monotonic() - began:.1f} s; {len(cases)} cases", flush=True)
        data = cache_folder() / "docker"
        with ContainerDaemon(state=STATE / "docker", data=data, log=folder / "dockerd.log") as daemon:
            results, evidence = [], {}
            for case in cases:
                lab = Lab(folder / case.name, STATE, daemon)
                result, seen = run_case(case, lab)
                results.append(result)
                write_report(report, results)
                if seen is not None:
                    evidence[case.name] = seen
                print(f"{result['result']:11} {result['seconds']:6.1f} s  {case.name}", flush=True)
                if result["result"] != "passed":
                    print_failure(result, lab)
    mistaken = cross_check(cases, evidence)
    for line in mistaken:
        print(f"CROSS-CHECK {line}", flush=True)
    passed = sum(result["result"] == "passed" for result in results)
    claims = {case.name: case.claim for case in cases}
    crossed = sum(claims[name] != case.claim for case in cases for name in evidence)
    seconds = time.monotonic() - began
    print(
        f"{passed} of {len(results)} passed; {crossed} cross-checks, {len(mistaken)} wrong; {seconds:.0f} s"
    )
    print(f"details: {write_page(report)}, {report} and {folder}", flush=True)
    return 0 if passed == len(results) and not mistaken else 1


def write_report(report: Path, results: list[dict[str, Any]]) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(results, indent=2) + "\n")


def run_case(case: Case, lab: Lab) -> tuple[dict[str, Any], Evidence | None]:
    """Drive a case and check it: its line of interop.json, and its evidence when it passed."""
    shutil.rmtree(lab.folder, ignore_errors=True)
    lab.folder.mkdir(parents=True)
    began = time.monotonic()
    facts: dict[str, Any] = {}
    evidence, verdict, lines = None, "failed", []
    try:
        with time_limit(CASE_LIMIT_S, case.name):
            facts = case.drive(lab)
        (lab.folder / "facts.json").write_text(json.dumps(facts, indent=2, default=str) + "\n")
        found = Evidence(decode(lab.capture, lab.keys), facts)
        rungs = [rung.as_json() for rung in ladder(found.packets)]
        (lab.folder / "ladder.json").write_text(json.dumps(rungs) + "\n")
        lines = case.check(found)
        evidence, verdict = found, "passed"
    except UnsupportedError as reason:
        verdict, lines = "unsupported", [str(reason)]
    except (CheckError, LabError) as error:
        lines = [f"{type(error).__name__}: {error}"]
    except Exception:  # a case with a bug fails; the other cases still run
        lines = traceback.format_exc().splitlines()
    result = {
        "name": case.name,
        "feature": case.feature,
        "peer": case.peer,
        "peer_version": facts.get("peer_version", "unknown: it did not come so far"),
        "role": case.role,
        "result": verdict,
        "seconds": round(time.monotonic() - began, 1),
        "evidence": lines,
    }
    return result, evidence


def cross_check(cases: list[Case], evidence: dict[str, Evidence]) -> list[str]:
    """Run each check on the evidence of every case that claims something else: it must fail. What it passed."""
    mistaken = []
    claims = {case.name: case.claim for case in cases}
    for case in cases:
        for name, other in evidence.items():
            if claims[name] != case.claim:
                with contextlib.suppress(CheckError):
                    case.check(other)
                    mistaken.append(f"the check of {case.name} passes on the capture of {name}")
    return mistaken


def print_failure(result: dict[str, Any], lab: Lab) -> None:
    """What helps to understand: the reason, and the ends of both logs."""
    for line in result["evidence"]:
        print(f"    {line}")
    for log in sorted(lab.folder.rglob("*.log")):
        print(f"    --- {log.relative_to(lab.folder)}")
        print("\n".join(f"    {line[:200]}" for line in tail_of(log, 15).splitlines()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
