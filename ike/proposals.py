"""Algorithm proposals: how they are written, as in strongSwan, and chosen (RFC 7296 2.7, 3.3).

Must not know messages: SPIs are passed through, and KE payloads are the business of the exchange.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

from ike.crypto.algorithms import AEAD, selected
from ike.crypto.kex import GROUPS
from ike.crypto.sk import SK_CIPHERS
from ike.numbers import Encr, Integ, Ke, Prf, ProtocolId, Sn, TransformType
from ike.wire.sa import Proposal, Transform

__all__ = [
    "format_proposal",
    "is_valid_selection",
    "number_proposals",
    "parse_esp_proposal",
    "parse_ike_proposal",
    "select_proposal",
    "selected",
    "without_ke",
]


def _encr(encr: Encr, key_bits: int | None = None) -> Transform:
    return Transform(TransformType.ENCR, encr, key_bits)


def _integ(integ: Integ) -> Transform:
    return Transform(TransformType.INTEG, integ)


def _prf(prf: Prf) -> Transform:
    return Transform(TransformType.PRF, prf)


def _ke(ke: Ke) -> Transform:
    return Transform(TransformType.KE, ke)


_AES_BITS = (128, 192, 256)
_KEYWORDS: dict[str, Transform] = {
    **{
        f"aes{bits}gcm{icv}": _encr(encr, bits)
        for icv, encr in ((16, Encr.AES_GCM_16), (12, Encr.AES_GCM_12), (8, Encr.AES_GCM_8))
        for bits in _AES_BITS
    },
    "chacha20poly1305": _encr(Encr.CHACHA20_POLY1305),
    **{
        f"aes{bits}ccm{icv}": _encr(encr, bits)
        for icv, encr in ((16, Encr.AES_CCM_16), (12, Encr.AES_CCM_12), (8, Encr.AES_CCM_8))
        for bits in _AES_BITS
    },
    **{f"aes{bits}": _encr(Encr.AES_CBC, bits) for bits in _AES_BITS},
    **{f"aes{bits}ctr": _encr(Encr.AES_CTR, bits) for bits in _AES_BITS},
    # strongSwan has no words for implicit IVs (RFC 8750); these are ours.
    **{f"aes{bits}gcm16iiv": _encr(Encr.AES_GCM_16_IIV, bits) for bits in _AES_BITS},
    **{f"aes{bits}ccm8iiv": _encr(Encr.AES_CCM_8_IIV, bits) for bits in _AES_BITS},
    "chacha20poly1305iiv": _encr(Encr.CHACHA20_POLY1305_IIV),
    **{f"aes{bits}gmac": _encr(Encr.NULL_AUTH_AES_GMAC, bits) for bits in _AES_BITS},
    "null": _encr(Encr.NULL),
    "prfsha256": _prf(Prf.HMAC_SHA2_256),
    "prfsha384": _prf(Prf.HMAC_SHA2_384),
    "prfsha512": _prf(Prf.HMAC_SHA2_512),
    "prfaescmac": _prf(Prf.AES128_CMAC),
    "prfaesxcbc": _prf(Prf.AES128_XCBC),
    "prfsha1": _prf(Prf.HMAC_SHA1),
    "sha256": _integ(Integ.HMAC_SHA2_256_128),
    "sha384": _integ(Integ.HMAC_SHA2_384_192),
    "sha512": _integ(Integ.HMAC_SHA2_512_256),
    "aescmac": _integ(Integ.AES_CMAC_96),
    "aesxcbc": _integ(Integ.AES_XCBC_96),
    "sha1": _integ(Integ.HMAC_SHA1_96),
    "x25519": _ke(Ke.CURVE25519),
    "ecp256": _ke(Ke.ECP_256),
    "ecp384": _ke(Ke.ECP_384),
    "ecp521": _ke(Ke.ECP_521),
    "x448": _ke(Ke.CURVE448),
    "ecp256bp": _ke(Ke.BRAINPOOL_P256R1),
    "ecp384bp": _ke(Ke.BRAINPOOL_P384R1),
    "ecp512bp": _ke(Ke.BRAINPOOL_P512R1),
    "modp2048": _ke(Ke.MODP_2048),
    "modp3072": _ke(Ke.MODP_3072),
    "modp4096": _ke(Ke.MODP_4096),
    "esn": Transform(TransformType.SN, Sn.PARTIALLY_TRANSMITTED_64),
    "noesn": Transform(TransformType.SN, Sn.SEQUENTIAL_32),
}
# Other words of strongSwan for the same thing; sizes of ICVs may be given in bits.
_ALIASES = {
    "curve25519": "x25519",
    "curve448": "x448",
    "sha": "sha1",
    "sha2_256": "sha256",
    "sha2_384": "sha384",
    "sha2_512": "sha512",
    **{
        f"aes{bits}{mode}{icv * 8}": f"aes{bits}{mode}{icv}"
        for mode in ("gcm", "ccm")
        for icv in (8, 12, 16)
        for bits in _AES_BITS
    },
    **{f"aes{bits}gcm": f"aes{bits}gcm16" for bits in _AES_BITS},
}
# What an operator may know from elsewhere and is told about by name.
_NOT_AVAILABLE_YET = frozenset(
    {f"modp{bits}" for bits in (6144, 8192)}
    | {f"camellia{bits}" for bits in _AES_BITS}
    | {f"mlkem{size}" for size in (512, 768, 1024)}
)
_REFUSED = frozenset(
    {"des", "3des", "md5", "prfmd5", "modp768", "modp1024", "modp1536", "cast128", "blowfish"}
)
# What a proposal should have, when it lacks it. The other words are for peers that cannot do these.
_ADVICE = {
    TransformType.ENCR: "aes256gcm16 or aes128gcm16 or chacha20poly1305",
    TransformType.PRF: "prfsha256 or prfsha384 or prfsha512",
    TransformType.INTEG: "sha256 or sha384 or sha512",
    TransformType.KE: "x25519 or ecp256 or ecp384",
}
_CLEAR = frozenset({Encr.NULL, Encr.NULL_AUTH_AES_GMAC})
"""ENCR transforms that encrypt nothing (RFC 2410, RFC 4543)."""
_PRF_OF = {
    Integ.HMAC_SHA2_256_128: Prf.HMAC_SHA2_256,
    Integ.HMAC_SHA2_384_192: Prf.HMAC_SHA2_384,
    Integ.HMAC_SHA2_512_256: Prf.HMAC_SHA2_512,
    Integ.AES_CMAC_96: Prf.AES128_CMAC,
    Integ.AES_XCBC_96: Prf.AES128_XCBC,
    Integ.HMAC_SHA1_96: Prf.HMAC_SHA1,
}
_WORD_OF = {transform: word for word, transform in _KEYWORDS.items()}

_KINDS = {
    TransformType.ENCR: "encryption",
    TransformType.PRF: "PRF",
    TransformType.INTEG: "integrity",
    TransformType.KE: "key exchange",
    TransformType.SN: "sequence number",
}


def parse_ike_proposal(text: str) -> Proposal:
    """A proposal for an IKE SA, as "aes256gcm16-prfsha384-x25519" or "aes256-sha256-modp3072".

    Words of one type are alternatives. Without a PRF word the PRF is that of the integrity words, as in
    strongSwan. ValueError names what is wrong and the remedy. ENCR, PRF and KE are mandatory (RFC 7296 3.3.3).
    """
    allowed = (TransformType.ENCR, TransformType.PRF, TransformType.INTEG, TransformType.KE)
    transforms = _parse(text, "IKE", allowed)
    kinds = {t.type for t in transforms}
    if TransformType.PRF not in kinds:
        if TransformType.INTEG not in kinds:
            advice = _ADVICE[TransformType.PRF]
            raise ValueError(f'"{text}": no PRF; an AEAD needs one of its own: add {advice}')
        prfs = tuple(_prf(_PRF_OF[Integ(t.id)]) for t in transforms if t.type == TransformType.INTEG)
        transforms = _by_type((*transforms, *prfs))
    if TransformType.KE not in kinds:
        raise ValueError(f'"{text}": no key exchange: add {_ADVICE[TransformType.KE]}')
    return Proposal(ProtocolId.IKE, transforms)


def parse_esp_proposal(text: str) -> Proposal:
    """A proposal for a Child SA with ESP, as "aes256gcm16", "aes256gcm16-x25519-esn" or "aes128-sha256".

    A key exchange word asks for PFS. Sequence numbers have 32 bits unless there is "esn", as in strongSwan;
    "esn-noesn" takes either and prefers the first. ValueError names what is wrong and the remedy.
    """
    allowed = (TransformType.ENCR, TransformType.INTEG, TransformType.KE, TransformType.SN)
    transforms = _parse(text, "ESP", allowed)
    if not any(t.type == TransformType.SN for t in transforms):
        transforms += (_KEYWORDS["noesn"],)
    return Proposal(ProtocolId.ESP, transforms)


def _parse(text: str, protocol: str, allowed: Sequence[int]) -> tuple[Transform, ...]:
    """Known, distinct transforms of the allowed types, ordered by type, that go together (`_check_ciphers`)."""
    transforms: list[Transform] = []
    for word in text.strip().lower().split("-"):
        transform = _KEYWORDS.get(_ALIASES.get(word, word))
        if transform is None:
            raise ValueError(f'"{text}": {_why_not(word)}')
        if transform.type not in allowed:
            kind = _KINDS[TransformType(transform.type)]
            raise ValueError(f'"{text}": "{word}" ({kind}) has no place in an {protocol} proposal')
        if protocol == "IKE" and transform.type == TransformType.ENCR and transform.id not in SK_CIPHERS:
            raise ValueError(f'"{text}": "{word}" is for ESP alone; use an AEAD as aes256gcm16')
        if transform.type == TransformType.KE and transform.id not in GROUPS:
            raise ValueError(f'"{text}": "{word}" is not in the installed cryptography library')
        if transform in transforms:
            raise ValueError(f'"{text}": "{word}" stands there twice')
        transforms.append(transform)
    _check_ciphers(text, transforms)
    return _by_type(transforms)


def _check_ciphers(text: str, transforms: Sequence[Transform]) -> None:
    """A cipher at least; AEADs without integrity, others with it; never a choice of whether to encrypt."""
    ciphers = [t.id for t in transforms if t.type == TransformType.ENCR]
    has_integrity = any(t.type == TransformType.INTEG for t in transforms)
    if not ciphers:
        raise ValueError(f'"{text}": no encryption: begin with {_ADVICE[TransformType.ENCR]}')
    if not AEAD.isdisjoint(ciphers) and not AEAD.issuperset(ciphers):
        raise ValueError(f'"{text}": AEADs and other ciphers need a proposal each')
    if not _CLEAR.isdisjoint(ciphers) and not _CLEAR.issuperset(ciphers):
        raise ValueError(f'"{text}": a word that does not encrypt needs a proposal of its own')
    if AEAD.issuperset(ciphers) and has_integrity:
        raise ValueError(f'"{text}": an AEAD protects integrity itself: leave the integrity word out')
    if AEAD.isdisjoint(ciphers) and not has_integrity:
        advice = _ADVICE[TransformType.INTEG]
        raise ValueError(f'"{text}": no integrity: add {advice}, or use an AEAD as aes256gcm16')


def _by_type(transforms: Iterable[Transform]) -> tuple[Transform, ...]:
    return tuple(sorted(transforms, key=lambda t: t.type))


def _why_not(word: str) -> str:
    if word in _REFUSED:
        return f'"{word}" is too weak to be offered'
    if word in _NOT_AVAILABLE_YET:
        return f'"{word}" is not available yet; known words are {", ".join(_KEYWORDS)}'
    return f'unknown word "{word}"; known are {", ".join(_KEYWORDS)}'


def format_proposal(proposal: Proposal) -> str:
    """The written form; what has no word appears under its registered name and number."""
    return "-".join(_WORD_OF.get(transform, str(transform)) for transform in proposal.transforms)


def number_proposals(proposals: Sequence[Proposal], spi: bytes = b"") -> tuple[Proposal, ...]:
    """The proposals as an SA payload offers them: numbered from 1, all with our `spi`."""
    return tuple(replace(proposal, spi=spi, number=n) for n, proposal in enumerate(proposals, 1))


def without_ke(proposals: Sequence[Proposal]) -> tuple[Proposal, ...]:
    """The proposals for a Child SA made in IKE_AUTH, which has no key exchange of its own (RFC 7296 1.2)."""
    return tuple(
        replace(proposal, transforms=tuple(t for t in proposal.transforms if t.type != TransformType.KE))
        for proposal in proposals
    )


def select_proposal(offered: Sequence[Proposal], configured: Sequence[Proposal]) -> Proposal | None:
    """What a responder takes from an offer, or None (NO_PROPOSAL_CHOSEN).

    Our order of proposals and of algorithms counts, not the peer's. The result has one transform of each type
    that the chosen proposal offers, and keeps its number and SPI.
    """
    for ours in configured:
        for theirs in offered:
            if transforms := _match(theirs, ours):
                return replace(theirs, transforms=transforms)
    return None


def is_valid_selection(answer: Sequence[Proposal], offered: Sequence[Proposal]) -> bool:
    """Whether a responder's SA payload is one proposal, rightly taken from our offer (RFC 7296 3.3.6)."""
    if len(answer) != 1:
        return False
    (chosen,) = answer
    for ours in offered:
        if ours.number == chosen.number:
            transforms = _match(chosen, ours)
            return transforms is not None and len(transforms) == len(chosen.transforms)
    return False


def _match(theirs: Proposal, ours: Proposal) -> tuple[Transform, ...] | None:
    """One transform for each type in `theirs`, by the order of `ours`; None if some type cannot be served.

    A transform with an attribute that we do not know equals none of ours and is passed over (RFC 7296 3.3.6).
    """
    if theirs.protocol != ours.protocol:
        return None
    kinds = dict.fromkeys(t.type for t in chain(ours.transforms, theirs.transforms))
    chosen: list[Transform] = []
    for kind in kinds:
        alternatives = ours.of_type(kind) or _absent(kind)
        transform = next((t for t in alternatives if t in theirs.transforms), None)
        if transform is None:
            return None
        chosen.append(transform)
    return tuple(chosen)


def _absent(kind: int) -> tuple[Transform, ...]:
    """What the peer may write for a type that we leave out: NONE, where there is one (RFC 7296 3.3.2)."""
    return (Transform(kind, 0),) if kind in (TransformType.INTEG, TransformType.KE) else ()
