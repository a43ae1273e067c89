"""Narrowing, and the check of the answer (RFC 7296 section 2.9, RFC 9478, WIRE.md sections 3 and 7)."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ike.narrowing import is_acceptable_answer, narrow_selectors
from ike.selectors import (
    AddressSelector,
    RawSelector,
    SecurityLabel,
    SelectorRegistry,
    Selectors,
    SelectorType,
    TrafficSelectors,
)
from ike.wire.payloads import TsiPayload
from mpls.selectors import TS_MPLS_VRF, MplsVrfSelector, reconcile
from tests.ike.test_selectors import COLOUR, Colour, raw
from tests.ike.wire_strategies import address_selectors

PLAIN = SelectorRegistry()
GOLD, STANDARD = SecurityLabel(b"mpls:vrf=red;class=gold"), SecurityLabel(b"mpls:vrf=red;class=standard")
UNKNOWN = RawSelector(99, b"\x63\0\0\5x")


def net(text: str, protocol: int = 0, *ports: int) -> AddressSelector:
    return AddressSelector.from_network(ip_network(text), protocol, *ports)


def ts(tsi: Selectors, tsr: Selectors | None = None) -> TrafficSelectors:
    return TrafficSelectors(tsi, tsi if tsr is None else tsr)


A, B = net("192.0.2.1", 137), net("192.0.2.2", 137)


def narrow(
    request: TrafficSelectors, policy: TrafficSelectors, registry: SelectorRegistry = PLAIN
) -> TrafficSelectors | None:
    """Narrow, and hold that whatever a responder answers, an initiator that asked for it accepts."""
    result = narrow_selectors(request, policy, registry)
    if result is not None:
        known = ts(
            tuple(s for s in registry.interpret(request.tsi) if not isinstance(s, RawSelector)),
            tuple(s for s in registry.interpret(request.tsr) if not isinstance(s, RawSelector)),
        )
        assert is_acceptable_answer(known, result, registry)
        assert narrow_selectors(result, policy, registry) == result
    return result


# --- addresses ---


def test_a_request_inside_the_policy_is_returned_as_it_is() -> None:
    request = ts((net("10.1.0.7", 6, 80, 80), net("10.1.0.0/16")), (net("10.2.0.0/16"),))
    assert narrow(request, ts((net("10.0.0.0/8"),))) == request


def test_the_initiator_s_first_choice_stays_first() -> None:
    request = ts((net("10.1.0.7", 17, 5, 5), net("10.0.0.0/8")))
    policy = ts((net("10.9.0.0/16"), net("10.1.0.0/16")))
    expected = (net("10.1.0.7", 17, 5, 5), net("10.9.0.0/16"), net("10.1.0.0/16"))
    assert narrow(request, policy) == ts(expected)


def test_what_lies_inside_something_already_taken_is_not_repeated() -> None:
    request = ts((net("10.0.0.0/8"), net("10.1.0.0/16"), net("10.0.0.0/8")))
    assert narrow(request, ts((net("0.0.0.0/0"), net("10.1.0.0/16")))) == ts((net("10.0.0.0/8"),))


def test_ipv4_and_ipv6_are_narrowed_apart() -> None:
    request = ts((net("0.0.0.0/0"), net("::/0")))
    policy = ts((net("2001:db8::/32"), net("10.0.0.0/8")))
    assert narrow(request, policy) == ts((net("10.0.0.0/8"), net("2001:db8::/32")))


@pytest.mark.parametrize(
    ("tsi", "tsr"), [((net("172.16.0.0/12"),), (A,)), ((A,), (net("172.16.0.0/12"),)), ((), (A,)), ((A,), ())]
)
def test_a_payload_of_which_nothing_is_left_is_unacceptable(tsi: Selectors, tsr: Selectors) -> None:
    assert narrow(ts(tsi, tsr), ts((A,))) is None


def test_opaque_ports_are_inside_any_ports_only() -> None:
    opaque = ts((net("10.0.0.0/8", 17, 65535, 0),))
    assert narrow(opaque, ts((net("10.0.0.0/8"),))) == opaque
    assert narrow(opaque, ts((net("10.0.0.0/8", 17, 0, 65534),))) is None


def test_an_unknown_type_in_a_request_is_ignored_and_not_returned() -> None:
    assert narrow(ts((A, UNKNOWN)), ts((A,))) == ts((A,))
    assert narrow(ts((UNKNOWN,)), ts((A,))) is None


def test_a_range_that_is_none_is_unacceptable_not_ignored() -> None:
    backwards = RawSelector(7, bytes.fromhex("078900100000ffffc0000203c0000202"))
    assert narrow_selectors(ts((A, backwards)), ts((A,)), PLAIN) is None
    assert not is_acceptable_answer(ts((A,)), ts((A, backwards)), PLAIN)


def test_a_result_has_at_most_255_selectors() -> None:
    singles = tuple(net(str(IPv4Address(2 * number))) for number in range(300))
    result = narrow(ts(singles[:250]), ts(singles))
    assert result is not None
    assert len(result.tsi) == 250
    widest = narrow_selectors(ts((net("0.0.0.0/0"),)), ts(singles), PLAIN)
    assert widest is not None
    assert widest.tsi == singles[:255]


addresses = st.lists(address_selectors(small=True), min_size=1, max_size=4).map(tuple)


@settings(max_examples=200)
@given(addresses, addresses)
def test_a_packet_is_in_the_result_exactly_when_it_is_in_request_and_policy(
    request: tuple[AddressSelector, ...], policy: tuple[AddressSelector, ...]
) -> None:
    def holds(selectors: Selectors, address: IPv4Address, protocol: int, port: int | None) -> bool:
        return any(isinstance(s, AddressSelector) and s.contains(address, protocol, port) for s in selectors)

    result = narrow(ts(request), ts(policy))
    for number in range(7):
        for protocol in (17, 137, 200):
            for port in (None, 0, 1, 4, 65535):
                packet = IPv4Address(number), protocol, port
                expected = holds(request, *packet) and holds(policy, *packet)
                assert (result is not None and holds(result.tsi, *packet)) == expected


# --- the answer ---


@pytest.mark.parametrize(
    "answer",
    [
        (net("10.0.0.0/7"),),
        (net("10.1.0.0/16", 17), net("11.0.0.0/16", 17)),
        (net("10.1.0.0/16", 6),),
        (net("10.1.0.0/16"),),
        (),
        (net("10.1.0.0/16", 17), UNKNOWN),
        (net("10.1.0.0/16", 17), raw(GOLD)),
        (net("::/0", 17),),
    ],
)
def test_an_answer_with_more_than_was_asked_for_is_not_acceptable(answer: Selectors) -> None:
    proposed, good = (net("10.0.0.0/8", 17),), (net("10.1.0.0/16", 17),)
    assert is_acceptable_answer(ts(proposed), ts(good), PLAIN)
    assert not is_acceptable_answer(ts(proposed), ts(answer, good), PLAIN)
    assert not is_acceptable_answer(ts(proposed), ts(good, answer), PLAIN)


def test_a_proposal_with_a_type_that_nobody_understands_has_no_acceptable_answer() -> None:
    assert not is_acceptable_answer(ts((A, UNKNOWN)), ts((A,)), PLAIN)
    assert not is_acceptable_answer(ts((A, UNKNOWN)), ts((A, UNKNOWN)), PLAIN)


def test_a_policy_with_a_type_that_nobody_understands_accepts_nothing() -> None:
    assert narrow_selectors(ts((A,)), ts((A, UNKNOWN)), PLAIN) is None
    assert narrow_selectors(ts((A, UNKNOWN)), ts((A, UNKNOWN)), PLAIN) is None


# --- security labels (RFC 9478) ---


def test_equal_labels_are_returned_behind_the_addresses() -> None:
    request = ts((raw(GOLD), A), (raw(GOLD), B))
    assert narrow(request, ts((A, GOLD), (B, GOLD))) == ts((A, GOLD), (B, GOLD))


@pytest.mark.parametrize(
    "request_ts",
    [
        ts((A, STANDARD)),  # another label
        ts((A,)),  # none: the address selector alone would be wider
        ts((A, GOLD), (A,)),
        ts((A,), (A, GOLD)),
        ts((A, GOLD), (A, STANDARD)),  # not the same in both
        ts((A, GOLD, STANDARD), (A, GOLD)),
        ts((GOLD,)),  # a label never stands alone
    ],
    ids=str,
)
def test_a_label_that_is_wrong_missing_or_alone_is_unacceptable(request_ts: TrafficSelectors) -> None:
    assert narrow(request_ts, ts((A, GOLD))) is None


def test_a_label_that_the_policy_lacks_is_unacceptable_not_ignored() -> None:
    assert narrow(ts((A, GOLD)), ts((A,))) is None


def test_of_several_labels_the_responder_picks_one() -> None:
    offered = ts((A, STANDARD, GOLD))
    assert narrow(offered, ts((A, GOLD))) == ts((A, GOLD))
    assert narrow(offered, ts((A, GOLD, STANDARD))) == ts((A, STANDARD))
    assert not is_acceptable_answer(offered, offered, PLAIN)


@pytest.mark.parametrize(
    "answer",
    [
        ts((A,)),
        ts((A, STANDARD)),
        ts((A, GOLD), (A,)),
        ts((A, GOLD, GOLD)),
        ts((GOLD,)),
        ts((net("192.0.2.0/24", 137), GOLD)),
    ],
    ids=str,
)
def test_an_answer_without_exactly_the_label_in_both_payloads_is_not_acceptable(
    answer: TrafficSelectors,
) -> None:
    assert is_acceptable_answer(ts((A, GOLD)), ts((GOLD, A), (A, raw(GOLD))), PLAIN)
    assert not is_acceptable_answer(ts((A, GOLD)), answer, PLAIN)


# --- a type of one's own ---


def test_a_type_of_one_s_own_is_narrowed_by_its_own_rules() -> None:
    registry = SelectorRegistry([COLOUR])
    request = ts((A, raw(Colour(0b110))), (B, raw(Colour(0b011))))
    policy = ts((A, Colour(0b010)), (B, Colour(0b111)))
    assert narrow(request, policy, registry) == ts((A, Colour(0b010)), (B, Colour(0b011)))
    assert narrow(request, ts((A, Colour(0b001)), (B, Colour(0b111))), registry) is None
    assert not is_acceptable_answer(request, ts((A, Colour(0b111)), (B, Colour(0b001))), registry)
    assert not is_acceptable_answer(request, ts((A, Colour(0b010), Colour(0b100)), (B, Colour(1))), registry)


def test_without_registration_the_same_selector_is_ignored() -> None:
    assert narrow(ts((A, raw(Colour(1)))), ts((A,))) == ts((A,))


def test_reconcile_repairs_results_and_refuses_requests_and_answers_that_need_repair() -> None:
    def equal_masks(tsi: Selectors, tsr: Selectors) -> tuple[Selectors, Selectors] | None:
        common = ~0
        for selector in (*tsi, *tsr):
            common &= selector.mask if isinstance(selector, Colour) else ~0

        def fix(side: Selectors) -> Selectors:
            return tuple(replace(s, mask=common) if isinstance(s, Colour) else s for s in side)

        return (fix(tsi), fix(tsr)) if common else None

    registry = SelectorRegistry([replace(COLOUR, reconcile=equal_masks)])
    request = ts((A, Colour(0b111)))
    policy = ts((A, Colour(0b110)), (A, Colour(0b011)))
    assert narrow(request, policy, registry) == ts((A, Colour(0b010)))
    assert narrow(request, ts((A, Colour(0b100)), (A, Colour(0b011))), registry) is None
    assert narrow_selectors(ts((A, Colour(3)), (A, Colour(1))), request, registry) is None
    assert not is_acceptable_answer(request, ts((A, Colour(3)), (A, Colour(1))), registry)
    assert is_acceptable_answer(request, ts((Colour(3), A), (A, Colour(3))), registry)


def test_a_type_that_raises_any_value_error_is_unacceptable() -> None:
    registry = SelectorRegistry([COLOUR])
    broken = RawSelector(241, b"\xf1\0\0\4")
    assert narrow_selectors(ts((A, broken)), ts((A,)), registry) is None
    assert not is_acceptable_answer(ts((A,)), ts((A, broken)), registry)


# --- TS_MPLS_VRF with the rules that mpls plugs in (WIRE.md 3.3 to 3.6, golden octets of 9.1) ---

MPLS = SelectorRegistry([SelectorType(TS_MPLS_VRF, MplsVrfSelector.parse, reconcile)])
MAP_A = MplsVrfSelector.parse(bytes.fromhex("f6000015a30001018200480000fde800000064020a"))
MAP_B = MplsVrfSelector.parse(
    bytes.fromhex("f600002aa50001018200480000fde800000064020a0418e0058282101903f7821a000186a01a00018a87")
)
MAP_M = replace(MAP_A, tc=0b1100001, ranges=((1000, 100100),))
B_MEET_M = bytes.fromhex(
    "f600002ca50001018200480000fde800000064020a0418600582821903e81903f7821a000186a01a00018704"
)
GRE_B = net("192.0.2.2", 47)


def test_golden_map_b_narrowed_by_m() -> None:
    result = narrow(ts((A, raw(MAP_B)), (B, raw(MAP_B))), ts((A, MAP_M), (B, MAP_A)), MPLS)
    assert result is not None
    assert result.tsi[1].encode() == B_MEET_M
    assert result.tsr == (B, MAP_B)


def test_a_native_request_and_a_plain_policy_never_meet() -> None:
    assert narrow(ts((A, raw(MAP_A))), ts((A,)), MPLS) is None
    assert narrow(ts((A,)), ts((A, MAP_A)), MPLS) is None


def test_encapsulations_without_an_address_selector_left_are_narrowed_away() -> None:
    both = replace(MAP_A, encapsulations=3)
    gre_a = net("192.0.2.1", 47)
    request = ts((A, gre_a, both), (B, GRE_B, both))
    policy = ts((A, gre_a, both), (B, both))
    assert narrow(request, policy, MPLS) == ts((A, MAP_A), (B, MAP_A))


@pytest.mark.parametrize(
    "side",
    [
        (A, MAP_A, MAP_A),
        (A,),
        (MAP_A,),
        (A, MAP_A, UNKNOWN),
        (A, MAP_A, GOLD),
        (A, net("192.0.2.1", 47), MAP_A),  # protocols are not those of key 3
        (net("192.0.2.1"), MAP_A),
        (A, replace(MAP_A, label_class=11)),
        (A, replace(MAP_A, encapsulations=3)),
        (A, RawSelector(246, b"\xf6\0\0\4")),
    ],
    ids=str,
)
def test_a_native_payload_of_another_shape_is_unacceptable(side: Selectors) -> None:
    good = (A, MAP_A)
    assert narrow(ts(good), ts(good), MPLS) == ts(good)
    assert narrow_selectors(ts(side, good), ts(good), MPLS) is None
    assert narrow_selectors(ts(good, side), ts(good), MPLS) is None
    assert not is_acceptable_answer(ts(good), ts(side, good), MPLS)
    assert not is_acceptable_answer(ts(good), ts(good, side), MPLS)


def test_an_answer_with_a_wider_map_is_not_acceptable() -> None:
    proposed = ts((A, MAP_B))
    assert is_acceptable_answer(proposed, ts((A, MAP_B), (raw(MAP_B), A)), MPLS)
    assert not is_acceptable_answer(proposed, ts((A, MAP_A)), MPLS)


def test_what_is_granted_always_fits_into_a_payload() -> None:
    """255 selectors, whatever is asked for: each of many ranges has a part in common with each of two networks."""

    def between(first: str, last: str, more: int) -> AddressSelector:
        return AddressSelector(IPv4Address(first) - more, IPv4Address(last) + more, 0, 0, 65535)

    ranges = tuple(between("10.0.128.0", "10.1.0.255", number) for number in range(254))
    policy = ts((net("10.0.0.0/16"), net("10.1.0.0/17"), GOLD))
    result = narrow(ts((*ranges, GOLD)), policy)
    assert result is not None
    assert len(result.tsi) == 255 and result.tsi[-1] == GOLD and result.tsi[0] == net("10.0.128.0/17")
    assert len(TsiPayload(result.tsi).encode_body()) > 255 * 16
