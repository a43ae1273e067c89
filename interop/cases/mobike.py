"""MOBIKE (RFC 4555) against strongSwan in a container: an underlay address goes on either side, the tunnel stays.

Must not know: how our program notices. The address is taken away with iproute2, nobody is told.
"""

from __future__ import annotations

from typing import Any

from ..networks import Network, ip, write_setting
from ..peers.container import SwanContainer
from ..processes import wait_until
from .case import OUR_ADDRESS, PEER_ADDRESS, Evidence, Lab, require
from .running import Running
from .strongswan import IpTunnelCase

OUR_OTHER, PEER_OTHER = "192.0.2.11", "192.0.2.12"
MOBIKE_SUPPORTED, UPDATE_SA_ADDRESSES, COOKIE2 = 16396, 16400, 16401
INFORMATIONAL, IKE_AUTH = 37, 35
MOVE_S = 20


class AddressGoes(IpTunnelCase):
    """Who has opened the IKE SA loses the address in use, and goes on with its other one."""

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-mobike-{role}"
        self.feature = "MOBIKE: the address of who began goes, IKE and ESP move to its other one"
        self.new_source = OUR_OTHER if role == "initiator" else PEER_OTHER

    def front_door(self, network: Network) -> str:
        door = network.host("pe1", f"{OUR_ADDRESS}/24", f"{OUR_OTHER}/24")
        write_setting(door, "net/ipv4/conf/all/promote_secondaries", "1")
        return door

    def config(self, red: str) -> str:
        text = super().config(red)
        text = text.replace(f'["{OUR_ADDRESS}"]', f'["{OUR_ADDRESS}", "{OUR_OTHER}"]')
        return text.replace(f'["{PEER_ADDRESS}"]', f'["{PEER_ADDRESS}", "{PEER_OTHER}"]')

    def drive(self, lab: Lab) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            with now.stream(facts):
                self.move(now)
                wait_until(lambda: self.has_moved(now), f"the tunnel at {self.new_source}", timeout_s=MOVE_S)
            return facts | now.ping_both_ways() | now.facts(by_spi=True)

    def move(self, now: Running[SwanContainer]) -> None:
        """Take the address away."""
        if self.role == "initiator":
            door = now.ours.netns
            ip("addr", "del", f"{OUR_ADDRESS}/24", "dev", "eth0", netns=door)
        else:
            now.machine.sh(
                f"ip addr add {PEER_OTHER}/32 dev eth0"
                f" && ip route add 192.0.2.0/24 dev eth0 src {PEER_OTHER} metric 9"
                f" && ip addr del {PEER_ADDRESS}/24 dev eth0"
            )

    def has_moved(self, now: Running[SwanContainer]) -> bool:
        if self.role == "initiator":
            return [sa["remote-host"] for sa in now.charon.ike_sas()] == [OUR_OTHER]
        return [sa["local-host"] for sa in now.charon.ike_sas()] == [PEER_OTHER] and now.ping(count=1) == 1

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        auth = [message for message in evidence.ike if message.exchange == IKE_AUTH]
        require(auth and all(MOBIKE_SUPPORTED in one.notifies for one in auth), "MOBIKE was not agreed")
        require(len({message.spi_i for message in evidence.ike}) == 1, "another IKE SA was made")
        updates = [one for one in evidence.ike if UPDATE_SA_ADDRESSES in one.notifies]
        require(updates, "no UPDATE_SA_ADDRESSES")
        require(updates[-1].source == self.new_source, f"the update came from {updates[-1].source}")
        answers = [
            one for one in evidence.ike if one.is_response and one.message_id == updates[-1].message_id
        ]
        require(any(one.exchange == INFORMATIONAL for one in answers), "the update was not answered")
        checks = [one for one in evidence.ike if COOKIE2 in one.notifies and not one.is_response]
        require(checks, "no return routability check")
        last = {packet.source for packet in evidence.esp[-4:]}
        require(self.new_source in last, f"the last ESP is of {sorted(last)}")
        sent, answered = evidence.fact("stream")
        for fact in ("answers_to_us", "answers_to_peer"):
            require(evidence.fact(fact), f"{fact} after the move: none")
        return [*seen, f"moved to {self.new_source}; of {sent} pings meanwhile {answered} were answered"]


CASES = tuple(AddressGoes(role) for role in ("initiator", "responder"))
