"""The head of label bindings: what the peer has bound, judged message by message (WIRE 5.2-5.4, 5.7).

It knows nothing of IKE messages, packets or clocks: notify data and times come in, answers and changes go out.

    tail: BindingSender                             head: BindingReceiver
      next_message()       -- N(LABEL_BINDING) -->    receive_binding()
      on_response()        <-- N(LABEL_STATUS) --     Answer.status (and .changes, for the forwarding table)
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mpls.binding_table import KEEP_WITHOUT_CHILD_S, BindingTable, Key, RouteChange
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
