"""Making and checking AUTH payloads, by method, with what travels beside them (RFC 7296 2.15, 3.6-3.8; RFC 7427).

Raw public keys are RFC 7670's, authentication that proves nothing RFC 7619's. Must not know the exchange around
them, nor who may do what.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ike.config import Connection, LocalAuth, NullAuth, PeerAuth, PeerSignature, PskAuth, SignatureAuth
from ike.crypto.auth import psk_auth, signed_octets, verify_psk_auth
from ike.crypto.signatures import HASHES, PublicKey, SignatureError, choose_method, sign, verify
from ike.errors import LocalError, UntrustedError
from ike.numbers import AuthMethod, CertEncoding, NotifyType, name_of
from ike.wire.message import Message
from ike.wire.payloads import AuthPayload, CertPayload, CertreqPayload, IdPayload, NotifyPayload

if TYPE_CHECKING:
    from ike.sa import IkeSa

MAX_AUTHORITIES_ASKED = 64


# --- in IKE_SA_INIT


def hash_announcement(connections: Iterable[Connection]) -> tuple[NotifyPayload, ...]:
    """N(SIGNATURE_HASH_ALGORITHMS) if an end of one of the connections signs (RFC 7427 4)."""
    if not any(
        isinstance(each, SignatureAuth | PeerSignature)
        for connection in connections
        for each in (connection.auth, *connection.proofs)
    ):
        return ()
    data = b"".join(hash_alg.to_bytes(2, "big") for hash_alg in HASHES)
    return (NotifyPayload(NotifyType.SIGNATURE_HASH_ALGORITHMS, data),)


def announced_hashes(message: Message) -> frozenset[int]:
    """What the peer listed; empty if it does not know RFC 7427, or nothing that we know."""
    notify = message.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
    data = notify.data if notify else b""
    listed = {int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data) - 1, 2)}
    return frozenset(listed.intersection(HASHES))


def certificate_requests(connections: Iterable[Connection]) -> tuple[CertreqPayload, ...]:
    """CERTREQ with the trust anchors of those connections; too many name none (RFC 7296 3.7).

    Another asks for a raw public key, where one is known; it names nobody (RFC 7670 3).
    """
    signatures = [
        proof for connection in connections for proof in connection.proofs if isinstance(proof, PeerSignature)
    ]
    authorities = {
        each for signature in signatures if signature.trust for each in signature.trust.authorities
    }
    requests = []
    if 0 < len(authorities) <= MAX_AUTHORITIES_ASKED:
        requests.append(CertreqPayload(CertEncoding.X509_SIGNATURE, b"".join(sorted(authorities))))
    if any(signature.raw_keys for signature in signatures):
        requests.append(CertreqPayload(CertEncoding.RAW_PUBLIC_KEY, b""))
    return tuple(requests)


def why_no_auth(auth: LocalAuth, peer_hashes: frozenset[int]) -> str:
    """Why we cannot prove who we are to a peer that listed these hashes; empty if we can."""
    if isinstance(auth, SignatureAuth):
        try:
            choose_method(auth.key, peer_hashes, rsa_pss=auth.rsa_pss, rsa_sha1=auth.rsa_sha1)
        except SignatureError as error:
            return str(error)
    return ""


# --- in IKE_AUTH


def wants_raw_key(message: Message) -> bool:
    """Whether the sender of `message` has asked for a raw public key."""
    return any(one.encoding == CertEncoding.RAW_PUBLIC_KEY for one in message.all(CertreqPayload))


def certificates(auth: LocalAuth, *, wants_raw_key: bool) -> tuple[CertPayload, ...]:
    """Our chain, the end entity first, whether the peer asked for it or not; or our key if it asked for that."""
    if not isinstance(auth, SignatureAuth):
        return ()
    if not auth.chain and wants_raw_key:
        return (CertPayload(CertEncoding.RAW_PUBLIC_KEY, _key_octets(auth.key.public_key())),)
    return tuple(CertPayload(CertEncoding.X509_SIGNATURE, certificate) for certificate in auth.chain)


def make_auth(sa: IkeSa, auth: LocalAuth, identity: IdPayload) -> AuthPayload:
    """Our AUTH payload beside `identity`, our ID payload. `why_no_auth` was asked before."""
    octets = _signed_octets(sa, identity, by_initiator=sa.is_initiator)
    if isinstance(auth, PskAuth):
        return AuthPayload(AuthMethod.SHARED_KEY_MIC, psk_auth(sa.keyed.prf, auth.psk, octets))
    if isinstance(auth, NullAuth):
        secret = _null_secret(sa, by_initiator=sa.is_initiator)
        return AuthPayload(AuthMethod.NULL, psk_auth(sa.keyed.prf, secret, octets))
    method = choose_method(auth.key, sa.peer_hashes, rsa_pss=auth.rsa_pss, rsa_sha1=auth.rsa_sha1)
    return AuthPayload(method.auth_method, sign(method, auth.key, octets))


def fits(proof: PeerAuth, auth_method: int) -> bool:
    """Whether an AUTH payload of this method may be such a proof."""
    if isinstance(proof, PskAuth):
        return auth_method == AuthMethod.SHARED_KEY_MIC
    if isinstance(proof, NullAuth):
        return auth_method == AuthMethod.NULL
    return auth_method not in (AuthMethod.SHARED_KEY_MIC, AuthMethod.NULL)


def verify_auth(
    sa: IkeSa, proofs: Sequence[PeerAuth], identity: IdPayload, received: AuthPayload, message: Message
) -> str:
    """Why the peer's AUTH payload, in `message`, is none of `proofs` of `identity`; empty if it is one."""
    who = identity.identity.text()
    fitting = [proof for proof in proofs if fits(proof, received.method)]
    if not fitting:
        expected = " or ".join(dict.fromkeys(_NAMES[type(proof)] for proof in proofs))
        return f"{who} authenticates by {name_of(AuthMethod, received.method)}, not by {expected}"
    octets = _signed_octets(sa, identity, by_initiator=not sa.is_initiator)
    failures = [_why_not(sa, proof, identity, received, octets, message) for proof in fitting]
    return "" if "" in failures else f"{who} is not proved: {failures[0]}"


_NAMES = {PskAuth: "pre-shared key", PeerSignature: "certificate", NullAuth: "nothing"}


def _why_not(
    sa: IkeSa, proof: PeerAuth, identity: IdPayload, received: AuthPayload, octets: bytes, message: Message
) -> str:
    """Why it is not this proof; empty if it is."""
    if isinstance(proof, PeerSignature):
        try:
            _verify_signature(sa, proof, identity, received, octets, message)
        except (UntrustedError, SignatureError) as error:
            return str(error)
        return ""
    if isinstance(proof, NullAuth):
        secret, said = _null_secret(sa, by_initiator=not sa.is_initiator), "the IKE_SA_INIT messages differ"
    else:
        secret, said = proof.psk, "the pre-shared key is not ours"
    return "" if verify_psk_auth(sa.keyed.prf, secret, octets, received.data) else said


def _verify_signature(
    sa: IkeSa,
    proof: PeerSignature,
    identity: IdPayload,
    received: AuthPayload,
    octets: bytes,
    message: Message,
) -> None:
    """Raises UntrustedError or SignatureError unless a key that proves the peer has signed `octets`."""
    failure: Exception = UntrustedError("it sent no certificate")
    for key in _keys(proof, identity, message):
        try:
            verify(
                key,
                received.method,
                received.data,
                octets,
                is_announced=bool(sa.peer_hashes),
                rsa_sha1=proof.rsa_sha1,
            )
        except SignatureError as error:
            failure = error
        else:
            return
    raise failure


def _keys(proof: PeerSignature, identity: IdPayload, message: Message) -> Sequence[PublicKey]:
    """The keys that may have signed. UntrustedError for a certificate, or a raw key, that proves nothing.

    Other encodings are left aside: nothing is fetched, and a CRL counts only where it was configured. A peer
    whose raw key we have need not send it.
    """
    sent = message.all(CertPayload)
    chain = [cert.data for cert in sent if cert.encoding == CertEncoding.X509_SIGNATURE]
    if chain and proof.trust:
        return (proof.trust.verify_chain(identity.identity, chain),)
    raw = [cert.data for cert in sent if cert.encoding == CertEncoding.RAW_PUBLIC_KEY]
    known = [key for key in proof.raw_keys if not raw or _key_octets(key) in raw]
    if raw and not known:
        raise UntrustedError("its raw public key is not one that we know")
    return known


def _key_octets(key: PublicKey) -> bytes:
    """The SubjectPublicKeyInfo in DER (RFC 7670 3)."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _null_secret(sa: IkeSa, *, by_initiator: bool) -> bytes:
    """In the place of a shared secret each end has a key of its own (RFC 7619 2.1)."""
    return sa.keyed.keys.sk_pi if by_initiator else sa.keyed.keys.sk_pr


def _signed_octets(sa: IkeSa, identity: IdPayload, *, by_initiator: bool) -> bytes:
    """Each end signs its own IKE_SA_INIT message, the other's nonce, and its identity."""
    init, keyed = sa.init, sa.keyed
    if init is None:
        raise LocalError("IKE_AUTH is over")
    body = identity.encode_body()
    if by_initiator:
        return signed_octets(keyed.prf, init.request, init.nonce_r, keyed.keys.sk_pi, body)
    return signed_octets(keyed.prf, init.response, init.nonce_i, keyed.keys.sk_pr, body)
