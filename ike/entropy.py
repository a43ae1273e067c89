"""Where random octets come from: the one place that asks the operating system (RFC 4086).

Must not know what the octets are for; everything else in `ike` is handed an `Entropy`.
"""

import os
from typing import Protocol

__all__ = ["Entropy", "SystemEntropy"]


class Entropy(Protocol):
    """A source of octets that nobody else can predict; tests hand in a scripted one."""

    def octets(self, count: int) -> bytes:
        """Exactly `count` fresh octets."""
        ...


class SystemEntropy:
    """The operating system's generator."""

    def octets(self, count: int) -> bytes:
        return os.urandom(count)
