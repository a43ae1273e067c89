"""IKE_AUTH with AUTH data that another secret would give.

RFC 7296 2.21.2: AUTHENTICATION_FAILED, and no IKE SA. A gateway that says more helps whoever guesses.
"""

from dataclasses import replace

from ike.numbers import ExchangeType
from ike.testing.scripted import ScriptedPeer, in_short
from ike.wire.payloads import AuthPayload


async def script(peer: ScriptedPeer) -> str:
    await peer.init()
    payloads = [
        replace(payload, data=bytes(octet ^ 0xFF for octet in payload.data))
        if isinstance(payload, AuthPayload)
        else payload
        for payload in peer.auth_payloads()
    ]
    answer = await peer.request(ExchangeType.IKE_AUTH, [*payloads, *peer.child_terms().payloads()])
    return in_short(answer)
