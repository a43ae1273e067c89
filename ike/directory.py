"""The connections of an engine, found by address and by identity without looking at each (RFC 4301 4.4.3).

Must not know messages or IKE SAs. What is found is what going through all of them in their order would find.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import cached_property

from ike.config import Connection
from ike.exchanges.credentials import certificate_requests, hash_announcement
from ike.identities import identity_key, stands_for
from ike.wire.identity import Identity
from ike.wire.payloads import CertreqPayload, NotifyPayload
from ike.wire.sa import Proposal

__all__ = ["Admission", "ConnectionDirectory", "is_at"]


class Admission:
    """The connections that a peer at one address may mean, and what IKE_SA_INIT has to say for all of them."""

    def __init__(self, connections: tuple[Connection, ...]) -> None:
        self.connections = connections

    @cached_property
    def proposals(self) -> tuple[Proposal, ...]:
        """Every IKE proposal once, in the order of preference."""
        return tuple(
            dict.fromkeys(one for connection in self.connections for one in connection.ike_proposals)
        )

    @cached_property
    def certificate_requests(self) -> tuple[CertreqPayload, ...]:
        return certificate_requests(self.connections)

    @cached_property
    def hash_announcement(self) -> tuple[NotifyPayload, ...]:
        return hash_announcement(self.connections)

    @cached_property
    def vendor_ids(self) -> frozenset[bytes]:
        return frozenset(one.extension.vendor_id for one in self.connections if one.extension)

    @cached_property
    def fragment_octets(self) -> int | None:
        """The smallest IP packet that a fragment may fill; None if nobody wants fragments."""
        sizes = (connection.fragment_octets for connection in self.connections)
        return min((octets for octets in sizes if octets is not None), default=None)

    @cached_property
    def forces_udp(self) -> bool:
        return any(connection.force_udp for connection in self.connections)

    @cached_property
    def forbids_udp(self) -> bool:
        return all(connection.forbid_udp for connection in self.connections)


class ConnectionDirectory:
    """Made once; a look-up by address is remembered, for as many addresses as connections name."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.connections = tuple(connections)
        self._addresses = {
            address for one in connections for address in (*one.local_addresses, *one.peer_addresses)
        }
        self._admissions: dict[tuple[str, str], Admission] = {}
        self._named: defaultdict[Hashable, list[Connection]] = defaultdict(list)
        self._collective = [one for one in connections if not isinstance(one.peer_id, Identity)]
        for one in connections:
            if isinstance(one.peer_id, Identity):
                self._named[identity_key(one.peer_id)].append(one)

    def at(self, local: str, peer: str) -> Admission:
        """Those that a peer at this address may mean. An address that no connection names is like any other such."""
        key = tuple(address if address in self._addresses else "" for address in (local, peer))
        admission = self._admissions.get((key[0], key[1]))
        if admission is None:
            admission = Admission(tuple(one for one in self.connections if is_at(one, local, peer)))
            self._admissions[key[0], key[1]] = admission
        return admission

    def meant_by(self, identity: Identity) -> list[Connection]:
        """Those for this identity, wherever it is: by name, or one of many."""
        named = self._named.get(identity_key(identity), [])
        return [one for one in (*named, *self._collective) if stands_for(one.peer_id, identity)]


def is_at(connection: Connection, local: str, peer: str) -> bool:
    """Whether a peer at this address may mean the connection."""
    return (not connection.local_addresses or local in connection.local_addresses) and (
        not connection.peer_addresses or peer in connection.peer_addresses
    )
