"""What an exchange in flight is, and what it asks for: one stages, another commits (RFC 7296 1.2-1.4).

Must not change an IKE SA, a session or a timer: an exchange returns an Outcome. Dropping it is the rollback.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

from ike.child import Child
from ike.config import Connection, Path
from ike.configuration import Configuration
from ike.events import CloseReason, Event, FailureReason
from ike.exchanges.schema import Story
from ike.nat import NatState
from ike.numbers import ExchangeType, is_error_notify
from ike.states import Doing
from ike.wire.identity import Identity
from ike.wire.message import Message
from ike.wire.payloads import NotifyPayload, Payload

if TYPE_CHECKING:
    from ike.sa import IkeSa


class Priority(IntEnum):
    """The order in which requests leave when several wait for the window."""

    ADDRESS = 0
    DELETE = 1
    REKEY = 2
    LIVENESS = 3
    CREATE = 4
    NOTIFY = 5


@dataclass(frozen=True, slots=True)
class Establish:
    """Both ends are authenticated."""

    connection: Connection
    local_id: Identity
    peer_id: Identity
    extension_data: bytes | None
    is_only_one: bool
    """The peer said INITIAL_CONTACT: it has no other IKE SA with us (RFC 7296 2.4)."""
    assigned: Configuration | None = None
    """What the peer has given us (RFC 7296 2.19)."""
    peer_addresses: tuple[str, ...] | None = None
    """Both ends support MOBIKE, and the peer has these beside the one in use (RFC 4555 3.4)."""


@dataclass(frozen=True, slots=True)
class AddChild:
    """`replaces` is the `spi_in` of the child that this one rekeys.

    `outlives` is that of the redundant one that the peer's rekey made and will delete (RFC 7296 2.8.1).
    """

    child: Child
    replaces: bytes | None = None
    use_outbound: bool = True
    outlives: bytes | None = None


@dataclass(frozen=True, slots=True)
class CloseChild:
    """The pair is gone at both ends, or about to be."""

    spi_in: bytes
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class DeleteChild:
    """Ask the peer to delete the pair; it is closed here when the answer is in."""

    spi_in: bytes
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class Successor:
    """An IKE SA that a rekey made, with the two nonces of that exchange."""

    ike_sa: IkeSa
    nonces: tuple[bytes, bytes]
    is_ours: bool
    """Whether we initiated the exchange."""


@dataclass(frozen=True, slots=True)
class Move:
    """IKE and ESP go over `path` from now on (RFC 4555 3.5)."""

    path: Path
    nat: NatState


@dataclass(frozen=True, slots=True)
class AddressNews:
    """A request of the peer that came over `path` told its addresses, or moved the session there (RFC 4555 3.5, 3.6).

    `told` None: no list. `nat` None: no UPDATE_SA_ADDRESSES.
    """

    message_id: int
    path: Path
    told: tuple[str, ...] | None
    nat: NatState | None


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again in a while: the answer was TEMPORARY_FAILURE (RFC 7296 2.25)."""

    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Fail:
    """The IKE SA will not come to be."""

    reason: FailureReason
    detail: str
    last_words: Sequence[Payload] = ()
    """What a last INFORMATIONAL request says; empty: say nothing."""
    connection: Connection | None = None
    """The one that a responder had found for the peer."""


@dataclass(frozen=True, slots=True)
class Close:
    """The session is over, or, for an IKE SA that does not carry the session, that IKE SA."""

    reason: CloseReason
    detail: str
    last_words: Sequence[Payload] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an exchange wants changed, applied by `IkeSa.commit` in the order of the fields."""

    response: Sequence[Payload] = ()
    establish: Establish | None = None
    auth_lifetime_s: float | None = None
    """The peer wants us to authenticate again within that time (RFC 4478)."""
    leased: Configuration | None = None
    """What we have given the peer; None: nothing new (RFC 7296 2.19)."""
    address_news: AddressNews | None = None
    move: Move | None = None
    path_refused: bool = False
    """The peer does not accept the path that we have moved to."""
    has_new_mapping: bool = False
    """Our NAT lets us appear elsewhere than before."""
    add: AddChild | None = None
    close: Sequence[CloseChild] = ()
    early_deletes: Sequence[bytes] = ()
    """SPIs of the peer that it deletes and that no child of ours has."""
    delete: Sequence[DeleteChild] = ()
    successor: Successor | None = None
    rekey_failed: bool = False
    """Our rekey of the IKE SA came to nothing."""
    start: Sequence[Exchange] = ()
    retry: Retry | None = None
    events: Sequence[Event] = ()
    is_finished: bool = False
    """This IKE SA has said its last word and is forgotten; the session is not concerned."""
    end: Fail | Close | None = None

    @property
    def changes(self) -> str:
        """The fields that say something, for records."""
        staged = (each.name for each in fields(self) if each.name != "response")
        return (
            ", ".join(name for name in staged if getattr(self, name) not in (None, False, (), []))
            or "nothing"
        )


NOTHING = Outcome()


class Exchange(ABC):
    """A request of ours, from the queue to its answer."""

    exchange_type: ClassVar[ExchangeType]
    priority: ClassVar[Priority]

    @abstractmethod
    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        """The payloads, made when the window lets the request go. None: it has become pointless."""

    @abstractmethod
    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        """The answer, authenticated and of a shape that the schema knows."""

    def on_lost(self, sa: IkeSa, *, session_is_over: bool) -> Outcome:
        """The IKE SA went before the answer came.

        What is returned is committed to the session, if it lives on.
        """
        return NOTHING

    def doing(self, subject: bytes | None) -> Doing | None:
        """What this is, seen from the child with that `spi_in` (None.

        From the IKE SA); for the collision table.
        """
        return None


def error_in(message: Message) -> NotifyPayload | None:
    """The first error notify. An unknown error means that the request failed (RFC 7296 3.10.1)."""
    return next((n for n in message.notifies if is_error_notify(n.notify_type)), None)
