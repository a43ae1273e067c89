"""A session: what lasts while IKE SAs replace each other by rekey; how it begins and ends (RFC 7296 2.4, 2.8).

Must not know octets, keys or Message IDs. What it is made of has modules: children, requests, location, liveness.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from ike import reauthentication
from ike.children import Children
from ike.config import ChildConfig, Connection, RetransmitPolicy
from ike.configuration import Configuration, Ends
from ike.events import (
    CloseReason,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    SessionSnapshot,
)
from ike.exchanges.exchange import Close, Establish, Exchange, Fail
from ike.exchanges.informational import delete_ike_sa
from ike.exchanges.rekey_ike import RekeyIkeSa
from ike.host import Host
from ike.limits import RateLimit
from ike.liveness import Liveness
from ike.location import Location
from ike.places import end_other_sessions, make_room
from ike.requests import Requests
from ike.states import IkeSaState
from ike.timers import TimerKind
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
        self.requests = Requests(self)
        self.children = Children(self)
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
        end_other_sessions(self, now, is_only_one=what.is_only_one)
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
        self.start_lifetime(now)
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

    def start_lifetime(self, now: float) -> None:
        """A new IKE SA carries the session (RFC 7296 2.8)."""
        timers, connection = self.host.timers, self.connection
        if connection is None:
            return
        if connection.ike_rekey_s is not None:
            at = now + self.host.shortened(connection.ike_rekey_s, connection.ike_rekey_jitter)
            timers.set(at, TimerKind.IKE_REKEY, self)
        if connection.ike_hard_s is not None:
            timers.set(now + connection.ike_hard_s, TimerKind.IKE_HARD, self)

    def rekey_ike_sa(self) -> None:
        """Unless that is under way (RFC 7296 2.8)."""
        if not any(isinstance(exchange, RekeyIkeSa) for exchange in self.requests):
            self.requests.put(RekeyIkeSa())

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
        self.requests.lose_all()
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
            self.children.close(spi_in, CloseReason.IKE_SA_CLOSED)
        self.requests.lose_all()
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

    def on_ike_sa_gone(self, sa: IkeSa, now: float) -> None:
        """`sa`, which does not carry the session, is gone; what was in flight on it goes on the survivor."""
        if sa in self.others:
            self.others.remove(sa)
        if self.is_over:
            return
        self.requests.take_over(sa)
        self.requests.pump(now)

    def _forget(self) -> None:
        self.host.timers.cancel_all(self)
        self.host.forget_session(self)

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
                self.children.rekey(spi_in)
            case TimerKind.CHILD_HARD, bytes(spi_in):
                self.children.expire(spi_in)
            case TimerKind.RETRY, Exchange():
                self.requests.retry(detail)
        self.requests.pump(now)
