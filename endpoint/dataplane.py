"""The data plane: customer packets into ESP and back, a batch at a time. `mpls` and `esp` decide, this moves.

It must not know IKE messages or sockets; the underlay and the attachments are callables.

    outbound  attachment -> mpls.forwarding: VRF, class, peer, label -> child -> map and MTU -> encapsulate
              -> one sealing and one send for each run of packets of one child;   no child or no label yet: wait,
              ask for it
    inbound   ESP packet -> SPI, replay, ICV -> mpls.forwarding: the egress check -> attachment of the VRF
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from endpoint.children import Child, ChildTable
from endpoint.plan import Serves
from esp.batch import Outcome, receive_batch, seal_batch
from esp.engine import Received
from esp.errors import DropReason as EspDropReason
from ike import Path
from mpls.drops import DropReason
from mpls.encapsulation import is_cleartext_mpls
from mpls.forwarding import Bypassed, Delivery, Drop, Labelled, Outbound, Way, check_inbound, check_outbound
from mpls.inside import stack_toward
from mpls.label_space import LabelSpace
from mpls.plain import check_plain
from mpls.vrf import Labels

__all__ = ["DataPlane", "Deliver", "EspArrival", "Owner", "Underlay"]

_log = logging.getLogger("mplsec.dataplane")

WAITING_PACKETS = 64
"""For one (peer, VRF, class); the oldest go first."""
WAITING_S = 10.0
WAITING_QUEUES = 1024
AUDITS_PER_S = 1.0
REPLIES_PER_S = 100.0
"""ICMP errors into one VRF, and as many at once (RFC 4443 2.4 (f))."""


EspArrival: TypeAlias = tuple[bytes, tuple[str, int], str]
"""An ESP packet, where it came from (port 0: outside UDP), and the local address it came to."""


Deliver: TypeAlias = Callable[[str, list[bytes]], None]
"""Takes packets for an attachment, in their order."""


class Underlay(Protocol):
    """Where ESP leaves."""

    def send_esp(self, path: Path, packets: Sequence[bytes], *, udp: bool, tos: int) -> None:
        """Send ESP packets along `path`, in UDP or as protocol 50; `tos` is DSCP and ECN of the outer header."""


class Owner(Protocol):
    """Whom the data plane asks and tells."""

    def ask(self, peer: str, serves: Serves) -> bool:
        """A packet waits for a child or a label; False: nothing will come of it."""

    def on_inbound(self, child: Child, now: float) -> None:
        """Authentic traffic came in on this child."""

    def on_lifetime(self, child: Child, now: float) -> None:
        """The child's lifetime in packets or octets has come, the soft or the hard one."""

    def on_inbound_path(self, child: Child, path: Path, now: float) -> None:
        """The newest authentic packet of this child came in UDP, and over another path than ours goes out."""

    def on_outbound(self, child: Child, now: float) -> None:
        """Packets left on this child."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    attachment: str
    packet: bytes
    until: float
    reason: DropReason


class _ReplyLimit:
    """A token bucket for each VRF."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, vrf: str, now: float) -> bool:
        tokens, at = self._buckets.get(vrf, (REPLIES_PER_S, now))
        tokens = min(REPLIES_PER_S, tokens + (now - at) * REPLIES_PER_S)
        self._buckets[vrf] = (max(0.0, tokens - 1), now)
        return tokens >= 1


class DataPlane:
    """All walks of one node. `drops` counts every dropped packet by reason, those of all children included.

    `observe` is called with each authentic inbound packet and what became of it, for researchers and the demo.
    """

    def __init__(
        self,
        outbound: Outbound,
        labels: LabelSpace,
        children: ChildTable,
        underlay: Underlay,
        owner: Owner,
        deliver: Deliver,
    ) -> None:
        self.drops: Counter[str] = Counter()
        self.delivered = 0
        self.observe: Callable[[Child, Received, Delivery | Drop], None] | None = None
        self._outbound, self._labels, self._children = outbound, labels, children
        self._underlay, self._owner, self._deliver = underlay, owner, deliver
        self._vrf_of = {one.name: vrf.name for vrf in outbound.vrfs.values() for one in vrf.attachments}
        sides = [one for vrf in outbound.vrfs.values() for one in vrf.attachments]
        self._labelled = {one.name: one for one in sides if one.labels is not Labels.NONE}
        self._waiting: dict[tuple[str, Serves], deque[_Waiting]] = {}
        self._handed_over: dict[str, list[bytes]] = {}
        self._audit_at = float("-inf")
        self._replies = _ReplyLimit()

    # --- outbound

    def receive_packets(self, attachment: str, packets: Iterable[bytes], now: float) -> None:
        """IP packets from a customer; label stacks with IP packets where the attachment is labelled."""
        runs = _Runs(partial(self._send_run, now=now))
        forward = self._walk_from(attachment)
        for packet in packets:
            self._send(forward(attachment, packet), attachment, packet, runs, now)
        self._flush(runs)

    def _walk_from(self, attachment: str) -> Callable[[str, bytes], Labelled | Bypassed | Drop]:
        return self._outbound.forward_labelled if attachment in self._labelled else self._outbound.forward

    def flush_waiting(self, peer: str, serves: Serves, now: float) -> None:
        """A child or a label came: send what waits for it."""
        waiting = self._waiting.pop((peer, serves), None)
        if waiting is None:
            return
        runs = _Runs(partial(self._send_run, now=now))
        for one in waiting:
            outcome = self._walk_from(one.attachment)(one.attachment, one.packet)
            self._send(outcome, one.attachment, one.packet, runs, now, one.until)
        self._flush(runs)

    def drop_waiting(self, peer: str, reason: DropReason) -> None:
        """Nothing will come: drop what waits for this peer."""
        for key in [key for key in self._waiting if key[0] == peer]:
            self.drops[reason] += len(self._waiting.pop(key))

    def expire(self, now: float) -> None:
        for key, waiting in list(self._waiting.items()):
            while waiting and waiting[0].until <= now:
                self.drops[waiting.popleft().reason] += 1
            if not waiting:
                del self._waiting[key]

    def next_deadline(self) -> float | None:
        return min((waiting[0].until for waiting in self._waiting.values() if waiting), default=None)

    def _send(
        self,
        outcome: Labelled | Bypassed | Drop,
        attachment: str | None,
        packet: bytes,
        runs: _Runs,
        now: float,
        until: float | None = None,
    ) -> None:
        """`until`: how long the packet may still wait, if it has waited already."""
        until = now + WAITING_S if until is None else until
        match outcome:
            case Labelled():
                way = outcome.way
                if way != runs.way or runs.child is None:
                    where = (outcome.peer, outcome.vrf, outcome.label_class)
                    child = self._children.sender(*where, outcome.label)
                    if child is None:
                        key = (outcome.peer, (outcome.vrf, outcome.label_class))
                        self._wait(key, attachment, packet, DropReason.NO_CHILD, until)
                        return
                    outside = check_outbound(child.outbound_map, outcome, child.encapsulator.encapsulation)
                    if outside is not None:
                        self._count(outside, child)
                        return
                    runs.way, runs.child = way, child
                self._protect(outcome, runs.child, attachment, runs, now)
            case Bypassed():
                self._deliver_locally(outcome)
            case Drop(reason=DropReason.NO_LABEL, peer=str(peer), vrf=str(vrf), label_class=label_class) if (
                label_class is not None
            ):
                self._wait((peer, (vrf, label_class)), attachment, packet, DropReason.NO_LABEL, until)
            case Drop():
                self._drop_outbound(outcome, attachment, now)

    def _protect(
        self, labelled: Labelled, child: Child, attachment: str | None, runs: _Runs, now: float
    ) -> None:
        """`labelled` is inside the child's map; see that it fits and add it to a run."""
        too_big = self._outbound.check_size(labelled, child.budget.tunnel_mtu)
        if too_big is not None:
            child.drops[too_big.reason] += 1
            self._drop_outbound(too_big, attachment, now)
            return
        if child.outbound_map is None:
            outside = check_plain(child.policy, labelled.body)
            if outside is not None:
                self._count(outside, child)
                return
        next_header, payload = child.encapsulator.encapsulate(labelled.stack, labelled.body, labelled.dscp)
        runs.add(child, labelled.dscp << 2, next_header, payload)

    def _send_run(self, run: _Run, payloads: list[bytes], *, now: float) -> None:
        """Seal the payloads of a run and send them."""
        child = run.child
        packets = seal_batch(child.outbound, payloads, run.next_header)
        if packets:
            self._underlay.send_esp(child.path, packets, udp=child.sa.udp_encapsulation, tos=run.tos)
            self._owner.on_outbound(child, now)
        unsent = len(payloads) - len(packets)
        if unsent:
            expired = child.outbound.has_expired
            reason = EspDropReason.LIFETIME if expired else EspDropReason.SEQUENCE_EXHAUSTED
            self.drops[reason] += unsent
            child.drops[reason] += unsent
        self._check_lifetime(child, now)

    def _check_lifetime(self, child: Child, now: float) -> None:
        if child.soft.has_come(child.inbound, child.outbound):
            child.soft.put_off(child.inbound, child.outbound)
            self._owner.on_lifetime(child, now)

    def _wait(
        self,
        key: tuple[str, Serves],
        attachment: str | None,
        packet: bytes,
        reason: DropReason,
        until: float,
    ) -> None:
        if attachment is None:
            self.drops[reason] += 1
            return
        if not self._owner.ask(*key):
            self.drops[DropReason.CLASS_DOWN if reason is DropReason.NO_CHILD else reason] += 1
            return
        waiting = self._waiting.get(key)
        if waiting is None:
            if len(self._waiting) >= WAITING_QUEUES:
                self.drops[DropReason.QUEUE_FULL] += 1
                return
            waiting = self._waiting[key] = deque()
        if len(waiting) >= WAITING_PACKETS:
            waiting.popleft()
            self.drops[DropReason.QUEUE_FULL] += 1
        waiting.append(_Waiting(attachment, packet, until, reason))

    def _drop_outbound(self, drop: Drop, attachment: str | None, now: float) -> None:
        self.drops[drop.reason] += 1
        if drop.reply is not None and attachment is not None and self._replies.take(drop.vrf or "", now):
            self._hand_over(attachment, drop.reply)

    def _deliver_locally(self, bypassed: Bypassed) -> None:
        """A rule or a leak lets the packet pass without ESP: nothing of it reaches the underlay."""
        name = bypassed.vrf or self._vrf_of.get(bypassed.attachment or "", "")
        vrf = self._outbound.vrfs.get(name)
        target = vrf.attachment_for(_destination(bypassed.packet)) if vrf is not None else None
        if target is None or target == bypassed.attachment:
            self.drops[DropReason.NO_ROUTE] += 1
        elif bypassed.stack and vrf is not None and vrf.labels_of(target) is not Labels.KEEP:
            self.drops[DropReason.INNER_LABEL] += 1
        else:
            self._hand_over(target, bypassed.packet, bypassed.stack)

    def _hand_over(self, attachment: str, packet: bytes, stack: bytes = b"", tc: int = 0) -> None:
        """Give an IP packet to an attachment, under the labels that a router there is to see.

        It gets there at the end of the batch, see `_flush`.
        """
        side = self._labelled.get(attachment)
        packet = packet if side is None else stack_toward(side, stack, tc, packet) + packet
        self._handed_over.setdefault(attachment, []).append(packet)

    # --- inbound

    def receive_esp(self, packets: Iterable[EspArrival], now: float) -> None:
        """ESP packets with where they came from and to."""
        runs = _Runs(partial(self._send_run, now=now))
        heard: set[bytes] = set()
        arrived = list(packets)
        outcomes = receive_batch(self._children.sad, [packet for packet, _, _ in arrived])
        for (packet, peer, destination), opened in zip(arrived, outcomes, strict=True):
            spi = packet[:4]
            child = self._children.get(spi)
            if isinstance(opened, EspDropReason):
                self._count(opened, child)
                continue
            if child is None:
                self.drops[EspDropReason.UNKNOWN_SPI] += 1
                continue
            if spi not in heard:
                heard.add(spi)
                if child.sa.udp_encapsulation:
                    self._follow(child, arrived, outcomes, now)
                self._owner.on_inbound(child, now)
                self._check_lifetime(child, now)
            source = peer[0]
            outcome = check_inbound(
                child.policy,
                self._labels,
                opened.next_header,
                opened.payload,
                source,
                destination,
                self._outbound.vrfs,
            )
            if self.observe is not None:
                self.observe(child, Received(child.inbound, opened), outcome)
            if isinstance(outcome, Delivery):
                self._deliver_to(outcome)
            else:
                self._drop_inbound(outcome, child, source, destination, runs, now)
        self._flush(runs)

    def _flush(self, runs: _Runs) -> None:
        """The end of a batch."""
        runs.flush()
        while self._handed_over:
            self._deliver(*self._handed_over.popitem())

    def _follow(
        self, child: Child, arrived: Sequence[EspArrival], outcomes: Sequence[Outcome], now: float
    ) -> None:
        """Tell where the newest packet of a child came from, before any is judged by it (RFC 7296 2.23).

        Of all packets only the one at the head of the replay window counts: it cannot be an old one repeated.
        """
        if all(peer == child.path.peer for _, peer, _ in arrived) or not child.inbound.replay.size:
            return
        spi, head = child.sa.spi_in, child.inbound.replay.highest
        for (packet, peer, local), opened in zip(arrived, outcomes, strict=True):
            is_head = not isinstance(opened, EspDropReason) and opened.sequence == head
            if is_head and packet[:4] == spi and peer[1] and peer != child.path.peer:
                self._owner.on_inbound_path(child, Path((local, child.path.local[1]), peer), now)

    def receive_cleartext(self, protocol: int, payload: bytes) -> None:
        """An IP packet of the underlay that did not come out of ESP (RFC 4023 8.1): MPLS in it is dropped."""
        if is_cleartext_mpls(protocol, payload):
            self.drops[DropReason.CLEARTEXT_MPLS] += 1

    def _deliver_to(self, delivery: Delivery) -> None:
        attachment = self._attachment_for(delivery)
        if attachment is None:
            self.drops[DropReason.NO_ROUTE] += 1
            return
        self.delivered += 1
        self._hand_over(attachment, delivery.packet, delivery.stack, delivery.tc)

    def _attachment_for(self, delivery: Delivery) -> str | None:
        """Of the VRF that the label names, or of the one that a leak leads to."""
        vrf = self._outbound.vrfs.get(delivery.vrf)
        if vrf is None:
            return None
        destination = _destination(delivery.packet)
        inside = self._outbound.leads_to(vrf, destination)
        if inside is vrf:
            return vrf.attachment_for(destination)
        return inside.attachment_for(destination) if inside.is_local(destination) else None

    def _drop_inbound(
        self, drop: Drop, child: Child, source: str, destination: str, runs: _Runs, now: float
    ) -> None:
        self._count(drop.reason, child)
        if drop.reason is DropReason.LABEL_FOREIGN and now - self._audit_at >= 1 / AUDITS_PER_S:
            self._audit_at = now
            _log.warning(
                "label_foreign on SPI %s of child %s, peer %s (%s to %s): %s",
                child.sa.spi_in.hex(),
                child.kind.name,
                child.peer,
                source,
                destination,
                drop.detail,
            )
        if drop.reply is not None and drop.vrf is not None and self._replies.take(drop.vrf, now):
            self._send(self._outbound.originate(drop.vrf, drop.reply), None, drop.reply, runs, now)

    def _count(self, reason: str, child: Child | None) -> None:
        self.drops[reason] += 1
        if child is not None:
            child.drops[reason] += 1


class _Run(NamedTuple):
    """What packets that leave together have in common; `tos` is that of the outer header."""

    child: Child
    tos: int
    next_header: int


class _Runs:
    """Payloads on their way out: those in a row of one run are sealed and leave together, in order.

    `way` is the last that was found to be inside the map of a child, which is `child`.
    """

    def __init__(self, send: Callable[[_Run, list[bytes]], None]) -> None:
        self.way: Way | None = None
        self.child: Child | None = None
        self._send = send
        self._run: _Run | None = None
        self._payloads: list[bytes] = []

    def add(self, child: Child, tos: int, next_header: int, payload: bytes) -> None:
        run = self._run
        if run is None or child is not run.child or tos != run.tos or next_header != run.next_header:
            self.flush()
            self._run = _Run(child, tos, next_header)
        self._payloads.append(payload)

    def flush(self) -> None:
        if self._run is not None and self._payloads:
            payloads, self._payloads = self._payloads, []
            self._send(self._run, payloads)


def _destination(packet: bytes) -> bytes:
    """The packed destination address of an IP packet that `mpls` has checked."""
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
