"""INFORMATIONAL, genuinely sealed, whose inner payload says that it is longer than the message.

RFC 7296 2.21.3: INVALID_SYNTAX in an authenticated answer, and the IKE SA ends; or at least silence.
"""

from ike.numbers import ExchangeType, PayloadType
from ike.testing.scripted import ScriptedPeer, in_short
from ike.wire.message import SealedBody, encode_payloads
from ike.wire.payloads import NotifyPayload

PRIVATE_STATUS = 40960


async def script(peer: ScriptedPeer) -> str:
    await peer.init()
    await peer.auth()
    _, octets = encode_payloads([NotifyPayload(PRIVATE_STATUS, b"a notify")])
    too_long = octets[:2] + (len(octets) + 1000).to_bytes(2, "big") + octets[4:]
    answer = await peer.request(ExchangeType.INFORMATIONAL, body=SealedBody(PayloadType.NOTIFY, too_long))
    alive = await peer.is_alive()
    return f"{in_short(answer)}; the IKE SA {'lives' if alive else 'has ended'}"
