"""The one table of timers."""

from collections.abc import Hashable

from ike.timers import TimerKind, TimerTable


class Owner:
    def handle_timer(self, kind: TimerKind, detail: Hashable, now: float) -> None:
        """Nothing: the tests look at the table."""


def test_earliest_comes_first_with_its_reason() -> None:
    table, owner = TimerTable(), Owner()
    table.set(5.0, TimerKind.LIVENESS, owner)
    table.set(3.0, TimerKind.RETRANSMIT, owner, 7)
    deadline = table.next_deadline()
    assert deadline is not None
    assert (deadline.at, deadline.reason) == (3.0, "retransmit")
    assert table.pop_due(2.9) is None
    key = table.pop_due(9.0)
    assert key is not None
    assert (key.kind, key.owner, key.detail) == (TimerKind.RETRANSMIT, owner, 7)
    assert table.pop_due(9.0) is not None
    assert table.pop_due(9.0) is None
    assert table.next_deadline() is None


def test_setting_again_moves_a_timer() -> None:
    table, owner = TimerTable(), Owner()
    table.set(1.0, TimerKind.LIVENESS, owner)
    table.set(4.0, TimerKind.LIVENESS, owner)
    assert len(table) == 1
    assert table.pop_due(3.0) is None
    table.set(2.0, TimerKind.LIVENESS, owner)
    assert table.pop_due(3.0) is not None
    assert table.pop_due(9.0) is None


def test_owners_do_not_share_timers() -> None:
    table, one, other = TimerTable(), Owner(), Owner()
    table.set(1.0, TimerKind.LIVENESS, one)
    table.set(2.0, TimerKind.LIVENESS, other)
    table.cancel_all(one)
    key = table.pop_due(9.0)
    assert key is not None
    assert key.owner is other
    assert len(table) == 0


def test_timers_that_are_moved_forever_take_no_memory() -> None:
    table, owner = TimerTable(), Owner()
    for count in range(10_000):
        table.set(1e6 - count, TimerKind.LIVENESS, owner, count % 3)
        table.cancel(TimerKind.LIVENESS, owner, (count + 1) % 3)
    assert len(table._heap) < 200
