"""A network that delivers only what a test tells it to, in the order it says; and it may lose what it likes.

Must not know payloads: it looks at headers.
"""

from __future__ import annotations

from ike import Datagram
from ike.testing.invariants import Invariants
from ike.testing.pair import Pair, Side
from ike.wire.message import Header
from tests.ike.engine_kit import Tap


class Post:
    """From now on everything waits here. `watch` judges every moment."""

    def __init__(self, pair: Pair, tap: Tap) -> None:
        self.pair = pair
        self._tap = tap
        tap.hold(lambda datagram: True, 10**9)

    def waiting(self, to: Side, kind: str = "") -> list[Datagram]:
        """What is under way to that side, oldest first. `kind`: "request", "response", or both."""
        self.pair.flush()
        return [d for d in self._tap.held if d.path.local[0] == to.path.local[0] and kind in ("", _kind(d))]

    def give(self, to: Side, kind: str = "", *, index: int = 0) -> None:
        """Deliver one: the oldest, or that at `index`."""
        datagram = self.waiting(to, kind)[index]
        self._tap.held.remove(datagram)
        for observer in self.pair.observers:
            observer.on_arrival(to, datagram)
        to.engine.receive_datagram(datagram.data, datagram.path, self.pair.now)
        self.pair.flush()

    def lose(self, to: Side, kind: str = "") -> None:
        self._tap.held.remove(self.waiting(to, kind)[0])

    def give_all(self) -> None:
        """Deliver until nothing is under way, the older first."""
        self.pair.flush()
        while self._tap.held:
            datagram = self._tap.held[0]
            self.give(
                self.pair.left if datagram.path.local[0] == self.pair.left.path.local[0] else self.pair.right
            )

    def open(self, seconds: float = 90.0) -> None:
        """What waits is delivered, and the network works again by itself."""
        self.give_all()
        self._tap.open()
        self.pair.run(seconds)


def watched(pair: Pair) -> Invariants:
    """A judge for a pair that is established already: it is told what happened so far."""
    watch = Invariants(pair, window=8, joins_late=True)
    for side in (pair.left, pair.right):
        for event in side.events:
            watch.on_event(side, event)
    return watch


def _kind(datagram: Datagram) -> str:
    return "response" if Header.parse(datagram.data).is_response else "request"
