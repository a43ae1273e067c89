"""What an engine lends to its IKE SAs: entropy, timers, mailboxes, and the tables of SPIs (RFC 7296 2.6).

Must not know exchanges; it keeps what several IKE SAs share and decides nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from ike.child import FIRST_FREE_SPI
from ike.child import SPI_OCTETS as CHILD_SPI_OCTETS
from ike.config import Connection, EngineSettings, Path
from ike.configuration import AddressRequest, Configuration
from ike.directory import ConnectionDirectory
from ike.entropy import Entropy
from ike.events import Datagram, Direction, DropReason, Event, IkeKeyLogEntry, TraceRecord
from ike.fragments import Budget
from ike.identities import identity_key
from ike.life import LifeKind, LifeRecord, Subscriber
from ike.nat import KEEPALIVE
from ike.selectors import SelectorRegistry
from ike.timers import TimerTable
from ike.trace import summary
from ike.wire.identity import Identity
from ike.wire.message import NO_SPI, SPI_OCTETS, Message, SealedBody
from ike.wire.payloads import NotifyPayload

if TYPE_CHECKING:
    from ike.sa import IkeSa
    from ike.session import Session

Informational = Callable[[int, tuple[NotifyPayload, ...]], Sequence[NotifyPayload]]
Configure = Callable[[AddressRequest], Configuration | None]
"""Addresses for a peer; None if there are none. They are the peer's until the session is over."""
Rewrite = Callable[[Message], Iterable[Message | SealedBody]]


def place_key(peer: Identity, session: int) -> Hashable:
    """Equal for the sessions of one identity; each session of nobody in particular is one of its own."""
    return (None, session) if peer == Identity.null() else (identity_key(peer), 0)


class Host:
    """Everything here is open to the IKE SAs and sessions of one engine."""

    def __init__(
        self,
        connections: Sequence[Connection],
        entropy: Entropy,
        registry: SelectorRegistry,
        settings: EngineSettings,
        informational: Informational | None,
        configure: Configure | None,
        key_log: Callable[[IkeKeyLogEntry], None] | None,
        rewrite_outgoing: Rewrite | None,
    ) -> None:
        self.directory = ConnectionDirectory(connections)
        self.entropy = entropy
        self.registry = registry
        self.settings = settings
        self.informational = informational
        self.configure = configure
        self.key_log = key_log
        self.rewrite_outgoing = rewrite_outgoing
        self.timers = TimerTable()
        self.counters: Counter[DropReason] = Counter()
        self.outbox: deque[Datagram] = deque()
        self.events: deque[Event] = deque()
        self.sessions: dict[int, Session] = {}
        """Those with a connection: ours from the start, the peer's once it is authenticated."""
        self._of_peer: defaultdict[Hashable, dict[int, Session]] = defaultdict(dict)
        self._places: defaultdict[str, dict[Hashable, dict[int, Session]]] = defaultdict(dict)
        """Of the connections that only so many peers may have at a time: who has them."""
        self.half_open: dict[bytes, IkeSa] = {}
        """SHA-256 of an IKE_SA_INIT request -> what it made, while nobody is authenticated (RFC 7296 2.1)."""
        self.completed_inits: set[bytes] = set()
        """The same of those that are authenticated: a late copy of the request is ignored."""
        self.reassembly_budget = Budget(settings.max_incomplete_octets)
        self.stranger_budget = Budget(settings.max_incomplete_octets // 2, part_of=self.reassembly_budget)
        """The part of it that half-open IKE SAs may have."""
        self.local_addresses: tuple[str, ...] = ()
        """Those that can be used now, as far as the owner has told; else the connections' are taken to be there."""
        self.now = 0.0
        """The time that the owner has told last: for records, and for whom none is handed on to."""
        self.subscribers: list[Subscriber] = []
        self._ike_sas: dict[tuple[bytes, bytes], IkeSa] = {}
        self._child_spis: dict[bytes, Session] = {}
        self._own_spis: Counter[bytes] = Counter()
        self._session_count = 0
        self._over: dict[IkeSa, None] = {}
        """Those that only say or repeat their last words, the oldest first."""

    @property
    def connections(self) -> tuple[Connection, ...]:
        return self.directory.connections

    def note_peer(self, session: Session) -> None:
        """The peer of a session is known."""
        if session.peer_id is None:
            return
        self._of_peer[identity_key(session.peer_id)][session.number] = session
        if session.connection is not None and session.connection.max_peers is not None:
            places = self._places[session.connection.name]
            places.setdefault(place_key(session.peer_id, session.number), {})[session.number] = session

    def sessions_with(self, peer: Identity) -> tuple[Session, ...]:
        """The established sessions whose peer has proved this identity."""
        return tuple(self._of_peer.get(identity_key(peer), {}).values())

    def places(self, connection: Connection) -> Mapping[Hashable, dict[int, Session]]:
        """Who has a place of a connection with `max_peers`: `place_key` -> sessions."""
        return self._places.get(connection.name, {})

    def forget_session(self, session: Session) -> None:
        self.sessions.pop(session.number, None)
        if session.peer_id is not None and session.connection is not None:
            places = self._places.get(session.connection.name, {})
            place = places.get(key := place_key(session.peer_id, session.number), {})
            place.pop(session.number, None)
            if not place:
                places.pop(key, None)
        if session.peer_id is not None:
            key = identity_key(session.peer_id)
            self._of_peer[key].pop(session.number, None)
            if not self._of_peer[key]:
                del self._of_peer[key]

    def next_session(self) -> int:
        self._session_count += 1
        return self._session_count

    def was_session(self, number: int) -> bool:
        return 0 < number <= self._session_count

    # --- SPIs

    def new_ike_spi(self) -> bytes:
        """Eight octets that are no SPI of ours yet, and not zero."""
        while (spi := self.entropy.octets(SPI_OCTETS)) == NO_SPI or spi in self._own_spis:
            continue
        return spi

    def new_child_spi(self) -> bytes:
        """Four octets that no child of ours receives on, above the reserved values."""
        while True:
            spi = self.entropy.octets(CHILD_SPI_OCTETS)
            if int.from_bytes(spi, "big") >= FIRST_FREE_SPI and spi not in self._child_spis:
                return spi

    def register_ike_sa(self, sa: IkeSa) -> None:
        self._ike_sas[sa.spi_i, sa.spi_r] = sa
        self._own_spis[sa.own_spi] += 1

    def ike_sas(self) -> tuple[IkeSa, ...]:
        """Those that have both SPIs, the deleted ones included until their last answer came."""
        return tuple(self._ike_sas.values())

    def forget_ike_sa(self, sa: IkeSa) -> None:
        """Also when it was never registered, or is forgotten already."""
        self.timers.cancel_all(sa)
        sa.opener.clear()
        self._over.pop(sa, None)
        self.forget_init(sa)
        if self._ike_sas.get((sa.spi_i, sa.spi_r)) is sa:
            del self._ike_sas[sa.spi_i, sa.spi_r]
            self._own_spis -= Counter([sa.own_spi])

    def note_over(self, sa: IkeSa) -> list[IkeSa]:
        """`sa` will soon be forgotten. Returns the oldest of more such than may linger."""
        self._over.setdefault(sa)
        return list(islice(self._over, max(0, len(self._over) - self.settings.max_lingering)))

    def forget_init(self, sa: IkeSa) -> None:
        """From now on a copy of the IKE_SA_INIT request that made `sa` is a new one."""
        self.half_open.pop(sa.init_digest, None)
        self.completed_inits.discard(sa.init_digest)

    def ike_sa(self, spi_i: bytes, spi_r: bytes) -> IkeSa | None:
        """The IKE SA of exactly this pair; one that waits for the peer's SPI has zero in its place."""
        return self._ike_sas.get((spi_i, spi_r))

    def register_child(self, spi_in: bytes, session: Session) -> None:
        self._child_spis[spi_in] = session

    def forget_child(self, spi_in: bytes) -> None:
        self._child_spis.pop(spi_in, None)

    def session_of_child(self, spi_in: bytes) -> Session | None:
        return self._child_spis.get(spi_in)

    def sizes(self) -> dict[str, int]:
        """The entries of each table; `incomplete_octets` of messages that come in fragments."""
        return {
            "sessions": len(self.sessions),
            "ike_sas": len(self._ike_sas),
            "children": len(self._child_spis),
            "half_open": len(self.half_open),
            "completed_inits": len(self.completed_inits),
            "timers": len(self.timers),
            "requests": sum(1 for session in self.sessions.values() for _ in session.requests),
            "incomplete_octets": self.reassembly_budget.used_octets,
        }

    # --- randomness

    def nonce(self) -> bytes:
        return self.entropy.octets(self.settings.nonce_octets)

    def shortened(self, seconds: float, jitter: float) -> float:
        """`seconds`, less a random part of up to `jitter` of it."""
        part = int.from_bytes(self.entropy.octets(2), "big") / 65536
        return seconds * (1 - jitter * part)

    # --- out

    def send(self, datagrams: Iterable[bytes], path: Path, *, dont_fragment: bool = False) -> None:
        self.outbox.extend(Datagram(data, path, dont_fragment=dont_fragment) for data in datagrams)

    def send_keepalive(self, path: Path) -> None:
        self.outbox.append(Datagram(KEEPALIVE, path, is_keepalive=True))

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.note(LifeKind.EVENT, type(event).__name__, event.session, event=event)

    def drop(self, reason: DropReason) -> None:
        self.counters[reason] += 1
        self.note(LifeKind.DROP, reason.value, reason=reason)

    def note(
        self,
        kind: LifeKind,
        detail: str,
        session: int | None = None,
        sa: IkeSa | None = None,
        *,
        message_id: int | None = None,
        reason: DropReason | None = None,
        event: Event | None = None,
    ) -> None:
        """Tell those who look on. What follows from a record is nobody's business here."""
        if self.subscribers:
            number = sa.session.number if sa else session
            spis = (sa.spi_i, sa.spi_r) if sa else (b"", b"")
            self._tell(LifeRecord(self.now, kind, number, detail, *spis, message_id, reason, event))

    def _tell(self, record: TraceRecord | LifeRecord) -> None:
        for subscriber in tuple(self.subscribers):
            subscriber(record)

    def trace_message(
        self,
        at: float,
        session: int | None,
        direction: Direction,
        path: Path,
        message: Message,
        datagrams: int = 1,
    ) -> None:
        self.now = at
        if self.subscribers:
            self._tell(
                TraceRecord(
                    at,
                    session,
                    direction,
                    path,
                    summary(message),
                    message.message_id,
                    message.spi_i,
                    message.spi_r,
                    datagrams,
                )
            )
