"""Algorithm proposals: how they are written, as in strongSwan, and chosen (RFC 7296 2.7, 3.3).

Must not know messages: SPIs are passed through, and KE payloads are the business of the exchange.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from ike.crypto.algorithms import AEAD, selected
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


_AES_BITS = (128, 192, 256)
_KEYWORDS: dict[str, Transform] = {
    **{
        f"aes{bits}gcm{icv}": _encr(encr, bits)
        for icv, encr in ((16, Encr.AES_GCM_16), (12, Encr.AES_GCM_12), (8, Encr.AES_GCM_8))
        for bits in _AES_BITS
    },
    "chacha20poly1305": _encr(Encr.CHACHA20_POLY1305),
    **{f"aes{bits}": _encr(Encr.AES_CBC, bits) for bits in _AES_BITS},
    "prfsha256": Transform(TransformType.PRF, Prf.HMAC_SHA2_256),
    "prfsha384": Transform(TransformType.PRF, Prf.HMAC_SHA2_384),
    "prfsha512": Transform(TransformType.PRF, Prf.HMAC_SHA2_512),
    "sha256": Transform(TransformType.INTEG, Integ.HMAC_SHA2_256_128),
    "sha384": Transform(TransformType.INTEG, Integ.HMAC_SHA2_384_192),
    "sha512": Transform(TransformType.INTEG, Integ.HMAC_SHA2_512_256),
    "x25519": Transform(TransformType.KE, Ke.CURVE25519),
    "ecp256": Transform(TransformType.KE, Ke.ECP_256),
    "ecp384": Transform(TransformType.KE, Ke.ECP_384),
    "ecp521": Transform(TransformType.KE, Ke.ECP_521),
    "esn": Transform(TransformType.SN, Sn.PARTIALLY_TRANSMITTED_64),
    "noesn": Transform(TransformType.SN, Sn.SEQUENTIAL_32),
}
# Other words of strongSwan for the same thing; sizes of ICVs may be given in bits.
_ALIASES = {
    "curve25519": "x25519",
    "sha2_256": "sha256",
    "sha2_384": "sha384",
    "sha2_512": "sha512",
    **{f"aes{bits}gcm{icv * 8}": f"aes{bits}gcm{icv}" for icv in (8, 12, 16) for bits in _AES_BITS},
    **{f"aes{bits}gcm": f"aes{bits}gcm16" for bits in _AES_BITS},
}
# What an operator may know from elsewhere and is told about by name.
_NOT_AVAILABLE_YET = frozenset(
    {"null", "sha1", "aesxcbc", "aescmac", "prfsha1", "prfaesxcbc", "prfaescmac", "x448", "curve448"}
    | {f"aes{bits}{mode}" for bits in _AES_BITS for mode in ("ctr", "ccm8", "ccm12", "ccm16", "gmac")}
    | {f"modp{bits}" for bits in (2048, 3072, 4096, 6144, 8192)}
    | {f"camellia{bits}" for bits in _AES_BITS}
    | {f"ecp{bits}bp" for bits in (256, 384, 512)}
    | {f"mlkem{size}" for size in (512, 768, 1024)}
)
_REFUSED = frozenset(
    {"des", "3des", "md5", "prfmd5", "modp768", "modp1024", "modp1536", "cast128", "blowfish"}
)
_WORD_OF = {transform: word for word, transform in _KEYWORDS.items()}

_KINDS = {
    TransformType.ENCR: "encryption",
    TransformType.PRF: "PRF",
    TransformType.INTEG: "integrity",
    TransformType.KE: "key exchange",
    TransformType.SN: "sequence number",
}


def parse_ike_proposal(text: str) -> Proposal:
    """A proposal for an IKE SA, as "aes256gcm16-prfsha384-x25519"; words of one type are alternatives.

    ValueError names what is wrong and the remedy. ENCR, PRF and KE are mandatory (RFC 7296 3.3.3).
    """
    transforms = _parse(text, "IKE", (TransformType.ENCR, TransformType.PRF, TransformType.KE))
    kinds = {t.type for t in transforms}
    if TransformType.PRF not in kinds:
        raise ValueError(
            f'"{text}": no PRF; an AEAD needs one of its own: add prfsha256, prfsha384 or prfsha512'
        )
    if TransformType.KE not in kinds:
        raise ValueError(f'"{text}": no key exchange: add {_words(TransformType.KE)}')
    return Proposal(ProtocolId.IKE, transforms)


def parse_esp_proposal(text: str) -> Proposal:
    """A proposal for a Child SA with ESP, as "aes256gcm16", "aes256gcm16-x25519-esn" or "aes128-sha256".

    A key exchange word asks for PFS. Sequence numbers have 32 bits unless there is "esn", as in strongSwan;
    "esn-noesn" takes either and prefers the first. ValueError names what is wrong and the remedy.
    """
    allowed = (TransformType.ENCR, TransformType.INTEG, TransformType.KE, TransformType.SN)
    transforms = _parse(text, "ESP", allowed)
    kinds = {t.type for t in transforms}
    if transforms[0].id not in AEAD and TransformType.INTEG not in kinds:
        raise ValueError(
            f'"{text}": no integrity: add {_words(TransformType.INTEG)}, or use an AEAD as aes256gcm16'
        )
    if TransformType.SN not in kinds:
        transforms += (_KEYWORDS["noesn"],)
    return Proposal(ProtocolId.ESP, transforms)


def _parse(text: str, protocol: str, allowed: Sequence[int]) -> tuple[Transform, ...]:
    """Known, distinct transforms of the allowed types, ordered by type; a cipher at least, AEADs unmixed."""
    transforms: list[Transform] = []
    for word in text.strip().lower().split("-"):
        transform = _KEYWORDS.get(_ALIASES.get(word, word))
        if transform is None:
            raise ValueError(f'"{text}": {_why_not(word)}')
        if protocol == "IKE" and transform.type == TransformType.ENCR and transform.id not in SK_CIPHERS:
            raise ValueError(f'"{text}": "{word}" is not available yet for IKE; use an AEAD as aes256gcm16')
        if transform.type not in allowed:
            kind = _KINDS[TransformType(transform.type)]
            raise ValueError(f'"{text}": "{word}" ({kind}) has no place in an {protocol} proposal')
        if transform in transforms:
            raise ValueError(f'"{text}": "{word}" stands there twice')
        transforms.append(transform)
    ciphers = [t.id in AEAD for t in transforms if t.type == TransformType.ENCR]
    if not ciphers:
        raise ValueError(f'"{text}": no encryption: begin with {_words(TransformType.ENCR)}')
    if any(ciphers) and not all(ciphers):
        raise ValueError(f'"{text}": AEADs and other ciphers need a proposal each')
    if any(ciphers) and any(t.type == TransformType.INTEG for t in transforms):
        raise ValueError(f'"{text}": an AEAD protects integrity itself: leave the integrity word out')
    return tuple(sorted(transforms, key=lambda t: t.type))


def _why_not(word: str) -> str:
    if word in _REFUSED:
        return f'"{word}" is too weak to be offered'
    if word in _NOT_AVAILABLE_YET:
        return f'"{word}" is not available yet; known words are {", ".join(_KEYWORDS)}'
    return f'unknown word "{word}"; known are {", ".join(_KEYWORDS)}'


def _words(kind: TransformType) -> str:
    return " or ".join(word for word, transform in _KEYWORDS.items() if transform.type == kind)


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
