"""ESP security associations: keys, counters and sequence numbers of one direction (RFC 4301 4.4.2, RFC 4303).

Must not know how they were negotiated or where packets come from and go to.
"""

from collections import Counter
from collections.abc import Collection

from esp.errors import DropReason, EspError, SequenceExhausted
from esp.replay import DEFAULT_WINDOW, ReplayWindow
from esp.transforms import Transform

__all__ = ["FIRST_SPI", "InboundSa", "OutboundSa"]

FIRST_SPI = 256
"""SPIs below are reserved (RFC 4303 2.1)."""


def _checked_spi(spi: bytes) -> bytes:
    if len(spi) != 4 or int.from_bytes(spi, "big") < FIRST_SPI:
        raise EspError(f"SPI {spi.hex()}: it has four octets, and 0 to 255 are reserved")
    return spi


class OutboundSa:
    """What we send with. Keys as `transform` wants them; `spi` four octets, chosen by the peer.

    `sequence` is the last number used, `last_sequence` the last that may be; `packets` and `octets` count
    what was protected (payload octets), `drops` what could not be. EspError for a reserved SPI or a key of
    the wrong size.
    """

    def __init__(
        self, spi: bytes, transform: Transform, encr_key: bytes, integ_key: bytes = b"", *, esn: bool = False
    ) -> None:
        self.spi = _checked_spi(spi)
        self.transform = transform
        self.esn = esn
        self.cipher = transform.cipher(encr_key, integ_key)
        self.sequence = 0
        self.last_sequence = 2**64 - 1 if esn else 2**32 - 1
        self.packets = 0
        self.octets = 0
        self.drops: Counter[DropReason] = Counter()

    def __repr__(self) -> str:
        return f"OutboundSa({self.spi.hex()}, sequence={self.sequence}, esn={self.esn})"

    def next_sequence(self) -> int:
        """Take the next sequence number. SequenceExhausted rather than to begin again (RFC 4303 3.3.3)."""
        if self.sequence >= self.last_sequence:
            self.drops[DropReason.SEQUENCE_EXHAUSTED] += 1
            raise SequenceExhausted(f"SPI {self.spi.hex()}: all sequence numbers are used up")
        self.sequence += 1
        return self.sequence


class InboundSa:
    """What we receive with. Keys as `transform` wants them; `spi` four octets, chosen by us.

    `window` is the size of the replay window, 0 for none (see ReplayWindow). `accepts_next_headers` names the
    protocols this SA may carry, None for any. `packets` and `octets` count what was delivered (payload
    octets), `drops` what was not. EspError for a reserved SPI, a key or a window of the wrong size.
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
    ) -> None:
        self.spi = _checked_spi(spi)
        self.transform = transform
        self.esn = esn
        self.cipher = transform.cipher(encr_key, integ_key)
        self.replay = ReplayWindow(window, esn=esn)
        self.accepts_next_headers = None if accepts_next_headers is None else frozenset(accepts_next_headers)
        self.packets = 0
        self.octets = 0
        self.drops: Counter[DropReason] = Counter()

    def __repr__(self) -> str:
        return f"InboundSa({self.spi.hex()}, highest={self.replay.highest}, esn={self.esn})"
