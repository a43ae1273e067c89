"""1,000,000 random packets of random PEs: the compiled forwarding and that of dictionaries and loops agree."""

from __future__ import annotations

from tests.mpls.test_reference import PACKETS_OF_A_PE, compare
from tests.soak.run import Run

PACKETS = 1_000_000


def soak(run: Run) -> None:
    for number in run.cases(PACKETS // PACKETS_OF_A_PE):
        seed = f"soak {number}"
        compare(seed, PACKETS_OF_A_PE)  # an AssertionError names the seed
        run.step(seed)
