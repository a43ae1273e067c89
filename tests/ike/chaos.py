"""Random commands of both ends over a bad network, watched by `Invariants`. A seed is the whole of a run.

Must not look into an engine.
"""

from __future__ import annotations

from dataclasses import replace

from ike import CloseReason, IkeSaClosed, RetransmitPolicy
from ike.testing.entropy import ScriptedEntropy
from ike.testing.invariants import Invariants
from ike.testing.link import ImpairedLink
from ike.testing.owner import require
from ike.testing.pair import Pair, Side
from tests.ike.engine_kit import CHILD, SETTINGS, new_pair

PATIENT = RetransmitPolicy(first_s=0.5, factor=1.5, maximum_s=4.0, tries=60, jitter=0.2)
MOST_CHILDREN = 6
GIVEN_UP = (CloseReason.PEER_NOT_RESPONDING, CloseReason.OUT_OF_SYNC, CloseReason.PROTOCOL_ERROR)


class Chaos:
    """One run. `hash(seed)`-free: all that varies comes from ScriptedEntropy(seed).

    Odd seeds delay what is overtaken by 5 s. Every other pair of seeds has lifetimes of its own, half of
    them end sessions and open others. Every other four have windows of one request, the rest of eight.
    """

    def __init__(self, seed: int, *, steps: int = 60) -> None:
        self.chance = ScriptedEntropy(f"chaos {seed}")
        self.steps = steps
        self.has_lifetimes = seed // 2 % 2 == 1
        self.reopens = seed // 4 % 4 in (1, 2)
        window = 1 if seed // 4 % 2 else 8
        self.link = ImpairedLink(seed)
        self.delay_s = 5.0 if seed % 2 else 0.05
        changes: dict[str, object] = {"retransmit": PATIENT}
        child = CHILD
        if self.has_lifetimes:
            child = replace(CHILD, rekey_s=25.0, hard_s=400.0)
            changes |= {"ike_rekey_s": 70.0, "ike_hard_s": 1000.0, "liveness_s": 10.0}
        self.pair, _ = new_pair(
            child,
            seed=seed,
            link=self.link,
            left=changes,
            right=changes,
            settings=replace(SETTINGS, window=window),
        )
        self.watch = Invariants(self.pair, window=window)

    def run(self) -> Pair:
        """Raises InvariantError."""
        pair, link = self.pair, self.link
        pair.initiate()
        pair.run(2)
        for side in (pair.left, pair.right):
            self.watch.create_child(side, side.session, "net")
        pair.run(2)
        link.loss, link.duplicate, link.reorder, link.reorder_s = 0.3, 0.2, 0.2, self.delay_s
        for _ in range(self.steps):
            if self.chance.below(5) == 0:
                self.cross()
            for side in (pair.left, pair.right):
                if self.chance.below(2):
                    self.command(side)
            pair.run(self.chance.fraction() * 2)
        link.loss = link.duplicate = link.reorder = 0.0
        pair.run(600 if not self.has_lifetimes else 100)
        pair.run(600, until=self.is_quiet)
        self.watch.check_rest()
        for side in (pair.left, pair.right):
            given_up = [e for e in side.all(IkeSaClosed) if e.reason in GIVEN_UP]
            require(not given_up, f"{side.name}: {given_up}")
        if not self.has_lifetimes:
            for side in (pair.left, pair.right):
                require(side.engine.next_deadline() is None, f"{side.name}: {side.engine.next_deadline()}")
        return pair

    def is_quiet(self) -> bool:
        sides = (self.pair.left, self.pair.right)
        sizes = [side.engine.sizes for side in sides]
        is_idle = all(s["requests"] == 0 and s["ike_sas"] == s["sessions"] for s in sizes)
        return is_idle and self.link.next_at() is None

    def cross(self) -> None:
        """Both ends want something of the same SA at once."""
        left, right = self.pair.left, self.pair.right
        sessions = [s for s in left.engine.sessions() if s.established_at is not None and s.children]
        if not sessions:
            return
        ours = sessions[self.chance.below(len(sessions))]
        child = ours.children[self.chance.below(len(ours.children))]
        by_spis = {(s.spi_i, s.spi_r): s for s in right.engine.sessions()}
        theirs = by_spis.get((ours.spi_i, ours.spi_r))
        if theirs is None or child.spi_out not in {one.spi_in for one in theirs.children}:
            return
        for side, number, spi in ((left, ours.session, child.spi_in), (right, theirs.session, child.spi_out)):
            match self.chance.below(4):
                case 0 | 1:
                    self.watch.rekey_child(side, number, spi)
                case 2:
                    self.watch.delete_child(side, number, spi)
                case _:
                    self.watch.rekey_ike_sa(side, number)

    def command(self, side: Side) -> None:
        watch, chance = self.watch, self.chance
        sessions = [s for s in side.engine.sessions() if s.established_at is not None]
        if not side.engine.sessions() and side is self.pair.left:
            self.pair.initiate()
        for snapshot in sessions:
            number = snapshot.session
            spis = [child.spi_in for child in snapshot.children]
            spi = spis[chance.below(len(spis))] if spis else None
            match chance.below(24):
                case 0 | 1 | 2 | 3 if len(spis) < MOST_CHILDREN:
                    watch.create_child(side, number, "net")
                case 4 | 5 | 6 | 7 | 8 | 9 | 10 if spi:
                    watch.rekey_child(side, number, spi)
                case 11 | 12 | 13 if spi:
                    watch.delete_child(side, number, spi)
                case 14 | 15 | 16 | 17:
                    watch.rekey_ike_sa(side, number)
                case 18 if self.reopens and snapshot.is_opener:
                    watch.reauthenticate(side, number)
                case 19 if self.reopens and chance.below(3) == 0:
                    watch.delete_ike_sa(side, number)
                case _:
                    side.engine.check_liveness(number, self.pair.now)
