"""What one IKE SA is made of besides its state: signed messages, algorithms, secrets (RFC 7296 2.14, 2.15).

Values only; must not know how they are used.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ike.crypto.keymat import IkeKeys
from ike.crypto.prf import Prf
from ike.protection import Protection
from ike.wire.sa import Proposal


@dataclass(frozen=True, slots=True)
class InitMaterial:
    """What AUTH covers.

    Both IKE_SA_INIT messages as they were on the wire, and both nonces (RFC 7296 2.15).
    """

    request: bytes
    response: bytes
    nonce_i: bytes
    nonce_r: bytes


@dataclass(frozen=True, slots=True)
class Keyed:
    """The selected proposal, its secrets, and what uses them."""

    proposal: Proposal
    prf: Prf
    keys: IkeKeys = field(repr=False)
    protection: Protection = field(repr=False)
