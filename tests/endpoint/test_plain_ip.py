"""IP packets without MPLS: `encapsulation = "none"` in its three forms, because a user has both."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from endpoint.config import Config, ConfigError, parse_config
from endpoint.explain import Explainer
from endpoint.packets import GivenPacket
from mpls.ip import build_ip, internet_checksum, pseudo_header
from tests.endpoint.pair import NodePair

TEXT = """
[endpoint]
identity  = "pe{own}.example"
addresses = ["192.0.2.{own}"]
[[vrf]]
name     = "office"
attach   = [{{ memory = "office", address = ["{address}"] }}]
announce = [{announce}]
[[peer]]
name          = "pe{other}"
identity      = "pe{other}.example"
addresses     = ["192.0.2.{other}"]
auth          = {{ psk_file = "psk" }}
selectors     = "plain"
mode          = "{mode}"
encapsulation = "none"
  [[peer.vrf]]
  name   = "office"
  accept = ["{accept}"]
  {more}
"""


def config(own: int, mode: str = "tunnel", more: str = "", accept: str = "10.{other}.0.0/24") -> Config:
    is_host = mode == "transport"
    text = TEXT.format(
        own=own,
        other=3 - own,
        mode=mode,
        more=more,
        address=f"192.0.2.{own}/32" if is_host else f"10.{own}.0.1/16",
        announce="" if is_host else f'"10.{own}.0.0/24"',
        accept=(f"192.0.2.{3 - own}/32" if is_host else accept).format(other=3 - own),
    )
    return parse_config(text, f"pe{own}.toml", secrets={"psk": b"a secret of the test"})


def udp(source: str, destination: str, data: bytes = b"data", *, ttl: int = 64) -> bytes:
    ends = ip_address(source).packed, ip_address(destination).packed
    header = b"\x13\x88\x13\x89" + (8 + len(data)).to_bytes(2, "big")
    covered = pseudo_header(*ends, 17, 8 + len(data))
    checksum = internet_checksum(covered + header + b"\0\0" + data)
    return build_ip(*ends, 17, header + checksum.to_bytes(2, "big") + data, ttl=ttl)


def test_ipsec_over_an_existing_mpls_l3vpn_has_no_137_at_all() -> None:
    """Policy-based: IP packets in tunnel mode; what labels the provider puts outside is not ours."""
    pair = NodePair(config(1), config(2)).start()
    pair.send(1, "office", udp("10.1.0.9", "10.2.0.9"))
    pair.run(2)
    (child,) = pair.pe2.node.children
    assert list(pair.pe2.hosts["office"].packets) == [udp("10.1.0.9", "10.2.0.9", ttl=62)]
    assert [str(one) for one in child.sa.local_ts] == ["10.2.0.0/24"]
    assert child.outbound_map is None
    # 10.1.7.9 is behind the attachment, and no part of what was negotiated.
    pair.send(1, "office", udp("10.1.7.9", "10.2.0.9"))
    pair.run(1)
    assert pair.pe1.drops("outside_selector") == 1
    assert len(pair.pe2.hosts["office"].packets) == 1


def test_padding_behind_plain_ip_packets_is_gone_at_the_other_end() -> None:
    one, two = (
        replace(each, peers=(replace(each.peers[0], tfc_octets=300),)) for each in (config(1), config(2))
    )
    pair = NodePair(one, two).start()
    packets = [udp("10.1.0.9", "10.2.0.9", bytes(size)) for size in (0, 50, 50, 50, 90)]
    pair.send(1, "office", packets[0])
    pair.run(2)
    pair.ends[1].node.receive_packets("office", packets[1:], pair.now)
    pair.run(1)
    arrived = list(pair.pe2.hosts["office"].packets)
    assert [len(one) for one in arrived] == [len(one) for one in packets]
    assert {len(octets) for _, octets in pair.wire} == {8 + 8 + 304 + 16}


def test_route_based_selectors_are_everything_and_routes_say_what_goes_there() -> None:
    one, two = (config(own, more="route_based = true", accept="10.{other}.0.0/16") for own in (1, 2))
    pair = NodePair(one, two).start()
    pair.send(1, "office", udp("10.1.7.9", "10.2.7.9"))
    pair.run(2)
    assert list(pair.pe2.hosts["office"].packets) == [udp("10.1.7.9", "10.2.7.9", ttl=62)]
    (child,) = pair.pe1.node.children
    assert [str(one) for one in child.sa.peer_ts] == ["0.0.0.0/0", "::/0"]


def test_route_based_takes_no_source_that_is_not_routed_to_the_peer() -> None:
    """The selectors of the SA would let it pass; strict uRPF does not."""
    wide = config(1, more="route_based = true", accept="10.{other}.0.0/24")
    pair = NodePair(wide, config(2, more="route_based = true", accept="10.{other}.0.0/16")).start()
    pair.send(2, "office", udp("10.2.7.9", "10.1.0.9"))
    pair.run(2)
    assert pair.pe1.drops("address_selector") == 1
    assert not pair.pe1.hosts["office"].packets


def test_host_to_host_transport_mode_carries_what_follows_the_ip_header() -> None:
    pair = NodePair(config(1, "transport"), config(2, "transport")).start()
    pair.send(1, "office", udp("192.0.2.1", "192.0.2.2"))
    pair.run(2)
    # Neither end is a hop: the packet is from one host and for the other.
    assert list(pair.pe2.hosts["office"].packets) == [udp("192.0.2.1", "192.0.2.2")]
    (child,) = pair.pe2.node.children
    assert child.sa.mode.value == "transport"
    (sent,) = [octets for sender, octets in pair.wire if sender == 1]
    # SPI, sequence number, IV; UDP header and data; padding, two octets of trailer; ICV.
    assert len(sent) == 8 + 8 + 12 + 2 + 2 + 16
    assert child.budget.vrf_mtu == 1500 - 8 - 8 - 2 - 16 - child.budget.padding


@pytest.mark.parametrize(
    "packet",
    [
        udp("192.0.2.1", "192.0.2.2")[:6] + b"\x20\0" + udp("192.0.2.1", "192.0.2.2")[8:],
        build_ip(bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)), 17, bytes(8)),
    ],
)
def test_transport_mode_takes_whole_datagrams_only(packet: bytes) -> None:
    """RFC 4303 3.3.4: it never protects a fragment."""
    fragment = packet[6] & 0x20
    if fragment:
        header = packet[:10] + b"\0\0" + packet[12:20]
        packet = header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:] + packet[20:]
    pair = NodePair(config(1, "transport"), config(2, "transport")).start()
    pair.send(1, "office", packet)
    pair.run(2)
    assert pair.pe1.drops("outside_selector") == bool(fragment)
    assert len(pair.pe2.hosts["office"].packets) == (0 if fragment else 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("192.0.2.9/32", "is no address of the peer"),
        ("192.0.2.0/24", "is no address of the peer"),
    ],
)
def test_transport_mode_is_between_two_hosts(text: str, message: str) -> None:
    made = TEXT.format(
        own=1, other=2, mode="transport", more="", address="192.0.2.1/32", announce="", accept=text
    )
    with pytest.raises(ConfigError) as raised:
        parse_config(made, "pe1.toml", secrets={"psk": b"a secret of the test"})
    assert any(message in problem.message for problem in raised.value.problems)


@pytest.mark.parametrize(
    ("mode", "more", "source", "reason"),
    [
        ("tunnel", "", "10.1.0.9", None),
        ("tunnel", "", "10.1.7.9", "outside_selector"),
        ("tunnel", "route_based = true", "10.1.7.9", None),
        ("transport", "", "192.0.2.1", None),
    ],
)
def test_explain_says_what_is_outside_of_the_selectors(
    mode: str, more: str, source: str, reason: str | None
) -> None:
    destination = "192.0.2.2" if mode == "transport" else "10.2.0.9"
    found = Explainer(config(1, mode, more)).explain(GivenPacket(1, udp(source, destination)))
    assert found.reason == reason
    if mode == "transport":
        assert {path.next_header for path in found.paths} == {17}
        packet = len(udp(source, destination))
        esp = {path.name: path.total for path in found.paths}["IPv4"]
        assert esp == packet + 8 + 8 + 2 + 16 + -(packet - 20 + 2) % 4
