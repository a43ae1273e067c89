"""Segmentation offload toward a TUN device: TCP segments in a row become one super-packet (Linux virtio_net_hdr).

Must not know devices and VRFs: whole IP packets come in, what to write for them goes out, in the same order.

What the kernel makes of a super-packet, when it has to take it apart again, is octet for octet what came in; else
packets are not put together. So all of a run have one IP and one TCP header, options, acknowledgement and
window too, but for what counts on: IPv4's identification, the sequence number, the checksums. Only the last may
be shorter, and PSH or FIN end the run. Other TCP flags, other protocols, fragments, IP options, extension headers
and whatever is malformed go singly.

The checksum of a super-packet is made from those of its segments, without a look at what they carry: it is
right if and only if (to 16 bits) theirs were, so a TCP at this end finds what it would have found. But the kernel
makes new checksums where it takes a super-packet apart to send it on, which would hide what was damaged before
it came here: segments that are not for an address of the device itself are verified before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

from mpls.ip import IPV4_HEADER_OCTETS, TCP, internet_checksum

__all__ = ["LARGEST_PACKET_OCTETS", "NO_OFFLOAD", "VNET_HEADER_OCTETS", "Write", "coalesce"]

Write: TypeAlias = tuple[list[bytes], int]
"""The pieces for one writev(), virtio_net_hdr first, and of how many packets they are made."""

# linux/virtio_net.h: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, in the machine's byte order
_VNET_HEADER = Struct("=BBHHHH")
VNET_HEADER_OCTETS: Final = _VNET_HEADER.size
NO_OFFLOAD: Final = bytes(VNET_HEADER_OCTETS)
_GSO_TCPV4, _GSO_TCPV6 = 1, 4

LARGEST_PACKET_OCTETS: Final = 65535
_FIN, _PSH, _ACK, _ECE = 0x01, 0x08, 0x10, 0x40
_FLAGS: Final = (_ACK, _ACK | _ECE)
"""Those of all segments of a run; the last may have PSH and FIN as well."""
_DF: Final = 0x4000
_FOLDS: Final = tuple((bits, (1 << bits) - 1) for bits in (5760, 2880, 1440, 720))


class _Head(NamedTuple):
    """The headers of the first segment of a run, all octets of them as one number."""

    number: int
    octets: int
    ip_octets: int
    addresses: bytes
    payload_octets: int

    @classmethod
    def parse(cls, packet: bytes) -> _Head | None:
        """None for a packet that cannot begin a run."""
        if len(packet) < 40:
            return None
        if packet[0] == 0x45:
            ip_octets, total_octets, addresses = 20, packet[2] << 8 | packet[3], packet[12:20]
            fragment = packet[6] << 8 | packet[7]
            is_plain = packet[9] == TCP and fragment in (0, _DF) and not internet_checksum(packet[:20])
        elif packet[0] >> 4 == 6:
            ip_octets, total_octets, addresses = 40, 40 + (packet[4] << 8 | packet[5]), packet[8:40]
            is_plain = packet[6] == TCP
        else:
            return None
        if not is_plain or total_octets != len(packet) or total_octets < ip_octets + 20:
            return None
        octets = ip_octets + (packet[ip_octets + 12] >> 4) * 4
        has_other_bits = packet[ip_octets + 12] & 0x0F or packet[ip_octets + 13] not in _FLAGS
        if has_other_bits or not ip_octets + 20 <= octets < total_octets:
            return None
        return cls(int.from_bytes(packet[:octets], "big"), octets, ip_octets, addresses, len(packet) - octets)

    def at(self, offset: int, octets: int) -> int:
        """Where a field of so many octets ends in `number`: by how much to shift it there."""
        return 8 * (self.octets - offset - octets)


def coalesce(packets: Sequence[bytes], own: Collection[bytes] = ()) -> Iterator[Write]:
    """What to write for IP packets. `own`: packed addresses for which the kernel here is the receiving TCP."""
    start, count = 0, len(packets)
    while start < count:
        head = _Head.parse(packets[start]) if start + 1 < count else None
        heads = [] if head is None else _run(packets, start, head, own)
        end = start + max(len(heads), 1)
        if head is None or end == start + 1:
            yield [NO_OFFLOAD, packets[start]], 1
        else:
            yield _join(packets[start:end], head, heads)
        start = end


def _run(packets: Sequence[bytes], start: int, head: _Head, own: Collection[bytes]) -> list[int]:
    """The headers, as numbers, of the segments from `start` on that go together."""
    number, octets, ip_octets, addresses, payload_octets = head
    sequence_at, flags_at, length_at = head.at(ip_octets + 4, 4), head.at(ip_octets + 13, 1), head.at(4, 2)
    ignored = (_PSH | _FIN) << flags_at | 0xFFFF << head.at(ip_octets + 16, 2)
    step = payload_octets << sequence_at
    # No longer than a packet, and only so far that no field that counts runs over into the one before it.
    most = (LARGEST_PACKET_OCTETS - octets) // payload_octets
    most = min(most, 1 + (0xFFFFFFFF - (number >> sequence_at & 0xFFFFFFFF)) // payload_octets)
    checksum_at = 0
    if ip_octets == IPV4_HEADER_OCTETS:
        length_at, identification_at, checksum_at = head.at(2, 2), head.at(4, 2), head.at(10, 2)
        # One more in the identification is one less in the checksum (RFC 1624).
        most = min(most, 0x10000 - (number >> identification_at & 0xFFFF), number >> checksum_at & 0xFFFF)
        step += (1 << identification_at) - (1 << checksum_at)
    must_verify = addresses[len(addresses) // 2 :] not in own
    if must_verify and not _is_intact(packets[start], head):
        return []
    heads, expected, size, from_bytes = [number], number, octets + payload_octets, int.from_bytes
    header_part = slice(octets)
    for packet in packets[start + 1 : start + most]:
        expected += step
        shorter = size - len(packet)
        if shorter:
            if not 0 < shorter < payload_octets:
                break
            expected -= shorter << length_at
            if checksum_at:
                if (expected >> checksum_at & 0xFFFF) + shorter >= 0xFFFF:
                    break
                expected += shorter << checksum_at
        this = from_bytes(packet[header_part], "big")
        if (this ^ expected) | ignored != ignored or (must_verify and not _is_intact(packet, head)):
            break
        heads.append(this)
        if shorter or this >> flags_at & (_PSH | _FIN):
            break
    return heads


def _is_intact(packet: bytes, head: _Head) -> bool:
    """Whether the TCP checksum is right."""
    return (_sum(packet[head.ip_octets :]) + _pseudo_sum(head, len(packet))) % 0xFFFF == 0


def _sum(octets: bytes) -> int:
    """A number that is the sum of the 16-bit words modulo 65535."""
    number = int.from_bytes(octets if len(octets) % 2 == 0 else octets + b"\0", "big")
    # 2**16 is 1 modulo 65535. The remainder is what takes long, so the number is folded before.
    for bits, mask in _FOLDS:
        number = (number >> bits) + (number & mask)
    return number


def _pseudo_sum(head: _Head, total_octets: int) -> int:
    return int.from_bytes(head.addresses, "big") + TCP + total_octets - head.ip_octets


def _join(packets: Sequence[bytes], head: _Head, heads: list[int]) -> Write:
    """The super-packet of a run; `heads` are its headers as numbers."""
    _, octets, ip_octets, _, payload_octets = head
    payload_part = slice(octets, None)
    payloads = [packet[payload_part] for packet in packets]
    last = packets[-1]
    total_octets = octets + (len(packets) - 1) * payload_octets + len(payloads[-1])
    header = bytearray(packets[0][:octets])
    header[ip_octets + 13] = last[ip_octets + 13]
    header[ip_octets + 16 : ip_octets + 18] = b"\0\0"
    if ip_octets == IPV4_HEADER_OCTETS:
        header[2:4] = total_octets.to_bytes(2, "big")
        header[10:12] = b"\0\0"
        header[10:12] = internet_checksum(bytes(header[:ip_octets])).to_bytes(2, "big")
    else:
        header[4:6] = (total_octets - ip_octets).to_bytes(2, "big")

    def rest(header: bytes | bytearray, octets: int) -> int:
        """What to add to all headers as a number for the sum of TCP header and pseudo-header."""
        return _pseudo_sum(head, octets) - int.from_bytes(header[:ip_octets], "big")

    # TCP header, pseudo-header and payload of a segment sum up to zero: the first two say what the third is. A
    # payload at an odd offset has its words the other way round.
    every = rest(packets[0], len(packets[0]))
    sums = [number + every for number in heads]
    sums[-1] += rest(last, len(last)) - every
    total = sum(sums) if payload_octets % 2 == 0 else sum(sums[::2]) + (sum(sums[1::2]) << 8)
    checksum = (total - int.from_bytes(header, "big") - rest(header, total_octets)) % 0xFFFF
    header[ip_octets + 16 : ip_octets + 18] = checksum.to_bytes(2, "big")
    kind = _GSO_TCPV4 if ip_octets == IPV4_HEADER_OCTETS else _GSO_TCPV6
    return [_VNET_HEADER.pack(0, kind, octets, payload_octets, 0, 0) + header, *payloads], len(packets)
