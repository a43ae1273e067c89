"""ike.wire.identity: identities from text, and as text whatever they hold (RFC 7296 section 3.5)."""

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from ike.numbers import IdType
from ike.wire.identity import Identity


@pytest.mark.parametrize(
    ("text", "id_type", "data"),
    [
        ("pe1.example", IdType.FQDN, b"pe1.example"),
        ("192.0.2.1", IdType.IPV4_ADDR, bytes((192, 0, 2, 1))),
        ("2001:db8::1", IdType.IPV6_ADDR, bytes.fromhex("20010db8000000000000000000000001")),
        ("noc@pe1.example", IdType.RFC822_ADDR, b"noc@pe1.example"),
        ("keyid:pe1", IdType.KEY_ID, b"pe1"),
        ("keyid:0x00ff", IdType.KEY_ID, b"\x00\xff"),
        ("null", IdType.NULL, b""),
    ],
)
def test_each_form_of_text_has_its_type_and_reads_back(text: str, id_type: int, data: bytes) -> None:
    identity = Identity.parse_text(text)
    assert identity == Identity(id_type, data)
    assert identity.text() == str(identity) == text


def test_a_distinguished_name_is_der() -> None:
    identity = Identity.parse_text("dn:CN=pe1,O=Example")
    assert identity.id_type == IdType.DER_ASN1_DN
    assert identity.data == x509.Name.from_rfc4514_string("CN=pe1,O=Example").public_bytes()
    assert identity.text() == "dn:CN=pe1,O=Example"
    assert Identity(IdType.DER_ASN1_DN, identity.data[:-1]).text().startswith("DER_ASN1_DN:0x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "keyid:",
        "keyid:0x",
        "keyid:0xzz",
        "a b",
        "-pe1",
        "pe1\n",
        "pe\0",
        "ü.example",
        "@pe1",
        "a@",
        "a@b@c",
        "dn:",
        "a" * 256,
    ],
)
def test_text_that_names_nobody_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        Identity.parse_text(text)


@given(st.integers(0, 255), st.binary(max_size=40))
def test_every_identity_prints_on_one_printable_line(id_type: int, data: bytes) -> None:
    assert Identity(id_type, data).text().isprintable()


def test_unprintable_octets_print_as_hexadecimal() -> None:
    assert Identity(IdType.FQDN, b"pe1\n").text() == "FQDN:0x7065310a"
    assert Identity(IdType.FQDN, b"\xff").text() == "FQDN:0xff"
    assert Identity(IdType.IPV4_ADDR, b"\1").text() == "IPV4_ADDR:0x01"
    assert Identity(99, b"\1").text() == "ID_99:0x01"
    assert Identity(IdType.KEY_ID, b"0x12").text() == "keyid:0x30783132"


def test_the_same_octets_of_two_types_are_two_identities() -> None:
    assert Identity(IdType.FQDN, b"pe1") != Identity(IdType.KEY_ID, b"pe1")


def test_an_endless_identity_prints_in_bounds() -> None:
    for id_type in (IdType.FQDN, IdType.KEY_ID, 99):
        assert len(Identity(id_type, b"a" * 60_000).text()) < 600
