"""What two nodes do with packets that are too large, by the policy of the peer: ICMP, TCP's MSS, fragments, DF."""

from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, defragment
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet, Raw

from endpoint.config import AttachmentKind, LabelledConfig
from mpls.vrf import Labels
from tests.endpoint.pair import NodePair, configuration


def pair(settings: str = "") -> NodePair:
    nodes = NodePair(configuration(1, settings), configuration(2, settings)).start()
    nodes.run(1)
    nodes.pe1.node.initiate("pe2", None, nodes.now)
    nodes.run(2)
    nodes.ping(1, "red", 1)
    nodes.run(1)
    assert nodes.pongs(1, "red") == [1]
    nodes.wire.clear()
    return nodes


def send(nodes: NodePair, packet: Packet, number: int = 1) -> list[Packet]:
    """A customer sends it; what arrives at the other end."""
    nodes.send(number, "red", bytes(packet))
    nodes.run(0.5)
    host = nodes.ends[3 - number].hosts["red"]
    arrived = [IP(one) if one[0] >> 4 == 4 else IPv6(one) for one in host.packets]
    host.packets.clear()
    return arrived


def v4(number: int = 1, **fields: object) -> Packet:
    return IP(src=f"10.{number}.0.9", dst=f"10.{3 - number}.0.9", ttl=9, **fields)


def v6(number: int = 1) -> Packet:
    return IPv6(src=f"2001:db8:{number}::9", dst=f"2001:db8:{3 - number}::9", hlim=9)


def tunnel_mtu(nodes: NodePair, number: int = 1) -> int:
    (child,) = nodes.ends[number].node.children.of_kind(f"pe{3 - number}", "red/standard")
    return child.budget.tunnel_mtu


@pytest.mark.parametrize("network", [v4, v6])
@pytest.mark.parametrize("number", [1, 2])
def test_syns_are_clamped_in_both_directions_to_the_budget_of_the_class(network: type, number: int) -> None:
    nodes = pair()
    (syn,) = send(nodes, network(number) / TCP(flags="S", options=[("MSS", 8960)]), number)
    assert dict(syn[TCP].options)["MSS"] == tunnel_mtu(nodes) - 4 - 20 - len(network())
    nodes.wire.clear()
    segment = bytes(dict(syn[TCP].options)["MSS"])
    (data,) = send(nodes, network(number) / TCP(flags="A") / segment, number)
    assert bytes(data[TCP].payload) == segment
    ((_, esp),) = nodes.wire
    assert 1500 - 20 - len(esp) in range(4), "a full segment fills the link, but for alignment"


@pytest.mark.parametrize("clamping", [1, 2])
def test_either_end_alone_clamps_the_syns_of_both(clamping: int) -> None:
    settings = {clamping: "", 3 - clamping: "clamp_mss = false"}
    nodes = NodePair(configuration(1, settings[1]), configuration(2, settings[2])).start()
    nodes.pe1.node.initiate("pe2", None, nodes.now)
    nodes.run(2)
    for number in (1, 2):
        (syn,) = send(nodes, v4(number) / TCP(flags="S", options=[("MSS", 8960)]), number)
        assert dict(syn[TCP].options)["MSS"] == tunnel_mtu(nodes) - 44


def test_without_clamping_a_syn_goes_as_it_is() -> None:
    nodes = pair("clamp_mss = false")
    (syn,) = send(nodes, v4() / TCP(flags="S", options=[("MSS", 8960)]))
    assert dict(syn[TCP].options)["MSS"] == 8960


@pytest.mark.parametrize(("udp", "lost"), [("never", 0), ("always", 8)])
def test_pppoe_costs_8_octets_and_nat_traversal_8_more(udp: str, lost: int) -> None:
    nodes = pair(f'udp = "{udp}"\naccess_overhead = 8')
    assert tunnel_mtu(nodes) == 1446 - 8 - lost
    (child,) = nodes.pe1.node.children.of_kind("pe2", "red/standard")
    assert child.budget.path_mtu == 1492
    assert sum(octets for _, octets in child.budget.rows()) == 1500
    room = tunnel_mtu(nodes) - 4 - 28
    nodes.ping(1, "red", 2, data=bytes(room))
    nodes.ping(1, "red", 3, data=bytes(room + 1))
    nodes.run(1)
    assert nodes.pongs(1, "red") == [1, 2]
    assert nodes.pe1.drops("too_big") == 1


def test_icmp_too_big_goes_into_the_vrf_and_names_what_fits_for_ipv4_and_ipv6() -> None:
    nodes = pair("access_overhead = 8")
    most = tunnel_mtu(nodes) - 4
    assert not send(nodes, v4(flags="DF") / Raw(bytes(1500)))
    assert not send(nodes, v6() / Raw(bytes(1500)))
    four, six = IP(nodes.pe1.hosts["red"].packets[0]), IPv6(nodes.pe1.hosts["red"].packets[1])
    assert (four[ICMP].type, four[ICMP].code, four[ICMP].nexthopmtu) == (3, 4, most)
    assert (four.src, four.dst) == ("10.1.0.1", "10.1.0.9")
    assert six[ICMPv6PacketTooBig].mtu == most
    assert not nodes.pe1.hosts["blue"].packets
    assert not nodes.wire


def test_by_default_a_large_packet_without_df_is_dropped_with_icmp_as_well() -> None:
    nodes = pair()
    assert not send(nodes, v4(id=7) / Raw(bytes(2000)))
    assert nodes.pe1.drops("too_big") == 1
    assert IP(nodes.pe1.hosts["red"].packets[0])[ICMP].code == 4


@pytest.mark.parametrize(
    "settings", ["", 'mode = "tunnel"', 'encapsulation = "mpls-in-udp"', 'encapsulation = "mpls-in-gre"']
)
def test_ipv4_without_df_is_cut_before_it_is_protected_if_so_configured(settings: str) -> None:
    nodes = pair(f'fragment = "inner"\n{settings}')
    data = bytes(n % 251 for n in range(4000))
    arrived = send(nodes, v4(id=7) / Raw(data))
    assert len(arrived) == len(nodes.wire) == 3
    assert max(len(esp) for _, esp in nodes.wire) <= 1480
    (whole,) = defragment(arrived)
    assert bytes(whole.payload) == data
    assert not nodes.pe1.drops("too_big")
    assert not send(nodes, v4(flags="DF") / Raw(data)), "DF says that it must not be"
    assert not send(nodes, v6() / Raw(data)), "nobody but its sender fragments IPv6"
    assert nodes.pe1.drops("too_big") == 2


@pytest.mark.parametrize(
    ("policy", "large", "df_of_inner", "goes"),
    [
        ("set", False, False, "with DF"),
        ("copy", False, False, "without DF"),
        ("copy", False, True, "with DF"),
        ("clear", False, True, "without DF"),
        ("clear", True, True, "without DF"),
        ("copy", True, False, "without DF"),
        ("copy", True, True, "nowhere"),
        ("set", True, False, "nowhere"),
    ],
)
def test_df_of_the_outer_header_is_set_copied_or_clear(
    policy: str, large: bool, df_of_inner: bool, goes: str
) -> None:
    nodes = pair(f'outer_df = "{policy}"')
    data = bytes(3000 if large else 100)
    arrived = send(nodes, v4(id=7, flags="DF" if df_of_inner else 0) / Raw(data))
    assert [bytes(one.payload) for one in arrived] == ([] if goes == "nowhere" else [data])
    assert bool(nodes.without_df) is (goes == "without DF")
    assert nodes.pe1.drops("too_big") == (goes == "nowhere")


def test_packets_with_and_without_df_leave_in_their_order_each_as_it_may() -> None:
    nodes = pair('outer_df = "copy"')
    kinds = [False, True, True, False, True]
    packets = [bytes(v4(id=7, flags="DF" if df else 0) / Raw(bytes([n]))) for n, df in enumerate(kinds)]
    nodes.pe1.node.receive_packets("red", packets, nodes.now)
    assert [one not in nodes.without_df for one in nodes.wire] == kinds
    numbers = [int.from_bytes(esp[4:8]) for _, esp in nodes.wire]
    assert numbers == sorted(numbers)


def test_the_largest_packet_under_an_inner_ipv6_header_fits_the_link() -> None:
    grants = """
  [[peer.vrf]]
  name      = "red"
  classes   = ["gold"]
  accept    = ["10.{other}.0.0/16"]
  labels    = {{ local = 1{own}1, peer = 1{other}1, routes = ["10.{other}.0.0/24"] }}
  addresses = {{ local = "2001:db8:f::{own}", peer = "2001:db8:f::{other}" }}
"""
    settings = 'selectors = "plain"\nmode = "tunnel"'
    nodes = NodePair(
        configuration(1, settings, grants=grants), configuration(2, settings, grants=grants)
    ).start()
    nodes.ping(1, "red", 1, dscp=46)
    nodes.run(2)
    (child,) = nodes.pe1.node.children
    nodes.wire.clear()
    largest = v4(tos=0xB8, flags="DF") / Raw(bytes(child.budget.vrf_mtu - 20))
    assert send(nodes, largest)
    ((_, esp),) = nodes.wire
    assert 1500 - 20 - len(esp) in range(4)


def send_row(nodes: NodePair, packets: list[Packet]) -> list[Packet]:
    """All at once, as they come from a device that has them: packets of one flow are a row."""
    nodes.ends[1].node.receive_packets("red", [bytes(packet) for packet in packets], nodes.now)
    nodes.run(0.5)
    return [IP(one) for one in nodes.ends[2].hosts["red"].packets]


def test_a_syn_among_other_segments_of_its_flow_is_clamped() -> None:
    nodes = NodePair(configuration(1), configuration(2, "clamp_mss = false")).start()  # the sender alone
    nodes.pe1.node.initiate("pe2", None, nodes.now)
    nodes.run(2)
    options = [("MSS", 8960)]
    first, syn, last = send_row(
        nodes, [v4() / TCP(flags=flags, options=options) for flags in ("A", "S", "A")]
    )
    assert dict(syn[TCP].options)["MSS"] == tunnel_mtu(nodes) - 4 - 20 - 20
    assert dict(first[TCP].options)["MSS"] == dict(last[TCP].options)["MSS"] == 8960
    assert {one.ttl for one in (first, syn, last)} == {7}


def test_of_a_row_only_what_is_too_big_is_dropped() -> None:
    nodes = pair()
    most = tunnel_mtu(nodes) - 4
    sizes = (100, most + 1, most, 100)
    arrived = send_row(nodes, [v4(flags="DF") / TCP(flags="A") / bytes(size - 40) for size in sizes])
    assert [len(one) for one in arrived] == [100, most, 100]
    assert nodes.pe1.drops("too_big") == 1


@pytest.mark.parametrize("label", [0x45ABC, 0x60ABC, 301])
def test_a_single_syn_behind_a_label_is_clamped_whatever_the_label_looks_like(label: int) -> None:
    config = configuration(1)
    (red, blue), (side,) = config.vrfs, config.vrfs[0].attach
    labelled = replace(side, kind=AttachmentKind.MPLS, labelled=LabelledConfig(labels=Labels.POP))
    config = replace(config, vrfs=(replace(red, attach=(labelled,)), blue))
    nodes = NodePair(config, configuration(2, "clamp_mss = false")).start()  # the sender alone
    nodes.pe1.node.initiate("pe2", None, nodes.now)
    nodes.run(2)
    packet = v4() / TCP(flags="S", options=[("MSS", 8960)])
    (syn,) = send(nodes, Raw((label << 12 | 0x1FF).to_bytes(4, "big") + bytes(packet)))
    assert dict(syn[TCP].options)["MSS"] == tunnel_mtu(nodes) - 4 - 20 - 20
