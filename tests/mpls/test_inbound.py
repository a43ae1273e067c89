"""The egress check: what a Child SA may deliver into which VRF, in the order of the checks."""

import re
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ike.selectors import AddressSelector
from mpls.child_policy import AddressMatch, EgressPolicy, PlainMap
from mpls.classes import LabelClass
from mpls.drops import DropReason
from mpls.encapsulation import Encapsulation, Encapsulator, GreOptions, Mode
from mpls.hop import Drop
from mpls.identifiers import ClassId, VrfId
from mpls.inbound import Delivery, check_cleartext, check_inbound
from mpls.ip import IpHeader, build_ip
from mpls.label_space import LabelSpace
from mpls.labels import LabelEntry, LabelStack
from mpls.selectors import MplsVrfSelector
from mpls.vrf import Attachment, Vrf

PEER, LOCAL, OTHER = "192.0.2.1", "192.0.2.2", "192.0.2.3"
HOST, DESTINATION = "10.2.0.9", "10.1.0.9"
RED = Vrf(
    "red",
    "name:red",
    (LabelClass("gold"), LabelClass("standard")),
    attachments=(Attachment("red0", (ip_interface("10.1.0.1/24"), ip_interface("2001:db8:1::1/64"))),),
)
VRFS = {"red": RED}


def body(destination: str = DESTINATION, ttl: int = 64, source: str = HOST) -> bytes:
    return build_ip(ip_address(source).packed, ip_address(destination).packed, 17, b"12345678", ttl=ttl)


def labels() -> LabelSpace:
    """100 and 101 red/gold (101 IPv4 only), 102 red/standard, 200 blue/0, 300 red/gold of another peer."""
    space = LabelSpace(1000, 1010)
    space.reserve(100, "pe1", "red", "gold")
    space.reserve(101, "pe1", "red", "gold", payload=1)
    space.reserve(102, "pe1", "red", "standard")
    space.reserve(200, "pe1", "blue", 0)
    space.reserve(300, "pe9", "red", "gold")
    return space


def selector(**fields: Any) -> MplsVrfSelector:
    return MplsVrfSelector(VrfId.parse_text("name:red"), "gold", **fields)


def match(address: str, protocol: int, *ports: int) -> AddressMatch:
    packed = ip_address(address).packed
    return AddressMatch(packed, packed, protocol, *ports)


def policy(**fields: Any) -> EgressPolicy:
    base = EgressPolicy("pe1", "red", "gold", selector(), Mode.TRANSPORT, PEER, frozenset({LOCAL}), session=1)
    return replace(base, **fields)


def gre_policy(**fields: Any) -> EgressPolicy:
    return policy(map=selector(encapsulations=2), **fields)


def udp_policy(first_port: int = 6635, last_port: int = 6635) -> EgressPolicy:
    return policy(
        map=selector(encapsulations=8),
        peer_selectors=(match(PEER, 17, first_port, last_port),),
        local_selectors=(match(LOCAL, 17, 6635, 6635),),
    )


def tunnel_policy(**fields: Any) -> EgressPolicy:
    return policy(
        mode=Mode.TUNNEL,
        peer_selectors=(match(PEER, 137),),
        local_selectors=(match(OTHER, 137), match(LOCAL, 137)),
        **fields,
    )


def tunnelled(kind: Encapsulation = Encapsulation.MPLS_IN_IP, peer: str = PEER, local: str = LOCAL) -> bytes:
    wrapping = Encapsulator(kind, Mode.TUNNEL, ip_address(peer), ip_address(local))
    return wrapping.encapsulate(LabelEntry(100).encode(), body())[1]


def stack(*entries: LabelEntry) -> bytes:
    last = len(entries) - 1
    return b"".join(replace(entry, bottom=n == last).encode() for n, entry in enumerate(entries))


def mpls(*labels: int, tc: int = 0, ttl: int = 255, packet: bytes | None = None) -> bytes:
    return LabelStack.push(*labels, tc=tc, ttl=ttl).encode() + (body() if packet is None else packet)


def check(
    policy: EgressPolicy,
    payload: bytes,
    next_header: int = 137,
    source: str = PEER,
    destination: str = LOCAL,
    space: LabelSpace | None = None,
) -> Delivery | Drop:
    return check_inbound(policy, space or labels(), next_header, payload, source, destination, VRFS)


def reason(*arguments: Any, **fields: Any) -> DropReason | None:
    result = check(*arguments, **fields)
    return result.reason if isinstance(result, Drop) else None


# ------------------------------------------------------------------------------------------- what passes


def test_labelled_packet_of_the_child_is_delivered_to_its_vrf() -> None:
    assert check(policy(), mpls(100, tc=5)) == Delivery("red", "gold", 100, 5, body(ttl=63), label_ttl=255)


def test_ipv6_is_delivered_where_the_binding_has_it() -> None:
    six = body("2001:db8:1::9", source="2001:db8:2::9")
    assert check(policy(), mpls(100, packet=six)) == Delivery(
        "red", "gold", 100, 0, body("2001:db8:1::9", 63, "2001:db8:2::9"), label_ttl=255
    )
    assert reason(policy(), mpls(101, packet=six)) is DropReason.PAYLOAD


def test_packet_for_the_pe_itself_keeps_its_ttl() -> None:
    packet = body("10.1.0.1", ttl=1)
    assert check(policy(), mpls(100, packet=packet)) == Delivery("red", "gold", 100, 0, packet, label_ttl=255)


def test_egress_takes_one_from_the_inner_ttl_and_answers_when_none_is_left() -> None:
    expired = check(policy(), mpls(100, packet=body(ttl=1)))
    assert isinstance(expired, Drop) and expired.reason is DropReason.TTL_EXPIRED
    header = IpHeader.parse(expired.reply or b"")
    assert isinstance(header, IpHeader)
    assert (header.source, header.destination) == (ip_address("10.1.0.1").packed, ip_address(HOST).packed)
    assert reason(policy(), mpls(100, packet=body(ttl=0))) is DropReason.TTL


def test_padding_behind_the_inner_packet_is_not_delivered() -> None:
    result = check(policy(), mpls(100, packet=body() + bytes(7)))
    assert isinstance(result, Delivery) and result.packet == body(ttl=63)


# ------------------------------------------------------------------------------- next header and addresses


def test_dummy_packet_is_told_apart_before_anything_else() -> None:
    assert reason(policy(), b"", next_header=59, source=OTHER) is DropReason.DUMMY


@pytest.mark.parametrize("next_header", [4, 6, 17, 41, 47, 50, 255])
def test_transport_child_takes_the_next_headers_of_its_map_only(next_header: int) -> None:
    assert reason(policy(), mpls(100), next_header=next_header) is DropReason.NEXT_HEADER


@pytest.mark.parametrize("next_header", [6, 17, 47, 137])
def test_tunnel_child_takes_ip_only(next_header: int) -> None:
    assert reason(tunnel_policy(), mpls(100), next_header=next_header) is DropReason.NEXT_HEADER


def test_tunnel_child_delivers_what_its_inner_addresses_select() -> None:
    assert check(tunnel_policy(), tunnelled(), 4) == Delivery(
        "red", "gold", 100, 0, body(ttl=63), label_ttl=255
    )
    assert check(tunnel_policy(), tunnelled(local=OTHER), 4) == Delivery(
        "red", "gold", 100, 0, body(ttl=63), label_ttl=255
    )


@pytest.mark.parametrize(
    "payload",
    [
        tunnelled(peer=OTHER),
        tunnelled(local=PEER),
        tunnelled(Encapsulation.MPLS_IN_GRE),
        tunnelled(peer="2001:db8::1", local="2001:db8::2"),
    ],
)
def test_inner_header_outside_the_selectors_is_dropped(payload: bytes) -> None:
    next_header = 4 if payload[0] >> 4 == 4 else 41
    assert reason(tunnel_policy(), payload, next_header) is DropReason.ADDRESS_SELECTOR


def test_selector_for_any_protocol_admits_only_that_of_the_map() -> None:
    wide = policy(mode=Mode.TUNNEL, peer_selectors=(match(PEER, 0),), local_selectors=(match(LOCAL, 0),))
    assert reason(wide, tunnelled(), 4) is None
    assert reason(wide, tunnelled(Encapsulation.MPLS_IN_GRE), 4) is DropReason.ADDRESS_SELECTOR


def test_inner_header_must_be_sound_whole_and_of_the_version_announced() -> None:
    assert reason(tunnel_policy(), tunnelled(), 41) is DropReason.MALFORMED_IP
    assert reason(tunnel_policy(), tunnelled()[:-1], 4) is DropReason.MALFORMED_IP
    fragment = bytearray(tunnelled())
    fragment[6] = 0x20
    fragment[10:12] = (int.from_bytes(fragment[10:12], "big") + 0x2000).to_bytes(2, "big")
    assert isinstance(IpHeader.parse(bytes(fragment)), IpHeader)
    assert reason(tunnel_policy(), bytes(fragment), 4) is DropReason.MALFORMED_IP


def test_outer_addresses_must_be_those_of_the_sa() -> None:
    for fields in ({"source": OTHER}, {"destination": OTHER}, {"source": LOCAL, "destination": PEER}):
        assert reason(policy(), mpls(100), **fields) is DropReason.OUTER_ADDRESS
        assert reason(tunnel_policy(), tunnelled(), 4, **fields) is DropReason.OUTER_ADDRESS


# ----------------------------------------------------------------------------------------- GRE and UDP


def test_gre_child_delivers_and_drops_by_the_gre_header() -> None:
    plain, keyed = bytes.fromhex("00008847"), bytes.fromhex("2000884700000007")
    assert reason(gre_policy(), plain + mpls(100), 47) is None
    assert reason(gre_policy(), keyed + mpls(100), 47) is DropReason.GRE_HEADER
    assert reason(gre_policy(gre=GreOptions(key=7)), keyed + mpls(100), 47) is None
    assert reason(gre_policy(), bytes.fromhex("00000800") + body(), 47) is DropReason.NOT_MPLS
    assert reason(gre_policy(), plain, 47) is DropReason.STACK_TRUNCATED
    assert reason(gre_policy(), plain + bytes.fromhex("100100"), 47) is DropReason.STACK_TRUNCATED


def udp(source_port: int, destination_port: int = 6635) -> bytes:
    payload = mpls(100)
    length = 8 + len(payload)
    return b"".join(n.to_bytes(2, "big") for n in (source_port, destination_port, length, 0)) + payload


def test_udp_child_takes_the_ports_that_were_selected() -> None:
    assert reason(udp_policy(), udp(6635), 17) is None
    assert reason(udp_policy(), udp(50000), 17) is DropReason.UDP_HEADER
    assert reason(udp_policy(49152, 65535), udp(50000), 17) is None
    assert reason(udp_policy(), udp(6635, 6636), 17) is DropReason.UDP_HEADER
    assert reason(udp_policy(), udp(6635)[:-1], 17) is DropReason.UDP_HEADER
    assert reason(udp_policy(), b"", 17) is DropReason.UDP_HEADER


def test_udp_checksum_is_that_of_the_addresses_before_a_nat() -> None:
    """RFC 3948 3.1.2: in transport mode the sender has covered the addresses as it sees them."""
    inside, ours, outside = "fd00::1", "2001:db8::2", "2001:db8:ff::1"
    wrapping = Encapsulator(Encapsulation.MPLS_IN_UDP, Mode.TRANSPORT, ip_address(inside), ip_address(ours))
    payload = wrapping.encapsulate(LabelEntry(100).encode(), body())[1]
    child = replace(udp_policy(), peer_address=outside, local_addresses=frozenset({ours}))
    assert reason(child, payload, 17, outside, ours) is DropReason.UDP_HEADER
    known = replace(child, original_addresses=(inside, ours))
    assert reason(known, payload, 17, outside, ours) is None


def test_udp_selectors_hold_inside_a_tunnel_too() -> None:
    inside = replace(udp_policy(), mode=Mode.TUNNEL)
    assert reason(inside, tunnelled(Encapsulation.MPLS_IN_UDP), 4) is None
    elsewhere = tunnelled(Encapsulation.MPLS_IN_UDP, local=OTHER)
    assert reason(inside, elsewhere, 4) is DropReason.ADDRESS_SELECTOR


# ------------------------------------------------------------------------------------------- label stack


def test_stack_is_walked_within_the_depth_of_the_map() -> None:
    assert reason(policy(), mpls(100)[:3]) is DropReason.STACK_TRUNCATED
    assert reason(policy(), mpls(100, 100)) is DropReason.STACK_DEPTH
    assert reason(policy(map=selector(depth=(2, 3))), mpls(100)) is DropReason.STACK_DEPTH
    endless = LabelEntry(100, bottom=False).encode() * 200
    assert reason(policy(map=selector(depth=(1, 16))), endless) is DropReason.STACK_DEPTH


DEEP = {"depth": (1, 16), "special": 0b10000111}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ((LabelEntry(0),), None),
        ((LabelEntry(2),), DropReason.PAYLOAD),  # IPv6 explicit null over an IPv4 packet
        ((LabelEntry(1), LabelEntry(100)), None),
        ((LabelEntry(1), LabelEntry(1), LabelEntry(0)), None),
        ((LabelEntry(100), LabelEntry(7), LabelEntry(5000, ttl=0)), None),
        ((LabelEntry(1), LabelEntry(100), LabelEntry(7), LabelEntry(16, ttl=0)), None),
        ((LabelEntry(1),), DropReason.SPECIAL_LABEL),
        ((LabelEntry(0), LabelEntry(100)), DropReason.SPECIAL_LABEL),
        ((LabelEntry(100), LabelEntry(0)), DropReason.SPECIAL_LABEL),
        ((LabelEntry(100), LabelEntry(1), LabelEntry(101)), DropReason.SPECIAL_LABEL),
        ((LabelEntry(7), LabelEntry(100, ttl=0)), DropReason.SPECIAL_LABEL),
        ((LabelEntry(100), LabelEntry(7)), DropReason.SPECIAL_LABEL),
        ((LabelEntry(100), LabelEntry(7), LabelEntry(5000, ttl=1)), DropReason.SPECIAL_LABEL),
        ((LabelEntry(100), LabelEntry(7), LabelEntry(3, ttl=0)), DropReason.SPECIAL_LABEL),
        ((LabelEntry(3),), DropReason.SPECIAL_LABEL),
        ((LabelEntry(13), LabelEntry(100)), DropReason.SPECIAL_LABEL),
        ((LabelEntry(15), LabelEntry(100)), DropReason.SPECIAL_LABEL),
        ((LabelEntry(100), LabelEntry(101)), DropReason.INNER_LABEL),
        ((LabelEntry(100), LabelEntry(7), LabelEntry(16, ttl=0), LabelEntry(101)), DropReason.INNER_LABEL),
        ((LabelEntry(100), LabelEntry(101), LabelEntry(7), LabelEntry(16, ttl=0)), DropReason.INNER_LABEL),
    ],
)
def test_special_labels_have_their_places(
    entries: tuple[LabelEntry, ...], expected: DropReason | None
) -> None:
    assert reason(policy(map=selector(**DEEP)), stack(*entries) + body()) is expected
    if any(entry.label < 16 for entry in entries):
        no_special = policy(map=selector(depth=(1, 16)))
        assert reason(no_special, stack(*entries) + body()) is DropReason.SPECIAL_LABEL


KINDS = {"o": 100, "z": 100, "N": 0, "R": 1, "L": 7, "x": 3, "y": 15}


@settings(max_examples=200)
@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
def test_places_of_special_labels_are_a_regular_language(kinds: list[str]) -> None:
    """R router alert, N explicit null at the bottom, o and z ordinary (z: TTL 0), L z entropy label."""
    entries = [LabelEntry(KINDS[kind], ttl=0 if kind == "z" else 255) for kind in kinds]
    is_in_place = re.fullmatch(r"R*(N|[oz]([oz]|Lz)*)", "".join(kinds)) is not None
    result = reason(policy(map=selector(**DEEP)), stack(*entries) + body())
    assert (result is not DropReason.SPECIAL_LABEL) is is_in_place


def test_explicit_null_names_nothing_where_the_sa_serves_all_vrfs() -> None:
    for fields in ({"vrf": None, "label_class": None}, {"strict": False}):
        plain = policy(map=PlainMap(1, special=1), **fields)
        assert reason(plain, mpls(0)) is DropReason.LABEL_UNBOUND


# ------------------------------------------------------------------------------------------- whose label


def test_label_outside_the_ranges_is_dropped() -> None:
    narrow = policy(map=selector(ranges=((16, 99), (101, 400))))
    assert reason(narrow, mpls(100)) is DropReason.LABEL_RANGE
    assert reason(narrow, mpls(101)) is None


def test_label_given_to_nobody_is_unbound() -> None:
    assert reason(policy(), mpls(999)) is DropReason.LABEL_UNBOUND


@pytest.mark.parametrize("label", [102, 200, 300])
def test_label_of_another_class_vrf_or_peer_is_foreign_and_audited(label: int) -> None:
    result = check(policy(), mpls(label))
    assert isinstance(result, Drop) and result.reason is DropReason.LABEL_FOREIGN
    assert str(label) in result.detail and PEER in result.detail and "VRF red class gold" in result.detail


def test_label_of_another_session_is_foreign_and_a_quarantined_one_unbound() -> None:
    space = LabelSpace(1000, 1010)
    label = space.allocate("pe1", "red", "gold", 3, session=1)
    assert reason(policy(), mpls(label), space=space) is None
    assert reason(policy(session=2), mpls(label), space=space) is DropReason.LABEL_FOREIGN
    space.withdraw(label, now=0.0)
    assert reason(policy(), mpls(label), space=space) is None
    space.release_session(1, now=0.0)
    assert reason(policy(), mpls(label), space=space) is DropReason.LABEL_UNBOUND


def test_child_for_all_vrfs_goes_by_peer_and_label() -> None:
    plain = policy(vrf=None, label_class=None, map=PlainMap(1), session=None)
    result = check(plain, mpls(200))
    assert isinstance(result, Delivery) and (result.vrf, result.label_class) == ("blue", 0)
    assert reason(plain, mpls(300)) is DropReason.LABEL_FOREIGN


def test_child_with_addresses_of_one_vrf_takes_all_its_classes_only() -> None:
    per_vrf = policy(label_class=None, map=PlainMap(1))
    assert [reason(per_vrf, mpls(label)) for label in (100, 102)] == [None, None]
    assert reason(per_vrf, mpls(200)) is DropReason.LABEL_FOREIGN


def test_named_child_that_is_not_strict_goes_by_the_label() -> None:
    result = check(policy(strict=False), mpls(102))
    assert isinstance(result, Delivery) and result.label_class == "standard"


# ----------------------------------------------------------------------------------------- TC, TTL, payload


def test_tc_outside_the_map_is_dropped() -> None:
    gold = policy(map=selector(tc=0b11100000))
    assert [reason(gold, mpls(100, tc=tc)) for tc in (4, 5)] == [DropReason.TC, None]


def test_ttl_of_the_label_is_checked() -> None:
    assert reason(policy(), mpls(100, ttl=0)) is DropReason.TTL
    expired = check(policy(), mpls(100, ttl=1))
    assert isinstance(expired, Drop) and (expired.reason, expired.vrf) == (DropReason.TTL_EXPIRED, "red")
    assert expired.reply is not None and expired.reply[20:22] == bytes((11, 0))
    not_ip = check(policy(), mpls(100, ttl=1, packet=b""))
    assert isinstance(not_ip, Drop) and not_ip.reply is None


@pytest.mark.parametrize("packet", [b"", b"\0\0\0\0", b"\x10\0\0\0", b"\x50" + bytes(40)])
def test_payload_that_is_not_ip_is_dropped(packet: bytes) -> None:
    assert reason(policy(), mpls(100, packet=packet)) is DropReason.PAYLOAD


def test_payload_that_is_bad_ip_is_dropped() -> None:
    assert reason(policy(), mpls(100, packet=body()[:-1])) is DropReason.MALFORMED_IP


# ----------------------------------------------------------------------------------------------- order


def test_first_check_that_fails_names_the_drop() -> None:
    """Everything is wrong; mended one by one, in the order of the checks."""
    narrow = policy(map=selector(tc=2, ranges=((100, 102),), encapsulations=2))
    gre = bytes.fromhex("00008847")

    def entry(label: int = 50, tc: int = 0, ttl: int = 0) -> bytes:
        return LabelEntry(label, tc, True, ttl).encode()

    steps = [
        (137, OTHER, b"\xff", DropReason.NEXT_HEADER),
        (47, OTHER, b"\xff", DropReason.OUTER_ADDRESS),
        (47, PEER, b"\xff\xff\x00\x00", DropReason.GRE_HEADER),
        (47, PEER, b"\0\0\x08\0", DropReason.NOT_MPLS),
        (47, PEER, gre + b"\0\0\0", DropReason.STACK_TRUNCATED),
        (47, PEER, gre + LabelEntry(3, bottom=False).encode() * 2, DropReason.STACK_DEPTH),
        (47, PEER, gre + entry(3), DropReason.SPECIAL_LABEL),
        (47, PEER, gre + entry(50), DropReason.LABEL_RANGE),
        (47, PEER, gre + entry(102), DropReason.LABEL_FOREIGN),
        (47, PEER, gre + entry(101), DropReason.TC),
        (47, PEER, gre + entry(101, 1), DropReason.TTL),
        (47, PEER, gre + entry(101, 1, 1), DropReason.TTL_EXPIRED),
        (47, PEER, gre + entry(101, 1, 2) + b"\x60", DropReason.PAYLOAD),
        (47, PEER, gre + entry(101, 1, 2) + b"\x45", DropReason.MALFORMED_IP),
        (47, PEER, gre + entry(101, 1, 2) + body(), None),
    ]
    assert [reason(narrow, payload, nh, source) for nh, source, payload, _ in steps] == [s[3] for s in steps]


# -------------------------------------------------------------------------------------------- plain IP


def ip_policy(**fields: Any) -> EgressPolicy:
    return policy(
        map=None,
        mode=Mode.TUNNEL,
        label_class=0,
        peer_selectors=(AddressMatch.of_network(ip_network("10.2.0.0/24")),),
        local_selectors=(AddressMatch.of_network(ip_network("10.1.0.0/24")),),
        **fields,
    )


def test_plain_ip_child_delivers_what_its_selectors_say() -> None:
    assert check(ip_policy(), body(), 4) == Delivery("red", 0, None, 0, body(ttl=63))
    assert reason(ip_policy(), body(source="10.3.0.9"), 4) is DropReason.ADDRESS_SELECTOR
    assert reason(ip_policy(), body("10.3.0.9"), 4) is DropReason.ADDRESS_SELECTOR
    assert reason(ip_policy(), mpls(100), 137) is DropReason.NEXT_HEADER
    assert reason(ip_policy(), body(), 4, source=OTHER) is DropReason.OUTER_ADDRESS
    assert reason(ip_policy(), b"", 59) is DropReason.DUMMY


def test_plain_ip_child_is_of_one_vrf() -> None:
    with pytest.raises(ValueError, match="plain IP"):
        replace(ip_policy(), vrf=None)


def test_ports_of_a_selector_are_compared_and_opaque_means_none_to_see() -> None:
    address = ip_address(HOST).packed
    some = AddressMatch(address, address, 17, 53, 60)
    assert some.matches(address, 17, 53) and not some.matches(address, 17, 61)
    assert not some.matches(address, 17, None) and not some.matches(address, 6, 53)
    opaque = AddressMatch(address, address, 17, 65535, 0)
    assert opaque.matches(address, 17, None) and not opaque.matches(address, 17, 65535)


def test_selector_of_one_family_never_matches_the_other() -> None:
    everything = AddressMatch.of_network(ip_network("::/0"))
    assert everything.matches(ip_address("2001:db8::1").packed, 17, 1)
    assert not everything.matches(ip_address(HOST).packed, 17, 1)


def test_selector_of_ike_becomes_a_match() -> None:
    made = AddressMatch.of(AddressSelector.from_network(ip_network("10.1.0.0/24"), 137))
    assert made == AddressMatch.of_network(ip_network("10.1.0.0/24"), 137)


# -------------------------------------------------------------------------------------------- cleartext


def test_mpls_outside_esp_is_dropped_except_from_a_configured_inside() -> None:
    assert check_cleartext(137, mpls(100), PEER) is DropReason.CLEARTEXT_MPLS
    assert check_cleartext(47, bytes.fromhex("00008848"), PEER) is DropReason.CLEARTEXT_MPLS
    assert check_cleartext(17, udp(50000), PEER, {OTHER}) is DropReason.CLEARTEXT_MPLS
    assert check_cleartext(137, mpls(100), OTHER, {OTHER}) is None
    assert check_cleartext(47, bytes.fromhex("00000800"), PEER) is None


# --------------------------------------------------------------------------------------------- the property

VRF_CLASSES: list[tuple[str, ClassId]] = [("red", "gold"), ("red", "standard"), ("blue", 0), ("blue", 7)]
some_label = st.sampled_from([0, 1, 2, 3, 7, 15, 16, 17, 18, 19, 20, 21])


@st.composite
def maps(draw: st.DrawFn) -> PlainMap:
    low = draw(st.integers(1, 3))
    return PlainMap(
        draw(st.sampled_from([1, 2, 3, 11])),
        draw(st.integers(1, 255)),
        ((16, draw(st.integers(16, 21))),),
        (low, draw(st.integers(low, 4))),
        draw(st.integers(0, 255)) & 0b10000111,
    )


@settings(max_examples=200)
@given(
    owners=st.dictionaries(
        st.integers(16, 21),
        st.tuples(st.sampled_from(["pe1", "pe2"]), st.sampled_from(VRF_CLASSES), st.integers(1, 3)),
    ),
    child=st.sampled_from(VRF_CLASSES),
    child_map=maps(),
    tunnel=st.booleans(),
    next_header=st.sampled_from([137, 137, 47, 17, 4, 41, 59, 0]),
    prefix=st.sampled_from([b"", b"", bytes.fromhex("00008847"), bytes.fromhex("19eb19eb")]),
    entries=st.lists(
        st.builds(LabelEntry, some_label, st.integers(0, 7), st.just(True), st.sampled_from([0, 1, 2, 255])),
        max_size=5,
    ),
    packet=st.sampled_from([body(), body(ttl=1), body("2001:db8:1::9", source="2001:db8:2::9"), b"", b"\x45"])
    | st.binary(max_size=60),
    source=st.sampled_from([PEER, PEER, PEER, OTHER]),
)
def test_vrf_and_class_of_the_label_are_those_of_the_sa_for_whatever_is_accepted(
    owners: dict[int, tuple[str, tuple[str, ClassId], int]],
    child: tuple[str, ClassId],
    child_map: PlainMap,
    tunnel: bool,
    next_header: int,
    prefix: bytes,
    entries: list[LabelEntry],
    packet: bytes,
    source: str,
) -> None:
    space = LabelSpace()
    for label, (peer, its, families) in owners.items():
        space.reserve(label, peer, *its, families)
    mode = Mode.TUNNEL if tunnel else Mode.TRANSPORT
    any_address = (AddressMatch(bytes(4), b"\xff" * 4),)
    strict = EgressPolicy("pe1", *child, child_map, mode, PEER, frozenset({LOCAL}), any_address, any_address)
    payload = prefix + stack(*entries) + packet
    if tunnel and next_header == 4:
        payload = build_ip(ip_address(PEER).packed, ip_address(LOCAL).packed, 47 if prefix else 137, payload)
    result = check_inbound(strict, space, next_header, payload, source, LOCAL, VRFS)
    if isinstance(result, Delivery):
        assert (result.vrf, result.label_class) == child
        assert source == PEER and child_map.tc >> result.tc & 1
        assert child_map.depth[0] <= len(entries) <= child_map.depth[1]
        assert isinstance(IpHeader.parse(result.packet), IpHeader)
        if result.label in (0, 2):
            assert child_map.special >> result.label & 1
        else:
            assert result.label is not None
            owner = space.lookup(result.label)
            assert owner is not None and owner.peer == "pe1"
            assert (owner.vrf, owner.label_class) == child


@given(st.binary(max_size=100), st.sampled_from([137, 47, 17, 4, 41]))
def test_any_octets_are_delivered_or_dropped_with_a_reason(payload: bytes, next_header: int) -> None:
    for one in (policy(), gre_policy(), udp_policy(), tunnel_policy(), ip_policy()):
        assert isinstance(check(one, payload, next_header), Delivery | Drop)
