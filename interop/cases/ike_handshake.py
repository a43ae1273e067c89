"""IKE_SA_INIT in three attempts: a cookie is asked for, then another key exchange (RFC 7296 1.2, 2.6, 2.6.1).

Must not know: how our program does it. Half-open IKE SAs of a third host make the responder ask for cookies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..peers.container import SwanContainer
from ..peers.strongswan import Connection
from ..processes import run
from ..wire import IKE_SA_INIT, KE, NONCE, NOTIFY, SA, IkeMessage
from .case import (
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    Evidence,
    Lab,
    check_both_ways,
    check_decrypted,
    check_keys,
    require,
)
from .running import Running
from .scripts import COMMAND, mirrored
from .strongswan import PEER_CUSTOMER, IpTunnelCase

COOKIE, INVALID_KE_PAYLOAD = 16390, 17
X25519, ECP384 = 31, 20
STRANGER = "192.0.2.3"
BOTH, ONE = "aes256gcm16-prfsha384-x25519-ecp384", "aes256gcm16-prfsha384-ecp384"


class CookieAndGroup(IpTunnelCase):
    """Who begins sends the key exchange that the other does not take, while the other is being flooded."""

    charon_settings = "cookie_threshold = 3\n  cookie_threshold_ip = 1000\n  block_threshold = 1000"

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-cookie-and-group-{role}"
        self.feature = "IKE_SA_INIT thrice: COOKIE, then INVALID_KE_PAYLOAD, then the answer"
        self.initiator, self.responder = (
            (OUR_ADDRESS, PEER_ADDRESS) if role == "initiator" else (PEER_ADDRESS, OUR_ADDRESS)
        )
        self.ike = (BOTH if role == "initiator" else ONE,)
        self.peer_proposals = ONE if role == "initiator" else BOTH
        self.peer_address = "any" if role == "responder" else ""

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        """Who answers knows of no address: a stranger is refused only when he should prove himself."""
        made = super().connection(names)
        return replace(made, remote_address="%any") if self.role == "initiator" else made

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            self.flood(now)
            now.bring_up(self.role, self.their_child)
            facts = now.ping_both_ways() | now.facts()
            ours, theirs = now.ours.keys(), now.charon.keys()
            # Who answers derives keys with every stranger that brings a cookie, or needed none yet.
            known = set(theirs.ike) <= set(ours.ike) and set(theirs.esp) == set(ours.esp)
            return facts | {"keys_agree": known and bool(theirs.ike and theirs.esp)}

    def flood(self, now: Running[SwanContainer]) -> None:
        """`mplsec peer` begins IKE SAs with the responder, from another host, and ends none."""
        stranger = now.network.host("stranger", f"{STRANGER}/24")
        config = IpTunnelCase("initiator").config("none")
        if self.responder == OUR_ADDRESS:
            config = mirrored(config).replace(f'["{PEER_ADDRESS}"]', f'["{STRANGER}"]')
        else:
            config = config.replace(f'["{OUR_ADDRESS}"]', f'["{STRANGER}"]')
        config = config.replace(IpTunnelCase.ike[0], ONE)
        path = now.lab.folder / "pe1" / "flood.toml"
        path.write_text(config)
        run([COMMAND, "peer", "half_open_flood", path, "--json"], netns=stranger, timeout_s=40)

    def check(self, evidence: Evidence) -> list[str]:
        seen = [check_decrypted(evidence), check_keys(evidence)]
        inits = [one for one in evidence.ike if one.exchange == IKE_SA_INIT]
        requests = [one for one in inits if not one.is_response and one.source == self.initiator]
        answers = [one for one in inits if one.is_response and one.spi_i in {ask.spi_i for ask in requests}]
        require(len(requests) == len(answers) == 3, f"{len(requests)} IKE_SA_INIT, {len(answers)} answers")
        cookie = notify(answers[0], COOKIE)
        require(cookie, f"the first answer has the notifies {answers[0].notifies}, not COOKIE")
        group = notify(answers[1], INVALID_KE_PAYLOAD)
        require(group == ECP384.to_bytes(2), f"the second answer asks for {group.hex()}")
        require(answers[2].payload(SA) and answers[2].payload(KE), "the third answer is none")
        require({one.source for one in answers} == {self.responder}, "the answers are not of one responder")
        require(not notify(requests[0], COOKIE), "a cookie in the first request")
        for one in requests[1:]:
            require(notify(one, COOKIE) == cookie, "a request does not bring back the cookie")
            require(one.payloads[0].type == NOTIFY, "the cookie is not the first payload (RFC 7296 2.6)")
        groups = [int.from_bytes(payload.octets[4:6]) for one in requests if (payload := one.payload(KE))]
        require(groups == [X25519, X25519, ECP384], f"key exchanges of the requests: {groups}")
        nonces = {payload.octets for one in requests if (payload := one.payload(NONCE))}
        require(len(nonces) == 1, "the nonce changed between the requests")
        flood = sum(one.source == STRANGER for one in inits)
        require(flood > 40, f"{flood} IKE_SA_INIT of the stranger")
        seen += check_both_ways(evidence, OUR_CUSTOMER, PEER_CUSTOMER)
        return [
            *seen,
            f"amid {flood} IKE SAs that are half open: COOKIE of {len(cookie)} octets, INVALID_KE_PAYLOAD, answer",
        ]


def notify(message: IkeMessage, kind: int) -> bytes:
    """The data of its notify of this type; nothing if there is none (RFC 7296 3.10)."""
    for payload in message.payloads:
        octets = payload.octets
        if payload.type == NOTIFY and int.from_bytes(octets[6:8]) == kind:
            return octets[8 + octets[5] :]
    return b""


CASES = tuple(CookieAndGroup(role) for role in ("initiator", "responder"))
