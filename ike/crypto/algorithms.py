"""How much key material each negotiable algorithm takes (RFC 7296 2.13 and each algorithm's own RFC).

Must not know which of them are configured, or how they are computed.
"""

from typing import NamedTuple

from ike.errors import LocalError
from ike.numbers import Encr, Integ, TransformType, name_of
from ike.wire.sa import Proposal, Transform

__all__ = ["AEAD", "ENCRYPTION", "INTEGRITY", "Encryption", "encr_key_octets", "integ_key_octets", "selected"]


class Encryption(NamedTuple):
    """One ENCR transform.

    `key_bits` lists what the Key Length attribute may say; empty means a fixed key of `fixed_octets`, and
    then the attribute must be absent (RFC 7296 3.3.5). `salt_octets` follow the key in the key material.
    """

    key_bits: tuple[int, ...]
    salt_octets: int = 0
    fixed_octets: int = 0
    is_aead: bool = False


_AES = (128, 192, 256)
ENCRYPTION: dict[int, Encryption] = {
    Encr.NULL: Encryption(()),  # RFC 2410
    Encr.AES_CBC: Encryption(_AES),  # RFC 3602
    Encr.AES_CTR: Encryption(_AES, salt_octets=4),  # RFC 3686 5.1, RFC 5930
    Encr.AES_CCM_8: Encryption(_AES, salt_octets=3, is_aead=True),  # RFC 4309 7.1, RFC 5282 7.1
    Encr.AES_CCM_12: Encryption(_AES, salt_octets=3, is_aead=True),
    Encr.AES_CCM_16: Encryption(_AES, salt_octets=3, is_aead=True),
    Encr.AES_GCM_8: Encryption(_AES, salt_octets=4, is_aead=True),  # RFC 4106 8.1, RFC 5282 7.1
    Encr.AES_GCM_12: Encryption(_AES, salt_octets=4, is_aead=True),
    Encr.AES_GCM_16: Encryption(_AES, salt_octets=4, is_aead=True),
    Encr.NULL_AUTH_AES_GMAC: Encryption(_AES, salt_octets=4, is_aead=True),  # RFC 4543 5.4
    Encr.CHACHA20_POLY1305: Encryption((), salt_octets=4, fixed_octets=32, is_aead=True),  # RFC 7634 2
    Encr.AES_CCM_8_IIV: Encryption(_AES, salt_octets=3, is_aead=True),  # RFC 8750 4
    Encr.AES_GCM_16_IIV: Encryption(_AES, salt_octets=4, is_aead=True),
    Encr.CHACHA20_POLY1305_IIV: Encryption((), salt_octets=4, fixed_octets=32, is_aead=True),
}
AEAD = frozenset(encr for encr, entry in ENCRYPTION.items() if entry.is_aead)
"""ENCR transform IDs that protect integrity themselves and take no INTEG transform (RFC 5282 8)."""

INTEGRITY: dict[int, int] = {
    Integ.NONE: 0,
    Integ.HMAC_SHA1_96: 20,  # RFC 2404 5
    Integ.AES_XCBC_96: 16,  # RFC 3566 4.1
    Integ.AES_CMAC_96: 16,  # RFC 4494 4
    Integ.HMAC_SHA2_256_128: 32,  # RFC 4868 2.6
    Integ.HMAC_SHA2_384_192: 48,
    Integ.HMAC_SHA2_512_256: 64,
}
"""INTEG transform ID -> octets of key."""


def encr_key_octets(encr: int, key_bits: int | None) -> int:
    """Octets of key material, salt included. LocalError for what `ENCRYPTION` does not list or allow."""
    entry = ENCRYPTION.get(encr)
    if entry is None or (key_bits not in entry.key_bits if entry.key_bits else key_bits is not None):
        raise LocalError(f"no key size for {name_of(Encr, encr)} with key length {key_bits}")
    return (key_bits // 8 if key_bits else entry.fixed_octets) + entry.salt_octets


def integ_key_octets(integ: int) -> int:
    """Octets of key material. LocalError for what `INTEGRITY` does not list."""
    if integ not in INTEGRITY:
        raise LocalError(f"no key size for {name_of(Integ, integ)}")
    return INTEGRITY[integ]


def selected(proposal: Proposal, transform_type: int) -> Transform | None:
    """The one transform of a type in a selected proposal, None if absent. LocalError if there are several."""
    match proposal.of_type(transform_type):
        case ():
            return None
        case (transform,):
            return transform
    raise LocalError(f"several {name_of(TransformType, transform_type)} transforms: not a selected proposal")
