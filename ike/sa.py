"""One IKE SA: keys, two windows, requests in flight, and the one place of change (RFC 7296 2.1-2.3, 2.21).

Nothing that fails its integrity check changes anything here. Must not know which SPI leads to it, or sockets.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from ike.config import Connection, Path
from ike.crypto.algorithms import selected
from ike.crypto.keymat import IkeKeys
from ike.crypto.prf import Prf
from ike.errors import LocalError, ParseError, SchemaError
from ike.events import CloseReason, Direction, DropReason, FailureReason, IkeKeyLogEntry
from ike.exchanges.exchange import Close, Exchange, Fail, Outcome, Successor, error_in
from ike.exchanges.informational import Complain, LastWords, SendProbe, delete_ike_sa
from ike.exchanges.rekey_ike import RekeyIkeSa
from ike.exchanges.respond import respond
from ike.exchanges.sa_init import InitiateSa
from ike.exchanges.schema import UnsupportedCriticalPayload, story_of
from ike.exchanges.window_size import promise, promised, proves_identity
from ike.host import Host
from ike.life import LifeKind
from ike.material import InitMaterial, Keyed
from ike.nat import NatState
from ike.numbers import ExchangeType, NotifyType, ProtocolId, TransformType
from ike.opening import Opened, Opener
from ike.protection import Protection
from ike.reauthentication import path_of, recreate_children
from ike.sealing import seal
from ike.session import Session
from ike.states import Ask, Doing, IkeSaState, Verdict, check_transition, judge
from ike.timers import TimerKind
from ike.window import Arrival, RequestWindow, ResponseWindow
from ike.wire.message import NO_SPI, Header, Message, parse_payloads
from ike.wire.payloads import DeletePayload, NotifyPayload, Payload
from ike.wire.sa import Proposal

LINGER_S = 30.0
FAILED_LINGER_S = 5.0
"""A failed IKE_AUTH still takes a half-open place; a peer that lost the answer asks again within 4 s."""
PROBE_COPIES = 2
"""A single loss says nothing of a size."""
REPLACED_TRIES = 4
"""How often the Delete of an IKE SA that another has replaced is sent: nothing else starts meanwhile."""


class IkeSa:
    """`is_initiator`: we are the original initiator, which decides SPIs, flag and keys (RFC 7296 2.2)."""

    def __init__(
        self, host: Host, session: Session, *, spi_i: bytes, spi_r: bytes, is_initiator: bool, path: Path
    ) -> None:
        self.host = host
        self.session = session
        self.spi_i = spi_i
        self.spi_r = spi_r
        self.is_initiator = is_initiator
        self.path = path
        self.state = IkeSaState.CONNECTING
        self.nat = NatState()
        self.init: InitMaterial | None = None
        self.init_digest = b""
        self.init_source = ""
        """As responder: the address that a cookie has proven, as `sa_init_responder` counts them."""
        self.vendor_ids: frozenset[bytes] = frozenset()
        """The Vendor IDs of extensions that both ends sent."""
        self.peer_hashes: frozenset[int] = frozenset()
        """The hash algorithms that the peer listed, if both ends announced theirs (RFC 7427 4)."""
        self.fragment_octets: int | None = None
        """The largest IP packet that we send, if both ends announced fragmentation (RFC 7383 2.3)."""
        self.wants_raw_key = False
        """The responder's CERTREQ asked for a raw public key (RFC 7670)."""
        self.offers_childless = False
        """The responder sent CHILDLESS_IKEV2_SUPPORTED."""
        self.peer_successor: Successor | None = None
        """Made by the peer's rekey of this IKE SA, while ours may be under way."""
        self.requests: RequestWindow[Exchange] = RequestWindow()
        self.responses = ResponseWindow()
        self.opener = Opener(host, is_stranger=session.connection is None)
        self._keyed: Keyed | None = None
        self._last_words: Sequence[Payload] = ()
        self._is_window_told = False

    @property
    def own_spi(self) -> bytes:
        return self.spi_i if self.is_initiator else self.spi_r

    @property
    def is_keyed(self) -> bool:
        return self._keyed is not None

    @property
    def keyed(self) -> Keyed:
        """Only after `use_keys`."""
        if self._keyed is None:
            raise LocalError("this IKE SA has no keys yet")
        return self._keyed

    @property
    def is_rekeying(self) -> bool:
        return any(isinstance(exchange, RekeyIkeSa) for exchange in self.requests.exchanges)

    def use_keys(self, proposal: Proposal, keys: IkeKeys) -> None:
        prf = selected(proposal, TransformType.PRF)
        self._keyed = Keyed(
            proposal, Prf(prf.id if prf else 0), keys, Protection(proposal, keys, self.is_initiator)
        )
        if self.host.key_log:
            self.host.key_log(
                IkeKeyLogEntry(
                    self.spi_i, self.spi_r, proposal, keys.sk_ei, keys.sk_er, keys.sk_ai, keys.sk_ar
                )
            )

    def trust(self) -> None:
        """The peer has proved who it is: what it sends in fragments is no stranger's any more."""
        self.opener.clear()
        self.opener = Opener(self.host)

    def become(self, state: IkeSaState) -> None:
        check_transition(self.state, state)
        self.state = state

    def doing(self, subject: bytes | None) -> set[Doing]:
        """What we are about, seen from the child with that `spi_in`, or from the IKE SA (None)."""
        found = {exchange.doing(subject) for exchange in self.requests.exchanges}
        if self.state is IkeSaState.DELETING:
            found.add(Doing.DELETING_IKE_SA)
        if self.state is IkeSaState.REKEYED or self.peer_successor:
            found.add(Doing.REKEYED_IKE_SA)
        child = self.session.children.get(subject) if subject else None
        if child and child.is_deleting:
            found.add(Doing.DELETING_THAT_CHILD)
        return {doing for doing in found if doing}

    def judge(self, ask: Ask, subject: bytes | None) -> Verdict:
        """What the table of collisions says to a request about the child with that `spi_in`, or the IKE SA."""
        doing = self.doing(subject)
        verdict = judge(ask, doing)
        if doing:
            about = ", ".join(sorted(each.value for each in doing))
            detail = f"we are {about}; the peer wants to {ask.value}: {verdict.name}"
            self.host.note(LifeKind.COLLISION, detail, sa=self)
        return verdict

    # --- sending

    def start(self, exchange: Exchange, now: float) -> bool:
        """Send a request, or find that it has become pointless. The caller has seen that the window is open.

        If what we are told to say fits into no message, the IKE SA ends: without it nothing goes on.
        """
        payloads = exchange.request(self, now)
        if payloads is None:
            return False
        if not isinstance(exchange, SendProbe):  # that has the length that was asked for
            payloads = self._with_window(exchange.exchange_type, payloads)
        message = self._message(exchange.exchange_type, tuple(payloads), self.requests.next_id)
        short = message
        if isinstance(exchange, SendProbe):
            short = replace(message, payloads=(exchange.substitute,))
        try:
            datagrams = self._seal(short, now)
        except LocalError as error:
            self._lose(exchange)
            self._give_up(f"our request cannot be sent: {error}", now)
            return False
        if short is not message:
            whole = self.keyed.protection.seal(message)
            datagrams = (*datagrams, whole)
            self.host.send([whole] * PROBE_COPIES, self.path, dont_fragment=True)
            self.session.location.note_sent(now)
        else:
            self._send(datagrams, self.path, now)
        message_id = self.requests.send(exchange, datagrams)
        self._set_retransmission(message_id, 1, now)
        return True

    def replace_request(self, message_id: int, exchange: Exchange, now: float) -> bytes:
        """Send another version of a request under the same Message ID.

        IKE_SA_INIT alone (RFC 7296 2.2, 2.6).
        """
        payloads = exchange.request(self, now) or ()
        datagrams = self._seal(self._message(exchange.exchange_type, tuple(payloads), message_id), now)
        self.requests.replace(message_id, datagrams)
        self._send(datagrams, self.path, now)
        self._set_retransmission(message_id, 1, now)
        return datagrams[0] if datagrams else b""

    def _send(self, datagrams: Sequence[bytes], path: Path, now: float) -> None:
        self.session.location.note_sent(now)
        self.host.send(datagrams, path)

    def _with_window(self, exchange: int, payloads: Sequence[Payload]) -> tuple[Payload, ...]:
        """Our promise goes once, in the first message that can be that of an authenticated end."""
        may_tell = self.state is IkeSaState.ESTABLISHED or proves_identity(exchange, payloads)
        size = self.host.settings.window
        if self._is_window_told or size == 1 or not may_tell:
            return tuple(payloads)
        self._is_window_told = True
        return (*payloads, promise(size))

    def _message(
        self, exchange: int, payloads: tuple[Payload, ...], message_id: int, *, is_response: bool = False
    ) -> Message:
        return Message(self.spi_i, self.spi_r, exchange, self.is_initiator, is_response, message_id, payloads)

    def _seal(self, message: Message, now: float) -> tuple[bytes, ...]:
        rewrite = self.host.rewrite_outgoing
        parts = rewrite(message) if rewrite else (message,)
        protection = self._keyed.protection if self._keyed else None
        limits = (self.fragment_octets, self.path.peer[0])
        datagrams = tuple(each for part in parts for each in seal(message, part, protection, *limits))
        self.host.trace_message(
            now, self.session.number, Direction.SENT, self.path, message, max(1, len(datagrams))
        )
        return datagrams

    def _set_retransmission(self, message_id: int, transmissions: int, now: float) -> None:
        policy = self.session.retransmit
        wait = min(policy.first_s * policy.factor ** (transmissions - 1), policy.maximum_s)
        at = now + self.host.shortened(wait, policy.jitter)
        self.host.timers.set(at, TimerKind.RETRANSMIT, self, message_id)

    def resend(self, now: float) -> None:
        """What is in flight takes the new path, and has all its tries again (RFC 4555 3.5)."""
        for message_id, request in self.requests.in_flight.items():
            request.transmissions = 1
            if isinstance(request.exchange, SendProbe):
                request.exchange.arrived = None  # of which path?
            self._send(request.datagrams, self.path, now)
            self._set_retransmission(message_id, 1, now)

    def stop_retransmission(self, message_id: int) -> None:
        """Keep listening, send no more."""
        self.host.timers.cancel(TimerKind.RETRANSMIT, self, message_id)

    def respond(self, request: Message, payloads: Sequence[Payload], path: Path, now: float) -> bytes:
        """Send and remember the response to `request`.

        It goes where the request came from (RFC 7296 2.11).
        """
        payloads = self._with_window(request.exchange, payloads)
        message = self._message(request.exchange, payloads, request.message_id, is_response=True)
        datagrams = self._seal(message, now)
        self.responses.answered(request.message_id, request.raw, datagrams)
        self._send(datagrams, path, now)
        return b"".join(datagrams[:1])

    def repeat_init_response(self, path: Path) -> None:
        """The request was sent again. Once IKE_AUTH has come, nobody needs the response any more."""
        if self.state is IkeSaState.CONNECTING:
            self.host.send(self.responses.response_to(0), path)

    # --- others like this one

    def candidate(self, spi_r: bytes, path: Path, init: InitMaterial, nat: NatState) -> IkeSa:
        """What one answer to our IKE_SA_INIT would make of this IKE SA, which waits for an SPI."""
        sa = IkeSa(self.host, self.session, spi_i=self.spi_i, spi_r=spi_r, is_initiator=True, path=path)
        sa.init, sa.nat, sa.requests = init, nat, RequestWindow(1)
        return sa

    def authenticate_again(self, now: float) -> None:
        """Begin a session that will replace this IKE SA's, unless one is under way (RFC 7296 2.8.3)."""
        session, host = self.session, self.host
        if session.connection and not any(s.replaces == session.number for s in host.sessions.values()):
            initiate(host, session.connection, path_of(session), now, replaces=session.number)

    def successor(
        self, spi_i: bytes, spi_r: bytes, proposal: Proposal, keys: IkeKeys, *, is_initiator: bool
    ) -> IkeSa:
        """What a rekey of this IKE SA makes.

        New SPIs and keys, Message IDs from zero (RFC 7296 1.3.2, 2.18).
        """
        sa = IkeSa(
            self.host, self.session, spi_i=spi_i, spi_r=spi_r, is_initiator=is_initiator, path=self.path
        )
        sa.nat, sa.vendor_ids, sa.offers_childless = self.nat, self.vendor_ids, self.offers_childless
        sa.fragment_octets = self.fragment_octets
        sa.responses.size = self.host.settings.window
        sa.use_keys(proposal, keys)
        return sa

    # --- receiving

    def receive(self, header: Header, data: bytes, path: Path, now: float) -> None:
        """A datagram whose two SPIs are ours. `header` is that of `data`."""
        if header.is_initiator is self.is_initiator:
            self.host.drop(DropReason.MALFORMED)
        elif header.is_response:
            self._receive_response(header, data, path, now)
        else:
            self._receive_request(header, data, path, now)

    def _receive_request(self, header: Header, data: bytes, path: Path, now: float) -> None:
        if not self.is_keyed:
            self.host.drop(DropReason.UNPROTECTED)
            return
        arrival = self.responses.classify(header.message_id, data)
        if arrival is Arrival.RETRANSMISSION:
            self.host.drop(DropReason.RETRANSMITTED_REQUEST)
            self.host.send(self.responses.response_to(header.message_id), path)
        elif arrival is Arrival.FORGOTTEN:
            self.host.drop(DropReason.OLD_RETRANSMISSION)
        elif arrival is Arrival.ANSWERED:
            self._receive_answered(data, path)
        elif arrival is Arrival.OUTSIDE or self.state is IkeSaState.CLOSED:
            self.host.drop(DropReason.OUTSIDE_WINDOW)
            self._complain_of_id(data, now)
        elif header.exchange not in self._expected_exchanges():
            self.host.drop(DropReason.UNEXPECTED_EXCHANGE)
        elif (opened := self._open(data, now)) is not None:
            self._heard(path, now)
            self._process_request(opened, path, now)
            self.session.pump(now)

    def _expected_exchanges(self) -> tuple[ExchangeType, ...]:
        """Requests that make sense now. What came too early is sent again by the peer; nothing is lost."""
        if self.init is None:
            return (ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL)
        return () if self.is_initiator else (ExchangeType.IKE_AUTH,)

    def _open(self, data: bytes, now: float) -> Opened | None:
        message = self._parse(data)
        return self.opener.open(message, self.keyed.protection, now) if message else None

    def _parse(self, data: bytes) -> Message | None:
        try:
            message = Message.parse(data)
        except ParseError:
            self.host.drop(DropReason.MALFORMED)
            return None
        if self.fragment_octets is None and message.encrypted and message.encrypted.is_fragment:
            self.host.drop(DropReason.FRAGMENT_REFUSED)
            return None
        return message

    def _receive_answered(self, data: bytes, path: Path) -> None:
        """A request that is answered already, in other octets.

        Only fragment 1 of another division of it gets the response again (RFC 7383 2.5.2, 2.6.1).
        """
        message = self._parse(data)
        sealed = message.encrypted if message else None
        if message is None:
            return
        if sealed is None or not sealed.is_fragment:
            self.host.drop(DropReason.OUTSIDE_WINDOW)
        elif sealed.fragment_number != 1:
            self.host.drop(DropReason.FRAGMENT_REPEATED)
        elif self.opener.is_authentic(message, self.keyed.protection):
            self.host.drop(DropReason.RETRANSMITTED_REQUEST)
            self.host.send(self.responses.response_to(message.message_id), path)

    def _complain_of_id(self, data: bytes, now: float) -> None:
        """INVALID_MESSAGE_ID, seldom, to whoever can seal a message, in a request of ours (RFC 7296 2.3, 3.10.1)."""
        if self.state is not IkeSaState.ESTABLISHED or not self.session.complaints.allows(now):
            return
        message = self._parse(data)
        if message and self.opener.is_authentic(message, self.keyed.protection):
            message_id = message.message_id.to_bytes(4, "big")
            self.session.queue(Complain(NotifyPayload(NotifyType.INVALID_MESSAGE_ID, message_id)))
            self.session.pump(now)

    def _heard(self, path: Path, now: float) -> None:
        """A fresh authenticated message. Only now may the peer's address follow (RFC 7296 2.23)."""
        self.session.liveness.heard(now)
        if path == self.path or self not in (self.session.current, *self.session.others):
            return
        if self.state is not IkeSaState.CONNECTING:
            self.session.location.follow(self, path, now)
        elif not self.is_initiator:
            self.path = path  # the initiator may have gone on to port 4500

    def _read(self, opened: Opened, path: Path, now: float) -> Message:
        """The message in clear. Raises ParseError."""
        message = replace(opened.message, payloads=parse_payloads(opened.first_type, opened.inner))
        self.host.trace_message(now, self.session.number, Direction.RECEIVED, path, message, opened.datagrams)
        # The peer never takes a promise back; we use as much of it as ours is.
        usable = min(promised(message), self.host.settings.window)
        self.requests.size = max(self.requests.size, usable)
        return message

    def _process_request(self, opened: Opened, path: Path, now: float) -> None:
        message = opened.message
        try:
            message = self._read(opened, path, now)
            story = story_of(message)
        except UnsupportedCriticalPayload as unsupported:
            notify = NotifyPayload(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, bytes([unsupported.payload_type]))
            self.host.drop(DropReason.SCHEMA)
            self.respond(message, (notify,), path, now)
            if self.state is IkeSaState.CONNECTING:
                self.commit(Outcome(end=Fail(FailureReason.PROTOCOL_ERROR, str(unsupported))), now)
            return
        except (ParseError, SchemaError) as error:
            # Authentic and yet malformed: fatal at both ends, without a Delete (RFC 7296 2.21.3).
            self.host.drop(DropReason.SCHEMA if isinstance(error, SchemaError) else DropReason.MALFORMED)
            self.respond(message, (NotifyPayload(NotifyType.INVALID_SYNTAX),), path, now)
            self._give_up(f"the peer sent a malformed request: {error}", now)
            return
        if not any(delete.protocol == ProtocolId.IKE for delete in message.all(DeletePayload)):
            self.session.note_request_on(self, now)
        outcome = respond(self, message, story, path)
        try:
            self.respond(message, outcome.response, path, now)
        except LocalError as error:
            is_new = self.state is IkeSaState.CONNECTING
            self._give_up(f"our answer cannot be sent: {error}", now, () if is_new else (delete_ike_sa(),))
            return
        self.commit(outcome, now)

    def _give_up(self, detail: str, now: float, last_words: Sequence[Payload] = ()) -> None:
        if self.state is IkeSaState.CONNECTING:
            end: Fail | Close = Fail(FailureReason.PROTOCOL_ERROR, detail, last_words)
        else:
            end = Close(CloseReason.PROTOCOL_ERROR, detail, last_words)
        self.commit(Outcome(end=end), now)

    def _receive_response(self, header: Header, data: bytes, path: Path, now: float) -> None:
        request = self.requests.in_flight.get(header.message_id)
        if request is None or self.state is IkeSaState.CLOSED:
            self.host.drop(DropReason.NO_REQUEST_IN_FLIGHT)
        elif request.exchange.exchange_type != header.exchange:
            self.host.drop(DropReason.UNEXPECTED_EXCHANGE)
        elif isinstance(request.exchange, InitiateSa):
            request.exchange.receive_response(self, data, path, now)
        elif not self.is_keyed:
            self.host.drop(DropReason.UNPROTECTED)
        elif (opened := self._open(data, now)) is not None:
            self._heard(path, now)
            self.requests.answered(header.message_id)
            self.session.location.on_answer(path, request.transmissions, now)
            self.stop_retransmission(header.message_id)
            self._process_response(request.exchange, opened, path, now)
            self._say_last_words(now)
            self.session.pump(now)

    def _process_response(self, exchange: Exchange, opened: Opened, path: Path, now: float) -> None:
        try:
            message = self._read(opened, path, now)
            story = story_of(message)
        except (ParseError, SchemaError) as error:
            self.host.drop(DropReason.SCHEMA if isinstance(error, SchemaError) else DropReason.MALFORMED)
            self._lose(exchange)
            from_us = (
                () if self.state is IkeSaState.CONNECTING else (NotifyPayload(NotifyType.INVALID_SYNTAX),)
            )
            self._give_up(f"the peer sent a malformed response: {error}", now, from_us)
            return
        refusal = error_in(message)
        is_fatal = refusal is not None and refusal.notify_type == NotifyType.INVALID_SYNTAX
        if is_fatal and not isinstance(exchange, LastWords):
            self._lose(exchange)
            self._give_up("the peer answered INVALID_SYNTAX", now)
            return
        if self.state is IkeSaState.DELETING and not isinstance(exchange, LastWords):
            if isinstance(exchange, RekeyIkeSa):  # what it has made at the peer has to go, too
                made = exchange.on_response(self, message, story, now).successor
                self.commit(Outcome(successor=made), now)
            return
        outcome = exchange.on_response(self, message, story, now)
        if outcome.retry is None:
            self.session.note_end(exchange)
        self.commit(outcome, now)

    def _lose(self, exchange: Exchange) -> None:
        for event in exchange.on_lost(self, session_is_over=True).events:
            self.host.emit(event)

    # --- the one place where things change

    def commit(self, outcome: Outcome, now: float) -> None:
        """Apply what an exchange has staged, in the order of the fields of Outcome."""
        session = self.session
        if self.host.subscribers:
            self.host.note(LifeKind.COMMIT, outcome.changes, sa=self)
        session.leased = outcome.leased or session.leased
        if outcome.establish:
            session.establish(self, outcome.establish, now)
        if outcome.auth_lifetime_s is not None:
            session.note_auth_lifetime(outcome.auth_lifetime_s, now)
        session.location.commit(self, outcome, now)
        if outcome.add:
            session.add_child(outcome.add, now)
        if outcome.establish and session.replaces is not None:
            recreate_children(session, now)
        for closed in outcome.close:
            session.close_child(closed.spi_in, closed.reason)
        for spi_out in outcome.early_deletes:
            session.note_early_delete(spi_out)
        for deleted in outcome.delete:
            session.delete_child(deleted.spi_in, deleted.reason)
        if outcome.successor:
            session.on_successor(self, outcome.successor, now)
        if outcome.rekey_failed:
            session.on_rekey_failed(self, now)
        for exchange in outcome.start:
            session.queue(exchange)
        for event in outcome.events:
            self.host.emit(event)
        if outcome.is_finished:
            self.forget(now)
        if isinstance(outcome.end, Fail):
            session.fail(self, outcome.end, now)
        elif outcome.end:
            self._close(outcome.end, now)
        if outcome.retry:
            self.commit(session.retry_later(outcome.retry.exchange, now), now)

    def _close(self, what: Close, now: float) -> None:
        """The peer or we close this IKE SA. Whether the session goes with it depends on who carries it."""
        session = self.session
        if self is session.current and self.peer_successor:
            session.on_rekey_failed(self, now)
        if self is session.current and not session.is_over:
            session.end(what, now)
        elif self.state is not IkeSaState.CLOSED:
            self.finish(what.last_words, now)
            session.on_ike_sa_gone(self, now)

    def finish(self, last_words: Sequence[Payload], now: float) -> None:
        """No more requests but the last one, if there is one to say.

        Else only repeat responses for a while.
        """
        for old in self.host.note_over(self):
            old.forget(now)
        if last_words and self.is_keyed and self.state is not IkeSaState.DELETING:
            self.become(IkeSaState.DELETING)
            self._last_words = last_words
            self._say_last_words(now)
            return
        timers = self.host.timers
        for message_id in self.requests.in_flight:
            self.stop_retransmission(message_id)
        timers.cancel(TimerKind.SUCCESSION, self)
        is_half_open = self.state is IkeSaState.CONNECTING and not self.is_initiator
        self.become(IkeSaState.CLOSED)
        if is_half_open:
            timers.set(now + FAILED_LINGER_S, TimerKind.HALF_OPEN, self)
        else:
            timers.set(now + LINGER_S, TimerKind.LINGER, self)

    def _say_last_words(self, now: float) -> None:
        # What a rekey in flight makes at the peer has to go, too, so its answer is waited for.
        if self._last_words and self.requests.is_open and not self.is_rekeying:
            words, self._last_words = self._last_words, ()
            for message_id in self.requests.in_flight:
                self.stop_retransmission(message_id)
            self.start(LastWords(words), now)

    def forget(self, now: float) -> None:
        """Not even responses are repeated any more."""
        is_closed = self.state is IkeSaState.CLOSED
        self.host.forget_ike_sa(self)
        if not is_closed:
            self.session.on_ike_sa_gone(self, now)

    # --- time

    def handle_timer(self, kind: TimerKind, detail: Hashable, now: float) -> None:
        match kind, detail:
            case TimerKind.RETRANSMIT, int(message_id):
                self._retransmit(message_id, now)
            case TimerKind.HALF_OPEN, _:
                self.host.forget_init(self)
                if self.state in (IkeSaState.CONNECTING, IkeSaState.CLOSED):
                    self.host.forget_ike_sa(self)
            case TimerKind.SUCCESSION, _ if self.state in (IkeSaState.REKEYED, IkeSaState.ESTABLISHED):
                self.host.forget_ike_sa(self)
                self.session.on_ike_sa_gone(self, now)
            case TimerKind.LINGER, _:
                self.host.forget_ike_sa(self)

    def _retransmit(self, message_id: int, now: float) -> None:
        request = self.requests.in_flight.get(message_id)
        if request is None:
            return
        is_dying = self.state is IkeSaState.DELETING
        tries = self.session.retransmit.tries
        if is_dying and not self.session.is_over:
            tries = min(tries, REPLACED_TRIES)
        if request.transmissions < tries:
            request.transmissions += 1
            self.session.liveness.note_retransmission()
            detail = f"transmission {request.transmissions} of at most {tries}"
            self.host.note(LifeKind.RETRANSMISSION, detail, sa=self, message_id=message_id)
            if isinstance(request.exchange, SendProbe) and request.exchange.arrived:
                request.exchange.arrived = False
            self.session.location.probe(request.datagrams, request.transmissions)
            self._send(request.datagrams, self.path, now)
            self._set_retransmission(message_id, request.transmissions, now)
        elif is_dying or self not in (self.session.current, *self.session.candidates):
            self.forget(now)
        elif isinstance(request.exchange, InitiateSa):
            self.commit(Outcome(end=request.exchange.give_up()), now)
        elif self.state is IkeSaState.CONNECTING:
            detail = "IKE_SA_INIT was answered, IKE_AUTH was not"
            self.commit(Outcome(end=Fail(FailureReason.NO_ANSWER, detail)), now)
        else:
            self.commit(
                Outcome(end=Close(CloseReason.PEER_NOT_RESPONDING, f"no answer to {tries} tries")), now
            )


def initiate(
    host: Host, connection: Connection, path: Path, now: float, *, replaces: int | None = None
) -> Session:
    """Begin a session; `replaces`: the one that goes when this one has its children."""
    session = Session(host, connection, is_opener=True)
    session.replaces = replaces
    sa = IkeSa(host, session, spi_i=host.new_ike_spi(), spi_r=NO_SPI, is_initiator=True, path=path)
    session.current = sa
    host.register_ike_sa(sa)
    host.sessions[session.number] = session
    sa.start(InitiateSa(host, connection), now)
    return session
