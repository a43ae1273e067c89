"""ESP packets, many of one SA at once: the quick path beside the reference in `engine` (RFC 4303 3.3, 3.4).

Must not know what is carried, as `engine` must not. Every octet, drop and counter is as `engine` would have it.

One short loop for the AEADs whose IV is in the packet (AES-GCM, AES-CCM, ChaCha20-Poly1305): for packets with the
numbers that come next, the headers of all of which are made, or known, beforehand. Every packet that is anything
else, and other transforms, take the reference.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from operator import itemgetter
from struct import Struct
from typing import NamedTuple, TypeAlias

from cryptography.exceptions import InvalidTag

from esp.ciphers import AeadCipher
from esp.engine import (
    DUMMY_NEXT_HEADER,
    MAX_PACKET_OCTETS,
    InboundSad,
    Opened,
    add_trailer,
    protect,
    strip_trailer,
    unprotect,
)
from esp.errors import DropReason, EspError, UsedUp
from esp.sa import InboundSa, OutboundSa
from esp.transforms import HEADER_OCTETS, TRAILER_OCTETS

__all__ = ["Outcome", "Row", "open_batch", "receive_batch", "seal_batch"]


class Row(NamedTuple):
    """Authentic packets of one protocol, `sequence` that of the first; those of the others follow without a gap.

    `octets` are their payloads, with `behind` octets of trailer after each: to copy them only to cut these off
    would be a copy for nothing.
    """

    octets: list[bytes]
    next_header: int
    sequence: int
    behind: int = 0

    @property
    def payloads(self) -> list[bytes]:
        """Without what is behind them."""
        if not self.behind:
            return self.octets
        payload_part = slice(-self.behind)
        return [octets[payload_part] for octets in self.octets]

    @property
    def packets(self) -> list[Opened]:
        """One by one, as `engine` gives them."""
        return [
            Opened(payload, self.next_header, n) for n, payload in enumerate(self.payloads, self.sequence)
        ]


Outcome: TypeAlias = Row | DropReason
"""What became of inbound packets: of a row of them, or of a single one."""

_Split: TypeAlias = Callable[[bytes], tuple[bytes, ...]]
_LOW_BITS = 0xFFFFFFFF
_IV_OCTETS = 8
_FRONT_OCTETS = HEADER_OCTETS + _IV_OCTETS
_HEAD, _IV, _SEALED = slice(HEADER_OCTETS), slice(HEADER_OCTETS, _FRONT_OCTETS), slice(_FRONT_OCTETS, None)
_FEW = 2
"""Fewer are done sooner one by one than a row of them is made ready."""
_ROW_PACKETS = 64
"""So many headers are made at a time."""


def seal_batch(sa: OutboundSa, payloads: Sequence[bytes], next_header: int) -> list[bytes]:
    """The ESP packets for payloads of one protocol, in their order, as `engine.protect` makes them.

    When the SA may send no more the rest is left out, each counted at the SA as LIFETIME or SEQUENCE_EXHAUSTED.
    EspError for a protocol or a payload that no packet can hold; then none is sealed.
    """
    sizes = list(map(len, payloads))
    longest = max(sizes, default=0)
    if not 0 <= next_header <= 255 or sa.transform.packet_octets(longest) > MAX_PACKET_OCTETS:
        raise EspError(f"{longest} octets of protocol {next_header} are no ESP payload")
    cipher, block_octets = sa.cipher, sa.transform.block_octets
    if not isinstance(cipher, AeadCipher) or len(payloads) < _FEW:
        return _protect_each(sa, payloads, next_header)
    left = _room(sa, payloads, longest)
    left_out, payloads, sizes = len(payloads) - left, payloads[:left], sizes[:left]
    first = sa.sequence + 1
    sa.sequence += left  # before they are used: whatever happens below, no number seals twice
    salt, encrypt, by_size = cipher.salt, cipher.aead.encrypt, _trailers(next_header, block_octets)
    trailers = [by_size[size % block_octets] for size in sizes]
    begins, heads, ivs = _fronts(sa.spi, first, left)
    # The IV is the number in 64 bits: with ESN the associated data is SPI and IV.
    associated = [sa.spi + iv for iv in ivs] if sa.esn else heads
    packets = [
        begin + encrypt(salt + iv, payload + trailer, data)
        for payload, trailer, begin, iv, data in zip(payloads, trailers, begins, ivs, associated, strict=True)
    ]
    sa.packets += left
    sa.octets += sum(sizes)
    if left_out:
        sa.drops[DropReason.LIFETIME if sa.has_expired else DropReason.SEQUENCE_EXHAUSTED] += left_out
    return packets


def receive_batch(sad: InboundSad, packets: Sequence[bytes]) -> Iterator[tuple[bytes, list[Outcome]]]:
    """What became of ESP packets of whatever SAs, in their order, as `sad.receive` says: SPI by SPI.

    Only packets in a row are taken together: no SA overtakes the one that it replaces.
    """
    spis = [packet[:4] for packet in packets]
    start = 0
    while start < len(packets):
        spi = spis[start]
        end = start + 1
        while end < len(packets) and spis[end] == spi:
            end += 1
        sa = sad.get(spi)
        if sa is not None:
            yield spi, open_batch(sa, packets[start:end])
        else:
            yield spi, [_outcome(_receive_one(sad, packet)) for packet in packets[start:end]]
        start = end


def open_batch(sa: InboundSa, packets: Sequence[bytes]) -> list[Outcome]:
    """What is in ESP packets of one SA, or why each is dropped, as `engine.unprotect` says and counts it."""
    count = len(packets)
    is_near_its_end = (
        sa.packets + count > sa.hard_packets or sa.octets + count * MAX_PACKET_OCTETS > sa.hard_octets
    )
    if is_near_its_end or not isinstance(sa.cipher, AeadCipher) or count < _FEW:
        return [_outcome(unprotect(sa, packet)) for packet in packets]
    outcomes: list[Outcome] = []
    at = 0
    while at < count:
        at += _open_row(sa, sa.cipher, packets[at : at + _ROW_PACKETS], outcomes)
        if at < count:
            outcomes.append(_outcome(unprotect(sa, packets[at])))
            at += 1
    return outcomes


def _open_row(sa: InboundSa, cipher: AeadCipher, packets: Sequence[bytes], outcomes: list[Outcome]) -> int:
    """Open the packets in front that have the numbers after the highest; how many these were."""
    first = sa.replay.highest + 1
    if packets[0][:HEADER_OCTETS] != sa.spi + (first & _LOW_BITS).to_bytes(4, "big"):
        return 0
    # After the low half has begun anew all is different: another high half, or no number at all.
    count = min(len(packets), -first & _LOW_BITS)
    if not count:
        return 0
    _, expected, numbers = _fronts(sa.spi, first, count)
    associated = [sa.spi + number for number in numbers] if sa.esn else expected
    heads = tuple([packet[_HEAD] for packet in packets[:count]])
    if heads != expected:
        count = next(n for n, head in enumerate(expected) if head != heads[n])
    least = _FRONT_OCTETS + TRAILER_OCTETS + sa.transform.icv_octets
    if min(map(len, packets)) < least:
        count = min(count, next(n for n, packet in enumerate(packets) if len(packet) < least))
    nonces = [cipher.salt + packet[_IV] for packet in packets[:count]]
    # Made when its turn comes, what is sealed takes the memory that the one before has left, which is in the caches.
    sealed = map(itemgetter(_SEALED), packets)
    plaintexts: list[bytes] = []
    try:
        plaintexts.extend(map(cipher.aead.decrypt, nonces, sealed, associated))
    except InvalidTag:
        pass  # those before are there; the reference finds that once more, and counts it
    finally:
        _strip_row(sa, plaintexts, first, outcomes)
        sa.replay.advance(len(plaintexts))
    return len(plaintexts)


def _strip_row(sa: InboundSa, plaintexts: list[bytes], first: int, outcomes: list[Outcome]) -> None:
    """Rows of what these carry, the numbers of which begin with `first`; what carries nothing for us is counted."""
    if not plaintexts:
        return
    # Most often all have the same trailer; it has its own length in it.
    trailer = plaintexts[0][-TRAILER_OCTETS - plaintexts[0][-2] :]
    behind = len(trailer)
    if list(map(itemgetter(slice(-behind, None)), plaintexts)).count(trailer) == len(plaintexts):
        stripped = _strip(sa, plaintexts[0])
        if not isinstance(stripped, DropReason):
            _end_row(sa, Row(plaintexts, stripped[1], first, behind), outcomes)
            return
    row = Row([], 0, first)
    for number, plaintext in enumerate(plaintexts, first):
        stripped = _strip(sa, plaintext)
        if isinstance(stripped, DropReason) or stripped[1] != row.next_header:
            _end_row(sa, row, outcomes)
            row = Row([], 0, number)
        if isinstance(stripped, DropReason):
            sa.drops[stripped] += 1
            outcomes.append(stripped)
            continue
        payload, next_header = stripped
        if not row.octets:
            row = Row([], next_header, number)
        row.octets.append(payload)
    _end_row(sa, row, outcomes)


def _strip(sa: InboundSa, plaintext: bytes) -> tuple[bytes, int] | DropReason:
    """Payload and next header of what the ICV was right for, or why it is dropped."""
    stripped = strip_trailer(plaintext)
    if stripped is None:
        return DropReason.PADDING
    if stripped[1] == DUMMY_NEXT_HEADER:
        return DropReason.DUMMY
    if sa.accepts_next_headers is not None and stripped[1] not in sa.accepts_next_headers:
        return DropReason.NEXT_HEADER
    return stripped


def _end_row(sa: InboundSa, row: Row, outcomes: list[Outcome]) -> None:
    """Count what is in a row, if there is anything."""
    if row.octets:
        sa.packets += len(row.octets)
        sa.octets += sum(map(len, row.octets)) - len(row.octets) * row.behind
        outcomes.append(row)


def _fronts(
    spi: bytes, first: int, count: int
) -> tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...]]:
    """What `count` packets from number `first` on begin with, and of that the headers and the IVs: 64-bit numbers."""
    low = first & _LOW_BITS
    until_zero = _LOW_BITS + 1 - low
    if count > until_zero:
        before, after = _fronts(spi, first, until_zero), _fronts(spi, first + until_zero, count - until_zero)
        return before[0] + after[0], before[1] + after[1], before[2] + after[2]
    # All of them as one number: a lane for each, the first packet in the highest.
    front = int.from_bytes(spi, "big") << 96 | low << 64 | first
    ones, steps, whole, halves = _lanes(count)
    octets = (front * ones + steps).to_bytes(_FRONT_OCTETS * count, "big")
    parts = halves(octets)
    return whole(octets), parts[::2], parts[1::2]


@lru_cache(maxsize=256)
def _lanes(count: int) -> tuple[int, int, _Split, _Split]:
    """For `_fronts`: 1 in every lane; what each has more than the first; how to split lanes, and halves of them."""
    one, step = (1).to_bytes(_FRONT_OCTETS, "big"), 1 << 64 | 1
    steps = b"".join((step * n).to_bytes(_FRONT_OCTETS, "big") for n in range(count))
    lanes = int.from_bytes(one * count, "big"), int.from_bytes(steps, "big")
    return *lanes, Struct(f"{_FRONT_OCTETS}s" * count).unpack, Struct("8s" * 2 * count).unpack


def _outcome(result: Opened | DropReason) -> Outcome:
    if isinstance(result, DropReason):
        return result
    return Row([result.payload], result.next_header, result.sequence)


@lru_cache(maxsize=1024)
def _trailers(next_header: int, block_octets: int) -> tuple[bytes, ...]:
    """What follows a payload, by its length modulo `block_octets`."""
    return tuple(add_trailer(bytes(size), next_header, block_octets)[size:] for size in range(block_octets))


def _room(sa: OutboundSa, payloads: Sequence[bytes], longest: int) -> int:
    """How many of `payloads`, none longer than `longest`, the SA may still send."""
    room = max(0, min(len(payloads), sa.last_sequence - sa.sequence, sa.hard_packets - sa.packets))
    if sa.octets + len(payloads) * longest < sa.hard_octets:
        return room
    octets = sa.octets
    for index, payload in enumerate(payloads[:room]):
        if octets >= sa.hard_octets:
            return index
        octets += len(payload)
    return room


def _protect_each(sa: OutboundSa, payloads: Sequence[bytes], next_header: int) -> list[bytes]:
    packets: list[bytes] = []
    for payload in payloads:
        try:
            packets.append(protect(sa, payload, next_header))
        except UsedUp:
            continue  # it is counted at the SA, and so are those that follow
    return packets


def _receive_one(sad: InboundSad, packet: bytes) -> Opened | DropReason:
    received = sad.receive(packet)
    return received if isinstance(received, DropReason) else received.opened
