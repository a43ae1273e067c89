"""What the starter says is begun: an IKE SA between the next pair of addresses, or a child on the session in use.

Must not know when or why; what fails at once is told to the starter, which waits and tries again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from endpoint.plan import PeerPlan
from endpoint.sessions import Sessions
from endpoint.starter import Create, Initiate, Starter
from ike import IkeEngine, LocalError, Path

__all__ = ["Attempts"]

_log = logging.getLogger("mplsec.node")


class Attempts:
    """The addresses of ours that are there, and how often each peer was tried since it was last up."""

    def __init__(
        self,
        plans: Mapping[str, PeerPlan],
        engine: IkeEngine,
        sessions: Sessions,
        starter: Starter,
        local_addresses: Iterable[str],
    ) -> None:
        self._plans, self._engine = plans, engine
        self._sessions, self._starter = sessions, starter
        self.local_addresses = tuple(local_addresses)
        self._counts: Counter[str] = Counter()

    def begin(self, action: Initiate | Create, now: float) -> None:
        """Do what the starter says."""
        try:
            if isinstance(action, Create):
                self._engine.create_child(action.session, action.child, now)
            else:
                session = self._engine.initiate(action.peer, self._path(self._plans[action.peer]), now)
                self._sessions.add(session, action.peer)
                self._starter.on_initiated(action.peer, session)
        except LocalError as error:
            _log.error("peer %s: %s", action.peer, error)
            if isinstance(action, Create):
                self._starter.on_child_failed(action.peer, action.child, now, detail=str(error))
            else:
                self._starter.on_not_initiated(action.peer, now)

    def reset(self, peer: str) -> None:
        """It was reached, or is a peer no more: the next attempt is a first one."""
        self._counts.pop(peer, None)

    def _path(self, plan: PeerPlan) -> Path:
        """From one of our addresses to one of the peer's, in their order, the next pair at each attempt."""
        pairs = [
            (local, peer)
            for peer in plan.connection.peer_addresses
            for local in self.local_addresses
            if local in plan.connection.local_addresses
            and ip_address(local).version == ip_address(peer).version
        ]
        if not pairs:
            raise LocalError("none of our addresses that are there can reach one of its")
        local, peer = pairs[self._counts[plan.peer.name] % len(pairs)]
        self._counts[plan.peer.name] += 1
        return Path((local, plan.connection.local_port), (peer, plan.peer.port))
