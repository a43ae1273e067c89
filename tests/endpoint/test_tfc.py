"""Traffic flow confidentiality between two nodes: what an observer of the wire can count (RFC 4303 2.6, 2.7)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.children import Child
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


# --- dummies


def with_dummies(table: str, settings: str = "", *, liveness: str = "10m") -> NodePair:
    """Only pe1 sends dummies. Its children are up, their bindings told, nothing is under way."""
    lines = f'liveness = "{liveness}"\n{settings}'
    nodes = NodePair(configuration(1, f"dummies = {table}\n{lines}"), configuration(2, lines)).start()
    nodes.pe1.node.initiate("pe2", "red/gold", nodes.now)
    nodes.run(0.4)
    nodes.wire.clear()
    return nodes


def child(nodes: NodePair, number: int) -> Child:
    return nodes.ends[number].node.children.of_kind(f"pe{3 - number}", "red/gold")[-1]


@pytest.mark.parametrize("when", ["idle", "always"])
def test_dummies_come_at_the_rate_when_nothing_is_sent_and_do_no_harm(when: str) -> None:
    nodes = with_dummies(f'{{ per_s = 20, when = "{when}" }}')
    nodes.run(10)
    count = len(nodes.wire)
    assert 180 < count < 220
    assert {sender for sender, _ in nodes.wire} == {1}
    assert abs(child(nodes, 1).dummies_out - nodes.pe2.drops("dummy")) <= 20
    assert nodes.pe2.node.dataplane.drops.keys() == {"dummy"}
    assert nodes.pe2.node.dataplane.delivered == 0
    lengths = {len(octets) for octets in (octets for _, octets in nodes.wire)}
    assert len(lengths) == 16 and 1480 - 4 < max(lengths) <= 1480
    assert nodes.pe2.node.children and child(nodes, 2).inbound.replay.highest > 100


def test_dummies_of_idle_times_stay_away_while_data_are_sent() -> None:
    counts = {}
    for when in ("idle", "always"):
        nodes = with_dummies(f'{{ per_s = 20, when = "{when}" }}')
        before = child(nodes, 1).dummies_out
        for sequence in range(200):
            nodes.ping(1, "red", sequence, dscp=46)
            nodes.run(0.02)
        assert nodes.pongs(1, "red") == list(range(200))
        counts[when] = child(nodes, 1).dummies_out - before
    assert counts["idle"] <= 2 and counts["always"] > 60


def test_with_padding_dummies_are_as_long_as_the_data() -> None:
    settings = 'mode = "tunnel"\nencapsulation = "mpls-in-ip"\ntfc = 600'
    nodes = with_dummies("{ per_s = 20 }", settings)
    nodes.ping(1, "red", 1, dscp=46)
    nodes.run(2)
    assert nodes.pongs(1, "red") == [1]
    assert {len(octets) for sender, octets in nodes.wire if sender == 1} == {8 + 8 + 604 + 16}


def test_the_successor_of_a_rekeyed_child_goes_on_and_a_closed_one_ends_it() -> None:
    nodes = with_dummies("{ per_s = 20 }")
    old = child(nodes, 1)
    nodes.pe1.node.rekey("pe2", "red/gold", nodes.now)
    nodes.run(1)
    new, sent = child(nodes, 1), old.dummies_out
    nodes.run(2)
    assert new is not old and new.dummies_out > 30 and old.dummies_out == sent
    nodes.pe1.node.terminate("pe2", None, nodes.now)
    nodes.run(3)
    nodes.wire.clear()
    nodes.run(5)
    assert not nodes.wire and nodes.pe1.node.cover.next_deadline() is None


def test_dummies_count_toward_the_lifetime_and_have_the_child_rekeyed() -> None:
    nodes = with_dummies("{ per_s = 100 }", "lifetime = { child_rekey_packets = 200 }")
    first = child(nodes, 1)
    nodes.run(10)
    assert child(nodes, 1) is not first
    assert nodes.pe1.drops("lifetime") == 0


def test_a_clock_that_jumps_brings_no_burst() -> None:
    nodes = with_dummies("{ per_s = 1000 }")
    nodes.run(0.01)
    nodes.wire.clear()
    before = child(nodes, 1).dummies_out
    nodes.pe1.node.handle_timer(nodes.now + 60)
    assert child(nodes, 1).dummies_out == before + 1


def test_dummies_do_not_spoil_the_search_for_the_path_mtu() -> None:
    nodes = with_dummies('{ per_s = 20, when = "always" }', 'path_mtu = "probe"')
    nodes.path_mtu = 1400
    nodes.run(70)
    path = nodes.pe1.node.paths.state("pe2")
    assert path is not None and path["state"] == "done" and 1396 <= int(str(path["path_mtu"])) <= 1400
