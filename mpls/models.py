"""What inner and outer headers have to do with each other: RFC 3443 (TTL), RFC 3270 and 2983 (DSCP), RFC 6040 (ECN).

Knows nothing of labels and VRFs. The outer header is not authenticated: nothing of it counts unless it is configured,
and then a TTL never rises by it, and no packet changes its class or VRF.

             at the head                                  at the tail
    pipe     the class says what is outside               what was inside stays; TC is that of the service label
    short    the same                                     the same, but TC as the inner DSCP has it
    uniform  DSCP, TTL of label and outer header as       DSCP of the outer header; the lowest of the three TTLs
             those of the packet
    ECN      copied (normal mode), or Not-ECT outside     Figure 4 of RFC 6040, or nothing
             (compatibility mode)
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from mpls.drops import DropReason
from mpls.ip import ecn_of, remark, traffic_class_of, ttl_of

__all__ = ["UNKNOWN_OUTER", "Ecn", "OuterFields", "QosModel", "TtlModel", "copy_inward", "is_alarming"]


class TtlModel(Enum):
    """RFC 3443."""

    PIPE = "pipe"
    UNIFORM = "uniform"


class QosModel(Enum):
    """RFC 3270 2.6, RFC 2983."""

    PIPE = "pipe"
    SHORT_PIPE = "short-pipe"
    UNIFORM = "uniform"


class Ecn(Enum):
    """RFC 6040."""

    OFF = "off"  # compatibility mode at the head; the tail does not look
    COPY = "copy"  # normal mode, and the tail takes over what happened outside


class OuterFields(NamedTuple):
    """DSCP and ECN octet and TTL of an outer header; TTL 0: not known, or left to the system.

    `fragment`: of a packet that came in fragments the length of the largest, IP header included.
    """

    tos: int = 0
    ttl: int = 0
    fragment: int = 0


UNKNOWN_OUTER: Final = OuterFields()
_NOT_ECT, _ECT1, _ECT0, _CE = 0, 1, 2, 3
_EGRESS_ECN: Final[dict[int, dict[int, int | None]]] = {
    # inner: what goes on, by the outer one; None: drop (RFC 6040 4.2, Figure 4)
    _NOT_ECT: {_NOT_ECT: _NOT_ECT, _ECT0: _NOT_ECT, _ECT1: _NOT_ECT, _CE: None},
    _ECT0: {_NOT_ECT: _ECT0, _ECT0: _ECT0, _ECT1: _ECT1, _CE: _CE},
    _ECT1: {_NOT_ECT: _ECT1, _ECT0: _ECT1, _ECT1: _ECT1, _CE: _CE},
    _CE: {_NOT_ECT: _CE, _ECT0: _CE, _ECT1: _CE, _CE: _CE},
}
_ALARMING: Final = frozenset({(_NOT_ECT, _ECT0), (_NOT_ECT, _ECT1), (_NOT_ECT, _CE), (_CE, _ECT1)})
"""(inner, outer) that no tunnel makes: the "(!!!)" of Figure 4."""


def is_alarming(packet: bytes, outer: OuterFields) -> bool:
    """Whether no ingress makes this ECN field outside of that packet: somebody has meddled."""
    return (ecn_of(packet), outer.tos & 3) in _ALARMING


def copy_inward(
    packets: Sequence[bytes],
    outer: OuterFields,
    *,
    ecn: Ecn,
    qos: QosModel,
    ttl: TtlModel,
    label_ttl: int,
) -> list[bytes] | DropReason:
    """Packets with equal traffic class and TTL, which this hop has lowered, as they go on behind the tunnel.

    `label_ttl` is as the label came, 0 without one. ECN: congestion was met by a packet that knows none.
    TTL_EXPIRED: nothing is left for the next hop.
    """
    traffic_class, hops = traffic_class_of(packets[0]), ttl_of(packets[0])
    new_class, new_hops = traffic_class, hops
    if qos is QosModel.UNIFORM:
        new_class = outer.tos & 0xFC | traffic_class & 3
    if ecn is Ecn.COPY:
        marked = _EGRESS_ECN[traffic_class & 3][outer.tos & 3]
        if marked is None:
            return DropReason.ECN
        new_class = new_class & 0xFC | marked
    if ttl is TtlModel.UNIFORM:
        new_hops = min([hops, *(one - 1 for one in (outer.ttl, label_ttl) if one)])
        if new_hops < 1:
            return DropReason.TTL_EXPIRED
    if (new_class, new_hops) == (traffic_class, hops):
        return list(packets)
    return [remark(packet, new_class, new_hops) for packet in packets]
