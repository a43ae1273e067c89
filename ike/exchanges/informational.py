"""INFORMATIONAL: deleting, showing to be alive, private notifies (RFC 7296 1.4, 1.4.1, 2.4).

    HDR, SK {[N+], [D+]}  -->
                              <--  HDR, SK {[N+], [D+]}

Must not know what a private notify means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ike.config import Path
from ike.events import CloseReason, NotifyAnswered, ProbeAnswered
from ike.exchanges.auth_lifetime import announced_lifetime
from ike.exchanges.configuration import respond_configuration
from ike.exchanges.exchange import NOTHING, Close, CloseChild, Exchange, Outcome, Priority
from ike.exchanges.mobike import has_new_mapping, mapping_check, respond_addresses
from ike.exchanges.schema import Story
from ike.numbers import ExchangeType, NotifyType, ProtocolId, is_error_notify, name_of
from ike.states import Ask, Doing, Verdict
from ike.wire.message import Message
from ike.wire.payloads import DeletePayload, NotifyPayload, Payload

if TYPE_CHECKING:
    from ike.sa import IkeSa

FIRST_PRIVATE_STATUS = 40960
NOTIFY_HEADER_OCTETS = 8
"""Generic header, protocol ID, SPI size and type (RFC 7296 3.10)."""
FATAL = {
    NotifyType.AUTHENTICATION_FAILED: CloseReason.AUTHENTICATION_FAILED,
    NotifyType.INVALID_SYNTAX: CloseReason.PROTOCOL_ERROR,
    NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD: CloseReason.PROTOCOL_ERROR,
}
"""As a request: the only errors that end an IKE SA without a Delete (RFC 7296 2.21.2)."""


def delete_ike_sa() -> DeletePayload:
    return DeletePayload(ProtocolId.IKE)


class _Informational(Exchange):
    exchange_type = ExchangeType.INFORMATIONAL


class DeleteChildSa(_Informational):
    """Close a pair: D lists the SPI that we receive on.

    `is_installed` False: it was never more than an answer.
    """

    priority = Priority.DELETE

    def __init__(self, spi_in: bytes, reason: CloseReason, *, is_installed: bool = True) -> None:
        self.spi_in = spi_in
        self.reason = reason
        self._is_installed = is_installed

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        if self._is_installed and self.spi_in not in sa.session.children:
            return None
        return (DeletePayload(ProtocolId.ESP, (self.spi_in,)),)

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        return Outcome(close=(CloseChild(self.spi_in, self.reason),) if self._is_installed else ())

    def on_lost(self, sa: IkeSa, *, session_is_over: bool) -> Outcome:
        return Outcome(start=(self,))

    def doing(self, subject: bytes | None) -> Doing | None:
        return Doing.DELETING_THAT_CHILD if subject == self.spi_in else Doing.DELETING_OTHER_CHILD


class LivenessCheck(_Informational):
    """An empty request; that it is answered is all, but for a NAT's new mapping (RFC 4555 3.8)."""

    priority = Priority.LIVENESS

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        return mapping_check(sa)

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        return Outcome(has_new_mapping=has_new_mapping(sa, message))


class SendNotify(_Informational):
    """Notifies of the owner, and the notifies of the answer for it."""

    priority = Priority.NOTIFY

    def __init__(self, token: int, notifies: Sequence[NotifyPayload]) -> None:
        self._token = token
        self._notifies = tuple(notifies)

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        return self._notifies

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        own = tuple(n for n in message.notifies if n.notify_type != NotifyType.SET_WINDOW_SIZE)
        return Outcome(events=(NotifyAnswered(sa.session.number, self._token, own),))

    def on_lost(self, sa: IkeSa, *, session_is_over: bool) -> Outcome:
        if session_is_over:
            return Outcome(events=(NotifyAnswered(sa.session.number, self._token, None),))
        return Outcome(start=(self,))


class SendProbe(_Informational):
    """A message of a given length, to see whether the path carries it.

    It goes whole, with DF, in two copies. If no answer comes, then without DF, and before it a short one under the same
    Message ID, so that neither the window nor the IKE SA depends on the path. That is no retransmission in the sense of
    RFC 7296 2.1, but both say nothing and have the same answer: a status notify that is not known is ignored (3.10.1).
    Fragments (RFC 7383) would not do: strongSwan takes those of INFORMATIONAL requests for messages in clear.
    """

    priority = Priority.NOTIFY

    def __init__(self, token: int, notify_type: int, message_octets: int) -> None:
        self._token, self._notify_type = token, notify_type
        self.message_octets = message_octets
        self.arrived: bool | None = True
        """What an answer says: False once the short one has gone, too, None after a move."""

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        room = sa.keyed.protection.inner_octets(self.message_octets)
        return (NotifyPayload(self._notify_type, bytes(max(0, room - NOTIFY_HEADER_OCTETS))),)

    @property
    def substitute(self) -> Payload:
        """What goes, in short, where the whole has not arrived."""
        return NotifyPayload(self._notify_type, b"")

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        return Outcome(events=(ProbeAnswered(sa.session.number, self._token, self.arrived),))

    def on_lost(self, sa: IkeSa, *, session_is_over: bool) -> Outcome:
        return Outcome(events=(ProbeAnswered(sa.session.number, self._token, None),))


class Complain(_Informational):
    """Tells the peer of something stray: INVALID_MESSAGE_ID or INVALID_SPI. Its answer says nothing."""

    priority = Priority.NOTIFY

    def __init__(self, notify: NotifyPayload) -> None:
        self._notify = notify

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        return (self._notify,)

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        return NOTHING


class LastWords(_Informational):
    """The last request on an IKE SA: its Delete, or the error that ends it."""

    priority = Priority.DELETE

    def __init__(self, payloads: Sequence[Payload]) -> None:
        self._payloads = tuple(payloads)

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        return self._payloads

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        return Outcome(is_finished=True)


def respond_informational(sa: IkeSa, message: Message, path: Path) -> Outcome:
    """Deletes first, then errors, then addresses, then the owner's notifies."""
    deletes = message.all(DeletePayload)
    if any(delete.protocol == ProtocolId.IKE for delete in deletes):
        # Obeyed whatever we are doing; our own rekey or Delete is forgotten (RFC 7296 2.25.2).
        return Outcome(end=Close(CloseReason.DELETED_BY_PEER, "the peer deleted the IKE SA"))
    for notify in message.notifies:
        reason = FATAL.get(notify.notify_type) if is_error_notify(notify.notify_type) else None  # type: ignore[call-overload]
        if reason:
            return Outcome(end=Close(reason, f"the peer sent {name_of(NotifyType, notify.notify_type)}"))
    closed: list[CloseChild] = []
    answered: list[bytes] = []
    unknown: list[bytes] = []
    for spi_out in (spi for delete in deletes if delete.protocol == ProtocolId.ESP for spi in delete.spis):
        child = sa.session.children.by_spi_out(spi_out)
        if child is None:
            unknown.append(spi_out)
            continue
        if any(close.spi_in == child.sa.spi_in for close in closed):
            continue
        spi_in = child.sa.spi_in
        closed.append(CloseChild(spi_in, child.fate or CloseReason.DELETED_BY_PEER))
        if sa.judge(Ask.DELETE_CHILD, spi_in) is not Verdict.ANSWER_WITHOUT_DELETE:
            answered.append(spi_in)
    response: list[Payload] = [DeletePayload(ProtocolId.ESP, tuple(answered))] if answered else []
    about_addresses, address_news = respond_addresses(sa, message, path)
    response.extend(about_addresses)
    # INVALID_SELECTORS is about a packet, and packets are the owner's (RFC 7296 3.10.1).
    owners = tuple(
        n
        for n in message.notifies
        if n.notify_type >= FIRST_PRIVATE_STATUS or n.notify_type == NotifyType.INVALID_SELECTORS
    )
    if owners and sa.host.informational and not sa.session.is_over:
        response.extend(sa.host.informational(sa.session.number, owners))
    session = sa.session
    given = respond_configuration(sa, session.connection, session.peer_id, message, with_child=False)
    response.extend((given.refused.notify,) if given.refused else given.reply)
    return Outcome(
        response=response,
        address_news=address_news,
        auth_lifetime_s=announced_lifetime(message),
        leased=given.leased,
        close=closed,
        early_deletes=unknown,
    )
