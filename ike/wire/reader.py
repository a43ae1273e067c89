"""A bounded reader over received octets, used by every codec of `ike.wire` (RFC 7296 section 3: big endian).

Must not know: any payload. It never looks past its end, and its only exception is ParseError.
"""

from ike.errors import ParseError


class Reader:
    """Reads `data[start:end]` from front to back; `position` is always an offset in the whole `data`."""

    __slots__ = ("_data", "_end", "position")

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._end = len(data) if end is None else end
        self.position = start

    @property
    def remaining(self) -> int:
        return self._end - self.position

    def _advance(self, count: int) -> int:
        if count < 0 or count > self._end - self.position:
            raise ParseError(f"{count} octets wanted at offset {self.position}, {self.remaining} are left")
        start = self.position
        self.position = start + count
        return start

    # These two are most of what is read: without a call and a slice for each.

    def u8(self) -> int:
        start = self.position
        if start >= self._end:
            self._advance(1)
        self.position = start + 1
        return self._data[start]

    def u16(self) -> int:
        start = self.position
        if start + 2 > self._end:
            self._advance(2)
        self.position = start + 2
        return self._data[start] << 8 | self._data[start + 1]

    def u32(self) -> int:
        start = self._advance(4)
        return int.from_bytes(self._data[start : start + 4], "big")

    def take(self, count: int) -> bytes:
        """The next `count` octets."""
        start = self._advance(count)
        return self._data[start : start + count]

    def rest(self) -> bytes:
        """All octets that are left, maybe none."""
        return self.take(self.remaining)

    def restrict(self, count: int) -> "Reader":
        """A reader of the next `count` octets alone; this one goes on behind them."""
        start = self._advance(count)
        return Reader(self._data, start, start + count)

    def expect_end(self, what: str) -> None:
        """Raise ParseError if octets are left over in `what`."""
        if self.remaining:
            raise ParseError(f"{self.remaining} octets left over in {what}")
