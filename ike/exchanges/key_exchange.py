"""The KE payload of any exchange: answering it, and taking another group when asked to (RFC 7296 1.2, 1.3).

Must not know what the shared secret is for.
"""

from __future__ import annotations

from collections.abc import Collection

from ike.crypto.kex import KeyExchange, KeyExchangeError
from ike.exchanges.refusal import Refused
from ike.host import Host
from ike.numbers import Ke, NotifyType, name_of
from ike.wire.payloads import KePayload, NotifyPayload


def answer_key_exchange(host: Host, group: int, ke: KePayload | None) -> tuple[KePayload, bytes]:
    """KEr and the shared secret for a selected `group`.

    Raises Refused: INVALID_KE_PAYLOAD names the group.
    """
    if ke is None or ke.group != group:
        detail = f"KE has to be of group {name_of(Ke, group)}"
        raise Refused(NotifyType.INVALID_KE_PAYLOAD, detail, data=group.to_bytes(2, "big"))
    ours = KeyExchange(group)
    public = ours.generate(host.entropy)
    try:
        return KePayload(group, public), ours.derive(ke.data)
    except KeyExchangeError as error:
        raise Refused(NotifyType.INVALID_SYNTAX, str(error)) from error


def group_asked_for(error: NotifyPayload, offered: Collection[int], tried: Collection[int]) -> int | None:
    """The group of INVALID_KE_PAYLOAD, if it is one that we offered and have not tried yet: no loops."""
    if len(error.data) != 2:
        return None
    group = int.from_bytes(error.data, "big")
    return group if group in offered and group not in tried else None
