"""The tail of label bindings: sends what the plan has and the peer has not, one message at a time (WIRE 5.2-5.6).

It knows nothing of IKE messages, packets or clocks; `binding_receiver` is the other end.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from mpls.binding_plan import MESSAGE_OCTETS, BindingPlan, Room
from mpls.binding_table import KEEP_WITHOUT_CHILD_S, BindingTable, Key
from mpls.bindings import (
    BindingError,
    Entry,
    LabelBinding,
    LabelStatus,
    Operation,
    Prefix,
    Refusal,
    Status,
)
from mpls.capability import Capability
from mpls.identifiers import ClassId, VrfId
from mpls.selectors import MplsVrfSelector

# A peer that finds a gap in one snapshot after another cannot be brought into step.
_MAX_SNAPSHOTS: Final = 3


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
