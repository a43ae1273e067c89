"""Traffic selectors: value types and the registry of types (RFC 7296 3.13).

Must not know: MPLS, exchanges, payload headers. A selector's octets always include its own 4-octet header.

Two kinds of selector exist. *Address* selectors (TS types 7 and 8) are alternatives: a packet matches a
payload when it matches any one of them. Every other type is *complementary* (RFC 9478 section 2): it
restricts what the address selectors of its payload allow, never stands alone, and a Child SA has exactly one
of its type or none.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
    summarize_address_range,
)
from typing import Protocol, Self

from ike.errors import LocalError
from ike.numbers import TsType

MAX_SELECTORS = 255  # "Number of TSs" is one octet
ANY_PORTS = (0, 65535)
OPAQUE_PORTS = (65535, 0)  # the port is not available, as in a fragment or an encrypted packet
_ADDRESS_OCTETS: dict[int, int] = {TsType.IPV4_ADDR_RANGE: 4, TsType.IPV6_ADDR_RANGE: 16}

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network


class SelectorError(ValueError):
    """A selector of the right length whose content means nothing: TS_UNACCEPTABLE, never INVALID_SYNTAX."""


class Selector(Protocol):
    """What a traffic selector type has to offer; immutable, comparable by value and hashable."""

    @property
    def ts_type(self) -> int: ...

    def encode(self) -> bytes:
        """The selector as it stands in a TS payload: type(1), the type's own(1), length(2), content."""

    def narrow(self, policy: Self, /) -> Self | None:
        """What this selector and `policy`, of the same type, have in common; None when that is nothing."""

    def is_subset_of(self, other: Self, /) -> bool:
        """Whether every packet that this selector matches is matched by `other`, of the same type."""


Selectors = tuple[Selector, ...]
Reconcile = Callable[[Selectors, Selectors], tuple[Selectors, Selectors] | None]


@dataclass(frozen=True, slots=True)
class TrafficSelectors:
    """The contents of a TSi and a TSr payload: TSi describes the creator's end of the Child SA."""

    tsi: Selectors
    tsr: Selectors

    def interpreted(self, registry: "SelectorRegistry") -> "TrafficSelectors":
        """With every RawSelector of a known type parsed. Raises SelectorError."""
        return TrafficSelectors(registry.interpret(self.tsi), registry.interpret(self.tsr))

    def __str__(self) -> str:
        return f"{_format(self.tsi)} === {_format(self.tsr)}"


def _format(selectors: Selectors) -> str:
    return " ".join(str(selector) for selector in selectors) or "(none)"


def _format_ports(protocol: int, start_port: int, end_port: int) -> str:
    ports = (start_port, end_port)
    if ports == ANY_PORTS:
        return f"[{protocol}]" if protocol else ""
    if ports == OPAQUE_PORTS:
        return f"[{protocol}/opaque]"
    return f"[{protocol}/{start_port}]" if start_port == end_port else f"[{protocol}/{start_port}-{end_port}]"


def _check_protocol_and_ports(protocol: int, start_port: int, end_port: int) -> None:
    if not 0 <= protocol <= 255:
        raise SelectorError(f"IP protocol {protocol} is not in 0..255")
    if not (0 <= start_port <= 65535 and 0 <= end_port <= 65535):
        raise SelectorError(f"ports {start_port}-{end_port} are not in 0..65535")
    if start_port > end_port and (start_port, end_port) != OPAQUE_PORTS:
        raise SelectorError(f"ports {start_port}-{end_port} are no range")


@dataclass(frozen=True, slots=True)
class AddressSelector:
    """TS_IPV4_ADDR_RANGE or TS_IPV6_ADDR_RANGE (RFC 7296 section 3.13.1); all bounds are inclusive.

    Protocol 0 is every protocol. Ports 0-65535 are ANY, which includes OPAQUE (65535-0). ICMP and ICMPv6
    types and codes are ports of `type << 8 | code`, Mobile IPv6 types of `type << 8`. Raises SelectorError
    for what is no range.
    """

    start: IpAddress
    end: IpAddress
    protocol: int = 0
    start_port: int = 0
    end_port: int = 65535

    def __post_init__(self) -> None:
        if self.start.version != self.end.version or int(self.start) > int(self.end):
            raise SelectorError(f"addresses {self.start}-{self.end} are no range")
        _check_protocol_and_ports(self.protocol, self.start_port, self.end_port)

    @classmethod
    def from_network(
        cls, network: IpNetwork, protocol: int = 0, start_port: int = 0, end_port: int = 65535
    ) -> Self:
        """All addresses of a prefix, its first and last one included."""
        return cls(network.network_address, network.broadcast_address, protocol, start_port, end_port)

    @classmethod
    def from_address(
        cls, address: IpAddress | str, protocol: int = 0, start_port: int = 0, end_port: int = 65535
    ) -> Self:
        """Exactly one address. Raises ValueError for text that is none."""
        single = ip_address(address)
        return cls(single, single, protocol, start_port, end_port)

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read the 16 or 40 octets of a selector, header included. Raises SelectorError."""
        size = _ADDRESS_OCTETS.get(octets[0], 0) if octets else 0
        if not size or len(octets) != 8 + 2 * size or int.from_bytes(octets[2:4], "big") != len(octets):
            raise SelectorError(f"{len(octets)} octets are no address selector")
        family = IPv4Address if size == 4 else IPv6Address
        return cls(
            start=family(octets[8 : 8 + size]),
            end=family(octets[8 + size :]),
            protocol=octets[1],
            start_port=int.from_bytes(octets[4:6], "big"),
            end_port=int.from_bytes(octets[6:8], "big"),
        )

    @property
    def ts_type(self) -> int:
        return TsType.IPV4_ADDR_RANGE if self.start.version == 4 else TsType.IPV6_ADDR_RANGE

    @property
    def is_single_address(self) -> bool:
        return self.start == self.end

    @property
    def _ports(self) -> tuple[int, int]:
        return self.start_port, self.end_port

    def encode(self) -> bytes:
        addresses = self.start.packed + self.end.packed
        return b"".join(
            (
                bytes((self.ts_type, self.protocol)),
                (8 + len(addresses)).to_bytes(2, "big"),
                self.start_port.to_bytes(2, "big"),
                self.end_port.to_bytes(2, "big"),
                addresses,
            )
        )

    def narrow(self, policy: "AddressSelector", /) -> "AddressSelector | None":
        if self.start.version != policy.start.version:
            return None
        first = max(int(self.start), int(policy.start))
        last = min(int(self.end), int(policy.end))
        if first > last or (self.protocol and policy.protocol and self.protocol != policy.protocol):
            return None
        ports = _narrow_ports(self._ports, policy._ports)
        if ports is None:
            return None
        family = IPv4Address if self.start.version == 4 else IPv6Address
        return AddressSelector(family(first), family(last), self.protocol or policy.protocol, *ports)

    def is_subset_of(self, other: "AddressSelector", /) -> bool:
        return (
            self.start.version == other.start.version
            and int(other.start) <= int(self.start)
            and int(self.end) <= int(other.end)
            and other.protocol in (0, self.protocol)
            and _narrow_ports(self._ports, other._ports) == self._ports
        )

    def contains(self, address: IpAddress, protocol: int, port: int | None = None) -> bool:
        """Whether a packet with this at its end is matched; port None: not available (OPAQUE)."""
        if address.version != self.start.version or not int(self.start) <= int(address) <= int(self.end):
            return False
        if self.protocol and self.protocol != protocol:
            return False
        if port is None:
            return self._ports in (ANY_PORTS, OPAQUE_PORTS)
        return self.start_port <= port <= self.end_port

    def __str__(self) -> str:
        networks = list(summarize_address_range(self.start, self.end))
        if self.is_single_address:
            addresses = str(self.start)
        elif len(networks) == 1:
            addresses = str(networks[0])
        else:
            addresses = f"{self.start}-{self.end}"
        return addresses + _format_ports(self.protocol, self.start_port, self.end_port)


def _narrow_ports(ours: tuple[int, int], theirs: tuple[int, int]) -> tuple[int, int] | None:
    if ours == ANY_PORTS:
        return theirs
    if theirs == ANY_PORTS or ours == theirs:
        return ours
    # OPAQUE starts above its end, so with any range but ANY it has nothing in common.
    start, end = max(ours[0], theirs[0]), min(ours[1], theirs[1])
    return (start, end) if start <= end else None


@dataclass(frozen=True, slots=True)
class DynamicSelector:
    """The address of one end, known only once the IKE SA is there: for configuration, never on the wire.

    It is what a Configuration payload gave that end (RFC 7296 2.19), else its address in the IKE SA's path.
    """

    protocol: int = 0
    start_port: int = 0
    end_port: int = 65535

    def __post_init__(self) -> None:
        _check_protocol_and_ports(self.protocol, self.start_port, self.end_port)

    def resolve(self, address: IpAddress | str) -> AddressSelector:
        """The selector of exactly this address or prefix. Raises ValueError for text that is neither."""
        if isinstance(address, str) and "/" in address:
            network = ip_network(address)
            return AddressSelector.from_network(network, self.protocol, self.start_port, self.end_port)
        return AddressSelector.from_address(address, self.protocol, self.start_port, self.end_port)

    def __str__(self) -> str:
        return "dynamic" + _format_ports(self.protocol, self.start_port, self.end_port)


def resolve_dynamic(
    selectors: Iterable[Selector | DynamicSelector], *addresses: IpAddress | str
) -> Selectors:
    """`selectors` with every DynamicSelector replaced by one for each of `addresses`, the rest as they are."""
    found: list[Selector] = []
    for selector in selectors:
        if isinstance(selector, DynamicSelector):
            found.extend(map(selector.resolve, addresses))
        else:
            found.append(selector)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class RawSelector:
    """A selector of a type that nobody has interpreted (yet): equal octets, header included, or nothing."""

    ts_type: int
    octets: bytes

    def encode(self) -> bytes:
        return self.octets

    def narrow(self, policy: "RawSelector", /) -> "RawSelector | None":
        return self if self == policy else None

    def is_subset_of(self, other: "RawSelector", /) -> bool:
        return self == other

    def __str__(self) -> str:
        return f"TS_{self.ts_type}:{self.octets[4:].hex()}"


@dataclass(frozen=True, slots=True)
class SecurityLabel:
    """TS_SECLABEL, type 10 (RFC 9478): opaque octets that are equal or not; there is nothing in between.

    `octets` is the label without the one trailing zero octet that is sent behind it, as other implementations
    do, and that is taken off, if present, on receipt. Raises SelectorError when nothing is left.
    """

    octets: bytes

    def __post_init__(self) -> None:
        if not self.octets:
            raise SelectorError("empty security label")
        if len(self.octets) > 65535 - 5:
            raise SelectorError(f"security label of {len(self.octets)} octets")

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a whole selector. Its reserved octet is ignored, as RFC 7296 does with reserved fields."""
        if (
            len(octets) < 4
            or octets[0] != TsType.SECLABEL
            or int.from_bytes(octets[2:4], "big") != len(octets)
        ):
            raise SelectorError("not a TS_SECLABEL")
        return cls(octets[4:].removesuffix(b"\0"))

    @property
    def ts_type(self) -> int:
        return TsType.SECLABEL

    def encode(self) -> bytes:
        return bytes((TsType.SECLABEL, 0)) + (len(self.octets) + 5).to_bytes(2, "big") + self.octets + b"\0"

    def narrow(self, policy: "SecurityLabel", /) -> "SecurityLabel | None":
        return self if self == policy else None

    def is_subset_of(self, other: "SecurityLabel", /) -> bool:
        return self == other

    def __str__(self) -> str:
        return "seclabel:" + "".join(chr(o) if 0x20 < o < 0x7F else f"\\x{o:02x}" for o in self.octets)


@dataclass(frozen=True, slots=True)
class SelectorType:
    """A complementary selector type to plug into a registry.

    `parse` takes a whole selector, header included, of the length that the header says; it raises
    SelectorError or another ValueError for content that it refuses.

    `reconcile`, if given, holds the rules that reach across selectors and payloads. It is called with the
    selectors of (TSi, TSr) whenever one of them holds this type, and returns them with what contradicts them
    taken away, or None when nothing acceptable is left. What it does not object to it returns unchanged: a
    request or an answer that `reconcile` would change breaks those rules and is refused; a result of
    narrowing is replaced by what it returns.
    """

    ts_type: int
    parse: Callable[[bytes], Selector]
    reconcile: Reconcile | None = None


def _labels_agree(tsi: Selectors, tsr: Selectors) -> tuple[Selectors, Selectors] | None:
    """The reconcile rule of TS_SECLABEL: both payloads carry the same labels."""
    labels_i, labels_r = ({s for s in side if s.ts_type == TsType.SECLABEL} for side in (tsi, tsr))
    return (tsi, tsr) if labels_i == labels_r else None


SECURITY_LABEL = SelectorType(TsType.SECLABEL, SecurityLabel.parse, _labels_agree)


class SelectorRegistry:
    """The selector types that an endpoint understands: 7, 8 and 10 always, and those that were registered."""

    def __init__(self, types: Iterable[SelectorType] = ()) -> None:
        self._types: dict[int, SelectorType] = {SECURITY_LABEL.ts_type: SECURITY_LABEL}
        for selector_type in types:
            self.register(selector_type)

    def register(self, selector_type: SelectorType) -> None:
        """Add a type. Raises LocalError for a number that is none or is taken."""
        number = selector_type.ts_type
        if not 0 < number < 256 or number in _ADDRESS_OCTETS or number in self._types:
            raise LocalError(f"traffic selector type {number} cannot be registered")
        self._types[number] = selector_type

    def is_registered(self, ts_type: int) -> bool:
        return ts_type in self._types

    def interpret(self, selectors: Selectors) -> Selectors:
        """Each RawSelector of a known type parsed by that type; unknown ones stay RawSelector.

        Raises SelectorError when a known type refuses the content, an address range that is none included.
        """
        return tuple(self._interpret_one(s) if isinstance(s, RawSelector) else s for s in selectors)

    def _interpret_one(self, raw: RawSelector) -> Selector:
        if raw.ts_type in _ADDRESS_OCTETS:
            return AddressSelector.parse(raw.octets)
        known = self._types.get(raw.ts_type)
        if known is None:
            return raw
        try:
            return known.parse(raw.octets)
        except SelectorError:
            raise
        except ValueError as error:
            raise SelectorError(f"TS type {raw.ts_type}: {error}") from error

    def reconcile(self, ts: TrafficSelectors) -> TrafficSelectors | None:
        """Apply the cross-payload rules of the types that `ts` holds; None: nothing acceptable is left."""
        for selector_type in self._types.values():
            if selector_type.reconcile and any(s.ts_type == selector_type.ts_type for s in ts.tsi + ts.tsr):
                pair = selector_type.reconcile(ts.tsi, ts.tsr)
                if pair is None:
                    return None
                ts = TrafficSelectors(*pair)
        return ts

    def is_consistent(self, ts: TrafficSelectors) -> bool:
        """Whether the cross-payload rules leave `ts` as it is, the order of selectors aside."""
        reconciled = self.reconcile(ts)
        return reconciled is not None and _same(reconciled.tsi, ts.tsi) and _same(reconciled.tsr, ts.tsr)


def _same(ours: Selectors, theirs: Selectors) -> bool:
    """Equal apart from order."""
    return ours == theirs or Counter(ours) == Counter(theirs)
