"""The life of a client: its plan is made with its first session or address, and goes with its last.

Must not know IKE messages or packets. Who is a client of what is `clients.py`'s; to all else it is one more peer.
"""

from __future__ import annotations

from dataclasses import dataclass

from endpoint.attempts import Attempts
from endpoint.clients import Clients
from endpoint.dataplane import DataPlane
from endpoint.path_prober import PathProber
from endpoint.plan import PeerPlan
from endpoint.starter import Starter
from ike import AddressRequest, IkeSaEstablished
from mpls.drops import DropReason
from mpls.outbound import Outbound
from mpls.routes import ForwardingTable

__all__ = ["ClientLife"]


@dataclass(slots=True, eq=False)
class ClientLife:
    """`plans` has those of clients, too, while they are there."""

    plans: dict[str, PeerPlan]
    clients: Clients
    starter: Starter
    attempts: Attempts
    table: ForwardingTable
    outbound: Outbound
    dataplane: DataPlane
    paths: PathProber

    def plan_of(self, who: AddressRequest | IkeSaEstablished) -> PeerPlan:
        """Of the authenticated peer of a session; the plan of a client is made when it is new."""
        if not self.clients.is_shared(who.connection):
            return self.plans[who.connection]
        plan, is_new = self.clients.join(who.connection, who.peer_id, who.session)
        if is_new:
            self.plans[plan.peer.name] = plan
            self.starter.add(plan)
            self.table.join(plan.peer.name, who.connection)
        return plan

    def on_session_gone(self, session: int) -> None:
        """With a client's last one nothing of it stays but children that still receive what is under way."""
        plan = self.clients.leave(session)
        if plan is None:
            return
        name = plan.peer.name
        self.dataplane.drop_waiting(name, DropReason.NO_CHILD)
        self.paths.forget(name)
        self.outbound.allow_uniform(name, True)
        self.table.leave(name)
        self.starter.remove(name)
        self.attempts.reset(name)
        del self.plans[name]
