"""IKE_SA_INIT again and again from one address, never returning a cookie.

RFC 7296 2.6: a gateway under load asks for a cookie and keeps no state. 48 requests at 20 a second, no more.
"""

from ike.testing.scripted import ScriptedPeer
from ike.testing.scripts.half_open_flood import flood


async def script(peer: ScriptedPeer) -> str:
    return await flood(peer, count=48, per_second=20)
