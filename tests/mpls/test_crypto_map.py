"""The crypto map: which rule takes a packet, which rule can never be reached, what the cache keeps."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpls.classes import LabelClass
from mpls.crypto_map import (
    NO_MATCH,
    Bypass,
    CryptoMap,
    Discard,
    Flow,
    Match,
    Protect,
    Rule,
    compile_default,
)
from mpls.drops import DropReason
from mpls.ip import IpHeader, build_ip
from mpls.labels import LabelEntry, LabelStack
from mpls.rule_index import RuleIndex
from mpls.vrf import Vrf

SOURCE, DESTINATION = ip_address("10.1.0.9").packed, ip_address("10.2.0.9").packed
GOLD = LabelClass("gold", frozenset({46, 40}), (5, 6, 7))
STANDARD = LabelClass("standard", tc=(0,))
RED = Vrf("red", "name:red", (GOLD, STANDARD))
BLUE = Vrf("blue", "name:blue")


def packet(protocol: int = 17, ports: tuple[int, int] = (1000, 53), dscp: int = 0) -> bytes:
    payload = ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big") + bytes(4)
    return build_ip(SOURCE, DESTINATION, protocol, payload, dscp=dscp)


def flow(vrf: str | None = "red", attachment: str | None = "red0", **fields: Any) -> Flow:
    header = IpHeader.parse(packet(**fields))
    assert isinstance(header, IpHeader)
    return Flow.of_packet(attachment, vrf, header)


def labelled(*labels: int, tc: int = 0, body: bytes = b"") -> Flow:
    made = Flow.parse_labelled("core0", None, LabelStack.push(*labels, tc=tc).encode() + (body or packet()))
    assert isinstance(made, Flow)
    return made


def nets(*texts: str) -> tuple[Any, ...]:
    return tuple(map(ip_network, texts))


@pytest.mark.parametrize(
    ("match", "taken", "passed"),
    [
        (Match(), flow(), None),
        (Match(vrf="red"), flow(), flow(vrf="blue")),
        (Match(attachment="red0"), flow(), flow(attachment="red1")),
        (Match(labelled=True), labelled(100), flow()),
        (Match(labelled=False), flow(), labelled(100)),
        (Match(labels=((100, 200),)), labelled(200), labelled(201)),
        (Match(labels=((100, 100), (300, 400))), labelled(300), flow()),
        (Match(labels=((100, 200),), depth=2), labelled(16, 150), labelled(150)),
        (Match(tc=frozenset({5})), labelled(100, tc=5), labelled(100, tc=4)),
        (Match(bottom=True), labelled(100), labelled(100, 200)),
        (Match(bottom=False), labelled(100, 200), labelled(100)),
        (Match(bottom=True, depth=2), labelled(100, 200), labelled(100)),
        (Match(sources=nets("10.1.0.0/24")), flow(), flow()._replace(source=DESTINATION)),
        (
            Match(destinations=nets("2001:db8::/32", "10.2.0.0/16")),
            flow(),
            flow()._replace(destination=SOURCE),
        ),
        (Match(destinations=nets("0.0.0.0/0")), flow(), flow()._replace(destination=b"")),
        (Match(protocol=17), flow(), flow(protocol=6)),
        (Match(protocol=17, destination_ports=(53, 53)), flow(), flow(ports=(53, 1000))),
        (Match(protocol=17, source_ports=(0, 65535)), flow(), flow()._replace(source_port=None)),
        (Match(dscp=frozenset({46})), flow(dscp=46), flow(dscp=0)),
        (Match(dscp=frozenset({0})), labelled(100), labelled(100, body=b"\1no IP")),
    ],
)
def test_rule_takes_what_it_asks_for_and_nothing_else(match: Match, taken: Flow, passed: Flow | None) -> None:
    crypto_map = CryptoMap([Rule("r", match, Bypass())])
    assert crypto_map.lookup(taken) == Bypass()
    assert passed is None or crypto_map.lookup(passed) is NO_MATCH


def test_first_rule_that_matches_decides_and_the_last_discards() -> None:
    rules = [
        Rule("dns", Match(protocol=17, destination_ports=(53, 53)), Discard()),
        Rule("red", Match(vrf="red"), Protect("red", 0, "pe2")),
    ]
    crypto_map = CryptoMap(rules)
    assert crypto_map.lookup(flow()) == Discard(DropReason.DISCARDED)
    assert crypto_map.lookup(flow(ports=(1, 2))) == Protect("red", 0, "pe2")
    assert crypto_map.lookup(flow(vrf="blue", ports=(1, 2))) == Discard(DropReason.NO_CLASS)


def test_labelled_packet_that_is_cut_off_has_no_flow() -> None:
    entry = LabelEntry(100, bottom=False).encode()
    assert Flow.parse_labelled("core0", None, entry) is DropReason.STACK_TRUNCATED
    assert Flow.parse_labelled("core0", None, entry * 17) is DropReason.STACK_DEPTH


@pytest.mark.parametrize(
    "values",
    [
        {"depth": 0},
        {"depth": 17},
        {"labelled": False, "tc": frozenset({1})},
        {"source_ports": (1, 2)},
        {"labels": ()},
        {"sources": ()},
        {"destinations": ()},
        {"tc": frozenset()},
        {"tc": frozenset({8})},
        {"dscp": frozenset({64})},
        {"labels": ((5, 4),)},
        {"labels": ((0, 1 << 20),)},
        {"protocol": 17, "destination_ports": (0, 65536)},
    ],
)
def test_condition_that_no_packet_meets_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"depth|labels|ports|empty|values|range"):
        Match(**values)


# ------------------------------------------------------------------------------------------ the default map


def test_default_map_sends_each_class_its_own_way() -> None:
    crypto_map = compile_default([RED, BLUE])
    assert crypto_map.lookup(flow(dscp=46)) == Protect("red", "gold")
    assert crypto_map.lookup(flow(dscp=10)) == Protect("red", "standard")
    assert crypto_map.lookup(flow(vrf="blue", dscp=46)) == Protect("blue", 0)
    assert crypto_map.lookup(flow(vrf="green")) is NO_MATCH


def test_class_that_no_peer_serves_gets_no_rule() -> None:
    crypto_map = compile_default([RED, BLUE], served={"red": {"gold"}})
    assert crypto_map.lookup(flow(dscp=46)) == Protect("red", "gold")
    assert crypto_map.lookup(flow(dscp=0)) is NO_MATCH
    assert crypto_map.lookup(flow(vrf="blue")) is NO_MATCH


def test_labelled_packets_get_their_class_by_tc() -> None:
    crypto_map = compile_default([RED], labelled=["red"])
    inside = packet(dscp=46)
    assert crypto_map.lookup(labelled(100, tc=6)._replace(vrf="red")) == Protect("red", "gold")
    assert crypto_map.lookup(labelled(100, tc=0, body=inside)._replace(vrf="red")) == Protect(
        "red", "standard"
    )
    assert crypto_map.lookup(labelled(100, tc=3)._replace(vrf="red")) is NO_MATCH
    assert crypto_map.lookup(flow(dscp=46)) == Protect("red", "gold")


# ------------------------------------------------------------------------------------------ description


def test_description_marks_rules_that_are_never_reached() -> None:
    crypto_map = CryptoMap(
        [
            Rule("a", Match(vrf="red", dscp=frozenset({46, 40})), Protect("red", "gold")),
            Rule("b", Match(vrf="red", dscp=frozenset({46}), protocol=17), Bypass()),
            Rule("c", Match(labels=((16, 99),), tc=frozenset({5}), depth=2), Protect("red", 0, "pe2")),
        ]
    )
    rows = crypto_map.describe()
    assert [(row.number, row.name, row.note) for row in rows] == [
        (1, "a", ""),
        (2, "b", "never reached: rule 1 takes all of it"),
        (3, "c", ""),
        (4, "last", ""),
    ]
    assert [row.match for row in rows] == [
        "vrf red, dscp cs5 ef",
        "vrf red, protocol 17, dscp ef",
        "label 16-99 at depth 2, tc 5 at depth 2",
        "any",
    ]
    assert [row.action for row in rows] == [
        "protect as red/gold",
        "bypass",
        "protect as red/0 to pe2",
        "discard",
    ]


def test_every_condition_is_printed() -> None:
    full = Match(
        attachment="core0",
        labelled=True,
        bottom=True,
        labels=((100, 100), (200, 300)),
        sources=nets("10.1.0.0/24"),
        destinations=nets("10.2.0.0/24", "10.3.0.0/24"),
        protocol=17,
        source_ports=(1, 2),
        destination_ports=(53, 53),
    )
    assert str(full) == (
        "attachment core0, label 100 200-300, bottom of stack, from 10.1.0.0/24, to 10.2.0.0/24 10.3.0.0/24, "
        "protocol 17, source port 1-2, destination port 53"
    )
    assert str(Match(labelled=False)) == "unlabelled" and str(Match(labelled=True)) == "labelled"
    assert str(Match(bottom=False)) == "not bottom of stack"


FIVE, BOTH = frozenset({5}), frozenset({5, 6})
WIDER = [
    (Match(vrf="red"), Match()),
    (Match(attachment="a"), Match()),
    (Match(protocol=17), Match()),
    (Match(tc=FIVE), Match(labelled=True)),
    (Match(labelled=False), Match()),
    (Match(tc=FIVE), Match(tc=BOTH)),
    (Match(tc=FIVE, depth=2), Match(depth=1)),
    (Match(tc=FIVE, bottom=True), Match(tc=FIVE)),
    (Match(dscp=FIVE), Match(dscp=BOTH)),
    (Match(labels=((20, 30),)), Match(labels=((16, 19), (20, 40)))),
    (Match(sources=nets("10.1.0.0/16", "10.2.0.0/16")), Match(sources=nets("10.0.0.0/8"))),
    (Match(sources=nets("10.0.0.0/16")), Match(sources=nets("10.0.0.0/8"))),
    (Match(destinations=nets("10.1.0.0/16")), Match(destinations=nets("::/0", "0.0.0.0/0"))),
    (Match(protocol=17, source_ports=(5, 6)), Match(protocol=17, source_ports=(5, 7))),
    (Match(protocol=17, destination_ports=(5, 6)), Match(protocol=17)),
]


@pytest.mark.parametrize(("small", "large"), WIDER)
def test_narrower_rule_is_a_subset_of_the_wider_one_and_not_the_reverse(small: Match, large: Match) -> None:
    assert small.is_subset_of(large)
    assert not large.is_subset_of(small)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Match(vrf="red"), Match(vrf="blue")),
        (Match(tc=FIVE, depth=2), Match(tc=FIVE)),
        (Match(bottom=True), Match(bottom=False)),
        (Match(labelled=True), Match(labelled=False)),
        (Match(sources=nets("10.0.0.0/8")), Match(sources=nets("::/0"))),
        (Match(protocol=17, source_ports=(5, 6)), Match(protocol=17, destination_ports=(5, 6))),
    ],
)
def test_rules_that_differ_in_kind_hide_nothing(one: Match, other: Match) -> None:
    assert not one.is_subset_of(other) and not other.is_subset_of(one)


ranges = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda pair: (min(pair), max(pair)))
prefixes = st.sampled_from(nets("10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "::/0")).map(lambda net: (net,))


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def matches(draw: st.DrawFn) -> Match:
    protocol = draw(maybe(st.sampled_from([6, 17])))
    entry: dict[str, Any] = {}
    is_labelled = draw(maybe(st.booleans()))
    if is_labelled is not False:
        entry = {
            "depth": draw(st.integers(1, 2)),
            "labels": draw(maybe(st.tuples(ranges))),
            "tc": draw(maybe(st.frozensets(st.integers(0, 2), min_size=1))),
            "bottom": draw(maybe(st.booleans())),
        }
    return Match(
        vrf=draw(maybe(st.sampled_from(["red", "blue"]))),
        labelled=is_labelled,
        sources=draw(maybe(prefixes)),
        protocol=protocol,
        destination_ports=draw(maybe(ranges)) if protocol is not None else None,
        dscp=draw(maybe(st.frozensets(st.integers(0, 2), min_size=1))),
        **entry,
    )


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    depth = draw(st.integers(0, 2))
    return Flow(
        None,
        draw(st.sampled_from(["red", "blue"])),
        tuple(draw(st.lists(st.integers(0, 3), min_size=depth, max_size=depth))),
        tuple(draw(st.lists(st.integers(0, 2), min_size=depth, max_size=depth))),
        draw(st.sampled_from([SOURCE, DESTINATION, bytes(16)])),
        DESTINATION,
        draw(st.sampled_from([6, 17])),
        1,
        draw(st.integers(0, 3)),
        draw(st.integers(0, 2)),
    )


@settings(max_examples=100)
@given(matches(), matches(), st.lists(flows(), max_size=20))
def test_subset_never_holds_where_its_superset_does_not(
    small: Match, large: Match, tried: list[Flow]
) -> None:
    assert small.is_subset_of(small) and small.is_subset_of(Match())
    if small.is_subset_of(large):
        assert all(large.holds(one) for one in tried if small.holds(one))


# ------------------------------------------------------------------------------------------ the flow cache


@settings(max_examples=50)
@given(st.lists(st.integers(0, 40), max_size=200), st.integers(1, 16))
def test_cache_never_changes_an_answer_and_stays_bounded(ports: list[int], size: int) -> None:
    rules = [Rule("low", Match(protocol=17, destination_ports=(0, 19)), Bypass())]
    crypto_map = CryptoMap(rules, cache_flows=size)
    for port in ports:
        expected = Bypass() if port < 20 else NO_MATCH
        assert crypto_map.lookup(flow(ports=(1, port))) == expected
        assert crypto_map.cached_flows <= max(2, size)


def test_flow_in_use_survives_a_flood_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Flow] = []

    def counting(index: RuleIndex, flow: Flow) -> int | None:
        asked.append(flow)
        return 0

    monkeypatch.setattr(RuleIndex, "first", counting)
    crypto_map = CryptoMap([Rule("all", Match(), Bypass())], cache_flows=16)
    for port in range(1000):
        crypto_map.lookup(flow(ports=(1, port)))
        crypto_map.lookup(flow(ports=(2, 2)))
    assert asked.count(flow(ports=(2, 2))) == 1


# ------------------------------------------------------------------------------------------ the index of rules


@settings(max_examples=200)
@given(st.lists(matches(), max_size=30), st.lists(flows(), min_size=1, max_size=20))
def test_index_finds_the_rule_that_trying_each_finds(rules: list[Match], tried: list[Flow]) -> None:
    index = RuleIndex(rules)
    for one in tried:
        assert index.first(one) == next((n for n, match in enumerate(rules) if match.holds(one)), None)


@settings(max_examples=50)
@given(st.lists(st.lists(ranges, min_size=1, max_size=4).map(tuple), min_size=80, max_size=120))
def test_index_keeps_overlapping_label_ranges_apart(many: list[tuple[tuple[int, int], ...]]) -> None:
    rules = [
        Match(labels=tuple((low * 7 + n, high * 7 + n) for low, high in own)) for n, own in enumerate(many)
    ]
    index = RuleIndex(rules)
    for label in range(0, 150, 3):
        one = labelled(label)
        assert index.first(one) == next((n for n, match in enumerate(rules) if match.holds(one)), None)
