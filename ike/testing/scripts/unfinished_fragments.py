"""IKE_AUTH in fragments of which the first never comes; then the same message in one piece.

RFC 7383 2.6: what is incomplete is kept for a while, within bounds, and answered by nothing. It must not stand in
the way of the whole message.
"""

from ike.numbers import ExchangeType, NotifyType
from ike.testing.scripted import ScriptedPeer, in_short
from ike.wire.payloads import NotifyPayload

FRAGMENT_OCTETS = 120


async def script(peer: ScriptedPeer) -> str:
    answer = await peer.init(NotifyPayload(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED))
    if answer.notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) is None:
        return "it takes no fragments"
    message = peer.message(ExchangeType.IKE_AUTH, [*peer.auth_payloads(), *peer.child_terms().payloads()])
    datagrams = peer.fragments(message, FRAGMENT_OCTETS)
    for number, datagram in enumerate(datagrams[1:], 2):
        await peer.send_octets(datagram, f"IKE_AUTH request, fragment {number} of {len(datagrams)}")
    incomplete = await peer.answer_to(message.message_id)
    await peer.send(message)
    whole = await peer.answer_to(message.message_id)
    is_taken = whole is not None and peer.take_auth(whole)
    return f"incomplete: {in_short(incomplete)}; whole: {'authenticated' if is_taken else in_short(whole)}"
