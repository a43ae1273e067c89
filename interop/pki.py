"""A small public key infrastructure for one case: a root, an intermediate CA, end entities.

Must not know: who uses the certificates, or our own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def new_key(kind: str) -> Key:
    """ "rsa", "p384" or "ed25519"."""
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return (
        ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP384R1())
    )


@dataclass(frozen=True)
class Certified:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def certify(
    name: str,
    kind: str,
    issuer: Certified | None = None,
    *,
    is_ca: bool = False,
    more_names: Sequence[str] = (),
) -> Certified:
    """A certificate for `name`, valid since yesterday for ten days; without an issuer self-signed.

    `more_names`: further DNS names; they make it as long as one likes.
    """
    key = new_key(kind)
    subject = x509.Name.from_rfc4514_string(f"CN={name},O=mplsec interop lab")
    signer, now = issuer.key if issuer else key, datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"),
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=9))
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_ca,
                key_cert_sign=is_ca,
                crl_sign=is_ca,
                decipher_only=False,
                **usage,
            ),
            critical=True,
        )
    )
    names = [*([] if is_ca else [name]), *more_names]
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
        builder = builder.add_extension(alternatives, critical=False)
    is_eddsa = isinstance(signer, ed25519.Ed25519PrivateKey)
    return Certified(builder.sign(signer, None if is_eddsa else hashes.SHA384()), key)


def revocation_list(issuer: Certified, revoked: Sequence[Certified]) -> str:
    """A CRL of the issuer, good for nine days, in PEM (RFC 5280 5)."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - timedelta(days=1))
        .next_update(now + timedelta(days=9))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
        )
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now - timedelta(hours=1)).build())
    is_eddsa = isinstance(issuer.key, ed25519.Ed25519PrivateKey)
    crl = builder.sign(issuer.key, None if is_eddsa else hashes.SHA384())
    return crl.public_bytes(Encoding.PEM).decode()
