"""Which function answers which request of the peer, once it is authentic and well-formed (RFC 7296 1.2-1.4).

Must not know how a response is sealed or remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ike.config import Path
from ike.exchanges.auth import respond_auth
from ike.exchanges.create_child import respond_create_child
from ike.exchanges.exchange import Outcome
from ike.exchanges.informational import respond_informational
from ike.exchanges.refusal import Refused, refusal_event
from ike.exchanges.rekey_ike import respond_rekey_ike
from ike.exchanges.schema import Story
from ike.wire.message import Message

if TYPE_CHECKING:
    from ike.sa import IkeSa


def respond(sa: IkeSa, message: Message, story: Story, path: Path) -> Outcome:
    """The response to what came over `path` and what it changes. What is refused changes nothing."""
    try:
        match story:
            case Story.AUTH_WITH_CHILD | Story.AUTH_CHILDLESS:
                return respond_auth(sa, message)
            case Story.NEW_CHILD:
                return respond_create_child(sa, message)
            case Story.REKEY_IKE_SA:
                return respond_rekey_ike(sa, message)
            case _:
                return respond_informational(sa, message, path)
    except Refused as refused:
        # Once the session is over its owner has nothing to hear of it any more.
        events = () if sa.session.is_over else (refusal_event(sa, refused),)
        return Outcome(response=(refused.notify,), events=events)
