"""Addresses that one end of an IKE SA gets from the other, put to use (RFC 7296 2.19, 3.15).

    pe gives    AddressRequest -> pool -> lease -> a route to the peer for it       until the session is over
    pe gets     IkeSaEstablished.assigned -> an address of ours in the peer's VRF   until the session is over

Must not know how they were negotiated, nor devices: those who have some are told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import ip_interface, ip_network
from typing import TypeAlias

from endpoint.config import Config, PeerConfig
from endpoint.pool import Pool
from ike import AddressRequest, Configuration, IkeSaEstablished
from mpls.ip import Network
from mpls.outbound import Outbound
from mpls.routes import ForwardingTable
from mpls.vrf import Interface

__all__ = ["Addresses"]

Place: TypeAlias = tuple[str, str]
"""A VRF and its attachment."""


class Addresses:
    """What the sessions of a node have given and got.

    `on_route(VRF, prefix, user, is_there)`: for the first and last user of a leased address; `on_address(attachment,
    address, is_there)`: for one that we got.
    """

    def __init__(
        self,
        config: Config,
        table: ForwardingTable,
        outbound: Outbound,
        on_route: Callable[[str, Network, tuple[str, object], bool], None],
        on_address: Callable[[str, Interface, bool], None],
    ) -> None:
        self.pools = {pool.name: Pool(pool) for pool in config.pools}
        self._config, self._table, self._outbound = config, table, outbound
        self._on_route, self._on_address = on_route, on_address
        self._leased: dict[int, tuple[PeerConfig, Configuration]] = {}
        self._assigned: dict[int, tuple[Place, tuple[Interface, ...]]] = {}
        self._uses: Counter[tuple[Place, Interface]] = Counter()

    def lease(self, request: AddressRequest, peer: PeerConfig) -> Configuration | None:
        """The answer to the request of `peer`; the addresses are routed to it at once."""
        pool = self.pools.get(peer.pool or "")
        given = pool.lease(request) if pool is not None else None
        if given is not None and request.session not in self._leased:
            self._leased[request.session] = peer, given
            self._set_routes(request.session, is_there=True)
        return given

    def on_established(self, event: IkeSaEstablished, peer: PeerConfig) -> None:
        """Take what the peer gave us."""
        vrf = self._config.vrf(peer.vrfs[0].name) if peer.vrfs else None
        if event.assigned is None or vrf is None or not vrf.attach:
            return
        place = vrf.name, vrf.attach[0].name
        # The selectors are for the address alone. A link that the peer names would only draw other traffic there.
        addresses = tuple(ip_interface(address.ip) for address in event.assigned.addresses)
        self._assigned[event.session] = place, addresses
        for address in addresses:
            self._uses[place, address] += 1
            if self._uses[place, address] == 1:
                self._on_address(place[1], address, True)
        self._tell_outbound(place)

    def take_back(self, session: int) -> None:
        """The session does not have what it was given."""
        if session in self._leased:
            peer, _ = self._leased[session]
            self._set_routes(session, is_there=False)
            del self._leased[session]
            self.pools[peer.pool or ""].release(session)

    def on_gone(self, session: int) -> None:
        """The session is over, and with it what it gave and got."""
        self.take_back(session)
        if session in self._assigned:
            place, addresses = self._assigned.pop(session)
            for address in addresses:
                self._uses[place, address] -= 1
                if not self._uses[place, address]:
                    del self._uses[place, address]
                    self._on_address(place[1], address, False)
            self._tell_outbound(place)

    def _set_routes(self, session: int, *, is_there: bool) -> None:
        peer, given = self._leased[session]
        vrf = peer.vrfs[0]
        for address in given.addresses:
            prefix = ip_network(address.ip)
            is_shared = any(
                other != session and address in lease.addresses for other, (_, lease) in self._leased.items()
            )
            for label_class in vrf.classes:
                if is_there:
                    self._table.add(peer.name, vrf.name, label_class, prefix, None)
                elif not is_shared:
                    self._table.remove(peer.name, vrf.name, label_class, prefix)
            self._on_route(vrf.name, prefix, (str(session), "lease"), is_there)

    def _tell_outbound(self, place: Place) -> None:
        """The attachment's addresses are the configured ones and those that we have got."""
        vrf_name, name = place
        vrf = self._config.vrf(vrf_name)
        configured = next((one.address for one in vrf.attach if one.name == name), ()) if vrf else ()
        got = (address for where, address in self._uses if where == place)
        self._outbound.assign(vrf_name, name, (*map(ip_interface, configured), *got))
