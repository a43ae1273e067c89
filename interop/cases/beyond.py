"""What a peer cannot do, tried all the same: it is told by the peer's own words, and passes once it can.

Must not know: how our program does it.
"""

from __future__ import annotations

import re
from typing import Any

from ..peers.strongswan import Child
from ..processes import LabError
from ..wire import MPLS_IN_IP
from .case import Evidence, Lab, UnsupportedError, check_decrypted, check_initiator, require
from .strongswan import StrongSwanCase

REFUSALS = re.compile(r"(?:unable to add SAD entry|.*unsupported mode).*", re.I)
"""What charon's log has when its kernel-libipsec cannot do it; whatever else goes wrong is a failure."""


class TransportInContainer(StrongSwanCase):
    """MPLS-in-IP in transport mode with strongSwan's own ESP (kernel-libipsec)."""

    feature = "mpls-in-ip in transport mode, ESP in user space"
    udp = "auto"

    def __init__(self, role: str) -> None:
        super().__init__("transport-mode", role)

    def config(self, red: str) -> str:
        return super().config(red).replace('mode = "tunnel"', 'mode = "transport"')

    def peer_settings(self) -> str:
        return """selectors = "plain"
encapsulation = "mpls-in-ip"

[[peer.vrf]]
name = "red"
labels = { local = 101, peer = 102, routes = ["10.2.0.0/24"] }
"""

    def children(self) -> tuple[Child, ...]:
        selector = f"dynamic[{MPLS_IN_IP}]"
        return (Child("mpls", selector, selector),)

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            if self.role == "initiator":
                said = now.ours.try_to_initiate("pe2")
            else:
                said = now.charon.try_to_initiate("mpls")
            if not now.charon.child_sas():
                log = now.charon.log.read_text(errors="replace")
                refusals = [found[0] for found in REFUSALS.finditer(log)]
                if not refusals:
                    raise LabError(f"no child, and charon does not say that it cannot: {said.strip()}")
                raise UnsupportedError(f"charon says: {refusals[0]}", now.charon.version)
            return {"answer": now.ping(count=1), **now.facts()}

    def check(self, evidence: Evidence) -> list[str]:
        seen = [check_initiator(evidence, self.role), check_decrypted(evidence)]
        for packet in evidence.esp:
            require(packet.next_header == MPLS_IN_IP, f"next header is not {MPLS_IN_IP}: {packet}")
        require(evidence.fact("answer") == 1, "no answer")
        return seen


CASES: tuple[StrongSwanCase, ...] = tuple(TransportInContainer(role) for role in ("initiator", "responder"))
