"""Which part of the endpoint each event of the engine goes to, and in which order.

Must not know what a part makes of it, nor when events are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from endpoint.addresses import Addresses
from endpoint.attempts import Attempts
from endpoint.child_life import ChildLife
from endpoint.client_life import ClientLife
from endpoint.event_log import EventLog
from endpoint.notifies import Notifies
from endpoint.path_prober import PathProber
from endpoint.plan import PeerPlan
from endpoint.session_life import SessionLife
from endpoint.sessions import Sessions
from endpoint.starter import Starter
from ike import (
    AddressesUnused,
    ChildSaClosed,
    ChildSaDeletionBegun,
    ChildSaEstablished,
    ChildSaFailed,
    Event,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaRekeyed,
    NotifyAnswered,
    PathRefused,
    PeerAddressChanged,
    ProbeAnswered,
)

__all__ = ["EventDispatch"]


@dataclass(slots=True, eq=False)
class EventDispatch:
    """`observe` is called last, when the event has had its effect."""

    plans: Mapping[str, PeerPlan]
    sessions: Sessions
    starter: Starter
    attempts: Attempts
    client_life: ClientLife
    session_life: SessionLife
    child_life: ChildLife
    notifies: Notifies
    addresses: Addresses
    paths: PathProber
    log: EventLog
    observe: Callable[[Event], None] | None

    def handle(self, event: Event, now: float) -> None:
        """One event."""
        if isinstance(event, IkeSaEstablished):
            self.sessions.add(event.session, self.client_life.plan_of(event).peer.name)
        self.log.tell(event, now)
        match event:
            case IkeSaEstablished():
                plan = self.plans[self.sessions.peer_of(event)]
                self.attempts.reset(plan.peer.name)
                self.session_life.on_established(event, plan, now)
            case IkeSaFailed() | IkeSaClosed():
                self.session_life.on_gone(event, now)
                self.client_life.on_session_gone(event.session)
            case ChildSaEstablished():
                plan, is_mobile = (
                    self.plans[self.sessions.peer_of(event)],
                    event.session in self.sessions.mobile,
                )
                self.child_life.on_established(event, plan, now, is_mobile=is_mobile)
            case ChildSaFailed():
                self.starter.on_child_failed(
                    self.sessions.peer_of(event), event.child, now, event.notify_type, event.detail
                )
            case ChildSaDeletionBegun():
                self.child_life.on_deletion_begun(event, now)
            case ChildSaClosed():
                self.child_life.on_closed(event, now)
            case PeerAddressChanged():
                self.child_life.on_moved(event, now)
            case NotifyAnswered():
                self.notifies.on_answered(event, now)
            case AddressesUnused():
                self.addresses.take_back(event.session)
            case ProbeAnswered():
                self.paths.on_probe_answer(event.token, event.arrived, now)
            case IkeSaRekeyed() | PathRefused():
                pass
        if self.observe is not None:
            self.observe(event)
