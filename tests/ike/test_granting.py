"""What a responder grants of several acceptable sets, and one pair of addresses at a time (RFC 7296 2.9)."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network

import pytest

from ike import (
    AddressSelector,
    ChildConfig,
    ChildSaEstablished,
    ChildSaFailed,
    Message,
    Mode,
    SealedBody,
    SelectorRegistry,
    TrafficPolicy,
    TrafficSelectors,
    parse_esp_proposal,
)
from ike.granting import includes_first_choice, is_covered, is_one_pair, restricted_to_pair, to_one_pair
from ike.narrowing import narrow_selectors
from ike.numbers import NotifyType
from ike.selectors import SecurityLabel
from ike.testing.pair import Pair, Side
from ike.wire.payloads import TsiPayload, TsrPayload
from tests.ike.engine_kit import assert_in_sync, new_pair, only_child

LABEL = SecurityLabel(b"red")
ICMP, ICMPV6, MOBILITY = 1, 58, 135
OPAQUE = (65535, 0)


def net(text: str, protocol: int = 0, ports: tuple[int, int] = (0, 65535)) -> AddressSelector:
    return AddressSelector.from_network(ip_network(text), protocol, *ports)


def ts(tsi: str, tsr: str) -> TrafficSelectors:
    return TrafficSelectors(tuple(map(net, tsi.split())), tuple(map(net, tsr.split())))


# --- ICMP, OPAQUE


ECHO = (8 << 8, 8 << 8 | 255)
ECHO_REPLY = (0, 255)


@pytest.mark.parametrize(
    ("asked", "allowed", "granted"),
    [
        ((ICMP, (0, 65535)), (ICMP, ECHO), (ICMP, ECHO)),
        ((ICMP, ECHO), (0, (0, 65535)), (ICMP, ECHO)),
        ((0, (0, 65535)), (ICMP, ECHO), (ICMP, ECHO)),
        ((ICMP, (0, 15 << 8 | 255)), (ICMP, (3 << 8, 65535)), (ICMP, (3 << 8, 15 << 8 | 255))),
        ((ICMP, (3 << 8 | 4, 3 << 8 | 4)), (ICMP, (3 << 8, 3 << 8 | 255)), (ICMP, (3 << 8 | 4, 3 << 8 | 4))),
        ((ICMP, ECHO), (ICMP, ECHO_REPLY), None),
        ((ICMP, ECHO), (ICMPV6, ECHO), None),
        ((MOBILITY, (5 << 8, 5 << 8 | 255)), (MOBILITY, (0, 65535)), (MOBILITY, (5 << 8, 5 << 8 | 255))),
        ((17, OPAQUE), (17, (0, 65535)), (17, OPAQUE)),
        ((17, (0, 65535)), (17, OPAQUE), (17, OPAQUE)),
        ((17, OPAQUE), (17, OPAQUE), (17, OPAQUE)),
        ((17, OPAQUE), (17, (1, 65535)), None),
        ((17, (500, 500)), (17, OPAQUE), None),
        ((0, OPAQUE), (ICMP, (0, 65535)), (ICMP, OPAQUE)),
    ],
)
def test_types_codes_and_opaque_ports_are_narrowed_and_never_widened(
    asked: tuple[int, tuple[int, int]],
    allowed: tuple[int, tuple[int, int]],
    granted: tuple[int, tuple[int, int]] | None,
) -> None:
    """Type and code are one number of 16 bits, type first (RFC 7296 3.13.1)."""
    request = TrafficSelectors((net("10.0.0.0/8", *asked),), (net("10.0.0.0/8", *asked),))
    policy = TrafficSelectors((net("10.1.0.0/16", *allowed),), (net("10.2.0.0/16", *allowed),))
    result = narrow_selectors(request, policy, SelectorRegistry())
    if granted is None:
        assert result is None
    else:
        assert result == TrafficSelectors((net("10.1.0.0/16", *granted),), (net("10.2.0.0/16", *granted),))


# --- the functions


def test_first_choice_is_the_first_address_selector_of_both_payloads() -> None:
    request = TrafficSelectors((LABEL, net("10.0.0.5/32"), net("10.0.0.0/8")), (net("10.2.0.0/16"),))
    assert includes_first_choice(request, ts("10.0.0.0/24", "10.2.0.0/16"))
    assert not includes_first_choice(request, ts("10.0.1.0/24", "10.2.0.0/16"))
    assert not includes_first_choice(request, ts("10.0.0.0/24", "10.2.0.0/24"))


def test_covered_is_what_one_child_can_carry() -> None:
    granted = ts("10.1.0.0/16", "10.2.0.0/16")
    assert is_covered(granted, granted)
    assert is_covered(ts("10.1.1.0/24", "10.2.0.0/16"), granted)
    assert not is_covered(ts("10.1.1.0/24 10.3.0.0/24", "10.2.0.0/16"), granted)
    labelled = TrafficSelectors((*granted.tsi, LABEL), (*granted.tsr, LABEL))
    assert not is_covered(labelled, granted)
    assert is_covered(labelled, labelled)
    assert not is_covered(ts("10.9.0.0/16", "10.2.0.0/16"), labelled)


@pytest.mark.parametrize(
    ("tsi", "tsr", "is_pair"),
    [
        ("10.1.0.1/32", "10.2.0.1/32", True),
        ("10.1.0.1/32", "10.2.0.0/31", False),
        ("10.1.0.1/32 10.1.0.2/32", "10.2.0.1/32", False),
    ],
)
def test_pair_is_one_address_at_each_end(tsi: str, tsr: str, is_pair: bool) -> None:
    assert is_one_pair(ts(tsi, tsr)) is is_pair


def test_several_protocols_between_two_addresses_are_one_pair() -> None:
    both = (net("10.1.0.1/32", 6), net("10.1.0.1/32", 17))
    assert is_one_pair(TrafficSelectors(both, (net("10.2.0.1/32"),)))


def test_pair_keeps_protocols_and_what_is_beside_the_addresses() -> None:
    granted = TrafficSelectors(
        (net("10.1.0.0/16", 6), net("10.1.0.0/24", 17), net("10.9.0.0/16"), LABEL),
        (net("10.2.0.0/16"), LABEL),
    )
    packet = TrafficSelectors((net("10.1.0.1/32", 6, (80, 80)),), (net("10.2.0.1/32", 6, (999, 999)),))
    pair = restricted_to_pair(granted, packet)
    assert pair == TrafficSelectors(
        (net("10.1.0.1/32", 6), net("10.1.0.1/32", 17), LABEL), (net("10.2.0.1/32"), LABEL)
    )
    overlapping = ts("10.1.0.0/16 10.1.0.0/24", "10.2.0.1/32")
    assert restricted_to_pair(overlapping, packet) == ts("10.1.0.1/32", "10.2.0.1/32")
    assert restricted_to_pair(granted, ts("10.7.0.1/32", "10.2.0.1/32")) is None
    assert restricted_to_pair(granted, ts("10.1.0.0/31", "10.2.0.1/32")) is None


def test_what_is_one_pair_already_needs_no_first_choice() -> None:
    granted = ts("10.1.0.1/32", "10.2.0.1/32")
    assert to_one_pair(ts("10.0.0.0/8", "10.0.0.0/8"), granted) is granted


# --- the engines


def child(local: str, peer: str, **fields: object) -> ChildConfig:
    values = TrafficPolicy(tuple(map(net, local.split())), tuple(map(net, peer.split())))
    return ChildConfig(
        "net",
        (parse_esp_proposal("aes256gcm16"),),
        Mode.TUNNEL,
        values.local_ts,
        values.peer_ts,
        rekey_s=None,
        hard_s=None,
        **fields,  # type: ignore[arg-type]
    )


def policies(*pairs: tuple[str, str]) -> tuple[TrafficPolicy, ...]:
    return tuple(
        TrafficPolicy(tuple(map(net, local.split())), tuple(map(net, peer.split()))) for local, peer in pairs
    )


WIDE = child("10.1.0.0/16", "10.2.0.0/16")


def connected(left: ChildConfig, right: ChildConfig) -> Pair:
    pair, _ = new_pair(left, right_child=right)
    pair.initiate()
    pair.run(1)
    return pair


def ask(pair: Pair, trigger: TrafficSelectors | None = None) -> None:
    pair.left.engine.create_child(pair.left.session, "net", pair.now, trigger)
    pair.run(1)


def packet(source: str, destination: str, port: int = 80) -> TrafficSelectors:
    return TrafficSelectors(
        (net(f"{source}/32", 6, (4711, 4711)),), (net(f"{destination}/32", 6, (port, port)),)
    )


def responses(side: Side) -> list[str]:
    return [
        record.summary
        for record in side.trace
        if record.direction.value == "sent" and record.summary.startswith("CREATE_CHILD_SA response")
    ]


def test_more_is_possible_in_a_child_of_its_own() -> None:
    right = child("10.2.0.0/24", "10.1.0.0/24")
    right = replace(right, accept=policies(("10.2.0.0/24", "10.1.0.0/24"), ("10.2.1.0/24", "10.1.1.0/24")))
    pair = connected(WIDE, right)
    ask(pair)
    assert "ADDITIONAL_TS_POSSIBLE" in responses(pair.right)[-1]
    assert only_child(pair.left).local_ts == (net("10.1.0.0/24"),)
    ask(pair, packet("10.1.1.7", "10.2.1.7"))
    assert_in_sync(pair, children=2)
    assert pair.left.last(ChildSaEstablished).child.local_ts == (
        net("10.1.1.7/32", 6, (4711, 4711)),
        net("10.1.1.0/24"),
    )


def test_narrowing_that_leaves_nothing_to_another_child_says_nothing() -> None:
    pair = connected(WIDE, child("10.2.0.0/24", "10.1.0.0/24"))
    ask(pair)
    assert "ADDITIONAL_TS_POSSIBLE" not in responses(pair.right)[-1]


def test_policy_that_has_the_first_choice_goes_before_an_earlier_one() -> None:
    """RFC 7296 2.9: the responder MUST narrow to a subset that includes the initiator's first choices."""
    right = replace(
        child("10.2.0.0/16", "10.1.0.0/16"),
        accept=policies(("10.2.0.0/24", "10.1.0.0/24"), ("10.2.9.0/24", "10.1.9.0/24")),
    )
    pair = connected(WIDE, right)
    ask(pair, packet("10.1.9.1", "10.2.9.1"))
    assert net("10.1.9.0/24") in only_child(pair.left).local_ts
    assert "ADDITIONAL_TS_POSSIBLE" in responses(pair.right)[-1]


def test_single_pair_is_taken_from_the_first_choice() -> None:
    pair = connected(WIDE, child("10.2.0.0/16", "10.1.0.0/16", single_pair=True))
    ask(pair, packet("10.1.0.5", "10.2.0.6"))
    granted = only_child(pair.right)
    assert is_one_pair(TrafficSelectors(granted.peer_ts, granted.local_ts))
    assert net("10.1.0.5/32") in granted.peer_ts
    assert "ADDITIONAL_TS_POSSIBLE" in responses(pair.right)[-1]
    assert_in_sync(pair, children=1)


def test_single_pair_that_nobody_names_is_required() -> None:
    pair = connected(WIDE, child("10.2.0.0/16", "10.1.0.0/16", single_pair=True))
    ask(pair)
    assert pair.left.last(ChildSaFailed).notify_type == NotifyType.SINGLE_PAIR_REQUIRED
    assert pair.left.children == {}


def without_first_choice(outgoing: Message) -> Iterable[Message | SealedBody]:
    """As if the responder did not look at it."""
    changed = [
        replace(payload, selectors=payload.selectors[1:])
        if isinstance(payload, TsiPayload | TsrPayload) and len(payload.selectors) > 1
        else payload
        for payload in outgoing.payloads
    ]
    return (replace(outgoing, payloads=tuple(changed)),)


def test_initiator_asks_again_once_for_the_pair_of_the_packet() -> None:
    right = child("10.2.0.0/16", "10.1.0.0/16", single_pair=True)
    pair, _ = new_pair(WIDE, right_child=right, left_options={"rewrite_outgoing": without_first_choice})
    pair.initiate()
    pair.run(1)
    ask(pair, packet("10.1.0.5", "10.2.0.5"))
    assert_in_sync(pair, children=1)
    assert only_child(pair.left).local_ts == (net("10.1.0.5/32"),)
    first, second = responses(pair.right)
    assert "SINGLE_PAIR_REQUIRED" in first
    assert "SINGLE_PAIR_REQUIRED" not in second
    ask(pair, packet("10.9.0.5", "10.2.0.5"))
    assert pair.left.last(ChildSaFailed).notify_type == NotifyType.SINGLE_PAIR_REQUIRED
    assert len(responses(pair.right)) == 4, (
        "the pair lies outside of what we may propose; asked twice, no more"
    )


def test_creator_with_single_pairs_asks_for_the_packets_pair_alone() -> None:
    pair = connected(replace(WIDE, single_pair=True), child("10.2.0.0/16", "10.1.0.0/16"))
    ask(pair, packet("10.1.0.5", "10.2.0.6"))
    made = only_child(pair.left)
    assert (made.local_ts, made.peer_ts) == ((net("10.1.0.5/32"),), (net("10.2.0.6/32"),))
    assert "ADDITIONAL_TS_POSSIBLE" not in responses(pair.right)[-1]
