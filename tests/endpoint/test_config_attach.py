"""Labelled attachments in a configuration: what they mean, and what is told of their mistakes."""

import pytest

from endpoint.check import render_check
from endpoint.config import AddressPair
from endpoint.explain import Explainer
from endpoint.packets import GivenPacket
from mpls.encapsulation import GreOptions
from mpls.ip import build_ip
from mpls.labels import LabelEntry, LabelStack
from mpls.vrf import Labels
from tests.endpoint.config_texts import LABELLED, edited, parse, problems


def test_labelled_attachments_are_read() -> None:
    core, red, blue, green = (vrf.attach[0] for vrf in parse(LABELLED).vrfs)
    assert core.labelled and red.labelled and blue.labelled and green.labelled
    assert (core.labelled.device, core.labelled.labels) == ("eth1", Labels.KEEP)
    assert red.labelled.local_labels == ((301, 301), (310, 319))
    assert (red.labelled.peer_label, red.labelled.next_hop) == (401, "02:00:00:00:00:aa")
    assert red.link == blue.link != core.link
    assert green.labelled.tunnel == AddressPair("172.16.2.1", "172.16.2.2")
    assert green.labelled.gre == GreOptions(checksum=True, key=7)
    assert [str(prefix) for prefix in green.prefixes] == ["10.1.7.0/24"]


@pytest.mark.parametrize(
    ("old", "new", "key", "message", "remedy"),
    [
        ('labels = "keep"\nnext', "next", "vrf.core.attach[1].labels", "is missing", "keep"),
        ('"keep"\nnext', '"none"\nnext', "vrf.core.attach[1].labels", "other attachments", '"pop"'),
        ('next_hop = "172.16.1.2"', "", "vrf.core.attach[1].next_hop", "is missing", "MAC"),
        ('"172.16.1.2"', '"01:00:5e:00:00:01"', "vrf.core.attach[1].next_hop", "a group", "router"),
        ('"172.16.1.2"', '"router"', "vrf.core.attach[1].next_hop", "no IPv4 or IPv6", ""),
        ('"172.16.1.2"', '"172.16.1.2"\nmtu = 1500', "vrf.core.attach[1].mtu", "does not make", "there"),
        ('"172.16.1.2"', '"172.16.1.2"\ngre = {}', "vrf.core.attach[1].gre", "means nothing", "leave"),
        ("[302]", "[310]", "vrf.blue.attach[1].local_labels", 'labels of "red-pe"', "one VRF"),
        ("local_labels = [302]", "", "vrf.blue.attach[1]", "shares its link", "local_labels"),
        ('00:aa"', '00:ab"', "vrf.blue.attach[1].next_hop", "another next hop", "one router"),
        ("[302]", "[500]", "vrf.blue.attach[1].local_labels", "local label 500 of", "other labels"),
        ("[302]", "[100000]", "vrf.blue.attach[1].local_labels", "endpoint.label_range", "move"),
        ("[302]", "[3]", "vrf.blue.attach[1].local_labels", "special-purpose", "16"),
        ("peer_label = 401", "peer_label = 3", "vrf.red.attach[1].peer_label", "no MPLS label", "16"),
        ('tunnel = { local = "172.16.2.1", peer = "172.16.2.2" }', "", "vrf.green.attach[1].tunnel",
         "is missing", "tunnel ="),
        ('peer = "172.16.2.2"', 'peer = "2001:db8::1"', "vrf.green.attach[1].tunnel.peer", "another IP", "two"),
        ('local = "172.16.2.1", ', "", "vrf.green.attach[1].tunnel.local", "is missing", "local"),
        ("key = 7", "key = 4294967296", "vrf.green.attach[1].gre.key", "out of range", ""),
        ('mpls-in-gre = "inner"', 'mpls-in-ip = "inner"', "vrf.green.attach[1].gre", "means nothing", ""),
        ('mpls-in-gre = "inner"', 'tun = "inner"', "vrf.green.attach[1].labels", "means nothing", "mpls"),
    ],
)  # fmt: skip
def test_mistake_is_named_with_its_remedy(old: str, new: str, key: str, message: str, remedy: str) -> None:
    found = problems(edited(LABELLED, old, new))
    assert any(one.key == key and message in one.message and remedy in one.remedy for one in found), (
        "\n".join(map(str, found))
    )


def test_an_inner_router_on_the_underlay_without_device_is_warned_about() -> None:
    assert not parse(LABELLED).warnings
    text = edited(LABELLED, 'netns = "core"\n', 'netns = "internet"\n')
    (warning,) = parse(text).warnings
    assert "forges the source 172.16.2.2" in warning.message
    assert not parse(edited(text, 'netns = "internet"\n', 'netns = "internet"\ndevice = "eth3"\n')).warnings


def test_check_shows_the_rules_for_labelled_packets() -> None:
    shown = render_check(parse(LABELLED))
    assert "red/0 labelled" in shown


def labelled(label: int) -> GivenPacket:
    body = build_ip(bytes((10, 1, 0, 9)), bytes((10, 2, 0, 9)), 17, bytes(8))
    return GivenPacket(1, LabelStack((LabelEntry(label),)).encode() + body, is_labelled=True)


def test_explain_finds_the_attachment_by_the_topmost_label() -> None:
    found = Explainer(parse(LABELLED)).explain(labelled(301))
    assert (found.attachment, found.outcome, found.label) == ("red-pe", "protected", 501)


@pytest.mark.parametrize(
    ("label", "reason", "why"),
    [
        (500, "cleartext_mpls", "RFC 4023 8.1"),
        (100_000, "cleartext_mpls", "8.1"),
        (77, "label_unbound", "none of"),
    ],
)
def test_explain_says_why_a_label_is_refused(label: int, reason: str, why: str) -> None:
    found = Explainer(parse(LABELLED)).explain(labelled(label), "red-pe")
    assert (found.outcome, found.reason) == ("dropped", reason)
    assert why in found.why[0]
    assert found.rule is None


def test_gre_options_of_a_peer_are_for_gre() -> None:
    with_gre = LABELLED.replace('selectors = "plain"', 'selectors = "plain"\ngre = { sequence = true }')
    assert any(one.key == "peer.pe2.gre" for one in problems(with_gre))
    peer = parse(with_gre.replace("gre = { seq", 'encapsulation = "mpls-in-gre"\ngre = { seq')).peers[0]
    assert peer.gre == GreOptions(sequence=True)
