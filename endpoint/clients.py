"""Clients: the peers that share one `[[peer]]` whose identity stands for several, each with a plan of its own.

A client is an authenticated identity. It is there from the first session of that identity, or the address that it is
given, to the last. Must not know IKE messages or packets; what it may do is what its entry says.

    branch                           the entry, for `*.branch.example`
    branch/fqdn:west.branch.example  one of its clients: the peer's name in status, commands, tables and logs
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import summarize_address_range

from endpoint.children import Child
from endpoint.plan import PeerPlan
from ike.identities import identity_key
from ike.numbers import IdType
from ike.selectors import AddressSelector
from ike.wire.identity import Identity
from mpls.encapsulation import Encapsulation
from mpls.identifiers import ClassId
from mpls.ip import Network
from mpls.routes import ForwardingTable

__all__ = ["MAX_PREFIXES", "ClientRoutes", "Clients"]

MAX_PREFIXES = 64
"""That one child of a client may be for: each becomes a route."""
_KINDS: dict[int, str] = {IdType.FQDN: "fqdn:", IdType.RFC822_ADDR: "mail:"}
"""What stands before texts that do not say what they are."""


@dataclass(slots=True)
class _Client:
    plan: PeerPlan
    sessions: set[int] = field(default_factory=set)


class Clients:
    """Who is there of all shared entries."""

    def __init__(self, entries: Iterable[PeerPlan]) -> None:
        self._entries = {plan.peer.name: plan for plan in entries if plan.peer.is_shared}
        self._clients: dict[tuple[str, Hashable], _Client] = {}
        self._by_session: dict[int, tuple[str, Hashable]] = {}
        self._of_entry: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def is_shared(self, entry: str) -> bool:
        return entry in self._entries

    def names(self, entry: str) -> tuple[str, ...]:
        """The clients of an entry, in the order in which they came."""
        return tuple(self._of_entry.get(entry, ()))

    def join(self, entry: str, identity: Identity, session: int) -> tuple[PeerPlan, bool]:
        """The plan of the client whose session this is, and whether the client is a new one."""
        key = entry, identity_key(identity)
        client = self._clients.get(key)
        is_new = client is None
        if client is None:
            client = self._clients[key] = _Client(self._plan(entry, identity))
            self._of_entry[entry][client.plan.peer.name] = None
        client.sessions.add(session)
        self._by_session[session] = key
        return client.plan, is_new

    def leave(self, session: int) -> PeerPlan | None:
        """The session is over: the plan of the client if it was its last."""
        key = self._by_session.pop(session, None)
        client = self._clients.get(key) if key is not None else None
        if key is None or client is None:
            return None
        client.sessions.discard(session)
        if client.sessions:
            return None
        del self._clients[key]
        del self._of_entry[key[0]][client.plan.peer.name]
        return client.plan

    def _plan(self, entry: str, identity: Identity) -> PeerPlan:
        text = identity.text()
        if identity.id_type in _KINDS:
            text = text.lower()
        wanted = name = f"{entry}/{_KINDS.get(identity.id_type, '')}{text}"
        # Octets tell identities apart; what two of them look like can be one text.
        number = 1
        while name in self._of_entry[entry]:
            number += 1
            name = f"{wanted}#{number}"
        plan = self._entries[entry]
        return replace(plan, peer=replace(plan.peer, name=name, identity=text), entry=entry)


class ClientRoutes:
    """What is behind clients with plain IP and without addresses from a pool: what their children were made for.

    A prefix is the client's who came first, for as long as a child of it is for the prefix.
    """

    def __init__(self, table: ForwardingTable) -> None:
        self._table = table
        self._users: dict[tuple[str, Network], tuple[str, set[bytes]]] = {}
        """(VRF, prefix) -> whose it is, and the SPIs of the children."""
        self._of_child: dict[bytes, tuple[str, ClassId, list[tuple[str, Network]]]] = {}

    def add(self, child: Child) -> None:
        """Route to the client what its child is for. ValueError, and nothing has changed, if that is another's."""
        if child.plan.entry is None or child.plan.peer.encapsulation is not Encapsulation.NONE:
            return
        if child.plan.peer.pool is not None:
            return  # its routes are those of its lease
        vrf, label_class = child.kind.serves[0]
        prefixes = _prefixes(child)
        for (where, other), (owner, _) in self._users.items():
            if where == vrf and owner != child.peer and any(_overlap(other, one) for one in prefixes):
                raise ValueError(f"{other} is behind {owner}")
        spi_in = child.sa.spi_in
        for prefix in prefixes:
            self._table.add(child.peer, vrf, label_class, prefix, None)
            self._users.setdefault((vrf, prefix), (child.peer, set()))[1].add(spi_in)
        self._of_child[spi_in] = child.peer, label_class, [(vrf, prefix) for prefix in prefixes]

    def remove(self, spi_in: bytes) -> None:
        """The child is closed."""
        peer, label_class, places = self._of_child.pop(spi_in, ("", 0, []))
        for vrf, prefix in places:
            _, children = self._users[vrf, prefix]
            children.discard(spi_in)
            if not children:
                del self._users[vrf, prefix]
                self._table.remove(peer, vrf, label_class, prefix)


def _prefixes(child: Child) -> tuple[Network, ...]:
    """What its traffic selectors are, each once. ValueError for too many, before all are made: the peer chose them."""
    found: dict[Network, None] = {}
    for start, end in dict.fromkeys(
        (one.start, one.end) for one in child.sa.peer_ts if isinstance(one, AddressSelector)
    ):
        for prefix in summarize_address_range(start, end):
            found[prefix] = None
            if len(found) > MAX_PREFIXES:
                raise ValueError(f"its traffic selectors are more than {MAX_PREFIXES} prefixes")
    return tuple(found)


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
