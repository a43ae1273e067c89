"""PEM files to values: certificate chains, trust anchors, revocation lists, private and public keys.

Knows nothing of tables and paths. Each takes the content of a file and raises BadValue, with a remedy.
"""

from __future__ import annotations

from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, load_pem_public_key

from endpoint.config.problems import BadValue
from ike.crypto.signatures import PrivateKey, PublicKey, SignatureError, check_public_key
from ike.x509 import MAX_AUTHORITIES, MAX_CHAIN

__all__ = ["parse_anchors", "parse_chain", "parse_crls", "parse_private_key", "parse_public_keys"]

_MAX_CRLS = 64
_MAX_PUBLIC_KEYS = 16
_ARMOUR = b"-----BEGIN "


def parse_chain(content: bytes) -> tuple[bytes, ...]:
    """DER; the end entity first, then those of the CAs between it and the anchor."""
    chain = _certificates(content, MAX_CHAIN)
    for certificate, issuer in pairwise(chain):
        if certificate.issuer != issuer.subject:
            message = "the certificates do not stand in the order of a chain"
            raise BadValue(message, "ours first, then the one of its issuer, and so on")
    return _der(chain)


def parse_anchors(content: bytes) -> tuple[bytes, ...]:
    return _der(_certificates(content, MAX_AUTHORITIES))


def parse_crls(content: bytes) -> tuple[bytes, ...]:
    """Complete lists. A delta list is critical to whoever cannot use it (RFC 5280 5.2.4)."""
    crls = []
    for part in _parts(content, _MAX_CRLS, "revocation lists"):
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


def parse_private_key(content: bytes) -> PrivateKey:
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


def parse_public_keys(content: bytes) -> tuple[PublicKey, ...]:
    """Raw public keys (RFC 7670), several while one takes the place of another."""
    keys = []
    for part in _parts(content, _MAX_PUBLIC_KEYS, "public keys"):
        try:
            keys.append(check_public_key(load_pem_public_key(part)))
        except SignatureError as error:
            raise BadValue(f"holds {error}", "make an RSA, ECDSA or EdDSA key") from None
        except (ValueError, UnsupportedAlgorithm):
            remedy = "openssl pkey -in KEY -pubout shows the public key of a private one"
            raise BadValue("the file holds something else than public keys in PEM", remedy) from None
    return tuple(keys)


def _parts(content: bytes, most: int, what: str) -> list[bytes]:
    parts = [_ARMOUR + part for part in content.split(_ARMOUR)[1:]]
    if not parts or len(parts) > most:
        raise BadValue(f"the file holds {len(parts)} {what}", f"write 1 to {most} in PEM")
    return parts


def _certificates(content: bytes, most: int) -> list[x509.Certificate]:
    """The certificates of a file, each with a key that is used here."""
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


def _der(certificates: list[x509.Certificate]) -> tuple[bytes, ...]:
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)
