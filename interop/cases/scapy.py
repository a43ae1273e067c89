"""scapy as the peer: its codecs of IKEv2, ESP and MPLS, keys derived apart from ours; from IKE_SA_INIT to the Delete.

Must not know: how either program does it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ..capture import Capture
from ..packages import Root
from ..peers.linux_pe import received
from ..peers.mplsec import Mplsec
from ..peers.scapy_end import Terms
from ..peers.scapy_peer import ScapyPeer
from ..processes import run, wait_until
from ..wire import IKE_AUTH, MPLS_IN_IP
from .case import (
    ENDS,
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    PINGS,
    PSK,
    Case,
    Evidence,
    Lab,
    check_both_ways,
    check_decrypted,
    check_initiator,
    check_keys,
    require,
)
from .linux_pe import OUR_LABEL, PEER_LABEL, LinuxPeCase

PEER_CUSTOMER = "10.2.0.2"
INFORMATIONAL = 37
DELETE, SK = 42, 46


class ScapyCase(Case):
    """One child in transport mode for MPLS-in-IP; scapy asks whether we live, deletes the child, then the IKE SA."""

    peer = "scapy"
    roots: tuple[Root, ...] = ()
    needs_docker = False

    def __init__(self, role: str) -> None:
        self.role = role
        self.name = f"scapy-mpls-in-ip-{role}"
        self.feature = "IKE_SA_INIT to Delete with scapy's codecs, MPLS-in-IP in its ESP in transport mode"

    def config(self, red: str) -> str:
        return LinuxPeCase("mpls-in-ip", False, self.role).config(red)

    def drive(self, lab: Lab) -> dict[str, Any]:
        names = (PEER_ADDRESS, OUR_ADDRESS, "pe2.example", "pe1.example", PSK)
        terms = Terms(*names, (PEER_CUSTOMER, OUR_CUSTOMER), (OUR_LABEL, PEER_LABEL))
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            front_door, red = network.host("pe1", f"{OUR_ADDRESS}/24"), network.namespace("red")
            far = network.namespace("pe2")
            network.plug(far, "pe2", f"{PEER_ADDRESS}/24")
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge))
            scapy = stack.enter_context(ScapyPeer(terms, folder=lab.folder / "pe2", netns=far))
            ours = Mplsec(lab.folder / "pe1", self.config(red), PSK, netns=front_door, state=lab.state)
            stack.enter_context(ours)
            if self.role == "initiator":
                ours.initiate("pe2")
            else:
                scapy.tell("initiate")
            keys = scapy.keys()
            wait_until(ours.children, "our child")
            keys.write(lab.keys)
            pings = ["-c", str(PINGS), "-l", str(PINGS), "-W", "5", "-I", OUR_CUSTOMER, PEER_CUSTOMER]
            facts = {
                "peer_version": scapy.version,
                "our_version": ours.version,
                "keys_agree": keys.agrees_with(ours.keys()),
                "answers_to_us": received(run(["ping", *pings], netns=red, check=False).stdout),
                "answers_to_peer": scapy.tell(f"ping {PINGS}")["answers"],
            }
            scapy.tell("alive")
            scapy.tell("delete-child")
            facts["children_after_delete"] = len(ours.children())
            scapy.tell("delete")
            wait_until(lambda: not ours.ike_sas(), "the end of our IKE SA")
            return facts | {"told_by_scapy": scapy.tell("events")["events"]}

    def check(self, evidence: Evidence) -> list[str]:
        seen = [check_initiator(evidence, self.role), check_decrypted(evidence), check_keys(evidence)]
        made = [child for child in evidence.children if child.is_accepted]
        require(len(made) == 1 and made[0].request.exchange == IKE_AUTH, f"children: {made}")
        require(made[0].is_transport, "USE_TRANSPORT_MODE was not agreed")
        require(made[0].protocols == {MPLS_IN_IP}, f"the selectors name {made[0].protocols}")
        for packet in evidence.esp:
            label = PEER_LABEL if packet.source == OUR_ADDRESS else OUR_LABEL
            require(packet.next_header == MPLS_IN_IP, f"next header is not {MPLS_IN_IP}: {packet}")
            require(packet.labels == [(label, 1)], f"not the single label {label} with S=1: {packet}")
        seen += check_both_ways(evidence, OUR_CUSTOMER, PEER_CUSTOMER, ENDS)
        asked = informational(evidence, PEER_ADDRESS, is_response=False)
        require(asked == [[], [DELETE], [DELETE]], f"scapy's INFORMATIONAL requests: {asked}")
        answers = informational(evidence, OUR_ADDRESS, is_response=True)
        require(answers == [[], [DELETE], []], f"our answers: {answers}")
        require(evidence.fact("told_by_scapy") == [], f"we deleted: {evidence.fact('told_by_scapy')}")
        require(evidence.fact("children_after_delete") == 0, "the child outlived its Delete")
        return [
            *seen,
            f"next header {MPLS_IN_IP}, label {PEER_LABEL} to scapy and {OUR_LABEL} from it, S=1",
            "an empty INFORMATIONAL answered, a Delete of the child by ours, a Delete of the IKE SA by an empty answer",
        ]


def informational(evidence: Evidence, source: str, *, is_response: bool) -> list[list[int]]:
    """The types of what is inside SK of each INFORMATIONAL message of one side."""
    return [
        [payload.type for payload in one.payloads if payload.type != SK]
        for one in evidence.ike
        if one.exchange == INFORMATIONAL and one.source == source and one.is_response == is_response
    ]


CASES: tuple[Case, ...] = tuple(ScapyCase(role) for role in ("initiator", "responder"))
