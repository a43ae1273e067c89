"""The crypto map: the one policy table, ordered rules on what a packet is (the SPD of RFC 4301 4.4.1).

Knows nothing of Child SAs, routes and bindings: it says protect (as which VRF and class), bypass or discard.

    packet -> Flow -> first rule whose Match holds -> Protect | Bypass | Discard      none: NO_MATCH, discard
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, NamedTuple, Self, TypeAlias

from mpls.classes import dscp_text
from mpls.drops import DropReason
from mpls.flow_cache import FLOW_CACHE_FLOWS, FlowCache
from mpls.identifiers import ClassId
from mpls.ip import IpHeader, Network
from mpls.labels import MAX_ENTRIES, MAX_LABEL, LabelEntry, LabelStack
from mpls.rule_index import RuleIndex
from mpls.vrf import Vrf

NOT_KEPT: Final = -1
"""In a flow: a label that ends where it came in. No rule looks at it (WIRE 6.1)."""
Range: TypeAlias = tuple[int, int]


class Flow(NamedTuple):
    """All that rules look at: hashable, the key of the flow cache. Addresses are packed, b"" when not IP.

    `labels` are the entries' labels, top first; `tcs` their TCs. Without labels both are empty.
    """

    attachment: str | None
    vrf: str | None
    labels: tuple[int, ...]
    tcs: tuple[int, ...]
    source: bytes
    destination: bytes
    protocol: int | None
    source_port: int | None
    destination_port: int | None
    dscp: int | None

    @classmethod
    def of_packet(cls, attachment: str | None, vrf: str | None, header: IpHeader) -> Self:
        """The flow of an IP packet without labels."""
        return cls(
            attachment,
            vrf,
            (),
            (),
            header.source,
            header.destination,
            header.protocol,
            header.source_port,
            header.destination_port,
            header.dscp,
        )

    @classmethod
    def of_labelled(
        cls,
        attachment: str | None,
        vrf: str | None,
        stack: Sequence[LabelEntry],
        body: bytes,
        *,
        are_kept: bool = True,
    ) -> Self:
        """The flow of a labelled packet; addresses, ports and DSCP only if an IP packet follows the stack.

        Labels that are not kept are NOT_KEPT; their number, their TC and the bottom of stack are still seen.
        """
        labels = tuple(entry.label if are_kept else NOT_KEPT for entry in stack)
        tcs = tuple(entry.tc for entry in stack)
        header = IpHeader.parse(body)
        if isinstance(header, DropReason):
            return cls(attachment, vrf, labels, tcs, b"", b"", None, None, None, None)
        return cls.of_packet(attachment, vrf, header)._replace(labels=labels, tcs=tcs)

    @classmethod
    def parse_labelled(cls, attachment: str | None, vrf: str | None, octets: bytes) -> Self | DropReason:
        """The flow of an encoded stack and what follows it; STACK_TRUNCATED or STACK_DEPTH."""
        stack = LabelStack.parse(octets)
        if isinstance(stack, DropReason):
            return stack
        return cls.of_labelled(attachment, vrf, stack.entries, octets[stack.octet_count :])


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule asks; None asks nothing. Every condition that is given must hold.

    labelled          whether the packet has a label stack at all
    labels, tc        ranges of the label and TC values of the entry at `depth` (1 = top)
    bottom            whether that entry is the bottom of the stack
    source_ports, destination_ports     first and last, of the protocol given; without ports no match

    ValueError for a condition that no packet can meet.
    """

    attachment: str | None = None
    vrf: str | None = None
    labelled: bool | None = None
    depth: int = 1
    labels: tuple[Range, ...] | None = None
    tc: frozenset[int] | None = None
    bottom: bool | None = None
    sources: tuple[Network, ...] | None = None
    destinations: tuple[Network, ...] | None = None
    protocol: int | None = None
    source_ports: Range | None = None
    destination_ports: Range | None = None
    dscp: frozenset[int] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= MAX_ENTRIES:
            raise ValueError(f"a depth is 1 to {MAX_ENTRIES}, not {self.depth}")
        if self.labelled is False and self.looks_at_entry:
            raise ValueError("a packet without labels has no label, TC or bottom of stack")
        if self.protocol is None and (self.source_ports or self.destination_ports):
            raise ValueError("ports need a protocol")
        for what, values in (("label", self.labels), ("from", self.sources), ("to", self.destinations)):
            if values == ():
                raise ValueError(f"{what}: an empty list matches nothing")
        for what, numbers, highest in (("tc", self.tc, 7), ("dscp", self.dscp, 63)):
            if numbers is not None and not (numbers and min(numbers) >= 0 and max(numbers) <= highest):
                raise ValueError(f"{what}: values of 0 to {highest}")
        ports = [ports for ports in (self.source_ports, self.destination_ports) if ports is not None]
        for ranges, highest in ((self.labels or (), MAX_LABEL), (ports, 0xFFFF)):
            if any(not 0 <= low <= high <= highest for low, high in ranges):
                raise ValueError(f"a range is two numbers of 0 to {highest}, the lower first")

    def holds(self, flow: Flow) -> bool:
        if self.attachment is not None and flow.attachment != self.attachment:
            return False
        if self.vrf is not None and flow.vrf != self.vrf:
            return False
        if self.labelled is not None and bool(flow.labels) != self.labelled:
            return False
        if not self._entry_holds(flow):
            return False
        if self.dscp is not None and flow.dscp not in self.dscp:
            return False
        if self.protocol is not None and flow.protocol != self.protocol:
            return False
        return (
            _address_holds(self.sources, flow.source)
            and _address_holds(self.destinations, flow.destination)
            and _port_holds(self.source_ports, flow.source_port)
            and _port_holds(self.destination_ports, flow.destination_port)
        )

    def _entry_holds(self, flow: Flow) -> bool:
        if self.labels is None and self.tc is None and self.bottom is None:
            return True
        if len(flow.labels) < self.depth:
            return False
        label, tc = flow.labels[self.depth - 1], flow.tcs[self.depth - 1]
        if self.labels is not None and not any(low <= label <= high for low, high in self.labels):
            return False
        if self.tc is not None and tc not in self.tc:
            return False
        return self.bottom is None or self.bottom == (len(flow.labels) == self.depth)

    def is_subset_of(self, other: "Match") -> bool:
        """Whether `other` surely holds wherever this one does; False also where that is not plain to see."""
        if other.looks_at_entry and other.depth != self.depth:
            return False
        labelled = True if self.looks_at_entry else self.labelled
        return (
            other.attachment in (None, self.attachment)
            and other.vrf in (None, self.vrf)
            and other.labelled in (None, labelled)
            and other.bottom in (None, self.bottom)
            and other.protocol in (None, self.protocol)
            and _set_within(self.tc, other.tc)
            and _set_within(self.dscp, other.dscp)
            and _networks_within(self.sources, other.sources)
            and _networks_within(self.destinations, other.destinations)
            and _ranges_within(self.labels, other.labels)
            and _ranges_within(_one(self.source_ports), _one(other.source_ports))
            and _ranges_within(_one(self.destination_ports), _one(other.destination_ports))
        )

    @property
    def looks_at_entry(self) -> bool:
        """Whether it asks anything of the entry at `depth`."""
        return not (self.labels is None and self.tc is None and self.bottom is None)

    def __str__(self) -> str:
        """`vrf red, dscp ef cs5`; `any` when nothing is asked."""
        return ", ".join(self._words()) or "any"

    def _words(self) -> Iterator[str]:
        if self.attachment is not None:
            yield f"attachment {self.attachment}"
        if self.vrf is not None:
            yield f"vrf {self.vrf}"
        if self.labelled is not None and not self.looks_at_entry:
            yield "labelled" if self.labelled else "unlabelled"
        at = f" at depth {self.depth}" if self.depth != 1 else ""
        if self.labels is not None:
            yield f"label {_ranges_text(self.labels)}{at}"
        if self.tc is not None:
            yield f"tc {' '.join(map(str, sorted(self.tc)))}{at}"
        if self.bottom is not None:
            yield f"{'bottom of stack' if self.bottom else 'not bottom of stack'}{at}"
        if self.sources is not None:
            yield f"from {' '.join(map(str, self.sources))}"
        if self.destinations is not None:
            yield f"to {' '.join(map(str, self.destinations))}"
        if self.protocol is not None:
            yield f"protocol {self.protocol}"
        if self.source_ports is not None:
            yield f"source port {_ranges_text((self.source_ports,))}"
        if self.destination_ports is not None:
            yield f"destination port {_ranges_text((self.destination_ports,))}"
        if self.dscp is not None:
            yield f"dscp {' '.join(map(dscp_text, sorted(self.dscp)))}"


@dataclass(frozen=True, slots=True)
class Protect:
    """Carry it as this VRF and class; `peer` None leaves the peer to the longest prefix."""

    vrf: str
    label_class: ClassId
    peer: str | None = None

    def __str__(self) -> str:
        return f"protect as {self.vrf}/{self.label_class}" + (f" to {self.peer}" if self.peer else "")


@dataclass(frozen=True, slots=True)
class Bypass:
    """Let it pass without ESP."""

    def __str__(self) -> str:
        return "bypass"


@dataclass(frozen=True, slots=True)
class Discard:
    """Drop it. `reason` is what it is counted as."""

    reason: DropReason = DropReason.DISCARDED

    def __str__(self) -> str:
        return "discard"


Action: TypeAlias = Protect | Bypass | Discard
NO_MATCH: Final = Discard(DropReason.NO_CLASS)
"""What the last rule of every map does."""


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    match: Match
    action: Action


@dataclass(frozen=True, slots=True)
class Row:
    """One printed line of a crypto map; `note` says why a rule can never be reached, else it is empty."""

    number: int
    name: str
    match: str
    action: str
    note: str


class CryptoMap:
    """Ordered rules, a bounded flow cache in front; the first that matches decides, the last one discards."""

    def __init__(self, rules: Iterable[Rule], cache_flows: int = FLOW_CACHE_FLOWS) -> None:
        self.rules = (*rules, Rule("last", Match(), NO_MATCH))
        self._index = RuleIndex([rule.match for rule in self.rules])
        self._cache: FlowCache[Flow, Action] = FlowCache(cache_flows)

    def lookup(self, flow: Flow) -> Action:
        action = self._cache.get(flow)
        if action is None:
            number = self._index.first(flow)
            action = NO_MATCH if number is None else self.rules[number].action
            self._cache.put(flow, action)
        return action

    def find(self, flow: Flow) -> tuple[int, Rule]:
        """The rule that `lookup` obeys, and its number as in `describe`: each is tried, without cache and index."""
        return next((n, rule) for n, rule in enumerate(self.rules, 1) if rule.match.holds(flow))

    @property
    def cached_flows(self) -> int:
        """How many flows the cache holds now; never more than it was made for."""
        return len(self._cache)

    def describe(self) -> tuple[Row, ...]:
        """Every rule in order; one that a single earlier rule hides is marked (unions are not looked for)."""
        rows: list[Row] = []
        for number, rule in enumerate(self.rules, 1):
            earlier = enumerate(self.rules[: number - 1], 1)
            hidden_by = next((n for n, before in earlier if rule.match.is_subset_of(before.match)), None)
            note = "" if hidden_by is None else f"never reached: rule {hidden_by} takes all of it"
            rows.append(Row(number, rule.name, str(rule.match), str(rule.action), note))
        return tuple(rows)


def compile_default(
    vrfs: Iterable[Vrf],
    served: Mapping[str, Collection[ClassId]] | None = None,
    labelled: Collection[str] = (),
) -> CryptoMap:
    """The map of a configuration without rules of its own: each VRF's classes in their order.

    served     VRF name -> the classes some peer may use; a class outside it gets no rule. None: all of them
    labelled   names of the VRFs with an attachment where packets arrive with labels: their class goes by TC
    """
    rules: list[Rule] = []
    for vrf in vrfs:
        for label_class in vrf.classes:
            if served is not None and label_class.id not in served.get(vrf.name, ()):
                continue
            action = Protect(vrf.name, label_class.id)
            name = f"{vrf.name}/{label_class.id}"
            is_mixed = vrf.name in labelled
            plain = Match(vrf=vrf.name, labelled=False if is_mixed else None, dscp=label_class.dscp or None)
            rules.append(Rule(name, plain, action))
            if is_mixed:
                tc = frozenset(label_class.tc) or None
                rules.append(Rule(f"{name} labelled", Match(vrf=vrf.name, labelled=True, tc=tc), action))
    return CryptoMap(rules)


def _address_holds(networks: tuple[Network, ...] | None, address: bytes) -> bool:
    if networks is None:
        return True
    if not address:
        return False
    value = ip_address(address)
    return any(value.version == network.version and value in network for network in networks)


def _port_holds(ports: Range | None, port: int | None) -> bool:
    return ports is None or (port is not None and ports[0] <= port <= ports[1])


def _one(ports: Range | None) -> tuple[Range, ...] | None:
    return None if ports is None else (ports,)


def _set_within(inner: frozenset[int] | None, outer: frozenset[int] | None) -> bool:
    return outer is None or (inner is not None and inner <= outer)


def _ranges_within(inner: tuple[Range, ...] | None, outer: tuple[Range, ...] | None) -> bool:
    if outer is None:
        return True
    if inner is None:
        return False
    return all(any(low <= first and last <= high for low, high in outer) for first, last in inner)


def _networks_within(inner: tuple[Network, ...] | None, outer: tuple[Network, ...] | None) -> bool:
    if outer is None:
        return True
    if inner is None:
        return False
    return all(any(_network_within(small, large) for large in outer) for small in inner)


def _network_within(small: Network, large: Network) -> bool:
    return (
        small.version == large.version
        and large.prefixlen <= small.prefixlen
        and small.network_address in large
    )


def _ranges_text(ranges: tuple[Range, ...]) -> str:
    return " ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
