"""Each combination of selectors, mode and encapsulation gives `ike` the children of WIRE 7's table."""

from ipaddress import ip_network

import pytest

from endpoint.config import AddressPair, Config, ConfigError, Encapsulation, PeerVrfConfig
from endpoint.plan import ChildPlan, PeerPlan, Serves, plan_peers, selector_registry
from ike import AddressSelector, ChildConfig, DynamicSelector, Mode, TrafficPolicy
from ike.config import ConfigSelector, RetransmitPolicy
from ike.selectors import RawSelector, SecurityLabel
from ike.wire.identity import Identity
from mpls import capability
from mpls.identifiers import VrfId
from mpls.selectors import MPLS_IN_GRE, MPLS_IN_IP, MPLS_IN_UDP, TS_MPLS_VRF, MplsVrfSelector
from tests.endpoint.config_texts import PLAIN_IP, parse
from tests.endpoint.pair import GRANTS, STATIC_GRANTS, configuration

GOLD: Serves = ("red", "gold")
STANDARD: Serves = ("red", "standard")
BLUE: Serves = ("blue", 0)
EVERY = [("red/gold", (GOLD,)), ("red/standard", (STANDARD,)), ("blue/0", (BLUE,))]
PAIR = '  addresses = {{ local = "192.0.2.1{own}", peer = "192.0.2.1{other}" }}\n'
ADDRESSED = STATIC_GRANTS.replace('  name    = "blue"\n', '  name    = "blue"\n' + PAIR)
TRANSPORT_PEER = """
[[peer]]
name = "{name}"
identity = "pe2.example"
addresses = ["192.0.2.{nth}2"]
auth = {{ psk_file = "pe2.psk" }}
selectors = "plain"
mode = "transport"
encapsulation = "mpls-in-ip"
[[peer.vrf]]
name = "{vrf}"
addresses = {{ local = "192.0.2.{nth}1", peer = "192.0.2.{nth}2" }}
labels = {{ local = 10{nth}1, peer = 10{nth}2, routes = ["10.2.0.0/24"] }}
"""
# protocol and ports of the address selectors, bit of the encapsulation in the map
ENCAPSULATIONS = {
    "mpls-in-ip": (137, 0, 65535, MPLS_IN_IP),
    "mpls-in-gre": (47, 0, 65535, MPLS_IN_GRE),
    "mpls-in-udp": (17, 6635, 6635, MPLS_IN_UDP),
}


def plan_of(config: Config) -> PeerPlan:
    (made,) = plan_peers(config)
    return made


def plan(settings: str, grants: str = STATIC_GRANTS) -> PeerPlan:
    return plan_of(configuration(1, settings, grants=grants))


def shape(made: PeerPlan, *, native: bool) -> list[tuple[str, tuple[Serves, ...]]]:
    return [(child.name, child.serves) for child in made.children if child.is_native == native]


def combined(selectors: str, mode: str, encapsulation: str) -> PeerPlan:
    settings = f'selectors = "{selectors}"\nmode = "{mode}"\nencapsulation = "{encapsulation}"'
    return plan(settings, GRANTS if selectors == "native" else STATIC_GRANTS)


@pytest.fixture(params=["transport", "tunnel"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(ENCAPSULATIONS))
def encapsulation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- which children, and what they carry


@pytest.mark.parametrize(
    ("selectors", "native", "others"),
    [
        ("native", EVERY, []),
        ("seclabel", [], EVERY),
        ("plain", [], [("mpls", (GOLD, STANDARD, BLUE))]),
        ("native-or-plain", EVERY, [("mpls", (GOLD, STANDARD, BLUE))]),
    ],
)
def test_selectors_decide_which_children_there_are(
    selectors: str, native: list[object], others: list[object], mode: str, encapsulation: str
) -> None:
    made = combined(selectors, mode, encapsulation)
    assert (shape(made, native=True), shape(made, native=False)) == (native, others)


@pytest.mark.parametrize("selectors", ["native", "seclabel", "plain", "native-or-plain"])
def test_every_child_has_the_mode_and_the_address_selectors_of_the_encapsulation(
    selectors: str, mode: str, encapsulation: str
) -> None:
    protocol, first, last, _ = ENCAPSULATIONS[encapsulation]
    dynamic = DynamicSelector(protocol, first, last)
    made = combined(selectors, mode, encapsulation)
    for child in made.children:
        assert child.config.mode is Mode(mode)
        for policy in all_policies(child.config):
            for selectors_ in (policy.local_ts, policy.peer_ts):
                assert [s for s in selectors_ if isinstance(s, DynamicSelector | AddressSelector)] == [
                    dynamic
                ]
    assert [child.name for child in made.connection.children] == [child.name for child in made.children]


def all_policies(config: ChildConfig) -> tuple[TrafficPolicy, ...]:
    return (TrafficPolicy(config.local_ts, config.peer_ts), *config.policies)


def test_native_children_have_one_map_of_their_vrf_and_class(mode: str, encapsulation: str) -> None:
    mask = ENCAPSULATIONS[encapsulation][3]
    for child in combined("native", mode, encapsulation).children:
        ((vrf, class_id),) = child.serves
        for policy in all_policies(child.config):
            for selectors in (policy.local_ts, policy.peer_ts):
                (one,) = [one for one in selectors if isinstance(one, MplsVrfSelector)]
                assert one.vrf == VrfId.parse_text(f"name:{vrf}")
                assert (one.label_class, one.encapsulations, one.depth) == (class_id, mask, (1, 1))


def test_a_class_with_traffic_classes_narrows_the_map_to_them() -> None:
    tcs = {}
    for child in plan('selectors = "native"', GRANTS).children:
        (one,) = [one for one in child.config.local_ts if isinstance(one, MplsVrfSelector)]
        tcs[child.name] = one.tc
    assert tcs == {"red/gold": 0b1110_0000, "red/standard": 0xFF, "blue/0": 0xFF}


def test_the_creator_names_the_vrf_by_its_own_id_and_takes_the_peers_name_when_it_creates() -> None:
    grants = GRANTS.replace('  name    = "blue"\n', '  name    = "blue"\n  peer_id = "name:azure"\n')
    child = plan("", grants).child("blue/0")
    assert child is not None
    assert vrf_ids(child.config.local_ts) == vrf_ids(child.config.peer_ts) == [VrfId.parse_text("name:blue")]
    (accepted,) = child.config.policies
    assert vrf_ids(accepted.local_ts) == vrf_ids(accepted.peer_ts) == [VrfId.parse_text("name:azure")]


def vrf_ids(selectors: tuple[ConfigSelector, ...]) -> list[VrfId]:
    return [one.vrf for one in selectors if isinstance(one, MplsVrfSelector)]


def test_security_labels_name_vrf_and_class_after_the_address_selector(mode: str, encapsulation: str) -> None:
    grants = STATIC_GRANTS.replace('  name    = "blue"\n', '  name    = "blue"\n  peer_id = "name:azure"\n')
    settings = f'selectors = "seclabel"\nmode = "{mode}"\nencapsulation = "{encapsulation}"'
    labels = {}
    for child in plan(settings, grants).children:
        assert child.config.local_ts[1:] == child.config.peer_ts[1:]
        (label,) = child.config.local_ts[1:]
        assert isinstance(label, SecurityLabel)
        labels[child.name] = label.octets
    assert labels == {
        "red/gold": b"mpls:vrf=red;class=gold",
        "red/standard": b"mpls:vrf=red;class=standard",
        "blue/0": b"mpls:vrf=azure;class=0",
    }


@pytest.mark.parametrize("selectors", ["plain", "native-or-plain"])
def test_plain_children_have_address_selectors_only(selectors: str, mode: str, encapsulation: str) -> None:
    child = combined(selectors, mode, encapsulation).child("mpls")
    assert child is not None and child.inner is None
    assert len(child.config.local_ts) == len(child.config.peer_ts) == 1


# --- addresses for a VRF


def test_addresses_of_a_vrf_give_it_a_child_of_its_own(encapsulation: str) -> None:
    protocol, first, last, _ = ENCAPSULATIONS[encapsulation]
    settings = f'selectors = "plain"\nmode = "tunnel"\nencapsulation = "{encapsulation}"'
    made = plan(settings, ADDRESSED)
    assert shape(made, native=False) == [("mpls", (GOLD, STANDARD)), ("blue", (BLUE,))]
    shared, own = made.children
    assert (shared.inner, own.inner) == (None, AddressPair("192.0.2.11", "192.0.2.12"))
    assert own.config.local_ts == (AddressSelector.from_address("192.0.2.11", protocol, first, last),)
    assert own.config.peer_ts == (AddressSelector.from_address("192.0.2.12", protocol, first, last),)


def test_with_addresses_for_every_vrf_there_is_no_shared_child() -> None:
    grants = ADDRESSED.replace(
        '  name    = "red"\n',
        '  name    = "red"\n  addresses = {{ local = "192.0.2.2{own}", peer = "192.0.2.2{other}" }}\n',
    )
    made = plan('selectors = "plain"\nmode = "tunnel"', grants)
    assert shape(made, native=False) == [("red", (GOLD, STANDARD)), ("blue", (BLUE,))]


def test_in_transport_mode_the_addresses_of_a_vrf_are_those_of_its_ike_sa() -> None:
    vrfs = "".join(f'[[vrf]]\nname = "{vrf}"\nattach = [{{ memory = "{vrf}" }}]\n' for vrf in ("red", "blue"))
    peers = TRANSPORT_PEER.format(name="pe2", vrf="red", nth="")
    peers += TRANSPORT_PEER.format(name="pe2-blue", vrf="blue", nth="1")
    endpoint = '[endpoint]\nidentity = "pe1.example"\naddresses = ["192.0.2.1", "192.0.2.11"]\n'
    text = endpoint + vrfs + peers
    red, blue = plan_peers(parse(text))
    assert (red.connection.local_addresses, red.connection.peer_addresses) == (("192.0.2.1",), ("192.0.2.2",))
    assert (blue.connection.local_addresses, blue.connection.peer_addresses) == (
        ("192.0.2.11",),
        ("192.0.2.12",),
    )
    assert shape(blue, native=False) == [("blue", (BLUE,))]


def test_security_labels_stand_beside_the_addresses_of_the_vrf() -> None:
    made = plan('selectors = "seclabel"\nmode = "tunnel"', ADDRESSED)
    assert shape(made, native=False) == EVERY
    child = made.child("blue/0")
    assert child is not None
    assert child.config.local_ts == (
        AddressSelector.from_address("192.0.2.11", 137),
        SecurityLabel(b"mpls:vrf=blue;class=0"),
    )


# --- encapsulation "none"


def test_plain_ip_has_the_prefixes_as_selectors_and_no_label() -> None:
    made = plan_of(parse(PLAIN_IP))
    (child,) = made.children
    assert (child.name, child.serves, child.is_native) == ("office", (("office", 0),), False)
    assert child.config.local_ts == (AddressSelector.from_network(ip_network("10.1.0.0/24")),)
    assert child.config.peer_ts == (AddressSelector.from_network(ip_network("10.2.0.0/24")),)
    assert child.config.mode is Mode.TUNNEL
    assert made.peer.encapsulation is Encapsulation.NONE


@pytest.mark.parametrize(
    ("selectors", "mode"),
    [("native", "tunnel"), ("native-or-plain", "tunnel"), ("seclabel", "tunnel"), ("plain", "transport")],
)
def test_what_cannot_be_planned_is_no_configuration(selectors: str, mode: str) -> None:
    settings = f'selectors = "{selectors}"\nmode = "{mode}"\nencapsulation = "none"'
    with pytest.raises(ConfigError, match='encapsulation = "none"'):
        plan(settings, GRANTS)


# --- the extension, and what may travel in IKE_AUTH


@pytest.mark.parametrize(
    ("selectors", "announced", "required"),
    [
        ("native", True, True),
        ("native-or-plain", True, False),
        ("plain", False, False),
        ("seclabel", False, False),
    ],
)
def test_the_vendor_id_is_for_those_that_may_be_native(
    selectors: str, announced: bool, required: bool, mode: str, encapsulation: str
) -> None:
    connection = combined(selectors, mode, encapsulation).connection
    assert (connection.extension is not None) is announced
    assert connection.extension_required is required
    for child in connection.children:
        expected = "mpls-vrf" if isinstance(child.local_ts[-1], MplsVrfSelector) else None
        assert child.extension == expected


@pytest.mark.parametrize(
    ("encapsulation", "hint"),
    [("mpls-in-ip", capability.MPLS_IN_IP), ("mpls-in-gre", capability.MPLS_IN_GRE), ("mpls-in-udp", 0)],
)
def test_the_capability_says_what_we_take(encapsulation: str, hint: int) -> None:
    extension = combined("native", "transport", encapsulation).connection.extension
    assert extension is not None
    assert extension.vendor_id == capability.VENDOR_ID
    assert extension.notify_type == capability.MPLS_VRF_SUPPORTED
    ours = capability.Capability.parse(extension.notify_data)
    assert ours.features == capability.LABEL_BINDINGS | hint
    assert (ours.bindings, ours.bindings_per_message) == (65536, 1000)


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ('selectors = "native"', None),
        ('selectors = "plain"', "mpls"),
        ('selectors = "native-or-plain"', "mpls"),
        ('selectors = "seclabel"', None),
        ('selectors = "seclabel"\nseclabel_in_auth = true', "red/gold"),
    ],
)
def test_names_of_vrfs_travel_in_ike_auth_only_by_an_explicit_option(
    settings: str, first: str | None
) -> None:
    assert plan(settings).connection.first_child == first


def test_tfc_padding_is_for_tunnel_mode_only(encapsulation: str) -> None:
    for mode, supported in (("transport", False), ("tunnel", True)):
        for child in combined("plain", mode, encapsulation).connection.children:
            assert child.tfc_padding_supported is supported


@pytest.mark.parametrize(("udp", "forced", "forbidden"), [("auto", 0, 0), ("always", 1, 0), ("never", 0, 1)])
def test_udp_setting_becomes_nat_detection(udp: str, forced: int, forbidden: int) -> None:
    connection = plan(f'udp = "{udp}"').connection
    assert (connection.force_udp, connection.forbid_udp) == (bool(forced), bool(forbidden))


# --- the connection


@pytest.mark.parametrize(
    ("settings", "octets"),
    [("", 1280), ("fragment_size = 576", 576), ("fragmentation = false\nfragment_size = 576", None)],
)
def test_fragmentation_is_on_with_a_size_or_off(settings: str, octets: int | None) -> None:
    assert plan(f'selectors = "plain"\n{settings}', "").connection.fragment_octets == octets


def test_the_connection_is_that_of_the_configuration() -> None:
    connection = plan(
        'lifetime = { child_rekey = "1h", child_hard = "2h", ike_rekey = "4h", ike_hard = "5h" }'
    ).connection
    assert (connection.name, connection.local_addresses) == ("pe2", ("192.0.2.1",))
    assert connection.peer_addresses == ("192.0.2.2",)
    assert connection.local_id == Identity.parse_text("pe1.example")
    assert connection.peer_id == Identity.parse_text("pe2.example")
    assert (connection.ike_rekey_s, connection.ike_hard_s) == (14400.0, 18000.0)
    assert {(child.rekey_s, child.hard_s) for child in connection.children} == {(3600.0, 7200.0)}
    assert connection.max_children >= 4 * len(connection.children)


def test_a_silent_peer_is_gone_after_as_many_tries_as_the_configuration_says() -> None:
    assert plan("").connection.retransmit == RetransmitPolicy()
    assert plan("retransmit_tries = 3").connection.retransmit.tries == 3


@pytest.mark.parametrize(("port", "local_port"), [(500, 500), (4500, 4500), (4501, 500)])
def test_ike_begins_on_the_nat_port_only_where_the_peers_port_is_that(port: int, local_port: int) -> None:
    connection = plan(f"port = {port}").connection
    assert (connection.local_port, connection.peer_port) == (local_port, port)


def test_a_peer_at_any_address_is_matched_by_identity_alone() -> None:
    made = plan_of(parse(PLAIN_IP))
    assert made.connection.peer_addresses == ()
    assert made.connection.peer_id == Identity.parse_text("branch@example.com")


def test_no_secret_is_in_the_text_of_a_plan() -> None:
    assert "a secret of the test" not in repr(plan("")) + str(plan(""))


# --- look-up


def test_the_child_for_a_vrf_and_class_is_that_of_the_session() -> None:
    made = plan('selectors = "native-or-plain"')

    def found(serves: Serves, native: bool) -> str | None:
        child = made.child_for(*serves, native=native)
        return None if child is None else child.name

    assert [found(serves, True) for serves in (GOLD, STANDARD, BLUE)] == [name for name, _ in EVERY]
    assert [found(serves, False) for serves in (GOLD, STANDARD, BLUE)] == ["mpls"] * 3
    assert found(("blue", "gold"), True) is None and found(("green", 0), False) is None


def test_a_vrf_that_was_not_granted_is_in_no_child() -> None:
    made = plan("", GRANTS.partition('\n  [[peer.vrf]]\n  name    = "blue"')[0])
    assert [child.name for child in made.children] == ["red/gold", "red/standard"]
    assert all(isinstance(child, ChildPlan) for child in made.children)
    assert [granted.name for granted in made.peer.vrfs if isinstance(granted, PeerVrfConfig)] == ["red"]


def test_the_registry_reads_back_what_native_children_propose() -> None:
    child = plan("").child("red/gold")
    assert child is not None
    (selector,) = [one for one in child.config.local_ts if isinstance(one, MplsVrfSelector)]
    octets = selector.encode()
    assert octets[0] == TS_MPLS_VRF
    assert selector_registry().interpret((RawSelector(TS_MPLS_VRF, octets),)) == (selector,)
