"""One endpoint without its sockets: IKE, Child SAs, labels and data plane put together; time and octets come in.

It must not know sockets, files or clocks. Every event of `ike` is handled before its datagrams leave, so an inbound
SA is installed before the answer that lets the peer use it (RFC 7296 2.8).

    receive_ike -> IkeEngine -> events -> install, bind, flush what waits -> datagrams to the underlay
    receive_packets, receive_esp -> DataPlane
    handle_timer -> engine, back-off and start, labels, waiting packets, retired children
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from endpoint.addresses import Addresses
from endpoint.attempts import Attempts
from endpoint.child_life import ChildLife
from endpoint.children import Child, ChildTable
from endpoint.client_life import ClientLife
from endpoint.clients import ClientRoutes, Clients
from endpoint.commands import Commands
from endpoint.config import Config, Start
from endpoint.cover import CoverTraffic
from endpoint.dataplane import DataPlane, Deliver, EspArrival, Underlay
from endpoint.event_dispatch import EventDispatch
from endpoint.event_log import EventLog, Watcher
from endpoint.labels import LabelExchanges
from endpoint.mismatches import Mismatches
from endpoint.notifies import Notifies
from endpoint.packet_signals import PacketSignals
from endpoint.path_prober import PathProber
from endpoint.plain_fallback import PlainFallback
from endpoint.plan import PeerPlan, Serves, plan_peers, selector_registry
from endpoint.probe_sender import ProbeSender
from endpoint.served_routes import RouteObserver, ServedRoutes
from endpoint.session_life import SessionLife
from endpoint.sessions import Sessions
from endpoint.starter import Starter
from endpoint.state import EndpointState
from endpoint.tables import build_tables
from ike import (
    AddressRequest,
    Configuration,
    Datagram,
    Deadline,
    Event,
    IkeEngine,
    IkeKeyLogEntry,
    Path,
    TraceRecord,
)
from ike.config import EngineSettings
from ike.entropy import Entropy
from ike.wire.payloads import NotifyPayload
from mpls.binding_table import RouteAdded, RouteChange
from mpls.vrf import Interface

__all__ = ["Node", "NodeUnderlay", "Observers"]

_log = logging.getLogger("mplsec.node")


class NodeUnderlay(Underlay, Protocol):
    """Where IKE and ESP leave."""

    def send_ike(self, datagram: Datagram) -> None:
        """Send an IKE message; on a port that also carries ESP the non-ESP marker is the socket's care."""


@dataclass(frozen=True, slots=True)
class Observers:
    """Who else wants to know. None of them may change anything."""

    event: Callable[[Event], None] | None = None
    trace: Callable[[TraceRecord], None] | None = None
    ike_keys: Callable[[IkeKeyLogEntry], None] | None = None
    child: Callable[[Child], None] | None = None
    """When it is installed, and when it has moved to another path."""
    route: RouteObserver | None = None
    """What peers serve, for the attachments' routing tables."""
    address: Callable[[str, Interface, bool], None] | None = None
    """(attachment, address, whether it is there): what peers have given us."""


class Node:
    """One endpoint. `epoch` is the label epoch: the start time in seconds will do (WIRE 5.1)."""

    def __init__(
        self,
        config: Config,
        underlay: NodeUnderlay,
        deliver: Deliver,
        *,
        entropy: Entropy,
        epoch: int,
        state: EndpointState | None = None,
        observers: Observers = Observers(),
    ) -> None:
        self.config = config
        self.plans = {plan.peer.name: plan for plan in plan_peers(config)}
        self._state = state or EndpointState(None)
        connections = [self._state.tighten(plan).connection for plan in self.plans.values()]
        self.engine = IkeEngine(
            connections,
            entropy=entropy,
            registry=selector_registry(),
            settings=EngineSettings(window=config.endpoint.window),
            informational=self._on_informational,
            configure=self._lease,
            key_log=observers.ike_keys,
            trace=observers.trace,
        )
        self.clients = Clients(self.plans.values())
        self.starter = Starter(self.plans.values())
        self.sessions = Sessions(self.engine, self.starter)
        self.children = ChildTable()
        self.mismatches = Mismatches()
        self.watchers: list[Watcher] = []
        self._observers = observers
        self._underlay = underlay
        self._attempts = Attempts(
            self.plans, self.engine, self.sessions, self.starter, config.endpoint.addresses
        )
        self._commands = Commands(
            self.plans, self.clients, self.engine, self.sessions, self.starter, self.children
        )
        self._signals = PacketSignals(
            config.endpoint,
            self.plans,
            self.engine,
            self.starter,
            on_authentic=lambda child, now: self._child_life.on_authentic(child, now),
            tell_mismatch=lambda child, packet, now: self._notifies.tell_mismatch(child, packet, now),
            handle_events=self._handle_events,
        )
        self._now = 0.0
        tables = build_tables(config)
        self.space, self.table, self.outbound = tables.space, tables.table, tables.outbound
        self.labels = LabelExchanges(config, epoch, self.space, self.table, self._on_route)
        self.routes = ServedRoutes(self.table, observers.route)
        self.dataplane = DataPlane(self.outbound, self.space, self.children, underlay, self._signals, deliver)
        self._client_routes = ClientRoutes(self.table)
        self.addresses = Addresses(config, self.table, self.outbound, self.routes.use, self._set_address)
        self.routes.start(self.plans.values(), config.leaks)
        probes = ProbeSender(self.engine, self.children, self.dataplane, config.endpoint.nat_port)
        self.paths = PathProber(probes)
        self.cover = CoverTraffic(probes, entropy)
        self._client_life = ClientLife(
            plans=self.plans,
            clients=self.clients,
            starter=self.starter,
            attempts=self._attempts,
            table=self.table,
            outbound=self.outbound,
            dataplane=self.dataplane,
            paths=self.paths,
        )
        session_life = SessionLife(
            plans=self.plans,
            engine=self.engine,
            sessions=self.sessions,
            starter=self.starter,
            state=self._state,
            fallback=PlainFallback(self._state, self.routes),
            addresses=self.addresses,
            labels=self.labels,
            mismatches=self.mismatches,
            children=self.children,
            outbound=self.outbound,
            dataplane=self.dataplane,
        )
        self._child_life = ChildLife(
            config=config,
            engine=self.engine,
            entropy=entropy,
            children=self.children,
            client_routes=self._client_routes,
            starter=self.starter,
            labels=self.labels,
            state=self._state,
            paths=self.paths,
            cover=self.cover,
            flush_waiting=self._flush_waiting,
            tell=observers.child,
        )
        self._notifies = Notifies(self.engine, self.children, self.labels, self.mismatches, self.paths)
        self._dispatch = EventDispatch(
            plans=self.plans,
            sessions=self.sessions,
            starter=self.starter,
            attempts=self._attempts,
            client_life=self._client_life,
            session_life=session_life,
            child_life=self._child_life,
            notifies=self._notifies,
            addresses=self.addresses,
            paths=self.paths,
            log=EventLog(self.plans, self.sessions, self.watchers),
            observe=observers.event,
        )

    # --- what comes in

    def start(self, now: float) -> None:
        """Begin what `start = "boot"` asks for, and what was up when we were last heard of."""
        for peer, children in self._state.up.items():
            plan = self.plans.get(peer)
            if plan is not None and plan.peer.start is not Start.NONE:
                for name in children:
                    if plan.child(name) is not None:
                        self.starter.want(peer, name)
        self._finish(now)

    def receive_ike(self, data: bytes, path: Path, now: float) -> None:
        """One IKE message, without non-ESP marker."""
        self._now = now
        self.engine.receive_datagram(data, path, now)
        self._finish(now)

    def receive_esp(self, packets: Iterable[EspArrival], now: float) -> None:
        """ESP packets with where they came from and to."""
        self._now = now
        self.dataplane.receive_esp(packets, now)
        self._finish_if_asked(now)

    def receive_cleartext(self, protocol: int, payload: bytes) -> None:
        """What arrived on the underlay outside ESP."""
        self.dataplane.receive_cleartext(protocol, payload)

    def receive_path_hint(self, address: str, mtu: int, now: float) -> None:
        """ICMP says that packets to `address` may have at most `mtu` octets. Anybody can say that."""
        self.paths.on_hint(address, mtu, now)

    def receive_packets(self, attachment: str, packets: Sequence[bytes], now: float) -> None:
        """IP packets from a customer, with labels where the attachment is labelled."""
        self._now = now
        self.dataplane.receive_packets(attachment, packets, now)
        self._finish_if_asked(now)

    def handle_timer(self, now: float) -> None:
        """Whatever is due at `now`."""
        self._now = now
        self.engine.handle_timer(now)
        self.dataplane.expire(now)
        self._child_life.expire(now)
        self.paths.handle_timer(now)
        self.cover.handle_timer(now)
        self._state.expire(now)
        self.space.expire(now)
        self.labels.expire(now)
        self._finish(now)

    def close(self) -> None:
        """The end: what is to be kept is written."""
        self._state.flush()

    def next_deadline(self) -> Deadline | None:
        """When `handle_timer` wants to be called, and why."""
        deadlines = [self.engine.next_deadline()]
        for at, reason in (
            (self.starter.next_deadline(), "start"),
            (self.dataplane.next_deadline(), "waiting packets"),
            (self.children.next_deadline(), "retired children"),
            (self.space.next_deadline(), "label drain"),
            (self.paths.next_deadline(), "path MTU"),
            (self.cover.next_deadline(), "dummies"),
            (self._state.next_deadline(), "state"),
            (self.labels.next_deadline(), "bindings"),
        ):
            if at is not None:
                deadlines.append(Deadline(at, reason))
        return min((one for one in deadlines if one is not None), key=lambda one: one.at, default=None)

    # --- commands

    def initiate(self, peer: str, child: str | None, now: float) -> None:
        """Bring up a peer's children, or one of them. LookupError for names that are not there."""
        self._commands.initiate(peer, child)
        self._finish(now)

    def terminate(self, peer: str, child: str | None, now: float) -> int:
        """Delete a peer's IKE SAs, or one kind of child; how many were there. An entry's are those of its clients."""
        count = self._commands.terminate(peer, child, now)
        self._finish(now)
        return count

    def shut_down(self, now: float) -> None:
        """Delete every IKE SA and begin nothing any more."""
        self.starter.stop()
        for session in self.sessions:
            self.engine.delete_ike_sa(session, now)
        self._finish(now)

    def rekey(self, peer: str, child: str | None, now: float, *, ike: bool = False) -> int:
        """Rekey a peer's children, or one kind of them, or its IKE SA; how many were begun."""
        count = self._commands.rekey(peer, child, now, ike=ike)
        self._finish(now)
        return count

    def reauthenticate(self, peer: str, now: float) -> int:
        """Authenticate again, with a new IKE SA; how many were begun. LocalError where only the peer can."""
        count = self._commands.reauthenticate(peer, now)
        self._finish(now)
        return count

    def set_local_addresses(self, addresses: Iterable[str], now: float) -> None:
        """These of our addresses can be used now. Sessions with MOBIKE move (RFC 4555), attempts begin there."""
        present = set(addresses)
        self._attempts.local_addresses = tuple(
            one for one in self.config.endpoint.addresses if one in present
        )
        self.engine.set_local_addresses(self._attempts.local_addresses, now)
        self._finish(now)

    def is_up(self, peer: str, child: str | None) -> bool:
        """Whether a child can be sent on; without a name, every child that this peer can have now."""
        state = self.starter.peers[peer]
        names = [child] if child is not None else [name for name, _ in state.usable()]
        return state.is_up and all(
            any(one.may_send for one in self.children.of_kind(peer, name)) for name in names
        )

    def session_peer(self, session: int) -> str:
        """The peer of a session."""
        return self.sessions.peer(session) or ""

    # --- after every input

    def _finish_if_asked(self, now: float) -> None:
        """After packets: only if the data plane wants something of IKE, which most packets do not."""
        if self._signals.is_asked:
            self._finish(now)

    def _finish(self, now: float) -> None:
        """Handle events, start what is due, then let the datagrams go; until nothing is left to do."""
        self._now = now
        self._signals.is_asked = False
        is_busy = True
        while is_busy:
            is_busy = self._handle_events(now)
            for action in self.starter.due(now):
                is_busy = True
                self._attempts.begin(action, now)
            is_busy = self._notifies.send_bindings(now) or is_busy
        for datagram in self.engine.datagrams_to_send(now):
            self._underlay.send_ike(datagram)

    def _handle_events(self, now: float) -> bool:
        """Whether there were any."""
        had_events = False
        while (event := self.engine.next_event()) is not None:
            had_events = True
            self._dispatch.handle(event, now)
        return had_events

    # --- what the parts ask of each other

    def _lease(self, request: AddressRequest) -> Configuration | None:
        return self.addresses.lease(request, self._client_life.plan_of(request).peer)

    def _on_informational(
        self, session: int, notifies: tuple[NotifyPayload, ...]
    ) -> tuple[NotifyPayload, ...]:
        return self._notifies.answer(session, self.session_peer(session), notifies, self._now)

    def _flush_waiting(self, plan: PeerPlan, serves: Serves, now: float) -> None:
        """What waits for this peer, or for any client of its entry."""
        for name in filter(None, (plan.peer.name, plan.entry)):
            self.dataplane.flush_waiting(name, serves, now)

    def _on_route(self, session: int, peer: str, change: RouteChange) -> None:
        is_there = isinstance(change, RouteAdded)
        if is_there:
            self.children.label_sessions[peer, change.label] = session
        if change.prefix is not None:
            # A prefix is on one label of a (VRF, class) at a time; when it moves, only its new place is told.
            user = (str(session), change.label_class)
            self.routes.use(change.vrf, change.prefix, user, is_there)
        if is_there:
            self._flush_waiting(self.plans[peer], (change.vrf, change.label_class), self._now)

    def _set_address(self, attachment: str, address: Interface, is_there: bool) -> None:
        if self._observers.address is not None:
            self._observers.address(attachment, address, is_there)
