"""Which identities are the same, and which of them a peer's configured name stands for (RFC 4301 4.4.3.1, RFC 4945).

    192.0.2.1, pe1.example, user@example, dn:CN=pe1,O=Example, keyid:…, null     one identity
    *.example       every name below `example`, however deep; not `example` itself
    *@example       every mailbox of `example`
    dn:CN=*,O=Example    every subject of as many RDNs in that order; a lone * stands for any one value

Must not know who proved what.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ike.errors import ParseError
from ike.numbers import IdType
from ike.wire.identity import Identity
from ike.wire.names import canonical_name

__all__ = ["IdentityPattern", "PeerName", "identity_key", "parse_peer_name", "specificity", "stands_for"]


@dataclass(frozen=True, slots=True)
class IdentityPattern:
    """Several identities of one type. `suffix` is what names and mailboxes end with; a DN's is its RFC 4514 text."""

    id_type: IdType
    suffix: str

    def text(self) -> str:
        return f"dn:{self.suffix}" if self.id_type is IdType.DER_ASN1_DN else f"*{self.suffix}"

    def __str__(self) -> str:
        return self.text()

    def matches(self, identity: Identity) -> bool:
        if identity.id_type != self.id_type:
            return False
        if self.id_type is IdType.DER_ASN1_DN:
            return self._matches_name(identity.data)
        end = self.suffix.lower().encode()
        local, found, _ = identity.data.lower().rpartition(end)
        return bool(found) and identity.data.lower().endswith(end) and _is_label_path(local, self.id_type)

    def _matches_name(self, octets: bytes) -> bool:
        try:
            wanted, found = canonical_name(_name_octets(self.suffix)), canonical_name(octets)
        except ParseError:
            return False
        if len(wanted) != len(found):
            return False
        for pattern, rdn in zip(wanted, found, strict=True):
            literal = {attribute for attribute in pattern if attribute[1] != "*"}
            rest = sorted(oid for oid, _ in rdn - literal)
            if not literal <= rdn or rest != sorted(oid for oid, value in pattern if value == "*"):
                return False
        return True


PeerName = Identity | IdentityPattern | None
"""Whom a connection is for; None is anybody who proves to be somebody."""


def parse_peer_name(text: str) -> Identity | IdentityPattern:
    """The forms above. Raises ValueError."""
    if text.startswith("*."):
        Identity.fqdn(text[2:])
        return IdentityPattern(IdType.FQDN, text[1:].lower())
    if text.startswith("*@"):
        Identity.fqdn(text[2:])
        return IdentityPattern(IdType.RFC822_ADDR, text[1:].lower())
    if "*" in text and not text.startswith(("dn:", "keyid:")):
        raise ValueError("a * stands for the whole beginning of a name: *.example or *@example")
    identity = Identity.parse_text(text)
    if identity.id_type == IdType.DER_ASN1_DN:
        values = {value for rdn in canonical_name(identity.data) for _, value in rdn}
        if "*" in values:
            return IdentityPattern(IdType.DER_ASN1_DN, text.removeprefix("dn:"))
    return identity


def stands_for(name: PeerName, identity: Identity) -> bool:
    """Whether `identity` is whom `name` means. ID_NULL is meant by nothing but itself (RFC 7619 2.4)."""
    if identity.id_type == IdType.NULL and (identity.data or name != Identity.null()):
        return False
    if name is None:
        return True
    if isinstance(name, IdentityPattern):
        return name.matches(identity)
    return identity_key(name) == identity_key(identity)


def specificity(name: PeerName) -> int:
    """The higher, the fewer it stands for: the most specific connection is the peer's."""
    if isinstance(name, Identity):
        return 1 << 16
    return 0 if name is None else len(name.suffix)


def identity_key(identity: Identity) -> Hashable:
    """Equal for two forms of one identity: letters of names count without case, DNs as RFC 5280 7.1 compares them."""
    if identity.id_type in (IdType.FQDN, IdType.RFC822_ADDR):
        return identity.id_type, identity.data.lower()
    if identity.id_type == IdType.DER_ASN1_DN:
        try:
            return identity.id_type, canonical_name(identity.data)
        except ParseError:
            pass  # then it is at least equal to itself
    return identity.id_type, identity.data


def _is_label_path(octets: bytes, id_type: IdType) -> bool:
    """What stands in for the *: one or more labels of a host name, or the local part of a mailbox."""
    if not octets or not octets.isascii() or not octets.decode().isprintable() or b" " in octets:
        return False
    if id_type is IdType.RFC822_ADDR:
        return b"@" not in octets
    return all(octets.split(b".")) and b"*" not in octets and b"@" not in octets


def _name_octets(text: str) -> bytes:
    return Identity.parse_text(f"dn:{text}").data
