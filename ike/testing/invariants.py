"""What must hold at every moment between two honest engines, whatever the network does (RFC 7296 2.3, 2.8, 2.25).

Judges from outside: events, datagrams, trace, snapshots. Must not know how an engine works. Raises InvariantError.

* A packet sent by the owner's rules can be opened by the peer, unless the child is new and the grant still on its
  way, or somebody has asked for its end and the word is on its way.
* The two halves of a child agree: SPIs, keys, selectors, mode. None is without a session that is established.
* Requests stay in the window, in order of their Message IDs; what is repeated is repeated octet by octet; a
  response answers a request that arrived; nothing is asked on an IKE SA after its Delete.
* In the end, when the network is good again: what was asked for last is so, both ends have the same, nothing is left.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from ike.events import (
    ChildSaClosed,
    ChildSaEstablished,
    ChildSaFailed,
    CloseReason,
    Datagram,
    Direction,
    Event,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaRekeyed,
)
from ike.numbers import ExchangeType, PayloadType
from ike.testing.owner import InvariantError, Owner, require
from ike.testing.pair import Pair, Side
from ike.wire.message import Header

__all__ = ["InvariantError", "Invariants"]

IkeSpis = tuple[bytes, bytes]


@dataclass(slots=True)
class Requests:
    """The requests of one end on one IKE SA, as the wire shows them."""

    next_id: int | None = None
    in_flight: dict[int, set[bytes]] = field(default_factory=dict)
    arrived: set[int] = field(default_factory=set)
    """At the other end."""
    responses: dict[int, set[bytes]] = field(default_factory=dict)
    is_finished: bool = False


@dataclass(slots=True)
class Lineage:
    """A child and all that replaced it by rekey, on both ends."""

    members: set[bytes] = field(default_factory=set)
    sessions: set[tuple[str, int]] = field(default_factory=set)
    """(end, number)"""
    was_touched: bool = False
    """Somebody has deleted a member of it."""
    is_unwanted: bool = False
    """Somebody has deleted all of it that he knew."""


class Invariants:
    """Watches a pair from now on. Commands go through it, so that it knows what was wanted.

    `window`: the most requests that either end may have in flight (RFC 7296 2.3). `joins_late`: the pair has talked
    already; then hand in the events so far by `on_event`.
    """

    def __init__(self, pair: Pair, *, window: int = 1, joins_late: bool = False) -> None:
        self.pair = pair
        self.window = window
        self._first_ids = range(2**32) if joins_late else range(2)
        self.owners = {side.name: Owner(side.name, pair.clock) for side in (pair.left, pair.right)}
        self.early = 0
        """Moments at which an end would have sent on a new child whose grant was still on its way."""
        self._requests: defaultdict[tuple[IkeSpis, str], Requests] = defaultdict(Requests)
        self._doomed: set[bytes] = set()
        self._closed: dict[tuple[str, bytes], CloseReason] = {}
        self._lineages: dict[bytes, Lineage] = {}
        self._creates: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._current: dict[tuple[str, int], IkeSpis] = {}
        self._unwanted_ike: set[IkeSpis] = set()
        self._unwanted_children: set[bytes] = set()
        self._traced = {side.name: len(side.trace) for side in (pair.left, pair.right)}
        pair.observers.append(self)

    # --- commands

    def create_child(self, side: Side, session: int, child: str) -> None:
        self._creates[side.name] += 1
        side.engine.create_child(session, child, self.pair.now)

    def rekey_child(self, side: Side, session: int, spi_in: bytes) -> None:
        self._unwanted_children.add(spi_in)
        side.engine.rekey_child(session, spi_in, self.pair.now)

    def delete_child(self, side: Side, session: int, spi_in: bytes) -> None:
        owner = self.owners[side.name]
        child = owner.installed[spi_in].sa
        self._unwanted_children.add(spi_in)
        lineage = self._lineages[spi_in]
        lineage.was_touched = True
        known = [one for one in owner.open_children() if one.sa.spi_in in lineage.members]
        if len(known) == 1:
            lineage.is_unwanted = True
            self._doomed.update(lineage.members)
        self._doomed.update((child.spi_in, child.spi_out))
        side.engine.delete_child(session, spi_in, self.pair.now)

    def rekey_ike_sa(self, side: Side, session: int) -> None:
        self._unwanted_ike.add(self._current[side.name, session])
        side.engine.rekey_ike_sa(session, self.pair.now)

    def delete_ike_sa(self, side: Side, session: int) -> None:
        if (side.name, session) in self._current:
            self._unwanted_ike.add(self._current[side.name, session])
        side.engine.delete_ike_sa(session, self.pair.now)

    def reauthenticate(self, side: Side, session: int) -> None:
        self._unwanted_ike.add(self._current[side.name, session])
        side.engine.reauthenticate(session, self.pair.now)

    # --- observing

    def on_event(self, side: Side, event: Event) -> None:
        self.owners[side.name].handle(event)
        match event:
            case IkeSaEstablished():
                self._current[side.name, event.session] = (event.spi_i, event.spi_r)
            case IkeSaRekeyed():
                old = self._current[side.name, event.session]
                require(old == (event.old_spi_i, event.old_spi_r), f"{side.name}: {event} is not of {old}")
                self._current[side.name, event.session] = (event.spi_i, event.spi_r)
            case IkeSaClosed():
                self._current.pop((side.name, event.session), None)
            case ChildSaFailed():
                self._answers[side.name] += 1
            case ChildSaEstablished():
                self._on_child(side, event)
            case ChildSaClosed():
                self._closed[side.name, event.spi_in] = event.reason

    def _on_child(self, side: Side, event: ChildSaEstablished) -> None:
        sa = event.child
        lineage = self._lineages.get(sa.spi_out)
        if event.replaces is not None:
            parent = self._lineages[event.replaces]
            require(lineage in (None, parent), f"{side.name}: {sa.spi_in.hex()} replaces different children")
            lineage = parent
        elif sa.is_creator:
            self._answers[side.name] += 1
        lineage = lineage or Lineage()
        lineage.sessions.add((side.name, event.session))
        for spi in (sa.spi_in, sa.spi_out):
            self._lineages[spi] = lineage
            lineage.members.add(spi)
            if lineage.is_unwanted:
                self._doomed.add(spi)

    def on_sent(self, side: Side, datagram: Datagram) -> None:
        if datagram.is_keepalive:
            return
        header = Header.parse(datagram.data)
        if header.exchange == ExchangeType.IKE_SA_INIT or header.next_payload == PayloadType.NOTIFY:
            return  # the latter: INVALID_IKE_SPI, unprotected
        where = f"{side.name}: {_name(header)}"
        sent = self._requests[
            (header.spi_i, header.spi_r), (self._other(side) if header.is_response else side).name
        ]
        is_fragment = header.next_payload == PayloadType.SKF
        number = header.message_id
        if header.is_response:
            require(number in sent.arrived, f"{where} answers a request that never arrived")
            said = sent.responses.setdefault(number, {datagram.data})
            require(is_fragment or datagram.data in said, f"{where} is another answer than before")
        elif number in sent.in_flight:
            same = datagram.data in sent.in_flight[number]
            require(same or is_fragment, f"{where} is repeated in other octets")
            sent.in_flight[number].add(datagram.data)
        else:
            expected = self._first_ids if sent.next_id is None else (sent.next_id,)
            require(number in expected, f"{where}: {expected[0]} is next")
            require(
                len(sent.in_flight) < self.window, f"{where}: {len(sent.in_flight)} are in flight already"
            )
            require(not sent.is_finished, f"{where} after the Delete of the IKE SA")
            sent.in_flight[number] = {datagram.data}
            sent.next_id = number + 1

    def on_arrival(self, side: Side, datagram: Datagram) -> None:
        header = Header.parse(datagram.data)
        spis = header.spi_i, header.spi_r
        if header.next_payload == PayloadType.NOTIFY:
            return
        if header.is_response:
            self._requests[spis, side.name].in_flight.pop(header.message_id, None)
        else:
            self._requests[spis, self._other(side).name].arrived.add(header.message_id)

    def on_rest(self) -> None:
        for side in (self.pair.left, self.pair.right):
            self._read_trace(side)
            peer = self._other(side)
            self._check_halves(self.owners[side.name], self.owners[peer.name])
            self._check_senders(self.owners[side.name], self.owners[peer.name])

    def _read_trace(self, side: Side) -> None:
        for record in side.trace[self._traced[side.name] :]:
            if (
                record.direction is Direction.SENT
                and "request" in record.summary
                and "D(IKE" in record.summary
            ):
                self._requests[(record.spi_i, record.spi_r), side.name].is_finished = True
        self._traced[side.name] = len(side.trace)

    # --- at every moment

    def _check_halves(self, ours: Owner, theirs: Owner) -> None:
        for child in ours.installed.values():
            other = theirs.installed.get(child.sa.spi_out)
            if other is None:
                continue
            a, b = child.sa, other.sa
            where = f"{ours.name} {a.spi_in.hex()} and {theirs.name} {b.spi_in.hex()}"
            require(a.spi_in == b.spi_out, f"{where}: SPIs are not a pair")
            require((a.keys_in, a.keys_out) == (b.keys_out, b.keys_in), f"{where}: other keys")
            require((a.local_ts, a.peer_ts) == (b.peer_ts, b.local_ts), f"{where}: other selectors")
            require((a.mode, a.esn) == (b.mode, b.esn), f"{where}: another mode")
            require(a.is_creator is not b.is_creator, f"{where}: who has made it?")

    def _check_senders(self, ours: Owner, theirs: Owner) -> None:
        for sender in ours.senders():
            sa = sender.sa
            if theirs.receiver(sa.spi_out) is not None:
                continue
            where = f"{ours.name} sends on {sa.spi_out.hex()}"
            reason = self._closed.get((theirs.name, sa.spi_out))
            if reason is CloseReason.IKE_SA_CLOSED or sa.spi_out in self._doomed:
                continue
            if reason is not None:
                raise InvariantError(f"{where}, which {theirs.name} has closed: {reason}")
            is_new = sender.replaces is None or sender.replaces in self._doomed
            require(is_new and not sa.is_creator, f"{where}, which {theirs.name} does not have yet")
            self.early += 1

    # --- in the end

    def check_rest(self) -> None:
        """Nothing is under way any more: both ends have the same, and it is what was wanted."""
        left, right = self.pair.left, self.pair.right
        for side in (left, right):
            self._check_snapshots(side)
            self._check_wishes(side)
            self._check_nothing_left(side)
        self._check_same(left, right)
        self._check_lineages()

    def _check_snapshots(self, side: Side) -> None:
        owner = self.owners[side.name]
        for snapshot in side.engine.sessions():
            require(snapshot.state == "established", f"{side.name}: a session is {snapshot.state}")
            said = {one.sa.spi_in for one in owner.of_session(snapshot.session)}
            there = {child.spi_in for child in snapshot.children}
            require(said == there, f"{side.name}: events say {said}, the snapshot {there}")
        numbers = {snapshot.session for snapshot in side.engine.sessions()}
        require(numbers == owner.open_sessions, f"{side.name}: sessions {numbers}, not {owner.open_sessions}")

    def _check_wishes(self, side: Side) -> None:
        there = {one.sa.spi_in for one in self.owners[side.name].open_children()}
        still = [spi.hex() for spi in self._unwanted_children & there]
        require(not still, f"{side.name}: {still} should have gone")
        for snapshot in side.engine.sessions():
            spis = snapshot.spi_i, snapshot.spi_r
            require(spis not in self._unwanted_ike, f"{side.name}: IKE SA {spis[0].hex()} should have gone")
        asked, answered = self._creates[side.name], self._answers[side.name]
        require(answered >= asked, f"{side.name}: {asked} children were asked for, {answered} answers")

    def _check_nothing_left(self, side: Side) -> None:
        sizes = side.engine.sizes
        sessions = len(side.engine.sessions())
        children = len(self.owners[side.name].open_children())
        expected = {"sessions": sessions, "ike_sas": sessions, "children": children}
        found = {name: sizes[name] for name in expected}
        require(found == expected, f"{side.name} holds {found}, not {expected}")
        for name in ("half_open", "requests", "incomplete_octets"):
            require(sizes[name] == 0, f"{side.name} still holds {sizes[name]} {name}")
        require(
            sizes["completed_inits"] <= sessions, f"{side.name}: {sizes['completed_inits']} completed inits"
        )

    def _check_same(self, left: Side, right: Side) -> None:
        ours, theirs = self.owners[left.name], self.owners[right.name]
        pairs = {(s.spi_i, s.spi_r) for s in left.engine.sessions()}
        others = {(s.spi_i, s.spi_r) for s in right.engine.sessions()}
        require(pairs == others, f"IKE SAs {pairs} and {others}")
        a = {(one.sa.spi_in, one.sa.spi_out) for one in ours.open_children()}
        b = {(one.sa.spi_out, one.sa.spi_in) for one in theirs.open_children()}
        require(a == b, f"children {sorted(a)} and {sorted(b)}")

    def _check_lineages(self) -> None:
        live = {one.sa.spi_in for one in self.owners["left"].open_children()}
        over = {(name, number) for name, owner in self.owners.items() for number in owner.over}
        for lineage in {id(one): one for one in self._lineages.values()}.values():
            members = [spi.hex() for spi in lineage.members]
            count = len(live & lineage.members)
            if lineage.is_unwanted:
                require(count == 0, f"of {members}, which was deleted, something lives")
            elif not over & lineage.sessions:
                require(count <= 1, f"{count} of {members} live")
                require(count == 1 or lineage.was_touched, f"{members} died, and nobody wanted it")

    def _other(self, side: Side) -> Side:
        return self.pair.right if side is self.pair.left else self.pair.left


def _name(header: Header) -> str:
    kind = "response" if header.is_response else "request"
    return f"{ExchangeType(header.exchange).name} {kind} {header.message_id}"
