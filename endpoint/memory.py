"""A virtual customer host inside the process: the attachment of the demo and of tests, without TUN or privileges.

Sans-IO: packets in and out are calls. It answers pings to its addresses and sends its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from mpls.ip import Echo

__all__ = ["MemoryHost", "Pong"]


@dataclass(frozen=True, slots=True)
class Pong:
    """An echo reply that came back."""

    source: str
    identifier: int
    sequence: int
    data: bytes


class MemoryHost:
    """One host behind an attachment.

    `addresses` are the attachment's interface addresses (the PE's end, with prefix length): the host has every
    other address of those networks. `packets` holds the last ones that were no echo, bounded.
    """

    KEPT_PACKETS = 64
    KEPT_PONGS = 4096

    def __init__(self, addresses: tuple[str, ...], send: Callable[[bytes], None]) -> None:
        self._interfaces = tuple(ip_interface(address) for address in addresses)
        self._own: set[str] = set()
        self._send = send
        self.pongs: deque[Pong] = deque(maxlen=self.KEPT_PONGS)
        self.packets: deque[bytes] = deque(maxlen=self.KEPT_PACKETS)

    def has(self, address: str) -> bool:
        """Whether the address is this host's."""
        one = ip_address(address)
        return address in self._own or any(
            one.version == interface.version and one in interface.network and one != interface.ip
            for interface in self._interfaces
        )

    def change_address(self, command: str, address: IPv4Interface | IPv6Interface) -> None:
        """Command "add" or "del" for an address of the host's own, which the attachment got from a peer."""
        (self._own.add if command == "add" else self._own.discard)(str(address.ip))

    def receive(self, packet: bytes) -> None:
        """A packet that the PE delivers."""
        echo = Echo.parse(packet)
        if echo is None:
            self.packets.append(packet)
        elif echo.is_reply:
            self.pongs.append(Pong(str(echo.source), echo.identifier, echo.sequence, echo.data))
        elif self.has(str(echo.destination)):
            self._send(echo.reply().encode())

    def ping(
        self,
        source: str,
        destination: str,
        *,
        identifier: int,
        sequence: int,
        dscp: int = 0,
        data: bytes = b"",
    ) -> None:
        """Send an echo request."""
        echo = Echo(ip_address(source), ip_address(destination), identifier, sequence, data, dscp=dscp)
        self._send(echo.encode())
