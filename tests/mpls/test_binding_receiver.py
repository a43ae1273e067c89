"""The head's end of label bindings: each row of the table of WIRE 5.2, operations (5.3), codes (5.4)."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from mpls import cbor
from mpls.binding_receiver import Answer, BindingReceiver
from mpls.binding_table import RouteAdded, RouteRemoved
from mpls.bindings import Entry, LabelBinding, LabelStatus, Operation, Prefix, Refusal, Status
from mpls.capability import LABEL_BINDINGS, MPLS_IN_IP, Capability
from mpls.identifiers import ClassId, VrfId
from mpls.selectors import MplsVrfSelector

RED, BLUE = VrfId.parse_text("rd:65000:100"), VrfId.parse_text("name:blue")
EPOCH = 1000
WITH = Capability(bindings=20, features=LABEL_BINDINGS | MPLS_IN_IP, bindings_per_message=10)
WITHOUT = replace(WITH, features=MPLS_IN_IP)
ACCEPT = tuple(ip_network(text) for text in ("10.0.0.0/8", "2001:db8::/32"))
GOLD = MplsVrfSelector(RED, "gold", ranges=((100, 200),))
P1, P2, P3 = (ip_network(text) for text in ("10.1.0.0/16", "10.2.0.0/16", "2001:db8:1::/48"))


def receiver(own: Capability = WITH) -> BindingReceiver:
    head = BindingReceiver(own, WITH)
    head.on_child_established("red", GOLD, ACCEPT)
    head.on_child_established("red", replace(GOLD, label_class=0), ACCEPT)
    head.on_child_established("blue", replace(GOLD, vrf=BLUE), ACCEPT)
    return head


def message(
    sequence: int,
    *entries: Entry,
    operation: Operation = Operation.ADD,
    epoch: int = EPOCH,
    vrf: VrfId = RED,
    label_class: ClassId = "gold",
) -> bytes:
    if not operation.has_entries:
        return LabelBinding(epoch, sequence, operation).encode()
    return LabelBinding(epoch, sequence, operation, vrf, label_class, entries).encode()


def begin(sequence: int, epoch: int = EPOCH) -> bytes:
    return message(sequence, operation=Operation.SNAPSHOT_BEGIN, epoch=epoch)


def end(sequence: int, epoch: int = EPOCH) -> bytes:
    return message(sequence, operation=Operation.SNAPSHOT_END, epoch=epoch)


def withdraw(sequence: int, *entries: Entry) -> bytes:
    return message(sequence, *entries, operation=Operation.WITHDRAW)


def status(answer: Answer) -> Status:
    assert answer.status is not None
    return LabelStatus.parse(answer.status).status


def refused(answer: Answer) -> dict[int, Refusal]:
    assert answer.status is not None
    return dict(LabelStatus.parse(answer.status).refused)


def bound(
    head: BindingReceiver, vrf: str = "red", label_class: ClassId = "gold"
) -> dict[int, set[Prefix | None]]:
    return {label: set(it.routes) for label, it in head.table.labels((vrf, label_class)).items()}


def added(prefix: Prefix | None, label: int, payload: int = 3) -> RouteAdded:
    return RouteAdded("red", "gold", prefix, label, payload)


def removed(prefix: Prefix | None, label: int) -> RouteRemoved:
    return RouteRemoved("red", "gold", prefix, label)


FIRST = message(1, Entry(100, 3, (P1,)))


def after_first(own: Capability = WITH) -> BindingReceiver:
    head = receiver(own)
    assert status(head.receive_binding(FIRST)) is Status.ACCEPTED
    return head


# The rows of WIRE 5.2.


@pytest.mark.parametrize(("own", "peer"), [(None, WITH), (WITH, None), (WITHOUT, WITH), (WITH, WITHOUT)])
def test_row_no_capability_or_no_bindings_feature_gets_a_response_without_status(
    own: Capability | None, peer: Capability | None
) -> None:
    head = BindingReceiver(own, peer)
    head.on_child_established("red", GOLD, ACCEPT)
    assert head.receive_binding(FIRST) == Answer(None)
    assert head.table.count == 0


def test_row_unreadable_gets_a_response_without_status_and_is_counted() -> None:
    head = after_first()
    duplicate = cbor.encode(
        {0: 1, 1: [0, RED.octets], 2: "gold", 3: EPOCH, 4: 2, 5: 0, 6: [[100, 3, [], []], [100, 3, [], []]]}
    )
    for count, octets in enumerate((b"", b"\xff", FIRST[:-1], FIRST + b"\0", duplicate), start=1):
        assert head.receive_binding(octets) == Answer(None)
        assert head.malformed == count
    assert bound(head) == {100: {P1}}
    assert status(head.receive_binding(message(2, Entry(101, 3)))) is Status.ACCEPTED


def test_row_snapshot_begin_in_another_epoch_is_accepted_whatever_its_sequence() -> None:
    head = after_first()
    assert status(head.receive_binding(begin(7, epoch=EPOCH + 1))) is Status.ACCEPTED
    assert status(head.receive_binding(message(8, Entry(101, 3), epoch=EPOCH + 1))) is Status.ACCEPTED
    assert status(head.receive_binding(message(9, Entry(102, 3)))) is Status.GAP
    fresh = receiver()
    assert status(fresh.receive_binding(begin(5))) is Status.ACCEPTED
    assert status(fresh.receive_binding(message(6, Entry(101, 3)))) is Status.ACCEPTED


def test_row_snapshot_begin_later_in_this_epoch_is_accepted_whatever_the_gap() -> None:
    head = after_first()
    assert status(head.receive_binding(begin(50))) is Status.ACCEPTED
    assert status(head.receive_binding(message(51, Entry(101, 3)))) is Status.ACCEPTED
    assert status(head.receive_binding(begin(50))) is Status.ACCEPTED  # the row of lower sequences: no effect
    assert bound(head) == {100: {P1}, 101: {None}}


def test_row_first_add_sets_the_epoch() -> None:
    head = receiver()
    answer = head.receive_binding(FIRST)
    assert answer.status == LabelStatus(EPOCH, 1, Status.ACCEPTED).encode()
    assert answer.changes == (added(P1, 100),)


def test_row_first_message_other_than_add_with_sequence_one_is_a_gap() -> None:
    entry = Entry(100, 3)
    for octets in (message(2, entry), withdraw(1, entry), end(1)):
        head = receiver()
        answer = head.receive_binding(octets)
        assert status(answer) is Status.GAP
        assert answer.changes == ()
        assert status(head.receive_binding(FIRST)) is Status.ACCEPTED


def test_row_another_epoch_is_a_gap_without_effect() -> None:
    head = after_first()
    for sequence in (1, 2, 3):
        answer = head.receive_binding(message(sequence, Entry(101, 3), epoch=EPOCH + 1))
        assert answer == Answer(LabelStatus(EPOCH + 1, sequence, Status.GAP).encode())
    assert bound(head) == {100: {P1}}
    assert status(head.receive_binding(message(2, Entry(101, 3)))) is Status.ACCEPTED


def test_row_last_sequence_with_equal_octets_gets_the_same_answer_and_has_no_effect() -> None:
    head = after_first()
    octets = message(2, Entry(99, 3), Entry(101, 3))
    first = head.receive_binding(octets)
    assert refused(first) == {99: Refusal.OUTSIDE}
    head.on_last_child_closed("red", "gold", 0.0)
    assert head.receive_binding(octets) == Answer(first.status)
    head.receive_binding(begin(3))
    assert status(head.receive_binding(begin(3))) is Status.ACCEPTED
    head.receive_binding(end(4))
    assert head.receive_binding(end(4)) == Answer(LabelStatus(EPOCH, 4, Status.ACCEPTED).encode())


def test_row_last_sequence_with_other_octets_is_a_gap() -> None:
    head = after_first()
    assert status(head.receive_binding(message(1, Entry(101, 3)))) is Status.GAP
    assert status(head.receive_binding(begin(1))) is Status.GAP
    assert bound(head) == {100: {P1}}


def test_row_lower_sequence_is_accepted_without_effect() -> None:
    head = after_first()
    head.receive_binding(message(2, Entry(101, 3)))
    for octets in (FIRST, withdraw(1, Entry(101, 3)), end(1), begin(1), message(1, Entry(99, 3))):
        assert head.receive_binding(octets) == Answer(LabelStatus(EPOCH, 1, Status.ACCEPTED).encode())
    assert bound(head) == {100: {P1}, 101: {None}}


def test_row_sequence_too_high_is_a_gap_without_effect() -> None:
    head = after_first()
    for octets in (
        message(3, Entry(101, 3)),
        withdraw(3, Entry(100, 3)),
        end(3),
        message((1 << 64) - 1, Entry(9999, 3)),
    ):
        assert status(head.receive_binding(octets)) is Status.GAP
    assert bound(head) == {100: {P1}}


def test_row_snapshot_end_without_a_begin_is_a_gap_and_not_the_last() -> None:
    head = after_first()
    assert status(head.receive_binding(end(2))) is Status.GAP
    assert bound(head) == {100: {P1}}
    assert status(head.receive_binding(message(2, Entry(101, 3)))) is Status.ACCEPTED


def test_row_next_sequence_is_applied_and_becomes_the_last_also_when_refused_or_full() -> None:
    head = after_first()
    assert status(head.receive_binding(message(2, Entry(101, 3, (P2,))))) is Status.ACCEPTED
    assert status(head.receive_binding(message(3, Entry(99, 3)))) is Status.SOME_REFUSED
    many = [Entry(label, 3) for label in range(110, 122)]
    assert status(head.receive_binding(message(4, *many))) is Status.TABLE_FULL
    assert status(head.receive_binding(message(5, Entry(102, 3)))) is Status.ACCEPTED
    assert bound(head) == {100: {P1}, 101: {P2}, 102: {None}}


# Operations, WIRE 5.3.


def test_prefix_moves_to_the_label_that_lists_it_and_the_others_stay() -> None:
    head = receiver()
    head.receive_binding(message(1, Entry(100, 3, (P1, P2))))
    answer = head.receive_binding(message(2, Entry(101, 3, (P2, P3))))
    assert answer.changes == (added(P2, 101), added(P3, 101))
    assert bound(head) == {100: {P1}, 101: {P2, P3}}
    assert head.receive_binding(withdraw(3, Entry(100, 3))).changes == (removed(P1, 100),)


def test_empty_lists_bind_a_per_vrf_label() -> None:
    head = receiver()
    assert head.receive_binding(message(1, Entry(100, 1))).changes == (added(None, 100, payload=1),)
    assert head.receive_binding(message(2, Entry(100, 1, (P1,)))).changes == (added(P1, 100, payload=1),)
    assert set(head.receive_binding(withdraw(3, Entry(100, 1))).changes) == {
        removed(None, 100),
        removed(P1, 100),
    }


def test_withdraw_takes_the_listed_prefixes_and_without_any_the_label() -> None:
    head = receiver()
    head.receive_binding(message(1, Entry(100, 3, (P1, P2))))
    assert head.receive_binding(withdraw(2, Entry(100, 1, (P1,)))).changes == (removed(P1, 100),)
    assert head.receive_binding(withdraw(3, Entry(100, 2, (P2,)))).changes == (removed(P2, 100),)
    assert bound(head) == {100: set()}
    assert head.receive_binding(withdraw(4, Entry(100, 3))).changes == ()
    assert bound(head) == {}
    assert head.table.count == 0


def test_withdraw_of_what_is_not_there_is_accepted() -> None:
    head = after_first()
    answer = head.receive_binding(withdraw(2, Entry(150, 3), Entry(100, 3, (P2,)), Entry(5000, 1, (P1,))))
    assert status(answer) is Status.ACCEPTED
    assert answer.changes == ()
    assert bound(head) == {100: {P1}}


def test_vrfs_and_classes_have_tables_of_their_own() -> None:
    head = after_first()
    head.receive_binding(message(2, Entry(101, 3, (P1,)), label_class=0))
    head.receive_binding(message(3, Entry(102, 3, (P1,)), vrf=BLUE))
    assert (bound(head), bound(head, "red", 0), bound(head, "blue")) == (
        {100: {P1}},
        {101: {P1}},
        {102: {P1}},
    )


def test_snapshot_keeps_what_it_names_and_removes_the_rest_at_its_end() -> None:
    head = receiver()
    head.receive_binding(message(1, Entry(100, 3, (P1, P2)), Entry(101, 3), Entry(102, 3, (P3,))))
    assert head.receive_binding(begin(2)).changes == ()
    assert bound(head) == {100: {P1, P2}, 101: {None}, 102: {P3}}
    assert head.receive_binding(message(3, Entry(100, 3, (P1,)), Entry(103, 3))).changes == (
        added(None, 103),
    )
    assert set(head.receive_binding(end(4)).changes) == {
        removed(P2, 100),
        removed(None, 101),
        removed(P3, 102),
    }
    assert bound(head) == {100: {P1}, 103: {None}}
    assert head.table.count == 3


def test_prefix_moved_inside_a_snapshot_survives_its_old_label() -> None:
    head = after_first()
    head.receive_binding(begin(2))
    assert head.receive_binding(message(3, Entry(101, 3, (P1,)))).changes == (added(P1, 101),)
    assert head.receive_binding(end(4)).changes == ()
    assert bound(head) == {101: {P1}}


def test_withdraw_inside_a_snapshot_is_applied() -> None:
    head = after_first()
    head.receive_binding(begin(2))
    assert head.receive_binding(withdraw(3, Entry(100, 3))).changes == (removed(P1, 100),)
    assert head.receive_binding(end(4)).changes == ()


def test_new_begin_restarts_the_snapshot() -> None:
    head = after_first()
    head.receive_binding(begin(2))
    head.receive_binding(message(3, Entry(100, 3, (P1,))))
    head.receive_binding(begin(9))
    assert head.receive_binding(end(10)).changes == (removed(P1, 100),)
    assert status(head.receive_binding(end(11))) is Status.GAP


def test_snapshot_in_a_new_epoch_makes_what_is_there_stale() -> None:
    head = after_first()
    head.receive_binding(begin(1, epoch=EPOCH + 5))
    assert bound(head) == {100: {P1}}
    assert head.receive_binding(end(2, epoch=EPOCH + 5)).changes == (removed(P1, 100),)


# Codes, WIRE 5.4.


@pytest.mark.parametrize(
    ("vrf", "label_class"), [(VrfId.parse_text("rd:1:1"), "gold"), (RED, "silver"), (BLUE, 0)]
)
def test_code_1_refuses_every_entry_of_an_unknown_or_unauthorised_class(
    vrf: VrfId, label_class: ClassId
) -> None:
    head = receiver()
    answer = head.receive_binding(message(1, Entry(100, 3), Entry(5000, 3), vrf=vrf, label_class=label_class))
    assert refused(answer) == {100: Refusal.POLICY, 5000: Refusal.POLICY}
    assert head.table.count == 0


def test_code_1_when_there_is_no_child_any_more() -> None:
    head = after_first()
    head.on_last_child_closed("red", "gold", now=0.0)
    assert refused(head.receive_binding(message(2, Entry(101, 3)))) == {101: Refusal.POLICY}
    assert status(head.receive_binding(message(3, Entry(101, 3), label_class=0))) is Status.ACCEPTED


def test_code_4_explicit_null_only_when_the_map_allows_it() -> None:
    head = receiver()
    assert refused(head.receive_binding(message(1, Entry(0, 1), Entry(2, 2)))) == {
        0: Refusal.BAD_VALUE,
        2: Refusal.BAD_VALUE,
    }
    head.on_child_established("red", replace(GOLD, special=1), ACCEPT)
    assert refused(head.receive_binding(message(2, Entry(0, 1), Entry(2, 2)))) == {2: Refusal.BAD_VALUE}


def test_code_4_payload_other_than_bound() -> None:
    head = receiver()
    head.receive_binding(message(1, Entry(100, 1)))
    assert refused(head.receive_binding(message(2, Entry(100, 3)))) == {100: Refusal.BAD_VALUE}
    head.receive_binding(withdraw(3, Entry(100, 3)))
    assert status(head.receive_binding(message(4, Entry(100, 3)))) is Status.ACCEPTED


def test_code_4_bad_entries_leave_the_good_ones() -> None:
    head = receiver()
    entries: list[Any] = [
        [100, 1, [[16, b"\x0a\x01"]], []],
        [3, 3, [], []],
        [101, 1, [[8, b"\x0a\x01"]], []],
        [102, 0, [], []],
    ]
    octets = cbor.encode({0: 1, 1: [0, RED.octets], 2: "gold", 3: EPOCH, 4: 1, 5: 0, 6: entries})
    answer = head.receive_binding(octets)
    assert refused(answer) == {3: Refusal.BAD_VALUE, 101: Refusal.BAD_VALUE, 102: Refusal.BAD_VALUE}
    assert bound(head) == {100: {P1}}


def test_code_2_label_of_another_vrf_or_class() -> None:
    head = after_first()
    assert refused(head.receive_binding(message(2, Entry(100, 3), label_class=0))) == {100: Refusal.DUPLICATE}
    assert refused(head.receive_binding(message(3, Entry(100, 3), vrf=BLUE))) == {100: Refusal.DUPLICATE}
    other = message(4, Entry(100, 3), operation=Operation.WITHDRAW, vrf=BLUE)
    assert refused(head.receive_binding(other)) == {100: Refusal.DUPLICATE}
    assert bound(head) == {100: {P1}}


def test_explicit_null_may_stand_for_several_classes() -> None:
    head = receiver()
    head.on_child_established("red", replace(GOLD, special=1), ACCEPT)
    head.on_child_established("blue", replace(GOLD, vrf=BLUE, special=1), ACCEPT)
    assert status(head.receive_binding(message(1, Entry(0, 1)))) is Status.ACCEPTED
    assert status(head.receive_binding(message(2, Entry(0, 1), vrf=BLUE))) is Status.ACCEPTED
    assert status(head.receive_binding(withdraw(3, Entry(0, 1)))) is Status.ACCEPTED
    assert bound(head, "blue") == {0: {None}}


def test_code_5_label_outside_the_ranges_of_the_map() -> None:
    answer = receiver().receive_binding(message(1, Entry(99, 3), Entry(100, 3), Entry(200, 3), Entry(201, 3)))
    assert refused(answer) == {99: Refusal.OUTSIDE, 201: Refusal.OUTSIDE}


@pytest.mark.parametrize("text", ["11.0.0.0/8", "10.0.0.0/7", "0.0.0.0/0", "::/0", "2001:db9::/32"])
def test_code_3_prefix_that_is_not_accepted_refuses_the_entry_whole(text: str) -> None:
    head = receiver()
    answer = head.receive_binding(message(1, Entry(100, 3, (P1, ip_network(text))), Entry(101, 3, (P2,))))
    assert refused(answer) == {100: Refusal.PREFIX}
    assert bound(head) == {101: {P2}}


def test_no_filter_means_deny() -> None:
    head = BindingReceiver(WITH, WITH)
    head.on_child_established("red", GOLD, ())
    answer = head.receive_binding(message(1, Entry(100, 3, (P1,)), Entry(101, 3)))
    assert refused(answer) == {100: Refusal.PREFIX}
    assert bound(head) == {101: {None}}


def test_first_code_that_fits_is_given() -> None:
    head = after_first()
    head.receive_binding(message(2, Entry(150, 1), label_class=0))
    aliens = [(ip_network(f"11.{i}.0.0/16"),) for i in range(4)]
    outside = replace(GOLD, ranges=((100, 120),))
    head.on_child_established("red", outside, ACCEPT)
    answer = head.receive_binding(
        message(
            3,
            Entry(100, 1, aliens[0]),
            Entry(150, 3, aliens[1]),
            Entry(160, 3, aliens[2]),
            Entry(110, 3, aliens[3]),
        )
    )
    assert refused(answer) == {
        100: Refusal.BAD_VALUE,
        150: Refusal.DUPLICATE,
        160: Refusal.OUTSIDE,
        110: Refusal.PREFIX,
    }


def test_earlier_entry_of_a_label_stands_when_a_later_one_is_refused() -> None:
    head = after_first()
    assert refused(head.receive_binding(message(2, Entry(100, 3, (ip_network("11.0.0.0/8"),))))) == {
        100: Refusal.PREFIX
    }
    assert bound(head) == {100: {P1}}


def test_withdraw_is_applied_though_policy_has_been_narrowed() -> None:
    head = after_first()
    head.on_child_established("red", replace(GOLD, ranges=((150, 160),)), ())
    assert head.receive_binding(withdraw(2, Entry(100, 3, (P1,)))).changes == (removed(P1, 100),)
    assert status(head.receive_binding(withdraw(3, Entry(100, 3)))) is Status.ACCEPTED
    assert bound(head) == {}


# Limits and ends.


def test_full_table_applies_nothing_of_the_message() -> None:
    head = after_first(replace(WITH, bindings=5))
    full = message(2, Entry(101, 3, (P2,)), Entry(102, 3, (P3,)))
    answer = head.receive_binding(full)
    assert status(answer) is Status.TABLE_FULL
    assert answer.changes == ()
    assert bound(head) == {100: {P1}}
    assert status(head.receive_binding(message(3, Entry(101, 3, (P1, P2)), Entry(102, 3)))) is Status.ACCEPTED
    assert head.table.count == 5
    assert status(head.receive_binding(message(4, Entry(102, 3, (P1, P2))))) is Status.ACCEPTED
    assert status(head.receive_binding(message(5, Entry(103, 3)))) is Status.TABLE_FULL


def test_refused_entries_need_no_room() -> None:
    head = after_first(replace(WITH, bindings=3))
    assert status(head.receive_binding(message(2, Entry(99, 3, (P2,)), Entry(101, 3)))) is Status.SOME_REFUSED
    assert bound(head) == {100: {P1}, 101: {None}}


def test_message_over_the_limit_of_one_message_is_answered_as_full() -> None:
    head = after_first(replace(WITH, bindings_per_message=2))
    assert status(head.receive_binding(message(2, Entry(100, 3, (P1, P2))))) is Status.TABLE_FULL
    assert status(head.receive_binding(message(3, Entry(100, 3, (P2,))))) is Status.ACCEPTED


def test_bindings_go_30_seconds_after_the_last_child() -> None:
    head = after_first()
    head.receive_binding(message(2, Entry(101, 3), label_class=0))
    head.on_last_child_closed("red", "gold", now=100.0)
    assert head.next_deadline() == 130.0
    assert head.expire(129.9) == ()
    assert head.expire(130.0) == (removed(P1, 100),)
    assert head.next_deadline() is None
    assert (bound(head), bound(head, "red", 0)) == ({}, {101: {None}})


def test_child_that_comes_again_in_time_keeps_the_bindings() -> None:
    head = after_first()
    head.on_last_child_closed("red", "gold", now=100.0)
    head.on_child_established("red", GOLD, ACCEPT)
    assert head.next_deadline() is None
    assert head.expire(1000.0) == ()
    assert head.receive_binding(message(2, Entry(100, 3, (P1,)))).changes == ()
    assert bound(head) == {100: {P1}}


def test_child_of_the_other_ends_id_serves_the_same_vrf() -> None:
    head = after_first()
    head.on_child_established("red", replace(GOLD, vrf=VrfId.parse_text("rd:65001:7")), ACCEPT)
    other = message(2, Entry(100, 3), operation=Operation.WITHDRAW, vrf=VrfId.parse_text("rd:65001:7"))
    assert head.receive_binding(other).changes == (removed(P1, 100),)


def test_ended_session_removes_every_route() -> None:
    head = after_first()
    head.receive_binding(message(2, Entry(101, 3, (P1,)), vrf=BLUE))
    assert set(head.close()) == {removed(P1, 100), RouteRemoved("blue", "gold", P1, 101)}
    assert head.table.count == 0
