"""MACs made of AES-128: AES-XCBC-MAC (RFC 3566 4) and AES-CMAC (RFC 4493), both of 16 octets.

Must not know whether they serve as a PRF or protect a message.
"""

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC

__all__ = ["BLOCK_OCTETS", "aes_cmac", "aes_xcbc"]

BLOCK_OCTETS = 16
"""Octets of the key, which has no other size, and of the result."""


def aes_xcbc(key: bytes, data: bytes) -> bytes:
    """CBC over the data under K1, the last block masked with K2, or padded and masked with K3."""
    encryptor = Cipher(AES(key), ECB()).encryptor()  # noqa: S305 - three distinct blocks
    k1, k2, k3 = (encryptor.update(bytes([n]) * BLOCK_OCTETS) for n in (1, 2, 3))
    start = max(len(data) - 1, 0) // BLOCK_OCTETS * BLOCK_OCTETS
    last, mask = data[start:], k2
    if len(last) < BLOCK_OCTETS:
        last, mask = (last + b"\x80").ljust(BLOCK_OCTETS, b"\0"), k3
    masked = bytes(a ^ b for a, b in zip(last, mask, strict=True))
    chain = Cipher(AES(k1), CBC(bytes(BLOCK_OCTETS))).encryptor().update(data[:start] + masked)
    return chain[start:]


def aes_cmac(key: bytes, data: bytes) -> bytes:
    """AES-CMAC over the data."""
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()
