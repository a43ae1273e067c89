"""The IKE SA against libreswan in a container with certificates: rekeyed by either side, deleted by the peer.

Must not know: how our program does it. Its kernel has no ESP there, so there is no child; see `libreswan.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.serialization import NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from ..peers.libreswan import Conn, Libreswan
from ..peers.mplsec import Mplsec
from ..pki import certify
from ..processes import wait_until
from ..wire import IKE_AUTH
from .case import OUR_ADDRESS, PEER_ADDRESS, Evidence, Lab, check_initiator, require
from .certificates import AUTH, CERT, DIGITAL_SIGNATURE, OUR_ALGORITHM, write
from .libreswan import NAMES, LibreswanIke

PEER_ALGORITHM = OUR_ALGORITHM | {"p384": "300a06082a8648ce3d0403"}  # with whatever hash it chooses
SIGNED_BY = {"rsa": "rsasig", "p384": "ecdsa"}


@dataclass(frozen=True)
class CertificateConn(Conn):
    """The same connection with a certificate from its key store, called pe2."""

    authby: str = "ecdsa"

    def text(self) -> str:
        return (
            super()
            .text()
            .replace("authby=secret", f"authby={self.authby}\n    leftcert=pe2\n    rightca=%same")
        )


class LibreswanCertificates(LibreswanIke):
    """Both sign; the IKE SA is rekeyed by us, then by pluto, which deletes it in the end."""

    def __init__(self, kind: str, role: str) -> None:
        super().__init__(role)
        self.kind = kind
        self.name = f"libreswan-certificates-{kind}-{role}"
        self.feature = (
            f"certificates ({kind}), RFC 7427; the IKE SA rekeyed by either side, deleted by the peer"
        )

    def config(self, red: str) -> str:
        auth = '{ certificate = "pe1.pem", key_file = "pe1.key", ca = "ca.pem" }'
        return super().config(red).replace('{ psk_file = "peer.psk" }', auth)

    def connection(self, more: tuple[str, ...]) -> Conn:
        return CertificateConn(*NAMES, more, SIGNED_BY[self.kind])

    def prepare(self, lab: Lab) -> str:
        """Certificates for both sides; what puts those of the peer into its key store."""
        root = certify("Root", "p384", is_ca=True)
        ours, theirs = certify("pe1.example", self.kind, root), certify("pe2.example", self.kind, root)
        write(lab, "pe1", {"pe1.pem": ours.pem, "pe1.key": ours.key_pem, "ca.pem": root.pem})
        write(lab, "pe2", {"ca.pem": root.pem})
        packed = serialize_key_and_certificates(b"pe2", theirs.key, theirs.certificate, None, NoEncryption())
        (lab.folder / "pe2" / "pe2.p12").write_bytes(packed)
        return """certutil -A -d sql:/run/nss -n root -t CT,, -i /share/ca.pem
pk12util -i /share/pe2.p12 -d sql:/run/nss -W ''
"""

    def live(self, ours: Mplsec, pluto: Libreswan) -> dict[str, Any]:
        first = ours.ike_sas()[0]["spi_i"]

        def other(former: str) -> str | None:
            spis = [sa["spi_i"] for sa in ours.ike_sas() if sa["state"] == "established"]
            return spis[0] if len(spis) == 1 and spis[0] != former else None

        ours.rekey("pe2")
        second = wait_until(lambda: other(first), "the IKE SA that replaces the first", every_s=0.1)
        pluto.rekey_ike()
        third = wait_until(lambda: other(second), "the IKE SA that replaces the second", every_s=0.1)
        pluto.terminate()
        wait_until(lambda: not ours.ike_sas(), "no IKE SA on our side", every_s=0.1)
        return {"chain": [first, second, third]}

    def check(self, evidence: Evidence) -> list[str]:
        seen = [check_initiator(evidence, self.role)]
        for source, algorithms in ((OUR_ADDRESS, OUR_ALGORITHM), (PEER_ADDRESS, PEER_ALGORITHM)):
            sent = [one for one in evidence.ike if one.exchange == IKE_AUTH and one.source == source]
            require(len(sent) == 1, f"{source} sent {len(sent)} IKE_AUTH messages")
            auth, certificate = sent[0].payload(AUTH), sent[0].payload(CERT)
            require(certificate, f"{source} sent no certificate")
            octets = auth.octets if auth else b"\0" * 9
            require(octets[4] == DIGITAL_SIGNATURE, f"{source} proved itself by method {octets[4]}")
            identifier = octets[9 : 9 + octets[8]].hex()
            require(identifier.startswith(algorithms[self.kind]), f"{source} signed by {identifier}")
            seen.append(f"{source}: certificate, AUTH method 14 by {identifier}")
        chain = evidence.fact("chain")
        require(len(set(chain)) == 3, f"the chain of IKE SAs is {chain}")
        rekeys = [(one.request.source, one.request.spi_i, one.spi_i) for one in evidence.ike_rekeys]
        expected = [(OUR_ADDRESS, chain[0], chain[1]), (PEER_ADDRESS, chain[1], chain[2])]
        require(rekeys == expected, f"IKE SAs were rekeyed: {rekeys}")
        for spi, by in zip(chain, (OUR_ADDRESS, PEER_ADDRESS, PEER_ADDRESS), strict=True):
            gone = [one for one in evidence.ike if one.spi_i == spi and one.deletes_ike_sa]
            require(gone and gone[0].source == by, f"the IKE SA {spi} was not deleted by {by}")
        return [*seen, f"IKE SA {' > '.join(chain)}: rekeyed by us, by the peer, then deleted by the peer"]


CASES = tuple(
    LibreswanCertificates(kind, role) for kind in ("rsa", "p384") for role in ("initiator", "responder")
)
