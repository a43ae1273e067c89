"""Events of the engine as lines of the log, and for those who wait for an IKE SA or child that failed.

Must not know what becomes of an event; what a line says is `log.py`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from endpoint.log import describe
from endpoint.plan import PeerPlan
from endpoint.sessions import Sessions
from ike import ChildSaFailed, Event, IkeSaFailed

__all__ = ["EventLog", "Watcher"]

_log = logging.getLogger("mplsec.node")

STRANGERS_EVERY_S: Final = 1.0

Watcher: TypeAlias = Callable[[str, str | None, str], None]
"""(peer, child or None, one line), for every IKE SA or child that we could not have."""


class EventLog:
    """`watchers` may come and go at any time."""

    def __init__(self, plans: Mapping[str, PeerPlan], sessions: Sessions, watchers: list[Watcher]) -> None:
        self._plans, self._sessions, self._watchers = plans, sessions, watchers
        self._strangers_not_before = float("-inf")

    def tell(self, event: Event, now: float) -> None:
        """Log the fact; tell those who wait for one of ours that it failed."""
        level, text = describe(event, self._plans, self._sessions.peer(event.session))
        is_ours = event.session in self._sessions or getattr(event, "replaces", None) is not None
        if isinstance(event, IkeSaFailed) and not is_ours:
            # Anybody can make an attempt fail: it is no fact about the peer, and must not fill the log.
            if now >= self._strangers_not_before:
                self._strangers_not_before = now + STRANGERS_EVERY_S
                _log.warning("somebody's attempt came to nothing: %s", text)
            return
        if text:
            _log.log(level, text)
        if isinstance(event, IkeSaFailed | ChildSaFailed):
            child = event.child if isinstance(event, ChildSaFailed) else None
            for watcher in tuple(self._watchers):
                watcher(self._sessions.peer_of(event), child, text)
