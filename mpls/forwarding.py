"""The two walks of a packet: into a Child SA and out of one (RFC 4023, 4364, 3443, 4301 4.4.2 and 5.2).

Knows nothing of IKE, ESP, sockets and queues: it names peer and class, the caller has the Child SAs.

    outbound   packet of a VRF -> [stack] -> header -> uRPF -> crypto map: VRF, class -> TTL
               -> prefix: peer, label -> Labelled (stack, body)     caller: child, `check_outbound`, `check_size`
    inbound    payload of a Child SA -> next header -> inner, outer addresses -> GRE or UDP header -> stack
               -> service label -> accept set -> TC -> TTL -> payload -> Delivery (VRF, [stack], IP packet)

TTL is the pipe model (RFC 3443 3.3): ingress and egress each take one from the inner TTL, as any router does,
and the label starts at 255 whatever the inner one is. A packet from or to an address of the PE itself is not
forwarded by that PE, so there the step is left out. Labels that an attachment keeps travel below the service
label like a payload: ingress and egress each take one from the TTL of the topmost, as any LSR does.
Outer DSCP, ECN and TTL are not authenticated: not used here; `models` says what else may be configured, as the
uniform model, in which the label starts at the packet's own TTL.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

from mpls import encapsulation, ip, plain
from mpls.child_policy import AddressMatch, EgressPolicy, LabelMap, PlainMap, admits_label
from mpls.crypto_map import Bypass, CryptoMap, Discard, Flow, Protect
from mpls.drops import DropReason
from mpls.encapsulation import Encapsulation, Mode
from mpls.flow_cache import FlowCache
from mpls.identifiers import ClassId
from mpls.ip import IpHeader, PlainHeader
from mpls.label_space import LabelOwner, LabelSpace
from mpls.labels import ENTRY_OCTETS, FIRST_ORDINARY_LABEL, MAX_ENTRIES, LabelEntry, LabelStack, SpecialLabel
from mpls.models import QosModel, TtlModel
from mpls.routes import PIPE_TTL, ForwardingTable, Route
from mpls.vrf import Interface, Labels, Urpf, Vrf

__all__ = [
    "AddressMatch",
    "Bypassed",
    "Delivery",
    "Drop",
    "EgressPolicy",
    "ForwardingTable",
    "LabelMap",
    "Labelled",
    "Outbound",
    "PlainMap",
    "Route",
    "Way",
    "check_cleartext",
    "check_inbound",
    "check_outbound",
    "time_exceeded",
]

IPV4_PAYLOAD: Final = 1
IPV6_PAYLOAD: Final = 2
BOTH_PAYLOADS: Final = IPV4_PAYLOAD | IPV6_PAYLOAD
_VERSION_OF_NEXT_HEADER: Final = {encapsulation.IPV4_IN_IP: 4, encapsulation.IPV6_IN_IP: 6}
_PAYLOAD_OF_VERSION: Final = {4: IPV4_PAYLOAD, 6: IPV6_PAYLOAD}
_EXPLICIT_NULL: Final = {
    SpecialLabel.IPV4_EXPLICIT_NULL: IPV4_PAYLOAD,
    SpecialLabel.IPV6_EXPLICIT_NULL: IPV6_PAYLOAD,
}


_ENTROPY_PAIRS: Final = 1 << SpecialLabel.ENTROPY_LABEL_INDICATOR
_BOTTOM: Final = 0x100
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


@dataclass(frozen=True, slots=True)
class Drop:
    """A packet that goes no further.

    vrf, label_class   how far it got
    peer               of NO_LABEL: who may serve the destination once a label is bound, so waiting can help
    reply              an ICMP error, a whole IP packet: of an outbound drop for the attachment it came from,
                       of an inbound drop for `Outbound.originate`
    detail             of LABEL_FOREIGN, for the audit
    """

    reason: DropReason
    vrf: str | None = None
    label_class: ClassId | None = None
    peer: str | None = None
    reply: bytes | None = None
    detail: str = ""


# -------------------------------------------------------------------------------------------------- outbound


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
        found = _find_service_label(stack, _SPECIAL_FROM_OUTSIDE[labels])
        if isinstance(found, DropReason):
            return Drop(found, vrf.name)
        topmost = stack.entries[0].label
        if self._is_for_peers(topmost):
            return Drop(DropReason.CLEARTEXT_MPLS, vrf.name)
        if not side.takes_label(topmost):
            return Drop(DropReason.LABEL_UNBOUND, vrf.name)
        packet = octets[stack.octet_count :]
        bottom = stack.entries[-1].label
        payload = _EXPLICIT_NULL[SpecialLabel(bottom)] if bottom in _EXPLICIT_NULL else BOTH_PAYLOADS
        if not packet or not payload & _PAYLOAD_OF_VERSION.get(packet[0] >> 4, 0):
            return Drop(DropReason.PAYLOAD, vrf.name)
        header = IpHeader.parse(packet)
        if isinstance(header, DropReason):
            return Drop(header, vrf.name)
        if not self._source_belongs(vrf, attachment, header.source):
            return Drop(DropReason.URPF, vrf.name)
        packet = packet[: header.total_octets]
        entries = _next_lsr(vrf, stack.entries, packet)
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
            body = _next_hop(vrf, header, packet)
            return body if isinstance(body, Drop) else Bypassed(flow.attachment, body, kept, inside.name)
        if isinstance(action, Discard):
            return Drop(action.reason, vrf.name)
        if isinstance(action, Bypass):
            return Bypassed(flow.attachment, packet, kept)
        label_class = self._classes[action.vrf, action.label_class]
        is_forwarded_by_ip = not kept and header.source not in vrf.local_addresses
        body = _next_hop(vrf, header, packet) if is_forwarded_by_ip else packet
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


def _next_lsr(vrf: Vrf | None, stack: tuple[LabelEntry, ...], packet: bytes) -> tuple[LabelEntry, ...] | Drop:
    """The stack with the TTL of its topmost entry one less, or as `_next_hop`; `packet` is what it labels."""
    top, name = stack[0], vrf.name if vrf else None
    if top.ttl == 0:
        return Drop(DropReason.TTL, name)
    if top.ttl == 1:
        return Drop(DropReason.TTL_EXPIRED, name, reply=time_exceeded(vrf, packet))
    return replace(top, ttl=top.ttl - 1), *stack[1:]


def _next_hop(vrf: Vrf | None, header: IpHeader | PlainHeader, packet: bytes) -> bytes | Drop:
    """The packet with its TTL one less, or TTL_EXPIRED. TTL 0 was wrongly sent and gets no answer."""
    if header.ttl > 1:
        return ip.decrement_ttl(packet)
    name = vrf.name if vrf else None
    if header.ttl == 0:
        return Drop(DropReason.TTL, name)
    return Drop(DropReason.TTL_EXPIRED, name, reply=time_exceeded(vrf, packet))


def time_exceeded(vrf: Vrf | None, packet: bytes) -> bytes | None:
    """The ICMP error into the VRF, from an address of the PE; None where none may be sent."""
    source = vrf.router_address(packet[0] >> 4) if vrf and packet else None
    return ip.icmp_time_exceeded(packet, source) if source else None


# --------------------------------------------------------------------------------------------------- inbound


class Delivery(NamedTuple):
    """An IP packet for a VRF. label and tc are those of the service label, None and 0 for plain IP.

    stack      labels in front of it, encoded, for an attachment that keeps them
    label_ttl  of the service label as it came, 0 for plain IP
    """

    vrf: str
    label_class: ClassId | None
    label: int | None
    tc: int
    packet: bytes
    stack: bytes = b""
    label_ttl: int = 0


_NO_VRFS: Final[Mapping[str, Vrf]] = {}


def check_inbound(
    policy: EgressPolicy,
    labels: LabelSpace,
    next_header: int,
    payload: bytes,
    outer_source: str,
    outer_destination: str,
    vrfs: Mapping[str, Vrf] = _NO_VRFS,
) -> Delivery | Drop:
    """The egress check of what a Child SA delivered, after ICV and replay; the first failure names the drop.

    For every delivery of a strict policy the VRF and class of the label are the VRF and class of the SA.
    `vrfs` gives the PE's own addresses, which ICMP errors come from.
    """
    opened = _open(policy, next_header, payload, outer_source, outer_destination)
    if isinstance(opened, DropReason):
        return _drop(policy, opened)
    if policy.map is None:
        return _deliver(policy.vrf or "", policy.label_class, None, 0, 0, opened, vrfs)

    found = _find_service(policy.map, opened)
    if isinstance(found, DropReason):
        return _drop(policy, found)
    label, tc, ttl, stack_octets, inner = found
    owner = _find_owner(policy, policy.map, labels, label)
    if owner is DropReason.LABEL_FOREIGN:
        addresses = f"from {outer_source} to {outer_destination}"
        stack = LabelStack.parse(opened)
        return _drop(policy, owner, _foreign_text(policy, labels.lookup(label), stack, addresses))
    if isinstance(owner, DropReason):
        return _drop(policy, owner)

    body = opened[stack_octets:]
    if not policy.map.tc >> tc & 1:
        return _drop(policy, DropReason.TC)
    if ttl == 0:
        return _drop(policy, DropReason.TTL)
    if ttl == 1:
        reply = time_exceeded(vrfs.get(owner.vrf), body)
        return Drop(DropReason.TTL_EXPIRED, owner.vrf, owner.label_class, policy.peer, reply)
    if not body or not owner.payload & _PAYLOAD_OF_VERSION.get(body[0] >> 4, 0):
        return _drop(policy, DropReason.PAYLOAD)
    if inner:
        return _deliver_labelled(policy, owner, label, tc, ttl, inner, body, vrfs.get(owner.vrf))
    return _deliver(owner.vrf, owner.label_class, label, tc, ttl, body, vrfs)


def check_cleartext(
    protocol: int, payload: bytes, source: str, inside_sources: Collection[str] = ()
) -> DropReason | None:
    """CLEARTEXT_MPLS for an IP payload with MPLS that did not come out of ESP (RFC 4023 8.1).

    `inside_sources`: addresses, as text, of the attachments whose MPLS packets come to be protected.
    """
    if encapsulation.is_cleartext_mpls(protocol, payload) and source not in inside_sources:
        return DropReason.CLEARTEXT_MPLS
    return None


def _drop(policy: EgressPolicy, reason: DropReason, detail: str = "") -> Drop:
    return Drop(reason, policy.vrf, policy.label_class, policy.peer, detail=detail)


def _open(
    policy: EgressPolicy, next_header: int, payload: bytes, outer_source: str, outer_destination: str
) -> bytes | DropReason:
    """Next header, inner and outer addresses, GRE or UDP header: the MPLS packet, or the plain IP packet."""
    if next_header == encapsulation.NO_NEXT_HEADER:
        return DropReason.DUMMY
    if policy.map is None and policy.mode is Mode.TRANSPORT:
        if not policy.admits_outer(outer_source, outer_destination):
            return DropReason.OUTER_ADDRESS
        return plain.open_transport(policy, next_header, payload, outer_source, outer_destination)
    protocol, octets = next_header, payload
    source: str | bytes = outer_source
    destination: str | bytes = outer_destination
    if policy.mode is Mode.TUNNEL:
        if next_header not in _VERSION_OF_NEXT_HEADER:
            return DropReason.NEXT_HEADER
        header = IpHeader.parse(payload)
        if isinstance(header, DropReason):
            return header
        if header.version != _VERSION_OF_NEXT_HEADER[next_header]:
            return DropReason.MALFORMED_IP
        if not policy.admits_addresses(header):
            return DropReason.ADDRESS_SELECTOR
        protocol, octets = header.protocol, payload[header.upper_offset : header.total_octets]
        source, destination = header.source, header.destination
        if policy.map is not None:
            if header.is_fragment:  # a part of an MPLS packet; none is ever put together here
                return DropReason.MALFORMED_IP
            if not policy.admits_encapsulation(protocol):
                return DropReason.ADDRESS_SELECTOR
    elif not policy.admits_encapsulation(next_header):
        return DropReason.NEXT_HEADER
    if not policy.admits_outer(outer_source, outer_destination):
        return DropReason.OUTER_ADDRESS
    if policy.map is None:
        return payload
    if protocol == ip.UDP:
        if not policy.admits_udp_ports(octets):
            return DropReason.UDP_HEADER
        if policy.original_addresses is not None:  # RFC 3948 3.1.2
            source, destination = policy.original_addresses
    return encapsulation.strip(protocol, octets, source, destination, policy.gre)


def _find_service(
    child_map: LabelMap, opened: bytes
) -> tuple[int, int, int, int, tuple[LabelEntry, ...]] | DropReason:
    """Label, TC and TTL of the service entry, the octets of the stack, and what stands below as below."""
    least, most = child_map.depth
    word = int.from_bytes(opened[:ENTRY_OCTETS], "big")
    if least == 1 and word & _BOTTOM and word >> 12 >= FIRST_ORDINARY_LABEL and len(opened) >= ENTRY_OCTETS:
        # One ordinary entry, as nearly every packet has: there is nothing to look for.
        return word >> 12, word >> 9 & 7, word & 0xFF, ENTRY_OCTETS, ()
    stack = LabelStack.parse(opened, most)
    if isinstance(stack, DropReason):
        return stack
    if len(stack) < least:
        return DropReason.STACK_DEPTH
    found = _find_service_label(stack, child_map.special)
    if isinstance(found, DropReason):
        return found
    service, inner = found
    return service.label, service.tc, service.ttl, stack.octet_count, inner


def _find_service_label(
    stack: LabelStack, special: int
) -> tuple[LabelEntry, tuple[LabelEntry, ...]] | DropReason:
    """The entry that names VRF and class, and the stack below it from its first ordinary label on.

    Above it only router alert; below it ordinary labels and pairs of entropy label indicator and its label
    (RFC 6790), of which the first pair ends with the service label; each special one with its bit in
    `special`. Else SPECIAL_LABEL.
    """
    service: LabelEntry | None = None
    inner_at = len(stack)
    entries = iter(enumerate(stack.entries))
    for at, entry in entries:
        is_allowed = entry.label < FIRST_ORDINARY_LABEL and special >> entry.label & 1
        if entry.label >= FIRST_ORDINARY_LABEL:
            inner_at = inner_at if service is None else min(inner_at, at)
            service = service or entry
        elif not is_allowed:
            return DropReason.SPECIAL_LABEL
        elif service is None and entry.label in _EXPLICIT_NULL and entry.bottom:
            service = entry
        elif service is None and entry.label == SpecialLabel.ROUTER_ALERT and not entry.bottom:
            continue
        elif service is not None and entry.label == SpecialLabel.ENTROPY_LABEL_INDICATOR and not entry.bottom:
            _, entropy = next(entries)
            if entropy.label < FIRST_ORDINARY_LABEL or entropy.ttl != 0:
                return DropReason.SPECIAL_LABEL
        else:
            return DropReason.SPECIAL_LABEL
    if service is None:  # a stack without S=1 at its end never gets here, but nothing below relies on that
        return DropReason.NO_SERVICE_LABEL
    return service, stack.entries[inner_at:]


def _find_owner(
    policy: EgressPolicy, child_map: LabelMap, labels: LabelSpace, label: int
) -> LabelOwner | DropReason:
    """Whose the service label is: given out to this peer and session, for this (VRF, class) if strict."""
    if label in _EXPLICIT_NULL:  # its bit was asked for; the SA alone names VRF and class
        if not policy.strict or policy.vrf is None or policy.label_class is None:
            return DropReason.LABEL_UNBOUND
        payload = _EXPLICIT_NULL[SpecialLabel(label)]
        return LabelOwner(policy.peer, policy.vrf, policy.label_class, payload, policy.session)
    if not admits_label(child_map, label):
        return DropReason.LABEL_RANGE
    owner = labels.lookup(label)
    if owner is None or not owner.is_accepted:
        return DropReason.LABEL_UNBOUND
    is_ours = (
        owner.peer == policy.peer
        and owner.session in (None, policy.session)
        and (not policy.strict or policy.vrf in (None, owner.vrf))
        and (not policy.strict or policy.label_class in (None, owner.label_class))
    )
    return owner if is_ours else DropReason.LABEL_FOREIGN


def _foreign_text(
    policy: EgressPolicy, owner: LabelOwner | None, stack: LabelStack | DropReason, addresses: str
) -> str:
    named = f"VRF {policy.vrf} class {policy.label_class}" if policy.vrf is not None else "all VRFs"
    given = f"VRF {owner.vrf} class {owner.label_class} of peer {owner.peer}" if owner else "nobody"
    return (
        f"stack [{stack}] {addresses}: the label belongs to {given}, the SA to {named} of peer {policy.peer}"
    )


def _deliver(
    vrf_name: str,
    label_class: ClassId | None,
    label: int | None,
    tc: int,
    ttl: int,
    packet: bytes,
    vrfs: Mapping[str, Vrf],
) -> Delivery | Drop:
    """The last hop inside this PE: TTL as a router treats it, and no padding behind the packet."""
    header = PlainHeader.parse(packet) or IpHeader.parse(packet)
    if isinstance(header, DropReason):
        return Drop(header, vrf_name, label_class)
    vrf = vrfs.get(vrf_name)
    packet = packet[: header.total_octets]
    if vrf is not None and header.destination in vrf.local_addresses:
        return Delivery(vrf_name, label_class, label, tc, packet, label_ttl=ttl)
    forwarded = _next_hop(vrf, header, packet)
    if isinstance(forwarded, Drop):
        return forwarded
    return Delivery(vrf_name, label_class, label, tc, forwarded, label_ttl=ttl)


def _deliver_labelled(
    policy: EgressPolicy,
    owner: LabelOwner,
    label: int,
    tc: int,
    ttl: int,
    inner: tuple[LabelEntry, ...],
    packet: bytes,
    vrf: Vrf | None,
) -> Delivery | Drop:
    """Labels below the service label pass only to an attachment that keeps labels; else INNER_LABEL."""
    if vrf is None or all(one.labels is not Labels.KEEP for one in vrf.attachments):
        return _drop(policy, DropReason.INNER_LABEL)
    header = IpHeader.parse(packet)
    if isinstance(header, DropReason):
        return _drop(policy, header)
    attachment = vrf.attachment_for(header.destination)
    if attachment is None or vrf.labels_of(attachment) is not Labels.KEEP:
        return _drop(policy, DropReason.INNER_LABEL)
    packet = packet[: header.total_octets]
    entries = _next_lsr(vrf, inner, packet)
    if isinstance(entries, Drop):
        return entries
    stack = LabelStack(entries).encode()
    return Delivery(owner.vrf, owner.label_class, label, tc, packet, stack, ttl)
