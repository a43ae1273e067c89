"""Which prefixes peers and other VRFs serve: told with the first user of each, withdrawn with the last.

Must not know what a user is, nor devices: who has some is told. Which label a packet gets is `mpls.routes`'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from endpoint.config import LeakConfig, Selectors, Start
from endpoint.plan import PeerPlan
from endpoint.tables import static_routes
from mpls.bindings import Prefix
from mpls.routes import ForwardingTable

__all__ = ["RouteObserver", "ServedRoutes", "User"]

User: TypeAlias = tuple[str, object]
"""Who (a peer, a VRF, a session) and what for."""
RouteObserver: TypeAlias = Callable[[str, Prefix, bool], None]
"""(VRF, prefix, whether it is there)"""


class ServedRoutes:
    """The users of each (VRF, prefix)."""

    def __init__(self, table: ForwardingTable, on_route: RouteObserver | None) -> None:
        self._table, self._on_route = table, on_route
        self._users: dict[tuple[str, Prefix], set[User]] = {}

    def users(self, vrf: str, prefix: Prefix) -> frozenset[User]:
        """Those who serve it now."""
        return frozenset(self._users.get((vrf, prefix), ()))

    def start(self, plans: Iterable[PeerPlan], leaks: Iterable[LeakConfig]) -> None:
        """What customers may send to before anything is up."""
        for plan in plans:
            for vrf, prefix in _from_the_start(plan):
                self.use(vrf, prefix, (plan.peer.name, "start"), True)
        for leak in leaks:
            for prefix in leak.prefixes:
                self.use(leak.target, prefix, (leak.source, "leak"), True)

    def use(self, vrf: str, prefix: Prefix, user: User, is_there: bool) -> None:
        """A user comes or goes."""
        users = self._users.setdefault((vrf, prefix), set())
        had_users = bool(users)
        (users.add if is_there else users.discard)(user)
        if bool(users) != had_users and self._on_route is not None:
            self._on_route(vrf, prefix, is_there)
        if not users:
            del self._users[vrf, prefix]

    def set_static(self, plan: PeerPlan, *, is_there: bool) -> None:
        """The static labels of a peer that may be native: it has them only while it is plain."""
        for route in static_routes(plan.peer):
            where = (route.peer, route.vrf, route.label_class, route.prefix)
            (self._table.add if is_there else self._table.remove)(*where, route.label)
            self.use(route.vrf, route.prefix, (route.peer, "static"), is_there)


def _from_the_start(plan: PeerPlan) -> Iterator[tuple[str, Prefix]]:
    """(VRF, prefix) that is static, or whose packets are to start the peer."""
    for granted in plan.peer.vrfs:
        yield from ((granted.name, prefix) for prefix in granted.routes)
    if plan.peer.selectors in (Selectors.PLAIN, Selectors.SECLABEL):
        yield from ((route.vrf, route.prefix) for route in static_routes(plan.peer))
    elif plan.peer.start is Start.TRAFFIC:
        yield from ((granted.name, prefix) for granted in plan.peer.vrfs for prefix in granted.accept)
