"""`python -m interop [--only PATTERN] [--json FILE]`: the cases, then each check on the others' evidence.

Must not know: any particular case.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import math
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import unprivileged
from .browser import complaints
from .capture import decode
from .cases import CASES
from .cases.case import Case, CheckError, Evidence, Lab, UnsupportedError
from .containers import ContainerDaemon
from .ladder import ladder
from .lanes import Lanes
from .networks import PREFIX, remove_leftovers, remove_scratch
from .packages import DOCKER, cache_folder, ensure_roots, install_tools, locked
from .page import write_page
from .processes import Interrupted, LabError, signals_unwind, tail_of, time_limit
from .report import summary

STATE = Path("/run/mplsec-lab")
CASE_LIMIT_S = 180
SECONDS = "seconds.json"
LANES = 3
"""One more than the lab's two processors: cases wait half of their time. Patient ones have a lane beside these."""
MAX_AGAIN = 5
"""So few failures are looked at again, one by one."""
WITHOUT_ROOT = """without root the lab runs in namespaces of your own what needs no containers, but here it cannot:
{}
make demo (both sides are ours) and make test, which judges the captures that the lab kept, need neither."""
WITHOUT_DOCKER = "without Docker run the guests, make interop ONLY='linux-pe*', and ONLY='demo*'"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m interop", description="Interop cases against other people's programs."
    )
    parser.add_argument("--only", metavar="PATTERN", default="*", help="cases whose name contains this")
    parser.add_argument("--json", metavar="FILE", type=Path, default=Path("build/interop.json"))
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--lanes", metavar="N", type=int, default=LANES, help="cases that run side by side")
    options = parser.parse_args()
    pattern = options.only if any(sign in options.only for sign in "*?[") else f"*{options.only}*"
    cases = [case for case in CASES if fnmatch.fnmatch(case.name, pattern)]
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    if not cases or options.lanes < 1:
        print(f"no case matches {options.only} (--list names them)", file=sys.stderr)
        return 2
    if os.geteuid() != 0 and not unprivileged.is_inside():
        if obstacles := unprivileged.obstacles():
            print(WITHOUT_ROOT.format("\n".join(obstacles)), file=sys.stderr)
            return 1
        unprivileged.go_inside()
    try:
        if unprivileged.is_inside():
            unprivileged.furnish()
            cases = unprivileged.select(cases)
            if not cases:
                return 1
        with signals_unwind():
            return run_cases(cases, options.json, min(options.lanes, len(cases)))
    except Interrupted as signal_name:
        print(f"interrupted by {signal_name}: everything of the lab was ended", file=sys.stderr)
        return 130
    except LabError as error:
        print(f"the lab does not work: {error}", file=sys.stderr)
        return 1


def run_cases(cases: list[Case], report: Path, lanes: int) -> int:
    """Run them all; exit code 0 only if none failed and no check passes on another case's evidence."""
    began = time.monotonic()
    folder = report.parent.resolve() / "interop"
    results: dict[int, dict[str, Any]] = {}
    evidence: dict[str, Evidence] = {}
    with locked(STATE / "lock"):
        install_tools()
        remove_leftovers()
        remove_scratch()
        ensure_roots({root for case in cases for root in case.roots})
        print(
            f"lab ready after {time.monotonic() - began:.1f} s; {len(cases)} cases, {lanes} lanes", flush=True
        )
        with contextlib.ExitStack() as stack:
            needs_docker = any(case.needs_docker for case in cases)
            daemon = stack.enter_context(start_docker(folder)) if needs_docker else None

            def work(lane: int, number: int) -> Outcome:
                case = cases[number]
                prefix, state = f"{PREFIX}{lane}-", STATE / f"lane-{lane}"
                result, seen = run_case(case, Lab(folder / case.name, state, daemon, prefix))
                return Outcome(number, result, seen)

            def note(outcome: Outcome) -> None:
                case, result = cases[outcome.number], outcome.result
                results[outcome.number] = result
                write_report(report, [results[number] for number in sorted(results)])
                if outcome.evidence is not None:
                    evidence[case.name] = outcome.evidence
                print(f"{result['result']:11} {result['seconds']:6.1f} s  {case.name}", flush=True)
                if result["result"] != "passed":
                    print_failure(result, folder / case.name)

            stack.callback(remove_scratch)
            stack.callback(remove_leftovers)
            order = by_length(cases, read_seconds())
            aside = [number for number in order if cases[number].is_patient] if lanes > 1 else []
            busy = [number for number in order if number not in aside]
            for outcome in stack.enter_context(Lanes(lanes + bool(aside), work)).results(busy, aside):
                note(outcome)
            keep_seconds(list(results.values()))
            failed = [number for number, result in results.items() if result["result"] == "failed"]
            if lanes > 1 and len(failed) <= MAX_AGAIN:
                for number in failed:
                    note(second_attempt(work(0, number), results[number]))
    return conclude(cases, [results[number] for number in sorted(results)], evidence, report, began)


def second_attempt(outcome: Outcome, first: dict[str, Any]) -> Outcome:
    """The same outcome, saying that it was not the first, and what the first one was."""
    why = next(iter(first["evidence"]), "no reason")
    outcome.result["evidence"] = [
        f"at the second attempt, alone; the first: {why}",
        *outcome.result["evidence"],
    ]
    return outcome


def by_length(cases: list[Case], seconds: Mapping[str, float]) -> list[int]:
    """The numbers of the cases, those first that took longest when they last ran: so the lanes end together."""
    return sorted(range(len(cases)), key=lambda number: -seconds.get(cases[number].name, math.inf))


def read_seconds() -> dict[str, float]:
    """How long each case took when it last ran on this machine."""
    file = cache_folder() / SECONDS
    seconds: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    return seconds


def keep_seconds(results: list[dict[str, Any]]) -> None:
    """Remember how long the cases took, beside those that did not run now."""
    seconds = read_seconds() | {result["name"]: result["seconds"] for result in results}
    file = cache_folder() / SECONDS
    if not os.access(file.parent, os.W_OK):
        return
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(seconds, indent=1))
    partial.rename(file)


@contextlib.contextmanager
def start_docker(folder: Path) -> Iterator[ContainerDaemon]:
    """Our Docker daemon; without it the error says what can run all the same."""
    with contextlib.ExitStack() as stack:
        try:
            install_tools(DOCKER)
            data = cache_folder() / "docker"
            daemon = ContainerDaemon(state=STATE / "docker", data=data, log=folder / "dockerd.log")
            stack.enter_context(daemon)
        except LabError as error:
            raise LabError(f"{error}\n{WITHOUT_DOCKER}") from error
        yield daemon


def conclude(
    cases: list[Case],
    results: list[dict[str, Any]],
    evidence: dict[str, Evidence],
    report: Path,
    began: float,
) -> int:
    """Cross-checks, the page, the summary; the exit code."""
    mistaken = cross_check(cases, evidence)
    for line in mistaken:
        print(f"CROSS-CHECK {line}", flush=True)
    by_name = {case.name: case for case in cases}
    crossed = sum(case.must_refuse(by_name[name]) for case in cases for name in evidence)
    print(
        f"{summary(results)} {crossed} cross-checks, {len(mistaken)} wrong; {time.monotonic() - began:.0f} s"
    )
    page = write_page(report)
    wrong = complaints(page, results)
    for line in wrong:
        print(f"PAGE {line}", flush=True)
    print(f"details: {page}, {report} and {report.parent / 'interop'}", flush=True)
    has_failed = any(result["result"] == "failed" for result in results)
    return 1 if has_failed or mistaken or wrong else 0


@dataclass(frozen=True)
class Outcome:
    """What a lane hands back of a case: its line of interop.json, and its evidence when it passed."""

    number: int
    result: dict[str, Any]
    evidence: Evidence | None


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
        found = Evidence(decode(lab.capture, lab.keys, may_be_malformed=case.may_be_malformed), facts)
        rungs = [rung.as_json() for rung in ladder(found.packets)]
        (lab.folder / "ladder.json").write_text(json.dumps(rungs) + "\n")
        lines = case.check(found)
        evidence, verdict = found, "passed"
    except UnsupportedError as reason:
        verdict, lines, facts = "unsupported", [str(reason)], {"peer_version": reason.peer_version}
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
    by_name = {case.name: case for case in cases}
    for case in cases:
        for name, other in evidence.items():
            if case.must_refuse(by_name[name]):
                try:
                    case.check(other)
                    mistaken.append(f"the check of {case.name} passes on the capture of {name}")
                except CheckError:
                    continue
                except Exception as error:  # a check has to be able to look at any capture
                    mistaken.append(f"the check of {case.name} breaks on that of {name}: {error!r}")
    return mistaken


def print_failure(result: dict[str, Any], folder: Path) -> None:
    """What helps to understand: the reason, and the ends of both logs."""
    for line in result["evidence"]:
        print(f"    {line}")
    if result["result"] == "unsupported":
        return
    for log in sorted(folder.rglob("*.log")):
        print(f"    --- {log.relative_to(folder)}")
        print("\n".join(f"    {line[:200]}" for line in tail_of(log, 15).splitlines()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
