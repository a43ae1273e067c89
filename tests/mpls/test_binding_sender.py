"""The tail's end of label bindings, alone and against the head's (WIRE 5.2 to 5.7)."""

from dataclasses import replace
from ipaddress import ip_network
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpls.binding_receiver import BindingReceiver
from mpls.binding_sender import (
    BindingRefused,
    BindingSender,
    BindingStopped,
    LabelDropped,
    LabelWithdrawn,
    PeerTableFull,
    SenderEvent,
)
from mpls.binding_table import BindingTable, Key, Route
from mpls.bindings import (
    BindingError,
    Entry,
    LabelBinding,
    LabelStatus,
    Operation,
    Prefix,
    Refusal,
    Status,
)
from mpls.capability import LABEL_BINDINGS, Capability
from mpls.identifiers import ClassId, VrfId
from mpls.selectors import MplsVrfSelector

EPOCH = 1000
PEER = Capability(bindings=1000, features=LABEL_BINDINGS, bindings_per_message=100)
GOLD = MplsVrfSelector(VrfId.parse_text("name:red"), "gold")
P1, P2, P3 = (ip_network(text) for text in ("10.1.0.0/16", "10.2.0.0/16", "2001:db8:1::/48"))
EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def sender(peer: Capability = PEER, **options: int) -> BindingSender:
    tail = BindingSender(EPOCH, peer, **options)
    tail.on_child_established("red", GOLD)
    return tail


def sent(tail: BindingSender) -> LabelBinding:
    octets = tail.next_message()
    assert octets is not None
    return LabelBinding.parse(octets)


def answer(
    tail: BindingSender, message: LabelBinding, status: Status = Status.ACCEPTED, **refused: Refusal
) -> tuple[SenderEvent, ...]:
    pairs = tuple((int(label[1:]), code) for label, code in refused.items())
    return tail.on_response(LabelStatus(message.epoch, message.sequence, status, pairs).encode())


def settle(tail: BindingSender) -> list[LabelBinding]:
    """Accept all that the tail has to say."""
    messages = []
    while (octets := tail.next_message()) is not None:
        messages.append(LabelBinding.parse(octets))
        answer(tail, messages[-1])
    return messages


def bound_tail(*prefixes: Prefix, label: int = 100) -> BindingSender:
    tail = sender()
    tail.bind("red", "gold", label, 3, prefixes)
    settle(tail)
    return tail


# What is sent.


def test_one_message_is_outstanding_and_sequence_begins_at_one() -> None:
    tail = sender()
    tail.bind("red", "gold", 100, 3, (P1, P3))
    first = sent(tail)
    assert first == LabelBinding(EPOCH, 1, Operation.ADD, GOLD.vrf, "gold", (Entry(100, 3, (P1, P3)),))
    tail.bind("red", "gold", 101, 3)
    assert tail.next_message() is None
    assert answer(tail, first) == ()
    second = sent(tail)
    assert (second.sequence, second.entries) == (2, (Entry(101, 3),))
    answer(tail, second)
    assert tail.next_message() is None


def test_nothing_is_sent_without_a_child() -> None:
    tail = BindingSender(EPOCH, PEER)
    tail.bind("red", "gold", 100, 3)
    assert tail.next_message() is None
    tail.on_child_established("red", replace(GOLD, label_class="silver"))
    assert tail.next_message() is None
    tail.on_child_established("red", GOLD)
    assert sent(tail).entries == (Entry(100, 3),)


def test_key_1_of_the_binding_is_that_of_the_child() -> None:
    tail = sender()
    theirs = VrfId.parse_text("rd:65001:7")
    tail.on_child_established("red", replace(GOLD, vrf=theirs))
    tail.bind("red", "gold", 100, 3)
    assert sent(tail).vrf == theirs


def test_prefix_moves_by_an_add_before_the_old_label_goes() -> None:
    tail = bound_tail(P1, P2)
    tail.withdraw("red", "gold", 100)
    tail.bind("red", "gold", 101, 3, (P1, P2))
    first, second = settle(tail)
    assert (first.operation, first.entries) == (Operation.ADD, (Entry(101, 3, (P1, P2)),))
    assert (second.operation, second.entries) == (Operation.WITHDRAW, (Entry(100, 3),))


def test_per_vrf_label_with_prefixes_takes_two_messages() -> None:
    tail = sender()
    tail.bind("red", "gold", 100, 3)
    tail.bind("red", "gold", 100, 3, (P1,))
    assert [message.entries for message in settle(tail)] == [(Entry(100, 3),), (Entry(100, 3, (P1,)),)]


def test_withdrawn_prefix_is_withdrawn_alone() -> None:
    tail = bound_tail(P1, P2)
    assert tail.withdraw("red", "gold", 100, (P1,)) == ()
    (message,) = settle(tail)
    assert (message.operation, message.entries) == (Operation.WITHDRAW, (Entry(100, 3, (P1,)),))


def test_answered_withdraw_lets_the_label_drain() -> None:
    tail = bound_tail(P1)
    assert tail.withdraw("red", "gold", 100) == ()
    assert answer(tail, sent(tail)) == (LabelWithdrawn("red", "gold", 100),)


def test_label_withdrawn_before_it_was_sent_is_dropped_at_once() -> None:
    tail = sender()
    tail.bind("red", "gold", 100, 3)
    assert tail.withdraw("red", "gold", 100) == (LabelDropped("red", "gold", 100),)
    assert tail.withdraw("red", "gold", 100) == ()
    assert tail.next_message() is None


@pytest.mark.parametrize("status", [Status.GAP, Status.TABLE_FULL])
def test_label_withdrawn_while_its_add_came_to_nothing_is_dropped(status: Status) -> None:
    tail = sender()
    tail.bind("red", "gold", 100, 3)
    message = sent(tail)
    assert tail.withdraw("red", "gold", 100) == ()
    assert LabelDropped("red", "gold", 100) in answer(tail, message, status)


def test_label_withdrawn_while_its_add_was_under_way_is_withdrawn_after_it() -> None:
    tail = sender()
    tail.bind("red", "gold", 100, 3)
    message = sent(tail)
    assert tail.withdraw("red", "gold", 100) == ()
    assert answer(tail, message) == ()
    assert answer(tail, sent(tail)) == (LabelWithdrawn("red", "gold", 100),)


def test_label_bound_again_while_its_withdraw_is_under_way_is_added_again_and_does_not_drain() -> None:
    tail = bound_tail(P1)
    tail.withdraw("red", "gold", 100)
    message = sent(tail)
    tail.bind("red", "gold", 100, 3, (P2,))
    assert answer(tail, message) == ()
    assert sent(tail).entries == (Entry(100, 3, (P2,)),)


def test_label_of_another_class_or_payload_cannot_be_bound() -> None:
    tail = bound_tail(P1)
    with pytest.raises(BindingError):
        tail.bind("red", "silver", 100, 3)
    with pytest.raises(BindingError):
        tail.bind("red", "gold", 100, 1)
    with pytest.raises(BindingError):
        tail.bind("red", "gold", 101, 1, (P3,))
    tail.withdraw("red", "gold", 100)
    with pytest.raises(BindingError):  # the peer still has it
        tail.bind("red", "silver", 100, 3)
    with pytest.raises(BindingError):
        tail.bind("red", "gold", 100, 1)


def test_explicit_null_may_be_bound_for_several_classes() -> None:
    tail = sender()
    tail.on_child_established("red", replace(GOLD, label_class="silver"))
    tail.bind("red", "gold", 0, 1)
    tail.bind("red", "silver", 0, 1)
    assert len(settle(tail)) == 2


# Limits.


@pytest.mark.parametrize("message_octets", [1200, 4096])
def test_messages_keep_to_their_octets(message_octets: int) -> None:
    tail = BindingSender(
        (1 << 64) - 1,
        replace(PEER, bindings=10000, bindings_per_message=65535),
        message_octets=message_octets,
    )
    named = replace(GOLD, label_class="x" * 64)
    tail.on_child_established("red", named)
    prefixes = [ip_network((0x20010DB8 << 96 | i, 128)) for i in range(1, 600)]
    tail.bind("red", named.label_class, 1048575, 3, prefixes)
    for label in range(500000, 500300):
        tail.bind("red", named.label_class, label, 3)
    lengths, count = [], 0
    while (octets := tail.next_message()) is not None:
        lengths.append(len(octets))
        message = LabelBinding.parse(octets)
        count += sum(len(entry.prefixes) for entry in message.entries if isinstance(entry, Entry))
        answer(tail, message)
    assert count == len(prefixes)
    assert max(lengths) <= message_octets - 104
    assert lengths[0] > (message_octets - 104) * 0.8


def test_messages_keep_to_the_peers_limit_for_one() -> None:
    tail = sender(replace(PEER, bindings_per_message=3))
    tail.bind("red", "gold", 100, 3, (P1, P2, P3))
    tail.bind("red", "gold", 101, 3)
    weights = [sum(entry.weight for entry in message.entries) for message in settle(tail)]
    assert max(weights) <= 3
    assert tail.table.count == 5


def test_peers_limit_for_all_is_not_exceeded_and_a_withdraw_makes_room() -> None:
    tail = sender(replace(PEER, bindings=3))
    tail.bind("red", "gold", 100, 3, (P1,))
    tail.bind("red", "gold", 101, 3)
    tail.bind("red", "gold", 102, 3)
    assert [message.entries for message in settle(tail)] == [(Entry(100, 3, (P1,)), Entry(101, 3))]
    tail.withdraw("red", "gold", 101)
    assert [message.operation for message in settle(tail)] == [Operation.WITHDRAW, Operation.ADD]
    assert tail.table.count == 3


def test_label_without_room_for_a_prefix_is_not_sent_as_per_vrf_label() -> None:
    tail = sender(replace(PEER, bindings_per_message=1))
    tail.bind("red", "gold", 100, 3, (P1,))
    assert tail.next_message() is None


def test_after_status_2_nothing_is_added_until_something_was_withdrawn() -> None:
    tail = bound_tail(P1)
    tail.bind("red", "gold", 101, 3)
    assert answer(tail, sent(tail), Status.TABLE_FULL) == (PeerTableFull(),)
    assert tail.next_message() is None
    tail.bind("red", "gold", 102, 3)
    assert tail.next_message() is None
    tail.withdraw("red", "gold", 100)
    assert [message.operation for message in settle(tail)] == [Operation.WITHDRAW, Operation.ADD]
    assert set(tail.table.labels(("red", "gold"))) == {101, 102}


# Refusals.


def test_refused_entry_is_reported_and_not_sent_again() -> None:
    tail = sender()
    tail.bind("red", "gold", 100, 3, (P1,))
    tail.bind("red", "gold", 101, 3, (P2,))
    events = answer(tail, sent(tail), Status.SOME_REFUSED, l100=Refusal.PREFIX)
    assert events == (BindingRefused("red", "gold", 100, Refusal.PREFIX, is_bound=False),)
    assert tail.next_message() is None
    assert set(tail.table.labels(("red", "gold"))) == {101}


def test_earlier_entry_stands_when_a_later_one_of_the_label_is_refused() -> None:
    tail = bound_tail(P1)
    tail.bind("red", "gold", 100, 3, (P2,))
    events = answer(tail, sent(tail), Status.SOME_REFUSED, l100=Refusal.PREFIX)
    assert events == (BindingRefused("red", "gold", 100, Refusal.PREFIX, is_bound=True),)
    tail.bind("red", "gold", 100, 3)
    answer(tail, sent(tail), Status.SOME_REFUSED, l100=Refusal.PREFIX)
    assert tail.next_message() is None
    assert set(tail.table.labels(("red", "gold"))[100].routes) == {P1}


def test_label_with_nothing_left_after_a_refusal_is_withdrawn() -> None:
    tail = bound_tail(P1)
    tail.on_last_child_closed("red", "gold", now=0.0)
    tail.on_child_established("red", GOLD)
    events = answer(tail, sent(tail), Status.SOME_REFUSED, l100=Refusal.PREFIX)
    assert events == (BindingRefused("red", "gold", 100, Refusal.PREFIX, is_bound=True),)
    assert answer(tail, sent(tail)) == (LabelWithdrawn("red", "gold", 100),)


def test_refused_withdraw_is_reported_and_not_sent_again() -> None:
    tail = bound_tail(P1)
    tail.withdraw("red", "gold", 100)
    events = answer(tail, sent(tail), Status.SOME_REFUSED, l100=Refusal.POLICY)
    assert events == (BindingRefused("red", "gold", 100, Refusal.POLICY, is_bound=False),)
    assert tail.next_message() is None


# Gaps, snapshots, and answers that end it.


def test_status_1_leads_to_a_snapshot_of_all() -> None:
    tail = bound_tail(P1)
    tail.bind("red", "gold", 101, 3)
    assert answer(tail, sent(tail), Status.GAP) == ()
    messages = settle(tail)
    assert [message.operation for message in messages] == [
        Operation.SNAPSHOT_BEGIN,
        Operation.ADD,
        Operation.SNAPSHOT_END,
    ]
    assert messages[1].entries == (Entry(100, 3, (P1,)), Entry(101, 3))
    assert [message.sequence for message in messages] == [3, 4, 5]


def test_label_left_out_of_a_snapshot_drains_at_its_end() -> None:
    tail = bound_tail(P1)
    tail.bind("red", "gold", 101, 3)
    answer(tail, sent(tail), Status.GAP)
    tail.withdraw("red", "gold", 100)
    events = [event for _ in range(3) for event in answer(tail, sent(tail))]
    assert events == [LabelWithdrawn("red", "gold", 100)]
    assert tail.next_message() is None


def test_peer_that_finds_a_gap_in_every_snapshot_ends_it() -> None:
    tail = bound_tail(P1)
    tail.bind("red", "gold", 101, 3)
    events: tuple[SenderEvent, ...] = ()
    for _ in range(20):
        octets = tail.next_message()
        if octets is None:
            break
        message = LabelBinding.parse(octets)
        is_begin = message.operation is Operation.SNAPSHOT_BEGIN
        events = answer(tail, message, Status.ACCEPTED if is_begin else Status.GAP)
    assert isinstance(events[0], BindingStopped)


def stopped_by(octets: bytes | None) -> None:
    tail = bound_tail(P1)
    tail.bind("red", "gold", 101, 3)
    sent(tail)
    events = tail.on_response(octets)
    assert isinstance(events[0], BindingStopped)
    assert set(events[1:]) == {LabelWithdrawn("red", "gold", 100), LabelWithdrawn("red", "gold", 101)}
    assert tail.stop_reason == events[0].reason
    tail.bind("red", "gold", 102, 3)
    assert tail.next_message() is None


def test_response_without_status_ends_bindings_in_this_session() -> None:
    stopped_by(None)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\xff",
        LabelStatus(EPOCH, 1, Status.ACCEPTED).encode(),
        LabelStatus(EPOCH, 3, Status.ACCEPTED).encode(),
        LabelStatus(EPOCH + 1, 2, Status.ACCEPTED).encode(),
        LabelStatus(EPOCH, 2, Status.SOME_REFUSED, ((100, Refusal.POLICY),)).encode(),
    ],
)
def test_status_that_does_not_answer_what_was_sent_ends_bindings_in_this_session(octets: bytes) -> None:
    stopped_by(octets)


@pytest.mark.parametrize("status", [Status.GAP, Status.TABLE_FULL])
def test_snapshot_begin_that_is_not_accepted_ends_bindings_in_this_session(status: Status) -> None:
    tail = bound_tail(P1)
    tail.bind("red", "gold", 101, 3)
    answer(tail, sent(tail), Status.GAP)
    assert sent(tail).operation is Operation.SNAPSHOT_BEGIN
    assert isinstance(tail.on_response(LabelStatus(EPOCH, 3, status).encode())[0], BindingStopped)


def test_full_table_in_answer_to_a_withdraw_ends_bindings_in_this_session() -> None:
    tail = bound_tail(P1)
    tail.withdraw("red", "gold", 100)
    assert isinstance(answer(tail, sent(tail), Status.TABLE_FULL)[0], BindingStopped)


def test_response_that_nobody_waits_for_is_ignored() -> None:
    assert sender().on_response(None) == ()


# Children and IKE rekey.


def test_bindings_are_sent_again_when_a_child_comes_again_within_30_seconds() -> None:
    tail = bound_tail(P1)
    tail.bind("red", "gold", 101, 3)
    settle(tail)
    tail.on_last_child_closed("red", "gold", now=0.0)
    assert tail.next_deadline() == 30.0
    tail.withdraw("red", "gold", 101)
    assert tail.next_message() is None
    tail.on_child_established("red", GOLD)
    assert tail.next_deadline() is None
    assert tail.expire(100.0) == ()
    again, withdrawn = settle(tail)
    assert (again.operation, again.entries) == (Operation.ADD, (Entry(100, 3, (P1,)),))
    assert (withdrawn.operation, withdrawn.entries) == (Operation.WITHDRAW, (Entry(101, 3),))


def test_further_child_sends_nothing_again() -> None:
    tail = bound_tail(P1)
    tail.on_child_established("red", GOLD)
    assert tail.next_message() is None


def test_labels_are_dropped_30_seconds_after_the_last_child() -> None:
    tail = bound_tail(P1)
    tail.bind("red", "gold", 101, 3)
    under_way = sent(tail)
    tail.on_last_child_closed("red", "gold", now=0.0)
    assert tail.expire(29.9) == ()
    assert set(tail.expire(30.0)) == {LabelDropped("red", "gold", 100), LabelDropped("red", "gold", 101)}
    assert answer(tail, under_way) == ()
    assert tail.table.count == 0
    tail.on_child_established("red", GOLD)
    assert tail.next_message() is None


def test_nothing_is_sent_during_an_ike_rekey_and_the_unanswered_is_resent_unchanged() -> None:
    tail = sender()
    tail.bind("red", "gold", 100, 3)
    octets = tail.next_message()
    tail.pause()
    tail.bind("red", "gold", 101, 3)
    assert tail.next_message() is None
    tail.resume()
    assert tail.next_message() == octets
    assert tail.next_message() is None
    assert octets is not None
    answer(tail, LabelBinding.parse(octets))
    assert sent(tail).sequence == 2


def test_message_answered_on_the_old_ike_sa_is_not_resent() -> None:
    tail = sender()
    tail.bind("red", "gold", 100, 3)
    message = sent(tail)
    tail.pause()
    answer(tail, message)
    tail.resume()
    assert tail.next_message() is None


# Against the head.


def converse(tail: BindingSender, head: BindingReceiver) -> list[SenderEvent]:
    events: list[SenderEvent] = []
    for _ in range(1000):
        octets = tail.next_message()
        if octets is None:
            return events
        events += tail.on_response(head.receive_binding(octets).status)
    raise AssertionError("the two do not come to rest")


def view(end: BindingSender | BindingReceiver, key: tuple[str, ClassId]) -> dict[int, set[Prefix | None]]:
    return {label: set(bound.routes) for label, bound in end.table.labels(key).items()}


KEYS: list[tuple[str, ClassId]] = [("red", "gold"), ("red", 0), ("blue", "gold")]
SELECTORS = {key: MplsVrfSelector(VrfId.parse_text(f"name:{key[0]}"), key[1]) for key in KEYS}
PREFIXES = [ip_network((10 << 24 | i << 8, 24)) for i in range(6)] + [
    ip_network((0x20010DB8 << 96 | i, 128)) for i in range(3)
]

Step: TypeAlias = tuple[str, int, int, list[Prefix]]
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(
        st.just("bind"), st.integers(0, 2), st.integers(0, 4), st.lists(st.sampled_from(PREFIXES), max_size=4)
    ),
    st.tuples(
        st.just("withdraw"),
        st.integers(0, 2),
        st.integers(0, 4),
        st.lists(st.sampled_from(PREFIXES), max_size=2),
    ),
    st.tuples(
        st.sampled_from(["talk", "duplicate", "lose head", "rekey"]), st.just(0), st.just(0), st.builds(list)
    ),
    st.tuples(st.sampled_from(["down", "up", "late"]), st.integers(0, 2), st.just(0), st.builds(list)),
)


@given(st.lists(steps, max_size=40), st.sampled_from([2, 3, 100]), st.sampled_from([6, 1000]))
@settings(max_examples=150, deadline=None)
def test_both_ends_come_to_hold_the_same_whatever_happens(
    script: list[Step], per_message: int, bindings: int
) -> None:
    peer = Capability(bindings, LABEL_BINDINGS, per_message)
    tail, head = BindingSender(EPOCH, peer), BindingReceiver(peer, peer)
    now = 0.0
    for key in KEYS:
        tail.on_child_established(key[0], SELECTORS[key])
        head.on_child_established(key[0], SELECTORS[key], EVERYTHING)
    for step, index, offset, prefixes in script:
        key, now = KEYS[index], now + 1.0
        label = 100 + 10 * index + offset
        if step == "bind":
            tail.bind(*key, label, 3, prefixes)
        elif step == "withdraw":
            tail.withdraw(*key, label, prefixes)
        elif step == "talk":
            converse(tail, head)
        elif step == "duplicate" and (octets := tail.next_message()) is not None:
            first, second = head.receive_binding(octets), head.receive_binding(octets)
            assert first.status == second.status
            assert second.changes == ()
            tail.on_response(second.status)
        elif step == "rekey" and (octets := tail.next_message()) is not None:
            head.receive_binding(octets)
            tail.pause()
            tail.resume()
        elif step == "lose head":  # the head forgets its epoch: the next message is a gap
            head = BindingReceiver(peer, peer)
            for each in KEYS:
                head.on_child_established(each[0], SELECTORS[each], EVERYTHING)
        elif step == "down":
            tail.on_last_child_closed(*key, now)
            head.on_last_child_closed(*key, now)
        elif step == "late":
            now += 40.0
            tail.expire(now)
            head.expire(now)
        elif step == "up":
            tail.on_child_established(key[0], SELECTORS[key])
            head.on_child_established(key[0], SELECTORS[key], EVERYTHING)
        assert head.table.count <= bindings
    for key in KEYS:
        tail.on_child_established(key[0], SELECTORS[key])
        head.on_child_established(key[0], SELECTORS[key], EVERYTHING)
    tail.bind("red", "gold", 199, 3)  # something to say, so that a lost head is noticed
    converse(tail, head)
    assert tail.stop_reason is None or "gap" in tail.stop_reason
    if tail.stop_reason is None and tail.table.count < bindings - 1:
        for key in KEYS:
            assert view(tail, key) == view(head, key)
        assert head.table.count == tail.table.count


def test_prefix_that_moved_and_was_withdrawn_before_it_was_sent_is_taken_from_its_old_label() -> None:
    tail = bound_tail(P1, P2)
    tail.bind("red", "gold", 101, 3, (P1,))
    tail.withdraw("red", "gold", 101)
    (message,) = settle(tail)
    assert (message.operation, message.entries) == (Operation.WITHDRAW, (Entry(100, 3, (P1,)),))


def test_a_message_looks_only_at_what_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    tail = sender(Capability(bindings=10_000, features=LABEL_BINDINGS, bindings_per_message=100))
    for label in range(100, 600):
        tail.bind("red", "gold", label, 3)
    settle(tail)
    looked_at: list[int] = []
    original = BindingTable.is_confirmed

    def counting(table: BindingTable, key: Key, label: int, route: Route) -> bool:
        looked_at.append(label)
        return original(table, key, label, route)

    monkeypatch.setattr(BindingTable, "is_confirmed", counting)
    tail.bind("red", "gold", 700, 3)
    settle(tail)
    assert set(looked_at) == {700}
