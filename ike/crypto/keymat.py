"""Key derivation for IKE SAs and Child SAs (RFC 7296 2.14, 2.17, 2.18; RFC 5282 7.1 for AEADs).

Must not know messages or SAs: nonces, SPIs and shared secrets come in as octets, keys go out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ike.crypto.algorithms import encr_key_octets, integ_key_octets, selected
from ike.crypto.prf import Prf
from ike.errors import LocalError
from ike.numbers import Integ, TransformType, name_of
from ike.wire.sa import Proposal

__all__ = ["ChildKeys", "IkeKeys", "derive_child_keys", "derive_ike_keys", "derive_rekeyed_ike_keys"]


@dataclass(frozen=True, slots=True)
class IkeKeys:
    """The seven secrets of an IKE SA, in the order they are taken (RFC 7296 2.14).

    SK_ei and SK_er end with the salt where the cipher has one; SK_ai and SK_ar are empty for an AEAD.
    """

    sk_d: bytes = field(repr=False)
    sk_ai: bytes = field(repr=False)
    sk_ar: bytes = field(repr=False)
    sk_ei: bytes = field(repr=False)
    sk_er: bytes = field(repr=False)
    sk_pi: bytes = field(repr=False)
    sk_pr: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChildKeys:
    """The keys of a Child SA pair, in the order they are taken (RFC 7296 2.17).

    "initiator" keys protect packets from the initiator of the exchange that made the Child SA.
    Encryption keys end with the salt where the cipher has one; integrity keys are empty for an AEAD.
    """

    initiator_encr: bytes = field(repr=False)
    initiator_integ: bytes = field(repr=False)
    responder_encr: bytes = field(repr=False)
    responder_integ: bytes = field(repr=False)


def derive_ike_keys(
    proposal: Proposal, nonce_i: bytes, nonce_r: bytes, shared: bytes, spi_i: bytes, spi_r: bytes
) -> IkeKeys:
    """Keys after IKE_SA_INIT: SKEYSEED = prf(Ni | Nr, g^ir).

    `proposal` is the selected one, `shared` is g^ir in full length.
    """
    prf = _prf(proposal)
    return _expand(proposal, prf.skeyseed(nonce_i, nonce_r, shared), nonce_i + nonce_r, spi_i + spi_r)


def derive_rekeyed_ike_keys(
    old_prf: Prf,
    old_sk_d: bytes,
    proposal: Proposal,
    nonce_i: bytes,
    nonce_r: bytes,
    shared: bytes,
    spi_i: bytes,
    spi_r: bytes,
) -> IkeKeys:
    """Keys after a rekey: SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr) with the old PRF.

    The rest is done with the new one. Nonces, SPIs and roles are those of the CREATE_CHILD_SA exchange.
    """
    return _expand(
        proposal, old_prf.compute(old_sk_d, shared + nonce_i + nonce_r), nonce_i + nonce_r, spi_i + spi_r
    )


def derive_child_keys(
    prf: Prf, sk_d: bytes, nonce_i: bytes, nonce_r: bytes, shared: bytes | None, proposal: Proposal
) -> ChildKeys:
    """KEYMAT = prf+(SK_d, [g^ir (new) |] Ni | Nr), cut for the selected ESP `proposal`.

    `shared` is None without PFS, as always in IKE_AUTH.
    """
    encr, integ = _key_octets(proposal)
    keys = _cut(prf, sk_d, (shared or b"") + nonce_i + nonce_r, (encr, integ, encr, integ))
    return ChildKeys(*keys)


def _expand(proposal: Proposal, skeyseed: bytes, nonces: bytes, spis: bytes) -> IkeKeys:
    prf = _prf(proposal)
    own = prf.key_octets
    encr, integ = _key_octets(proposal)
    return IkeKeys(*_cut(prf, skeyseed, nonces + spis, (own, integ, integ, encr, encr, own, own)))


def _prf(proposal: Proposal) -> Prf:
    transform = selected(proposal, TransformType.PRF)
    if transform is None:
        raise LocalError("no PRF in the proposal of an IKE SA")
    return Prf(transform.id)


def _key_octets(proposal: Proposal) -> tuple[int, int]:
    encr = selected(proposal, TransformType.ENCR)
    integ = selected(proposal, TransformType.INTEG)
    if encr is None:
        raise LocalError(f"no {name_of(TransformType, TransformType.ENCR)} in the proposal")
    return encr_key_octets(encr.id, encr.key_bits), integ_key_octets(integ.id if integ else Integ.NONE)


def _cut(prf: Prf, key: bytes, seed: bytes, sizes: tuple[int, ...]) -> Iterator[bytes]:
    stream = prf.plus(key, seed, sum(sizes))
    start = 0
    for size in sizes:
        yield stream[start : start + size]
        start += size
