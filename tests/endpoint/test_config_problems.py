"""What each mistake in a configuration is answered with: file, line, key, message and remedy."""

import re
from pathlib import Path

import pytest

from endpoint.config import ConfigError, PskAuthConfig, load_config, parse_config
from tests.endpoint.config_texts import (
    COMPLETE,
    PLAIN,
    PLAIN_IP,
    SECOND_PEER,
    SECRET,
    edited,
    parse,
    problems,
)

# (document, what is replaced, by what, key @ what stands in the line told, part of message, part of remedy);
# without @ it is the last part of the key.
MISTAKES = [
    # the document
    (COMPLETE, 'urpf    = "strict"', 'urpf    = "strict', "", "is not TOML", "toml.io"),
    (COMPLETE, "[[class]]", "[[class", "", "is not TOML", "toml.io"),
    (COMPLETE, "[endpoint]", "[endpoints]", "endpoint", "is missing", "add [endpoint]"),
    (COMPLETE, "[endpoint]", "[endpoints]", "endpoints", "unknown key", 'did you mean "endpoint"?'),
    (COMPLETE, "[[class]]", "[class]", "class", "must be a list in [ ], not a table", "write [[class]]"),
    (COMPLETE, "[[vrf]]", "[[vrfs]]", "peer.pe2.vrf.red.name", 'no VRF "red"', "add it as [[vrf]]"),
    # [endpoint]
    (COMPLETE, 'identity   = "pe1.example"', "", "endpoint.identity @ [endpoint]", "is missing",
     'identity = "pe1.example"'),
    (COMPLETE, '"pe1.example"', "true", "endpoint.identity", "must be text in quotes, not true or false", ""),
    (COMPLETE, '"pe1.example"', '"pe1 example"', "endpoint.identity", "is no identity", "user@domain"),
    (COMPLETE, '["192.0.2.1"]', '["192.0.2.256"]', "endpoint.addresses", "is no IPv4 or IPv6 address", ""),
    (COMPLETE, '["192.0.2.1"]', '["any"]', "endpoint.addresses", "is no IPv4 or IPv6 address", ""),
    (COMPLETE, '["192.0.2.1"]', '["0.0.0.0"]', "endpoint.addresses", "not the address of one host", ""),
    (COMPLETE, '["192.0.2.1"]', "[]", "endpoint.addresses", "is an empty list", ""),
    (COMPLETE, '["192.0.2.1"]', '"192.0.2.1"', "endpoint.addresses", "must be a list in [ ]", ""),
    (COMPLETE, '["192.0.2.1"]', '["192.0.2.1", "192.0.2.1"]', "endpoint.addresses", "stands twice", ""),
    (COMPLETE, '{ netns = "internet" }', "{ }", "endpoint.front_door", "has none of netns, device",
     "exactly one"),
    (COMPLETE, '"internet" }', '"a", mark = 1 }', "endpoint.front_door", "has several of", "exactly one"),
    (COMPLETE, '"internet" }', '"../x" }', "endpoint.front_door.netns", "is no namespace", "ip netns"),
    (COMPLETE, "state_dir  =", "nat_port =", "endpoint.nat_port", "must be a whole number, not text", ""),
    (COMPLETE, "state_dir  =", "nat_port = 0 #", "endpoint.nat_port", "0 is out of range", "use 1 to 65535"),
    (COMPLETE, "state_dir  =", "nat_port = true #", "endpoint.nat_port", "not true or false",
     "a whole number"),
    (COMPLETE, "state_dir  =", "window = 0 #", "endpoint.window", "0 is out of range", "use 1 to 64"),
    (COMPLETE, "state_dir  =", "ike_port = 4500 #", "endpoint.ike_port", "same as nat_port", "ike_port = 0"),
    (COMPLETE, "state_dir  =", "label_range = [5, 100] #", "endpoint.label_range", "5 is no MPLS label",
     "16 to"),
    (COMPLETE, "state_dir  =", "label_range = [90, 80] #", "endpoint.label_range", "higher", "[80, 90]"),
    (COMPLETE, "state_dir  =", "label_range = [16] #", "endpoint.label_range", "two labels", "[100000, "),
    (COMPLETE, "state_dir  =", "state_dri =", "endpoint.state_dri", "unknown key",
     'did you mean "state_dir"?'),
    # [[vrf]]
    (COMPLETE, 'name    = "red"\nid', "id", "vrf[1].name @ [[vrf]]", "is missing", "add name"),
    (COMPLETE, '= "red"\nid', '= "r d"\nid', "vrf.r d.name", "is no name", "A-Z"),
    (COMPLETE, 'id      = "name:red"', 'id = "rd:1"', "vrf.red.id", "is no VRF id", "rd:65000:100"),
    (COMPLETE, 'urpf    = "strict"', 'urpf = "strickt"', "vrf.red.urpf", "unknown value", 'mean "strict"?'),
    (COMPLETE, "tun = ", "tunn = ", "vrf.red.attach[1].tunn", "unknown key", 'did you mean "tun"?'),
    (COMPLETE, "tun = ", "tunn = ", "vrf.red.attach[1]", "has none of tun", "exactly one"),
    (PLAIN, '{ memory = "red" }', '{ memory = "red", netns = "x" }', "vrf.red.attach[1].netns", "means nothing",
     "leave it away"),
    (COMPLETE, '"red0"', '"a/b"', "vrf.red.attach[1].tun", "is no interface name", "15"),
    (COMPLETE, "10.1.0.1/24", "10.1.0.1", "vrf.red.attach[1].address", "no prefix length", "10.1.0.1/24"),
    (COMPLETE, 'mtu = "auto"', "mtu = 100", "vrf.red.attach[1].mtu", "100 is no MTU", '"auto"'),
    (COMPLETE, "10.1.0.0/24", "10.1.0.7/24", "vrf.red.announce", "has bits beyond its length",
     '"10.1.0.0/24"'),
    (COMPLETE, "10.1.0.0/24", "fe80::%1/64", "vrf.red.announce", "names a scope", "leave"),
    (COMPLETE, "10.1.0.0/24", "10.1.0.0/33", "vrf.red.announce", "is no prefix", ""),
    (PLAIN, 'name = "blue"\nattach', 'name = "red"\nattach', "vrf.red.name", "in line 5 already",
     "another name"),
    (PLAIN, '"blue"\nattach', '"blue"\nid = "name:red"\nattach', "vrf.blue.id", 'id "name:red"', "one VRF"),
    (PLAIN, 'memory = "blue"', 'memory = "red"', "vrf.blue.attach[1]", "in line 7 already", "one VRF"),
    (PLAIN, 'classes = ["gold", "standard"]', "classes = []", "vrf.red.classes", "is an empty list", ""),
    (PLAIN, '["gold", "standard"]', '["gold", true]', "vrf.red.classes", "must be text in quotes", ""),
    (PLAIN, '["gold", "standard"]', "[65536]", "vrf.red.classes", "65536 is no class", "0 to 65535"),
    # [[class]]
    (COMPLETE, '"ef", "cs5"', '"ef", "cs9"', "class.gold.dscp", 'unknown DSCP "cs9"', "did you mean"),
    (COMPLETE, '"ef", "cs5"', '"ef", 64', "class.gold.dscp", "64 is out of range", "0 to 63"),
    (COMPLETE, "[5, 6, 7]", "[5, true]", "class.gold.tc", "True is no traffic class", "0 to 7"),
    (COMPLETE, "[5, 6, 7]", "[]", "class.gold.tc", "is an empty list", ""),
    (COMPLETE, '= "ef"\n', '= "copied"\n', "class.gold.outer_dscp", "unknown DSCP", ""),
    # [[peer]]
    (COMPLETE, '["aes256gcm16"]', '["aes256gmc16"]', "peer.pe2.esp", "aes256gmc16", "aes256gcm16"),
    (COMPLETE, '["aes256gcm16"]', "[20]", "peer.pe2.esp", "must be text in quotes, not a whole number", ""),
    (COMPLETE, "-x25519", "-x25518", "peer.pe2.ike", "x25518", "x25519"),
    (COMPLETE, '["aes256gcm16"]', '["aes256gcm16-md5"]', "peer.pe2.esp", "too weak", '"aes256gcm16"'),
    (COMPLETE, "-x25519", "", "peer.pe2.ike", "no key exchange", "write it like"),
    (COMPLETE, 'addresses = ["192.0.2.2"]', "", "peer.pe2.addresses @ [[peer]]", "are missing", '["any"]'),
    (COMPLETE, '"native"', '"nativ"', "peer.pe2.selectors", "unknown value", 'did you mean "native"?'),
    (COMPLETE, '"transport"', '"transprt"', "peer.pe2.mode", "unknown value", 'did you mean "transport"?'),
    (COMPLETE, '"mpls-in-ip"', '"mpls-in-gree"', "peer.pe2.encapsulation", "unknown", '"mpls-in-gre"'),
    (COMPLETE, "psk_file", "psk", "peer.pe2.auth.psk", "does not belong into a configuration", "psk_file"),
    (COMPLETE, "psk_file", "certificate", "peer.pe2.auth.certificate", "no certificates in PEM", "openssl"),
    (COMPLETE, "psk_file", "psk_fiel", "peer.pe2.auth.psk_fiel", "unknown key", 'did you mean "psk_file"?'),
    (COMPLETE, 'psk_file = "pe2.psk"', "", "peer.pe2.auth.psk_file @ auth", "is missing", "psk_file ="),
    (COMPLETE, '"pe2.psk"', '""', "peer.pe2.auth.psk_file", "is empty", "leave it away"),
    (COMPLETE, '"pe2.psk"', '"pe3.psk"', "peer.pe2.auth.psk_file", 'no secret "pe3.psk"', "secrets="),
    (COMPLETE, 'auth      = { psk_file = "pe2.psk" }', "", "peer.pe2.auth @ [[peer]]", "is missing",
     "psk_file"),
    (COMPLETE, '["192.0.2.2"]', '["any", "192.0.2.2"]', "peer.pe2.addresses", "beside other", '["any"]'),
    (COMPLETE, '["192.0.2.2"]', '["2001:db8::2"]', "peer.pe2.addresses", "cannot be reached", "add one"),
    (COMPLETE, 'start     = "traffic"', "strict_child = 1", "peer.pe2.strict_child",
     "must be true or false", ""),
    (COMPLETE, 'start     = "traffic"', "strict_child = true", "peer.pe2.strict_child", "seclabel",
     "leave it"),
    (COMPLETE, 'start     = "traffic"', "link_mtu = 100", "peer.pe2.link_mtu", "out of range", "576"),
    (COMPLETE, 'start     = "traffic"', "dummies = { per_s = 1001 }", "peer.pe2.dummies.per_s", "out of range",
     "1000"),
    (COMPLETE, 'start     = "traffic"', 'dummies = { when = "never" }', "peer.pe2.dummies.when", "unknown value",
     '"idle"'),
    (COMPLETE, "[endpoint]", '[endpoint]\nflow_label = "sa"', "endpoint.flow_label", "none of addresses", "leave it"),
    (COMPLETE, 'start     = "traffic"', "tfc = 0", "peer.pe2.tfc", "no size to pad to", '"off"'),
    (COMPLETE, 'start     = "traffic"', "replay_window = 63", "peer.pe2.replay_window", "no replay window",
     "64 to 4096"),
    (COMPLETE, 'start     = "traffic"', "replay_window = 0", "peer.pe2.replay_window", "no replay window", '"off"'),
    (COMPLETE, 'esp       = ["aes256gcm16"]', 'replay_window = "off"\nesp = ["aes256gcm16-esn-noesn"]',
     "peer.pe2.replay_window", "cannot do without a window", "esn out of esp"),
    (COMPLETE, 'start     = "traffic"', 'tfc = "mtu"', "peer.pe2.tfc", "does not say where it ends",
     'mode = "tunnel"'),
    (COMPLETE, 'start     = "traffic"', "fragment_size = 500", "peer.pe2.fragment_size", "out of range", "576"),
    (COMPLETE, 'start     = "traffic"', 'fragmentation = "yes"', "peer.pe2.fragmentation",
     "must be true or false", ""),
    (COMPLETE, 'start     = "traffic"', "retransmit_tries = 1", "peer.pe2.retransmit_tries", "out of range", "2"),
    (COMPLETE, 'start     = "traffic"', "liveness = 'soon'", "peer.pe2.liveness", "is no duration", '"90s"'),
    (COMPLETE, 'start     = "traffic"', "lifetime = { child_rekey = 60, child_hard = 60 }",
     "peer.pe2.lifetime.child_hard", "before the rekey", "longer than child_rekey"),
    (COMPLETE, 'start     = "traffic"',
     'lifetime = { child_rekey_octets = "1M", child_hard_octets = "1000k" }',
     "peer.pe2.lifetime.child_hard_octets", "before the rekey", "more than 1000000"),
    (COMPLETE, 'start     = "traffic"', "lifetime = { child_rekey_packets = 5 }",
     "peer.pe2.lifetime.child_rekey_packets", "out of range", "100"),
    (COMPLETE, 'start     = "traffic"', 'lifetime = { child_rekey_octets = "5 GB" }',
     "peer.pe2.lifetime.child_rekey_octets", "is no number of octets", "k, M, G"),
    (PLAIN_IP, 'mode = "tunnel"', 'mode = "tunnel"\nstart = "boot"', "peer.branch.start", "no address",
     '"none"'),
    (PLAIN, '["192.0.2.2"]', '["2001:db8::2"]\nlink_mtu = 1000', "peer.pe2.link_mtu", "1280", "1280"),
    # [[peer.vrf]]
    (COMPLETE, 'peer_id = "name:red"', 'peer_id = "red"', "peer.pe2.vrf.red.peer_id", "is no VRF id", "rd:"),
    (COMPLETE, 'name:red"\n  classes = ["gold", "standard"]', 'name:red"\n  classes = ["glod"]',
     "peer.pe2.vrf.red.classes", 'has no class "glod"', 'did you mean "gold"?'),
    (COMPLETE, '"10.2.0.0/16"', '"10.1.0.0/24"', "peer.pe2.vrf.red.accept", "announced by us", "ours or the"),
    (PLAIN, 'name = "blue"\naccept', 'name = "red"\naccept', "peer.pe2.vrf.red.name", "in line 25 already",
     "one [[peer.vrf]]"),
    (PLAIN, 'name = "blue"\naccept', 'name = "blue"\npeer_id = "name:red"\naccept',
     "peer.pe2.vrf.blue.peer_id", 'names VRF "red" already', "one VRF"),
    (PLAIN, "local = 103", "local = 101", "peer.pe2.vrf.blue.labels.local", "in line 28 already",
     "belongs to"),
    (PLAIN, "peer = 203", "peer = 201", "peer.pe2.vrf.blue.labels.peer", 'into VRF "red"', "this VRF"),
    (PLAIN, "local = 103", "local = 3", "peer.pe2.vrf.blue.labels.local", "3 is no MPLS label", "16 to"),
    (PLAIN, "local = 103", "local = 150000", "peer.pe2.vrf.blue.labels.local", "range", "100000-199999"),
    (PLAIN, "local = 103, ", "", "peer.pe2.vrf.blue.labels.local @ labels", "is missing", "local = 101"),
    (PLAIN, "labels = { local = 103, peer = 203 }", "", "peer.pe2.vrf.blue.labels @ [[peer.vrf]]",
     "are missing for 0", "101"),
    (PLAIN, "standard = { local", "standart = { local", "peer.pe2.vrf.red.labels.standart", "is not one",
     "stand"),
    (PLAIN, 'gold = { local = 101, peer = 201, routes = ["10.2',
     'gold = { local = 101, peer = 201, routes = ["10.9', "peer.pe2.vrf.red.labels",
     "outside of what accept allows", "widen"),
    (PLAIN, 'selectors = "plain"', 'selectors = "native-or-plain"\nstrict_child = true',
     "peer.pe2.strict_child", "seclabel", "leave it away"),
    (PLAIN, "peer = 203 }", 'peer = 203 }\naddresses = { local = "192.0.2.1" }',
     "peer.pe2.vrf.blue.addresses.peer @ addresses", "is missing", "192.0.2.2"),
    (PLAIN, "peer = 203 }", 'peer = 203 }\naddresses = { local = "192.0.2.1", peer = "2001:db8::2" }',
     "peer.pe2.vrf.blue.addresses.peer", "another IP version", "two IPv4"),
    # encapsulation = "none"
    (PLAIN_IP, '"plain"', '"native"', "peer.branch.selectors", "does not go with", '"plain"'),
    (PLAIN_IP, '"tunnel"', '"transport"', "peer.branch.vrf.office.accept", "no address of the peer", '"tunnel"'),
    (PLAIN_IP, 'accept = ["10.2.0.0/24"]', "", "peer.branch.vrf.office.accept @ [[peer.vrf]]", "is empty",
     "add"),
    (PLAIN_IP, 'announce = ["10.1.0.0/24"]', "", "peer.branch.vrf.office.name", "no announce",
     "add announce"),
    (PLAIN_IP, "accept = [", "labels = { local = 16, peer = 16 }\naccept = [",
     "peer.branch.vrf.office.labels", "means nothing", "leave it"),
    (PLAIN_IP, 'name = "office"\nattach', 'name = "office"\nclasses = ["a", "b"]\nattach',
     "peer.branch.vrf.office.classes @ [[peer.vrf]]", "cannot be told apart", "classes ="),
    # [[crypto_map]], behind everything else
    (PLAIN, "", '[[crypto_map]]\nvrf = "red"', "crypto_map[1].action @ crypto_map", "is missing", "protect"),
    (PLAIN, "", '[[crypto_map]]\naction = "protect"', "crypto_map[1].action", "needs a VRF", "add vrf"),
    (PLAIN, "", '[[crypto_map]]\naction = "discard"\nvrf = "rde"', "crypto_map[1].vrf", "no vrf", '"red"?'),
    (PLAIN, "", '[[crypto_map]]\naction = "protect"\nvrf = "red"', "crypto_map[1].class @ crypto_map",
     "has several", "gold, standard"),
    (PLAIN, "", '[[crypto_map]]\naction = "protect"\nvrf = "red"\nclass = "glod"', "crypto_map[1].class",
     'no class "glod"', '"gold"?'),
    (PLAIN, "", '[[crypto_map]]\naction = "protect"\nvrf = "red"\nattachment = "blue"', "crypto_map[1].vrf",
     'belongs to VRF "blue"', 'vrf = "blue"'),
    (PLAIN + SECOND_PEER, "", '[[crypto_map]]\naction = "protect"\nvrf = "blue"\npeer = "pe3"',
     "crypto_map[1].peer", "may not use VRF", "[[peer.vrf]]"),
    (PLAIN, "", '[[crypto_map]]\naction = "discard"\nclass = "gold"', "crypto_map[1].class", "means nothing",
     "leave"),
    (PLAIN, "", '[[crypto_map]]\naction = "discard"\nports = 53', "crypto_map[1].ports", "need a protocol",
     "add protocol"),
    (PLAIN, "", '[[crypto_map]]\naction = "discard"\nports = "9-3"\nprotocol = 6', "crypto_map[1].ports",
     "is no port range", "lower one first"),
    (PLAIN, "", '[[crypto_map]]\naction = "discard"\nlabels = []', "crypto_map[1].labels", "empty list", ""),
    (PLAIN, "", '[[crypto_map]]\naction = "discard"\nlabels = ["1-x"]', "crypto_map[1].labels", "is no label",
     "1000-1999"),
    (PLAIN, "", '[[crypto_map]]\naction = "discard"\nprotocol = "tpc"', "crypto_map[1].protocol", "unknown",
     '"tcp"?'),
    (PLAIN, "", '[[crypto_map]]\naction = "discard"\ndepth = 0', "crypto_map[1].depth", "out of range", ""),
]  # fmt: skip


@pytest.mark.parametrize(("document", "old", "new", "key_at", "message", "remedy"), MISTAKES)
def test_mistake_is_named_with_its_line_and_remedy(
    document: str, old: str, new: str, key_at: str, message: str, remedy: str
) -> None:
    text = edited(document, old, new) if old else document + new
    key, _, where = key_at.partition(" @ ")
    found = problems(text)
    fitting = [one for one in found if one.key == key and message in one.message and remedy in one.remedy]
    assert fitting, "\n".join(map(str, found))
    line = fitting[0].line
    assert (where or re.sub(r".*[.]|\[[0-9]+\]", "", key)) in text.splitlines()[line - 1]
    assert str(fitting[0]).startswith(f"pe1.toml:{line}: {key}")
    assert fitting[0].remedy


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = COMPLETE
    for old, new in (
        ('"192.0.2.1"', '"192.0.2.300"'),
        ('"strict"', '"strikt"'),
        ("[5, 6, 7]", "[8]"),
        ('["aes256gcm16"]', '["aes256gmc16"]'),
        ('"10.2.0.0/16"', '"10.2.0.0"'),
    ):
        text = edited(text, old, new)
    text += '[surprise]\nx = "\\u001b[31m\\u202e"\n'
    told = [(one.line, one.key) for one in problems(text)]
    assert told == [
        (3, "endpoint.addresses"),
        (11, "vrf.red.urpf"),
        (18, "class.gold.tc"),
        (27, "peer.pe2.esp"),
        (40, "surprise"),
    ]


def test_error_prints_one_problem_a_line() -> None:
    text = edited(edited(COMPLETE, '["aes256gcm16"]', '["aes256gmc16"]'), "[5, 6, 7]", "[8]")
    with pytest.raises(ConfigError) as raised:
        parse(text)
    assert str(raised.value).splitlines() == [
        "pe1.toml:18: class.gold.tc: 8 is no traffic class; remedy: "
        "use 0 to 7 (the TC of a label entry, RFC 5462)",
        'pe1.toml:27: peer.pe2.esp: "aes256gmc16": unknown word "aes256gmc16"; remedy: '
        'did you mean "aes256gcm16"?',
    ]


def test_message_shows_no_control_characters() -> None:
    (problem,) = problems(edited(COMPLETE, '"strict"', '"\\u001b[2J\\n\\u202estrict"'))
    assert str(problem).isprintable()
    assert "\\x1b[2J\\n\\u202e" in problem.message


def test_what_is_missing_is_told_once() -> None:
    for line in (
        'identity   = "pe1.example"',
        'addresses  = ["192.0.2.1"]',
        'auth      = { psk_file = "pe2.psk" }',
    ):
        assert len(problems(edited(COMPLETE, line, ""))) == 1


def test_seclabel_wants_names_that_fit_into_a_label() -> None:
    text = PLAIN.replace('"plain"', '"seclabel"')
    assert parse(text)
    by_number = edited(text, 'name = "blue"\naccept', 'name = "blue"\npeer_id = "rd:65000:1"\naccept')
    (problem,) = problems(by_number)
    assert (problem.key, '"rd:65000:1" gives no such name' in problem.message) == (
        "peer.pe2.vrf.blue.peer_id",
        True,
    )
    (problem,) = problems(text.replace('"gold"', '"go:ld"').replace("\ngold =", '\n"go:ld" ='))
    assert problem.key == "peer.pe2.vrf.red.classes"


def test_native_or_plain_needs_the_labels_that_plain_needs() -> None:
    text = edited(PLAIN, '"plain"', '"native-or-plain"')
    assert parse(text).peers[0].vrfs[0].labels
    (problem,) = problems(edited(text, "labels = { local = 103, peer = 203 }", ""))
    assert problem.key == "peer.pe2.vrf.blue.labels"


def test_transport_mode_has_one_address_pair_for_each_ike_sa() -> None:
    pair = 'peer = 203 }\naddresses = { local = "192.0.2.1", peer = "192.0.2.2" }'
    tunnel = edited(PLAIN, "peer = 203 }", pair)
    assert parse(tunnel)
    told = problems(edited(tunnel, '"tunnel"', '"transport"'))
    assert [one.key for one in told] == ["peer.pe2.vrf"]
    assert "one [[peer]] for each pair" in told[0].remedy
    alone = SECOND_PEER.replace(
        "accept", 'addresses = { local = "192.0.2.9", peer = "192.0.2.8" }\naccept'
    ).replace("[[peer.vrf]]", 'selectors = "plain"\n[[peer.vrf]]')
    labels = "labels = { gold = { local = 1001, peer = 301 }, standard = { local = 1002, peer = 302 } }\n"
    keys = [one.key for one in problems(COMPLETE + alone + labels)]
    assert keys == ["peer.pe3.vrf.red.addresses.local", "peer.pe3.vrf.red.addresses.peer"]


def test_native_peer_has_no_addresses_for_a_vrf() -> None:
    text = COMPLETE + 'addresses = { local = "192.0.2.1", peer = "192.0.2.2" }\n'
    (problem,) = problems(text)
    assert problem.key == "peer.pe2.vrf.red.addresses"


def test_own_id_of_a_shared_vrf_names_no_other_vrf_toward_a_peer() -> None:
    text = edited(COMPLETE, "[[class]]", '[[vrf]]\nname = "blue"\n[[class]]')
    text += '[[peer.vrf]]\nname = "blue"\npeer_id = "name:red"\n'
    (problem,) = problems(text)
    assert problem.key == "peer.pe2.vrf.blue.peer_id"
    # Toward another identity the same id may name another VRF.
    text = edited(COMPLETE, "[[class]]", '[[vrf]]\nname = "blue"\n[[class]]')
    assert parse(text + edited(SECOND_PEER, 'name = "red"', 'name = "blue"\npeer_id = "name:red"'))


def test_fixed_route_leads_to_one_peer() -> None:
    other = SECOND_PEER.replace("[[peer.vrf]]", 'selectors = "plain"\n[[peer.vrf]]').replace(
        'name = "red"\naccept = ["10.3.0.0/16"]',
        'name = "red"\nclasses = ["gold"]\nlabels = { local = 999, peer = 998, routes = ["10.2.0.0/24"] }',
    )
    (problem,) = problems(PLAIN + other)
    assert (problem.key, problem.message) == (
        "peer.pe3.vrf.red.labels",
        'the route 10.2.0.0/24 of VRF "red" stands in line 27 already',
    )


def test_prefix_of_plain_ip_leads_to_one_peer() -> None:
    second = PLAIN_IP[PLAIN_IP.index("[[peer]]") :].replace('"branch', '"other')
    (problem,) = problems(PLAIN_IP + second)
    assert (problem.key, problem.message) == (
        "peer.other.vrf.office.accept",
        'the prefix 10.2.0.0/24 of VRF "office" stands in line 18 already',
    )


def test_missing_labels_are_asked_for_in_the_form_that_fits() -> None:
    (several,) = problems(PLAIN.replace("[peer.vrf.labels]\ngold", "[peer.vrf.labels]\n# gold"))
    assert several.message.startswith("are missing for gold")
    assert several.remedy == ("add labels = { gold = { local = 101, peer = 102, routes = [ … ] }, … }")
    (one,) = problems(edited(PLAIN, "labels = { local = 103, peer = 203 }", ""))
    assert one.remedy == "add labels = { local = 101, peer = 102, routes = [ … ] }"


def test_what_is_probably_not_meant_is_a_warning() -> None:
    def warnings(text: str) -> list[str]:
        return [f"{one.key}: {one.message}" for one in parse(text).warnings]

    assert warnings(PLAIN) == []
    assert warnings(PLAIN.replace('dscp = ["ef"]', "tc = [5]")) == [
        'vrf.red.classes: class "standard" is never chosen: "gold" before it matches all'
    ]
    assert warnings(edited(PLAIN, '[[class]]\nname = "gold"', '[[class]]\nname = "glod"')) == [
        'vrf.red.classes: class "standard" is never chosen: "gold" before it matches all',
        'class.glod.name: no VRF has the class "glod"',
    ]
    assert warnings(edited(PLAIN, "[[peer]]", '[[class]]\nname = "standard"\ndscp = ["ef"]\n[[peer]]')) == [
        'vrf.red.classes: DSCP 46 selects "gold", so never "standard"',
        'vrf.red.classes: packets of VRF "red" with another DSCP than its classes select are dropped',
    ]
    assert warnings(
        edited(PLAIN + SECOND_PEER, '[[peer.vrf]]\nname = "red"\naccept = ["10.3.0.0/16"]\n', "")
    ) == ["peer.pe3: the peer may use no VRF"]
    assert warnings(edited(PLAIN + SECOND_PEER, 'accept = ["10.3.0.0/16"]\n', "")) == [
        "peer.pe3.vrf.red: the peer may announce no prefix, so nothing can be sent to it"
    ]
    assert warnings(edited(PLAIN, 'attach = [{ memory = "blue" }]', "")) == [
        "vrf.blue: the VRF has no attachment: no customer packet can enter or leave it"
    ]


def test_number_of_thousands_of_digits_and_deep_nesting_are_answered() -> None:
    assert "is not TOML" in problems("x = " + "9" * 5000)[0].message
    huge = problems(edited(COMPLETE, 'start     = "traffic"', f"port = 0x{'f' * 9000}"))
    assert huge[0].message == "a number of that size is out of range"
    assert problems("x = " + "[" * 5000)[0].message == "is nested too deeply"


def test_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    missing = tmp_path / "pe.toml"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(missing)
    missing.write_bytes(b"# \n[endpoint]\nidentity = '\xff'")
    with pytest.raises(ConfigError, match=r"pe.toml:3: is not UTF-8 text"):
        load_config(missing)


def test_short_secret_is_warned_about() -> None:
    config = parse_config(COMPLETE, "pe1.toml", secrets={"pe2.psk": b"secret\n"})
    assert config.peers[0].auth == PskAuthConfig(b"secret")
    assert any("the secret is short" in one.message for one in config.warnings)
    assert not any("secret" in one.message for one in parse(COMPLETE).warnings)
    assert SECRET[2:].decode() not in repr(parse(COMPLETE))
    assert "xab" not in repr(parse(COMPLETE))
