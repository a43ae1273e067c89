"""Network namespaces for tests: made with iproute2, named after this process, gone at the end."""

import contextlib
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator

from endpoint.netns import in_namespace
from mpls.ip import internet_checksum


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Namespaces:
    """Names are short words; `real` gives the system's name for one."""

    def __init__(self) -> None:
        self._made: list[str] = []

    def real(self, name: str) -> str:
        return f"mt{os.getpid()}-{name}"

    def add(self, name: str) -> str:
        real = self.real(name)
        ip("netns", "add", real)
        self._made.append(real)
        ip("-n", real, "link", "set", "lo", "up")
        return real

    def join(self, first: str, first_address: str, second: str, second_address: str) -> None:
        """A veth pair named `wire` at both ends."""
        one, other = self.real(first), self.real(second)
        ip("-n", one, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", other)
        for real, address in ((one, first_address), (other, second_address)):
            # no duplicate address detection: an IPv6 address is to be usable at once
            nodad = ["nodad"] if ":" in address else []
            ip("-n", real, "address", "add", address, "dev", "wire", *nodad)
            ip("-n", real, "link", "set", "wire", "up")

    def remove(self) -> None:
        for real in self._made:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", real)
        self._made.clear()


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Poll what another process does; fails with its name when it does not happen."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.02)


class Pinger:
    """Raw ICMP in a namespace. Counts what comes back, by sequence number."""

    def __init__(self, netns: str, source: str, dscp: int = 0) -> None:
        self._socket = in_namespace(
            netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        )
        self._socket.bind((source, 0))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        self._identifier = os.getpid() & 0xFFFF
        self.answered: set[int] = set()

    def send(self, destination: str, sequence: int, size: int = 32) -> None:
        body = struct.pack(">BBHHH", 8, 0, 0, self._identifier, sequence) + bytes(size)
        body = body[:2] + internet_checksum(body).to_bytes(2, "big") + body[4:]
        self._socket.sendto(body, (destination, 0))

    def receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self._socket.recv(65535)
                message = packet[(packet[0] & 15) * 4 :]
                kind, identifier, sequence = struct.unpack(">BxxxHH", message[:8])
                if kind == 0 and identifier == self._identifier:
                    self.answered.add(sequence)

    def has_answer(self, sequence: int) -> bool:
        self.receive()
        return sequence in self.answered

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def tcp_server(netns: str, address: str) -> Iterator[socket.socket]:
    server = in_namespace(netns, lambda: socket.create_server((address, 5001)))
    server.settimeout(10)
    try:
        yield server
    finally:
        server.close()
