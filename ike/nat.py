"""NAT detection: hashes of what each end believes its address to be (RFC 7296 2.23).

Must not know messages or sessions; ports and addresses come as a Path.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ike.config import Path

IKE_PORT = 500
NAT_PORT = 4500
KEEPALIVE = b"\xff"
"""RFC 3948 2.3: what a receiver ignores, and what keeps the mappings of NATs alive."""


@dataclass(frozen=True, slots=True)
class NatState:
    """Which end is behind a NAT, and whether ESP goes into UDP, for a NAT or by our own wish."""

    local_is_translated: bool = False
    peer_is_translated: bool = False
    is_forced: bool = False
    is_supported: bool = False
    """Both ends sent NAT_DETECTION_*: without that there is no NAT traversal at all."""
    seen_as: bytes = b""
    """The peer's hash of where it sees us."""

    @property
    def udp_encapsulation(self) -> bool:
        return self.local_is_translated or self.peer_is_translated or self.is_forced

    @property
    def follows_peer(self) -> bool:
        """Whether the peer's address may follow its packets: not if an attacker could move us (RFC 7296 2.23)."""
        return self.peer_is_translated and not self.local_is_translated


def detection_hash(spi_i: bytes, spi_r: bytes, end: tuple[str, int]) -> bytes:
    """SHA-1(SPIi | SPIr | address | port), 20 octets. The digest hides nothing and protects nothing."""
    address, port = end
    octets = _packed(address) + port.to_bytes(2, "big")
    return hashlib.sha1(spi_i + spi_r + octets, usedforsecurity=False).digest()


@lru_cache(maxsize=1024)
def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def is_translated(hashes: Sequence[bytes], spi_i: bytes, spi_r: bytes, end: tuple[str, int]) -> bool:
    """Whether none of the hashes names `end`. A sender with several addresses sends several SOURCE hashes."""
    return bool(hashes) and detection_hash(spi_i, spi_r, end) not in hashes


def floated(path: Path) -> Path:
    """The path from IKE_AUTH on when there is a NAT: 4500 instead of 500.

    Other ports are taken as they are.
    """
    if path.local[1] != IKE_PORT:
        return path
    peer_port = NAT_PORT if path.peer[1] == IKE_PORT else path.peer[1]
    return Path((path.local[0], NAT_PORT), (path.peer[0], peer_port))
