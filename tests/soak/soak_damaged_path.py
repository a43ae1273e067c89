"""1,000,000 repeated, cut, damaged and foreign ESP packets between two `mplsec run`: good traffic keeps 90 %.

On the wire every ESP packet of pe1 is followed by a bad one that looks like his. Of a case's two halves only the second
has bad ones: as many packets as in the first must arrive. No memory grows, nothing is logged as an error.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import tempfile
import time
from pathlib import Path

from endpoint.netns import in_namespace
from mpls.ip import internet_checksum
from tests.endpoint.namespaces import Namespaces, wait_until
from tests.endpoint.running import ETH_P_ALL, OUTGOING, running
from tests.endpoint.running import Run as Process
from tests.soak.run import Run

NEEDS_ROOT = True
PACKETS_PER_S = 5000
TICK_S = 0.01
HALF_S = 2.0
CASES = round(1_000_000 / (PACKETS_PER_S * HALF_S))
MIN_KEPT = 0.9
MAX_GROWTH_OCTETS = 16 * 1024 * 1024
CONFIG = """
[endpoint]
identity   = "pe{own}.example"
addresses  = ["192.0.2.{own}"]
front_door = {{ netns = "{front}" }}
state_dir  = "STATE"

[[vrf]]
name     = "red"
attach   = [{{ tun = "red0", netns = "{red}", address = ["10.{own}.0.1/24"] }}]
announce = ["10.{own}.0.0/24"]

[[peer]]
name      = "pe{other}"
identity  = "pe{other}.example"
addresses = ["192.0.2.{other}"]
auth      = {{ psk_file = "secret" }}
udp       = "always"
start     = "{start}"

  [[peer.vrf]]
  name    = "red"
  accept  = ["10.{other}.0.0/16"]
"""
PAYLOAD = bytes(200)
ESP_OCTETS = 8 + 8 + (4 + 20 + 8 + len(PAYLOAD) + 4) + 16
"""Header, IV, label, IPv4, UDP, payload, trailer with padding to four octets, ICV."""
HEADERS = 14 + 20 + 8
"""Octets of a frame before ESP: Ethernet, IPv4, UDP."""
DROPS = ("replay", "truncated", "integrity", "unknown_spi")


def soak(run: Run) -> None:
    spaces = Namespaces()
    with contextlib.ExitStack() as stack:
        stack.callback(spaces.remove)
        for name in ("front1", "front2", "red1", "red2"):
            spaces.add(name)
        spaces.join("front1", "192.0.2.1/24", "front2", "192.0.2.2/24")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pe1, pe2 = stack.enter_context(running(*(_process(spaces, folder, number) for number in (1, 2))))
        wait_until(lambda: all(pe.status()["peers"][0]["children"] for pe in (pe1, pe2)), "children")
        path = stack.enter_context(contextlib.closing(DamagedPath(spaces)))
        kept, growth, base = [], 0, 0
        path.send(0.5, damage=False)
        for number in run.cases(CASES):
            alone, beside = path.send(HALF_S, damage=False), path.send(HALF_S, damage=True)
            kept.append(beside / alone)
            base = base or _memory_octets(pe2)
            growth = _memory_octets(pe2) - base
            run.step(f"{path.faults} faults, {kept[-1]:.3f} kept, {growth // 1024} KB more memory")
            assert number or path.faults, "no ESP was seen on the wire"
        drops = pe2.drops()
        assert sum(kept) / len(kept) >= MIN_KEPT, f"good traffic kept {sum(kept) / len(kept):.3f}"
        assert growth < MAX_GROWTH_OCTETS, f"{growth} octets more than after the first case"
        counted = sum(drops.get(reason, 0) for reason in DROPS)
        assert counted >= MIN_KEPT * path.faults, f"{path.faults} bad packets, but counted: {drops}"
        for pe in (pe1, pe2):
            assert not re.search("Traceback|ERROR", pe.log()), pe.log()[-2000:]
            assert pe.stop() == 0


def _process(spaces: Namespaces, folder: Path, number: int) -> Process:
    config = CONFIG.format(
        own=number,
        other=3 - number,
        front=spaces.real(f"front{number}"),
        red=spaces.real(f"red{number}"),
        start="boot" if number == 1 else "none",
    )
    return Process(f"pe{number}", config, folder)


def _memory_octets(pe: Process) -> int:
    if pe.process is None:
        raise ProcessLookupError(pe.name)
    return int(Path(f"/proc/{pe.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class DamagedPath:
    """Sends packets from red1 to red2, and bad ESP after each that is seen on the wire."""

    def __init__(self, spaces: Namespaces) -> None:
        self.faults = 0
        self._some = random.Random("damaged path")
        red1, red2, front = (spaces.real(name) for name in ("red1", "red2", "front1"))
        self._sender = in_namespace(red1, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._receiver = in_namespace(red2, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._receiver.bind(("10.2.0.1", 5000))
        self._wire = in_namespace(
            front, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        )
        self._wire.bind(("wire", ETH_P_ALL))
        for one in (self._receiver, self._wire):
            one.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
            one.setblocking(False)

    def close(self) -> None:
        for one in (self._sender, self._receiver, self._wire):
            one.close()

    def send(self, seconds: float, *, damage: bool) -> int:
        """How many of the packets arrived."""
        arrived, began = 0, time.monotonic()
        for tick in range(round(seconds / TICK_S)):
            for _ in range(round(PACKETS_PER_S * TICK_S)):
                self._sender.sendto(PAYLOAD, ("10.2.0.1", 5000))
            self._damage(damage)
            arrived += self._drain()
            time.sleep(max(0.0, began + (tick + 1) * TICK_S - time.monotonic()))
        time.sleep(0.2)
        self._damage(False)
        return arrived + self._drain()

    def _drain(self) -> int:
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self._receiver.recv(2048):
                count += 1
        return count

    def _damage(self, damage: bool) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (*_, direction, _, _) = self._wire.recvfrom(65535)
                if damage and direction == OUTGOING:
                    for esp in _packets_of(frame):
                        self._wire.send(_frame_of(frame, self._bad(esp)))
                        self.faults += 1

    def _bad(self, packet: bytes) -> bytes:
        esp = bytearray(packet)
        match self._some.randrange(4):
            case 0:  # a bit, anywhere behind the header
                esp[self._some.randrange(8, len(esp))] ^= 1 << self._some.randrange(8)
            case 1:
                del esp[self._some.randrange(8, len(esp)) :]
            case 2:
                esp[0:4] = b"\xff" + self._some.randbytes(3)
        return bytes(esp)  # or once more as it was


def _packets_of(frame: bytes) -> list[bytes]:
    """The ESP packets in a frame: a veth carries a row of datagrams as one, as UDP_SEGMENT made it."""
    octets = frame[HEADERS:]
    if len(octets) % ESP_OCTETS or octets[:4] == bytes(4):
        return []
    return [octets[at : at + ESP_OCTETS] for at in range(0, len(octets), ESP_OCTETS)]


def _frame_of(frame: bytes, esp: bytes) -> bytes:
    """These octets with the Ethernet, IPv4 and UDP headers of another frame; no UDP checksum."""
    header = bytearray(frame[14:34])
    header[2:4] = (28 + len(esp)).to_bytes(2, "big")
    header[10:12] = bytes(2)
    header[10:12] = internet_checksum(bytes(header)).to_bytes(2, "big")
    return frame[:14] + bytes(header) + frame[34:38] + (8 + len(esp)).to_bytes(2, "big") + bytes(2) + esp
