"""The lifetime of a Child SA in packets and octets: when to ask for a successor (RFC 4301 4.4.2.1, RFC 7296 2.8).

Lifetimes in time are `ike`'s; the hard lifetime is kept by `esp`, packet by packet. Must not know who is asked.
"""

from __future__ import annotations

from endpoint.config import LifetimeConfig
from esp.sa import UNLIMITED, InboundSa, OutboundSa

__all__ = ["SoftLifetime", "hard_lifetime"]

JITTER = 0.1
"""The soft lifetime ends up to this part of itself earlier, so that two equal ends seldom rekey at once."""


def hard_lifetime(lifetime: LifetimeConfig) -> tuple[int, int]:
    """(packets, octets) that one SA, that is each direction by itself, may carry."""
    packets, octets = lifetime.child_hard_packets, lifetime.child_hard_octets
    return (UNLIMITED if packets is None else packets, UNLIMITED if octets is None else octets)


class SoftLifetime:
    """The marks of one pair of SAs. `early`, 0 to 1, is the part of the jitter that is used.

    Whatever is configured, three quarters of the sequence numbers are enough. When a successor was asked for and
    did not come, it is asked for again after a quarter of what was left.
    """

    def __init__(self, lifetime: LifetimeConfig, outbound: OutboundSa, early: float) -> None:
        keep = 1 - JITTER * early
        sequence_low = outbound.last_sequence // 4 * 3
        packets, octets = lifetime.child_rekey_packets, lifetime.child_rekey_octets
        self.packets = sequence_low if packets is None else min(sequence_low, int(packets * keep))
        self.octets = UNLIMITED if octets is None else int(octets * keep)
        self._hard_packets = min(outbound.hard_packets, outbound.last_sequence)
        self._hard_octets = outbound.hard_octets
        self._packets_step = -(-(self._hard_packets - self.packets) // 4)
        self._octets_step = -(-(self._hard_octets - self.octets) // 4)

    def has_come(self, inbound: InboundSa, outbound: OutboundSa) -> bool:
        """Whether one direction has reached a mark."""
        return (
            outbound.sequence >= self.packets
            or outbound.octets >= self.octets
            or inbound.packets >= self.packets
            or inbound.octets >= self.octets
        )

    def put_off(self, inbound: InboundSa, outbound: OutboundSa) -> None:
        """A successor was asked for: set the marks anew, the last one where the hard lifetime comes."""
        packets, octets = max(outbound.sequence, inbound.packets), max(outbound.octets, inbound.octets)
        if packets >= self.packets:
            self.packets = _next_mark(packets, self._packets_step, self._hard_packets)
        if octets >= self.octets:
            self.octets = _next_mark(octets, self._octets_step, self._hard_octets)


def _next_mark(count: int, step: int, hard: int) -> int:
    return UNLIMITED if count >= hard else min(count + max(1, step), hard)
