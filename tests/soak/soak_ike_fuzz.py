"""1,000,000 broken inputs to IKE: parsers, datagrams to engines in every state, sealed nonsense; memory is bounded."""

from __future__ import annotations

import gc
import tracemalloc

from tests.ike.fuzz import STATES, datagram_cases, parser_cases, sealed_cases
from tests.soak.run import Run

CHUNKS = 1000
PARSERS, DATAGRAMS, SEALED = 700, 30, 60
"""Cases of a chunk; datagrams for each of the eight states: a million in a thousand chunks."""
PEAK_OCTETS = 96 * 2**20
GROWTH_OCTETS = 8 * 2**20
"""What may be there at the end of a chunk beyond what was there at the end of the first one."""


def soak(run: Run) -> None:
    assert CHUNKS * (PARSERS + len(STATES) * DATAGRAMS + SEALED) >= 1_000_000
    tracemalloc.start()
    try:
        settled = None
        for chunk in run.cases(CHUNKS):
            seed = f"soak {chunk}"
            parser_cases(seed, PARSERS)
            for state in STATES:
                datagram_cases(state, seed, DATAGRAMS)
            sealed_cases(seed, SEALED)
            gc.collect()
            now, peak = tracemalloc.get_traced_memory()
            settled = settled or now
            assert peak < PEAK_OCTETS, f"{peak} octets at once in chunk {seed!r}"
            assert now - settled < GROWTH_OCTETS, f"{now - settled} octets more after chunk {seed!r}"
            run.step(f"{now / 2**20:.1f} MiB, peak {peak / 2**20:.1f} MiB")
    finally:
        tracemalloc.stop()
