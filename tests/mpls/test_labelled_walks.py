"""Packets that come with labels: from a P or PE router into a Child SA, and out of one to such a router."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpls.child_policy import EgressPolicy, PlainMap
from mpls.classes import LabelClass
from mpls.crypto_map import Bypass, CryptoMap, Match, Protect, Rule, compile_default
from mpls.drops import DropReason
from mpls.encapsulation import Encapsulation, Mode
from mpls.hop import Drop
from mpls.inbound import Delivery, check_inbound
from mpls.ip import IpHeader, build_ip
from mpls.label_space import LabelSpace
from mpls.labels import MAX_ENTRIES, LabelEntry, LabelStack
from mpls.outbound import Bypassed, Labelled, Outbound, check_outbound
from mpls.routes import ForwardingTable
from mpls.vrf import Attachment, Labels, Urpf, Vrf

GOLD = LabelClass("gold", frozenset({46}), (5, 6, 7), 46)
STANDARD = LabelClass("standard")
ELI = (LabelEntry(7), LabelEntry(70000, ttl=0))
DEEP = PlainMap(1, depth=(1, MAX_ENTRIES), special=1 << 7)


def vrf(labels: Labels = Labels.KEEP) -> Vrf:
    router = Attachment(
        "eth1", (ip_interface("10.1.0.1/24"), ip_interface("2001:db8:1::1/64")), labels=labels
    )
    site = Attachment("site", (ip_interface("10.9.0.1/24"),))
    return Vrf("red", "name:red", (GOLD, STANDARD), Urpf.STRICT, (router, site))


def walk(labels: Labels = Labels.KEEP, *rules: Rule) -> Outbound:
    table = ForwardingTable(["pe2", "pe3"], ["pe3"])
    table.add("pe2", "red", "gold", ip_network("10.2.0.0/24"), 1001)
    table.add("pe2", "red", "standard", ip_network("10.2.0.0/24"), 1002)
    table.add("pe2", "red", "standard", ip_network("2001:db8:2::/64"), 1004)
    table.add("pe3", "red", "standard", ip_network("10.3.0.0/24"), None, "static")
    made = vrf(labels)
    compiled = compile_default([made], labelled=["red"])
    return Outbound([made], CryptoMap((*rules, *compiled.rules[:-1])), table)


def ip(destination: str = "10.2.0.9", *, source: str = "10.1.0.9", ttl: int = 64, dscp: int = 0) -> bytes:
    packed = ip_address(source).packed, ip_address(destination).packed
    return build_ip(*packed, 17, bytes(8), ttl=ttl, dscp=dscp)


def stack(*entries: LabelEntry) -> bytes:
    last = len(entries) - 1
    return b"".join(replace(entry, bottom=n == last).encode() for n, entry in enumerate(entries))


def sent(result: Labelled | Bypassed | Drop) -> Labelled:
    assert isinstance(result, Labelled), result
    return result


def reason(result: Labelled | Bypassed | Drop | Delivery) -> DropReason | None:
    return result.reason if isinstance(result, Drop) else None


def entries(octets: bytes) -> tuple[LabelEntry, ...]:
    parsed = LabelStack.parse(octets)
    assert isinstance(parsed, LabelStack)
    return parsed.entries


# --- in by an attachment


def test_kept_labels_go_below_the_service_label_with_one_ttl_step() -> None:
    came = stack(LabelEntry(500, 2, ttl=64), LabelEntry(501, 3, ttl=9)) + ip(ttl=7)
    result = sent(walk().forward_labelled("eth1", came))
    assert entries(result.stack) == (
        LabelEntry(1002, 2, False, 255),
        LabelEntry(500, 2, False, 63),
        LabelEntry(501, 3, True, 9),
    )
    assert (result.label, result.tc, result.body) == (1002, 2, ip(ttl=7))  # no hop of the IP packet


def test_popped_labels_are_replaced_and_the_ip_packet_makes_a_hop() -> None:
    came = stack(LabelEntry(500, 2), LabelEntry(501)) + ip(ttl=7)
    result = sent(walk(Labels.POP).forward_labelled("eth1", came))
    assert entries(result.stack) == (LabelEntry(1002, 2, True, 255),)
    assert result.body == ip(ttl=6)


@pytest.mark.parametrize("labels", [Labels.KEEP, Labels.POP])
@pytest.mark.parametrize("tc", range(8))
def test_tc_of_the_topmost_label_selects_the_class_and_dscp_does_not(labels: Labels, tc: int) -> None:
    came = stack(LabelEntry(500, tc), LabelEntry(501, 7 - tc)) + ip(dscp=46 if tc < 5 else 0)
    result = sent(walk(labels).forward_labelled("eth1", came))
    # gold is marked with its first TC, standard has none configured and leaves it as it came
    assert (result.label_class, result.tc) == (("gold", 5) if tc >= 5 else ("standard", tc))


def test_rule_looks_at_a_label_only_when_it_is_kept() -> None:
    rule = Rule("lsp", Match(vrf="red", labels=((500, 599),)), Protect("red", "gold"))
    came = stack(LabelEntry(500)) + ip()
    assert sent(walk(Labels.KEEP, rule).forward_labelled("eth1", came)).label_class == "gold"
    assert sent(walk(Labels.POP, rule).forward_labelled("eth1", came)).label_class == "standard"


@pytest.mark.parametrize("labels", [Labels.KEEP, Labels.POP])
def test_depth_and_bottom_of_stack_are_seen_whether_labels_are_kept_or_not(labels: Labels) -> None:
    rule = Rule("one", Match(vrf="red", bottom=True), Protect("red", "gold"))
    one, two = stack(LabelEntry(500)), stack(LabelEntry(500), LabelEntry(501))
    assert sent(walk(labels, rule).forward_labelled("eth1", one + ip())).label_class == "gold"
    assert sent(walk(labels, rule).forward_labelled("eth1", two + ip())).label_class == "standard"


def test_packet_without_labels_goes_by_dscp_beside_labelled_ones() -> None:
    assert sent(walk().forward("eth1", ip(dscp=46))).label_class == "gold"


def test_attachment_without_labels_takes_none() -> None:
    assert reason(walk().forward_labelled("site", stack(LabelEntry(500)) + ip())) is DropReason.INNER_LABEL


@pytest.mark.parametrize(
    ("labels", "came", "expected"),
    [
        (Labels.KEEP, b"", DropReason.STACK_TRUNCATED),
        (Labels.KEEP, LabelEntry(500, bottom=False).encode(), DropReason.STACK_TRUNCATED),
        (Labels.KEEP, LabelEntry(500, bottom=False).encode() * 1000, DropReason.STACK_DEPTH),
        (Labels.KEEP, stack(*[LabelEntry(500)] * MAX_ENTRIES) + ip(), DropReason.STACK_DEPTH),
        (Labels.KEEP, stack(LabelEntry(0)) + ip(), DropReason.SPECIAL_LABEL),
        (Labels.POP, stack(LabelEntry(0)) + ip(), None),
        (Labels.POP, stack(LabelEntry(2)) + ip(), DropReason.PAYLOAD),
        (Labels.POP, stack(LabelEntry(500), LabelEntry(0)) + ip(), DropReason.SPECIAL_LABEL),
        (Labels.POP, stack(LabelEntry(1), LabelEntry(500)) + ip(), DropReason.SPECIAL_LABEL),
        (Labels.KEEP, stack(LabelEntry(1), LabelEntry(500)) + ip(), DropReason.SPECIAL_LABEL),
        (Labels.KEEP, stack(LabelEntry(500), LabelEntry(14)) + ip(), DropReason.SPECIAL_LABEL),
        (Labels.KEEP, stack(*ELI, LabelEntry(500)) + ip(), DropReason.SPECIAL_LABEL),
        (Labels.KEEP, stack(LabelEntry(500), *ELI) + ip(), None),
        (Labels.POP, stack(LabelEntry(500), *ELI) + ip(), None),
        (Labels.KEEP, stack(LabelEntry(500)), DropReason.PAYLOAD),
        (Labels.KEEP, stack(LabelEntry(500)) + b"\x00" * 40, DropReason.PAYLOAD),  # a pseudowire
        (Labels.KEEP, stack(LabelEntry(500)) + ip()[:-1], DropReason.MALFORMED_IP),
        (Labels.KEEP, stack(LabelEntry(500)) + ip(source="10.9.0.9"), DropReason.URPF),
        (Labels.POP, stack(LabelEntry(500)) + ip(source="10.7.0.9"), DropReason.URPF),
        (Labels.KEEP, stack(LabelEntry(500, ttl=0)) + ip(), DropReason.TTL),
        (Labels.KEEP, stack(LabelEntry(500, ttl=1)) + ip(), DropReason.TTL_EXPIRED),
        (Labels.POP, stack(LabelEntry(500, ttl=1)) + ip(), DropReason.TTL_EXPIRED),
        (Labels.POP, stack(LabelEntry(500)) + ip(ttl=1), DropReason.TTL_EXPIRED),
        (Labels.KEEP, stack(LabelEntry(500)) + ip(ttl=1), None),
        (Labels.KEEP, stack(LabelEntry(500)) + ip("10.8.0.1"), DropReason.NO_ROUTE),
        (
            Labels.KEEP,
            stack(LabelEntry(500)) + ip("10.3.0.9"),
            DropReason.OUTSIDE_SELECTOR,
        ),  # a peer for plain IP
        (Labels.POP, stack(LabelEntry(500)) + ip("10.3.0.9"), None),
    ],
)
def test_first_failure_names_the_drop(labels: Labels, came: bytes, expected: DropReason | None) -> None:
    assert reason(walk(labels).forward_labelled("eth1", came)) is expected


def test_expired_label_is_answered_into_the_vrf() -> None:
    result = walk().forward_labelled("eth1", stack(LabelEntry(500, ttl=1)) + ip())
    assert isinstance(result, Drop) and result.reply is not None
    header = IpHeader.parse(result.reply)
    assert isinstance(header, IpHeader)
    assert (header.source, header.destination) == (
        ip_address("10.1.0.1").packed,
        ip_address("10.1.0.9").packed,
    )


def test_bypass_keeps_what_the_attachment_keeps() -> None:
    rule = Rule("pass", Match(vrf="red"), Bypass())
    came = stack(LabelEntry(500)) + ip("10.9.0.9")
    kept = stack(LabelEntry(500, ttl=254))
    assert walk(Labels.KEEP, rule).forward_labelled("eth1", came) == Bypassed("eth1", ip("10.9.0.9"), kept)
    assert walk(Labels.POP, rule).forward_labelled("eth1", came) == Bypassed("eth1", ip("10.9.0.9"))


def test_padding_of_the_frame_is_not_sent() -> None:
    assert sent(walk().forward_labelled("eth1", stack(LabelEntry(500)) + ip() + bytes(20))).body == ip()


@pytest.mark.parametrize(
    ("child_map", "is_inside"),
    [
        (DEEP, True),
        (PlainMap(1), False),  # one entry only
        (PlainMap(1, depth=(1, 3), special=1 << 7), False),
        (PlainMap(1, depth=(1, 4)), False),  # depth fits, no bit for the entropy label indicator
        (PlainMap(1, depth=(1, 4), special=1 << 7), True),
        (PlainMap(1, depth=(5, 8), special=1 << 7), False),
    ],
)
def test_child_carries_kept_labels_only_within_its_map(child_map: PlainMap, is_inside: bool) -> None:
    result = sent(walk().forward_labelled("eth1", stack(LabelEntry(500), *ELI) + ip()))
    expected = None if is_inside else DropReason.OUTSIDE_SELECTOR
    assert check_outbound(child_map, result, Encapsulation.MPLS_IN_IP) is expected


def test_kept_labels_count_toward_the_tunnel_mtu() -> None:
    outbound = walk()
    result = sent(outbound.forward_labelled("eth1", stack(LabelEntry(500)) + ip()))
    assert outbound.check_size(result, 8 + len(ip())) is None
    too_big = outbound.check_size(result, 7 + len(ip()))
    assert too_big is not None and too_big.reason is DropReason.TOO_BIG


# --- out by an attachment


def received(payload: bytes, labels: Labels = Labels.KEEP, child_map: PlainMap = DEEP) -> Delivery | Drop:
    space = LabelSpace()
    space.reserve(100, "pe2", "red", "gold")
    policy = EgressPolicy(
        "pe2", "red", "gold", child_map, Mode.TRANSPORT, "192.0.2.2", frozenset({"192.0.2.1"})
    )
    vrfs = {"red": vrf(labels)}
    return check_inbound(policy, space, 137, payload, "192.0.2.2", "192.0.2.1", vrfs)


def back(destination: str = "10.1.0.9", ttl: int = 64) -> bytes:
    return ip(destination, source="10.2.0.9", ttl=ttl)


def test_inner_labels_pass_to_an_attachment_that_keeps_labels() -> None:
    payload = (
        stack(LabelEntry(100), LabelEntry(500, 3, ttl=9), LabelEntry(501, ttl=1)) + back(ttl=1) + bytes(5)
    )
    kept = stack(LabelEntry(500, 3, ttl=8), LabelEntry(501, ttl=1))
    assert received(payload) == Delivery("red", "gold", 100, 0, back(ttl=1), kept, 255)


@pytest.mark.parametrize("labels", [Labels.NONE, Labels.POP])
def test_inner_labels_pass_to_no_other_attachment(labels: Labels) -> None:
    payload = stack(LabelEntry(100), LabelEntry(500))
    assert reason(received(payload + back(), labels)) is DropReason.INNER_LABEL


def test_inner_label_is_the_fault_even_of_a_damaged_packet_where_nothing_keeps_labels() -> None:
    payload = stack(LabelEntry(100), LabelEntry(500)) + back()[:-1]
    assert reason(received(payload, Labels.NONE)) is DropReason.INNER_LABEL


def test_attachment_is_that_of_the_destination() -> None:
    payload = stack(LabelEntry(100), LabelEntry(500))
    assert reason(received(payload + back("10.9.0.9"))) is DropReason.INNER_LABEL  # behind `site`
    assert reason(received(payload + back("10.77.0.9"))) is DropReason.INNER_LABEL  # behind none


def test_entropy_label_ends_with_the_label_above_it() -> None:
    first = received(stack(LabelEntry(100), *ELI, LabelEntry(500)) + back())
    assert isinstance(first, Delivery) and first.stack == stack(LabelEntry(500, ttl=254))
    second = received(stack(LabelEntry(100), LabelEntry(500), *ELI) + back())
    assert isinstance(second, Delivery) and second.stack == stack(LabelEntry(500, ttl=254), *ELI)


def test_label_below_the_service_label_never_chooses_the_vrf() -> None:
    payload = stack(LabelEntry(500), LabelEntry(100)) + back()
    assert reason(received(payload)) is DropReason.LABEL_UNBOUND


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (stack(LabelEntry(100), LabelEntry(500, ttl=0)) + back(), DropReason.TTL),
        (stack(LabelEntry(100), LabelEntry(500, ttl=1)) + back(), DropReason.TTL_EXPIRED),
        (stack(LabelEntry(100), LabelEntry(500)) + back()[:-1], DropReason.MALFORMED_IP),
        (stack(LabelEntry(100), LabelEntry(500)), DropReason.PAYLOAD),
    ],
)
def test_what_is_kept_is_forwarded_as_a_router_would(payload: bytes, expected: DropReason) -> None:
    assert reason(received(payload)) is expected


def test_without_inner_labels_an_ip_packet_is_delivered() -> None:
    result = received(stack(LabelEntry(100)) + back())
    assert result == Delivery("red", "gold", 100, 0, back(ttl=63), label_ttl=255)


def test_map_of_one_entry_admits_no_inner_label() -> None:
    payload = stack(LabelEntry(100), LabelEntry(500)) + back()
    assert reason(received(payload, child_map=PlainMap(1))) is DropReason.STACK_DEPTH


# --- from one end to the other


@given(
    st.lists(
        st.builds(LabelEntry, st.integers(16, 0xFFFFF), st.integers(0, 7), ttl=st.integers(3, 255)),
        min_size=1,
        max_size=MAX_ENTRIES - 1,
    ),
    st.integers(0, 255),
)
def test_kept_stack_arrives_as_it_came_but_for_two_hops(came: list[LabelEntry], ip_ttl: int) -> None:
    packet = ip("10.2.0.9", ttl=ip_ttl)
    there = sent(walk().forward_labelled("eth1", stack(*came) + packet))
    assert check_outbound(DEEP, there, Encapsulation.MPLS_IN_IP) is None
    space = LabelSpace()
    for label, label_class in ((1001, "gold"), (1002, "standard")):
        space.reserve(label, "pe1", "red", label_class)
    far = Attachment("eth9", (ip_interface("10.2.0.1/24"),), labels=Labels.KEEP)
    tail = Vrf("red", "name:red", (GOLD, STANDARD), attachments=(far,))
    policy = EgressPolicy(
        "pe1", "red", there.label_class, DEEP, Mode.TRANSPORT, "192.0.2.1", frozenset({"192.0.2.2"})
    )
    payload = there.stack + there.body
    result = check_inbound(policy, space, 137, payload, "192.0.2.1", "192.0.2.2", {"red": tail})
    expected = stack(replace(came[0], ttl=came[0].ttl - 2), *came[1:])
    assert isinstance(result, Delivery) and (result.packet, result.stack) == (packet, expected)
