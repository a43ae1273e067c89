"""Cookies that cost the responder no memory (RFC 7296 2.6).

Must not know how many half-open IKE SAs there are, or what an answer looks like.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from ike.entropy import Entropy

SECRET_OCTETS = 32


@dataclass(frozen=True, slots=True)
class _Secret:
    version: int
    made_at: float
    octets: bytes = field(repr=False)


class CookieJar:
    """cookie = version (1) | HMAC-SHA-256(secret, SPIi | address and port | Ni) (32).

    The secret changes after `lifetime_s` of use; the one before it is still good until the next change, so
    that an initiation that is under way does not fail.
    """

    def __init__(self, entropy: Entropy, lifetime_s: float) -> None:
        self._entropy = entropy
        self._lifetime_s = lifetime_s
        self._current: _Secret | None = None
        self._previous: _Secret | None = None

    def bake(self, spi_i: bytes, nonce_i: bytes, peer: tuple[str, int], now: float) -> bytes:
        """The cookie that this initiator has to bring back. 33 octets."""
        return self._cookie(self._secret(now), spi_i, nonce_i, peer)

    def is_good(self, cookie: bytes, spi_i: bytes, nonce_i: bytes, peer: tuple[str, int], now: float) -> bool:
        secrets = [self._secret(now)]
        if self._previous and now - self._previous.made_at < 2 * self._lifetime_s:
            secrets.append(self._previous)
        expected = [self._cookie(secret, spi_i, nonce_i, peer) for secret in secrets]
        return any(hmac.compare_digest(cookie, good) for good in expected)

    def _cookie(self, secret: _Secret, spi_i: bytes, nonce_i: bytes, peer: tuple[str, int]) -> bytes:
        address = f"{peer[0]} {peer[1]}".encode()
        # The nonce comes last and the SPI has a fixed length, so no two inputs run together.
        text = spi_i + len(address).to_bytes(2, "big") + address + nonce_i
        return bytes([secret.version]) + hmac.digest(secret.octets, text, hashlib.sha256)

    def _secret(self, now: float) -> _Secret:
        current = self._current
        if current is None or now - current.made_at >= self._lifetime_s:
            version = (current.version + 1) % 256 if current else 0
            self._previous = current
            current = self._current = _Secret(version, now, self._entropy.octets(SECRET_OCTETS))
        return current
