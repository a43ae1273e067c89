"""A TUN device as a VRF's customer side (Linux tuntap): whole IP packets, read and written in batches.

TCP segments are written as super-packets (`offload`). They are not read as such: to cut them up and to make the
checksum of each segment, which the kernel does on the other side of the device, costs more here than the reads saved.

Must not know: VRFs, labels, where the packets go. The device is not persistent: when the process ends,
however it ends, the kernel removes it together with its addresses and routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import TypeAlias

from endpoint.errors import SetupError
from endpoint.netlink import Device, RouteTable
from endpoint.netns import in_namespace
from endpoint.offload import LARGEST_PACKET_OCTETS, NO_OFFLOAD, VNET_HEADER_OCTETS, coalesce

__all__ = ["OnPackets", "Tun", "TunDrop"]

_log = logging.getLogger("mplsec.tun")

OnPackets: TypeAlias = Callable[[list[bytes]], None]

READS_PER_WAKE_UP = 132
OCTETS_PER_WAKE_UP = 3 * 61_600
"""As many packets, of 1400 or 8900 octets, as three sends carry with what ESP and MPLS add (see `udp.runs`)."""
NAME_OCTETS = 15

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNGETFEATURES = 0x800454CF
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000


class TunDrop(StrEnum):
    """Why a packet was not written to the device."""

    CONGESTED = "congested"  # the kernel has no buffer free
    DOWN = "down"  # somebody took the device down
    REFUSED = "refused"  # not an IP packet, or the device is gone


class Tun:
    """One TUN device. `create`, `start`, and at the end `close`, after which nothing of it is left."""

    def __init__(
        self, name: str, descriptor: int, device: Device, addresses: Sequence[str], *, has_offload: bool
    ) -> None:
        self.name = name
        self.has_offload = has_offload
        self.routes = RouteTable(device)
        self.drops: Counter[TunDrop] = Counter()
        self._descriptor = descriptor
        self._device = device
        self._own = frozenset(ip_interface(address).packed for address in addresses)
        # What stands before every packet that is read or written.
        self._header = NO_OFFLOAD if has_offload else b""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_packets: OnPackets

    @classmethod
    def create(
        cls, name: str, *, netns: str | None = None, addresses: Sequence[str] = (), mtu: int = 1280
    ) -> Tun:
        """Make the device in the namespace, set addresses ("10.1.0.1/24") and MTU (octets), bring it up.

        SetupError, with the remedy, if the system refuses or if a device of that name is there already.
        """
        if not 1 <= len(name.encode()) <= NAME_OCTETS:
            raise SetupError(f"TUN {name!r}: a device name has 1 to {NAME_OCTETS} octets")
        descriptor, has_offload = in_namespace(netns, lambda: _open(name))
        try:
            device = Device(name, netns)
            try:
                device.configure(addresses, mtu)
            except BaseException:
                device.close()
                raise
        except BaseException:
            os.close(descriptor)
            raise
        in_namespace(netns, lambda: _accept_own_source(name))
        return cls(name, descriptor, device, addresses, has_offload=has_offload)

    def start(self, on_packets: OnPackets) -> None:
        """Deliver what the customer side sends, a batch per wake-up of the running event loop."""
        self._on_packets = on_packets
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._on_readable)

    def set_mtu(self, mtu: int) -> None:
        """Change the MTU, in octets."""
        self._device.set_mtu(mtu)

    def change_address(self, command: str, address: IPv4Interface | IPv6Interface) -> None:
        """Command "add" or "del", in the background; what the kernel refuses is said in the log."""
        self._device.change_address(command, address)
        self._own = self._own | {address.packed} if command == "add" else self._own - {address.packed}

    def write_batch(self, packets: Sequence[bytes]) -> None:
        """Hand IP packets to the customer side, in order; never blocks, what is refused is counted."""
        if not self.has_offload or len(packets) == 1:
            for packet in packets:
                self._write([self._header, packet])
            return
        at = 0
        for pieces, count in coalesce(packets, self._own):
            if not self._write(pieces, count):
                self.has_offload = False
                for packet in packets[at : at + count]:
                    self._write([self._header, packet])
            at += count

    def _write(self, pieces: Sequence[bytes], count: int = 1) -> bool:
        """One packet, or a super-packet of `count`; False when the kernel does not know what to do with that."""
        try:
            os.writev(self._descriptor, pieces)
        except OSError as error:
            if error.errno == errno.EINVAL and count > 1:
                return False
            drop = {
                errno.EAGAIN: TunDrop.CONGESTED,
                errno.ENOBUFS: TunDrop.CONGESTED,
                errno.EIO: TunDrop.DOWN,
            }
            self.drops[drop.get(error.errno or 0, TunDrop.REFUSED)] += count
        return True

    async def all_drops(self) -> Counter[str]:
        """`drops`, and the packets from the customer side for which its queue had no room."""
        queued = await asyncio.wrap_future(self._device.submit(self._device.queue_drops))
        return Counter(
            {f"tun_{reason}": count for reason, count in self.drops.items()} | {"tun_queue": queued}
        )

    def close(self) -> None:
        """Remove the device, and with it its addresses and routes."""
        if self._loop is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop = None
        self._device.close()
        descriptor, self._descriptor = self._descriptor, -1  # A late write must not meet another file.
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def _on_readable(self) -> None:
        batch: list[bytes] = []
        octets, skipped = 0, len(self._header)
        for _ in range(READS_PER_WAKE_UP):
            try:
                packet = os.read(self._descriptor, LARGEST_PACKET_OCTETS + VNET_HEADER_OCTETS)[skipped:]
            except BlockingIOError:
                break
            except OSError as error:
                self._on_lost(error)
                break
            batch.append(packet)
            octets += len(packet)
            if octets >= OCTETS_PER_WAKE_UP:
                break
        if batch:
            self._on_packets(batch)

    def _on_lost(self, error: OSError) -> None:
        """The device was deleted by somebody else: its descriptor would stay readable for ever."""
        if self._loop is not None:
            self._loop.remove_reader(self._descriptor)
            context = {"message": f"TUN {self.name} is gone", "exception": error}
            self._loop.call_exception_handler(context)
            self._loop = None


def _open(name: str) -> tuple[int, bool]:
    """A descriptor of a new TUN device in the calling thread's namespace, and whether it takes super-packets."""
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SetupError(
            f"TUN {name}: /dev/net/tun: {error.strerror}; modprobe tun, and run as root"
        ) from error
    try:
        (features,) = struct.unpack("I", fcntl.ioctl(descriptor, _TUNGETFEATURES, bytes(4)))
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL | features & _IFF_VNET_HDR
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError as error:
        os.close(descriptor)
        remedy = {
            errno.EBUSY: f"a device of that name is there already; ip link delete {name}, or another name",
            errno.EPERM: "run as root or with CAP_NET_ADMIN",
        }.get(error.errno or 0, "")
        raise SetupError(f"TUN {name}: {error.strerror}" + (f"; {remedy}" if remedy else "")) from error
    return descriptor, bool(features & _IFF_VNET_HDR)


def _accept_own_source(name: str) -> None:
    """Let the kernel take IPv4 from the device's own address: our ICMP errors come from it, as a router's do."""
    try:
        Path(f"/proc/sys/net/ipv4/conf/{name}/accept_local").write_text("1")
    except OSError as error:
        _log.warning(
            "TUN %s: accept_local: %s; ICMP errors over IPv4 do not reach the hosts", name, error.strerror
        )
