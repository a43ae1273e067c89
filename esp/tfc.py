"""Traffic flow confidentiality: payloads that all look equally long (RFC 4303 2.7).

Must not know what is carried: whoever pads is sure that it says its own length, as an IP packet does in tunnel mode.
"""

from collections.abc import Sequence

__all__ = ["pad_to"]


def pad_to(payloads: Sequence[bytes], octets: int) -> list[bytes]:
    """The same payloads, zeros behind those that have fewer than so many octets.

    They count as payload, at both ends: a lifetime in octets is one of what is encrypted (RFC 4301 4.4.2.1).
    """
    return [payload.ljust(octets, b"\0") for payload in payloads]
