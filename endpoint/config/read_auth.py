"""`auth` of a `[[peer]]`: a pre-shared key, or a certificate with its key and whom to trust.

Knows nothing of who the identities are (`auth_checks.py`), of paths and of time. A message never shows a secret.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from endpoint.config.model import AuthConfig, CertificateAuthConfig, PskAuthConfig
from endpoint.config.problems import BadValue
from endpoint.config.secret import SecretSource, parse_secret
from endpoint.config.table import Table
from ike.crypto.signatures import PrivateKey, SignatureError, check_public_key
from ike.x509 import MAX_AUTHORITIES, MAX_CHAIN

T = TypeVar("T")

_NOTHING = PskAuthConfig(b"")
_PSK_EXAMPLE = 'auth = { psk_file = "peer.psk" }'
_CERTIFICATE_EXAMPLE = 'auth = { certificate = "pe1.pem", key_file = "pe1.key", ca = "ca.pem" }'
_CERTIFICATE_KEYS = ("certificate", "key_file", "ca", "crl", "rsa_pss", "rsa_sha1")
_MAX_CRLS = 64
_PEM_ARMOUR = b"-----BEGIN "


def read_auth(peer: Table, secrets: SecretSource) -> AuthConfig:
    """What `auth` says; a placeholder where something was reported."""
    table = peer.table("auth")
    if table is None:
        if "auth" not in peer:
            peer.error("auth", "is missing", f"add {_PSK_EXAMPLE}")
        return _NOTHING
    by_certificate = [key for key in _CERTIFICATE_KEYS if key in table]
    auth: AuthConfig = _NOTHING
    if by_certificate and "psk_file" in table:
        table.raw("psk_file", str)
        table.error("psk_file", f"stands beside {by_certificate[0]}", "use a secret or a certificate")
    if by_certificate:
        auth = _read_certificate(table, secrets)
    else:
        auth = _read_psk(table, secrets)
    table.close()
    return auth


def _read_psk(table: Table, secrets: SecretSource) -> AuthConfig:
    name = table.text("psk_file", "")
    inline = table.value("psk", lambda value: value, None)
    for key in _CERTIFICATE_KEYS:  # known words, so that a misspelt one is recognised
        table.value(key, lambda value: value, None)
    if inline is not None:
        remedy = f"put it into a file: {_PSK_EXAMPLE}"
        table.error("psk", "a secret does not belong into a configuration", remedy)
    if not name:
        if "psk_file" not in table and inline is None:
            table.error("psk_file", "is missing", f"write {_PSK_EXAMPLE}")
        return _NOTHING
    try:
        psk, is_weak = parse_secret(secrets(name))
    except ValueError as error:
        table.report.refuse(table.at("psk_file"), error)
        return _NOTHING
    if is_weak:
        message = (
            "the secret is short: whoever records one handshake as the peer's impostor can guess it offline"
        )
        table.report.warn(table.at("psk_file"), message, "write a new one with mplsec genkey")
    return PskAuthConfig(psk)


def _read_certificate(table: Table, secrets: SecretSource) -> AuthConfig:
    chain = _file(table, "certificate", secrets, _parse_chain)
    key = _file(table, "key_file", secrets, _parse_key, is_public=False)
    anchors = _file(table, "ca", secrets, _parse_anchors)
    crls = _file(table, "crl", secrets, _parse_crls) if "crl" in table else ()
    rsa_pss, rsa_sha1 = table.boolean("rsa_pss", True), table.boolean("rsa_sha1", False)
    if rsa_sha1:
        message = "peers that do not know RFC 7427 may authenticate with SHA-1, which is broken"
        table.report.warn(table.at("rsa_sha1"), message, "leave it away as soon as the peer is renewed")
    if chain is None or key is None or anchors is None or crls is None:
        return _NOTHING
    if chain[0].public_key() != key.public_key():
        table.error("key_file", "is not the key of the first certificate", "name the key that belongs to it")
        return _NOTHING
    return CertificateAuthConfig(_der(chain), key, _der(anchors), crls, rsa_pss, rsa_sha1)


def _file(
    table: Table,
    key: str,
    secrets: SecretSource,
    parse: Callable[[bytes], T],
    *,
    is_public: bool = True,
) -> T | None:
    """The content of the file that `key` names; None, reported, when it is of no use."""
    name = table.text(key, "")
    if not name:
        if key not in table:
            table.error(key, "is missing", f"write {_CERTIFICATE_EXAMPLE}")
        return None
    try:
        return parse(secrets(name, is_public=is_public))
    except ValueError as error:
        table.report.refuse(table.at(key), error)
        return None


def _certificates(content: bytes, most: int) -> list[x509.Certificate]:
    """The certificates of a PEM file, each with a key that is used here."""
    try:
        found = x509.load_pem_x509_certificates(content)
        for certificate in found:
            check_public_key(certificate.public_key())
    except SignatureError as error:
        raise BadValue(f"holds a certificate with {error}", "issue one with a key of another kind") from None
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        remedy = "openssl x509 -in FILE -inform DER makes PEM of DER"
        raise BadValue("the file holds no certificates in PEM", remedy) from None
    if len(found) > most:
        raise BadValue(f"the file holds {len(found)} certificates", f"at most {most} are possible")
    return found


def _parse_chain(content: bytes) -> list[x509.Certificate]:
    """The end entity first, then those of the CAs between it and the anchor."""
    chain = _certificates(content, MAX_CHAIN)
    for certificate, issuer in pairwise(chain):
        if certificate.issuer != issuer.subject:
            message = "the certificates do not stand in the order of a chain"
            raise BadValue(message, "ours first, then the one of its issuer, and so on")
    return chain


def _parse_anchors(content: bytes) -> list[x509.Certificate]:
    return _certificates(content, MAX_AUTHORITIES)


def _parse_crls(content: bytes) -> tuple[bytes, ...]:
    """Complete lists in PEM. A delta list is critical to whoever cannot use it (RFC 5280 5.2.4)."""
    parts = [_PEM_ARMOUR + part for part in content.split(_PEM_ARMOUR)[1:]]
    if not parts or len(parts) > _MAX_CRLS:
        raise BadValue(f"the file holds {len(parts)} revocation lists", f"write 1 to {_MAX_CRLS} in PEM")
    crls = []
    for part in parts:
        try:
            crl = x509.load_pem_x509_crl(part)
            is_delta = any(isinstance(one.value, x509.DeltaCRLIndicator) for one in crl.extensions)
        except (ValueError, x509.DuplicateExtension):
            remedy = "openssl crl -in FILE -inform DER makes PEM of DER"
            raise BadValue("the file holds something else than revocation lists in PEM", remedy) from None
        if is_delta:
            raise BadValue("the file holds a delta list, which alone says too little", "use complete lists")
        crls.append(crl.public_bytes(Encoding.DER))
    return tuple(crls)


def _parse_key(content: bytes) -> PrivateKey:
    try:
        key = load_pem_private_key(content, None)
        check_public_key(key.public_key())
    except TypeError:
        remedy = "openssl pkey -in FILE -out KEY takes the passphrase away; umask 077 first"
        raise BadValue("the key is protected by a passphrase", remedy) from None
    except SignatureError as error:
        raise BadValue(f"holds {error}", "make an RSA, ECDSA or EdDSA key") from None
    except (ValueError, UnsupportedAlgorithm):
        remedy = "openssl pkey -in FILE -inform DER makes PEM of DER"
        raise BadValue("the file holds no private key in PEM", remedy) from None
    return key  # type: ignore[return-value]  # check_public_key has seen its kind


def _der(certificates: list[x509.Certificate]) -> tuple[bytes, ...]:
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)
