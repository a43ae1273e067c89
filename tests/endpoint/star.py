"""One hub and any number of spokes on a virtual clock, each node with one address of its own."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from endpoint.config import Config
from endpoint.dataplane import EspArrival
from endpoint.node import Node, Observers
from ike import Datagram, Path
from ike.testing.entropy import ScriptedEntropy
from ike.testing.link import Nat

DELAY_S = 0.001


@dataclass
class Member:
    """A node, and (attachment, octets) of what it handed to the inside."""

    node: Node
    delivered: list[tuple[str, bytes]] = field(default_factory=list)
    routes: set[tuple[str, str]] = field(default_factory=set)

    def drops(self, reason: str) -> int:
        return self.node.dataplane.drops[reason]


class Star:
    """Nodes by address; what is sent to an address arrives there a millisecond later.

    `nats` are boxes in front of one node each; several may have one outside address. From and to the `absent`
    addresses nothing goes.
    """

    def __init__(self, *configs: Config, nats: Sequence[Nat] = ()) -> None:
        self.now = 1000.0
        self.nats = nats
        self.absent: set[str] = set()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.members: dict[str, Member] = {}
        for config in configs:
            address = config.endpoint.addresses[0]
            self.members[address] = self._make(address, config)
        for member in self.members.values():
            member.node.start(self.now)

    def _make(self, address: str, config: Config) -> Member:
        delivered: list[tuple[str, bytes]] = []
        routes: set[tuple[str, str]] = set()

        def on_route(vrf: str, prefix: object, is_there: bool) -> None:
            (routes.add if is_there else routes.discard)((vrf, str(prefix)))

        node = Node(
            config,
            _Underlay(self),
            lambda attachment, packets: delivered.extend((attachment, one) for one in packets),
            entropy=ScriptedEntropy(f"{address}{self._count or ''}"),
            epoch=1,
            observers=Observers(route=on_route),
        )
        return Member(node, delivered, routes)

    def restart(self, address: str, config: Config) -> None:
        """The process was killed and begins anew: all that it knew is gone."""
        self._count += 1
        self.members[address] = self._make(address, config)
        self.members[address].node.start(self.now)

    def arrival(self, path: Path) -> tuple[Member, Path] | None:
        """Who gets what was sent along `path`, and the path as he sees it."""
        source, target = path.local, path.peer
        for nat in self.nats:
            if source[0] == nat.inside:
                source, target = nat.translate(source, target) or (source, target)
        ends = [nat.translate(source, target) for nat in self.nats if target[0] == nat.outside]
        source, target = next((one for one in ends if one is not None), (source, target))
        to = self.members.get(target[0])
        if to is None or self.absent & {path.local[0], target[0]}:
            return None
        return to, Path(target, source)

    def send(self, address: str, attachment: str, *packets: bytes) -> None:
        """Something on the inside of a node sends."""
        self.members[address].node.receive_packets(attachment, packets, self.now)

    def carry(self, arrive: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + DELAY_S, self._count, arrive))

    def run(self, seconds: float = 1.0) -> None:
        end = self.now + seconds
        while True:
            deadlines = [one.node.next_deadline() for one in self.members.values()]
            times = [deadline.at for deadline in deadlines if deadline is not None]
            times += [self._queue[0][0]] if self._queue else []
            at = min(times, default=end)
            if at >= end:
                break
            self.now = max(self.now, at)
            while self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
            for one in self.members.values():
                deadline = one.node.next_deadline()
                if deadline is not None and deadline.at <= self.now:
                    one.node.handle_timer(self.now)
        self.now = end


class _Underlay:
    def __init__(self, star: Star) -> None:
        self._star = star

    def send_ike(self, datagram: Datagram) -> None:
        found = self._star.arrival(datagram.path)
        if found is not None and not datagram.is_keepalive:
            to, path = found
            self._star.carry(lambda: to.node.receive_ike(datagram.data, path, self._star.now))

    def send_esp(
        self,
        path: Path,
        packets: Sequence[bytes],
        *,
        udp: bool,
        tos: int,
        ttl: int = 0,
        may_fragment: bool = False,
    ) -> None:
        found = self._star.arrival(path)
        if found is not None:
            to, seen = found
            arrived = [EspArrival(packets, seen.peer if udp else (seen.peer[0], 0), seen.local[0])]
            self._star.carry(lambda: to.node.receive_esp(arrived, self._star.now))
