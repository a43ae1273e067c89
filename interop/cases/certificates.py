"""Cases with certificates against strongSwan in a container: both ends sign (RFC 7427), both send their chain.

Must not know: how our program does it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..peers.container import SwanContainer
from ..peers.strongswan import Connection
from ..pki import Certified, certify
from ..wire import IKE_AUTH
from .case import (
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    PSK,
    Evidence,
    Lab,
    check_pings,
    require,
)
from .strongswan import PEER_CUSTOMER, IpTunnelCase

CERT, CERTREQ, AUTH = 37, 38, 39
SIGNATURE_HASH_ALGORITHMS = 16431
DIGITAL_SIGNATURE = 14
X509_SIGNATURE = 4
# The AlgorithmIdentifier that goes with a key, and the beginning of it for RSA: we use PSS, charon PKCS#1 v1.5.
OUR_ALGORITHM = {
    "p384": "300a06082a8648ce3d040303",
    "ed25519": "300506032b6570",
    "rsa": "304106092a864886f70d01010a",
}
PEER_ALGORITHM = OUR_ALGORITHM | {"rsa": "300d06092a864886f70d01010b0500"}


@dataclass(frozen=True)
class SignedConnection(Connection):
    """The same connection, with certificates in /share instead of the pre-shared key."""

    def text(self) -> str:
        connections, _, _ = super().text().partition("secrets {")
        local, remote = (
            "auth = pubkey\n    certs = /share/pe2.pem",
            "auth = pubkey\n    cacerts = /share/ca.pem",
        )
        return connections.replace("auth = psk", local, 1).replace("auth = psk", remote, 1)


class CertificateCase(IpTunnelCase):
    """The simplest tunnel, but both ends prove by certificate who they are; ours hangs on an intermediate CA."""

    def __init__(self, ours: str, theirs: str, role: str) -> None:
        super().__init__(role)
        self.ours, self.theirs = ours, theirs
        self.name = f"strongswan-certificates-{ours}-{theirs}-{role}"
        self.feature = f"certificates: {ours} (ours) and {theirs} (the peer's), RFC 7427, chain of two sent"

    def certificates(self) -> tuple[Certified, list[Certified], Certified]:
        """The root, our chain with the end entity first, and the peer's certificate."""
        root = certify("Root", "p384", is_ca=True)
        middle = certify("Middle", "p384", root, is_ca=True)
        ours = [certify("pe1.example", self.ours, middle), middle]
        return root, ours, certify("pe2.example", self.theirs, root)

    def config(self, red: str) -> str:
        auth = '{ certificate = "pe1.pem", key_file = "pe1.key", ca = "ca.pem" }'
        return super().config(red).replace('{ psk_file = "peer.psk" }', auth)

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        return SignedConnection(*names, PSK, self.children(), encap=True)

    def prepare(self, lab: Lab, container: SwanContainer) -> None:
        root, (ours, *middle), theirs = self.certificates()
        chain = "".join(one.pem for one in (ours, *middle))
        write(lab, "pe1", {"pe1.pem": chain, "pe1.key": ours.key_pem, "ca.pem": root.pem})
        write(lab, "pe2", {"pe2.pem": theirs.pem, "pe2.key": theirs.key_pem, "ca.pem": root.pem})
        # Where swanctl looks for keys depends on its version: beside --file, or in its own folder.
        container.sh(
            "for d in /etc/swanctl /share; do mkdir -p $d/private && cp /share/pe2.key $d/private/; done"
        )

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        check_pings(evidence, OUR_CUSTOMER, PEER_CUSTOMER, OUR_ADDRESS)
        inits = [message for message in evidence.ike if message.exchange == 34]
        for message in inits:
            require(SIGNATURE_HASH_ALGORITHMS in message.notifies, f"{message.source} announced no hashes")
        for source, algorithm, count in (
            (OUR_ADDRESS, OUR_ALGORITHM[self.ours], 2),
            (PEER_ADDRESS, PEER_ALGORITHM[self.theirs], 1),
        ):
            seen.append(check_proof(evidence, source, algorithm, count))
        return seen


def check_proof(evidence: Evidence, source: str, algorithm: str, count: int) -> str:
    """`source` sent `count` X.509 certificates, and a digital signature by this AlgorithmIdentifier."""
    sent = [message for message in evidence.ike if message.exchange == IKE_AUTH and message.source == source]
    require(len(sent) == 1, f"{source} sent {len(sent)} IKE_AUTH messages")
    auth = sent[0].payload(AUTH)
    octets = auth.octets if auth else b""
    require(
        octets[4:5] == bytes([DIGITAL_SIGNATURE]), f"{source} proved itself by method {octets[4:5].hex()}"
    )
    identifier = octets[9 : 9 + octets[8]].hex()
    require(identifier.startswith(algorithm), f"{source} signed by {identifier}")
    encodings = [payload.octets[4] for payload in sent[0].payloads if payload.type == CERT]
    require(encodings == [X509_SIGNATURE] * count, f"{source} sent the certificates {encodings}")
    return f"{source}: {count} X.509 certificates, AUTH method 14 by {identifier}"


def write(lab: Lab, folder: str, files: dict[str, str]) -> None:
    """Files of one side, for the owner alone."""
    for name, content in files.items():
        path = lab.folder / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(content)


CASES: tuple[CertificateCase, ...] = tuple(
    CertificateCase(ours, theirs, role)
    for ours, theirs in (("p384", "p384"), ("rsa", "ed25519"), ("ed25519", "rsa"))
    for role in ("initiator", "responder")
)
