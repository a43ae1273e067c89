"""1,000,000 broken inputs to IKE: parsers, datagrams to engines in every state, sealed nonsense; memory is bounded."""

from __future__ import annotations

import gc
import tracemalloc

from tests.ike.fuzz import STATES, datagram_cases, parser_cases, sealed_cases
from tests.soak.run import Run

CHUNKS = 1000
PARSERS, DATAGRAMS, SEALED = 700, 30, 60
"""Cases of a chunk; datagrams for each of the eight states: a million in a thousand chunks."""
MEASURED = 10
"""Memory is traced in one chunk of so many: that takes several times as long."""
PEAK_OCTETS = 32 * 2**20
LEFT_OCTETS = 2 * 2**20
"""What may be left when a chunk is over and its engines are gone."""
LIMIT_S = 3600.0


def soak(run: Run) -> None:
    assert CHUNKS * (PARSERS + len(STATES) * DATAGRAMS + SEALED) >= 1_000_000
    memory = ""
    for chunk in run.cases(CHUNKS):
        seed = f"soak {chunk}"
        if chunk % MEASURED == 0:
            memory = measured(seed)
        else:
            one_chunk(seed)
        run.step(memory)


def one_chunk(seed: str) -> None:
    parser_cases(seed, PARSERS)
    for state in STATES:
        datagram_cases(state, seed, DATAGRAMS)
    sealed_cases(seed, SEALED)


def measured(seed: str) -> str:
    """One chunk with its memory traced."""
    tracemalloc.start()
    try:
        one_chunk(seed)
        gc.collect()
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < PEAK_OCTETS, f"{peak} octets at once in chunk {seed!r}"
    assert left < LEFT_OCTETS, f"{left} octets left after chunk {seed!r}"
    return f"at most {peak / 2**20:.1f} MiB at once, {left / 2**20:.2f} MiB left"
