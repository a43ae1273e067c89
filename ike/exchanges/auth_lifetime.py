"""N(AUTH_LIFETIME): within what time the initiator is to authenticate again (RFC 4478 3).

Must not know what is done about it.
"""

from __future__ import annotations

from ike.config import Connection
from ike.numbers import NotifyType
from ike.wire.message import Message
from ike.wire.payloads import NotifyPayload

__all__ = ["announced_lifetime", "lifetime_notify"]

SHORTEST_S = 60.0
"""What we ask of a peer: RFC 4478 3 finds less than 300 s unusual."""
SHORTEST_ANNOUNCED_S = 20.0
"""What a peer may ask of us: nothing must become a storm."""


def lifetime_notify(connection: Connection) -> tuple[NotifyPayload, ...]:
    """N(AUTH_LIFETIME) for the answer to IKE_AUTH, if this peer has to come again."""
    if connection.reauth_s is None:
        return ()
    return (NotifyPayload(NotifyType.AUTH_LIFETIME, max(1, int(connection.reauth_s)).to_bytes(4, "big")),)


def announced_lifetime(message: Message) -> float | None:
    """The seconds of N(AUTH_LIFETIME), not less than we find bearable; None without it or of a wrong length."""
    notify = message.notify(NotifyType.AUTH_LIFETIME)
    if notify is None or len(notify.data) != 4:
        return None
    return max(SHORTEST_ANNOUNCED_S, float(int.from_bytes(notify.data, "big")))
