"""What must hold between identities and the means that prove them (RFC 4945 3.1).

Knows nothing of files and TOML types. Whether a certificate is valid today is for the peer to say.
"""

from __future__ import annotations

from cryptography import x509

from endpoint.config.model import CertificateAuthConfig, Config
from endpoint.config.problems import Report, quoted
from ike.errors import UntrustedError
from ike.numbers import IdType
from ike.wire.identity import Identity
from ike.x509 import check_identity


def check_auth(config: Config, report: Report) -> None:
    """Our certificates name us; peers that are to show one have an identity that a certificate can prove."""
    for index, peer in enumerate(config.peers):
        if not isinstance(peer.auth, CertificateAuthConfig):
            continue
        own = x509.load_der_x509_certificate(peer.auth.chain[0])
        if config.endpoint.identity:
            try:
                check_identity(own, Identity.parse_text(config.endpoint.identity))
            except (UntrustedError, ValueError) as error:
                remedy = (
                    "let endpoint.identity be one of its subject alternative names, or its subject as dn:…"
                )
                report.error(("peer", index, "auth", "certificate"), str(error), remedy)
        if peer.identity and Identity.parse_text(peer.identity).id_type == IdType.KEY_ID:
            message = f"no certificate can prove the identity {quoted(peer.identity)}"
            report.error(("peer", index, "identity"), message, "use a name, an address or a subject")
