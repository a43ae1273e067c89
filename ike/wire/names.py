"""Distinguished names: reading their DER and comparing them (RFC 5280 4.1.2.4 and 7.1, RFC 4518 2).

Octets from the network come here unauthenticated. Must not know certificates, nor whom a name belongs to.
"""

from __future__ import annotations

import unicodedata

from cryptography import x509

from ike.errors import ParseError
from ike.wire.reader import Reader

__all__ = ["Attribute", "canonical_name", "name_text"]

MAX_RDNS = 64
MAX_ATTRIBUTES = 8

_SEQUENCE, _SET, _OID = 0x30, 0x31, 0x06
# ASN.1 string types by tag. Teletex strings are Latin-1 to everybody.
_STRINGS = {
    12: "utf-8",
    18: "ascii",
    19: "ascii",
    20: "latin-1",
    22: "ascii",
    26: "ascii",
    28: "utf-32-be",
    30: "utf-16-be",
}

Attribute = tuple[bytes, str | bytes]
"""The octets of the type's OID, and the value: text made comparable, or the DER of what is no text."""


def canonical_name(octets: bytes) -> tuple[frozenset[Attribute], ...]:
    """The RDNs of a Name in DER, so that two names are the same exactly if these are equal (RFC 5280 7.1).

    Letters count without case, white space by its being there, and the kind of string for nothing. Raises
    ParseError for what is no Name, or one of more than 64 RDNs or 8 attributes in an RDN.
    """
    return tuple(
        frozenset((oid, value if isinstance(value, bytes) else _prepared(value)) for oid, value in rdn)
        for rdn in _read(octets)
    )


def name_text(octets: bytes) -> str | None:
    """The name as RFC 4514 writes it; None if it is none, or not one to be shown."""
    try:
        rdns = [
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(_dotted(oid), value) for oid, value in rdn if isinstance(value, str)]
            )
            for rdn in _read(octets)
        ]
        text = x509.Name(rdns).rfc4514_string()
    except (ParseError, ValueError, TypeError):
        return None
    return text if text.isprintable() else None


def _prepared(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def _read(octets: bytes) -> list[list[Attribute]]:
    outer = Reader(octets)
    name = _element(outer, _SEQUENCE)
    outer.expect_end("a distinguished name")
    rdns: list[list[Attribute]] = []
    while name.remaining:
        if len(rdns) >= MAX_RDNS:
            raise ParseError("a distinguished name of too many parts")
        rdns.append(_read_rdn(_element(name, _SET)))
    if not rdns:
        raise ParseError("an empty distinguished name")
    return rdns


def _read_rdn(rdn: Reader) -> list[Attribute]:
    attributes: list[Attribute] = []
    while rdn.remaining:
        if len(attributes) >= MAX_ATTRIBUTES:
            raise ParseError("an RDN of too many attributes")
        pair = _element(rdn, _SEQUENCE)
        oid = _element(pair, _OID).rest()
        raw = pair.rest()
        attributes.append((oid, _value(raw)))
    if not attributes:
        raise ParseError("an empty RDN")
    return attributes


def _value(raw: bytes) -> str | bytes:
    reader = Reader(raw)
    tag = raw[0] if raw else 0
    content = _element(reader, tag).rest()
    reader.expect_end("an attribute")
    if tag not in _STRINGS:
        return raw
    try:
        return content.decode(_STRINGS[tag])
    except UnicodeDecodeError:
        raise ParseError("text in a distinguished name is not what it says to be") from None


def _element(reader: Reader, tag: int) -> Reader:
    """The content of the next element, which must have this tag. Lengths of up to two octets."""
    if reader.u8() != tag:
        raise ParseError("a distinguished name of another structure")
    length = reader.u8()
    if length in (0x81, 0x82):
        length = int.from_bytes(reader.take(length & 0x7F), "big")
    elif length > 0x7F:
        raise ParseError("a distinguished name of an indefinite or excessive length")
    return Reader(reader.take(length))


def _dotted(oid: bytes) -> x509.ObjectIdentifier:
    """ValueError for what is no OID that the library takes."""
    numbers: list[int] = []
    value = 0
    for octet in oid:
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            numbers.append(value)
            value = 0
    if not numbers or len(oid) > 32:
        raise ValueError("no object identifier")
    first = min(numbers[0] // 40, 2)
    return x509.ObjectIdentifier(".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:]))))
