"""IKE_AUTH, otherwise right, with a payload of an unknown type that is marked critical.

RFC 7296 2.5: the message is rejected with UNSUPPORTED_CRITICAL_PAYLOAD, which names the type.
"""

from ike.numbers import ExchangeType
from ike.testing.scripted import ScriptedPeer, in_short
from ike.wire.payloads import UnknownPayload

PRIVATE_PAYLOAD = 200


async def script(peer: ScriptedPeer) -> str:
    await peer.init()
    payloads = [*peer.auth_payloads(), *peer.child_terms().payloads()]
    unknown = UnknownPayload(PRIVATE_PAYLOAD, b"understand me or refuse", critical=True)
    return in_short(await peer.request(ExchangeType.IKE_AUTH, [*payloads, unknown]))
