"""UDP 500 and UDP 4500: IKE by asyncio-dgram, IKE and ESP by a batch reader (RFC 7296 2.23, RFC 3948).

Must not know: what IKE messages or ESP packets mean; of a datagram on 4500 only the first octets are looked
at, by `esp.demux`. UDP_ENCAP is never set: it succeeds on kernels without ESP and then swallows every ESP
packet.

A datagram on UDP 4500 goes

    recvmsg (up to 64 KB of one flow, UDP_GRO) -> one segment at a time -> esp.demux.classify
        IKE        -> on_ike, without the non-ESP marker, after the ESP that arrived before it was delivered
        ESP        -> collected, delivered as one batch to on_esp
        KEEPALIVE  -> counted (RFC 3948 2.3: the receiver ignores it)
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar, cast

from asyncio_dgram.aio import DatagramServer, Protocol, TransportClosed

from endpoint.config import FlowLabel, FrontDoor
from endpoint.sockets import (
    CONTROL_OCTETS,
    LARGEST_DATAGRAM_OCTETS,
    Address,
    Ancillary,
    OnTooBig,
    SentErrors,
    SocketDrop,
    drop_of,
    flow_label,
    is_of_another,
    kernel_drops,
    open_socket,
    outer_fields,
    outer_fields_of,
    send,
    set_dont_fragment,
    set_flow_labels,
    watch_outer_fields,
)
from esp.demux import KEEPALIVE, NON_ESP_MARKER, Kind, are_esp, classify, strip_marker
from mpls.models import UNKNOWN_OUTER, OuterFields

__all__ = ["IkeSocket", "NatSocket", "OnDatagram", "OnEsp", "runs"]

T = TypeVar("T")

OnDatagram: TypeAlias = Callable[[bytes, Address, Address], None]
"""(IKE message, local, peer)"""
EspBatch: TypeAlias = list[tuple[list[bytes], Address, OuterFields]]
"""(ESP packets in a row, peer they came from, fields of their outer headers), in the order of arrival."""
OnEsp: TypeAlias = Callable[[EspBatch], None]

QUEUE_DATAGRAMS = 256
SEND_QUEUE_OCTETS = 256 * 1024
RECEIVES_PER_WAKE_UP = 64
OCTETS_PER_WAKE_UP = 256 * 1024
SEGMENTS_PER_SEND = 64
OCTETS_PER_SEND = 65000

# Linux's numbers (udp(7)) that Python's socket module does not name.
_UDP_SEGMENT = 103
_UDP_GRO = 104


class _BoundedQueue(asyncio.Queue[T]):
    """A queue that drops the oldest, and counts it, when it is full; asyncio-dgram's own has no bound."""

    def __init__(self, size: int, drops: Counter[SocketDrop]) -> None:
        super().__init__(size)
        self._drops = drops

    def put_nowait(self, item: T) -> None:
        if self.full():
            self._drops[SocketDrop.QUEUE_FULL] += 1
            self.get_nowait()
        super().put_nowait(item)


class IkeSocket:
    """UDP 500 of one local address, for IKE alone; on it there is no non-ESP marker (RFC 7296 2.23)."""

    def __init__(self, local: Address, on_datagram: OnDatagram) -> None:
        self.local = local
        self.drops: Counter[SocketDrop] = Counter()
        self._on_datagram = on_datagram
        self._transport: Any
        self._socket: socket.socket
        self._task: asyncio.Task[None]

    @classmethod
    async def open(
        cls, local_address: str, port: int, *, on_datagram: OnDatagram, front_door: FrontDoor | None = None
    ) -> IkeSocket:
        """Bind and start to receive; port 0 takes a free one (see `local`). SetupError with the remedy."""
        sock = open_socket((local_address, port), socket.SOCK_DGRAM, 0, front_door)
        opened = cls((local_address, sock.getsockname()[1]), on_datagram)
        opened._socket = sock
        # What asyncio_dgram.from_socket does, with bounds on both of its queues.
        received: asyncio.Queue[Any] = _BoundedQueue(QUEUE_DATAGRAMS, opened.drops)
        failed: asyncio.Queue[Any] = _BoundedQueue(QUEUE_DATAGRAMS, Counter())
        drained = asyncio.Event()
        try:
            transport: Any
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: Protocol(received, failed, drained), sock=sock
            )
        except BaseException:
            sock.close()
            raise
        # asyncio's own 256 KiB buffer lies past glibc's mmap threshold and costs 25 µs for every datagram.
        transport.max_size = LARGEST_DATAGRAM_OCTETS
        opened._transport = transport
        stream = DatagramServer(transport, received, failed, drained)
        opened._task = asyncio.create_task(opened._receive(stream))
        return opened

    def send(self, data: bytes, peer: Address, *, dont_fragment: bool = False) -> None:
        """Send one IKE message; never blocks, never raises, what cannot be sent is counted."""
        waiting = self._transport.get_write_buffer_size()
        if waiting > SEND_QUEUE_OCTETS or (waiting and dont_fragment):
            self.drops[SocketDrop.CONGESTED] += 1
        elif not self._transport.is_closing():
            # Nothing waits, so that the system call is made within.
            if dont_fragment:
                set_dont_fragment(self._socket, True)
            self._transport.sendto(data, peer)
            if dont_fragment:
                set_dont_fragment(self._socket, False)

    def all_drops(self) -> Counter[SocketDrop]:
        """`drops`, and what the kernel's queue had no room for."""
        return self.drops + kernel_drops(self._socket)

    async def close(self) -> None:
        """Stop to receive and free the port."""
        self._transport.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _receive(self, stream: DatagramServer) -> None:
        while True:
            try:
                data, peer = cast(tuple[bytes, Address], await stream.recv())
            except TransportClosed:
                return
            except OSError as error:
                # asyncio-dgram tells on receiving what went wrong on sending.
                self.drops[drop_of(error)] += 1
                continue
            try:
                self._on_datagram(data, self.local, peer[:2])
            except Exception as error:
                # As with a failing add_reader callback: reported, and the next datagram is received.
                context = {"message": f"handling a datagram on {self.local} failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)


class NatSocket:
    """UDP 4500 of one local address, for IKE (after four zero octets) and ESP together, in batches.

    ESP is sent with DF set (RFC 4023 5.1: the tunnel's head learns the MTU, the tail does not reassemble); a
    packet larger than the path MTU is counted as `too_big`. IKE may be fragmented by IP: DF is off while it
    is sent.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_ike: OnDatagram,
        on_esp: OnEsp,
        *,
        watches_outer: bool = False,
        on_too_big: OnTooBig | None = None,
        flow_labels: FlowLabel = FlowLabel.SYSTEM,
    ) -> None:
        self._errors = SentErrors(sock, on_too_big)
        self._labels_flows = set_flow_labels(sock, flow_labels)
        self._watches_outer = watches_outer
        if watches_outer:
            watch_outer_fields(sock)
        self.local: Address = sock.getsockname()[:2]
        self.drops: Counter[SocketDrop] = Counter()
        self.keepalives = 0
        _has_option(sock, _UDP_GRO, 1)
        self.joins_sends = _has_option(sock, _UDP_SEGMENT, 0)
        self._socket = sock
        self._on_ike = on_ike
        self._on_esp = on_esp
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._on_readable)

    @classmethod
    def open(
        cls,
        local_address: str,
        port: int,
        *,
        on_ike: OnDatagram,
        on_esp: OnEsp,
        front_door: FrontDoor | None = None,
        watches_outer: bool = False,
        on_too_big: OnTooBig | None = None,
        flow_labels: FlowLabel = FlowLabel.SYSTEM,
    ) -> NatSocket:
        """Bind and start to receive; port 0 takes a free one (see `local`). SetupError with the remedy.

        `watches_outer`: tell DSCP, ECN and TTL of what comes in. `on_too_big`: tell what ICMP says of sizes.
        """
        sock = open_socket((local_address, port), socket.SOCK_DGRAM, 0, front_door)
        set_dont_fragment(sock, True)
        return cls(
            sock, on_ike, on_esp, watches_outer=watches_outer, on_too_big=on_too_big, flow_labels=flow_labels
        )

    def all_drops(self) -> Counter[SocketDrop]:
        """`drops`, and what the kernel's queue had no room for."""
        return self.drops + kernel_drops(self._socket)

    def close(self) -> None:
        """Stop to receive and free the port."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def send_ike(self, data: bytes, peer: Address, *, dont_fragment: bool = False) -> None:
        """Send one IKE message behind the non-ESP marker; what cannot be sent is counted."""
        if self._socket.fileno() < 0:
            self.drops[SocketDrop.FAILED] += 1
            return
        set_dont_fragment(self._socket, dont_fragment)
        send(self._socket, NON_ESP_MARKER + data, peer, [], self.drops)
        set_dont_fragment(self._socket, True)

    def send_keepalive(self, peer: Address) -> None:
        """Send one NAT keepalive (RFC 3948 2.3)."""
        send(self._socket, KEEPALIVE, peer, [], self.drops)

    def send_batch(
        self,
        packets: Sequence[bytes],
        peer: Address,
        *,
        tos: int = 0,
        ttl: int = 0,
        may_fragment: bool = False,
    ) -> None:
        """Send ESP packets to one peer, in order; `tos` is their DSCP and ECN octet, DF is off if they `may_fragment`.

        TTL 0 is that of the system.

        What cannot be sent is counted. Packets of one length leave in a single system call (UDP_SEGMENT)
        where the kernel can do that.
        """
        if may_fragment:
            set_dont_fragment(self._socket, False)
            self.send_batch(packets, peer, tos=tos, ttl=ttl)
            set_dont_fragment(self._socket, True)
            return
        control = outer_fields(self._socket.family, tos, ttl)
        if self._labels_flows and packets:
            control = control + flow_label(packets[0][:4])
        for run in runs(packets):
            if not (self.joins_sends and len(run) > 1 and self._send_joined(run, peer, control)):
                for packet in run:
                    send(self._socket, packet, peer, control, self.drops)

    def _send_joined(self, run: Sequence[bytes], peer: Address, control: Ancillary) -> bool:
        """Whether the run is dealt with: sent, or counted as dropped."""
        segmented = (socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", len(run[0])))
        try:
            self._socket.sendmsg(run, [*control, segmented], 0, peer)
        except OSError as error:
            if error.errno == errno.EIO:
                # The device or its driver cannot; that will not change while we run.
                self.joins_sends = False
            if error.errno in (errno.EIO, errno.EINVAL) or is_of_another(error):
                return False
            self.drops[drop_of(error)] += len(run)
        return True

    def _on_readable(self) -> None:
        batch: EspBatch = []
        octets = 0
        for number in range(RECEIVES_PER_WAKE_UP):
            try:
                data, control, _, source = self._socket.recvmsg(LARGEST_DATAGRAM_OCTETS + 1, CONTROL_OCTETS)
            except OSError as error:
                if self._errors.on_failed_receive(error, self.drops, is_first=not number):
                    continue
                break
            peer: Address = source[:2]
            size = _segment_size(control) or max(len(data), 1)
            outer = outer_fields_of(self._socket.family, control) if self._watches_outer else UNKNOWN_OUTER
            datagrams = [data[start : start + size] for start in range(0, max(len(data), 1), size)]
            if are_esp(datagrams):
                # A receive brings seven jumbo frames, or one packet where the path does not join them; in a row
                # they are a row all the same.
                if batch and batch[-1][1:] == (peer, outer):
                    batch[-1][0].extend(datagrams)
                else:
                    batch.append((datagrams, peer, outer))
            else:
                batch = self._receive_mixed(datagrams, peer, outer, batch)
            octets += len(data)
            if octets >= OCTETS_PER_WAKE_UP:
                break
        self._deliver(batch)

    def _receive_mixed(
        self, datagrams: list[bytes], peer: Address, outer: OuterFields, batch: EspBatch
    ) -> EspBatch:
        """One by one, after `batch`; returns what is still to be delivered."""
        for datagram in datagrams:
            kind = classify(datagram)
            if kind is Kind.ESP:
                batch.append(([datagram], peer, outer))
            elif kind is Kind.IKE:
                # Order is kept: a Delete must not overtake the packets that were sent before it.
                self._deliver(batch)
                batch = []
                self._on_ike(strip_marker(datagram), self.local, peer)
            elif kind is Kind.KEEPALIVE:
                self.keepalives += 1
            else:
                self.drops[SocketDrop.SHORT] += 1
        return batch

    def _deliver(self, batch: EspBatch) -> None:
        if batch:
            self._on_esp(batch)


def runs(packets: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Split into runs that one UDP_SEGMENT send can carry: equal lengths, only the last may be shorter."""
    start = 0
    while start < len(packets):
        size = octets = len(packets[start])
        alike = packets[start : start + min(SEGMENTS_PER_SEND, OCTETS_PER_SEND // max(size, 1))]
        end = start + 1
        if len(set(map(len, alike))) == 1:
            end, octets = start + len(alike), size * len(alike)
        while (
            end < len(packets)
            and end - start < SEGMENTS_PER_SEND
            and octets + len(packets[end]) <= OCTETS_PER_SEND
            and len(packets[end - 1]) == size >= len(packets[end])
        ):
            octets += len(packets[end])
            end += 1
        yield packets[start:end]
        start = end


def _has_option(sock: socket.socket, option: int, value: int) -> bool:
    try:
        sock.setsockopt(socket.IPPROTO_UDP, option, value)
    except OSError:
        return False
    return True


def _segment_size(control: list[tuple[int, int, bytes]]) -> int:
    """What UDP_GRO says about the segments of a receive, in octets; 0 when it says nothing."""
    for level, kind, data in control:
        if level == socket.IPPROTO_UDP and kind == _UDP_GRO:
            return int.from_bytes(data[:4], sys.byteorder)
    return 0
