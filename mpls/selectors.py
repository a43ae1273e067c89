"""TS_MPLS_VRF: the traffic selector that names a VRF and a label class (WIRE 3; RFC 7296 2.9, 3.13.1).

It knows nothing of IKE messages. Address selectors are seen only by their attributes (`reconcile`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from mpls import cbor
from mpls.identifiers import ClassId, IdentifierError, VrfId, check_class

TS_MPLS_VRF: Final = 246
VERSION: Final = 1
MAX_MAP_OCTETS: Final = 1024
MAX_RANGES: Final = 32

# Key 3, the encapsulations of a child, and the protocol and ports an address selector shows for each.
MPLS_IN_IP: Final = 1
MPLS_IN_GRE: Final = 2
MPLS_IN_UDP: Final = 8
ENCAPSULATION_OF_PROTOCOL: Final = {137: MPLS_IN_IP, 47: MPLS_IN_GRE, 17: MPLS_IN_UDP}
PORTS_OF_PROTOCOL: Final = {137: (0, 65535), 47: (0, 65535), 17: (6635, 6635)}

# Key 7, bit n for special-purpose label n: explicit null 0 and 2, router alert 1, entropy label indicator 7.
ALLOWED_SPECIAL: Final = 0b1000_0111
ENTROPY_LABEL_INDICATOR: Final = 1 << 7

LOWEST_LABEL: Final = 16
HIGHEST_LABEL: Final = (1 << 20) - 1
ALL_TC: Final = 255
ALL_LABELS: Final = ((LOWEST_LABEL, HIGHEST_LABEL),)
ONE_ENTRY: Final = (1, 1)
ANY_DEPTH: Final = (1, 16)

LabelRange: TypeAlias = tuple[int, int]

_REQUIRED: Final = frozenset((0, 1, 2))
_OPTIONAL: Final = frozenset((3, 4, 5, 6, 7))
_ADDRESS_TYPES: Final = (7, 8)


class SelectorError(ValueError):
    """Octets or values that are no TS_MPLS_VRF; in a request the answer is TS_UNACCEPTABLE (WIRE 3.8)."""


@dataclass(frozen=True, slots=True)
class MplsVrfSelector:
    """A set of label stacks: those of one label class of one VRF, further limited by the other fields.

    `encapsulations`, `tc` and `special` are bit masks, `ranges` the service labels (sorted, disjoint, not
    adjacent), `depth` the (least, greatest) number of label entries. SelectorError for values that WIRE 3.1
    does not allow.
    """

    vrf: VrfId
    label_class: ClassId
    encapsulations: int = MPLS_IN_IP
    tc: int = ALL_TC
    ranges: tuple[LabelRange, ...] = ALL_LABELS
    depth: tuple[int, int] = ONE_ENTRY
    special: int = 0

    def __post_init__(self) -> None:
        try:
            if type(self.vrf) is not VrfId:
                raise SelectorError("vrf is not a VrfId")
            check_class(self.label_class)
            encapsulations = cbor.unsigned(self.encapsulations, "encapsulations", 1, 11)
            if encapsulations & ~(MPLS_IN_IP | MPLS_IN_GRE | MPLS_IN_UDP):
                raise SelectorError(f"encapsulations {encapsulations} have a reserved bit")
            cbor.unsigned(self.tc, "TC mask", 1, ALL_TC)
            _check_ranges(self.ranges)
            _, greatest = _check_depth(self.depth)
            special = cbor.unsigned(self.special, "special-purpose labels", 0, ALLOWED_SPECIAL)
            if special & ~ALLOWED_SPECIAL:
                raise SelectorError(f"special-purpose labels {special} have a bit other than 0, 1, 2, 7")
            if special & ENTROPY_LABEL_INDICATOR and greatest < 3:
                raise SelectorError("an entropy label needs room for three label entries")
        except (cbor.CborError, IdentifierError) as error:
            raise SelectorError(str(error)) from error

    @property
    def ts_type(self) -> int:
        return TS_MPLS_VRF

    @classmethod
    def parse(cls, octets: bytes) -> "MplsVrfSelector":
        """The selector of *octets*, the four of the selector's header included; SelectorError otherwise."""
        if len(octets) < 4:
            raise SelectorError("shorter than the header of a traffic selector")
        if octets[0] != TS_MPLS_VRF:
            raise SelectorError(f"TS type {octets[0]}, not {TS_MPLS_VRF}")
        if octets[1] != 0:
            raise SelectorError("the reserved octet is not zero")
        if int.from_bytes(octets[2:4]) != len(octets):
            raise SelectorError(f"Selector Length {int.from_bytes(octets[2:4])} of {len(octets)} octets")
        try:
            selector = cls._from_map(cbor.decode_map(octets[4:], MAX_MAP_OCTETS))
        except (cbor.CborError, IdentifierError) as error:
            raise SelectorError(str(error)) from error
        if selector.encode() != octets:
            raise SelectorError("a default is written out")
        return selector

    @classmethod
    def _from_map(cls, item: dict[int, cbor.Item]) -> "MplsVrfSelector":
        cbor.check_keys(item, _REQUIRED, _OPTIONAL)
        cbor.unsigned(item[0], "version", VERSION, VERSION)
        ranges: tuple[LabelRange, ...] = ALL_LABELS
        if 5 in item:
            pairs = cbor.array(item[5], "label ranges")
            if len(pairs) > MAX_RANGES:
                raise SelectorError(f"{len(pairs)} label ranges, {MAX_RANGES} at most")
            ranges = tuple(_pair(pair, "label range") for pair in pairs)
        return cls(
            vrf=VrfId.from_item(item[1]),
            label_class=check_class(item[2]),
            encapsulations=cbor.unsigned(item.get(3, MPLS_IN_IP), "encapsulations"),
            tc=cbor.unsigned(item.get(4, ALL_TC), "TC mask"),
            ranges=ranges,
            depth=_pair(item[6], "depth") if 6 in item else ONE_ENTRY,
            special=cbor.unsigned(item.get(7, 0), "special-purpose labels"),
        )

    def encode(self) -> bytes:
        """4 octets of header and the map, defaults absent: one meaning has one encoding (WIRE 3.1)."""
        item: dict[int, cbor.Item] = {0: VERSION, 1: self.vrf.item(), 2: self.label_class}
        if self.encapsulations != MPLS_IN_IP:
            item[3] = self.encapsulations
        if self.tc != ALL_TC:
            item[4] = self.tc
        if self.ranges != ALL_LABELS:
            item[5] = [[lo, hi] for lo, hi in self.ranges]
        if self.depth != ONE_ENTRY:
            item[6] = list(self.depth)
        if self.special:
            item[7] = self.special
        octets = cbor.encode(item)
        return bytes((TS_MPLS_VRF, 0)) + (4 + len(octets)).to_bytes(2) + octets

    def narrow(self, policy: "MplsVrfSelector") -> "MplsVrfSelector | None":
        """The intersection with *policy*, None when it is empty (WIRE 3.4). Commutative and idempotent."""
        if not self.names_same_class(policy):
            return None
        encapsulations, tc = self.encapsulations & policy.encapsulations, self.tc & policy.tc
        ranges = tuple(_intersect(self.ranges, policy.ranges))
        least, greatest = max(self.depth[0], policy.depth[0]), min(self.depth[1], policy.depth[1])
        if not encapsulations or not tc or not 0 < len(ranges) <= MAX_RANGES or least > greatest:
            return None
        return replace(
            self,
            encapsulations=encapsulations,
            tc=tc,
            ranges=ranges,
            depth=(least, greatest),
            special=self.special & policy.special,  # bit 7 is gone when one of the two has no room for it
        )

    def is_subset_of(self, other: "MplsVrfSelector") -> bool:
        """Whether every label stack of this set is in *other* (WIRE 3.4)."""
        return (
            self.names_same_class(other)
            and not self.encapsulations & ~other.encapsulations
            and not self.tc & ~other.tc
            and not self.special & ~other.special
            and all(any(lo >= low and hi <= high for low, high in other.ranges) for lo, hi in self.ranges)
            and other.depth[0] <= self.depth[0]
            and self.depth[1] <= other.depth[1]
        )

    def has_label(self, label: int) -> bool:
        """Whether *label* (16..1048575) is in the ranges of key 5."""
        return any(lo <= label <= hi for lo, hi in self.ranges)

    def names_same_class(self, other: "MplsVrfSelector") -> bool:
        """Keys 1 and 2 agree. A class number and a class name are never equal."""
        return self.vrf == other.vrf and self.label_class == other.label_class


def _pair(item: object, what: str) -> tuple[int, int]:
    first, second = cbor.array(item, what, count=2)
    return cbor.unsigned(first, what), cbor.unsigned(second, what)


def _check_ranges(ranges: object) -> None:
    if type(ranges) is not tuple or not 0 < len(ranges) <= MAX_RANGES:
        raise SelectorError(f"1 to {MAX_RANGES} label ranges are needed")
    previous = LOWEST_LABEL - 2
    for pair in ranges:
        if type(pair) is not tuple or len(pair) != 2:
            raise SelectorError("a label range is a pair of labels")
        lo = cbor.unsigned(pair[0], "label", LOWEST_LABEL, HIGHEST_LABEL)
        hi = cbor.unsigned(pair[1], "label", lo, HIGHEST_LABEL)
        if lo <= previous + 1:
            raise SelectorError(f"label range {lo}-{hi} is not sorted, or meets the one before")
        previous = hi


def _check_depth(depth: object) -> tuple[int, int]:
    if type(depth) is not tuple or len(depth) != 2:
        raise SelectorError("depth is a pair of numbers")
    least = cbor.unsigned(depth[0], "least depth", 1, 16)
    return least, cbor.unsigned(depth[1], "greatest depth", least, 16)


def _intersect(ours: Iterable[LabelRange], theirs: Iterable[LabelRange]) -> Iterable[LabelRange]:
    """Pairwise and in order. Two pieces never touch: a gap in one of the operands lies between them."""
    for lo, hi in ours:
        for low, high in theirs:
            if max(lo, low) <= min(hi, high):
                yield max(lo, low), min(hi, high)


# The rules between the two payloads (WIRE 3.3). Every selector has `ts_type`; those of type 7 and 8 also have
# `protocol`, `start_port`, `end_port`, `start` and `end`.
Payload: TypeAlias = tuple[Any, ...]


def reconcile(tsi: Payload, tsr: Payload) -> tuple[Payload, Payload] | None:
    """Steps 1, 4 and 5 of WIRE 3.5 on the payloads of a native child: None is TS_UNACCEPTABLE.

    The encapsulations of both maps become those that have an address selector in both payloads, address
    selectors of another encapsulation go, and TS_MPLS_VRF comes last.
    """
    split_tsi, split_tsr = _split(tsi), _split(tsr)
    if split_tsi is None or split_tsr is None:
        return None
    (addresses_i, map_i), (addresses_r, map_r) = split_tsi, split_tsr
    if not map_i.names_same_class(map_r) or map_i.encapsulations != map_r.encapsulations:
        return None
    common = map_i.encapsulations & _encapsulations(addresses_i) & _encapsulations(addresses_r)
    if not common:
        return None
    return _only(addresses_i, map_i, common), _only(addresses_r, map_r, common)


def is_well_formed(tsi: Payload, tsr: Payload, transport: bool) -> bool:
    """Whether the two payloads are exactly of the shape of WIRE 3.3, in whatever order: nothing needs repair.

    In transport mode each payload then holds one selector for each protocol, all of the same single address.
    """
    reconciled = reconcile(tsi, tsr)
    if reconciled is None:
        return False
    for payload, (*addresses, selector) in zip((tsi, tsr), reconciled, strict=True):
        if len(payload) != len(addresses) + 1 or selector not in payload:
            return False
        if transport and not _is_one_address(tuple(addresses)):
            return False
    return True


def _split(payload: Payload) -> tuple[Payload, MplsVrfSelector] | None:
    """(address selectors, the map); None for a payload of another shape, other protocols or other ports."""
    maps = [selector for selector in payload if isinstance(selector, MplsVrfSelector)]
    addresses = tuple(selector for selector in payload if selector.ts_type in _ADDRESS_TYPES)
    if len(maps) != 1 or not addresses or len(addresses) + 1 != len(payload):
        return None
    if any(PORTS_OF_PROTOCOL.get(a.protocol) != (a.start_port, a.end_port) for a in addresses):
        return None
    return addresses, maps[0]


def _encapsulations(addresses: Payload) -> int:
    mask = 0
    for address in addresses:
        mask |= ENCAPSULATION_OF_PROTOCOL[address.protocol]
    return mask


def _only(addresses: Payload, selector: MplsVrfSelector, encapsulations: int) -> Payload:
    kept = tuple(a for a in addresses if ENCAPSULATION_OF_PROTOCOL[a.protocol] & encapsulations)
    return (*kept, replace(selector, encapsulations=encapsulations))


def _is_one_address(addresses: Payload) -> bool:
    ends = {end for address in addresses for end in (address.start, address.end)}
    return len(ends) == 1 and len({address.protocol for address in addresses}) == len(addresses)
