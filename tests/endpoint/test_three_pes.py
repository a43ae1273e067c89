"""Three PEs and a router between them, in namespaces: four VRFs, every kind of inside, three kinds of front door.

                 red (tun)   blue (tun)   green           shared (tun)   underlay     front door
    pe1          netns       global       mpls, keep      -              IPv4, IPv6   netns          (non-global)
    pe2          netns       global       mpls-in-ip      netns          IPv4         where we are   (global)
    pe3          netns       -            mpls-in-gre     global         IPv4, IPv6   mark           (global, own table)

"Global" is the table of the namespace in which mplsec runs. pe1 and pe3 speak over IPv6, the others over IPv4.
"""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from endpoint.netns import in_namespace
from mpls.ip import Echo, build_ip
from mpls.labels import LabelStack
from tests.endpoint.namespaces import Namespaces, Pinger, ip, wait_until
from tests.endpoint.running import Ears, Router, Run, TunnelRouter, mac_of, running

pytestmark = pytest.mark.root

SETTINGS = """
[endpoint]
identity   = "pe{own}.example"
addresses  = ["192.0.2.{own}", "2001:db8:f::{own}"]
{door}
state_dir  = "STATE"
"""
TUN = """
[[vrf]]
name     = "{vrf}"
attach   = [{{ tun = "{vrf}0", {netns} address = ["{address}"] }}]
announce = {announce}
"""
LABELLED = """
[[vrf]]
name     = "green"
announce = ["10.{own}.0.0/16"]
  [[vrf.attach]]
  {kind} = "green0"
  netns  = "{netns}"
  labels = "keep"
  {link}
"""
LEAKS = """
[[leak]]
from     = "shared"
to       = "red"
prefixes = ["172.20.0.0/16"]
[[leak]]
from     = "red"
to       = "shared"
prefixes = ["10.2.0.0/24"]
"""
PEER = """
[[peer]]
name      = "pe{other}"
identity  = "pe{other}.example"
addresses = ["{address}"]
auth      = {{ psk_file = "secret" }}
"""
GRANT = """
  [[peer.vrf]]
  name   = "{vrf}"
  accept = [{accept}]
"""
VRFS = {1: ("red", "blue", "green"), 2: ("red", "blue", "green", "shared"), 3: ("red", "green", "shared")}
GLOBAL = {(1, "blue"), (2, "blue"), (3, "shared")}


def config(own: int, spaces: Namespaces) -> str:
    door = {1: f'front_door = {{ netns = "{spaces.real("front1")}" }}', 2: "", 3: "front_door = { mark = 7 }"}
    text = SETTINGS.format(own=own, door=door[own])
    for vrf in VRFS[own]:
        if vrf == "green":
            kind, link = {
                1: ("mpls", f'device = "wire"\n  next_hop = "{mac_of(spaces.real("router1")).hex(":")}"'),
                2: ("mpls-in-ip", 'tunnel = { local = "172.16.2.1", peer = "172.16.2.2" }'),
                3: ("mpls-in-gre", 'tunnel = { local = "172.16.3.1", peer = "172.16.3.2" }'),
            }[own]
            text += LABELLED.format(own=own, kind=kind, netns=spaces.real(f"green{own}"), link=link)
            continue
        netns = "" if (own, vrf) in GLOBAL else f'netns = "{spaces.real(f"{vrf}{own}")}",'
        address = f"172.20.{own}.1/24" if vrf == "shared" else f"10.{own}.0.1/24"
        announce = [address.replace(".1/", ".0/")]
        if vrf == "shared" and own == 2:
            # Red's, leaked, so that shared's sites can answer; and one that holds the peers' own addresses.
            announce += ["10.2.0.0/24", "192.0.2.0/24"]
        text += TUN.format(vrf=vrf, netns=netns, address=address, announce=str(announce).replace("'", '"'))
    if own == 2:
        text += LEAKS
    for other in {1, 2, 3} - {own}:
        address = f"2001:db8:f::{other}" if {own, other} == {1, 3} else f"192.0.2.{other}"
        text += PEER.format(other=other, address=address)
        for vrf in VRFS[own]:
            if vrf in VRFS[other]:
                accept = f'"10.{other}.0.0/16"' if vrf != "shared" else f'"172.20.{other}.0/24"'
                if vrf == "shared" and other == 2:
                    accept += ', "10.2.0.0/24", "192.0.2.0/24"'
                text += GRANT.format(vrf=vrf, accept=accept)
    return text


class Net:
    """The namespaces, the runs, and what is inside of each."""

    def __init__(self, spaces: Namespaces, folder: Path) -> None:
        self.spaces = spaces
        spaces.add("core")
        on = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        ip("netns", "exec", spaces.real("core"), "sysctl", "-qw", *on)
        for own in (1, 2, 3):
            self._build(own)
        self.runs = {
            own: Run(f"pe{own}", config(own, spaces), folder, spaces.real(f"home{own}")) for own in (1, 2, 3)
        }

    def _build(self, own: int) -> None:
        spaces = self.spaces
        for name in ("home", "router", *(["front"] if own == 1 else []), *VRFS[own]):
            spaces.add(f"{name}{own}")
        front, core = spaces.real(f"front{own}" if own == 1 else f"home{own}"), spaces.real("core")
        ip("-n", front, "link", "add", "wire", "type", "veth", "peer", "name", f"to{own}", "netns", core)
        table = ["table", "7"] if own == 3 else []
        ip("-n", front, "address", "add", f"192.0.2.{own}", "dev", "wire")
        ip("-n", front, "address", "add", f"2001:db8:f::{own}", "dev", "wire", "nodad")
        ip("-n", core, "address", "add", "203.0.113.1", "dev", f"to{own}")
        ip("-n", core, "address", "add", "fe80::1/64", "dev", f"to{own}", "nodad")
        ip("-n", front, "link", "set", "wire", "up")
        ip("-n", core, "link", "set", f"to{own}", "up")
        ip("-n", front, "route", "add", "203.0.113.1", "dev", "wire", *table)
        ip("-n", front, "route", "add", "default", "via", "203.0.113.1", "dev", "wire", *table)
        ip("-n", front, "-6", "route", "add", "default", "via", "fe80::1", "dev", "wire", *table)
        ip("-n", core, "route", "add", f"192.0.2.{own}", "dev", f"to{own}")
        ip("-n", core, "-6", "route", "add", f"2001:db8:f::{own}", "dev", f"to{own}")
        if own == 3:
            for family in ("-4", "-6"):
                ip("-n", front, family, "rule", "add", "fwmark", "7", "table", "7")
        spaces.join(f"green{own}", f"172.16.{own}.1/24", f"router{own}", f"172.16.{own}.2/24")

    def where(self, own: int, vrf: str) -> str:
        return self.spaces.real(f"home{own}" if (own, vrf) in GLOBAL else f"{vrf}{own}")

    def fronts(self) -> tuple[str, ...]:
        return tuple(self.spaces.real(name) for name in ("core", "front1"))

    def ping(self, vrf: str, own: int, destination: str, sequence: int) -> None:
        source = f"172.20.{own}.1" if vrf == "shared" else f"10.{own}.0.1"
        pinger = Pinger(self.where(own, vrf), source)
        try:
            pinger.send(destination, sequence)
            wait_until(lambda: pinger.has_answer(sequence), f"{vrf} of pe{own}: answer from {destination}")
        finally:
            pinger.close()

    def inject(self, vrf: str, own: int, packet: bytes) -> None:
        """Whatever source the packet has."""
        raw = in_namespace(
            self.where(own, vrf), lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        )
        with raw:
            raw.sendto(packet, (str(ip_address(packet[16:20])), 0))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    spaces = Namespaces()
    try:
        net = Net(spaces, tmp_path_factory.mktemp("pes"))
        with running(*net.runs.values()):
            yield net
    finally:
        spaces.remove()


def test_overlapping_vrfs_between_three_pes_over_ipv4_and_ipv6(net: Net) -> None:
    for sequence, (vrf, own, other) in enumerate(
        [("red", 1, 2), ("red", 1, 3), ("red", 2, 3), ("blue", 1, 2), ("red", 3, 1)], 1
    ):
        net.ping(vrf, own, f"10.{other}.0.1", sequence)
    status = net.runs[1].status()
    paths = {peer["name"]: [one["path"] for one in peer["sessions"]] for peer in status["peers"]}
    assert all("2001:db8:f::" in path for path in paths["pe3"]) and paths["pe3"]
    assert all("192.0.2." in path for path in paths["pe2"]) and paths["pe2"]
    assert (net.runs[2].packets_in("blue/0"), net.runs[1].packets_in("blue/0")) == (1, 1)


@pytest.mark.parametrize(
    ("vrf", "own", "other", "inside", "door"),
    [
        ("red", 1, 2, "non-global", "non-global"),
        ("blue", 1, 2, "global", "non-global"),
        ("red", 2, 1, "non-global", "global"),
        ("blue", 2, 1, "global", "global"),
        # With the front door by mark the underlay has a table of its own, which is not the global one.
        ("shared", 3, 2, "global", "non-global"),
    ],
)
def test_cisco_restriction_inside_vrf_and_front_door_vrf_in_all_four_combinations(
    net: Net, vrf: str, own: int, other: int, inside: str, door: str
) -> None:
    """ "A crypto map cannot use the global VRF as the IVRF and a non-global VRF as the FVRF": here it may be any."""
    assert ((own, vrf) in GLOBAL) == (inside == "global")
    assert (own != 2) == (door == "non-global")
    destination = f"172.20.{other}.1" if vrf == "shared" else f"10.{other}.0.1"
    net.ping(vrf, own, destination, 10 * own + other)


def test_cisco_restriction_urpf_where_the_inside_vrf_is_not_the_front_door_vrf(net: Net) -> None:
    """ "Not interoperable with unicast RPF if IVRF is not FVRF": here it is strict, in each VRF, by default."""
    ears = Ears(*net.fronts())
    try:
        before = net.runs[1].drops().get("urpf", 0)
        spoofed = build_ip(bytes((10, 9, 9, 9)), bytes((10, 2, 0, 1)), 17, b"\0\7\0\7\0\x14\0\0spoofed here")
        net.inject("red", 1, spoofed)
        wait_until(lambda: net.runs[1].drops().get("urpf", 0) == before + 1, "the drop of a forged source")
        # The same source is right where it belongs, so the check is that of the VRF and of the attachment.
        own = build_ip(bytes((10, 1, 0, 9)), bytes((10, 2, 0, 1)), 17, b"\0\7\0\7\0\x14\0\0spoofed here")
        count = net.runs[2].packets_in("red/0")
        net.inject("red", 1, own)
        wait_until(lambda: net.runs[2].packets_in("red/0") > count, "the packet with the right source")
        assert not ears.hear(b"spoofed here")
    finally:
        ears.close()


def test_leak_between_vrfs_at_one_pe(net: Net) -> None:
    """A site of red at pe2 reaches shared's sites, here and behind pe3; red of pe1 does not."""
    net.ping("red", 2, "172.20.2.1", 31)
    net.ping("red", 2, "172.20.3.1", 32)
    net.ping("shared", 3, "10.2.0.1", 33)
    routes = ip("-n", net.where(1, "red"), "route")
    assert "172.20." not in routes
    assert "172.20.0.0/16" in ip("-n", net.where(2, "red"), "route")


def test_labels_pass_between_three_kinds_of_inside(net: Net) -> None:
    spaces = net.spaces
    p = Router(spaces.real("router1"))
    inner = TunnelRouter(spaces.real("router2"), 137, "172.16.2.2", "172.16.2.1")
    gre = TunnelRouter(spaces.real("router3"), 47, "172.16.3.2", "172.16.3.1")
    ears = Ears(*net.fronts())
    try:

        def packet(own: int, other: int) -> bytes:
            ends = ip_address(f"10.{own}.0.9"), ip_address(f"10.{other}.0.9")
            return Echo(*ends, 1, 1, b"label-switched").encode()

        stack = LabelStack.push(1000, 1001)
        for other in (2, 3):
            p.send(mac_of(spaces.real("green1")), stack, packet(1, other))
        inner.send(stack, packet(2, 3))
        gre.send(stack, packet(3, 1))
        wait_until(lambda: inner.has((1000, 1001), "10.2.0.9"), "pe1's frame at pe2's inner router")
        wait_until(lambda: len(gre.received()) == 2, "pe1's and pe2's at pe3's")
        wait_until(lambda: p.has((1000, 1001), "10.1.0.9"), "pe3's at pe1's P router")
        assert not ears.hear(b"label-switched")
    finally:
        for one in (p, inner, gre, ears):
            one.close()


def test_route_inside_that_holds_the_peers_addresses_does_not_swallow_esp(net: Net) -> None:
    """The front door by mark: what is learned for the inside is in the same namespace, and in another table."""
    assert "192.0.2.0/24 dev shared0" in ip("-n", net.where(3, "shared"), "route")
    net.ping("shared", 3, "172.20.2.1", 41)


def test_nothing_crossed_and_nothing_was_foreign(net: Net) -> None:
    for run in net.runs.values():
        drops = run.drops()
        assert not {"label_foreign", "label_unbound", "outer_address", "inner_label"} & set(drops), drops
