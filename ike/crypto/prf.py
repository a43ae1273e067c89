"""The pseudorandom functions and prf+ (RFC 7296 2.13; RFC 4868 for HMAC-SHA2).

Must not know what is derived with them.
"""

import hmac
from typing import NamedTuple

from ike import numbers
from ike.errors import LocalError

__all__ = ["PRFS", "Prf"]


class _Hmac(NamedTuple):
    digest: str
    octets: int


# A PRF that is no HMAC (AES-XCBC, AES-CMAC) needs its own `compute`, and SKEYSEED half of each nonce.
_HMACS = {
    numbers.Prf.HMAC_SHA2_256: _Hmac("sha256", 32),
    numbers.Prf.HMAC_SHA2_384: _Hmac("sha384", 48),
    numbers.Prf.HMAC_SHA2_512: _Hmac("sha512", 64),
}
PRFS = frozenset(_HMACS)
"""Transform IDs of the PRFs that work here."""


class Prf:
    """One negotiated PRF.

    `key_octets` is its preferred key size, the length of SK_d, SK_pi and SK_pr; `output_octets` what one
    computation yields. LocalError if `prf_id` is not in `PRFS`.
    """

    __slots__ = ("_digest", "id", "key_octets", "output_octets")

    def __init__(self, prf_id: int) -> None:
        entry = _HMACS.get(numbers.Prf(prf_id)) if prf_id in PRFS else None
        if entry is None:
            raise LocalError(f"no such PRF here: {numbers.name_of(numbers.Prf, prf_id)}")
        self.id = prf_id
        self._digest = entry.digest
        self.key_octets = self.output_octets = entry.octets

    def __repr__(self) -> str:
        return f"Prf({numbers.name_of(numbers.Prf, self.id)})"

    def compute(self, key: bytes, data: bytes) -> bytes:
        """prf(key, data): `output_octets` octets. A key of any length will do."""
        return hmac.digest(key, data, self._digest)

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
