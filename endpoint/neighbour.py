"""The MAC address of a router on an Ethernet interface: as configured, or from the kernel's neighbour table.

Must not know: what is sent there. The kernel resolves, by ARP (RFC 826) or neighbour discovery (RFC 4861); it is asked
to by naming the entry as used, so that no packet has to be sent in vain.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from endpoint.errors import SetupError
from endpoint.netns import namespace_thread

__all__ = ["Neighbour"]

_log = logging.getLogger("mplsec.neighbour")

UNRESOLVED_S: Final = 0.2
"""How often the table is looked at while there is no answer."""
REFRESH_S: Final = 10.0
_AF_INET, _AF_INET6 = 2, 10
_NTF_USE: Final = 0x01
# Incomplete and failed entries (0x01, 0x20) have no address, or one that nobody answers to.
_USABLE: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80


class Neighbour:
    """One router. `mac` is None until it is known, and again when nobody answers any more."""

    def __init__(self, address: str, mac: bytes | None) -> None:
        self.address = address
        self.mac = mac
        self._device_index = 0
        self._thread: ThreadPoolExecutor | None = None
        self._netlink: Any = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def open(cls, next_hop: str, device: str, netns: str | None) -> Neighbour:
        """`next_hop`: a MAC address, or an IP address on the interface `device`. SetupError."""
        try:
            ip_address(next_hop)
        except ValueError:
            return cls(next_hop, _octets(next_hop))
        neighbour = cls(next_hop, None)
        neighbour._thread = thread = namespace_thread(netns)
        try:
            thread.submit(neighbour._find, device).result()
        except BaseException:
            neighbour.close()
            raise
        neighbour._task = asyncio.get_running_loop().create_task(neighbour._watch(thread))
        return neighbour

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._thread is not None:
            if self._netlink is not None:
                self._thread.submit(self._netlink.close)
            self._thread.shutdown()
            self._thread = None

    async def _watch(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            mac = await loop.run_in_executor(thread, self._look)
            if mac != self.mac:
                _log.info("router %s is at %s", self.address, "nothing" if mac is None else mac.hex(":"))
                self.mac = mac
            await asyncio.sleep(UNRESOLVED_S if mac is None else REFRESH_S)

    # --- in the thread

    def _find(self, device: str) -> None:
        self._netlink = IPRoute()
        found = self._netlink.link_lookup(ifname=device)
        if not found:
            raise SetupError(f"router {self.address}: there is no device {device}")
        self._device_index = found[0]

    def _look(self) -> bytes | None:
        """What the table says; when that is nothing, or old, the kernel is asked to resolve."""
        family = _AF_INET if ip_address(self.address).version == 4 else _AF_INET6
        where = {"dst": self.address, "ifindex": self._device_index, "family": family}
        try:
            # An entry that is only named as used keeps what is known in it.
            self._netlink.neigh("replace", **where, state=0, flags=_NTF_USE)
            found = self._netlink.neigh("get", **where)
        except NetlinkError:
            return None
        for entry in found:
            address = entry.get_attr("NDA_LLADDR")
            if address is not None and entry["state"] & _USABLE:
                return _octets(address)
        return None


def _octets(text: str) -> bytes:
    """6 octets."""
    return bytes.fromhex(text.replace(":", ""))
