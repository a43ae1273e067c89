"""IKE messages longer than a packet, over a path that takes little more than 1280 octets: fragments (RFC 7383).

Must not know: how our program does it.
"""

from __future__ import annotations

from ..pki import Certified, certify
from ..wire import IKE_AUTH, IKE_SA_INIT, ike_fragments
from .case import OUR_ADDRESS, OUR_CUSTOMER, PEER_ADDRESS, Evidence, check_pings, require
from .certificates import CERT, CertificateCase
from .strongswan import PEER_CUSTOMER

FRAGMENTATION_SUPPORTED = 16430
MTU = 1280
FRAGMENTS = 10
SITES = [f"responsible-for-site-{site}.example.net" for site in range(300)]


class FragmentationCase(CertificateCase):
    """Certificates with hundreds of names: our chain of six and the peer's single one take ten packets each."""

    topology = "small-mtu-silent"
    charon_settings = "max_packet = 30000"

    def __init__(self, role: str) -> None:
        super().__init__("p384", "p384", role)
        self.name = f"strongswan-ike-fragmentation-{role}"
        self.feature = f"IKE fragmentation (RFC 7383): certificates in at least {FRAGMENTS} packets of {MTU}"

    def certificates(self) -> tuple[Certified, list[Certified], Certified]:
        root = certify("Root", "p384", is_ca=True)
        chain = [root]
        for level in range(5):
            names = SITES[level * 50 : level * 50 + 50]
            chain.insert(0, certify(f"Level {level}", "p384", chain[0], is_ca=True, more_names=names))
        ours = [certify("pe1.example", "p384", chain[0]), *chain[:-1]]
        return root, ours, certify("pe2.example", "p384", root, more_names=SITES)

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        check_pings(evidence, OUR_CUSTOMER, PEER_CUSTOMER, OUR_ADDRESS)
        for source, certificates in ((OUR_ADDRESS, 6), (PEER_ADDRESS, 1)):
            ours = [message for message in evidence.ike if message.source == source]
            announced = [one for one in ours if one.exchange == IKE_SA_INIT]
            require(
                bool(announced) and all(FRAGMENTATION_SUPPORTED in one.notifies for one in announced),
                f"{source} did not announce fragmentation",
            )
            auth = [one for one in ours if one.exchange == IKE_AUTH]
            require(len(auth) == 1, f"{source} sent {len(auth)} IKE_AUTH messages")
            sent = sum(payload.type == CERT for payload in auth[0].payloads)
            require(sent == certificates, f"{source} sent {sent} certificates")
            fragments = auth[0].fragments
            require(fragments >= FRAGMENTS, f"{source} sent IKE_AUTH in {fragments} fragments")
            headers = [packet.layer("ip") for packet, _, _ in ike_fragments(evidence.packets)]
            longest = max(
                one.number("ip.len") or 0 for one in headers if one and one.first("ip.src") == source
            )
            require(longest <= MTU, f"{source} sent IKE in an IP packet of {longest} octets")
            seen.append(f"{source}: {sent} certificates in {fragments} fragments of up to {longest} octets")
        return seen


CASES = tuple(FragmentationCase(role) for role in ("initiator", "responder"))
