"""Cases of plain IP between two hosts, transport mode, with a Linux kernel and strongSwan: no MPLS anywhere.

Must not know: how our program does it.
"""

from __future__ import annotations

from typing import Any

from ..peers.linux_pe import LinuxPe, received
from ..peers.strongswan import Child
from ..processes import run
from .case import (
    OUR_ADDRESS,
    PEER_ADDRESS,
    PINGS,
    Case,
    Evidence,
    Lab,
    check_decrypted,
    check_initiator,
    check_keys,
    require,
)
from .linux_pe import LinuxPeCase
from .running import Running

ICMP = 1
LARGE_OCTETS = 1300


class LinuxHostCase(LinuxPeCase):
    """Our host is a TUN device with the same address in a namespace of its own; the peer's is its kernel."""

    our_child, their_child = "red", "host"

    def __init__(self, role: str) -> None:
        super().__init__("mpls-in-ip", False, role)
        self.name = f"linux-host-transport-{role}"
        self.feature = "plain IP between two hosts in transport mode"

    def config(self, red: str) -> str:
        return f"""
[endpoint]
identity = "pe1.example"
addresses = ["{OUR_ADDRESS}"]

[[vrf]]
name = "red"
attach = [{{ tun = "red0", netns = "{red}", address = ["{OUR_ADDRESS}/32"] }}]

[[peer]]
name = "pe2"
identity = "pe2.example"
addresses = ["{PEER_ADDRESS}"]
auth = {{ psk_file = "peer.psk" }}
ike = ["aes256gcm16-prfsha384-x25519"]
esp = ["aes256gcm16"]
selectors = "plain"
mode = "transport"
encapsulation = "none"
start = "none"
[[peer.vrf]]
name = "red"
accept = ["{PEER_ADDRESS}/32"]
"""

    def children(self) -> tuple[Child, ...]:
        return (Child(self.their_child, "dynamic", "dynamic"),)

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            return self.pings(now) | self.facts(now)

    def pings(self, now: Running[LinuxPe]) -> dict[str, Any]:
        """Small ones and one that is nearly as large as the link."""
        options = f"-c {PINGS} -l {PINGS} -W 5"
        large = f"-c 1 -W 5 -M do -s {LARGE_OCTETS}"
        ours = [
            run(["ping", *words.split(), "-I", OUR_ADDRESS, PEER_ADDRESS], netns=now.red, check=False).stdout
            for words in (options, large)
        ]
        theirs = [now.machine.sh(f"ping {words} {OUR_ADDRESS}", check=False) for words in (options, large)]
        return {
            "answers_to_us": [received(text) for text in ours],
            "answers_to_peer": [received(text) for text in theirs],
        }

    def check(self, evidence: Evidence) -> list[str]:
        seen = [check_initiator(evidence, self.role), check_decrypted(evidence), check_keys(evidence)]
        made = [one for one in evidence.children if one.is_accepted]
        require(len(made) == 1, f"{len(made)} children were negotiated, not one")
        child = made[0]
        require(child.is_transport, "USE_TRANSPORT_MODE was not agreed")
        require(child.protocols == {0}, f"the selectors name the protocols {child.protocols}")
        for packet in evidence.esp:
            require(packet.next_header == ICMP, f"not directly ICMP inside ESP: {packet}")
        for fact in ("answers_to_us", "answers_to_peer"):
            require(evidence.fact(fact) == [PINGS, 1], f"{fact}: {evidence.fact(fact)}")
        require(len(evidence.esp) == 4 * (PINGS + 1), f"{len(evidence.esp)} ESP packets on the wire")
        self._check_kernel(evidence)
        return [*seen, "ICMP directly inside ESP, both ways, small and large", "the kernel counted as many"]


CASES: tuple[Case, ...] = tuple(LinuxHostCase(role) for role in ("initiator", "responder"))
