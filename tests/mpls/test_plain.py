"""Plain IP packets in and out of transport mode; scapy computes the checksums independently."""

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.packet import Packet, Raw

from mpls.child_policy import AddressMatch, EgressPolicy
from mpls.drops import DropReason
from mpls.encapsulation import Encapsulation, Encapsulator, Mode
from mpls.plain import check_plain, open_transport

HOSTS4 = ("192.0.2.1", "192.0.2.2")
HOSTS6 = ("2001:db8::1", "2001:db8::2")


def policy(peer: str, local: str, original: tuple[str, str] | None = None, protocol: int = 0) -> EgressPolicy:
    """Of the child at `local`."""
    matches = [
        AddressMatch(ip_address(one).packed, ip_address(one).packed, protocol) for one in (peer, local)
    ]
    return EgressPolicy(
        peer="pe2",
        vrf="red",
        label_class=0,
        map=None,
        mode=Mode.TRANSPORT,
        peer_address=peer,
        local_addresses=frozenset({local}),
        peer_selectors=(matches[0],),
        local_selectors=(matches[1],),
        original_addresses=original,
    )


def packet(source: str, destination: str, upper: Packet) -> bytes:
    base = (
        IPv6(src=source, dst=destination)
        if ":" in source
        else IP(src=source, dst=destination, flags="DF", id=0)
    )
    return bytes(base / upper)


UPPER = [UDP(sport=5000, dport=5001) / Raw(b"odd"), TCP(sport=1, dport=2) / Raw(b"even")]


@pytest.mark.parametrize("upper", [*UPPER, ICMP() / Raw(b"ping")])
@pytest.mark.parametrize("source", ["192.0.2.1", "198.51.100.7"])
def test_packet_comes_out_as_if_sent_from_where_it_seems_to_come(upper: Packet, source: str) -> None:
    """Through a NAT (RFC 3948 3.1.2): the checksum is that of the addresses that the receiver sees."""
    wrap = Encapsulator(Encapsulation.NONE, Mode.TRANSPORT, *map(ip_address, HOSTS4))
    next_header, payload = wrap.encapsulate(b"", packet(*HOSTS4, upper))
    original = None if source == HOSTS4[0] else HOSTS4
    egress = policy(source, HOSTS4[1], original)
    assert open_transport(egress, next_header, payload, source, HOSTS4[1]) == packet(source, HOSTS4[1], upper)


@pytest.mark.parametrize("upper", [*UPPER, ICMPv6EchoRequest(data=b"ping!")])
def test_ipv6_too(upper: Packet) -> None:
    wrap = Encapsulator(Encapsulation.NONE, Mode.TRANSPORT, *map(ip_address, HOSTS6))
    next_header, payload = wrap.encapsulate(b"", packet(*HOSTS6, upper))
    moved = policy("2001:db8::9", HOSTS6[1], HOSTS6)
    expected = packet("2001:db8::9", HOSTS6[1], upper)
    assert open_transport(moved, next_header, payload, "2001:db8::9", HOSTS6[1]) == expected


def test_selectors_are_held_to_in_both_directions() -> None:
    only_tcp = policy(HOSTS4[1], HOSTS4[0], protocol=6)
    assert check_plain(only_tcp, packet(*HOSTS4, UPPER[1])) is None
    assert check_plain(only_tcp, packet(*HOSTS4, UPPER[0])) is DropReason.OUTSIDE_SELECTOR
    assert check_plain(only_tcp, packet("192.0.2.3", HOSTS4[1], UPPER[1])) is DropReason.OUTSIDE_SELECTOR
    assert check_plain(only_tcp, b"\x45") is DropReason.MALFORMED_IP
    udp = packet(*HOSTS4, UPPER[0])[20:]
    inbound = policy(HOSTS4[0], HOSTS4[1], protocol=6)
    assert open_transport(inbound, 17, udp, *HOSTS4) is DropReason.ADDRESS_SELECTOR
    assert open_transport(inbound, 6, bytes(0x10000), *HOSTS4) is DropReason.MALFORMED_IP


def test_options_and_extension_headers_before_esp_are_not_taken() -> None:
    assert check_plain(policy(HOSTS4[1], HOSTS4[0]), packet(*HOSTS4, UPPER[0])) is None
    longer = bytes(IP(src=HOSTS4[0], dst=HOSTS4[1], options=[IPOption_NOP()]) / UPPER[0])
    assert check_plain(policy(HOSTS4[1], HOSTS4[0]), longer) is DropReason.OUTSIDE_SELECTOR
