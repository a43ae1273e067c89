"""The four forms of an ESP packet: AEAD, AEAD with implicit IV, GMAC alone, and encrypt-then-MAC.

RFC 4106, 4309 and 7634; RFC 8750; RFC 4543; RFC 4303 3.3.2.1. Must not know SAs: a cipher here has its keys
and takes all that changes from packet to packet as octets.
"""

import hmac
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from esp.integrity import Mac
from esp.modes import Mode

__all__ = [
    "HEADER_OCTETS",
    "Aead",
    "AeadCipher",
    "EncryptThenMac",
    "GmacCipher",
    "ImplicitIvCipher",
    "PacketCipher",
    "ShortIcvGcm",
]

HEADER_OCTETS = 8
"""SPI and Sequence Number."""
_IV_OCTETS = 8
_GMAC_ICV_OCTETS = 16


class PacketCipher(Protocol):
    """One direction of an SA, keys inside.

    `header` is SPI and the low 32 bits of the sequence number, as in the packet; `high` the other 32 bits for
    extended sequence numbers, which are authenticated but not sent, and empty without them.
    """

    def iv(self, sequence: int) -> bytes:
        """The IV for a sequence number: unique, unpredictable where the cipher needs that; maybe empty."""
        ...

    def seal(self, header: bytes, high: bytes, iv: bytes, plaintext: bytes) -> bytes:
        """The whole packet: header, IV, ciphertext, ICV. The caller never gives one `iv` twice."""
        ...

    def open(self, packet: bytes, high: bytes) -> bytes | None:
        """The plaintext of a packet of sufficient length, None if its ICV does not verify."""
        ...


class Aead(Protocol):
    """Ciphertext and ICV in one; `decrypt` raises InvalidTag."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


class AeadCipher:
    """Nonce: salt and 8-octet IV. Associated data: SPI and whole sequence number (RFC 4106 4, 5)."""

    def __init__(self, aead: Aead, salt: bytes) -> None:
        self.aead = aead
        self.salt = salt

    def iv(self, sequence: int) -> bytes:
        # Unique as the sequence number is; an AEAD asks for no more (RFC 4106 3.1, RFC 7634 2).
        return sequence.to_bytes(_IV_OCTETS, "big")

    def seal(self, header: bytes, high: bytes, iv: bytes, plaintext: bytes) -> bytes:
        associated = header[:4] + high + header[4:]
        return header + iv + self.aead.encrypt(self.salt + iv, plaintext, associated)

    def open(self, packet: bytes, high: bytes) -> bytes | None:
        associated = packet[:4] + high + packet[4:8]
        try:
            return self.aead.decrypt(self.salt + packet[8:16], packet[16:], associated)
        except InvalidTag:
            return None


class ImplicitIvCipher:
    """As AeadCipher, but the IV is not sent: it is the sequence number in 64 bits (RFC 8750 4)."""

    def __init__(self, aead: Aead, salt: bytes) -> None:
        self._aead = aead
        self._salt = salt

    def iv(self, sequence: int) -> bytes:
        return b""

    def seal(self, header: bytes, high: bytes, iv: bytes, plaintext: bytes) -> bytes:
        nonce = self._salt + (high or bytes(4)) + header[4:]
        return header + self._aead.encrypt(nonce, plaintext, header[:4] + high + header[4:])

    def open(self, packet: bytes, high: bytes) -> bytes | None:
        low = packet[4:8]
        nonce = self._salt + (high or bytes(4)) + low
        try:
            return self._aead.decrypt(nonce, packet[8:], packet[:4] + high + low)
        except InvalidTag:
            return None


class GmacCipher:
    """AES-GMAC, RFC 4543 3: nothing is encrypted; header, IV and payload are all associated data."""

    def __init__(self, aead: Aead, salt: bytes) -> None:
        self._aead = aead
        self._salt = salt

    def iv(self, sequence: int) -> bytes:
        return sequence.to_bytes(_IV_OCTETS, "big")

    def seal(self, header: bytes, high: bytes, iv: bytes, plaintext: bytes) -> bytes:
        covered = iv + plaintext
        icv = self._aead.encrypt(self._salt + iv, b"", header[:4] + high + header[4:] + covered)
        return header + covered + icv

    def open(self, packet: bytes, high: bytes) -> bytes | None:
        covered, icv = packet[:-_GMAC_ICV_OCTETS], packet[-_GMAC_ICV_OCTETS:]
        try:
            self._aead.decrypt(self._salt + packet[8:16], icv, covered[:4] + high + covered[4:])
        except InvalidTag:
            return None
        return covered[16:]


class ShortIcvGcm:
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


class EncryptThenMac:
    """The MAC covers header, IV, ciphertext and the sequence number's unsent half (RFC 4303 3.3.2.1)."""

    def __init__(self, mode: Mode, mac: Mac, icv_octets: int) -> None:
        self._mode, self._mac, self._icv_octets = mode, mac, icv_octets
        self.iv = mode.iv

    def seal(self, header: bytes, high: bytes, iv: bytes, plaintext: bytes) -> bytes:
        packet = header + iv + self._mode.encrypt(iv, plaintext)
        return packet + self._mac.icv(packet + high)

    def open(self, packet: bytes, high: bytes) -> bytes | None:
        covered, icv = packet[: -self._icv_octets], packet[-self._icv_octets :]
        if not hmac.compare_digest(self._mac.icv(covered + high), icv):
            return None
        start = HEADER_OCTETS + self._mode.iv_octets
        return self._mode.decrypt(covered[HEADER_OCTETS:start], covered[start:])
