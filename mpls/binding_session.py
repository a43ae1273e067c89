"""Label bindings over one IKE session: the tail that sends them, the head that takes them (WIRE 5.2-5.7).

It knows nothing of IKE messages, packets or clocks: notify data and times in seconds come in, notify data and
changes go out.

    tail: BindingSender                             head: BindingReceiver
      next_message()       -- N(LABEL_BINDING) -->    receive_binding()
      on_response()        <-- N(LABEL_STATUS) --     Answer.status (and .changes, for the forwarding table)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from mpls.binding_plan import MESSAGE_OCTETS, BindingPlan, Room
from mpls.binding_table import BindingTable, Key, RouteChange
from mpls.bindings import (
    EXPLICIT_NULL,
    BadEntry,
    BindingError,
    Entry,
    LabelBinding,
    LabelStatus,
    Operation,
    Prefix,
    Refusal,
    Status,
)
from mpls.capability import LABEL_BINDINGS, Capability
from mpls.identifiers import ClassId, VrfId
from mpls.selectors import MplsVrfSelector

# When the last child of a (VRF, class) has gone, both ends keep its bindings for so long (WIRE 5.5).
KEEP_WITHOUT_CHILD_S: Final = 30.0
# A peer that finds a gap in one snapshot after another cannot be brought into step.
_MAX_SNAPSHOTS: Final = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What a LABEL_BINDING leads to: the data of N(LABEL_STATUS), or None for a response without it."""

    status: bytes | None
    changes: tuple[RouteChange, ...] = ()


@dataclass(frozen=True, slots=True)
class _Grant:
    """What the peer may bind for the (VRF, class) of one child."""

    vrf: str
    selector: MplsVrfSelector
    accept: tuple[Prefix, ...]


class BindingReceiver:
    """The head's end: what the peer has bound, in which epoch, and up to which sequence number.

    `own` and `peer` are the two capabilities, None where absent. `malformed` counts unreadable messages.
    """

    def __init__(self, own: Capability | None, peer: Capability | None) -> None:
        self.malformed = 0
        self.table = BindingTable()
        self._own = own if own and peer and own.has(LABEL_BINDINGS) and peer.has(LABEL_BINDINGS) else None
        self._epoch: int | None = None
        self._last = 0
        self._last_octets = b""
        self._last_status = b""
        self._is_in_snapshot = False
        self._grants: dict[tuple[VrfId | None, ClassId | None], _Grant] = {}
        self._drop_at: dict[Key, float] = {}

    def on_child_established(self, vrf: str, outbound: MplsVrfSelector, accept: Iterable[Prefix]) -> None:
        """A child of the local VRF is there: its outbound map, and the prefixes the peer may announce."""
        grant = _Grant(vrf, outbound, tuple(accept))
        self._grants[outbound.vrf, outbound.label_class] = grant
        self._drop_at.pop((vrf, outbound.label_class), None)

    def on_last_child_closed(self, vrf: str, label_class: ClassId, now: float) -> None:
        """No child of (VRF, class) is left: its bindings are refused from now on, and go after 30 s."""
        key = (vrf, label_class)
        self._grants = {named: grant for named, grant in self._grants.items() if (grant.vrf, named[1]) != key}
        self._drop_at[key] = now + KEEP_WITHOUT_CHILD_S

    def next_deadline(self) -> float | None:
        """When `expire` has something to do."""
        return min(self._drop_at.values(), default=None)

    def expire(self, now: float) -> tuple[RouteChange, ...]:
        """Drop the bindings of every (VRF, class) that has been without a child for too long."""
        over = [key for key, at in self._drop_at.items() if at <= now]
        for key in over:
            del self._drop_at[key]
        return tuple(change for key in over for change in self.table.drop(key))

    def close(self) -> tuple[RouteChange, ...]:
        """The session ended: so do its bindings."""
        return tuple(self.table.clear())

    def receive_binding(self, octets: bytes) -> Answer:
        """Handle the data of one N(LABEL_BINDING) by the rows of WIRE 5.2. Raises nothing, whatever it is."""
        if self._own is None:
            return Answer(None)
        try:
            message = LabelBinding.parse(octets)
        except BindingError:
            self.malformed += 1
            return Answer(None)
        if message.operation is Operation.SNAPSHOT_BEGIN and (
            message.epoch != self._epoch or message.sequence > self._last
        ):
            self._epoch = message.epoch
            self._is_in_snapshot = True
            self.table.begin_snapshot()
            return self._settle(message, octets, Status.ACCEPTED)
        if self._epoch is None and message.sequence == 1 and message.operation is Operation.ADD:
            self._epoch = message.epoch
        if message.epoch != self._epoch:
            return _answer(message, Status.GAP)
        if message.sequence == self._last:
            return Answer(self._last_status) if octets == self._last_octets else _answer(message, Status.GAP)
        if message.sequence < self._last:
            return _answer(message, Status.ACCEPTED)
        if message.sequence > self._last + 1:
            return _answer(message, Status.GAP)
        if message.operation is not Operation.SNAPSHOT_END:
            return self._apply(message, octets, self._own)
        if not self._is_in_snapshot:
            return _answer(message, Status.GAP)
        self._is_in_snapshot = False
        return self._settle(message, octets, Status.ACCEPTED, changes=self.table.end_snapshot())

    def _apply(self, message: LabelBinding, octets: bytes, own: Capability) -> Answer:
        """An add or a withdraw that is next in sequence (WIRE 5.3, 5.4)."""
        grant = self._grants.get((message.vrf, message.label_class))
        if grant is None:
            refused = tuple((entry.label, Refusal.POLICY) for entry in message.entries)
            return self._settle(message, octets, Status.SOME_REFUSED, refused)
        key = (grant.vrf, grant.selector.label_class)
        accepted: list[Entry] = []
        refusals: list[tuple[int, Refusal]] = []
        for entry in message.entries:
            code = self._refusal(message.operation, key, entry, grant)
            if code is not None:
                refusals.append((entry.label, code))
            elif isinstance(entry, Entry):
                accepted.append(entry)
        if self._is_too_much(message, key, accepted, own):
            return self._settle(message, octets, Status.TABLE_FULL)
        operate = self.table.add if message.operation is Operation.ADD else self.table.withdraw
        changes = [change for entry in accepted for change in operate(key, entry)]
        status = Status.SOME_REFUSED if refusals else Status.ACCEPTED
        return self._settle(message, octets, status, tuple(refusals), changes)

    def _refusal(
        self, operation: Operation, key: Key, entry: Entry | BadEntry, grant: _Grant
    ) -> Refusal | None:
        """The first code of WIRE 5.4 that fits one entry, None for none.

        A withdraw is never refused for what has since been narrowed, or its label would stay in use.
        """
        if isinstance(entry, BadEntry):
            return Refusal.BAD_VALUE
        is_add, is_null = operation is Operation.ADD, entry.label in EXPLICIT_NULL
        if is_add:
            bound = self.table.labels(key).get(entry.label)
            if is_null and not grant.selector.special >> entry.label & 1:
                return Refusal.BAD_VALUE
            if bound is not None and bound.payload != entry.payload:
                return Refusal.BAD_VALUE
        if self.table.key_of(entry.label) not in (None, key):
            return Refusal.DUPLICATE
        if is_add and not is_null and not grant.selector.has_label(entry.label):
            return Refusal.OUTSIDE
        if is_add and not all(_is_inside(prefix, grant.accept) for prefix in entry.prefixes):
            return Refusal.PREFIX
        return None

    def _is_too_much(self, message: LabelBinding, key: Key, accepted: list[Entry], own: Capability) -> bool:
        if sum(entry.weight for entry in message.entries) > own.bindings_per_message:
            return True
        growth = self.table.growth(key, accepted) if message.operation is Operation.ADD else 0
        return growth > 0 and self.table.count + growth > own.bindings

    def _settle(
        self,
        message: LabelBinding,
        octets: bytes,
        status: Status,
        refused: tuple[tuple[int, Refusal], ...] = (),
        changes: Iterable[RouteChange] = (),
    ) -> Answer:
        """Remember the message as the last one, with its answer."""
        answer = LabelStatus(message.epoch, message.sequence, status, refused).encode()
        self._last, self._last_octets, self._last_status = message.sequence, octets, answer
        return Answer(answer, tuple(changes))


def _answer(message: LabelBinding, status: Status) -> Answer:
    return Answer(LabelStatus(message.epoch, message.sequence, status).encode())


def _is_inside(prefix: Prefix, accept: Iterable[Prefix]) -> bool:
    """Whether *prefix* lies in one of the accepted ones; none accepted means none may."""
    return any(
        prefix.version == whole.version
        and prefix.prefixlen >= whole.prefixlen
        and prefix.network_address in whole
        for whole in accept
    )


@dataclass(frozen=True, slots=True)
class BindingRefused:
    """The peer refused an entry of this label. Not `is_bound`: no earlier one stands, accept it no more."""

    vrf: str
    label_class: ClassId
    label: int
    code: Refusal
    is_bound: bool


@dataclass(frozen=True, slots=True)
class LabelWithdrawn:
    """The peer will not use the label for new packets: drain it, then quarantine it."""

    vrf: str
    label_class: ClassId
    label: int


@dataclass(frozen=True, slots=True)
class LabelDropped:
    """The label is bound no more, or never was: quarantine it at once."""

    vrf: str
    label_class: ClassId
    label: int


@dataclass(frozen=True, slots=True)
class PeerTableFull:
    """The peer takes no more: nothing is added until something was withdrawn."""


@dataclass(frozen=True, slots=True)
class BindingStopped:
    """No more bindings in this session; only static labels remain."""

    reason: str


SenderEvent: TypeAlias = BindingRefused | LabelWithdrawn | LabelDropped | PeerTableFull | BindingStopped


class _Snapshot(Enum):
    NONE = "none"
    WANTED = "wanted"  # to be begun
    OPEN = "open"  # begun, not ended


@dataclass(slots=True)
class _Outstanding:
    """The one message without an answer; `key` is None for a snapshot's ends, or if dropped meanwhile."""

    message: LabelBinding
    key: Key | None
    octets: bytes
    is_to_resend: bool = False


class BindingSender:
    """The tail's end: sends what the plan has and the peer has not, one message at a time.

    `epoch` is constant for the life of the label table (the start time in seconds will do), `peer` the peer's
    capability. `message_octets` bounds a whole IKE message, 4096 with RFC 7383 and 1200 without;
    `overhead_octets` is what of it is not notify data: 28 of header, 8 of the notify, and of SK 4, IV,
    padding and ICV.
    """

    def __init__(
        self, epoch: int, peer: Capability, *, message_octets: int = 1200, overhead_octets: int = 104
    ) -> None:
        self.stop_reason: str | None = None
        self.table = BindingTable()  # what the peer has, as it has answered
        self._plan = BindingPlan()
        self._epoch, self._peer = epoch, peer
        self._entries_octets = message_octets - overhead_octets - MESSAGE_OCTETS
        self._sequence = 0
        self._children: dict[Key, VrfId] = {}
        self._drop_at: dict[Key, float] = {}
        self._outstanding: _Outstanding | None = None
        self._is_paused = False
        self._is_peer_full = False
        self._snapshot = _Snapshot.NONE
        self._gaps = 0

    def bind(
        self, vrf: str, label_class: ClassId, label: int, payload: int, prefixes: Iterable[Prefix] = ()
    ) -> None:
        """Bind *label*, already accepted on receipt, for the prefixes; without any as per-VRF label.

        A prefix moves here from another label of the (VRF, class). BindingError for what can never be bound,
        such as a label of another payload, VRF or class: it has to be withdrawn first.
        """
        key, entry = (vrf, label_class), Entry(label, payload, tuple(prefixes))
        if not entry.payload_covers_prefixes():
            raise BindingError(f"label {label} has a prefix of a family outside payload {payload}")
        held = self.table.labels(key).get(label)
        if self.table.key_of(label) not in (None, key) or (held is not None and held.payload != payload):
            raise BindingError(f"label {label} is still bound otherwise")
        self._plan.bind(key, entry)

    def withdraw(
        self, vrf: str, label_class: ClassId, label: int, prefixes: Iterable[Prefix] = ()
    ) -> tuple[SenderEvent, ...]:
        """Take the prefixes from *label*, or without any the label back; it is accepted until an event."""
        key = (vrf, label_class)
        was_wanted = self._plan.wants(key, label)
        is_wanted = self._plan.unbind(key, Entry(label, 3, tuple(prefixes)))
        if not was_wanted or is_wanted or label in self.table.labels(key) or self._is_under_way(key, label):
            return ()
        return (LabelDropped(*key, label),)

    def on_child_established(self, vrf: str, inbound: MplsVrfSelector) -> None:
        """A child of the local VRF is there, with this inbound map; its bindings are sent, or sent again."""
        key = (vrf, inbound.label_class)
        if key not in self._children:
            self.table.mark_stale(key)
            self._plan.unsettle(key, self.table)
        self._children[key] = inbound.vrf
        self._drop_at.pop(key, None)

    def on_last_child_closed(self, vrf: str, label_class: ClassId, now: float) -> None:
        """No child of (VRF, class) is left: nothing is sent for it; after 30 s its bindings are dropped."""
        self._children.pop((vrf, label_class), None)
        self._drop_at[vrf, label_class] = now + KEEP_WITHOUT_CHILD_S

    def next_deadline(self) -> float | None:
        """When `expire` has something to do."""
        return min(self._drop_at.values(), default=None)

    def expire(self, now: float) -> tuple[SenderEvent, ...]:
        """Drop the bindings of every (VRF, class) that has been without a child for too long."""
        events: list[SenderEvent] = []
        for key in [key for key, at in self._drop_at.items() if at <= now]:
            del self._drop_at[key]
            events += [LabelDropped(*key, label) for label in self._forget(key)]
        return tuple(events)

    def pause(self) -> None:
        """An IKE rekey was sent or accepted: no LABEL_BINDING until the old IKE SA is gone."""
        self._is_paused = True

    def resume(self) -> None:
        """The old IKE SA is gone: a message without an answer is sent again, unchanged, on the survivor."""
        self._is_paused = False
        if self._outstanding is not None:
            self._outstanding.is_to_resend = True

    def next_message(self) -> bytes | None:
        """The data of the next N(LABEL_BINDING), None while there is nothing to send or an answer is due."""
        if self._is_paused or self.stop_reason is not None:
            return None
        if self._outstanding is None:
            self._outstanding = self._compose()
        elif not self._outstanding.is_to_resend:
            return None
        if self._outstanding is None:
            return None
        self._outstanding.is_to_resend = False
        return self._outstanding.octets

    def on_response(self, octets: bytes | None) -> tuple[SenderEvent, ...]:
        """The response came, with this data of N(LABEL_STATUS), or None without it."""
        if self._outstanding is None:
            return ()
        message, key = self._outstanding.message, self._outstanding.key
        self._outstanding = None
        if octets is None:
            return self._stop("a response without LABEL_STATUS")
        try:
            answer = LabelStatus.parse(octets)
        except BindingError as error:
            return self._stop(f"LABEL_STATUS that cannot be read: {error}")
        if (answer.epoch, answer.sequence) != (message.epoch, message.sequence):
            return self._stop("LABEL_STATUS of another message")
        match message.operation, answer.status:
            case Operation.SNAPSHOT_BEGIN, Status.ACCEPTED:
                self._snapshot = _Snapshot.OPEN
                self.table.begin_snapshot()
                for stale in self._plan.wanted_keys() | self.table.bound_keys():
                    self._plan.unsettle(stale, self.table)
                return ()
            case Operation.SNAPSHOT_END, Status.ACCEPTED:
                return self._on_snapshot_end()
            case ((Operation.ADD | Operation.WITHDRAW), (Status.ACCEPTED | Status.SOME_REFUSED)):
                return self._on_applied(message, key, dict(answer.refused))
            case Operation.ADD, Status.TABLE_FULL:
                self._is_peer_full = True
                return (PeerTableFull(), *self._orphans(message, key))
            case ((Operation.ADD | Operation.WITHDRAW | Operation.SNAPSHOT_END), Status.GAP):
                self._gaps += 1
                if self._gaps > _MAX_SNAPSHOTS:
                    return self._stop("the peer finds a gap in every snapshot")
                self._snapshot = _Snapshot.WANTED
                return self._orphans(message, key)
            case _:
                return self._stop(f"{message.operation.name} answered by {answer.status.name}")

    def _compose(self) -> _Outstanding | None:
        """Adds before withdraws, so that a prefix moves from label to label without a gap."""
        if self._snapshot is _Snapshot.WANTED:
            return self._next(Operation.SNAPSHOT_BEGIN)
        if not self._is_peer_full:
            for key in self._children:
                if entries := self._plan.missing(key, self.table, self._room()):
                    return self._next(Operation.ADD, key, entries)
        if self._snapshot is _Snapshot.OPEN:
            return self._next(Operation.SNAPSHOT_END)
        for key in self._children:
            if entries := self._plan.surplus(key, self.table, self._room()):
                return self._next(Operation.WITHDRAW, key, entries)
        return None

    def _room(self) -> Room:
        growth = max(0, self._peer.bindings - self.table.count)
        return Room(self._peer.bindings_per_message, self._entries_octets, growth)

    def _next(
        self, operation: Operation, key: Key | None = None, entries: tuple[Entry, ...] = ()
    ) -> _Outstanding:
        self._sequence += 1
        vrf, label_class = (self._children[key], key[1]) if key is not None else (None, None)
        message = LabelBinding(self._epoch, self._sequence, operation, vrf, label_class, entries)
        return _Outstanding(message, key, message.encode())

    def _on_snapshot_end(self) -> tuple[SenderEvent, ...]:
        before = [(key, label) for key in self.table.bound_keys() for label in self.table.labels(key)]
        if self.table.end_snapshot():
            self._is_peer_full = False
        self._snapshot, self._gaps = _Snapshot.NONE, 0
        return tuple(
            LabelWithdrawn(*key, label)
            for key, label in before
            if label not in self.table.labels(key) and not self._plan.wants(key, label)
        )

    def _on_applied(
        self, message: LabelBinding, key: Key | None, refused: dict[int, Refusal]
    ) -> tuple[SenderEvent, ...]:
        """Follow the peer in what it applied, and report what it refused."""
        if refused.keys() - {entry.label for entry in message.entries}:
            return self._stop("LABEL_STATUS refuses a label that was not sent")
        if key is None:
            return ()
        events: list[SenderEvent] = []
        for entry in message.entries:
            if not isinstance(entry, Entry):
                continue
            code = refused.get(entry.label)
            if message.operation is Operation.WITHDRAW:
                # A refused withdraw is not sent again: the label goes here, whatever the peer makes of it.
                self._is_peer_full = False
                self.table.withdraw(key, entry)
            elif code is None:
                self.table.add(key, entry)
            is_bound = entry.label in self.table.labels(key)
            if code is not None:
                if message.operation is Operation.ADD:
                    self._plan.give_up(key, entry, is_bound)
                events.append(BindingRefused(*key, entry.label, code, is_bound))
            elif not is_bound and not self._plan.wants(key, entry.label):
                events.append(LabelWithdrawn(*key, entry.label))
        return tuple(events)

    def _orphans(self, message: LabelBinding, key: Key | None) -> tuple[SenderEvent, ...]:
        """Labels of an add that came to nothing, which were withdrawn while it was under way."""
        if key is None or message.operation is not Operation.ADD:
            return ()
        return tuple(
            LabelDropped(*key, entry.label)
            for entry in message.entries
            if not self._plan.wants(key, entry.label) and entry.label not in self.table.labels(key)
        )

    def _is_under_way(self, key: Key, label: int) -> bool:
        outstanding = self._outstanding
        return (
            outstanding is not None
            and outstanding.key == key
            and any(entry.label == label for entry in outstanding.message.entries)
        )

    def _forget(self, key: Key) -> list[int]:
        """Drop everything of (VRF, class); the labels that were bound or to be bound."""
        labels = self._plan.labels(key) | set(self.table.labels(key))
        if self._outstanding is not None and self._outstanding.key == key:
            labels |= {entry.label for entry in self._outstanding.message.entries}
            self._outstanding.key = None
        self._plan.forget(key)
        self.table.drop(key)
        return sorted(labels)

    def _stop(self, reason: str) -> tuple[SenderEvent, ...]:
        """Bind no more in this session; what was bound drains."""
        self.stop_reason = reason
        keys = sorted(self._plan.wanted_keys() | self.table.bound_keys(), key=str)
        withdrawn = [LabelWithdrawn(*key, label) for key in keys for label in self._forget(key)]
        return (BindingStopped(reason), *withdrawn)
