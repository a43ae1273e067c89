"""ESP transforms by IANA's numbers (RFC 7296 3.3.2): the sizes that follow from them, and their ciphers.

Must not know SAs, or which transforms anybody should use.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from esp.ciphers import (
    HEADER_OCTETS,
    Aead,
    AeadCipher,
    EncryptThenMac,
    GmacCipher,
    ImplicitIvCipher,
    PacketCipher,
    ShortIcvGcm,
)
from esp.errors import EspError
from esp.integrity import INTEGRITY, mac_for
from esp.modes import AesCbc, AesCtr, Mode, Null

__all__ = ["HEADER_OCTETS", "TRAILER_OCTETS", "PacketCipher", "Transform", "transform_for"]

TRAILER_OCTETS = 2
"""Pad Length and Next Header."""

_AES_BITS = (128, 192, 256)
_NO_LENGTH = (None,)
_INTEG_NONE = 0


class _Combined(NamedTuple):
    """An ENCR transform that protects integrity itself. Without Key Length the key has 32 octets."""

    key_bits: tuple[int | None, ...]
    salt_octets: int
    iv_octets: int
    icv_octets: int
    aead: Callable[[bytes], Aead]
    cipher: Callable[[Aead, bytes], PacketCipher]


class _Plain(NamedTuple):
    """An ENCR transform that needs an INTEG transform beside it. Without Key Length there is no key."""

    key_bits: tuple[int | None, ...]
    salt_octets: int
    iv_octets: int
    block_octets: int
    mode: Callable[[bytes], Mode]


_COMBINED: dict[int, _Combined] = {
    # AES-CCM-8/12/16, RFC 4309
    14: _Combined(_AES_BITS, 3, 8, 8, partial(AESCCM, tag_length=8), AeadCipher),
    15: _Combined(_AES_BITS, 3, 8, 12, partial(AESCCM, tag_length=12), AeadCipher),
    16: _Combined(_AES_BITS, 3, 8, 16, partial(AESCCM, tag_length=16), AeadCipher),
    # AES-GCM-8/12/16, RFC 4106
    18: _Combined(_AES_BITS, 4, 8, 8, partial(ShortIcvGcm, icv_octets=8), AeadCipher),
    19: _Combined(_AES_BITS, 4, 8, 12, partial(ShortIcvGcm, icv_octets=12), AeadCipher),
    20: _Combined(_AES_BITS, 4, 8, 16, AESGCM, AeadCipher),
    # NULL_AUTH_AES_GMAC, RFC 4543
    21: _Combined(_AES_BITS, 4, 8, 16, AESGCM, GmacCipher),
    # ChaCha20-Poly1305, RFC 7634
    28: _Combined(_NO_LENGTH, 4, 8, 16, ChaCha20Poly1305, AeadCipher),
    # AES-CCM-8, AES-GCM-16 and ChaCha20-Poly1305 with implicit IV, RFC 8750
    29: _Combined(_AES_BITS, 3, 0, 8, partial(AESCCM, tag_length=8), ImplicitIvCipher),
    30: _Combined(_AES_BITS, 4, 0, 16, AESGCM, ImplicitIvCipher),
    31: _Combined(_NO_LENGTH, 4, 0, 16, ChaCha20Poly1305, ImplicitIvCipher),
}
_PLAIN: dict[int, _Plain] = {
    11: _Plain(_NO_LENGTH, 0, 0, 4, Null),  # RFC 2410
    12: _Plain(_AES_BITS, 0, 16, 16, AesCbc),  # RFC 3602
    13: _Plain(_AES_BITS, 4, 8, 4, AesCtr),  # RFC 3686
}


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

    def cipher(self, encr_key: bytes, integ_key: bytes = b"") -> PacketCipher:
        """The cipher with its keys. EspError if one has the wrong size."""
        if len(encr_key) != self.key_octets or len(integ_key) != self.integ_key_octets:
            raise EspError(f"keys of {len(encr_key)} and {len(integ_key)} octets for {self}")
        if self.encr in _PLAIN:
            mode = _PLAIN[self.encr].mode(encr_key)
            return EncryptThenMac(mode, mac_for(self.integ, integ_key), self.icv_octets)
        combined = _COMBINED[self.encr]
        salt_at = self.key_octets - combined.salt_octets
        return combined.cipher(combined.aead(encr_key[:salt_at]), encr_key[salt_at:])

    def packet_octets(self, payload_octets: int) -> int:
        """The length of the ESP packet, without outer headers, for a payload with its TFC padding."""
        plaintext_octets = payload_octets + TRAILER_OCTETS
        plaintext_octets += -plaintext_octets % self.block_octets
        return HEADER_OCTETS + self.iv_octets + plaintext_octets + self.icv_octets

    def fits(self, packet_octets: int) -> bool:
        """Whether a packet of so many octets can be one of this transform: room for IV, trailer, ICV, whole blocks."""
        ciphertext_octets = packet_octets - HEADER_OCTETS - self.iv_octets - self.icv_octets
        return ciphertext_octets >= TRAILER_OCTETS and not (
            self.block_octets > 4 and ciphertext_octets % self.block_octets
        )


def transform_for(encr: int, key_bits: int | None, integ: int = _INTEG_NONE) -> Transform:
    """The transform for IANA's numbers; `key_bits` is the Key Length attribute. EspError if there is none."""
    combined, plain = _COMBINED.get(encr), _PLAIN.get(encr)
    if combined and key_bits in combined.key_bits and integ == _INTEG_NONE:
        key_octets = (key_bits or 256) // 8 + combined.salt_octets
        return Transform(encr, key_bits, integ, key_octets, 0, combined.iv_octets, combined.icv_octets, 4)
    if plain and key_bits in plain.key_bits and integ in INTEGRITY:
        key_octets = (key_bits or 0) // 8 + plain.salt_octets
        integ_key_octets, icv_octets, _ = INTEGRITY[integ]
        return Transform(
            encr,
            key_bits,
            integ,
            key_octets,
            integ_key_octets,
            plain.iv_octets,
            icv_octets,
            plain.block_octets,
        )
    raise EspError(f"no ESP transform here for ENCR {encr} with key length {key_bits} and INTEG {integ}")
