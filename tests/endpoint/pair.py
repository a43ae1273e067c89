"""Two nodes on a virtual clock, joined by a wire of one millisecond, with virtual hosts as customers."""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from endpoint.config import Config, parse_config
from endpoint.dataplane import EspArrival
from endpoint.memory import MemoryHost
from endpoint.node import Node, Observers
from endpoint.state import EndpointState
from ike import Datagram, Event, Path
from ike.testing.entropy import ScriptedEntropy
from ike.testing.link import Nat
from mpls.models import OuterFields

E = TypeVar("E")
DELAY_S = 0.001

ENDPOINT = """
[endpoint]
identity  = "pe{own}.example"
addresses = ["192.0.2.{own}"]
"""
VRFS = """
[[vrf]]
name     = "red"
classes  = ["gold", "standard"]
attach   = [{{ memory = "red", address = ["10.{own}.0.1/24", "2001:db8:{own}::1/64"] }}]
announce = ["10.{own}.0.0/24", "2001:db8:{own}::/64"]

[[vrf]]
name     = "blue"
attach   = [{{ memory = "blue", address = ["10.{own}.0.1/24"] }}]
announce = ["10.{own}.0.0/24"]

[[class]]
name = "gold"
dscp = ["ef"]
tc   = [5, 6, 7]
"""
PEER = """
[[peer]]
name      = "pe{other}"
identity  = "pe{other}.example"
addresses = ["192.0.2.{other}"]
auth      = {{ psk_file = "psk" }}
ike       = ["aes256gcm16-prfsha384-x25519"]
esp       = ["aes256gcm16-esn"]
{settings}
"""
GRANTS = """
  [[peer.vrf]]
  name    = "red"
  classes = ["gold", "standard"]
  accept  = ["10.{other}.0.0/16", "2001:db8:{other}::/48"]

  [[peer.vrf]]
  name    = "blue"
  accept  = ["10.{other}.0.0/16"]
"""
STATIC_GRANTS = """
  [[peer.vrf]]
  name    = "red"
  classes = ["gold", "standard"]
  accept  = ["10.{other}.0.0/16"]
  labels.gold     = {{ local = 1{own}1, peer = 1{other}1, routes = ["10.{other}.0.0/24"] }}
  labels.standard = {{ local = 1{own}2, peer = 1{other}2, routes = ["10.{other}.0.0/24"] }}

  [[peer.vrf]]
  name    = "blue"
  accept  = ["10.{other}.0.0/16"]
  labels  = {{ local = 1{own}3, peer = 1{other}3, routes = ["10.{other}.0.0/24"] }}
"""


def configuration(
    own: int, settings: str = "", *, grants: str = GRANTS, psk: bytes = b"a secret of the test"
) -> Config:
    """The configuration of pe<own>; `settings` are lines of its `[[peer]]`."""
    text = (ENDPOINT + VRFS + PEER + grants).format(own=own, other=3 - own, settings=settings)
    return parse_config(text, f"pe{own}.toml", secrets={"psk": psk})


@dataclass
class End:
    """One node, what it saw, and the hosts behind it."""

    node: Node
    hosts: dict[str, MemoryHost]
    events: list[Event] = field(default_factory=list)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def drops(self, reason: str) -> int:
        return self.node.dataplane.drops[reason]

    def children(self) -> dict[str, int]:
        """Name of each kind of child -> how many are up."""
        names = [child.kind.name for child in self.node.children if child.retires_at is None]
        return {name: names.count(name) for name in sorted(set(names))}

    def packets_in(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for child in self.node.children:
            counts[child.kind.name] = counts.get(child.kind.name, 0) + child.inbound.packets
        return counts


class NodePair:
    """`pe1` and `pe2`; `lose` decides what the wire loses, `wire` records (sender, octets) of all ESP.

    `nat`: a box on the way; `keepalives` counts what each end sent of these; from and to the `absent` addresses
    nothing goes.
    """

    def __init__(self, config1: Config, config2: Config, nat: Nat | None = None) -> None:
        self.now = 1000.0
        self.nat = nat
        self.keepalives: Counter[int] = Counter()
        self.absent: set[str] = set()
        self.told: list[tuple[int, Path]] = []
        """What key logs are told: of every child that is installed or has moved, its end and path."""
        self.lose: Callable[[int, bytes], bool] = lambda sender, octets: False
        self.wire: list[tuple[int, bytes]] = []
        self.meddle: Callable[[OuterFields], OuterFields] = lambda outer: outer
        """What the path makes of DSCP, ECN and TTL of ESP."""
        self.ike_delay_s = DELAY_S
        """How long an IKE message is on its way, or waits for a busy daemon."""
        self.path_mtu: int | None = None
        """Of the path, in octets of IP packets: what is larger is lost, or fragmented if it `ignores_df`."""
        self.ignores_df = False
        self.probes: list[tuple[int, int]] = []
        """Who sent an IKE message with DF, and the octets of its packet."""
        self.without_df: list[tuple[int, bytes]] = []
        """Of the same, what may be fragmented on its way."""
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.ends = {1: self._make(1, config1), 2: self._make(2, config2)}

    @property
    def pe1(self) -> End:
        return self.ends[1]

    @property
    def pe2(self) -> End:
        return self.ends[2]

    def _make(self, number: int, config: Config, state: EndpointState | None = None) -> End:
        hosts: dict[str, MemoryHost] = {}
        events: list[Event] = []

        def deliver(attachment: str, packets: list[bytes]) -> None:
            for packet in packets:
                hosts[attachment].receive(packet)

        node = Node(
            config,
            _Underlay(self, number),
            deliver,
            entropy=ScriptedEntropy(f"{number}:{self._count}"),
            epoch=0x6921DE00 + self._count,
            state=state,
            observers=Observers(
                event=events.append,
                child=lambda child: self.told.append((number, child.path)),
                address=lambda attachment, address, is_there: hosts[attachment].change_address(
                    "add" if is_there else "del", address
                ),
            ),
        )
        for vrf in config.vrfs:
            for attach in vrf.attach:
                hosts[attach.name] = MemoryHost(attach.address, partial(self.send, number, attach.name))
        return End(node, hosts, events)

    def start(self) -> "NodePair":
        for end in self.ends.values():
            end.node.start(self.now)
        return self

    def restart(self, number: int, state: EndpointState | None = None) -> None:
        """The process was killed and begins anew: all that it knew is gone."""
        self._count += 1
        self.ends[number] = self._make(number, self.ends[number].node.config, state)
        self.ends[number].node.start(self.now)

    def send(self, number: int, attachment: str, packet: bytes) -> None:
        """A customer of pe<number> sends."""
        self.ends[number].node.receive_packets(attachment, [packet], self.now)

    def ping(self, number: int, vrf: str, sequence: int, *, dscp: int = 0, data: bytes = b"") -> None:
        source, destination = f"10.{number}.0.2", f"10.{3 - number}.0.2"
        host = self.ends[number].hosts[vrf]
        host.ping(source, destination, identifier=7, sequence=sequence, dscp=dscp, data=data)

    def pongs(self, number: int, vrf: str) -> list[int]:
        return [pong.sequence for pong in self.ends[number].hosts[vrf].pongs]

    def translated(self, path: Path) -> Path | None:
        """The path of what one end sends as the other sees it; None if the NAT does not let it pass."""
        ends: tuple[tuple[str, int], tuple[str, int]] | None = (path.local, path.peer)
        if self.nat is not None:
            ends = self.nat.translate(path.local, path.peer)
        if ends is None or self.absent & {path.local[0], path.peer[0]}:
            return None
        return Path(ends[1], ends[0])

    def carry(self, sender: int, octets: bytes, arrive: Callable[[], None], delay_s: float = DELAY_S) -> None:
        if not self.lose(sender, octets):
            self._count += 1
            heapq.heappush(self._queue, (self.now + delay_s, self._count, arrive))

    def run(self, seconds: float = 1.0) -> None:
        """Let time pass: deliver what is on the wire, call timers at their deadlines."""
        end = self.now + seconds
        while True:
            times = [self._queue[0][0]] if self._queue else []
            deadlines = [one.node.next_deadline() for one in self.ends.values()]
            times += [deadline.at for deadline in deadlines if deadline is not None]
            at = min(times, default=end)
            if at > end:
                break
            self.now = max(self.now, at)
            if not times:
                break
            while self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
            for one in self.ends.values():
                deadline = one.node.next_deadline()
                if deadline is not None and deadline.at <= self.now:
                    one.node.handle_timer(self.now)
        self.now = end


class _Underlay:
    """The wire, as one node's sockets."""

    def __init__(self, pair: NodePair, number: int) -> None:
        self._pair, self._number = pair, number

    def send_ike(self, datagram: Datagram) -> None:
        path = self._pair.translated(datagram.path)
        self._pair.keepalives[self._number] += datagram.is_keepalive
        if path is None or datagram.is_keepalive:
            return
        octets = len(datagram.data) + 28 + 4 * (path.local[1] == 4500)
        if datagram.dont_fragment:
            self._pair.probes.append((self._number, octets))
            if self._pair.path_mtu is not None and octets > self._pair.path_mtu:
                return

        def arrive() -> None:
            self._other.node.receive_ike(datagram.data, path, self._pair.now)

        self._pair.carry(self._number, datagram.data, arrive, self._pair.ike_delay_s)

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
        for packet in packets:
            self._pair.wire.append((self._number, packet))
            if may_fragment:
                self._pair.without_df.append((self._number, packet))
            seen = self._pair.translated(path)
            if seen is None:
                continue
            outer = self._pair.meddle(OuterFields(tos, ttl or 64))
            if self._pair.path_mtu is not None and len(packet) + (28 if udp else 20) > self._pair.path_mtu:
                if not (self._pair.ignores_df or may_fragment):
                    continue
                outer = outer._replace(fragment=self._pair.path_mtu)
            one = EspArrival([packet], seen.peer if udp else (seen.peer[0], 0), seen.local[0], outer)

            def arrive(one: EspArrival = one) -> None:
                self._other.node.receive_esp([one], self._pair.now)

            self._pair.carry(self._number, packet, arrive)

    @property
    def _other(self) -> End:
        return self._pair.ends[3 - self._number]
