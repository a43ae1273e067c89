"""Run the soaks one after the other; exit 1 if one of them fails."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.soak.run import Run

DEFAULT_LIMIT_S = 1800.0


@dataclass(frozen=True)
class Soak:
    name: str
    title: str
    function: Callable[[Run], None]
    limit_s: float
    needs_root: bool = False


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
    failed = []
    began = time.monotonic()
    for soak in soaks(options.only):
        print(f"{soak.name}: {soak.title}", flush=True)
        if options.list:
            continue
        run = Run(
            soak.name, scale=options.scale, limit_s=soak.limit_s, say=lambda text: print(text, flush=True)
        )
        try:
            if soak.needs_root and os.geteuid():
                raise PermissionError(f"{soak.name} makes network namespaces: run it as root")
            soak.function(run)
        except Exception:
            traceback.print_exc()
            failed.append(soak.name)
        run.say("FAILED" if soak.name in failed else "ok")
    if not options.list:
        result = f"failed: {' '.join(failed)}" if failed else "all ok"
        print(f"soak: {time.monotonic() - began:.0f} s, {result}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
