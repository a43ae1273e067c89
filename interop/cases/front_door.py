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
    """The peer is not in the main routing table, nor are the customers where `inside` names a VRF device."""

    def __init__(self, inside: str, role: str) -> None:
        super().__init__("mpls-in-ip", False, role)
        self.inside = inside
        self.name = f"linux-pe-front-door-vrf-{'inside-vrf' if inside else 'inside-global'}-{role}"
        self.feature = f"front door by a VRF device, the inside {'by another one' if inside else 'global'}"

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
                inside=self.inside,
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
                "inside_table": ours.sh("ip route show vrf red; ip -d link show red0"),
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
        is_inside = "red0" in devices["red"]
        require(is_inside == bool(self.inside), f"our TUN device is in the wrong table: {devices}")
        require(
            ("vrf_slave" in evidence.fact("inside_table")) == bool(self.inside), "red0 and the VRF device"
        )
        # What we leave there on purpose: what is a customer's is unreachable wherever no SA leads to it.
        routes = [line for line in evidence.fact("main_table") if line and not line.startswith("unreachable")]
        strange = [line for line in routes if self.inside or "dev red0" not in line]
        require(not strange, f"main routing table: {strange}")
        refused = evidence.fact("without_vrf").count("RTNETLINK answers")
        expected = 2 if self.inside else 1
        require(refused == expected, f"reached without a VRF: {evidence.fact('without_vrf')}")
        sockets = evidence.fact("sockets")
        for port in (500, 4500):
            require(f"{OUR_ADDRESS}%front:{port}" in sockets, f"port {port} is not in the VRF: {sockets}")
        require("red0" not in evidence.fact("left"), f"left behind: {evidence.fact('left')}")
        seen = super().check(evidence)
        inside = (
            "in red, no way in the main table"
            if self.inside
            else "in the main table, which has no way to the peer"
        )
        return [*seen, f"IKE and ESP in the VRF device front, customers {inside}"]


CASES: tuple[FrontDoorCase, ...] = tuple(
    FrontDoorCase(inside, role) for inside in ("red", "") for role in ("initiator", "responder")
)
