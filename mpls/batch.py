"""The walks `outbound` and `inbound` for many packets at once, the quick path beside the reference (RFC 3032, 4301).

Knows nothing of IKE, ESP, sockets and queues, as they do not. What comes out is what they say of
each packet, in their order.

The packets of one flow that follow each other, alike in all that the walks look at, are a run: the first takes the
reference, the others have its result, but for their own octets. `headers` finds the runs, and makes the headers of
the next hop. Packets that are anything out of the ordinary (options, extension headers, fragments, ICMP, more than
one label) are runs of one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from mpls import encapsulation
from mpls.child_policy import EgressPolicy
from mpls.encapsulation import Mode
from mpls.headers import Run, runs
from mpls.hop import Drop
from mpls.inbound import Delivery, check_inbound
from mpls.label_space import LabelSpace
from mpls.labels import ENTRY_OCTETS
from mpls.outbound import Bypassed, Labelled, Outbound
from mpls.vrf import Vrf

__all__ = ["Delivered", "Forwarded", "check_inbound_batch", "forward_batch"]

_GRE_OF_MPLS: Final = b"\0\0" + encapsulation.MPLS_UNICAST.to_bytes(2, "big")


class Forwarded(NamedTuple):
    """What became of a run of packets: `first` of the first of them. When it is labelled, all of them have it in
    common, but for their bodies; else it is one packet.
    """

    first: Labelled | Bypassed | Drop
    run: Run

    @classmethod
    def of(cls, first: Labelled | Bypassed | Drop, packet: bytes) -> "Forwarded":
        """Of a single packet."""
        return cls(first, Run([packet]))

    @property
    def packets(self) -> list[bytes]:
        """As they came."""
        return self.run.packets

    @property
    def bodies(self) -> list[bytes]:
        """Of a labelled run: as they go on."""
        return self.bodies_behind(b"")

    def bodies_behind(self, front: bytes) -> list[bytes]:
        """The bodies, each with `front` before it: put together only once."""
        return self.run.onward(self.first.body, front) if isinstance(self.first, Labelled) else []


class Delivered(NamedTuple):
    """What became of a run of payloads: `first` of the first of them. When it is a delivery, `packets` are those
    of all of them, which have the rest in common; else it is one payload.
    """

    first: Delivery | Drop
    packets: list[bytes]


def forward_batch(outbound: Outbound, attachment: str, packets: Sequence[bytes]) -> Iterator[Forwarded]:
    """As `outbound.forward` for each packet."""
    for run in runs(packets):
        first = outbound.forward(attachment, run.first)
        if isinstance(first, Labelled):
            yield Forwarded(first, run)
        else:
            yield Forwarded.of(first, run.first)
            for packet in run.packets[1:]:
                yield Forwarded.of(outbound.forward(attachment, packet), packet)


def check_inbound_batch(
    policy: EgressPolicy,
    labels: LabelSpace,
    next_header: int,
    payloads: Sequence[bytes],
    outer_source: str,
    outer_destination: str,
    vrfs: Mapping[str, Vrf],
    behind: int = 0,
) -> Iterator[Delivered]:
    """As `check_inbound` for each payload: all came by one SA, with one next header, between two addresses.

    `behind`: so many octets at the end of each are none of the payload.
    """

    def check(payload: bytes) -> Delivery | Drop:
        return check_inbound(policy, labels, next_header, payload, outer_source, outer_destination, vrfs)

    # What stands before the IP packet is alike in a run, so the first says it for all of them.
    at = 0
    while at < len(payloads):
        is_last = at + 1 == len(payloads)
        front = None if is_last else _octets_in_front(policy, next_header, payloads[at], behind)
        if front is None:
            payload = payloads[at]
            yield _delivered(check(payload[: len(payload) - behind]))
            at += 1
            continue
        for run in runs(payloads[at:] if at else payloads, front, behind):
            if at and front != _octets_in_front(policy, next_header, run.octets[0], run.behind):
                break
            at += len(run.octets)
            first = check(run.first)
            if isinstance(first, Delivery) and not first.stack:
                yield Delivered(first, run.onward(first.packet))
            else:
                yield _delivered(first)
                for payload in run.packets[1:]:
                    yield _delivered(check(payload))


def _delivered(outcome: Delivery | Drop) -> Delivered:
    return Delivered(outcome, [outcome.packet] if isinstance(outcome, Delivery) else [])


def _octets_in_front(policy: EgressPolicy, next_header: int, payload: bytes, behind: int = 0) -> int | None:
    """What stands before the IP packet, where that decides alone about itself; None where more must be looked at.

    `behind`: so many octets at the end are none of the payload.
    """
    if policy.mode is Mode.TUNNEL:
        return 0 if policy.map is None else None
    if policy.map is None:
        return None
    if next_header == encapsulation.MPLS_IN_IP:
        octets = ENTRY_OCTETS
    elif next_header == encapsulation.GRE and payload[:4] == _GRE_OF_MPLS:
        octets = len(_GRE_OF_MPLS) + ENTRY_OCTETS
    else:
        return None
    return octets if len(payload) - behind > octets and payload[octets - 2] & 1 else None  # S: the only label
