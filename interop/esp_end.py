"""`python -m interop.esp_end`: numbered pings through ESP, by `esp` over a socket, to whoever has the same SAs by hand.

Must not know: who that is. The SAs come as JSON on stdin (`ManualSas`); what came back goes to stdout, as JSON.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from ipaddress import ip_address
from itertools import islice
from typing import Any

from esp import InboundSa, OutboundSa, ReplayWindow, Transform, transform_for
from esp.batch import Row, open_batch, seal_batch
from mpls.ip import internet_checksum, pseudo_header

IPV4, ESP, IPV6 = 4, 50, 41
NAT_PORT = 4500
ICMP = {4: (1, 8, 0), 6: (58, 128, 129)}
"""By IP version: protocol, and the types of an echo request and its answer."""
IDENTIFIER = 0x4D50
LARGEST_OCTETS = 1300
"""Of the data of an echo: with all headers it is a packet of an Ethernet."""
IN_FLIGHT = 64
"""Requests without an answer: the tap of a guest holds 128 frames, and drops what is more."""
PATIENCE_S = 3.0
BUFFER_OCTETS = 4 << 20
MAX_OCTETS = 65535
FLOOD_OCTETS = bytes(range(256)) * (LARGEST_OCTETS // 256 + 1)


@dataclass(frozen=True)
class Direction:
    """SPI and keys (in hexadecimal, with the salt where there is one) of one SA."""

    spi: int
    key: str
    integ_key: str


@dataclass(frozen=True)
class ManualSas:
    """A pair of SAs that no IKE made, and the pings that go through it.

    inside       tunnel mode: the inner addresses; None in transport mode
    encr, key_bits, integ   IANA's numbers
    sequence     the last sequence number that both directions count as used
    count        echo requests that are sent; their answers are the packets of the other direction
    """

    local: str
    peer: str
    inside: tuple[str, str] | None
    is_udp: bool
    encr: int
    key_bits: int | None
    integ: int
    esn: bool
    sequence: int
    count: int
    outbound: Direction
    inbound: Direction

    @classmethod
    def from_json(cls, text: str) -> ManualSas:
        fields: dict[str, Any] = json.loads(text)
        inside = tuple(fields.pop("inside") or ()) or None
        outbound, inbound = (Direction(**fields.pop(name)) for name in ("outbound", "inbound"))
        return cls(inside=inside, outbound=outbound, inbound=inbound, **fields)

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def transform(self) -> Transform:
        return transform_for(self.encr, self.key_bits, self.integ)

    @property
    def version(self) -> int:
        """Of the IP headers, outer and inner."""
        return ip_address(self.local).version

    @property
    def next_header(self) -> int:
        """What is inside: an IP packet in tunnel mode, ICMP in transport mode."""
        return {4: IPV4, 6: IPV6}[self.version] if self.inside else ICMP[self.version][0]

    @cached_property
    def ends(self) -> tuple[bytes, bytes]:
        """The addresses of the echo requests, packed."""
        source, target = self.inside or (self.local, self.peer)
        return ip_address(source).packed, ip_address(target).packed

    def echo(self, number: int, *, is_answer: bool) -> bytes:
        """The ICMP packet of a number: of every size, so that every length of padding is there."""
        source, target = reversed(self.ends) if is_answer else self.ends
        protocol, *kinds = ICMP[self.version]
        size = number * 37 % (LARGEST_OCTETS + 1)
        front = bytes((kinds[is_answer], 0))
        back = IDENTIFIER.to_bytes(2) + (number & 0xFFFF).to_bytes(2) + FLOOD_OCTETS[:size]
        covered = front + bytes(2) + back
        if self.version == 6:
            covered = pseudo_header(source, target, protocol, len(covered)) + covered
        return front + internet_checksum(covered).to_bytes(2) + back

    def request(self, number: int) -> bytes:
        """What is sealed for a number."""
        icmp = self.echo(number, is_answer=False)
        return ip_header(*self.ends, ICMP[self.version][0], len(icmp)) + icmp if self.inside else icmp

    def answered(self, payload: bytes) -> bytes:
        """The ICMP packet in what was opened; empty for one that is not between the right addresses."""
        if self.inside is None:
            return payload
        addresses = payload[12:20] if self.version == 4 else payload[8:40]
        octets = 20 if self.version == 4 else 40
        return payload[octets:] if addresses == self.ends[1] + self.ends[0] else b""


def ip_header(source: bytes, target: bytes, protocol: int, octets: int) -> bytes:
    """An IP header in front of `octets` of a protocol; packed addresses."""
    if len(source) == 16:
        return b"\x60\0\0\0" + octets.to_bytes(2) + bytes((protocol, 64)) + source + target
    header = b"\x45\0" + (20 + octets).to_bytes(2) + bytes(4) + bytes((64, protocol, 0, 0)) + source + target
    return header[:10] + internet_checksum(header).to_bytes(2) + header[12:]


class EspEnd:
    """Our end of the SAs: a socket and both of them."""

    def __init__(self, sas: ManualSas) -> None:
        self.sas = sas
        family = socket.AF_INET6 if sas.version == 6 else socket.AF_INET
        kind = (socket.SOCK_DGRAM, 0) if sas.is_udp else (socket.SOCK_RAW, ESP)
        self._socket = socket.socket(family, *kind)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, BUFFER_OCTETS)
        port = NAT_PORT if sas.is_udp else 0
        self._socket.bind((sas.local, port))
        self._socket.connect((sas.peer, port))
        self.outbound = OutboundSa(*_keys(sas, sas.outbound), esn=sas.esn)
        self.outbound.sequence = sas.sequence
        self.inbound = InboundSa(*_keys(sas, sas.inbound), esn=sas.esn)
        self.inbound.replay = ReplayWindow(esn=sas.esn, highest=sas.sequence)
        self.answers = 0
        self.wrong = 0
        """Authentic packets that are no answer which was still to come."""

    def ping(self) -> None:
        """Send all requests, never more than `IN_FLIGHT` ahead; end when no answer comes any more."""
        awaited: dict[bytes, int] = {}
        numbers = iter(range(1, self.sas.count + 1))
        last = time.monotonic()
        while True:
            batch = list(islice(numbers, IN_FLIGHT - len(awaited)))
            awaited |= {self.sas.echo(number, is_answer=True): number for number in batch}
            for packet in seal_batch(self.outbound, list(map(self.sas.request, batch)), self.sas.next_header):
                self._socket.send(packet)
            if not awaited or time.monotonic() - last > PATIENCE_S:
                return
            for payload in self._receive():
                last = time.monotonic()
                is_awaited = awaited.pop(self.sas.answered(payload), None) is not None
                self.answers += is_awaited
                self.wrong += not is_awaited

    def _receive(self) -> Iterator[bytes]:
        """What is in the packets that are there, after at most half a second."""
        if not select.select([self._socket], [], [], 0.5)[0]:
            return
        packets: list[bytes] = []
        while len(packets) < IN_FLIGHT:
            try:
                octets = self._socket.recv(MAX_OCTETS, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            # A raw socket of IPv4 gives the header too, one of IPv6 does not.
            with_header = self.sas.version == 4 and not self.sas.is_udp
            packets.append(octets[(octets[0] & 15) * 4 :] if with_header else octets)
        for outcome in open_batch(self.inbound, packets):
            if isinstance(outcome, Row) and outcome.next_header == self.sas.next_header:
                yield from outcome.payloads

    def report(self) -> dict[str, Any]:
        """What was sent and came back, as the SAs count it."""
        return {
            "answers": self.answers,
            "wrong": self.wrong,
            "packets_out": self.outbound.packets,
            "packets_in": self.inbound.packets,
            "highest_out": self.outbound.sequence,
            "highest_in": self.inbound.replay.highest,
            "drops": {reason.name: count for reason, count in self.inbound.drops.items()},
        }


def _keys(sas: ManualSas, direction: Direction) -> tuple[bytes, Transform, bytes, bytes]:
    keys = bytes.fromhex(direction.key), bytes.fromhex(direction.integ_key)
    return direction.spi.to_bytes(4), sas.transform, *keys


def main() -> None:
    end = EspEnd(ManualSas.from_json(sys.stdin.read()))
    end.ping()
    print(json.dumps(end.report()))


if __name__ == "__main__":
    main()
