"""Guard routes: where inside and underlay share a routing table, nothing inside may follow it when mplsec is gone.

Must not know: peers and Child SAs. The kernel removes a TUN device and its routes with the process; what was routed
there would then take the default route, in clear. A guard is an `unreachable` route of the lowest preference for each
prefix that is only ever reached inside ESP. It outlives the process, a crash included, and stays until it is removed by
hand (`ip -4 route flush proto 137`, `ip -6 route flush proto 137`, neither does the other's) or the configuration no
longer has the prefix.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from endpoint.config import EVERYTHING, AttachmentKind, Config
from endpoint.errors import SetupError
from endpoint.netlink import ROUTE_PROTOCOL, Prefix
from endpoint.netns import namespace_thread

__all__ = ["guarded_prefixes", "set_guards"]

_log = logging.getLogger("mplsec.guard")

LOWEST_PREFERENCE: Final = 0xFFFFFFFF
_UNREACHABLE: Final = 7  # RTN_UNREACHABLE
_MAIN_TABLE: Final = 254


def guarded_prefixes(config: Config) -> frozenset[Prefix]:
    """What peers serve, and what leaks, for every VRF that has a TUN device where the underlay is."""
    door = config.endpoint.front_door
    underlay = door.netns if door is not None else None
    return frozenset(
        prefix
        for vrf in config.vrfs
        if any(one.kind is AttachmentKind.TUN and one.netns == underlay for one in vrf.attach)
        for prefix in _beyond(config, vrf.name)
    )


def _beyond(config: Config, vrf: str) -> Iterator[Prefix]:
    for peer in config.peers:
        granted = peer.vrf(vrf)
        if granted is not None:
            yield from (*granted.accept, *granted.routes)
            for labels in granted.labels:
                yield from labels.routes
    for leak in config.leaks:
        if leak.target == vrf:
            yield from leak.prefixes


def set_guards(config: Config) -> None:
    """Make the guards of this configuration, then take away those of an earlier one. SetupError."""
    door = config.endpoint.front_door
    wanted = guarded_prefixes(config)
    try:
        # A thread of its own also without a namespace: netlink must not be called where the event loop runs.
        with namespace_thread(door.netns if door is not None else None) as thread:
            thread.submit(_set, wanted).result()
    except NetlinkError as error:
        if wanted:
            raise SetupError(f"guard routes: {error}; run as root or with CAP_NET_ADMIN") from error


def _set(wanted: Iterable[Prefix]) -> None:
    with IPRoute() as netlink:
        present = set(_present(netlink))
        missing = set(wanted) - present
        for prefix in missing:
            netlink.route("replace", **_route(prefix))
        for prefix in present - set(wanted):
            netlink.route("del", **_route(prefix))
        if missing:
            _log.info("%d prefixes are unreachable where no Child SA leads to them", len(missing))


def _route(prefix: Prefix) -> dict[str, Any]:
    return {
        "dst": str(prefix),
        "type": "unreachable",
        "proto": ROUTE_PROTOCOL,
        "priority": LOWEST_PREFERENCE,
        "family": socket.AF_INET if prefix.version == 4 else socket.AF_INET6,
    }


def _present(netlink: Any) -> Iterator[Prefix]:
    for family, everything in zip((socket.AF_INET, socket.AF_INET6), EVERYTHING, strict=True):
        for route in netlink.get_routes(family=family, proto=ROUTE_PROTOCOL, table=_MAIN_TABLE):
            if route["type"] == _UNREACHABLE and route["proto"] == ROUTE_PROTOCOL:
                destination = route.get_attr("RTA_DST")
                yield ip_network((destination, route["dst_len"])) if destination else everything
