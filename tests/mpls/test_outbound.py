"""The outbound walk: packet of a VRF -> class -> route -> label; and what is said when it ends early."""

from ipaddress import IPv4Network, ip_address, ip_interface, ip_network

import pytest

from mpls.child_policy import PlainMap
from mpls.classes import LabelClass
from mpls.crypto_map import Bypass, CryptoMap, Discard, Match, Protect, Rule, compile_default
from mpls.drops import DropReason
from mpls.encapsulation import Encapsulation
from mpls.hop import Drop
from mpls.identifiers import VrfId
from mpls.ip import Echo, IpHeader, build_ip
from mpls.labels import LabelEntry
from mpls.outbound import Bypassed, Labelled, Outbound, check_outbound
from mpls.routes import ForwardingTable
from mpls.selectors import MplsVrfSelector
from mpls.vrf import Attachment, Urpf, Vrf

GOLD = LabelClass("gold", frozenset({46, 40}), (5, 6, 7), 46)
STANDARD = LabelClass("standard", tc=(0,), outer_dscp=None)
HERE, THERE = ip_network("10.1.0.0/24"), ip_network("10.2.0.0/24")


def attachment(name: str) -> Attachment:
    return Attachment(name, (ip_interface("10.1.0.1/24"), ip_interface("2001:db8:1::1/64")))


def vrf(name: str, *classes: LabelClass, urpf: Urpf = Urpf.STRICT) -> Vrf:
    return Vrf(name, f"name:{name}", classes or (LabelClass(0),), urpf, (attachment(f"{name}0"),), (HERE,))


def table(*routes: tuple[str, str, int | str, str, int]) -> ForwardingTable:
    made = ForwardingTable(["pe2", "pe3"])
    for peer, vrf_name, label_class, prefix, label in routes:
        made.add(peer, vrf_name, label_class, ip_network(prefix), label)
    return made


ROUTES = (
    ("pe2", "red", "gold", "10.2.0.0/24", 1001),
    ("pe2", "red", "standard", "10.2.0.0/24", 1002),
    ("pe2", "blue", 0, "10.2.0.0/24", 1003),
    ("pe2", "red", "standard", "2001:db8:2::/64", 1004),
)


def outbound(*vrfs: Vrf, routes: ForwardingTable | None = None) -> Outbound:
    made = vrfs or (vrf("red", GOLD, STANDARD), vrf("blue"))
    return Outbound(made, compile_default(made), routes or table(*ROUTES))


def packet(source: str = "10.1.0.9", destination: str = "10.2.0.9", dscp: int = 0, ttl: int = 64) -> bytes:
    payload = bytes.fromhex("03e80035") + bytes(4)
    return build_ip(
        ip_address(source).packed, ip_address(destination).packed, 17, payload, dscp=dscp, ttl=ttl
    )


def labelled(result: Labelled | Bypassed | Drop) -> Labelled:
    assert isinstance(result, Labelled), result
    return result


def drop(result: Labelled | Bypassed | Drop) -> Drop:
    assert isinstance(result, Drop), result
    return result


def icmp_kind(reply: bytes | None, source: str = "10.1.0.1") -> tuple[int, int]:
    assert reply is not None
    header = IpHeader.parse(reply)
    assert isinstance(header, IpHeader) and header.source == ip_address(source).packed
    return reply[header.upper_offset], reply[header.upper_offset + 1]


def test_same_prefix_of_two_vrfs_goes_by_two_labels() -> None:
    walk = outbound()
    red, blue = labelled(walk.forward("red0", packet())), labelled(walk.forward("blue0", packet()))
    assert (red.vrf, red.label_class, red.label) == ("red", "standard", 1002)
    assert (blue.vrf, blue.label_class, blue.label) == ("blue", 0, 1003)


def test_dscp_selects_class_and_class_sets_tc_and_outer_dscp() -> None:
    gold = labelled(outbound().forward("red0", packet(dscp=46)))
    assert (gold.peer, gold.label_class, gold.label, gold.tc, gold.dscp) == ("pe2", "gold", 1001, 5, 46)
    assert gold.stack == LabelEntry(1001, 5, True, 255).encode()
    standard = labelled(outbound().forward("red0", packet(dscp=10)))
    assert (standard.label, standard.tc, standard.dscp) == (1002, 0, 10)


def test_ingress_takes_one_from_the_inner_ttl_and_none_from_the_label() -> None:
    sent = labelled(outbound().forward("red0", packet(ttl=2)))
    assert sent.body == packet(ttl=1)
    assert sent.stack[3] == 255


def test_packet_of_the_pe_itself_keeps_its_ttl() -> None:
    assert labelled(outbound().forward("red0", packet("10.1.0.1", ttl=1))).body == packet("10.1.0.1", ttl=1)


def test_expired_packet_is_answered_into_the_vrf() -> None:
    expired = drop(outbound().forward("red0", packet(ttl=1)))
    assert expired.reason is DropReason.TTL_EXPIRED and icmp_kind(expired.reply) == (11, 0)
    dead = drop(outbound().forward("red0", packet(ttl=0)))
    assert dead == Drop(DropReason.TTL, "red")


def test_padding_behind_the_packet_is_not_sent() -> None:
    assert labelled(outbound().forward("red0", packet() + bytes(9))).body == packet(ttl=63)


def test_ipv6_goes_the_same_way() -> None:
    sent = labelled(outbound().forward("red0", packet("2001:db8:1::9", "2001:db8:2::9")))
    assert (sent.label, sent.body[7]) == (1004, 63)


def test_malformed_packet_is_dropped_for_that() -> None:
    assert drop(outbound().forward("red0", packet()[:-1])) == Drop(DropReason.MALFORMED_IP, "red")
    assert drop(outbound().originate("red", b"")) == Drop(DropReason.MALFORMED_IP, "red")


@pytest.mark.parametrize(
    ("mode", "source", "is_dropped"),
    [
        (Urpf.STRICT, "10.1.0.9", False),
        (Urpf.STRICT, "10.2.0.9", True),
        (Urpf.STRICT, "192.0.2.1", True),
        (Urpf.LOOSE, "10.1.0.9", False),
        (Urpf.LOOSE, "10.2.0.9", False),
        (Urpf.LOOSE, "192.0.2.1", True),
        (Urpf.OFF, "192.0.2.1", False),
    ],
)
def test_reverse_path_check_goes_by_the_setting_of_the_vrf(mode: Urpf, source: str, is_dropped: bool) -> None:
    result = outbound(vrf("red", STANDARD, urpf=mode)).forward("red0", packet(source))
    assert isinstance(result, Drop) is is_dropped
    if is_dropped:
        assert result == Drop(DropReason.URPF, "red")


def test_packet_without_a_class_is_dropped() -> None:
    assert drop(outbound(vrf("red", GOLD)).forward("red0", packet())).reason is DropReason.NO_CLASS


def test_packet_nobody_serves_is_unreachable() -> None:
    lost = drop(outbound().forward("red0", packet(destination="192.0.2.1")))
    assert (lost.reason, lost.vrf, lost.label_class, lost.peer) == (
        DropReason.NO_ROUTE,
        "red",
        "standard",
        None,
    )
    assert icmp_kind(lost.reply) == (3, 0)
    lost6 = drop(outbound().forward("red0", packet("2001:db8:1::9", "2001:db8:9::9")))
    assert icmp_kind(lost6.reply, "2001:db8:1::1") == (1, 0)


def test_packet_a_peer_may_serve_names_whom_to_wait_for() -> None:
    routes = table()
    routes.add_candidate("pe3", "red", "standard", ip_network("10.2.0.0/16"))
    walk = outbound(routes=routes)
    waiting = drop(walk.forward("red0", packet()))
    assert (waiting.reason, waiting.peer) == (DropReason.NO_LABEL, "pe3")
    routes.add("pe3", "red", "standard", THERE, 2000)
    assert labelled(walk.forward("red0", packet())).label == 2000
    routes.remove("pe3", "red", "standard", THERE)
    assert drop(walk.forward("red0", packet())).reason is DropReason.NO_LABEL


def test_rule_can_name_the_peer_bypass_or_discard() -> None:
    vrfs = (vrf("red", STANDARD),)
    routes = table(*ROUTES, ("pe3", "red", "standard", "10.0.0.0/8", 3001))

    def forward(action: Protect | Bypass | Discard) -> Labelled | Bypassed | Drop:
        return Outbound(vrfs, CryptoMap([Rule("r", Match(), action)]), routes).forward("red0", packet())

    assert labelled(forward(Protect("red", "standard"))).peer == "pe2"
    assert labelled(forward(Protect("red", "standard", "pe3"))).label == 3001
    assert forward(Bypass()) == Bypassed("red0", packet())
    assert forward(Discard()) == Drop(DropReason.DISCARDED, "red")


def test_crypto_map_that_names_an_unknown_class_is_refused() -> None:
    rule = Rule("r", Match(), Protect("red", "silver"))
    with pytest.raises(ValueError, match="rule r: no class silver"):
        Outbound([vrf("red", GOLD)], CryptoMap([rule]), table())


def test_answer_of_the_pe_goes_out_through_the_vrf_without_attachment() -> None:
    reply = Echo(ip_address("10.1.0.1"), ip_address("10.2.0.9"), 1, 1).encode()
    assert labelled(outbound().originate("red", reply)).body == reply


def test_size_is_measured_with_the_labels_and_reported_without() -> None:
    walk = outbound()
    sent = labelled(walk.forward("red0", packet()))
    size = len(sent.stack) + len(sent.body)
    assert walk.check_size(sent, size) is None
    big = walk.check_size(sent, size - 1)
    assert big is not None and big.reason is DropReason.TOO_BIG and icmp_kind(big.reply) == (3, 4)
    assert big.reply is not None and int.from_bytes(big.reply[26:28], "big") == size - 1 - 4


@pytest.mark.parametrize(
    ("fields", "is_inside"),
    [
        ({}, True),
        ({"tc": 0b11011111}, False),
        ({"ranges": ((16, 1000),)}, False),
        ({"ranges": ((16, 17), (1001, 1001))}, True),
        ({"encapsulations": 2}, False),
        ({"encapsulations": 11}, True),
        ({"depth": (2, 3)}, False),
        ({"depth": (1, 3)}, True),
    ],
)
def test_child_carries_only_what_is_in_its_map(fields: dict[str, int], is_inside: bool) -> None:
    sent = labelled(outbound().forward("red0", packet(dscp=46)))
    selector = MplsVrfSelector(VrfId.parse_text("name:red"), "gold", **fields)  # type: ignore[arg-type]
    expected = None if is_inside else DropReason.OUTSIDE_SELECTOR
    assert check_outbound(selector, sent, Encapsulation.MPLS_IN_IP) is expected


def test_explicit_null_needs_its_bit_and_plain_ip_its_own_child() -> None:
    sent = labelled(
        outbound(routes=table(("pe2", "red", "gold", "10.2.0.0/24", 0))).forward("red0", packet(dscp=46))
    )
    used = Encapsulation.MPLS_IN_IP
    assert check_outbound(PlainMap(1, special=1), sent, used) is None
    assert check_outbound(PlainMap(1), sent, used) is DropReason.OUTSIDE_SELECTOR
    assert check_outbound(None, sent, used) is DropReason.OUTSIDE_SELECTOR
    routes = ForwardingTable(unlabelled=["pe2"])
    routes.add("pe2", "red", "gold", THERE, None, "static")
    plain = labelled(outbound(routes=routes).forward("red0", packet(dscp=46)))
    assert plain.stack == b"" and plain.label is None
    assert check_outbound(None, plain, Encapsulation.NONE) is None
    assert check_outbound(PlainMap(1), plain, used) is DropReason.OUTSIDE_SELECTOR


# ---------------------------------------------------------------------------------------------- the table

DESTINATION = ip_address("10.2.0.9").packed


def via(routes: ForwardingTable, peer: str | None = None) -> tuple[str, int | None] | DropReason:
    route = routes.route("red", 0, DESTINATION, peer)
    return route if isinstance(route, DropReason) else (route.peer, route.label)


def test_longest_prefix_wins_over_the_preferred_peer() -> None:
    routes = table(("pe2", "red", 0, "10.0.0.0/8", 100), ("pe3", "red", 0, "10.2.0.0/24", 200))
    assert via(routes) == ("pe3", 200)
    assert via(routes, "pe2") == ("pe2", 100)
    assert via(routes, "pe4") is DropReason.NO_ROUTE


def test_equal_prefixes_go_to_the_preferred_peer_while_it_has_a_label() -> None:
    routes = table(("pe3", "red", 0, "10.2.0.0/24", 200), ("pe2", "red", 0, "10.2.0.0/24", 100))
    assert via(routes) == ("pe2", 100)
    routes.remove_peer("pe2")
    assert via(routes) == ("pe3", 200)


def test_peers_without_a_preference_come_last_by_name() -> None:
    routes = table(*((peer, "red", 0, "10.2.0.0/24", 100) for peer in ("zeta", "alpha")))
    assert via(routes) == ("alpha", 100)
    routes.add("pe3", "red", 0, THERE, 300)
    assert via(routes) == ("pe3", 300)


def test_prefix_moves_to_the_label_bound_last() -> None:
    routes = table(("pe2", "red", 0, "10.2.0.0/24", 100), ("pe2", "red", 0, "10.2.0.0/24", 101))
    assert via(routes) == ("pe2", 101)
    assert len(list(routes.routes())) == 1
    routes.remove("pe2", "red", 0, THERE, label=100)
    assert via(routes) == ("pe2", 101)
    routes.remove("pe2", "red", 0, THERE, label=101)
    assert via(routes) is DropReason.NO_ROUTE


def test_removing_what_is_not_there_does_nothing() -> None:
    routes = table()
    routes.remove("pe2", "red", 0, THERE)
    routes.unbind_vrf_label("pe2", "red", 0)
    routes.remove_peer("pe2")
    assert via(routes) is DropReason.NO_ROUTE


def test_static_route_outlives_the_bindings_of_its_peer() -> None:
    routes = table(("pe2", "red", 0, "10.2.0.0/24", 100))
    routes.add("pe2", "red", 0, THERE, 900, "static")
    assert via(routes) == ("pe2", 900)
    routes.remove_peer("pe2")
    routes.remove("pe2", "red", 0, THERE)
    assert via(routes) == ("pe2", 900)


def test_static_route_without_a_label_uses_the_per_vrf_label() -> None:
    routes = table()
    routes.add("pe2", "red", 0, THERE, None, "static")
    assert via(routes) is DropReason.NO_LABEL
    assert routes.candidate("red", 0, DESTINATION) == "pe2"
    routes.bind_vrf_label("pe2", "red", 0, 77)
    assert via(routes) == ("pe2", 77)
    routes.unbind_vrf_label("pe2", "red", 0, label=78)
    assert via(routes) == ("pe2", 77)
    routes.unbind_vrf_label("pe2", "red", 0, label=77)
    assert via(routes) is DropReason.NO_LABEL


def test_losing_a_peer_takes_only_what_is_named() -> None:
    routes = table(("pe2", "red", 0, "10.2.0.0/24", 1), ("pe2", "blue", 0, "10.2.0.0/24", 2))
    routes.add("pe2", "red", "gold", IPv4Network("10.3.0.0/24"), 3)
    routes.bind_vrf_label("pe2", "red", 0, 77)
    routes.bind_vrf_label("pe2", "blue", 0, 78)
    routes.remove_peer("pe2", "red", 0)
    assert sorted(route.label or 0 for _, _, route in routes.routes()) == [2, 3]
    routes.add("pe2", "blue", 0, IPv4Network("10.4.0.0/24"), None, "static")
    blue = routes.route("blue", 0, ip_address("10.4.0.1").packed)
    assert not isinstance(blue, DropReason) and blue.label == 78
    routes.remove_peer("pe2", "red")
    assert [(name, route.label) for name, _, route in routes.routes()] == [("blue", 2), ("blue", None)]


def test_candidates_are_asked_from_the_longest_prefix_on() -> None:
    routes = table()
    routes.add_candidate("pe2", "red", 0, ip_network("10.0.0.0/8"))
    routes.add_candidate("pe3", "red", 0, ip_network("10.2.0.0/16"))
    assert routes.candidate("red", 0, DESTINATION) == "pe3"
    assert routes.candidate("red", 0, DESTINATION, "pe2") == "pe2"
    routes.add_candidate("pe2", "red", 0, ip_network("10.2.0.0/16"))
    assert routes.candidate("red", 0, DESTINATION) == "pe2"
    assert routes.candidate("red", "gold", DESTINATION) is None


def test_another_class_is_never_used_instead() -> None:
    routes = table(("pe2", "red", "gold", "10.2.0.0/24", 100))
    assert via(routes) is DropReason.NO_ROUTE
