"""What is known from an earlier packet of a flow is what the walk would find now; nothing of it grows for ever."""

from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpls.classes import LabelClass
from mpls.crypto_map import compile_default
from mpls.flow_cache import FlowCache
from mpls.ip import IpHeader, PlainHeader, build_ip, internet_checksum
from mpls.outbound import Labelled, Outbound
from mpls.routes import ForwardingTable
from mpls.vrf import Attachment, Urpf, Vrf

PORTS = bytes.fromhex("03e80035")
SOURCES = ("10.1.0.1", "10.1.0.9", "10.3.0.9", "192.0.2.1")
DESTINATIONS = ("10.2.0.9", "10.2.1.9", "10.9.0.1")


def packet(
    source: str = SOURCES[1],
    destination: str = DESTINATIONS[0],
    *,
    dscp: int = 0,
    ecn: int = 0,
    ttl: int = 64,
    protocol: int = 17,
    payload: bytes = PORTS + bytes(20),
) -> bytes:
    packed = ip_address(source).packed, ip_address(destination).packed
    return build_ip(*packed, protocol, payload, dscp=dscp, ecn=ecn, ttl=ttl)


SIX = packet("2001:db8:1::9", "2001:db8:2::9")


def with_checksum(octets: bytes) -> bytes:
    """IPv4's header checksum made right again, so that a change elsewhere is not hidden behind it."""
    if len(octets) < 20 or octets[0] >> 4 != 4:
        return octets
    blank = octets[:10] + b"\0\0" + octets[12:]
    return blank[:10] + internet_checksum(blank[: (octets[0] & 15) * 4]).to_bytes(2, "big") + blank[12:]


@given(
    base=st.sampled_from([packet(), packet(protocol=6), packet(protocol=1), packet(protocol=47), SIX]),
    changes=st.lists(st.tuples(st.integers(0, 47), st.integers(0, 255)), max_size=3),
    is_repaired=st.booleans(),
    length=st.integers(0, 80) | st.none(),
)
def test_the_quick_look_never_disagrees(
    base: bytes, changes: list[tuple[int, int]], is_repaired: bool, length: int | None
) -> None:
    octets = bytearray(base)
    for at, value in changes:
        octets[at % len(octets)] = value
    changed = with_checksum(bytes(octets)) if is_repaired else bytes(octets)
    if length is not None:
        changed = changed[:length].ljust(length, b"\0")
    plain, header = PlainHeader.parse(changed), IpHeader.parse(changed)
    if plain is None:
        return
    assert isinstance(header, IpHeader)
    assert (plain.total_octets, plain.ttl, plain.destination) == (
        header.total_octets,
        header.ttl,
        header.destination,
    )
    assert plain.traffic_class == header.dscp << 2 | header.ecn
    assert plain.protocol == header.protocol
    ports = [header.source_port or 0, header.destination_port or 0]
    assert plain.ends == header.source + header.destination + b"".join(n.to_bytes(2, "big") for n in ports)
    assert not header.is_fragment


@pytest.mark.parametrize(
    "octets", [packet(), packet(protocol=6), packet(payload=PORTS), SIX, packet() + b"\0"]
)
def test_usual_packets_are_plain(octets: bytes) -> None:
    assert PlainHeader.parse(octets) is not None


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        packet(protocol=1),
        packet(payload=PORTS[:3]),
        packet()[:-1],
        with_checksum(packet()[:6] + b"\x20\0" + packet()[8:]),
        with_checksum(packet()[:6] + b"\0\1" + packet()[8:]),
        packet()[:10] + b"\0\0" + packet()[12:],
        SIX[:-1],
        SIX[:6] + b"\x3c" + SIX[7:],
        SIX[:4] + b"\0\3" + SIX[6:],
    ],
    ids=[
        "none",
        "ICMP",
        "no ports",
        "cut",
        "first",
        "later",
        "checksum",
        "cut v6",
        "extension",
        "no ports v6",
    ],
)
def test_anything_else_is_not(octets: bytes) -> None:
    assert PlainHeader.parse(octets) is None


# --- the walk


CLASSES = (LabelClass("gold", frozenset({46}), (5, 6)), LabelClass("rest", outer_dscp=None))


def network(urpf: Urpf) -> Vrf:
    attachments = tuple(
        Attachment(name, (ip_interface(f"10.{number}.0.1/24"),)) for number, name in ((1, "a"), (3, "b"))
    )
    return Vrf("red", "name:red", CLASSES, urpf, attachments)


Change = Callable[[ForwardingTable], None]


def adds(peer: str, label_class: str, prefix: str, label: int) -> Change:
    return lambda table: table.add(peer, "red", label_class, ip_network(prefix), label)


CHANGES: list[Change] = [
    adds("pe2", "gold", "10.2.0.0/24", 100),
    adds("pe2", "rest", "10.2.0.0/16", 101),
    adds("pe3", "rest", "10.2.0.0/24", 102),
    lambda table: table.add("pe3", "red", "gold", ip_network("10.2.0.0/16"), None, "static"),
    adds("pe3", "rest", "192.0.2.0/24", 103),
    lambda table: table.bind_vrf_label("pe3", "red", "gold", 104),
    lambda table: table.bind_vrf_label("pe3", "red", "gold", 105),
    lambda table: table.unbind_vrf_label("pe3", "red", "gold"),
    lambda table: table.remove("pe2", "red", "rest", ip_network("10.2.0.0/16")),
    lambda table: table.remove("pe3", "red", "rest", ip_network("192.0.2.0/24")),
    lambda table: table.remove_peer("pe3"),
    lambda table: table.remove_peer("pe2"),
    lambda table: table.add_candidate("pe2", "red", "rest", ip_network("10.9.0.0/16")),
]
changes = st.sampled_from(CHANGES)
few_packets = st.tuples(
    st.sampled_from(["a", "b"]),
    st.builds(
        packet,
        destination=st.sampled_from(DESTINATIONS[:2]),
        dscp=st.sampled_from([0, 46]),
        ttl=st.sampled_from([1, 64]),
    ),
)


def test_flows_that_differ_in_one_thing_are_two() -> None:
    for urpf in Urpf:
        table = ForwardingTable(["pe2", "pe3"])
        for change in (adds("pe2", "gold", "10.2.0.0/24", 100), adds("pe3", "rest", "10.2.0.0/16", 101)):
            change(table)
        vrf = network(urpf)
        walk = Outbound([vrf], compile_default([vrf]), table)
        marks = list(product((0, 46, 10), (0, 1), (64, 0, 1, 2)))
        for attachment, source, destination in product("ab", SOURCES, DESTINATIONS):
            for (dscp, ecn, ttl), protocol, padding in product(marks, (6, 17), (b"", b"padding")):
                octets = packet(source, destination, dscp=dscp, ecn=ecn, ttl=ttl, protocol=protocol) + padding
                fresh = Outbound([vrf], compile_default([vrf]), table)
                assert walk.forward(attachment, octets) == fresh.forward(attachment, octets)


def test_every_change_of_the_routes_is_noticed() -> None:
    vrf = network(Urpf.LOOSE)
    octets = [
        packet(source, destination, dscp=dscp)
        for source in (SOURCES[1], SOURCES[3])
        for destination in DESTINATIONS
        for dscp in (0, 46)
    ]
    for before in product(CHANGES, CHANGES[:6], CHANGES):
        table = ForwardingTable(["pe2", "pe3"])
        walk = Outbound([vrf], compile_default([vrf]), table)
        for change in before:
            change(table)
            fresh = Outbound([vrf], compile_default([vrf]), table)
            for one in octets:
                assert walk.forward("a", one) == fresh.forward("a", one)


@given(urpf=st.sampled_from(list(Urpf)), steps=st.lists(changes | few_packets, max_size=40))
def test_a_known_flow_takes_the_walk_of_its_first_packet(
    urpf: Urpf, steps: list[Change | tuple[str, bytes]]
) -> None:
    table = ForwardingTable(["pe2", "pe3"])
    adds("pe2", "rest", "10.2.0.0/16", 101)(table)
    vrf = network(urpf)
    walk = Outbound([vrf], compile_default([vrf]), table)
    for step in steps:
        if callable(step):
            step(table)
            continue
        attachment, octets = step
        fresh = Outbound([vrf], compile_default([vrf]), table)
        for _ in range(2):
            assert walk.forward(attachment, octets) == fresh.forward(attachment, octets)


def test_a_known_flow_follows_its_route() -> None:
    table = ForwardingTable()
    vrf = network(Urpf.STRICT)
    walk = Outbound([vrf], compile_default([vrf]), table)
    labels = []
    for label in (100, 100, 101):
        adds("pe2", "rest", "10.2.0.0/16", label)(table)
        outcome = walk.forward("a", packet())
        assert isinstance(outcome, Labelled)
        labels.append(outcome.label)
    assert labels == [100, 100, 101]


# --- the cache


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 20))
def test_it_is_bounded_and_never_wrong(keys: list[int], flows: int) -> None:
    cache: FlowCache[int, str] = FlowCache(flows)
    for key in keys:
        assert cache.get(key) in (None, str(key))
        cache.put(key, str(key))
        assert cache.get(key) == str(key)
        assert len(cache) <= max(2, flows)
