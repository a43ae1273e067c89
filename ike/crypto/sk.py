"""The ciphers of the Encrypted payload (RFC 7296 3.14): AES-GCM (RFC 5282), ChaCha20-Poly1305 (RFC 7634).

Must not know payloads or message headers: associated data, IV and plaintext are octets to it.
"""

from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from ike.crypto.algorithms import encr_key_octets
from ike.errors import IkeError, LocalError
from ike.numbers import Encr, name_of

__all__ = ["SK_CIPHERS", "IntegrityError", "SkCipher", "sk_cipher"]

_SALT_OCTETS = 4


class IntegrityError(IkeError):
    """A protected message does not verify. The one answer to every way in which that can happen."""

    def __init__(self) -> None:
        super().__init__("message does not verify")


class SkCipher(Protocol):
    """One direction of an IKE SA, key inside.

    `iv_octets` precede the ciphertext, `icv_octets` end it; the plaintext is a multiple of `block_octets`.
    """

    iv_octets: int
    icv_octets: int
    block_octets: int

    def seal(self, aad: bytes, plaintext: bytes, iv: bytes) -> bytes:
        """Ciphertext and ICV. The caller never gives one `iv` twice."""
        ...

    def open(self, aad: bytes, sealed: bytes, iv: bytes) -> bytes:
        """The plaintext, or IntegrityError."""
        ...


class _Aead:
    """RFC 5282 4: the nonce is the salt of the key material, then the 8-octet IV of the message."""

    iv_octets = 8
    block_octets = 1
    icv_octets = 16

    def __init__(self, key: bytes) -> None:
        self._salt = key[-_SALT_OCTETS:]


class _AesGcm(_Aead):
    def __init__(self, key: bytes, icv_octets: int) -> None:
        super().__init__(key)
        self.icv_octets = icv_octets
        self._key = key[:-_SALT_OCTETS]
        self._gcm = AESGCM(self._key)

    def seal(self, aad: bytes, plaintext: bytes, iv: bytes) -> bytes:
        sealed = self._gcm.encrypt(self._salt + iv, plaintext, aad)
        return sealed[: len(plaintext) + self.icv_octets]  # a short ICV is the beginning of the long one

    def open(self, aad: bytes, sealed: bytes, iv: bytes) -> bytes:
        if len(sealed) < self.icv_octets:
            raise IntegrityError
        ciphertext, icv = sealed[: -self.icv_octets], sealed[-self.icv_octets :]
        mode = GCM(self._salt + iv, icv, min_tag_length=self.icv_octets)
        decryptor = Cipher(AES(self._key), mode).decryptor()
        decryptor.authenticate_additional_data(aad)
        try:
            return decryptor.update(ciphertext) + decryptor.finalize()
        except InvalidTag:
            raise IntegrityError from None


class _ChaCha20Poly1305(_Aead):
    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self._aead = ChaCha20Poly1305(key[:-_SALT_OCTETS])

    def seal(self, aad: bytes, plaintext: bytes, iv: bytes) -> bytes:
        return self._aead.encrypt(self._salt + iv, plaintext, aad)

    def open(self, aad: bytes, sealed: bytes, iv: bytes) -> bytes:
        try:
            return self._aead.decrypt(self._salt + iv, sealed, aad)
        except InvalidTag:
            raise IntegrityError from None


_GCM_ICV_OCTETS = {Encr.AES_GCM_8: 8, Encr.AES_GCM_12: 12, Encr.AES_GCM_16: 16}
SK_CIPHERS = frozenset({*_GCM_ICV_OCTETS, Encr.CHACHA20_POLY1305})
"""ENCR transform IDs that can protect an IKE SA here."""


def sk_cipher(encr: int, key_bits: int | None, key: bytes) -> SkCipher:
    """The cipher for SK_ei or SK_er, `key` with salt. LocalError if not in `SK_CIPHERS` or `key` misfits."""
    if encr not in SK_CIPHERS:
        raise LocalError(f"no such cipher for an IKE SA here: {name_of(Encr, encr)}")
    if len(key) != encr_key_octets(encr, key_bits):
        raise LocalError(f"{len(key)} octets of key for {name_of(Encr, encr)}")
    if encr == Encr.CHACHA20_POLY1305:
        return _ChaCha20Poly1305(key)
    return _AesGcm(key, _GCM_ICV_OCTETS[Encr(encr)])
