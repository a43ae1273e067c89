"""Sockets on the front door: how each one is opened, and what a refused send is counted as.

Must not know: IKE, ESP, who reads or writes. Each socket is bound to one configured local address, so the
local address of every datagram is known and an answer leaves from where it was asked. Sockets are never
connected: one peer's ICMP error must not touch the others.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import TypeAlias

from endpoint.config import FlowLabel, FrontDoor
from endpoint.errors import SetupError
from endpoint.netns import in_namespace
from mpls.models import OuterFields

__all__ = [
    "HERE",
    "Address",
    "Ancillary",
    "FrontDoor",
    "OnTooBig",
    "SentErrors",
    "SocketDrop",
    "check_flow_labels",
    "drop_of",
    "family_of",
    "flow_label",
    "is_of_another",
    "kernel_drops",
    "open_socket",
    "outer_fields",
    "outer_fields_of",
    "send",
    "set_dont_fragment",
    "set_flow_labels",
    "watch_outer_fields",
]

Address: TypeAlias = tuple[str, int]
"""An IPv4 or IPv6 address as text, and a port (0 where there are none)."""
Ancillary: TypeAlias = list[tuple[int, int, bytes]]

BUFFER_OCTETS = 4 * 1024 * 1024
LARGEST_DATAGRAM_OCTETS = 65535

# Linux's numbers (ip(7), ipv6(7), socket(7)) that Python's socket module does not name.
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_DONT = 0
_PMTUDISC_PROBE = 3
_DISCARD = 9
"""A UDP port where nobody listens (RFC 863)."""
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_MEMINFO = 32, 33, 55
_MEMINFO = struct.Struct("=9I")  # linux/sock_diag.h: the last is SK_MEMINFO_DROPS
_IP_RECVTTL = 12
_IPV6_FLOWINFO, _IPV6_AUTOFLOWLABEL = 11, 70
_FIELDS: dict[int, tuple[int, tuple[int, int]]] = {
    socket.AF_INET: (socket.IPPROTO_IP, (socket.IP_TOS, socket.IP_TTL)),
    socket.AF_INET6: (socket.IPPROTO_IPV6, (socket.IPV6_TCLASS, socket.IPV6_HOPLIMIT)),
}
"""Family -> level, and the kinds of the control messages: DSCP and ECN, TTL."""
_RECVERR: dict[int, int] = {socket.AF_INET: 11, socket.AF_INET6: 25}
_EXTENDED_ERROR = struct.Struct("=IBBBBII")  # linux/errqueue.h
_FROM_ICMP = frozenset((2, 3))
ERRORS_PER_WAKE_UP = 64
_FRAGMENT_SIZE: dict[int, int] = {socket.AF_INET: 25, socket.AF_INET6: 77}
"""IP_RECVFRAGSIZE, IPV6_RECVFRAGSIZE: the largest fragment of what the kernel has put together."""
CONTROL_OCTETS = 192
"""Room for all control messages of a receive."""

_STALE = frozenset(
    {
        errno.EMSGSIZE,
        errno.ECONNREFUSED,
        errno.ENOPROTOOPT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EOPNOTSUPP,
        errno.EPROTO,
        errno.EACCES,
    }
)
"""What ICMP can say."""

HERE = FrontDoor()
"""The underlay is where we are."""


class SocketDrop(StrEnum):
    """Why a datagram was not sent or not delivered."""

    TOO_BIG = "too_big"  # larger than the path MTU while DF is set
    UNREACHABLE = "unreachable"  # no route, or the host or port is said to be unreachable
    CONGESTED = "congested"  # no buffer free
    FORBIDDEN = "forbidden"  # a firewall on this host
    FAILED = "failed"  # anything else
    QUEUE_FULL = "queue_full"  # received faster than handled
    KERNEL_QUEUE = "kernel_queue"  # the same, before it came to us
    SHORT = "short"  # too short to be what the socket carries


_DROP_OF_ERRNO = {
    errno.EMSGSIZE: SocketDrop.TOO_BIG,
    errno.ENETUNREACH: SocketDrop.UNREACHABLE,
    errno.EHOSTUNREACH: SocketDrop.UNREACHABLE,
    errno.ECONNREFUSED: SocketDrop.UNREACHABLE,
    errno.ENETDOWN: SocketDrop.UNREACHABLE,
    errno.EHOSTDOWN: SocketDrop.UNREACHABLE,
    errno.EAGAIN: SocketDrop.CONGESTED,
    errno.ENOBUFS: SocketDrop.CONGESTED,
    errno.ENOMEM: SocketDrop.CONGESTED,
    errno.EPERM: SocketDrop.FORBIDDEN,
    errno.EACCES: SocketDrop.FORBIDDEN,
}


def drop_of(error: OSError) -> SocketDrop:
    """What a failed send or receive counts as."""
    return _DROP_OF_ERRNO.get(error.errno or 0, SocketDrop.FAILED)


def family_of(address: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6; SetupError unless `address` is one."""
    try:
        return socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    except ValueError as error:
        raise SetupError(f"{address!r} is neither an IPv4 nor an IPv6 address") from error


def open_socket(
    local: Address, kind: int, protocol: int = 0, front_door: FrontDoor | None = None
) -> socket.socket:
    """A non-blocking socket bound to `local` on the front door. SetupError with the remedy."""
    address, port = local
    family = family_of(address)
    front_door = front_door or HERE
    try:
        opened = in_namespace(
            front_door.netns, lambda: socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        )
    except OSError as error:
        raise SetupError(_refusal(local, kind, protocol, front_door, error)) from error
    try:
        if front_door.device is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, front_door.device.encode() + b"\0")
        if front_door.mark is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, front_door.mark)
        opened.bind((address, port))
    except OSError as error:
        opened.close()
        raise SetupError(_refusal(local, kind, protocol, front_door, error)) from error
    # As much as the system grants; the forced form needs CAP_NET_ADMIN.
    for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE, socket.SO_SNDBUF, _SO_SNDBUFFORCE):
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, option, BUFFER_OCTETS)
    return opened


def set_dont_fragment(sock: socket.socket, on: bool) -> None:
    """Whether what is sent from now on must not be fragmented: DF on IPv4, no fragment header on IPv6.

    With DF what ICMP has told the kernel does not count: anybody can forge that.

    Linux reads the option while the send call builds the packet, so between two calls it can be changed
    freely.
    """
    value = _PMTUDISC_PROBE if on else _PMTUDISC_DONT
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, value)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, value)


def outer_fields(family: int, tos: int, ttl: int = 0) -> Ancillary:
    """The control messages that give one packet its DSCP and ECN octet, and its TTL (0: that of the system)."""
    level, kinds = _FIELDS[family]
    fields = zip(kinds, (tos, ttl), strict=True)
    return [(level, kind, struct.pack("=i", value)) for kind, value in fields if value]


def check_flow_labels(front_door: FrontDoor | None) -> None:
    """SetupError where the kernel lets nobody choose an IPv6 flow label, or only who has asked for it.

    That is so before Linux 5.3, and while somebody has a label for himself in this namespace.
    """
    netns = (front_door or HERE).netns
    try:
        with in_namespace(netns, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as probe:
            # The label is looked at before the way, so it does not matter whether there is one.
            probe.sendmsg([b""], flow_label(b"any SPI"), 0, ("::1", _DISCARD))
    except OSError as error:
        if error.errno == errno.EINVAL:
            message = 'flow_label = "sa": this kernel does not let us choose IPv6 flow labels'
            remedy = "it has to be Linux 5.3 or later, and no program here may hold an exclusive label"
            raise SetupError(f"{message}; {remedy}, or leave flow_label away") from error


def set_flow_labels(sock: socket.socket, policy: FlowLabel) -> bool:
    """What IPv6 flow labels are to be; whether each packet has to bring its own, see `flow_label`."""
    if sock.family != socket.AF_INET6 or policy is FlowLabel.SYSTEM:
        return False
    sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_AUTOFLOWLABEL, 0)
    return policy is FlowLabel.SA


@lru_cache(maxsize=4096)
def flow_label(spi: bytes) -> Ancillary:
    """The control message that gives a packet the flow label of its SA: 20 bits, never zero (RFC 6437 3).

    A hash, as peers choose SPIs as they like and routers want labels that are evenly spread.
    """
    label = int.from_bytes(hashlib.sha256(b"flow label" + spi).digest()[:4], "big") % 0xFFFFF + 1
    return [(socket.IPPROTO_IPV6, _IPV6_FLOWINFO, label.to_bytes(4, "big"))]


def watch_outer_fields(sock: socket.socket) -> None:
    """Let each receive tell these fields of the packets that it brings, and of fragments, see `outer_fields_of`."""
    with contextlib.suppress(OSError):  # Linux 4.10 and later
        sock.setsockopt(_FIELDS[sock.family][0], _FRAGMENT_SIZE[sock.family], 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)


def outer_fields_of(family: int, control: Ancillary) -> OuterFields:
    """What a receive has told. Packets that the kernel has joined have them in common."""
    level, (tos_kind, ttl_kind) = _FIELDS[family]
    told = {kind: int.from_bytes(data[:4], sys.byteorder) for at, kind, data in control if at == level}
    return OuterFields(told.get(tos_kind, 0), told.get(ttl_kind, 0), told.get(_FRAGMENT_SIZE[family], 0))


OnTooBig: TypeAlias = Callable[[str, int], None]
"""(address, MTU): ICMP has said that packets to the address may be no larger. It is not authenticated."""


class SentErrors:
    """What ICMP says of packets that a socket has sent (IP_RECVERR, ip(7)); of all of it only sizes are told.

    Without `on_too_big` nothing is asked for. Until an error is taken it fails one send or receive, whatever that is
    about, and the socket stays readable: each failed receive has to come here.
    """

    def __init__(self, sock: socket.socket, on_too_big: OnTooBig | None) -> None:
        self._socket, self._on_too_big = sock, on_too_big
        self._level, self._kind = _FIELDS[sock.family][0], _RECVERR[sock.family]
        if on_too_big is not None:
            sock.setsockopt(self._level, self._kind, 1)

    def on_failed_receive(self, error: OSError, drops: Counter[SocketDrop], *, is_first: bool) -> bool:
        """Whether there may be something to receive all the same. `is_first`: of this wake-up."""
        is_empty = isinstance(error, BlockingIOError)
        if self._on_too_big is not None and (is_of_another(error) or (is_empty and is_first)):
            self._take(self._on_too_big)
        elif not is_empty:
            drops[drop_of(error)] += 1
            return False
        return not is_empty

    def _take(self, on_too_big: OnTooBig) -> None:
        for _ in range(ERRORS_PER_WAKE_UP):
            try:
                _, control, _, destination = self._socket.recvmsg(0, CONTROL_OCTETS, socket.MSG_ERRQUEUE)
            except OSError:
                return
            for level, kind, data in control:
                if (level, kind) == (self._level, self._kind) and len(data) >= _EXTENDED_ERROR.size:
                    number, origin, _, _, _, mtu, _ = _EXTENDED_ERROR.unpack_from(data)
                    if number == errno.EMSGSIZE and origin in _FROM_ICMP and destination:
                        on_too_big(destination[0], mtu)


def is_of_another(error: OSError) -> bool:
    """Whether a send may have failed for what ICMP has said of an earlier one."""
    return error.errno in _STALE


def kernel_drops(sock: socket.socket) -> Counter[SocketDrop]:
    """What the kernel has not put into the socket's queue, most often as there was no room (SO_MEMINFO, Linux 4.12)."""
    try:
        fields = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:
        return Counter()
    return Counter({SocketDrop.KERNEL_QUEUE: _MEMINFO.unpack(fields.ljust(_MEMINFO.size, b"\0"))[-1]})


def send(
    sock: socket.socket,
    octets: bytes,
    peer: Address,
    control: Ancillary,
    drops: Counter[SocketDrop],
    *,
    is_retry: bool = False,
) -> bool:
    """Send one datagram; whether the kernel took it. What it refuses is counted, never raised."""
    try:
        if control:
            sock.sendmsg([octets], control, 0, peer)
        else:
            sock.sendto(octets, peer)
    except OSError as error:
        if is_retry or not is_of_another(error):
            drops[drop_of(error)] += 1
            return False
        # It may have been that of an earlier packet, see `SentErrors`.
        return send(sock, octets, peer, control, drops, is_retry=True)
    return True


def _refusal(local: Address, kind: int, protocol: int, front_door: FrontDoor, error: OSError) -> str:
    address, port = local
    if kind == socket.SOCK_RAW:
        what, capability = f"raw protocol {protocol} on {address}", "CAP_NET_RAW"
    else:
        what, capability = f"UDP {port} on {address}", "CAP_NET_BIND_SERVICE"
    if front_door.mark is not None:
        capability += " and CAP_NET_ADMIN"
    inside = f" -n {front_door.netns}" if front_door.netns else ""
    remedy = {
        errno.EACCES: f"run as root or with {capability}",
        errno.EPERM: f"run as root or with {capability}",
        errno.EADDRNOTAVAIL: f"the address is not there: see `ip{inside} address`",
        errno.EADDRINUSE: f"another program has it, perhaps an IKE daemon: see `ss -lunp sport = :{port}`",
        errno.ENODEV: f"there is no device {front_door.device}: see `ip{inside} link`",
    }.get(error.errno or 0)
    return f"{what}: {error.strerror or error}" + (f"; {remedy}" if remedy else "")
