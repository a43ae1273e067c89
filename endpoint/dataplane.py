"""The data plane: customer packets into ESP and back, a batch at a time. `mpls` and `esp` decide, this moves.

It must not know IKE messages or sockets; the underlay and the attachments are callables.

    outbound  attachment -> mpls.outbound: VRF, class, peer, label -> child -> map and MTU -> encapsulate
              -> one sealing and one send for each run of packets of one child;   no child or no label yet: wait,
              ask for it
    inbound   ESP packet -> SPI, replay, ICV -> mpls.inbound: the egress check -> attachment of the VRF
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from endpoint.children import Child, ChildTable
from endpoint.plan import Serves
from esp.batch import Outcome, Row, receive_batch, seal_batch
from esp.engine import Received
from esp.errors import DropReason as EspDropReason
from esp.tfc import pad_to
from ike import Path
from mpls.batch import Delivered, Forwarded, check_inbound_batch, forward_batch
from mpls.drops import SELECTOR_MISMATCHES, DropReason
from mpls.encapsulation import NO_NEXT_HEADER, is_cleartext_mpls
from mpls.fit import clamp_mss, fit
from mpls.hop import Drop, time_exceeded
from mpls.inbound import Delivery
from mpls.inside import stack_toward
from mpls.label_space import LabelSpace
from mpls.models import UNKNOWN_OUTER, Ecn, OuterFields, QosModel, copy_inward, is_alarming
from mpls.outbound import Bypassed, Labelled, Outbound, Way, check_outbound
from mpls.plain import check_plain
from mpls.vrf import Labels

__all__ = ["DataPlane", "Deliver", "EspArrival", "Owner", "Underlay"]

_log = logging.getLogger("mplsec.dataplane")

WAITING_PACKETS = 64
"""For one (peer, VRF, class); the oldest go first."""
WAITING_S = 10.0
WAITING_QUEUES = 1024
AUDITS_PER_S = 1.0
LARGEST_PATH_OCTETS = 65_000
"""Of a tunnel packet, before it is fragmented on its way."""
REPLIES_PER_S = 100.0
"""ICMP errors into one VRF, and as many at once (RFC 4443 2.4 (f))."""


class EspArrival(NamedTuple):
    """ESP packets in a row, where they came from (port 0: outside UDP), and the local address they came to.

    `outer`: fields of their outer headers, where these count.
    """

    packets: Sequence[bytes]
    peer: tuple[str, int]
    local: str
    outer: OuterFields = UNKNOWN_OUTER


Deliver: TypeAlias = Callable[[str, list[bytes]], None]
"""Takes packets for an attachment, in their order."""


class Underlay(Protocol):
    """Where ESP leaves."""

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
        """Send ESP packets along `path`, in UDP or as protocol 50; `tos` is DSCP and ECN of the outer header.

        TTL 0 is that of the system. DF is set unless `may_fragment`.
        """


class Owner(Protocol):
    """Whom the data plane asks and tells."""

    def ask(self, peer: str, serves: Serves) -> bool:
        """A packet waits for a child or a label; False: nothing will come of it."""

    def on_inbound(self, child: Child, source: str, now: float) -> None:
        """Authentic traffic came in on this child from that address."""

    def on_lifetime(self, child: Child, now: float) -> None:
        """The child's lifetime in packets or octets has come, the soft or the hard one."""

    def on_inbound_path(self, child: Child, path: Path, now: float) -> None:
        """The newest authentic packet of this child came in UDP, and over another path than ours goes out."""

    def on_outbound(self, child: Child, now: float) -> None:
        """Packets left on this child."""

    def on_selector_mismatch(self, child: Child, packet: bytes, now: float) -> None:
        """An authentic packet, without its ESP, is not what this child is for."""

    def on_unknown_spi(self, spi: bytes, peer: tuple[str, int], local: str, now: float) -> None:
        """A packet with an SPI that no child has came from `peer`, port 0 if not in UDP, to the address `local`."""


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
        self.ecn_alarms = 0
        """Packets with an ECN field outside that no tunnel makes (RFC 6040 4.2)."""
        self.observe: Callable[[Child, Received, Delivery | Drop], None] | None = None
        self._outbound, self._labels, self._children = outbound, labels, children
        self._underlay, self._owner, self._deliver = underlay, owner, deliver
        self._vrf_of = {one.name: vrf.name for vrf in outbound.vrfs.values() for one in vrf.attachments}
        sides = [one for vrf in outbound.vrfs.values() for one in vrf.attachments]
        self._labelled = {one.name: one for one in sides if one.labels is not Labels.NONE}
        self._has_models = outbound.has_models
        self._waiting: dict[tuple[str, Serves], deque[_Waiting]] = {}
        self._handed_over: dict[str, list[bytes]] = {}
        self._audit_at = float("-inf")
        self._replies = _ReplyLimit()

    # --- outbound

    def receive_packets(self, attachment: str, packets: Sequence[bytes], now: float) -> None:
        """IP packets from a customer; label stacks with IP packets where the attachment is labelled."""
        runs = _Runs(partial(self._send_run, now=now))
        if attachment in self._labelled:
            for packet in packets:
                self._send(self._forward(attachment, packet), attachment, runs, now)
        else:
            for forwarded in forward_batch(self._outbound, attachment, packets):
                self._send(forwarded, attachment, runs, now)
        self._flush(runs)

    def _forward(self, attachment: str, packet: bytes) -> Forwarded:
        is_labelled = attachment in self._labelled
        walk = self._outbound.forward_labelled if is_labelled else self._outbound.forward
        return Forwarded.of(walk(attachment, packet), packet)

    def flush_waiting(self, peer: str, serves: Serves, now: float) -> None:
        """A child or a label came: send what waits for it."""
        waiting = self._waiting.pop((peer, serves), None)
        if waiting is None:
            return
        runs = _Runs(partial(self._send_run, now=now))
        for one in waiting:
            self._send(self._forward(one.attachment, one.packet), one.attachment, runs, now, one.until)
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
        forwarded: Forwarded,
        attachment: str | None,
        runs: _Runs,
        now: float,
        until: float | None = None,
    ) -> None:
        """`until`: how long the packets may still wait, if they have waited already."""
        until = now + WAITING_S if until is None else until
        match forwarded.first:
            case Labelled() as labelled:
                way = labelled.way
                if way != runs.way or runs.child is None:
                    serves = labelled.vrf, labelled.label_class
                    child = self._children.sender(labelled.peer, *serves, labelled.label)
                    if child is None:
                        key = (labelled.peer, serves)
                        for packet in forwarded.packets:
                            self._wait(key, attachment, packet, DropReason.NO_CHILD, until)
                        return
                    outside = check_outbound(child.outbound_map, labelled, child.encapsulator.encapsulation)
                    if outside is not None:
                        self._count(outside, child, len(forwarded.packets))
                        return
                    runs.way, runs.child = way, child
                self._protect(labelled, forwarded, runs.child, attachment, runs, now)
            case Bypassed() as bypassed:
                self._deliver_locally(bypassed)
            case Drop(reason=DropReason.NO_LABEL, peer=str(peer), vrf=str(vrf), label_class=label_class) if (
                label_class is not None
            ):
                (packet,) = forwarded.packets
                self._wait((peer, (vrf, label_class)), attachment, packet, DropReason.NO_LABEL, until)
            case Drop() as drop:
                self._drop_outbound(drop, attachment, now)

    def _protect(
        self,
        labelled: Labelled,
        forwarded: Forwarded,
        child: Child,
        attachment: str | None,
        runs: _Runs,
        now: float,
    ) -> None:
        """`labelled` is inside the child's map: add those of its bodies that fit, or are made to fit, to a run.

        All bodies are of one flow, so what is right for the header of one is right for all.
        """
        fitting = child.plan.peer.fitting
        if child.outbound_map is None:
            outside = check_plain(child.policy, labelled.body)
            if outside is not None:
                self._count(outside, child, len(forwarded.packets))
                return
        may_fragment = fitting.may_be_fragmented(labelled.body)
        room = mss_room = child.budget.tunnel_mtu - len(labelled.stack)
        if may_fragment:
            room = LARGEST_PATH_OCTETS - child.budget.path_mtu + room
        encapsulated = _as_they_are(forwarded, child, labelled.stack, room, mss_room)
        if encapsulated is None:
            bodies = forwarded.bodies
            if fitting.clamp_mss:
                bodies = clamp_mss(bodies, mss_room)
            bodies, too_big = fit(fitting, bodies, room)
            for body in too_big:
                drop = self._outbound.check_size(labelled._replace(body=body), room + len(labelled.stack))
                if drop is not None:
                    child.drops[drop.reason] += 1
                    self._drop_outbound(drop, attachment, now)
            if not bodies:
                return
            encapsulated = child.encapsulator.encapsulate_batch(labelled.stack, bodies, labelled.dscp)
        tos = labelled.dscp << 2
        if child.plan.peer.ecn is Ecn.COPY:
            tos |= labelled.ecn
        runs.add(child, OuterFields(tos, labelled.ttl), may_fragment, *encapsulated)

    def _send_run(self, run: _Run, payloads: list[bytes], *, now: float) -> None:
        """Seal the payloads of a run and send them."""
        child = run.child
        if child.tfc_octets:
            payloads = pad_to(payloads, child.tfc_octets)
        packets = seal_batch(child.outbound, payloads, run.next_header)
        if packets:
            self._underlay.send_esp(
                child.path,
                packets,
                udp=child.sa.udp_encapsulation,
                tos=run.outer.tos,
                ttl=run.outer.ttl,
                may_fragment=run.may_fragment,
            )
            self._owner.on_outbound(child, now)
        unsent = len(payloads) - len(packets)
        if unsent:
            expired = child.outbound.has_expired
            reason = EspDropReason.LIFETIME if expired else EspDropReason.SEQUENCE_EXHAUSTED
            self.drops[reason] += unsent
            child.drops[reason] += unsent
        self._check_lifetime(child, now)

    def send_dummies(self, child: Child, sizes: Sequence[int], now: float) -> None:
        """Dummies (RFC 4303 2.6) of these lengths, octets of ESP, with DF; no data have to be there."""
        transform = child.outbound.transform
        least = transform.packet_octets(0)
        packets = [
            packet
            for size in sizes
            for packet in seal_batch(child.outbound, [bytes(max(0, size - least))], NO_NEXT_HEADER)
        ]
        if packets:
            self._underlay.send_esp(child.path, packets, udp=child.sa.udp_encapsulation, tos=0)
        child.dummies_out += len(packets)
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
            self._hand_over(attachment, [drop.reply])

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
            self._hand_over(target, [bypassed.packet], bypassed.stack)

    def _hand_over(self, attachment: str, packets: list[bytes], stack: bytes = b"", tc: int = 0) -> None:
        """Give IP packets to an attachment, under the labels that a router there is to see.

        They get there at the end of the batch, see `_flush`.
        """
        side = self._labelled.get(attachment)
        if side is not None:
            packets = [stack_toward(side, stack, tc, packet) + packet for packet in packets]
        self._handed_over.setdefault(attachment, []).extend(packets)

    # --- inbound

    def receive_esp(self, arrivals: Iterable[EspArrival], now: float) -> None:
        """ESP packets with where they came from and to."""
        runs = _Runs(partial(self._send_run, now=now))
        heard: set[bytes] = set()
        opened: list[_Opened] = []
        for packets, peer, local, outer in arrivals:
            of_spis = [
                _Opened(*one, peer, local, outer) for one in receive_batch(self._children.sad, packets)
            ]
            opened += of_spis
            if outer.fragment or any(EspDropReason.DUMMY in one.outcomes for one in of_spis):
                self._note_dummies(packets, of_spis)
        for one in opened:
            child = self._children.get(one.spi)
            for outcome in one.outcomes:
                if isinstance(outcome, EspDropReason):
                    self._count(outcome, child)
                    if outcome is EspDropReason.UNKNOWN_SPI:
                        self._owner.on_unknown_spi(one.spi, one.peer, one.local, now)
                    continue
                if child is None:
                    self.drops[EspDropReason.UNKNOWN_SPI] += len(outcome.octets)
                    continue
                if one.spi not in heard:
                    heard.add(one.spi)
                    if child.sa.udp_encapsulation:
                        self._follow(child, opened, now)
                    self._owner.on_inbound(child, one.peer[0], now)
                    self._check_lifetime(child, now)
                self._judge(child, outcome, one, runs, now)
        self._flush(runs)

    def _note_dummies(self, packets: Sequence[bytes], opened: Sequence[_Opened]) -> None:
        """What became of these packets, in their order: the lengths of dummies, and who came in fragments."""
        at = 0
        for one in opened:
            child = self._children.get(one.spi)
            for outcome in one.outcomes:
                is_row = isinstance(outcome, Row)
                if child is not None and (is_row or outcome is EspDropReason.DUMMY):
                    child.fragmented += bool(one.outer.fragment)
                    if not is_row:
                        child.note_dummy(len(packets[at]), one.outer.fragment)
                at += len(outcome.octets) if isinstance(outcome, Row) else 1

    def _judge(self, child: Child, row: Row, came: _Opened, runs: _Runs, now: float) -> None:
        """Authentic packets: the egress check, and on to the customer."""
        source, destination = came.peer[0], came.local
        judged = check_inbound_batch(
            child.policy,
            self._labels,
            row.next_header,
            row.octets,
            source,
            destination,
            self._outbound.vrfs,
            row.behind,
        )
        if self.observe is not None:
            judged = self._observed(child, row, judged)
        at = 0
        for one in judged:
            number, at = at, at + max(1, len(one.packets))
            if isinstance(one.first, Delivery):
                marked = self._from_outer(child, one.first, one.packets, came.outer)
                if isinstance(marked, Drop):
                    self._drop_inbound(marked, child, source, destination, runs, now, len(one.packets))
                    continue
                delivery, packets = marked
                if child.plan.peer.fitting.clamp_mss:
                    # What the peer's customer is told to send comes back by a child of the same budget.
                    packets = clamp_mss(packets, child.budget.vrf_mtu - len(delivery.stack))
                self._deliver_to(delivery, packets)
            else:
                self._drop_inbound(one.first, child, source, destination, runs, now)
                if one.first.reason in SELECTOR_MISMATCHES:
                    self._owner.on_selector_mismatch(child, row.payloads[number], now)

    def _from_outer(
        self, child: Child, delivery: Delivery, packets: list[bytes], outer: OuterFields
    ) -> tuple[Delivery, list[bytes]] | Drop:
        """A row of packets after what DSCP, ECN and TTL outside mean to them, by the models configured."""
        ecn, where = child.plan.peer.ecn, (delivery.vrf, delivery.label_class)
        if not (self._has_models or ecn is Ecn.COPY):
            return delivery, packets
        ttl = self._outbound.ttl_model(delivery.vrf, child.peer)
        qos = self._outbound.qos_model(*where, child.peer)
        if qos is QosModel.SHORT_PIPE:
            delivery = delivery._replace(tc=self._outbound.tc_of(*where, packets[0]))
        if ecn is Ecn.COPY and is_alarming(packets[0], outer):
            self.ecn_alarms += len(packets)
        marked = copy_inward(packets, outer, ecn=ecn, qos=qos, ttl=ttl, label_ttl=delivery.label_ttl)
        if not isinstance(marked, DropReason):
            return delivery, marked
        is_expired = marked is DropReason.TTL_EXPIRED
        reply = time_exceeded(self._outbound.vrfs.get(delivery.vrf), packets[0]) if is_expired else None
        return Drop(marked, *where, child.peer, reply)

    def _observed(self, child: Child, row: Row, judged: Iterable[Delivered]) -> Iterator[Delivered]:
        packets = iter(row.packets)
        for one in judged:
            first = one.first
            outcomes: list[Delivery | Drop] = [first]
            if isinstance(first, Delivery):
                outcomes = [first._replace(packet=packet) for packet in one.packets]
            for outcome in outcomes:
                if self.observe is not None:
                    self.observe(child, Received(child.inbound, next(packets)), outcome)
            yield one

    def _flush(self, runs: _Runs) -> None:
        """The end of a batch."""
        runs.flush()
        while self._handed_over:
            self._deliver(*self._handed_over.popitem())

    def _follow(self, child: Child, opened: Sequence[_Opened], now: float) -> None:
        """Tell where the newest packet of a child came from, before any is judged by it (RFC 7296 2.23).

        Of all packets only the one at the head of the replay window counts: it cannot be an old one repeated.
        """
        if not child.inbound.replay.size:
            return
        spi, head = child.sa.spi_in, child.inbound.replay.highest
        for one in opened:
            if one.spi == spi and one.peer != child.path.peer and one.peer[1] and one.has(head):
                path = Path((one.local, child.path.local[1]), one.peer)
                self._owner.on_inbound_path(child, path, now)

    def receive_cleartext(self, protocol: int, payload: bytes) -> None:
        """An IP packet of the underlay that did not come out of ESP (RFC 4023 8.1): MPLS in it is dropped."""
        if is_cleartext_mpls(protocol, payload):
            self.drops[DropReason.CLEARTEXT_MPLS] += 1

    def _deliver_to(self, delivery: Delivery, packets: list[bytes]) -> None:
        attachment = self._attachment_for(delivery)
        if attachment is None:
            self.drops[DropReason.NO_ROUTE] += 1
            return
        self.delivered += len(packets)
        self._hand_over(attachment, packets, delivery.stack, delivery.tc)

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
        self,
        drop: Drop,
        child: Child,
        source: str,
        destination: str,
        runs: _Runs,
        now: float,
        packets: int = 1,
    ) -> None:
        self._count(drop.reason, child, packets)
        if drop.reason in SELECTOR_MISMATCHES and now - self._audit_at >= 1 / AUDITS_PER_S:
            self._audit_at = now
            _log.warning(
                "%s on SPI %s of child %s, peer %s (%s to %s): %s",
                drop.reason,
                child.sa.spi_in.hex(),
                child.kind.name,
                child.peer,
                source,
                destination,
                drop.detail or "not what this SA is for",
            )
        if drop.reply is not None and drop.vrf is not None and self._replies.take(drop.vrf, now):
            reply = Forwarded.of(self._outbound.originate(drop.vrf, drop.reply), drop.reply)
            self._send(reply, None, runs, now)

    def _count(self, reason: str, child: Child | None, packets: int = 1) -> None:
        self.drops[reason] += packets
        if child is not None:
            child.drops[reason] += packets


class _Opened(NamedTuple):
    """What became of packets in a row of one SPI, and where they came from and to."""

    spi: bytes
    outcomes: list[Outcome]
    peer: tuple[str, int]
    local: str
    outer: OuterFields

    def has(self, sequence: int) -> bool:
        """Whether an authentic packet with that number is among them."""
        rows = (one for one in self.outcomes if isinstance(one, Row))
        return any(row.sequence <= sequence < row.sequence + len(row.octets) for row in rows)


class _Run(NamedTuple):
    """What packets that leave together have in common; `outer` and `may_fragment` (no DF) are of the outer header."""

    child: Child
    outer: OuterFields
    may_fragment: bool
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

    def add(
        self, child: Child, outer: OuterFields, may_fragment: bool, next_header: int, payloads: list[bytes]
    ) -> None:
        run = self._run
        if (
            run is None
            or child is not run.child
            or outer != run.outer
            or next_header != run.next_header
            or may_fragment is not run.may_fragment
        ):
            self.flush()
            self._run = _Run(child, outer, may_fragment, next_header)
        self._payloads += payloads

    def flush(self) -> None:
        if self._run is not None and self._payloads:
            payloads, self._payloads = self._payloads, []
            self._send(self._run, payloads)


def _as_they_are(
    forwarded: Forwarded, child: Child, stack: bytes, room: int, mss_room: int
) -> tuple[int, list[bytes]] | None:
    """Next header and payloads of packets of which nothing is changed but their TTL; None: a closer look is needed."""
    packets, wrapper = forwarded.packets, child.encapsulator.wrapper(stack)
    if wrapper is None or len(packets) == 1 or max(map(len, packets)) > room:
        return None
    if child.plan.peer.fitting.clamp_mss and clamp_mss(packets, mss_room) is not packets:
        return None
    next_header, front = wrapper
    return next_header, forwarded.bodies_behind(front)


def _destination(packet: bytes) -> bytes:
    """The packed destination address of an IP packet that `mpls` has checked."""
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
