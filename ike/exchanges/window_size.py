"""SET_WINDOW_SIZE: how many requests at once an end promises to take (RFC 7296 2.3).

Must not know the windows themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

from ike.numbers import ExchangeType, NotifyType
from ike.wire.message import Message
from ike.wire.payloads import AuthPayload, NotifyPayload, Payload

_SIZE_OCTETS = 4


def proves_identity(exchange: int, payloads: Iterable[Payload]) -> bool:
    """Whether it is the message of IKE_AUTH beside which a promise is one of an authenticated end."""
    return exchange == ExchangeType.IKE_AUTH and any(isinstance(one, AuthPayload) for one in payloads)


def promise(size: int) -> NotifyPayload:
    return NotifyPayload(NotifyType.SET_WINDOW_SIZE, size.to_bytes(_SIZE_OCTETS, "big"))


def promised(message: Message) -> int:
    """The peer's promise in this message; 0 if there is none, or nothing that can be read."""
    notify = message.notify(NotifyType.SET_WINDOW_SIZE)
    is_one = notify is not None and len(notify.data) == _SIZE_OCTETS
    return int.from_bytes(notify.data, "big") if notify is not None and is_one else 0
