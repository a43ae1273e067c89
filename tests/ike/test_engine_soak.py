"""Random commands of both ends over a bad network: in the end both agree, and nothing leaks. A seed replays exactly."""

from dataclasses import replace

import pytest

from ike import IkeSaClosed, RetransmitPolicy
from ike.testing.entropy import ScriptedEntropy
from ike.testing.link import ImpairedLink
from ike.testing.pair import Side
from tests.ike.engine_kit import CHILD, assert_in_sync, established

PATIENT = RetransmitPolicy(first_s=0.5, factor=1.5, maximum_s=4.0, tries=40, jitter=0.2)


def command(side: Side, chance: ScriptedEntropy, now: float) -> None:
    engine = side.engine
    for snapshot in engine.sessions():
        spis = [child.spi_in for child in snapshot.children]
        spi = spis[chance.below(len(spis))] if spis else None
        match chance.below(6):
            case 0 if len(spis) < 6:
                engine.create_child(snapshot.session, "net", now)
            case 1 | 2 if spi:
                engine.rekey_child(snapshot.session, spi, now)
            case 3 if spi:
                engine.delete_child(snapshot.session, spi, now)
            case 4:
                engine.rekey_ike_sa(snapshot.session, now)
            case _:
                engine.check_liveness(snapshot.session, now)


@pytest.mark.parametrize("seed", range(30))
def test_two_ends_agree_after_chaos(seed: int) -> None:
    link = ImpairedLink(seed)
    pair, _ = established(
        seed=seed, link=link, left={"retransmit": PATIENT}, right={"retransmit": PATIENT}, child=CHILD
    )
    link.loss, link.duplicate, link.reorder, link.reorder_s = 0.3, 0.2, 0.2, 5.0 if seed % 2 else 0.05
    chance = ScriptedEntropy(f"chaos {seed}")
    for _ in range(60):
        for side in (pair.left, pair.right):
            if chance.below(2):
                command(side, chance, pair.now)
        pair.run(chance.fraction() * 2)
    link.loss = link.duplicate = link.reorder = 0.0
    pair.run(400)
    for side in (pair.left, pair.right):
        assert not side.all(IkeSaClosed)
        assert len(side.engine._host._ike_sas) == 1
        (session,) = side.engine._host.sessions.values()
        assert not list(session.requests())
        assert not session.others
        assert len(side.engine._host._child_spis) == len(side.children)
        assert len(side.engine._host.timers) == 0
        assert not side.engine._host.completed_inits
    assert_in_sync(pair)
    for side in (pair.left, pair.right):
        side.engine.create_child(side.session, "net", pair.now)
        side.engine.rekey_ike_sa(side.session, pair.now)
    pair.run(60)
    assert_in_sync(pair)


def test_a_seed_replays_exactly() -> None:
    def run() -> list[str]:
        link = ImpairedLink(7, loss=0.2, duplicate=0.2)
        child = replace(CHILD, rekey_s=20.0, hard_s=60.0)
        pair, _ = established(
            seed=7, link=link, child=child, left={"retransmit": PATIENT}, right={"retransmit": PATIENT}
        )
        pair.run(100)
        return [f"{r.at} {r.summary}" for r in (*pair.left.trace, *pair.right.trace)]

    assert run() == run()
