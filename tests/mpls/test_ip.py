"""IPv4 and IPv6 headers, and the ICMP errors a router answers with."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Packet, Raw

from mpls.drops import DropReason
from mpls.ip import (
    MAX_EXTENSION_HEADERS,
    Address,
    Echo,
    IpHeader,
    build_ip,
    decrement_ttl,
    icmp_time_exceeded,
    icmp_too_big,
    icmp_unreachable,
    internet_checksum,
)

A4, B4, R4 = IPv4Address("10.1.0.9"), IPv4Address("10.2.0.9"), IPv4Address("10.1.0.1")
A6, B6, R6 = IPv6Address("2001:db8:1::9"), IPv6Address("2001:db8:2::9"), IPv6Address("2001:db8:1::1")
FAMILIES = pytest.mark.parametrize(("source", "destination", "router"), [(A4, B4, R4), (A6, B6, R6)])


def header_of(packet: bytes | Packet) -> IpHeader:
    header = IpHeader.parse(bytes(packet))
    assert isinstance(header, IpHeader)
    return header


def reread(packet: bytes) -> Packet:
    """The packet as scapy would have made it: lengths and checksums of its first two layers computed anew."""
    theirs = (IP if packet[0] >> 4 == 4 else IPv6)(packet)
    for layer in (theirs, theirs.payload):
        for name in ("chksum", "cksum", "len", "plen"):
            if name in layer.fields:
                delattr(layer, name)
    return theirs


def test_checksum_of_the_example_in_rfc_1071() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@given(st.binary(max_size=64))
def test_checksum_makes_the_sum_all_ones(octets: bytes) -> None:
    total = 0
    for n in range(0, len(octets), 2):
        total += int.from_bytes(octets[n : n + 2].ljust(2, b"\0"), "big")
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert internet_checksum(octets) == 0xFFFF - total


@FAMILIES
def test_built_header_is_the_one_scapy_builds(source: Address, destination: Address, router: Address) -> None:
    packet = build_ip(source.packed, destination.packed, 17, b"octets", dscp=46, ecn=1, ttl=9)
    assert bytes(reread(packet)) == packet
    header = header_of(packet)
    assert (header.dscp, header.ecn, header.ttl, header.protocol) == (46, 1, 9, 17)
    assert (ip_address(header.source), ip_address(header.destination)) == (source, destination)
    assert packet[header.upper_offset : header.total_octets] == b"octets"


def test_ipv4_packets_of_ours_are_never_fragmented() -> None:
    assert IP(build_ip(A4.packed, B4.packed, 137, b"")).flags == "DF"


def test_build_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="family"):
        build_ip(A4.packed, B6.packed, 17, b"")
    with pytest.raises(ValueError, match="IPv4 packet"):
        build_ip(A4.packed, B4.packed, 17, bytes(65516))
    with pytest.raises(ValueError, match="IPv6 payload"):
        build_ip(A6.packed, B6.packed, 17, bytes(65536))


@pytest.mark.parametrize("layer", [TCP, UDP])
def test_ports_are_read_in_both_families(layer: type[Packet]) -> None:
    for ip_layer in (IP(src=str(A4), dst=str(B4)), IPv6(src=str(A6), dst=str(B6))):
        header = header_of(ip_layer / layer(sport=1234, dport=443))
        assert (header.source_port, header.destination_port) == (1234, 443)


def test_icmp_type_and_code_stand_for_ports() -> None:
    assert header_of(IP() / ICMP(type=3, code=4)).source_port == 0x0304
    assert header_of(IPv6() / ICMPv6EchoRequest()).destination_port == 128 << 8


def test_later_fragment_has_no_ports() -> None:
    first = header_of(IP(flags="MF") / UDP(sport=1, dport=2) / b"12345678")
    assert (first.is_fragment, first.is_later_fragment, first.destination_port) == (True, False, 2)
    later = header_of(IP(frag=1, proto=17) / b"12345678")
    assert (later.is_fragment, later.is_later_fragment, later.destination_port) == (True, True, None)
    later6 = header_of(IPv6() / IPv6ExtHdrFragment(offset=1, nh=17) / b"12345678")
    assert (later6.protocol, later6.is_later_fragment, later6.destination_port) == (17, True, None)
    first6 = header_of(IPv6() / IPv6ExtHdrFragment(m=1) / UDP(sport=1, dport=2))
    assert (first6.is_fragment, first6.is_later_fragment, first6.destination_port) == (True, False, 2)


def test_atomic_fragment_is_a_whole_packet() -> None:
    assert not header_of(IPv6() / IPv6ExtHdrFragment() / UDP()).is_fragment


def test_extension_headers_are_walked_to_the_transport() -> None:
    packet = IPv6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=7, dport=6635)
    assert (header_of(packet).protocol, header_of(packet).destination_port) == (17, 6635)


def test_authentication_header_counts_in_words() -> None:
    ah = bytes((17, 4)) + bytes(22)
    packet = build_ip(A6.packed, B6.packed, 51, ah + bytes(UDP(sport=7, dport=8)))
    assert header_of(packet).destination_port == 8


def test_endless_chain_of_extension_headers_is_refused() -> None:
    option = bytes((60, 0)) + bytes(6)
    for count, is_fine in ((MAX_EXTENSION_HEADERS, True), (MAX_EXTENSION_HEADERS + 1, False)):
        chain = option * (count - 1) + bytes((59, 0)) + bytes(6)
        parsed = IpHeader.parse(build_ip(A6.packed, B6.packed, 60, chain))
        assert isinstance(parsed, IpHeader) is is_fine


@FAMILIES
def test_packet_cut_anywhere_is_malformed(source: Address, destination: Address, router: Address) -> None:
    packet = build_ip(source.packed, destination.packed, 17, b"12345678")
    for cut in range(len(packet)):
        assert IpHeader.parse(packet[:cut]) is DropReason.MALFORMED_IP


@pytest.mark.parametrize(
    "change",
    [
        {0: 0x44},  # header of 16 octets
        {0: 0x4F},  # header longer than the packet
        {0: 0x55},  # version 5
        {3: 19},  # total length below the header's
        {10: 0},  # checksum
        {8: 1},  # TTL without the checksum
    ],
)
def test_bad_ipv4_header_is_malformed(change: dict[int, int]) -> None:
    packet = bytearray(build_ip(A4.packed, B4.packed, 17, b"12345678"))
    for offset, value in change.items():
        packet[offset] = value
    assert IpHeader.parse(bytes(packet)) is DropReason.MALFORMED_IP


@given(st.binary(max_size=120), st.sampled_from([None, 0x45, 0x60]))
def test_any_octets_are_read_within_bounds(octets: bytes, first: int | None) -> None:
    packet = octets if first is None or not octets else bytes((first,)) + octets[1:]
    header = IpHeader.parse(packet)
    if isinstance(header, IpHeader):
        assert 20 <= header.upper_offset <= header.total_octets <= len(packet)


def test_padding_behind_the_packet_is_not_part_of_it() -> None:
    packet = build_ip(A4.packed, B4.packed, 17, b"12345678")
    assert header_of(packet + bytes(18)).total_octets == len(packet)


@given(st.integers(1, 255), st.integers(0, 63), st.binary(min_size=4, max_size=4))
def test_one_hop_keeps_the_ipv4_checksum_right(ttl: int, dscp: int, source: bytes) -> None:
    packet = decrement_ttl(build_ip(source, B4.packed, 17, b"x", dscp=dscp, ttl=ttl))
    assert packet == build_ip(source, B4.packed, 17, b"x", dscp=dscp, ttl=ttl - 1)


def test_one_hop_takes_one_from_the_hop_limit() -> None:
    assert header_of(decrement_ttl(build_ip(A6.packed, B6.packed, 17, b"x", ttl=64))).ttl == 63


@FAMILIES
def test_icmp_errors_are_as_scapy_builds_them(source: Address, destination: Address, router: Address) -> None:
    packet = build_ip(source.packed, destination.packed, 253, bytes(2000), dscp=10)
    limit = 576 if source.version == 4 else 1280
    kinds = {4: [(11, 0), (3, 0), (3, 4)], 6: [(3, 0), (1, 0), (2, 0)]}[source.version]
    errors = [
        icmp_time_exceeded(packet, router),
        icmp_unreachable(packet, router),
        icmp_too_big(packet, router, 1396),
    ]
    for error, kind in zip(errors, kinds, strict=True):
        assert error is not None and len(error) == limit and bytes(reread(error)) == error
        header = header_of(error)
        assert (ip_address(header.source), ip_address(header.destination)) == (router, source)
        assert header.dscp == 10
        message = error[header.upper_offset :]
        assert (message[0], message[1]) == kind
        assert packet.startswith(message[8:])
    assert errors[2] is not None
    assert int.from_bytes(errors[2][header.upper_offset + 4 : header.upper_offset + 8], "big") == 1396


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=str(A4), dst="224.0.0.5") / UDP(),
        IP(src=str(A4), dst="255.255.255.255") / UDP(),
        IP(src=str(IPv4Address(0)), dst=str(B4)) / UDP(),
        IP(src="224.0.0.1", dst=str(B4)) / UDP(),
        IP(src="127.0.0.1", dst=str(B4)) / UDP(),
        IP(src=str(A4), dst=str(B4), frag=7) / Raw(b"12345678"),
        IP(src=str(A4), dst=str(B4)) / ICMP(type=3, code=1),
        IP(src=str(A4), dst=str(B4), proto=1),
        Raw(b"no packet"),
    ],
)
def test_no_icmp_error_is_sent_about_these(packet: Packet) -> None:
    assert icmp_unreachable(bytes(packet), R4) is None


def test_no_icmp_error_is_sent_about_these_in_ipv6() -> None:
    for packet in (IPv6(src=str(A6), dst="ff02::1") / UDP(), IPv6(src="::", dst=str(B6)) / UDP()):
        assert icmp_unreachable(bytes(packet), R6) is None
    error = icmp_unreachable(build_ip(A6.packed, B6.packed, 17, b"x"), R6)
    assert error is not None and icmp_unreachable(error, R6) is None
    assert icmp_unreachable(build_ip(A6.packed, B6.packed, 17, b"x"), R4) is None


@FAMILIES
def test_ping_is_answered(source: Address, destination: Address, router: Address) -> None:
    request = Echo(source, destination, 7, 3, b"data", dscp=46)
    packet = request.encode()
    assert bytes(reread(packet)) == packet
    assert Echo.parse(packet) == request
    reply = Echo.parse(request.reply().encode())
    assert reply == Echo(destination, source, 7, 3, b"data", True, 46)
    assert icmp_time_exceeded(packet, router) is not None


@FAMILIES
def test_what_is_no_echo_is_not_read_as_one(source: Address, destination: Address, router: Address) -> None:
    packet = Echo(source, destination, 7, 3, b"data").encode()
    assert Echo.parse(packet[:-1] + b"!") is None
    assert Echo.parse(build_ip(source.packed, destination.packed, 17, b"12345678")) is None
    error = icmp_unreachable(packet, router)
    assert error is not None and Echo.parse(error) is None
    assert Echo.parse(b"") is None
