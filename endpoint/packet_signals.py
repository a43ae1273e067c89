"""What packets tell IKE and ask of it: liveness, paths, lifetimes, a child that is missing (RFC 7296 2.4, 2.8, 2.23).

The data plane's `Owner`. It must not know what is in a packet, nor when IKE's own messages leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from endpoint.children import Child
from endpoint.config import EndpointConfig
from endpoint.plan import PeerPlan, Serves
from endpoint.starter import Starter
from ike import IkeEngine, Path

__all__ = ["PacketSignals"]

IKE_PORT: Final = 500


@dataclass(slots=True, eq=False)
class PacketSignals:
    """`is_asked`: IKE has something to do since it was last cleared, which most packets do not bring about.

    on_authentic   the peer sends on this child
    tell_mismatch  tell the peer of a packet; whether it is told
    handle_events  handle those of the engine at once
    """

    endpoint: EndpointConfig
    plans: Mapping[str, PeerPlan]
    engine: IkeEngine
    starter: Starter
    on_authentic: Callable[[Child, float], None]
    tell_mismatch: Callable[[Child, bytes, float], bool]
    handle_events: Callable[[float], bool]
    is_asked: bool = False

    def ask(self, peer: str, serves: Serves) -> bool:
        self.is_asked = True
        state = self.starter.peers[peer]
        kinds = [
            kind
            for kind in self.plans[peer].children
            if serves in kind.serves and (not state.is_up or kind.is_native == state.is_native)
        ]
        answers = [self.starter.ask(peer, kind.name) for kind in kinds]
        return any(answers)

    def on_inbound(self, child: Child, source: str, now: float) -> None:
        # What comes from elsewhere does not show that the path works (RFC 4555 3.12).
        if source == child.path.peer[0]:
            self.engine.note_esp_received(child.sa.spi_in, now)
        self.on_authentic(child, now)

    def on_outbound(self, child: Child, now: float) -> None:
        self.engine.note_esp_sent(child.sa.spi_in, now)

    def on_selector_mismatch(self, child: Child, packet: bytes, now: float) -> None:
        self.is_asked = self.tell_mismatch(child, packet, now) or self.is_asked

    def on_unknown_spi(self, spi: bytes, peer: tuple[str, int], local: str, now: float) -> None:
        endpoint, (address, port) = self.endpoint, peer
        own_port = endpoint.nat_port if port or not endpoint.ike_port else endpoint.ike_port
        path = Path((local, own_port), (address, port or IKE_PORT))
        self.is_asked = self.engine.note_unknown_esp(spi, path, now) or self.is_asked

    def on_inbound_path(self, child: Child, path: Path, now: float) -> None:
        self.engine.note_esp_path(child.sa.spi_in, path, now)
        self.handle_events(now)

    def on_lifetime(self, child: Child, now: float) -> None:
        if child.retires_at is not None:
            return
        self.is_asked = True
        if child.inbound.has_expired or child.outbound.has_expired:
            self.engine.expire_child(child.session, child.sa.spi_in, now)
        else:
            self.engine.rekey_child(child.session, child.sa.spi_in, now)
