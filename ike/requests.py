"""What one session asks of its peer: what waits, what may leave now, what is tried again (RFC 7296 1.3.2, 2.3, 2.25).

Must not know Message IDs or what a request says. `waiting.py` has the order of what waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ike.events import CloseReason
from ike.exchanges.exchange import Close, Exchange, Outcome
from ike.exchanges.informational import delete_ike_sa
from ike.exchanges.mobike import UpdateAddresses
from ike.numbers import ExchangeType
from ike.states import IkeSaState
from ike.timers import TimerKind
from ike.waiting import RequestQueue

if TYPE_CHECKING:
    from ike.sa import IkeSa
    from ike.session import Session

__all__ = ["Requests"]


class Requests:
    """Iterating gives all of ours that wait, for the window or for another try, or are in flight."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._host = session.host
        self._waiting = RequestQueue()
        self._put_off: list[Exchange] = []
        """What the peer has answered by TEMPORARY_FAILURE: each has its RETRY timer."""
        self._refused_since: float | None = None

    def __iter__(self) -> Iterator[Exchange]:
        yield from self._waiting
        yield from self._put_off
        for sa in (self._session.current, *self._session.others):
            yield from sa.requests.exchanges

    def put(self, exchange: Exchange) -> None:
        """Let a request wait for the window; `pump` sends it."""
        self._waiting.put(exchange)

    def put_latest(self, exchange: Exchange) -> None:
        """The same for a request that makes those of its kind pointless which still wait."""
        self._waiting.put_latest(exchange)

    def pump(self, now: float) -> None:
        """Send what the window allows.

        While the IKE SA is being rekeyed nothing new starts (RFC 7296 1.3.2).
        """
        session = self._session
        while (
            exchange := self._waiting.take(session.current.requests.exchanges, self._may_start)
        ) is not None:
            if not session.current.start(exchange, now):
                self.note_end(exchange)

    def _may_start(self, exchange: Exchange) -> bool:
        current = self._session.current
        if current.state is not IkeSaState.ESTABLISHED or not current.requests.is_open:
            return False
        if current.peer_successor or current.is_rekeying:
            return False
        # A replaced IKE SA may wait for a Delete that does not come before the peer knows where we are.
        return isinstance(exchange, UpdateAddresses) or not self._session.others

    # --- what has not succeeded

    def retry_later(self, exchange: Exchange, now: float) -> Outcome:
        """The peer said TEMPORARY_FAILURE: again after a while, but not for ever (RFC 7296 2.25)."""
        settings = self._host.settings
        if self._refused_since is None:
            self._refused_since = now
        if now - self._refused_since >= settings.temporary_failure_limit_s:
            detail = "the peer has answered TEMPORARY_FAILURE for too long"
            return Outcome(end=Close(CloseReason.OUT_OF_SYNC, detail, (delete_ike_sa(),)))
        delay = settings.temporary_failure_retry_s
        at = now + delay + self._host.shortened(delay, 1.0)
        self._put_off.append(exchange)
        self._host.timers.set(at, TimerKind.RETRY, self._session, exchange)
        return Outcome()

    def retry(self, exchange: Exchange) -> None:
        """The RETRY timer."""
        self._put_off.remove(exchange)
        self.put(exchange)

    def note_end(self, exchange: Exchange) -> None:
        """It will not be retried, whatever its answer was: what the peer refuses later is another story."""
        if exchange.exchange_type is ExchangeType.CREATE_CHILD_SA:
            self.note_success()

    def note_success(self) -> None:
        self._refused_since = None

    def take_over(self, gone: IkeSa) -> None:
        """What was in flight on an IKE SA that is gone is asked for again, where that makes sense."""
        outcomes = [exchange.on_lost(gone, session_is_over=False) for exchange in gone.requests.exchanges]
        self._waiting.put_back([again for outcome in outcomes for again in outcome.start])

    def lose_all(self) -> None:
        """The session is over."""
        for exchange in list(self):
            for event in exchange.on_lost(self._session.current, session_is_over=True).events:
                self._host.emit(event)
        self._waiting.clear()
        self._put_off = []
