"""Making packets of a VRF fit the Tunnel MTU before they are sealed: TCP's MSS, fragments of IPv4 (RFC 9293, RFC 791).

Knows nothing of labels and Child SAs: what is left for one IP packet is handed in, in octets.

Whether anything is done is the policy of a peer. RFC 4023 5.1 wants nothing fragmented unless it is configured:
the default answers with ICMP, from `Outbound.check_size`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from mpls.drops import DropReason
from mpls.ip import IPV4_HEADER_OCTETS, IPV6_HEADER_OCTETS, TCP, IpHeader, internet_checksum

__all__ = ["DEFAULT_FITTING", "Fitting", "Fragment", "OuterDf", "clamp_mss", "fit", "fragment_ipv4"]

_TCP_HEADER_OCTETS: Final = 20
_MOST_TCP_OCTETS: Final = 60
_SYN: Final = 0x02
_END_OF_OPTIONS, _NO_OPERATION, _MSS = 0, 1, 2
_DF, _MF = 0x4000, 0x2000
_MOST_IPV4_OCTETS: Final = 65535
_FLAGS_AT: Final = 13
"""Of a TCP header."""
_COPIED: Final = 0x80
"""An IPv4 option with this bit is in every fragment (RFC 791 3.1)."""


class Fragment(Enum):
    """What becomes of an IPv4 packet without DF that is larger than the Tunnel MTU."""

    NEVER = "never"  # it is dropped, and ICMP says so
    INNER = "inner"  # it is cut before it is protected: its receiver puts it together, not the peer


class OuterDf(Enum):
    """DF of the header outside ESP (RFC 4301 8.1). Where it is not set, tunnel packets may be fragmented."""

    SET = "set"
    COPY = "copy"  # as the packet of the VRF has it; IPv6 counts as set
    CLEAR = "clear"


@dataclass(frozen=True, slots=True)
class Fitting:
    """The policy of one peer."""

    clamp_mss: bool = True
    fragment: Fragment = Fragment.NEVER
    outer_df: OuterDf = OuterDf.SET

    def may_be_fragmented(self, packet: bytes) -> bool:
        """Whether the tunnel packet that carries this one may be, on its way."""
        if self.outer_df is OuterDf.COPY:
            return packet[0] >> 4 == 4 and not packet[6] & _DF >> 8
        return self.outer_df is OuterDf.CLEAR


DEFAULT_FITTING: Final = Fitting()


def fit(policy: Fitting, packets: Sequence[bytes], room: int) -> tuple[list[bytes], list[bytes]]:
    """(what fits into `room` octets each, what is too big and cannot be cut), each in its order."""
    fitting: list[bytes] = []
    too_big: list[bytes] = []
    for packet in packets:
        if len(packet) <= room:
            fitting.append(packet)
        elif policy.fragment is Fragment.INNER and (cut := fragment_ipv4(packet, room)):
            fitting += cut
        else:
            too_big.append(packet)
    return fitting, too_big


def fragment_ipv4(packet: bytes, room: int) -> list[bytes]:
    """The fragments of an IPv4 packet, none longer than `room` octets (RFC 791 2.3, 3.2).

    None of a packet with DF, of one that is no IPv4 packet, or where less than 8 octets of data would be left. A
    fragment may be fragmented again, but not one that reaches beyond the longest packet: its offset would begin anew.
    """
    header = IpHeader.parse(packet)
    if isinstance(header, DropReason) or header.version != 4:
        return []
    octets = (packet[0] & 15) * 4
    flags = packet[6] << 8 | packet[7]
    share = (room - octets) // 8 * 8
    if flags & _DF or share < 8:
        return []
    data = packet[octets : header.total_octets]
    offset, has_more = flags & 0x1FFF, flags & _MF
    if offset * 8 + header.total_octets > _MOST_IPV4_OCTETS:
        return []
    first = packet[:octets]
    later = first[:IPV4_HEADER_OCTETS] + _copied_options(first[IPV4_HEADER_OCTETS:])
    fragments: list[bytes] = []
    for start in range(0, len(data), share):
        part = data[start : start + share]
        more = _MF if start + share < len(data) else has_more
        front = later if start else first
        fragments.append(_with_fields(front, len(part), more | offset + start // 8) + part)
    return fragments


def _copied_options(options: bytes) -> bytes:
    """The options that belong into every fragment, filled up with zeros to four octets."""
    kept, at = b"", 0
    while at < len(options) and options[at] != _END_OF_OPTIONS:
        octets = 1 if options[at] == _NO_OPERATION else options[at + 1] if at + 1 < len(options) else 0
        if octets < 1 or at + octets > len(options):
            break
        if options[at] & _COPIED:
            kept += options[at : at + octets]
        at += octets
    return kept + bytes(-len(kept) % 4)


def _with_fields(front: bytes, data_octets: int, fragment: int) -> bytes:
    """An IPv4 header with these in place, and its checksum."""
    version = 0x40 | len(front) // 4
    total = (len(front) + data_octets).to_bytes(2, "big")
    head = bytes((version, front[1])) + total + front[4:6] + fragment.to_bytes(2, "big") + front[8:10]
    checksum = internet_checksum(head + front[12:]).to_bytes(2, "big")
    return head + checksum + front[12:]


def clamp_mss(packets: list[bytes], room: int) -> list[bytes]:
    """Packets of one flow, the SYNs among them with an MSS for which a segment fits into `room` octets.

    An MSS that is low enough stays, and so does a SYN without one, which means 536 or 1220 octets (RFC 9293 3.7.1).
    The MSS counts neither IP nor TCP options: 40 and 60 octets less than the packet (RFC 6691).
    """
    first = packets[0]
    if first[0] == 0x45 and first[9] == TCP:
        at = IPV4_HEADER_OCTETS + _FLAGS_AT
    elif first[0] >> 4 == 6 and first[6] == TCP:
        at = IPV6_HEADER_OCTETS + _FLAGS_AT
    elif first[0] == 0x45 or len(packets) > 1:
        return packets
    else:  # options or extension headers: such a packet comes alone
        return [_clamped(first, room)]
    syns = [number for number, packet in enumerate(packets) if len(packet) > at and packet[at] & _SYN]
    if not syns:
        return packets
    packets = packets.copy()
    for number in syns:
        packets[number] = _clamped(packets[number], room)
    return packets


def _clamped(packet: bytes, room: int) -> bytes:
    header = IpHeader.parse(packet)
    if isinstance(header, DropReason) or header.protocol != TCP or header.is_later_fragment:
        return packet
    start = header.upper_offset
    tcp = packet[start : min(start + _MOST_TCP_OCTETS, header.total_octets)]
    if len(tcp) <= _TCP_HEADER_OCTETS or not tcp[_FLAGS_AT] & _SYN:
        return packet
    at = _mss_at(tcp[: (tcp[12] >> 4) * 4])
    if at is None:
        return packet
    ip_octets = IPV4_HEADER_OCTETS if header.version == 4 else IPV6_HEADER_OCTETS
    most = max(room - ip_octets - _TCP_HEADER_OCTETS, 1)
    old = tcp[at] << 8 | tcp[at + 1]
    if old <= most:
        return packet
    changed = bytearray(packet)
    changed[start + at : start + at + 2] = most.to_bytes(2, "big")
    # RFC 1624, eqn. 3. An option may begin at an odd octet: then its octets stand in two words of the sum, swapped.
    checksum = tcp[16] << 8 | tcp[17]
    before, after = (old, most) if at % 2 == 0 else (_swapped(old), _swapped(most))
    total = (~checksum & 0xFFFF) + (~before & 0xFFFF) + after
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    changed[start + 16 : start + 18] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(changed)


def _mss_at(tcp: bytes) -> int | None:
    """Where the value of the MSS option stands in a TCP header; None without one, or if the options are malformed."""
    at = _TCP_HEADER_OCTETS
    while at < len(tcp) and tcp[at] != _END_OF_OPTIONS:
        if tcp[at] == _NO_OPERATION:
            at += 1
            continue
        octets = tcp[at + 1] if at + 1 < len(tcp) else 0
        if octets < 2 or at + octets > len(tcp):
            return None
        if tcp[at] == _MSS:
            return at + 2 if octets == 4 else None
        at += octets
    return None


def _swapped(word: int) -> int:
    return (word & 0xFF) << 8 | word >> 8
