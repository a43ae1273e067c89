"""Integrity algorithms, transform type 3: HMAC-SHA2 (RFC 4868); for old peers SHA-1, AES-XCBC, AES-CMAC.

Must not know packets: a MAC here has a key and takes octets.
"""

import hmac
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC

__all__ = ["INTEGRITY", "Integrity", "Mac", "mac_for"]

_BLOCK_OCTETS = 16


class Mac(Protocol):
    """One key of an integrity algorithm."""

    def icv(self, octets: bytes) -> bytes:
        """The Integrity Check Value, cut to the length that ESP sends."""
        ...


class Integrity(NamedTuple):
    """Octets of key and of ICV of one INTEG transform."""

    key_octets: int
    icv_octets: int
    make: Callable[[bytes, int], Mac]
    """From key and `icv_octets`."""


class _Hmac:
    def __init__(self, key: bytes, icv_octets: int, digest: str) -> None:
        self._key, self._icv_octets, self._digest = key, icv_octets, digest

    def icv(self, octets: bytes) -> bytes:
        return hmac.digest(self._key, octets, self._digest)[: self._icv_octets]


class _AesXcbc:
    """RFC 3566 4: CBC over the message, its last block masked with K2, or padded and masked with K3."""

    def __init__(self, key: bytes, icv_octets: int) -> None:
        encryptor = Cipher(AES(key), ECB()).encryptor()  # noqa: S305 - three distinct blocks
        k1, self._k2, self._k3 = (encryptor.update(bytes([n]) * _BLOCK_OCTETS) for n in (1, 2, 3))
        self._aes = AES(k1)
        self._icv_octets = icv_octets

    def icv(self, octets: bytes) -> bytes:
        start = max(len(octets) - 1, 0) // _BLOCK_OCTETS * _BLOCK_OCTETS
        last, mask = octets[start:], self._k2
        if len(last) < _BLOCK_OCTETS:
            last, mask = (last + b"\x80").ljust(_BLOCK_OCTETS, b"\0"), self._k3
        masked = bytes(a ^ b for a, b in zip(last, mask, strict=True))
        chain = Cipher(self._aes, CBC(bytes(_BLOCK_OCTETS))).encryptor().update(octets[:start] + masked)
        return chain[start : start + self._icv_octets]


class _AesCmac:
    """RFC 4494: the NIST's successor of AES-XCBC."""

    def __init__(self, key: bytes, icv_octets: int) -> None:
        self._aes = AES(key)
        self._icv_octets = icv_octets

    def icv(self, octets: bytes) -> bytes:
        mac = CMAC(self._aes)
        mac.update(octets)
        return mac.finalize()[: self._icv_octets]


INTEGRITY: dict[int, Integrity] = {
    2: Integrity(20, 12, partial(_Hmac, digest="sha1")),  # RFC 2404
    5: Integrity(16, 12, _AesXcbc),
    8: Integrity(16, 12, _AesCmac),
    12: Integrity(32, 16, partial(_Hmac, digest="sha256")),
    13: Integrity(48, 24, partial(_Hmac, digest="sha384")),
    14: Integrity(64, 32, partial(_Hmac, digest="sha512")),
}
"""By IANA's number of the INTEG transform."""


def mac_for(integ: int, key: bytes) -> Mac:
    """The MAC with its key; `integ` is one of `INTEGRITY` and `key` as long as it says."""
    _, icv_octets, make = INTEGRITY[integ]
    return make(key, icv_octets)
