"""ESP security associations: keys, counters and sequence numbers of one direction (RFC 4301 4.4.2, RFC 4303).

Must not know how they were negotiated or where packets come from and go to.
"""

from collections import Counter
from collections.abc import Collection

from esp.errors import DropReason, EspError, LifetimeExpired, SequenceExhausted
from esp.replay import DEFAULT_WINDOW, ReplayWindow
from esp.transforms import Transform

__all__ = ["FIRST_SPI", "UNLIMITED", "InboundSa", "OutboundSa"]

FIRST_SPI = 256
"""SPIs below are reserved (RFC 4303 2.1)."""
UNLIMITED = 2**64
"""As a hard lifetime: more than any SA carries."""


def _checked_spi(spi: bytes) -> bytes:
    if len(spi) != 4 or int.from_bytes(spi, "big") < FIRST_SPI:
        raise EspError(f"SPI {spi.hex()}: it has four octets, and 0 to 255 are reserved")
    return spi


class _Association:
    """What both directions have. `packets` and `octets` (of payload) count what went through, `drops` what did not.

    Nothing goes through any more once `packets` has reached `hard_packets` or `octets` `hard_octets`.
    """

    def __init__(
        self,
        spi: bytes,
        transform: Transform,
        encr_key: bytes,
        integ_key: bytes,
        *,
        esn: bool,
        hard_packets: int,
        hard_octets: int,
    ) -> None:
        self.spi = _checked_spi(spi)
        self.transform = transform
        self.esn = esn
        self.cipher = transform.cipher(encr_key, integ_key)
        self.hard_packets = hard_packets
        self.hard_octets = hard_octets
        self.packets = 0
        self.octets = 0
        self.drops: Counter[DropReason] = Counter()

    @property
    def has_expired(self) -> bool:
        """Whether the hard lifetime has come (RFC 4301 4.4.2.1)."""
        return self.packets >= self.hard_packets or self.octets >= self.hard_octets


class OutboundSa(_Association):
    """What we send with. Keys as `transform` wants them; `spi` four octets, chosen by the peer.

    `sequence` is the last number used, `last_sequence` the last that may be. EspError for a reserved SPI or a
    key of the wrong size.
    """

    def __init__(
        self,
        spi: bytes,
        transform: Transform,
        encr_key: bytes,
        integ_key: bytes = b"",
        *,
        esn: bool = False,
        hard_packets: int = UNLIMITED,
        hard_octets: int = UNLIMITED,
    ) -> None:
        super().__init__(
            spi, transform, encr_key, integ_key, esn=esn, hard_packets=hard_packets, hard_octets=hard_octets
        )
        self.sequence = 0
        self.last_sequence = 2**64 - 1 if esn else 2**32 - 1

    def __repr__(self) -> str:
        return f"OutboundSa({self.spi.hex()}, sequence={self.sequence}, esn={self.esn})"

    def next_sequence(self) -> int:
        """Take the next sequence number. SequenceExhausted rather than to begin again (RFC 4303 3.3.3).

        LifetimeExpired after the hard lifetime.
        """
        if self.has_expired:
            self.drops[DropReason.LIFETIME] += 1
            raise LifetimeExpired(f"SPI {self.spi.hex()}: its hard lifetime has come")
        if self.sequence >= self.last_sequence:
            self.drops[DropReason.SEQUENCE_EXHAUSTED] += 1
            raise SequenceExhausted(f"SPI {self.spi.hex()}: all sequence numbers are used up")
        self.sequence += 1
        return self.sequence


class InboundSa(_Association):
    """What we receive with. Keys as `transform` wants them; `spi` four octets, chosen by us.

    `window` is the size of the replay window, 0 for none (see ReplayWindow). `accepts_next_headers` names the
    protocols this SA may carry, None for any. EspError for a reserved SPI, a key or a window of the wrong size.
    """

    def __init__(
        self,
        spi: bytes,
        transform: Transform,
        encr_key: bytes,
        integ_key: bytes = b"",
        *,
        esn: bool = False,
        window: int = DEFAULT_WINDOW,
        accepts_next_headers: Collection[int] | None = None,
        hard_packets: int = UNLIMITED,
        hard_octets: int = UNLIMITED,
    ) -> None:
        super().__init__(
            spi, transform, encr_key, integ_key, esn=esn, hard_packets=hard_packets, hard_octets=hard_octets
        )
        self.replay = ReplayWindow(window, esn=esn)
        self.accepts_next_headers = None if accepts_next_headers is None else frozenset(accepts_next_headers)

    def __repr__(self) -> str:
        return f"InboundSa({self.spi.hex()}, highest={self.replay.highest}, esn={self.esn})"
