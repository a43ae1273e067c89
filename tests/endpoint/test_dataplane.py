"""The data plane between its neighbours: what waits is bounded, what is bypassed stays, every drop is counted."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint import dataplane
from endpoint.children import Child, ChildTable
from endpoint.config import Config, parse_config
from endpoint.dataplane import WAITING_PACKETS, WAITING_S, DataPlane, EspArrival, _Runs
from endpoint.packet_signals import PacketSignals
from endpoint.plan import Serves
from endpoint.tables import Tables, build_tables
from esp.engine import protect
from ike import ChildSaEstablished, Path
from mpls.drops import DropReason
from mpls.ip import Echo
from mpls.labels import LabelEntry
from mpls.models import OuterFields
from tests.endpoint.pair import ENDPOINT, GRANTS, PEER, STATIC_GRANTS, VRFS, NodePair, configuration

EF = 46
NOW = 1000.0
TWO_ATTACHMENTS = (
    VRFS.replace(
        '{{ memory = "red", ', '{{ memory = "red-b", address = ["10.{own}.1.1/24"] }}, {{ memory = "red", '
    )
    .replace(
        '{{ memory = "blue", ', '{{ memory = "blue-b", address = ["10.{own}.1.1/24"] }}, {{ memory = "blue", '
    )
    .replace('["10.{own}.0.0/24"', '["10.{own}.0.0/23"')
)
BYPASS = """
[[crypto_map]]
name        = "local"
vrf         = "red"
destination = ["10.{own}.0.0/16"]
action      = "bypass"
"""


def config_of(number: int, *parts: str, settings: str = "") -> Config:
    text = "".join(parts).format(own=number, other=3 - number, settings=settings)
    return parse_config(text, f"pe{number}.toml", secrets={"psk": b"a secret of the test"})


def up(settings: str = "") -> NodePair:
    configs = [
        configuration(1, f'start = "boot"\n{settings}'),
        configuration(2, f'start = "none"\n{settings}'),
    ]
    nodes = NodePair(configs[0], configs[1]).start()
    nodes.run()
    return nodes


def echo(source: str = "10.1.0.2", destination: str = "10.2.0.2", sequence: int = 1, dscp: int = 0) -> bytes:
    return Echo(ip_address(source), ip_address(destination), 7, sequence, dscp=dscp).encode()


def child_of(nodes: NodePair, number: int, name: str) -> Child:
    (child,) = nodes.ends[number].node.children.of_kind(f"pe{3 - number}", name)
    return child


def config_text(number: int, settings: str, esp: str) -> Config:
    peer = PEER.replace("aes256gcm16-esn", esp)
    return config_of(number, ENDPOINT, VRFS, peer, GRANTS, settings=settings)


@pytest.mark.parametrize(("setting", "taken"), [("64", 1), ("4096", 1), ('"off"', 3)])
def test_a_repeated_packet_is_taken_only_where_the_window_is_off(setting: str, taken: int) -> None:
    one, other = (
        config_text(number, f'start = "{start}"\nreplay_window = {setting}', "aes256gcm16")
        for number, start in ((1, "boot"), (2, "none"))
    )
    nodes = NodePair(one, other).start()
    nodes.run()
    nodes.ping(1, "red", 1)
    nodes.run(1)
    child = child_of(nodes, 2, "red/standard")
    assert child.inbound.replay.size == (int(setting) if setting.isdigit() else 0)
    packet = next(octets for sender, octets in nodes.wire if sender == 1 and octets[:4] == child.sa.spi_in)
    before = nodes.pe2.node.dataplane.delivered
    for _ in range(2):
        nodes.pe2.node.receive_esp([EspArrival([packet], ("192.0.2.1", 0), "192.0.2.2")], nodes.now)
    assert nodes.pe2.node.dataplane.delivered - before == taken - 1
    assert nodes.pe2.node.dataplane.drops["replay"] == 3 - taken


# --- what waits


@dataclass
class Alone:
    """A data plane with nothing behind it: no child comes, unless a test makes the owner refuse at once."""

    config: Config
    accepts: bool = True
    asked: list[tuple[str, Serves]] = field(default_factory=list)
    delivered: list[tuple[str, bytes]] = field(default_factory=list)
    tables: Tables = field(init=False)
    plane: DataPlane = field(init=False)

    def __post_init__(self) -> None:
        self.tables = build_tables(self.config)
        self.plane = DataPlane(
            self.tables.outbound, self.tables.space, ChildTable(), self, self, self.deliver
        )

    def deliver(self, attachment: str, packets: list[bytes]) -> None:
        self.delivered += ((attachment, packet) for packet in packets)

    def send_esp(
        self,
        path: Path,
        packets: Sequence[bytes],
        *,
        udp: bool,
        tos: int,
        ttl: int = 0,
        may_fragment: bool = False,
    ) -> None:
        raise AssertionError("nothing may leave")

    def ask(self, peer: str, serves: Serves) -> bool:
        self.asked.append((peer, serves))
        return self.accepts

    def on_inbound(self, child: Child, source: str, now: float) -> None:
        raise AssertionError("nothing comes in")

    def on_inbound_path(self, child: Child, path: Path, now: float) -> None:
        raise AssertionError("nothing comes in")

    def on_selector_mismatch(self, child: Child, packet: bytes, now: float) -> None:
        raise AssertionError("nothing comes in")

    def on_unknown_spi(self, spi: bytes, peer: tuple[str, int], local: str, now: float) -> None:
        raise AssertionError("nothing comes in")

    def on_outbound(self, child: Child, now: float) -> None:
        raise AssertionError("nothing may leave")

    def on_lifetime(self, child: Child, now: float) -> None:
        raise AssertionError("there is no child")

    def send(self, attachment: str, count: int, *, dscp: int = 0, now: float = NOW) -> None:
        packets = [echo(sequence=number, dscp=dscp) for number in range(count)]
        self.plane.receive_packets(attachment, packets, now)

    def waiting(self) -> int:
        """How many packets wait; they are dropped by being counted."""
        before = self.plane.drops.total()
        self.plane.expire(float("inf"))
        return self.plane.drops.total() - before


def test_each_peer_vrf_and_class_has_a_bound_of_its_own() -> None:
    alone = Alone(configuration(1))
    alone.send("red", WAITING_PACKETS + 5)
    alone.send("red", WAITING_PACKETS + 3, dscp=EF)
    alone.send("blue", 7)
    assert alone.plane.drops == {"queue_full": 8}
    assert alone.waiting() == 2 * WAITING_PACKETS + 7
    assert set(alone.asked) == {
        ("pe2", ("red", "standard")),
        ("pe2", ("red", "gold")),
        ("pe2", ("blue", 0)),
    }


def test_the_number_of_queues_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "WAITING_QUEUES", 2)
    alone = Alone(configuration(1))
    alone.send("red", 2)
    alone.send("red", 2, dscp=EF)
    alone.send("blue", 3)
    assert alone.plane.drops == {"queue_full": 3}
    alone.send("red", 1)
    assert alone.plane.drops == {"queue_full": 3}, "those that are there go on"
    alone.plane.expire(NOW + WAITING_S)
    alone.plane.drops.clear()
    alone.send("blue", 3)
    assert not alone.plane.drops, "an empty queue makes room"


def test_packets_wait_for_their_time_and_are_then_dropped_for_what_they_waited_for() -> None:
    alone = Alone(configuration(1))
    alone.send("red", 2)
    alone.send("red", 1, now=NOW + 3)
    assert alone.plane.next_deadline() == NOW + WAITING_S
    alone.plane.expire(NOW + WAITING_S - 0.001)
    assert not alone.plane.drops
    alone.plane.expire(NOW + WAITING_S)
    assert alone.plane.drops == {"no_label": 2}
    assert alone.plane.next_deadline() == NOW + 3 + WAITING_S
    alone.plane.expire(NOW + 3 + WAITING_S)
    assert alone.plane.drops == {"no_label": 3} and alone.plane.next_deadline() is None


def test_a_packet_with_a_label_waits_for_its_child() -> None:
    alone = Alone(configuration(1, 'selectors = "plain"', grants=STATIC_GRANTS))
    alone.send("red", 2)
    alone.plane.expire(NOW + WAITING_S)
    assert alone.plane.drops == {"no_child": 2}


@pytest.mark.parametrize(("selectors", "reason"), [("native", "no_label"), ("plain", "class_down")])
def test_what_nobody_will_bring_up_is_dropped_at_once(selectors: str, reason: str) -> None:
    grants = GRANTS if selectors == "native" else STATIC_GRANTS
    alone = Alone(configuration(1, f'selectors = "{selectors}"', grants=grants), accepts=False)
    alone.send("red", 3)
    assert alone.plane.drops == {reason: 3} and alone.plane.next_deadline() is None


def test_what_waits_for_one_peer_is_dropped_alone() -> None:
    alone = Alone(configuration(1))
    alone.send("red", 2)
    alone.plane.drop_waiting("pe3", DropReason.NO_CHILD)
    assert not alone.plane.drops
    alone.plane.drop_waiting("pe2", DropReason.NO_CHILD)
    assert alone.plane.drops == {"no_child": 2} and alone.waiting() == 0


def test_a_flush_that_finds_no_child_after_all_keeps_the_packets_in_order() -> None:
    alone = Alone(configuration(1))
    alone.send("red", 3)
    alone.plane.flush_waiting("pe2", ("red", "standard"), NOW)
    alone.plane.flush_waiting("pe2", ("red", "gold"), NOW)
    assert not alone.plane.drops and alone.waiting() == 3


def test_waiting_packets_leave_in_order_when_their_child_and_label_come() -> None:
    nodes = NodePair(configuration(1), configuration(2)).start()
    for sequence in range(5):
        nodes.ping(1, "red", sequence)
        nodes.ping(1, "blue", sequence)
    nodes.run()
    assert nodes.pongs(1, "red") == nodes.pongs(1, "blue") == list(range(5))
    assert nodes.pe1.node.dataplane.next_deadline() is None


def test_a_packet_that_no_peer_may_serve_does_not_wait() -> None:
    alone = Alone(configuration(1))
    alone.plane.receive_packets("red", [echo(destination="198.51.100.1")], NOW)
    assert alone.plane.drops == {"no_route": 1} and alone.asked == []


@pytest.mark.parametrize("packet", [b"", b"\x45", bytes(20), b"\x45" + bytes(19), b"\xff" * 60])
def test_what_is_no_ip_packet_is_counted_and_raises_nothing(packet: bytes) -> None:
    alone = Alone(configuration(1))
    alone.plane.receive_packets("red", [packet, echo()], NOW)
    assert alone.plane.drops == {"malformed_ip": 1} and alone.waiting() == 1


# --- bypass


def bypassing() -> NodePair:
    configs = [config_of(number, ENDPOINT, TWO_ATTACHMENTS, PEER, GRANTS, BYPASS) for number in (1, 2)]
    return NodePair(configs[0], configs[1]).start()


def test_a_bypass_rule_leads_to_another_attachment_of_the_vrf_without_ike() -> None:
    nodes = bypassing()
    nodes.pe1.hosts["red"].ping("10.1.0.2", "10.1.1.2", identifier=7, sequence=1)
    nodes.run()
    assert nodes.pongs(1, "red") == [1], "there and back"
    assert nodes.pe1.events == [] and not nodes.wire
    assert not nodes.pe1.node.dataplane.drops


def test_a_bypass_rule_stays_in_its_vrf() -> None:
    nodes = bypassing()
    seen: list[str] = []
    nodes.pe1.node.dataplane._deliver = lambda attachment, packets: seen.extend([attachment] * len(packets))
    nodes.send(1, "red", echo(destination="10.1.1.2"))
    assert seen == ["red-b"], "never the attachment of another VRF with the same address"
    nodes.send(1, "blue", echo(destination="10.1.1.2"))
    assert [name for name in seen if name.startswith("red")] == ["red-b"], "blue has no such rule"
    assert nodes.pe1.drops("no_route") == 1


def test_a_bypassed_packet_goes_neither_back_nor_to_nowhere() -> None:
    nodes = bypassing()
    nodes.send(1, "red", echo(destination="10.1.0.9"))
    assert nodes.pe1.drops("no_route") == 1, "it came from there"
    assert not nodes.pe1.hosts["red"].packets and not nodes.wire


# --- sequence numbers


def without_esn() -> NodePair:
    peer = PEER.replace("-esn", "")
    first = config_of(1, ENDPOINT, VRFS, peer, GRANTS, settings='start = "boot"')
    nodes = NodePair(first, config_of(2, ENDPOINT, VRFS, peer, GRANTS, settings='start = "none"')).start()
    nodes.run()
    return nodes


def test_a_child_that_runs_low_of_sequence_numbers_is_rekeyed_once_and_loses_nothing() -> None:
    nodes = without_esn()
    old = child_of(nodes, 1, "red/standard")
    assert old.soft.packets == (2**32 - 1) // 4 * 3
    old.outbound.sequence = old.soft.packets - 2
    nodes.ping(1, "red", 0)
    nodes.run(0.1)
    assert child_of(nodes, 1, "red/standard") is old, "one is left before the mark"
    for sequence in (1, 2, 3):
        nodes.ping(1, "red", sequence)
    nodes.run()
    new = child_of(nodes, 1, "red/standard")
    assert new is not old and new.outbound.sequence < 10
    nodes.ping(1, "red", 4)
    nodes.run()
    assert nodes.pongs(1, "red") == [0, 1, 2, 3, 4]
    rekeys = [event for event in nodes.pe1.of(ChildSaEstablished) if event.replaces == old.sa.spi_in]
    assert len(rekeys) == 1


def test_a_successor_that_does_not_come_is_asked_for_again_after_a_sixteenth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = without_esn()
    asked: list[int] = []
    monkeypatch.setattr(
        PacketSignals, "on_lifetime", lambda owner, child, now: asked.append(child.outbound.sequence)
    )
    child = child_of(nodes, 1, "red/standard")
    low, sixteenth = child.soft.packets, 2**32 // 16
    for first in (low, low + sixteenth + 1):
        child.outbound.sequence = first - 2
        for sequence in range(5):
            nodes.ping(1, "red", sequence)
    assert asked == [low, low + sixteenth + 1], "once each, and not with every packet"


def test_a_child_without_sequence_numbers_sends_nothing_counts_and_asks_for_a_successor() -> None:
    nodes = without_esn()
    old = child_of(nodes, 1, "red/standard")
    old.outbound.sequence = old.outbound.last_sequence
    nodes.ping(1, "red", 1)
    nodes.ping(1, "red", 2)
    assert not nodes.wire
    assert old.drops == {"sequence_exhausted": 2} and nodes.pe1.drops("sequence_exhausted") == 2
    nodes.run()
    assert child_of(nodes, 1, "red/standard") is not old
    nodes.ping(1, "red", 3)
    nodes.run()
    assert nodes.pongs(1, "red") == [3]


# --- counters


def forged(nodes: NodePair, child: str, vrf: str, label_class: object, ttl: int = 64) -> bytes:
    """What pe1 would send if it put this VRF's and class's label into that child."""
    (label,) = {
        route.label for name, cls, route in nodes.pe1.node.table.routes() if (name, cls) == (vrf, label_class)
    }
    assert label is not None
    tc = 5 if label_class == "gold" else 0
    payload = LabelEntry(label, tc, True, ttl).encode() + echo()
    return protect(child_of(nodes, 1, child).outbound, payload, 137)


def receive(nodes: NodePair, *packets: bytes, source: str = "192.0.2.1") -> None:
    nodes.pe2.node.receive_esp(
        [EspArrival([packet], (source, 0), "192.0.2.2") for packet in packets], nodes.now
    )


def drops_of(nodes: NodePair) -> dict[str, dict[str, int]]:
    return {child.kind.name: dict(child.drops) for child in nodes.pe2.node.children if child.drops}


def test_every_drop_is_counted_at_the_child_it_came_on_and_in_all() -> None:
    nodes = up()
    foreign = forged(nodes, "red/standard", "blue", 0)
    fine = forged(nodes, "red/gold", "red", "gold")
    broken = bytearray(forged(nodes, "blue/0", "blue", 0))
    broken[-1] ^= 1
    receive(nodes, foreign, fine, fine, bytes(broken))
    receive(nodes, forged(nodes, "blue/0", "blue", 0), source="192.0.2.66")
    assert drops_of(nodes) == {
        "red/standard": {"label_foreign": 1},
        "red/gold": {"replay": 1},
        "blue/0": {"integrity": 1, "outer_address": 1},
    }
    assert nodes.pe2.node.dataplane.drops == {
        "label_foreign": 1,
        "replay": 1,
        "integrity": 1,
        "outer_address": 1,
    }
    assert nodes.pe2.node.dataplane.delivered == 1


@pytest.mark.parametrize(
    ("packet", "reason"),
    [(b"\x12\x34\x56\x78" + bytes(60), "unknown_spi"), (b"\0\0\0\1" + bytes(60), "reserved_spi")],
)
def test_what_belongs_to_no_child_is_counted_at_none(packet: bytes, reason: str) -> None:
    nodes = up()
    receive(nodes, packet)
    assert drops_of(nodes) == {} and nodes.pe2.node.dataplane.drops == {reason: 1}


@pytest.mark.parametrize("size", range(12))
def test_a_stub_of_a_packet_is_counted_once(size: int) -> None:
    nodes = up()
    receive(nodes, child_of(nodes, 2, "red/gold").sa.spi_in[:size] + bytes(max(0, size - 4)))
    assert nodes.pe2.node.dataplane.drops.total() == 1


def test_a_packet_too_big_is_counted_once_at_the_child_and_once_in_all() -> None:
    nodes = up()
    nodes.ping(1, "red", 1, data=bytes(1500))
    assert child_of(nodes, 1, "red/standard").drops == {"too_big": 1}
    assert nodes.pe1.node.dataplane.drops == {"too_big": 1}


def test_a_bad_packet_in_a_batch_spoils_none_of_the_others() -> None:
    nodes = up()
    good = [forged(nodes, "red/gold", "red", "gold") for _ in range(3)]
    receive(nodes, good[0], b"", good[1], b"\xff" * 100, good[2])
    assert nodes.pe2.node.dataplane.delivered == 3
    assert nodes.pe2.node.dataplane.drops.total() == 2


def test_a_foreign_label_is_told_at_most_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    nodes = up()
    caplog.set_level(logging.WARNING, "mplsec.dataplane")
    for _ in range(5):
        receive(nodes, forged(nodes, "red/standard", "blue", 0))
    assert len(caplog.records) == 1 and nodes.pe2.drops("label_foreign") == 5
    nodes.run(1.0)
    receive(nodes, forged(nodes, "red/standard", "blue", 0))
    assert len(caplog.records) == 2
    text = caplog.records[0].getMessage()
    child = child_of(nodes, 2, "red/standard")
    for part in (child.sa.spi_in.hex(), "red/standard", "pe1", "192.0.2.1"):
        assert part in text
    assert text.isprintable()


def test_icmp_errors_are_limited_for_each_vrf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "REPLIES_PER_S", 3.0)
    nodes = up()
    for vrf in ("red", "blue"):
        for sequence in range(5):
            nodes.ping(1, vrf, sequence, data=bytes(1500))
    assert nodes.pe1.drops("too_big") == 10
    assert [len(nodes.pe1.hosts[vrf].packets) for vrf in ("red", "blue")] == [3, 3]
    nodes.run(1.0)
    for sequence in range(5):
        nodes.ping(1, "red", sequence, data=bytes(1500))
    assert len(nodes.pe1.hosts["red"].packets) == 6


def test_an_expired_ttl_is_answered_through_the_tunnel_and_only_that_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dataplane, "REPLIES_PER_S", 2.0)
    nodes = up()
    receive(nodes, *(forged(nodes, "red/standard", "red", "standard", ttl=1) for _ in range(4)))
    nodes.run(0.1)
    assert nodes.pe2.drops("ttl_expired") == 4
    assert len(nodes.pe1.hosts["red"].packets) == 2
    assert not nodes.pe1.hosts["blue"].packets


def test_who_observes_sees_authentic_packets_only() -> None:
    nodes = up()
    seen: list[str] = []
    nodes.pe2.node.dataplane.observe = lambda child, received, outcome: seen.append(child.kind.name)
    packet = forged(nodes, "red/gold", "red", "gold")
    receive(nodes, packet, packet, b"\xff" * 100, forged(nodes, "red/standard", "blue", 0))
    assert seen == ["red/gold", "red/standard"]


# --- runs


@dataclass
class Sent:
    runs: list[tuple[str, int, list[bytes]]] = field(default_factory=list)

    def send_esp(
        self,
        path: Path,
        packets: Sequence[bytes],
        *,
        udp: bool,
        tos: int,
        ttl: int = 0,
        may_fragment: bool = False,
    ) -> None:
        self.runs.append((path.peer[0], tos, list(packets)))


@cache
def three_children() -> list[Child]:
    """Real ones, told apart by the address that they send to."""
    nodes = up()
    children = [child_of(nodes, 1, name) for name in ("red/gold", "red/standard", "blue/0")]
    for number, child in enumerate(children):
        child.path = Path(child.path.local, (f"192.0.2.10{number}", 4500))
    return children


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 0xB8])), max_size=60))
def test_runs_keep_the_order_and_never_mix_children_or_tos(steps: list[tuple[int, int]]) -> None:
    sent = Sent()
    runs = _Runs(lambda run, payloads: sent.send_esp(run.child.path, payloads, udp=False, tos=run.outer.tos))
    for number, (which, tos) in enumerate(steps):
        runs.add(three_children()[which], OuterFields(tos), False, 137, [b"%d" % number])
    runs.flush()
    runs.flush()
    flat = [(peer, tos, packet) for peer, tos, packets in sent.runs for packet in packets]
    assert flat == [(f"192.0.2.10{which}", tos, b"%d" % number) for number, (which, tos) in enumerate(steps)]
    assert all(packets for _, _, packets in sent.runs)
    changes = sum(one != other for one, other in pairwise(steps))
    assert len(sent.runs) == (changes + 1 if steps else 0), "and each run is as long as it can be"


def test_a_batch_leaves_with_rising_sequence_numbers_of_each_child() -> None:
    nodes = up()
    packets = [echo(sequence=number, dscp=EF if number % 3 else 0) for number in range(30)]
    nodes.pe1.node.receive_packets("red", packets, nodes.now)
    for name, count in (("red/gold", 20), ("red/standard", 10)):
        spi = child_of(nodes, 1, name).sa.spi_out
        sequences = [int.from_bytes(octets[4:8]) for _, octets in nodes.wire if octets[:4] == spi]
        assert sequences == list(range(1, count + 1))


@pytest.mark.parametrize(("outer", "tos"), [("ef", EF << 2), ("copy", EF << 2), (0, 0)])
def test_the_outer_header_has_the_dscp_of_the_class_and_no_ecn(outer: str | int, tos: int) -> None:
    shown = f'"{outer}"' if isinstance(outer, str) else outer
    vrfs = f"{VRFS}outer_dscp = {shown}\n"
    first = config_of(1, ENDPOINT, vrfs, PEER, GRANTS, settings='start = "boot"')
    nodes = NodePair(first, configuration(2, 'start = "none"')).start()
    nodes.run()
    sent = Sent()
    nodes.pe1.node.dataplane._underlay = sent
    nodes.pe1.node.receive_packets("red", [echo(dscp=EF), echo(dscp=EF), echo()], nodes.now)
    assert [(seen, len(packets)) for _, seen, packets in sent.runs] == [(tos, 2), (0, 1)]


def test_a_route_of_the_configuration_needs_no_label_to_wait_for() -> None:
    tables = Alone(configuration(1, 'selectors = "plain"', grants=STATIC_GRANTS)).tables
    assert {route.prefix for _, _, route in tables.table.routes()} == {ip_network("10.2.0.0/24")}


def test_a_flush_in_vain_does_not_prolong_the_wait() -> None:
    alone = Alone(configuration(1))
    alone.send("red", 1)
    alone.plane.flush_waiting("pe2", ("red", "standard"), NOW + WAITING_S - 1)
    assert alone.plane.next_deadline() == NOW + WAITING_S
