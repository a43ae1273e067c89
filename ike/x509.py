"""Certificate chains: X.509 path validation and which identity a certificate proves (RFC 5280 6, RFC 4945).

OpenSSL builds and checks the path; what it does not know of IKE is checked here. Nothing is fetched, and the
time comes from a clock that is handed in. Must not know payloads, signatures over messages, or files.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import islice, pairwise, product
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from ike.crypto.signatures import PublicKey, SignatureError, check_public_key
from ike.errors import UntrustedError
from ike.identities import identity_key
from ike.numbers import IdType
from ike.wire.identity import Identity

__all__ = ["MAX_AUTHORITIES", "MAX_CHAIN", "TrustStore", "check_identity"]

MAX_CHAIN = 8
"""Certificates that a peer may send, and that a path may have; RFC 5280 knows no bound, we need one."""
MAX_WAYS = 8
"""Paths that are tried where CAs are certified by several others."""
MAX_AUTHORITIES = 64
"""Trust anchors of one store: their hashes go into one CERTREQ."""

E = TypeVar("E", bound=x509.ExtensionType)

_IPSEC_IKE = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.17")
_IKE_INTERMEDIATE = x509.ObjectIdentifier("1.3.6.1.5.5.8.2.2")
_IKE_PURPOSES = {_IPSEC_IKE, _IKE_INTERMEDIATE, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
# What the certificates of a stranger may make the two libraries raise.
_BAD = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    crypto.Error,
    Warning,
)


class TrustStore:
    """Trust anchors, revocation lists, and a clock: what `ike.config.Trust` asks for.

    `anchors` and `crls` are DER; an anchor need not be self-signed. With any CRL at all, each certificate of a
    path but the anchor needs a current one of its issuer. `wall_clock` gives seconds since 1970. Raises
    ValueError for octets that are no certificate or CRL, and for too many.
    """

    def __init__(
        self, anchors: Sequence[bytes], crls: Sequence[bytes] = (), *, wall_clock: Callable[[], float]
    ) -> None:
        if not 0 < len(anchors) <= MAX_AUTHORITIES:
            raise ValueError(f"{len(anchors)} trust anchors; 1 to {MAX_AUTHORITIES} are possible")
        parsed = [x509.load_der_x509_certificate(anchor) for anchor in anchors]
        self._anchors = [crypto.X509.from_cryptography(anchor) for anchor in parsed]
        self._crls = [x509.load_der_x509_crl(crl) for crl in crls]
        self._wall_clock = wall_clock
        self.authorities = tuple(sorted({_key_hash(anchor) for anchor in parsed}))

    def __repr__(self) -> str:
        return f"TrustStore({len(self._anchors)} anchors, {len(self._crls)} CRLs)"

    def verify_chain(self, identity: Identity, chain: Sequence[bytes]) -> PublicKey:
        """The key of `chain[0]`, the end entity. The others may come in any order, and may not be needed."""
        if not 0 < len(chain) <= MAX_CHAIN:
            raise UntrustedError(f"a chain of {len(chain)} certificates; 1 to {MAX_CHAIN} are accepted")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # what `cryptography` warns of is not allowed by RFC 5280
                return self._verify(identity, chain)
        except _BAD as error:
            raise UntrustedError(f"a certificate that cannot be used: {_one_line(error)}") from error
        except SignatureError as error:
            raise UntrustedError(f"a certificate with {error}") from error

    def _verify(self, identity: Identity, chain: Sequence[bytes]) -> PublicKey:
        certificates = [x509.load_der_x509_certificate(octets) for octets in chain]
        leaf = certificates[0]
        key = check_public_key(leaf.public_key())
        check_identity(leaf, identity)
        _check_usage(leaf)
        self._check_path(self._build_path(certificates))
        return key

    def _build_path(self, certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
        """From the end entity to a trust anchor: signatures, validity, constraints, then revocation."""
        leaf = crypto.X509.from_cryptography(certificates[0])
        path = self._path_over_one_of(leaf, _ways(certificates[1:]))
        if self._crls:
            # Each but the anchor, against its issuer: OpenSSL alone would want the anchor's issuer, too.
            for index, (certificate, issuer) in enumerate(pairwise(path)):
                self._verified(certificate, (), (issuer,), index, flags=crypto.X509StoreFlags.CRL_CHECK)
        return [certificate.to_cryptography() for certificate in path]

    def _path_over_one_of(
        self, leaf: crypto.X509, ways: Iterable[Sequence[x509.Certificate]]
    ) -> list[crypto.X509]:
        """OpenSSL takes the first issuer that fits, and does not come back when it leads nowhere."""
        failure: UntrustedError | None = None
        for way in ways:
            others = [crypto.X509.from_cryptography(certificate) for certificate in way]
            try:
                return self._verified(leaf, others, self._anchors)
            except UntrustedError as error:
                failure = failure or error
        raise failure or UntrustedError("no path")

    def _verified(
        self,
        leaf: crypto.X509,
        others: Sequence[crypto.X509],
        anchors: Sequence[crypto.X509],
        index: int = 0,
        flags: int = 0,
    ) -> list[crypto.X509]:
        """The path from `leaf`, the `index`-th certificate of the whole path, to one of `anchors`."""
        # A store keeps the first time it is set to, so each verification has one of its own.
        store = crypto.X509Store()
        for anchor in anchors:
            store.add_cert(anchor)
        if flags:
            for crl in self._crls:
                store.add_crl(crl)
        store.set_time(datetime.fromtimestamp(self._wall_clock(), UTC))
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN | flags)
        try:
            return list(crypto.X509StoreContext(store, leaf, others).get_verified_chain())
        except crypto.X509StoreContextError as error:
            at = index + error.errors[1]
            which = "the certificate" if at == 0 else f"its issuer number {at}"
            raise UntrustedError(f"{which} is not accepted: {error}") from None

    def _check_path(self, path: Sequence[x509.Certificate]) -> None:
        """What OpenSSL lets pass by default. The anchor, last, is trusted as it is."""
        if len(path) > MAX_CHAIN + 1:
            raise UntrustedError(f"a path of {len(path)} certificates")
        for certificate in path[:-1]:
            check_public_key(certificate.public_key())
            algorithm = certificate.signature_hash_algorithm
            if algorithm is not None and algorithm.digest_size < 32:
                raise UntrustedError(f"a certificate signed with {algorithm.name}")


def _ways(others: Sequence[x509.Certificate]) -> Iterator[Sequence[x509.Certificate]]:
    """The certificates with one for each CA: of one that is certified several times, one after the other."""
    by_authority: dict[bytes, dict[bytes, x509.Certificate]] = {}
    for one in others:
        authority = one.subject.public_bytes() + _key_hash(one)
        by_authority.setdefault(authority, {})[one.fingerprint(hashes.SHA256())] = one
    return islice(product(*(same.values() for same in by_authority.values())), MAX_WAYS)


def check_identity(certificate: x509.Certificate, identity: Identity) -> None:
    """Raises UntrustedError unless the certificate is of `identity` (RFC 4945 3.1).

    Names and addresses must be equal to one of the SubjectAltName, without wildcards; the common name counts
    for nothing. A distinguished name must be the subject, compared as RFC 5280 7.1 has it.
    """
    names = _extension(certificate, x509.SubjectAlternativeName) or x509.SubjectAlternativeName([])
    match identity.id_type:
        case IdType.FQDN:
            found = [name.lower().encode("utf-8") for name in names.get_values_for_type(x509.DNSName)]
            is_there = identity.data.lower() in found
        case IdType.RFC822_ADDR:
            found = [name.lower().encode("utf-8") for name in names.get_values_for_type(x509.RFC822Name)]
            is_there = identity.data.lower() in found
        case IdType.IPV4_ADDR | IdType.IPV6_ADDR:
            addresses = names.get_values_for_type(x509.IPAddress)
            is_there = len(identity.data) in (4, 16) and ip_address(identity.data) in addresses
        case IdType.DER_ASN1_DN:
            subject = Identity(IdType.DER_ASN1_DN, certificate.subject.public_bytes())
            is_there = bool(certificate.subject.rdns) and identity_key(subject) == identity_key(identity)
        case _:
            raise UntrustedError(f"no certificate can prove the identity {identity.text()}")
    if not is_there:
        raise UntrustedError(f"the certificate does not name {identity.text()}")


def _check_usage(leaf: x509.Certificate) -> None:
    """KeyUsage and ExtendedKeyUsage, where they are present (RFC 4945 5.1.3.2, 5.1.3.12)."""
    usage = _extension(leaf, x509.KeyUsage)
    if usage and not (usage.digital_signature or usage.content_commitment):
        raise UntrustedError("the key usage of the certificate does not allow signatures")
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes and not _IKE_PURPOSES & set(purposes):
        raise UntrustedError("the extended key usage of the certificate does not allow IKE")


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _key_hash(certificate: x509.Certificate) -> bytes:
    """What stands for a CA in CERTREQ (RFC 7296 3.7)."""
    octets = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha1(octets).digest()  # noqa: S324 - a name, not a proof


def _one_line(error: Exception) -> str:
    """Printable and bounded: the text may hold octets of the certificate."""
    return ascii(str(error))[1:-1][:120]
