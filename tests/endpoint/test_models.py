"""DSCP, ECN and TTL of the customers' headers and of those outside ESP: two nodes and a path that meddles."""

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Packet

from endpoint.config import Config, parse_config
from endpoint.dataplane import EspArrival
from mpls.models import OuterFields
from tests.endpoint.pair import ENDPOINT, GRANTS, PEER, STATIC_GRANTS, VRFS, NodePair

EF, AF41 = 46, 34


def configured(own: int, vrf: str = "", gold: str = "", peer: str = "", grants: str = GRANTS) -> Config:
    """Lines for VRF red, class gold and the peer."""
    text = (ENDPOINT + VRFS + PEER + grants).format(own=own, other=3 - own, settings=peer)
    text = text.replace('name     = "red"', f'name     = "red"\n{vrf}', 1)
    text = text.replace('name = "gold"', f'name = "gold"\n{gold}', 1)
    return parse_config(text, f"pe{own}.toml", secrets={"psk": b"a secret of the test"})


def pair(vrf: str = "", gold: str = "", peer: str = "", grants: str = GRANTS) -> NodePair:
    return up(*(configured(own, vrf, gold, peer, grants) for own in (1, 2)))


def up(one: Config, two: Config) -> NodePair:
    nodes = NodePair(one, two).start()
    nodes.pe1.node.initiate("pe2", None, nodes.now)
    nodes.run(2)
    nodes.wire.clear()
    return nodes


def send(nodes: NodePair, dscp: int = EF, ecn: int = 0, ttl: int = 20) -> list[Packet]:
    """A customer's packet; what arrives."""
    packet = (
        IP(src="10.1.0.9", dst="10.2.0.9", tos=dscp << 2 | ecn, ttl=ttl) / UDP(sport=1, dport=2) / b"data"
    )
    nodes.send(1, "red", bytes(packet))
    nodes.run(0.5)
    arrived = [IP(one) for one in nodes.pe2.hosts["red"].packets]
    nodes.pe2.hosts["red"].packets.clear()
    assert all(bytes(one) == bytes(IP(bytes(one))) for one in arrived)
    return arrived


def seen(nodes: NodePair) -> list[OuterFields]:
    """What the path sees of the headers outside, from now on."""
    fields: list[OuterFields] = []
    meddle = nodes.meddle

    def look(outer: OuterFields) -> OuterFields:
        fields.append(outer)
        return meddle(outer)

    nodes.meddle = look
    return fields


@pytest.mark.parametrize("gold", ["", 'outer_dscp = "copy"', 'outer_dscp = "ef"'])
def test_a_hop_that_zeroes_dscp_does_not_change_class_or_packet_at_the_tail(gold: str) -> None:
    nodes = pair(gold=gold)
    nodes.meddle = lambda outer: OuterFields(0, 3)
    (arrived,) = send(nodes)
    assert (arrived.tos, arrived.ttl) == (EF << 2, 18)
    assert nodes.pe2.packets_in()["red/gold"] == 1, "the class is that of the SA"


def test_uniform_dscp_is_shown_outside_and_taken_back_and_the_class_stays() -> None:
    nodes = pair(gold='qos_model = "uniform"')
    fields = seen(nodes)
    (arrived,) = send(nodes, ecn=1)
    assert (arrived.tos, fields[-1].tos) == (EF << 2 | 1, EF << 2)
    nodes.meddle = lambda outer: OuterFields(AF41 << 2, outer.ttl)
    (arrived,) = send(nodes, ecn=1)
    assert arrived.tos == AF41 << 2 | 1
    assert nodes.pe2.packets_in()["red/gold"] == 2
    (arrived,) = send(nodes, dscp=0)
    assert arrived.tos == 0, "class standard is pipe"


def test_uniform_ttl_counts_the_hops_outside_and_pipe_does_not() -> None:
    uniform, pipe = pair('ttl_model = "uniform"'), pair()
    for nodes, before, after in ((uniform, 19, 19 - 1 - 5), (pipe, 64, 18)):
        nodes.meddle = lambda outer: OuterFields(outer.tos, outer.ttl - 5)
        fields = seen(nodes)
        (arrived,) = send(nodes)
        assert (fields[-1].ttl, arrived.ttl) == (before, after)


def test_each_packet_of_a_flow_has_its_own_ttl_outside() -> None:
    nodes = pair('ttl_model = "uniform"')
    fields = seen(nodes)
    for ttl in (20, 10, 20):
        send(nodes, ttl=ttl)
    assert [outer.ttl for outer in fields] == [19, 9, 19]


def test_uniform_ttl_that_ends_on_the_way_is_answered_into_the_vrf() -> None:
    nodes = pair('ttl_model = "uniform"')
    nodes.meddle = lambda outer: OuterFields(outer.tos, 1 if outer.ttl == 19 else outer.ttl)
    assert not send(nodes)
    assert nodes.pe2.drops("ttl_expired") == 1
    (answer,) = (IP(one) for one in nodes.pe1.hosts["red"].packets)
    assert (answer[ICMP].type, answer.src, answer.dst) == (11, "10.2.0.1", "10.1.0.9")


def test_ttl_never_rises_whatever_the_path_says() -> None:
    nodes = pair('ttl_model = "uniform"')
    nodes.meddle = lambda outer: OuterFields(outer.tos, 255)
    (arrived,) = send(nodes)
    assert arrived.ttl == 18


def test_with_a_native_peer_that_is_not_uniform_all_is_pipe() -> None:
    nodes = up(configured(1, 'ttl_model = "uniform"', 'qos_model = "uniform"'), configured(2))
    fields = seen(nodes)
    (arrived,) = send(nodes)
    assert arrived.ttl == 18
    assert fields[-1].ttl == 64
    nodes = up(configured(1), configured(2, 'ttl_model = "uniform"', 'qos_model = "uniform"'))
    nodes.meddle = lambda outer: OuterFields(AF41 << 2, 3)
    (arrived,) = send(nodes)
    assert (arrived.tos, arrived.ttl) == (EF << 2, 18)


def test_with_a_plain_peer_the_model_is_as_configured() -> None:
    nodes = pair('ttl_model = "uniform"', peer='selectors = "plain"', grants=STATIC_GRANTS)
    fields = seen(nodes)
    nodes.meddle = lambda outer: OuterFields(outer.tos, 9)
    (arrived,) = send(nodes)
    assert arrived.ttl == 8
    assert not fields


@pytest.mark.parametrize("mode", ["transport", "tunnel"])
def test_ecn_is_copied_outward_and_congestion_inward(mode: str) -> None:
    nodes = pair(peer=f'ecn = "copy"\nmode = "{mode}"')
    for inner in range(4):
        fields = seen(nodes)
        (arrived,) = send(nodes, ecn=inner)
        assert (fields[-1].tos & 3, arrived.tos & 3) == (inner, inner)
    nodes.meddle = lambda outer: outer._replace(tos=outer.tos | 3)
    for inner in (1, 2, 3):
        (arrived,) = send(nodes, ecn=inner)
        assert arrived.tos == EF << 2 | 3
    assert not send(nodes, ecn=0)
    assert nodes.pe2.drops("ecn") == 1
    (child,) = nodes.pe2.node.children.of_kind("pe1", "red/gold")
    assert child.drops["ecn"] == 1
    assert nodes.pe2.node.dataplane.ecn_alarms == 1


def test_without_ecn_the_outer_header_is_not_ect_and_nothing_comes_back_in() -> None:
    nodes = pair()
    fields = seen(nodes)
    (arrived,) = send(nodes, ecn=2)
    assert (fields[-1].tos, arrived.tos & 3) == (0, 2)
    nodes.meddle = lambda outer: OuterFields(3, outer.ttl)
    (arrived,) = send(nodes, ecn=0)
    assert arrived.tos & 3 == 0
    assert not nodes.pe2.node.dataplane.ecn_alarms


@pytest.mark.parametrize(("one_for_each_class", "lost"), [(False, 1), (True, 0)])
def test_a_path_that_serves_gold_first_costs_nothing_with_one_sa_for_each_class(
    one_for_each_class: bool, lost: int
) -> None:
    """RFC 4301 4.1: with a single SA what is overtaken by more than the replay window is lost."""
    plain = ('selectors = "plain"', STATIC_GRANTS)
    peer, grants = ("", GRANTS) if one_for_each_class else plain
    nodes = pair(peer=peer, grants=grants)
    held: list[bytes] = []

    def hold(sender: int, octets: bytes) -> bool:
        held.append(octets)
        return True

    nodes.lose = hold
    send(nodes, dscp=0)
    nodes.lose = lambda sender, octets: False
    (child,) = {
        child.outbound.spi: child for child in nodes.pe1.node.children if child.outbound.packets
    }.values()
    window = nodes.pe2.node.children.sad.get(child.outbound.spi)
    assert window is not None and len(held) == 1
    for _ in range(window.replay.size + 1):
        assert len(send(nodes)) == 1
    nodes.pe2.node.receive_esp([EspArrival(held, ("192.0.2.1", 0), "192.0.2.2")], nodes.now)
    # With ESN what is behind the window is taken for one of the next 2^32, whose ICV it has not.
    assert nodes.pe2.drops("too_old") + nodes.pe2.drops("integrity") == lost
    assert len(nodes.pe2.hosts["red"].packets) == 1 - lost
