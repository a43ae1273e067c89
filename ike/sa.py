"""One IKE SA: its SPIs, keys, state and end, and the one place where things change (RFC 7296 2.4, 2.18, 2.21).

Must not know octets: `receiving.py` and `sending.py` are between it and its peer.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ike import succession
from ike.config import Connection, Path
from ike.crypto.algorithms import selected
from ike.crypto.keymat import IkeKeys
from ike.crypto.prf import Prf
from ike.errors import LocalError
from ike.events import CloseReason, FailureReason, IkeKeyLogEntry
from ike.exchanges.exchange import Close, Exchange, Fail, Outcome, Successor
from ike.exchanges.informational import LastWords, delete_ike_sa
from ike.exchanges.rekey_ike import RekeyIkeSa
from ike.exchanges.sa_init import InitiateSa
from ike.host import Host
from ike.life import LifeKind
from ike.material import InitMaterial, Keyed
from ike.nat import NatState
from ike.numbers import TransformType
from ike.opening import Opener
from ike.protection import Protection
from ike.reauthentication import path_of, recreate_children
from ike.sending import Sender
from ike.session import Session
from ike.states import Ask, Doing, IkeSaState, Verdict, check_transition, judge
from ike.timers import TimerKind
from ike.window import RequestWindow, ResponseWindow
from ike.wire.message import NO_SPI, Message
from ike.wire.payloads import Payload
from ike.wire.sa import Proposal

LINGER_S = 30.0
FAILED_LINGER_S = 5.0
"""A failed IKE_AUTH still takes a half-open place; a peer that lost the answer asks again within 4 s."""
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
        self.sender = Sender(self)
        self.opener = Opener(host, is_stranger=session.connection is None)
        self._keyed: Keyed | None = None
        self._last_words: Sequence[Payload] = ()

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
        if self.peer_successor or self is not self.session.current:
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

    # --- to the peer

    def start(self, exchange: Exchange, now: float) -> bool:
        """Send a request, or find that it has become pointless. The caller has seen that the window is open.

        If what we are told to say fits into no message, the IKE SA ends: without it nothing goes on.
        """
        payloads = exchange.request(self, now)
        if payloads is None:
            return False
        try:
            self.sender.send_request(exchange, payloads, now)
        except LocalError as error:
            self.lose(exchange)
            self.give_up(f"our request cannot be sent: {error}", now)
            return False
        return True

    def answer(self, request: Message, payloads: Sequence[Payload], path: Path, now: float) -> bool:
        """Send the response to `request`. If it fits into no message, the IKE SA ends, and False."""
        try:
            self.sender.send_response(request, payloads, path, now)
        except LocalError as error:
            is_new = self.state is IkeSaState.CONNECTING
            self.give_up(f"our answer cannot be sent: {error}", now, () if is_new else (delete_ike_sa(),))
            return False
        return True

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
            session.children.add(outcome.add, now)
        if outcome.establish and session.replaces is not None:
            recreate_children(session, now)
        for closed in outcome.close:
            session.children.close(closed.spi_in, closed.reason)
        for spi_out in outcome.early_deletes:
            session.children.note_early_delete(spi_out)
        for deleted in outcome.delete:
            session.children.delete(deleted.spi_in, deleted.reason)
        if outcome.successor:
            succession.on_successor(self, outcome.successor, now)
        if outcome.rekey_failed:
            succession.on_rekey_failed(self, now)
        for exchange in outcome.start:
            session.requests.put(exchange)
        for event in outcome.events:
            self.host.emit(event)
        if outcome.is_finished:
            self.forget(now)
        if isinstance(outcome.end, Fail):
            session.fail(self, outcome.end, now)
        elif outcome.end:
            self._close(outcome.end, now)
        if outcome.retry:
            self.commit(session.requests.retry_later(outcome.retry.exchange, now), now)

    def _close(self, what: Close, now: float) -> None:
        """The peer or we close this IKE SA. Whether the session goes with it depends on who carries it."""
        session = self.session
        if self is session.current and self.peer_successor:
            succession.on_rekey_failed(self, now)
        if self is session.current and not session.is_over:
            session.end(what, now)
        elif self.state is not IkeSaState.CLOSED:
            self.finish(what.last_words, now)
            session.on_ike_sa_gone(self, now)

    def give_up(self, detail: str, now: float, last_words: Sequence[Payload] = ()) -> None:
        """It cannot go on, by the peer's fault or ours."""
        if self.state is IkeSaState.CONNECTING:
            end: Fail | Close = Fail(FailureReason.PROTOCOL_ERROR, detail, last_words)
        else:
            end = Close(CloseReason.PROTOCOL_ERROR, detail, last_words)
        self.commit(Outcome(end=end), now)

    def lose(self, exchange: Exchange) -> None:
        """The IKE SA is about to end with this one, which is not in flight any more."""
        for event in exchange.on_lost(self, session_is_over=True).events:
            self.host.emit(event)

    def finish(self, last_words: Sequence[Payload], now: float) -> None:
        """No more requests but the last one, if there is one to say.

        Else only repeat responses for a while.
        """
        for old in self.host.note_over(self):
            old.forget(now)
        if last_words and self.is_keyed and self.state is not IkeSaState.DELETING:
            self.become(IkeSaState.DELETING)
            self._last_words = last_words
            self.say_last_words(now)
            return
        timers = self.host.timers
        for message_id in self.requests.in_flight:
            self.sender.stop_retransmission(message_id)
        timers.cancel(TimerKind.SUCCESSION, self)
        is_half_open = self.state is IkeSaState.CONNECTING and not self.is_initiator
        self.become(IkeSaState.CLOSED)
        if is_half_open:
            timers.set(now + FAILED_LINGER_S, TimerKind.HALF_OPEN, self)
        else:
            timers.set(now + LINGER_S, TimerKind.LINGER, self)

    def say_last_words(self, now: float) -> None:
        """Once the window lets them go."""
        # What a rekey in flight makes at the peer has to go, too, so its answer is waited for.
        if self._last_words and self.requests.is_open and not self.is_rekeying:
            words, self._last_words = self._last_words, ()
            for message_id in self.requests.in_flight:
                self.sender.stop_retransmission(message_id)
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
                self._on_no_answer(message_id, now)
            case TimerKind.HALF_OPEN, _:
                self.host.forget_init(self)
                if self.state in (IkeSaState.CONNECTING, IkeSaState.CLOSED):
                    self.host.forget_ike_sa(self)
            case TimerKind.SUCCESSION, _ if self.state in (IkeSaState.REKEYED, IkeSaState.ESTABLISHED):
                self.host.forget_ike_sa(self)
                self.session.on_ike_sa_gone(self, now)
            case TimerKind.LINGER, _:
                self.host.forget_ike_sa(self)

    def _on_no_answer(self, message_id: int, now: float) -> None:
        """Not in time: ask again, or take it that nobody is there (RFC 7296 2.1, 2.4)."""
        request = self.requests.in_flight.get(message_id)
        if request is None:
            return
        is_dying = self.state is IkeSaState.DELETING
        tries = self.session.retransmit.tries
        if is_dying and not self.session.is_over:
            tries = min(tries, REPLACED_TRIES)
        if request.transmissions < tries:
            self.sender.retransmit(message_id, tries, now)
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
