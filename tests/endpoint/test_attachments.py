"""Every attachment, end to end: two `mplsec run`, and routers inside that speak MPLS to them by themselves."""

from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP

from mpls.ip import Echo, IpHeader, build_ip
from mpls.labels import LabelEntry, LabelStack
from tests.endpoint.namespaces import Namespaces, wait_until
from tests.endpoint.running import Ears, Router, Run, TunnelRouter, mac_of, running

pytestmark = pytest.mark.root

CONFIG = """
[endpoint]
identity   = "pe{own}.example"
addresses  = ["192.0.2.{own}"]
front_door = {{ netns = "{front}" }}
state_dir  = "STATE"

# Label-switched traffic of a P router: its labels go on below ours.
[[vrf]]
name     = "core"
announce = ["10.{own}.0.0/16", "2001:db8:{own}::/48"]
  [[vrf.attach]]
  mpls     = "wire"
  netns    = "{p}"
  labels   = "keep"
  next_hop = "172.16.{own}.2"

# Two VRFs of one PE router on one link: its labels say whose a packet is, and end here.
[[vrf]]
name     = "red"
announce = ["10.{own}.0.0/16"]
  [[vrf.attach]]
  mpls         = "red-pe"
  device       = "wire"
  netns        = "{pe}"
  labels       = "pop"
  local_labels = [301]
  peer_label   = 401
  next_hop     = "{pe_mac}"
  address      = ["10.{own}.0.1/24"]
[[vrf]]
name     = "blue"
announce = ["10.{own}.0.0/16"]
  [[vrf.attach]]
  mpls         = "blue-pe"
  device       = "wire"
  netns        = "{pe}"
  labels       = "pop"
  local_labels = ["310-319"]
  next_hop     = "{pe_mac}"

# The dedicated security device.
[[vrf]]
name     = "device"
announce = ["10.{own}.0.0/16"]
  [[vrf.attach]]
  mpls-in-ip = "inner"
  netns      = "{r}"
  labels     = "pop"
  tunnel     = {{ local = "172.16.{own}.1", peer = "172.16.{own}.2" }}
[[vrf]]
name     = "device-gre"
announce = ["10.{own}.0.0/16"]
  [[vrf.attach]]
  mpls-in-gre = "inner-gre"
  netns       = "{g}"
  labels      = "keep"
  tunnel      = {{ local = "172.16.{own}.1", peer = "172.16.{own}.2" }}

[[peer]]
name      = "pe{other}"
identity  = "pe{other}.example"
addresses = ["192.0.2.{other}"]
auth      = {{ psk_file = "secret" }}
{grants}
"""
VRFS = ("core", "red", "blue", "device", "device-gre")
GRANT = """
  [[peer.vrf]]
  name   = "{vrf}"
  accept = ["10.{other}.0.0/16", "2001:db8:{other}::/48"]
"""
LINKS = ("p", "pe", "r", "g")


class Site:
    """One PE, and the routers behind it."""

    def __init__(self, own: int, spaces: Namespaces, folder: Path) -> None:
        names = {link: spaces.real(f"{link}{own}") for link in LINKS}
        behind = {link: spaces.real(f"{link}{own}x") for link in LINKS}
        self.own, self.mac = own, mac_of(names["p"])
        self.mac_of_pe_link = mac_of(names["pe"])
        grants = "".join(GRANT.format(vrf=vrf, other=3 - own) for vrf in VRFS)
        config = CONFIG.format(
            own=own,
            other=3 - own,
            front=spaces.real(f"front{own}"),
            pe_mac=mac_of(behind["pe"]).hex(":"),
            grants=grants,
            **names,
        )
        self.run = Run(f"pe{own}", config, folder)
        self.p, self.pe = Router(behind["p"]), Router(behind["pe"])
        addresses = f"172.16.{own}.2", f"172.16.{own}.1"
        self.inner = TunnelRouter(behind["r"], 137, *addresses)
        self.inner_gre = TunnelRouter(behind["g"], 47, *addresses)

    def close(self) -> None:
        for router in (self.p, self.pe, self.inner, self.inner_gre):
            router.close()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Site]]:
    spaces = Namespaces()
    try:
        for own in (1, 2):
            spaces.add(f"front{own}")
            for link in LINKS:
                spaces.add(f"{link}{own}")
                spaces.add(f"{link}{own}x")
                ends = f"172.16.{own}.1/24", f"172.16.{own}.2/24"
                spaces.join(f"{link}{own}", ends[0], f"{link}{own}x", ends[1])
        spaces.join("front1", "192.0.2.1/24", "front2", "192.0.2.2/24")
        folder = tmp_path_factory.mktemp("attachments")
        pair = Site(1, spaces, folder), Site(2, spaces, folder)
        try:
            with running(pair[0].run, pair[1].run):
                yield pair
        finally:
            for site in pair:
                site.close()
    finally:
        spaces.remove()


@pytest.fixture
def underlay() -> Iterator[Ears]:
    spaces = Namespaces()
    ears = Ears(spaces.real("front1"), spaces.real("front2"))
    yield ears
    ears.close()


def packet(source: str, destination: str, marker: bytes, *, dscp: int = 0) -> bytes:
    return Echo(ip_address(source), ip_address(destination), 7, 1, marker, dscp=dscp).encode()


def next_headers(ears: Ears) -> set[int]:
    """The protocols of what went over the underlay between two addresses: 17 for IKE, 50 for ESP.

    What the kernel says to its neighbours by itself (RFC 4861, from a link-local or no address) is left out.
    """
    headers = [IpHeader.parse(octets) for _, device, octets in ears.listen() if device == "wire"]
    return {
        header.protocol
        for header in headers
        if isinstance(header, IpHeader)
        and not (header.version == 6 and header.source[:2] in (b"\xfe\x80", bytes(2)))
    }


def test_label_switched_traffic_is_what_the_question_was_about(
    sites: tuple[Site, Site], underlay: Ears
) -> None:
    """A P router's frames come out behind the other gateway with the labels that they had."""
    one, two = sites
    stack = LabelStack.push(1000, 2001, tc=3, ttl=64)
    for at, (source, destination) in enumerate(
        (("10.1.0.9", "10.2.0.9"), ("2001:db8:1::9", "2001:db8:2::9"))
    ):
        one.p.send(one.mac, stack, packet(source, destination, b"label-switched %d" % at))
        wait_until(partial(two.p.has, (1000, 2001), destination), "the frame behind the other gateway")
    arrived, _ = two.p.received()[0]
    # Two LSRs on the way, and the TC is the router's own.
    assert [(entry.ttl, entry.tc) for entry in arrived.entries] == [(62, 3), (64, 3)]
    two.p.send(two.mac, LabelStack.push(1001), packet("10.2.0.9", "10.1.0.9", b"label-switched back"))
    wait_until(lambda: one.p.has((1001,), "10.1.0.9"), "the frame back")
    assert one.run.packets_in("core/0") >= 1
    assert two.run.packets_in("core/0") >= 2
    assert not underlay.hear(b"label-switched"), "in clear on the underlay"
    assert 50 in next_headers(underlay)


def test_frames_are_read_and_written_as_another_implementation_does(sites: tuple[Site, Site]) -> None:
    """scapy makes the frame, pads it as a short one is on Ethernet, and reads what comes out (RFC 3032)."""
    one, two = sites
    inner = IP(src="10.1.0.9", dst="10.2.0.77", ttl=9) / UDP(sport=1, dport=2) / b"x"
    frame = bytes(MPLS(label=70, cos=5, s=0, ttl=30) / MPLS(label=71, s=1, ttl=20) / inner)
    one.p.send_octets(one.mac, frame.ljust(46, b"\0"))
    wait_until(lambda: two.p.has((70, 71), "10.2.0.77"), "the frame")
    (found,) = [octets for octets in two.p.frames if b"\x0a\x02\x00\x4d" in octets]
    read = MPLS(found)
    assert (read.label, read.cos, read.s, read.ttl) == (70, 5, 0, 28)
    below = read[MPLS].payload
    assert (below.label, below.s, below.ttl) == (71, 1, 20)
    assert bytes(below.payload) == bytes(inner), (
        "the packet below the labels is as it was, without the padding"
    )


def test_labels_of_a_pe_router_choose_the_vrf_and_end_at_the_gateway(sites: tuple[Site, Site]) -> None:
    one, two = sites
    # Overlapping prefixes: the same packet under two labels comes out in two VRFs, each under its own label.
    one.pe.send(one.mac_of_pe_link, LabelStack.push(301), packet("10.1.0.9", "10.2.0.9", b"of red"))
    wait_until(lambda: two.pe.has((401,), "10.2.0.9"), "the frame of red")
    assert all(b"of red" in body for stack, body in two.pe.received() if stack.labels == (401,))
    one.pe.send(one.mac_of_pe_link, LabelStack.push(315), packet("10.1.0.9", "10.2.0.9", b"of blue"))
    # Blue's router has no label for it: explicit null (RFC 3032 2.1).
    wait_until(lambda: two.pe.has((0,), "10.2.0.9"), "the frame of blue")
    assert all(b"of blue" in body for stack, body in two.pe.received() if stack.labels == (0,))
    assert (two.run.packets_in("red/0"), two.run.packets_in("blue/0")) == (1, 1)


def test_a_label_that_is_nobodys_or_a_peers_is_dropped_in_clear(sites: tuple[Site, Site]) -> None:
    """RFC 4023 8.1: a label given to a secured peer is not taken from an adjacency that is not."""
    one, _ = sites
    (given,) = {row["label"] for row in one.run.status()["labels"] if row["vrf"] == "core"} or {100_000}
    before = one.run.drops()
    one.pe.send(one.mac_of_pe_link, LabelStack.push(999), packet("10.1.0.9", "10.2.0.9", b"nobody"))
    one.p.send(one.mac, LabelStack.push(given), packet("10.1.0.9", "10.2.0.9", b"a peer's"))

    def more(reason: str) -> bool:
        return one.run.drops().get(reason, 0) == before.get(reason, 0) + 1

    wait_until(lambda: more("label_unbound"), "the drop of nobody's label")
    wait_until(lambda: more("cleartext_mpls"), "the drop of a peer's label")


def test_dedicated_security_device_protects_mpls_in_ip_of_an_inner_router(
    sites: tuple[Site, Site], underlay: Ears
) -> None:
    """The inner router sends RFC 4023 packets in clear to us; over the underlay they are ESP."""
    one, two = sites
    one.inner.send(LabelStack.push(500), packet("10.1.0.9", "10.2.0.9", b"of the inner router"))
    wait_until(lambda: two.inner.has((0,), "10.2.0.9"), "the packet at the other inner router")
    two.inner.send(LabelStack.push(500), packet("10.2.0.9", "10.1.0.9", b"of the inner router"))
    wait_until(lambda: one.inner.has((0,), "10.1.0.9"), "the packet back")
    assert not underlay.hear(b"of the inner router")
    assert next_headers(underlay) <= {17, 50}


def test_dedicated_security_device_protects_mpls_in_gre_of_an_inner_router(
    sites: tuple[Site, Site], underlay: Ears
) -> None:
    one, two = sites
    one.inner_gre.send(LabelStack.push(700, 701), packet("10.1.0.9", "10.2.0.9", b"of the inner router"))
    wait_until(lambda: two.inner_gre.has((700, 701), "10.2.0.9"), "the packet at the other inner router")
    assert not underlay.hear(b"of the inner router")
    assert next_headers(underlay) <= {17, 50}


def test_a_packet_too_big_is_answered_under_a_label(sites: tuple[Site, Site]) -> None:
    one, _ = sites
    big = Echo(ip_address("10.1.0.9"), ip_address("10.2.0.9"), 7, 1, b"too big".ljust(1460)).encode()
    one.pe.send(one.mac_of_pe_link, LabelStack.push(301), big)

    def mtu() -> int | None:
        for stack, body in one.pe.received():
            if stack.labels == (401,) and body[20:22] == b"\3\4":
                return int.from_bytes(body[26:28], "big")
        return None

    wait_until(lambda: mtu() is not None, "ICMP too big")
    (child,) = [
        one for peer in one.run.status()["peers"] for one in peer["children"] if one["name"] == "red/0"
    ]
    assert mtu() == child["tunnel_mtu"] - 4


def test_an_error_goes_back_to_the_inner_router_under_a_label(sites: tuple[Site, Site]) -> None:
    one, _ = sites
    ends = ip_address("10.1.0.9").packed, ip_address("10.2.0.9").packed
    body = build_ip(*ends, 17, b"expires!", ttl=1)
    one.pe.send(one.mac_of_pe_link, LabelStack((LabelEntry(301),)), body)

    def is_there() -> bool:
        return any(stack.labels == (401,) and b"expires" in found for stack, found in one.pe.received())

    wait_until(is_there, "ICMP time exceeded")
