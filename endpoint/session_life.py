"""The life of a session: its peer is authenticated, it is used, it ends; what it brings comes and goes with it.

Must not know packets, sockets, or children beyond their labels. Which of several is used is `sessions.py`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from endpoint.addresses import Addresses
from endpoint.children import ChildTable
from endpoint.dataplane import DataPlane
from endpoint.labels import LabelExchanges
from endpoint.mismatches import Mismatches
from endpoint.plain_fallback import PlainFallback
from endpoint.plan import PeerPlan
from endpoint.sessions import Sessions
from endpoint.starter import Starter
from endpoint.state import EndpointState
from ike import CloseReason, FailureReason, IkeEngine, IkeSaClosed, IkeSaEstablished, IkeSaFailed
from mpls.capability import UNIFORM_MODEL, Capability, CapabilityError
from mpls.drops import DropReason
from mpls.outbound import Outbound

__all__ = ["SessionLife"]

_log = logging.getLogger("mplsec.node")


@dataclass(slots=True, eq=False)
class SessionLife:
    """All sessions of a node, and those who follow them."""

    plans: Mapping[str, PeerPlan]
    engine: IkeEngine
    sessions: Sessions
    starter: Starter
    state: EndpointState
    fallback: PlainFallback
    addresses: Addresses
    labels: LabelExchanges
    mismatches: Mismatches
    children: ChildTable
    outbound: Outbound
    dataplane: DataPlane

    def on_established(self, event: IkeSaEstablished, plan: PeerPlan, now: float) -> None:
        """The peer, whose plan is given, is authenticated."""
        session, peer = event.session, plan.peer.name
        self.addresses.on_established(event, plan.peer)
        if event.is_mobile:
            self.sessions.mobile.add(session)
        capability = _capability(event.extension_data)
        is_native = event.extension_data is not None
        # A plain peer is as it is configured; a native one has said it (WIRE 4.1).
        is_uniform = not is_native or (capability is not None and capability.has(UNIFORM_MODEL))
        self.outbound.allow_uniform(peer, is_uniform)
        if is_native:
            self.state.remember_native(self.plans[event.connection].peer.identity)
        elif not self.fallback.allows(plan, session):
            _log.error("peer %s was native before and is not now: its IKE SA is deleted", peer)
            self.starter.on_established(peer, session, is_opener=event.is_opener, is_native=False, now=now)
            self.engine.delete_ike_sa(session, now)
            return
        self.labels.open(plan, session, capability, may_fragment=event.may_fragment)
        self.sessions.choose(event, peer, now)

    def on_gone(self, event: IkeSaFailed | IkeSaClosed, now: float) -> None:
        """It failed, before or after its peer was authenticated, or is closed."""
        session = event.session
        self.addresses.on_gone(session)
        self.mismatches.forget(session)
        peer = self.sessions.remove(session)
        self.labels.close(session, now)
        self.children.forget_labels(session)
        if peer is None:
            return
        self.fallback.on_gone(self.plans[peer], session)
        if self.starter.peers[peer].session != session or self.sessions.use_another(peer, now):
            return
        refused = event.reason in (
            FailureReason.AUTHENTICATION_FAILED,
            FailureReason.NO_ADDRESS,
            CloseReason.AUTHENTICATION_FAILED,
        )
        self.starter.on_gone(peer, session, now, failed=isinstance(event, IkeSaFailed), refused=refused)
        if isinstance(event, IkeSaFailed):
            self.dataplane.drop_waiting(peer, DropReason.NO_CHILD)


def _capability(data: bytes | None) -> Capability | None:
    """What the peer said it can take; a malformed notify counts as absent (WIRE 4.1)."""
    if data is None:
        return None
    try:
        return Capability.parse(data)
    except CapabilityError:
        return None
