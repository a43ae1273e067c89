"""A front door that is a VRF device of a real kernel, the inside another one: our program in a guest, a Linux PE.

Must not know: how our program does it. The namespaces and marks of a front door are in tests/endpoint.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ..capture import Capture
from ..peers.guest_mplsec import GuestMplsec
from .case import OUR_ADDRESS, OUR_CUSTOMER, PEER_ADDRESS, PINGS, PSK, Evidence, Lab, require
from .linux_pe import PEER_CUSTOMER, LinuxPeCase


class FrontDoorCase(LinuxPeCase):
    """Neither the peer nor the customers are in the main routing table."""

    def __init__(self, role: str) -> None:
        super().__init__("mpls-in-ip", False, role)
        self.name = f"linux-pe-front-door-vrf-{role}"
        self.feature = "front door by a VRF device, the inside by another one"

    @property
    def includes(self) -> frozenset[str]:
        """On the wire it is the same as without VRF devices."""
        return frozenset({f"mpls-in-ip in transport mode, raw ESP, static labels into a VRF, {self.role}"})

    def config(self, red: str) -> str:
        text = super().config(red)
        identity = 'identity = "pe1.example"\n'
        require(text.count(identity) == 1, "the configuration of the Linux PE's cases has another identity")
        text = text.replace(identity, identity + 'front_door = { device = "front" }\n')
        return text.replace(f'netns = "{red}", ', "")

    def drive(self, lab: Lab) -> dict[str, Any]:
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            linux = self.machine(network, lab)
            stack.enter_context(linux)
            ours = GuestMplsec(
                network,
                folder=lab.folder / "pe1",
                state=lab.state,
                address=f"{OUR_ADDRESS}/24",
                config=self.config("red"),
                psk=PSK,
            )
            stack.enter_context(ours)
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge))
            charon = linux.start_strongswan(self.connection())
            ours.start()
            if self.role == "initiator":
                ours.initiate("pe2")
            else:
                charon.initiate(self.their_child)
            charon.wait_for_children(1)
            keys = charon.keys()
            facts = {
                "answers_to_us": ours.ping(PEER_CUSTOMER, count=PINGS, source=OUR_CUSTOMER),
                "answers_to_peer": linux.ping(OUR_CUSTOMER, count=PINGS),
                "peer_version": f"Linux {linux.kernel_version}, {charon.version}",
                "our_status": ours.status(),
                "kernel_sas": [vars(state) for state in linux.xfrm_states()],
                "kernel_errors": linux.xfrm_errors(),
                "main_table": ours.sh("ip route show table main").split("\n"),
                "devices": {
                    vrf: ours.sh(f"ip -br link show master {vrf}").split() for vrf in ("front", "red")
                },
                "without_vrf": ours.sh(
                    f"for one in {PEER_ADDRESS} {PEER_CUSTOMER}; do ip route get $one 2>&1; done", check=False
                ),
                "sockets": ours.sh("ss -uanH; ss -wanH", check=False),
            }
            facts |= {"keys_agree": keys.agrees_with(ours.keys()), "left": ours.end()}
            keys.write(lab.keys)
            return facts

    def check(self, evidence: Evidence) -> list[str]:
        devices = evidence.fact("devices")
        require("vec0" in devices["front"], f"our card is not in the VRF device: {devices}")
        require("red0" in devices["red"], f"our TUN device is not in the VRF device: {devices}")
        # What we leave there on purpose: what is a customer's is unreachable wherever no SA leads to it.
        routes = [line for line in evidence.fact("main_table") if line and not line.startswith("unreachable")]
        require(not routes, f"main routing table: {routes}")
        refused = evidence.fact("without_vrf").count("RTNETLINK answers")
        require(refused == 2, f"peer and customer are reached without VRF: {evidence.fact('without_vrf')}")
        sockets = evidence.fact("sockets")
        for port in (500, 4500):
            require(f"{OUR_ADDRESS}%front:{port}" in sockets, f"port {port} is not in the VRF: {sockets}")
        require("red0" not in evidence.fact("left"), f"left behind: {evidence.fact('left')}")
        seen = super().check(evidence)
        return [*seen, "IKE and ESP in the VRF device front, customers in red, no way in the main table"]


CASES: tuple[FrontDoorCase, ...] = tuple(FrontDoorCase(role) for role in ("initiator", "responder"))
