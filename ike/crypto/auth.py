"""What AUTH payloads authenticate, and the shared key method (RFC 7296 2.15).

Must not know where secrets or identities come from.
"""

import hmac

from ike.crypto.prf import Prf

__all__ = ["psk_auth", "signed_octets", "verify_psk_auth"]

_KEY_PAD = b"Key Pad for IKEv2"


def signed_octets(prf: Prf, first_message: bytes, peer_nonce: bytes, sk_p: bytes, id_body: bytes) -> bytes:
    """InitiatorSignedOctets or ResponderSignedOctets: RealMessage | NonceData | prf(SK_p, ID').

    `first_message` is the signer's own IKE_SA_INIT message as it was on the wire, without a non-ESP marker
    and in its latest version; `peer_nonce` the value of the other side's nonce; `sk_p` SK_pi for the
    initiator's octets, SK_pr for the responder's; `id_body` the signer's ID payload after its generic header.
    """
    return first_message + peer_nonce + prf.compute(sk_p, id_body)


def psk_auth(prf: Prf, psk: bytes, octets: bytes) -> bytes:
    """AUTH data of method 2: prf(prf(secret, "Key Pad for IKEv2"), signed octets)."""
    return prf.compute(prf.compute(psk, _KEY_PAD), octets)


def verify_psk_auth(prf: Prf, psk: bytes, octets: bytes, received: bytes) -> bool:
    """Whether `received` is what a peer with the same secret would send; in constant time."""
    return hmac.compare_digest(psk_auth(prf, psk, octets), received)
