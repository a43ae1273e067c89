"""Certificates made while the tests run: small CAs, good and bad leaves, revocation lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from ike import PeerSignature, SignatureAuth, TrustStore
from ike.config import LocalAuth, PeerAuth
from ike.crypto.signatures import PrivateKey

NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)
"""When it is, for everything that is checked here."""
DAY = timedelta(days=1)
KINDS = ("rsa2048", "rsa3072", "p256", "p384", "p521", "ed25519", "ed448")
SHA256 = hashes.SHA256()
USAGE = ("digital_signature",)
CA_USAGE = ("key_cert_sign", "crl_sign")


@cache
def key(kind: str, number: int = 0) -> PrivateKey:
    """The `number`-th key of a kind; making RSA keys is slow, so they are kept."""
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "ed448":
        return ed448.Ed448PrivateKey.generate()
    curves = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "p224": ec.SECP224R1()}
    return ec.generate_private_key(curves[kind])


def name(common_name: str) -> x509.Name:
    return x509.Name.from_rfc4514_string(f"CN={common_name},O=Example")


Digest = hashes.SHA224 | hashes.SHA256


def digest(signer: PrivateKey, algorithm: Digest) -> Digest | None:
    return None if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else algorithm


def key_usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{one: one in names for one in every.split()})


@dataclass(frozen=True)
class Certified:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def issue(
    subject: str,
    issuer: Certified | None,
    *,
    kind: str = "p256",
    number: int = 0,
    is_ca: bool | None = None,
    usage: Sequence[str] | None = None,
    sans: Sequence[x509.GeneralName] = (),
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    start: datetime = NOON - 30 * DAY,
    end: datetime = NOON + 365 * DAY,
    algorithm: Digest = SHA256,
    path_length: int | None = None,
    has_constraints: bool = True,
) -> Certified:
    """A certificate; without an issuer it is self-signed. `usage` None: what goes with its role."""
    own = key(kind, number)
    signer = issuer.key if issuer else own
    is_ca = issuer is None if is_ca is None else is_ca
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.certificate.subject if issuer else name(subject))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if has_constraints:
        builder = builder.add_extension(x509.BasicConstraints(is_ca, path_length), critical=True)
    chosen = usage if usage is not None else CA_USAGE if is_ca else USAGE
    if chosen:
        builder = builder.add_extension(key_usage(*chosen), critical=True)
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Certified(builder.sign(signer, digest(signer, algorithm)), own)


def root(kind: str = "p256", **options: object) -> Certified:
    return issue("Root", None, kind=kind, number=100, **options)  # type: ignore[arg-type]


def leaf(identity: str, issuer: Certified, **options: object) -> Certified:
    """An end entity whose SubjectAltName is `identity`: a name, an address or a mailbox."""
    return issue(identity, issuer, sans=[general_name(identity)], **options)  # type: ignore[arg-type]


def general_name(identity: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(identity))
    except ValueError:
        return x509.RFC822Name(identity) if "@" in identity else x509.DNSName(identity)


def crl(
    issuer: Certified, *revoked: Certified, start: datetime = NOON - DAY, end: datetime = NOON + DAY
) -> bytes:
    """A revocation list in DER."""
    return crl_object(issuer, *revoked, start=start, end=end).public_bytes(Encoding.DER)


def crl_object(
    issuer: Certified, *revoked: Certified, start: datetime = NOON - DAY, end: datetime = NOON + DAY
) -> x509.CertificateRevocationList:
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(start).next_update(end)
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(start).build())
    return builder.sign(issuer.key, digest(issuer.key, SHA256))


@dataclass(frozen=True)
class Means:
    """How one end of a connection proves itself, and what it takes from the other."""

    auth: LocalAuth
    peer_auth: tuple[PeerAuth, ...] = ()

    def fields(self) -> dict[str, object]:
        """What to replace in a Connection."""
        return {"auth": self.auth, "peer_auth": self.peer_auth}

    def trusting(self, store: TrustStore) -> Means:
        return replace(self, peer_auth=(PeerSignature(store),))


def trust(*anchors: Certified, crls: Sequence[bytes] = (), at: datetime = NOON) -> TrustStore:
    return TrustStore([anchor.der for anchor in anchors], crls, wall_clock=at.timestamp)


def signature_auth(
    own: Certified,
    *intermediates: Certified,
    trusts: TrustStore,
    rsa_pss: bool = True,
    rsa_sha1: bool = False,
) -> Means:
    chain = (own.der, *(one.der for one in intermediates))
    proof = PeerSignature(trusts, rsa_sha1=rsa_sha1)
    return Means(SignatureAuth(own.key, chain, rsa_pss, rsa_sha1), (proof,))
