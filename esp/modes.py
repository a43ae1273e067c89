"""Encryption without integrity: AES-CBC (RFC 3602), AES-CTR (RFC 3686), NULL (RFC 2410).

Must not know packets, or what authenticates them: nothing here may be used without a MAC around it.
"""

import hmac
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR, ECB

__all__ = ["AesCbc", "AesCtr", "Mode", "Null"]

_BLOCK_OCTETS = 16
_NONCE_OCTETS = 4


class Mode(Protocol):
    """One key of a cipher. What comes in is as much as comes out, and whole blocks where there are any."""

    iv_octets: int

    def iv(self, sequence: int) -> bytes:
        """The IV for a sequence number: unique, and unpredictable where the cipher needs that."""
        ...

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes: ...

    def decrypt(self, iv: bytes, ciphertext: bytes) -> bytes: ...


class AesCbc:
    """AES in CBC mode, RFC 3602."""

    iv_octets = _BLOCK_OCTETS

    def __init__(self, key: bytes) -> None:
        self._aes = AES(key)
        # The IV is the sequence number encrypted under a key of its own: unpredictable without any entropy
        # (the first method of NIST SP 800-38A appendix C, but not with the same key).
        iv_key = hmac.digest(key, b"ESP AES-CBC initialization vector", "sha256")[: len(key)]
        self._iv_aes = AES(iv_key)

    def iv(self, sequence: int) -> bytes:
        encryptor = Cipher(self._iv_aes, ECB()).encryptor()  # noqa: S305 - one block, never repeated
        return encryptor.update(sequence.to_bytes(_BLOCK_OCTETS, "big"))

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        encryptor = Cipher(self._aes, CBC(iv)).encryptor()
        return encryptor.update(plaintext) + encryptor.finalize()

    def decrypt(self, iv: bytes, ciphertext: bytes) -> bytes:
        decryptor = Cipher(self._aes, CBC(iv)).decryptor()
        return decryptor.update(ciphertext) + decryptor.finalize()


class AesCtr:
    """AES in counter mode, RFC 3686. The key ends with the nonce of 4 octets (RFC 3686 5.1)."""

    iv_octets = 8

    def __init__(self, key: bytes) -> None:
        self._aes = AES(key[:-_NONCE_OCTETS])
        self._nonce = key[-_NONCE_OCTETS:]

    def iv(self, sequence: int) -> bytes:
        return sequence.to_bytes(self.iv_octets, "big")

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        # The counter block begins as nonce, IV and the number one (RFC 3686 4).
        mode = CTR(self._nonce + iv + b"\0\0\0\1")
        return Cipher(self._aes, mode).encryptor().update(plaintext)

    decrypt = encrypt


class Null:
    """No encryption at all, RFC 2410. The key is empty."""

    iv_octets = 0

    def __init__(self, key: bytes) -> None:
        pass

    def iv(self, sequence: int) -> bytes:
        return b""

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        return plaintext

    decrypt = encrypt
