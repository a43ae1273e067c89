"""Traffic flow confidentiality between two nodes: what an observer of the wire can count (RFC 4303 2.6, 2.7)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.batch import seal_batch
from esp.engine import protect
from esp.sa import OutboundSa
from esp.tfc import pad_to
from esp.transforms import transform_for
from ike.config import ChildConfig
from tests.endpoint.pair import NodePair, configuration

TUNNEL = 'mode = "tunnel"\nencapsulation = "{encapsulation}"\ntfc = {tfc}\n'
FULL = 1500 - 20 - 8 - 8 - 16
"""What AES-GCM encrypts in a full IPv4 packet, trailer included."""


def pair(encapsulation: str, tfc: str) -> NodePair:
    settings = TUNNEL.format(encapsulation=encapsulation, tfc=tfc)
    return NodePair(configuration(1, settings), configuration(2, settings)).start()


def sent(nodes: NodePair, number: int = 1) -> set[int]:
    """Lengths of all ESP packets from one end."""
    return {len(octets) for sender, octets in nodes.wire if sender == number}


def talk(nodes: NodePair, *sizes: int) -> None:
    """Pings with so many octets, all of which are answered."""
    for sequence, size in enumerate(sizes, 1):
        nodes.ping(1, "red", sequence, data=bytes(size))
        nodes.run(2)
    assert nodes.pongs(1, "red") == list(range(1, len(sizes) + 1))


@pytest.mark.parametrize("encapsulation", ["mpls-in-ip", "mpls-in-gre", "mpls-in-udp"])
def test_all_packets_are_as_long_as_the_path_takes_and_arrive_without_their_padding(
    encapsulation: str,
) -> None:
    nodes = pair(encapsulation, '"mtu"')
    talk(nodes, 0, 1, 500, 1300)
    assert sent(nodes) == sent(nodes, 2) == {8 + 8 + FULL + 16}
    assert {len(pong.data) for pong in nodes.pe1.hosts["red"].pongs} == {0, 1, 500, 1300}
    assert not nodes.pe1.node.dataplane.drops and not nodes.pe2.node.dataplane.drops


def test_packets_are_padded_up_to_a_size_and_larger_ones_left_as_they_are() -> None:
    nodes = pair("mpls-in-ip", "600")
    talk(nodes, 0, 548, 700)  # 20 + 8 of IP and ICMP, 20 + 4 in front of them
    assert sent(nodes) == {8 + 8 + 604 + 16, 8 + 8 + 756 + 16}


def test_padding_never_makes_a_packet_too_large_for_its_path() -> None:
    nodes = pair("mpls-in-ip", "9000")
    talk(nodes, 0)
    (child,) = nodes.pe1.node.children.of_kind("pe2", "red/standard")
    child.set_path_mtu(1300)
    nodes.wire.clear()
    nodes.ping(1, "red", 2)
    nodes.run(1)
    assert sent(nodes) == {1300 - 20}


def test_a_peer_that_does_not_take_padding_gets_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = pair("mpls-in-ip", '"mtu"')
    with monkeypatch.context() as patch:

        def without_padding(**fields: Any) -> ChildConfig:
            return ChildConfig(**{**fields, "tfc_padding_supported": False})

        patch.setattr("endpoint.plan.ChildConfig", without_padding)
        nodes.restart(2)
    talk(nodes, 0)
    assert sent(nodes) == {8 + 8 + 56 + 16}
    assert sent(nodes, 2) == {8 + 8 + FULL + 16}, "each direction for itself"
    assert "ESP_TFC_PADDING_NOT_SUPPORTED" in caplog.text


@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(0, 70))
def test_padded_batches_are_what_the_reference_makes(payloads: list[bytes], octets: int) -> None:
    quick, reference = (
        OutboundSa(b"\xc0\0\0\1", transform_for(20, 128), bytes(range(20)), esn=True) for _ in range(2)
    )
    one_by_one = [protect(reference, one, 4, max(0, octets - len(one))) for one in payloads]
    assert seal_batch(quick, pad_to(payloads, octets), 4) == one_by_one
    assert (quick.octets, quick.packets) == (reference.octets, reference.packets)
