"""What leaves one IKE SA: sealed once, sent, kept, and sent again octet for octet (RFC 7296 2.1-2.3, 2.11).

Must not know what messages say, or what follows if one cannot be sent or is not answered: that is the IKE SA's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ike.config import Path
from ike.events import Direction
from ike.exchanges.exchange import Exchange
from ike.exchanges.informational import SendProbe
from ike.exchanges.window_size import promise, proves_identity
from ike.life import LifeKind
from ike.sealing import seal
from ike.states import IkeSaState
from ike.timers import TimerKind
from ike.wire.message import Message
from ike.wire.payloads import Payload

if TYPE_CHECKING:
    from ike.sa import IkeSa

__all__ = ["Sender"]

PROBE_COPIES = 2
"""A single loss says nothing of a size."""


class Sender:
    """Fills the windows `IkeSa.requests` and `IkeSa.responses`.

    LocalError: the message cannot be sealed. Then nothing was sent, and in flight is what was in flight before.
    """

    def __init__(self, sa: IkeSa) -> None:
        self._sa = sa
        self._host = sa.host
        self._is_window_told = False

    # --- requests

    def send_request(self, exchange: Exchange, payloads: Sequence[Payload], now: float) -> None:
        """Under the next Message ID; the caller has seen that the window is open. Raises LocalError."""
        sa = self._sa
        kind, message_id = exchange.exchange_type, sa.requests.next_id
        if isinstance(exchange, SendProbe):  # it has the length that was asked for: nothing is added
            message = self._message(kind, payloads, message_id)
            short = self._seal(replace(message, payloads=(exchange.substitute,)), now)
            whole = sa.keyed.protection.seal(message)
            datagrams = (*short, whole)
            self._host.send([whole] * PROBE_COPIES, sa.path, dont_fragment=True)
            sa.session.location.note_sent(now)
        else:
            datagrams = self._seal(self._message(kind, self._with_window(kind, payloads), message_id), now)
            self._send(datagrams, sa.path, now)
        sa.requests.send(exchange, datagrams)
        self._set_retransmission(message_id, 1, now)

    def replace_request(
        self, message_id: int, exchange: Exchange, payloads: Sequence[Payload], now: float
    ) -> None:
        """Another version of the request in flight under that Message ID. Raises LocalError.

        IKE_SA_INIT alone (RFC 7296 2.2, 2.6).
        """
        datagrams = self._seal(self._message(exchange.exchange_type, payloads, message_id), now)
        self._sa.requests.replace(message_id, datagrams)
        self._send(datagrams, self._sa.path, now)
        self._set_retransmission(message_id, 1, now)

    def retransmit(self, message_id: int, tries: int, now: float) -> None:
        """Send what is in flight under that Message ID once more. `tries`: how often at most, for records."""
        request, session = self._sa.requests.in_flight[message_id], self._sa.session
        request.transmissions += 1
        session.liveness.note_retransmission()
        detail = f"transmission {request.transmissions} of at most {tries}"
        self._host.note(LifeKind.RETRANSMISSION, detail, sa=self._sa, message_id=message_id)
        if isinstance(request.exchange, SendProbe) and request.exchange.arrived:
            request.exchange.arrived = False
        session.location.probe(request.datagrams, request.transmissions)
        self._send(request.datagrams, self._sa.path, now)
        self._set_retransmission(message_id, request.transmissions, now)

    def resend(self, now: float) -> None:
        """What is in flight takes the new path, and has all its tries again (RFC 4555 3.5)."""
        for message_id, request in self._sa.requests.in_flight.items():
            request.transmissions = 1
            if isinstance(request.exchange, SendProbe):
                request.exchange.arrived = None  # of which path?
            self._send(request.datagrams, self._sa.path, now)
            self._set_retransmission(message_id, 1, now)

    def stop_retransmission(self, message_id: int) -> None:
        """Keep listening, send no more."""
        self._host.timers.cancel(TimerKind.RETRANSMIT, self._sa, message_id)

    def _set_retransmission(self, message_id: int, transmissions: int, now: float) -> None:
        policy = self._sa.session.retransmit
        wait = min(policy.first_s * policy.factor ** (transmissions - 1), policy.maximum_s)
        at = now + self._host.shortened(wait, policy.jitter)
        self._host.timers.set(at, TimerKind.RETRANSMIT, self._sa, message_id)

    # --- responses

    def send_response(self, request: Message, payloads: Sequence[Payload], path: Path, now: float) -> bytes:
        """Send and remember the response to `request`; returns its first datagram. Raises LocalError.

        It goes where the request came from (RFC 7296 2.11).
        """
        payloads = self._with_window(request.exchange, payloads)
        message = self._message(request.exchange, payloads, request.message_id, is_response=True)
        datagrams = self._seal(message, now)
        self._sa.responses.answered(request.message_id, request.raw, datagrams)
        self._send(datagrams, path, now)
        return b"".join(datagrams[:1])

    def repeat_response(self, message_id: int, path: Path) -> None:
        """The request was sent again."""
        self._host.send(self._sa.responses.response_to(message_id), path)

    # --- both

    def _with_window(self, exchange: int, payloads: Sequence[Payload]) -> Sequence[Payload]:
        """Our promise goes once, in the first message that can be that of an authenticated end."""
        may_tell = self._sa.state is IkeSaState.ESTABLISHED or proves_identity(exchange, payloads)
        size = self._host.settings.window
        if self._is_window_told or size == 1 or not may_tell:
            return payloads
        self._is_window_told = True
        return (*payloads, promise(size))

    def _message(
        self, exchange: int, payloads: Sequence[Payload], message_id: int, *, is_response: bool = False
    ) -> Message:
        sa = self._sa
        spis = (sa.spi_i, sa.spi_r)
        return Message(*spis, exchange, sa.is_initiator, is_response, message_id, tuple(payloads))

    def _seal(self, message: Message, now: float) -> tuple[bytes, ...]:
        sa, rewrite = self._sa, self._host.rewrite_outgoing
        parts = rewrite(message) if rewrite else (message,)
        protection = sa.keyed.protection if sa.is_keyed else None
        limits = (sa.fragment_octets, sa.path.peer[0])
        datagrams = tuple(each for part in parts for each in seal(message, part, protection, *limits))
        self._host.trace_message(
            now, sa.session.number, Direction.SENT, sa.path, message, max(1, len(datagrams))
        )
        return datagrams

    def _send(self, datagrams: Sequence[bytes], path: Path, now: float) -> None:
        self._sa.session.location.note_sent(now)
        self._host.send(datagrams, path)
