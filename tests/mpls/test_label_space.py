"""Labels given out, drained and quarantined (WIRE 5.5, 5.6), on a clock that is handed in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpls.label_space import LabelSpace, LabelSpaceError, LabelState


def allocate(space: LabelSpace, peer: str = "pe2", session: int = 1) -> int:
    return space.allocate(peer, "red", "gold", 3, session)


def state_of(space: LabelSpace, label: int) -> LabelState | None:
    owner = space.lookup(label)
    return owner.state if owner else None


def test_label_belongs_to_one_owner() -> None:
    space = LabelSpace(100, 200)
    one, other = allocate(space), space.allocate("pe3", "blue", 0, 1, 2)
    assert one != other
    owner = space.lookup(one)
    assert owner is not None
    assert (owner.peer, owner.vrf, owner.label_class, owner.payload, owner.session) == (
        "pe2",
        "red",
        "gold",
        3,
        1,
    )
    assert owner.state is LabelState.ACTIVE
    assert space.lookup(199) is None


def test_every_label_is_given_out_once_and_then_there_is_none() -> None:
    space = LabelSpace(100, 104)
    assert sorted(allocate(space) for _ in range(5)) == [100, 101, 102, 103, 104]
    with pytest.raises(LabelSpaceError):
        allocate(space)


@pytest.mark.parametrize(("lo", "hi"), [(15, 20), (0, 20), (20, 19), (16, 1 << 20)])
def test_range_outside_the_ordinary_labels_is_refused(lo: int, hi: int) -> None:
    with pytest.raises(LabelSpaceError):
        LabelSpace(lo, hi)


def test_withdrawn_label_drains_then_rests_then_is_free() -> None:
    space = LabelSpace(100, 100)
    label = allocate(space)
    space.withdraw(label, now=10.0)
    assert state_of(space, label) is LabelState.DRAINING
    assert space.next_deadline() == 15.0
    space.expire(14.9)
    assert state_of(space, label) is LabelState.DRAINING
    space.expire(15.0)
    assert state_of(space, label) is LabelState.QUARANTINED
    assert space.next_deadline() == 135.0
    with pytest.raises(LabelSpaceError):
        allocate(space)
    space.expire(135.0)
    assert space.lookup(label) is None
    assert space.next_deadline() is None
    assert allocate(space, "pe3") == label


def test_quarantine_counts_from_the_end_of_the_drain_even_when_time_was_handed_in_late() -> None:
    space = LabelSpace(100, 100)
    space.withdraw(allocate(space), now=10.0)
    space.expire(134.0)
    assert state_of(space, 100) is LabelState.QUARANTINED
    assert space.next_deadline() == 135.0
    space.expire(1000.0)
    assert space.lookup(100) is None


def test_drain_lasts_two_round_trips_at_least() -> None:
    space = LabelSpace()
    label = allocate(space)
    space.withdraw(label, now=0.0, round_trip_s=4.0)
    assert space.next_deadline() == 8.0


def test_draining_label_is_accepted_and_a_quarantined_one_is_not() -> None:
    space = LabelSpace()
    active, draining, quarantined = (allocate(space) for _ in range(3))
    space.withdraw(draining, now=0.0)
    space.quarantine(quarantined, now=0.0)
    assert space.accept_set("pe2", "red", "gold") == {active, draining}
    for label in (active, draining, quarantined):
        owner = space.lookup(label)
        assert owner is not None
        assert owner.is_accepted == (label != quarantined)


def test_accept_set_is_of_one_peer_vrf_and_class() -> None:
    space = LabelSpace()
    label = allocate(space)
    for _ in range(2):
        space.allocate("pe3", "red", "gold", 3, 2)
        space.allocate("pe2", "blue", "gold", 3, 1)
        space.allocate("pe2", "red", "standard", 3, 1)
    assert space.accept_set("pe2", "red", "gold") == {label}


def test_ended_session_puts_its_labels_in_quarantine_at_once_and_no_others() -> None:
    space = LabelSpace()
    space.reserve(50, "pe2", "red", "gold")
    old, draining, new = allocate(space, session=1), allocate(space, session=1), allocate(space, session=2)
    space.withdraw(draining, now=0.0)
    space.release_session(1, now=1.0)
    assert state_of(space, old) is state_of(space, draining) is LabelState.QUARANTINED
    assert state_of(space, new) is state_of(space, 50) is LabelState.ACTIVE
    space.expire(5.0)
    space.expire(120.9)
    assert state_of(space, draining) is LabelState.QUARANTINED
    space.expire(121.0)
    assert space.lookup(old) is space.lookup(draining) is None


def test_quarantine_does_not_begin_again() -> None:
    space = LabelSpace()
    label = allocate(space)
    space.quarantine(label, now=0.0)
    space.quarantine(label, now=60.0)
    space.withdraw(label, now=60.0)
    space.release_session(1, now=60.0)
    space.expire(120.0)
    assert space.lookup(label) is None


def test_static_label_is_reserved_for_good_and_never_allocated() -> None:
    space = LabelSpace(100, 102)
    space.reserve(101, "linux", "red", 0, 1)
    space.reserve(5000, "linux", "blue", 0)
    assert [allocate(space), allocate(space)] == [100, 102]
    for label in (101, 100):
        with pytest.raises(LabelSpaceError):
            space.reserve(label, "other", "red", 0)
    space.withdraw(101, now=0.0)
    space.quarantine(101, now=0.0)
    owner = space.lookup(101)
    assert owner is not None
    assert (owner.peer, owner.session, owner.payload, owner.state) == ("linux", None, 1, LabelState.ACTIVE)
    assert space.accept_set("linux", "blue", 0) == {5000}


@pytest.mark.parametrize("label", [0, 2, 15, 1 << 20])
def test_special_label_cannot_be_reserved(label: int) -> None:
    with pytest.raises(LabelSpaceError):
        LabelSpace().reserve(label, "linux", "red", 0)


def test_freed_label_that_was_reserved_since_is_not_given_out() -> None:
    space = LabelSpace(100, 101)
    allocate(space), allocate(space)
    space.release_session(1, now=0.0)
    space.expire(120.0)
    space.reserve(100, "linux", "red", 0)
    assert allocate(space) == 101


def test_unknown_label_is_nobodys_to_withdraw() -> None:
    space = LabelSpace()
    space.withdraw(77, now=0.0)
    space.quarantine(77, now=0.0)
    assert space.lookup(77) is None
    assert space.next_deadline() is None


@given(st.lists(st.tuples(st.sampled_from("awqer"), st.integers(0, 7), st.floats(0, 60)), max_size=60))
def test_no_label_means_something_else_before_its_quarantine_is_over(
    steps: list[tuple[str, int, float]],
) -> None:
    space, now = LabelSpace(100, 107), 0.0
    last_accepted: dict[int, float] = {}
    for step, index, wait in steps:
        now += wait
        space.expire(now)
        for label in range(100, 108):
            owner = space.lookup(label)
            if owner is not None and owner.is_accepted:
                last_accepted[label] = now
        if step == "a":
            try:
                label = allocate(space, session=index)
            except LabelSpaceError:
                continue
            assert now - last_accepted.get(label, -1000.0) >= 120.0
            last_accepted[label] = now
        elif step == "w":
            space.withdraw(100 + index, now)
        elif step == "q":
            space.quarantine(100 + index, now)
        elif step == "r":
            space.release_session(index, now)
