"""`mplsec run` processes in namespaces, routers that speak MPLS to them, and ears on every interface."""

import contextlib
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from endpoint.control import ControlError, call
from endpoint.netns import in_namespace
from mpls.ip import IpHeader
from mpls.labels import LabelStack
from tests.endpoint.namespaces import ip, wait_until

SECRET = "0x" + "2a" * 32 + "\n"
ETH_P_ALL = 3
MPLS = 0x8847
OUTGOING = 4  # PACKET_OUTGOING


class Run:
    """One `mplsec run` process with this configuration; `home`: the namespace that is its global table."""

    def __init__(self, name: str, config: str, folder: Path, home: str | None = None) -> None:
        self.name, self.folder, self.home = name, folder / name, home
        self.folder.mkdir(exist_ok=True)
        self.control = self.folder / "control.sock"
        secret = self.folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        self.config = self.folder / "pe.toml"
        self.config.write_text(config.replace("STATE", str(self.folder / "state")))
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        inside = ["ip", "netns", "exec", self.home] if self.home else []
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *inside,
                    *(sys.executable, "-m", "endpoint", "run", str(self.config)),
                    *("--control", str(self.control)),
                ],
                stdout=log,
                stderr=log,
            )

    def wait_up(self) -> None:
        wait_until(self.answers, f"{self.name} up")

    def answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended: {self.log()}")
        with contextlib.suppress(ControlError):
            return bool(self.status())
        return False

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def status(self) -> dict[str, Any]:
        return dict(call(self.control, "status", {}))

    def drops(self) -> dict[str, int]:
        return dict(self.status()["counters"]["drops"])

    def command(self, command: str, **arguments: Any) -> None:
        call(self.control, command, arguments)

    def packets_in(self, child: str) -> int:
        children = [one for peer in self.status()["peers"] for one in peer["children"]]
        return sum(one["packets_in"] for one in children if one["name"] == child)

    def send_signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.process = None
        return code


@contextlib.contextmanager
def running(*runs: Run) -> Iterator[tuple[Run, ...]]:
    """All of them up; killed at the end."""
    try:
        for run in runs:
            run.launch()
        for run in runs:
            run.wait_up()
        yield runs
    finally:
        for run in runs:
            run.stop(signal.SIGKILL)


def mac_of(netns: str, device: str = "wire") -> bytes:
    shown = ip("-n", netns, "-brief", "link", "show", "dev", device)
    return bytes.fromhex(shown.split()[2].replace(":", ""))


class Router:
    """A P or PE router on an Ethernet interface: sends and receives labelled frames by itself."""

    def __init__(self, netns: str, device: str = "wire") -> None:
        self._socket = in_namespace(
            netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(MPLS))
        )
        self._socket.bind((device, MPLS))
        self._socket.setblocking(False)
        self._own = mac_of(netns, device)
        self.frames: list[bytes] = []

    def send(self, to: bytes, stack: LabelStack, packet: bytes) -> None:
        self.send_octets(to, stack.encode() + packet)

    def send_octets(self, to: bytes, octets: bytes) -> None:
        self._socket.send(to + self._own + MPLS.to_bytes(2, "big") + octets)

    def received(self) -> list[tuple[LabelStack, bytes]]:
        """Every label stack so far, with the IP packet behind it."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.frames.append(self._socket.recv(65535)[14:])
        return [split(frame) for frame in self.frames]

    def has(self, labels: tuple[int, ...], destination: str) -> bool:
        return any(
            stack.labels == labels and destination_of(packet) == destination
            for stack, packet in self.received()
        )

    def close(self) -> None:
        self._socket.close()


class TunnelRouter:
    """An inner router that sends RFC 4023 packets: protocol 137, or 47 with a GRE header of four octets."""

    def __init__(self, netns: str, protocol: int, own: str, peer: str) -> None:
        self._socket = in_namespace(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol))
        self._socket.bind((own, 0))
        self._socket.setblocking(False)
        self._peer, self._shim = peer, b"\0\0\x88\x47" if protocol == 47 else b""
        self.packets: list[bytes] = []

    def send(self, stack: LabelStack, packet: bytes) -> None:
        self._socket.sendto(self._shim + stack.encode() + packet, (self._peer, 0))

    def received(self) -> list[tuple[LabelStack, bytes]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self._socket.recv(65535)
                payload = packet[(packet[0] & 15) * 4 :]
                assert payload.startswith(self._shim)
                self.packets.append(payload[len(self._shim) :])
        return [split(packet) for packet in self.packets]

    def has(self, labels: tuple[int, ...], destination: str) -> bool:
        return any(
            stack.labels == labels and destination_of(packet) == destination
            for stack, packet in self.received()
        )

    def close(self) -> None:
        self._socket.close()


def split(octets: bytes) -> tuple[LabelStack, bytes]:
    stack = LabelStack.parse(octets)
    assert isinstance(stack, LabelStack), octets.hex()
    return stack, octets[stack.octet_count :]


def destination_of(packet: bytes) -> str:
    header = IpHeader.parse(packet)
    assert isinstance(header, IpHeader)
    family = socket.AF_INET if header.version == 4 else socket.AF_INET6
    return socket.inet_ntop(family, header.destination)


class Ears:
    """Records every frame that leaves or reaches every interface of some namespaces."""

    def __init__(self, *namespaces: str) -> None:
        self._sockets: list[tuple[str, socket.socket]] = []
        for netns in namespaces:
            opened = in_namespace(
                netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
            )
            opened.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
            opened.setblocking(False)
            self._sockets.append((netns, opened))
        self.heard: list[tuple[str, str, bytes]] = []
        """(namespace, interface, octets from the network header on)"""

    def listen(self) -> list[tuple[str, str, bytes]]:
        for netns, opened in self._sockets:
            with contextlib.suppress(BlockingIOError):
                while True:
                    octets, address = opened.recvfrom(65535)
                    self.heard.append((netns, address[0], octets))
            dropped = struct.unpack("=II", opened.getsockopt(263, 6, 8))[1]  # PACKET_STATISTICS
            assert not dropped, "the ears missed packets"
        return self.heard

    def hear(self, marker: bytes, namespaces: tuple[str, ...] = ()) -> list[tuple[str, str]]:
        """Where octets were seen in clear: (namespace, interface)."""
        return [
            (netns, device)
            for netns, device, octets in self.listen()
            if marker in octets and (not namespaces or netns in namespaces)
        ]

    def close(self) -> None:
        for _, opened in self._sockets:
            opened.close()
