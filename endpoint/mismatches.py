"""INVALID_SELECTORS: telling a peer that its packets are not what their SA is for (RFC 4301 5.2, RFC 7296 3.10.1).

Must not know sockets or what is wrong with a packet. What a peer tells is logged and counted, and changes nothing:
the packets were dropped already, and a Delete would cost good ones, too.
"""

from __future__ import annotations

import logging
from typing import Final

from endpoint.children import Child
from ike.numbers import NotifyType, ProtocolId, name_of
from ike.wire.payloads import NotifyPayload

__all__ = ["Mismatches"]

_log = logging.getLogger("mplsec.mismatches")

START_OCTETS: Final = 128
"""Of the packet that is told of."""
INTERVAL_S: Final = 10.0
"""Of what one session is told, and of what is logged for it."""


class Mismatches:
    """One notify of a session may be unanswered, and one is sent in INTERVAL_S: more neither waits nor is kept."""

    def __init__(self) -> None:
        self.sent = self.received = 0
        self._told_at: dict[int, float] = {}
        self._logged_at: dict[int, float] = {}
        self._tokens: dict[int, int] = {}

    def notify_for(self, child: Child, packet: bytes, now: float) -> NotifyPayload | None:
        """What to tell the peer of a packet that came on `child`; None: nothing, or not now."""
        session = child.session
        if not child.plan.peer.tells_mismatch or child.retires_at is not None or session in self._tokens:
            return None
        if now - self._told_at.get(session, float("-inf")) < INTERVAL_S:
            return None
        self._told_at[session] = now
        return NotifyPayload(
            NotifyType.INVALID_SELECTORS, packet[:START_OCTETS], ProtocolId.ESP, child.sa.spi_in
        )

    def on_sent(self, session: int, token: int) -> None:
        self.sent += 1
        self._tokens[session] = token

    def on_answer(self, session: int, token: int) -> bool:
        """Whether it was for one of ours."""
        if self._tokens.get(session) != token:
            return False
        del self._tokens[session]
        return True

    def on_notify(self, session: int, child: Child | None, notify: NotifyPayload, now: float) -> None:
        """The peer says so of a packet that we have sent on `child`; None: on none that is there."""
        self.received += 1
        if now - self._logged_at.get(session, float("-inf")) >= INTERVAL_S:
            self._logged_at[session] = now
            _log.warning(
                "%s: %s dropped what we sent on SPI %s: %s",
                name_of(NotifyType, notify.notify_type),
                f"peer {child.peer}, child {child.kind.name}" if child is not None else f"session {session}",
                notify.spi.hex() or "-",
                notify.data[:START_OCTETS].hex(),
            )

    def forget(self, session: int) -> None:
        """The session is over."""
        for known in (self._told_at, self._logged_at, self._tokens):
            known.pop(session, None)
