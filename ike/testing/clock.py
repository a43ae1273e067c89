"""Virtual time: a number that only tests move.

Must not know what happens at which time.
"""

from __future__ import annotations


class Clock:
    """Seconds since an arbitrary start; never goes back."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def advance_to(self, at: float) -> None:
        self.now = max(self.now, at)
