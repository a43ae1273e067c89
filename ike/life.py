"""What happens to SAs beside the messages that they exchange, a record each: for researchers and narratives.

`IkeEngine.subscribe` hands these out together with the TraceRecord of each message, in the order of things. Must not
know the engine; records hold no keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from ike.events import DropReason, Event, TraceRecord

__all__ = ["LifeKind", "LifeRecord", "Subscriber"]


class LifeKind(StrEnum):
    RETRANSMISSION = "retransmission"
    """A request of ours is sent again, octet by octet; `detail`: for the how manieth time it is sent."""
    DROP = "drop"
    """A datagram, or something in it, had no effect; `reason` says why."""
    COMMIT = "commit"
    """An exchange has come to its end, ours or the peer's; `detail`: what it changes, by the fields of Outcome."""
    COLLISION = "collision"
    """The peer wants something while we are about something; `detail`: what both are, and the verdict of states.py."""
    NONCES = "nonces"
    """Both have rekeyed one SA; `detail`: whose new one is redundant (RFC 7296 2.8.1)."""
    TIMER = "timer"
    """A deadline has come; `detail`: which."""
    EVENT = "event"
    """The owner is told of `event`."""


@dataclass(frozen=True, slots=True)
class LifeRecord:
    """`session` and the SPIs of the IKE SA are None and empty where none is concerned, or none is known.

    `message_id` is that of the request for a RETRANSMISSION.
    """

    at: float
    kind: LifeKind
    session: int | None
    detail: str
    spi_i: bytes = b""
    spi_r: bytes = b""
    message_id: int | None = None
    reason: DropReason | None = None
    event: Event | None = None


Subscriber = Callable[[TraceRecord | LifeRecord], None]
