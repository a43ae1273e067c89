"""Whoever subscribes is told all of an SA's life: messages, retransmissions, drops, collisions, commits, timers."""

from __future__ import annotations

from ike import Datagram, DropReason, LifeKind, LifeRecord, TraceRecord
from ike.events import ChildSaClosed, ChildSaEstablished
from ike.numbers import ExchangeType
from ike.testing.pair import Pair, Side
from tests.ike.engine_kit import established, message, new_pair, nonce, only_child

CREATE = ExchangeType.CREATE_CHILD_SA


def lives(pair: Pair) -> tuple[list[TraceRecord | LifeRecord], list[TraceRecord | LifeRecord]]:
    records: tuple[list[TraceRecord | LifeRecord], list[TraceRecord | LifeRecord]] = ([], [])
    for side, mine in zip((pair.left, pair.right), records, strict=True):
        side.engine.subscribe(mine.append)
    return records


def of_kind(records: list[TraceRecord | LifeRecord], kind: LifeKind) -> list[LifeRecord]:
    return [record for record in records if isinstance(record, LifeRecord) and record.kind is kind]


def rekey(side: Side, now: float) -> None:
    side.engine.rekey_child(side.session, only_child(side).spi_in, now)


def test_a_collision_is_told_with_its_table_and_its_nonces() -> None:
    pair, _ = established()
    left, right = lives(pair)
    pair.left.entropy.queue(nonce(1), nonce(5))
    pair.right.entropy.queue(nonce(6), nonce(7))
    for side in (pair.left, pair.right):
        rekey(side, pair.now)
    pair.run(5)
    (collision,) = of_kind(left, LifeKind.COLLISION)[:1]
    assert collision.detail == "we are rekeying that child; the peer wants to rekey a child: COMPARE_NONCES"
    assert [record.detail for record in of_kind(left, LifeKind.NONCES)] == ["our new child is redundant"]
    assert [record.detail for record in of_kind(right, LifeKind.NONCES)] == [
        "the peer's new child is redundant"
    ]
    assert collision.session == pair.left.session
    assert collision.spi_i == pair.left.engine.sessions()[0].spi_i


def test_every_message_commit_and_event_is_told_in_the_order_of_things() -> None:
    pair, _ = established()
    left, _ = lives(pair)
    before = len(pair.left.trace), len(pair.left.events)
    rekey(pair.left, pair.now)
    pair.run(5)
    assert [r for r in left if isinstance(r, TraceRecord)] == pair.left.trace[before[0] :]
    told = [record.event for record in of_kind(left, LifeKind.EVENT)]
    assert told == pair.left.events[before[1] :]
    assert {type(event) for event in told} >= {ChildSaEstablished, ChildSaClosed}
    changes = [record.detail for record in of_kind(left, LifeKind.COMMIT)]
    assert changes == ["add, delete", "close"]
    kinds = [
        record.kind.value if isinstance(record, LifeRecord) else record.direction.value for record in left
    ]
    assert kinds[:4] == ["sent", "received", "commit", "event"]
    assert [record.at for record in left] == sorted(record.at for record in left)


def test_retransmissions_and_timers_are_told() -> None:
    pair, tap = established()
    left, _ = lives(pair)
    tap.hold(message(sent_by=pair.left, exchange=CREATE), 2)
    rekey(pair.left, pair.now)
    pair.run(10)
    again = of_kind(left, LifeKind.RETRANSMISSION)
    assert [record.detail[:14] for record in again] == ["transmission 2", "transmission 3"]
    sent = next(record for record in left if isinstance(record, TraceRecord))
    assert {record.message_id for record in again} == {sent.message_id}
    timers = of_kind(left, LifeKind.TIMER)
    assert [record.detail for record in timers][:2] == ["retransmit", "retransmit"]


def test_drops_are_told_with_their_reason_and_counted_as_told() -> None:
    pair, tap = established()
    _, right = lives(pair)
    before = pair.right.engine.counters.copy()
    rekey(pair.left, pair.now)
    pair.run(1)
    for datagram in (tap.seen[0].data, b"", tap.seen[0].data[:-1] + b"?"):
        pair.right.engine.receive_datagram(datagram, pair.right.path, pair.now)
    told = [record.reason for record in of_kind(right, LifeKind.DROP)]
    assert told[0] is DropReason.RETRANSMITTED_REQUEST
    assert told[1] is DropReason.TRUNCATED
    assert len(told) == sum((pair.right.engine.counters - before).values()) == 3


def test_any_number_may_look_on_and_leave_again() -> None:
    pair, _ = established()
    first: list[object] = []
    second: list[object] = []
    leave = pair.left.engine.subscribe(first.append)
    pair.left.engine.subscribe(second.append)
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(1)
    assert first == second != []
    leave()
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(1)
    assert len(first) < len(second)


def test_records_hold_no_keys() -> None:
    pair, _ = established()
    left, _ = lives(pair)
    rekey(pair.left, pair.now)
    pair.run(5)
    text = repr(left)
    for child in (event.child for event in pair.left.all(ChildSaEstablished)):
        assert repr(child.keys_in[0]) not in text


def test_an_engine_that_nobody_looks_at_sends_the_same_octets() -> None:
    """Without a subscriber no record is made; what is done must not depend on it."""

    def told(*, is_watched: bool) -> list[Datagram]:
        pair, tap = new_pair(seed="watched or not")
        if not is_watched:
            for side in (pair.left, pair.right):
                side.engine._host.subscribers.clear()
        pair.initiate()
        pair.run(2)
        pair.left.engine.create_child(pair.left.session, "net", pair.now)
        pair.run(2)
        pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
        pair.run(2)
        assert bool(pair.right.trace) is is_watched
        return tap.seen

    watched = told(is_watched=True)
    assert len(watched) > 6
    assert watched == told(is_watched=False)
