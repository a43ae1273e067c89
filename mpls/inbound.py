"""The walk of a packet out of a Child SA: the egress check (WIRE 6.2; RFC 4023, 4364, 3443, 4301 5.2).

Knows nothing of IKE, ESP, sockets and queues.

    payload of a Child SA -> next header -> inner, outer addresses -> GRE or UDP header -> stack
    -> service label -> accept set -> TC -> TTL -> payload -> Delivery (VRF, [stack], IP packet)
"""

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from mpls import encapsulation, ip, plain
from mpls.child_policy import EgressPolicy, LabelMap, admits_label
from mpls.drops import DropReason
from mpls.encapsulation import Mode
from mpls.hop import (
    EXPLICIT_NULL,
    PAYLOAD_OF_VERSION,
    Drop,
    find_service_label,
    next_hop,
    next_lsr,
    time_exceeded,
)
from mpls.identifiers import ClassId
from mpls.ip import IpHeader, PlainHeader
from mpls.label_space import LabelOwner, LabelSpace
from mpls.labels import ENTRY_OCTETS, FIRST_ORDINARY_LABEL, LabelEntry, LabelStack, SpecialLabel
from mpls.vrf import Labels, Vrf

_VERSION_OF_NEXT_HEADER: Final = {encapsulation.IPV4_IN_IP: 4, encapsulation.IPV6_IN_IP: 6}
_BOTTOM: Final = 0x100


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
    if not body or not owner.payload & PAYLOAD_OF_VERSION.get(body[0] >> 4, 0):
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
    found = find_service_label(stack, child_map.special)
    if isinstance(found, DropReason):
        return found
    service, inner = found
    return service.label, service.tc, service.ttl, stack.octet_count, inner


def _find_owner(
    policy: EgressPolicy, child_map: LabelMap, labels: LabelSpace, label: int
) -> LabelOwner | DropReason:
    """Whose the service label is: given out to this peer and session, for this (VRF, class) if strict."""
    if label in EXPLICIT_NULL:  # its bit was asked for; the SA alone names VRF and class
        if not policy.strict or policy.vrf is None or policy.label_class is None:
            return DropReason.LABEL_UNBOUND
        payload = EXPLICIT_NULL[SpecialLabel(label)]
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
    forwarded = next_hop(vrf, header, packet)
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
    entries = next_lsr(vrf, inner, packet)
    if isinstance(entries, Drop):
        return entries
    stack = LabelStack(entries).encode()
    return Delivery(owner.vrf, owner.label_class, label, tc, packet, stack, ttl)
