"""1,000 seeds of random commands of two IKE engines over a bad network, judged by the invariant checker."""

from __future__ import annotations

from tests.ike.chaos import Chaos
from tests.soak.run import Run

FIRST_SEED = 1000
SEEDS = 1000


def soak(run: Run) -> None:
    failed = []
    for number in run.cases(SEEDS):
        seed = FIRST_SEED + number
        try:
            Chaos(seed).run()
        except AssertionError as error:
            failed.append(seed)
            run.say(f"seed {seed}: {error}")
        run.step(f"seed {seed}")
    assert not failed, (
        f"seeds {failed}: write them into tests/ike/chaos_seeds.txt; Chaos(seed).run() replays one"
    )
