"""Whether the peer of a session is still there (RFC 7296 2.4).

Must not know messages or paths: it is told what came and what left, over IKE and over ESP, and asks for a check.

    nothing authentic came for `liveness_s`                                   a check: an empty INFORMATIONAL
    ESP of ours has left, and nothing came after it for ONE_WAY_S             a check: it may go into a black hole
    a check that is not answered                                              retransmission ends the IKE SA

Nothing is asked while ESP or IKE of the peer arrives, however much of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ike.exchanges.informational import LivenessCheck
from ike.timers import TimerKind

if TYPE_CHECKING:
    from ike.session import Session

__all__ = ["ONE_WAY_S", "Liveness"]

ONE_WAY_S = 10.0
"""How long ESP may go one way before we ask; never longer than `liveness_s`."""
SILENT_TRIES = 2
"""Retransmissions in a row: some three seconds."""


class Liveness:
    """What is known of one session's peer. Times are those of the callers."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.heard_at = 0.0
        self._unanswered_tries = 0
        self._unanswered_since: float | None = None
        """When the first ESP left after the peer was last heard."""

    def begin(self, now: float) -> None:
        """The session is established."""
        self.heard_at = now
        if self._liveness_s is not None:
            self._set_timer(now)

    def heard(self, now: float) -> None:
        """Something authentic came, over IKE or ESP."""
        self.heard_at = max(self.heard_at, now)
        self._unanswered_tries = 0
        self._unanswered_since = None

    def note_retransmission(self) -> None:
        """A request had no answer in time."""
        self._unanswered_tries += 1

    @property
    def is_silent(self) -> bool:
        """Whether the peer probably is gone: request and retransmissions were not answered, and nothing else came."""
        return self._unanswered_tries >= SILENT_TRIES

    def note_esp_sent(self, now: float) -> None:
        if self._unanswered_since is None:
            self._unanswered_since = now

    def check(self) -> None:
        """Ask, unless a request is under way: that is a check already."""
        if not any(True for _ in self._session.requests):
            self._session.requests.put(LivenessCheck())

    def handle_timer(self, now: float) -> None:
        liveness_s = self._liveness_s
        if liveness_s is None:
            return
        one_way_since = now if self._unanswered_since is None else self._unanswered_since
        if self.heard_at + liveness_s <= now or one_way_since + self._one_way_s <= now:
            self.check()
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        """The next look: not at every packet, so one-way traffic is found within twice ONE_WAY_S."""
        silent_at = self.heard_at + (self._liveness_s or 0.0)
        at = min(silent_at if silent_at > now else now + self._one_way_s, now + self._one_way_s)
        self._session.host.timers.set(at, TimerKind.LIVENESS, self._session)

    @property
    def _liveness_s(self) -> float | None:
        connection = self._session.connection
        return connection.liveness_s if connection else None

    @property
    def _one_way_s(self) -> float:
        return min(ONE_WAY_S, self._liveness_s or ONE_WAY_S)
