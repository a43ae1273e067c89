"""A CRL revokes one end's certificate: we refuse the peer, and strongSwan refuses us; another one is taken.

Must not know: how our program does it. charon is three peers, by identity: pe2, whose certificate is good; pe3,
whose certificate is revoked; pe4, to whom we prove ourselves with a certificate of ours that is revoked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..peers.container import PLUGINS, SwanContainer
from ..peers.strongswan import Connection
from ..pki import certify, revocation_list
from ..wire import IKE_AUTH, INFORMATIONAL
from .case import (
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    PINGS,
    PSK,
    Evidence,
    Lab,
    check_initiator,
    check_pings,
    require,
)
from .certificates import CERT, write
from .strongswan import PEER_CUSTOMER, SUITE, IpTunnelCase

AUTHENTICATION_FAILED = 24
GOOD, REVOKED, NOT_OURS = "pe2", "pe3", "pe4"
SUBNETS = {GOOD: 2, REVOKED: 3, NOT_OURS: 4}
OURS = {GOOD: "pe1", REVOKED: "pe1", NOT_OURS: "lost"}
"""Which certificate of ours each of them is shown."""


@dataclass(frozen=True)
class ThreeConnections(Connection):
    """A connection for each identity, with its certificate; a certificate without CRL is refused."""

    def text(self) -> str:
        return "connections {\n" + "".join(self._one(name) for name in SUBNETS) + "}\n"

    def _one(self, name: str) -> str:
        local, remote = f"auth = pubkey\n    certs = /share/{name}.pem", "auth = pubkey"
        child = replace(self.children[0], name=name, local_ts=f"10.{SUBNETS[name]}.0.0/24")
        text = replace(self, local_id=f"{name}.example", children=(child,))._plain()
        text = text.replace("auth = psk", local, 1)
        text = text.replace(
            "auth = psk", f"{remote}\n    cacerts = /share/ca.pem\n    revocation = strict", 1
        )
        return (
            text.removeprefix("connections { peer {").join((f"{name} {{", "")).removesuffix("} }\n") + "}\n"
        )

    def _plain(self) -> str:
        return super().text().partition("secrets {")[0]


class Revoked(IpTunnelCase):
    """Both refusals and the good peer, one after another."""

    charon_settings = PLUGINS.replace("constraints", "constraints revocation")

    def __init__(self, role: str, suite: str = SUITE) -> None:
        super().__init__(role, suite)
        self.name = self.name.replace("ip-tunnel", "revoked")
        self.feature = "a CRL: the peer's certificate is revoked, and ours; a good one is taken"

    def config(self, red: str) -> str:
        head, peer, tail = super().config(red).partition("[[peer]]\n")
        auth = '{{ certificate = "{0}.pem", key_file = "{0}.key", ca = "ca.pem", crl = "ca.crl" }}'
        parts = [head]
        for name, subnet in SUBNETS.items():
            one = tail.replace("pe2", name).replace("10.2.0.0", f"10.{subnet}.0.0")
            parts += [peer, one.replace('{ psk_file = "peer.psk" }', auth.format(OURS[name])), "\n"]
        return "".join(parts)

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        return ThreeConnections(*names, PSK, self.children(), encap=True, more=("childless = never",))

    def prepare(self, lab: Lab, container: SwanContainer) -> None:
        root = certify("Root", "p384", is_ca=True)
        ours = {name: certify("pe1.example", "p384", root) for name in ("pe1", "lost")}
        theirs = {name: certify(f"{name}.example", "ed25519", root) for name in SUBNETS}
        crl = revocation_list(root, [theirs[REVOKED], ours["lost"]])
        files = {"ca.pem": root.pem}
        for folder, certificates in (("pe1", ours), ("pe2", theirs)):
            found = {f"{name}.pem": one.pem for name, one in certificates.items()}
            found |= {f"{name}.key": one.key_pem for name, one in certificates.items()}
            write(lab, folder, files | found | {"ca.crl": crl})
        container.sh(
            "for d in /etc/swanctl /share; do mkdir -p $d/private $d/x509crl; cp /share/*.key $d/private/;"
            " cp /share/ca.crl $d/x509crl/ca.pem; done"
        )

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            said = {}
            for name in (REVOKED, NOT_OURS):
                begin = now.ours.try_to_initiate if self.role == "initiator" else now.charon.try_to_initiate
                said[name] = begin(name)
            if self.role == "initiator":
                now.ours.initiate(GOOD)
            else:
                now.charon.initiate(GOOD)
            children = now.charon.wait_for_children(1)
            answers = now.ping()
            log = now.charon.log.read_text(errors="replace").splitlines()
            facts = now.facts()
            ours = now.ours.write_keys(lab.keys)
            return facts | {
                "keys_of_ours_alone": len(ours - now.charon.secrets()),
                "said": said,
                "answers": answers,
                "children": [child["name"] for child in children],
                "our_words": [line for line in now.ours.log.read_text().splitlines() if "revoked" in line],
                "peer_words": [line for line in log if "certificate was revoked on" in line],
            }

    def check(self, evidence: Evidence) -> list[str]:
        seen = [check_initiator(evidence, self.role)]
        auth = [one for one in evidence.ike if one.exchange == IKE_AUTH and not one.is_response]
        require(len(auth) == 3, f"{len(auth)} IKE_AUTH, not three")
        who_refuses = {REVOKED: OUR_ADDRESS, NOT_OURS: PEER_ADDRESS}
        for name, request in zip(who_refuses, auth, strict=False):
            mine = [one for one in evidence.ike if one.spi_i == request.spi_i]
            refusals = [one for one in mine if AUTHENTICATION_FAILED in one.notifies]
            require(refusals, f"nobody refused {name} with AUTHENTICATION_FAILED")
            first, by = refusals[0], who_refuses[name]
            require(first.source == by, f"{name} was refused by {first.source}, not by {by}")
            where = IKE_AUTH if by != request.source else INFORMATIONAL
            require(first.exchange == where, f"{name} was refused in exchange {first.exchange}")
            shown = [one for one in mine if one.source != by and one.payload(CERT)]
            require(shown, f"no certificate was shown to who refuses {name}")
            seen.append(f"{by} says AUTHENTICATION_FAILED in exchange {where} (frame {first.packet.number})")
        children = [child for child in evidence.children if child.is_accepted]
        require(children and children[-1].request.spi_i == auth[2].spi_i, "the good peer has no child")
        require(evidence.fact("children") == [GOOD], f"children at the peer: {evidence.fact('children')}")
        for fact in ("our_words", "peer_words"):
            words = evidence.fact(fact)
            require(len(words) >= 1, f"{fact}: nothing of a certificate that is revoked")
            seen.append(f"{fact.replace('_', ' ')}: {words[0]}")
        require(evidence.fact("answers") == PINGS, "pings to the good peer were lost")
        check_pings(evidence, OUR_CUSTOMER, PEER_CUSTOMER, OUR_ADDRESS)
        # The peer derives none for the child in the answer that it refuses.
        require(evidence.fact("keys_of_ours_alone") <= 2, "keys that we export the peer did not derive")
        return seen


CASES = (
    *(Revoked(role) for role in ("initiator", "responder")),
    Revoked("initiator", "bookworm"),
    Revoked("responder", "forky"),
)
