"""What a soak runs in: how many cases, progress on the terminal, a limit of time.

Must not know any particular soak.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

PROGRESS_S = 10.0


class TooLongError(Exception):
    """The soak ran into its limit of time."""


class Run:
    """One soak that is running. `scale` 1.0 is the whole of it; `figures` are what it has found, for the record."""

    def __init__(
        self, name: str, *, scale: float = 1.0, limit_s: float = 1800.0, say: Callable[[str], None] = print
    ) -> None:
        self.name = name
        self.scale = scale
        self.done = 0
        self.total = 0
        self.figures: dict[str, Any] = {}
        self._limit_s = limit_s
        self._say = say
        self._began = self._said = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def cases(self, total: int) -> Iterator[int]:
        """The numbers of the cases to do: 0 to `total` - 1 at scale 1, at least one of them."""
        count = max(1, round(total * self.scale))
        self.total += count
        return iter(range(count))

    def step(self, text: str = "") -> None:
        """One case is done. Raises TooLongError."""
        self.done += 1
        now = time.monotonic()
        if now - self._began > self._limit_s:
            raise TooLongError(f"{self.name}: {self._limit_s:g} s are over after {self.done} of {self.total}")
        if now - self._said >= PROGRESS_S:
            self._said = now
            self.say(text)

    def say(self, text: str) -> None:
        rate = self.done / self.elapsed_s if self.elapsed_s else 0.0
        self._say(
            f"  {self.name}: {self.done}/{self.total}, {self.elapsed_s:.0f} s, {rate:.0f}/s  {text}".rstrip()
        )
