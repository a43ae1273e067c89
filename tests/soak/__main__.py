"""Run the soaks one after the other; exit 1 if one of them fails. What came of them is in build/soak.json."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.soak.run import Run

DEFAULT_LIMIT_S = 1800.0
RECORD = Path("build/soak.json")
RECORD_OF_SOME = Path("build/soak-some.json")
"""Of a run that does less than all: what a whole one has left stays."""


@dataclass(frozen=True)
class Soak:
    name: str
    title: str
    function: Callable[[Run], None]
    limit_s: float
    needs_root: bool = False


@dataclass(frozen=True)
class Record:
    """One line of build/soak.json: `outcome` "passed" or "failed", `detail` why, `figures` what it has counted."""

    name: str
    cases: int
    seconds: float
    outcome: str
    detail: str
    figures: dict[str, Any]


def soaks(only: str = "") -> list[Soak]:
    """All of them whose name contains `only`, in the order of their names."""
    found = []
    for path in sorted(Path(__file__).parent.glob("soak_*.py")):
        name = path.stem.removeprefix("soak_")
        if only in name:
            module = importlib.import_module(f"tests.soak.{path.stem}")
            title = (module.__doc__ or name).splitlines()[0]
            limit_s = getattr(module, "LIMIT_S", DEFAULT_LIMIT_S)
            needs_root = getattr(module, "NEEDS_ROOT", False)
            found.append(Soak(name, title, module.soak, limit_s, needs_root))
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Long runs.")
    parser.add_argument("--only", default="", metavar="WORD", help="soaks whose name contains this")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of each, 1 is all of it")
    parser.add_argument("--list", action="store_true", help="print names and titles")
    options = parser.parse_args(arguments)
    is_whole = not options.only and options.scale >= 1
    records: list[Record] = []
    began = time.monotonic()
    for soak in soaks(options.only):
        print(f"{soak.name}: {soak.title}", flush=True)
        if not options.list:
            records.append(_run(soak, options.scale))
            # After each: what a run that is broken off has found is not lost, and seen to be less than all.
            _write(records, options.scale, RECORD if is_whole else RECORD_OF_SOME)
    failed = [one.name for one in records if one.outcome == "failed"]
    if not options.list:
        result = f"failed: {' '.join(failed)}" if failed else "all ok"
        print(f"soak: {time.monotonic() - began:.0f} s, {result}")
    return 1 if failed else 0


def _run(soak: Soak, scale: float) -> Record:
    run = Run(soak.name, scale=scale, limit_s=soak.limit_s, say=lambda text: print(text, flush=True))
    detail = ""
    try:
        if soak.needs_root and os.geteuid():
            raise PermissionError(f"{soak.name} makes network namespaces: run it as root")
        soak.function(run)
    except Exception as error:
        traceback.print_exc()
        detail = f"{type(error).__name__}: {error}"
    run.say("FAILED" if detail else "ok")
    outcome = "failed" if detail else "passed"
    return Record(soak.name, run.done, round(run.elapsed_s, 1), outcome, detail, run.figures)


def _write(records: list[Record], scale: float, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"scale": scale, "soaks": [asdict(one) for one in records]}
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
