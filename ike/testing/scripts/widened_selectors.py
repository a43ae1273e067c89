"""The answer to the gateway's request for a child has wider selectors than were asked for.

Start it, then let the gateway initiate, within 120 s. RFC 7296 2.9: a responder may narrow, never widen; an
initiator that takes it would send, or take, traffic that its policy does not know.
"""

from ipaddress import ip_network

from ike.child import ChildTerms
from ike.numbers import ExchangeType
from ike.selectors import AddressSelector, TrafficSelectors
from ike.testing.scripted import ScriptedPeer, ScriptError
from ike.wire.payloads import DeletePayload, NoncePayload

EVERYWHERE = (AddressSelector.from_network(ip_network("0.0.0.0/0")),)
EVERYTHING = TrafficSelectors(EVERYWHERE, EVERYWHERE)


async def script(peer: ScriptedPeer) -> str:
    await peer.accept_init(120)
    request = await peer.accept_auth()
    asked = ChildTerms.read(request)
    if asked is None:
        await peer.respond(request, peer.auth_payloads())
        request = await peer.next_request(ExchangeType.CREATE_CHILD_SA, 20)
        asked = ChildTerms.read(request)
        if asked is None:
            raise ScriptError("the gateway asked for no child")
        granted = peer.grant(asked, EVERYTHING)
        await peer.respond(request, granted.payloads(NoncePayload(peer.entropy.octets(32))))
    else:
        await peer.respond(request, [*peer.auth_payloads(), *peer.grant(asked, EVERYTHING).payloads()])
    while (message := await peer.receive(5)) is not None:
        if not message.is_response:
            await peer.respond(message)
            if delete := message.get(DeletePayload):
                return "it deleted the child" if delete.spis else "it deleted the IKE SA"
    return "it took the wider selectors, or forgot the child without a word"
