"""Sealing and opening IKE messages: the Encrypted payload (RFC 7296 3.14, RFC 5282) and fragments (RFC 7383 2.5).

Must not know what the messages say, which are expected, or how their keys came about.
"""

from ike.crypto.algorithms import selected
from ike.crypto.keymat import IkeKeys
from ike.crypto.sk import IntegrityError, sk_cipher
from ike.errors import LocalError, ParseError
from ike.fragments import MAX_FRAGMENTS
from ike.numbers import Integ, PayloadType, TransformType
from ike.wire.message import HEADER_OCTETS, MAX_MESSAGE_OCTETS, Message, SealedBody, encode_payloads
from ike.wire.sa import Proposal

__all__ = ["IntegrityError", "Protection"]

_GENERIC_HEADER_OCTETS = 4
_FRAGMENT_NUMBERS_OCTETS = 4


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
        first_type, inner = _inner(message, body)
        self._check_length(len(inner))
        return self._seal(message, PayloadType.SK, first_type, b"", inner)

    def seal_datagrams(
        self, message: Message, limit_octets: int, body: SealedBody | None = None
    ) -> tuple[bytes, ...]:
        """The same in datagrams of at most `limit_octets`: one with SK if that is enough, else several with SKF.

        Each fragment is sealed by itself; only the first says of which type the first payload is. LocalError
        if the message gets too long or `limit_octets` is too small for any.
        """
        first_type, inner = _inner(message, body)
        self._check_length(len(inner))
        if self._message_octets(len(inner)) <= limit_octets:
            return (self._seal(message, PayloadType.SK, first_type, b"", inner),)
        room = limit_octets - self._message_octets(0, _FRAGMENT_NUMBERS_OCTETS) + self._outbound.block_octets
        room = room // self._outbound.block_octets * self._outbound.block_octets - 1
        if room < 1 or (total := -(-len(inner) // room)) > MAX_FRAGMENTS:
            raise LocalError(f"message of {len(inner)} octets in fragments of {limit_octets}")
        return tuple(
            self._seal(
                message,
                PayloadType.SKF,
                first_type if number == 1 else PayloadType.NO_NEXT_PAYLOAD,
                number.to_bytes(2, "big") + total.to_bytes(2, "big"),
                inner[(number - 1) * room : number * room],
            )
            for number in range(1, total + 1)
        )

    def _seal(
        self, message: Message, kind: PayloadType, first_type: int, numbers: bytes, inner: bytes
    ) -> bytes:
        cipher = self._outbound
        padding = -(len(inner) + 1) % cipher.block_octets
        plaintext = inner + bytes(padding) + bytes([padding])
        length = self._message_octets(len(inner), len(numbers))
        generic_header = bytes((first_type, 0)) + (length - HEADER_OCTETS).to_bytes(2, "big")
        aad = message.header(kind, length).encode() + generic_header + numbers
        iv = self._next_iv()
        return aad + iv + cipher.seal(aad, plaintext, iv)

    def _message_octets(self, inner_octets: int, numbers_octets: int = 0) -> int:
        """The length of a message around so many inner octets: headers, IV, padding and its length, ICV."""
        cipher = self._outbound
        padded = -(-(inner_octets + 1) // cipher.block_octets) * cipher.block_octets
        headers = HEADER_OCTETS + _GENERIC_HEADER_OCTETS + numbers_octets
        return headers + cipher.iv_octets + padded + cipher.icv_octets

    def inner_octets(self, message_octets: int) -> int:
        """The most inner octets that make a message at least so long: exactly, but for the cipher's block."""
        block = self._outbound.block_octets
        room = message_octets - self._message_octets(0) + block
        return max(0, -(-room // block) * block - 1)

    def _check_length(self, inner_octets: int) -> None:
        if (length := self._message_octets(inner_octets)) > MAX_MESSAGE_OCTETS:
            raise LocalError(f"message of {length} octets")

    def open(self, raw: bytes) -> tuple[int, bytes]:
        """Type of the first inner payload and the octets of all of them, padding removed.

        `raw` is the message as received. IntegrityError, always the same one, if it is not a message from the
        other end of this IKE SA with an SK payload.
        """
        return self._open(raw, is_fragment=False)

    def open_fragment(self, raw: bytes) -> tuple[int, bytes]:
        """The same for a message with an SKF payload: what this one fragment holds of the inner octets."""
        return self._open(raw, is_fragment=True)

    def _open(self, raw: bytes, *, is_fragment: bool) -> tuple[int, bytes]:
        try:
            sealed = Message.parse(raw).encrypted
        except ParseError:
            sealed = None
        if sealed is None or sealed.is_fragment is not is_fragment:
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


def _inner(message: Message, body: SealedBody | None) -> tuple[int, bytes]:
    return encode_payloads(message.payloads) if body is None else (body.first_type, body.octets)
