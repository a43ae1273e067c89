"""60 s of 5,000 numbered packets a second each way, a Child rekey every 2 s and an IKE rekey every 10 s: none is lost.

Two whole endpoints on virtual time, a millisecond apart, a packet each way every 0.2 ms, so that each side hands in
some between the request and the answer of every rekey, which is counted. IKE messages are now quicker than ESP, now
slower. Rekeys are begun by alternating sides and by both at once, at any moment of the second; half of the IKE rekeys
are begun beside a Child rekey. Afterwards some seconds on a wire that loses and repeats ESP and loses IKE: what does
not arrive, or arrives twice, is what wire and counters say.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from itertools import pairwise

from endpoint.children import Child
from ike import SessionSnapshot
from ike.events import RequestRefused, TraceRecord
from ike.life import LifeKind, LifeRecord
from mpls.ip import build_ip
from tests.endpoint.pair import DELAY_S, NodePair, configuration
from tests.soak.run import Run

SECONDS, BAD_SECONDS = 60, 6
TICK_S = 0.0002
PACKETS_PER_S = round(1 / TICK_S)
CHILD_REKEY_S, IKE_REKEY_S = 2, 10
STARTERS = ((1,), (2,), (1, 2))
KINDS = ("child", "ike")
IKE_DELAYS_S = 0.003, 0.0007
"""One after the other for two seconds: ESP overtakes the message before it, and IKE the packets before it."""
LEAST_INSIDE = round(2 * min(IKE_DELAYS_S) / TICK_S) - 1
"""Packets of a side between the request and the answer of a rekey."""
PATIENCE_S = 12.0
"""Until what was put off, or lost, is done: the engine tries again after five seconds, give or take some."""
LOST_ESP, REPEATED_ESP, LOST_IKE = 0.002, 0.002, 0.4
OUTBOUND = frozenset(
    {"urpf", "no_class", "discarded", "no_route", "no_label", "no_child", "queue_full", "class_down"}
    | {"outside_selector", "too_big", "lifetime", "sequence_exhausted"}
)
"""Reasons for which the sender's end drops; of the others it is the receiver's."""


def soak(run: Run) -> None:
    """A second is a case."""
    load = Load()
    for second in run.cases(SECONDS):
        load.run_second(second)
        run.step(f"second {second}")
    load.settle(PATIENCE_S)
    for number, end in load.pair.ends.items():
        assert not end.node.dataplane.drops, f"pe{number} dropped: {dict(end.node.dataplane.drops)}"
    run.figures.update(packets_each_way=load.sent, **load.figures())
    if run.scale >= 1:
        assert set(load.done) == {(kind, sides) for kind in KINDS for sides in STARTERS}, dict(load.done)
    begun = load.done.total()
    load.wire = BadWire(load.pair)
    for second in run.cases(BAD_SECONDS):
        load.run_second(second)
        run.step(f"second {second} on a bad wire")
    load.wire.is_good = True
    load.settle(2 * PATIENCE_S)
    assert load.done.total() > begun
    assert run.scale < 1 or any(counted["lost_ike"] for counted in load.wire.counted.values())
    run.figures["bad_wire"] = {name: dict(counted) for name, counted in load.wire.counted.items()}


@dataclass(frozen=True)
class Start:
    """A rekey, by whom and when in its second; the second starter is `apart_s` later, before the first is heard of."""

    kind: str
    sides: tuple[int, ...]
    at_s: float
    apart_s: float = 0.0


def rekeys_of(second: int) -> list[Start]:
    """What is begun in this second, for the same second always the same."""
    some = random.Random(f"rekeys of second {second}")
    starts = []
    child_at = ike_at = some.uniform(0.02, 0.6)
    apart_s = some.choice((0.0, some.uniform(0, 0.9 * min(IKE_DELAYS_S))))
    if second % CHILD_REKEY_S == 0:
        starts.append(Start("child", STARTERS[second // CHILD_REKEY_S % 3], child_at, apart_s))
    if second % IKE_REKEY_S == 8:
        number = second // IKE_REKEY_S
        # Beside the Child rekey, or far enough from it.
        ike_at += some.uniform(-0.004, 0.004) if number % 2 else 0.3
        starts.append(Start("ike", STARTERS[number % 3], ike_at, apart_s))
    return sorted(starts, key=lambda one: one.at_s)


class Load:
    """Two endpoints under traffic that are made to rekey.

    done        (kind, starters) -> rekeys that were begun and have happened
    collisions  kind -> how often the nonces of two rekeys were compared (RFC 7296 2.8.1)
    put_off     Child rekeys that met an IKE rekey and were begun again before their time to retry came
    inside      the fewest packets that one side has sent between request and answer of a rekey
    """

    def __init__(self) -> None:
        self.pair = NodePair(configuration(1, 'start = "boot"'), configuration(2, 'start = "boot"')).start()
        self.pair.run(5.0)
        self.sent = 0
        self.received: dict[int, list[int]] = {1: [], 2: []}
        self.done: Counter[tuple[str, tuple[int, ...]]] = Counter()
        self.collisions: Counter[str] = Counter()
        self.put_off = 0
        self.inside = PACKETS_PER_S
        self.wire: BadWire | None = None
        self._pending: dict[str, tuple[Start, list[object], int]] = {}
        self._refused = 0
        self._requests: dict[tuple[int, bytes, int], int] = {}
        for number, end in self.pair.ends.items():
            end.hosts["blue"].receive = _recorder(self.received[number])  # type: ignore[method-assign,assignment]
            end.node.engine.subscribe(partial(self._observe, number))

    def run_second(self, second: int) -> None:
        self.pair.ike_delay_s = IKE_DELAYS_S[second // 2 % 2]
        starts = rekeys_of(second)
        actions = [(start.at_s, start, start.sides[0]) for start in starts]
        actions += [
            (one.at_s + one.apart_s, one, one.sides[1]) for _, one, _ in actions if len(one.sides) > 1
        ]
        actions.sort(key=lambda one: one[0])
        for tick in range(PACKETS_PER_S):
            for number in (1, 2):
                packet = [_packet(number, self.sent)]
                self.pair.ends[number].node.receive_packets("blue", packet, self.pair.now)
            self.sent += 1
            self.pair.wire.clear()
            rest = TICK_S
            while actions and actions[0][0] < (tick + 1) * TICK_S:
                at, start, side = actions.pop(0)
                pause = max(0.0, min(rest, at - (tick + 1) * TICK_S + rest))
                self.pair.run(pause)
                rest -= pause
                self._begin(start, side)
            self.pair.run(rest)

    def _begin(self, start: Start, side: int) -> None:
        if side == start.sides[0]:
            if start.kind in self._pending:
                self._check_rekey(start.kind)
            self._pending[start.kind] = start, self._spis(start.kind), self._refused
        is_ike = start.kind == "ike"
        child = None if is_ike else "blue/0"
        count = self.pair.ends[side].node.rekey(f"pe{3 - side}", child, self.pair.now, ike=is_ike)
        assert count == 1, f"{start}: pe{side} began {count}"

    def _spis(self, kind: str) -> list[object]:
        """What a rekey changes at either end."""
        if kind == "ike":
            return [_session(self.pair, number).spi_i for number in (1, 2)]
        return [[child.sa.spi_in for child in self._blue(number)] for number in (1, 2)]

    def _blue(self, number: int) -> list[Child]:
        """The children to send on; there is one."""
        children = self.pair.ends[number].node.children
        return [one for one in children if one.kind.name == "blue/0" and one.retires_at is None]

    def settle(self, seconds: float) -> None:
        """Send no more, and let what is under way arrive; every rekey that was begun has happened."""
        inside = self.inside
        self.pair.run(seconds)
        self.inside = inside  # no packets are sent beside those that were put off until now
        for kind in tuple(self._pending):
            self._check_rekey(kind)
        self.check_packets()

    def _check_rekey(self, kind: str) -> None:
        start, before, refused = self._pending.pop(kind)
        after = self._spis(kind)
        if kind == "child" and after == before and self._refused > refused:
            self.put_off += 1
            return
        assert all(one != other for one, other in zip(before, after, strict=True)), f"{start}: no rekey"
        if kind == "ike":
            makers = {number for number in (1, 2) if _session(self.pair, number).is_initiator}
        else:
            assert [len(self._blue(number)) for number in (1, 2)] == [1, 1], f"{start}: {after}"
            makers = {number for number in (1, 2) if self._blue(number)[0].sa.is_creator}
        assert len(makers) == 1 and makers <= set(start.sides), f"{start}: made by {makers}"
        self.done[kind, start.sides] += 1

    def _observe(self, number: int, record: TraceRecord | LifeRecord) -> None:
        if isinstance(record, LifeRecord):
            if record.kind is LifeKind.NONCES and number == 1:
                self.collisions["ike" if "IKE SA" in record.detail else "child"] += 1
            self._refused += isinstance(record.event, RequestRefused)
            return
        words = record.summary.split()
        if words[0] == "CREATE_CHILD_SA":
            key = number, record.spi_i, record.message_id
            if words[1] == "request":
                self._requests.setdefault(key, self.sent)
            elif record.direction.name == "RECEIVED" and key in self._requests:
                self.inside = min(self.inside, self.sent - self._requests.pop(key))

    def check_packets(self) -> None:
        """In order; and sent - received is what was dropped for a reason, in each direction."""
        for receiver, numbers in self.received.items():
            sender = 3 - receiver
            assert all(one < other for one, other in pairwise(numbers)), (
                f"pe{sender} to pe{receiver}: out of order, or twice"
            )
            drops: Counter[str] = Counter()
            for number, is_outbound in ((sender, True), (receiver, False)):
                counted = self.pair.ends[number].node.dataplane.drops
                drops.update(
                    {one: count for one, count in counted.items() if (one in OUTBOUND) is is_outbound}
                )
            wire = self.wire.counted[sender] if self.wire else Counter[str]()
            gap = self.sent + wire["repeated"] - len(numbers) - wire["lost"]
            assert gap == drops.total(), (
                f"pe{sender} to pe{receiver}: {gap} of {self.sent} are gone, dropped: {dict(drops)}"
            )
            assert set(drops) <= ({"replay"} if self.wire else set()), f"dropped: {dict(drops)}"
            assert drops["replay"] == wire["repeated"], f"{dict(drops)}, {dict(wire)}"

    def figures(self) -> dict[str, object]:
        """For the record; asserts that nothing of it is missing."""
        assert self.inside >= LEAST_INSIDE, f"only {self.inside} packets inside a rekey"
        by_both = {kind: self.done[kind, STARTERS[2]] for kind in KINDS}
        assert all(self.collisions[kind] >= count for kind, count in by_both.items()), (
            f"{by_both} begun by both at once, but compared nonces: {dict(self.collisions)}"
        )
        return {
            "rekeys": {f"{kind} by {' and '.join(map(str, one))}": n for (kind, one), n in self.done.items()},
            "collisions": dict(self.collisions),
            "put_off": self.put_off,
            "least_packets_inside_a_rekey": self.inside,
        }


class BadWire:
    """Loses some packets and repeats some; `counted` for each sender: what happened to ESP, and lost IKE messages."""

    def __init__(self, pair: NodePair) -> None:
        self.counted: dict[int, Counter[str]] = {1: Counter(), 2: Counter()}
        self.is_good = False
        self._some = random.Random("a bad wire")
        self._pair = pair
        self._carry = pair.carry
        pair.carry = self.carry  # type: ignore[method-assign]

    def carry(self, sender: int, octets: bytes, arrive: Callable[[], None], delay_s: float = DELAY_S) -> None:
        is_esp = any(octets.startswith(child.sa.spi_out) for child in self._pair.ends[sender].node.children)
        count = self.counted[sender]
        luck = 1.0 if self.is_good else self._some.random()
        if luck < (LOST_ESP if is_esp else LOST_IKE):
            count["lost" if is_esp else "lost_ike"] += 1
            return
        self._carry(sender, octets, arrive, delay_s)
        if is_esp and luck > 1 - REPEATED_ESP and not self.is_good:
            count["repeated"] += 1
            self._carry(sender, octets, arrive, delay_s)


def _session(pair: NodePair, number: int) -> SessionSnapshot:
    (session,) = pair.ends[number].node.engine.sessions()
    return session


def _packet(number: int, count: int) -> bytes:
    source, destination = f"10.{number}.0.2", f"10.{3 - number}.0.2"
    udp = bytes.fromhex("03e8 03e9 0000 0000") + count.to_bytes(4, "big")
    return build_ip(ip_address(source).packed, ip_address(destination).packed, 17, udp)


def _recorder(numbers: list[int]) -> Callable[[bytes], None]:
    def receive(packet: bytes) -> None:
        numbers.append(int.from_bytes(packet[-4:], "big"))

    return receive
