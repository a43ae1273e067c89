"""The IKE header and whole messages (RFC 7296 sections 3.1 and 3.2).

Must not know: keys, exchanges, or which messages are welcome. Where UDP 4500 adds four zero octets they are
not here.
"""

from dataclasses import dataclass, field
from typing import TypeVar

from ike.errors import LocalError, ParseError
from ike.wire.payloads import (
    EncryptedPayload,
    NotifyPayload,
    Payload,
    encode_payloads,
    parse_payloads,
    read_payloads,
)
from ike.wire.reader import Reader

HEADER_OCTETS = 28
SPI_OCTETS = 8
MAX_MESSAGE_OCTETS = 65535
MAJOR_VERSION = 2
NO_SPI = bytes(SPI_OCTETS)

_INITIATOR = 0x08
_HIGHER_VERSION = 0x10
_RESPONSE = 0x20

P = TypeVar("P", bound=Payload)

__all__ = [
    "HEADER_OCTETS",
    "MAJOR_VERSION",
    "MAX_MESSAGE_OCTETS",
    "NO_SPI",
    "SPI_OCTETS",
    "Header",
    "Message",
    "SealedBody",
    "encode_payloads",
    "parse_payloads",
]


@dataclass(frozen=True, slots=True)
class Header:
    """The 28 octets that every IKE message of any version begins with. Unknown flags are dropped."""

    spi_i: bytes
    spi_r: bytes
    next_payload: int
    major: int
    minor: int
    exchange: int
    is_initiator: bool
    is_response: bool
    higher_version: bool
    message_id: int
    length: int

    @classmethod
    def parse(cls, data: bytes) -> "Header":
        """Read the first 28 octets of `data` and look no further. Raises ParseError."""
        reader = Reader(data)
        spi_i, spi_r = reader.take(SPI_OCTETS), reader.take(SPI_OCTETS)
        next_payload, version, exchange, flags = reader.u8(), reader.u8(), reader.u8(), reader.u8()
        return cls(
            spi_i=spi_i,
            spi_r=spi_r,
            next_payload=next_payload,
            major=version >> 4,
            minor=version & 0x0F,
            exchange=exchange,
            is_initiator=bool(flags & _INITIATOR),
            is_response=bool(flags & _RESPONSE),
            higher_version=bool(flags & _HIGHER_VERSION),
            message_id=reader.u32(),
            length=reader.u32(),
        )

    def encode(self) -> bytes:
        """28 octets. Raises LocalError for SPIs of another size and numbers out of range."""
        flags = (
            self.is_initiator * _INITIATOR
            | self.is_response * _RESPONSE
            | self.higher_version * _HIGHER_VERSION
        )
        if len(self.spi_i) != SPI_OCTETS or len(self.spi_r) != SPI_OCTETS:
            raise LocalError(f"IKE SPIs of {len(self.spi_i)} and {len(self.spi_r)} octets")
        try:
            head = bytes((self.next_payload, self.major << 4 | self.minor, self.exchange, flags))
            return b"".join(
                (
                    self.spi_i,
                    self.spi_r,
                    head,
                    self.message_id.to_bytes(4, "big"),
                    self.length.to_bytes(4, "big"),
                )
            )
        except (ValueError, OverflowError) as error:
            raise LocalError(f"IKE header: {error}") from error


@dataclass(frozen=True, slots=True)
class Message:
    """One message in clear: as received with a sealed payload last, or with the inner payloads in its place.

    `is_initiator` is the I flag: sent by the original initiator. `raw` is the message exactly as it was
    received, which is what AUTH and ICVs cover: nothing authenticated is ever encoded again.
    """

    spi_i: bytes
    spi_r: bytes
    exchange: int
    is_initiator: bool
    is_response: bool
    message_id: int
    payloads: tuple[Payload, ...] = ()
    raw: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def parse(cls, data: bytes) -> "Message":
        """Read one whole datagram of IKE version 2.x. Raises only ParseError.

        Bounds: 65535 octets, the length that the header says, 64 payloads. The chain ends at an SK or SKF
        payload, which becomes an EncryptedPayload.
        """
        if len(data) > MAX_MESSAGE_OCTETS:
            raise ParseError(f"message of {len(data)} octets")
        header = Header.parse(data)
        if header.major != MAJOR_VERSION:
            raise ParseError(f"IKE version {header.major}.{header.minor}")
        if header.length != len(data):
            raise ParseError(f"message of {len(data)} octets that says {header.length}")
        return cls(
            spi_i=header.spi_i,
            spi_r=header.spi_r,
            exchange=header.exchange,
            is_initiator=header.is_initiator,
            is_response=header.is_response,
            message_id=header.message_id,
            payloads=read_payloads(header.next_payload, Reader(data, HEADER_OCTETS), allow_sealed=True),
            raw=data,
        )

    def header(self, next_payload: int, length: int) -> Header:
        """The header of this message for a given first payload type and total length in octets."""
        return Header(
            spi_i=self.spi_i,
            spi_r=self.spi_r,
            next_payload=next_payload,
            major=MAJOR_VERSION,
            minor=0,
            exchange=self.exchange,
            is_initiator=self.is_initiator,
            is_response=self.is_response,
            higher_version=False,
            message_id=self.message_id,
            length=length,
        )

    def encode(self) -> bytes:
        """The octets of the message with its payloads as they are. Raises LocalError if they do not fit."""
        first_type, octets = encode_payloads(self.payloads)
        length = HEADER_OCTETS + len(octets)
        if length > MAX_MESSAGE_OCTETS:
            raise LocalError(f"message of {length} octets")
        return self.header(first_type, length).encode() + octets

    def get(self, payload_class: type[P]) -> P | None:
        """The first payload of a class."""
        for payload in self.payloads:
            if isinstance(payload, payload_class):
                return payload
        return None

    def all(self, payload_class: type[P]) -> tuple[P, ...]:
        """All payloads of a class, in their order."""
        return tuple([p for p in self.payloads if isinstance(p, payload_class)])

    @property
    def encrypted(self) -> EncryptedPayload | None:
        """The sealed payload, if the message has one."""
        return self.get(EncryptedPayload)

    @property
    def notifies(self) -> tuple[NotifyPayload, ...]:
        return self.all(NotifyPayload)

    def notify(self, notify_type: int) -> NotifyPayload | None:
        """The first notify of a type."""
        for payload in self.payloads:
            if isinstance(payload, NotifyPayload) and payload.notify_type == notify_type:
                return payload
        return None


@dataclass(frozen=True, slots=True)
class SealedBody:
    """Raw inner octets to be sealed as they are, right or wrong: the seam for fault injection."""

    first_type: int
    octets: bytes
