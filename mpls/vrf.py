"""VRFs, their attachments, and longest-prefix match: RFC 4364 3.

Knows nothing of labels, peers and packets.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Final, Generic, TypeVar

from mpls.classes import LabelClass
from mpls.identifiers import ClassId
from mpls.ip import Address, Network
from mpls.models import TtlModel

Interface = IPv4Interface | IPv6Interface
Value = TypeVar("Value")

CLASSLESS: Final = LabelClass(0)
"""The single class of a VRF that has none configured."""


class PrefixTable(Generic[Value]):
    """Prefix -> value, longest match first; IPv4 and IPv6 apart.

    One dictionary for each prefix length in use: a look-up probes at most 33 or 129. No value is None.
    """

    def __init__(self, entries: Iterable[tuple[Network, Value]] = ()) -> None:
        self._levels: dict[int, dict[int, dict[int, Value]]] = {32: {}, 128: {}}
        self._probes: dict[int, tuple[tuple[int, dict[int, Value]], ...]] = {32: (), 128: ()}
        for prefix, value in entries:
            self[prefix] = value

    def __setitem__(self, prefix: Network, value: Value) -> None:
        bits, length, key = _key(prefix)
        level = self._levels[bits].get(length)
        if level is None:
            level = self._levels[bits][length] = {}
            self._arrange(bits)
        level[key] = value

    def __delitem__(self, prefix: Network) -> None:
        bits, length, key = _key(prefix)
        level = self._levels[bits].get(length, {})
        del level[key]
        if not level:
            del self._levels[bits][length]
            self._arrange(bits)

    def get(self, prefix: Network) -> Value | None:
        """The value of exactly this prefix."""
        bits, length, key = _key(prefix)
        return self._levels[bits].get(length, {}).get(key)

    def lookup(self, address: bytes) -> Value | None:
        """The value of the longest prefix that holds the packed address (4 or 16 octets)."""
        number = int.from_bytes(address, "big")
        for shift, level in self._probes[len(address) * 8]:
            value = level.get(number >> shift)
            if value is not None:
                return value
        return None

    def matches(self, address: bytes) -> Iterator[Value]:
        """The values of all prefixes that hold the packed address, longest first."""
        number = int.from_bytes(address, "big")
        for shift, level in self._probes[len(address) * 8]:
            value = level.get(number >> shift)
            if value is not None:
                yield value

    def items(self) -> Iterator[tuple[Network, Value]]:
        for bits, network in ((32, IPv4Network), (128, IPv6Network)):
            for length, level in sorted(self._levels[bits].items()):
                for key, value in sorted(level.items(), key=lambda item: item[0]):
                    yield network((key << bits - length, length)), value

    def __len__(self) -> int:
        return sum(len(level) for levels in self._levels.values() for level in levels.values())

    def _arrange(self, bits: int) -> None:
        levels = sorted(self._levels[bits].items(), reverse=True)
        self._probes[bits] = tuple((bits - length, level) for length, level in levels)


def _key(prefix: Network) -> tuple[int, int, int]:
    bits = prefix.max_prefixlen
    return bits, prefix.prefixlen, int(prefix.network_address) >> bits - prefix.prefixlen


class Urpf(StrEnum):
    """How the source of a packet from the customer is checked (RFC 3704)."""

    STRICT = "strict"  # it belongs behind this attachment
    LOOSE = "loose"  # the VRF has some route to it
    OFF = "off"


class Labels(StrEnum):
    """What becomes of the label stack of a packet that comes in by an attachment."""

    NONE = "none"  # only packets without labels come
    POP = "pop"  # it ends here: its TC chooses the class, the IP packet goes on
    KEEP = "keep"  # it goes on below the service label, and leaves by an attachment that keeps labels too


@dataclass(frozen=True, slots=True)
class Attachment:
    """One customer-facing interface of a VRF.

    addresses   the PE's own on it, with their networks: ICMP errors come from them; packets from or to them
                do not lose a TTL step (a router does not forward to itself)
    prefixes    what is behind it, beside the networks of the addresses
    labels      of an attachment to a P or PE router, or to one that speaks RFC 4023
    local_labels  the only ranges that the topmost label of such a router may be of; none: any that no peer has
    peer_label  what the router gets on top of packets without a kept label; None: explicit null (RFC 3032 2.1)
    """

    name: str
    addresses: tuple[Interface, ...] = ()
    prefixes: tuple[Network, ...] = ()
    labels: Labels = Labels.NONE
    local_labels: tuple[tuple[int, int], ...] = ()
    peer_label: int | None = None

    def takes_label(self, label: int) -> bool:
        """Whether the topmost label of a packet may be this one."""
        return not self.local_labels or any(low <= label <= high for low, high in self.local_labels)


@dataclass(frozen=True, slots=True)
class Vrf:
    """One VRF of this PE. `name` is what everything here calls it, `id_text` its identity on the wire.

    announce    prefixes for which labels are handed out; with one attachment they are behind it
    reachable   prefixes of the VRF that lie behind peers: only there to outweigh shorter ones that are leaked
    leaks       (prefix, VRF): what is in the other VRF and may be reached from this one; announced as well, it can be
                reached by the peers of this VRF too
    ttl_model   whether the hops of the underlay count, see `models`
    """

    name: str
    id_text: str
    classes: tuple[LabelClass, ...] = (CLASSLESS,)
    urpf: Urpf = Urpf.STRICT
    attachments: tuple[Attachment, ...] = ()
    announce: tuple[Network, ...] = ()
    reachable: tuple[Network, ...] = ()
    leaks: tuple[tuple[Network, str], ...] = ()
    ttl_model: TtlModel = TtlModel.PIPE
    local_addresses: frozenset[bytes] = field(init=False)
    """The PE's own addresses in this VRF, packed."""
    _behind: PrefixTable[frozenset[str]] = field(init=False, repr=False, compare=False)
    _vrf_of: PrefixTable[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError(f"VRF {self.name} has no class")
        own = (address.packed for attachment in self.attachments for address in attachment.addresses)
        object.__setattr__(self, "local_addresses", frozenset(own))
        object.__setattr__(self, "_behind", self._place())
        vrf_of: PrefixTable[str] = PrefixTable(self.leaks)
        if self.leaks:
            for prefix in (*self.reachable, *(prefix for prefix, _ in self._behind.items())):
                vrf_of[prefix] = self.name
        object.__setattr__(self, "_vrf_of", vrf_of)

    def _place(self) -> PrefixTable[frozenset[str]]:
        behind: PrefixTable[frozenset[str]] = PrefixTable()
        for attachment in self.attachments:
            connected = (address.network for address in attachment.addresses)
            for prefix in (*attachment.prefixes, *connected):
                behind[prefix] = (behind.get(prefix) or frozenset()) | {attachment.name}
        everywhere = frozenset(attachment.name for attachment in self.attachments)
        leaked = {prefix for prefix, _ in self.leaks}
        for prefix in self.announce:
            if behind.get(prefix) is None and prefix not in leaked:
                behind[prefix] = everywhere
        return behind

    def label_class(self, class_id: ClassId) -> LabelClass | None:
        return next((candidate for candidate in self.classes if candidate.id == class_id), None)

    def vrf_of(self, destination: bytes) -> str:
        """The VRF in which a packed destination of this one is: another where its longest prefix is leaked."""
        return self._vrf_of.lookup(destination) or self.name

    def is_local(self, address: bytes) -> bool:
        """Whether the packed address belongs behind some attachment: part of loose uRPF."""
        return self._behind.lookup(address) is not None

    def is_behind(self, attachment: str, address: bytes) -> bool:
        """Whether the packed address belongs to that attachment: strict uRPF."""
        names = self._behind.lookup(address)
        return names is not None and attachment in names

    def attachment_for(self, address: bytes) -> str | None:
        """The attachment a packet for the packed address leaves by; a VRF with a single one has no choice."""
        if len(self.attachments) == 1:
            return self.attachments[0].name
        names = self._behind.lookup(address)
        return min(names) if names else None

    @property
    def keeps_labels(self) -> bool:
        """Whether packets with labels below the service label can come or go."""
        return any(one.labels is Labels.KEEP for one in self.attachments)

    def attachment(self, name: str) -> Attachment | None:
        return next((one for one in self.attachments if one.name == name), None)

    def labels_of(self, attachment: str) -> Labels:
        """What becomes of labels at the attachment; NONE for one of another VRF."""
        found = self.attachment(attachment)
        return Labels.NONE if found is None else found.labels

    def router_address(self, version: int) -> Address | None:
        """What ICMP errors into this VRF come from: the first address of the family."""
        for attachment in self.attachments:
            for address in attachment.addresses:
                if address.version == version:
                    return address.ip
        return None
