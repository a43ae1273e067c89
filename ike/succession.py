"""Which IKE SA carries a session on after a rekey, ours, the peer's, or both at once (RFC 7296 2.8, 2.8.2, 2.25.2).

Must not know messages or keys: a rekey has made an IKE SA, or came to nothing. Children are not concerned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ike.events import CloseReason, IkeSaRekeyed
from ike.exchanges.exchange import Close, Successor
from ike.exchanges.informational import delete_ike_sa
from ike.life import LifeKind
from ike.states import IkeSaState, is_redundant
from ike.timers import TimerKind

if TYPE_CHECKING:
    from ike.sa import IkeSa

__all__ = ["on_rekey_failed", "on_request", "on_successor"]


def on_successor(old: IkeSa, made: Successor, now: float) -> None:
    """A rekey of `old` came to its end, ours or the peer's; perhaps both are under way."""
    session, host, new = old.session, old.host, made.ike_sa
    new.become(IkeSaState.ESTABLISHED)
    host.register_ike_sa(new)
    if session.is_over:
        # It was ended while its rekey was in flight; the peer goes on with the new IKE SA unless it is told.
        new.finish((delete_ike_sa(),), now)
        return
    if not made.is_ours:
        old.peer_successor = made
        if not old.is_rekeying:
            _succeed(old, made, now)
        return
    rival = old.peer_successor
    if old is not session.current:
        # The peer goes on with its own (`on_request`), so ours is the redundant one.
        session.others.append(new)
        new.finish((delete_ike_sa(),), now)
    elif rival is None or rival.ike_sa.state is IkeSaState.CLOSED:
        # No collision, or the peer has compared the nonces first and deleted its own.
        _succeed(old, made, now)
    elif is_redundant(made.nonces, rival.nonces):
        host.note(LifeKind.NONCES, "our new IKE SA is redundant", sa=new)
        session.others.append(new)
        new.finish((delete_ike_sa(),), now)
        _succeed(old, rival, now)
    else:
        host.note(LifeKind.NONCES, "the peer's new IKE SA is redundant", sa=rival.ike_sa)
        session.others.append(rival.ike_sa)
        _expect_delete(rival.ike_sa, now)
        _succeed(old, made, now)


def on_request(sa: IkeSa, now: float) -> None:
    """The peer asks for something on `sa`. If its own rekey made that, it has settled on it (RFC 7296 2.8.2).

    Our rekey of the old one, which may still be in flight, is refused or redundant, whatever its answer says.
    """
    session = sa.session
    rival = session.current.peer_successor
    if rival is not None and rival.ike_sa is sa and not session.is_over:
        _succeed(session.current, rival, now)


def on_rekey_failed(old: IkeSa, now: float) -> None:
    """Ours came to nothing; if the peer's did not, it counts."""
    session, rival = old.session, old.peer_successor
    if old is not session.current or rival is None or session.is_over:
        return
    if rival.ike_sa.state is IkeSaState.CLOSED:
        session.end(Close(CloseReason.DELETED_BY_PEER, "the peer deleted the new IKE SA"), now)
    else:
        _succeed(old, rival, now)


def _succeed(old: IkeSa, made: Successor, now: float) -> None:
    session, new = old.session, made.ike_sa
    session.current = new
    session.others.append(old)
    old.become(IkeSaState.REKEYED)
    session.requests.note_success()
    session.start_lifetime(now)
    session.host.emit(IkeSaRekeyed(session.number, old.spi_i, old.spi_r, new.spi_i, new.spi_r))
    if made.is_ours:
        old.finish((delete_ike_sa(),), now)
    else:
        _expect_delete(old, now)


def _expect_delete(sa: IkeSa, now: float) -> None:
    """Whoever made the one that stays deletes this one. If it does not come, we forget it."""
    sa.host.timers.set(now + sa.host.settings.collision_timeout_s, TimerKind.SUCCESSION, sa)
