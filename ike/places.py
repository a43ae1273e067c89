"""How many may be there: sessions of one identity (RFC 7296 2.4), identities of one connection (RFC 4301 4.4.3).

Must not know messages. A place is an identity's, with however many sessions; nobody who answers ever loses his.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ike.config import Connection
from ike.events import CloseReason
from ike.exchanges.exchange import Close
from ike.exchanges.informational import delete_ike_sa
from ike.host import Host, place_key
from ike.wire.identity import Identity

if TYPE_CHECKING:
    from ike.session import Session

__all__ = ["end_other_sessions", "make_room", "why_no_place"]


def end_other_sessions(session: Session, now: float, *, is_only_one: bool) -> None:
    """INITIAL_CONTACT: the peer has forgotten the others. Without it the oldest go if there are too many.

    A Delete goes out in both cases: in the first for if they crossed. Peers that prove no identity are not
    told apart by one (RFC 7619 2.3): those at this address are asked whether they are still there.
    """
    if session.peer_id is None:
        return
    others = [
        other
        for other in session.host.sessions_with(session.peer_id)
        if other is not session and other.local_id == session.local_id and _is_same_place(session, other)
    ]
    if session.peer_id == Identity.null():
        for other in others:
            other.liveness.check()
            other.requests.pump(now)
        return
    others.sort(key=lambda other: other.established_at or 0.0, reverse=True)
    limit = 0 if is_only_one else session.host.settings.max_sessions_per_identity - 1
    detail = "the peer started afresh" if is_only_one else "too many with the same identities"
    for other in others[limit:]:
        other.end(Close(CloseReason.REPLACED, detail, (delete_ike_sa(),)), now)


def _is_same_place(one: Session, other: Session) -> bool:
    """Nobody in particular is told apart by its address."""
    return one.peer_id != Identity.null() or one.current.path.peer[0] == other.current.path.peer[0]


def why_no_place(host: Host, connection: Connection, peer_id: Identity) -> str:
    """Why there is none for this identity, which has proved itself; empty if it has one, or may take one.

    If there is none, the peer that was not heard for the longest time is asked whether it is still there: the next
    attempt may find its place free. Nobody in particular (ID_NULL) never is the one who has a place.
    """
    if connection.max_peers is None:
        return ""
    places = host.places(connection)
    is_known = peer_id != Identity.null() and place_key(peer_id, 0) in places
    if is_known or len(places) < connection.max_peers or _longest_silent(places) is not None:
        return ""
    sessions = [one for place in places.values() for one in place.values()]
    other = min(sessions, key=lambda one: one.liveness.heard_at)
    other.liveness.check()
    other.requests.pump(host.now)
    if connection.max_peers > 1:
        return f"all {connection.max_peers} places of {connection.name} are taken"
    holder = other.peer_id.text() if other.peer_id else "somebody"
    return f"{holder} at {other.current.path.peer[0]} has the place of {peer_id.text()}"


def make_room(session: Session, now: float) -> None:
    """`session` is established and may be one too many: then a place goes whose peer does not answer any more."""
    connection = session.connection
    if connection is None or connection.max_peers is None:
        return
    places = session.host.places(connection)
    if len(places) <= connection.max_peers:
        return
    for other in list((_longest_silent(places) or {}).values()):
        what = Close(CloseReason.REPLACED, "silent, and another peer needs the place", (delete_ike_sa(),))
        other.end(what, now)


def _longest_silent(places: Mapping[object, dict[int, Session]]) -> dict[int, Session] | None:
    """The place none of whose sessions' peers answers; of several the one not heard for the longest time."""
    silent = (one for one in places.values() if all(session.liveness.is_silent for session in one.values()))
    return min(silent, key=lambda one: max(s.liveness.heard_at for s in one.values()), default=None)
