"""Who brings up what, and when: IKE SAs and Child SAs by `start = "traffic" | "boot" | "none"` (WIRE 4.3, 3.6).

Time is handed in; it must not know sockets, packets or keys. It says what to do, the node does it.

    wanted (a packet waits, boot, or a command) -> no IKE SA: Initiate -> IKE SA: Create each wanted child
    refused or failed -> back-off -> again, as long as it is wanted
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from endpoint.config import Start
from endpoint.plan import PeerPlan

__all__ = ["Create", "Initiate", "PeerState", "Starter"]

PEER_BACK_OFF_S = (2.0, 60.0)
"""After an IKE SA that failed: first wait and longest."""
REFUSAL_BACK_OFF_S = (30.0, 3600.0)
"""After a refused child, or an authentication that failed (WIRE 3.6)."""
SETTLED_S = 30.0
"""An IKE SA or child that was closed earlier than this counts as one that failed: no storm of new ones."""
OTHER_END_WAITS_S = 5.0
"""What the end that did not open the session leaves to the opener (WIRE 4.3)."""


@dataclass(frozen=True, slots=True)
class Initiate:
    """Begin an IKE SA with this peer."""

    peer: str


@dataclass(frozen=True, slots=True)
class Create:
    """Create this child on this session of the peer."""

    peer: str
    session: int
    child: str


@dataclass(slots=True)
class _BackOff:
    """Doubling waits; `failures` in a row."""

    failures: int = 0
    not_before: float = 0.0

    def fail(self, now: float, first_s: float, longest_s: float) -> None:
        self.not_before = now + min(longest_s, first_s * 2.0 ** min(self.failures, 20))
        self.failures += 1

    def reset(self) -> None:
        self.failures, self.not_before = 0, 0.0


@dataclass(slots=True)
class ChildState:
    """One kind of child of a peer.

    is_held              an operator has terminated it: it does not come back by itself
    up_at                when the first of those installed came
    went_at              when the last of it was closed
    notify_type, detail  why it could not be had the last time
    """

    is_wanted: bool = False
    is_held: bool = False
    is_starting: bool = False
    installed: int = 0
    up_at: float = 0.0
    went_at: float = 0.0
    back_off: _BackOff = field(default_factory=_BackOff)
    notify_type: int | None = None
    detail: str = ""

    @property
    def is_down(self) -> bool:
        """Could not be had the last time, or not be kept: its traffic is dropped as `class_down` until it is up."""
        return not self.installed and self.back_off.failures > 0


@dataclass(slots=True)
class PeerState:
    """A peer: its session, if any, and its children. `session` is set from the first message on."""

    plan: PeerPlan
    session: int | None = None
    is_up: bool = False
    is_native: bool = False
    is_opener: bool = False
    up_at: float = 0.0
    back_off: _BackOff = field(default_factory=_BackOff)
    children: dict[str, ChildState] = field(default_factory=dict)

    def usable(self) -> Iterator[tuple[str, ChildState]]:
        """The children that can exist on an IKE SA with or without the capability, as this one is."""
        for child in self.plan.children:
            if child.is_native == self.is_native:
                yield child.name, self.children[child.name]


class Starter:
    """The state of every peer and what is to be done next."""

    def __init__(self, plans: Iterable[PeerPlan]) -> None:
        self.peers: dict[str, PeerState] = {}
        self._pending: dict[str, None] = {}
        """Those of whom something is still wanted: most peers of a large endpoint are at rest."""
        self._is_stopped = False
        for plan in plans:
            self.add(plan)

    def add(self, plan: PeerPlan) -> None:
        """There is one more peer."""
        is_boot = plan.peer.start is Start.BOOT
        children = {child.name: ChildState(is_wanted=is_boot) for child in plan.children}
        self.peers[plan.peer.name] = PeerState(plan, children=children)
        self._look_at(plan.peer.name)

    def remove(self, peer: str) -> None:
        """The peer, a client, is gone for good."""
        del self.peers[peer]
        self._pending.pop(peer, None)

    def stop(self) -> None:
        """Begin nothing any more."""
        self._is_stopped = True

    def want(self, peer: str, child: str | None = None) -> None:
        """Somebody asks for the child, or for all of them, now: no back-off stands in the way."""
        state = self.peers[peer]
        state.back_off.reset()
        for name, one in state.children.items():
            if child in (None, name):
                one.is_wanted, one.is_held = True, False
                one.back_off.reset()
        self._look_at(peer)

    def hold(self, peer: str, child: str | None = None) -> None:
        """An operator terminates the child, or all of them: only a command, or traffic where that starts it, helps."""
        for name, one in self.peers[peer].children.items():
            if child in (None, name):
                one.is_wanted, one.is_held = False, True
        self._look_at(peer)

    def ask(self, peer: str, child: str) -> bool:
        """A packet waits for the child; False if none may be started for it, or is down."""
        state = self.peers[peer]
        one, start = state.children[child], state.plan.peer.start
        if start is Start.NONE or (one.is_held and start is Start.BOOT):
            return False
        one.is_wanted = True
        self._look_at(peer)
        return not one.is_down

    def due(self, now: float) -> list[Initiate | Create]:
        """What is to be done at `now`. Each is marked as begun."""
        actions: list[Initiate | Create] = []
        if self._is_stopped:
            return actions
        for name in list(self._pending):
            state = self.peers[name]
            if state.session is None:
                if self._may_initiate(state) and state.back_off.not_before <= now:
                    actions.append(Initiate(name))
            elif state.is_up:
                for child, one in state.usable():
                    if self._is_missing(one) and self._creation_at(state, one) <= now:
                        one.is_starting = True
                        actions.append(Create(name, state.session, child))
                self._look_at(name)
        return actions

    def next_deadline(self) -> float | None:
        """When `due` will have something to say, if nothing else happens."""
        times: list[float] = []
        if self._is_stopped:
            return None
        for state in map(self.peers.__getitem__, self._pending):
            if state.session is None:
                if self._may_initiate(state):
                    times.append(state.back_off.not_before)
            elif state.is_up:
                times += [self._creation_at(state, one) for _, one in state.usable() if self._is_missing(one)]
        return min(times, default=None)

    def on_initiated(self, peer: str, session: int) -> None:
        self.peers[peer].session = session
        self._look_at(peer)

    def on_not_initiated(self, peer: str, now: float) -> None:
        """It could not even be tried: no address to begin from, say."""
        self.peers[peer].back_off.fail(now, *PEER_BACK_OFF_S)

    def on_established(
        self, peer: str, session: int, *, is_opener: bool, is_native: bool, now: float
    ) -> None:
        state = self.peers[peer]
        state.session, state.is_up = session, True
        state.is_opener, state.is_native, state.up_at = is_opener, is_native, now
        for one in state.children.values():
            one.is_starting = False
        self._look_at(peer)

    def on_gone(self, peer: str, session: int, now: float, *, failed: bool, refused: bool = False) -> None:
        """The session is over. `refused`: the other end said no for good reasons; do not ask it again soon."""
        state = self.peers[peer]
        if state.session != session:
            return
        was_up, is_held = state.is_up, all(one.is_held for one in state.children.values())
        state.session, state.is_up = None, False
        if was_up and now - state.up_at >= SETTLED_S:
            state.back_off.reset()
        if failed or (was_up and now - state.up_at < SETTLED_S and not is_held):
            state.back_off.fail(now, *(REFUSAL_BACK_OFF_S if refused else PEER_BACK_OFF_S))
        for one in state.children.values():
            one.is_starting = False
            one.is_wanted = self._comes_back(state, one)
        self._look_at(peer)

    def on_child(self, peer: str, child: str, now: float) -> None:
        one = self.peers[peer].children[child]
        one.is_starting = False
        if not one.installed:
            one.up_at = now
        one.installed += 1
        self._look_at(peer)

    def on_child_gone(self, peer: str, child: str, now: float, *, by_peer: bool = False) -> None:
        """`by_peer`: the peer deleted it, and only it."""
        state = self.peers[peer]
        one = state.children[child]
        one.installed = max(0, one.installed - 1)
        if one.installed:
            return
        one.went_at = now
        one.is_wanted = self._comes_back(state, one)
        if now - one.up_at >= SETTLED_S:
            one.back_off.reset()
        elif by_peer and not one.is_held:
            one.back_off.fail(now, *PEER_BACK_OFF_S)
        self._look_at(peer)

    def on_child_failed(
        self, peer: str, child: str, now: float, notify_type: int | None = None, detail: str = ""
    ) -> None:
        one = self.peers[peer].children[child]
        one.is_starting = False
        one.notify_type, one.detail = notify_type, detail
        if not one.installed:
            one.back_off.fail(now, *REFUSAL_BACK_OFF_S)
        self._look_at(peer)

    def _look_at(self, peer: str) -> None:
        """Whether the peer is pending, after any change of its state."""
        state = self.peers[peer]
        if state.session is None:
            is_pending = self._may_initiate(state)
        else:
            is_pending = state.is_up and any(self._is_missing(one) for _, one in state.usable())
        if is_pending:
            self._pending[peer] = None
        else:
            self._pending.pop(peer, None)

    @staticmethod
    def _comes_back(state: PeerState, one: ChildState) -> bool:
        return state.plan.peer.start is Start.BOOT and not one.is_held

    @staticmethod
    def _may_initiate(state: PeerState) -> bool:
        return not state.plan.peer.is_any and any(one.is_wanted for one in state.children.values())

    @staticmethod
    def _is_missing(one: ChildState) -> bool:
        return one.is_wanted and not one.is_starting and not one.installed

    @staticmethod
    def _creation_at(state: PeerState, one: ChildState) -> float:
        waits = not state.is_opener and (state.is_native or state.plan.peer.start is Start.BOOT)
        patience = max(state.up_at, one.went_at) + OTHER_END_WAITS_S if waits else state.up_at
        return max(one.back_off.not_before, patience)
