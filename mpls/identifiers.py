"""Names of a VPN and of a label class as they stand on the wire (RFC 4364 4.2, RFC 2685 4, WIRE 3.1).

It knows nothing of which of them a peer may use.
"""

import hashlib
import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Final, TypeAlias

from mpls import cbor

ClassId: TypeAlias = int | str

ROUTE_DISTINGUISHER: Final = 0
VPN_ID: Final = 1
NAME_HASH: Final = 2
_OCTETS_OF_KIND: Final = {ROUTE_DISTINGUISHER: 8, VPN_ID: 7, NAME_HASH: 32}

_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_OUI: Final = re.compile(r"[0-9A-Fa-f]{6}", re.ASCII)
_FORMS: Final = "rd:65000:100, vpn-id:00005e:7 or name:red"


class IdentifierError(ValueError):
    """A VRF id or class that is not one; the text says what was expected."""


@dataclass(frozen=True, slots=True)
class VrfId:
    """A VPN as two systems call it: its kind (0 RD, 1 VPN-ID, 2 hash of a name) and 8, 7 or 32 raw octets.

    Two ids are the same when kind and octets are: `0:100:1` and `2:100:1` are different RDs (RFC 4364 4.2).
    """

    kind: int
    octets: bytes

    def __post_init__(self) -> None:
        if type(self.kind) is not int or self.kind not in _OCTETS_OF_KIND:
            raise IdentifierError(f"VRF id of unknown kind {self.kind}")
        if type(self.octets) is not bytes or len(self.octets) != _OCTETS_OF_KIND[self.kind]:
            raise IdentifierError(f"VRF id of kind {self.kind} needs {_OCTETS_OF_KIND[self.kind]} octets")

    @classmethod
    def parse_text(cls, text: str) -> "VrfId":
        """The id a configuration calls `rd:A:N`, `vpn-id:OUI:N` or `name:TEXT`; IdentifierError if none."""
        form, _, rest = text.partition(":")
        if form == "name":
            if not _NAME.fullmatch(rest):
                raise IdentifierError(f"{text!r}: a name has 1 to 64 characters of A-Z a-z 0-9 . _ : -")
            return cls(NAME_HASH, hashlib.sha256(b"vrf-name-v1\0" + rest.encode("ascii")).digest())
        first, colon, second = rest.partition(":")
        if form == "rd" and colon:
            return cls(ROUTE_DISTINGUISHER, _route_distinguisher(text, first, second))
        if form == "vpn-id" and colon:
            if not _OUI.fullmatch(first):
                raise IdentifierError(f"{text!r}: the OUI of a VPN-ID has six hexadecimal digits")
            return cls(VPN_ID, bytes.fromhex(first) + _number(text, second, octet_count=4))
        raise IdentifierError(f"{text!r} is not a VRF id such as {_FORMS}")

    @classmethod
    def from_item(cls, item: object) -> "VrfId":
        """The id of a decoded CBOR array [kind, octets]; CborError or IdentifierError."""
        kind, octets = cbor.array(item, "VRF id", count=2)
        return cls(cbor.unsigned(kind, "kind of VRF id"), cbor.octets(octets, "VRF id"))

    def item(self) -> cbor.Item:
        """The CBOR array [kind, octets] (WIRE 3.1)."""
        return [self.kind, self.octets]

    def text(self) -> str:
        """For people: the text of an RD or VPN-ID; of a name only the hash is known, which `#` says."""
        if self.kind == VPN_ID:
            return f"vpn-id:{self.octets[:3].hex()}:{int.from_bytes(self.octets[3:])}"
        if self.kind == NAME_HASH:
            return f"name:#{self.octets.hex()}"
        value = self.octets[2:]
        match int.from_bytes(self.octets[:2]):
            case 0:
                return f"rd:{int.from_bytes(value[:2])}:{int.from_bytes(value[2:])}"
            case 1:
                return f"rd:{IPv4Address(value[:4])}:{int.from_bytes(value[4:])}"
            case 2:
                return f"rd:{int.from_bytes(value[:4])}:{int.from_bytes(value[4:])}"
            case _:
                return f"rd:#{self.octets.hex()}"


def _route_distinguisher(text: str, administrator: str, assigned: str) -> bytes:
    """8 octets: type 1 when A is a dotted IPv4 address, else type 0 if A fits 16 bits, else 2 (WIRE 3.1)."""
    if "." in administrator:
        try:
            address = IPv4Address(administrator)
        except AddressValueError as error:
            raise IdentifierError(f"{text!r}: {administrator!r} is not an IPv4 address") from error
        return b"\0\1" + address.packed + _number(text, assigned, octet_count=2)
    number = _number(text, administrator, octet_count=4)
    if number[:2] == b"\0\0":
        return b"\0\0" + number[2:] + _number(text, assigned, octet_count=4)
    return b"\0\2" + number + _number(text, assigned, octet_count=2)


def _number(text: str, digits: str, octet_count: int) -> bytes:
    highest = (1 << 8 * octet_count) - 1
    if not _DECIMAL.fullmatch(digits) or int(digits) > highest:
        raise IdentifierError(f"{text!r}: {digits!r} is not a decimal number of 0..{highest}")
    return int(digits).to_bytes(octet_count)


def parse_class(text: str) -> ClassId:
    """The class a configuration means: digits only are the number, everything else is a name."""
    return check_class(int(text) if _DECIMAL.fullmatch(text) else text)


def check_class(label_class: object) -> ClassId:
    """*label_class* if it is a number 0..65535 or a name not all of digits; IdentifierError otherwise."""
    if type(label_class) is int:
        if not 0 <= label_class <= 0xFFFF:
            raise IdentifierError(f"class {label_class} is outside 0..65535")
        return label_class
    if type(label_class) is not str:
        raise IdentifierError("a class is a number or a name")
    if not _NAME.fullmatch(label_class):
        raise IdentifierError(f"class {label_class!r}: a name has 1 to 64 characters of A-Z a-z 0-9 . _ : -")
    if label_class.isdigit():
        raise IdentifierError(f"class {label_class!r}: a name is not all digits")
    return label_class
