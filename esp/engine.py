"""ESP packets, outbound and inbound: the readable reference (RFC 4303 3.3, 3.4).

Must not know what is carried: payloads come complete, with an inner IP header in tunnel mode, and leave so.

Outbound: sequence number, TFC padding, trailer, seal.
Inbound: hard lifetime, length, SPI, replay check, ICV, replay window moves, padding, next header. Nothing
before the ICV changes any state but a counter.
"""

from collections import Counter
from struct import Struct
from typing import NamedTuple

from esp.errors import DropReason, EspError
from esp.sa import FIRST_SPI, InboundSa, OutboundSa
from esp.transforms import HEADER_OCTETS, TRAILER_OCTETS

__all__ = [
    "DUMMY_NEXT_HEADER",
    "InboundSad",
    "Opened",
    "Received",
    "add_trailer",
    "protect",
    "strip_trailer",
    "unprotect",
]

DUMMY_NEXT_HEADER = 59
MAX_PACKET_OCTETS = 65535
_PADDING = bytes(range(1, 256))
_HEADER = Struct(">4sI")
_HIGH = Struct(">I")
_LOW_BITS = 0xFFFFFFFF


class Opened(NamedTuple):
    """An authentic packet. `payload` may end in TFC padding where the peer may send that (RFC 4303 2.7)."""

    payload: bytes
    next_header: int
    sequence: int


class Received(NamedTuple):
    """An authentic packet and the SA it came by."""

    sa: InboundSa
    opened: Opened


def protect(sa: OutboundSa, payload: bytes, next_header: int, tfc_octets: int = 0) -> bytes:
    """The ESP packet for a payload: SPI, sequence number, IV, ciphertext, ICV; no outer header.

    `tfc_octets` zeros follow the payload: only for one that carries its own length, to a peer that allows it
    (RFC 4303 2.7). UsedUp when the SA may send no more; EspError for what no packet can hold.
    """
    if (
        tfc_octets < 0
        or not 0 <= next_header <= 255
        or sa.transform.packet_octets(len(payload) + tfc_octets) > MAX_PACKET_OCTETS
    ):
        raise EspError(f"{len(payload)} + {tfc_octets} octets of protocol {next_header} are no ESP payload")
    sequence = sa.next_sequence()
    header = _HEADER.pack(sa.spi, sequence & _LOW_BITS)
    high = _HIGH.pack(sequence >> 32) if sa.esn else b""
    plaintext = add_trailer(payload + bytes(tfc_octets), next_header, sa.transform.block_octets)
    packet = sa.cipher.seal(header, high, sa.cipher.iv(sequence), plaintext)
    sa.packets += 1
    sa.octets += len(payload) + tfc_octets
    return packet


def unprotect(sa: InboundSa, packet: bytes) -> Opened | DropReason:
    """The payload of an ESP packet without outer header, or why it is dropped, counted at the SA."""
    result = _unprotect(sa, packet)
    if isinstance(result, DropReason):
        sa.drops[result] += 1
    else:
        sa.packets += 1
        sa.octets += len(result.payload)
    return result


def _unprotect(sa: InboundSa, packet: bytes) -> Opened | DropReason:
    if sa.has_expired:
        return DropReason.LIFETIME
    if not sa.transform.fits(len(packet)):
        return DropReason.TRUNCATED
    spi, low = _HEADER.unpack_from(packet)
    if spi != sa.spi:
        return DropReason.UNKNOWN_SPI
    sequence = sa.replay.check(low)
    if isinstance(sequence, DropReason):
        return sequence
    plaintext = sa.cipher.open(packet, _HIGH.pack(sequence >> 32) if sa.esn else b"")
    if plaintext is None:
        return DropReason.INTEGRITY
    sa.replay.update(sequence)
    stripped = strip_trailer(plaintext)
    if stripped is None:
        return DropReason.PADDING
    payload, next_header = stripped
    if next_header == DUMMY_NEXT_HEADER:
        return DropReason.DUMMY
    if sa.accepts_next_headers is not None and next_header not in sa.accepts_next_headers:
        return DropReason.NEXT_HEADER
    return Opened(payload, next_header, sequence)


def add_trailer(payload: bytes, next_header: int, block_octets: int) -> bytes:
    """Payload, padding 1, 2, 3…, Pad Length, Next Header: a multiple of `block_octets` (RFC 4303 2.4)."""
    pad = -(len(payload) + TRAILER_OCTETS) % block_octets
    return payload + _PADDING[:pad] + bytes((pad, next_header))


def strip_trailer(plaintext: bytes) -> tuple[bytes, int] | None:
    """Payload and Next Header; None if Pad Length or the padding is wrong. At least two octets come in."""
    pad, next_header = plaintext[-2:]
    end = len(plaintext) - TRAILER_OCTETS - pad
    if end < 0 or plaintext[end:-TRAILER_OCTETS] != _PADDING[:pad]:
        return None
    return plaintext[:end], next_header


class InboundSad:
    """The inbound SAs by SPI (RFC 4303 3.4.2). `drops` counts packets that belong to none of them."""

    def __init__(self) -> None:
        self._sas: dict[bytes, InboundSa] = {}
        self.drops: Counter[DropReason] = Counter()

    def __len__(self) -> int:
        return len(self._sas)

    def add(self, sa: InboundSa) -> None:
        """EspError if the SPI is taken."""
        if sa.spi in self._sas:
            raise EspError(f"SPI {sa.spi.hex()} is taken")
        self._sas[sa.spi] = sa

    def remove(self, spi: bytes) -> InboundSa | None:
        """The SA that had the SPI, if one had."""
        return self._sas.pop(spi, None)

    def get(self, spi: bytes) -> InboundSa | None:
        return self._sas.get(spi)

    def receive(self, packet: bytes) -> Received | DropReason:
        """Find the SA of an ESP packet and unprotect it."""
        sa = self._sas.get(packet[:4])
        if sa is None:
            reason = _unassigned(packet)
            self.drops[reason] += 1
            return reason
        opened = unprotect(sa, packet)
        return opened if isinstance(opened, DropReason) else Received(sa, opened)


def _unassigned(packet: bytes) -> DropReason:
    if len(packet) < HEADER_OCTETS:
        return DropReason.TRUNCATED
    return (
        DropReason.RESERVED_SPI if int.from_bytes(packet[:4], "big") < FIRST_SPI else DropReason.UNKNOWN_SPI
    )
