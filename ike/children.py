"""The Child SAs of one session: made, rekeyed, deleted, and told to the owner (RFC 7296 1.3, 1.4.1, 2.8).

They belong to the session, so a rekey of the IKE SA moves all of them at once. Must not know messages, keys or
which IKE SA carries the requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ike.child import Child
from ike.events import ChildSaClosed, ChildSaDeletionBegun, ChildSaEstablished, CloseReason
from ike.exchanges.create_child import MakeChildSa, RekeyChildSa
from ike.exchanges.exchange import AddChild
from ike.exchanges.informational import DeleteChildSa
from ike.timers import TimerKind

if TYPE_CHECKING:
    from ike.session import Session

__all__ = ["Children"]


class Children(Mapping[bytes, Child]):
    """`spi_in` -> child, in the order in which they were made. Its timers are the session's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._host = session.host
        self._children: dict[bytes, Child] = {}

    def __getitem__(self, spi_in: bytes) -> Child:
        return self._children[spi_in]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._children)

    def __len__(self) -> int:
        return len(self._children)

    def by_spi_out(self, spi_out: bytes) -> Child | None:
        return next((child for child in self.values() if child.sa.spi_out == spi_out), None)

    # --- made

    def add(self, what: AddChild, now: float) -> None:
        child, sa, session = what.child, what.child.sa, self._session
        self._children[sa.spi_in] = child
        self._host.register_child(sa.spi_in, session)
        session.requests.note_success()
        config, timers = child.config, self._host.timers
        if config.rekey_s is not None:
            at = now + self._host.shortened(config.rekey_s, config.rekey_jitter)
            timers.set(at, TimerKind.CHILD_REKEY, session, sa.spi_in)
        if config.hard_s is not None:
            timers.set(now + config.hard_s, TimerKind.CHILD_HARD, session, sa.spi_in)
        self._expect_end(what.replaces, CloseReason.REKEYED, now)
        self._expect_end(what.outlives, CloseReason.REDUNDANT, now)
        for exchange in session.requests:
            if isinstance(exchange, RekeyChildSa) and exchange.spi_in == what.replaces and not sa.is_creator:
                exchange.rival = sa
        self._host.emit(
            ChildSaEstablished(
                session.number, session.name, sa, what.replaces, use_outbound=what.use_outbound
            )
        )

    def _expect_end(self, spi_in: bytes | None, fate: CloseReason, now: float) -> None:
        """Whoever made the child that stays deletes this one. If nobody does, we do."""
        child = self.get(spi_in) if spi_in else None
        if child is None or child.is_deleting:
            return
        if fate is CloseReason.REDUNDANT:
            self._note_deletion_begun(child, fate)
        child.fate = fate
        timers, at = self._host.timers, now + self._host.settings.collision_timeout_s
        timers.cancel(TimerKind.CHILD_REKEY, self._session, spi_in)
        timers.set(at, TimerKind.CHILD_HARD, self._session, spi_in)

    # --- rekeyed

    def rekey(self, spi_in: bytes) -> None:
        """Unless that is under way, or the child is about to go."""
        child, session = self.get(spi_in), self._session
        if child is None or child.is_deleting or child.fate:
            return
        if not any(isinstance(e, RekeyChildSa) and e.spi_in == spi_in for e in session.requests):
            session.requests.put(RekeyChildSa(spi_in))

    # --- deleted

    def delete(self, spi_in: bytes, reason: CloseReason) -> None:
        """Ask the peer to; the child is closed when the answer is in."""
        child = self.get(spi_in)
        if child is None:
            return
        child.is_unwanted |= reason is CloseReason.DELETED_LOCALLY
        if child.is_deleting:
            return
        child.is_deleting = True
        self._cancel_timers(spi_in)
        self._session.requests.put(DeleteChildSa(spi_in, reason))
        self._note_deletion_begun(child, reason)

    def expire(self, spi_in: bytes) -> None:
        """The CHILD_HARD timer: of its lifetime, or of the peer that should have deleted it after a rekey."""
        child = self.get(spi_in)
        self.delete(spi_in, (child.fate if child else None) or CloseReason.LIFETIME)

    def note_early_delete(self, spi_out: bytes) -> None:
        """The peer deletes what we have not: perhaps the grant of one of our requests is still on its way."""
        for exchange in self._session.requests:
            if isinstance(exchange, MakeChildSa):
                exchange.note_early_delete(spi_out)

    def close(self, spi_in: bytes, reason: CloseReason) -> None:
        """It is gone at both ends, or about to be."""
        child = self._children.pop(spi_in, None)
        if child is None:
            return
        self._host.forget_child(spi_in)
        self._cancel_timers(spi_in)
        session = self._session
        self._host.emit(ChildSaClosed(session.number, session.name, spi_in, child.sa.spi_out, reason))

    def _note_deletion_begun(self, child: Child, reason: CloseReason) -> None:
        if child.fate is not CloseReason.REDUNDANT:  # else the owner knows
            sa, session = child.sa, self._session
            self._host.emit(ChildSaDeletionBegun(session.number, session.name, sa.spi_in, sa.spi_out, reason))

    def _cancel_timers(self, spi_in: bytes) -> None:
        for kind in (TimerKind.CHILD_REKEY, TimerKind.CHILD_HARD):
            self._host.timers.cancel(kind, self._session, spi_in)
