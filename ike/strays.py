"""What belongs to no IKE SA and no Child SA of ours: told to its sender, seldom (RFC 7296 1.5, 2.4, 2.5, 2.21.4).

Anybody may have sent it, so nothing here changes an IKE SA; a hint at most makes us ask the peer for a sign of life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ike.child import SPI_OCTETS
from ike.config import Path
from ike.errors import ParseError
from ike.exchanges.create_child import MakeChildSa
from ike.exchanges.informational import Complain
from ike.host import Host
from ike.limits import RateLimit
from ike.numbers import ExchangeType, NotifyType, PayloadType
from ike.states import IkeSaState
from ike.wire.message import NO_SPI, Header, Message
from ike.wire.payloads import NotifyPayload

if TYPE_CHECKING:
    from ike.session import Session

HINTS_PER_S = 1.0
_SEALED = (PayloadType.SK, PayloadType.SKF)


class Strays:
    """One engine's limits for all of it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        rate = host.settings.invalid_spi_answers_per_s
        self._answers = RateLimit(rate, max(1.0, rate))
        self._hints = RateLimit(HINTS_PER_S)

    def receive_version(self, header: Header, path: Path, now: float) -> None:
        """A message of a higher major version: ours is in the header of the answer (RFC 7296 2.5)."""
        self._answer(header, NotifyType.INVALID_MAJOR_VERSION, path, now)

    def receive_unknown(self, header: Header, data: bytes, path: Path, now: float) -> None:
        """A message to no IKE SA that we know."""
        if header.is_response:
            return
        if header.next_payload in _SEALED:
            self._answer(header, NotifyType.INVALID_IKE_SPI, path, now)
        elif is_hint(header) and self._hints.allows(now):
            # Never answered, because that could go on for ever (RFC 7296 1.5).
            self._take_hint(data, path, now)

    def _answer(self, header: Header, notify_type: NotifyType, path: Path, now: float) -> None:
        """An unprotected response to a request, to where it came from, SPIs and Message ID as they were."""
        if header.is_response or not self._answers.allows(now):
            return
        response = Message(
            header.spi_i,
            header.spi_r,
            header.exchange,
            not header.is_initiator,
            True,
            header.message_id,
            (NotifyPayload(notify_type),),
        )
        self._host.send((response.encode(),), path)

    def _take_hint(self, data: bytes, path: Path, now: float) -> None:
        """Somebody at the peer's address says that it does not know a Child SA that we send on."""
        try:
            notify = Message.parse(data).notify(NotifyType.INVALID_SPI)
        except ParseError:
            return
        session = self._session_with(path)
        if notify and session and session.children.by_spi_out(notify.data):
            session.liveness.check()
            session.requests.pump(now)

    def receive_esp(self, spi: bytes, path: Path, now: float) -> bool:
        """An ESP packet with an SPI that no child of ours has.

        Told over an IKE SA with that address, if there is one, else without protection. Whether it is told.
        """
        if len(spi) != SPI_OCTETS or not self._answers.allows(now):
            return False
        notify = NotifyPayload(NotifyType.INVALID_SPI, spi)
        session = self._session_with(path)
        if session is None:
            hint = Message(NO_SPI, NO_SPI, ExchangeType.INFORMATIONAL, True, False, 0, (notify,))
            self._host.send((hint.encode(),), path)
            return True
        if _is_being_made(session, spi) or not session.complaints.allows(now):
            return False
        session.requests.put(Complain(notify))
        session.requests.pump(now)
        return True

    def _session_with(self, path: Path) -> Session | None:
        return next(
            (
                session
                for session in self._host.sessions.values()
                if session.current.state is IkeSaState.ESTABLISHED
                and session.current.path.peer[0] == path.peer[0]
            ),
            None,
        )


def is_hint(header: Header) -> bool:
    """Whether a message may be the unprotected INVALID_SPI: its SPIs mean nothing, and zero is allowed."""
    return header.exchange == ExchangeType.INFORMATIONAL and header.next_payload == PayloadType.NOTIFY


def _is_being_made(session: Session, spi: bytes) -> bool:
    """The peer may send as soon as it has granted the child, and its grant may still be under way."""
    return any(isinstance(each, MakeChildSa) and each.is_for(spi) for each in session.requests)
