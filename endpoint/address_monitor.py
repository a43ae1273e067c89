"""Which of our underlay addresses can be used now: a netlink socket says that something changed, a look says what.

It must not know IKE: it reports addresses (RFC 4555 3.5 is what they are for).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from endpoint.netns import in_namespace, namespace_thread

__all__ = ["AddressMonitor"]

_log = logging.getLogger("mplsec.addresses")

# rtnetlink(7) and linux/rtnetlink.h, linux/if.h, linux/if_addr.h: what Python's socket module does not name.
_GROUPS = 0x01 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_WORKS = 0x1 | 0x40  # IFF_UP, IFF_RUNNING
_UNUSABLE = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED

SETTLE_S = 0.05
"""Changes come in crowds: an address goes with its link, another one comes. We look when they are through."""
RECEIVE_OCTETS = 65536


class AddressMonitor:
    """Calls `on_change` with those of `addresses` that can be used, in their order, when these are others."""

    def __init__(
        self,
        addresses: Sequence[str],
        netns: str | None,
        on_change: Callable[[tuple[str, ...]], None],
        *,
        device: str | None = None,
    ) -> None:
        """`device`: what our sockets are bound to; without it an address in a VRF device is none of ours.

        SetupError if the namespace is not there.
        """
        self._addresses = tuple(addresses)
        self._device = device
        self._on_change = on_change
        self._present = self._addresses
        self._loop = asyncio.get_running_loop()
        self._thread = namespace_thread(netns)
        self._socket = in_namespace(netns, _open)
        self._timer: asyncio.TimerHandle | None = None
        self._is_looking = self._must_look_again = self._is_closed = False
        self._loop.add_reader(self._socket, self._on_readable)
        self._look()

    def close(self) -> None:
        """Stop to watch."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._thread.shutdown(wait=False)

    def _on_readable(self) -> None:
        try:
            while self._socket.recv(RECEIVE_OCTETS):
                continue
        except BlockingIOError:
            pass
        except OSError as error:  # ENOBUFS: there was more than the socket could hold
            _log.debug("address changes: %s", error)
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_S, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._is_looking:
            self._must_look_again = True
            return
        self._is_looking = True
        future = self._thread.submit(_usable, self._addresses, self._device)
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._on_looked, done.result()))

    def _on_looked(self, present: tuple[str, ...] | None) -> None:
        self._is_looking = False
        if self._is_closed:
            return
        if present is not None and present != self._present:
            self._present = present
            missing = [address for address in self._addresses if address not in present]
            _log.info("our addresses: %s%s", ", ".join(present) or "none", _without(missing))
            self._on_change(present)
        if self._must_look_again:
            self._must_look_again = False
            self._look()


def _without(missing: Sequence[str]) -> str:
    return f" (not {', '.join(missing)})" if missing else ""


def _open() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    opened.bind((0, _GROUPS))
    return opened


def _usable(addresses: tuple[str, ...], device: str | None) -> tuple[str, ...] | None:
    """Those that a socket can be bound to and whose link works, if they are on a link. None: no telling."""
    try:
        idle = _idle()
    except (NetlinkError, OSError) as error:
        _log.warning("cannot look at our addresses: %s", error)
        return None
    return tuple(address for address in addresses if address not in idle and _can_be_bound(address, device))


def _idle() -> set[str]:
    """What is on links that are down or without carrier, or is not ready yet, and nowhere else."""
    with IPRoute() as netlink:
        links: Any = netlink.get_links()
        running = {link["index"] for link in links if link["flags"] & _WORKS == _WORKS}
        good: set[str] = set()
        bad: set[str] = set()
        for entry in netlink.get_addr():
            address = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
            flags = entry.get_attr("IFA_FLAGS") or entry["flags"]
            is_good = entry["index"] in running and not flags & _UNUSABLE
            (good if is_good else bad).add(address)
    return bad - good


def _can_be_bound(address: str, device: str | None) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if device is not None:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
            probe.bind((address, 0))
    except OSError:
        return False
    return True
