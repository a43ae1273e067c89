"""MPLS frames on an Ethernet interface: ethertype 0x8847 by a packet socket (RFC 3032 5.1, packet(7)).

Must not know: what labels mean. The interface is not ours: nothing is changed on it. Frames that the kernel did not
take for this host's own address, other hosts' and groups', are filtered out in the kernel.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeAlias

from endpoint.errors import SetupError
from endpoint.neighbour import Neighbour
from endpoint.netns import in_namespace
from endpoint.sockets import LARGEST_DATAGRAM_OCTETS, SocketDrop, drop_of

__all__ = ["FrameLink", "OnFrames"]

OnFrames: TypeAlias = Callable[[list[bytes]], None]
"""A batch of what follows the Ethernet header: a label stack, and what it labels."""

ETHERTYPE: Final = 0x8847
HEADER_OCTETS: Final = 14
RECEIVES_PER_WAKE_UP: Final = 64
_ETHERNET: Final = 1  # ARPHRD_ETHER
_SO_ATTACH_FILTER: Final = 26
_PACKET_TYPE: Final = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE (linux/filter.h)
# Load the packet type; unless it is PACKET_HOST (0), take nothing of the frame.
_FOR_THIS_HOST: Final = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, _PACKET_TYPE),
        (0x15, 0, 1, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
        (0x06, 0, 0, 0),
    )
)


class FrameLink:
    """One Ethernet interface with one router on it. `open`, then `send`; `close` at the end."""

    def __init__(self, sock: socket.socket, next_hop: Neighbour, on_frames: OnFrames) -> None:
        self.drops: Counter[SocketDrop] = Counter()
        self._socket = sock
        self._next_hop = next_hop
        self._own = sock.getsockname()[4]
        self._buffer = bytearray(LARGEST_DATAGRAM_OCTETS)
        self._view = memoryview(self._buffer)
        self._on_frames = on_frames
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._on_readable)

    @classmethod
    def open(cls, device: str, next_hop: str, *, on_frames: OnFrames, netns: str | None = None) -> FrameLink:
        """Start to receive. `next_hop`: the router's MAC address, or its IP address on the interface.

        SetupError with the remedy.
        """
        try:
            # Without a protocol nothing arrives before the filter stands.
            sock = in_namespace(
                netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            )
        except OSError as error:
            remedy = "; run as root or with CAP_NET_RAW" if error.errno == errno.EPERM else ""
            raise SetupError(f"MPLS frames on {device}: {error.strerror}{remedy}") from error
        try:
            _attach_filter(sock, _FOR_THIS_HOST)
            sock.bind((device, ETHERTYPE))
            if sock.getsockname()[3] != _ETHERNET:
                raise SetupError(f"MPLS frames on {device}: it is no Ethernet interface")
            neighbour = Neighbour.open(next_hop, device, netns)
        except OSError as error:
            sock.close()
            inside = f" -n {netns}" if netns else ""
            remedy = f"; see `ip{inside} link`" if error.errno == errno.ENODEV else ""
            raise SetupError(f"MPLS frames on {device}: {error.strerror}{remedy}") from error
        except BaseException:
            sock.close()
            raise
        return cls(sock, neighbour, on_frames)

    @property
    def router(self) -> bytes | None:
        """The router's MAC address; None while it is not known."""
        return self._next_hop.mac

    def send(self, octets: bytes) -> None:
        """Send a label stack and what it labels to the router; what cannot be sent is counted."""
        router = self.router
        if router is None:
            self.drops[SocketDrop.UNREACHABLE] += 1
            return
        try:
            self._socket.send(router + self._own + ETHERTYPE.to_bytes(2, "big") + octets)
        except OSError as error:
            self.drops[drop_of(error)] += 1

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._next_hop.close()
        self._socket.close()

    def _on_readable(self) -> None:
        batch: list[bytes] = []
        for _ in range(RECEIVES_PER_WAKE_UP):
            try:
                count = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                break
            except OSError as error:  # the interface went down
                self.drops[drop_of(error)] += 1
                break
            if count <= HEADER_OCTETS:
                self.drops[SocketDrop.SHORT] += 1
                continue
            batch.append(bytes(self._view[HEADER_OCTETS:count]))
        if batch:
            self._on_frames(batch)


def _attach_filter(sock: socket.socket, program: bytes) -> None:
    """Let the kernel run a classic BPF program over what arrives (struct sock_fprog)."""
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
