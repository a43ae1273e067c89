"""The two walks of a packet: into a Child SA and out of one (RFC 4023, 4364, 3443, 4301 4.4.2 and 5.2).

Knows nothing of IKE, ESP, sockets and queues: it names peer and class, the caller has the Child SAs.

    outbound   packet of a VRF -> header -> uRPF -> crypto map: VRF, class -> TTL -> prefix: peer, label
               -> Labelled (label stack, body)          caller: child, `check_outbound`, `Outbound.check_size`
    inbound    payload of a Child SA -> next header -> inner, outer addresses -> GRE or UDP header -> stack
               -> service label -> accept set -> TC -> TTL -> payload -> Delivery (VRF, IP packet)

TTL is the pipe model (RFC 3443 3.3): ingress and egress each take one from the inner TTL, as any router does,
and the label starts at 255 whatever the inner one is. A packet from or to an address of the PE itself is not
forwarded by that PE, so there the step is left out. Outer DSCP, ECN and TTL are not authenticated: not used.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mpls import encapsulation, ip
from mpls.child_policy import AddressMatch, EgressPolicy, LabelMap, PlainMap, admits_label
from mpls.crypto_map import Bypass, CryptoMap, Discard, Flow, Protect
from mpls.drops import DropReason
from mpls.encapsulation import Encapsulation, Mode
from mpls.identifiers import ClassId
from mpls.ip import IpHeader
from mpls.label_space import LabelOwner, LabelSpace
from mpls.labels import FIRST_ORDINARY_LABEL, LabelEntry, LabelStack, SpecialLabel
from mpls.routes import ForwardingTable, Route
from mpls.vrf import Urpf, Vrf

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
    "check_cleartext",
    "check_inbound",
    "check_outbound",
]

IPV4_PAYLOAD: Final = 1
IPV6_PAYLOAD: Final = 2
_VERSION_OF_NEXT_HEADER: Final = {encapsulation.IPV4_IN_IP: 4, encapsulation.IPV6_IN_IP: 6}
_PAYLOAD_OF_VERSION: Final = {4: IPV4_PAYLOAD, 6: IPV6_PAYLOAD}
_EXPLICIT_NULL: Final = {
    SpecialLabel.IPV4_EXPLICIT_NULL: IPV4_PAYLOAD,
    SpecialLabel.IPV6_EXPLICIT_NULL: IPV6_PAYLOAD,
}


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


@dataclass(frozen=True, slots=True)
class Labelled:
    """What the outbound walk ends with: `stack` and `body` go into the child of (peer, VRF, class).

    label, tc   of the one entry; label None without a stack
    dscp        for the outer header, whose ECN field is Not-ECT (RFC 6040 4.1, compatibility mode)
    """

    peer: str
    vrf: str
    label_class: ClassId
    label: int | None
    tc: int
    stack: bytes
    body: bytes
    dscp: int


@dataclass(frozen=True, slots=True)
class Bypassed:
    """A rule of the crypto map lets the packet pass without ESP; attachment None for one of the PE's own."""

    attachment: str | None
    packet: bytes


class Outbound:
    """The outbound walk of one configuration. ValueError: the crypto map protects as an unknown class."""

    def __init__(self, vrfs: Iterable[Vrf], crypto_map: CryptoMap, table: ForwardingTable) -> None:
        self.vrfs: dict[str, Vrf] = {vrf.name: vrf for vrf in vrfs}
        self.crypto_map = crypto_map
        self.table = table
        self._vrf_of = {a.name: vrf for vrf in self.vrfs.values() for a in vrf.attachments}
        self._classes = {(vrf.name, c.id): c for vrf in self.vrfs.values() for c in vrf.classes}
        for rule in crypto_map.rules:
            action = rule.action
            if isinstance(action, Protect) and (action.vrf, action.label_class) not in self._classes:
                raise ValueError(f"rule {rule.name}: no class {action.label_class} in VRF {action.vrf}")

    def forward(self, attachment: str, packet: bytes) -> Labelled | Bypassed | Drop:
        """An IP packet that came in by an attachment (KeyError for one that no VRF has)."""
        vrf = self._vrf_of[attachment]
        header = IpHeader.parse(packet)
        if isinstance(header, DropReason):
            return Drop(header, vrf.name)
        if not self._source_belongs(vrf, attachment, header.source):
            return Drop(DropReason.URPF, vrf.name)
        return self._walk(vrf, attachment, header, packet[: header.total_octets])

    def originate(self, vrf: str, packet: bytes) -> Labelled | Bypassed | Drop:
        """An IP packet of the PE's own, such as the ICMP error of an inbound drop: no attachment, no uRPF."""
        header = IpHeader.parse(packet)
        if isinstance(header, DropReason):
            return Drop(header, vrf)
        return self._walk(self.vrfs[vrf], None, header, packet[: header.total_octets])

    def _walk(
        self, vrf: Vrf, attachment: str | None, header: IpHeader, packet: bytes
    ) -> Labelled | Bypassed | Drop:
        action = self.crypto_map.lookup(Flow.of_packet(attachment, vrf.name, header))
        if isinstance(action, Discard):
            return Drop(action.reason, vrf.name)
        if isinstance(action, Bypass):
            return Bypassed(attachment, packet)
        label_class = self._classes[action.vrf, action.label_class]
        body = packet if header.source in vrf.local_addresses else _next_hop(vrf, header, packet)
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
        tc = label_class.mark(header.dscp)
        return Labelled(
            route.peer,
            action.vrf,
            action.label_class,
            route.label,
            tc,
            route.stacks[tc],
            body,
            label_class.outer(header.dscp),
        )

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
        is_inside = (
            bool(child_map.encapsulations & used.mask)
            and bool(child_map.tc >> labelled.tc & 1)
            and child_map.depth[0] == 1
            and admits_label(child_map, labelled.label)
        )
    return None if is_inside else DropReason.OUTSIDE_SELECTOR


def _next_hop(vrf: Vrf | None, header: IpHeader, packet: bytes) -> bytes | Drop:
    """The packet with its TTL one less, or TTL_EXPIRED. TTL 0 was wrongly sent and gets no answer."""
    if header.ttl > 1:
        return ip.decrement_ttl(packet)
    name = vrf.name if vrf else None
    if header.ttl == 0:
        return Drop(DropReason.TTL, name)
    return Drop(DropReason.TTL_EXPIRED, name, reply=_time_exceeded(vrf, packet))


def _time_exceeded(vrf: Vrf | None, packet: bytes) -> bytes | None:
    source = vrf.router_address(packet[0] >> 4) if vrf and packet else None
    return ip.icmp_time_exceeded(packet, source) if source else None


# --------------------------------------------------------------------------------------------------- inbound


@dataclass(frozen=True, slots=True)
class Delivery:
    """An IP packet for a VRF. label and tc are those of the service label, None and 0 for plain IP."""

    vrf: str
    label_class: ClassId | None
    label: int | None
    tc: int
    packet: bytes


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
        return _deliver(policy.vrf or "", policy.label_class, None, 0, opened, vrfs)

    stack = LabelStack.parse(opened, policy.map.depth[1])
    if isinstance(stack, DropReason):
        return _drop(policy, stack)
    if len(stack) < policy.map.depth[0]:
        return _drop(policy, DropReason.STACK_DEPTH)
    found = _find_service_label(stack, policy.map.special)
    if isinstance(found, DropReason):
        return _drop(policy, found)
    service, has_inner_label = found
    owner = _find_owner(policy, policy.map, labels, service.label)
    if owner is DropReason.LABEL_FOREIGN:
        addresses = f"from {outer_source} to {outer_destination}"
        return _drop(policy, owner, _foreign_text(policy, labels.lookup(service.label), stack, addresses))
    if isinstance(owner, DropReason):
        return _drop(policy, owner)

    body = opened[stack.octet_count :]
    if not policy.map.tc >> service.tc & 1:
        return _drop(policy, DropReason.TC)
    if service.ttl == 0:
        return _drop(policy, DropReason.TTL)
    if service.ttl == 1:
        reply = _time_exceeded(vrfs.get(owner.vrf), body)
        return Drop(DropReason.TTL_EXPIRED, owner.vrf, owner.label_class, policy.peer, reply)
    if not body or not owner.payload & _PAYLOAD_OF_VERSION.get(body[0] >> 4, 0):
        return _drop(policy, DropReason.PAYLOAD)
    if has_inner_label:
        return _drop(policy, DropReason.INNER_LABEL)
    return _deliver(owner.vrf, owner.label_class, service.label, service.tc, body, vrfs)


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
    if outer_source != policy.peer_address or outer_destination not in policy.local_addresses:
        return DropReason.OUTER_ADDRESS
    if policy.map is None:
        return payload
    if protocol == ip.UDP and not policy.admits_udp_ports(octets):
        return DropReason.UDP_HEADER
    return encapsulation.strip(protocol, octets, source, destination, policy.gre)


def _find_service_label(stack: LabelStack, special: int) -> tuple[LabelEntry, bool] | DropReason:
    """The entry that names VRF and class, and whether an ordinary label stands below it.

    Above it only router alert; below it ordinary labels and pairs of entropy label indicator and its label
    (RFC 6790); each special one with its bit in `special`. Else SPECIAL_LABEL.
    """
    service: LabelEntry | None = None
    has_inner_label = False
    entries = iter(stack.entries)
    for entry in entries:
        is_allowed = entry.label < FIRST_ORDINARY_LABEL and special >> entry.label & 1
        if entry.label >= FIRST_ORDINARY_LABEL:
            has_inner_label = service is not None
            service = service or entry
        elif not is_allowed:
            return DropReason.SPECIAL_LABEL
        elif service is None and entry.label in _EXPLICIT_NULL and entry.bottom:
            service = entry
        elif service is None and entry.label == SpecialLabel.ROUTER_ALERT and not entry.bottom:
            continue
        elif service is not None and entry.label == SpecialLabel.ENTROPY_LABEL_INDICATOR and not entry.bottom:
            entropy = next(entries)
            if entropy.label < FIRST_ORDINARY_LABEL or entropy.ttl != 0:
                return DropReason.SPECIAL_LABEL
        else:
            return DropReason.SPECIAL_LABEL
    if service is None:  # a stack without S=1 at its end never gets here, but nothing below relies on that
        return DropReason.NO_SERVICE_LABEL
    return service, has_inner_label


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


def _foreign_text(policy: EgressPolicy, owner: LabelOwner | None, stack: LabelStack, addresses: str) -> str:
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
    packet: bytes,
    vrfs: Mapping[str, Vrf],
) -> Delivery | Drop:
    """The last hop inside this PE: TTL as a router treats it, and no padding behind the packet."""
    header = IpHeader.parse(packet)
    if isinstance(header, DropReason):
        return Drop(header, vrf_name, label_class)
    vrf = vrfs.get(vrf_name)
    packet = packet[: header.total_octets]
    if vrf is not None and header.destination in vrf.local_addresses:
        return Delivery(vrf_name, label_class, label, tc, packet)
    forwarded = _next_hop(vrf, header, packet)
    if isinstance(forwarded, Drop):
        return forwarded
    return Delivery(vrf_name, label_class, label, tc, forwarded)
