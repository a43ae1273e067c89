"""How often something may happen: a token bucket on the time that callers hand in (RFC 7296 1.5, 2.21.4).

Must not know what it limits.
"""

from __future__ import annotations


class RateLimit:
    """`per_s` times a second in the long run, and up to `burst` times at once after a pause."""

    def __init__(self, per_s: float, burst: float = 1.0) -> None:
        self._per_s, self._burst = per_s, burst
        self._left = burst
        self._at = 0.0

    def allows(self, now: float) -> bool:
        """Whether it may happen now; if so, it counts as done."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
