"""The label bindings of one session, both directions, between the IKE messages and the tables of `mpls` (WIRE 5).

It must not know sockets or packets; the rules are `mpls.binding_sender`'s and `mpls.binding_receiver`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from endpoint.children import Child
from endpoint.config import Config, LabelsPer
from endpoint.plan import PeerPlan, Serves
from mpls.binding_receiver import BindingReceiver
from mpls.binding_sender import (
    BindingRefused,
    BindingSender,
    BindingStopped,
    LabelDropped,
    LabelWithdrawn,
    PeerTableFull,
    SenderEvent,
)
from mpls.binding_table import RouteAdded, RouteChange
from mpls.bindings import Prefix, Refusal
from mpls.capability import LABEL_BINDINGS, Capability
from mpls.identifiers import ClassId
from mpls.label_space import LabelSpace, LabelSpaceError
from mpls.routes import ForwardingTable

__all__ = ["LabelExchange", "LabelExchanges"]

_log = logging.getLogger("mplsec.labels")
_BOTH_FAMILIES = 3
"""What a label exposes: a per-VRF look-up takes IPv4 and IPv6."""
RETRIES_S = (0.5, 2.0, 10.0)
"""When the peer had no child yet for what was bound (a binding can overtake the answer that makes the child)."""

WHOLE_MESSAGE_OCTETS, FRAGMENTED_MESSAGE_OCTETS = 1200, 4096
"""Of an IKE message with a binding, before it is fragmented."""

_Group: TypeAlias = tuple[Prefix, ...]
OnRoute = Callable[[int, str, RouteChange], None]
"""(session, peer, change)"""


class LabelExchange:
    """Labels that we give to the peer, and those that it gives to us, in one session."""

    def __init__(
        self,
        config: Config,
        plan: PeerPlan,
        session: int,
        peer: Capability | None,
        *,
        epoch: int,
        space: LabelSpace,
        table: ForwardingTable,
        on_route: OnRoute,
        may_fragment: bool = False,
    ) -> None:
        """`peer`: what its notify said; None without the capability, then nothing is sent or taken.

        `may_fragment`: IKE does, so that messages may be longer (WIRE 5.5).
        """
        own = (
            None
            if plan.connection.extension is None
            else Capability.parse(plan.connection.extension.notify_data)
        )
        self.session = session
        self.token: int | None = None
        """The request in flight."""
        self._config, self._plan = config, plan
        self._space, self._table, self._on_route = space, table, on_route
        self.receiver = BindingReceiver(own, peer)
        may_bind = (
            own is not None and own.has(LABEL_BINDINGS) and peer is not None and peer.has(LABEL_BINDINGS)
        )
        self.sender = None
        if peer is not None and may_bind:
            octets = FRAGMENTED_MESSAGE_OCTETS if may_fragment else WHOLE_MESSAGE_OCTETS
            self.sender = BindingSender(epoch, peer, message_octets=octets)
        self._given: dict[Serves, dict[_Group, int]] = {}
        """What was bound: a label for each group of prefixes."""
        self._refusals: dict[Serves, int] = {}
        self._again_at: dict[Serves, float] = {}

    def labels_given(self) -> list[tuple[str, ClassId, int]]:
        """(VRF, class, label) that the peer may send to us."""
        given = sorted(self._given.items(), key=str)
        return [(*key, label) for key, groups in given for label in groups.values()]

    def on_child(self, child: Child) -> None:
        """A native child is installed: its labels may be exchanged now (WIRE 5.5, 5.6: accepted before it is told)."""
        inbound, outbound = child.inbound_selector, child.outbound_selector
        if inbound is None or outbound is None or self.sender is None:
            return
        vrf, label_class = child.kind.serves[0]
        granted = self._plan.peer.vrf(vrf)
        self.receiver.on_child_established(vrf, outbound, granted.accept if granted else ())
        self.sender.on_child_established(vrf, inbound)
        self._refusals.pop((vrf, label_class), None)
        self._bind(vrf, label_class)

    def _bind(self, vrf: str, label_class: ClassId) -> None:
        if self.sender is None or self.sender.stop_reason is not None:
            return
        given = self._given.setdefault((vrf, label_class), {})
        for group in self._groups(vrf):
            if group in given:
                continue
            try:
                label = self._space.allocate(
                    self._plan.peer.name, vrf, label_class, _BOTH_FAMILIES, self.session
                )
            except LabelSpaceError as error:
                _log.error("peer %s: no label for %s/%s: %s", self._plan.peer.name, vrf, label_class, error)
                return
            given[group] = label
            self.sender.bind(vrf, label_class, label, _BOTH_FAMILIES, group)

    def _groups(self, vrf: str) -> Iterator[_Group]:
        """The prefixes that share a label. Without any it is a per-VRF label, for routes of the peer's own."""
        own = self._config.vrf(vrf)
        if own is None or own.labels_per is LabelsPer.VRF or not own.announce:
            yield own.announce if own else ()
        else:
            yield from ((prefix,) for prefix in own.announce)

    def on_last_child_closed(self, vrf: str, label_class: ClassId, now: float) -> None:
        self._again_at.pop((vrf, label_class), None)
        self.receiver.on_last_child_closed(vrf, label_class, now)
        if self.sender is not None:
            self.sender.on_last_child_closed(vrf, label_class, now)

    def receive_binding(self, octets: bytes) -> bytes | None:
        """The data of N(LABEL_STATUS) for that of a N(LABEL_BINDING); None: answer without it."""
        answer = self.receiver.receive_binding(octets)
        self._apply(answer.changes)
        return answer.status

    def next_message(self) -> bytes | None:
        """The data of the next N(LABEL_BINDING) to send."""
        if self.sender is None or self.token is not None:
            return None
        return self.sender.next_message()

    def on_response(self, status: bytes | None, now: float) -> None:
        """The request in flight was answered with this N(LABEL_STATUS), or without one."""
        self.token = None
        if self.sender is not None:
            self._tell(self.sender.on_response(status), now)

    def expire(self, now: float) -> None:
        """Drop what was without a child for too long; bind again what the peer was not ready for."""
        for key in [key for key, at in self._again_at.items() if at <= now]:
            del self._again_at[key]
            self._bind(*key)
        self._apply(self.receiver.expire(now))
        if self.sender is not None:
            self._tell(self.sender.expire(now), now)

    def next_deadline(self) -> float | None:
        times = [
            self.receiver.next_deadline(),
            self.sender.next_deadline() if self.sender else None,
            *self._again_at.values(),
        ]
        return min((at for at in times if at is not None), default=None)

    def close(self, now: float) -> None:
        """The session ended: what it bound is gone, in both directions."""
        self._apply(self.receiver.close())
        self._space.release_session(self.session, now)
        self._given.clear()

    def _apply(self, changes: Iterable[RouteChange]) -> None:
        peer = self._plan.peer.name
        for change in changes:
            where = (peer, change.vrf, change.label_class)
            if isinstance(change, RouteAdded):
                if change.prefix is None:
                    self._table.bind_vrf_label(*where, change.label)
                else:
                    self._table.add(*where, change.prefix, change.label)
            elif change.prefix is None:
                self._table.unbind_vrf_label(*where, change.label)
            else:
                self._table.remove(*where, change.prefix, change.label)
            self._on_route(self.session, peer, change)

    def _tell(self, events: Iterable[SenderEvent], now: float) -> None:
        peer = self._plan.peer.name
        for event in events:
            match event:
                case LabelWithdrawn():
                    self._space.withdraw(event.label, now)
                    self._forget(event.vrf, event.label_class, event.label)
                case LabelDropped():
                    self._space.quarantine(event.label, now)
                    self._forget(event.vrf, event.label_class, event.label)
                case BindingRefused():
                    self._on_refused(event, now)
                case PeerTableFull():
                    _log.warning("peer %s takes no more label bindings", peer)
                case BindingStopped():
                    _log.error("peer %s: label bindings end for this session: %s", peer, event.reason)

    def _forget(self, vrf: str, label_class: ClassId, label: int) -> None:
        given = self._given.get((vrf, label_class), {})
        self._given[vrf, label_class] = {group: one for group, one in given.items() if one != label}

    def _on_refused(self, event: BindingRefused, now: float) -> None:
        """Code 1 right after a child was made may only mean that the peer has not installed it yet: try again."""
        key = (event.vrf, event.label_class)
        if not event.is_bound:
            self._space.quarantine(event.label, now)
            self._forget(event.vrf, event.label_class, event.label)
            if key in self._again_at:  # another label of it was refused before
                return
            tries = self._refusals.get(key, 0)
            if event.code is Refusal.POLICY and tries < len(RETRIES_S):
                self._refusals[key] = tries + 1
                self._again_at[key] = now + RETRIES_S[tries]
                return
        _log.warning(
            "peer %s refused label %d of %s/%s: %s; compare `accept` there with `announce` here",
            self._plan.peer.name,
            event.label,
            event.vrf,
            event.label_class,
            event.code.name.lower(),
        )


class LabelExchanges:
    """The exchanges of all sessions; of a thousand only those are looked at that were touched, or have a timer."""

    def __init__(
        self, config: Config, epoch: int, space: LabelSpace, table: ForwardingTable, on_route: OnRoute
    ) -> None:
        self._config, self._epoch = config, epoch
        self._space, self._table, self._on_route = space, table, on_route
        self._all: dict[int, LabelExchange] = {}
        self._touched: dict[int, None] = {}
        self._deadlines: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[LabelExchange]:
        return iter(self._all.values())

    def open(self, plan: PeerPlan, session: int, peer: Capability | None, *, may_fragment: bool) -> None:
        """A session is established; `peer` and `may_fragment` as for its exchange."""
        self._all[session] = LabelExchange(
            self._config,
            plan,
            session,
            peer,
            epoch=self._epoch,
            space=self._space,
            table=self._table,
            on_route=self._on_route,
            may_fragment=may_fragment,
        )
        self._touched[session] = None

    def get(self, session: int) -> LabelExchange | None:
        """The exchange of a session, to be changed: afterwards it may have something to say."""
        exchange = self._all.get(session)
        if exchange is not None:
            self._touched[session] = None
        return exchange

    def close(self, session: int, now: float) -> None:
        """The session is over, if it was ever established."""
        self._touched.pop(session, None)
        self._deadlines.pop(session, None)
        exchange = self._all.pop(session, None)
        if exchange is not None:
            exchange.close(now)

    def speak(self, send: Callable[[LabelExchange], bool]) -> bool:
        """Let each that may have something to say send it; whether one did. `send`: whether there was anything."""
        has_spoken = False
        for session in list(self._touched):
            exchange = self._all[session]
            if send(exchange):
                has_spoken = True
                continue
            del self._touched[session]
            deadline = exchange.next_deadline()
            if deadline is None:
                self._deadlines.pop(session, None)
            else:
                self._deadlines[session] = deadline
        return has_spoken

    def expire(self, now: float) -> None:
        for session in [session for session, at in self._deadlines.items() if at <= now]:
            self._all[session].expire(now)
            self._touched[session] = None

    def next_deadline(self) -> float | None:
        return min(self._deadlines.values(), default=None)
