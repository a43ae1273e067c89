"""What goes wrong in ESP: errors of the caller, and the reasons for which a packet is dropped (RFC 4303 3.4).

Must not know who counts or reports them.
"""

from enum import StrEnum

__all__ = ["DropReason", "EspError", "LifetimeExpired", "SequenceExhausted", "UsedUp"]


class EspError(Exception):
    """Wrong use of this library by its caller: unknown transform, key of the wrong size, reserved SPI."""


class UsedUp(EspError):  # noqa: N818 - a state of the SA more than an error
    """The SA may carry no more; it has to be replaced."""


class SequenceExhausted(UsedUp):
    """Every sequence number was sent; beginning again would void the replay check (RFC 4303 3.3.3)."""


class LifetimeExpired(UsedUp):
    """The hard lifetime in packets or octets has come (RFC 4301 4.4.2.1)."""


class DropReason(StrEnum):
    """Why a packet went no further. Counted at the SA or the SAD; all but the last two are inbound."""

    TRUNCATED = "truncated"
    """Too short for its headers and ICV, or no multiple of the cipher's block."""
    RESERVED_SPI = "reserved_spi"
    """An SPI of 0 to 255 (RFC 4303 2.1)."""
    UNKNOWN_SPI = "unknown_spi"
    """No SA of ours has this SPI."""
    REPLAY = "replay"
    """This sequence number was received before."""
    TOO_OLD = "too_old"
    """The sequence number lies before the replay window."""
    INTEGRITY = "integrity"
    """The ICV does not verify."""
    PADDING = "padding"
    """Pad Length is longer than the packet, or the padding is not 1, 2, 3… (RFC 4303 2.4)."""
    DUMMY = "dummy"
    """Next Header 59: authentic traffic that carries nothing (RFC 4303 2.6). No error."""
    NEXT_HEADER = "next_header"
    """Authentic, but this SA is not for this protocol (RFC 4301 5.2)."""
    LIFETIME = "lifetime"
    """The SA has carried as many packets or octets as it may, in this direction (RFC 4301 4.4.2.1)."""
    SEQUENCE_EXHAUSTED = "sequence_exhausted"
    """Not sent: the SA has no sequence number left (RFC 4303 3.3.3)."""
