"""Contents of N(LABEL_BINDING) and N(LABEL_STATUS) (WIRE 5.1).

It knows nothing of sequence, tables or authorisation: `binding_sender` and `binding_receiver` do.

An entry whose label, payload or prefixes are wrong by themselves does not spoil its message: it is parsed as
BadEntry and answered by code 4, while the others are applied (WIRE 5.4).
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Final, TypeAlias

from mpls import cbor
from mpls.identifiers import ClassId, IdentifierError, VrfId, check_class

VERSION: Final = 1
MAX_OCTETS: Final = 4096
HIGHEST_LABEL: Final = (1 << 20) - 1
LOWEST_ORDINARY_LABEL: Final = 16
EXPLICIT_NULL: Final = frozenset((0, 2))
IPV4_PAYLOAD: Final = 1
IPV6_PAYLOAD: Final = 2

Prefix: TypeAlias = IPv4Network | IPv6Network

_HEADER: Final = frozenset((0, 3, 4, 5))
_CONTENT: Final = frozenset((1, 2, 6))
_REFUSED: Final = frozenset((6,))
_NONE: Final = frozenset[int]()


class BindingError(ValueError):
    """Octets or values that are no LABEL_BINDING or LABEL_STATUS as a whole."""


class Operation(IntEnum):
    ADD = 0
    WITHDRAW = 1
    SNAPSHOT_BEGIN = 2
    SNAPSHOT_END = 3

    @property
    def has_entries(self) -> bool:
        return self in (Operation.ADD, Operation.WITHDRAW)


class Status(IntEnum):
    ACCEPTED = 0
    GAP = 1  # or an epoch that is not known
    TABLE_FULL = 2
    SOME_REFUSED = 3


class Refusal(IntEnum):
    """Why one entry was refused."""

    POLICY = 1
    DUPLICATE = 2
    PREFIX = 3
    BAD_VALUE = 4
    OUTSIDE = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """A label 16..1048575, 0 or 2, what it exposes (bit 0 IPv4, bit 1 IPv6), and the prefixes it serves.

    Prefixes keep the order in which they were given, IPv4 before IPv6.
    """

    label: int
    payload: int
    prefixes: tuple[Prefix, ...] = ()

    def __post_init__(self) -> None:
        if type(self.label) is not int or not _is_bindable(self.label):
            raise BindingError(f"label {self.label} cannot be bound")
        if type(self.payload) is not int or not 1 <= self.payload <= 3:
            raise BindingError(f"payload {self.payload} is outside 1..3")
        ipv4 = tuple(prefix for prefix in self.prefixes if prefix.version == 4)
        ipv6 = tuple(prefix for prefix in self.prefixes if prefix.version == 6)
        object.__setattr__(self, "prefixes", ipv4 + ipv6)

    @property
    def weight(self) -> int:
        """What limits count: the label and its prefixes."""
        return 1 + len(self.prefixes)

    def payload_covers_prefixes(self) -> bool:
        """Whether each prefix is of a family that the label exposes; no matter in a withdraw."""
        return all(self.payload & (IPV4_PAYLOAD if p.version == 4 else IPV6_PAYLOAD) for p in self.prefixes)

    def item(self) -> cbor.Item:
        families: list[cbor.Item] = [
            [_prefix_item(prefix) for prefix in self.prefixes if prefix.version == version]
            for version in (4, 6)
        ]
        return [self.label, self.payload, *families]


@dataclass(frozen=True, slots=True)
class BadEntry:
    """An entry that can only be refused, by code 4. `weight` counts its label and prefixes."""

    label: int
    weight: int
    reason: str


@dataclass(frozen=True, slots=True)
class LabelBinding:
    """One message of the tail. `vrf`, `label_class` and `entries` belong to ADD and WITHDRAW alone."""

    epoch: int
    sequence: int
    operation: Operation
    vrf: VrfId | None = None
    label_class: ClassId | None = None
    entries: tuple[Entry | BadEntry, ...] = ()

    def __post_init__(self) -> None:
        content = (self.vrf is not None, self.label_class is not None, bool(self.entries))
        if set(content) != {self.operation.has_entries}:
            belong = "belong to" if self.operation.has_entries else "do not belong to"
            raise BindingError(f"VRF, class and entries {belong} {self.operation.name}")

    @classmethod
    def parse(cls, octets: bytes) -> "LabelBinding":
        """The content of the notify's data; BindingError if it is not readable or names something twice."""
        try:
            return cls._from_map(cbor.decode_map(octets, MAX_OCTETS))
        except (cbor.CborError, IdentifierError) as error:
            raise BindingError(str(error)) from error

    @classmethod
    def _from_map(cls, item: dict[int, cbor.Item]) -> "LabelBinding":
        cbor.check_keys(item, _HEADER, _CONTENT)
        cbor.unsigned(item[0], "version", VERSION, VERSION)
        operation = Operation(cbor.unsigned(item[5], "operation", 0, max(Operation)))
        cbor.check_keys(item, _HEADER | _CONTENT if operation.has_entries else _HEADER, _NONE)
        epoch = cbor.unsigned(item[3], "epoch")
        sequence = cbor.unsigned(item[4], "sequence", lowest=1)
        if not operation.has_entries:
            return cls(epoch, sequence, operation)
        vrf, label_class = VrfId.from_item(item[1]), check_class(item[2])
        seen: set[tuple[object, ...]] = set()
        entries = tuple(_entry(entry, operation, seen) for entry in cbor.array(item[6], "entries"))
        return cls(epoch, sequence, operation, vrf, label_class, entries)

    def encode(self) -> bytes:
        """The notify's data. BindingError when an entry is a BadEntry."""
        item: dict[int, cbor.Item] = {0: VERSION, 3: self.epoch, 4: self.sequence, 5: int(self.operation)}
        if self.vrf is not None and self.label_class is not None:
            item |= {1: self.vrf.item(), 2: self.label_class, 6: [_entry_item(e) for e in self.entries]}
        return cbor.encode(item)


@dataclass(frozen=True, slots=True)
class LabelStatus:
    """The answer to one LabelBinding. `refused` holds (label, code) with SOME_REFUSED, and only then."""

    epoch: int
    sequence: int
    status: Status
    refused: tuple[tuple[int, Refusal], ...] = ()

    def __post_init__(self) -> None:
        if bool(self.refused) != (self.status is Status.SOME_REFUSED):
            raise BindingError(f"status {self.status.name} with {len(self.refused)} refused labels")

    @classmethod
    def parse(cls, octets: bytes) -> "LabelStatus":
        """The content of the notify's data; BindingError for anything else."""
        try:
            item = cbor.decode_map(octets, MAX_OCTETS)
            cbor.check_keys(item, _HEADER, _REFUSED)
            cbor.unsigned(item[0], "version", VERSION, VERSION)
            status = Status(cbor.unsigned(item[5], "status", 0, max(Status)))
            cbor.check_keys(item, _HEADER | (_REFUSED if status is Status.SOME_REFUSED else _NONE), _NONE)
            return cls(
                epoch=cbor.unsigned(item[3], "epoch"),
                sequence=cbor.unsigned(item[4], "sequence", lowest=1),
                status=status,
                refused=tuple(_refused(pair) for pair in cbor.array(item.get(6, []), "refused labels")),
            )
        except cbor.CborError as error:
            raise BindingError(str(error)) from error

    def encode(self) -> bytes:
        """The notify's data."""
        item: dict[int, cbor.Item] = {0: VERSION, 3: self.epoch, 4: self.sequence, 5: int(self.status)}
        if self.refused:
            item[6] = [[label, int(code)] for label, code in self.refused]
        return cbor.encode(item)


def _is_bindable(label: int) -> bool:
    return label in EXPLICIT_NULL or LOWEST_ORDINARY_LABEL <= label <= HIGHEST_LABEL


def _refused(pair: object) -> tuple[int, Refusal]:
    label, code = cbor.array(pair, "refused label", count=2)
    return cbor.unsigned(label, "label", 0, HIGHEST_LABEL), Refusal(cbor.unsigned(code, "code", 1, 5))


def _entry_item(entry: Entry | BadEntry) -> cbor.Item:
    if isinstance(entry, BadEntry):
        raise BindingError(f"label {entry.label}: {entry.reason}")
    return entry.item()


def _prefix_item(prefix: Prefix) -> cbor.Item:
    return [prefix.prefixlen, prefix.network_address.packed.rstrip(b"\0")]


def _entry(item: object, operation: Operation, seen: set[tuple[object, ...]]) -> Entry | BadEntry:
    """One entry; CborError and BindingError only for what spoils the message: its form, a name *seen*."""
    label_item, payload_item, *families = cbor.array(item, "entry", count=4)
    label = cbor.unsigned(label_item, "label", 0, HIGHEST_LABEL)
    payload = cbor.unsigned(payload_item, "payload", 0, 255)
    _once(seen, "label", label)
    prefixes = []
    for version, of_family in zip((4, 6), families, strict=True):
        for prefix_item in cbor.array(of_family, "prefixes"):
            length_item, octets_item = cbor.array(prefix_item, "prefix", count=2)
            length = cbor.unsigned(length_item, "prefix length", 0, 128)
            octets = cbor.octets(octets_item, "prefix")
            if len(octets) > 16:
                raise BindingError(f"a prefix of {len(octets)} octets")
            _once(seen, f"IPv{version} prefix", length, octets)
            prefixes.append((version, length, octets))
    try:
        entry = Entry(label, payload, tuple(_prefix(*prefix) for prefix in prefixes))
        if operation is Operation.ADD and not entry.payload_covers_prefixes():
            raise BindingError("a prefix of a family that the payload does not name")
    except BindingError as error:
        return BadEntry(label, 1 + len(prefixes), str(error))
    return entry


def _once(seen: set[tuple[object, ...]], *name: object) -> None:
    if name in seen:
        raise BindingError(f"{name[0]} {name[1]} stands twice")
    seen.add(name)


def _prefix(version: int, length: int, octets: bytes) -> Prefix:
    """A prefix whose octets have no trailing zero octet and no spare bit set; BindingError otherwise."""
    size = 4 if version == 4 else 16
    if length > 8 * size or len(octets) > size:
        raise BindingError(f"an IPv{version} prefix of {length} bits in {len(octets)} octets")
    if octets.endswith(b"\0"):
        raise BindingError("a prefix with a trailing zero octet")
    packed = octets.ljust(size, b"\0")
    try:
        return IPv4Network((packed, length)) if version == 4 else IPv6Network((packed, length))
    except ValueError as error:
        raise BindingError(f"a prefix of {length} bits with spare bits set") from error
