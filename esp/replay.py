"""The anti-replay window and the inference of extended sequence numbers (RFC 4303 3.4.3, appendix A2).

Must not know packets or keys: `update` is only for sequence numbers whose ICV has verified.

Appendix A3, looking for the high half after 2^32 packets in a row were lost, is left out: an SA does not live as long
as that takes, and forged packets would cost several decryptions each. What is lost so is an SA, until its next rekey.
"""

from esp.errors import DropReason, EspError

__all__ = ["DEFAULT_WINDOW", "LARGEST_WINDOW", "SMALLEST_WINDOW", "ReplayWindow"]

DEFAULT_WINDOW = 1024
SMALLEST_WINDOW, LARGEST_WINDOW = 64, 4096
_SUBSPACE = 1 << 32
_LAST = (1 << 64) - 1


class ReplayWindow:
    """The last `size` sequence numbers up to `highest`, and which of them have been received.

    `size` is 64 to 4096, or 0 for no anti-replay service at all; extended sequence numbers (`esn`) need one.
    `highest` is where to begin: 0 for a new SA. EspError for a size out of bounds.
    """

    __slots__ = ("_esn", "_mask", "_seen", "highest", "size")

    def __init__(self, size: int = DEFAULT_WINDOW, *, esn: bool = False, highest: int = 0) -> None:
        if size != 0 and not SMALLEST_WINDOW <= size <= LARGEST_WINDOW:
            raise EspError(
                f"replay window of {size}; it can have {SMALLEST_WINDOW} to {LARGEST_WINDOW}, or 0 for none"
            )
        if size == 0 and esn:
            raise EspError("extended sequence numbers need a replay window (RFC 4303 3.3.3)")
        self.size = size
        self.highest = highest
        self._esn = esn
        self._mask = (1 << max(size, 1)) - 1
        # Bit n stands for `highest` - n. That of number 0 is set from the start: no packet has it.
        self._seen = 1

    def check(self, low: int) -> int | DropReason:
        """The whole sequence number to verify the ICV with, from the 32 bits in the packet; or why not to."""
        if self.size == 0:
            return low
        sequence = self.infer(low)
        age = self.highest - sequence
        if age >= self.size or not 0 <= sequence <= _LAST:
            return DropReason.TOO_OLD
        if age >= 0 and self._seen >> age & 1:
            return DropReason.REPLAY
        return sequence

    def update(self, sequence: int) -> None:
        """Mark a number that `check` returned and whose ICV has verified; the window moves up to it."""
        ahead = sequence - self.highest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & self._mask if ahead < self.size else 1
            self.highest = sequence
        elif -ahead < self.size:
            self._seen |= 1 << -ahead

    def advance(self, count: int) -> None:
        """As `update` for each of the `count` numbers that follow `highest`, at once."""
        self._seen = (
            (self._seen << count | (1 << count) - 1) & self._mask if count < self.size else self._mask
        )
        self.highest += count

    def infer(self, low: int) -> int:
        """RFC 4303 A2.2: of all numbers with these low bits, the first that is not left of the window.

        A young SA's window begins below zero, a very old one's ends past 64 bits; no packet has such numbers.
        Without extended sequence numbers the low bits are all.
        """
        if not self._esn:
            return low
        bottom = self.highest - self.size + 1
        return bottom + (low - bottom) % _SUBSPACE
