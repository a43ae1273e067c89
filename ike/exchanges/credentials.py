"""Making and checking AUTH payloads, by method, with what travels beside them (RFC 7296 2.15, 3.6-3.8; RFC 7427).

Must not know the exchange around them, nor who may do what.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ike.config import Auth, Connection, PskAuth, SignatureAuth
from ike.crypto.auth import psk_auth, signed_octets, verify_psk_auth
from ike.crypto.signatures import HASHES, SignatureError, choose_method, sign, verify
from ike.errors import LocalError, UntrustedError
from ike.numbers import AuthMethod, CertEncoding, NotifyType, name_of
from ike.wire.message import Message
from ike.wire.payloads import AuthPayload, CertPayload, CertreqPayload, IdPayload, NotifyPayload

if TYPE_CHECKING:
    from ike.sa import IkeSa

MAX_AUTHORITIES_ASKED = 64


# --- in IKE_SA_INIT


def hash_announcement(connections: Iterable[Connection]) -> tuple[NotifyPayload, ...]:
    """N(SIGNATURE_HASH_ALGORITHMS) if one of the connections authenticates by signature (RFC 7427 4)."""
    if not any(isinstance(connection.auth, SignatureAuth) for connection in connections):
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
    """CERTREQ with the trust anchors of those connections, or none; too many name none (RFC 7296 3.7)."""
    authorities = {
        authority
        for connection in connections
        if isinstance(connection.auth, SignatureAuth)
        for authority in connection.auth.trust.authorities
    }
    if not 0 < len(authorities) <= MAX_AUTHORITIES_ASKED:
        return ()
    return (CertreqPayload(CertEncoding.X509_SIGNATURE, b"".join(sorted(authorities))),)


def why_no_auth(auth: Auth, peer_hashes: frozenset[int]) -> str:
    """Why we cannot prove who we are to a peer that listed these hashes; empty if we can."""
    if isinstance(auth, SignatureAuth):
        try:
            choose_method(auth.key, peer_hashes, rsa_pss=auth.rsa_pss, rsa_sha1=auth.rsa_sha1)
        except SignatureError as error:
            return str(error)
    return ""


# --- in IKE_AUTH


def certificates(auth: Auth) -> tuple[CertPayload, ...]:
    """Our chain, the end entity first. It is sent whether the peer asked for it or not."""
    chain = auth.chain if isinstance(auth, SignatureAuth) else ()
    return tuple(CertPayload(CertEncoding.X509_SIGNATURE, certificate) for certificate in chain)


def make_auth(sa: IkeSa, auth: Auth, identity: IdPayload) -> AuthPayload:
    """Our AUTH payload beside `identity`, our ID payload. `why_no_auth` was asked before."""
    octets = _signed_octets(sa, identity, by_initiator=sa.is_initiator)
    if isinstance(auth, PskAuth):
        return AuthPayload(AuthMethod.SHARED_KEY_MIC, psk_auth(sa.keyed.prf, auth.psk, octets))
    method = choose_method(auth.key, sa.peer_hashes, rsa_pss=auth.rsa_pss, rsa_sha1=auth.rsa_sha1)
    return AuthPayload(method.auth_method, sign(method, auth.key, octets))


def verify_auth(sa: IkeSa, auth: Auth, identity: IdPayload, received: AuthPayload, message: Message) -> str:
    """Why the peer's AUTH payload, in `message`, does not prove `identity`; empty if it does."""
    who = identity.identity.text()
    is_psk = received.method == AuthMethod.SHARED_KEY_MIC
    if isinstance(auth, PskAuth) is not is_psk:
        expected = "pre-shared key" if isinstance(auth, PskAuth) else "certificate"
        return f"{who} authenticates by {name_of(AuthMethod, received.method)}, not by {expected}"
    octets = _signed_octets(sa, identity, by_initiator=not sa.is_initiator)
    if isinstance(auth, PskAuth):
        if verify_psk_auth(sa.keyed.prf, auth.psk, octets, received.data):
            return ""
        return f"the pre-shared key of {who} is not ours"
    # Other encodings are left aside: nothing is fetched, and a CRL counts only where it was configured.
    chain = [cert.data for cert in message.all(CertPayload) if cert.encoding == CertEncoding.X509_SIGNATURE]
    if not chain:
        return f"{who} sent no certificate"
    try:
        key = auth.trust.verify_chain(identity.identity, chain)
        verify(
            key,
            received.method,
            received.data,
            octets,
            is_announced=bool(sa.peer_hashes),
            rsa_sha1=auth.rsa_sha1,
        )
    except (UntrustedError, SignatureError) as error:
        return f"{who} is not proved: {error}"
    return ""


def _signed_octets(sa: IkeSa, identity: IdPayload, *, by_initiator: bool) -> bytes:
    """Each end signs its own IKE_SA_INIT message, the other's nonce, and its identity."""
    init, keyed = sa.init, sa.keyed
    if init is None:
        raise LocalError("IKE_AUTH is over")
    body = identity.encode_body()
    if by_initiator:
        return signed_octets(keyed.prf, init.request, init.nonce_r, keyed.keys.sk_pi, body)
    return signed_octets(keyed.prf, init.response, init.nonce_i, keyed.keys.sk_pr, body)
