"""The headers of many packets as one number: which of them in a row are of one flow, and what they are one hop on.

Knows nothing of VRFs, policies and what a label says. RFC 791 and 8200; the checksum as in RFC 1071 and 1624.

The first octets of all packets, up to the ports, stand side by side in one integer: a lane for each, the first packet
in the highest. An operation on it is done for all of them, where a loop would take one for each field of each packet.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from mpls.ip import IPV4_HEADER_OCTETS, IPV6_HEADER_OCTETS, PlainHeader

__all__ = ["Run", "runs"]

_PORTS_OCTETS: Final = 4
_TTL_END: Final = 9
"""The TTL stands before this octet in IPv4 (the ninth) and IPv6 (the eighth)."""
_IPV4_LENGTH, _IPV4_IDENTIFICATION, _IPV4_TTL, _IPV4_CHECKSUM = 2, 4, 8, 10
_IPV6_LENGTH, _IPV6_TTL = 4, 7
_MOST_LANES: Final = 64


class _Lanes(NamedTuple):
    """A layout: a lane of `octets` for each of `packets`, of which `front` stand before the IP header.

    ones, words   1 and 0xFFFF in the lowest bits of every lane
    fixed         the bits that packets of one flow have in common, in all lanes but the first
    hop           what to add for one hop: to the checksum 0x0100, to the TTL -1
    hop_and_one   0x0101 in the lowest bits of every lane
    not_counted   what the length field leaves out
    split         from the lanes, as octets, the headers without what is in front of them
    """

    packets: int
    octets: int
    front: int
    is_ipv4: bool
    ones: int
    words: int
    fixed: int
    hop: int
    hop_and_one: int
    not_counted: int
    split: Callable[[bytes], tuple[bytes, ...]]

    def shift(self, at: int) -> int:
        """From two octets of the IP header to the lowest bits of their lane."""
        return 8 * (self.octets - self.front - at - 2)

    def starts(self, number: int, sizes: list[int]) -> list[int]:
        """The lanes with another flow than the one before, and the number of lanes.

        What packets of a flow may differ in is the length, by as much as they differ in size, identification and
        checksum; the sum of these three stays, so with one checksum the others are right.
        """
        lane_bits, words = 8 * self.octets, self.words
        fields = number
        length_at = self.shift(_IPV4_LENGTH if self.is_ipv4 else _IPV6_LENGTH)
        are_of_one_size = sizes.count(sizes[0]) == len(sizes)
        if not are_of_one_size:
            counted = (max(0, size - self.not_counted).to_bytes(self.octets, "big") for size in sizes)
            fields ^= int.from_bytes(b"".join(counted), "big") << length_at
        differences = (fields ^ fields >> lane_bits) & self.fixed
        if self.is_ipv4:
            sums = number >> self.shift(_IPV4_IDENTIFICATION) & words
            sums += number >> self.shift(_IPV4_CHECKSUM) & words
            if not are_of_one_size:
                sums += number >> length_at & words
                sums = (sums & words) + (sums >> 16 & words)
            sums = (sums & words) + (sums >> 16 & self.ones)
            differences |= (sums ^ sums >> lane_bits) & words >> lane_bits
        starts = []
        while differences:
            lanes_behind = (differences.bit_length() - 1) // lane_bits
            starts.append(self.packets - 1 - lanes_behind)
            differences &= (1 << lanes_behind * lane_bits) - 1
        return [*starts, self.packets]

    def one_hop_on(self, number: int) -> tuple[bytes, ...]:
        """The IP headers, with ports, as `ip.decrement_ttl` has them. No TTL may be zero."""
        if self.is_ipv4:
            # The checksum plus 0x0100 modulo 65535.
            checksum_at = self.shift(_IPV4_CHECKSUM)
            are_over = (number >> checksum_at & self.words) + self.hop_and_one >> 16 & self.ones
            if are_over:
                number -= are_over * 0xFFFF << checksum_at
        return self.split((number + self.hop).to_bytes(self.packets * self.octets, "big"))


@lru_cache(maxsize=256)
def _lanes(count: int, front: int, is_ipv4: bool) -> _Lanes:
    header_octets = IPV4_HEADER_OCTETS if is_ipv4 else IPV6_HEADER_OCTETS
    octets = front + header_octets + _PORTS_OCTETS
    fixed = bytearray(b"\xff" * octets)
    if is_ipv4:
        for at in (front + _IPV4_IDENTIFICATION, front + _IPV4_CHECKSUM):
            fixed[at : at + 2] = b"\0\0"
    ones = int.from_bytes((1).to_bytes(octets, "big") * count, "big")
    ttl_at = 8 * (octets - front - 1 - (_IPV4_TTL if is_ipv4 else _IPV6_TTL))
    hop = -(ones << ttl_at)
    if is_ipv4:
        hop += ones * 0x0100 << 8 * (octets - front - 2 - _IPV4_CHECKSUM)
    return _Lanes(
        count,
        octets,
        front,
        is_ipv4,
        ones,
        ones * 0xFFFF,
        int.from_bytes(fixed * (count - 1), "big"),
        hop,
        ones * 0x0101,
        front if is_ipv4 else front + IPV6_HEADER_OCTETS,
        Struct(f"{front}x{octets - front}s" * count).unpack,
    )


class Run(NamedTuple):
    """Packets of one flow in a row; without `lanes` one, of whatever kind. `number`: their headers.

    After each of `octets` come `behind` octets that are not looked at.
    """

    octets: list[bytes]
    lanes: _Lanes | None = None
    number: int = 0
    behind: int = 0

    @property
    def first(self) -> bytes:
        """The first packet."""
        return self.octets[0][: -self.behind] if self.behind else self.octets[0]

    @property
    def packets(self) -> list[bytes]:
        """Without what is behind them."""
        return _without(self.octets, self.behind)

    def onward(self, first: bytes, front: bytes = b"") -> list[bytes]:
        """All of them, treated as the first was to become `first`, each with `front` before it."""
        if self.lanes is None:
            return [front + first]
        was, start = self.first, self.lanes.front
        # Padding is behind all of them, which have one size then, or none.
        end = start + len(first) if start + len(first) < len(was) else -self.behind or None
        if first[:_TTL_END] == was[start : start + _TTL_END]:
            part = slice(start, end)
            return [front + packet[part] for packet in self.octets]
        part = slice(self.lanes.octets, end)
        headers = zip(self.lanes.one_hop_on(self.number), self.octets, strict=True)
        if front:
            return [front + header + packet[part] for header, packet in headers]
        return [header + packet[part] for header, packet in headers]


def runs(packets: Sequence[bytes], front: int = 0, behind: int = 0) -> Iterator[Run]:
    """Packets in a row of one flow, alike in all that is looked at but for length, identification and checksum.

    `front`: so many octets stand before the IP header; they are alike too. `behind`: so many stand behind the packet.
    """
    if len(packets) == 1:  # as pings and slow flows come: nothing is to be looked for
        yield Run(_without(packets, behind))
        return
    for start in range(0, len(packets), _MOST_LANES):
        yield from _runs(packets[start : start + _MOST_LANES], front, behind)


def _without(packets: Sequence[bytes], behind: int) -> list[bytes]:
    if not behind:
        return list(packets)
    part = slice(-behind)
    return [packet[part] for packet in packets]


def _runs(packets: Sequence[bytes], front: int, behind: int) -> Iterator[Run]:
    at, count = 0, len(packets)
    sizes = [len(packet) - behind for packet in packets] if behind else list(map(len, packets))
    found: dict[bool, tuple[_Lanes, int, list[int]]] = {}
    while at < count:
        first = packets[at][: sizes[at]]
        header = PlainHeader.parse(first[front:] if front else first) if at + 1 < count else None
        if header is None:
            yield Run([first])
            at += 1
            continue
        is_ipv4 = first[front] == 0x45
        if is_ipv4 not in found:
            found[is_ipv4] = _side_by_side(packets, sizes, front, is_ipv4)
        lanes, number, starts = found[is_ipv4]
        end = next(start for start in starts if start > at)
        if header.total_octets + front != sizes[at]:  # padded: the others as well, if they have the same size
            end = next((n for n in range(at, end) if sizes[n] != sizes[at]), end)
        if end == at + 1:
            yield Run([first])
        elif end == count and at == 0:
            yield Run(list(packets), lanes, number, behind)
        else:
            of_run = _lanes(end - at, front, is_ipv4)
            lane_bits = 8 * lanes.octets
            number = number >> (count - end) * lane_bits & (1 << (end - at) * lane_bits) - 1
            yield Run(list(packets[at:end]), of_run, number, behind)
        at = end


def _side_by_side(
    packets: Sequence[bytes], sizes: list[int], front: int, is_ipv4: bool
) -> tuple[_Lanes, int, list[int]]:
    """The headers of the packets as one number, and where other flows start, as `starts` says."""
    lanes = _lanes(len(packets), front, is_ipv4)
    header_part = slice(lanes.octets)
    headers = [packet[header_part] for packet in packets]
    too_short = (
        {n for n, size in enumerate(sizes) if size < lanes.octets} if min(sizes) < lanes.octets else ()
    )
    if too_short:
        headers = [header.ljust(lanes.octets) for header in headers]
    number = int.from_bytes(b"".join(headers), "big")
    starts = lanes.starts(number, sizes)
    if too_short:
        starts = sorted({*starts, *too_short, *(n + 1 for n in too_short)})
    return lanes, number, starts
