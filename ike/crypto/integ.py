"""Integrity algorithms, transform type 3: HMAC-SHA2 (RFC 4868); for old peers SHA-1, AES-XCBC, AES-CMAC.

Must not know what is authenticated.
"""

import hmac
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ike.crypto.aes_mac import aes_cmac, aes_xcbc
from ike.crypto.algorithms import integ_key_octets
from ike.errors import LocalError
from ike.numbers import Integ, name_of

__all__ = ["INTEGRITY_ALGORITHMS", "Integrity"]


class _Mac(NamedTuple):
    compute: Callable[[bytes, bytes], bytes]
    icv_octets: int


_MACS: dict[int, _Mac] = {
    Integ.HMAC_SHA1_96: _Mac(partial(hmac.digest, digest="sha1"), 12),
    Integ.AES_XCBC_96: _Mac(aes_xcbc, 12),
    Integ.AES_CMAC_96: _Mac(aes_cmac, 12),
    Integ.HMAC_SHA2_256_128: _Mac(partial(hmac.digest, digest="sha256"), 16),
    Integ.HMAC_SHA2_384_192: _Mac(partial(hmac.digest, digest="sha384"), 24),
    Integ.HMAC_SHA2_512_256: _Mac(partial(hmac.digest, digest="sha512"), 32),
}
INTEGRITY_ALGORITHMS = frozenset(_MACS)
"""Transform IDs of the integrity algorithms that work here."""


class Integrity:
    """One negotiated integrity algorithm with its key: SK_ai or SK_ar.

    LocalError if `integ` is not in `INTEGRITY_ALGORITHMS` or the key has the wrong size.
    """

    __slots__ = ("_compute", "_key", "icv_octets")

    def __init__(self, integ: int, key: bytes) -> None:
        mac = _MACS.get(integ)
        if mac is None:
            raise LocalError(f"no such integrity algorithm here: {name_of(Integ, integ)}")
        if len(key) != integ_key_octets(integ):
            raise LocalError(f"{len(key)} octets of key for {name_of(Integ, integ)}")
        self._compute, self.icv_octets = mac
        self._key = key

    def icv(self, data: bytes) -> bytes:
        """The Integrity Check Value: the first `icv_octets` of the MAC."""
        return self._compute(self._key, data)[: self.icv_octets]

    def verifies(self, data: bytes, icv: bytes) -> bool:
        """Whether `icv` is that of `data`; in constant time."""
        return hmac.compare_digest(self.icv(data), icv)
