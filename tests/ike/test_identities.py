"""Which identities are the same, and for which a configured name stands (RFC 5280 7.1, RFC 7619 2.4)."""

from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ike.errors import ParseError
from ike.identities import IdentityPattern, identity_key, parse_peer_name, specificity, stands_for
from ike.numbers import IdType
from ike.wire.identity import Identity
from ike.wire.names import canonical_name, name_text

CASES = [
    ("pe1.example", "pe1.example", True),
    ("pe1.example", "PE1.Example", True),
    ("pe1.example", "pe2.example", False),
    ("pe1.example", "keyid:pe1.example", False),
    ("pe1.example", "null", False),
    ("*.example", "pe1.example", True),
    ("*.example", "a.b.EXAMPLE", True),
    ("*.example", "example", False),
    ("*.example", "pe1.example.net", False),
    ("*.example", "pe1example", False),
    ("*.example", "noc@pe1.example", False),
    ("*.example", "null", False),
    ("*@example", "noc@example", True),
    ("*@example", "noc@pe1.example", False),
    ("*@example", "pe1.example", False),
    ("192.0.2.1", "192.0.2.1", True),
    ("192.0.2.1", "192.0.2.2", False),
    ("keyid:A", "keyid:a", False),
    ("null", "null", True),
    ("null", "pe1.example", False),
    ("dn:CN=pe1,O=Example", "dn:CN=PE1,O=example", True),
    ("dn:CN=pe1,O=Example", "dn:CN=pe1,  O=Example", True),
    ("dn:CN=pe1,O=Exam ple", "dn:CN=pe1,O=Exam   ple", True),
    ("dn:CN=pe1,O=Exam ple", "dn:CN=pe1,O=Example", False),
    ("dn:CN=pe1,O=Example", "dn:O=Example,CN=pe1", False),
    ("dn:CN=pe1,O=Example", "dn:CN=pe1,O=Example,C=CH", False),
    ("dn:CN=*,O=Example", "dn:CN=pe1,O=Example", True),
    ("dn:CN=*,O=Example", "dn:CN=pe1,O=EXAMPLE", True),
    ("dn:CN=*,O=Example", "dn:CN=pe1,O=Other", False),
    ("dn:CN=*,O=Example", "dn:OU=pe1,O=Example", False),
    ("dn:CN=*,O=Example", "dn:CN=pe1,OU=x,O=Example", False),
    ("dn:CN=*,O=Example", "pe1.example", False),
]


@pytest.mark.parametrize(("name", "identity", "is_meant"), CASES)
def test_name_stands_for_identity(name: str, identity: str, is_meant: bool) -> None:
    assert stands_for(parse_peer_name(name), Identity.parse_text(identity)) is is_meant


@pytest.mark.parametrize(
    "data",
    [
        b".example",
        b"*.example",
        b"a..example",
        b"a b.example",
        b"a\0.example",
        b"\xff.example",
        b"a@b.example",
    ],
)
def test_odd_octets_are_no_host_below_a_domain(data: bytes) -> None:
    assert not stands_for(parse_peer_name("*.example"), Identity(IdType.FQDN, data))


def test_anybody_is_not_nobody() -> None:
    assert stands_for(None, Identity.fqdn("pe1.example"))
    assert not stands_for(None, Identity.null())
    assert not stands_for(Identity.null(), Identity(IdType.NULL, b"x"))


def test_the_more_a_name_says_the_more_specific_it_is() -> None:
    names = ["pe1.a.example", "*.a.example", "*.example"]
    ranks = [specificity(parse_peer_name(name)) for name in names] + [specificity(None)]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 4


@pytest.mark.parametrize(
    "text", ["*", "*example", "pe*.example", "*.", "*@", "*.*.example", "a@*", "dn:", "**.x"]
)
def test_other_uses_of_a_star_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_peer_name(text)


@pytest.mark.parametrize("text", ["*.example", "*@example", "dn:CN=*,O=Example"])
def test_pattern_reads_back(text: str) -> None:
    pattern = parse_peer_name(text)
    assert isinstance(pattern, IdentityPattern)
    assert pattern.text() == text


# --- distinguished names


def name(*attributes: tuple[x509.ObjectIdentifier, str, _ASN1Type]) -> bytes:
    return x509.Name([x509.NameAttribute(oid, value, kind) for oid, value, kind in attributes]).public_bytes()


def test_kind_of_string_counts_for_nothing() -> None:
    kinds = (_ASN1Type.UTF8String, _ASN1Type.PrintableString, _ASN1Type.T61String, _ASN1Type.BMPString)
    keys = {
        identity_key(Identity(IdType.DER_ASN1_DN, name((NameOID.COMMON_NAME, "pe1", kind)))) for kind in kinds
    }
    assert len(keys) == 1


def test_composed_letters_are_those_that_compose_them() -> None:
    composed, parts = (
        canonical_name(name((NameOID.COMMON_NAME, text, _ASN1Type.UTF8String)))
        for text in ("Zürich", "ZU\u0308RICH")
    )
    assert composed == parts


def test_attributes_of_one_rdn_have_no_order() -> None:
    first, second = (
        x509.NameAttribute(NameOID.COMMON_NAME, "pe1"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
    )
    one, other = (
        x509.Name([x509.RelativeDistinguishedName(pair)]).public_bytes()
        for pair in ([first, second], [second, first])
    )
    assert canonical_name(one) == canonical_name(other)
    apart = x509.Name([first, second]).public_bytes()
    assert canonical_name(one) != canonical_name(apart)


def test_type_of_an_attribute_counts() -> None:
    assert canonical_name(name((NameOID.COMMON_NAME, "x", _ASN1Type.UTF8String))) != canonical_name(
        name((NameOID.SURNAME, "x", _ASN1Type.UTF8String))
    )


@given(st.binary(max_size=60))
def test_octets_that_are_no_name_are_a_parse_error(octets: bytes) -> None:
    with suppress(ParseError):
        canonical_name(octets)
    text = name_text(octets)
    assert text is None or text.isprintable()


GOOD = x509.Name.from_rfc4514_string("CN=pe1,OU=x,O=Example,C=CH").public_bytes()


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_one_octet_changed_never_gives_another_error(at: int, octet: int) -> None:
    spoiled = GOOD[:at] + bytes([octet]) + GOOD[at + 1 :]
    with suppress(ParseError):
        canonical_name(spoiled)
    name_text(spoiled)
    identity_key(Identity(IdType.DER_ASN1_DN, spoiled))


def test_name_of_too_many_parts_is_refused() -> None:
    many = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "x")] * 65).public_bytes()
    with pytest.raises(ParseError, match="too many parts"):
        canonical_name(many)
