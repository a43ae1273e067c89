"""Pools of addresses for peers that ask for one (RFC 7296 2.19, 3.15): who has which, and who had.

Must not know IKE messages, sockets or time. An address belongs to an identity for as long as a session holds it, and is
kept for it afterwards until another identity needs it; a second session of the identity shares it only if it takes
the place of the first (it asks for that very address, or says INITIAL_CONTACT).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_interface

from endpoint.config import PoolConfig
from endpoint.config.values import Address, AddressRange
from ike import AddressRequest, Configuration
from ike.identities import identity_key, parse_peer_name
from ike.wire.identity import Identity

__all__ = ["MAX_LEASES", "Pool"]

MAX_LEASES = 65536
"""Of a pool and family: what a larger range has beyond is not used."""


@dataclass(slots=True)
class _Lease:
    """`sessions` that hold the address; none: it is kept for `owner`, the longest unused ones first to go."""

    owner: Hashable
    sessions: set[int] = field(default_factory=set)


class _Family:
    """The addresses of one IP version."""

    def __init__(self, ranges: list[AddressRange], fixed: dict[Hashable, Address]) -> None:
        self._ranges = ranges
        self._fixed = fixed
        self._reserved = frozenset(fixed.values())
        self._leases: dict[Address, _Lease] = {}
        self._by_owner: dict[Hashable, list[Address]] = {}
        self._by_session: dict[int, Address] = {}
        self._kept: dict[Address, None] = {}
        """Those that no session holds, in the order in which they became so."""
        self._unused = self._addresses()
        beside = sum(not self._has(address) for address in self._reserved)
        self.size = min(MAX_LEASES, sum(one.count for one in ranges)) + beside

    @property
    def in_use(self) -> int:
        return len(self._leases) - len(self._kept)

    def take(self, owner: Hashable, session: int, wanted: Address, *, takes_over: bool) -> Address | None:
        address = self._by_session.get(session) or self._choose(owner, wanted, takes_over)
        if address is None:
            return None
        lease = self._leases.get(address)
        if lease is not None and lease.owner != owner:
            self._forget(address)
            lease = None
        if lease is None:
            lease = self._leases[address] = _Lease(owner)
            self._by_owner.setdefault(owner, []).append(address)
        self._kept.pop(address, None)
        lease.sessions.add(session)
        self._by_session[session] = address
        return address

    def release(self, session: int) -> Address | None:
        """The address, if nobody holds it any more."""
        address = self._by_session.pop(session, None)
        if address is None:
            return None
        sessions = self._leases[address].sessions
        sessions.remove(session)
        if sessions:
            return None
        self._kept[address] = None
        return address

    def _choose(self, owner: Hashable, wanted: Address, takes_over: bool) -> Address | None:
        if owner in self._fixed:
            return self._fixed[owner]
        own = self._by_owner.get(owner, [])
        if wanted in own or (
            self._has(wanted) and wanted not in self._leases and wanted not in self._reserved
        ):
            return wanted
        for address in own:
            if takes_over or not self._leases[address].sessions:
                return address
        return next(self._unused, None) or next(
            (one for one in self._kept if one not in self._reserved), None
        )

    def _addresses(self) -> Iterator[Address]:
        """Each that was never leased and is nobody's in particular, in their order."""
        left = MAX_LEASES
        for one in self._ranges:
            for address in one.addresses(min(left, one.count)):
                left -= 1
                if address not in self._leases and address not in self._reserved:
                    yield address

    def _has(self, address: Address) -> bool:
        left = MAX_LEASES
        for one in self._ranges:
            if one.first <= address <= one.last:  # type: ignore[operator]  # one IP version
                return int(address) - int(one.first) < left
            left -= one.count
        return False

    def _forget(self, address: Address) -> None:
        owner = self._leases.pop(address).owner
        addresses = self._by_owner[owner]
        addresses.remove(address)
        if not addresses:
            del self._by_owner[owner]


class Pool:
    """One `[[pool]]`."""

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self._families: dict[int, _Family] = {}
        for version in (4, 6):
            ranges = [one for one in config.ranges if one.first.version == version]
            fixed: dict[Hashable, Address] = {
                _key(parse_peer_name(identity)): address
                for identity, addresses in config.fixed
                for address in addresses
                if address.version == version
            }
            if ranges or fixed:
                self._families[version] = _Family(ranges, fixed)

    def lease(self, request: AddressRequest) -> Configuration | None:
        """Addresses of the families that are asked for and that there are; None if there is none.

        The same session gets the same ones, however often it asks. Nobody in particular (RFC 7619) has nothing
        that is kept for it.
        """
        is_known = request.peer_id != Identity.null()
        owner = _key(request.peer_id) if is_known else ("session", request.session)
        taken: list[Address] = []
        for wanted in request.addresses:
            family = self._families.get(wanted.version)
            if family is None:
                continue
            address = family.take(owner, request.session, wanted, takes_over=request.is_only_one)
            if address is not None:
                taken.append(address)
        if not taken:
            return None
        config = self.config
        interfaces = tuple(ip_interface(f"{address}/{self._prefix_length(address)}") for address in taken)
        return Configuration(interfaces, config.dns, config.domains, config.subnets)

    def release(self, session: int) -> tuple[Address, ...]:
        """The session is over: the addresses that nobody holds any more."""
        released = (family.release(session) for family in self._families.values())
        return tuple(address for address in released if address is not None)

    def usage(self) -> dict[int, tuple[int, int]]:
        """IP version -> (addresses in use, addresses there are)."""
        return {version: (family.in_use, family.size) for version, family in self._families.items()}

    def _prefix_length(self, address: Address) -> int:
        if self.config.netmask:
            for one in self.config.ranges:
                if (
                    one.network is not None
                    and address.version == one.network.version
                    and address in one.network
                ):
                    return one.network.prefixlen
        return address.max_prefixlen


def _key(identity: object) -> Hashable:
    return identity_key(identity) if isinstance(identity, Identity) else identity
