"""Raw IP sockets: ESP without UDP (protocol 50, RFC 4303 2), watchers for cleartext 137 and 47 (RFC 4023).

Must not know: what the packets mean.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from endpoint.config import FlowLabel, FrontDoor
from endpoint.sockets import (
    CONTROL_OCTETS,
    LARGEST_DATAGRAM_OCTETS,
    Ancillary,
    OnTooBig,
    SentErrors,
    SocketDrop,
    flow_label,
    kernel_drops,
    open_socket,
    outer_fields,
    outer_fields_of,
    send,
    set_dont_fragment,
    set_flow_labels,
    watch_outer_fields,
)
from mpls.models import UNKNOWN_OUTER, OuterFields

__all__ = ["OnPackets", "RawSocket"]

OnPackets: TypeAlias = Callable[[list[tuple[bytes, str, str, OuterFields]]], None]
"""A batch of (what follows the IP header, source address, destination address, DSCP, ECN and TTL)."""

RECEIVES_PER_WAKE_UP = 64


class RawSocket:
    """One IP protocol at one local address. The kernel writes the IP header, with DF set (RFC 4023 5.1)."""

    def __init__(
        self,
        sock: socket.socket,
        protocol: int,
        on_packets: OnPackets,
        *,
        watches_outer: bool = False,
        on_too_big: OnTooBig | None = None,
        flow_labels: FlowLabel = FlowLabel.SYSTEM,
    ) -> None:
        self._errors = SentErrors(sock, on_too_big)
        self._labels_flows = set_flow_labels(sock, flow_labels)
        self._asks_outer = watches_outer
        if self._asks_outer:
            watch_outer_fields(sock)
        self.local_address: str = sock.getsockname()[0]
        self.protocol = protocol
        self.drops: Counter[SocketDrop] = Counter()
        self._socket = sock
        self._on_packets = on_packets
        self._buffer = bytearray(LARGEST_DATAGRAM_OCTETS)
        self._view = memoryview(self._buffer)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._on_readable)

    @classmethod
    def open(
        cls,
        local_address: str,
        protocol: int,
        *,
        on_packets: OnPackets,
        front_door: FrontDoor | None = None,
        watches_outer: bool = False,
        on_too_big: OnTooBig | None = None,
        flow_labels: FlowLabel = FlowLabel.SYSTEM,
    ) -> RawSocket:
        """Bind and start to receive. SetupError with the remedy (it needs CAP_NET_RAW).

        `watches_outer`: tell DSCP, ECN and TTL of what comes in, and its fragments. `on_too_big`: tell what
        ICMP says of sizes.
        """
        sock = open_socket((local_address, 0), socket.SOCK_RAW, protocol, front_door)
        set_dont_fragment(sock, True)
        return cls(
            sock,
            protocol,
            on_packets,
            watches_outer=watches_outer,
            on_too_big=on_too_big,
            flow_labels=flow_labels,
        )

    def all_drops(self) -> Counter[SocketDrop]:
        """`drops`, and what the kernel's queue had no room for."""
        return self.drops + kernel_drops(self._socket)

    def close(self) -> None:
        """Stop to receive."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def send_batch(
        self,
        packets: Sequence[bytes],
        peer_address: str,
        *,
        tos: int = 0,
        ttl: int = 0,
        may_fragment: bool = False,
    ) -> None:
        """Send IP payloads to one peer, in order; `tos` is their DSCP and ECN octet; refusals are counted.

        DF is off if they `may_fragment`; TTL 0 is that of the system.
        """
        if may_fragment:
            set_dont_fragment(self._socket, False)
            self.send_batch(packets, peer_address, tos=tos, ttl=ttl)
            set_dont_fragment(self._socket, True)
            return
        control = outer_fields(self._socket.family, tos, ttl)
        if self._labels_flows and packets:
            control = control + flow_label(packets[0][:4])
        for packet in packets:
            send(self._socket, packet, (peer_address, 0), control, self.drops)

    def _on_readable(self) -> None:
        batch: list[tuple[bytes, str, str, OuterFields]] = []
        for number in range(RECEIVES_PER_WAKE_UP):
            control: Ancillary = []
            try:
                if self._asks_outer:
                    count, control, _, source = self._socket.recvmsg_into([self._buffer], CONTROL_OCTETS)
                else:
                    count, source = self._socket.recvfrom_into(self._buffer)
            except OSError as error:
                if self._errors.on_failed_receive(error, self.drops, is_first=not number):
                    continue
                break
            start, destination = 0, self.local_address
            if self._socket.family == socket.AF_INET:
                # IPv4 raw sockets deliver the IP header, IPv6 ones do not (raw(7), RFC 3542 3).
                start = (self._buffer[0] & 0x0F) * 4
                if not 20 <= start <= count:
                    self.drops[SocketDrop.SHORT] += 1
                    continue
                destination = str(ipaddress.IPv4Address(bytes(self._view[16:20])))
            outer = outer_fields_of(self._socket.family, control) if self._asks_outer else UNKNOWN_OUTER
            batch.append((bytes(self._view[start:count]), source[0], destination, outer))
        if batch:
            self._on_packets(batch)
