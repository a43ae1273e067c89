"""VRF ids and classes (WIRE 3.1; RFC 4364 4.2, RFC 2685 4)."""

import hashlib
from typing import Any

import pytest

from mpls.identifiers import IdentifierError, VrfId, check_class, parse_class


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("rd:65000:100", "0000fde800000064"),
        ("rd:0:0", "0000000000000000"),
        ("rd:65535:4294967295", "0000ffffffffffff"),
        ("rd:192.0.2.1:7", "0001c00002010007"),
        ("rd:65536:7", "0002000100000007"),
        ("rd:4294967295:65535", "0002ffffffffffff"),
        ("vpn-id:00005e:7", "00005e00000007"),
        ("vpn-id:FFFFFF:4294967295", "ffffffffffffff"),
    ],
)
def test_id_in_text_and_its_octets(text: str, octets: str) -> None:
    vrf = VrfId.parse_text(text)
    assert vrf.octets.hex() == octets
    assert vrf.text() == text.lower()


def test_name_is_a_hash_that_does_not_tell_the_name() -> None:
    vrf = VrfId.parse_text("name:blue")
    assert vrf == VrfId(2, hashlib.sha256(b"vrf-name-v1\x00blue").digest())
    assert vrf.text() == "name:#" + vrf.octets.hex()
    with pytest.raises(IdentifierError):
        VrfId.parse_text(vrf.text())


def test_rd_of_an_unknown_type_is_an_id_all_the_same() -> None:
    assert VrfId(0, bytes.fromhex("0007000000000001")).text() == "rd:#0007000000000001"


def test_route_distinguishers_of_two_types_differ_though_their_numbers_are_equal() -> None:
    type_0, type_2 = VrfId.parse_text("rd:100:1"), VrfId(0, bytes.fromhex("0002000000640001"))
    assert type_2.text() == type_0.text()
    assert type_0 != type_2


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "red",
            "rd:",
            "rd:1",
            "rd:1:",
            "rd::1",
            "rd:1:2:3",
            "rd:-1:1",
            "rd: 1:1",
            "rd:1:4294967296",
            "rd:x:1",
        ),
        *(
            "rd:65536:65536",
            "rd:4294967296:1",
            "rd:192.0.2.1:65536",
            "rd:192.0.2:1",
            "rd:192.0.2.256:1",
            "rd:１:1",
        ),
        *(
            "vpn-id:",
            "vpn-id:00005e",
            "vpn-id:5e:7",
            "vpn-id:00005g:7",
            "vpn-id:00005e:4294967296",
            "VPN-ID:00005e:7",
        ),
        *("name:", "name:a b", "name:" + "x" * 65, "name:é", "name:a\n", "other:1:2"),
    ],
)
def test_text_that_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(IdentifierError):
        VrfId.parse_text(text)


@pytest.mark.parametrize(
    ("kind", "octets"),
    [
        (3, bytes(8)),
        (True, bytes(7)),
        (0, bytes(7)),
        (1, bytes(8)),
        (2, bytes(31)),
        (0, bytearray(8)),
        (0, "0" * 8),
    ],
)
def test_value_that_is_no_id_is_refused(kind: Any, octets: Any) -> None:
    with pytest.raises(IdentifierError):
        VrfId(kind, octets)


def test_digits_are_the_number_and_all_else_is_a_name() -> None:
    assert parse_class("7") == 7
    assert parse_class("0") == 0
    assert parse_class("65535") == 65535
    assert parse_class("7a") == "7a"
    assert parse_class("gold.1:a_b-c") == "gold.1:a_b-c"


@pytest.mark.parametrize("text", ["", "65536", "12345678901", "a b", "x" * 65, "gold\n", "１"])
def test_text_that_is_no_class_is_refused(text: str) -> None:
    with pytest.raises(IdentifierError):
        parse_class(text)


@pytest.mark.parametrize("value", [True, 1.0, -1, 65536, "7", b"gold", None])
def test_value_that_is_no_class_is_refused(value: object) -> None:
    with pytest.raises(IdentifierError):
        check_class(value)
