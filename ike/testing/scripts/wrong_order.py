"""CREATE_CHILD_SA in place of IKE_AUTH: an SA for somebody who never said who he is.

RFC 7296 1.2: nothing but IKE_AUTH may follow IKE_SA_INIT. Whatever is answered, no child may come of it.
"""

from ike.numbers import ExchangeType
from ike.testing.scripted import ScriptedPeer, in_short
from ike.wire.payloads import NoncePayload, SaPayload


async def script(peer: ScriptedPeer) -> str:
    await peer.init()
    nonce = NoncePayload(peer.entropy.octets(32))
    answer = await peer.request(ExchangeType.CREATE_CHILD_SA, peer.child_terms().payloads(nonce))
    if answer is not None and answer.get(SaPayload):
        return "GRANTED A CHILD WITHOUT AUTHENTICATION"
    return in_short(answer)
