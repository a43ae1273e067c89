"""As responder: IKE_SA_INIT is answered, IKE_AUTH never.

Start it, then let the gateway initiate, within 120 s. RFC 7296 2.4: it repeats its request, octet for octet,
with growing pauses, and gives up by itself.
"""

from ike.numbers import ExchangeType
from ike.testing.scripted import ScriptedPeer

PATIENCE_S = 20.0


async def script(peer: ScriptedPeer) -> str:
    await peer.accept_init(120)
    first = await peer.next_request(ExchangeType.IKE_AUTH, 10)
    repeats, same = 0, True
    while (message := await peer.receive(PATIENCE_S)) is not None:
        if message.exchange == ExchangeType.IKE_AUTH:
            repeats += 1
            same = same and message.raw == first.raw
        if repeats == 3:
            break
    return f"{repeats} retransmissions, {'octet for octet' if same else 'WITH OTHER OCTETS'}"
