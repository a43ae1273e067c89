"""Two nodes find the MTU of their path, where nobody tells them and where somebody lies."""

import logging
from functools import partial

import pytest

from endpoint.config import Config, parse_config
from endpoint.notifies import report_dummies
from tests.endpoint.pair import ENDPOINT, GRANTS, PEER, STATIC_GRANTS, VRFS, NodePair, configuration

PROBE = 'path_mtu = "probe"'


def pair(settings: str = "", *, path_mtu: int | None = None, ignores_df: bool = False) -> NodePair:
    grants = STATIC_GRANTS if "plain" in settings else None
    text = f"{PROBE}\n{settings}"
    one, two = (
        configuration(own, text, grants=grants) if grants else configuration(own, text) for own in (1, 2)
    )
    nodes = NodePair(one, two)
    nodes.path_mtu, nodes.ignores_df = path_mtu, ignores_df
    nodes.start()
    nodes.pe1.node.initiate("pe2", None, nodes.now)
    nodes.run(10)
    return nodes


def path_mtu(nodes: NodePair, number: int = 1) -> set[int]:
    """Of all children; whole packets of it are sent."""
    return {child.budget.path_mtu for child in nodes.ends[number].node.children}


def largest_ping(nodes: NodePair, number: int = 1) -> int:
    return min(child.budget.vrf_mtu for child in nodes.ends[number].node.children) - 28


def goes(nodes: NodePair, octets: int) -> bool:
    nodes.pe1.hosts["red"].pongs.clear()
    nodes.ping(1, "red", 77, data=bytes(octets))
    nodes.run(1)
    return nodes.pongs(1, "red") == [77]


@pytest.mark.parametrize("settings", ["", 'mode = "tunnel"', 'udp = "always"'])
@pytest.mark.parametrize("narrow", [1492, 1400, 1281])
def test_both_ends_find_a_path_that_drops_silently(settings: str, narrow: int) -> None:
    nodes = pair(settings, path_mtu=narrow)
    for number in (1, 2):
        (found,) = path_mtu(nodes, number)
        assert narrow - 4 < found <= narrow
    room = largest_ping(nodes)
    assert goes(nodes, room)
    assert not goes(nodes, room + 1)
    assert nodes.pe1.drops("too_big") == 1, "said by ICMP, not lost"


def test_a_path_as_wide_as_the_link_costs_two_dummies_and_one_exchange() -> None:
    nodes = pair()
    assert path_mtu(nodes) == {1500}
    (report,) = {child.kind.name: child for child in nodes.pe2.node.children if child.drops["dummy"]}.values()
    assert report.drops["dummy"] == 2


def test_pppoe_that_nobody_configured_with_nat_traversal_costs_8_octets_more() -> None:
    wide, narrow = pair('udp = "always"'), pair('udp = "always"', path_mtu=1492)
    assert largest_ping(wide) - largest_ping(narrow) == 8
    assert goes(narrow, largest_ping(narrow))


def test_a_path_that_ignores_df_is_named_and_not_made_to_fragment(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mplsec.path"):
        nodes = pair(path_mtu=1400, ignores_df=True)
    assert path_mtu(nodes) == {1400}
    state = nodes.pe1.node.paths.state("pe2")
    assert state is not None and (state["ignores_df"], state["largest_fragment"]) == (True, 1400)
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == (
        "the path to pe2 ignores DF: packets of 1500 octets arrive in fragments of at most 1400; 1400 arrive whole"
    ) or told[0].startswith("the path to pe1 ignores DF")
    before = sum(child.fragmented for child in nodes.pe2.node.children)
    assert before, "the tail has seen it, too"
    assert goes(nodes, largest_ping(nodes))
    assert sum(child.fragmented for child in nodes.pe2.node.children) == before


def test_a_path_that_becomes_narrower_is_found_within_a_minute_of_traffic_and_wider_within_ten() -> None:
    nodes = pair()
    room = largest_ping(nodes)
    nodes.path_mtu = 1400
    assert not goes(nodes, room)
    nodes.run(65)
    assert path_mtu(nodes) == {1400}
    nodes.path_mtu = 1448
    for _ in range(11):
        goes(nodes, 100)
        nodes.run(61)
    assert path_mtu(nodes) == {1448}


def test_without_traffic_nothing_is_asked() -> None:
    nodes = pair()
    nodes.wire.clear()
    nodes.run(1000)
    assert not nodes.wire


def test_a_cipher_of_blocks_is_probed_by_whole_blocks() -> None:
    nodes = NodePair(cbc(1), cbc(2))
    nodes.path_mtu = 1400
    nodes.start()
    nodes.pe1.node.initiate("pe2", None, nodes.now)
    nodes.run(10)
    (found,) = path_mtu(nodes)
    assert 1400 - 16 < found <= 1400
    assert goes(nodes, largest_ping(nodes))


def cbc(own: int) -> Config:
    text = (ENDPOINT + VRFS + PEER.replace("aes256gcm16-esn", "aes256-sha256") + GRANTS).format(
        own=own, other=3 - own, settings=PROBE
    )
    return parse_config(text, f"pe{own}.toml", secrets={"psk": b"a secret of the test"})


def test_forged_icmp_only_makes_us_look() -> None:
    nodes = pair()
    nodes.wire.clear()
    for _ in range(100):
        nodes.pe1.node.receive_path_hint("192.0.2.2", 68, nodes.now)
        nodes.run(0.01)
    nodes.run(3)
    assert path_mtu(nodes) == {1500}
    assert len(nodes.wire) == 2, "once in 5 s"
    nodes.pe1.node.receive_path_hint("192.0.2.99", 576, nodes.now)
    nodes.run(10)
    assert len(nodes.wire) == 2, "nobody we know"


def test_true_icmp_makes_us_find_a_narrower_path_at_once() -> None:
    nodes = pair()
    nodes.path_mtu = 1400
    nodes.pe1.node.receive_path_hint("192.0.2.2", 1400, nodes.now)
    nodes.run(5)
    assert path_mtu(nodes) == {1400}


@pytest.mark.parametrize(("said", "used"), [(1400, 1400), (68, 576)])
def test_toward_a_peer_that_takes_no_ike_fragments_icmp_counts_down_to_a_floor_for_ten_minutes(
    said: int, used: int
) -> None:
    nodes = pair('selectors = "plain"\nfragmentation = false')
    nodes.wire.clear()
    nodes.pe1.node.receive_path_hint("192.0.2.2", said, nodes.now)
    assert path_mtu(nodes) == {used}
    nodes.run(610)
    assert path_mtu(nodes) == {1500}
    assert not nodes.wire, "no dummies to a peer that would not say what arrived"


def test_a_floor_can_be_configured() -> None:
    assert path_mtu(pair("path_mtu_floor = 1300", path_mtu=1000)) == {1300}


def test_a_rekeyed_child_has_the_path_mtu_at_once() -> None:
    nodes = pair(path_mtu=1400)
    nodes.pe1.node.rekey("pe2", "red/standard", nodes.now)
    nodes.run(0.1)
    assert path_mtu(nodes) == {1400}
    nodes.run(5)
    assert path_mtu(nodes) == {1400}


def test_a_peer_may_ask_only_about_its_own_children() -> None:
    nodes = pair()
    (child,) = nodes.pe1.node.children.of_kind("pe2", "red/gold")
    child.note_dummy(1480, 0)
    report = partial(report_dummies, nodes.pe1.node.children)
    question = bytes.fromhex("a2000101" + "44") + child.sa.spi_in
    assert report(child.session + 1, question) is None
    assert report(child.session, question[:-4] + bytes(4)) is None
    assert report(child.session, b"nonsense") is None
    assert report(child.session, question) is not None
    assert child.dummies == {}


def test_what_is_remembered_of_dummies_is_bounded() -> None:
    nodes = pair()
    child = next(iter(nodes.pe1.node.children))
    for size in range(1000):
        child.note_dummy(100 + size, 0)
    assert len(child.dummies) == 32 and 1099 in child.dummies


@pytest.mark.parametrize("narrow", [None, 1492, 1400, 1281])
def test_a_peer_that_knows_nothing_of_probes_is_asked_by_ike_messages_of_the_sizes(
    narrow: int | None,
) -> None:
    nodes = pair('selectors = "plain"', path_mtu=narrow)
    nodes.run(20)
    assert path_mtu(nodes) == {narrow - narrow % 4 if narrow else 1500}
    assert goes(nodes, largest_ping(nodes))
    assert not any(child.drops["dummy"] for child in nodes.pe2.node.children)
    if narrow is None:
        assert sorted(nodes.probes) == [(1, 1500), (1, 1500), (2, 1500), (2, 1500)]
    state = nodes.pe1.node.paths.state("pe2")
    assert state is not None and state["state"] == "done"


def test_such_a_path_is_looked_at_again_at_the_cost_of_one_message_and_followed_when_it_changes() -> None:
    nodes = pair('selectors = "plain"', path_mtu=1400)
    nodes.run(20)
    nodes.probes.clear()
    goes(nodes, 100)
    nodes.run(65)
    assert set(nodes.probes) == {(1, 1400), (2, 1400)}, "nothing larger, which would be lost"
    nodes.path_mtu = 1300
    nodes.pe1.node.receive_path_hint("192.0.2.2", 1300, nodes.now)
    nodes.run(20)
    assert {child.budget.path_mtu for child in nodes.pe1.node.children} == {1300}


def test_where_answers_are_always_late_nothing_is_believed_and_no_session_is_lost() -> None:
    nodes = pair('selectors = "plain"', path_mtu=100)
    nodes.run(60)
    assert path_mtu(nodes) == {1500}
    assert len(nodes.pe1.node.engine.sessions()) == 1
    assert list(nodes.pe1.node.children)


def test_hints_are_no_more_than_a_reason_to_look_for_such_peers_too() -> None:
    nodes = pair('selectors = "plain"')
    nodes.run(5)
    nodes.probes.clear()
    for _ in range(100):
        nodes.pe1.node.receive_path_hint("192.0.2.2", 68, nodes.now)
        nodes.run(0.01)
    nodes.run(3)
    assert path_mtu(nodes) == {1500}
    assert nodes.probes == [(1, 1500), (1, 1500)], "once in 5 s, in two copies"
