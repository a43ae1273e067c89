"""The names of every dropped packet of the MPLS layer: of the walks in `outbound` and `inbound`.

Knows nothing of who counts them; a drop is a value that is returned, never an exception.
"""

from enum import StrEnum
from typing import Final


class DropReason(StrEnum):
    """Why a packet went no further. The value is the name under which it is counted and shown."""

    # Outbound: packet -> VRF -> class -> prefix -> (peer, label) -> Child SA.
    URPF = "urpf"  # the source does not belong behind the attachment it came from
    NO_CLASS = "no_class"  # no rule of the crypto map takes it
    DISCARDED = "discarded"  # a rule of the crypto map says discard
    NO_ROUTE = "no_route"  # no peer serves or may serve the destination
    NO_LABEL = "no_label"  # a peer may serve the destination but has no label bound for it (any more, or yet)
    NO_CHILD = "no_child"
    QUEUE_FULL = "queue_full"
    CLASS_DOWN = "class_down"
    OUTSIDE_SELECTOR = "outside_selector"  # label, TC, depth or encapsulation is not in the child's map
    TOO_BIG = "too_big"

    # Inbound on a Child SA, in the order of the checks.
    DUMMY = "dummy"
    NEXT_HEADER = "next_header"
    ADDRESS_SELECTOR = "address_selector"
    OUTER_ADDRESS = "outer_address"
    GRE_HEADER = "gre_header"
    NOT_MPLS = "not_mpls"
    UDP_HEADER = "udp_header"
    STACK_TRUNCATED = "stack_truncated"
    STACK_DEPTH = "stack_depth"
    SPECIAL_LABEL = "special_label"
    NO_SERVICE_LABEL = "no_service_label"
    LABEL_RANGE = "label_range"
    LABEL_FOREIGN = "label_foreign"  # given out, but for another VRF, class or peer: audited
    LABEL_UNBOUND = "label_unbound"
    TC = "tc"
    TTL = "ttl"  # both directions: arrived with TTL 0
    TTL_EXPIRED = "ttl_expired"  # both directions: TTL 1, answered by ICMP into the VRF
    PAYLOAD = "payload"
    ECN = "ecn"  # congestion on the way, and the packet's sender would not understand (RFC 6040 4.2)
    INNER_LABEL = "inner_label"

    # Either direction, and outside ESP.
    MALFORMED_IP = "malformed_ip"
    CLEARTEXT_MPLS = "cleartext_mpls"


SELECTOR_MISMATCHES: Final = frozenset(
    {
        DropReason.NEXT_HEADER,
        DropReason.ADDRESS_SELECTOR,
        DropReason.STACK_DEPTH,
        DropReason.SPECIAL_LABEL,
        DropReason.LABEL_RANGE,
        DropReason.LABEL_FOREIGN,
        DropReason.TC,
    }
)
"""Authentic, and not what its SA is for (RFC 4301 5.2 step 5).

The outer address is not among them: anybody can write it."""
