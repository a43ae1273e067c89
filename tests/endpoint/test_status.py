"""`mplsec status`: what an operator asks for, as JSON and as text, and no octet of any key."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from endpoint.status import render_status, snapshot
from ike import ChildSaEstablished, IkeKeyLogEntry
from tests.endpoint.pair import GRANTS, STATIC_GRANTS, NodePair, configuration

SOCKETS = {"queue_full": 3}
SECRET = b"a secret of the test"


def pair(
    settings1: str = 'start = "boot"', settings2: str = 'start = "none"', grants: str = GRANTS
) -> NodePair:
    configs = [configuration(n, text, grants=grants) for n, text in ((1, settings1), (2, settings2))]
    return NodePair(configs[0], configs[1]).start()


def up() -> NodePair:
    nodes = pair()
    nodes.run()
    return nodes


def document_of(nodes: NodePair, number: int = 1) -> dict[str, Any]:
    return snapshot(nodes.ends[number].node, nodes.now, SOCKETS)


def lives() -> Iterator[NodePair]:
    """Pairs in every state that has something of its own to show."""
    yield pair('start = "none"')  # nothing was ever there
    half_open = pair()
    half_open.lose = lambda sender, octets: True
    half_open.run(0.5)
    yield half_open
    yield up()
    traffic = up()
    traffic.ping(1, "red", 1)
    traffic.ping(1, "blue", 2)
    traffic.run()
    traffic.pe1.node.rekey("pe2", None, traffic.now)
    traffic.run(0.01)
    yield traffic
    ended = up()
    ended.pe1.node.terminate("pe2", None, ended.now)
    ended.run()
    yield ended
    static = pair(*('selectors = "plain"',) * 2, grants=STATIC_GRANTS)
    static.ping(1, "red", 1)
    static.run()
    yield static
    yield refused()


def refused() -> NodePair:
    """pe2 calls the VRF blue by another name."""
    renamed = STATIC_GRANTS.replace('name    = "blue"', 'name    = "blue"\n  peer_id = "name:azure"')
    nodes = NodePair(
        configuration(1, 'selectors = "seclabel"', grants=renamed),
        configuration(2, 'selectors = "seclabel"', grants=STATIC_GRANTS),
    ).start()
    nodes.ping(1, "blue", 1)
    nodes.ping(1, "red", 2)
    nodes.run()
    return nodes


def test_every_document_is_json_and_comes_back_equal() -> None:
    for nodes in lives():
        for number in (1, 2):
            document = document_of(nodes, number)
            assert json.loads(json.dumps(document)) == document


def test_every_document_renders_as_text_of_at_most_120_columns() -> None:
    for nodes in lives():
        for number in (1, 2):
            text = render_status(json.loads(json.dumps(document_of(nodes, number))))
            assert text.startswith(f"pe{number}.example on 192.0.2.{number}\n")
            assert all(line.isprintable() and len(line) <= 120 for line in text.splitlines())


def test_no_secret_is_in_the_document_nor_in_the_text() -> None:
    nodes = pair()
    entries: list[IkeKeyLogEntry] = []
    for end in nodes.ends.values():
        end.node.engine._host.key_log = entries.append
    nodes.run()
    nodes.pe1.node.rekey("pe2", None, nodes.now, ike=True)
    nodes.run()
    keys = {SECRET}
    for entry in entries:
        keys |= {entry.sk_ei, entry.sk_er, entry.sk_ai, entry.sk_ar}
    for end in nodes.ends.values():
        for event in end.of(ChildSaEstablished):
            keys |= {*event.child.keys_in, *event.child.keys_out}
    keys.discard(b"")
    assert len(keys) == 1 + 4 + 6, "the PSK, two IKE SAs' and three children's keys"
    for number in (1, 2):
        document = document_of(nodes, number)
        text = json.dumps(document) + render_status(document) + repr(document)
        for key in keys:
            for form in (key.hex(), base64.b64encode(key).decode(), repr(key), str(list(key))):
                assert form not in text and form.upper() not in text
            assert key.hex()[:16] not in text, "nor the beginning of one"


def test_sessions_and_children_are_shown_as_both_ends_know_them() -> None:
    nodes = up()
    (one,), (other,) = (document_of(nodes, number)["peers"] for number in (1, 2))
    (session,), (mirrored) = one["sessions"], other["sessions"][0]
    assert (session["spi_i"], session["spi_r"]) == (mirrored["spi_i"], mirrored["spi_r"])
    assert (session["role"], mirrored["role"]) == ("initiator", "responder")
    assert session["state"] == mirrored["state"] == "established"
    assert session["native"] and session["proposal"] == "aes256gcm16-prfsha384-x25519"
    assert 0.9 <= session["age_s"] <= 1.0, "of the virtual clock"
    seen = {child["name"]: (child["spi_in"], child["spi_out"]) for child in one["children"]}
    mirror = {child["name"]: (child["spi_out"], child["spi_in"]) for child in other["children"]}
    assert seen == mirror and seen.keys() == {"red/gold", "red/standard", "blue/0"}
    assert all(child["sending"] and child["mode"] == "transport" for child in one["children"])


def test_packets_and_octets_are_counted_at_their_child() -> None:
    nodes = up()
    nodes.ping(1, "blue", 1)
    nodes.run()
    (peer,) = document_of(nodes)["peers"]
    counts = {child["name"]: (child["packets_out"], child["packets_in"]) for child in peer["children"]}
    assert counts == {"red/gold": (0, 0), "red/standard": (0, 0), "blue/0": (1, 1)}
    (blue,) = [child for child in peer["children"] if child["name"] == "blue/0"]
    assert blue["octets_out"] == blue["octets_in"] > 0 and blue["sequence_out"] == 1
    assert document_of(nodes)["counters"]["delivered"] == 1


def test_labels_given_are_the_routes_of_the_other_end() -> None:
    nodes = up()
    given = {(row["vrf"], row["class"], row["label"]) for row in document_of(nodes, 1)["labels"]}
    routes = {(row["vrf"], row["class"], row["label"]) for row in document_of(nodes, 2)["routes"]}
    assert given == routes and len(given) == 3
    assert {row["peer"] for row in document_of(nodes, 1)["labels"]} == {"pe2"}
    sources = {row["source"] for row in document_of(nodes, 2)["routes"]}
    assert sources == {"binding"}


def test_a_refused_child_is_shown_with_the_reason_and_when_it_is_tried_again() -> None:
    nodes = refused()
    (peer,) = document_of(nodes)["peers"]
    (down,) = peer["down"]
    assert down["child"] == "blue/0" and down["reason"].startswith("TS_UNACCEPTABLE")
    assert 28.0 < down["retry_in_s"] <= 30.0
    assert "child blue/0 is down: TS_UNACCEPTABLE" in render_status(document_of(nodes))
    nodes.pe1.node.terminate("pe2", None, nodes.now)
    nodes.run(100)
    (peer,) = document_of(nodes)["peers"]
    assert peer["down"][0]["retry_in_s"] == 0.0, "never a time that has passed"


def test_drops_are_shown_where_they_belong() -> None:
    nodes = up()
    nodes.pe1.hosts["red"].ping("10.9.0.2", "10.2.0.2", identifier=7, sequence=1)
    nodes.ping(1, "blue", 1, data=bytes(1500))
    document = document_of(nodes)
    assert document["counters"]["drops"] == {"too_big": 1, "urpf": 1}
    assert document["counters"]["sockets"] == SOCKETS
    drops = {child["name"]: child["drops"] for child in document["peers"][0]["children"] if child["drops"]}
    assert drops == {"blue/0": {"too_big": 1}}
    text = render_status(document)
    for part in ("too_big=1", "drops: too_big 1, urpf 1", "sockets: queue_full 3"):
        assert part in text


def test_a_child_that_is_not_sent_on_is_marked() -> None:
    nodes = up()
    (child,) = nodes.pe1.node.children.of_kind("pe2", "blue/0")
    child.may_send = False
    assert "blue/0 *" in render_status(document_of(nodes))
    assert "red/gold *" not in render_status(document_of(nodes))


def test_a_peer_without_a_session_says_so() -> None:
    nodes = pair('start = "none"')
    document = document_of(nodes)
    assert document["peers"][0]["sessions"] == document["peers"][0]["children"] == []
    assert "no IKE SA" in render_status(document)


@pytest.mark.parametrize("selectors", ["plain", "seclabel"])
def test_static_routes_are_shown_before_anything_is_up(selectors: str) -> None:
    nodes = pair(*(f'selectors = "{selectors}"',) * 2, grants=STATIC_GRANTS)
    routes = document_of(nodes)["routes"]
    assert {(row["vrf"], row["class"], row["label"], row["source"]) for row in routes} == {
        ("red", "gold", 121, "static"),
        ("red", "standard", 122, "static"),
        ("blue", 0, 123, "static"),
    }
    text = render_status(document_of(nodes))
    assert "static" in text and "121" in text
