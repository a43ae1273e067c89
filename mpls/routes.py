"""The routes of a PE: (VRF, class, prefix) -> (peer, label), from bindings and configuration (RFC 4364 4.3).

Knows nothing of packets, of Child SAs and of how a binding arrives.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from mpls.drops import DropReason
from mpls.identifiers import ClassId
from mpls.ip import Network
from mpls.labels import LabelEntry
from mpls.vrf import PrefixTable

PIPE_TTL: Final = 255
"""What a label starts with: the pipe model (RFC 3443 3.3)."""
ClassKey: TypeAlias = tuple[str, ClassId]
Source: TypeAlias = Literal["binding", "static"]


@lru_cache(maxsize=4096)
def _stacks(label: int | None) -> tuple[bytes, ...]:
    if label is None:
        return (b"",) * 8
    return tuple(LabelEntry(label, tc, True, PIPE_TTL).encode() for tc in range(8))


@dataclass(frozen=True, slots=True)
class Route:
    """A prefix that a peer serves in one (VRF, class).

    `label` None: a static route to a peer that needs none, or one that takes the per-VRF label of the peer.
    `stacks` has the encoded label stack for each TC, no octets without a label.
    """

    peer: str
    prefix: Network
    label: int | None
    source: Source = "binding"
    stacks: tuple[bytes, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stacks", _stacks(self.label))


class ForwardingTable:
    """Routes, and who may serve what. Of equal prefixes the earlier peer of `preference` wins, then the name.

    `version` changes with whatever may change an answer.

    `unlabelled`: the peers that carry plain IP packets (encapsulation none); their routes need no label.
    """

    def __init__(self, preference: Sequence[str] = (), unlabelled: Collection[str] = ()) -> None:
        self.version = 0
        self._rank: dict[str, float] = {peer: number for number, peer in enumerate(preference)}
        self._unlabelled = set(unlabelled)
        self._group: dict[str, str] = {}
        self._routes: dict[ClassKey, PrefixTable[tuple[Route, ...]]] = {}
        self._vrf_labels: dict[tuple[str, ClassKey], int] = {}
        self._candidates: dict[ClassKey, PrefixTable[tuple[str, ...]]] = {}

    def join(self, peer: str, group: str) -> None:
        """`peer` is one of several that have the place of `group`: what is said of it holds for each.

        Its own routes win over those of the group as such.
        """
        self.version += 1
        self._group[peer] = group
        self._rank[peer] = self._rank.get(group, len(self._rank)) - 0.5
        if group in self._unlabelled:
            self._unlabelled.add(peer)

    def leave(self, peer: str) -> None:
        """It is gone; who has added its routes has removed them."""
        self.version += 1
        self._group.pop(peer, None)
        self._rank.pop(peer, None)
        self._unlabelled.discard(peer)

    def add(
        self,
        peer: str,
        vrf: str,
        label_class: ClassId,
        prefix: Network,
        label: int | None,
        source: Source = "binding",
    ) -> None:
        """Install or move a route; a peer has one for a prefix of (VRF, class) from each source."""
        self.version += 1
        table = self._routes.setdefault((vrf, label_class), PrefixTable())
        others = (r for r in table.get(prefix) or () if (r.peer, r.source) != (peer, source))
        route = Route(peer, prefix, label, source)
        table[prefix] = tuple(sorted((*others, route), key=self._order))

    def remove(
        self, peer: str, vrf: str, label_class: ClassId, prefix: Network, label: int | None = None
    ) -> None:
        """Take a bound prefix away, only if it is still with `label` when that is given. Unknown: nothing."""

        def is_meant(route: Route) -> bool:
            return route.peer == peer and route.source == "binding" and label in (None, route.label)

        self._drop((vrf, label_class), prefix, is_meant)

    def bind_vrf_label(self, peer: str, vrf: str, label_class: ClassId, label: int) -> None:
        """The label for static routes to this peer in (VRF, class) that name none."""
        self.version += 1
        self._vrf_labels[peer, (vrf, label_class)] = label

    def unbind_vrf_label(self, peer: str, vrf: str, label_class: ClassId, label: int | None = None) -> None:
        """Forget it, only if it is still `label` when that is given. Unknown: nothing."""
        self.version += 1
        key = peer, (vrf, label_class)
        if label in (None, self._vrf_labels.get(key)):
            self._vrf_labels.pop(key, None)

    def remove_peer(self, peer: str, vrf: str | None = None, label_class: ClassId | None = None) -> None:
        """Take away what this peer has bound, of one (VRF, class) if given; configured things stay."""

        def is_meant(route: Route) -> bool:
            return route.peer == peer and route.source == "binding"

        for key in [key for key in self._routes if _concerns(key, vrf, label_class)]:
            for prefix in [prefix for prefix, _ in self._routes[key].items()]:
                self._drop(key, prefix, is_meant)
        self.version += 1
        for owner, key in list(self._vrf_labels):
            if owner == peer and _concerns(key, vrf, label_class):
                del self._vrf_labels[owner, key]

    def add_candidate(self, peer: str, vrf: str, label_class: ClassId, prefix: Network) -> None:
        """The peer is authorised to announce inside this prefix: a packet for it may wait for a label."""
        self.version += 1
        table = self._candidates.setdefault((vrf, label_class), PrefixTable())
        peers = {*(table.get(prefix) or ()), peer}
        table[prefix] = tuple(sorted(peers, key=self._peer_order))

    def route(
        self, vrf: str, label_class: ClassId, destination: bytes, peer: str | None = None
    ) -> Route | DropReason:
        """The route of the longest prefix for a packed address, among those of one peer or group if given.

        NO_LABEL: somebody may serve it but has no label for it, see `candidate`. NO_ROUTE: nobody may.
        """
        key = vrf, label_class
        for route in self._longest(key, destination, peer):
            if route.label is not None or route.peer in self._unlabelled:
                return route
            label = self._vrf_labels.get((route.peer, key))
            if label is not None:
                return Route(route.peer, route.prefix, label, route.source)
        if self.candidate(vrf, label_class, destination, peer) is None:
            return DropReason.NO_ROUTE
        return DropReason.NO_LABEL

    def candidate(
        self, vrf: str, label_class: ClassId, destination: bytes, peer: str | None = None
    ) -> str | None:
        """Who should bind a label for a packed address: who has a static route, else who may announce it."""
        key = vrf, label_class
        for route in self._longest(key, destination, peer):
            return route.peer
        table = self._candidates.get(key)
        if table is None:
            return None
        allowed = (name for names in table.matches(destination) for name in names)
        return next((name for name in allowed if peer in (None, name)), None)

    def has_route(self, vrf: str, address: bytes) -> bool:
        """Whether any class of the VRF has a route to the packed address: loose uRPF."""
        return any(key[0] == vrf and table.lookup(address) for key, table in self._routes.items())

    def routes(self) -> Iterator[tuple[str, ClassId, Route]]:
        """(VRF, class, route) of all of them, for the status."""
        for (vrf, label_class), table in self._routes.items():
            entries = [routes for _, routes in table.items()]
            yield from ((vrf, label_class, route) for routes in entries for route in routes)

    def _longest(self, key: ClassKey, destination: bytes, peer: str | None) -> Sequence[Route]:
        table = self._routes.get(key)
        if table is None:
            return ()
        if peer is None:
            return table.lookup(destination) or ()
        for routes in table.matches(destination):
            of_peer = [route for route in routes if peer in (route.peer, self._group.get(route.peer))]
            if of_peer:
                return of_peer
        return ()

    def _drop(self, key: ClassKey, prefix: Network, is_meant: Callable[[Route], bool]) -> None:
        self.version += 1
        table = self._routes.get(key)
        routes = table.get(prefix) if table is not None else None
        if table is None or routes is None:
            return
        kept = tuple(route for route in routes if not is_meant(route))
        if kept:
            table[prefix] = kept
        else:
            del table[prefix]

    def _peer_order(self, peer: str) -> tuple[float, str]:
        return self._rank.get(peer, len(self._rank)), peer

    def _order(self, route: Route) -> tuple[tuple[float, str], bool]:
        return self._peer_order(route.peer), route.source != "static"


def _concerns(key: ClassKey, vrf: str | None, label_class: ClassId | None) -> bool:
    return vrf in (None, key[0]) and label_class in (None, key[1])
