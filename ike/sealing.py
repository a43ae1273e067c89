"""From a message to the datagrams that carry it: in clear, sealed, or sealed in fragments (RFC 7296 3.14, RFC 7383).

Must not know why it is sent, or windows. The counterpart of opening.py.
"""

from __future__ import annotations

from ike.errors import LocalError
from ike.fragments import udp_payload_octets
from ike.numbers import ExchangeType
from ike.protection import Protection
from ike.wire.message import HEADER_OCTETS, Message, SealedBody


def seal(
    message: Message,
    part: Message | SealedBody,
    protection: Protection | None,
    fragment_octets: int | None,
    peer_address: str,
) -> tuple[bytes, ...]:
    """`part` is what `message` has become by fault injection, or the message itself.

    `fragment_octets` is the largest IP packet; None: never in fragments. LocalError if it cannot be sent.
    """
    body = part if isinstance(part, SealedBody) else None
    if isinstance(part, Message):
        message = part
    if message.exchange == ExchangeType.IKE_SA_INIT:
        if body is None:
            return (message.encode(),)
        return (message.header(body.first_type, HEADER_OCTETS + len(body.octets)).encode() + body.octets,)
    if protection is None:
        raise LocalError("no keys to seal a message with")
    if fragment_octets is None:
        return (protection.seal(message, body),)
    return protection.seal_datagrams(message, udp_payload_octets(fragment_octets, peer_address), body)
