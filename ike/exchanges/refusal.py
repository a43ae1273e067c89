"""The one way to turn a request down (RFC 7296 2.21).

Must not know which request it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ike.errors import IkeError
from ike.events import RequestRefused
from ike.numbers import NotifyType, name_of
from ike.wire.payloads import NotifyPayload

if TYPE_CHECKING:
    from ike.sa import IkeSa


class Refused(IkeError):  # noqa: N818 - the answer, not a mishap
    """A request that is answered with an error notify and changes nothing."""

    def __init__(
        self, notify_type: int, detail: str, *, data: bytes = b"", protocol: int = 0, spi: bytes = b""
    ) -> None:
        super().__init__(f"{name_of(NotifyType, notify_type)}: {detail}")
        self.notify = NotifyPayload(notify_type, data, protocol, spi)
        self.detail = detail


def refusal_event(sa: IkeSa, refused: Refused, connection: str = "") -> RequestRefused:
    """What the owner is told; `connection` where the session does not know its own yet."""
    name = connection or sa.session.name
    return RequestRefused(sa.session.number, name, refused.notify.notify_type, refused.detail)
