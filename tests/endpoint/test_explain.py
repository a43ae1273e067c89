"""`mplsec explain` says what becomes of a packet: every kind of rule, every drop, every octet, and why."""

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from endpoint.cli import main
from endpoint.explain import Explainer, ExplainError, Explanation
from endpoint.explain_text import render_explanation
from endpoint.packets import GivenPacket
from esp.engine import protect
from esp.sa import OutboundSa
from esp.transforms import transform_for
from mpls.encapsulation import Encapsulator, Mode
from mpls.ip import build_ip, internet_checksum
from mpls.labels import LabelEntry, LabelStack
from tests.endpoint.config_texts import COMPLETE, PLAIN, PLAIN_IP, SECRET, edited, parse

LABELS = 'labels  = { local = 101, peer = 102, routes = ["10.2.0.0/24"] }\n'
NATIVE = edited(COMPLETE, LABELS, "")
TWO_SITES = edited(
    NATIVE,
    'attach  = [{ tun = "red0", netns = "red", address = ["10.1.0.1/24"], mtu = "auto" }]',
    'attach = [{ tun = "red0", address = ["10.1.0.1/24"] }, { tun = "red1", address = ["10.7.0.1/24"] }]',
)


def ip(
    destination: str = "10.2.0.9",
    *,
    source: str = "10.1.0.9",
    dscp: int = 0,
    ttl: int = 64,
    octet_count: int = 100,
) -> bytes:
    payload = bytes.fromhex("03e80035").ljust(octet_count - 20, b"\0")
    return build_ip(
        ip_address(source).packed, ip_address(destination).packed, 17, payload, dscp=dscp, ttl=ttl
    )


def of(text: str, packet: bytes | None = None, attachment: str | None = None) -> Explanation:
    return Explainer(parse(text)).explain(GivenPacket(1, packet or ip()), attachment)


def rule(text: str, action: str = 'action = "discard"', **conditions: str) -> str:
    lines = "".join(f"{key} = {value}\n" for key, value in conditions.items())
    return f'{text}\n[[crypto_map]]\nname = "own"\n{lines}{action}\n'


# --- where it goes


def test_native_peer_binds_the_label_at_run_time() -> None:
    found = of(NATIVE, ip(dscp=46))
    assert (found.outcome, found.reason) == ("protected", None)
    assert found.rule is not None and (found.rule.number, found.rule.name) == (1, "red/gold")
    assert (found.attachment, found.vrf, found.label_class, found.tc) == ("red0", "red", "gold", 5)
    assert (found.peer, found.prefix, found.child) == ("pe2", "10.2.0.0/16", "red/gold")
    assert (found.label, found.label_is) == (None, "bound at run time")
    assert (found.mode, found.encapsulation, found.outer_dscp) == ("transport", "mpls-in-ip", "ef")
    assert {path.next_header for path in found.paths} == {137}
    assert "started by this packet" in found.why[1]


def test_plain_peer_has_a_static_label_of_the_class() -> None:
    found = of(PLAIN, ip(dscp=46), "red")
    assert (found.label, found.label_is, found.prefix, found.child) == (201, "static", "10.2.0.0/24", "mpls")
    assert of(PLAIN, ip(), "red").label == 202
    assert {path.next_header for path in found.paths} == {4}  # tunnel mode: the inner IP header


def test_plain_ip_has_no_label() -> None:
    found = of(PLAIN_IP)
    assert (found.label, found.label_is, found.tc, found.child) == (None, "none", None, "office")
    assert found.paths[0].mpls_octets == 100
    assert "branch to call" in found.why[1]


def test_peer_that_may_turn_out_plain_has_both() -> None:
    text = edited(PLAIN, 'selectors = "plain"', 'selectors = "native-or-plain"')
    found = of(text, ip(dscp=46), "red")
    assert (found.label_is, found.child) == ("bound at run time", "red/gold")
    assert any("static label 201 is used" in sentence for sentence in found.why)


@pytest.mark.parametrize(("start", "said"), [("boot", "as soon as mplsec runs"), ("none", "class_down")])
def test_what_starts_the_child_is_said(start: str, said: str) -> None:
    found = of(edited(NATIVE, 'start     = "traffic"', f'start = "{start}"'))
    assert any(said in sentence for sentence in found.why)


def test_longest_of_the_prefixes_a_peer_may_announce_is_named() -> None:
    found = of(edited(NATIVE, '["10.2.0.0/16"]', '["10.0.0.0/8", "10.2.0.0/25", "10.2.0.0/16"]'))
    assert found.prefix == "10.2.0.0/25"


# --- the rules


def test_every_rule_kind_decides() -> None:
    discarded = of(rule(NATIVE, vrf='"red"', protocol='"udp"', ports="53"))
    assert (discarded.outcome, discarded.reason) == ("dropped", "discarded")
    assert discarded.rule is not None and (discarded.rule.number, discarded.rule.name) == (1, "own")
    assert discarded.why == ("rule own says discard",)

    protect_as = 'action = "protect"\nclass = "gold"\npeer = "pe2"'
    assert of(rule(NATIVE, protect_as, vrf='"red"')).label_class == "gold"

    passed = of(rule(TWO_SITES, 'action = "bypass"', vrf='"red"'), ip("10.7.0.9"))
    assert (passed.outcome, passed.leaves_by, passed.paths) == ("bypassed", "red1", ())

    last = of(NATIVE.replace('["gold", "standard"]', '["gold"]'))
    assert last.rule is not None and (last.rule.name, last.reason) == ("last", "no_class")
    assert "DSCP cs0 selects no class" in last.why[0]


def test_compiled_rules_keep_their_number_behind_ones_own() -> None:
    found = of(rule(NATIVE, vrf='"red"', protocol='"tcp"'))
    assert found.rule is not None and (found.rule.number, found.rule.name) == (3, "red/standard")


def test_bypass_that_leads_nowhere_is_a_drop() -> None:
    found = of(rule(NATIVE, 'action = "bypass"', vrf='"red"'))
    assert (found.outcome, found.reason) == ("dropped", "no_route")


# --- the drops


@pytest.mark.parametrize(
    ("packet", "reason", "said"),
    [
        (ip()[:-1], "malformed_ip", "not a whole IP packet"),
        (b"\0", "malformed_ip", "not a whole IP packet"),
        (ip(source="10.7.0.9"), "urpf", "it is behind red1"),
        (ip(source="10.99.0.9"), "urpf", "it is in no network"),
        (ip("10.8.0.9"), "no_route", "no peer serves 10.8.0.9 in red/standard: pe2 has 10.2.0.0/16"),
        (ip(ttl=0), "ttl", "TTL 0"),
        (ip(ttl=1), "ttl_expired", "TTL 1"),
        (ip(octet_count=1443), "too_big", "1447 octets, the Tunnel MTU is 1446"),
    ],
)
def test_drop_is_named_and_explained(packet: bytes, reason: str, said: str) -> None:
    found = of(TWO_SITES, packet, "red0")
    assert (found.outcome, found.reason) == ("dropped", reason)
    assert said in " ".join(found.why)


def test_rules_are_not_shown_to_what_ends_before_them() -> None:
    assert of(TWO_SITES, ip(source="10.7.0.9"), "red0").rule is None
    assert of(TWO_SITES, ip(ttl=1), "red0").rule is not None


def test_loose_urpf_says_what_is_missing() -> None:
    found = of(edited(NATIVE, 'urpf    = "strict"', 'urpf = "loose"'), ip(source="10.99.0.9"))
    assert found.reason == "urpf" and "no route to 10.99.0.9" in found.why[0]


def test_rule_for_one_peer_does_not_use_another() -> None:
    text = rule(NATIVE, 'action = "protect"\nclass = "gold"\npeer = "pe2"', vrf='"red"')
    found = of(text, ip("10.8.0.9"))
    assert (found.reason, found.why) == (
        "no_route",
        ("peer pe2 does not serve 10.8.0.9 in red/gold: pe2 has 10.2.0.0/16",),
    )


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ('fragment = "inner"', "cut into 2 fragments before it is protected"),
        ('outer_df = "copy"', "the tunnel packet goes without DF and may be fragmented on its way"),
    ],
)
def test_what_is_made_to_fit_is_no_drop(setting: str, remedy: str) -> None:
    packet = bytearray(ip(octet_count=1443))
    packet[6] = 0  # without DF
    packet[10:12] = bytes(2)
    packet[10:12] = internet_checksum(bytes(packet[:20])).to_bytes(2, "big")
    found = of(edited(NATIVE, 'start     = "traffic"', f'start = "traffic"\n{setting}'), bytes(packet))
    assert (found.outcome, found.reason) == ("protected", None)
    assert any(remedy in why for why in found.why)
    assert not any(path.fits for path in found.paths)


def test_too_big_for_one_of_the_paths_is_said_and_not_a_drop() -> None:
    found = of(NATIVE, ip(octet_count=1442))
    assert (found.outcome, found.reason) == ("protected", "too_big")
    assert [(path.name, path.fits) for path in found.paths] == [("IPv4", True), ("IPv4 UDP", False)]


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (LabelStack.push(500).encode() + ip(), "inner_label"),
        (LabelEntry(500, bottom=False).encode() * 100, "inner_label"),
    ],
)
def test_labelled_packet_at_an_attachment_for_ip_is_dropped(octets: bytes, reason: str) -> None:
    found = Explainer(parse(NATIVE)).explain(GivenPacket(1, octets, is_labelled=True))
    assert (found.outcome, found.reason, found.rule) == ("dropped", reason, None)
    assert "takes IP packets only" in found.why[0]


# --- the octets


@pytest.mark.parametrize("octet_count", [28, 100, 101, 102, 103, 1000])
@pytest.mark.parametrize(
    "esp", [("aes256gcm16", 20, 256, 0), ("aes128-sha256", 12, 128, 12), ("aes256gcm8", 18, 256, 0)]
)
@pytest.mark.parametrize("mode", ["transport", "tunnel"])
@pytest.mark.parametrize("encapsulation", ["mpls-in-ip", "mpls-in-gre", "mpls-in-udp"])
def test_octets_are_those_that_are_sent(
    octet_count: int, esp: tuple[str, int, int, int], mode: str, encapsulation: str
) -> None:
    text = edited(NATIVE, '["aes256gcm16"]', f'["{esp[0]}"]')
    text = edited(text, '"transport"', f'"{mode}"')
    config = parse(edited(text, '"mpls-in-ip"', f'"{encapsulation}"'))
    packet = ip(octet_count=octet_count)
    path = Explainer(config).explain(GivenPacket(1, packet)).paths[0]

    transform = transform_for(*esp[1:])
    sa = OutboundSa(b"\1\2\3\4", transform, bytes(transform.key_octets), bytes(transform.integ_key_octets))
    peer = config.peers[0]
    wrapper = Encapsulator(peer.encapsulation, Mode(mode), ip_address("192.0.2.1"), ip_address("192.0.2.2"))
    next_header, payload = wrapper.encapsulate(LabelStack.push(100).encode(), packet)
    assert path.total == 20 + len(protect(sa, payload, next_header)) == sum(count for _, count in path.octets)
    assert path.next_header == next_header


# --- where it comes in


def test_attachment_is_the_one_that_the_source_is_behind() -> None:
    assert of(TWO_SITES).attachment == "red0"
    assert of(TWO_SITES, ip(source="10.7.0.9")).attachment == "red1"


def test_attachment_must_be_named_when_several_are_possible() -> None:
    with pytest.raises(ExplainError, match="any of red, blue; add --attachment red"):
        of(PLAIN)
    with pytest.raises(ExplainError, match="any of red0, red1"):
        of(TWO_SITES, ip(source="10.99.0.9"))
    with pytest.raises(ExplainError, match="there is no attachment green; there are: red, blue"):
        of(PLAIN, ip(), "green")
    assert of(PLAIN, ip(), "blue").vrf == "blue"


# --- the command


@pytest.fixture
def file(tmp_path: Path) -> str:
    secret = tmp_path / "pe2.psk"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    path = tmp_path / "pe1.toml"
    path.write_text(NATIVE)
    return str(path)


def test_command_prints_text_that_fits_its_width(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", file, ip(dscp=46).hex()]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    for part in (
        "10.1.0.9 to 10.2.0.9, protocol 17, ports 1000 to 53, DSCP ef, TTL 64",
        "1 red/gold: vrf red, dscp cs5 ef -> protect as red/gold",
        "bound at run time, TC 5",
        "mpls-in-ip, next header 137",
        "Tunnel MTU (RFC 4023 5.1)",
    ):
        assert part in text


def test_command_prints_one_json_document(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", file, ip().hex(), "--json", "--attachment", "red0"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["packets"]
    assert (one["outcome"], one["label_class"], one["paths"][0]["total"]) == ("protected", "standard", 160)


@pytest.mark.parametrize(
    "arguments", [["nothing.pcap"], ["zz"], [""], ["00", "--attachment", "green"], ["00", "--unknown"]]
)
def test_wrong_usage_is_exit_2(file: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["explain", file, *arguments])
    except SystemExit as stopped:
        code = int(str(stopped.code))
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_drop_and_bypass_are_rendered_too() -> None:
    assert "dropped: urpf" in render_explanation(of(TWO_SITES, ip(source="10.7.0.9"), "red0"))
    text = rule(TWO_SITES, 'action = "bypass"', vrf='"red"')
    assert "bypassed, leaves by attachment red1" in render_explanation(of(text, ip("10.7.0.9")))


def test_one_packet_has_no_effect_on_the_next() -> None:
    explainer = Explainer(parse(edited(NATIVE, 'urpf    = "strict"', 'urpf = "loose"')))
    first = explainer.explain(GivenPacket(1, ip()))
    assert explainer.explain(GivenPacket(1, ip())) == first
    back = explainer.explain(GivenPacket(2, ip("10.2.0.10", source="10.2.0.9")))
    assert back.reason == "urpf"  # the stand-in for the first one's label is no route
