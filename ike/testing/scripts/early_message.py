"""A request whose Message ID lies far ahead, then the one that is due, then that one's octets once more.

RFC 7296 2.3: outside the window it is ignored, or answered with INVALID_MESSAGE_ID in an exchange of its own;
the retransmission gets the very same answer.
"""

from ike.numbers import ExchangeType
from ike.testing.scripted import ScriptedPeer, in_short


async def script(peer: ScriptedPeer) -> str:
    await peer.init()
    await peer.auth()
    early = peer.message(ExchangeType.INFORMATIONAL, message_id=peer.next_id + 1000)
    await peer.send(early)
    ahead = await peer.answer_to(early.message_id)
    due = peer.message(ExchangeType.INFORMATIONAL)
    octets = await peer.send(due)
    first = await peer.answer_to(due.message_id)
    await peer.send_octets(octets, "the same octets once more")
    again = await peer.answer_to(due.message_id)
    same = first is not None and again is not None and first.raw == again.raw
    return (
        f"ahead: {in_short(ahead)}; due: {in_short(first)}; again: "
        f"{'the same octets' if same else in_short(again)}"
    )
