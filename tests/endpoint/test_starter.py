"""Who brings up what, and when, on bare numbers: no node, no packets, no engine (WIRE 4.3, 3.6)."""

from dataclasses import replace

import pytest

from endpoint.plan import plan_peers
from endpoint.starter import (
    OTHER_END_WAITS_S,
    PEER_BACK_OFF_S,
    REFUSAL_BACK_OFF_S,
    SETTLED_S,
    ChildState,
    Create,
    Initiate,
    PeerState,
    Starter,
)
from ike.numbers import NotifyType
from tests.endpoint.pair import STATIC_GRANTS, configuration

NOW = 1000.0
CHILDREN = ["red/gold", "red/standard", "blue/0"]
INITIATE = [Initiate("pe2")]
SESSION = 7


def starter(settings: str = "") -> Starter:
    """Of pe1 with the one peer pe2; without `settings` it starts on traffic."""
    return Starter(plan_peers(configuration(1, settings)))


def peer(one: Starter) -> PeerState:
    return one.peers["pe2"]


def child(one: Starter, name: str = "red/gold") -> ChildState:
    return peer(one).children[name]


def establish(
    one: Starter, now: float = NOW, *, is_opener: bool = True, is_native: bool = True, session: int = SESSION
) -> None:
    one.on_established("pe2", session, is_opener=is_opener, is_native=is_native, now=now)


def up(settings: str = "", *, is_opener: bool = True) -> Starter:
    made = starter(settings)
    establish(made, is_opener=is_opener)
    return made


def creates(*names: str, session: int = SESSION) -> list[Initiate | Create]:
    return [Create("pe2", session, name) for name in names]


# --- what wants something


def test_traffic_starts_nothing_until_a_packet_asks() -> None:
    one = starter()
    assert one.due(NOW) == [] and one.next_deadline() is None
    assert one.ask("pe2", "red/gold")
    assert one.due(NOW) == INITIATE


def test_boot_starts_at_once() -> None:
    one = starter('start = "boot"')
    assert one.next_deadline() == 0.0
    assert one.due(NOW) == INITIATE


def test_none_refuses_packets_and_starts_only_by_command() -> None:
    one = starter('start = "none"')
    assert not one.ask("pe2", "red/gold")
    assert one.due(NOW) == [] and one.next_deadline() is None
    one.want("pe2")
    assert one.due(NOW) == INITIATE


def test_peer_of_unknown_address_is_never_called() -> None:
    config = configuration(1)
    one = Starter(plan_peers(replace(config, peers=(replace(config.peers[0], addresses=("any",)),))))
    one.want("pe2")
    assert one.due(NOW) == [] and one.next_deadline() is None
    establish(one, is_opener=False)
    assert one.due(NOW + OTHER_END_WAITS_S) == creates(*CHILDREN), "once it has called it is like any other"


def test_an_initiation_is_begun_once() -> None:
    one = starter('start = "boot"')
    assert one.due(NOW) == INITIATE
    one.on_initiated("pe2", SESSION)
    assert one.due(NOW) == [] and one.next_deadline() is None


def test_a_session_creates_only_what_is_wanted_and_each_once() -> None:
    one = up()
    one.ask("pe2", "blue/0")
    assert one.due(NOW) == creates("blue/0")
    assert one.due(NOW) == [], "it is under way"
    one.on_child("pe2", "blue/0", NOW)
    assert one.due(NOW) == [] and one.next_deadline() is None


def test_boot_creates_every_child_in_the_order_of_the_configuration() -> None:
    assert up('start = "boot"').due(NOW) == creates(*CHILDREN)


def test_children_of_the_other_kind_are_left_alone() -> None:
    plans = plan_peers(
        configuration(1, 'selectors = "native-or-plain"\nstart = "boot"', grants=STATIC_GRANTS)
    )
    native, plain = Starter(plans), Starter(plans)
    establish(native, is_native=True)
    establish(plain, is_native=False)
    assert native.due(NOW) == creates(*CHILDREN)
    assert plain.due(NOW) == creates("mpls")


# --- back-off of the IKE SA


def fail(one: Starter, now: float, *, refused: bool = False, begun: bool = False) -> None:
    one.ask("pe2", "red/gold")
    assert begun or one.due(now) == INITIATE
    one.on_initiated("pe2", SESSION)
    one.on_gone("pe2", SESSION, now, failed=True, refused=refused)


@pytest.mark.parametrize("refused", [False, True])
def test_back_off_doubles_up_to_its_limit(refused: bool) -> None:
    first, longest = REFUSAL_BACK_OFF_S if refused else PEER_BACK_OFF_S
    one, now = starter('start = "boot"'), NOW
    expected = first
    for _ in range(30):
        fail(one, now, refused=refused)
        again = one.next_deadline()
        assert again == now + expected
        assert one.due(again - 0.001) == []
        now, expected = again, min(longest, 2 * expected)
    assert expected == longest


def test_traffic_is_not_tried_again_by_itself_but_waits_for_the_next_packet() -> None:
    one = starter()
    fail(one, NOW)
    assert one.next_deadline() is None
    one.ask("pe2", "red/gold")
    assert one.next_deadline() == NOW + PEER_BACK_OFF_S[0], "and a packet does not shorten the back-off"
    assert one.due(NOW) == []


def test_a_command_ends_the_back_off() -> None:
    one = starter('start = "boot"')
    fail(one, NOW)
    one.want("pe2")
    assert one.due(NOW) == INITIATE
    one.on_gone("pe2", SESSION, NOW, failed=False)
    fail(one, NOW)
    assert one.next_deadline() == NOW + PEER_BACK_OFF_S[0], "it begins at its first step again"


def test_an_ike_sa_that_lasted_ends_the_back_off() -> None:
    one = starter('start = "boot"')
    fail(one, NOW)
    one.on_initiated("pe2", SESSION)
    establish(one, NOW + 3)
    one.on_gone("pe2", SESSION, NOW + 3 + SETTLED_S, failed=False)
    assert one.due(NOW + 3 + SETTLED_S) == INITIATE
    fail(one, NOW + 3 + SETTLED_S, begun=True)
    assert one.next_deadline() == NOW + 3 + SETTLED_S + PEER_BACK_OFF_S[0]


def test_an_ike_sa_that_did_not_last_counts_as_one_that_failed() -> None:
    one, now = starter('start = "boot"'), NOW
    for wait in (2.0, 4.0, 8.0):
        assert one.due(now) == INITIATE
        one.on_initiated("pe2", SESSION)
        establish(one, now)
        one.on_gone("pe2", SESSION, now + 1, failed=False)
        assert one.next_deadline() == now + 1 + wait
        now += 1 + wait


def test_what_could_not_even_be_tried_backs_off_as_well() -> None:
    one = starter('start = "boot"')
    now, wait = NOW, PEER_BACK_OFF_S[0]
    for _ in range(3):
        assert one.due(now) == INITIATE
        one.on_not_initiated("pe2", now)
        assert one.due(now) == []
        assert one.next_deadline() == now + wait
        now, wait = now + wait, 2 * wait


def test_the_end_of_another_session_changes_nothing() -> None:
    one = up('start = "boot"')
    one.on_gone("pe2", SESSION + 1, NOW, failed=True, refused=True)
    assert peer(one).is_up and peer(one).session == SESSION
    assert one.due(NOW) == creates(*CHILDREN)


def test_a_session_that_ends_is_begun_again_by_boot_and_not_by_traffic() -> None:
    for settings, expected in (('start = "boot"', INITIATE), ("", [])):
        one = up(settings)
        one.ask("pe2", "red/gold")
        one.due(NOW)
        one.on_gone("pe2", SESSION, NOW + SETTLED_S, failed=False)
        assert one.due(NOW + SETTLED_S) == expected


# --- back-off of a child


def test_a_refused_child_backs_off_alone_and_doubles_up_to_its_limit() -> None:
    one, now = up('start = "boot"'), NOW
    one.due(now)
    one.on_child("pe2", "red/standard", NOW)
    one.on_child("pe2", "blue/0", NOW)
    expected, longest = REFUSAL_BACK_OFF_S
    for _ in range(12):
        one.on_child_failed("pe2", "red/gold", now, NotifyType.TS_UNACCEPTABLE, "no such class")
        assert child(one).is_down and not child(one, "blue/0").is_down
        again = one.next_deadline()
        assert again == now + expected
        assert one.due(again - 0.001) == []
        assert one.due(again) == creates("red/gold")
        now, expected = again, min(longest, 2 * expected)
    assert expected == longest
    assert (child(one).notify_type, child(one).detail) == (NotifyType.TS_UNACCEPTABLE, "no such class")


def test_packets_for_a_child_that_is_down_do_not_wait() -> None:
    one = up()
    assert one.ask("pe2", "red/gold")
    one.due(NOW)
    one.on_child_failed("pe2", "red/gold", NOW)
    assert not one.ask("pe2", "red/gold")
    assert one.ask("pe2", "red/standard")


def test_a_child_that_came_is_down_no_more_and_one_that_lasted_begins_anew() -> None:
    one = up('start = "boot"')
    one.due(NOW)
    one.on_child_failed("pe2", "red/gold", NOW)
    one.on_child("pe2", "red/gold", NOW)
    assert not child(one).is_down
    one.on_child_gone("pe2", "red/gold", NOW + SETTLED_S)
    one.on_child_failed("pe2", "red/gold", NOW + SETTLED_S)
    assert child(one).back_off.not_before == NOW + SETTLED_S + REFUSAL_BACK_OFF_S[0]


def test_a_child_that_the_peer_deletes_at_once_is_made_more_and_more_slowly() -> None:
    one, now = up('start = "boot"'), NOW
    for name in ("red/standard", "blue/0"):
        one.on_child("pe2", name, NOW)
    for wait in (2.0, 4.0, 8.0):
        assert one.due(now) == creates("red/gold")
        one.on_child("pe2", "red/gold", now)
        one.on_child_gone("pe2", "red/gold", now, by_peer=True)
        assert child(one).is_down
        assert one.next_deadline() == now + wait
        now += wait


def test_a_failed_second_child_of_a_kind_does_not_take_the_kind_down() -> None:
    one = up()
    one.on_child("pe2", "red/gold", NOW)
    one.on_child_failed("pe2", "red/gold", NOW, NotifyType.NO_ADDITIONAL_SAS)
    assert not child(one).is_down
    assert one.ask("pe2", "red/gold")


def test_a_command_tries_a_refused_child_at_once_and_that_one_only() -> None:
    one = up()
    for name in ("red/gold", "red/standard"):
        one.ask("pe2", name)
    one.due(NOW)
    for name in ("red/gold", "red/standard"):
        one.on_child_failed("pe2", name, NOW)
    one.want("pe2", "red/gold")
    assert one.due(NOW) == creates("red/gold")
    assert child(one, "red/standard").is_down


# --- who creates: the opener; the other end after a while


def test_the_end_that_did_not_open_leaves_the_creation_to_the_opener_for_a_while() -> None:
    one = up(is_opener=False)
    one.ask("pe2", "red/gold")
    assert one.due(NOW) == []
    assert one.next_deadline() == NOW + OTHER_END_WAITS_S
    assert one.due(NOW + OTHER_END_WAITS_S) == creates("red/gold")


def test_the_other_end_creates_nothing_when_the_opener_has() -> None:
    one = up('start = "boot"', is_opener=False)
    for name in CHILDREN:
        one.on_child("pe2", name, NOW)
    assert one.due(NOW + OTHER_END_WAITS_S) == [] and one.next_deadline() is None


def test_the_other_end_waits_again_after_a_child_has_gone() -> None:
    one = up('start = "boot"', is_opener=False)
    for name in CHILDREN:
        one.on_child("pe2", name, NOW)
    one.on_child_gone("pe2", "blue/0", NOW + 100)
    assert one.next_deadline() == NOW + 100 + OTHER_END_WAITS_S
    assert one.due(NOW + 100 + OTHER_END_WAITS_S) == creates("blue/0")


def test_with_a_plain_peer_the_other_end_creates_for_traffic_at_once() -> None:
    plans = plan_peers(configuration(1, 'selectors = "plain"', grants=STATIC_GRANTS))
    one = Starter(plans)
    establish(one, is_opener=False, is_native=False)
    one.ask("pe2", "mpls")
    assert one.due(NOW) == creates("mpls")


# --- commands


def test_what_an_operator_terminated_does_not_come_back_by_itself() -> None:
    one = up('start = "boot"')
    one.due(NOW)
    for name in CHILDREN:
        one.on_child("pe2", name, NOW)
    one.hold("pe2", "red/gold")
    one.on_child_gone("pe2", "red/gold", NOW)
    assert one.due(NOW + 100) == []
    assert not one.ask("pe2", "red/gold"), "nor by traffic where boot starts it"
    one.on_child_gone("pe2", "blue/0", NOW)
    assert one.due(NOW + 100) == creates("blue/0"), "the others do"
    one.want("pe2", "red/gold")
    assert one.due(NOW + 100) == creates("red/gold")


def test_a_terminated_peer_stays_away_though_it_starts_at_boot() -> None:
    one = up('start = "boot"')
    one.hold("pe2")
    one.on_gone("pe2", SESSION, NOW, failed=False)
    assert one.due(NOW + 1000) == [] and one.next_deadline() is None
    one.want("pe2")
    assert one.due(NOW + 1000) == INITIATE


def test_traffic_brings_back_what_was_terminated_where_traffic_starts() -> None:
    one = up()
    one.hold("pe2", "red/gold")
    assert one.ask("pe2", "red/gold")
    assert one.due(NOW) == creates("red/gold")


def test_after_stop_nothing_is_begun_and_nothing_is_due() -> None:
    for one in (starter('start = "boot"'), up('start = "boot"')):
        one.stop()
        one.want("pe2")
        assert one.due(NOW + 1000) == [] and one.next_deadline() is None


def test_a_child_is_gone_when_its_last_one_is() -> None:
    one = up('start = "boot"')
    one.due(NOW)
    one.on_child("pe2", "red/gold", NOW)
    one.on_child("pe2", "red/gold", NOW)
    one.on_child_gone("pe2", "red/gold", NOW)
    assert one.due(NOW) == []
    one.on_child_gone("pe2", "red/gold", NOW)
    assert one.due(NOW) == creates("red/gold")


def test_a_new_session_begins_what_was_under_way_on_the_old_one() -> None:
    one = up('start = "boot"')
    one.due(NOW)
    establish(one, session=SESSION + 1)
    assert one.due(NOW) == creates(*CHILDREN, session=SESSION + 1)


def test_the_deadline_is_that_of_the_earliest_action_and_due_then_has_it() -> None:
    one = up('start = "boot"')
    one.due(NOW)
    one.on_child_failed("pe2", "red/gold", NOW)
    one.on_child_failed("pe2", "blue/0", NOW + 7)
    one.on_child("pe2", "red/standard", NOW)
    seen = []
    while (at := one.next_deadline()) is not None:
        assert one.due(at - 0.001) == []
        seen.append((at, one.due(at)))
    assert seen == [
        (NOW + REFUSAL_BACK_OFF_S[0], creates("red/gold")),
        (NOW + 7 + REFUSAL_BACK_OFF_S[0], creates("blue/0")),
    ]
