"""ESP packets, many of one SA at once: the quick path beside the reference in `engine` (RFC 4303 3.3, 3.4).

Must not know what is carried, as `engine` must not. Every octet, drop and counter is as `engine` would have it.

One short loop for the AEADs whose IV is in the packet (AES-GCM, AES-CCM, ChaCha20-Poly1305): for packets with the
numbers that come next, the headers of all of which are made, or known, beforehand. Every packet that is anything
else, and other transforms, take the reference.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import takewhile
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
    """Authentic packets of one protocol, `sequence` that of the first; those of the others follow without a gap."""

    payloads: list[bytes]
    next_header: int
    sequence: int

    @property
    def packets(self) -> list[Opened]:
        """One by one, as `engine` gives them."""
        return [
            Opened(payload, self.next_header, n) for n, payload in enumerate(self.payloads, self.sequence)
        ]


Outcome: TypeAlias = Row | DropReason
"""What became of inbound packets: of a row of them, or of a single one."""

_LOW_BITS = 0xFFFFFFFF
_IV_OCTETS = 8
_HEAD_OCTETS = HEADER_OCTETS + _IV_OCTETS
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
    heads, ivs = _heads(sa.spi, first, left), _eights(first, left)
    # The IV is the number in 64 bits: with ESN the associated data is SPI and IV.
    associated = [sa.spi + iv for iv in ivs] if sa.esn else heads
    packets = [
        head + iv + encrypt(salt + iv, payload + trailer, data)
        for payload, trailer, head, iv, data in zip(payloads, trailers, heads, ivs, associated, strict=True)
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
    start = 0
    while start < len(packets):
        spi = packets[start][:4]
        end = start + 1
        while end < len(packets) and packets[end][:4] == spi:
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
    if packets[0][:8] != sa.spi + (first & _LOW_BITS).to_bytes(4, "big"):
        return 0
    least = _HEAD_OCTETS + TRAILER_OCTETS + sa.transform.icv_octets
    if min(map(len, packets)) < least:
        packets = list(takewhile(lambda packet: len(packet) >= least, packets))
    # After the low half has begun anew all is different: another high half, or no number at all.
    count = min(len(packets), -first & _LOW_BITS)
    heads = _heads(sa.spi, first, count)
    associated = [sa.spi + number for number in _eights(first, count)] if sa.esn else heads
    salt, decrypt = cipher.salt, cipher.aead.decrypt
    ended = next_header = 0
    payloads: list[bytes] = []
    # The trailer of one packet is most often that of the next; it has its own length in it.
    trailer: bytes | None = None
    # A slice that is there already costs a third less than one that is written out.
    head_part, iv_part, sealed_part = slice(8), slice(8, _HEAD_OCTETS), slice(_HEAD_OCTETS, None)
    payload_part = trailer_part = slice(0)
    try:
        for packet, head, data in zip(packets, heads, associated, strict=False):
            if packet[head_part] != head:
                break
            plaintext = decrypt(salt + packet[iv_part], packet[sealed_part], data)
            if plaintext[trailer_part] == trailer:
                payloads.append(plaintext[payload_part])
                continue
            stripped = _strip(sa, plaintext)
            if isinstance(stripped, DropReason) or stripped[1] != next_header:
                _end_row(sa, payloads, next_header, first + ended, outcomes)
                ended, payloads, trailer = ended + len(payloads), [], None
            if isinstance(stripped, DropReason):
                sa.drops[stripped] += 1
                outcomes.append(stripped)
                ended += 1
                continue
            payload, next_header = stripped
            payloads.append(payload)
            trailer = plaintext[len(payload) :]
            payload_part, trailer_part = slice(-len(trailer)), slice(-len(trailer), None)
    except InvalidTag:
        pass  # the reference finds that once more, and counts it
    finally:
        _end_row(sa, payloads, next_header, first + ended, outcomes)
        ended += len(payloads)
        sa.replay.advance(ended)
    return ended


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


def _end_row(
    sa: InboundSa, payloads: list[bytes], next_header: int, first: int, outcomes: list[Outcome]
) -> None:
    """Count the payloads of a row that began with number `first`."""
    if payloads:
        sa.packets += len(payloads)
        sa.octets += sum(map(len, payloads))
        outcomes.append(Row(payloads, next_header, first))


def _heads(spi: bytes, first: int, count: int) -> tuple[bytes, ...]:
    """SPI and low half of `count` sequence numbers from `first` on."""
    low = first & _LOW_BITS
    until_zero = _LOW_BITS + 1 - low
    if count > until_zero:
        return _heads(spi, first, until_zero) + _heads(spi, 0, count - until_zero)
    return _eights(int.from_bytes(spi, "big") << 32 | low, count)


def _eights(first: int, count: int) -> tuple[bytes, ...]:
    """`count` numbers from `first` on in eight octets each."""
    pack, split = _structs(count)
    return split(pack(*range(first, first + count)))


@lru_cache(maxsize=256)
def _structs(count: int) -> tuple[Callable[..., bytes], Callable[[bytes], tuple[bytes, ...]]]:
    return Struct(f">{count}Q").pack, Struct("8s" * count).unpack


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
