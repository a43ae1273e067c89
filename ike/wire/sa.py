"""The Security Association payload's substructures: proposals, transforms, attributes (RFC 7296 section 3.3).

Must not know: which transforms are good, or which proposal wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from ike.errors import LocalError, ParseError
from ike.numbers import AttributeType, Encr, Integ, Ke, Prf, ProtocolId, Sn, TransformType, name_of
from ike.wire.reader import Reader

MAX_PROPOSALS = 32
MAX_TRANSFORMS = 128
MAX_ATTRIBUTES = 16

_MORE_PROPOSALS = 2
_MORE_TRANSFORMS = 3
_SHORT_FORM = 0x8000
_SPI_OCTETS: dict[int, tuple[int, ...]] = {ProtocolId.IKE: (0, 8), ProtocolId.AH: (4,), ProtocolId.ESP: (4,)}
_IDS: dict[int, type[IntEnum]] = {
    TransformType.ENCR: Encr,
    TransformType.PRF: Prf,
    TransformType.INTEG: Integ,
    TransformType.KE: Ke,
    TransformType.SN: Sn,
    **dict.fromkeys(range(TransformType.ADDKE1, TransformType.ADDKE7 + 1), Ke),
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """A transform attribute as it came: an int value is the short form (TV), octets the long one (TLV)."""

    type: int
    value: int | bytes

    def encode(self) -> bytes:
        if isinstance(self.value, int):
            return (self.type | _SHORT_FORM).to_bytes(2, "big") + self.value.to_bytes(2, "big")
        return self.type.to_bytes(2, "big") + len(self.value).to_bytes(2, "big") + self.value

    @classmethod
    def parse(cls, reader: Reader) -> "Attribute":
        head = reader.u16()
        if head & _SHORT_FORM:
            return cls(head & ~_SHORT_FORM, reader.u16())
        return cls(head, reader.take(reader.u16()))


@dataclass(frozen=True, slots=True)
class Transform:
    """One algorithm: `type` ENCR, PRF…, `id` the algorithm, `key_bits` its Key Length attribute.

    `attributes` is empty for every transform that this version understands. If there is anything but a single
    short Key Length, all attributes are here in their order and `key_bits` is None, so such a transform
    equals none of ours and is unacceptable (RFC 7296 section 3.3.6), while its octets survive.
    """

    type: int
    id: int
    key_bits: int | None = None
    attributes: tuple[Attribute, ...] = ()

    @property
    def is_understood(self) -> bool:
        return not self.attributes

    def encode(self, *, is_last: bool) -> bytes:
        attributes = self.attributes
        if self.key_bits is not None:
            attributes = (Attribute(AttributeType.KEY_LENGTH, self.key_bits), *attributes)
        body = b"".join(attribute.encode() for attribute in attributes)
        head = bytes((0 if is_last else _MORE_TRANSFORMS, 0)) + (8 + len(body)).to_bytes(2, "big")
        return head + bytes((self.type, 0)) + self.id.to_bytes(2, "big") + body

    @classmethod
    def parse(cls, reader: Reader) -> "Transform":
        body = _substructure(reader, _MORE_TRANSFORMS, "transform")
        transform_type = body.u8()
        body.u8()
        transform_id = body.u16()
        attributes: list[Attribute] = []
        while body.remaining:
            if len(attributes) == MAX_ATTRIBUTES:
                raise ParseError(f"more than {MAX_ATTRIBUTES} attributes in a transform")
            attributes.append(Attribute.parse(body))
        match attributes:
            case []:
                return cls(transform_type, transform_id)
            case [Attribute(AttributeType.KEY_LENGTH, int(key_bits))]:
                return cls(transform_type, transform_id, key_bits)
        return cls(transform_type, transform_id, None, tuple(attributes))

    def __str__(self) -> str:
        ids = _IDS.get(self.type)
        name = name_of(ids, self.id) if ids else f"{name_of(TransformType, self.type)}_{self.id}"
        return name if self.key_bits is None else f"{name}_{self.key_bits}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Transforms of one protocol: one of each type is chosen. `spi` is the sender's, 0, 4 or 8 octets."""

    protocol: int
    transforms: tuple[Transform, ...]
    spi: bytes = b""
    number: int = 1

    def of_type(self, transform_type: int) -> tuple[Transform, ...]:
        """The alternatives for one transform type, in the sender's order."""
        return tuple([t for t in self.transforms if t.type == transform_type])

    def encode(self, *, is_last: bool) -> bytes:
        count = len(self.transforms)
        if not 0 < count <= 255 or len(self.spi) > 255:
            raise LocalError(f"a proposal of {count} transforms with an SPI of {len(self.spi)} octets")
        body = b"".join(t.encode(is_last=i == count) for i, t in enumerate(self.transforms, 1))
        head = bytes((0 if is_last else _MORE_PROPOSALS, 0)) + (8 + len(self.spi) + len(body)).to_bytes(
            2, "big"
        )
        return head + bytes((self.number, self.protocol, len(self.spi), count)) + self.spi + body

    @classmethod
    def parse(cls, reader: Reader) -> "Proposal":
        body = _substructure(reader, _MORE_PROPOSALS, "proposal")
        number, protocol, spi_octets, count = body.u8(), body.u8(), body.u8(), body.u8()
        if spi_octets not in _SPI_OCTETS.get(protocol, (0, 4, 8)):
            raise ParseError(f"SPI of {spi_octets} octets for protocol {protocol}")
        if not 0 < count <= MAX_TRANSFORMS:
            raise ParseError(f"{count} transforms in a proposal")
        spi = body.take(spi_octets)
        transforms = tuple(Transform.parse(body) for _ in range(count))
        body.expect_end("a proposal")
        return cls(protocol, transforms, spi, number)

    def __str__(self) -> str:
        return f"{name_of(ProtocolId, self.protocol)}:{'/'.join(map(str, self.transforms))}"


def _substructure(reader: Reader, more: int, what: str) -> Reader:
    """The body of a proposal or transform. "Last Substruc" must be true: 0 for the last one, else `more`."""
    last_substructure = reader.u8()
    reader.u8()
    body = reader.restrict(reader.u16() - 4)
    if last_substructure != (more if reader.remaining else 0):
        raise ParseError(f"Last Substruc {last_substructure} of a {what} before {reader.remaining} octets")
    return body


def encode_proposals(proposals: Sequence[Proposal]) -> bytes:
    """The body of an SA payload."""
    return b"".join(p.encode(is_last=i == len(proposals)) for i, p in enumerate(proposals, 1))


def parse_proposals(reader: Reader) -> tuple[Proposal, ...]:
    """The body of an SA payload: 1 to 32 proposals, each numbered one higher than the one before it."""
    proposals = [Proposal.parse(reader)]
    while reader.remaining:
        if len(proposals) == MAX_PROPOSALS:
            raise ParseError(f"more than {MAX_PROPOSALS} proposals")
        proposal = Proposal.parse(reader)
        if proposal.number != proposals[-1].number + 1:
            raise ParseError(f"proposal {proposal.number} follows proposal {proposals[-1].number}")
        proposals.append(proposal)
    return tuple(proposals)
