"""IPv4 and IPv6 headers as a router needs them: RFC 791, 1812, 8200; ICMP errors of RFC 792, 1191 and 4443.

Knows nothing of labels and VRFs. Everything read is bounded by the octets given; nothing is reassembled.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from struct import Struct
from typing import Final, NamedTuple, Self

from mpls.drops import DropReason

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

IPV4_HEADER_OCTETS: Final = 20
IPV6_HEADER_OCTETS: Final = 40
ICMPV4: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
MAX_EXTENSION_HEADERS: Final = 8
_PLAIN_IPV4: Final = Struct(">xBH2xHBB2x12s")
_PLAIN_IPV6: Final = Struct(">IHBB36s")
_TTL_TO_CHECKSUM: Final = Struct(">BBH")
"""Of an IPv4 header, from its ninth octet on."""
_PORT_PROTOCOLS: Final = frozenset({TCP, UDP, 33, 132, 136})  # DCCP, SCTP and UDP-Lite start alike
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_EXTENSION_HEADERS: Final = frozenset({0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140})


def internet_checksum(octets: bytes) -> int:
    """RFC 1071. 2**16 is 1 modulo 65535, so the sum of all words is the whole number modulo 65535."""
    if len(octets) % 2:
        octets += b"\0"
    number = int.from_bytes(octets, "big")
    # Zero in one's complement has two forms; a sum of anything but zeros is never 0x0000.
    return 0xFFFF - (number % 0xFFFF or (0xFFFF if number else 0))


def pseudo_header(source: bytes, destination: bytes, protocol: int, octet_count: int) -> bytes:
    """What a transport checksum covers beside its own octets: RFC 768, RFC 8200 8.1. Packed addresses."""
    if len(source) == 4:
        return source + destination + bytes((0, protocol)) + octet_count.to_bytes(2, "big")
    return source + destination + octet_count.to_bytes(4, "big") + bytes((0, 0, 0, protocol))


class IpHeader(NamedTuple):
    """The fields of one IP packet that forwarding and policy look at. Addresses are packed: 4 or 16 octets.

    `protocol` is the upper-layer protocol behind `upper_offset` (for IPv6 after the extension headers);
    ports are None where the protocol has none or the octets are not there (a later fragment).
    For ICMP both ports are type << 8 | code, as in RFC 7296 3.13.1.
    `total_octets` is the packet's own length: octets behind it are padding.
    """

    version: int
    source: bytes
    destination: bytes
    protocol: int
    upper_offset: int
    total_octets: int
    dscp: int
    ecn: int
    ttl: int
    is_fragment: bool = False
    is_later_fragment: bool = False
    source_port: int | None = None
    destination_port: int | None = None

    @classmethod
    def parse(cls, packet: bytes) -> Self | DropReason:
        """MALFORMED_IP: wrong version, length or header checksum; extension headers cut off or too many."""
        version = packet[0] >> 4 if packet else 0
        if version == 4:
            return cls._parse_ipv4(packet)
        if version == 6:
            return cls._parse_ipv6(packet)
        return DropReason.MALFORMED_IP

    @classmethod
    def _parse_ipv4(cls, packet: bytes) -> Self | DropReason:
        if len(packet) < IPV4_HEADER_OCTETS:
            return DropReason.MALFORMED_IP
        header_octets = (packet[0] & 15) * 4
        total_octets = packet[2] << 8 | packet[3]
        if not IPV4_HEADER_OCTETS <= header_octets <= total_octets <= len(packet):
            return DropReason.MALFORMED_IP
        if int.from_bytes(packet[:header_octets], "big") % 0xFFFF:  # RFC 1812 5.2.2: verify the checksum
            return DropReason.MALFORMED_IP
        fragment = packet[6] << 8 | packet[7]
        is_later = bool(fragment & 0x1FFF)
        protocol = packet[9]
        source_port, destination_port = (
            (None, None) if is_later else _ports(packet, header_octets, total_octets, protocol)
        )
        return cls(
            4,
            packet[12:16],
            packet[16:20],
            protocol,
            header_octets,
            total_octets,
            packet[1] >> 2,
            packet[1] & 3,
            packet[8],
            bool(fragment & 0x3FFF),
            is_later,
            source_port,
            destination_port,
        )

    @classmethod
    def _parse_ipv6(cls, packet: bytes) -> Self | DropReason:
        if len(packet) < IPV6_HEADER_OCTETS:
            return DropReason.MALFORMED_IP
        total_octets = IPV6_HEADER_OCTETS + (packet[4] << 8 | packet[5])
        if total_octets > len(packet):
            return DropReason.MALFORMED_IP
        traffic_class = packet[0] << 4 & 0xF0 | packet[1] >> 4
        protocol, offset = packet[6], IPV6_HEADER_OCTETS
        is_fragment = is_later = False
        headers = 0
        while protocol in _EXTENSION_HEADERS and not is_later:
            headers += 1
            if headers > MAX_EXTENSION_HEADERS or offset + 8 > total_octets:
                return DropReason.MALFORMED_IP
            if protocol == _FRAGMENT:
                fragment = packet[offset + 2] << 8 | packet[offset + 3]
                is_fragment = bool(fragment & 0xFFF9)
                is_later = bool(fragment & 0xFFF8)
                octets = 8
            elif protocol == _AUTHENTICATION:
                octets = (packet[offset + 1] + 2) * 4
            else:
                octets = (packet[offset + 1] + 1) * 8
            protocol = packet[offset]
            offset += octets
            if offset > total_octets:
                return DropReason.MALFORMED_IP
        source_port, destination_port = (
            (None, None) if is_later else _ports(packet, offset, total_octets, protocol)
        )
        return cls(
            6,
            packet[8:24],
            packet[24:40],
            protocol,
            offset,
            total_octets,
            traffic_class >> 2,
            traffic_class & 3,
            packet[7],
            is_fragment,
            is_later,
            source_port,
            destination_port,
        )


class PlainHeader(NamedTuple):
    """The header of a packet as nearly all are: in one piece, with ports, without options or extension headers.

    `ends`: both packed addresses, both ports. Two packets with equal `traffic_class`, `protocol` and `ends` are
    one flow: all that policy and forwarding look at is equal but for `ttl`.
    """

    traffic_class: int
    protocol: int
    ends: bytes
    total_octets: int
    ttl: int

    @property
    def destination(self) -> bytes:
        return self.ends[len(self.ends) // 2 - 2 : -4]

    @classmethod
    def parse(cls, packet: bytes) -> Self | None:
        """A quick look that never disagrees with `IpHeader.parse`; None: that one has to look."""
        if packet[:1] == b"E" and len(packet) >= _PLAIN_IPV4.size:
            traffic_class, total_octets, fragment, ttl, protocol, ends = _PLAIN_IPV4.unpack_from(packet)
            if (
                fragment & 0x3FFF
                or protocol not in _PORT_PROTOCOLS
                or not _PLAIN_IPV4.size <= total_octets <= len(packet)
                or int.from_bytes(packet[:IPV4_HEADER_OCTETS], "big") % 0xFFFF
            ):
                return None
            return cls(traffic_class, protocol, ends, total_octets, ttl)
        if len(packet) >= _PLAIN_IPV6.size and packet[0] >> 4 == 6:
            word, payload_octets, protocol, ttl, ends = _PLAIN_IPV6.unpack_from(packet)
            total_octets = IPV6_HEADER_OCTETS + payload_octets
            if protocol in _PORT_PROTOCOLS and _PLAIN_IPV6.size <= total_octets <= len(packet):
                return cls(word >> 20 & 0xFF, protocol, ends, total_octets, ttl)
        return None


def _ports(packet: bytes, offset: int, end: int, protocol: int) -> tuple[int | None, int | None]:
    if protocol in _PORT_PROTOCOLS and offset + 4 <= end:
        return packet[offset] << 8 | packet[offset + 1], packet[offset + 2] << 8 | packet[offset + 3]
    if protocol in (ICMPV4, ICMPV6) and offset + 2 <= end:
        kind = packet[offset] << 8 | packet[offset + 1]
        return kind, kind
    return None, None


def build_ip(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    *,
    dscp: int = 0,
    ecn: int = 0,
    ttl: int = 64,
) -> bytes:
    """A whole packet, IPv4 (DF set, identification 0: atomic, RFC 6864) or IPv6 as the packed addresses are.

    ValueError when the addresses are of two families or the payload does not fit the length field.
    """
    traffic_class = dscp << 2 | ecn
    if len(source) == len(destination) == 4:
        total_octets = IPV4_HEADER_OCTETS + len(payload)
        if total_octets > 0xFFFF:
            raise ValueError(f"an IPv4 packet of {total_octets} octets")
        header = (
            bytes((0x45, traffic_class))
            + total_octets.to_bytes(2, "big")
            + b"\0\0\x40\0"
            + bytes((ttl, protocol))
        )
        checksum = internet_checksum(header + source + destination)
        return header + checksum.to_bytes(2, "big") + source + destination + payload
    if len(source) == len(destination) == 16:
        if len(payload) > 0xFFFF:
            raise ValueError(f"an IPv6 payload of {len(payload)} octets")
        first = (6 << 28 | traffic_class << 20).to_bytes(4, "big")
        lengths = len(payload).to_bytes(2, "big") + bytes((protocol, ttl))
        return first + lengths + source + destination + payload
    raise ValueError("source and destination are not of one address family")


def decrement_ttl(packet: bytes) -> bytes:
    """The packet one hop on, IPv4's checksum updated, not made anew (RFC 1624). Its TTL must not be zero."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes((packet[7] - 1,)) + packet[8:]
    ttl, protocol, checksum = _TTL_TO_CHECKSUM.unpack_from(packet, 8)
    changed = _TTL_TO_CHECKSUM.pack(ttl - 1, protocol, (checksum + 0x0100) % 0xFFFF)
    return packet[:8] + changed + packet[12:]


def traffic_class_of(packet: bytes) -> int:
    """DSCP and ECN of an IPv4 or IPv6 packet, one octet."""
    return packet[1] if packet[0] >> 4 == 4 else packet[0] << 4 & 0xF0 | packet[1] >> 4


def ecn_of(packet: bytes) -> int:
    return traffic_class_of(packet) & 3


def ttl_of(packet: bytes) -> int:
    """TTL or hop limit."""
    return packet[8] if packet[0] >> 4 == 4 else packet[7]


def remark(packet: bytes, traffic_class: int, ttl: int) -> bytes:
    """The packet with another DSCP and ECN octet and TTL, IPv4's checksum updated (RFC 1624, eqn. 3)."""
    if packet[0] >> 4 == 6:
        first = packet[0] & 0xF0 | traffic_class >> 4, traffic_class << 4 & 0xF0 | packet[1] & 0x0F
        return bytes(first) + packet[2:7] + bytes((ttl,)) + packet[8:]
    total = (
        (~(packet[10] << 8 | packet[11]) & 0xFFFF)
        + (0xFFFF - packet[1] + traffic_class)
        + (0xFFFF - (packet[8] << 8) + (ttl << 8))
    )
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    checksum = (~total & 0xFFFF).to_bytes(2, "big")
    return (
        packet[:1] + bytes((traffic_class,)) + packet[2:8] + bytes((ttl, packet[9])) + checksum + packet[12:]
    )


# ICMP: (type, code) for IPv4 and IPv6.
_UNREACHABLE: Final = {4: (3, 0), 6: (1, 0)}  # net unreachable; no route to destination
_TIME_EXCEEDED: Final = {4: (11, 0), 6: (3, 0)}
_TOO_BIG: Final = {4: (3, 4), 6: (2, 0)}
_ECHO_REQUEST: Final = {4: 8, 6: 128}
_ECHO_REPLY: Final = {4: 0, 6: 129}
_ICMPV4_QUERIES: Final = frozenset({8, 0, 13, 14})
_BROADCAST: Final = IPv4Address("255.255.255.255")
_ERROR_OCTETS: Final = {4: 576, 6: 1280}
"""An ICMP error is no longer than this, its own IP header included: RFC 1812 4.3.2.3, RFC 4443 2.4 (c)."""


def icmp_time_exceeded(packet: bytes, source: Address) -> bytes | None:
    """From `source` to the origin of `packet`; None where none may be sent (RFC 1122 3.2.2, RFC 4443 2.4)."""
    return _icmp_error(packet, source, _TIME_EXCEEDED, 0)


def icmp_unreachable(packet: bytes, source: Address) -> bytes | None:
    """No route to the destination of `packet`; None as for `icmp_time_exceeded`."""
    return _icmp_error(packet, source, _UNREACHABLE, 0)


def icmp_too_big(packet: bytes, source: Address, mtu: int) -> bytes | None:
    """Fragmentation needed (RFC 1191) or Packet Too Big (RFC 4443 3.2); None as for `icmp_time_exceeded`."""
    return _icmp_error(packet, source, _TOO_BIG, mtu)


def _icmp_error(
    packet: bytes, source: Address, kinds: dict[int, tuple[int, int]], last_word: int
) -> bytes | None:
    header = IpHeader.parse(packet)
    if isinstance(header, DropReason) or header.version != source.version:
        return None
    if not _may_be_answered(packet, header):
        return None
    own_octets = (IPV4_HEADER_OCTETS if header.version == 4 else IPV6_HEADER_OCTETS) + 8
    quote = packet[: min(header.total_octets, _ERROR_OCTETS[header.version] - own_octets)]
    rest = last_word.to_bytes(4, "big") + quote
    return _icmp(source.packed, header.source, *kinds[header.version], rest, header.dscp)


def _may_be_answered(packet: bytes, header: IpHeader) -> bool:
    origin, target = ip_address(header.source), ip_address(header.destination)
    if header.is_later_fragment or origin.is_unspecified or origin.is_multicast or origin.is_loopback:
        return False
    if target.is_multicast or _BROADCAST in (origin, target):
        return False
    if header.protocol not in (ICMPV4, ICMPV6):
        return True
    if header.upper_offset >= header.total_octets:
        return False
    kind = packet[header.upper_offset]  # an error is never answered by an error
    return kind >= 128 if header.protocol == ICMPV6 else kind in _ICMPV4_QUERIES


def _icmp(source: bytes, destination: bytes, kind: int, code: int, rest: bytes, dscp: int) -> bytes:
    protocol = ICMPV4 if len(source) == 4 else ICMPV6
    covered = pseudo_header(source, destination, protocol, 4 + len(rest)) if protocol == ICMPV6 else b""
    checksum = internet_checksum(covered + bytes((kind, code, 0, 0)) + rest)
    message = bytes((kind, code)) + checksum.to_bytes(2, "big") + rest
    return build_ip(source, destination, protocol, message, dscp=dscp)


@dataclass(frozen=True, slots=True)
class Echo:
    """An ICMP echo message, what `ping` sends and is answered with (RFC 792, RFC 4443 4)."""

    source: Address
    destination: Address
    identifier: int
    sequence: int
    data: bytes = b""
    is_reply: bool = False
    dscp: int = 0

    def encode(self) -> bytes:
        """The whole IP packet."""
        kinds = _ECHO_REPLY if self.is_reply else _ECHO_REQUEST
        rest = self.identifier.to_bytes(2, "big") + self.sequence.to_bytes(2, "big") + self.data
        return _icmp(
            self.source.packed, self.destination.packed, kinds[self.source.version], 0, rest, self.dscp
        )

    @classmethod
    def parse(cls, packet: bytes) -> Self | None:
        """None when the packet is anything else, or its ICMP checksum is wrong."""
        header = IpHeader.parse(packet)
        if isinstance(header, DropReason) or header.is_fragment:
            return None
        if header.protocol != (ICMPV4 if header.version == 4 else ICMPV6):
            return None
        message = packet[header.upper_offset : header.total_octets]
        if len(message) < 8 or message[0] not in (_ECHO_REQUEST[header.version], _ECHO_REPLY[header.version]):
            return None
        covered = b""
        if header.version == 6:
            covered = pseudo_header(header.source, header.destination, ICMPV6, len(message))
        if internet_checksum(covered + message):
            return None
        return cls(
            ip_address(header.source),
            ip_address(header.destination),
            message[4] << 8 | message[5],
            message[6] << 8 | message[7],
            message[8:],
            message[0] == _ECHO_REPLY[header.version],
            header.dscp,
        )

    def reply(self) -> Self:
        """What the host that was asked answers."""
        return type(self)(
            self.destination, self.source, self.identifier, self.sequence, self.data, True, self.dscp
        )
