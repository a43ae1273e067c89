"""Making and checking AUTH payloads, by method (RFC 7296 2.15).

Must not know the exchange around them, nor who may do what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ike.config import PskAuth
from ike.crypto.auth import psk_auth, signed_octets, verify_psk_auth
from ike.errors import LocalError
from ike.numbers import AuthMethod, name_of
from ike.wire.payloads import AuthPayload, IdPayload

if TYPE_CHECKING:
    from ike.sa import IkeSa


def make_auth(sa: IkeSa, auth: PskAuth, identity: IdPayload) -> AuthPayload:
    """Our AUTH payload beside `identity`, our ID payload."""
    octets = _signed_octets(sa, identity, by_initiator=sa.is_initiator)
    return AuthPayload(AuthMethod.SHARED_KEY_MIC, psk_auth(sa.keyed.prf, auth.psk, octets))


def verify_auth(sa: IkeSa, auth: PskAuth, identity: IdPayload, received: AuthPayload) -> str:
    """Why the peer's AUTH payload does not prove `identity`; empty if it does."""
    who = identity.identity.text()
    if received.method != AuthMethod.SHARED_KEY_MIC:
        return f"{who} authenticates by {name_of(AuthMethod, received.method)}, not by pre-shared key"
    octets = _signed_octets(sa, identity, by_initiator=not sa.is_initiator)
    if not verify_psk_auth(sa.keyed.prf, auth.psk, octets, received.data):
        return f"the pre-shared key of {who} is not ours"
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
