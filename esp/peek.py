"""Looking at an ESP packet without changing anything: for researchers and for logs (RFC 4303 2).

Must not know where packets come from. Nothing here counts, moves a window or says that a packet is genuine unless its
ICV was right.
"""

from dataclasses import dataclass

from esp.engine import DUMMY_NEXT_HEADER, strip_trailer
from esp.errors import DropReason, EspError
from esp.sa import InboundSa
from esp.transforms import HEADER_OCTETS, TRAILER_OCTETS

__all__ = ["Inside", "Peeked", "peek"]


@dataclass(frozen=True, slots=True)
class Inside:
    """What was sealed: the payload, with TFC padding if there was any, its next header, the octets of padding."""

    payload: bytes
    next_header: int
    pad_octets: int


@dataclass(frozen=True, slots=True)
class Peeked:
    """What an ESP packet shows.

    spi         four octets
    sequence    the low 32 bits as in the header; by an SA with ESN all 64, as inferred
    octets      of the packet, without outer headers
    verdict     what the SA would drop it for now; None: nothing, or no SA was given
    highest     of the SA's replay window: the highest number received; None without an SA
    window      of how many numbers up to that one it knows whether they came; 0 for no anti-replay service
    inside      of a packet whose ICV is right, whatever the window says
    """

    spi: bytes
    sequence: int
    octets: int
    verdict: DropReason | None = None
    highest: int | None = None
    window: int | None = None
    inside: Inside | None = None


def peek(packet: bytes, sa: InboundSa | None = None) -> Peeked:
    """The header of an ESP packet without outer headers; by its SA also what is inside. It changes nothing.

    EspError for what is too short to have a header, or has another SPI than the SA.
    """
    if len(packet) < HEADER_OCTETS:
        raise EspError(f"{len(packet)} octets are no ESP packet")
    spi, low = packet[:4], int.from_bytes(packet[4:8], "big")
    if sa is None:
        return Peeked(spi, low, len(packet))
    if spi != sa.spi:
        raise EspError(f"SPI {spi.hex()} is not {sa.spi.hex()}")
    sequence = sa.replay.infer(low)
    opened, late = _open(packet, sa, sequence), sa.replay.check(low)
    inside, verdict = (None, opened) if isinstance(opened, DropReason) else (opened, _would_drop(sa, opened))
    if isinstance(late, DropReason):
        verdict = late
    return Peeked(spi, sequence, len(packet), verdict, sa.replay.highest, sa.replay.size, inside)


def _would_drop(sa: InboundSa, inside: Inside) -> DropReason | None:
    if inside.next_header == DUMMY_NEXT_HEADER:
        return DropReason.DUMMY
    is_foreign = sa.accepts_next_headers is not None and inside.next_header not in sa.accepts_next_headers
    return DropReason.NEXT_HEADER if is_foreign else None


def _open(packet: bytes, sa: InboundSa, sequence: int) -> Inside | DropReason:
    if not 0 <= sequence < 1 << 64:
        return DropReason.TOO_OLD
    if not sa.transform.fits(len(packet)):
        return DropReason.TRUNCATED
    plaintext = sa.cipher.open(packet, (sequence >> 32).to_bytes(4, "big") if sa.esn else b"")
    if plaintext is None:
        return DropReason.INTEGRITY
    stripped = strip_trailer(plaintext)
    if stripped is None:
        return DropReason.PADDING
    payload, next_header = stripped
    return Inside(payload, next_header, len(plaintext) - len(payload) - TRAILER_OCTETS)
