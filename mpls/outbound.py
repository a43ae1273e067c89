"""The walk of a packet into a Child SA (RFC 4023, 4364, 3443, 4301 4.4.2 and 5.1).

Knows nothing of IKE, ESP, sockets and queues: it names peer and class, the caller has the Child SAs.

    packet of a VRF -> [stack] -> header -> uRPF -> crypto map: VRF, class -> TTL
    -> prefix: peer, label -> Labelled (stack, body)     caller: child, `check_outbound`, `check_size`
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

from mpls import ip
from mpls.child_policy import LabelMap, admits_label
from mpls.crypto_map import Bypass, CryptoMap, Discard, Flow, Protect
from mpls.drops import DropReason
from mpls.encapsulation import Encapsulation
from mpls.flow_cache import FlowCache
from mpls.hop import (
    BOTH_PAYLOADS,
    EXPLICIT_NULL,
    PAYLOAD_OF_VERSION,
    Drop,
    find_service_label,
    next_hop,
    next_lsr,
)
from mpls.identifiers import ClassId
from mpls.ip import IpHeader, PlainHeader
from mpls.labels import ENTRY_OCTETS, FIRST_ORDINARY_LABEL, MAX_ENTRIES, LabelEntry, LabelStack, SpecialLabel
from mpls.models import QosModel, TtlModel
from mpls.routes import PIPE_TTL, ForwardingTable
from mpls.vrf import Interface, Labels, Urpf, Vrf

_ENTROPY_PAIRS: Final = 1 << SpecialLabel.ENTROPY_LABEL_INDICATOR
_TTL_END: Final = 9
"""The TTL stands before this octet in IPv4 (the ninth) and IPv6 (the eighth)."""
Way: TypeAlias = tuple[str, str, ClassId, int | None, int, bytes, int, int, int]
"""A `Labelled` without its body."""
_DISCARDED: Final = Discard()
_SPECIAL_FROM_OUTSIDE: Final = {
    Labels.KEEP: _ENTROPY_PAIRS,
    Labels.POP: _ENTROPY_PAIRS | 1 << SpecialLabel.IPV4_EXPLICIT_NULL | 1 << SpecialLabel.IPV6_EXPLICIT_NULL,
}
"""The special labels that may come in by an attachment, as bits. What is kept must be legal at the egress."""


class Labelled(NamedTuple):
    """What the outbound walk ends with: `stack` and `body` go into the child of (peer, VRF, class).

    label, tc   of the service entry, the first; label None without a stack
    dscp        for the outer header
    ecn         that of the packet; the peer's policy says whether the outer header shows it (RFC 6040 4.1)
    ttl         for the outer header; 0: any
    """

    peer: str
    vrf: str
    label_class: ClassId
    label: int | None
    tc: int
    stack: bytes
    dscp: int
    ecn: int
    ttl: int
    body: bytes

    @property
    def way(self) -> Way:
        """All but the body: what packets of one flow have in common."""
        return self[:-1]


@dataclass(frozen=True, slots=True)
class Bypassed:
    """The packet passes without ESP, by a rule or into another VRF; attachment None for one of the PE's own.

    stack   the labels that it came with and keeps, encoded
    vrf     whose attachments it may leave by, where a leak leads; None: those of its own
    """

    attachment: str | None
    packet: bytes
    stack: bytes = b""
    vrf: str | None = None


class Outbound:
    """The outbound walk of one configuration. ValueError: the crypto map protects as an unknown class."""

    def __init__(
        self,
        vrfs: Iterable[Vrf],
        crypto_map: CryptoMap,
        table: ForwardingTable,
        is_for_peers: Callable[[int], bool] = lambda label: False,
    ) -> None:
        """`is_for_peers`: the labels that only come out of ESP (`LabelSpace.is_for_peers`)."""
        self._is_for_peers = is_for_peers
        self.vrfs: dict[str, Vrf] = {vrf.name: vrf for vrf in vrfs}
        self.crypto_map = crypto_map
        self.table = table
        # Of plain packets the first of a flow takes the walk; for the rest: its way, and whether TTL goes down.
        self._ways: FlowCache[tuple[str, int, int, bytes, int], tuple[Way, bool]] = FlowCache()
        self._without_uniform: set[str] = set()
        self._ways_version = table.version
        self._vrf_of = {a.name: vrf for vrf in self.vrfs.values() for a in vrf.attachments}
        self._classes = {(vrf.name, c.id): c for vrf in self.vrfs.values() for c in vrf.classes}
        for rule in crypto_map.rules:
            action = rule.action
            if isinstance(action, Protect) and (action.vrf, action.label_class) not in self._classes:
                raise ValueError(f"rule {rule.name}: no class {action.label_class} in VRF {action.vrf}")

    def assign(self, vrf: str, attachment: str, addresses: tuple[Interface, ...]) -> None:
        """From now on the PE has these addresses on the attachment. KeyError for a VRF that there is not."""
        old = self.vrfs[vrf]
        sides = (replace(a, addresses=addresses) if a.name == attachment else a for a in old.attachments)
        new = self.vrfs[vrf] = replace(old, attachments=tuple(sides))
        self._vrf_of |= {a.name: new for a in new.attachments}
        self._ways = FlowCache()

    def allow_uniform(self, peer: str, allowed: bool) -> None:
        """Whether the peer knows the uniform models; toward one that does not, all is pipe (WIRE 4.1)."""
        (self._without_uniform.discard if allowed else self._without_uniform.add)(peer)
        self._ways = FlowCache()

    def ttl_model(self, vrf: str, peer: str) -> TtlModel:
        """The model of packets of the VRF to and from that peer."""
        found = self.vrfs.get(vrf)
        return TtlModel.PIPE if found is None or peer in self._without_uniform else found.ttl_model

    def qos_model(self, vrf: str, label_class: ClassId | None, peer: str) -> QosModel:
        """As `ttl_model`, of the class."""
        found = self._classes.get((vrf, label_class)) if label_class is not None else None
        if found is None or (found.qos_model is QosModel.UNIFORM and peer in self._without_uniform):
            return QosModel.PIPE
        return found.qos_model

    def tc_of(self, vrf: str, label_class: ClassId | None, packet: bytes) -> int:
        """The TC that a packet of the class would get by its own DSCP."""
        dscp = ip.traffic_class_of(packet) >> 2
        found = self._classes.get((vrf, label_class)) if label_class is not None else None
        return dscp >> 3 if found is None else found.mark(dscp)

    @property
    def has_models(self) -> bool:
        """Whether anything is configured but the pipe model."""
        return any(vrf.ttl_model is not TtlModel.PIPE for vrf in self.vrfs.values()) or any(
            one.qos_model is not QosModel.PIPE for one in self._classes.values()
        )

    def forward(self, attachment: str, packet: bytes) -> Labelled | Bypassed | Drop:
        """An IP packet that came in by an attachment (KeyError for one that no VRF has)."""
        plain = PlainHeader.parse(packet)
        if plain is None or plain.ttl <= 1:
            return self._forward(attachment, packet)
        if self._ways_version != self.table.version:
            self._ways, self._ways_version = FlowCache(), self.table.version
        traffic_class, protocol, ends, total_octets, ttl = plain
        key = attachment, traffic_class, protocol, ends, ttl
        known = self._ways.get(key)
        if known is None:
            outcome = self._forward(attachment, packet)
            if isinstance(outcome, Labelled):
                self._ways.put(key, (outcome.way, outcome.body[:_TTL_END] != packet[:_TTL_END]))
            return outcome
        way, has_hop = known
        body = packet[:total_octets]
        return Labelled(*way, ip.decrement_ttl(body) if has_hop else body)

    def _forward(self, attachment: str, packet: bytes) -> Labelled | Bypassed | Drop:
        vrf = self._vrf_of[attachment]
        header = IpHeader.parse(packet)
        if isinstance(header, DropReason):
            return Drop(header, vrf.name)
        if not self._source_belongs(vrf, attachment, header.source):
            return Drop(DropReason.URPF, vrf.name)
        flow = Flow.of_packet(attachment, vrf.name, header)
        return self._walk(vrf, flow, header, packet[: header.total_octets])

    def forward_labelled(self, attachment: str, octets: bytes) -> Labelled | Bypassed | Drop:
        """A label stack and an IP packet behind it that came in by an attachment (KeyError as in `forward`).

        The labels end here or are kept, as the attachment says; INNER_LABEL where there must be none. A topmost
        label that a peer has, or may get, comes out of ESP or not at all: CLEARTEXT_MPLS (RFC 4023 8.1).
        """
        vrf = self._vrf_of[attachment]
        side = vrf.attachment(attachment)
        if side is None or side.labels is Labels.NONE:
            return Drop(DropReason.INNER_LABEL, vrf.name)
        labels = side.labels
        stack = LabelStack.parse(octets, MAX_ENTRIES - 1)  # one more is pushed
        if isinstance(stack, DropReason):
            return Drop(stack, vrf.name)
        found = find_service_label(stack, _SPECIAL_FROM_OUTSIDE[labels])
        if isinstance(found, DropReason):
            return Drop(found, vrf.name)
        topmost = stack.entries[0].label
        if self._is_for_peers(topmost):
            return Drop(DropReason.CLEARTEXT_MPLS, vrf.name)
        if not side.takes_label(topmost):
            return Drop(DropReason.LABEL_UNBOUND, vrf.name)
        packet = octets[stack.octet_count :]
        bottom = stack.entries[-1].label
        payload = EXPLICIT_NULL[SpecialLabel(bottom)] if bottom in EXPLICIT_NULL else BOTH_PAYLOADS
        if not packet or not payload & PAYLOAD_OF_VERSION.get(packet[0] >> 4, 0):
            return Drop(DropReason.PAYLOAD, vrf.name)
        header = IpHeader.parse(packet)
        if isinstance(header, DropReason):
            return Drop(header, vrf.name)
        if not self._source_belongs(vrf, attachment, header.source):
            return Drop(DropReason.URPF, vrf.name)
        packet = packet[: header.total_octets]
        entries = next_lsr(vrf, stack.entries, packet)
        if isinstance(entries, Drop):
            return entries
        are_kept = labels is Labels.KEEP
        flow = Flow.of_labelled(attachment, vrf.name, stack.entries, packet, are_kept=are_kept)
        kept = LabelStack(entries).encode() if are_kept else b""
        return self._walk(vrf, flow, header, packet, stack.entries[0].tc, kept)

    def originate(self, vrf: str, packet: bytes) -> Labelled | Bypassed | Drop:
        """An IP packet of the PE's own, such as the ICMP error of an inbound drop: no attachment, no uRPF."""
        header = IpHeader.parse(packet)
        if isinstance(header, DropReason):
            return Drop(header, vrf)
        return self._walk(
            self.vrfs[vrf], Flow.of_packet(None, vrf, header), header, packet[: header.total_octets]
        )

    def _walk(
        self,
        vrf: Vrf,
        flow: Flow,
        header: IpHeader,
        packet: bytes,
        tc: int | None = None,
        kept: bytes = b"",
    ) -> Labelled | Bypassed | Drop:
        """`tc` of a packet that came with labels; `kept`: those that go on below the service label."""
        inside = self.leads_to(vrf, header.destination)
        if inside is not vrf:
            flow = flow._replace(vrf=inside.name)
        action = self.crypto_map.lookup(flow)
        if inside is not vrf and inside.is_local(header.destination) and action != _DISCARDED:
            body = next_hop(vrf, header, packet)
            return body if isinstance(body, Drop) else Bypassed(flow.attachment, body, kept, inside.name)
        if isinstance(action, Discard):
            return Drop(action.reason, vrf.name)
        if isinstance(action, Bypass):
            return Bypassed(flow.attachment, packet, kept)
        label_class = self._classes[action.vrf, action.label_class]
        is_forwarded_by_ip = not kept and header.source not in vrf.local_addresses
        body = next_hop(vrf, header, packet) if is_forwarded_by_ip else packet
        if isinstance(body, Drop):
            return body
        route = self.table.route(action.vrf, action.label_class, header.destination, action.peer)
        if isinstance(route, DropReason):
            source = vrf.router_address(header.version)
            return Drop(
                route,
                action.vrf,
                action.label_class,
                self.table.candidate(action.vrf, action.label_class, header.destination, action.peer),
                ip.icmp_unreachable(packet, source) if source else None,
            )
        tc = label_class.mark(header.dscp, tc)
        stack = route.stacks[tc]
        if kept:
            if route.label is None:  # a peer for plain IP packets cannot carry them
                return Drop(DropReason.OUTSIDE_SELECTOR, action.vrf, action.label_class, route.peer)
            stack = LabelEntry(route.label, tc, False, PIPE_TTL).encode() + kept
        ttl = 0
        if route.label is not None and self.ttl_model(action.vrf, route.peer) is TtlModel.UNIFORM:
            ttl = max(1, kept[ENTRY_OCTETS - 1] if kept else ip.ttl_of(body))
            stack = LabelEntry(route.label, tc, not kept, ttl).encode() + kept
        return Labelled(
            route.peer,
            action.vrf,
            action.label_class,
            route.label,
            tc,
            stack,
            label_class.outer(header.dscp),
            header.ecn,
            ttl,
            body,
        )

    def leads_to(self, vrf: Vrf, destination: bytes) -> Vrf:
        """The VRF in which a packed destination of `vrf` is: another one only by a leak."""
        return self.vrfs.get(vrf.vrf_of(destination), vrf)

    def _source_belongs(self, vrf: Vrf, attachment: str, source: bytes) -> bool:
        match vrf.urpf:
            case Urpf.STRICT:
                return vrf.is_behind(attachment, source)
            case Urpf.LOOSE:
                return vrf.is_local(source) or self.table.has_route(vrf.name, source)
            case Urpf.OFF:
                return True

    def check_size(self, labelled: Labelled, tunnel_mtu: int) -> Drop | None:
        """TOO_BIG above the Tunnel MTU (labels included); the ICMP says it less the labels (RFC 4023 5.1)."""
        if len(labelled.stack) + len(labelled.body) <= tunnel_mtu:
            return None
        source = self.vrfs[labelled.vrf].router_address(labelled.body[0] >> 4)
        reply = ip.icmp_too_big(labelled.body, source, tunnel_mtu - len(labelled.stack)) if source else None
        return Drop(DropReason.TOO_BIG, labelled.vrf, labelled.label_class, labelled.peer, reply)


def check_outbound(child_map: LabelMap | None, labelled: Labelled, used: Encapsulation) -> DropReason | None:
    """OUTSIDE_SELECTOR when label, TC, depth or encapsulation is not in the child's outbound map.

    A child for plain IP packets has no map and carries nothing with a label, the others nothing without.
    """
    if child_map is None or labelled.label is None:
        is_inside = child_map is None and labelled.label is None and used is Encapsulation.NONE
    else:
        depth = len(labelled.stack) // ENTRY_OCTETS
        is_inside = (
            bool(child_map.encapsulations & used.mask)
            and bool(child_map.tc >> labelled.tc & 1)
            and child_map.depth[0] <= depth <= child_map.depth[1]
            and admits_label(child_map, labelled.label)
            and (depth == 1 or _admits_kept(child_map, labelled.stack[ENTRY_OCTETS:]))
        )
    return None if is_inside else DropReason.OUTSIDE_SELECTOR


def _admits_kept(child_map: LabelMap, kept: bytes) -> bool:
    """Whether every special label of an encoded stack has its bit in key 7."""
    labels = (LabelEntry.parse(kept, offset).label for offset in range(0, len(kept), ENTRY_OCTETS))
    return all(label >= FIRST_ORDINARY_LABEL or child_map.special >> label & 1 for label in labels)
