"""What must hold between identities and the means that prove them (RFC 4945 3.1, RFC 7619 2.4).

Knows nothing of files and TOML types. Whether a certificate is valid today is a warning: the clock may be wrong.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509

from endpoint.config.locate import Path
from endpoint.config.model import (
    AnchorsConfig,
    Config,
    KeyAuthConfig,
    NullAuthConfig,
    PeerConfig,
    PskAuthConfig,
    RawKeysConfig,
    Selectors,
)
from endpoint.config.problems import Report, quoted
from ike.errors import UntrustedError
from ike.identities import IdentityPattern, parse_peer_name
from ike.numbers import IdType
from ike.wire.identity import Identity
from ike.x509 import check_identity
from mpls.encapsulation import Encapsulation

SOON_DAYS = 14


def check_auth(config: Config, report: Report) -> None:
    """Our certificates name us; a peer has an identity that what it shows can prove."""
    for index, peer in enumerate(config.peers):
        path: Path = ("peer", index)
        if isinstance(peer.auth, KeyAuthConfig) and peer.auth.chain and config.endpoint.identity:
            own = x509.load_der_x509_certificate(peer.auth.chain[0])
            try:
                check_identity(own, Identity.parse_text(config.endpoint.identity))
            except (UntrustedError, ValueError) as error:
                remedy = (
                    "let endpoint.identity be one of its subject alternative names, or its subject as dn:…"
                )
                report.error((*path, "auth", "certificate"), str(error), remedy)
        if peer.identity:
            _check_identity(peer, report, (*path, "identity"))
        is_plain_ip = peer.selectors is Selectors.PLAIN and peer.encapsulation is Encapsulation.NONE
        if not is_plain_ip and any(isinstance(proof, NullAuthConfig) for proof in peer.proofs):
            message = "who proves nothing is granted no label and no class (docs/WIRE.md 8)"
            remedy = 'let it prove itself, or write selectors = "plain" and encapsulation = "none"'
            report.error((*path, "selectors"), message, remedy)


def _check_identity(peer: PeerConfig, report: Report, path: Path) -> None:
    name, proofs = parse_peer_name(peer.identity), peer.proofs
    is_null = name == Identity.null()
    if any(isinstance(proof, NullAuthConfig) for proof in proofs) and not is_null:
        message = "the peer proves nothing, and so it has no identity"
        report.error(path, message, 'write identity = "null", or let peer_auth ask for a proof')
    elif is_null and not all(isinstance(proof, NullAuthConfig | RawKeysConfig) for proof in proofs):
        message = "a peer without identity proves nothing, or has a key that is known"
        report.error(path, message, "use { null = true } or peer_key, or name the peer")
    if isinstance(name, IdentityPattern):
        if any(isinstance(proof, RawKeysConfig) for proof in proofs):
            report.error(path, "one key cannot stand for several peers", "name the peer that has it")
        if any(isinstance(proof, PskAuthConfig) for proof in proofs):
            message = "whoever knows the secret can be any of these peers"
            report.warn(path, message, "use certificates, or a [[peer]] and a secret for each")
    is_by_certificate = all(isinstance(proof, AnchorsConfig) for proof in proofs) and proofs
    if is_by_certificate and isinstance(name, Identity) and name.id_type == IdType.KEY_ID:
        message = f"no certificate can prove the identity {quoted(peer.identity)}"
        report.error(path, message, "use a name, an address or a subject")


def check_validity(config: Config, report: Report, now: float) -> None:
    """Warn of certificates and lists that are out of date at `now` (seconds since 1970), or soon will be."""
    time = datetime.fromtimestamp(now, UTC)
    for index, peer in enumerate(config.peers):
        path: Path = ("peer", index)
        if isinstance(peer.auth, KeyAuthConfig):
            for certificate in peer.auth.chain:
                _check_certificate(certificate, "our", time, report, (*path, "auth", "certificate"))
        for proof in peer.proofs:
            if isinstance(proof, AnchorsConfig):
                at = (*path, "peer_auth" if (*path, "peer_auth") in report.locations.lines else "auth")
                for anchor in proof.anchors:
                    _check_certificate(anchor, "the CA's", time, report, (*at, "ca"))
                for octets in proof.crls:
                    crl = x509.load_der_x509_crl(octets)
                    if crl.next_update_utc is not None and crl.next_update_utc <= time:
                        message = f"the list of {_shown(crl.issuer)} is out of date: its peers are refused"
                        report.warn((*at, "crl"), message, "fetch the current one")


def _check_certificate(octets: bytes, whose: str, time: datetime, report: Report, path: Path) -> None:
    certificate = x509.load_der_x509_certificate(octets)
    name, days = _shown(certificate.subject), (certificate.not_valid_after_utc - time).days
    if certificate.not_valid_before_utc > time:
        since = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        report.warn(path, f"{whose} certificate {name} is not valid before {since}", "check the clock")
    elif certificate.not_valid_after_utc <= time:
        message = f"{whose} certificate {name} has expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        report.warn(path, message, "renew it; until then authentication fails")
    elif days < SOON_DAYS:
        report.warn(path, f"{whose} certificate {name} expires in {days} days", "renew it")


def _shown(name: x509.Name) -> str:
    return quoted(name.rfc4514_string())
