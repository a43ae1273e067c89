"""MPLS in IP, GRE and UDP: built, stripped, and compared with what scapy makes of it."""

from ipaddress import ip_address
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import GRE, IP, UDP
from scapy.layers.inet6 import IPv6

from mpls.drops import DropReason
from mpls.encapsulation import (
    Encapsulation,
    Encapsulator,
    GreOptions,
    Mode,
    is_cleartext_mpls,
    strip,
    strip_gre,
    strip_udp,
)
from mpls.ip import Address, IpHeader, build_ip
from mpls.labels import LabelEntry

STACK = LabelEntry(100, 5).encode()
BODY = build_ip(ip_address("10.1.0.9").packed, ip_address("10.2.0.9").packed, 17, b"12345678")
Pair: TypeAlias = tuple[Address, Address]
V4: Pair = ip_address("192.0.2.1"), ip_address("192.0.2.2")
V6: Pair = ip_address("2001:db8::1"), ip_address("2001:db8::2")
LABELLED = [Encapsulation.MPLS_IN_IP, Encapsulation.MPLS_IN_GRE, Encapsulation.MPLS_IN_UDP]


@pytest.mark.parametrize("addresses", [V4, V6])
@pytest.mark.parametrize("kind", LABELLED)
def test_next_header_in_transport_mode_is_that_of_the_encapsulation(
    kind: Encapsulation, addresses: Pair
) -> None:
    next_header, payload = Encapsulator(kind, Mode.TRANSPORT, *addresses).encapsulate(STACK, BODY)
    assert next_header == {"mpls-in-ip": 137, "mpls-in-gre": 47, "mpls-in-udp": 17}[str(kind)]
    assert strip(next_header, payload, str(addresses[0]), str(addresses[1])) == STACK + BODY


@pytest.mark.parametrize(("addresses", "expected"), [(V4, 4), (V6, 41)])
@pytest.mark.parametrize("kind", LABELLED)
def test_tunnel_mode_has_the_protocol_in_its_inner_header(
    kind: Encapsulation, addresses: Pair, expected: int
) -> None:
    next_header, packet = Encapsulator(kind, Mode.TUNNEL, *addresses).encapsulate(STACK, BODY, dscp=46)
    header = IpHeader.parse(packet)
    assert isinstance(header, IpHeader)
    assert (next_header, header.protocol, header.dscp, header.ecn) == (expected, kind, 46, 0)
    assert (header.source, header.destination) == (addresses[0].packed, addresses[1].packed)
    assert strip(kind, packet[header.upper_offset :], header.source, header.destination) == STACK + BODY


def test_plain_ip_packet_goes_into_tunnel_mode_as_it_is() -> None:
    plain = Encapsulator(Encapsulation.NONE, Mode.TUNNEL, *V6)
    assert plain.encapsulate(b"", BODY) == (4, BODY)
    six = build_ip(V6[0].packed, V6[1].packed, 17, b"12345678")
    assert plain.encapsulate(b"", six) == (41, six)


def test_encapsulator_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="family"):
        Encapsulator(Encapsulation.MPLS_IN_IP, Mode.TRANSPORT, V4[0], V6[1])


@pytest.mark.parametrize("addresses", [V4, V6])
def test_udp_header_is_the_one_of_rfc_7510(addresses: Pair) -> None:
    outer = (IP if addresses is V4 else IPv6)(src=str(addresses[0]), dst=str(addresses[1]))
    theirs = outer / UDP(sport=6635, dport=6635) / MPLS(label=100, cos=5, s=1, ttl=255) / BODY
    ours = Encapsulator(Encapsulation.MPLS_IN_UDP, Mode.TRANSPORT, *addresses).encapsulate(STACK, BODY)[1]
    expected = bytes(theirs)[len(bytes(outer)) :]
    if addresses is V4:  # there the checksum may be and is zero
        assert ours == expected[:6] + b"\0\0" + expected[8:]
    else:
        assert ours == expected
    stripped = strip_udp(expected, addresses[0].packed, addresses[1].packed)
    assert stripped == STACK + BODY


@pytest.mark.parametrize(("offset", "value"), [(2, 0), (3, 0), (4, 1), (5, 9), (6, 1), (-1, 0x39)])
def test_udp_header_that_is_wrong_is_dropped(offset: int, value: int) -> None:
    octets = bytearray(
        Encapsulator(Encapsulation.MPLS_IN_UDP, Mode.TRANSPORT, *V6).encapsulate(STACK, BODY)[1]
    )
    octets[offset] = value
    assert strip_udp(bytes(octets), V6[0].packed, V6[1].packed) is DropReason.UDP_HEADER


def test_udp_checksum_covers_the_addresses() -> None:
    octets = Encapsulator(Encapsulation.MPLS_IN_UDP, Mode.TRANSPORT, *V6).encapsulate(STACK, BODY)[1]
    elsewhere = ip_address("2001:db8::3").packed
    assert strip_udp(octets, V6[0].packed, elsewhere) is DropReason.UDP_HEADER


def test_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() -> None:
    wrapping = Encapsulator(Encapsulation.MPLS_IN_UDP, Mode.TRANSPORT, *V6)
    almost = wrapping.encapsulate(STACK, b"\0\0")[1]
    octets = wrapping.encapsulate(STACK, almost[6:8])[1]
    assert octets[6:8] == b"\xff\xff"
    assert strip_udp(octets, V6[0].packed, V6[1].packed) == STACK + almost[6:8]


def test_gre_without_options_is_four_octets() -> None:
    payload = Encapsulator(Encapsulation.MPLS_IN_GRE, Mode.TRANSPORT, *V4).encapsulate(STACK, BODY)[1]
    assert payload == bytes(GRE(proto=0x8847) / (STACK + BODY))
    assert payload[:4] == bytes.fromhex("00008847")


ALL_OPTIONS = GreOptions(checksum=True, key=7, sequence=True)
OPTIONS = [
    ({"chksum_present": 1}, GreOptions(checksum=True)),
    ({"key_present": 1, "key": 7}, GreOptions(key=7)),
    ({"seqnum_present": 1, "sequence_number": 9}, GreOptions(sequence=True)),
    ({"chksum_present": 1, "key_present": 1, "key": 7, "seqnum_present": 1}, ALL_OPTIONS),
]


@pytest.mark.parametrize(("fields", "options"), OPTIONS)
def test_gre_options_pass_only_when_configured(fields: dict[str, int], options: GreOptions) -> None:
    octets = bytes(GRE(proto=0x8847, **fields) / (STACK + BODY))
    assert strip_gre(octets) is DropReason.GRE_HEADER
    assert strip_gre(octets, options) == STACK + BODY
    for length in range(4, 4 * (1 + bin(octets[0]).count("1"))):
        assert strip_gre(octets[:length], options) is DropReason.GRE_HEADER


def test_gre_key_and_checksum_must_be_right() -> None:
    keyed = bytes(GRE(proto=0x8847, key_present=1, key=8) / (STACK + BODY))
    assert strip_gre(keyed, ALL_OPTIONS) is DropReason.GRE_HEADER
    summed = bytes(GRE(proto=0x8847, chksum_present=1) / (STACK + BODY))
    assert strip_gre(summed[:-1] + b"!", ALL_OPTIONS) is DropReason.GRE_HEADER


def test_peer_that_sends_no_options_is_understood_where_they_are_configured() -> None:
    assert strip_gre(bytes.fromhex("00008847") + STACK, ALL_OPTIONS) == STACK


@pytest.mark.parametrize("bit", range(16))
def test_gre_version_and_reserved_bits_must_be_zero(bit: int) -> None:
    octets = (1 << bit).to_bytes(2, "big") + bytes.fromhex("8847") + STACK + BODY
    assert strip_gre(octets) is DropReason.GRE_HEADER


@pytest.mark.parametrize("protocol", [0x0800, 0x86DD, 0x8848, 0x88BE])
def test_gre_that_carries_something_else_is_not_mpls(protocol: int) -> None:
    assert strip_gre(bytes(GRE(proto=protocol) / BODY)) is DropReason.NOT_MPLS


@given(st.sampled_from([137, 47, 17, 6]), st.binary(max_size=40))
def test_any_octets_are_stripped_or_dropped(protocol: int, octets: bytes) -> None:
    result = strip(protocol, octets, V4[0].packed, V4[1].packed, ALL_OPTIONS)
    assert isinstance(result, DropReason) or octets.endswith(result)


def test_other_protocols_are_not_stripped() -> None:
    assert strip(6, STACK, "192.0.2.1", "192.0.2.2") is DropReason.NEXT_HEADER


@pytest.mark.parametrize(
    ("protocol", "payload", "is_mpls"),
    [
        (137, b"", True),
        (47, bytes.fromhex("00008847"), True),
        (47, bytes.fromhex("20008848"), True),
        (47, bytes.fromhex("00000800"), False),
        (47, b"\0\0", False),
        (17, bytes.fromhex("c00019eb"), True),
        (17, bytes.fromhex("19eb1194"), False),
        (17, b"\0", False),
        (50, bytes.fromhex("00008847"), False),
    ],
)
def test_mpls_is_known_from_outside(protocol: int, payload: bytes, is_mpls: bool) -> None:
    assert is_cleartext_mpls(protocol, payload) is is_mpls


def test_encapsulations_have_their_names_and_bits() -> None:
    names = [str(kind) for kind in Encapsulation]
    assert names == ["mpls-in-ip", "mpls-in-gre", "mpls-in-udp", "none"]
    assert [Encapsulation.parse(name) for name in names] == list(Encapsulation)
    assert [kind.mask for kind in Encapsulation] == [1, 2, 8, 0]
    with pytest.raises(ValueError, match="mpls-in-gre"):
        Encapsulation.parse("gre")
