"""Identities: the content of IDi and IDr, and their form in configuration and logs (RFC 7296 section 3.5).

Must not know: which identity is trusted, or what it may do.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address

from cryptography import x509

from ike.numbers import IdType, name_of
from ike.wire.names import name_text

_FQDN = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
_RFC822 = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,255}")

MAX_TEXT = 512
"""Characters; an ID payload can hold 64 KiB, and what it says goes into logs before anybody is authenticated."""


@dataclass(frozen=True, slots=True)
class Identity:
    """ID type and data. Equal means octet for octet; two types never name the same identity."""

    id_type: int
    data: bytes

    @classmethod
    def fqdn(cls, name: str) -> "Identity":
        """ID_FQDN. Raises ValueError for what is no host name in ASCII."""
        if not _FQDN.fullmatch(name):
            raise ValueError(f"{name!r} is no fully-qualified domain name")
        return cls(IdType.FQDN, name.encode("ascii"))

    @classmethod
    def address(cls, address: IPv4Address | IPv6Address) -> "Identity":
        """ID_IPV4_ADDR or ID_IPV6_ADDR."""
        return cls(IdType.IPV4_ADDR if address.version == 4 else IdType.IPV6_ADDR, address.packed)

    @classmethod
    def null(cls) -> "Identity":
        """ID_NULL: nobody in particular (RFC 7619 2.2)."""
        return cls(IdType.NULL, b"")

    @classmethod
    def parse_text(cls, text: str) -> "Identity":
        """Read `pe1.example`, `192.0.2.1`, `2001:db8::1`, `user@domain`, `dn:CN=…` (RFC 4514), `keyid:…`, `null`.

        The octets of `keyid:0x…` are hexadecimal, those of any other key ID its text. Raises ValueError.
        """
        if text.startswith("keyid:"):
            key_id = text.removeprefix("keyid:")
            data = bytes.fromhex(key_id[2:]) if key_id.startswith("0x") else key_id.encode()
            if not data:
                raise ValueError("an empty key ID names nobody")
            return cls(IdType.KEY_ID, data)
        if text.startswith("dn:"):
            # RFC 4514 knows no space behind a comma, but many write one.
            written = re.sub(r"(?<!\\), +", ",", text.removeprefix("dn:"))
            name = x509.Name.from_rfc4514_string(written)
            if not name.rdns:
                raise ValueError("an empty distinguished name names nobody")
            return cls(IdType.DER_ASN1_DN, name.public_bytes())
        if text == "null":
            return cls.null()
        if "@" in text:
            if not _RFC822.fullmatch(text):
                raise ValueError(f"{text!r} is no mail address")
            return cls(IdType.RFC822_ADDR, text.encode())
        try:
            return cls.address(ip_address(text))
        except ValueError:
            return cls.fqdn(text)

    def text(self) -> str:
        """One line of printable text, whatever the octets are: what `parse_text` reads, if possible.

        For people: of what is longer than any name the beginning has to do. Octets tell identities apart.
        """
        text = self._whole_text()
        return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"

    def _whole_text(self) -> str:
        match self.id_type:
            case IdType.IPV4_ADDR | IdType.IPV6_ADDR:
                family = IPv4Address if self.id_type == IdType.IPV4_ADDR else IPv6Address
                try:
                    return str(family(self.data))
                except AddressValueError:
                    return self._hex_text()
            case IdType.FQDN | IdType.RFC822_ADDR:
                return self._plain_text() or self._hex_text()
            case IdType.KEY_ID:
                plain = self._plain_text()
                return (
                    f"keyid:{plain}" if plain and not plain.startswith("0x") else f"keyid:0x{self.data.hex()}"
                )
            case IdType.NULL if not self.data:
                return "null"
            case IdType.DER_ASN1_DN:
                name = name_text(self.data)
                return f"dn:{name}" if name else self._hex_text()
        return self._hex_text()

    def _plain_text(self) -> str | None:
        try:
            text = self.data.decode()
        except UnicodeDecodeError:
            return None
        return text if text.isprintable() else None

    def _hex_text(self) -> str:
        return f"{name_of(IdType, self.id_type)}:0x{self.data.hex()}"

    def __str__(self) -> str:
        return self.text()
