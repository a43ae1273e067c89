"""The front door: every socket of one endpoint, and where each datagram goes in and out.

It must not know what the messages say. UDP 500 is asyncio-dgram's, UDP 4500 the batch reader's, protocol 50 a raw
socket's; protocols 137 and 47 outside ESP are only counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from endpoint.capture import Capture
from endpoint.config import Config, FlowLabel, FrontDoor, Udp
from endpoint.dataplane import EspArrival
from endpoint.errors import SetupError
from endpoint.raw import OnPackets, RawSocket
from endpoint.sockets import Address, check_flow_labels
from endpoint.udp import EspBatch, IkeSocket, NatSocket, OnEsp
from esp.demux import NON_ESP_MARKER
from ike import Datagram, Path
from mpls.models import OuterFields

__all__ = ["Receiver", "Sockets"]

_log = logging.getLogger("mplsec.underlay")
ESP = 50
CLEARTEXT = (137, 47)


class Receiver(Protocol):
    """Whom the sockets hand to what they receive."""

    def receive_ike(self, data: bytes, path: Path) -> None: ...
    def receive_esp(self, packets: Sequence[EspArrival]) -> None: ...
    def receive_cleartext(self, protocol: int, payload: bytes) -> None: ...
    def receive_path_hint(self, address: str, mtu: int) -> None: ...


class Sockets:
    """All sockets of a configuration. `open`, then `receiver` may be set; `close` at the end."""

    def __init__(self, config: Config, capture: Capture | None = None) -> None:
        self._nat_port = config.endpoint.nat_port
        self._capture = capture
        self._ike: dict[str, IkeSocket] = {}
        self._nat: dict[str, NatSocket] = {}
        self._raw: dict[str, RawSocket] = {}
        self._cleartext: list[RawSocket] = []
        # What inner routers send to us is no MPLS in clear; their attachments take it (WIRE 6.2).
        sides = [one.labelled for vrf in config.vrfs for one in vrf.attach if one.labelled is not None]
        self._inside = {(side.tunnel.peer, side.tunnel.local) for side in sides if side.tunnel is not None}
        self.receiver: Receiver

    @classmethod
    async def open(cls, config: Config, capture: Capture | None = None) -> Sockets:
        """Open every socket that the configuration needs. SetupError with the remedy; then none is left open."""
        sockets = cls(config, capture)
        try:
            await sockets._open(config)
        except BaseException:
            await sockets.close()
            raise
        return sockets

    async def _open(self, config: Config) -> None:
        door = config.endpoint.front_door
        needs_raw = not config.peers or any(peer.udp is not Udp.ALWAYS for peer in config.peers)
        probes = any(peer.probes_path for peer in config.peers)
        on_too_big = self._on_too_big if probes else None
        if config.endpoint.flow_label is FlowLabel.SA:
            check_flow_labels(door)
        for address in config.endpoint.addresses:
            if config.endpoint.ike_port:
                self._ike[address] = await IkeSocket.open(
                    address, config.endpoint.ike_port, on_datagram=self._on_ike, front_door=door
                )
            self._nat[address] = NatSocket.open(
                address,
                self._nat_port,
                on_ike=self._on_ike_marked,
                on_esp=self._esp_callback(address),
                front_door=door,
                watches_outer=config.watches_outer,
                on_too_big=on_too_big,
                flow_labels=config.endpoint.flow_label,
            )
            if needs_raw:
                self._raw[address] = RawSocket.open(
                    address,
                    ESP,
                    on_packets=self._on_raw_esp,
                    front_door=door,
                    watches_outer=config.watches_outer,
                    on_too_big=on_too_big,
                    flow_labels=config.endpoint.flow_label,
                )
            self._watch_cleartext(address, door)

    def _watch_cleartext(self, address: str, door: FrontDoor | None) -> None:
        """MPLS outside ESP is dropped by not being read anywhere; with the privilege it is counted as well."""
        for protocol in CLEARTEXT:
            try:
                opened = RawSocket.open(
                    address, protocol, on_packets=self._cleartext_callback(protocol), front_door=door
                )
            except SetupError as error:
                _log.info("cleartext of protocol %d is dropped, but not counted: %s", protocol, error)
                return
            self._cleartext.append(opened)

    async def close(self) -> None:
        """Close all of them."""
        for ike in self._ike.values():
            await ike.close()
        for nat in self._nat.values():
            nat.close()
        for raw in (*self._raw.values(), *self._cleartext):
            raw.close()

    def drops(self) -> Counter[str]:
        """What the sockets did not take or hand on, by reason."""
        total: Counter[str] = Counter()
        counted = [one.all_drops() for one in self._ike.values()]
        counted += [one.all_drops() for one in self._nat.values()]
        counted += [one.all_drops() for one in (*self._raw.values(), *self._cleartext)]
        for drops in counted:
            for reason, count in drops.items():
                total[reason.value] += count
        return total

    # --- out

    def send_ike(self, datagram: Datagram) -> None:
        """Send an IKE message from the address and port of its path."""
        (address, port), peer = datagram.path.local, datagram.path.peer
        if datagram.is_keepalive:
            self._record_udp((address, port), peer, datagram.data, "outbound")
            if address in self._nat:
                self._nat[address].send_keepalive(peer)
        elif port == self._nat_port:
            self._record_udp((address, port), peer, NON_ESP_MARKER + datagram.data, "outbound")
            if address in self._nat:
                self._nat[address].send_ike(datagram.data, peer, dont_fragment=datagram.dont_fragment)
        else:
            self._record_udp((address, port), peer, datagram.data, "outbound")
            if address in self._ike:
                self._ike[address].send(datagram.data, peer, dont_fragment=datagram.dont_fragment)

    def send_esp(
        self,
        path: Path,
        packets: Sequence[bytes],
        *,
        udp: bool,
        tos: int,
        ttl: int = 0,
        may_fragment: bool = False,
    ) -> None:
        """Send ESP packets in UDP or as protocol 50, with DF unless they `may_fragment`."""
        address = path.local[0]
        if udp:
            if self._capture is not None:
                for packet in packets:
                    self._record_udp((address, self._nat_port), path.peer, packet, "outbound")
            if address in self._nat:
                self._nat[address].send_batch(packets, path.peer, tos=tos, ttl=ttl, may_fragment=may_fragment)
        else:
            if self._capture is not None:
                for packet in packets:
                    self._capture.write_ip(address, path.peer[0], ESP, packet, direction="outbound")
            if address in self._raw:
                self._raw[address].send_batch(
                    packets, path.peer[0], tos=tos, ttl=ttl, may_fragment=may_fragment
                )

    # --- in

    def _on_too_big(self, address: str, mtu: int) -> None:
        self.receiver.receive_path_hint(address, mtu)

    def _on_ike(self, data: bytes, local: Address, peer: Address) -> None:
        self._record_udp(peer, local, data, "inbound")
        self.receiver.receive_ike(data, Path(local, peer))

    def _on_ike_marked(self, data: bytes, local: Address, peer: Address) -> None:
        self._record_udp(peer, local, NON_ESP_MARKER + data, "inbound")
        self.receiver.receive_ike(data, Path(local, peer))

    def _esp_callback(self, address: str) -> OnEsp:
        def on_esp(batch: EspBatch) -> None:
            if self._capture is not None:
                for packets, peer, _ in batch:
                    for packet in packets:
                        self._record_udp(peer, (address, self._nat_port), packet, "inbound")
            self.receiver.receive_esp(
                [EspArrival(packets, peer, address, outer) for packets, peer, outer in batch]
            )

        return on_esp

    def _on_raw_esp(self, batch: list[tuple[bytes, str, str, OuterFields]]) -> None:
        if self._capture is not None:
            for packet, source, destination, _ in batch:
                self._capture.write_ip(source, destination, ESP, packet, direction="inbound")
        self.receiver.receive_esp(
            [EspArrival([packet], (source, 0), address, outer) for packet, source, address, outer in batch]
        )

    def _cleartext_callback(self, protocol: int) -> OnPackets:
        def on_packets(batch: list[tuple[bytes, str, str, OuterFields]]) -> None:
            for payload, source, destination, _ in batch:
                if (source, destination) not in self._inside:
                    self.receiver.receive_cleartext(protocol, payload)

        return on_packets

    def _record_udp(self, source: Address, destination: Address, payload: bytes, direction: str) -> None:
        if self._capture is not None:
            self._capture.write_udp(
                source, destination, payload, direction="inbound" if direction == "inbound" else "outbound"
            )
