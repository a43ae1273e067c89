"""Lifetimes in packets and octets: a successor in time, nothing after the hard one (RFC 4301 4.4.2.1)."""

from typing import Any

import pytest

from endpoint.children import Child
from endpoint.config import LifetimeConfig
from endpoint.lifetime import SoftLifetime, hard_lifetime
from endpoint.status import render_status, snapshot
from esp.sa import UNLIMITED, InboundSa, OutboundSa
from esp.transforms import transform_for
from ike import ChildSaClosed, ChildSaEstablished, CloseReason
from tests.endpoint.pair import End, NodePair, configuration

GCM = transform_for(20, 128)
BOOT, NONE = 'start = "boot"', 'start = "none"'
FIRST_SA = b"\xc0\x00\x00\x01"


def pair(settings1: str = BOOT, settings2: str = NONE) -> NodePair:
    nodes = NodePair(configuration(1, settings1), configuration(2, settings2)).start()
    nodes.run()
    return nodes


def with_lifetime(keys: str, start: str = BOOT) -> str:
    return f"{start}\nlifetime = {{ {keys} }}"


def child_of(nodes: NodePair, number: int) -> Child:
    return nodes.ends[number].node.children.of_kind(f"pe{3 - number}", "red/standard")[-1]


def talk(nodes: NodePair, count: int, *, octets: int = 0, start: int = 0) -> None:
    for sequence in range(start, start + count):
        nodes.ping(1, "red", sequence, data=bytes(octets))
        nodes.run(0.01)


def rekeys(end: End) -> list[ChildSaEstablished]:
    return [event for event in end.of(ChildSaEstablished) if event.replaces is not None]


# --- the marks


def sas(lifetime: LifetimeConfig, *, esn: bool = False) -> tuple[InboundSa, OutboundSa]:
    packets, octets = hard_lifetime(lifetime)
    key = bytes(GCM.key_octets)
    return (
        InboundSa(FIRST_SA, GCM, key, esn=esn, hard_packets=packets, hard_octets=octets),
        OutboundSa(FIRST_SA, GCM, key, esn=esn, hard_packets=packets, hard_octets=octets),
    )


def test_the_soft_lifetime_ends_up_to_a_tenth_earlier() -> None:
    lifetime = LifetimeConfig(child_rekey_octets=10_000, child_rekey_packets=1000)
    _, outbound = sas(lifetime)
    marks = [
        (soft.packets, soft.octets) for soft in (SoftLifetime(lifetime, outbound, e) for e in (0, 0.5, 1))
    ]
    assert marks == [(1000, 10_000), (950, 9500), (900, 9000)]


@pytest.mark.parametrize("esn", [False, True])
def test_without_a_lifetime_only_sequence_numbers_count(esn: bool) -> None:
    inbound, outbound = sas(LifetimeConfig(), esn=esn)
    soft = SoftLifetime(LifetimeConfig(), outbound, 0.7)
    assert soft.octets == UNLIMITED and soft.packets == outbound.last_sequence // 4 * 3
    outbound.octets = inbound.octets = 2**63
    assert not soft.has_come(inbound, outbound)
    outbound.sequence = soft.packets
    assert soft.has_come(inbound, outbound)


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
@pytest.mark.parametrize("what", ["packets", "octets"])
def test_each_direction_counts_by_itself_and_is_asked_for_until_the_hard_lifetime(
    direction: str, what: str
) -> None:
    lifetime = LifetimeConfig(
        child_rekey_octets=100, child_hard_octets=140, child_rekey_packets=100, child_hard_packets=140
    )
    inbound, outbound = sas(lifetime)
    soft = SoftLifetime(lifetime, outbound, 0)
    found = []
    for count in range(1, 200):
        sa: Any = {"inbound": inbound, "outbound": outbound}[direction]
        setattr(sa, what, count)
        outbound.sequence = outbound.packets
        if soft.has_come(inbound, outbound):
            soft.put_off(inbound, outbound)
            found.append(count)
    assert found == [100, 110, 120, 130, 140]


# --- two nodes


@pytest.mark.parametrize("keys", ["child_rekey_packets = 100", 'child_rekey_octets = "50k"'])
def test_a_busy_child_is_replaced_before_its_end_and_nothing_is_lost(keys: str) -> None:
    nodes = pair(with_lifetime(keys))
    old = child_of(nodes, 1)
    talk(nodes, 120, octets=480)
    new = child_of(nodes, 1)
    assert new is not old and len(rekeys(nodes.pe1)) == 1
    assert not old.outbound.has_expired and not nodes.pe1.drops("lifetime")
    assert nodes.pongs(1, "red") == list(range(120))
    closed = [event for event in nodes.pe1.of(ChildSaClosed) if event.spi_in == old.sa.spi_in]
    assert [event.reason for event in closed] == [CloseReason.REKEYED]


def test_traffic_that_only_comes_in_counts_as_well() -> None:
    nodes = pair(with_lifetime("child_rekey_packets = 100"))
    nodes.pe1.hosts["red"].receive = lambda packet: None  # type: ignore[method-assign]
    for sequence in range(110):
        nodes.ping(2, "red", sequence)
        nodes.run(0.01)
    assert len(rekeys(nodes.pe1)) == 1 and child_of(nodes, 1).outbound.sequence == 0


def test_two_ends_with_one_lifetime_seldom_rekey_at_once() -> None:
    keys = "child_rekey_packets = 1000"
    nodes = pair(with_lifetime(keys), with_lifetime(keys, NONE))
    talk(nodes, 3000)
    assert nodes.pongs(1, "red") == list(range(3000))
    for end in (nodes.pe1, nodes.pe2):
        assert [event.reason for event in end.of(ChildSaClosed)] == [CloseReason.REKEYED] * len(rekeys(end))
    assert len(rekeys(nodes.pe1)) == len(rekeys(nodes.pe2)) == 3


def test_rekeys_at_once_at_both_ends_leave_one_child() -> None:
    keys = "child_rekey_packets = 100"
    nodes = pair(with_lifetime(keys), with_lifetime(keys, NONE))
    for number in (1, 2):
        child_of(nodes, number).soft.packets = 50
    talk(nodes, 60)
    nodes.run(5)
    assert nodes.pe1.children() == nodes.pe2.children()
    assert nodes.pe1.children()["red/standard"] == 1
    assert nodes.pongs(1, "red") == list(range(60))


def test_a_child_that_cannot_be_replaced_ends_at_its_hard_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = pair(with_lifetime("child_rekey_packets = 100, child_hard_packets = 150"))
    asked: list[bytes] = []
    monkeypatch.setattr(nodes.pe1.node.engine, "rekey_child", lambda session, spi, now: asked.append(spi))
    old = child_of(nodes, 1)
    talk(nodes, 155)
    assert len(asked) == 4, "asked for again, but not with every packet"
    assert old.outbound.packets == 150 and old.inbound.packets == 150
    closed = [event for event in nodes.pe1.of(ChildSaClosed) if event.spi_in == old.sa.spi_in]
    assert [event.reason for event in closed] == [CloseReason.LIFETIME]
    assert child_of(nodes, 1) is not old, "another one is made in its place"
    nodes.ping(1, "red", 1000)
    nodes.run()
    assert nodes.pongs(1, "red") == [*range(155), 1000]


def test_packets_in_one_run_stop_at_the_hard_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = pair(with_lifetime("child_rekey_packets = 100, child_hard_packets = 150"))
    monkeypatch.setattr(nodes.pe1.node.engine, "rekey_child", lambda session, spi, now: None)
    child = child_of(nodes, 1)
    captured: list[bytes] = []
    host = nodes.pe1.hosts["red"]
    monkeypatch.setattr(host, "_send", captured.append)
    for sequence in range(200):
        nodes.ping(1, "red", sequence)
    nodes.pe1.node.receive_packets("red", captured, nodes.now)
    assert (child.outbound.packets, child.drops["lifetime"]) == (150, 50)
    assert nodes.pe1.drops("lifetime") == 50


def test_status_shows_what_is_left() -> None:
    nodes = pair(with_lifetime('child_rekey = "1h", child_rekey_packets = 1000, ike_hard = "off"'))
    talk(nodes, 10)
    document = snapshot(nodes.pe1.node, nodes.now, {})
    (peer,) = document["peers"]
    (session,) = peer["sessions"]
    child = next(one for one in peer["children"] if one["name"] == "red/standard")
    assert 4 * 3600 * 0.9 - 2 < session["rekey_in_s"] < 4 * 3600 and session["expires_in_s"] is None
    assert 3600 * 0.9 - 2 < child["rekey_in_s"] < 3600 < child["expires_in_s"] < 3960
    assert 890 <= child["rekey_in_packets"] <= 990 and child["expires_in_packets"] == 1090
    assert child["rekey_in_octets"] is child["expires_in_octets"] is None
    assert "rekey in" in render_status(document)
