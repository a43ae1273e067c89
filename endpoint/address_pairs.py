"""Which address of ours, and which of the peer's, the next attempt to reach it goes between.

Must not know who attempts what, nor when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import ip_address

from endpoint.plan import PeerPlan
from ike import LocalError, Path

__all__ = ["AddressPairs"]


class AddressPairs:
    """The addresses of ours that are there, and how often each peer was tried since it was last up."""

    def __init__(self, local: Iterable[str]) -> None:
        self.local = tuple(local)
        self._attempts: Counter[str] = Counter()

    def next_path(self, plan: PeerPlan) -> Path:
        """From one of ours to one of the peer's, in their order, the next pair at each attempt.

        LocalError if none of ours can reach one of its.
        """
        pairs = [
            (local, peer)
            for peer in plan.connection.peer_addresses
            for local in self.local
            if local in plan.connection.local_addresses
            and ip_address(local).version == ip_address(peer).version
        ]
        if not pairs:
            raise LocalError("none of our addresses that are there can reach one of its")
        local, peer = pairs[self._attempts[plan.peer.name] % len(pairs)]
        self._attempts[plan.peer.name] += 1
        return Path((local, plan.connection.local_port), (peer, plan.peer.port))

    def reset(self, peer: str) -> None:
        """It was reached, or is a peer no more: the next attempt is a first one."""
        self._attempts.pop(peer, None)
