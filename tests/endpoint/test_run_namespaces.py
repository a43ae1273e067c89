"""Two `mplsec run` processes in namespaces joined by a wire: TUN devices, overlapping VRFs, crash and restart."""

import contextlib
import hashlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.control import ControlError, call
from endpoint.netns import in_namespace
from tests.endpoint.namespaces import Namespaces, Pinger, ip, tcp_server, wait_until

pytestmark = pytest.mark.root

CONFIG = """
[endpoint]
identity   = "pe{own}.example"
addresses  = ["192.0.2.{own}"]
front_door = {{ netns = "{front}" }}
state_dir  = "{state}"

[[vrf]]
name     = "red"
classes  = ["gold", "standard"]
attach   = [{{ tun = "red0", netns = "{red}", address = ["10.{own}.0.1/24"], mtu = "auto" }}]
announce = ["10.{own}.0.0/24"]

[[vrf]]
name     = "blue"
attach   = [{{ tun = "blue0", netns = "{blue}", address = ["10.{own}.0.1/24"], mtu = "auto" }}]
announce = ["10.{own}.0.0/24"]

[[class]]
name = "gold"
dscp = ["ef"]
tc   = [5, 6, 7]

[[peer]]
name      = "pe{other}"
identity  = "pe{other}.example"
addresses = ["192.0.2.{other}"]
auth      = {{ psk_file = "secret" }}
ike       = ["aes256gcm16-prfsha384-x25519"]
esp       = ["aes256gcm16"]
udp       = "{udp}"
start     = "traffic"

  [[peer.vrf]]
  name    = "red"
  classes = ["gold", "standard"]
  accept  = ["10.{other}.0.0/16"]

  [[peer.vrf]]
  name    = "blue"
  accept  = ["10.{other}.0.0/16"]
"""


class Pe:
    """One `mplsec run` process."""

    def __init__(self, number: int, spaces: Namespaces, folder: Path, udp: str = "auto") -> None:
        self.number, self.folder = number, folder / f"pe{number}"
        self.folder.mkdir(exist_ok=True)
        self.control = self.folder / "control.sock"
        self.red, self.blue = spaces.real(f"red{number}"), spaces.real(f"blue{number}")
        self.front = spaces.real(f"front{number}")
        secret = self.folder / "secret"
        secret.write_text("0x" + "2a" * 32 + "\n")
        secret.chmod(0o600)
        self.config = self.folder / "pe.toml"
        self.config.write_text(
            CONFIG.format(
                own=number,
                other=3 - number,
                front=self.front,
                red=self.red,
                blue=self.blue,
                state=self.folder / "state",
                udp=udp,
            )
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.launch()
        self.wait_up()

    def launch(self) -> None:
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "endpoint", "run", str(self.config), "--control", str(self.control)],
            stdout=log,
            stderr=log,
        )
        log.close()

    def wait_up(self) -> None:
        wait_until(self.answers, f"pe{self.number} up ({self.log()[-500:]})")

    def answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"pe{self.number} ended: {self.log()}")
        with contextlib.suppress(ControlError):
            return bool(self.status())
        return False

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def status(self) -> dict[str, Any]:
        return dict(call(self.control, "status", {}))

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.process = None
        return code


@pytest.fixture
def spaces() -> Iterator[Namespaces]:
    made = Namespaces()
    try:
        for name in ("front1", "front2", "red1", "red2", "blue1", "blue2"):
            made.add(name)
        made.join("front1", "192.0.2.1/24", "front2", "192.0.2.2/24")
        yield made
    finally:
        made.remove()


@pytest.fixture
def pes(spaces: Namespaces, tmp_path: Path) -> Iterator[tuple[Pe, Pe]]:
    pair = (Pe(1, spaces, tmp_path), Pe(2, spaces, tmp_path))
    try:
        for pe in pair:
            pe.launch()
        for pe in pair:
            pe.wait_up()
        yield pair
    finally:
        for pe in pair:
            if pe.process is not None:
                pe.process.kill()
                pe.process.wait()


def answered(netns: str, source: str, destination: str, sequence: int, dscp: int = 0) -> None:
    pinger = Pinger(netns, source, dscp)
    try:
        pinger.send(destination, sequence)
        wait_until(lambda: pinger.has_answer(sequence), f"{netns}: answer {sequence} from {destination}")
    finally:
        pinger.close()


def transfer(server_netns: str, client_netns: str, address: str, octets: bytes) -> str:
    """Send `octets` over TCP; the digest of what arrived."""
    digest = hashlib.sha256()

    def serve(server: Any) -> None:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(20)
            while chunk := connection.recv(65536):
                digest.update(chunk)

    with tcp_server(server_netns, address) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        client = in_namespace(client_netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        with client:
            client.settimeout(20)
            client.connect((address, 5001))
            client.sendall(octets)
            client.shutdown(socket.SHUT_WR)
            thread.join(20)
    return digest.hexdigest()


def packets_in(pe: Pe, child: str) -> int:
    children = pe.status()["peers"][0]["children"]
    return sum(one["packets_in"] for one in children if one["name"] == child)


def test_first_packet_starts_the_sa_and_both_vrfs_carry_ping_and_tcp(pes: tuple[Pe, Pe]) -> None:
    pe1, pe2 = pes
    assert not pe1.status()["peers"][0]["sessions"]
    # The first packet of a VRF starts IKE and its child, waits, and is delivered: it is sent exactly once.
    answered(pe1.red, "10.1.0.1", "10.2.0.1", 1)
    answered(pe1.blue, "10.1.0.1", "10.2.0.1", 1)
    answered(pe1.red, "10.1.0.1", "10.2.0.1", 2, dscp=46)
    answered(pe2.blue, "10.2.0.1", "10.1.0.1", 3)
    for child in ("red/gold", "red/standard", "blue/0"):
        assert packets_in(pe1, child) and packets_in(pe2, child), child
    octets = os.urandom(1_000_000)
    expected = hashlib.sha256(octets).hexdigest()
    before = packets_in(pe2, "red/standard"), packets_in(pe2, "blue/0")
    assert transfer(pe2.red, pe1.red, "10.2.0.1", octets) == expected
    assert transfer(pe2.blue, pe1.blue, "10.2.0.1", octets) == expected
    assert packets_in(pe2, "red/standard") > before[0] + 500
    assert packets_in(pe2, "blue/0") > before[1] + 500
    drops = pe1.status()["counters"]["drops"]
    assert not {"no_child", "no_route", "label_foreign", "label_unbound", "urpf"} & set(drops), drops


def test_a_killed_side_that_starts_again_heals_by_itself(pes: tuple[Pe, Pe]) -> None:
    pe1, pe2 = pes
    answered(pe1.red, "10.1.0.1", "10.2.0.1", 1)
    pe2.stop(signal.SIGKILL)
    links = json.loads(ip("-n", pe2.red, "-json", "link"))
    assert [link["ifname"] for link in links] == ["lo"], "the kernel removes the device of a killed process"
    pe2.start()
    # Nobody touches pe1, and nothing is sent until the new SA is there.
    wait_until(lambda: bool(pe2.status()["peers"][0]["children"]), "pe2 brings back what was up")
    answered(pe1.red, "10.1.0.1", "10.2.0.1", 2)
    answered(pe2.red, "10.2.0.1", "10.1.0.1", 3)
    assert len(pe1.status()["peers"][0]["sessions"]) == 1


def answered_in_the_end(netns: str, source: str, destination: str) -> None:
    """Where the peer takes less than is sent to it, packets of all VRFs are lost in its one queue of ESP."""
    pinger = Pinger(netns, source)
    numbers = itertools.count(100)

    def is_answered() -> bool:
        pinger.send(destination, next(numbers))
        pinger.receive()
        return bool(pinger.answered)

    try:
        wait_until(is_answered, f"{netns}: any answer from {destination}")
    finally:
        pinger.close()


@contextlib.contextmanager
def flooded(netns: str, destination: str) -> Iterator[None]:
    """Somebody in the namespace sends as fast as he can."""
    is_over = threading.Event()
    sender = in_namespace(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.setblocking(False)

    def send() -> None:
        while not is_over.is_set():
            with contextlib.suppress(BlockingIOError):
                sender.sendto(bytes(200), (destination, 9))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        sender.close()


def test_a_child_of_one_vrf_is_rekeyed_while_the_other_vrf_is_flooded(pes: tuple[Pe, Pe]) -> None:
    pe1, pe2 = pes

    def reds(pe: Pe) -> set[str]:
        (peer,) = pe.status()["peers"]
        return {one["spi_in"] for one in peer["children"] if one["name"] == "red/standard"}

    def unread() -> int:
        """What the queues of pe1's devices had no room for; only blue is flooded."""
        return int(pe1.status()["counters"]["sockets"].get("tun_queue", 0))

    for netns in (pe1.red, pe1.blue):
        answered(netns, "10.1.0.1", "10.2.0.1", 1)
    (first,) = reds(pe1)
    with flooded(pe1.blue, "10.2.0.1"):
        wait_until(lambda: unread() > 0, "more comes into blue than pe1 takes")
        before, lost = packets_in(pe2, "blue/0"), unread()
        call(pe1.control, "rekey", {"peer": "pe2", "child": "red/standard"})
        wait_until(lambda: bool(reds(pe1) - {first}), "red has a new SA")
        wait_until(lambda: first not in reds(pe1), "and the old one no longer", seconds=40)
        answered_in_the_end(pe1.red, "10.1.0.1", "10.2.0.1")
        answered_in_the_end(pe2.red, "10.2.0.1", "10.1.0.1")
        assert unread() > lost, "flooded all the time"
        assert packets_in(pe2, "blue/0") > before, "and blue is served too"
    assert len(pe1.status()["peers"][0]["sessions"]) == 1


def test_nothing_is_left_after_an_orderly_stop(pes: tuple[Pe, Pe]) -> None:
    pe1, pe2 = pes
    answered(pe1.red, "10.1.0.1", "10.2.0.1", 1)
    routes = json.loads(ip("-n", pe1.red, "-json", "route"))
    assert "10.2.0.0/24" in [route["dst"] for route in routes], "the learned route"
    assert pe1.stop() == 0
    wait_until(lambda: not pe2.status()["peers"][0]["sessions"], "pe2 hears the Delete")
    assert pe2.stop() == 0
    for pe in (pe1, pe2):
        assert not pe.control.exists()
        for netns in (pe.red, pe.blue):
            links = json.loads(ip("-n", netns, "-json", "link"))
            assert [link["ifname"] for link in links] == ["lo"]
            assert json.loads(ip("-n", netns, "-json", "route") or "[]") == []


@pytest.mark.parametrize("udp", ["auto", "always"])
def test_esp_is_raw_or_in_udp_as_configured(spaces: Namespaces, tmp_path: Path, udp: str) -> None:
    pair = [Pe(number, spaces, tmp_path, udp) for number in (1, 2)]
    try:
        for pe in pair:
            pe.launch()
        for pe in pair:
            pe.wait_up()
        answered(pair[0].red, "10.1.0.1", "10.2.0.1", 1)
        (child,) = pair[0].status()["peers"][0]["children"]
        assert child["udp"] is (udp == "always")
    finally:
        for pe in pair:
            pe.stop()
