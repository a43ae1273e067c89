"""What a configuration may say and what comes of it."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from endpoint.config import (
    AddressPair,
    AttachmentKind,
    Encapsulation,
    FrontDoor,
    LifetimeConfig,
    Mode,
    PskAuthConfig,
    Selectors,
    Start,
    StaticLabels,
    Udp,
    load_config,
)
from mpls.classes import LabelClass
from mpls.crypto_map import Bypass, Discard, Match, Protect
from mpls.identifiers import VrfId
from mpls.vrf import Urpf
from tests.endpoint.config_texts import (
    COMPLETE,
    EXAMPLES,
    PLAIN,
    PLAIN_IP,
    SECOND_PEER,
    SECRET,
    edited,
    parse,
    problems,
)


def test_complete_example_is_read() -> None:
    config = parse(COMPLETE)
    assert config.endpoint.identity == "pe1.example"
    assert config.endpoint.addresses == ("192.0.2.1",)
    assert config.endpoint.front_door == FrontDoor(netns="internet")
    assert config.endpoint.state_dir == Path("/var/lib/mplsec")
    assert (config.endpoint.ike_port, config.endpoint.nat_port) == (500, 4500)
    (red,) = config.vrfs
    assert red.id == VrfId.parse_text("name:red")
    assert red.classes == ("gold", "standard")
    assert red.urpf is Urpf.STRICT
    assert red.announce == (ip_network("10.1.0.0/24"),)
    (attach,) = red.attach
    assert (attach.kind, attach.name, attach.netns) == (AttachmentKind.TUN, "red0", "red")
    assert (attach.address, attach.mtu) == (("10.1.0.1/24",), None)
    assert config.label_class("gold") == LabelClass("gold", frozenset({46, 40}), (5, 6, 7), 46)
    assert config.label_class("standard") == LabelClass("standard")
    (peer,) = config.peers
    assert peer.auth == PskAuthConfig(bytes.fromhex("ab" * 32))
    assert peer.ike_text == ("aes256gcm16-prfsha384-x25519",)
    assert [proposal.protocol for proposal in (*peer.ike, *peer.esp)] == [1, 3]
    assert (peer.selectors, peer.mode) == (Selectors.NATIVE, Mode.TRANSPORT)
    assert (peer.encapsulation, peer.udp, peer.start) == (Encapsulation.MPLS_IN_IP, Udp.AUTO, Start.TRAFFIC)
    (granted,) = peer.vrfs
    assert granted.peer_id == red.id
    assert granted.classes == ("gold", "standard")
    assert granted.accept == (ip_network("10.2.0.0/16"),)


def test_static_labels_of_a_native_peer_are_not_used_and_warned_about() -> None:
    config = parse(COMPLETE)
    assert config.peers[0].vrfs[0].labels == ()
    (warning,) = config.warnings
    assert (warning.line, warning.key) == (39, "peer.pe2.vrf.red.labels")


def test_what_is_left_out_has_its_default() -> None:
    text = """
        endpoint = { identity = "pe1.example", addresses = ["192.0.2.1"] }
        [[vrf]]
        name = "red"
        classes = ["gold", "7"]
        [[peer]]
        name = "pe2"
        identity = "pe2.example"
        addresses = ["any"]
        auth = { psk_file = "pe2.psk" }
        [[peer.vrf]]
        name = "red"
    """
    config = parse(text)
    peer = config.peers[0]
    assert config.vrfs[0].id_text == "name:red"
    assert peer.is_any
    assert peer.vrfs[0].peer_id == config.vrfs[0].id
    assert peer.vrfs[0].classes == ("gold", 7)
    assert (peer.port, peer.link_mtu, peer.liveness_s) == (500, 1500, 30.0)
    assert (peer.fragmentation, peer.fragment_size) == (True, 1280)
    assert peer.lifetime == LifetimeConfig()
    assert not config.starts_on_nat_port(peer)
    assert config.label_class(7) == LabelClass(7)


def test_plain_peer_has_labels_for_each_class_and_in_the_short_form() -> None:
    red, blue = parse(PLAIN).peers[0].vrfs
    route = (ip_network("10.2.0.0/24"),)
    assert red.labels == (StaticLabels("gold", 101, 201, route), StaticLabels("standard", 102, 202, route))
    assert red.labels_of("standard") == red.labels[1]
    assert blue.labels == (StaticLabels(0, 103, 203, ()),)


def test_times_are_seconds_or_text() -> None:
    text = edited(
        COMPLETE,
        'start     = "traffic"',
        'liveness = "off"\nlifetime = { child_rekey = 90, ike_rekey = "2h", ike_hard = "off" }',
    )
    peer = parse(text).peers[0]
    assert peer.liveness_s is None
    assert peer.lifetime == LifetimeConfig(90.0, 90.0 * 1.1, 7200.0, None)


@pytest.mark.parametrize(
    ("keys", "octets", "packets"),
    [
        ('child_rekey_octets = "500G"', (500 * 10**9, 550 * 10**9), (None, None)),
        ("child_hard_octets = 1100000", (10**6, 1_100_000), (None, None)),
        ('child_rekey_packets = "1k", child_hard_packets = "2k"', (None, None), (1000, 2000)),
        ('child_rekey_packets = 1000, child_hard_packets = "off"', (None, None), (1000, None)),
        ('child_rekey_packets = "off"', (None, None), (None, None)),
    ],
)
def test_lifetimes_in_octets_and_packets(
    keys: str, octets: tuple[int | None, int | None], packets: tuple[int | None, int | None]
) -> None:
    lifetime = parse(edited(COMPLETE, 'start     = "traffic"', f"lifetime = {{ {keys} }}")).peers[0].lifetime
    assert (lifetime.child_rekey_octets, lifetime.child_hard_octets) == octets
    assert (lifetime.child_rekey_packets, lifetime.child_hard_packets) == packets


def test_per_vrf_addresses_are_read() -> None:
    pair = 'addresses = { local = "192.0.2.11", peer = "192.0.2.12" }'
    config = parse(edited(PLAIN, "labels = { local = 103", f"{pair}\nlabels = {{ local = 103"))
    assert config.peers[0].vrfs[1].addresses == AddressPair("192.0.2.11", "192.0.2.12")


def test_plain_ip_needs_no_labels() -> None:
    peer = parse(PLAIN_IP).peers[0]
    assert peer.encapsulation is Encapsulation.NONE
    assert peer.vrfs[0].labels == ()


def test_one_port_alone_can_carry_everything() -> None:
    text = edited(PLAIN, '[[vrf]]\nname = "red"', 'ike_port = 0\n[[vrf]]\nname = "red"')
    (problem,) = problems(text)
    assert problem.key == "peer.pe2.port"
    config = parse(edited(text, 'selectors = "plain"', 'selectors = "plain"\nport = 4500'))
    assert config.starts_on_nat_port(config.peers[0])


def test_identity_at_two_addresses_may_be_two_peers() -> None:
    other = SECOND_PEER.replace("pe3.example", "pe2.example")
    assert len(parse(COMPLETE + other).peers) == 2
    (problem,) = problems(COMPLETE + other.replace("192.0.2.3", "192.0.2.2"))
    assert 'a peer "pe2.example" at 192.0.2.2 stands in line 23 already' in problem.message


def test_crypto_map_rules_are_read_in_order() -> None:
    rules = """
        [[crypto_map]]
        name = "voice"
        attachment = "red"
        labels = [1000, "2000-2999"]
        depth = 2
        tc = [5, 6]
        bottom = true
        action = "protect"
        class = "gold"
        peer = "pe2"
        [[crypto_map]]
        vrf = "blue"
        source = ["10.1.0.0/25"]
        destination = ["2001:db8::/32"]
        protocol = "udp"
        source_ports = 53
        ports = "5000-5999"
        dscp = ["af41", 0]
        action = "protect"
        [[crypto_map]]
        protocol = 89
        action = "bypass"
        [[crypto_map]]
        action = "discard"
    """
    voice, blue, ospf, rest = parse(PLAIN + rules).crypto_map
    assert voice.name == "voice"
    assert voice.match == Match(
        attachment="red",
        labels=((1000, 1000), (2000, 2999)),
        depth=2,
        tc=frozenset({5, 6}),
        bottom=True,
    )
    assert voice.action == Protect("red", "gold", "pe2")
    assert blue.name == "rule 2"
    assert blue.match == Match(
        vrf="blue",
        sources=(ip_network("10.1.0.0/25"),),
        destinations=(ip_network("2001:db8::/32"),),
        protocol=17,
        source_ports=(53, 53),
        destination_ports=(5000, 5999),
        dscp=frozenset({34, 0}),
    )
    assert blue.action == Protect("blue", 0, None)
    assert (ospf.match, ospf.action) == (Match(protocol=89), Bypass())
    assert (rest.match, rest.action) == (Match(), Discard())


@pytest.mark.parametrize(
    "name", ["pe1", "pe2", "linux-pe", "strongswan-seclabel", "plain-ip", "mpls-inside", "gateway-pool"]
)
def test_examples_are_read_without_a_warning(name: str, tmp_path: Path) -> None:
    text = (EXAMPLES / f"{name}.toml").read_text()
    (tmp_path / "pe.toml").write_text(text)
    for file in ("pe1-pe2", "linux", "swan", "branch", "boss"):
        secret = tmp_path / f"{file}.psk"
        secret.touch(0o600)
        secret.write_bytes(SECRET)
    assert load_config(tmp_path / "pe.toml").warnings == ()
