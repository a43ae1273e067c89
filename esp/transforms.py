"""ESP transforms: AES-GCM (RFC 4106), ChaCha20-Poly1305 (RFC 7634), AES-CBC with HMAC (RFC 3602, 4868).

Must not know SAs: a cipher here has a key and takes all that changes from packet to packet as octets.
"""

import hmac
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB, GCM

from esp.errors import EspError

__all__ = [
    "HEADER_OCTETS",
    "TRAILER_OCTETS",
    "AesCbc",
    "HmacSha2",
    "PacketCipher",
    "Transform",
    "transform_for",
]

HEADER_OCTETS = 8
"""SPI and Sequence Number."""
TRAILER_OCTETS = 2
"""Pad Length and Next Header."""

# IANA transform IDs, types 1 and 3.
_AES_CBC = 12
_GCM_ICV_OCTETS = {18: 8, 19: 12, 20: 16}
_CHACHA20_POLY1305 = 28
_INTEG_NONE = 0
_HMACS = {12: ("sha256", 32, 16), 13: ("sha384", 48, 24), 14: ("sha512", 64, 32)}
"""digest, octets of key, octets of ICV"""

_AES_BITS = (128, 192, 256)
_AES_BLOCK_OCTETS = 16
_SALT_OCTETS = 4


@dataclass(frozen=True, slots=True)
class Transform:
    """What an ESP SA is made of, by IANA's numbers, and the sizes that follow. All sizes are in octets.

    `key_octets` is the encryption key as key exchange delivers it, with its salt; `integ_key_octets` the
    integrity key, 0 for an AEAD. The plaintext, trailer included, is a multiple of `block_octets`.
    """

    encr: int
    key_bits: int | None
    integ: int
    key_octets: int
    integ_key_octets: int
    iv_octets: int
    icv_octets: int
    block_octets: int

    def cipher(self, encr_key: bytes, integ_key: bytes = b"") -> "PacketCipher":
        """The cipher with its keys. EspError if one has the wrong size."""
        if len(encr_key) != self.key_octets or len(integ_key) != self.integ_key_octets:
            raise EspError(f"keys of {len(encr_key)} and {len(integ_key)} octets for {self}")
        if self.encr == _AES_CBC:
            return _CbcHmac(AesCbc(encr_key), HmacSha2(self.integ, integ_key))
        key, salt = encr_key[:-_SALT_OCTETS], encr_key[-_SALT_OCTETS:]
        if self.encr == _CHACHA20_POLY1305:
            return _AeadCipher(ChaCha20Poly1305(key), salt)
        return _AeadCipher(AESGCM(key) if self.icv_octets == 16 else _ShortIcvGcm(key, self.icv_octets), salt)

    def packet_octets(self, payload_octets: int) -> int:
        """The length of the ESP packet, without outer headers, for a payload with its TFC padding."""
        plaintext_octets = payload_octets + TRAILER_OCTETS
        plaintext_octets += -plaintext_octets % self.block_octets
        return HEADER_OCTETS + self.iv_octets + plaintext_octets + self.icv_octets


def transform_for(encr: int, key_bits: int | None, integ: int = _INTEG_NONE) -> Transform:
    """The transform for IANA's numbers; `key_bits` is the Key Length attribute. EspError if there is none."""
    if encr == _CHACHA20_POLY1305 and key_bits is None and integ == _INTEG_NONE:
        return Transform(encr, None, integ, 32 + _SALT_OCTETS, 0, 8, 16, 4)
    if key_bits in _AES_BITS:
        if encr in _GCM_ICV_OCTETS and integ == _INTEG_NONE:
            return Transform(
                encr, key_bits, integ, key_bits // 8 + _SALT_OCTETS, 0, 8, _GCM_ICV_OCTETS[encr], 4
            )
        if encr == _AES_CBC and integ in _HMACS:
            _, key_octets, icv_octets = _HMACS[integ]
            block = _AES_BLOCK_OCTETS
            return Transform(encr, key_bits, integ, key_bits // 8, key_octets, block, icv_octets, block)
    raise EspError(f"no ESP transform here for ENCR {encr} with key length {key_bits} and INTEG {integ}")


class PacketCipher(Protocol):
    """One direction of an SA, keys inside.

    `header` is SPI and the low 32 bits of the sequence number, as in the packet; `high` the other 32 bits for
    extended sequence numbers, which are authenticated but not sent, and empty without them.
    """

    def iv(self, sequence: int) -> bytes:
        """The IV for a sequence number: unique, and unpredictable where the cipher needs that."""
        ...

    def seal(self, header: bytes, high: bytes, iv: bytes, plaintext: bytes) -> bytes:
        """The whole packet: header, IV, ciphertext, ICV. The caller never gives one `iv` twice."""
        ...

    def open(self, packet: bytes, high: bytes) -> bytes | None:
        """The plaintext of a packet of sufficient length, None if its ICV does not verify."""
        ...


class _Aead(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


class _AeadCipher:
    """Nonce: salt and 8-octet IV. Associated data: SPI and whole sequence number (RFC 4106 4, 5)."""

    def __init__(self, aead: _Aead, salt: bytes) -> None:
        self._aead = aead
        self._salt = salt

    def iv(self, sequence: int) -> bytes:
        # Unique as the sequence number is; an AEAD asks for no more (RFC 4106 3.1, RFC 7634 2).
        return sequence.to_bytes(8, "big")

    def seal(self, header: bytes, high: bytes, iv: bytes, plaintext: bytes) -> bytes:
        associated = header[:4] + high + header[4:]
        return header + iv + self._aead.encrypt(self._salt + iv, plaintext, associated)

    def open(self, packet: bytes, high: bytes) -> bytes | None:
        associated = packet[:4] + high + packet[4:8]
        try:
            return self._aead.decrypt(self._salt + packet[8:16], packet[16:], associated)
        except InvalidTag:
            return None


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


class AesCbc:
    """AES in CBC mode, RFC 3602: whole blocks in, whole blocks out, no integrity."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        # The IV is the sequence number encrypted under a key of its own: unpredictable without any entropy
        # (the first method of NIST SP 800-38A appendix C, but not with the same key).
        iv_key = hmac.digest(key, b"ESP AES-CBC initialization vector", "sha256")[: len(key)]
        self._iv_key = AES(iv_key)

    def iv(self, sequence: int) -> bytes:
        encryptor = Cipher(self._iv_key, ECB()).encryptor()  # noqa: S305 - one block, never repeated
        return encryptor.update(sequence.to_bytes(_AES_BLOCK_OCTETS, "big"))

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        encryptor = Cipher(AES(self._key), CBC(iv)).encryptor()
        return encryptor.update(plaintext) + encryptor.finalize()

    def decrypt(self, iv: bytes, ciphertext: bytes) -> bytes:
        decryptor = Cipher(AES(self._key), CBC(iv)).decryptor()
        return decryptor.update(ciphertext) + decryptor.finalize()


class HmacSha2:
    """HMAC-SHA2 cut to half its length, RFC 4868; `integ` is 12, 13 or 14."""

    def __init__(self, integ: int, key: bytes) -> None:
        self._digest, _, self.icv_octets = _HMACS[integ]
        self._key = key

    def icv(self, octets: bytes) -> bytes:
        return hmac.digest(self._key, octets, self._digest)[: self.icv_octets]


class _CbcHmac:
    """Encrypt, then MAC header, IV, ciphertext and the sequence number's unsent half (RFC 4303 3.3.2.1)."""

    def __init__(self, cbc: AesCbc, integrity: HmacSha2) -> None:
        self._cbc, self._integrity = cbc, integrity
        self.iv = cbc.iv

    def seal(self, header: bytes, high: bytes, iv: bytes, plaintext: bytes) -> bytes:
        packet = header + iv + self._cbc.encrypt(iv, plaintext)
        return packet + self._integrity.icv(packet + high)

    def open(self, packet: bytes, high: bytes) -> bytes | None:
        end = len(packet) - self._integrity.icv_octets
        covered, icv = packet[:end], packet[end:]
        if not hmac.compare_digest(self._integrity.icv(covered + high), icv):
            return None
        start = HEADER_OCTETS + _AES_BLOCK_OCTETS
        return self._cbc.decrypt(covered[HEADER_OCTETS:start], covered[start:])
