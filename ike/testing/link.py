"""A network on virtual time between engines: loss, delay, reordering, duplication, MTU, NAT, from a seed.

Must not know what a datagram says. It is sans-IO like the engines: the test hands in the time and asks what
is due.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from ike.config import Path
from ike.events import Datagram
from ike.testing.entropy import ScriptedEntropy

SocketAddress = tuple[str, int]
_UDP_OCTETS = 8
_IPV4_OCTETS = 20
_IPV6_OCTETS = 40


class Nat:
    """A NAPT box: what the host `inside` sends leaves from `outside`, with a new port for each of its ports.

    What arrives at an outside port that no mapping has is dropped. `rebind` forgets all mappings, as a
    restarted box or an expired timer does: the next datagram from inside gets a new port.
    """

    def __init__(self, inside: str, outside: str, first_port: int = 40000) -> None:
        self.inside = inside
        self.outside = outside
        self._next_port = first_port
        self._inside_ports: dict[int, int] = {}

    def rebind(self) -> None:
        self._inside_ports.clear()

    def translate(
        self, source: SocketAddress, destination: SocketAddress
    ) -> tuple[SocketAddress, SocketAddress] | None:
        """Source and destination behind the box; None when the datagram ends here."""
        if source[0] == self.inside:
            return (self.outside, self._outside_port(source[1])), destination
        if destination[0] == self.outside:
            inside_port = self._inside_ports.get(destination[1])
            return None if inside_port is None else (source, (self.inside, inside_port))
        return source, destination

    def _outside_port(self, inside_port: int) -> int:
        for outside, inside in self._inside_ports.items():
            if inside == inside_port:
                return outside
        outside, self._next_port = self._next_port, self._next_port + 1
        self._inside_ports[outside] = inside_port
        return outside


class ImpairedLink:
    """Carries datagrams between any number of hosts. Probabilities are in 0..1, times in seconds.

    `reorder` is the chance that a datagram takes `reorder_s` longer and is overtaken. A datagram whose IP
    packet is larger than `mtu_octets` is lost, as its fragments are in many networks. `on_path`, if given,
    sees each datagram as the receiver would and returns what goes on instead: an attacker. `counters` says
    what happened how often.
    """

    def __init__(
        self,
        seed: int | str = 0,
        *,
        delay_s: float = 0.01,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        reorder_s: float = 0.05,
        mtu_octets: int | None = None,
        nat: Nat | None = None,
        on_path: Callable[[Datagram], Iterable[Datagram]] | None = None,
    ) -> None:
        self.delay_s = delay_s
        self.loss = loss
        self.duplicate = duplicate
        self.reorder = reorder
        self.reorder_s = reorder_s
        self.mtu_octets = mtu_octets
        self.nat = nat
        self.on_path = on_path
        self.counters: Counter[str] = Counter()
        self._chance = ScriptedEntropy(seed)
        self._in_flight: list[tuple[float, int, Datagram]] = []
        self._submitted = 0

    def submit(self, datagram: Datagram, now: float) -> None:
        """Take a datagram as its sender hands it over, its path seen from the sender."""
        self.counters["submitted"] += 1
        if self.mtu_octets is not None and _packet_octets(datagram) > self.mtu_octets:
            self.counters["too_big"] += 1
            return
        arriving = self._at_receiver(datagram)
        if arriving is None:
            self.counters["no_mapping"] += 1
            return
        for each in (arriving,) if self.on_path is None else self.on_path(arriving):
            self._carry(each, now)

    def due(self, now: float) -> list[Datagram]:
        """What has arrived by now, in that order, each path seen from its receiver."""
        arrived: list[Datagram] = []
        while self._in_flight and self._in_flight[0][0] <= now:
            arrived.append(heapq.heappop(self._in_flight)[2])
        self.counters["delivered"] += len(arrived)
        return arrived

    def next_at(self) -> float | None:
        """When the next datagram arrives; None while nothing is in flight."""
        return self._in_flight[0][0] if self._in_flight else None

    def _at_receiver(self, datagram: Datagram) -> Datagram | None:
        ends: tuple[SocketAddress, SocketAddress] | None = (datagram.path.local, datagram.path.peer)
        if self.nat is not None:
            ends = self.nat.translate(datagram.path.local, datagram.path.peer)
        if ends is None:
            return None
        source, destination = ends
        return replace(datagram, path=Path(local=destination, peer=source))

    def _carry(self, datagram: Datagram, now: float) -> None:
        if self._happens(self.loss):
            self.counters["lost"] += 1
            return
        copies = 1
        if self._happens(self.duplicate):
            self.counters["duplicated"] += 1
            copies = 2
        for _ in range(copies):
            at = now + self.delay_s
            if self._happens(self.reorder):
                self.counters["reordered"] += 1
                at += self.reorder_s
            self._submitted += 1
            heapq.heappush(self._in_flight, (at, self._submitted, datagram))

    def _happens(self, probability: float) -> bool:
        return self._chance.fraction() < probability


def _packet_octets(datagram: Datagram) -> int:
    ip_octets = _IPV6_OCTETS if ":" in datagram.path.local[0] else _IPV4_OCTETS
    return ip_octets + _UDP_OCTETS + len(datagram.data)
