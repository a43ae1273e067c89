"""Two engines, one link between them and one virtual clock: a negotiation in a moment of real time.

Must not know what the engines talk about; a test looks at the events and datagrams that were collected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ike.config import ChildConfig, Connection, EngineSettings, Path, PskAuth
from ike.engine import IkeEngine
from ike.events import ChildSa, ChildSaClosed, ChildSaEstablished, Datagram, Event, TraceRecord
from ike.proposals import parse_ike_proposal
from ike.selectors import SelectorRegistry
from ike.testing.clock import Clock
from ike.testing.entropy import ScriptedEntropy
from ike.testing.link import ImpairedLink
from ike.wire.identity import Identity

E = TypeVar("E")

LEFT_ADDRESS = "192.0.2.1"
RIGHT_ADDRESS = "192.0.2.2"
PSK = b"a secret of both ends"
MAX_STEPS = 100_000


@dataclass(slots=True)
class Side:
    """One end: its engine, its entropy, and all that it has told so far."""

    name: str
    engine: IkeEngine
    entropy: ScriptedEntropy
    path: Path
    events: list[Event] = field(default_factory=list)
    trace: list[TraceRecord] = field(default_factory=list)
    addresses: set[str] | None = None
    """Those that the side has now, from and to others nothing goes; None: that of its path alone."""

    def has(self, address: str) -> bool:
        return address == self.path.local[0] if self.addresses is None else address in self.addresses

    def all(self, kind: type[E]) -> list[E]:
        """Every event of a kind, in its order."""
        return [event for event in self.events if isinstance(event, kind)]

    def last(self, kind: type[E]) -> E:
        """The latest event of a kind; LookupError if there is none."""
        found = self.all(kind)
        if not found:
            raise LookupError(f"{self.name} had no {kind.__name__}, only {self.events}")
        return found[-1]

    @property
    def children(self) -> dict[bytes, ChildSa]:
        """The children that should be installed by now, from the events alone: `spi_in` -> child."""
        installed: dict[bytes, ChildSa] = {}
        for event in self.events:
            if isinstance(event, ChildSaEstablished):
                installed[event.child.spi_in] = event.child
            elif isinstance(event, ChildSaClosed):
                del installed[event.spi_in]
        return installed

    @property
    def session(self) -> int:
        """The one session that is there."""
        (snapshot,) = self.engine.sessions()
        return snapshot.session


class Observer(Protocol):
    """Somebody who looks on: every event, every datagram as it is sent and as it arrives, and the end of each step."""

    def on_event(self, side: Side, event: Event) -> None: ...

    def on_sent(self, side: Side, datagram: Datagram) -> None: ...

    def on_arrival(self, side: Side, datagram: Datagram) -> None: ...

    def on_rest(self) -> None: ...


class Pair:
    """`left` and `right`, at 192.0.2.1 and 192.0.2.2 by default.

    Without a link of one's own nothing gets lost.
    """

    def __init__(
        self,
        left: Sequence[Connection],
        right: Sequence[Connection],
        *,
        link: ImpairedLink | None = None,
        registry: Callable[[], SelectorRegistry] = SelectorRegistry,
        left_settings: EngineSettings | None = None,
        right_settings: EngineSettings | None = None,
        seed: int | str = 0,
        port: int = 500,
        left_options: dict[str, object] | None = None,
        right_options: dict[str, object] | None = None,
    ) -> None:
        self.clock = Clock()
        self.link = link or ImpairedLink()
        self.observers: list[Observer] = []
        ends = ((LEFT_ADDRESS, port), (RIGHT_ADDRESS, port))
        self.left = self._side("left", left, Path(*ends), registry, left_settings, seed, left_options)
        self.right = self._side(
            "right", right, Path(*reversed(ends)), registry, right_settings, seed, right_options
        )

    def _side(
        self,
        name: str,
        connections: Sequence[Connection],
        path: Path,
        registry: Callable[[], SelectorRegistry],
        settings: EngineSettings | None,
        seed: int | str,
        options: dict[str, object] | None,
    ) -> Side:
        entropy = ScriptedEntropy(f"{seed} {name}")
        trace: list[TraceRecord] = []
        engine = IkeEngine(
            connections,
            entropy=entropy,
            registry=registry(),
            settings=settings,
            trace=trace.append,
            **(options or {}),  # type: ignore[arg-type]
        )
        return Side(name, engine, entropy, path, trace=trace)

    @property
    def now(self) -> float:
        return self.clock.now

    def restart(self, side: Side, connections: Sequence[Connection]) -> None:
        """A crash: the side forgets everything it knew."""
        side.entropy = ScriptedEntropy(f"{side.name} again at {self.now}")
        side.engine = IkeEngine(connections, entropy=side.entropy, trace=side.trace.append)
        side.events.clear()

    def initiate(self, connection: str = "peer", *, by: Side | None = None) -> int:
        side = by or self.left
        return side.engine.initiate(connection, side.path, self.now)

    def flush(self) -> None:
        """Events first, datagrams second, as every owner of an engine does it."""
        for side in (self.left, self.right):
            while (event := side.engine.next_event()) is not None:
                side.events.append(event)
                for observer in self.observers:
                    observer.on_event(side, event)
            for datagram in side.engine.datagrams_to_send(self.now):
                for observer in self.observers:
                    observer.on_sent(side, datagram)
                if side.has(datagram.path.local[0]):
                    self.link.submit(datagram, self.now)
        for observer in self.observers:
            observer.on_rest()

    def next_at(self) -> float | None:
        """When something happens next."""
        deadlines = [side.engine.next_deadline() for side in (self.left, self.right)]
        times = [deadline.at for deadline in deadlines if deadline]
        arrival = self.link.next_at()
        return min([*times, *([arrival] if arrival is not None else [])], default=None)

    def step(self, until: float) -> bool:
        """Let the next thing happen, if it does so by `until`."""
        self.flush()
        at = self.next_at()
        if at is None or at > until:
            return False
        self.clock.advance_to(at)
        for datagram in self.link.due(self.now):
            for side in (self.left, self.right):
                if side.has(datagram.path.local[0]) and not datagram.is_keepalive:
                    for observer in self.observers:
                        observer.on_arrival(side, datagram)
                    side.engine.receive_datagram(datagram.data, datagram.path, self.now)
            self.flush()
        for side in (self.left, self.right):
            side.engine.handle_timer(self.now)
        self.flush()
        return True

    def run(self, seconds: float = 5.0, *, until: Callable[[], bool] | None = None) -> None:
        """Let time pass: `seconds` of it, or less if `until` becomes true."""
        end = self.now + seconds
        for _ in range(MAX_STEPS):
            if (until and until()) or not self.step(end):
                break
        else:
            raise RuntimeError("the two engines never come to rest")
        if not (until and until()):
            self.clock.advance_to(end)


def connections(
    *children: ChildConfig,
    ike: str = "aes256gcm16-prfsha384-x25519",
    left: dict[str, object] | None = None,
    right: dict[str, object] | None = None,
) -> tuple[list[Connection], list[Connection]]:
    """One connection for each side, of the name "peer", by pre-shared key.

    `left` and `right` replace fields.
    """
    ids = Identity.fqdn("left.example"), Identity.fqdn("right.example")
    sides = []
    for (local_id, peer_id), changes in ((ids, left), (ids[::-1], right)):
        fields: dict[str, object] = {
            "name": "peer",
            "local_id": local_id,
            "peer_id": peer_id,
            "auth": PskAuth(PSK),
            "ike_proposals": (parse_ike_proposal(ike),),
            "children": children,
        }
        sides.append([Connection(**(fields | (changes or {})))])  # type: ignore[arg-type]
    return sides[0], sides[1]
