"""Whose each session is, and which of several with one peer is used: both ends choose the same.

Must not know children, labels or addresses. The session in use is the starter's, which brings up what is missing there.
"""

from __future__ import annotations

from collections.abc import Iterator

from endpoint.starter import Starter
from ike import ChildSaEstablished, ChildSaFailed, IkeEngine, IkeSaEstablished, IkeSaFailed

__all__ = ["Sessions"]


class Sessions:
    """The sessions that we began or whose peer is authenticated."""

    def __init__(self, engine: IkeEngine, starter: Starter) -> None:
        self._engine, self._starter = engine, starter
        self._peers: dict[int, str] = {}
        self.mobile: set[int] = set()
        """Those whose two ends support MOBIKE."""

    def __contains__(self, session: int) -> bool:
        return session in self._peers

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._peers))

    def add(self, session: int, peer: str) -> None:
        self._peers[session] = peer

    def peer(self, session: int) -> str | None:
        return self._peers.get(session)

    def peer_of(self, event: IkeSaEstablished | IkeSaFailed | ChildSaEstablished | ChildSaFailed) -> str:
        """Whose event it is: a client if there are several, else the connection's."""
        return self._peers.get(event.session, event.connection)

    def of_peer(self, peer: str) -> list[int]:
        return [session for session, name in self._peers.items() if name == peer]

    def remove(self, session: int) -> str | None:
        """It is over; whose it was."""
        self.mobile.discard(session)
        return self._peers.pop(session, None)

    def choose(self, event: IkeSaEstablished, peer: str, now: float) -> None:
        """A session is established: it is used, or the one before it. The opener of the other deletes that."""
        current = self._starter.peers[peer]
        if current.is_up and current.session not in (None, event.session, event.replaces):
            if self._is_preferred(current.session, event.session):
                self._delete_if_opener(event.session, now)
                return
            self._delete_if_opener(current.session, now)
        is_native = event.extension_data is not None
        self._starter.on_established(
            peer, event.session, is_opener=event.is_opener, is_native=is_native, now=now
        )

    def _is_preferred(self, first: int, second: int) -> bool:
        """Of two sessions with one peer both ends keep the same: that with the lower initiator's SPI."""
        spis = {one.session: one.spi_i for one in self._engine.sessions()}
        return spis.get(first, b"\xff" * 8) <= spis.get(second, b"\xff" * 8)

    def _delete_if_opener(self, session: int, now: float) -> None:
        if any(one.session == session and one.is_opener for one in self._engine.sessions()):
            self._engine.delete_ike_sa(session, now)

    def use_another(self, peer: str, now: float) -> bool:
        """The one in use is gone: whether the peer has another that is established, which is used from now on."""
        if peer not in self._peers.values():
            return False  # as a rule: of many peers that go at once none looks through the sessions of all
        for one in self._engine.sessions():
            if self._peers.get(one.session) == peer and one.established_at is not None:
                is_native = one.extension_data is not None
                self._starter.on_established(
                    peer, one.session, is_opener=one.is_opener, is_native=is_native, now=now
                )
                return True
        return False
