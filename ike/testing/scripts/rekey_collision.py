"""A rekey of the child that crosses the gateway's own: both are under way when either is answered.

Start it, then let the gateway rekey the child (a short lifetime, or its command), within 120 s.
RFC 7296 2.8.1: the child made with the lowest of the four nonces is redundant; whoever began that exchange
deletes it. The script answers with the lowest nonce there is, so that the gateway's own child is the redundant one.
"""

from ike.child import ChildTerms
from ike.numbers import ExchangeType, NotifyType
from ike.testing.scripted import ScriptedPeer, ScriptError, in_short
from ike.wire.payloads import NoncePayload, SaPayload

HIGHEST_NONCE, LOWEST_NONCE = b"\xff" * 32, bytes(32)


async def script(peer: ScriptedPeer) -> str:
    await peer.establish()
    theirs = await peer.next_request(ExchangeType.CREATE_CHILD_SA, 120)
    if theirs.notify(NotifyType.REKEY_SA) is None:
        raise ScriptError("the gateway asked for another child, not for a rekey")
    ours = peer.message(ExchangeType.CREATE_CHILD_SA, peer.rekey_payloads(HIGHEST_NONCE))
    await peer.send(ours)
    asked = ChildTerms.read(theirs)
    if asked is None:
        raise ScriptError("the gateway's rekey has no SA, TSi and TSr")
    granted = peer.grant(asked)
    await peer.respond(theirs, granted.payloads(NoncePayload(LOWEST_NONCE)))
    answer = await peer.answer_to(ours.message_id, 10)
    deletes = await peer.collect_deletes(seconds=4)
    told = f"our rekey: {'granted' if answer and answer.get(SaPayload) else in_short(answer)}"
    if asked.proposals[0].spi in deletes:
        return f"{told}; it deleted its own, redundant child"
    return f"{told}; it deleted {'another child' if deletes else 'nothing'}"
