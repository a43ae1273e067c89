"""Both walks of `forwarding` for many packets at once: the quick path beside the reference (RFC 3032, 4301 5.2).

Knows nothing of IKE, ESP, sockets and queues, as `forwarding` does not. What comes out is what `forwarding` says of
each packet, in their order.

The packets of one flow that follow each other, alike in all that the walks look at, are a run: the first takes the
reference, the others have its result, but for their own octets. Packets that are anything out of the ordinary
(options, extension headers, fragments, ICMP, more than one label) are runs of one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Self

from mpls import encapsulation, ip
from mpls.child_policy import EgressPolicy
from mpls.encapsulation import Mode
from mpls.forwarding import Bypassed, Delivery, Drop, Labelled, Outbound, check_inbound
from mpls.ip import IPV4_HEADER_OCTETS, IPV6_HEADER_OCTETS, PlainHeader
from mpls.label_space import LabelSpace
from mpls.labels import ENTRY_OCTETS
from mpls.vrf import Vrf

__all__ = ["Delivered", "Forwarded", "check_inbound_batch", "forward_batch"]

_PORTS_OCTETS: Final = 4
_TTL_END: Final = 9
"""The TTL stands before this octet in IPv4 (the ninth) and IPv6 (the eighth)."""
_GRE_OF_MPLS: Final = b"\0\0" + encapsulation.MPLS_UNICAST.to_bytes(2, "big")


class Forwarded(NamedTuple):
    """What became of `packets`: `first` of the first of them. When it is labelled, `bodies` are those of all of
    them, which have the rest in common; else it is one packet.
    """

    first: Labelled | Bypassed | Drop
    bodies: list[bytes]
    packets: list[bytes]

    @classmethod
    def of(cls, first: Labelled | Bypassed | Drop, packet: bytes) -> Self:
        """Of a single packet."""
        return cls(first, [first.body] if isinstance(first, Labelled) else [], [packet])


class Delivered(NamedTuple):
    """What became of a run of payloads: `first` of the first of them. When it is a delivery, `packets` are those
    of all of them, which have the rest in common; else it is one payload.
    """

    first: Delivery | Drop
    packets: list[bytes]


def forward_batch(outbound: Outbound, attachment: str, packets: Sequence[bytes]) -> Iterator[Forwarded]:
    """As `outbound.forward` for each packet."""
    for run in _runs(packets, 0):
        first = outbound.forward(attachment, run[0])
        if isinstance(first, Labelled):
            yield Forwarded(first, _follow(first.body, run, 0), run)
        else:
            yield Forwarded.of(first, run[0])
            for packet in run[1:]:
                yield Forwarded.of(outbound.forward(attachment, packet), packet)


def check_inbound_batch(
    policy: EgressPolicy,
    labels: LabelSpace,
    next_header: int,
    payloads: Sequence[bytes],
    outer_source: str,
    outer_destination: str,
    vrfs: Mapping[str, Vrf],
) -> Iterator[Delivered]:
    """As `check_inbound` for each payload: all came by one SA, with one next header, between two addresses."""

    def check(payload: bytes) -> Delivery | Drop:
        return check_inbound(policy, labels, next_header, payload, outer_source, outer_destination, vrfs)

    at = 0
    while at < len(payloads):
        front = _octets_in_front(policy, next_header, payloads[at])
        if front is None:
            yield _delivered(check(payloads[at]))
            at += 1
            continue
        run = next(_runs(payloads[at:], front))
        at += len(run)
        first = check(run[0])
        if isinstance(first, Delivery) and not first.stack:
            yield Delivered(first, _follow(first.packet, run, front))
        else:
            yield _delivered(first)
            for payload in run[1:]:
                yield _delivered(check(payload))


def _delivered(outcome: Delivery | Drop) -> Delivered:
    return Delivered(outcome, [outcome.packet] if isinstance(outcome, Delivery) else [])


def _octets_in_front(policy: EgressPolicy, next_header: int, payload: bytes) -> int | None:
    """What stands before the IP packet, where that decides alone about itself; None where more must be looked at."""
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
    return octets if len(payload) > octets and payload[octets - 2] & 1 else None  # S: the only label


def _runs(packets: Sequence[bytes], front: int) -> Iterator[list[bytes]]:
    """Packets in a row of one flow, in all that is looked at alike but for length, identification and checksum.

    `front`: so many octets stand before the IP header; they are alike too.
    """
    at, count = 0, len(packets)
    while at < count:
        first = packets[at]
        header = PlainHeader.parse(first[front:] if front else first) if at + 1 < count else None
        if header is None:
            yield [first]
            at += 1
            continue
        is_ipv4 = first[front] == 0x45
        octets = front + (IPV4_HEADER_OCTETS if is_ipv4 else IPV6_HEADER_OCTETS) + _PORTS_OCTETS
        start, at = at, at + _run_length(packets, at, front, octets, is_ipv4)
        yield list(packets[start:at])


def _run_length(packets: Sequence[bytes], start: int, front: int, octets: int, is_ipv4: bool) -> int:
    """How many packets from `start` on are alike in the first `octets`, headers and ports."""
    size = len(packets[start])
    all_bits = (1 << 8 * octets) - 1
    if is_ipv4:
        # After the length come the identification, and the checksum after TTL and protocol.
        after_header = 8 * (octets - front - IPV4_HEADER_OCTETS)
        length_at = 8 * (octets - front - 4)
        free = 0xFFFF << 8 * (octets - front - 6) | 0xFFFF << 8 * (octets - front - 12)
        not_counted = front
    else:
        after_header, length_at, free = 0, 8 * (octets - front - 6), 0
        not_counted = front + IPV6_HEADER_OCTETS
    header_bits = (1 << 8 * IPV4_HEADER_OCTETS) - 1
    fixed = all_bits ^ free
    fixed_but_length = fixed ^ 0xFFFF << length_at
    from_bytes = int.from_bytes
    expected = from_bytes(packets[start][:octets], "big")
    is_padded = expected >> length_at & 0xFFFF != size - not_counted
    count, looked_at = 1, slice(octets)
    for packet in packets[start + 1 :]:
        number = from_bytes(packet[looked_at], "big")
        if len(packet) != size:
            has_other_length = number >> length_at & 0xFFFF != len(packet) - not_counted
            if is_padded or has_other_length or (number ^ expected) & fixed_but_length:
                break
        elif (number ^ expected) & fixed:
            break
        if is_ipv4 and (number >> after_header & header_bits) % 0xFFFF:
            break
        count += 1
    return count


def _follow(first: bytes, run: list[bytes], front: int) -> list[bytes]:
    """The packets of a run as they go on; `first`: as the reference says of the first."""
    end = front + len(first)
    # Padding is behind all of them or none.
    part = slice(front, None if len(run[0]) == end else end)
    packets = run if part == slice(0, None) else [packet[part] for packet in run]
    if first[:_TTL_END] == packets[0][:_TTL_END]:
        return packets
    return [ip.decrement_ttl(packet) for packet in packets]
