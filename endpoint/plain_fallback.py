"""`selectors = "native-or-plain"`: when such a peer may be plain, and its static labels while it is (WIRE 4.2).

Must not know IKE messages. Once native has succeeded with an identity it is never plain again.
"""

from __future__ import annotations

from endpoint.config import Selectors
from endpoint.plan import PeerPlan
from endpoint.served_routes import ServedRoutes
from endpoint.state import EndpointState

__all__ = ["PlainFallback"]


class PlainFallback:
    """The plain sessions of peers that could be native."""

    def __init__(self, state: EndpointState, routes: ServedRoutes) -> None:
        self._state, self._routes = state, routes
        self._sessions: dict[str, set[int]] = {}

    def allows(self, plan: PeerPlan, session: int) -> bool:
        """The peer is plain in this session: whether it may be; with its first one come its static labels."""
        if plan.peer.selectors is not Selectors.NATIVE_OR_PLAIN:
            return True
        if plan.peer.identity in self._state.native:
            return False
        sessions = self._sessions.setdefault(plan.peer.name, set())
        if not sessions:
            self._routes.set_static(plan, is_there=True)
        sessions.add(session)
        return True

    def on_gone(self, plan: PeerPlan, session: int) -> None:
        """A session of the peer is over; with the last plain one its static labels go."""
        sessions = self._sessions.get(plan.peer.name, set())
        if session in sessions:
            sessions.remove(session)
            if not sessions:
                del self._sessions[plan.peer.name]
                self._routes.set_static(plan, is_there=False)
