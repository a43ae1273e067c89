"""The owner of an engine, as its events tell him to be: which Child SAs are installed, and which one sends.

Must not know the engine: it has the events and nothing else (RFC 7296 2.8, `ike.events`). No keys are used; that a
packet can be opened is that the other end has the same keys under that SPI.
"""

from __future__ import annotations

from dataclasses import dataclass

from ike.events import (
    ChildSa,
    ChildSaClosed,
    ChildSaDeletionBegun,
    ChildSaEstablished,
    CloseReason,
    Event,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    NotifyAnswered,
)
from ike.testing.clock import Clock

GRACE_S = 2.0
"""A child whose successor is there still receives for so long after it was closed."""


class InvariantError(AssertionError):
    """Something that must always hold does not."""


def require(condition: object, what: str) -> None:
    if not condition:
        raise InvariantError(what)


@dataclass(slots=True)
class Installed:
    """One pair of ESP SAs."""

    session: int
    sa: ChildSa
    replaces: bytes | None
    may_send: bool
    closed_at: float | None = None
    is_deleting: bool = False


class Owner:
    """One end's data plane. `installed`: by inbound SPI, in the order in which they came."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.installed: dict[bytes, Installed] = {}
        self.open_sessions: set[int] = set()
        self.over: set[int] = set()

    def handle(self, event: Event) -> None:
        """Raises InvariantError for an event that contradicts those before it."""
        if isinstance(event, NotifyAnswered):
            return
        require(event.session not in self.over, f"{self.name}: {event} after the end of its session")
        match event:
            case IkeSaEstablished():
                require(event.session not in self.open_sessions, f"{self.name}: established twice: {event}")
                self.open_sessions.add(event.session)
            case IkeSaFailed():
                self.over.add(event.session)
            case IkeSaClosed():
                left = [one.sa.spi_in.hex() for one in self.of_session(event.session)]
                require(not left, f"{self.name}: children {left} outlive their session")
                self.open_sessions.discard(event.session)
                self.over.add(event.session)
            case ChildSaEstablished():
                self._install(event)
            case ChildSaDeletionBegun():
                found = self.installed[event.spi_in]
                found.may_send, found.is_deleting = False, True
                self._begin_sending(event.spi_in)
            case ChildSaClosed():
                self._close(event)

    def of_session(self, session: int) -> list[Installed]:
        return [one for one in self.installed.values() if one.session == session and one.closed_at is None]

    def receiver(self, spi: bytes) -> Installed | None:
        """What a packet with that SPI would be opened with now."""
        found = self.installed.get(spi)
        if found and found.closed_at is not None and self.clock.now > found.closed_at + GRACE_S:
            del self.installed[spi]
            return None
        return found

    def open_children(self) -> list[Installed]:
        return [one for one in self.installed.values() if one.closed_at is None]

    def senders(self) -> list[Installed]:
        """For each name the child that packets would leave by now: the one installed last of those that may send."""
        newest = {one.sa.name: one for one in self.open_children() if one.may_send}
        return list(newest.values())

    def _install(self, event: ChildSaEstablished) -> None:
        sa = event.child
        where = f"{self.name}: {sa.spi_in.hex()}"
        require(event.session in self.open_sessions, f"{where} has no owner: session {event.session}")
        require(self.receiver(sa.spi_in) is None, f"{where} is installed twice")
        twin = [one for one in self.open_children() if one.sa.spi_out == sa.spi_out]
        require(not twin, f"{where}: two children send with {sa.spi_out.hex()}")
        self.installed[sa.spi_in] = Installed(event.session, sa, event.replaces, event.use_outbound)

    def _close(self, event: ChildSaClosed) -> None:
        found = self.installed.get(event.spi_in)
        where = f"{self.name}: {event.spi_in.hex()}"
        if found is None or found.closed_at is not None:
            raise InvariantError(f"{where} is closed, and was not there")
        require(found.sa.spi_out == event.spi_out, f"{where} is closed as one of a pair that never was")
        if event.reason in (CloseReason.REKEYED, CloseReason.REDUNDANT):
            found.closed_at = self.clock.now
        else:
            del self.installed[event.spi_in]
        self._begin_sending(event.spi_in)

    def _begin_sending(self, replaced: bytes) -> None:
        for successor in self.open_children():
            if successor.replaces == replaced and not successor.is_deleting:
                successor.may_send = True
