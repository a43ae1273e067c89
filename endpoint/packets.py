"""Packets to explain: from hex octets, or from a pcap or pcapng file (draft-ietf-opsawg-pcap, -pcapng).

Must not know: what the packets mean. Everything is bounded: so many packets, so many octets of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mpls.drops import DropReason
from mpls.encapsulation import MPLS_UNICAST
from mpls.ip import IpHeader
from mpls.labels import LabelStack

__all__ = ["MAX_PACKETS", "GivenPacket", "PacketError", "read_packets"]

MAX_PACKETS: Final = 100
MAX_FILE_OCTETS: Final = 16 << 20
MAX_PACKET_OCTETS: Final = 0x10000 + 256

_ETHERNET_OCTETS, _VLAN_OCTETS = 14, 4
_VLANS: Final = (0x8100, 0x88A8)
_ETHERTYPES: Final = {0x0800: False, 0x86DD: False, MPLS_UNICAST: True}
"""Ethertype -> whether a label stack follows."""
_LINK_ETHERNET, _LINK_MPLS = 1, 219
_LINK_IP: Final = (12, 14, 101, 228, 229)  # the values of LINKTYPE_RAW, LINKTYPE_IPV4, LINKTYPE_IPV6
_LINK_COOKED: Final = {113: (14, 16), 276: (0, 20)}
"""LINKTYPE_LINUX_SLL and _SLL2 -> where the ethertype stands, how long the header is."""
_PCAP: Final = {
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xa1\xb2\x3c\x4d": ">",
    b"\xd4\xc3\xb2\xa1": "<",
    b"\x4d\x3c\xb2\xa1": "<",
}
_PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDER: Final = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
_INTERFACE, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 3, 6


class PacketError(ValueError):
    """What was given holds no packet that could be explained; the message says why."""


@dataclass(frozen=True, slots=True)
class GivenPacket:
    """One packet: `octets` begin with the IP header, or with the label stack if it `is_labelled`.

    number   its place in the file, from 1
    """

    number: int
    octets: bytes
    is_labelled: bool = False


def read_packets(given: str, max_packets: int = MAX_PACKETS) -> tuple[GivenPacket, ...]:
    """The packet whose octets are given in hex, or those of a file of that name.

    Frames of other protocols are left out. PacketError when nothing is left, or nothing can be read.
    """
    octets = _parse_hex(given)
    if octets is not None:
        return (_of_octets(octets),)
    try:
        with Path(given).open("rb") as file:
            data = file.read(MAX_FILE_OCTETS)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PacketError(f"{given[:80]!r} is neither octets in hex nor a readable file: {reason}") from None
    packets: list[GivenPacket] = []
    for number, (link_type, octets, octet_count) in enumerate(_records(data), 1):
        # What the capture cut off is not looked at; its length is.
        whole = octets.ljust(min(octet_count, MAX_PACKET_OCTETS), b"\0")
        packet = _of_link(number, link_type, whole)
        if packet is not None:
            packets.append(packet)
            if len(packets) == max_packets:
                break
    if not packets:
        raise PacketError(f"{given} holds no IP packet and no MPLS packet")
    return tuple(packets)


def _parse_hex(text: str) -> bytes | None:
    """Octets, with spaces or colons between them or not; None when the text is something else."""
    try:
        octets = bytes.fromhex("".join(text.split()).replace(":", "").removeprefix("0x"))
    except ValueError:
        return None
    if not 0 < len(octets) <= MAX_PACKET_OCTETS:
        raise PacketError(f"a packet has 1 to {MAX_PACKET_OCTETS} octets, not {len(octets)}")
    return octets


def _of_octets(octets: bytes) -> GivenPacket:
    """An IP packet, an Ethernet frame or a label stack, whichever the octets can be, tried in this order."""
    if not isinstance(IpHeader.parse(octets), DropReason):
        return GivenPacket(1, octets)
    frame = _of_link(1, _LINK_ETHERNET, octets)
    if frame is not None:
        return frame
    stack = LabelStack.parse(octets)
    if not isinstance(stack, DropReason) and octets[stack.octet_count :][:1].hex()[:1] in ("4", "6"):
        return GivenPacket(1, octets, is_labelled=True)
    return GivenPacket(1, octets)


def _of_link(number: int, link_type: int, octets: bytes) -> GivenPacket | None:
    """The packet in a frame; None for another protocol or link."""
    if link_type in _LINK_IP:
        return GivenPacket(number, octets)
    if link_type == _LINK_MPLS:
        return GivenPacket(number, octets, is_labelled=True)
    if link_type == _LINK_ETHERNET:
        at = _ETHERNET_OCTETS - 2
        while octets[at : at + 2] in (vlan.to_bytes(2, "big") for vlan in _VLANS):
            at += _VLAN_OCTETS
        start = at + 2
    elif link_type in _LINK_COOKED:
        at, start = _LINK_COOKED[link_type]
    else:
        return None
    is_labelled = _ETHERTYPES.get(int.from_bytes(octets[at : at + 2], "big"))
    return None if is_labelled is None else GivenPacket(number, octets[start:], is_labelled)


def _records(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(link type, octets captured, octets there were) of each record, up to the first that is cut off."""
    if data[:4] in _PCAP:
        return _pcap_records(data, _PCAP[data[:4]])
    if data[:4] == _PCAPNG:
        return _pcapng_records(data)
    raise PacketError("the file is neither pcap nor pcapng")


def _pcap_records(data: bytes, order: str) -> Iterator[tuple[int, bytes, int]]:
    link_type = int.from_bytes(data[20:24], "big" if order == ">" else "little") & 0xFFFF
    offset = 24
    while offset + 16 <= len(data):
        captured, octet_count = struct.unpack_from(f"{order}8xII", data, offset)
        offset += 16
        if offset + captured > len(data):
            return
        yield link_type, data[offset : offset + captured], octet_count
        offset += captured


def _pcapng_records(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    order, offset = ">", 0
    links: list[tuple[int, int]] = []  # (link type, longest record) of each interface of the section
    while offset + 12 <= len(data):
        if data[offset : offset + 4] == _PCAPNG:
            order, links = _BYTE_ORDER.get(data[offset + 8 : offset + 12], order), []
        kind, octet_count = struct.unpack_from(f"{order}II", data, offset)
        if octet_count < 12 or octet_count % 4 or offset + octet_count > len(data):
            return
        block = data[offset + 8 : offset + octet_count - 4]
        offset += octet_count
        if kind == _INTERFACE and len(block) >= 8:
            links.append(struct.unpack_from(f"{order}H2xI", block))
        elif kind == _ENHANCED_PACKET and len(block) >= 20:
            interface, captured, there = struct.unpack_from(f"{order}I8xII", block)
            if interface < len(links) and 20 + captured <= len(block):
                yield links[interface][0], block[20 : 20 + captured], there
        elif kind == _SIMPLE_PACKET and len(block) >= 4 and links:
            there = int(struct.unpack_from(f"{order}I", block)[0])
            captured = min(there, links[0][1] or there, len(block) - 4)
            yield links[0][0], block[4 : 4 + captured], there
