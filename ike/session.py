"""A session: an IKE SA and those that replace it by rekey, its children, its waiting requests (RFC 7296 2.8).

Children belong to the session, so a rekey of the IKE SA moves all of them at once. Must not know octets, keys
or Message IDs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

from ike import reauthentication
from ike.child import Child
from ike.config import ChildConfig, Connection, RetransmitPolicy
from ike.configuration import Configuration, Ends
from ike.events import (
    ChildSaClosed,
    ChildSaDeletionBegun,
    ChildSaEstablished,
    CloseReason,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaRekeyed,
    SessionSnapshot,
)
from ike.exchanges.create_child import MakeChildSa, RekeyChildSa
from ike.exchanges.exchange import AddChild, Close, Establish, Exchange, Fail, Outcome, Successor
from ike.exchanges.informational import DeleteChildSa, delete_ike_sa
from ike.exchanges.mobike import UpdateAddresses
from ike.exchanges.rekey_ike import RekeyIkeSa
from ike.host import Host
from ike.life import LifeKind
from ike.limits import RateLimit
from ike.liveness import Liveness
from ike.location import Location
from ike.numbers import ExchangeType
from ike.places import make_room
from ike.states import IkeSaState, is_redundant
from ike.timers import TimerKind
from ike.waiting import RequestQueue
from ike.wire.identity import Identity

if TYPE_CHECKING:
    from ike.sa import IkeSa

NO_CONNECTION_RETRANSMIT = RetransmitPolicy()


class Session:
    """`current` carries the requests.

    `others` are IKE SAs that a rekey left over and that wait for a Delete.
    """

    current: IkeSa

    def __init__(self, host: Host, connection: Connection | None, *, is_opener: bool) -> None:
        self.host = host
        self.number = host.next_session()
        self.connection = connection
        self.is_opener = is_opener
        self.others: list[IkeSa] = []
        self.candidates: list[IkeSa] = []
        self.children: dict[bytes, Child] = {}
        self.local_id: Identity | None = None
        self.peer_id: Identity | None = None
        self.extension_data: bytes | None = None
        self.assigned: Configuration | None = None
        """What the peer has given us, and what we have given it (RFC 7296 2.19); rekeys keep both."""
        self.leased: Configuration | None = None
        self.established_at: float | None = None
        self.liveness = Liveness(self)
        self.location = Location(self)
        self.is_over = False
        self.replaces: int | None = None
        """The session that goes when this one has its children: its ends authenticate again."""
        self.announced_s: float | None = None
        """Within what time the peer wants us to authenticate again (RFC 4478)."""
        self._waiting = RequestQueue()
        self._put_off: list[Exchange] = []
        """What the peer has answered by TEMPORARY_FAILURE: each has its RETRY timer."""
        self._refused_since: float | None = None
        self.complaints = RateLimit(host.settings.complaints_per_s)

    @property
    def name(self) -> str:
        return self.connection.name if self.connection else ""

    @property
    def retransmit(self) -> RetransmitPolicy:
        return self.connection.retransmit if self.connection else NO_CONNECTION_RETRANSMIT

    @property
    def usable_children(self) -> tuple[ChildConfig, ...]:
        """Where the extension is on, only its children; where it is not, only those without one."""
        if self.connection is None:
            return ()
        extension = self.connection.extension
        wanted = extension.name if extension and self.extension_data is not None else None
        return tuple(child for child in self.connection.children if child.extension == wanted)

    @property
    def needs_lease(self) -> bool:
        """Whether its children wait for the peer to ask for an address (RFC 7296 2.19)."""
        return self.connection is not None and self.connection.assigns_addresses and self.leased is None

    @property
    def ends(self) -> Ends:
        """What the DynamicSelectors of its children stand for."""
        return Ends.of(self.current.path, self.assigned, self.leased)

    def child_by_spi_out(self, spi_out: bytes) -> Child | None:
        return next((child for child in self.children.values() if child.sa.spi_out == spi_out), None)

    def snapshot(self) -> SessionSnapshot:
        sa = self.current
        due_at = self.host.timers.due_at
        return SessionSnapshot(
            session=self.number,
            connection=self.name,
            state=sa.state.value,
            is_opener=self.is_opener,
            is_initiator=sa.is_initiator,
            spi_i=sa.spi_i,
            spi_r=sa.spi_r,
            local_id=self.local_id,
            peer_id=self.peer_id,
            path=sa.path,
            proposal=sa.keyed.proposal if sa.is_keyed else None,
            extension_data=self.extension_data,
            assigned=self.assigned,
            leased=self.leased,
            udp_encapsulation=sa.nat.udp_encapsulation,
            is_mobile=self.location.is_mobile,
            established_at=self.established_at,
            rekey_at=due_at(TimerKind.IKE_REKEY, self),
            expires_at=due_at(TimerKind.IKE_HARD, self),
            children=tuple(child.sa for child in self.children.values()),
            child_times=tuple(
                (due_at(TimerKind.CHILD_REKEY, self, spi_in), due_at(TimerKind.CHILD_HARD, self, spi_in))
                for spi_in in self.children
            ),
        )

    # --- requests of ours

    def queue(self, exchange: Exchange) -> None:
        """Let a request wait for the window; `pump` sends it."""
        self._waiting.put(exchange)

    def queue_latest(self, exchange: Exchange) -> None:
        """The same for a request that makes those of its kind pointless which still wait."""
        self._waiting.put_latest(exchange)

    def requests(self) -> Iterator[Exchange]:
        """All of ours that wait, for the window or for another try, or are in flight."""
        yield from self._waiting
        yield from self._put_off
        for sa in (self.current, *self.others):
            yield from sa.requests.exchanges

    def pump(self, now: float) -> None:
        """Send what the window allows.

        While the IKE SA is being rekeyed nothing new starts (RFC 7296 1.3.2).
        """
        while (exchange := self._waiting.take(self.current.requests.exchanges, self._may_start)) is not None:
            if not self.current.start(exchange, now):
                self.note_end(exchange)

    def _may_start(self, exchange: Exchange) -> bool:
        current = self.current
        if current.state is not IkeSaState.ESTABLISHED or not current.requests.is_open:
            return False
        if current.peer_successor or current.is_rekeying:
            return False
        # A replaced IKE SA may wait for a Delete that does not come before the peer knows where we are.
        return isinstance(exchange, UpdateAddresses) or not self.others

    def retry_later(self, exchange: Exchange, now: float) -> Outcome:
        """The peer said TEMPORARY_FAILURE: again after a while, but not for ever (RFC 7296 2.25)."""
        settings = self.host.settings
        if self._refused_since is None:
            self._refused_since = now
        if now - self._refused_since >= settings.temporary_failure_limit_s:
            detail = "the peer has answered TEMPORARY_FAILURE for too long"
            return Outcome(end=Close(CloseReason.OUT_OF_SYNC, detail, (delete_ike_sa(),)))
        delay = settings.temporary_failure_retry_s
        at = now + delay + self.host.shortened(delay, 1.0)
        self._put_off.append(exchange)
        self.host.timers.set(at, TimerKind.RETRY, self, exchange)
        return Outcome()

    def note_end(self, exchange: Exchange) -> None:
        """It will not be retried, whatever its answer was: what the peer refuses later is another story."""
        if exchange.exchange_type is ExchangeType.CREATE_CHILD_SA:
            self.note_success()

    def note_success(self) -> None:
        self._refused_since = None

    # --- life

    def establish(self, sa: IkeSa, what: Establish, now: float) -> None:
        self._drop_candidates(but=sa)
        self.current = sa
        sa.become(IkeSaState.ESTABLISHED)
        sa.trust()
        sa.responses.size = self.host.settings.window
        sa.init = None
        if self.host.half_open.pop(sa.init_digest, None):
            self.host.completed_inits.add(sa.init_digest)
        self.connection, self.local_id, self.peer_id = what.connection, what.local_id, what.peer_id
        self.extension_data, self.assigned = what.extension_data, what.assigned
        self.established_at = now
        self.host.sessions[self.number] = self
        self.host.note_peer(self)
        self.location.begin(what.peer_addresses, now)
        self._end_other_sessions(now, is_only_one=what.is_only_one)
        make_room(self, now)
        self.host.emit(
            IkeSaEstablished(
                session=self.number,
                connection=self.name,
                is_opener=self.is_opener,
                is_initiator=sa.is_initiator,
                spi_i=sa.spi_i,
                spi_r=sa.spi_r,
                local_id=what.local_id,
                peer_id=what.peer_id,
                path=sa.path,
                proposal=sa.keyed.proposal,
                extension_data=what.extension_data,
                udp_encapsulation=sa.nat.udp_encapsulation,
                assigned=what.assigned,
                leased=self.leased,
                replaces=self.replaces,
                is_mobile=self.location.is_mobile,
                may_fragment=sa.fragment_octets is not None,
            )
        )
        self._start_ike_timers(now)
        if self.replaces is None:
            reauthentication.start_timer(self, now)
        self.liveness.begin(now)

    def note_auth_lifetime(self, within_s: float, now: float) -> None:
        """The peer wants us to authenticate again: only we can who opened the session (RFC 4478 3)."""
        if not self.is_opener:
            return
        self.announced_s = within_s
        if self.replaces is None and not self.is_over:
            reauthentication.start_timer(self, now)

    def _end_other_sessions(self, now: float, *, is_only_one: bool) -> None:
        """INITIAL_CONTACT: the peer has forgotten the others. Without it the oldest go if there are too many.

        A Delete goes out in both cases: in the first for if they crossed. Peers that prove no identity are not
        told apart by one (RFC 7619 2.3): those at this address are asked whether they are still there.
        """
        if self.peer_id is None:
            return
        others = [
            other
            for other in self.host.sessions_with(self.peer_id)
            if other is not self and other.local_id == self.local_id and self._is_same_place(other)
        ]
        if self.peer_id == Identity.null():
            for other in others:
                other.liveness.check()
                other.pump(now)
            return
        others.sort(key=lambda other: other.established_at or 0.0, reverse=True)
        limit = 0 if is_only_one else self.host.settings.max_sessions_per_identity - 1
        detail = "the peer started afresh" if is_only_one else "too many with the same identities"
        for other in others[limit:]:
            other.end(Close(CloseReason.REPLACED, detail, (delete_ike_sa(),)), now)

    def _is_same_place(self, other: Session) -> bool:
        """Nobody in particular is told apart by its address."""
        return self.peer_id != Identity.null() or self.current.path.peer[0] == other.current.path.peer[0]

    def _start_ike_timers(self, now: float) -> None:
        timers, connection = self.host.timers, self.connection
        if connection is None:
            return
        if connection.ike_rekey_s is not None:
            at = now + self.host.shortened(connection.ike_rekey_s, connection.ike_rekey_jitter)
            timers.set(at, TimerKind.IKE_REKEY, self)
        if connection.ike_hard_s is not None:
            timers.set(now + connection.ike_hard_s, TimerKind.IKE_HARD, self)

    def follow(self, candidate: IkeSa) -> None:
        """One answer to our IKE_SA_INIT is worth an IKE_AUTH."""
        self.candidates.append(candidate)
        self.host.register_ike_sa(candidate)

    def fail(self, sa: IkeSa, what: Fail, now: float) -> None:
        """`sa` does not come to be.

        With other candidates left the session goes on with those (RFC 7296 2.4).
        """
        if sa in self.candidates:
            self.candidates.remove(sa)
        sa.finish(what.last_words, now)
        if self.candidates or self.is_over:
            return
        self.is_over = True
        self._drop_candidates(but=sa)
        connection = self.connection or what.connection
        name = connection.name if connection else ""
        self._lose_requests()
        self.host.emit(IkeSaFailed(self.number, name, what.reason, what.detail, self.replaces))
        self._forget()

    def abandon(self, what: Fail, now: float) -> None:
        """We do not want it any more."""
        self._drop_candidates(but=self.current)
        self.fail(self.current, what, now)

    def _drop_candidates(self, but: IkeSa) -> None:
        for sa in {self.current, *self.candidates} - {but}:
            self.host.forget_ike_sa(sa)
        self.candidates = []

    def end(self, what: Close, now: float) -> None:
        """Over, as far as the owner is concerned; the last words are still to be brought to the peer."""
        if self.is_over:
            return
        self.is_over = True
        for spi_in in list(self.children):
            self.close_child(spi_in, CloseReason.IKE_SA_CLOSED)
        self._lose_requests()
        self.host.emit(IkeSaClosed(self.number, self.name, what.reason, what.detail))
        self._forget()
        for sa in self.others:
            sa.finish((), now)
        self.others = []
        rival = self.current.peer_successor
        if rival is not None and rival.ike_sa.state is not IkeSaState.CLOSED:
            # The peer's rekey is answered and ours in flight: the peer may go on with what its own has made.
            rival.ike_sa.finish(what.last_words, now)
        self.current.finish(what.last_words, now)

    def _lose_requests(self) -> None:
        for exchange in list(self.requests()):
            for event in exchange.on_lost(self.current, session_is_over=True).events:
                self.host.emit(event)
        self._waiting.clear()
        self._put_off = []

    def _forget(self) -> None:
        self.host.timers.cancel_all(self)
        self.host.forget_session(self)

    # --- children

    def add_child(self, what: AddChild, now: float) -> None:
        child, sa = what.child, what.child.sa
        self.children[sa.spi_in] = child
        self.host.register_child(sa.spi_in, self)
        self.note_success()
        config, timers = child.config, self.host.timers
        if config.rekey_s is not None:
            at = now + self.host.shortened(config.rekey_s, config.rekey_jitter)
            timers.set(at, TimerKind.CHILD_REKEY, self, sa.spi_in)
        if config.hard_s is not None:
            timers.set(now + config.hard_s, TimerKind.CHILD_HARD, self, sa.spi_in)
        self._expect_end(what.replaces, CloseReason.REKEYED, now)
        self._expect_end(what.outlives, CloseReason.REDUNDANT, now)
        for exchange in self.requests():
            if isinstance(exchange, RekeyChildSa) and exchange.spi_in == what.replaces and not sa.is_creator:
                exchange.rival = sa
        self.host.emit(
            ChildSaEstablished(self.number, self.name, sa, what.replaces, use_outbound=what.use_outbound)
        )

    def note_early_delete(self, spi_out: bytes) -> None:
        """The peer deletes what we have not: perhaps the grant of one of our requests is still on its way."""
        for exchange in self.requests():
            if isinstance(exchange, MakeChildSa):
                exchange.note_early_delete(spi_out)

    def _expect_end(self, spi_in: bytes | None, fate: CloseReason, now: float) -> None:
        """Whoever made the child that stays deletes this one. If nobody does, we do."""
        child = self.children.get(spi_in) if spi_in else None
        if child is None or child.is_deleting:
            return
        if fate is CloseReason.REDUNDANT:
            self._note_deletion_begun(child, fate)
        child.fate = fate
        self.host.timers.cancel(TimerKind.CHILD_REKEY, self, spi_in)
        self.host.timers.set(now + self.host.settings.collision_timeout_s, TimerKind.CHILD_HARD, self, spi_in)

    def close_child(self, spi_in: bytes, reason: CloseReason) -> None:
        child = self.children.pop(spi_in, None)
        if child is None:
            return
        self.host.forget_child(spi_in)
        for kind in (TimerKind.CHILD_REKEY, TimerKind.CHILD_HARD):
            self.host.timers.cancel(kind, self, spi_in)
        self.host.emit(ChildSaClosed(self.number, self.name, spi_in, child.sa.spi_out, reason))

    def delete_child(self, spi_in: bytes, reason: CloseReason) -> None:
        child = self.children.get(spi_in)
        if child is None:
            return
        child.is_unwanted |= reason is CloseReason.DELETED_LOCALLY
        if child.is_deleting:
            return
        child.is_deleting = True
        for kind in (TimerKind.CHILD_REKEY, TimerKind.CHILD_HARD):
            self.host.timers.cancel(kind, self, spi_in)
        self.queue(DeleteChildSa(spi_in, reason))
        self._note_deletion_begun(child, reason)

    def _note_deletion_begun(self, child: Child, reason: CloseReason) -> None:
        if child.fate is not CloseReason.REDUNDANT:  # else the owner knows
            sa = child.sa
            self.host.emit(ChildSaDeletionBegun(self.number, self.name, sa.spi_in, sa.spi_out, reason))

    def rekey_child(self, spi_in: bytes) -> None:
        child = self.children.get(spi_in)
        if child is None or child.is_deleting or child.fate:
            return
        if not any(isinstance(e, RekeyChildSa) and e.spi_in == spi_in for e in self.requests()):
            self.queue(RekeyChildSa(spi_in))

    # --- rekey of the IKE SA (RFC 7296 2.8, 2.8.2, 2.18)

    def rekey_ike_sa(self) -> None:
        if not any(isinstance(exchange, RekeyIkeSa) for exchange in self.requests()):
            self.queue(RekeyIkeSa())

    def on_successor(self, old: IkeSa, made: Successor, now: float) -> None:
        """A rekey of `old` came to its end, ours or the peer's; perhaps both are under way."""
        made.ike_sa.become(IkeSaState.ESTABLISHED)
        self.host.register_ike_sa(made.ike_sa)
        if self.is_over:
            # It was ended while its rekey was in flight; the peer goes on with the new IKE SA unless it is told.
            made.ike_sa.finish((delete_ike_sa(),), now)
            return
        if not made.is_ours:
            old.peer_successor = made
            if not old.is_rekeying:
                self._succeed(old, made, now)
            return
        rival = old.peer_successor
        if old is not self.current:
            # The peer goes on with its own (`note_request_on`), so ours is the redundant one.
            self.others.append(made.ike_sa)
            made.ike_sa.finish((delete_ike_sa(),), now)
        elif rival is None or rival.ike_sa.state is IkeSaState.CLOSED:
            # No collision, or the peer has compared the nonces first and deleted its own.
            self._succeed(old, made, now)
        elif is_redundant(made.nonces, rival.nonces):
            self.host.note(LifeKind.NONCES, "our new IKE SA is redundant", sa=made.ike_sa)
            self.others.append(made.ike_sa)
            made.ike_sa.finish((delete_ike_sa(),), now)
            self._succeed(old, rival, now)
        else:
            self.host.note(LifeKind.NONCES, "the peer's new IKE SA is redundant", sa=rival.ike_sa)
            self.others.append(rival.ike_sa)
            self._expect_delete(rival.ike_sa, now)
            self._succeed(old, made, now)

    def note_request_on(self, sa: IkeSa, now: float) -> None:
        """The peer asks for something on `sa`. If its own rekey made that, it has settled on it (RFC 7296 2.8.2).

        Our rekey of the old one, which may still be in flight, is refused or redundant, whatever its answer says.
        """
        rival = self.current.peer_successor
        if rival is not None and rival.ike_sa is sa and not self.is_over:
            self._succeed(self.current, rival, now)

    def on_rekey_failed(self, old: IkeSa, now: float) -> None:
        """Ours came to nothing; if the peer's did not, it counts."""
        rival = old.peer_successor
        if old is not self.current or rival is None or self.is_over:
            return
        if rival.ike_sa.state is IkeSaState.CLOSED:
            self.end(Close(CloseReason.DELETED_BY_PEER, "the peer deleted the new IKE SA"), now)
        else:
            self._succeed(old, rival, now)

    def _succeed(self, old: IkeSa, made: Successor, now: float) -> None:
        new = made.ike_sa
        self.current = new
        self.others.append(old)
        old.become(IkeSaState.REKEYED)
        self.note_success()
        self._start_ike_timers(now)
        self.host.emit(IkeSaRekeyed(self.number, old.spi_i, old.spi_r, new.spi_i, new.spi_r))
        if made.is_ours:
            old.finish((delete_ike_sa(),), now)
        else:
            self._expect_delete(old, now)

    def _expect_delete(self, sa: IkeSa, now: float) -> None:
        self.host.timers.set(now + self.host.settings.collision_timeout_s, TimerKind.SUCCESSION, sa)

    def on_ike_sa_gone(self, sa: IkeSa, now: float) -> None:
        """`sa`, which does not carry the session, is gone; what was in flight on it goes on the survivor."""
        if sa in self.others:
            self.others.remove(sa)
        if self.is_over:
            return
        outcomes = [exchange.on_lost(sa, session_is_over=False) for exchange in sa.requests.exchanges]
        self._waiting.put_back([again for outcome in outcomes for again in outcome.start])
        self.pump(now)

    # --- time

    def handle_timer(self, kind: TimerKind, detail: Hashable, now: float) -> None:
        match kind, detail:
            case TimerKind.IKE_REKEY, _:
                self.rekey_ike_sa()
            case TimerKind.IKE_HARD, _:
                self.end(
                    Close(CloseReason.LIFETIME, "the IKE SA reached its lifetime", (delete_ike_sa(),)), now
                )
            case TimerKind.REAUTH, _:
                reauthentication.on_due(self, now)
            case TimerKind.LIVENESS, _:
                self.liveness.handle_timer(now)
            case TimerKind.KEEPALIVE, _:
                self.location.handle_keepalive_timer(now)
            case TimerKind.CHILD_REKEY, bytes(spi_in):
                self.rekey_child(spi_in)
            case TimerKind.CHILD_HARD, bytes(spi_in):
                child = self.children.get(spi_in)
                self.delete_child(spi_in, (child.fate if child else None) or CloseReason.LIFETIME)
            case TimerKind.RETRY, Exchange():
                self._put_off.remove(detail)
                self.queue(detail)
        self.pump(now)
