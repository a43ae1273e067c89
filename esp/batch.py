"""ESP packets, many of one SA at once: the quick path beside the reference in `engine` (RFC 4303 3.3, 3.4).

Must not know what is carried, as `engine` must not. Every octet, drop and counter is as `engine` would have it.

One loop with everything in local variables for the AEADs whose IV is in the packet (AES-GCM, AES-CCM,
ChaCha20-Poly1305), the SA written back when it ends; other transforms take the reference, packet by packet.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct
from typing import TypeAlias

from cryptography.exceptions import InvalidTag

from esp.ciphers import AeadCipher
from esp.engine import (
    DUMMY_NEXT_HEADER,
    MAX_PACKET_OCTETS,
    InboundSad,
    Opened,
    add_trailer,
    protect,
    unprotect,
)
from esp.errors import DropReason, EspError, UsedUp
from esp.sa import InboundSa, OutboundSa
from esp.transforms import HEADER_OCTETS, TRAILER_OCTETS

__all__ = ["Outcome", "open_batch", "receive_batch", "seal_batch"]

Outcome: TypeAlias = Opened | DropReason
"""What became of one inbound packet."""

_LOW_BITS = 0xFFFFFFFF
_IV_OCTETS = 8
_HEADER_AND_IV = Struct(">4sIQ")
_PADDING_AND_LENGTH = tuple(bytes(range(1, pad + 1)) + bytes((pad,)) for pad in range(256))
_NO_PACKET = -1


def seal_batch(sa: OutboundSa, payloads: Sequence[bytes], next_header: int) -> list[bytes]:
    """The ESP packets for payloads of one protocol, in their order, as `engine.protect` makes them.

    When the SA may send no more the rest is left out, each counted at the SA as LIFETIME or SEQUENCE_EXHAUSTED.
    EspError for a protocol or a payload that no packet can hold; then none is sealed.
    """
    longest = max(map(len, payloads), default=0)
    if not 0 <= next_header <= 255 or sa.transform.packet_octets(longest) > MAX_PACKET_OCTETS:
        raise EspError(f"{longest} octets of protocol {next_header} are no ESP payload")
    cipher, block_octets = sa.cipher, sa.transform.block_octets
    if not isinstance(cipher, AeadCipher):
        return _protect_each(sa, payloads, next_header)
    spi, esn, salt, encrypt = sa.spi, sa.esn, cipher.salt, cipher.aead.encrypt
    trailers, header_and_iv = _trailers(next_header, block_octets), _HEADER_AND_IV.pack
    sequence = sa.sequence
    left = _room(sa, payloads, longest)
    packets: list[bytes] = []
    size, trailer = -1, b""
    try:
        for payload in payloads[:left]:
            sequence += 1  # before it is used: whatever happens below, no number seals twice
            if len(payload) != size:
                size = len(payload)
                trailer = trailers[size % block_octets]
            # The IV is the number in 64 bits: with ESN the associated data is SPI and IV.
            header = header_and_iv(spi, sequence & _LOW_BITS, sequence)
            associated = spi + header[8:] if esn else header[:8]
            packets.append(header + encrypt(salt + header[8:], payload + trailer, associated))
    finally:
        sa.sequence = sequence
        sa.packets += len(packets)
        sa.octets += sum(map(len, payloads[: len(packets)]))
    if left < len(payloads):
        reason = DropReason.LIFETIME if sa.has_expired else DropReason.SEQUENCE_EXHAUSTED
        sa.drops[reason] += len(payloads) - left
    return packets


def receive_batch(sad: InboundSad, packets: Sequence[bytes]) -> list[Outcome]:
    """What became of ESP packets of whatever SAs, one for one and in their order, as `sad.receive` says.

    Only packets in a row are taken together: no SA overtakes the one that it replaces.
    """
    outcomes: list[Outcome] = []
    start = 0
    while start < len(packets):
        spi = packets[start][:4]
        end = start + 1
        while end < len(packets) and packets[end][:4] == spi:
            end += 1
        sa = sad.get(spi)
        if sa is not None:
            outcomes += open_batch(sa, packets[start:end])
        else:
            outcomes += [_receive_one(sad, packet) for packet in packets[start:end]]
        start = end
    return outcomes


def open_batch(sa: InboundSa, packets: Sequence[bytes]) -> list[Outcome]:
    """What is in ESP packets of one SA, or why each is dropped, as `engine.unprotect` says and counts it."""
    cipher = sa.cipher
    count = len(packets)
    is_near_its_end = (
        sa.packets + count > sa.hard_packets or sa.octets + count * MAX_PACKET_OCTETS > sa.hard_octets
    )
    if is_near_its_end or not isinstance(cipher, AeadCipher):
        return [unprotect(sa, packet) for packet in packets]
    spi, esn, salt, decrypt = sa.spi, sa.esn, cipher.salt, cipher.aead.decrypt
    replay, accepts = sa.replay, sa.accepts_next_headers
    least = HEADER_OCTETS + _IV_OCTETS + TRAILER_OCTETS + sa.transform.icv_octets
    new, padding_and_length = tuple.__new__, _PADDING_AND_LENGTH
    outcomes: list[Outcome] = []
    octets = dropped = 0
    size, split = -1, _splitter(least)
    # A packet with the next number needs no look at the window, which moves over a whole row of them at its
    # end. `expected` is how that packet begins, `row` how the row began, `origin` what to take off for a number.
    row, origin = _next_packet(sa, len(packets))
    expected = row
    try:
        for packet in packets:
            if len(packet) != size:
                if len(packet) < least:
                    outcomes.append(DropReason.TRUNCATED)
                    dropped += 1
                    continue
                size = len(packet)
                split = _splitter(size)
            head, iv, ciphertext = split(packet)
            if head == expected:
                sequence = head - origin
            else:
                replay.advance(expected - row)
                row = expected
                checked = replay.check(head & _LOW_BITS) if packet[:4] == spi else DropReason.UNKNOWN_SPI
                if isinstance(checked, DropReason):
                    outcomes.append(checked)
                    dropped += 1
                    continue
                sequence = checked
            try:
                plaintext = decrypt(
                    salt + iv, ciphertext, spi + sequence.to_bytes(8, "big") if esn else packet[:8]
                )
            except InvalidTag:
                outcomes.append(DropReason.INTEGRITY)
                dropped += 1
                continue
            if head == expected:
                expected += 1
            else:
                replay.update(sequence)
                row, origin = _next_packet(sa, len(packets))
                expected = row
            pad, next_header = plaintext[-2], plaintext[-1]
            end = len(plaintext) - TRAILER_OCTETS - pad
            if plaintext[end:-1] != padding_and_length[pad]:  # which is too long where `end` is negative
                outcomes.append(DropReason.PADDING)
            elif next_header == DUMMY_NEXT_HEADER:
                outcomes.append(DropReason.DUMMY)
            elif accepts is not None and next_header not in accepts:
                outcomes.append(DropReason.NEXT_HEADER)
            else:
                outcomes.append(new(Opened, (plaintext[:end], next_header, sequence)))
                octets += end
                continue
            dropped += 1
    finally:
        replay.advance(expected - row)
        sa.packets += len(outcomes) - dropped
        sa.octets += octets
        if dropped:
            sa.drops.update(outcome for outcome in outcomes if isinstance(outcome, DropReason))
    return outcomes


def _next_packet(sa: InboundSa, count: int) -> tuple[int, int]:
    """The first 64 bits, SPI and low half, of the packet after the highest, and these less its whole number.

    No packet at all where the high half changes within the next `count`.
    """
    highest = sa.replay.highest
    if (highest & _LOW_BITS) + count > _LOW_BITS:
        return _NO_PACKET, 0
    head = int.from_bytes(sa.spi, "big") << 32 | (highest & _LOW_BITS) + 1
    return head, head - (highest + 1)


@lru_cache(maxsize=2048)
def _splitter(size: int) -> Callable[[bytes], tuple[int, bytes, bytes]]:
    """Takes a packet of `size` octets apart: SPI and sequence number in one, IV, ciphertext with ICV."""
    return Struct(f">Q{_IV_OCTETS}s{size - HEADER_OCTETS - _IV_OCTETS}s").unpack


@lru_cache(maxsize=1024)
def _trailers(next_header: int, block_octets: int) -> tuple[bytes, ...]:
    """What follows a payload, by its length modulo `block_octets`."""
    return tuple(add_trailer(bytes(size), next_header, block_octets)[size:] for size in range(block_octets))


def _room(sa: OutboundSa, payloads: Sequence[bytes], longest: int) -> int:
    """How many of `payloads`, none longer than `longest`, the SA may still send."""
    room = max(0, min(sa.last_sequence - sa.sequence, sa.hard_packets - sa.packets))
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


def _receive_one(sad: InboundSad, packet: bytes) -> Outcome:
    received = sad.receive(packet)
    return received if isinstance(received, DropReason) else received.opened
