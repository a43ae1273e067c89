"""What the benchmarks have in common: rounds, a table, and build/bench.json.

Must not know: what is measured. Figures of one run only are compared: the machine drifts between runs.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

__all__ = ["BENCH_FILE", "ROUNDS", "Result", "interleave", "print_interpreter", "print_table", "write"]

ROUNDS = 5
BENCH_FILE = Path("build/bench.json")


@dataclass(frozen=True, slots=True)
class Result:
    """One line of build/bench.json; `ratio` above 1 always means that ours is better."""

    name: str
    unit: str
    ours: float
    peer: float | None
    peer_name: str | None
    ratio: float | None

    @classmethod
    def cost(cls, name: str, unit: str, ours: float, peer: float, peer_name: str) -> Result:
        """Of a figure of which less is better."""
        return cls(name, unit, round(ours, 3), round(peer, 3), peer_name, round(peer / ours, 3))

    @classmethod
    def missing(cls, name: str, unit: str, ours: float, reason: str) -> Result:
        """Of a peer that this machine cannot have."""
        return cls(name, unit, round(ours, 3), None, reason, None)

    @classmethod
    def gain(cls, name: str, unit: str, ours: float, peer: float, peer_name: str) -> Result:
        """Of a figure of which more is better."""
        return cls(name, unit, round(ours, 3), round(peer, 3), peer_name, round(ours / peer, 3))


def interleave(variants: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """The median of what each variant measures, all of them once in every round; the first round is a warm-up."""
    measured: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, measure in variants.items():
            value = measure()
            if number:
                measured[name].append(value)
    return {name: median(values) for name, values in measured.items()}


def print_interpreter() -> None:
    """Say what Python this is: how it was built counts for a fifth."""
    print(f"Python {platform.python_version()} of {Path(sys.executable).resolve()}", flush=True)


def print_table(results: list[Result]) -> None:
    widths = (34, 24, 10, 10, 28, 7)
    rows = [("name", "unit", "ours", "peer", "peer is", "ratio")]
    for one in results:
        peer, ratio = ("-", "-") if one.peer is None else (f"{one.peer:.3f}", f"{one.ratio:.2f}")
        rows.append((one.name, one.unit, f"{one.ours:.3f}", peer, one.peer_name or "-", ratio))
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def write(results: list[Result], file: Path = BENCH_FILE) -> None:
    """Put the results into the file, in place of earlier ones of the same names."""
    names = {one.name for one in results}
    kept = json.loads(file.read_text()) if file.exists() else []
    kept = [one for one in kept if one["name"] not in names]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept + [asdict(one) for one in results], indent=2) + "\n")
