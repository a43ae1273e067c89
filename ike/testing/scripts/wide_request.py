"""A child for every address and every protocol.

RFC 7296 2.9: the gateway narrows the request to its policy, or refuses it with TS_UNACCEPTABLE; it never
grants what its policy does not have.
"""

from dataclasses import replace
from ipaddress import ip_network

from ike.child import ChildTerms
from ike.numbers import ExchangeType
from ike.selectors import AddressSelector, TrafficSelectors
from ike.testing.scripted import ScriptedPeer, in_short
from ike.wire.payloads import NoncePayload

EVERYTHING = (
    AddressSelector.from_network(ip_network("0.0.0.0/0")),
    AddressSelector.from_network(ip_network("::/0")),
)


async def script(peer: ScriptedPeer) -> str:
    await peer.init()
    await peer.auth()
    terms = replace(peer.child_terms(), ts=TrafficSelectors(EVERYTHING, EVERYTHING))
    nonce = NoncePayload(peer.entropy.octets(32))
    answer = await peer.request(ExchangeType.CREATE_CHILD_SA, terms.payloads(nonce))
    granted = ChildTerms.read(answer) if answer else None
    if granted is None:
        return in_short(answer)
    if granted.ts == terms.ts:
        return "GRANTED EVERYTHING"
    return f"narrowed to {granted.ts}"
