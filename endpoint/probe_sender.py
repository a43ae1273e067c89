"""What the search for path MTUs and the cover traffic send by: dummies on a child, IKE messages of a given length.

Must not know when or why they are sent: `path_prober.py` and `cover.py` do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from endpoint.children import Child, ChildTable
from endpoint.dataplane import DataPlane
from esp.demux import NON_ESP_MARKER
from ike import IkeEngine
from ike.wire.payloads import NotifyPayload
from mpls.encapsulation import UDP_HEADER_OCTETS
from mpls.ip import IPV4_HEADER_OCTETS, IPV6_HEADER_OCTETS
from mpls.path_mtu import PATH_PROBE

__all__ = ["ProbeSender"]


class ProbeSender:
    """The host of a `PathProber` and of `CoverTraffic`. `nat_port`: where IKE has the non-ESP marker before it."""

    def __init__(self, engine: IkeEngine, children: ChildTable, dataplane: DataPlane, nat_port: int) -> None:
        self._engine, self._children, self._dataplane = engine, children, dataplane
        self._nat_port = nat_port

    def sender_of_kind(self, peer: str, kind: str) -> Child | None:
        senders = [one for one in self._children.of_kind(peer, kind) if one.may_send]
        return senders[-1] if senders else None

    def is_there(self, peer: str, kind: str) -> bool:
        return bool(self._children.of_kind(peer, kind))

    def sender_to(self, peer: str) -> Child | None:
        return next((one for one in self.children_of(peer) if one.may_send), None)

    def children_of(self, peer: str) -> Iterator[Child]:
        return iter(self._children.of_peer(peer))

    def send_dummies(self, child: Child, sizes: Sequence[int], now: float) -> None:
        self._dataplane.send_dummies(child, sizes, now)

    def ask_path(self, session: int, question: bytes, now: float) -> int:
        return self._engine.send_notify(session, (NotifyPayload(PATH_PROBE, question),), now)

    def can_answer(self, session: int) -> bool:
        return any(
            one.session == session and one.extension_data is not None for one in self._engine.sessions()
        )

    def can_send_probe(self, session: int, packet_octets: int) -> bool:
        return self._engine.can_probe(session, packet_octets)

    def send_probe(self, session: int, packet_octets: int, now: float) -> int:
        path = next(one.path for one in self._engine.sessions() if one.session == session)
        ip_octets = IPV6_HEADER_OCTETS if ":" in path.peer[0] else IPV4_HEADER_OCTETS
        marker = len(NON_ESP_MARKER) if path.local[1] == self._nat_port else 0
        octets = packet_octets - ip_octets - UDP_HEADER_OCTETS - marker
        return self._engine.send_probe(session, PATH_PROBE, octets, now)
