"""Digital signatures of AUTH payloads: RFC 7427 with RFC 8420, and the old methods (RFC 7296 2.15, 3.8; RFC 4754).

Must not know whose key it is, or what is signed. An AlgorithmIdentifier is never parsed: it is one of a fixed
set of octet strings, or it is refused (RFC 7427 3).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from ike.numbers import AuthMethod, HashAlg

__all__ = [
    "HASHES",
    "PrivateKey",
    "PublicKey",
    "SignatureError",
    "check_public_key",
    "choose_method",
    "sign",
    "verify",
]

PrivateKey = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey

HASHES: tuple[HashAlg, ...] = (HashAlg.SHA2_256, HashAlg.SHA2_384, HashAlg.SHA2_512, HashAlg.IDENTITY)
"""What we announce in SIGNATURE_HASH_ALGORITHMS and therefore accept with method 14."""

RSA_BITS = range(2048, 8193)
"""Below is breakable (RFC 8247 4.1); above, a stranger's certificate would cost us too much time."""


class SignatureError(Exception):
    """A key that is not used here, or a signature that does not prove anything; the text says why."""


class _Kind(Enum):
    RSA_PKCS1 = "RSA PKCS#1 v1.5"
    RSA_PSS = "RSA PSS"
    ECDSA = "ECDSA"
    ED25519 = "Ed25519"
    ED448 = "Ed448"


@dataclass(frozen=True, slots=True)
class _Algorithm:
    kind: _Kind
    hash: HashAlg

    def __str__(self) -> str:
        if self.hash is HashAlg.IDENTITY:
            return self.kind.value
        return f"{self.kind.value} with {self.hash.name.replace('_', '-')}"


_HASH: dict[HashAlg, hashes.HashAlgorithm] = {
    HashAlg.SHA1: hashes.SHA1(),  # noqa: S303 - method 1 of old peers, only where it is asked for
    HashAlg.SHA2_256: hashes.SHA256(),
    HashAlg.SHA2_384: hashes.SHA384(),
    HashAlg.SHA2_512: hashes.SHA512(),
}
# The hash that is as strong as the curve comes first, then what the peer may know instead.
_SHA2 = (HashAlg.SHA2_256, HashAlg.SHA2_384, HashAlg.SHA2_512)
_CURVES: dict[str, tuple[AuthMethod, HashAlg, tuple[HashAlg, ...]]] = {
    "secp256r1": (AuthMethod.ECDSA_SHA256_P256, HashAlg.SHA2_256, _SHA2),
    "secp384r1": (
        AuthMethod.ECDSA_SHA384_P384,
        HashAlg.SHA2_384,
        (HashAlg.SHA2_384, HashAlg.SHA2_512, HashAlg.SHA2_256),
    ),
    "secp521r1": (AuthMethod.ECDSA_SHA512_P521, HashAlg.SHA2_512, _SHA2[::-1]),
}


def _pss_identifier(hash_oid_end: int, salt_octets: int, *, with_trailer: bool) -> bytes:
    """RSASSA-PSS-params with hash and MGF1 of the same SHA-2 (RFC 4055 3.1, RFC 7427 A.4.3)."""
    digest = bytes.fromhex("300d0609608648016503040" + f"2{hash_oid_end:02x}0500")
    mask = _der(0x30, bytes.fromhex("06092a864886f70d010108") + digest)
    parameters = _der(0xA0, digest) + _der(0xA1, mask) + _der(0xA2, bytes((2, 1, salt_octets)))
    if with_trailer:
        parameters += _der(0xA3, b"\x02\x01\x01")
    return _der(0x30, bytes.fromhex("06092a864886f70d01010a") + _der(0x30, parameters))


def _der(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content


# What we send (RFC 7427 A, RFC 8420 A). Of the PSS parameters the trailer field, which has its default value, has to be
# left away and to be taken either way (RFC 4055 3.1): RFC 7427 A.4.3 spells it out, and libreswan compares octets.
_SENT: dict[_Algorithm, bytes] = {
    _Algorithm(_Kind.RSA_PKCS1, HashAlg.SHA2_256): bytes.fromhex("300d06092a864886f70d01010b0500"),
    _Algorithm(_Kind.RSA_PKCS1, HashAlg.SHA2_384): bytes.fromhex("300d06092a864886f70d01010c0500"),
    _Algorithm(_Kind.RSA_PKCS1, HashAlg.SHA2_512): bytes.fromhex("300d06092a864886f70d01010d0500"),
    _Algorithm(_Kind.RSA_PSS, HashAlg.SHA2_256): _pss_identifier(1, 32, with_trailer=False),
    _Algorithm(_Kind.RSA_PSS, HashAlg.SHA2_384): _pss_identifier(2, 48, with_trailer=False),
    _Algorithm(_Kind.RSA_PSS, HashAlg.SHA2_512): _pss_identifier(3, 64, with_trailer=False),
    _Algorithm(_Kind.ECDSA, HashAlg.SHA2_256): bytes.fromhex("300a06082a8648ce3d040302"),
    _Algorithm(_Kind.ECDSA, HashAlg.SHA2_384): bytes.fromhex("300a06082a8648ce3d040303"),
    _Algorithm(_Kind.ECDSA, HashAlg.SHA2_512): bytes.fromhex("300a06082a8648ce3d040304"),
    _Algorithm(_Kind.ED25519, HashAlg.IDENTITY): bytes.fromhex("300506032b6570"),
    _Algorithm(_Kind.ED448, HashAlg.IDENTITY): bytes.fromhex("300506032b6571"),
}
_KNOWN: dict[bytes, _Algorithm] = {identifier: algorithm for algorithm, identifier in _SENT.items()} | {
    _pss_identifier(end, salt, with_trailer=True): _Algorithm(_Kind.RSA_PSS, hash_alg)
    for end, salt, hash_alg in zip((1, 2, 3), (32, 48, 64), _SHA2, strict=True)
}


def check_public_key(key: object) -> PublicKey:
    """`key` itself if its kind and size are used here; SignatureError otherwise."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in RSA_BITS:
            raise SignatureError(
                f"an RSA key of {key.key_size} bits; {RSA_BITS[0]} to {RSA_BITS[-1]} are accepted"
            )
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise SignatureError(f"an ECDSA key on the curve {key.curve.name}")
        return key
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return key
    raise SignatureError(f"a key of the kind {type(key).__name__.removesuffix('PublicKey')}")


@dataclass(frozen=True, slots=True)
class Method:
    """How to sign: the number for the AUTH payload, and the algorithm behind it."""

    auth_method: AuthMethod
    algorithm: _Algorithm


def choose_method(
    key: PrivateKey, peer_hashes: Collection[int], *, rsa_pss: bool = True, rsa_sha1: bool = False
) -> Method:
    """How to sign with `key` for a peer that listed `peer_hashes` (empty: it does not know RFC 7427).

    Raises SignatureError if there is no way. `rsa_sha1` allows method 1 as RFC 7296 3.8 has it.
    """
    if peer_hashes:
        for algorithm in _algorithms(key, rsa_pss=rsa_pss):
            if algorithm.hash in peer_hashes:
                return Method(AuthMethod.DIGITAL_SIGNATURE, algorithm)
        raise SignatureError("the peer accepts no hash algorithm that goes with our key")
    if isinstance(key, ec.EllipticCurvePrivateKey):
        method, hash_alg, _ = _CURVES[key.curve.name]
        return Method(method, _Algorithm(_Kind.ECDSA, hash_alg))
    if isinstance(key, rsa.RSAPrivateKey):
        if rsa_sha1:
            return Method(AuthMethod.RSA_SIGNATURE, _Algorithm(_Kind.RSA_PKCS1, HashAlg.SHA1))
        raise SignatureError("the peer does not know RFC 7427, and RSA with SHA-1 is not allowed")
    raise SignatureError("the peer does not know RFC 7427, which our key needs")


def _algorithms(key: PrivateKey, *, rsa_pss: bool) -> tuple[_Algorithm, ...]:
    """What `key` can do with method 14, the best first."""
    if isinstance(key, rsa.RSAPrivateKey):
        kind = _Kind.RSA_PSS if rsa_pss else _Kind.RSA_PKCS1
        return tuple(_Algorithm(kind, hash_alg) for hash_alg in _SHA2)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return tuple(_Algorithm(_Kind.ECDSA, hash_alg) for hash_alg in _CURVES[key.curve.name][2])
    kind = _Kind.ED25519 if isinstance(key, ed25519.Ed25519PrivateKey) else _Kind.ED448
    return (_Algorithm(kind, HashAlg.IDENTITY),)


def sign(method: Method, key: PrivateKey, octets: bytes) -> bytes:
    """AUTH data over `octets`, with the AlgorithmIdentifier in front where the method has one."""
    algorithm = method.algorithm
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(octets, _padding(algorithm), _HASH[algorithm.hash])
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(octets, ec.ECDSA(_HASH[algorithm.hash]))
        if method.auth_method != AuthMethod.DIGITAL_SIGNATURE:
            half = _half_octets(key.curve)
            return b"".join(part.to_bytes(half, "big") for part in decode_dss_signature(signature))
    else:
        signature = key.sign(octets)
    if method.auth_method == AuthMethod.RSA_SIGNATURE:
        return signature
    identifier = _SENT[algorithm]
    return bytes((len(identifier),)) + identifier + signature


def verify(
    key: PublicKey,
    auth_method: int,
    data: bytes,
    octets: bytes,
    *,
    is_announced: bool,
    rsa_sha1: bool = False,
) -> str:
    """What signed `octets`, in words; SignatureError if AUTH `data` is no signature of `key` over them.

    `is_announced`: both ends sent SIGNATURE_HASH_ALGORITHMS, so that nothing but method 14 is allowed; without
    it nothing but the old methods is (RFC 7427 3). `rsa_sha1` accepts SHA-1 with method 1.
    """
    if (auth_method == AuthMethod.DIGITAL_SIGNATURE) is not is_announced:
        raise SignatureError(
            "method 14 without SIGNATURE_HASH_ALGORITHMS"
            if auth_method == AuthMethod.DIGITAL_SIGNATURE
            else f"method {auth_method} although both ends know RFC 7427"
        )
    if auth_method == AuthMethod.DIGITAL_SIGNATURE:
        candidates, signature = _read_identified(data)
    elif auth_method == AuthMethod.RSA_SIGNATURE:
        allowed = (*_SHA2, HashAlg.SHA1) if rsa_sha1 else _SHA2
        candidates = tuple(_Algorithm(_Kind.RSA_PKCS1, hash_alg) for hash_alg in allowed)
        signature = data
    else:
        candidates, signature = _read_old_ecdsa(key, auth_method, data)
    for algorithm in candidates:
        if _is_genuine(algorithm, key, signature, octets):
            return str(algorithm)
    raise SignatureError(
        "the signature is wrong" if len(candidates) == 1 else "no accepted hash gives the signature"
    )


def _read_identified(data: bytes) -> tuple[tuple[_Algorithm, ...], bytes]:
    """ASN.1 length (1 octet), AlgorithmIdentifier, signature (RFC 7427 3)."""
    end = 1 + data[0] if data else 1
    algorithm = _KNOWN.get(data[1:end])
    if algorithm is None:
        raise SignatureError(f"unknown signature algorithm {data[1:end][:32].hex() or '(none)'}")
    return (algorithm,), data[end:]


def _read_old_ecdsa(key: PublicKey, auth_method: int, data: bytes) -> tuple[tuple[_Algorithm, ...], bytes]:
    """r and s of equal length behind each other (RFC 4754 7), here as the DER that the library takes."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or _CURVES[key.curve.name][0] != auth_method:
        raise SignatureError(f"method {auth_method} does not go with the key of the certificate")
    half = _half_octets(key.curve)
    if len(data) != 2 * half:
        raise SignatureError("the signature is of a wrong length")
    r, s = int.from_bytes(data[:half], "big"), int.from_bytes(data[half:], "big")
    return (_Algorithm(_Kind.ECDSA, _CURVES[key.curve.name][1]),), encode_dss_signature(r, s)


def _is_genuine(algorithm: _Algorithm, key: PublicKey, signature: bytes, octets: bytes) -> bool:
    try:
        match algorithm.kind, key:
            case ((_Kind.RSA_PKCS1 | _Kind.RSA_PSS), rsa.RSAPublicKey()):
                key.verify(signature, octets, _padding(algorithm), _HASH[algorithm.hash])
            case _Kind.ECDSA, ec.EllipticCurvePublicKey():
                key.verify(signature, octets, ec.ECDSA(_HASH[algorithm.hash]))
            case _Kind.ED25519, ed25519.Ed25519PublicKey():
                key.verify(signature, octets)
            case _Kind.ED448, ed448.Ed448PublicKey():
                key.verify(signature, octets)
            case _:
                raise SignatureError(f"{algorithm} does not go with the key of the certificate")
    except InvalidSignature:
        return False
    return True


def _padding(algorithm: _Algorithm) -> padding.AsymmetricPadding:
    """PSS with a salt as long as the hash, as its AlgorithmIdentifier says."""
    if algorithm.kind is _Kind.RSA_PKCS1:
        return padding.PKCS1v15()
    digest = _HASH[algorithm.hash]
    return padding.PSS(padding.MGF1(digest), digest.digest_size)


def _half_octets(curve: ec.EllipticCurve) -> int:
    return (curve.key_size + 7) // 8
