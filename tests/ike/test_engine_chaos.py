"""Random commands of both ends over a bad network; `Invariants` judges every moment. A seed replays exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ike import succession
from ike.children import Children
from ike.events import ChildSaEstablished, CloseReason
from ike.exchanges.create_child import CreateChildSa
from ike.exchanges.exchange import NOTHING, Outcome
from ike.host import Host
from ike.requests import Requests
from ike.states import COLLISIONS, Ask, Doing
from ike.testing.invariants import InvariantError
from ike.testing.pair import Side
from ike.window import RequestWindow, ResponseWindow
from tests.ike.chaos import Chaos

SEEDS = 50
STORED = [
    int(line.split()[0])
    for line in (Path(__file__).parent / "chaos_seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("seed", sorted({*range(SEEDS), *STORED}))
def test_invariants_hold_whatever_the_network_does(seed: int) -> None:
    chaos = Chaos(seed)
    chaos.run()
    for side in (chaos.pair.left, chaos.pair.right):
        assert side.all(ChildSaEstablished)


def test_a_seed_replays_exactly() -> None:
    def run() -> list[str]:
        pair = Chaos(5, steps=30).run()
        return [f"{r.at} {r.summary}" for side in (pair.left, pair.right) for r in side.trace]

    assert run() == run()


def test_runs_meet_collisions() -> None:
    """Else the rest would prove little."""
    met = {"TEMPORARY_FAILURE": 0, "REDUNDANT": 0, "lost": 0, "duplicated": 0, "reordered": 0}
    for seed in range(10):
        chaos = Chaos(seed)
        pair = chaos.run()
        met["TEMPORARY_FAILURE"] += sum("TEMPORARY_FAILURE" in record.summary for record in pair.left.trace)
        met["REDUNDANT"] += sum(
            "redundant" in str(event) for event in (*pair.left.events, *pair.right.events)
        )
        for what in ("lost", "duplicated", "reordered"):
            met[what] += chaos.link.counters[what]
    assert min(met.values()) >= 5, met


# --- the judge itself: engines that do one thing wrong are found out


def _wrong(monkeypatch: pytest.MonkeyPatch, where: object, name: str, value: object) -> None:
    monkeypatch.setattr(where, name, value)


def responder_sends_at_once(patch: pytest.MonkeyPatch) -> None:
    """A responder of a rekey uses the new child before the initiator can have it."""
    real = Children.add

    def add(self: Children, what: Any, now: float) -> None:
        from dataclasses import replace

        real(self, replace(what, use_outbound=True), now)

    _wrong(patch, Children, "add", add)


def no_window(patch: pytest.MonkeyPatch) -> None:
    _wrong(patch, RequestWindow, "is_open", True)


def answers_afresh(patch: pytest.MonkeyPatch) -> None:
    """The cached response is forgotten, and a repeated request processed anew."""
    from ike.window import Arrival

    real = ResponseWindow.classify

    def classify(self: ResponseWindow, message_id: int, request: bytes) -> Arrival:
        found = real(self, message_id, request)
        return Arrival.NEW if found is Arrival.RETRANSMISSION else found

    _wrong(patch, ResponseWindow, "classify", classify)


def forgets_retries(patch: pytest.MonkeyPatch) -> None:
    """What is answered TEMPORARY_FAILURE is given up without a word."""
    _wrong(patch, Requests, "retry_later", lambda self, exchange, now: Outcome())


def ignores_early_deletes(patch: pytest.MonkeyPatch) -> None:
    """A Delete that overtakes the grant of its child."""
    _wrong(patch, Children, "note_early_delete", lambda self, spi_out: None)


def keeps_spis(patch: pytest.MonkeyPatch) -> None:
    _wrong(patch, Host, "forget_child", lambda self, spi_in: None)


def rekeys_a_dying_child(patch: pytest.MonkeyPatch) -> None:
    """RFC 7296 2.25.1: the rekey of a child that we are deleting is answered."""
    patch.delitem(COLLISIONS, (Doing.DELETING_THAT_CHILD, Ask.REKEY_CHILD))


def compares_no_nonces(patch: pytest.MonkeyPatch) -> None:
    """RFC 7296 2.8.1: of two simultaneous rekeys both stay."""
    import ike.exchanges.create_child

    _wrong(patch, ike.exchanges.create_child, "is_redundant", lambda ours, theirs: False)


def deletes_only_the_old_one(patch: pytest.MonkeyPatch) -> None:
    """The Delete of a child does not reach what its rekey, in flight, makes of it."""
    real = Children.delete

    def delete(self: Children, spi_in: bytes, reason: CloseReason) -> None:
        real(self, spi_in, reason)
        if spi_in in self:
            self[spi_in].is_unwanted = False

    _wrong(patch, Children, "delete", delete)


def sends_on_what_it_deletes(patch: pytest.MonkeyPatch) -> None:
    """The owner is not told that a Delete is under way."""
    from ike.events import ChildSaDeletionBegun, Event

    real = Host.emit

    def emit(self: Host, event: Event) -> None:
        if not isinstance(event, ChildSaDeletionBegun):
            real(self, event)

    _wrong(patch, Host, "emit", emit)


def ends_without_the_successor(patch: pytest.MonkeyPatch) -> None:
    """An IKE SA that ends while its rekey is in flight forgets what that makes at the peer."""
    real = succession.on_successor

    def on_successor(old: Any, made: Any, now: float) -> None:
        if not old.session.is_over:
            real(old, made, now)

    _wrong(patch, succession, "on_successor", on_successor)


def loses_creates(patch: pytest.MonkeyPatch) -> None:
    """A child that was asked for is forgotten when the IKE SA is replaced."""
    _wrong(patch, CreateChildSa, "on_lost", lambda self, sa, *, session_is_over: NOTHING)


WRONGS: Sequence[Callable[[pytest.MonkeyPatch], None]] = (
    responder_sends_at_once,
    no_window,
    answers_afresh,
    forgets_retries,
    ignores_early_deletes,
    keeps_spis,
    rekeys_a_dying_child,
    compares_no_nonces,
    deletes_only_the_old_one,
    sends_on_what_it_deletes,
    ends_without_the_successor,
    loses_creates,
)


@pytest.mark.parametrize("wrong", WRONGS, ids=lambda wrong: wrong.__name__)
def test_an_engine_that_does_one_thing_wrong_is_found_out(
    wrong: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong(monkeypatch)
    with pytest.raises(InvariantError):
        for seed in (*STORED, *range(30)):
            Chaos(seed).run()


def test_the_judge_needs_no_look_into_the_engine() -> None:
    """`Side` and public properties are all that it uses."""
    import inspect

    import ike.testing.invariants
    import ike.testing.owner

    for module in (ike.testing.invariants, ike.testing.owner):
        source = inspect.getsource(module)
        assert "_host" not in source
        assert ".engine._" not in source
    assert "engine" in Side.__annotations__
