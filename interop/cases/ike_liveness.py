"""A cable is pulled: both sides notice by their liveness checks (RFC 7296 2.4), and traffic comes back with it.

Must not know: how our program does it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from ..peers.strongswan import Child, Connection
from ..processes import wait_until
from ..wire import IKE_SA_INIT, INFORMATIONAL
from .case import OUR_ADDRESS, PEER_ADDRESS, Evidence, Lab, require
from .strongswan import IpTunnelCase

TRIES = 3


class Cut(IpTunnelCase):
    """Who began the IKE SA begins another one: we when there is traffic, charon by itself."""

    charon_settings = f"retransmit_tries = {TRIES - 1}\n  retransmit_timeout = 1.0\n  retransmit_base = 1.3"
    more_settings = f'liveness = "2s"\nretransmit_tries = {TRIES}\n'

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-cut-{role}"
        self.feature = "liveness: a cut noticed by both sides, and a new IKE SA when it is over"
        self.start = "traffic" if role == "initiator" else "none"

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        made = super().connection(names)
        return replace(made, more=(*made.more, "dpd_delay = 2s", "keyingtries = 0"))

    def children(self) -> tuple[Child, ...]:
        action = "dpd_action = " + ("clear" if self.role == "initiator" else "restart")
        return tuple(replace(child, more=(action,)) for child in super().children())

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            before = now.ping(count=1)
            now.network.unplug("swan")

            def both_noticed() -> bool:
                established = [sa for sa in now.charon.ike_sas() if sa["state"] == "ESTABLISHED"]
                return not now.ours.ike_sas() and not established

            wait_until(both_noticed, "no IKE SA on either side", timeout_s=40)
            now.network.replug("swan")
            if self.role == "initiator":
                wait_until(lambda: now.ping(count=1, wait_s=1), "traffic that brings the tunnel back")
            else:
                now.charon.wait_for_children(1)
            log = now.charon.log.read_text(errors="replace").splitlines()
            return {
                "before": before,
                "peer_words": [line for line in log if "giving up after" in line],
                "our_words": [line for line in now.ours.log.read_text().splitlines() if "closed: " in line],
                **now.ping_both_ways(),
                **now.facts(),
            }

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        begun = [one for one in evidence.ike if one.exchange == IKE_SA_INIT and one.is_response]
        pair = list(dict.fromkeys(one.spi_i for one in begun))
        require(len(pair) == 2, f"{len(pair)} IKE SAs were begun and answered, not two")
        checks = [
            one
            for one in evidence.ike
            if one.spi_i == pair[0] and one.exchange == INFORMATIONAL and not one.deletes_ike_sa
        ]
        answered = {(one.source, one.message_id) for one in checks if one.is_response}
        ours = Counter(one.message_id for one in checks if one.source == OUR_ADDRESS and not one.is_response)
        lost = [number for number in ours if (PEER_ADDRESS, number) not in answered]
        require(len(lost) == 1 and ours[lost[0]] == TRIES, f"our liveness checks: {ours}, unanswered {lost}")
        require(
            not [one for one in evidence.ike if one.spi_i == pair[0] and one.deletes_ike_sa],
            "the first IKE SA was deleted, not given up",
        )
        for fact in ("peer_words", "our_words"):
            require(evidence.fact(fact), f"{fact}: nobody gave up")
            seen.append(f"{fact.replace('_', ' ')}: {evidence.fact(fact)[0]}")
        require(evidence.fact("before") == 1, "no answer before the cut")
        second = next(one.packet.number for one in begun if one.spi_i == pair[1])
        spis = {spi for child in evidence.children if child.is_accepted for spi in child.spis.values()}
        use = {packet.spi for packet in evidence.esp if packet.packet.number > second}
        require(
            len(spis) == 4 and len(use) == 2 and use < spis, "after the cut not only the new child is in use"
        )
        for fact in ("answers_to_us", "answers_to_peer"):
            require(evidence.fact(fact) == 3, f"{fact} after the cut: {evidence.fact(fact)}")
        return [*seen, f"our check was sent {TRIES} times; after the cut a new IKE SA with a new child"]


CASES = tuple(Cut(role) for role in ("initiator", "responder"))
