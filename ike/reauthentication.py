"""Authenticating again: a new IKE SA, the same children on it, then the old one goes (RFC 7296 2.8.3).

When to do it may be the responder's wish (RFC 4478: AUTH_LIFETIME); doing it is the opener's. Nothing of the old
session is touched before the new one is authenticated. Must not know payloads.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ike.config import Path
from ike.errors import LocalError
from ike.events import CloseReason
from ike.exchanges.create_child import CreateChildSa
from ike.exchanges.exchange import Close
from ike.exchanges.informational import delete_ike_sa
from ike.selectors import TrafficSelectors
from ike.timers import TimerKind
from ike.wire.identity import Identity

if TYPE_CHECKING:
    from ike.config import Connection
    from ike.session import Session

__all__ = [
    "is_possible",
    "on_due",
    "path_of",
    "recreate_children",
    "start_timer",
]

GRACE = 0.1
"""The part of the lifetime by which who waits for the other end to authenticate again waits longer."""


def is_possible(connection: Connection) -> bool:
    """Nobody in particular proves nothing, so there is nothing to prove again (RFC 7619)."""
    return Identity.null() not in (connection.local_id, connection.peer_id)


def start_timer(session: Session, now: float) -> None:
    """The opener comes earlier than it must, the other end waits a little longer.

    A timer that is running is never put off: whatever a peer says later, what was due stays due.
    """
    connection, host = session.connection, session.host
    if connection is None:
        return
    if not session.is_opener:
        if connection.reauth_s is not None:
            host.timers.set(now + connection.reauth_s * (1 + GRACE), TimerKind.REAUTH, session)
        return
    limits = [seconds for seconds in (connection.reauth_s, session.announced_s) if seconds is not None]
    if limits and is_possible(connection):
        at = now + host.shortened(min(limits) * (1 - GRACE), connection.ike_rekey_jitter)
        due_at = host.timers.due_at(TimerKind.REAUTH, session)
        host.timers.set(at if due_at is None else min(at, due_at), TimerKind.REAUTH, session)


def path_of(session: Session) -> Path:
    """Where the new IKE SA begins: between the same addresses, on the ports where one begins.

    LocalError if the session was not opened here: then only the other end knows how.
    """
    connection, path = session.connection, session.current.path
    if connection is None or not session.is_opener:
        raise LocalError("the other end has opened this session, and only it can authenticate again")
    if not is_possible(connection):
        raise LocalError("there is no identity to be proved again")
    return Path((path.local[0], connection.local_port), (path.peer[0], connection.peer_port))


def on_due(session: Session, now: float) -> None:
    """The REAUTH timer: begin; or, of the end that waits for the other, give up; or, of the new session, be done."""
    host = session.host
    if session.replaces is not None:
        _finish(session, now)
    elif session.is_opener:
        host.timers.set(now + host.settings.reauth_retry_s, TimerKind.REAUTH, session)
        session.current.authenticate_again(now)
    else:
        what = "the peer did not authenticate again in time"
        session.end(Close(CloseReason.LIFETIME, what, (delete_ike_sa(),)), now)


def recreate_children(new: Session, now: float) -> None:
    """The new session is authenticated: ask for the children that the old one has, and that are not there yet.

    Of several of one name each keeps the selectors in use, as those of the packet that wants it.
    """
    host = new.host
    old = host.sessions.get(new.replaces) if new.replaces is not None else None
    children = (
        [child for child in old.children.values() if not child.is_deleting and not child.fate] if old else []
    )
    names = Counter(child.sa.name for child in children)
    usable = {config.name for config in new.usable_children} - {c.sa.name for c in new.children.values()}
    for child in children:
        if child.sa.name in usable:
            in_use = TrafficSelectors(child.sa.local_ts, child.sa.peer_ts)
            new.requests.put(CreateChildSa(child.sa.name, in_use if names[child.sa.name] > 1 else None))
    host.timers.set(now + host.settings.reauth_overlap_s, TimerKind.REAUTH, new)


def _finish(new: Session, now: float) -> None:
    """The old session may go when nothing is asked for any more: both ends have had time to move over."""
    host = new.host
    if any(isinstance(exchange, CreateChildSa) for exchange in new.requests):
        host.timers.set(now + host.settings.reauth_overlap_s, TimerKind.REAUTH, new)
        return
    old = host.sessions.get(new.replaces) if new.replaces is not None else None
    new.replaces = None
    start_timer(new, now)
    if old is not None:
        old.end(Close(CloseReason.REPLACED, "authenticated again", (delete_ike_sa(),)), now)
