"""Sealing and opening whole IKE messages: the Encrypted payload (RFC 7296 3.14, RFC 5282).

Must not know what the messages say, which are expected, or how their keys came about.
"""

from ike.crypto.algorithms import selected
from ike.crypto.keymat import IkeKeys
from ike.crypto.sk import IntegrityError, sk_cipher
from ike.errors import LocalError, ParseError
from ike.numbers import Integ, PayloadType, TransformType
from ike.wire.message import HEADER_OCTETS, MAX_MESSAGE_OCTETS, Message, SealedBody, encode_payloads
from ike.wire.sa import Proposal

__all__ = ["IntegrityError", "Protection"]

_GENERIC_HEADER_OCTETS = 4


class Protection:
    """Both directions of one IKE SA.

    `proposal` is the selected one, `is_original_initiator` says which of the keys are ours to send with
    (RFC 7296 2.14). LocalError if the proposal's algorithms are none that work here.
    """

    def __init__(self, proposal: Proposal, keys: IkeKeys, is_original_initiator: bool) -> None:
        encr = selected(proposal, TransformType.ENCR)
        if encr is None:
            raise LocalError("no encryption algorithm in the proposal of an IKE SA")
        integ = selected(proposal, TransformType.INTEG)
        integ_id = integ.id if integ else Integ.NONE
        initiator = sk_cipher(encr.id, encr.key_bits, keys.sk_ei, integ_id, keys.sk_ai)
        responder = sk_cipher(encr.id, encr.key_bits, keys.sk_er, integ_id, keys.sk_ar)
        self._outbound, self._inbound = (
            (initiator, responder) if is_original_initiator else (responder, initiator)
        )
        self._last_iv = 0

    def seal(self, message: Message, body: SealedBody | None = None) -> bytes:
        """The message with all its payloads inside SK: HDR, SK {payloads}.

        With `body`, its octets go in instead of the payloads, right or wrong. A retransmission must be these
        very octets: each call takes a new IV. LocalError if the message gets too long.
        """
        first_type, inner = (
            encode_payloads(message.payloads) if body is None else (body.first_type, body.octets)
        )
        cipher = self._outbound
        padding = -(len(inner) + 1) % cipher.block_octets
        plaintext = inner + bytes(padding) + bytes([padding])
        sk_octets = _GENERIC_HEADER_OCTETS + cipher.iv_octets + len(plaintext) + cipher.icv_octets
        if HEADER_OCTETS + sk_octets > MAX_MESSAGE_OCTETS:
            raise LocalError(f"message of {HEADER_OCTETS + sk_octets} octets")
        aad = message.header(PayloadType.SK, HEADER_OCTETS + sk_octets).encode() + _generic_header(
            first_type, sk_octets
        )
        iv = self._next_iv()
        return aad + iv + cipher.seal(aad, plaintext, iv)

    def open(self, raw: bytes) -> tuple[int, bytes]:
        """Type of the first inner payload and the octets of all of them, padding removed.

        `raw` is the message as received. IntegrityError, always the same one, if it is not a message from the
        other end of this IKE SA with an SK payload.
        """
        try:
            sealed = Message.parse(raw).encrypted
        except ParseError:
            sealed = None
        if sealed is None or sealed.is_fragment:
            raise IntegrityError
        cipher = self._inbound
        iv, ciphertext = sealed.body[: cipher.iv_octets], sealed.body[cipher.iv_octets :]
        if len(iv) != cipher.iv_octets:
            raise IntegrityError
        plaintext = cipher.open(raw[: sealed.body_offset], ciphertext, iv)
        if not plaintext or plaintext[-1] >= len(plaintext):
            raise IntegrityError
        return sealed.first_inner_type, plaintext[: -1 - plaintext[-1]]

    def _next_iv(self) -> bytes:
        """Made of a counter, so that no IV comes twice under one key (RFC 5282 3.1)."""
        if self._last_iv == 2**64 - 1:
            raise LocalError("all IVs of this IKE SA are used up")
        self._last_iv += 1
        return self._outbound.iv(self._last_iv)


def _generic_header(first_type: int, octets: int) -> bytes:
    return bytes((first_type, 0)) + octets.to_bytes(2, "big")
