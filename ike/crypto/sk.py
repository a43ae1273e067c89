"""The ciphers of the Encrypted payload (RFC 7296 3.14), AEAD or encrypt-then-MAC.

AES-GCM and AES-CCM (RFC 5282), ChaCha20-Poly1305 (RFC 7634), AES-CBC (RFC 3602), AES-CTR (RFC 5930).
Must not know payloads or message headers: associated data, IV and plaintext are octets to it.
"""

import hmac
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR, ECB, GCM

from ike.crypto.algorithms import ENCRYPTION, encr_key_octets
from ike.crypto.integ import Integrity
from ike.errors import IkeError, LocalError
from ike.numbers import Encr, Integ, name_of

__all__ = ["SK_CIPHERS", "IntegrityError", "SkCipher", "sk_cipher"]

_AES_BLOCK_OCTETS = 16


class IntegrityError(IkeError):
    """A protected message does not verify. The one answer to every way in which that can happen."""

    def __init__(self) -> None:
        super().__init__("message does not verify")


class SkCipher(Protocol):
    """One direction of an IKE SA, keys inside.

    `iv_octets` precede the ciphertext, `icv_octets` end it; the plaintext is a multiple of `block_octets`.
    """

    iv_octets: int
    icv_octets: int
    block_octets: int

    def iv(self, counter: int) -> bytes:
        """The IV for a message number below 2**64: unique, and unpredictable where the cipher needs that."""
        ...

    def seal(self, aad: bytes, plaintext: bytes, iv: bytes) -> bytes:
        """Ciphertext and ICV. The caller never gives one `iv` twice."""
        ...

    def open(self, aad: bytes, sealed: bytes, iv: bytes) -> bytes:
        """The plaintext, or IntegrityError."""
        ...


class _Aead(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


class _ShortIcvGcm:
    """AES-GCM with an ICV of 8 or 12 octets: the beginning of the one of 16 (RFC 4106 6)."""

    def __init__(self, key: bytes, icv_octets: int) -> None:
        self._key, self._icv_octets = key, icv_octets
        self._gcm = AESGCM(key)

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        return self._gcm.encrypt(nonce, data, associated_data)[: len(data) + self._icv_octets]

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        icv = data[-self._icv_octets :]
        decryptor = Cipher(AES(self._key), GCM(nonce, icv, min_tag_length=self._icv_octets)).decryptor()
        decryptor.authenticate_additional_data(associated_data or b"")
        return decryptor.update(data[: -self._icv_octets]) + decryptor.finalize()


class _AeadCipher:
    """RFC 5282 4: the nonce is the salt of the key material, then the 8-octet IV of the message."""

    iv_octets = 8
    block_octets = 1

    def __init__(self, aead: _Aead, salt: bytes, icv_octets: int) -> None:
        self._aead, self._salt, self.icv_octets = aead, salt, icv_octets

    def iv(self, counter: int) -> bytes:
        # Unique, and an AEAD asks for no more (RFC 5282 3.1).
        return counter.to_bytes(self.iv_octets, "big")

    def seal(self, aad: bytes, plaintext: bytes, iv: bytes) -> bytes:
        return self._aead.encrypt(self._salt + iv, plaintext, aad)

    def open(self, aad: bytes, sealed: bytes, iv: bytes) -> bytes:
        if len(sealed) <= self.icv_octets:
            raise IntegrityError
        try:
            return self._aead.decrypt(self._salt + iv, sealed, aad)
        except InvalidTag:
            raise IntegrityError from None


class _Mode(Protocol):
    iv_octets: int
    block_octets: int

    def iv(self, counter: int) -> bytes: ...

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes: ...

    def decrypt(self, iv: bytes, ciphertext: bytes) -> bytes: ...


class _AesCbc:
    iv_octets = block_octets = _AES_BLOCK_OCTETS

    def __init__(self, key: bytes) -> None:
        self._aes = AES(key)
        # An IV that nobody can predict (RFC 7296 3.14) without any entropy: the counter encrypted under a
        # key of its own (the first method of NIST SP 800-38A appendix C, but not with the same key).
        iv_key = hmac.digest(key, b"IKEv2 AES-CBC initialization vector", "sha256")[: len(key)]
        self._iv_aes = AES(iv_key)

    def iv(self, counter: int) -> bytes:
        encryptor = Cipher(self._iv_aes, ECB()).encryptor()  # noqa: S305 - one block, never repeated
        return encryptor.update(counter.to_bytes(_AES_BLOCK_OCTETS, "big"))

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        encryptor = Cipher(self._aes, CBC(iv)).encryptor()
        return encryptor.update(plaintext) + encryptor.finalize()

    def decrypt(self, iv: bytes, ciphertext: bytes) -> bytes:
        decryptor = Cipher(self._aes, CBC(iv)).decryptor()
        return decryptor.update(ciphertext) + decryptor.finalize()


class _AesCtr:
    """The counter block begins as nonce, IV and the number one (RFC 3686 4)."""

    iv_octets = 8
    block_octets = 1

    def __init__(self, key: bytes) -> None:
        salt_octets = ENCRYPTION[Encr.AES_CTR].salt_octets
        self._aes, self._nonce = AES(key[:-salt_octets]), key[-salt_octets:]

    def iv(self, counter: int) -> bytes:
        return counter.to_bytes(self.iv_octets, "big")

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        return Cipher(self._aes, CTR(self._nonce + iv + b"\0\0\0\1")).encryptor().update(plaintext)

    decrypt = encrypt


class _EncryptThenMac:
    """The ICV covers the message from the first octet of its header to the last before the ICV."""

    def __init__(self, mode: _Mode, integrity: Integrity) -> None:
        self._mode, self._integrity = mode, integrity
        self.iv_octets, self.block_octets, self.iv = mode.iv_octets, mode.block_octets, mode.iv
        self.icv_octets = integrity.icv_octets

    def seal(self, aad: bytes, plaintext: bytes, iv: bytes) -> bytes:
        ciphertext = self._mode.encrypt(iv, plaintext)
        return ciphertext + self._integrity.icv(aad + iv + ciphertext)

    def open(self, aad: bytes, sealed: bytes, iv: bytes) -> bytes:
        ciphertext, icv = sealed[: -self.icv_octets], sealed[-self.icv_octets :]
        if not self._integrity.verifies(aad + iv + ciphertext, icv) or len(ciphertext) % self.block_octets:
            raise IntegrityError
        return self._mode.decrypt(iv, ciphertext)


_GCM_ICV_OCTETS = {Encr.AES_GCM_8: 8, Encr.AES_GCM_12: 12, Encr.AES_GCM_16: 16}
_CCM_ICV_OCTETS = {Encr.AES_CCM_8: 8, Encr.AES_CCM_12: 12, Encr.AES_CCM_16: 16}
_MODES: dict[Encr, type[_AesCbc] | type[_AesCtr]] = {Encr.AES_CBC: _AesCbc, Encr.AES_CTR: _AesCtr}
SK_CIPHERS = frozenset({*_GCM_ICV_OCTETS, *_CCM_ICV_OCTETS, Encr.CHACHA20_POLY1305, *_MODES})
"""ENCR transform IDs that can protect an IKE SA here."""


def sk_cipher(
    encr: int, key_bits: int | None, key: bytes, integ: int = Integ.NONE, integ_key: bytes = b""
) -> SkCipher:
    """The cipher for SK_ei or SK_er, `key` with salt; `integ_key` is SK_ai or SK_ar, empty for an AEAD.

    LocalError if `encr` is not in `SK_CIPHERS`, `integ` does not go with it or a key misfits.
    """
    if encr not in SK_CIPHERS:
        raise LocalError(f"no such cipher for an IKE SA here: {name_of(Encr, encr)}")
    if len(key) != encr_key_octets(encr, key_bits):
        raise LocalError(f"{len(key)} octets of key for {name_of(Encr, encr)}")
    cipher = Encr(encr)
    if cipher in _MODES:
        return _EncryptThenMac(_MODES[cipher](key), Integrity(integ, integ_key))
    if integ != Integ.NONE or integ_key:
        raise LocalError(f"{name_of(Encr, encr)} takes no {name_of(Integ, integ)}")
    salt_at = len(key) - ENCRYPTION[encr].salt_octets
    icv_octets = _GCM_ICV_OCTETS.get(cipher) or _CCM_ICV_OCTETS.get(cipher) or 16
    return _AeadCipher(_aead(cipher, key[:salt_at], icv_octets), key[salt_at:], icv_octets)


def _aead(encr: Encr, key: bytes, icv_octets: int) -> _Aead:
    if encr == Encr.CHACHA20_POLY1305:
        return ChaCha20Poly1305(key)
    if encr in _CCM_ICV_OCTETS:
        return AESCCM(key, icv_octets)
    return AESGCM(key) if icv_octets == 16 else _ShortIcvGcm(key, icv_octets)
