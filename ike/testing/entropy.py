"""Entropy that a test has written down: a deterministic stream, and exact values where a test chooses them.

Must not know what the octets are for. Never for production: anyone can compute the stream.
"""

from collections import defaultdict, deque
from hashlib import sha256


class ScriptedEntropy:
    """An Entropy whose every octet follows from `seed` and from what was queued.

    `queue` decides what later draws of exactly that many octets return, first in, first out; `skip` lets a
    draw in between come from the stream. So a test chooses a nonce by its size without counting the draws of
    other sizes.
    """

    def __init__(self, seed: int | str = 0) -> None:
        self._seed = str(seed).encode()
        self._block = 0
        self._stream = b""
        self._queued: defaultdict[int, deque[bytes | None]] = defaultdict(deque)

    def queue(self, *values: bytes) -> None:
        """Return each value from a later draw of its size."""
        for value in values:
            self._queued[len(value)].append(value)

    def skip(self, count: int, draws: int = 1) -> None:
        """Let `draws` draws of `count` octets, behind what is queued already, come from the stream."""
        self._queued[count].extend([None] * draws)

    def octets(self, count: int) -> bytes:
        """Exactly `count` octets."""
        queued = self._queued.get(count)
        value = queued.popleft() if queued else None
        return self._from_stream(count) if value is None else value

    def fraction(self) -> float:
        """A number in [0, 1)."""
        return int.from_bytes(self._from_stream(4), "big") / 2**32

    def below(self, limit: int) -> int:
        """An integer in [0, limit)."""
        return int.from_bytes(self._from_stream(8), "big") % limit

    def _from_stream(self, count: int) -> bytes:
        while len(self._stream) < count:
            self._stream += sha256(self._seed + b":" + str(self._block).encode()).digest()
            self._block += 1
        octets, self._stream = self._stream[:count], self._stream[count:]
        return octets
