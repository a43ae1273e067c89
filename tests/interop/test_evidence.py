"""Each case's check on kept evidence: passes on its own, fails on the others' and on what was changed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest

from interop import golden
from interop.capture import Field, Packet
from interop.cases import CASES
from interop.cases.case import Case, CheckError, Evidence
from interop.wire import child_negotiations, esp_packets, ike_messages, in_clear

KEPT = [case for case in CASES if case.name in golden.kept()]
EVIDENCE = {case.name: golden.read(case.name) for case in KEPT}
BY_NAME = {case.name: case for case in CASES}
RAW_137 = "linux-pe-mpls-in-ip-raw-initiator"
UDP_47 = "linux-pe-mpls-in-gre-udp-responder"
TWO_CLASSES = "strongswan-seclabel-initiator"
WRONG_LABEL = "strongswan-wrong-label-initiator"


@pytest.mark.parametrize("case", KEPT, ids=lambda case: case.name)
def test_check_passes_on_its_own_evidence(case: Case) -> None:
    assert case.check(EVIDENCE[case.name])


@pytest.mark.parametrize(
    ("case", "other"),
    [(case, other.name) for case, other in itertools.permutations(KEPT, 2) if case.must_refuse(other)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_check_fails_on_the_evidence_of_another_case(case: Case, other: str) -> None:
    with pytest.raises(CheckError):
        case.check(EVIDENCE[other])


def test_check_fails_without_packets() -> None:
    for case in CASES:
        with pytest.raises(CheckError):
            case.check(Evidence([], EVIDENCE[RAW_137].facts))


def replace_field(packets: list[Packet], layer: str, name: str, show: str) -> list[Packet]:
    """The same packets with one field of one kind of layer changed in the last ESP packet."""

    def changed(field: Field) -> Field:
        inner = tuple(changed(one) for one in field.inner)
        return dataclasses.replace(field, show=show if field.name == name else field.show, inner=inner)

    index = max(index for index, packet in enumerate(packets) if "esp" in packet.stack)
    layers = tuple(changed(one) if one.name == layer else one for one in packets[index].layers)
    return [*packets[:index], dataclasses.replace(packets[index], layers=layers), *packets[index + 1 :]]


@pytest.mark.parametrize(
    ("layer", "name", "show"),
    [
        ("esp", "esp.protocol", "0x2f"),
        ("mpls", "mpls.label", "103"),
        ("mpls", "mpls.bottom", "0"),
        ("icmp", "icmp.type", "3"),
        ("ip", "ip.src", "198.51.100.7"),
        ("esp", "esp.spi", "0x00000999"),
    ],
)
def test_one_changed_field_fails_the_check(layer: str, name: str, show: str) -> None:
    evidence = EVIDENCE[RAW_137]
    packets = replace_field(evidence.packets, layer, name, show)
    with pytest.raises(CheckError):
        BY_NAME[RAW_137].check(Evidence(packets, evidence.facts))


def test_ping_in_clear_fails_the_check() -> None:
    evidence = EVIDENCE[RAW_137]
    esp = next(packet for packet in evidence.packets if "esp" in packet.stack)
    bare = dataclasses.replace(esp, layers=tuple(one for one in esp.layers if one.name != "esp"))
    assert in_clear([bare]) == [bare]
    assert in_clear([esp]) == []
    with pytest.raises(CheckError, match="in clear"):
        BY_NAME[RAW_137].check(Evidence([*evidence.packets, bare], evidence.facts))


def test_undecrypted_esp_fails_the_check() -> None:
    evidence = EVIDENCE[RAW_137]
    packets = replace_field(evidence.packets, "esp", "esp.protocol", "")
    with pytest.raises(CheckError, match="do not open"):
        BY_NAME[RAW_137].check(Evidence(packets, evidence.facts))


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("keys_agree", False),
        ("answers_to_us", 2),
        ("answers_to_peer", 0),
        ("kernel_errors", {"XfrmInTmplMismatch": 1}),
        ("kernel_sas", []),
    ],
)
def test_one_changed_fact_fails_the_check(fact: str, value: object) -> None:
    evidence = EVIDENCE[RAW_137]
    with pytest.raises(CheckError):
        BY_NAME[RAW_137].check(Evidence(evidence.packets, evidence.facts | {fact: value}))


def test_esp_view_of_mpls_in_ip() -> None:
    first = esp_packets(EVIDENCE[RAW_137].packets)[0]
    assert (first.next_header, first.is_udp_encapsulated) == (137, False)
    assert first.layers == ("mpls", "ip", "icmp")
    assert first.labels == [(102, 1)]
    assert first.ping is not None
    assert first.ping[:3] == (8, "10.1.0.1", "10.2.0.2")


def test_esp_view_of_mpls_in_gre_over_udp() -> None:
    first = esp_packets(EVIDENCE[UDP_47].packets)[0]
    assert (first.next_header, first.is_udp_encapsulated, first.gre_protocol) == (47, True, 0x8847)


def test_security_labels_are_read_without_the_trailing_zero() -> None:
    children = child_negotiations(EVIDENCE[TWO_CLASSES].packets)
    accepted = [child.labels for child in children if child.is_accepted]
    assert {"mpls:vrf=red;class=gold"} in accepted
    assert {"mpls:vrf=red;class=standard"} in accepted


def test_refused_child_shows_the_label_that_was_asked_for() -> None:
    children = child_negotiations(EVIDENCE[WRONG_LABEL].packets)
    refused = [child for child in children if not child.is_accepted]
    assert [child.labels for child in refused] == [{"mpls:vrf=red;class=silver"}]
    assert 38 in refused[0].response.notifies


def test_payloads_inside_sk_are_seen() -> None:
    messages = ike_messages(EVIDENCE[RAW_137].packets)
    auth = next(message for message in messages if message.exchange == 35 and not message.is_response)
    assert {46, 35, 39} <= {payload.type for payload in auth.payloads}


def _names(take: Callable[[Case], str]) -> list[str]:
    return [take(case) for case in CASES]


def test_case_names_are_unique_and_each_feature_is_seen_in_both_roles() -> None:
    assert len(set(_names(lambda case: case.name))) == len(CASES)
    # tshark decodes, it has no role of its own; the scripts play both in one case; without IKE there is none; clients
    # of a wildcard entry are only answered
    features = {
        case.feature
        for case in CASES
        if case.peer != "tshark"
        and not case.name.startswith(("scripts-", "linux-esp-", "strongswan-two-clients-"))
    }
    for feature in features:
        assert {case.role for case in CASES if case.feature == feature} == {"initiator", "responder"}
