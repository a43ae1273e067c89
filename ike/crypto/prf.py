"""The pseudorandom functions and prf+ (RFC 7296 2.13): HMAC-SHA2 (RFC 4868); for old peers SHA-1 and AES.

AES-XCBC-PRF-128 is RFC 4434, AES-CMAC-PRF-128 RFC 4615. Must not know what is derived with them.
"""

import hmac
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ike import numbers
from ike.crypto.aes_mac import BLOCK_OCTETS, aes_cmac, aes_xcbc
from ike.errors import LocalError

__all__ = ["PRFS", "Prf"]


def _aes_xcbc_prf(key: bytes, data: bytes) -> bytes:
    """RFC 4434 2: a short key is filled with zeros, a long one shortened by the PRF itself."""
    if len(key) > BLOCK_OCTETS:
        key = aes_xcbc(bytes(BLOCK_OCTETS), key)
    return aes_xcbc(key.ljust(BLOCK_OCTETS, b"\0"), data)


def _aes_cmac_prf(key: bytes, data: bytes) -> bytes:
    """RFC 4615 3: a key of any other length than 16 octets is brought to that by AES-CMAC."""
    if len(key) != BLOCK_OCTETS:
        key = aes_cmac(bytes(BLOCK_OCTETS), key)
    return aes_cmac(key, data)


class _Function(NamedTuple):
    compute: Callable[[bytes, bytes], bytes]
    octets: int
    nonce_octets: int | None = None
    """What SKEYSEED takes of each nonce, where that is not all (RFC 7296 2.14)."""


_FUNCTIONS: dict[int, _Function] = {
    numbers.Prf.HMAC_SHA1: _Function(partial(hmac.digest, digest="sha1"), 20),
    numbers.Prf.AES128_XCBC: _Function(_aes_xcbc_prf, BLOCK_OCTETS, BLOCK_OCTETS // 2),
    numbers.Prf.HMAC_SHA2_256: _Function(partial(hmac.digest, digest="sha256"), 32),
    numbers.Prf.HMAC_SHA2_384: _Function(partial(hmac.digest, digest="sha384"), 48),
    numbers.Prf.HMAC_SHA2_512: _Function(partial(hmac.digest, digest="sha512"), 64),
    numbers.Prf.AES128_CMAC: _Function(_aes_cmac_prf, BLOCK_OCTETS, BLOCK_OCTETS // 2),
}
PRFS = frozenset(_FUNCTIONS)
"""Transform IDs of the PRFs that work here."""


class Prf:
    """One negotiated PRF.

    `key_octets` is its preferred key size, the length of SK_d, SK_pi and SK_pr; `output_octets` what one
    computation yields. LocalError if `prf_id` is not in `PRFS`.
    """

    __slots__ = ("_compute", "_nonce_octets", "id", "key_octets", "output_octets")

    def __init__(self, prf_id: int) -> None:
        function = _FUNCTIONS.get(prf_id)
        if function is None:
            raise LocalError(f"no such PRF here: {numbers.name_of(numbers.Prf, prf_id)}")
        self.id = prf_id
        self._compute = function.compute
        self._nonce_octets = function.nonce_octets
        self.key_octets = self.output_octets = function.octets

    def __repr__(self) -> str:
        return f"Prf({numbers.name_of(numbers.Prf, self.id)})"

    def compute(self, key: bytes, data: bytes) -> bytes:
        """prf(key, data): `output_octets` octets. A key of any length will do."""
        return self._compute(key, data)

    def skeyseed(self, nonce_i: bytes, nonce_r: bytes, shared: bytes) -> bytes:
        """SKEYSEED = prf(Ni | Nr, g^ir); the AES functions take 64 bits of each nonce only (RFC 7296 2.14)."""
        return self.compute(nonce_i[: self._nonce_octets] + nonce_r[: self._nonce_octets], shared)

    def plus(self, key: bytes, seed: bytes, count: int) -> bytes:
        """prf+(key, seed): the first `count` octets of T1 | T2 | …; LocalError beyond 255 computations."""
        rounds = -(-count // self.output_octets)
        if count < 0 or rounds > 255:
            raise LocalError(f"prf+ is not defined for {count} octets")
        block, stream = b"", []
        for number in range(1, rounds + 1):
            block = self.compute(key, block + seed + bytes([number]))
            stream.append(block)
        return b"".join(stream)[:count]
