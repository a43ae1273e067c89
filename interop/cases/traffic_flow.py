"""What an observer of the wire can learn, with strongSwan: TFC padding, dummies, IPv6 flow labels (RFC 4303 2.6, 2.7).

Must not know: how our program does it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ..peers.strongswan import Child
from ..wire import EspPacket
from .case import (
    OUR_CUSTOMER,
    Evidence,
    Lab,
    check_both_ways,
    check_decrypted,
    check_initiator,
    check_keys,
    require,
)
from .paths import TunnelOverIpv6
from .strongswan import PEER_CUSTOMER

PADDED_OCTETS = 800
DUMMY = 59
DUMMIES_S = 2.0


def is_dummy(packet: EspPacket) -> bool:
    """Decrypted by the peer's keys to zeros, padding, and next header 59, for which tshark has no dissector."""
    header = packet.packet.layer("esp")
    octets = bytes.fromhex(header.first("esp.decrypted_data").replace(":", "")) if header else b""
    return len(octets) > 2 and octets[-1] == DUMMY and not any(octets[: -2 - octets[-2]])


class TrafficFlowCase(TunnelOverIpv6):
    """All our ESP has one length, some of it is dummies, and each of our SAs has a flow label of its own."""

    more_settings = f'tfc = {PADDED_OCTETS}\ndummies = {{ per_s = 10, when = "always" }}\n'

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-traffic-flow-{role}"
        self.feature = "TFC padding, dummies and an IPv6 flow label for each SA"

    def config(self, red: str) -> str:
        return super().config(red).replace("[endpoint]", '[endpoint]\nflow_label = "sa"')

    def children(self) -> tuple[Child, ...]:
        return tuple(replace(one, more=("tfc_padding = mtu",)) for one in super().children())

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            answered = now.ping_both_ways()
            now.ours.rekey("pe2", self.our_child)
            time.sleep(DUMMIES_S)
            return answered | now.facts()

    def check(self, evidence: Evidence) -> list[str]:
        seen = [
            check_initiator(evidence, self.role, self.ends),
            check_keys(evidence),
            *check_both_ways(evidence, OUR_CUSTOMER, PEER_CUSTOMER, self.ends),
        ]
        dummies = [packet for packet in evidence.esp if is_dummy(packet)]
        require(len(dummies) >= 10, f"{len(dummies)} dummies")
        require({packet.source for packet in dummies} == {self.ends[0]}, "somebody else sends dummies")
        frames = {packet.packet.number for packet in dummies}
        rest = [packet for packet in evidence.packets if packet.number not in frames]
        seen.append(check_decrypted(replace(evidence, packets=rest)))
        ours = [packet for packet in evidence.esp if packet.source == self.ends[0]]
        others = [packet for packet in evidence.esp if packet not in dummies]
        require(all(packet.next_header == 4 for packet in others), "neither tunnel mode nor a dummy")
        lengths: set[int] = set()
        labels: set[tuple[int, int]] = set()
        for packet in ours:
            outer, udp = packet.packet.layer("ipv6"), packet.packet.layer("udp")
            require(outer and udp, f"not over UDP and IPv6: {packet}")
            if outer and udp:
                lengths.add(udp.number("udp.length") or 0)
                labels.add((packet.spi, outer.number("ipv6.flow") or 0))
        require(
            len(lengths) == 1 and min(lengths) > PADDED_OCTETS,
            f"lengths of our ESP in UDP: {sorted(lengths)}",
        )
        spis = {spi for spi, _ in labels}
        distinct = {label for _, label in labels}
        require(len(spis) > 1, "no rekey")
        require(
            len(labels) == len(spis) == len(distinct) and 0 not in distinct, f"flow labels {sorted(labels)}"
        )
        (sent,) = {child["tfc_octets"] for child in self._our_children(evidence)}
        require(sent == PADDED_OCTETS, f"tfc_octets {sent}")
        return [
            *seen,
            f"{len(ours)} ESP packets of ours, all of {lengths.pop()} octets of UDP, {len(dummies)} of them dummies",
            f"{len(distinct)} flow labels for {len(spis)} SAs",
        ]

    @staticmethod
    def _our_children(evidence: Evidence) -> list[dict[str, Any]]:
        peers: list[dict[str, Any]] = evidence.fact("our_status")["peers"]
        return [child for peer in peers for child in peer["children"]]


CASES = tuple(TrafficFlowCase(role) for role in ("initiator", "responder"))
