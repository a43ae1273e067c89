"""Telling IKE, ESP and NAT keepalives apart on UDP port 4500 (RFC 3948 2, 2.2, 2.3).

Must not know what is inside.
"""

from collections.abc import Sequence
from enum import Enum

__all__ = ["KEEPALIVE", "NON_ESP_MARKER", "Kind", "are_esp", "classify", "strip_marker"]

NON_ESP_MARKER = bytes(4)
"""Stands before an IKE message, where ESP would have its SPI."""
KEEPALIVE = b"\xff"
"""The whole payload of a NAT keepalive."""


class Kind(Enum):
    """What a UDP payload is."""

    IKE = "ike"
    ESP = "esp"
    KEEPALIVE = "keepalive"
    SHORT = "short"
    """Fewer than the four octets that tell; nothing of ours."""


def classify(datagram: bytes) -> Kind:
    """What this UDP payload is, by its first four octets."""
    if len(datagram) < len(NON_ESP_MARKER):
        return Kind.KEEPALIVE if datagram == KEEPALIVE else Kind.SHORT
    return Kind.IKE if datagram.startswith(NON_ESP_MARKER) else Kind.ESP


def are_esp(datagrams: Sequence[bytes]) -> bool:
    """Whether all of them, at least one, are `Kind.ESP`."""
    fronts = [datagram[: len(NON_ESP_MARKER)] for datagram in datagrams]
    return NON_ESP_MARKER not in fronts and min(map(len, fronts)) == len(NON_ESP_MARKER)


def strip_marker(datagram: bytes) -> bytes:
    """The IKE message in a datagram of `Kind.IKE`."""
    return datagram[len(NON_ESP_MARKER) :]
