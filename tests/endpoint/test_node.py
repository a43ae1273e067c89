"""Two whole nodes on a virtual clock: VRFs, classes, labels, start, fall-back, collisions, restarts."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from endpoint.config import parse_config
from endpoint.dataplane import EspArrival
from endpoint.state import EndpointState
from esp.engine import protect
from ike import (
    ChildSaEstablished,
    ChildSaFailed,
    CloseReason,
    Datagram,
    FailureReason,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    Message,
    NotifyPayload,
)
from ike import Path as IkePath
from ike.numbers import NotifyType
from mpls.capability import LABEL_BINDING
from mpls.ip import Echo, IpHeader, build_ip
from mpls.labels import LabelEntry
from tests.endpoint.pair import GRANTS, STATIC_GRANTS, End, NodePair, configuration

EF = 46
ALL = {"blue/0": 1, "red/gold": 1, "red/standard": 1}


def pair(settings1: str = "", settings2: str = "", *, grants: str = GRANTS) -> NodePair:
    configs = (configuration(1, settings1, grants=grants), configuration(2, settings2, grants=grants))
    return NodePair(*configs).start()


def up() -> NodePair:
    made = pair('start = "boot"', 'start = "none"')
    made.run()
    assert made.pe1.children() == made.pe2.children() == ALL
    return made


# --- start


def test_first_packet_starts_ike_and_its_child_and_is_not_lost() -> None:
    nodes = pair()
    nodes.run(5)
    assert nodes.pe1.events == [], "nothing starts without traffic"
    nodes.ping(1, "red", 1)
    nodes.run()
    assert nodes.pongs(1, "red") == [1]
    assert nodes.pe1.children() == {"red/standard": 1}, "only what the packet needs"


def test_boot_creates_every_child_without_traffic() -> None:
    nodes = up()
    assert not nodes.wire
    assert [event.is_opener for event in nodes.pe1.of(IkeSaEstablished)] == [True]


def test_none_never_starts_anything() -> None:
    nodes = pair('start = "none"', 'start = "none"')
    nodes.ping(1, "red", 1)
    nodes.run(5)
    assert nodes.pe1.events == [] and nodes.pe1.drops("no_label") == 1


def test_waiting_packets_are_bounded_and_the_oldest_go_first() -> None:
    nodes = pair()
    nodes.lose = lambda sender, octets: True
    for sequence in range(70):
        nodes.ping(1, "red", sequence)
    assert nodes.pe1.drops("queue_full") == 6
    nodes.lose = lambda sender, octets: False
    nodes.run(5)
    assert nodes.pongs(1, "red") == list(range(6, 70))


def test_packets_that_wait_too_long_are_dropped_and_counted() -> None:
    nodes = pair()
    nodes.lose = lambda sender, octets: True
    nodes.ping(1, "red", 1)
    nodes.run(15)
    assert nodes.pe1.drops("no_label") == 1


def test_both_ends_booting_at_once_end_with_one_session_and_one_child_of_each_kind() -> None:
    nodes = pair('start = "boot"', 'start = "boot"')
    nodes.run(20)
    for end in (nodes.pe1, nodes.pe2):
        assert len(end.node.engine.sessions()) == 1
        assert end.children() == ALL
    nodes.ping(1, "red", 1)
    nodes.ping(2, "blue", 2)
    nodes.run()
    assert (nodes.pongs(1, "red"), nodes.pongs(2, "blue")) == ([1], [2])


# --- VRFs and classes


def test_equal_addresses_in_two_vrfs_stay_apart() -> None:
    nodes = up()
    nodes.ping(1, "red", 1)
    nodes.run()
    assert nodes.pe2.packets_in() == {"red/gold": 0, "red/standard": 1, "blue/0": 0}
    nodes.ping(1, "blue", 2)
    nodes.run()
    assert nodes.pe2.packets_in() == {"red/gold": 0, "red/standard": 1, "blue/0": 1}
    assert (nodes.pongs(1, "red"), nodes.pongs(1, "blue")) == ([1], [2])


def test_gold_traffic_uses_golds_sa() -> None:
    nodes = up()
    nodes.ping(1, "red", 1, dscp=EF)
    nodes.run()
    assert nodes.pe2.packets_in() == {"red/gold": 1, "red/standard": 0, "blue/0": 0}
    assert nodes.pe1.packets_in()["red/gold"] == 1


def test_ipv6_customers_are_carried_by_the_same_label() -> None:
    nodes = up()
    nodes.pe1.hosts["red"].ping("2001:db8:1::2", "2001:db8:2::2", identifier=7, sequence=1)
    nodes.run()
    assert nodes.pongs(1, "red") == [1]


def test_a_class_that_is_down_is_dropped_never_sent_on_another() -> None:
    nodes = up()
    nodes.pe1.node.terminate("pe2", "red/gold", nodes.now)
    nodes.run()
    nodes.ping(1, "red", 1, dscp=EF)
    nodes.run(1)
    assert nodes.pe1.drops("class_down") == 1
    assert not nodes.wire
    nodes.pe1.node.initiate("pe2", "red/gold", nodes.now)
    nodes.run(1)
    nodes.ping(1, "red", 2, dscp=EF)
    nodes.run(1)
    assert nodes.pongs(1, "red") == [2]


def test_a_source_that_is_not_the_customers_is_dropped() -> None:
    nodes = up()
    nodes.pe1.hosts["red"].ping("10.9.0.2", "10.2.0.2", identifier=7, sequence=1)
    assert nodes.pe1.drops("urpf") == 1
    assert not nodes.wire


def test_a_packet_larger_than_the_tunnel_mtu_is_answered_with_icmp_into_the_vrf() -> None:
    nodes = up()
    host = nodes.pe1.hosts["red"]
    nodes.ping(1, "red", 1, data=bytes(1500))
    assert nodes.pe1.drops("too_big") == 1
    (answer,) = host.packets
    header = IpHeader.parse(answer)
    assert isinstance(header, IpHeader)
    assert answer[header.upper_offset : header.upper_offset + 2] == b"\x03\x04", "fragmentation needed"
    mtu = int.from_bytes(answer[header.upper_offset + 6 : header.upper_offset + 8])
    nodes.ping(1, "red", 2, data=bytes(mtu - 28))
    nodes.run()
    assert nodes.pongs(1, "red") == [2], "what the ICMP names fits"


# --- attacks by the peer and from outside


def forge(end: End, child: str, label: int) -> bytes:
    """A packet with this label, sealed into the SA of that child."""
    (sender,) = end.node.children.of_kind("pe2", child)
    echo = Echo(ip_address("10.1.0.2"), ip_address("10.2.0.2"), 1, 1)
    return protect(sender.outbound, LabelEntry(label, 0, True, 64).encode() + echo.encode(), 137)


def label_of(end: End, vrf: str, label_class: object) -> int:
    """The label that the peer bound."""
    (label,) = {
        route.label for name, cls, route in end.node.table.routes() if (name, cls) == (vrf, label_class)
    }
    assert label is not None
    return label


def test_another_vrfs_label_in_this_vrfs_sa_is_dropped_and_counted() -> None:
    nodes = up()
    packet = forge(nodes.pe1, "red/standard", label_of(nodes.pe1, "blue", 0))
    nodes.pe2.node.receive_esp([EspArrival([packet], ("192.0.2.1", 0), "192.0.2.2")], nodes.now)
    assert nodes.pe2.drops("label_foreign") == 1
    assert nodes.pe2.node.dataplane.delivered == 0


def test_another_classs_label_in_this_classs_sa_is_dropped_and_counted() -> None:
    nodes = up()
    packet = forge(nodes.pe1, "red/standard", label_of(nodes.pe1, "red", "gold"))
    nodes.pe2.node.receive_esp([EspArrival([packet], ("192.0.2.1", 0), "192.0.2.2")], nodes.now)
    assert nodes.pe2.drops("label_foreign") == 1


def test_a_replayed_packet_is_dropped_and_counted() -> None:
    nodes = up()
    packet = forge(nodes.pe1, "red/standard", label_of(nodes.pe1, "red", "standard"))
    for _ in range(2):
        nodes.pe2.node.receive_esp([EspArrival([packet], ("192.0.2.1", 0), "192.0.2.2")], nodes.now)
    assert nodes.pe2.drops("replay") == 1
    assert nodes.pe2.node.dataplane.delivered == 1


def test_an_outer_address_that_is_not_the_peers_is_dropped() -> None:
    nodes = up()
    packet = forge(nodes.pe1, "red/standard", label_of(nodes.pe1, "red", "standard"))
    nodes.pe2.node.receive_esp([EspArrival([packet], ("192.0.2.66", 0), "192.0.2.2")], nodes.now)
    assert nodes.pe2.drops("outer_address") == 1


@pytest.mark.parametrize(("protocol", "counted"), [(137, 1), (47, 1), (1, 0)])
def test_cleartext_mpls_is_dropped_and_counted(protocol: int, counted: int) -> None:
    nodes = up()
    mpls = LabelEntry(100_000, 0, True, 64).encode() + b"E" + bytes(19)
    nodes.pe2.node.receive_cleartext(protocol, (b"\0\0\x88\x47" if protocol == 47 else b"") + mpls)
    assert nodes.pe2.drops("cleartext_mpls") == counted
    assert nodes.pe2.node.dataplane.delivered == 0


def test_garbage_loses_nothing_that_is_established() -> None:
    nodes = up()
    path = nodes.pe2.node.engine.sessions()[0].path
    for size in range(0, 200, 7):
        nodes.pe2.node.receive_ike(bytes(range(size % 256)), path, nodes.now)
        nodes.pe2.node.receive_esp(
            [EspArrival([bytes([7]) * size], ("192.0.2.1", 0), "192.0.2.2")], nodes.now
        )
    nodes.ping(1, "red", 1)
    nodes.run()
    assert nodes.pongs(1, "red") == [1]
    assert nodes.pe2.children() == ALL


@pytest.mark.parametrize(("port", "own_port", "peer_port"), [(0, 500, 500), (40123, 4500, 40123)])
def test_esp_of_a_stranger_is_told_its_unknown_spi_where_it_came_from(
    port: int, own_port: int, peer_port: int
) -> None:
    nodes = up()
    sent: list[Datagram] = []
    nodes.pe2.node._underlay.send_ike = sent.append  # type: ignore[assignment,method-assign]
    strays = [bytes([1, 2, 3, 4]) + bytes(60)] * 30
    nodes.pe2.node.receive_esp([EspArrival(strays, ("203.0.113.9", port), "192.0.2.2")], nodes.now)
    hints = [Message.parse(datagram.data) for datagram in sent]
    assert 0 < len(hints) <= 10, "seldom"
    assert [n.data for n in hints[0].notifies] == [b"\1\2\3\4"]
    assert sent[0].path == IkePath(("192.0.2.2", own_port), ("203.0.113.9", peer_port))


def test_peer_is_told_of_an_unknown_spi_over_the_ike_sa() -> None:
    nodes = up()
    nodes.pe2.node.receive_esp([EspArrival([bytes(range(1, 65))], ("192.0.2.1", 0), "192.0.2.2")], nodes.now)
    nodes.run()
    assert nodes.pe1.children() == nodes.pe2.children() == ALL


def test_a_binding_outside_accept_is_refused_and_makes_no_route() -> None:
    grants = GRANTS.replace('accept  = ["10.{other}.0.0/16"]', 'accept  = ["172.16.0.0/16"]')
    nodes = NodePair(configuration(1, 'start = "boot"', grants=grants), configuration(2, 'start = "none"'))
    nodes.start().run()
    assert not [route for vrf, _, route in nodes.pe1.node.table.routes() if vrf == "blue"]
    assert [route for vrf, _, route in nodes.pe2.node.table.routes() if vrf == "blue"]


def test_unreadable_bindings_are_counted_and_cost_nothing() -> None:
    nodes = up()
    (session,) = nodes.pe1.node.engine.sessions()
    nodes.pe1.node.engine.send_notify(session.session, (NotifyPayload(LABEL_BINDING, b"\xff"),), nodes.now)
    nodes.pe1.node.handle_timer(nodes.now)
    nodes.run()
    (exchange,) = nodes.pe2.node.labels
    assert exchange.receiver.malformed == 1
    nodes.ping(1, "red", 1)
    nodes.run()
    assert nodes.pongs(1, "red") == [1]


# --- life


def test_rekeying_every_child_and_the_ike_sa_under_traffic_loses_no_packet() -> None:
    nodes = up()
    sent = 0
    for round_ in range(60):
        if round_ % 10 == 5:
            nodes.ends[1 + round_ // 10 % 2].node.rekey(
                "pe2" if round_ // 10 % 2 == 0 else "pe1", None, nodes.now, ike=round_ % 20 == 15
            )
        for vrf, dscp in (("red", 0), ("red", EF), ("blue", 0)):
            nodes.ping(1, vrf, sent, dscp=dscp)
            sent += 1
        nodes.run(0.0007)
    nodes.run(5)
    assert len(nodes.pongs(1, "red") + nodes.pongs(1, "blue")) == sent
    assert nodes.pe1.children() == nodes.pe2.children() == ALL


def test_both_ends_rekeying_one_child_at_once_lose_no_packet() -> None:
    nodes = up()
    for sequence in range(100):
        if sequence == 30:
            for end, peer in ((nodes.pe1, "pe2"), (nodes.pe2, "pe1")):
                end.node.rekey(peer, "red/standard", nodes.now)
        nodes.ping(1, "red", sequence)
        nodes.run(0.0003)
    nodes.run(5)
    assert nodes.pongs(1, "red") == list(range(100))
    assert nodes.pe1.children() == nodes.pe2.children() == ALL


def test_rekey_by_command_passes_over_a_child_that_the_peer_has_just_rekeyed() -> None:
    nodes = NodePair(configuration(1, 'start = "boot"'), configuration(2)).start()
    nodes.run(5)
    nodes.pe1.node.rekey("pe2", "blue/0", nodes.now)
    nodes.run(0.0015)
    assert nodes.pe2.children()["blue/0"] == 2  # the Delete of the old one is still to come
    assert nodes.pe2.node.rekey("pe1", "blue/0", nodes.now) == 1
    nodes.run(10)
    assert nodes.pe1.children()["blue/0"] == nodes.pe2.children()["blue/0"] == 1


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("rekeys", range(6))  # each makes other nonces, and so another of the two that stays
def test_both_ends_creating_one_child_at_once_lose_none_of_what_waited_for_it(
    first: int, rekeys: int
) -> None:
    """The one that stays may be there at one end only when the other is already deleted."""
    nodes = NodePair(configuration(1), configuration(2)).start()
    nodes.ping(1, "blue", 1)
    nodes.run(2)
    for _ in range(rekeys):
        nodes.pe1.node.rekey("pe2", "blue/0", nodes.now)
        nodes.run()
    nodes.ike_delay_s = 0.05
    nodes.ping(first, "red", 2)
    nodes.run(0.01)
    nodes.ping(3 - first, "red", 3)
    nodes.run(2)
    assert (nodes.pongs(first, "red"), nodes.pongs(3 - first, "red")) == ([2], [3])
    assert not nodes.pe1.drops("unknown_spi") and not nodes.pe2.drops("unknown_spi")
    nodes.run(10)
    assert nodes.pe1.children()["red/standard"] == nodes.pe2.children()["red/standard"] == 1
    nodes.ping(1, "red", 4)
    nodes.run()
    assert nodes.pongs(1, "red")[-1] == 4


def test_a_wrong_secret_ends_in_authentication_failed_on_both_sides() -> None:
    nodes = NodePair(configuration(1), configuration(2, psk=b"another secret here"))
    nodes.start().ping(1, "red", 1)
    nodes.run(5)
    for end in (nodes.pe1, nodes.pe2):
        (failed,) = end.of(IkeSaFailed)
        assert failed.reason is FailureReason.AUTHENTICATION_FAILED
    assert nodes.pe1.drops("no_child") == 1, "the waiting packet"


def test_terminating_a_peer_closes_both_ends_and_quarantines_its_labels() -> None:
    nodes = up()
    label = label_of(nodes.pe1, "red", "gold")
    assert nodes.pe1.node.terminate("pe2", None, nodes.now) == 1
    nodes.run()
    assert not nodes.pe2.node.engine.sessions() and not nodes.pe2.children()
    owner = nodes.pe2.node.space.lookup(label)
    assert owner is not None and not owner.is_accepted
    assert not list(nodes.pe1.node.table.routes())


def test_a_peer_that_lost_its_memory_is_taken_back_by_initial_contact(tmp_path: Path) -> None:
    nodes = NodePair(configuration(1), configuration(2)).start()
    nodes.restart(2, EndpointState(tmp_path))
    nodes.ping(1, "red", 1)
    nodes.run()
    nodes.restart(2, EndpointState(tmp_path))
    nodes.run()
    assert nodes.pe2.children() == {"red/standard": 1}, "what was up is brought back"
    nodes.ping(1, "red", 2)
    nodes.run()
    assert nodes.pongs(1, "red") == [1, 2]
    assert [event.reason for event in nodes.pe1.of(IkeSaClosed)] == [CloseReason.REPLACED]


def test_after_an_orderly_stop_nothing_is_brought_back(tmp_path: Path) -> None:
    nodes = NodePair(configuration(1), configuration(2)).start()
    nodes.restart(1, EndpointState(tmp_path))
    nodes.ping(1, "red", 1)
    nodes.run()
    nodes.pe1.node.shut_down(nodes.now)
    nodes.run()
    assert EndpointState(tmp_path).up == {}


# --- peers without the extension


def test_native_refuses_a_peer_without_the_capability() -> None:
    nodes = NodePair(configuration(1), configuration(2, 'selectors = "plain"', grants=STATIC_GRANTS)).start()
    nodes.ping(1, "red", 1)
    nodes.run(300)
    (failed, *_) = nodes.pe1.of(IkeSaFailed)
    assert failed.reason is FailureReason.EXTENSION_ABSENT
    assert not nodes.pe2.of(IkeSaEstablished), "no IKE_AUTH is sent"


@pytest.mark.parametrize("encapsulation", ["mpls-in-ip", "mpls-in-gre", "mpls-in-udp"])
@pytest.mark.parametrize("mode", ["transport", "tunnel"])
def test_plain_peers_with_static_labels(mode: str, encapsulation: str) -> None:
    nodes = pair(
        *(f'selectors = "plain"\nmode = "{mode}"\nencapsulation = "{encapsulation}"',) * 2,
        grants=STATIC_GRANTS,
    )
    for sequence, (vrf, dscp) in enumerate((("red", 0), ("red", EF), ("blue", 0))):
        nodes.ping(1, vrf, sequence, dscp=dscp)
    nodes.run()
    assert nodes.pe1.children() == {"mpls": 1}, "one child for all VRFs"
    assert (sorted(nodes.pongs(1, "red")), nodes.pongs(1, "blue")) == ([0, 1], [2])


def test_seclabel_children_carry_vrf_and_class_in_the_security_label() -> None:
    nodes = pair(*('selectors = "seclabel"\nstrict_child = true',) * 2, grants=STATIC_GRANTS)
    for sequence, (vrf, dscp) in enumerate((("red", 0), ("red", EF), ("blue", 0))):
        nodes.ping(1, vrf, sequence, dscp=dscp)
    nodes.run()
    assert nodes.pe1.children() == ALL
    assert nodes.pe2.packets_in() == {"red/gold": 1, "red/standard": 1, "blue/0": 1}
    assert (sorted(nodes.pongs(1, "red")), nodes.pongs(1, "blue")) == ([0, 1], [2])


def test_an_unknown_security_label_is_refused_and_the_ike_sa_stays() -> None:
    renamed = STATIC_GRANTS.replace('name    = "blue"', 'name    = "blue"\n  peer_id = "name:azure"')
    nodes = NodePair(
        configuration(1, 'selectors = "seclabel"', grants=renamed),
        configuration(2, 'selectors = "seclabel"', grants=STATIC_GRANTS),
    ).start()
    nodes.ping(1, "blue", 1)
    nodes.ping(1, "red", 2)
    nodes.run()
    (failed,) = nodes.pe1.of(ChildSaFailed)
    assert failed.notify_type == NotifyType.TS_UNACCEPTABLE
    assert nodes.pongs(1, "red") == [2]
    nodes.ping(1, "blue", 3)
    assert nodes.pe1.drops("class_down") == 1


def test_native_or_plain_falls_back_only_with_an_authenticated_peer_without_the_capability() -> None:
    nodes = NodePair(
        configuration(1, 'selectors = "native-or-plain"', grants=STATIC_GRANTS),
        configuration(2, 'selectors = "plain"', grants=STATIC_GRANTS),
    ).start()
    nodes.ping(1, "red", 1)
    nodes.run()
    assert nodes.pe1.children() == {"mpls": 1}
    nodes.ping(1, "red", 2)
    nodes.run()
    assert 2 in nodes.pongs(1, "red")


def test_native_or_plain_is_native_when_the_peer_is_and_then_never_falls_back(tmp_path: Path) -> None:
    config1 = configuration(1, 'selectors = "native-or-plain"', grants=STATIC_GRANTS)
    nodes = NodePair(config1, configuration(2)).start()
    nodes.restart(1, EndpointState(tmp_path))
    nodes.ping(1, "red", 1)
    nodes.run()
    assert nodes.pe1.children() == {"red/standard": 1}
    assert EndpointState(tmp_path).native == {"pe2.example"}
    downgraded = NodePair(config1, configuration(2, 'selectors = "plain"', grants=STATIC_GRANTS)).start()
    downgraded.restart(1, EndpointState(tmp_path))
    downgraded.run(300)
    assert not downgraded.pe1.children()


PLAIN_IP = """
[[vrf]]
name     = "global"
attach   = [{{ memory = "red", address = ["10.{own}.0.1/24"] }}]
announce = ["10.{own}.0.0/24"]

[[peer]]
name          = "pe{other}"
identity      = "pe{other}.example"
addresses     = ["192.0.2.{other}"]
auth          = {{ psk_file = "psk" }}
ike           = ["aes256gcm16-prfsha384-x25519"]
esp           = ["aes256gcm16"]
selectors     = "plain"
mode          = "tunnel"
encapsulation = "none"

  [[peer.vrf]]
  name   = "global"
  accept = ["10.{other}.0.0/24"]
"""


def test_ip_packets_without_labels_go_through_an_ordinary_tunnel() -> None:
    configs = [
        parse_config(
            f'[endpoint]\nidentity = "pe{own}.example"\naddresses = ["192.0.2.{own}"]\n'
            + PLAIN_IP.format(own=own, other=3 - own),
            f"pe{own}.toml",
            secrets={"psk": b"a secret of the test"},
        )
        for own in (1, 2)
    ]
    nodes = NodePair(configs[0], configs[1]).start()
    nodes.ping(1, "red", 1)
    nodes.run()
    assert nodes.pongs(1, "red") == [1]
    (child,) = nodes.pe1.node.children
    stray = protect(child.outbound, build_ip(b"\x0a\x63\0\1", b"\x0a\2\0\2", 1, b"x" * 8), 4)
    nodes.pe2.node.receive_esp([EspArrival([stray], ("192.0.2.1", 0), "192.0.2.2")], nodes.now)
    assert nodes.pe2.drops("address_selector") == 1, "a source outside the negotiated selectors"


def test_a_peer_of_another_address_family_is_backed_off_and_never_spins() -> None:
    config = configuration(1, 'start = "boot"')
    (peer,) = config.peers
    nodes = NodePair(replace(config, peers=(replace(peer, addresses=("2001:db8::2",)),)), configuration(2))
    nodes.start().run(29)
    assert nodes.pe1.node.starter.peers["pe2"].back_off.failures == 4, "after 0, 2, 6, 14 s"


# --- what others can and cannot bring about


def test_a_forged_attempt_in_a_peers_name_changes_nothing_of_that_peer() -> None:
    settings = 'selectors = "native-or-plain"'
    nodes = NodePair(
        configuration(1, settings, grants=STATIC_GRANTS),
        configuration(2, 'selectors = "plain"\nstart = "none"', grants=STATIC_GRANTS),
    ).start()
    nodes.ping(1, "red", 1)
    nodes.run()
    routes = list(nodes.pe1.node.table.routes())
    told: list[str] = []
    nodes.pe1.node.watchers.append(lambda peer, child, text: told.append(text))
    forged = configuration(2, 'selectors = "plain"\nstart = "boot"', grants=STATIC_GRANTS, psk=b"guessed")
    nodes.ends[2] = nodes._make(2, forged)
    nodes.pe2.node.start(nodes.now)
    nodes.run()
    assert nodes.pe2.of(IkeSaFailed), "the attempt fails"
    assert list(nodes.pe1.node.table.routes()) == routes
    assert nodes.pe1.children() == {"mpls": 1}
    assert told == [], "nobody who waits for a session of ours hears of it"


def test_the_static_routes_of_a_plain_peer_stay_while_one_of_two_sessions_goes() -> None:
    nodes = NodePair(
        configuration(1, 'selectors = "native-or-plain"\nstart = "boot"', grants=STATIC_GRANTS),
        configuration(2, 'selectors = "plain"\nstart = "boot"', grants=STATIC_GRANTS),
    ).start()
    nodes.run(20)
    assert len(nodes.pe1.node.engine.sessions()) == 1
    assert len(list(nodes.pe1.node.table.routes())) == 3
    nodes.ping(1, "red", 1)
    nodes.run()
    assert nodes.pongs(1, "red") == [1]


def test_a_peer_that_deletes_every_ike_sa_at_once_causes_no_storm() -> None:
    nodes = pair('start = "boot"', 'start = "none"')
    for _ in range(600):
        nodes.run(0.05)
        for session in nodes.pe2.node.engine.sessions():
            nodes.pe2.node.engine.delete_ike_sa(session.session, nodes.now)
        nodes.pe2.node.handle_timer(nodes.now)
    assert 2 <= len(nodes.pe1.of(IkeSaEstablished)) <= 6, "waits of 2, 4, 8, 16 s in 30 s"


def test_a_peer_that_deletes_every_child_at_once_causes_no_storm() -> None:
    nodes = pair('start = "boot"', 'start = "none"')
    for _ in range(600):
        nodes.run(0.05)
        nodes.pe2.node.terminate("pe1", "red/gold", nodes.now)
    made = [event for event in nodes.pe1.of(ChildSaEstablished) if event.child.name == "red/gold"]
    assert 2 <= len(made) <= 6


def test_moving_a_prefix_from_label_to_label_leaves_one_user_of_the_route() -> None:
    nodes = up()
    (exchange,) = nodes.pe2.node.labels
    sender = exchange.sender
    assert sender is not None
    prefix = ip_network("10.2.0.0/24")
    for number in range(20):
        label = nodes.pe2.node.space.allocate("pe1", "blue", 0, 3, exchange.session)
        sender.bind("blue", 0, label, 3, [prefix])
        nodes.pe2.node.handle_timer(nodes.now)
        nodes.run(0.1)
        nodes.ping(1, "blue", number)
    nodes.run()
    assert nodes.pongs(1, "blue") == list(range(20))
    routes = nodes.pe1.node.routes
    users = routes.users("blue", prefix)
    assert 0 < len(users) <= 3, f"a class each, and the one from the start: {users}"
    nodes.pe1.node.terminate("pe2", None, nodes.now)
    nodes.run()
    assert not routes.users("blue", prefix)


def test_another_session_of_the_peer_is_adopted_when_the_current_one_goes() -> None:
    nodes = up()
    current = nodes.pe1.node.starter.peers["pe2"].session
    assert current is not None
    # A peer that begins anew before it deletes the old one, as some do to authenticate again.
    path = nodes.pe2.node.engine.sessions()[0].path
    second = nodes.pe2.node.engine.initiate("pe1", path, nodes.now)
    nodes.pe2.node.sessions.add(second, "pe1")
    nodes.pe2.node.handle_timer(nodes.now)
    nodes.run(2)
    state = nodes.pe1.node.starter.peers["pe2"]
    assert len(nodes.pe1.node.engine.sessions()) == 1
    assert state.is_up and state.session == nodes.pe1.node.engine.sessions()[0].session


def test_a_child_that_cannot_be_installed_is_deleted_and_backed_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no such transform")

    monkeypatch.setattr("endpoint.child_life.install", refuse)
    nodes = pair('start = "boot"', 'start = "none"')
    nodes.run(20)
    assert nodes.pe1.children() == {}
    assert nodes.pe1.node.starter.peers["pe2"].children["blue/0"].is_down


def test_what_is_under_way_when_the_peer_deletes_is_still_taken() -> None:
    nodes = up()
    nodes.lose = lambda sender, octets: sender == 2 and octets[:4] in spis
    spis = {child.sa.spi_in for child in nodes.pe1.node.children}
    nodes.wire.clear()
    nodes.ping(2, "blue", 1)
    (late,) = [packet for sender, packet in nodes.wire if sender == 2]
    nodes.pe2.node.terminate("pe1", None, nodes.now)
    nodes.run(0.1)
    assert not nodes.pe1.children()
    nodes.pe1.node.receive_esp([EspArrival([late], ("192.0.2.2", 0), "192.0.2.1")], nodes.now)
    assert nodes.pe1.drops("unknown_spi") == 0
    nodes.run(5.0)
    nodes.pe1.node.receive_esp([EspArrival([late], ("192.0.2.2", 0), "192.0.2.1")], nodes.now)
    assert nodes.pe1.drops("unknown_spi") == 1


@pytest.mark.parametrize(("ours", "theirs"), [(8, 8), (1, 8), (8, 3)])
def test_window_of_requests_is_the_smaller_of_what_both_ends_take(ours: int, theirs: int) -> None:
    one, two = (configuration(number, 'start = "boot"') for number in (1, 2))
    one = replace(one, endpoint=replace(one.endpoint, window=ours))
    two = replace(two, endpoint=replace(two.endpoint, window=theirs))
    nodes = NodePair(one, two).start()
    nodes.run(2)
    for end in nodes.ends.values():
        (session,) = end.node.engine._host.sessions.values()
        assert session.current.requests.size == min(ours, theirs)
