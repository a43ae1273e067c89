"""The IKEv2 engine: octets and time in, datagrams and events out (RFC 7296).

It only dispatches: SPIs lead to an IKE SA, commands to a session, timers to their owner. Must not know what a
message says; it has no socket, no clock and no entropy of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ike.config import Connection, EngineSettings, Path
from ike.entropy import Entropy
from ike.errors import LocalError, ParseError
from ike.events import (
    CloseReason,
    Datagram,
    Deadline,
    DropReason,
    Event,
    FailureReason,
    IkeKeyLogEntry,
    NotifyAnswered,
    ProbeAnswered,
    SessionSnapshot,
    TraceRecord,
)
from ike.exchanges.create_child import CreateChildSa
from ike.exchanges.exchange import Close, Fail
from ike.exchanges.informational import SendNotify, SendProbe, delete_ike_sa
from ike.exchanges.sa_init_responder import InitResponder
from ike.host import Configure, Host, Informational, Rewrite
from ike.life import LifeKind, Subscriber
from ike.numbers import ExchangeType
from ike.reauthentication import path_of
from ike.receiving import receive
from ike.sa import IkeSa, initiate
from ike.selectors import SelectorRegistry, TrafficSelectors
from ike.session import Session
from ike.strays import Strays, is_hint
from ike.wire.message import MAJOR_VERSION, NO_SPI, Header, encode_payloads
from ike.wire.payloads import NotifyPayload

__all__ = ["IkeEngine"]

MAX_NOTIFY_OCTETS = 60_000
"""What fits into one message beside its header and the Encrypted payload."""
MAX_PROBE_OCTETS = 9216
"""Jumbo frames. strongSwan takes no more than 10000 octets."""


class IkeEngine:
    """One IKE endpoint with any number of peers.

    Nothing that a datagram holds makes a method raise; wrong use by the caller is a LocalError. The owner
    takes all events first and sends datagrams second.
    """

    def __init__(
        self,
        connections: Sequence[Connection],
        *,
        entropy: Entropy,
        registry: SelectorRegistry | None = None,
        settings: EngineSettings | None = None,
        informational: Informational | None = None,
        configure: Configure | None = None,
        key_log: Callable[[IkeKeyLogEntry], None] | None = None,
        trace: Callable[[TraceRecord], None] | None = None,
        rewrite_outgoing: Rewrite | None = None,
    ) -> None:
        self._connections = {connection.name: connection for connection in connections}
        if len(self._connections) != len(connections):
            raise LocalError("two connections have one name")
        self._host = Host(
            connections,
            entropy,
            registry or SelectorRegistry(),
            settings or EngineSettings(),
            informational,
            configure,
            key_log,
            rewrite_outgoing,
        )
        self._init_responder = InitResponder(self._host)
        if trace:
            self.subscribe(lambda record: trace(record) if isinstance(record, TraceRecord) else None)
        self._tokens = 0
        self._strays = Strays(self._host)

    # --- from the network

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """One IKE message, without the four zero octets of port 4500."""
        host = self._host
        host.now = now
        try:
            header = Header.parse(data)
        except ParseError:
            host.drop(DropReason.TRUNCATED)
            return
        if header.major != MAJOR_VERSION:
            host.drop(DropReason.VERSION)
            if header.major > MAJOR_VERSION:
                self._strays.receive_version(header, path, now)
        elif header.length != len(data) or (header.spi_i == NO_SPI and not is_hint(header)):
            host.drop(DropReason.MALFORMED)
        elif header.exchange == ExchangeType.IKE_SA_INIT and not header.is_response:
            if header.is_initiator and header.spi_r == NO_SPI:
                self._init_responder.receive(data, path, now)
            else:
                host.drop(DropReason.MALFORMED)
        elif (sa := self._find(header)) is not None:
            receive(sa, header, data, path, now)
        else:
            host.drop(DropReason.UNKNOWN_SPI)
            self._strays.receive_unknown(header, data, path, now)

    def _find(self, header: Header) -> IkeSa | None:
        sa = self._host.ike_sa(header.spi_i, header.spi_r)
        if sa is None and header.exchange == ExchangeType.IKE_SA_INIT:
            sa = self._host.ike_sa(header.spi_i, NO_SPI)
        return sa

    def note_unknown_esp(self, spi: bytes, path: Path, now: float) -> bool:
        """An ESP packet came with an SPI that no child has. Its sender is told, seldom (RFC 7296 1.5).

        `path`: where an answer goes; for ESP that is not in UDP the port is that of IKE. False if there is none.
        """
        return self._strays.receive_esp(spi, path, now)

    # --- commands
    #
    # For a session or child that has just gone a command does nothing: the event that says so is on its way.

    def initiate(self, connection: str, path: Path, now: float) -> int:
        """Begin an IKE SA; the answer is IkeSaEstablished or IkeSaFailed. Returns the session."""
        self._host.now = now
        found = self._connections.get(connection)
        if found is None:
            raise LocalError(f"no connection {connection}")
        return initiate(self._host, found, path, now).number

    def create_child(
        self, session: int, child: str, now: float, trigger: TrafficSelectors | None = None
    ) -> None:
        """Ask for a child of that name. `trigger` holds selectors of the packet that wants it: ours in `tsi`.

        The answer is ChildSaEstablished or ChildSaFailed.
        """
        if found := self._established(session, now):
            if child not in {config.name for config in found.usable_children}:
                raise LocalError(f"no child {child} on this IKE SA of {found.name}")
            if found.needs_lease:
                raise LocalError(f"{found.name} has not asked for an address that the child could be for")
            found.requests.put(CreateChildSa(child, trigger))
            found.requests.pump(now)

    def rekey_child(self, session: int, spi_in: bytes, now: float) -> None:
        """A child that is being rekeyed or deleted already is left alone."""
        if found := self._established(session, now):
            found.children.rekey(spi_in)
            found.requests.pump(now)

    def delete_child(self, session: int, spi_in: bytes, now: float) -> None:
        """ChildSaClosed comes when the peer has answered."""
        if found := self._established(session, now):
            found.children.delete(spi_in, CloseReason.DELETED_LOCALLY)
            found.requests.pump(now)

    def expire_child(self, session: int, spi_in: bytes, now: float) -> None:
        """The hard lifetime of a child's ESP SAs has come: delete it (RFC 4301 4.4.2.1)."""
        if found := self._established(session, now):
            found.children.delete(spi_in, CloseReason.LIFETIME)
            found.requests.pump(now)

    def rekey_ike_sa(self, session: int, now: float) -> None:
        """IkeSaRekeyed comes when the new IKE SA is there; a rekey that is under way is left alone."""
        if found := self._established(session, now):
            found.rekey_ike_sa()
            found.requests.pump(now)

    def reauthenticate(self, session: int, now: float) -> None:
        """Open a session that replaces this one, children and all (RFC 7296 2.8.3).

        IkeSaEstablished names the one it replaces, or IkeSaFailed does and nothing has changed. One that is under
        way is left alone. LocalError where only the other end can: it has opened the session.
        """
        if found := self._established(session, now):
            path_of(found)
            found.current.authenticate_again(now)

    def delete_ike_sa(self, session: int, now: float) -> None:
        """IkeSaClosed, or IkeSaFailed before it was established, comes at once; the Delete is on its way."""
        found = self._session(session, now)
        if found and found.established_at is None:
            found.abandon(Fail(FailureReason.CLOSED_LOCALLY, "closed while connecting"), now)
        elif found:
            found.end(Close(CloseReason.DELETED_LOCALLY, "closed", (delete_ike_sa(),)), now)

    def change_address(self, session: int, path: Path, now: float) -> None:
        """Use another path (RFC 4555): IKE at once, ESP when PeerAddressChanged says that the peer has agreed.

        PathRefused: it has not. LocalError without MOBIKE, or if the peer is the session's opener and decides.
        """
        if found := self._established(session, now):
            found.location.change_path(path, now)

    def set_local_addresses(self, addresses: Sequence[str], now: float) -> None:
        """What the owner has now of the addresses that its connections name. Sessions with MOBIKE move, or tell."""
        host = self._host
        host.local_addresses = tuple(addresses)
        for session in tuple(host.sessions.values()):
            if session.established_at is not None:
                session.location.on_local_addresses(host.local_addresses, now)

    def check_liveness(self, session: int, now: float) -> None:
        """Ask the peer for a sign of life, unless a request is under way already."""
        if found := self._established(session, now):
            found.liveness.check()
            found.requests.pump(now)

    def send_notify(self, session: int, notifies: Sequence[NotifyPayload], now: float) -> int:
        """Send notifies in an INFORMATIONAL request. Returns the token of the NotifyAnswered to come.

        While the IKE SA is being rekeyed they wait; what was unanswered then is sent again on the new one.
        """
        if len(encode_payloads(notifies)[1]) > MAX_NOTIFY_OCTETS:
            raise LocalError(f"notifies of more than {MAX_NOTIFY_OCTETS} octets")
        self._tokens += 1
        if found := self._established(session, now):
            found.requests.put(SendNotify(self._tokens, notifies))
            found.requests.pump(now)
        else:
            self._host.emit(NotifyAnswered(session, self._tokens, None))
        return self._tokens

    def can_probe(self, session: int, message_octets: int = 0) -> bool:
        """Whether `send_probe` may be asked for: not of peers that are not made for long messages (RFC 7383)."""
        found = self._host.sessions.get(session)
        if found is None or found.established_at is None or message_octets > MAX_PROBE_OCTETS:
            return False
        return found.current.fragment_octets is not None

    def send_probe(self, session: int, notify_type: int, message_octets: int, now: float) -> int:
        """Send a message of that length whole, around a status notify of no meaning.

        Returns the token of the ProbeAnswered to come. With a cipher of blocks it may be up to a block longer.
        """
        self._tokens += 1
        if (found := self._established(session, now)) and self.can_probe(session, message_octets):
            found.requests.put(SendProbe(self._tokens, notify_type, message_octets))
            found.requests.pump(now)
        else:
            self._host.emit(ProbeAnswered(session, self._tokens, None))
        return self._tokens

    def note_esp_received(self, spi_in: bytes, now: float) -> None:
        """An authentic ESP packet came on a child: its peer is alive (RFC 7296 2.4)."""
        session = self._host.session_of_child(spi_in)
        if session:
            session.liveness.heard(now)

    def note_esp_sent(self, spi_in: bytes, now: float) -> None:
        """We sent ESP on the child with that `spi_in`.

        No NAT keepalive is due for a while (RFC 3948 4), and something should come back before long.
        """
        session = self._host.session_of_child(spi_in)
        if session:
            session.location.note_sent(now)
            session.liveness.note_esp_sent(now)

    def note_esp_path(self, spi_in: bytes, path: Path, now: float) -> None:
        """An authentic ESP packet, the newest of its SA by its sequence number, came over `path`.

        A peer behind a NAT is followed to a new mapping: PeerAddressChanged (RFC 7296 2.23). Only packets that
        moved the head of a replay window may be told: anybody can repeat an old one from elsewhere.
        """
        session = self._host.session_of_child(spi_in)
        if session:
            session.location.follow_esp(path, now)

    # --- to the owner

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Everything that has to leave, in its order."""
        datagrams = list(self._host.outbox)
        self._host.outbox.clear()
        return datagrams

    def next_event(self) -> Event | None:
        return self._host.events.popleft() if self._host.events else None

    def next_deadline(self) -> Deadline | None:
        """When to call `handle_timer` next."""
        return self._host.timers.next_deadline()

    def handle_timer(self, now: float) -> None:
        """Do what is due. What becomes due by doing it waits for the next call."""
        self._host.now = now
        for _ in range(len(self._host.timers)):
            key = self._host.timers.pop_due(now)
            if key is None:
                break
            self._host.note(
                LifeKind.TIMER,
                key.kind.value,
                sa=key.owner if isinstance(key.owner, IkeSa) else None,
                session=key.owner.number if isinstance(key.owner, Session) else None,
            )
            key.owner.handle_timer(key.kind, key.detail, now)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Hand `subscriber` a record of everything from now on, in the order of things; any number may look on.

        Messages as TraceRecord, the rest as LifeRecord (`ike.life`). It is called in the midst of things and must not
        call the engine. Returns what ends it.
        """
        self._host.subscribers.append(subscriber)
        return lambda: self._host.subscribers.remove(subscriber)

    @property
    def counters(self) -> Counter[DropReason]:
        """What had no effect, by reason."""
        return self._host.counters

    def sessions(self) -> tuple[SessionSnapshot, ...]:
        """Those that we began and those whose peer is authenticated."""
        return tuple(session.snapshot() for session in self._host.sessions.values())

    @property
    def is_quiet(self) -> bool:
        """Whether no request of ours waits for its answer; after deletes: the peers know."""
        return not any(sa.requests.in_flight for sa in self._host.ike_sas())

    @property
    def sizes(self) -> dict[str, int]:
        """How many entries its tables have: what a leak, or an attack, would make grow."""
        return self._host.sizes()

    # --- looking up

    def _session(self, number: int, now: float) -> Session | None:
        """None for one that is over. LocalError for a number that never was."""
        self._host.now = now
        if not self._host.was_session(number):
            raise LocalError(f"no session {number}")
        return self._host.sessions.get(number)

    def _established(self, number: int, now: float) -> Session | None:
        session = self._session(number, now)
        if session and session.established_at is None:
            raise LocalError(f"session {number} is not established")
        return session
