"""IKE SAs that are begun and never authenticated: 200 of them, 100 a second, to the one address given.

RFC 7296 2.6: the gateway must not let them use it up; afterwards it still serves.
"""

from collections import Counter

from ike.numbers import NotifyType
from ike.testing.scripted import ScriptedPeer
from ike.wire.payloads import KePayload


async def script(peer: ScriptedPeer) -> str:
    return await flood(peer, count=200, per_second=100)


async def flood(peer: ScriptedPeer, count: int, per_second: float) -> str:
    """Begin `count` IKE SAs, no more than `per_second`, and say how many got an answer, a cookie, or nothing."""
    answers: Counter[str] = Counter()
    for _ in range(count):
        next_at = peer.wire.now() + 1 / per_second
        peer.start_over()
        await peer.send(peer.init_request())
        answer = await peer.receive(1 / per_second)
        if answer is None:
            answers["without an answer"] += 1
        elif answer.get(KePayload):
            answers["answered"] += 1
        else:
            answers["asked for a cookie" if answer.notify(NotifyType.COOKIE) else "refused"] += 1
        await peer.wire.pause(next_at - peer.wire.now())  # an answer does not make it quicker
    return ", ".join(f"{number} {what}" for what, number in answers.most_common())
