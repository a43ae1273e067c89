"""Cover traffic: ESP dummies at a rate, so that nobody can tell when there are data (RFC 4303 2.6).

Must not know packets and sockets. One dummy at a time, after a time between half and one and a half of the rate's
interval: what is late is not made up for. While a child is rekeyed its successor goes on.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final, Protocol

from endpoint.children import Child
from endpoint.config import Dummies, DummiesWhen
from ike.entropy import Entropy

__all__ = ["CoverTraffic", "Host"]

LENGTHS: Final = 16
"""Without `tfc` so many, from nothing to what the path takes; fewer than a peer remembers of a path's probes."""


class Host(Protocol):
    """What the node lends."""

    def sender_of_kind(self, peer: str, kind: str) -> Child | None:
        """The child of a kind that packets leave by."""

    def is_there(self, peer: str, kind: str) -> bool:
        """Whether a child of this kind is there at all."""

    def send_dummies(self, child: Child, sizes: Sequence[int], now: float) -> None:
        """Dummies of these lengths, octets of ESP, with DF."""


class CoverTraffic:
    """The kinds of children that are to have dummies."""

    def __init__(self, host: Host, entropy: Entropy) -> None:
        self._host, self._entropy = host, entropy
        self._due: list[tuple[float, tuple[str, str]]] = []
        self._sent: dict[tuple[str, str], tuple[bytes, int]] = {}
        """Of each kind: the SPI and the sequence number of the last look."""

    def on_child(self, child: Child, now: float) -> None:
        """It is installed."""
        key, dummies = (child.peer, child.kind.name), child.plan.peer.dummies
        if dummies is not None and key not in self._sent:
            self._sent[key] = b"", 0
            heapq.heappush(self._due, (now + self._gap(dummies), key))

    def next_deadline(self) -> float | None:
        return self._due[0][0] if self._due else None

    def handle_timer(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, key = heapq.heappop(self._due)
            if not self._host.is_there(*key):
                del self._sent[key]
                continue
            child = self._host.sender_of_kind(*key)
            dummies = child.plan.peer.dummies if child is not None else None
            if child is None or dummies is None:
                heapq.heappush(self._due, (now + 1.0, key))
                continue
            is_idle = self._sent[key] == (child.sa.spi_out, child.outbound.sequence)
            if is_idle or dummies.when is DummiesWhen.ALWAYS:
                self._host.send_dummies(child, [self._octets(child)], now)
            self._sent[key] = child.sa.spi_out, child.outbound.sequence
            heapq.heappush(self._due, (now + self._gap(dummies), key))

    def _gap(self, dummies: Dummies) -> float:
        return (0.5 + int.from_bytes(self._entropy.octets(2), "big") / 65536) / dummies.per_s

    def _octets(self, child: Child) -> int:
        """As long as the data, where these are padded; else one of LENGTHS."""
        payload = child.tfc_octets
        if not payload:
            most = child.budget.payload_octets
            payload = self._entropy.octets(1)[0] % LENGTHS * most // (LENGTHS - 1)
        return child.outbound.transform.packet_octets(payload)
