"""Two whole nodes with a NAT between them: labels through it, keepalives, a new mapping (RFC 7296 2.23)."""

from dataclasses import replace

import pytest

from endpoint.dataplane import EspArrival
from ike import PeerAddressChanged
from ike.testing.link import Nat
from tests.endpoint.pair import NodePair, configuration

INSIDE, OUTSIDE = "192.0.2.1", "203.0.113.1"


def behind_nat(settings: str = "") -> tuple[NodePair, Nat]:
    """pe1 is behind the box; pe2 answers whoever it is."""
    nat = Nat(inside=INSIDE, outside=OUTSIDE)
    answering = configuration(2, f'start = "none"\n{settings}')
    answering = replace(answering, peers=(replace(answering.peers[0], addresses=("any",)),))
    nodes = NodePair(configuration(1, f'start = "boot"\n{settings}'), answering, nat=nat).start()
    nodes.run()
    return nodes, nat


@pytest.mark.parametrize("encapsulation", ["mpls-in-ip", "mpls-in-gre", "mpls-in-udp"])
def test_labelled_packets_go_through_a_nat_in_transport_mode(encapsulation: str) -> None:
    nodes, _ = behind_nat(f'encapsulation = "{encapsulation}"')
    nodes.ping(1, "red", 1)
    nodes.ping(2, "blue", 2)
    nodes.run()
    assert (nodes.pongs(1, "red"), nodes.pongs(2, "blue")) == ([1], [2])
    assert all(child.sa.udp_encapsulation for child in nodes.pe1.node.children)
    assert {child.path.peer[0] for child in nodes.pe2.node.children} == {OUTSIDE}


def test_only_the_end_behind_the_nat_sends_keepalives_and_traffic_puts_them_off() -> None:
    nodes, _ = behind_nat('liveness = "off"')
    for sequence in range(10):
        nodes.ping(1, "red", sequence)
        nodes.run(15)
    assert not nodes.keepalives.total()
    nodes.run(100)
    assert (nodes.keepalives[1], nodes.keepalives[2]) == (5, 0)


@pytest.mark.parametrize("outside", [OUTSIDE, "203.0.113.77"])
def test_the_first_packet_from_a_new_mapping_is_taken_and_answered_there(outside: str) -> None:
    nodes, nat = behind_nat()
    nodes.ping(1, "red", 1)
    nodes.run()
    nat.rebind()
    nat.outside = outside
    nodes.ping(1, "red", 2)
    nodes.run()
    assert nodes.pongs(1, "red") == [1, 2]
    assert nodes.pe2.drops("outer_address") == 0
    (moved,) = nodes.pe2.of(PeerAddressChanged)
    assert {child.path for child in nodes.pe2.node.children} == {moved.path}
    assert moved.path.peer[0] == outside


def test_an_old_packet_repeated_from_elsewhere_moves_nobody() -> None:
    nodes, _ = behind_nat()
    nodes.ping(1, "red", 1)
    nodes.run()
    (packet,) = [octets for sender, octets in nodes.wire if sender == 1]
    nodes.pe2.node.receive_esp([EspArrival([packet], ("198.51.100.66", 4500), "192.0.2.2")], nodes.now)
    nodes.run()
    assert not nodes.pe2.of(PeerAddressChanged)
    assert nodes.pe2.drops("replay") == 1


def test_a_forged_packet_from_elsewhere_moves_nobody() -> None:
    nodes, _ = behind_nat()
    nodes.ping(1, "red", 1)
    nodes.run()
    (packet,) = [octets for sender, octets in nodes.wire if sender == 1]
    forged = packet[:4] + bytes((0, 0, 1, 0)) + packet[8:]
    nodes.pe2.node.receive_esp([EspArrival([forged], ("198.51.100.66", 4500), "192.0.2.2")], nodes.now)
    assert not nodes.pe2.of(PeerAddressChanged)
    assert nodes.pe2.drops("integrity") == 1


def test_a_packet_that_was_overtaken_moves_nobody_back() -> None:
    """Reordered around a new mapping, the older packet still counts, but not its address."""
    nodes, nat = behind_nat()
    nodes.ping(1, "red", 1)
    nodes.run()
    nodes.lose = lambda sender, octets: sender == 1
    nodes.ping(1, "red", 2)
    nodes.lose = lambda sender, octets: False
    delayed = [octets for sender, octets in nodes.wire if sender == 1][-1]
    old = next(iter(nodes.pe2.node.children)).path.peer
    nat.rebind()
    nodes.ping(1, "red", 3)
    nodes.run()
    nodes.pe2.node.receive_esp([EspArrival([delayed], old, "192.0.2.2")], nodes.now)
    nodes.run()
    assert sorted(nodes.pongs(1, "red")) == [1, 2, 3]
    assert len(nodes.pe2.of(PeerAddressChanged)) == 1


def test_a_whole_batch_from_a_new_address_is_taken() -> None:
    nodes, _ = behind_nat()
    nodes.lose = lambda sender, octets: sender == 1
    for sequence in range(5):
        nodes.ping(1, "red", sequence)
    nodes.lose = lambda sender, octets: False
    batch = [octets for sender, octets in nodes.wire if sender == 1]
    nodes.pe2.node.receive_esp(
        [EspArrival([one], ("203.0.113.77", 4711), "192.0.2.2") for one in batch], nodes.now
    )
    assert nodes.pe2.node.dataplane.delivered == 5
    (moved,) = nodes.pe2.of(PeerAddressChanged)
    assert moved.path.peer == ("203.0.113.77", 4711)
