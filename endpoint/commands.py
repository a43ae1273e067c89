"""An operator's commands about peers: bring up, terminate, rekey, authenticate again. An entry's are its clients'.

Must not know who gives them, nor when messages leave. LookupError for names that are not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from endpoint.children import ChildTable
from endpoint.clients import Clients
from endpoint.plan import PeerPlan
from endpoint.sessions import Sessions
from endpoint.starter import Starter
from ike import IkeEngine

__all__ = ["Commands"]


@dataclass(slots=True, eq=False)
class Commands:
    """Each returns how many SAs there were to do it with."""

    plans: Mapping[str, PeerPlan]
    clients: Clients
    engine: IkeEngine
    sessions: Sessions
    starter: Starter
    children: ChildTable

    def initiate(self, peer: str, child: str | None) -> None:
        self._check(peer, child)
        self.starter.want(peer, child)

    def terminate(self, peer: str, child: str | None, now: float) -> int:
        self._check(peer, child)
        if clients := self.clients.names(peer):
            return sum(self.terminate(client, child, now) for client in clients)
        self.starter.hold(peer, child)
        if child is None:
            sessions = self.sessions.of_peer(peer)
            for session in sessions:
                self.engine.delete_ike_sa(session, now)
            return len(sessions)
        children = self.children.of_kind(peer, child)
        for one in children:
            self.engine.delete_child(one.session, one.sa.spi_in, now)
        return len(children)

    def rekey(self, peer: str, child: str | None, now: float, *, ike: bool) -> int:
        self._check(peer, child)
        if clients := self.clients.names(peer):
            return sum(self.rekey(client, child, now, ike=ike) for client in clients)
        if ike:
            state = self.starter.peers[peer]
            if state.session is None or not state.is_up:
                return 0
            self.engine.rekey_ike_sa(state.session, now)
            return 1
        names = [child] if child is not None else [one.name for one in self.plans[peer].children]
        present = [one for name in names for one in self.children.of_kind(peer, name)]
        replaced = {one.replaces for one in present}
        children = [one for one in present if one.sa.spi_in not in replaced]
        for one in children:
            self.engine.rekey_child(one.session, one.sa.spi_in, now)
        return len(children)

    def reauthenticate(self, peer: str, now: float) -> int:
        self._check(peer, None)
        state = self.starter.peers[peer]
        if state.session is None or not state.is_up:
            return 0
        self.engine.reauthenticate(state.session, now)
        return 1

    def _check(self, peer: str, child: str | None) -> None:
        plan = self.plans.get(peer)
        if plan is None:
            names = ", ".join(name for name, one in self.plans.items() if one.entry is None)
            raise LookupError(f"no peer {peer}; there are: {names or 'none'}")
        if child is not None and plan.child(child) is None:
            names = ", ".join(one.name for one in plan.children)
            raise LookupError(f"peer {peer} has no child {child}; there are: {names or 'none'}")
