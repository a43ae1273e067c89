"""What both walks of a packet share: a hop of its TTL (RFC 3443), its service label, the drop that ends it.

Knows nothing of VRF selection, crypto map, ESP and sockets.

TTL is the pipe model (RFC 3443 3.3): ingress and egress each take one from the inner TTL, as any router does,
and the label starts at 255 whatever the inner one is. A packet from or to an address of the PE itself is not
forwarded by that PE, so there the step is left out. Labels that an attachment keeps travel below the service
label like a payload: ingress and egress each take one from the TTL of the topmost, as any LSR does.
Outer DSCP, ECN and TTL are not authenticated: not used here; `models` says what else may be configured, as the
uniform model, in which the label starts at the packet's own TTL.
"""

from dataclasses import dataclass, replace
from typing import Final

from mpls import ip
from mpls.drops import DropReason
from mpls.identifiers import ClassId
from mpls.ip import IpHeader, PlainHeader
from mpls.labels import FIRST_ORDINARY_LABEL, LabelEntry, LabelStack, SpecialLabel
from mpls.vrf import Vrf

IPV4_PAYLOAD: Final = 1
IPV6_PAYLOAD: Final = 2
BOTH_PAYLOADS: Final = IPV4_PAYLOAD | IPV6_PAYLOAD
PAYLOAD_OF_VERSION: Final = {4: IPV4_PAYLOAD, 6: IPV6_PAYLOAD}
EXPLICIT_NULL: Final = {
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


def next_lsr(vrf: Vrf | None, stack: tuple[LabelEntry, ...], packet: bytes) -> tuple[LabelEntry, ...] | Drop:
    """The stack with the TTL of its topmost entry one less, or as `next_hop`; `packet` is what it labels."""
    top, name = stack[0], vrf.name if vrf else None
    if top.ttl == 0:
        return Drop(DropReason.TTL, name)
    if top.ttl == 1:
        return Drop(DropReason.TTL_EXPIRED, name, reply=time_exceeded(vrf, packet))
    return replace(top, ttl=top.ttl - 1), *stack[1:]


def next_hop(vrf: Vrf | None, header: IpHeader | PlainHeader, packet: bytes) -> bytes | Drop:
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


def find_service_label(
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
        elif service is None and entry.label in EXPLICIT_NULL and entry.bottom:
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
