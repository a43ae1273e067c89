"""Link, addresses and routes of one device by rtnetlink (RFC 3549), in a thread inside its namespace.

Must not know: what the device is, who learned the routes. pyroute2 is only ever called in that thread: its
calls take about a millisecond each, which is too long for the event loop when a peer announces a thousand
prefixes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface
from typing import Any, TypeAlias, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from endpoint.errors import SetupError
from endpoint.netns import namespace_thread

__all__ = ["ROUTE_PROTOCOL", "Device", "Prefix", "RouteTable"]

T = TypeVar("T")
Prefix: TypeAlias = IPv4Network | IPv6Network

ROUTE_PROTOCOL = 137
"""rtm_protocol of the routes we make: free in /etc/iproute2/rt_protos, and the number of MPLS-in-IP."""
MAX_ROUTES = 16384

_ADDRESS_GENERATION_NONE = 1

_log = logging.getLogger("mplsec.netlink")


class Device:
    """What rtnetlink can do to one existing device. Methods that wait need about a millisecond a request."""

    def __init__(self, name: str, netns: str | None) -> None:
        """SetupError if the namespace or the device is not there."""
        self.name = name
        self.is_closing = False
        self._thread = namespace_thread(netns)
        self._netlink: Any = None
        self._index = 0
        try:
            self._call(self._find)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the thread. What was configured stays as long as the device does."""
        self.is_closing = True
        if self._netlink is not None:
            self._thread.submit(self._netlink.close).result()
            self._netlink = None
        self._thread.shutdown()

    def configure(self, addresses: Sequence[str], mtu: int) -> None:
        """Set MTU and addresses ("10.1.0.1/24"), then bring the device up. SetupError names what was refused.

        No IPv6 link-local address is made: it would come with router solicitations, which are not a
        customer's traffic.
        """
        self._call(lambda: self._configure(addresses, mtu))

    def set_mtu(self, mtu: int) -> None:
        """Change the MTU of the device, in octets."""
        self._call(lambda: self._netlink.link("set", index=self._index, mtu=mtu))

    def queue_drops(self) -> int:
        """Packets that the device's queue had no room for since it was made. Only in the device's thread."""
        (link,) = self._netlink.get_links(self._index)
        return int(link.get_attr("IFLA_STATS64")["tx_dropped"])

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Start a job in the device's thread; jobs run one after the other."""
        return self._thread.submit(job)

    def change_route(self, command: str, prefix: Prefix) -> None:
        """Command "add" or "del" for one route, tagged ours; NetlinkError. Only in the device's thread."""
        self._netlink.route(command, dst=str(prefix), oif=self._index, proto=ROUTE_PROTOCOL)

    def change_address(self, command: str, address: IPv4Interface | IPv6Interface) -> None:
        """Command "add" or "del" for one address, in the background; a refusal is said in the log."""
        self._thread.submit(lambda: self._change_address(command, address))

    def _change_address(self, command: str, address: IPv4Interface | IPv6Interface) -> None:
        if self.is_closing:
            return
        try:
            self._netlink.addr(
                command, index=self._index, address=str(address.ip), prefixlen=address.network.prefixlen
            )
        except NetlinkError as error:
            _log.warning("device %s: %s address %s refused: %s", self.name, command, address, _reason(error))

    def _find(self) -> None:
        self._netlink = IPRoute(ext_ack=True)
        found = self._netlink.link_lookup(ifname=self.name)
        if not found:
            raise SetupError(f"device {self.name}: not there")
        self._index = found[0]

    def _configure(self, addresses: Sequence[str], mtu: int) -> None:
        no_link_local = {
            "attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _ADDRESS_GENERATION_NONE)]})]
        }
        try:
            self._netlink.link("set", index=self._index, IFLA_AF_SPEC=no_link_local)
        except NetlinkError:
            # A kernel without IPv6, or with IPv6 off on this device, has no such attribute and makes no such
            # address.
            _log.debug("device %s: no IPv6 address generation to switch off", self.name)
        self._netlink.link("set", index=self._index, mtu=mtu)
        for text in addresses:
            interface = ip_interface(text)
            try:
                self._netlink.addr(
                    "add", index=self._index, address=str(interface.ip), prefixlen=interface.network.prefixlen
                )
            except NetlinkError as error:
                raise SetupError(f"device {self.name}: address {text}: {_reason(error)}") from error
        self._netlink.link("set", index=self._index, state="up")

    def _call(self, function: Callable[[], T]) -> T:
        try:
            return self._thread.submit(function).result()
        except NetlinkError as error:
            raise SetupError(f"device {self.name}: {_reason(error)}") from error


class RouteTable:
    """The learned routes through one device. They go with the device: after a SIGKILL nothing is left.

    A route that somebody else made stays theirs: ours is then refused, said in the log and counted.
    """

    def __init__(self, device: Device) -> None:
        self.refused: Counter[str] = Counter()
        self._device = device
        self._uses: Counter[Prefix] = Counter()
        # Belongs to the device's thread: prefixes whose "add" was refused.
        self._not_ours: set[Prefix] = set()

    def __len__(self) -> int:
        return len(self._uses)

    def add(self, prefix: Prefix) -> None:
        """Make the route, in the background. What two peers announced is added twice and removed twice."""
        if prefix not in self._uses and len(self._uses) >= MAX_ROUTES:
            self.refused["table_full"] += 1
            return
        self._uses[prefix] += 1
        if self._uses[prefix] == 1:
            self._start("add", prefix)

    def remove(self, prefix: Prefix) -> None:
        """Take the route away, in the background, once nobody needs it; an unknown prefix is ignored."""
        if prefix not in self._uses:
            return
        self._uses[prefix] -= 1
        if self._uses[prefix] == 0:
            del self._uses[prefix]
            self._start("del", prefix)

    async def settle(self) -> None:
        """Wait until the kernel has everything asked for so far."""
        await asyncio.wrap_future(self._device.submit(lambda: None))

    def _start(self, command: str, prefix: Prefix) -> None:
        self._device.submit(lambda: self._change(command, prefix))

    def _change(self, command: str, prefix: Prefix) -> None:
        if self._device.is_closing:
            return
        if command == "del" and prefix in self._not_ours:
            self._not_ours.discard(prefix)
            return
        try:
            self._device.change_route(command, prefix)
        except NetlinkError as error:
            if command == "add":
                self._not_ours.add(prefix)
            self.refused[_reason(error)] += 1
            _log.warning(
                "route %s dev %s: %s refused: %s", prefix, self._device.name, command, _reason(error)
            )


def _reason(error: NetlinkError) -> str:
    return str(error.args[1]) if len(error.args) > 1 else str(error)
