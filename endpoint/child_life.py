"""The life of a child: it is installed, sent on, replaced, deleted, drained; who has to know is told (RFC 7296 2.8).

Must not know packets, sockets or how sessions are chosen. What a child is made of is `children.py`'s.

    established -> installed, receives -> may send (at once, or when that which it replaces is over)
                -> our Delete begins: only receives -> closed: still receives for RETIRE_S -> removed
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from endpoint.children import Child, ChildTable, install
from endpoint.clients import ClientRoutes
from endpoint.config import Config
from endpoint.cover import CoverTraffic
from endpoint.labels import LabelExchanges
from endpoint.path_prober import PathProber
from endpoint.plan import PeerPlan, Serves
from endpoint.starter import Starter
from endpoint.state import EndpointState
from esp.errors import EspError
from ike import (
    ChildSaClosed,
    ChildSaDeletionBegun,
    ChildSaEstablished,
    CloseReason,
    IkeEngine,
    PeerAddressChanged,
)
from ike.entropy import Entropy

__all__ = ["ChildLife"]

_log = logging.getLogger("mplsec.node")

RETIRE_S: Final = 2.0
"""How long a closed child still receives what was under way when it was closed."""
TAKE_OVER_S: Final = 2.0
"""How long the child of an older session is sent on beside one that the peer has just asked for."""
_STILL_UNDER_WAY = frozenset(
    (CloseReason.REKEYED, CloseReason.REDUNDANT, CloseReason.DELETED_BY_PEER, CloseReason.IKE_SA_CLOSED)
)
"""Why a child is gone of which packets may be on their way, or wait in a socket: they are taken for RETIRE_S."""


@dataclass(slots=True, eq=False)
class ChildLife:
    """All children of a node, and those who follow them.

    flush_waiting  a child may send: let go what waits for it
    tell           a child was installed, or has moved to another path
    """

    config: Config
    engine: IkeEngine
    entropy: Entropy
    children: ChildTable
    client_routes: ClientRoutes
    starter: Starter
    labels: LabelExchanges
    state: EndpointState
    paths: PathProber
    cover: CoverTraffic
    flush_waiting: Callable[[PeerPlan, Serves, float], None]
    tell: Callable[[Child], None] | None

    def on_established(
        self, event: ChildSaEstablished, plan: PeerPlan, now: float, *, is_mobile: bool
    ) -> None:
        """Install it; delete it where that cannot be. `is_mobile`: its session has MOBIKE."""
        twins = self.children.of_kind(plan.peer.name, event.child.name)
        try:
            early = int.from_bytes(self.entropy.octets(2), "big") / 65536
            child = install(
                self.config,
                plan,
                event.session,
                event.child,
                may_send=event.use_outbound,
                early=early,
                is_mobile=is_mobile,
            )
            child.replaces = event.replaces
            self.client_routes.add(child)
            self.children.add(child)
        except (EspError, LookupError, ValueError) as error:
            self.client_routes.remove(event.child.spi_in)
            _log.error("peer %s, child %s: %s", plan.peer.name, event.child.name, error)
            self.starter.on_child_failed(plan.peer.name, event.child.name, now, detail=str(error))
            self.engine.delete_child(event.session, event.child.spi_in, now)
            return
        self._send_on_elder(child, twins, now)
        if plan.peer.tfc_octets and not child.tfc_octets:
            _log.warning(
                "peer %s, child %s: no padding, it says ESP_TFC_PADDING_NOT_SUPPORTED",
                child.peer,
                child.kind.name,
            )
        self.cover.on_child(child, now)
        self.starter.on_child(child.peer, child.kind.name, now)
        self._remember_up(child.plan, now)
        if self.tell is not None:
            self.tell(child)
        exchange = self.labels.get(event.session)
        if exchange is not None:
            exchange.on_child(child)
        if event.replaces is None:
            for twin in twins:
                if twin.kind.is_native and twin.session == child.session:
                    self._resolve_duplicate(twin, child, now)
        if child.may_send:
            self.begin_sending(child, now)

    def _send_on_elder(self, child: Child, twins: Sequence[Child], now: float) -> None:
        """A peer that comes again, to authenticate, may have its new child only when it has read our answer.

        Until it sends on it the one of its older session is used, if that stays. Native children wait for labels.
        """
        elders = [one for one in twins if one.may_send and one.session != child.session]
        if elders and child.may_send and not (child.sa.is_creator or child.kind.is_native):
            child.replaces = elders[-1].sa.spi_in
            self.children.hold(child, now + TAKE_OVER_S)

    def _resolve_duplicate(self, first: Child, second: Child, now: float) -> None:
        """Both ends made a child of one key: the creator of that with the lowest nonce deletes it (WIRE 4.3)."""
        if first.sa.is_creator == second.sa.is_creator:
            return
        loser, winner = sorted((first, second), key=lambda child: child.sa.lowest_nonce)
        if loser.sa.is_creator:
            # The peer may not have read our answer about the winner: it has by the time the loser is closed.
            winner.replaces = loser.sa.spi_in
            self.children.hold(winner, now + TAKE_OVER_S)
            self.engine.delete_child(loser.session, loser.sa.spi_in, now)

    def begin_sending(self, child: Child, now: float) -> None:
        """Packets leave by it from now on."""
        child.may_send = True
        self.paths.on_child(child, now)
        for serves in child.kind.serves:
            self.flush_waiting(child.plan, serves, now)

    def on_authentic(self, child: Child, now: float) -> None:
        """The peer sends on it, so it has it: what waited for that is over."""
        if not (child.may_send or child.is_deleting) and child.retires_at is None:
            self.begin_sending(child, now)

    def _send_on_successors(self, gone: Child, now: float, *, is_closed: bool) -> None:
        """Nothing leaves by that child any more: those that replace it take over (RFC 7296 2.8).

        What is held does so when it is closed: a peer that has answered our Delete has read what we sent before.
        """
        for child in self.children.of_peer(gone.peer):
            is_free = not (child.may_send or child.is_deleting) and (is_closed or child.sends_from is None)
            if is_free and child.replaces == gone.sa.spi_in:
                self.begin_sending(child, now)

    def on_deletion_begun(self, event: ChildSaDeletionBegun, now: float) -> None:
        """Our Delete for it is on its way."""
        child = self.children.get(event.spi_in)
        if child is not None:
            child.is_deleting, child.may_send = True, False
            self.children.stop_sending(child)
            self._send_on_successors(child, now, is_closed=False)

    def on_closed(self, event: ChildSaClosed, now: float) -> None:
        """Drain it or remove it; tell those who counted on it."""
        child = self.children.get(event.spi_in)
        if child is None or child.retires_at is not None:
            return
        self.starter.on_child_gone(
            child.peer, child.kind.name, now, by_peer=event.reason is CloseReason.DELETED_BY_PEER
        )
        self.children.stop_sending(child)
        self.client_routes.remove(event.spi_in)
        if event.reason in _STILL_UNDER_WAY:
            self.children.close(child, now + RETIRE_S)
        else:
            self.children.remove(child)
        self._remember_up(child.plan, now)
        self._send_on_successors(child, now, is_closed=True)
        if not self.children.of_peer(child.peer):
            self.paths.forget(child.peer)
        siblings = self.children.of_kind(child.peer, child.kind.name)
        exchange = self.labels.get(child.session)
        if exchange is not None and not any(one.session == child.session for one in siblings):
            for vrf, label_class in child.kind.serves:
                exchange.on_last_child_closed(vrf, label_class, now)

    def on_moved(self, event: PeerAddressChanged, now: float) -> None:
        """Children that are retired only receive what is under way from where the peer was."""
        for sa in event.children:
            child = self.children.get(sa.spi_in)
            if child is not None:
                child.move(sa)
                self.paths.on_child(child, now)
                if self.tell is not None:
                    self.tell(child)

    def expire(self, now: float) -> None:
        """Remove those whose grace is over; send on those that were held until now."""
        self.children.retire(now)
        for child in self.children.release(now):
            self.begin_sending(child, now)

    def _remember_up(self, plan: PeerPlan, now: float) -> None:
        peer = plan.peer
        if not peer.is_any:  # such a peer cannot be called after a restart
            self.state.remember_up(
                peer.name, {child.kind.name for child in self.children.of_peer(peer.name)}, now
            )
