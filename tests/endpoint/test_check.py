"""`mplsec check` prints the compiled crypto map and, for every peer and class, where each octet goes."""

import json
from dataclasses import asdict

import pytest

from endpoint.check import BudgetRow, check_report, render_check
from tests.endpoint.config_texts import COMPLETE, PLAIN, PLAIN_IP, edited, parse


def budgets(text: str) -> tuple[BudgetRow, ...]:
    return check_report(parse(text)).budgets


def test_every_peer_and_class_has_a_budget_for_each_path() -> None:
    found = [(row.peer, row.vrf, row.class_id, row.underlay, row.is_udp) for row in budgets(COMPLETE)]
    assert found == [
        ("pe2", "red", "gold", "IPv4", False),
        ("pe2", "red", "gold", "IPv4", True),
        ("pe2", "red", "standard", "IPv4", False),
        ("pe2", "red", "standard", "IPv4", True),
    ]


@pytest.mark.parametrize(("udp", "paths"), [("always", [True]), ("never", [False]), ("auto", [False, True])])
def test_paths_are_those_that_the_configuration_allows(udp: str, paths: list[bool]) -> None:
    text = edited(PLAIN_IP, 'selectors = "plain"', f'selectors = "plain"\nudp = "{udp}"')
    assert [row.is_udp for row in budgets(text)] == paths


def test_octets_add_up_to_the_link() -> None:
    for row in (*budgets(COMPLETE), *budgets(PLAIN), *budgets(PLAIN_IP)):
        assert sum(octets for _, octets in row.budget.rows()) == row.budget.link_mtu == 1500


def test_transport_mode_with_one_label_leaves_1442_octets_of_1500() -> None:
    raw, udp = budgets(COMPLETE)[:2]
    # 1500 - 20 outer IP - 8 ESP - 8 IV - 4 label - 2 trailer - 16 ICV; with UDP 8 less
    assert (raw.budget.vrf_mtu, udp.budget.vrf_mtu) == (1442, 1434)


def test_peer_at_any_address_is_budgeted_for_each_of_our_families() -> None:
    text = edited(PLAIN, '["192.0.2.2"]', '["any"]')
    rows = [row for row in budgets(text) if (row.vrf, row.is_udp) == ("blue", False)]
    assert [row.underlay for row in rows] == ["IPv4", "IPv6"]
    assert [row.budget.outer_ip for row in rows] == [20, 40]


def test_inner_header_is_that_of_the_addresses_of_the_vrf() -> None:
    pair = 'addresses = { local = "2001:db8::1", peer = "2001:db8::2" }\nlabels = { local = 103'
    rows = budgets(edited(PLAIN, "labels = { local = 103", pair))
    assert {(row.vrf, row.budget.inner_ip) for row in rows} == {("red", 20), ("blue", 40)}


def test_of_several_proposals_the_one_that_leaves_least_is_shown() -> None:
    text = edited(COMPLETE, '["aes256gcm16"]', '["aes256gcm8", "aes128-aes256-sha256-sha512", "aes256gcm16"]')
    row = budgets(text)[0]
    assert row.esp == "aes128-aes256-sha256-sha512"
    assert (row.budget.iv, row.budget.icv) == (16, 32)


def test_rules_of_ones_own_come_first_and_hidden_ones_are_marked() -> None:
    text = PLAIN + '[[crypto_map]]\nname = "closed"\nvrf = "blue"\naction = "discard"\n'
    rows = check_report(parse(text)).crypto_map
    assert [row.name for row in rows] == ["closed", "red/gold", "red/standard", "blue/0", "last"]
    assert [bool(row.note) for row in rows] == [False, False, False, True, False]
    assert "never reached: rule 1 takes all of it" in " ".join(render_check(parse(text)).split())


def test_attachment_that_takes_more_than_a_peer_carries_is_warned_about() -> None:
    text = edited(COMPLETE, 'mtu = "auto"', "mtu = 1440")
    (sentence,) = check_report(parse(text)).too_large
    assert "mtu = 1440, but peer pe2 carries 1434" in sentence
    assert check_report(parse(edited(COMPLETE, 'mtu = "auto"', "mtu = 1434"))).too_large == ()


def test_report_is_plain_text_that_fits_its_width() -> None:
    text = render_check(parse(COMPLETE))
    assert "\x1b" not in text
    assert max(map(len, (line for line in text.splitlines() if "warning" not in line))) <= 100
    for part in (
        "vrf red, dscp cs5 ef",
        "protect as red/gold",
        "discard",
        "MTU budget toward pe2 for red/gold, red/standard (aes256gcm16)",
        "ESP ICV",
        "Tunnel MTU (RFC 4023 5.1)",
        "warning: pe1.toml:39: peer.pe2.vrf.red.labels",
        "pe1.toml: no errors (VRFs: 1, peers: 1, rules: 3)",
    ):
        assert part in text


def test_report_can_be_a_json_document() -> None:
    document = json.loads(json.dumps(asdict(check_report(parse(COMPLETE)))))
    assert document["budgets"][0]["budget"]["vrf_mtu"] == 1442
    assert document["crypto_map"][0]["action"] == "protect as red/gold"


def test_pools_and_lifetimes_are_told() -> None:
    peer = (
        'encapsulation = "none"\npool = "clients"\nlifetime = { child_rekey_octets = "1G", ike_hard = "off" }'
    )
    text = edited(PLAIN_IP, 'encapsulation = "none"', peer).replace('accept = ["10.2.0.0/24"]\n', "")
    text += '[[pool]]\nname = "clients"\naddresses = ["10.9.0.0/24"]\nfixed = { "boss" = ["10.9.9.9"] }\n'
    report = render_check(parse(text))
    assert "Pool clients: 255 IPv4 addresses for branch, fixed for boss" in report
    assert "1000000000 / 1100000000" in report and "14400 s / no end" in report
