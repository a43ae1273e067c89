"""Nothing of the inside in clear: start-up, rekey, reconnect, crash and stop, with ears on every interface.

The hardest place for it: inside and underlay share one routing table, which has a default route to the underlay. A
host, and a site behind a router, send all the time, over IPv4 and IPv6; a P router sends labelled frames.
"""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from endpoint.netns import in_namespace
from mpls.ip import build_ip
from mpls.labels import LabelStack
from tests.endpoint.namespaces import Namespaces, ip, wait_until
from tests.endpoint.running import Ears, Router, Run, TunnelRouter, mac_of

pytestmark = pytest.mark.root

MARKER = b"of a customer, not for the underlay"
CONTROL = b"in clear on purpose"
CONFIG = """
[endpoint]
identity   = "pe{own}.example"
addresses  = ["192.0.2.{own}"]
state_dir  = "STATE"

[[vrf]]
name     = "red"
attach   = [{{ tun = "red0", address = ["10.{own}.0.1/24", "2001:db8:{own}::1/64"], prefixes = ["10.{own}.7.0/24"] }}]
announce = ["10.{own}.0.0/16", "2001:db8:{own}::/48"]

[[vrf]]
name     = "core"
announce = ["10.{own}.0.0/16"]
  [[vrf.attach]]
  mpls     = "router"
  labels   = "keep"
  next_hop = "{router}"

[[peer]]
name      = "pe{other}"
identity  = "pe{other}.example"
addresses = ["192.0.2.{other}"]
auth      = {{ psk_file = "secret" }}
  [[peer.vrf]]
  name   = "red"
  accept = ["10.{other}.0.0/16", "2001:db8:{other}::/48"]
  [[peer.vrf]]
  name   = "core"
  accept = ["10.{other}.0.0/16"]
"""


class Senders:
    """Send the marker every few milliseconds, by all ways, until stopped; what cannot be sent is no matter."""

    def __init__(self, spaces: Namespaces) -> None:
        home, site = spaces.real("home1"), spaces.real("site1")
        self._udp: list[tuple[socket.socket, str]] = []
        for netns, family, destination in (
            (home, socket.AF_INET, "10.2.0.1"),
            (home, socket.AF_INET6, "2001:db8:2::1"),
            (site, socket.AF_INET, "10.2.0.1"),
        ):
            opened = in_namespace(netns, lambda f=family: socket.socket(f, socket.SOCK_DGRAM))  # type: ignore[misc]
            opened.setblocking(False)
            self._udp.append((opened, destination))
        self._router = Router(spaces.real("p1"))
        self._gateway = mac_of(home, "router")
        ends = ip_address("10.1.0.9").packed, ip_address("10.2.0.9").packed
        self._packet = build_ip(*ends, 17, b"\0\7\0\7\0\0\0\0" + MARKER)
        self.sent = 0
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_stopped.wait(0.004):
            for opened, destination in self._udp:
                with contextlib.suppress(OSError):
                    opened.sendto(MARKER, (destination, 9))
            with contextlib.suppress(OSError):
                self._router.send(self._gateway, LabelStack.push(1000), self._packet)
            self.sent += 1

    def go_on(self, seconds: float = 0.6) -> None:
        """Let them send for a while: the point of the test, not a wait for something."""
        time.sleep(seconds)

    def close(self) -> None:
        self._is_stopped.set()
        self._thread.join()
        for opened, _ in self._udp:
            opened.close()
        self._router.close()


@pytest.fixture
def spaces() -> Iterator[Namespaces]:
    spaces = Namespaces()
    try:
        for own in (1, 2):
            for name in ("home", "site", "p"):
                spaces.add(f"{name}{own}")
        spaces.join("home1", "192.0.2.1/24", "home2", "192.0.2.2/24")
        for own in (1, 2):
            home, site, p = (spaces.real(f"{name}{own}") for name in ("home", "site", "p"))
            ip("-n", home, "address", "add", f"2001:db8:f::{own}/64", "dev", "wire", "nodad")
            ip("-n", home, "route", "add", "default", "via", f"192.0.2.{3 - own}")
            ip("-n", home, "-6", "route", "add", "default", "via", f"2001:db8:f::{3 - own}")
            on = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0")
            ip("netns", "exec", home, "sysctl", "-qw", *on)
            for device, netns, address in (("site", site, f"10.{own}.7"), ("router", p, f"172.16.{own}")):
                ip("-n", home, "link", "add", device, "type", "veth", "peer", "name", "wire", "netns", netns)
                ip("-n", home, "address", "add", f"{address}.1/24", "dev", device)
                ip("-n", netns, "address", "add", f"{address}.2/24", "dev", "wire")
                ip("-n", home, "link", "set", device, "up")
                ip("-n", netns, "link", "set", "wire", "up")
            ip("-n", site, "route", "add", "default", "via", f"10.{own}.7.1")
        yield spaces
    finally:
        spaces.remove()


@pytest.fixture
def runs(spaces: Namespaces, tmp_path: Path) -> Iterator[tuple[Run, Run]]:
    pair = []
    for own in (1, 2):
        router = mac_of(spaces.real(f"p{own}")).hex(":")
        text = CONFIG.format(own=own, other=3 - own, router=router)
        pair.append(Run(f"pe{own}", text, tmp_path, spaces.real(f"home{own}")))
    try:
        yield pair[0], pair[1]
    finally:
        for run in pair:
            run.stop(signal.SIGKILL)


def test_no_packet_leaves_in_clear_at_start_up_rekey_reconnect_crash_and_stop(
    spaces: Namespaces, runs: tuple[Run, Run]
) -> None:
    one, two = runs
    ears = Ears(spaces.real("home1"), spaces.real("home2"))
    senders: Senders | None = None

    def on_the_wire(marker: bytes) -> list[tuple[str, str]]:
        return [where for where in ears.hear(marker) if where[1] == "wire"]

    def arrives() -> int:
        """How often the marker came out of pe2's device."""
        return ears.hear(MARKER).count((spaces.real("home2"), "red0"))

    def goes_on() -> None:
        before = arrives()
        wait_until(lambda: arrives() > before + 20, "traffic goes on")

    try:
        one.launch()
        guards = [("-4", "unreachable 10.2.0.0/16"), ("-6", "unreachable 2001:db8:2::/48")]
        wait_until(
            lambda: all(text in ip("-n", spaces.real("home1"), family, "route") for family, text in guards),
            "the guards of pe1, before anything else of it",
        )
        senders = Senders(spaces)
        one.wait_up()
        two.launch()  # start-up: the peer comes while packets wait, and are dropped
        two.wait_up()
        goes_on()
        wait_until(lambda: two.packets_in("core/0") > 20, "labelled frames too")

        for _ in range(2):  # rekey
            one.command("rekey", peer="pe2")
            two.command("rekey", peer="pe1", ike=True)
            goes_on()

        two.stop(signal.SIGKILL)  # reconnect
        senders.go_on()
        two.launch()
        two.wait_up()
        goes_on()

        one.stop(signal.SIGKILL)  # crash
        assert "red0" not in ip("-n", spaces.real("home1"), "link")
        senders.go_on()
        one.launch()
        one.wait_up()
        goes_on()

        assert one.stop() == 0  # stop
        senders.go_on()
        assert on_the_wire(MARKER) == []

        # The ears would have heard: something in clear on purpose, by the route that the marker must not take.
        clear = in_namespace(spaces.real("home1"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with clear:
            clear.sendto(CONTROL, ("10.99.0.1", 9))
        wait_until(lambda: bool(on_the_wire(CONTROL)), "the control packet on the wire")
        assert senders.sent > 500
    finally:
        if senders is not None:
            senders.close()
        ears.close()


def test_labels_given_to_secured_peers_are_dropped_in_clear(
    spaces: Namespaces, runs: tuple[Run, Run]
) -> None:
    """RFC 4023 8.1, from the underlay: neither protocol 137 nor GRE gets in, whoever sends it."""
    one = runs[0]
    for run in runs:
        run.launch()
    for run in runs:
        run.wait_up()
    one.command("initiate", peer="pe2")
    wait_until(lambda: len(one.status()["labels"]) == 2, "labels are given")
    ears = Ears(spaces.real("home1"))
    try:
        ends = ip_address("10.2.0.9").packed, ip_address("10.1.0.1").packed
        body = build_ip(*ends, 17, b"\0\7\0\7\0\0\0\0" + MARKER)
        for count, protocol in enumerate((137, 47), 1):
            router = TunnelRouter(spaces.real("home2"), protocol, "192.0.2.2", "192.0.2.1")
            for row in one.status()["labels"]:
                router.send(LabelStack.push(row["label"]), body)
            router.close()
            wait_until(lambda c=count: one.drops().get("cleartext_mpls") == 2 * c, "counted")  # type: ignore[misc]
        heard = {device for _, device in ears.hear(MARKER)}
        assert heard == {"wire"}, "it came by the wire and went nowhere"
    finally:
        ears.close()
