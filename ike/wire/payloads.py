"""One dataclass per payload type, with its codec (RFC 7296 sections 3.2 to 3.16, RFC 7383 section 2.5).

Must not know: which exchange a payload belongs to. Reserved fields are sent as zero and ignored on receipt,
except in ID payloads, where AUTH covers them.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

from ike.errors import LocalError, ParseError
from ike.numbers import NotifyType, PayloadType, ProtocolId, TsType, name_of
from ike.selectors import AddressSelector, RawSelector, Selector, SelectorError
from ike.wire.identity import Identity
from ike.wire.reader import Reader
from ike.wire.sa import Proposal, encode_proposals, parse_proposals

MAX_PAYLOADS = 64
MAX_PAYLOAD_OCTETS = 65535
MAX_CFG_ATTRIBUTES = 256
NONCE_OCTETS = range(16, 257)

_HEADER_OCTETS = 4
_CRITICAL = 0x80
_SPI_OCTETS = (0, 4, 8)
_RANGE_OCTETS: dict[int, int] = {TsType.IPV4_ADDR_RANGE: 16, TsType.IPV6_ADDR_RANGE: 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What all payloads share. `critical` is the C bit, zero for every payload of the base specification.

    Abstract for the type checker alone: `isinstance`, asked a hundred times for a message, is slow with ABCMeta.
    """

    TYPE: ClassVar[int]
    critical: bool = False

    @property
    def payload_type(self) -> int:
        return self.TYPE

    @abstractmethod
    def encode_body(self) -> bytes:
        """The octets behind the generic payload header."""


@dataclass(frozen=True, slots=True)
class SaPayload(Payload):
    """SA (33): 1 to 32 proposals (section 3.3)."""

    TYPE: ClassVar[int] = PayloadType.SA
    proposals: tuple[Proposal, ...]

    def encode_body(self) -> bytes:
        return encode_proposals(self.proposals)

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        return cls(parse_proposals(reader), critical=critical)


@dataclass(frozen=True, slots=True)
class KePayload(Payload):
    """KE (34): a key exchange method and its public data (section 3.4)."""

    TYPE: ClassVar[int] = PayloadType.KE
    group: int
    data: bytes

    def encode_body(self) -> bytes:
        return self.group.to_bytes(2, "big") + bytes(2) + self.data

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        group = reader.u16()
        reader.take(2)
        return cls(group, reader.rest(), critical=critical)


@dataclass(frozen=True, slots=True)
class IdPayload(Payload):
    """What IDi and IDr share (section 3.5). `reserved` is kept: AUTH covers the body as it came."""

    identity: Identity
    reserved: bytes = bytes(3)

    def encode_body(self) -> bytes:
        return bytes((self.identity.id_type,)) + self.reserved + self.identity.data

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        id_type, reserved = reader.u8(), reader.take(3)
        return cls(Identity(id_type, reader.rest()), reserved, critical=critical)


@dataclass(frozen=True, slots=True)
class IdiPayload(IdPayload):
    """IDi (35)."""

    TYPE: ClassVar[int] = PayloadType.IDI


@dataclass(frozen=True, slots=True)
class IdrPayload(IdPayload):
    """IDr (36)."""

    TYPE: ClassVar[int] = PayloadType.IDR


@dataclass(frozen=True, slots=True)
class CertPayload(Payload):
    """CERT (37): one certificate or what stands for it (section 3.6)."""

    TYPE: ClassVar[int] = PayloadType.CERT
    encoding: int
    data: bytes

    def encode_body(self) -> bytes:
        return bytes((self.encoding,)) + self.data

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        return cls(reader.u8(), reader.rest(), critical=critical)


@dataclass(frozen=True, slots=True)
class CertreqPayload(Payload):
    """CERTREQ (38): for X.509, `authorities` is a list of SHA-1 hashes of 20 octets each (section 3.7)."""

    TYPE: ClassVar[int] = PayloadType.CERTREQ
    encoding: int
    authorities: bytes

    def encode_body(self) -> bytes:
        return bytes((self.encoding,)) + self.authorities

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        return cls(reader.u8(), reader.rest(), critical=critical)


@dataclass(frozen=True, slots=True)
class AuthPayload(Payload):
    """AUTH (39): method and signature or MAC (section 3.8)."""

    TYPE: ClassVar[int] = PayloadType.AUTH
    method: int
    data: bytes

    def encode_body(self) -> bytes:
        return bytes((self.method, 0, 0, 0)) + self.data

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        method = reader.u8()
        reader.take(3)
        return cls(method, reader.rest(), critical=critical)


@dataclass(frozen=True, slots=True)
class NoncePayload(Payload):
    """Ni, Nr (40): 16 to 256 octets (section 3.9)."""

    TYPE: ClassVar[int] = PayloadType.NONCE
    data: bytes

    def encode_body(self) -> bytes:
        return self.data

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        if reader.remaining not in NONCE_OCTETS:
            raise ParseError(f"nonce of {reader.remaining} octets")
        return cls(reader.rest(), critical=critical)


@dataclass(frozen=True, slots=True)
class NotifyPayload(Payload):
    """N (41): `spi` is there only where the notify speaks of one Child SA (section 3.10)."""

    TYPE: ClassVar[int] = PayloadType.NOTIFY
    notify_type: int
    data: bytes = b""
    protocol: int = 0
    spi: bytes = b""

    def encode_body(self) -> bytes:
        head = bytes((self.protocol, len(self.spi))) + self.notify_type.to_bytes(2, "big")
        return head + self.spi + self.data

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        protocol, spi_octets, notify_type = reader.u8(), reader.u8(), reader.u16()
        if spi_octets not in _SPI_OCTETS:
            raise ParseError(f"SPI of {spi_octets} octets in {name_of(NotifyType, notify_type)}")
        spi = reader.take(spi_octets)
        return cls(notify_type, reader.rest(), protocol, spi, critical=critical)

    def __str__(self) -> str:
        return f"N({name_of(NotifyType, self.notify_type)})"


@dataclass(frozen=True, slots=True)
class DeletePayload(Payload):
    """D (42): the SPIs on which the sender no longer receives; none for the IKE SA itself (section 3.11)."""

    TYPE: ClassVar[int] = PayloadType.DELETE
    protocol: int
    spis: tuple[bytes, ...] = ()

    def encode_body(self) -> bytes:
        spi_octets = 0 if self.protocol == ProtocolId.IKE else 4
        return bytes((self.protocol, spi_octets)) + len(self.spis).to_bytes(2, "big") + b"".join(self.spis)

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        protocol, spi_octets, count = reader.u8(), reader.u8(), reader.u16()
        if spi_octets != (0 if protocol == ProtocolId.IKE else 4) or (spi_octets == 0 and count):
            raise ParseError(f"Delete of {count} SPIs of {spi_octets} octets for protocol {protocol}")
        return cls(protocol, tuple(reader.take(spi_octets) for _ in range(count)), critical=critical)


@dataclass(frozen=True, slots=True)
class VendorIdPayload(Payload):
    """V (43): octets that some vendor chose (section 3.12)."""

    TYPE: ClassVar[int] = PayloadType.VENDOR_ID
    data: bytes

    def encode_body(self) -> bytes:
        return self.data

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        return cls(reader.rest(), critical=critical)


@dataclass(frozen=True, slots=True)
class TsPayload(Payload):
    """What TSi and TSr share (section 3.13).

    Only lengths and the count are checked here. Types 7 and 8 become AddressSelector; every other type, and a
    range that is none, becomes RawSelector, which a SelectorRegistry may interpret.
    """

    selectors: tuple[Selector, ...]

    def encode_body(self) -> bytes:
        return bytes((len(self.selectors), 0, 0, 0)) + b"".join(s.encode() for s in self.selectors)

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        count = reader.u8()
        reader.take(3)
        return cls(tuple(_parse_selector(reader) for _ in range(count)), critical=critical)


def _parse_selector(reader: Reader) -> Selector:
    head = reader.take(4)
    length = int.from_bytes(head[2:4], "big")
    if length != _RANGE_OCTETS.get(head[0], length):
        raise ParseError(f"address selector of {length} octets")
    octets = head + reader.take(length - 4)
    if head[0] in _RANGE_OCTETS:
        try:
            return AddressSelector.parse(octets)
        except SelectorError:
            return RawSelector(head[0], octets)
    return RawSelector(head[0], octets)


@dataclass(frozen=True, slots=True)
class TsiPayload(TsPayload):
    """TSi (44): the initiator's end of the Child SA."""

    TYPE: ClassVar[int] = PayloadType.TSI


@dataclass(frozen=True, slots=True)
class TsrPayload(TsPayload):
    """TSr (45): the responder's end of the Child SA."""

    TYPE: ClassVar[int] = PayloadType.TSR


@dataclass(frozen=True, slots=True)
class EncryptedPayload(Payload):
    """SK (46), or SKF (53) when `total_fragments` is not zero: always the last payload of a message.

    `body` is IV, ciphertext and ICV (section 3.14). `body_offset` is where it begins in the message as
    received: the octets before it are what an AEAD authenticates beside it (RFC 5282 section 5.1, RFC 7383
    section 2.5). The first inner type is 0 in an empty SK and in every fragment but the first.
    """

    TYPE: ClassVar[int] = PayloadType.SK
    first_inner_type: int
    body: bytes
    fragment_number: int = 0
    total_fragments: int = 0
    body_offset: int = field(default=0, compare=False)

    @property
    def is_fragment(self) -> bool:
        return self.total_fragments != 0

    @property
    def payload_type(self) -> int:
        return PayloadType.SKF if self.is_fragment else PayloadType.SK

    def encode_body(self) -> bytes:
        if not self.is_fragment:
            return self.body
        return self.fragment_number.to_bytes(2, "big") + self.total_fragments.to_bytes(2, "big") + self.body

    @classmethod
    def parse_sealed(cls, payload_type: int, first_inner_type: int, reader: Reader, critical: bool) -> Self:
        """Read the body of an SK or SKF payload; the first inner type stood in its generic header."""
        number = total = 0
        if payload_type == PayloadType.SKF:
            number, total = reader.u16(), reader.u16()
            if not 0 < number <= total:
                raise ParseError(f"fragment {number} of {total}")
        offset = reader.position
        return cls(first_inner_type, reader.rest(), number, total, offset, critical=critical)


@dataclass(frozen=True, slots=True)
class ConfigAttribute:
    """One attribute of a Configuration payload (section 3.15.1)."""

    type: int
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class ConfigPayload(Payload):
    """CP (47): type and at most 256 attributes (section 3.15)."""

    TYPE: ClassVar[int] = PayloadType.CP
    cfg_type: int
    attributes: tuple[ConfigAttribute, ...] = ()

    def encode_body(self) -> bytes:
        encoded = (
            a.type.to_bytes(2, "big") + len(a.value).to_bytes(2, "big") + a.value for a in self.attributes
        )
        return bytes((self.cfg_type, 0, 0, 0)) + b"".join(encoded)

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        cfg_type = reader.u8()
        reader.take(3)
        attributes: list[ConfigAttribute] = []
        while reader.remaining:
            if len(attributes) == MAX_CFG_ATTRIBUTES:
                raise ParseError(f"more than {MAX_CFG_ATTRIBUTES} configuration attributes")
            attributes.append(ConfigAttribute(reader.u16() & 0x7FFF, reader.take(reader.u16())))
        return cls(cfg_type, tuple(attributes), critical=critical)


@dataclass(frozen=True, slots=True)
class EapPayload(Payload):
    """EAP (48): one EAP message, its own length checked and nothing else (section 3.16)."""

    TYPE: ClassVar[int] = PayloadType.EAP
    raw: bytes

    def encode_body(self) -> bytes:
        return self.raw

    @classmethod
    def parse_body(cls, reader: Reader, critical: bool = False) -> Self:
        raw = reader.rest()
        if len(raw) < 4 or int.from_bytes(raw[2:4], "big") != len(raw):
            raise ParseError(f"EAP message of {len(raw)} octets")
        return cls(raw, critical=critical)


@dataclass(frozen=True, slots=True)
class UnknownPayload(Payload):
    """A payload of a type without a class here, kept octet for octet (section 2.5)."""

    type: int
    data: bytes

    @property
    def payload_type(self) -> int:
        return self.type

    def encode_body(self) -> bytes:
        return self.data


# Each reads the octets behind the generic payload header and raises nothing but ParseError.
# Octets that it leaves over are refused by `read_payloads`.
BODY_PARSERS: dict[int, Callable[[Reader, bool], Payload]] = {
    PayloadType.SA: SaPayload.parse_body,
    PayloadType.KE: KePayload.parse_body,
    PayloadType.IDI: IdiPayload.parse_body,
    PayloadType.IDR: IdrPayload.parse_body,
    PayloadType.CERT: CertPayload.parse_body,
    PayloadType.CERTREQ: CertreqPayload.parse_body,
    PayloadType.AUTH: AuthPayload.parse_body,
    PayloadType.NONCE: NoncePayload.parse_body,
    PayloadType.NOTIFY: NotifyPayload.parse_body,
    PayloadType.DELETE: DeletePayload.parse_body,
    PayloadType.VENDOR_ID: VendorIdPayload.parse_body,
    PayloadType.TSI: TsiPayload.parse_body,
    PayloadType.TSR: TsrPayload.parse_body,
    PayloadType.CP: ConfigPayload.parse_body,
    PayloadType.EAP: EapPayload.parse_body,
}
_SEALED_TYPES = (PayloadType.SK, PayloadType.SKF)


def read_payloads(first_type: int, reader: Reader, *, allow_sealed: bool) -> tuple[Payload, ...]:
    """Read a chain of payloads that must fill `reader` exactly: at most 64, a sealed one only as the last.

    Raises ParseError, also for SK or SKF where `allow_sealed` is false (an SK inside an SK).
    """
    payloads: list[Payload] = []
    payload_type = first_type
    while payload_type != PayloadType.NO_NEXT_PAYLOAD:
        if len(payloads) == MAX_PAYLOADS:
            raise ParseError(f"more than {MAX_PAYLOADS} payloads")
        next_type, flags = reader.u8(), reader.u8()
        critical = bool(flags & _CRITICAL)
        body = reader.restrict(reader.u16() - _HEADER_OCTETS)
        if payload_type in _SEALED_TYPES:
            if not allow_sealed:
                raise ParseError("an Encrypted payload inside another")
            payloads.append(EncryptedPayload.parse_sealed(payload_type, next_type, body, critical))
            break
        parse_body = BODY_PARSERS.get(payload_type)
        if parse_body is None:
            payloads.append(UnknownPayload(payload_type, body.rest(), critical=critical))
        else:
            payloads.append(parse_body(body, critical))
            if body.remaining:
                body.expect_end(name_of(PayloadType, payload_type))
        payload_type = next_type
    reader.expect_end("a message, behind its last payload")
    return tuple(payloads)


def parse_payloads(first_type: int, data: bytes) -> tuple[Payload, ...]:
    """The payloads in the octets of an opened SK payload. Raises only ParseError."""
    return read_payloads(first_type, Reader(data), allow_sealed=False)


def encode_payloads(payloads: Sequence[Payload]) -> tuple[int, bytes]:
    """The type of the first payload (0 if there is none) and the octets of the chain.

    Raises LocalError for a payload over 65535 octets, a number out of range, or a sealed payload not last.
    """
    next_type: int = PayloadType.NO_NEXT_PAYLOAD
    encoded: list[bytes] = []
    for payload in reversed(payloads):
        if isinstance(payload, EncryptedPayload):
            if encoded:
                raise LocalError("an Encrypted payload is the last one of a message")
            next_type = payload.first_inner_type
        encoded.append(_encode_payload(payload, next_type))
        next_type = payload.payload_type
    return next_type, b"".join(reversed(encoded))


def _encode_payload(payload: Payload, next_type: int) -> bytes:
    try:
        body = payload.encode_body()
    except (ValueError, OverflowError) as error:
        raise LocalError(f"{type(payload).__name__}: {error}") from error
    length = _HEADER_OCTETS + len(body)
    if length > MAX_PAYLOAD_OCTETS:
        raise LocalError(f"{type(payload).__name__} of {length} octets")
    return bytes((next_type, _CRITICAL * payload.critical)) + length.to_bytes(2, "big") + body
