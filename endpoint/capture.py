"""A capture file of what the endpoint sent and received: IP packets in pcapng (draft-ietf-opsawg-pcapng).

Must not know: what the packets mean. tcpdump on the wire is the better witness of what was sent; this one
needs no rights, and it can say in a comment why a packet is there.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict, Unpack

from endpoint.sockets import Address
from mpls.ip import UDP, build_ip, internet_checksum, pseudo_header

__all__ = ["Capture", "Direction", "Note", "udp_datagram"]

Direction: TypeAlias = Literal["inbound", "outbound"]

LINKTYPE_RAW = 101
"""Packets begin with their IPv4 or IPv6 header."""
MAX_INTERFACES = 64
MAX_COMMENT_CHARACTERS = 250

_SECTION_HEADER, _INTERFACE_DESCRIPTION, _ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
_OPTION_END, _OPTION_COMMENT = 0, 1
_SECTION_APPLICATION = 4
_INTERFACE_NAME, _INTERFACE_RESOLUTION = 2, 9
_PACKET_FLAGS = 2
_FLAGS = {"inbound": 1, "outbound": 2}
# More than all that goes with a packet: block headers, comment, the description of its interface.
_OVERHEAD_OCTETS = 4096


class Note(TypedDict, total=False):
    """What can be said of a packet besides its octets."""

    interface: str  # where it was seen: "underlay" unless said; the first use of a name describes it
    direction: Direction
    comment: str
    at_ns: int  # nanoseconds since 1970; now unless said


class Capture:
    """One pcapng file, begun anew."""

    def __init__(self, path: Path, *, max_octets: int = 1 << 30) -> None:
        """OSError if the file cannot be made. Packets beyond `max_octets` are counted, not written.

        When writing fails later (a full disk), `failure` says why and the capture ends; traffic goes on.
        """
        self.path = path
        self.packets = 0
        self.dropped = 0
        self.failure: str | None = None
        self._max_octets = max_octets
        self._octets = 0
        self._interfaces: dict[str, int] = {}
        self._file = path.open("wb")
        section = struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1)
        self._block(_SECTION_HEADER, section + _options((_SECTION_APPLICATION, b"mplsec")))

    def close(self) -> None:
        """Write what is buffered and close the file; later packets are counted as dropped."""
        self._guarded(self._file.close)

    def flush(self) -> None:
        """Write what is buffered, so that a reader of the file sees it."""
        if not self._file.closed:
            self._guarded(self._file.flush)

    def write_packet(self, packet: bytes, **note: Unpack[Note]) -> None:
        """Add a whole IP packet."""
        interface, comment = note.get("interface", "underlay"), note.get("comment", "")
        if (
            self.failure
            or self._file.closed
            or self._octets + len(packet) + _OVERHEAD_OCTETS > self._max_octets
        ):
            self.dropped += 1
            return
        number = self._interface(interface)
        stamp = note.get("at_ns", time.time_ns())
        options = []
        if comment:
            options.append((_OPTION_COMMENT, comment[:MAX_COMMENT_CHARACTERS].encode()))
        if "direction" in note:
            options.append((_PACKET_FLAGS, struct.pack("=I", _FLAGS[note["direction"]])))
        header = struct.pack(
            "=IIIII", number, stamp >> 32 & 0xFFFFFFFF, stamp & 0xFFFFFFFF, len(packet), len(packet)
        )
        self._block(_ENHANCED_PACKET, header + _padded(packet) + _options(*options))
        self.packets += 1

    def write_ip(
        self, source: str, destination: str, protocol: int, payload: bytes, **note: Unpack[Note]
    ) -> None:
        """Add what a raw socket carried, behind an IP header made up for it."""
        addresses = ip_address(source).packed, ip_address(destination).packed
        self.write_packet(build_ip(*addresses, protocol, payload), **note)

    def write_udp(self, source: Address, destination: Address, payload: bytes, **note: Unpack[Note]) -> None:
        """Add what a UDP socket carried (non-ESP marker included), behind headers made up for it."""
        datagram = udp_datagram(source, destination, payload)
        self.write_ip(source[0], destination[0], UDP, datagram, **note)

    def _interface(self, name: str) -> int:
        if name not in self._interfaces:
            if len(self._interfaces) >= MAX_INTERFACES:
                return 0
            self._interfaces[name] = len(self._interfaces)
            # Resolution 9: ten to the minus ninth of a second. Snapshot length 0: no limit.
            described = struct.pack("=HHI", LINKTYPE_RAW, 0, 0)
            options = _options(
                (_INTERFACE_NAME, name[:MAX_COMMENT_CHARACTERS].encode()), (_INTERFACE_RESOLUTION, b"\x09")
            )
            self._block(_INTERFACE_DESCRIPTION, described + options)
        return self._interfaces[name]

    def _block(self, kind: int, body: bytes) -> None:
        length = len(body) + 12
        block = struct.pack("=II", kind, length) + body + struct.pack("=I", length)
        self._guarded(lambda: self._file.write(block))
        self._octets += length

    def _guarded(self, operation: Callable[[], object]) -> None:
        try:
            operation()
        except OSError as error:
            self.failure = error.strerror or str(error)
            # Closing tries to write once more what could not be written; the file is closed all the same.
            with contextlib.suppress(OSError):
                self._file.close()


def udp_datagram(source: Address, destination: Address, payload: bytes) -> bytes:
    """UDP header and payload with the checksum over the pseudo-header (RFC 768, RFC 8200 8.1)."""
    length = 8 + len(payload)
    covered = pseudo_header(ip_address(source[0]).packed, ip_address(destination[0]).packed, UDP, length)
    header = struct.pack(">HHH", source[1], destination[1], length)
    # A sum of zero is sent as ones: zero would say that there is no checksum.
    checksum = internet_checksum(covered + header + b"\0\0" + payload) or 0xFFFF
    return header + checksum.to_bytes(2, "big") + payload


def _padded(octets: bytes) -> bytes:
    return octets + bytes(-len(octets) % 4)


def _options(*options: tuple[int, bytes]) -> bytes:
    if not options:
        return b""
    encoded = b"".join(struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options)
    return encoded + struct.pack("=HH", _OPTION_END, 0)
