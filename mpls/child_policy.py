"""What one Child SA may carry: label map and address selectors, the per-SA selectors of RFC 4301 4.4.2.

Knows nothing of packets beyond the fields it compares, nor of who negotiated it.
"""

from dataclasses import dataclass
from typing import Protocol, Self

from mpls import ip
from mpls.encapsulation import NO_GRE_OPTIONS, GreOptions, Mode
from mpls.identifiers import ClassId
from mpls.ip import Address, IpHeader, Network
from mpls.labels import FIRST_ORDINARY_LABEL
from mpls.selectors import ALL_LABELS, ALL_TC, ENCAPSULATION_OF_PROTOCOL, ONE_ENTRY


class LabelMap(Protocol):
    """The set of label stacks a child may carry, in the fields of `selectors.MplsVrfSelector`."""

    @property
    def encapsulations(self) -> int: ...
    @property
    def tc(self) -> int: ...
    @property
    def ranges(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def depth(self) -> tuple[int, int]: ...
    @property
    def special(self) -> int: ...


@dataclass(frozen=True, slots=True)
class PlainMap:
    """The map of a child made without TS_MPLS_VRF: what the configuration of the plain peer says."""

    encapsulations: int
    tc: int = ALL_TC
    ranges: tuple[tuple[int, int], ...] = ALL_LABELS
    depth: tuple[int, int] = ONE_ENTRY
    special: int = 0


def admits_label(child_map: LabelMap, label: int) -> bool:
    """Whether a service label is in key 5, a special one in key 7."""
    if label < FIRST_ORDINARY_LABEL:
        return bool(child_map.special >> label & 1)
    for low, high in child_map.ranges:  # noqa: SIM110 - for every packet: any() takes three times as long
        if low <= label <= high:
            return True
    return False


class SelectorFields(Protocol):
    """What an IKE address selector (RFC 7296 3.13.1) is made of."""

    @property
    def start(self) -> Address: ...
    @property
    def end(self) -> Address: ...
    @property
    def protocol(self) -> int: ...
    @property
    def start_port(self) -> int: ...
    @property
    def end_port(self) -> int: ...


@dataclass(frozen=True, slots=True)
class AddressMatch:
    """One end of an address selector: first and last packed address, protocol (0 any), first, last port."""

    start: bytes
    end: bytes
    protocol: int = 0
    start_port: int = 0
    end_port: int = 65535

    @classmethod
    def of(cls, selector: SelectorFields) -> Self:
        ports = selector.start_port, selector.end_port
        return cls(selector.start.packed, selector.end.packed, selector.protocol, *ports)

    @classmethod
    def of_network(cls, network: Network, protocol: int = 0) -> Self:
        return cls(network.network_address.packed, network.broadcast_address.packed, protocol)

    def matches(self, address: bytes, protocol: int, port: int | None) -> bool:
        if len(address) != len(self.start) or not self.start <= address <= self.end:
            return False
        return self.matches_port(protocol, port)

    def matches_port(self, protocol: int, port: int | None) -> bool:
        """OPAQUE (65535 to 0) is for packets whose port cannot be seen (RFC 4301 4.4.1.1)."""
        if self.protocol not in (0, protocol):
            return False
        if self.start_port == 0 and self.end_port == 65535:
            return True
        if port is None:
            return self.start_port == 65535 and self.end_port == 0
        return self.start_port <= port <= self.end_port


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What one inbound Child SA may carry, fixed when it is made. ValueError for what cannot be.

    vrf, label_class   of the SA; None where one child serves all of them and (peer, label) decides
    map                encapsulations, TC, label ranges, depth, special labels; None: plain IP packets
    mode               of the Child SA
    peer_address, local_addresses   outer addresses, as text; peer_address None: the peer is mobile
    peer_selectors, local_selectors   the address selectors of the two ends: in tunnel mode for the inner IP
                       header, in transport mode for the ports of UDP
    strict             the label must belong to this very VRF and class. A native child always is; with False
                       they only name the child, for peers that use equal children as they like
    original_addresses transport mode through a NAT: the peer's and ours as the peer has them, for its checksums
    session            the IKE session the labels must have been given out in; static labels belong to none
    """

    peer: str
    vrf: str | None
    label_class: ClassId | None
    map: LabelMap | None
    mode: Mode
    peer_address: str | None
    local_addresses: frozenset[str]
    peer_selectors: tuple[AddressMatch, ...] = ()
    local_selectors: tuple[AddressMatch, ...] = ()
    strict: bool = True
    session: int | None = None
    original_addresses: tuple[str, str] | None = None
    gre: GreOptions = NO_GRE_OPTIONS

    def __post_init__(self) -> None:
        if self.map is None and self.vrf is None:
            raise ValueError("a child for plain IP packets belongs to one VRF")

    def admits_outer(self, source: str, destination: str) -> bool:
        """Whether an ESP packet may come from there. A mobile peer is anywhere: the ICV says that it is the peer."""
        return self.peer_address in (None, source) and destination in self.local_addresses

    def admits_encapsulation(self, protocol: int) -> bool:
        """Whether key 3 of the map has the bit of this IP protocol."""
        mask = self.map.encapsulations if self.map else 0
        return bool(mask & ENCAPSULATION_OF_PROTOCOL.get(protocol, 0))

    def admits_addresses(self, header: IpHeader) -> bool:
        """Whether an inner IP header matches one selector of each end."""
        source, destination, protocol = header.source, header.destination, header.protocol
        return any(s.matches(source, protocol, header.source_port) for s in self.peer_selectors) and any(
            s.matches(destination, protocol, header.destination_port) for s in self.local_selectors
        )

    def admits_outbound(self, header: IpHeader) -> bool:
        """Whether the IP header of a packet that we send matches one selector of each end."""
        source, destination, protocol = header.source, header.destination, header.protocol
        return any(s.matches(source, protocol, header.source_port) for s in self.local_selectors) and any(
            s.matches(destination, protocol, header.destination_port) for s in self.peer_selectors
        )

    def admits_udp_ports(self, octets: bytes) -> bool:
        """Whether the ports at the front of a UDP header are as selected."""
        source, destination = int.from_bytes(octets[:2], "big"), int.from_bytes(octets[2:4], "big")
        return any(s.matches_port(ip.UDP, source) for s in self.peer_selectors) and any(
            s.matches_port(ip.UDP, destination) for s in self.local_selectors
        )
