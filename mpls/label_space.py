"""The labels this system gives out as tail: to whom, for what, and for how long after (WIRE 5.5, 5.6).

It knows nothing of bindings on the wire, and explicit null (0 and 2) is not part of it.
"""

import heapq
from collections import deque
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from mpls.identifiers import ClassId

LOWEST_LABEL: Final = 16
HIGHEST_LABEL: Final = (1 << 20) - 1


class LabelSpaceError(Exception):
    """No label is free, or the one asked for is given out."""


class LabelState(Enum):
    ACTIVE = "active"  # accepted
    DRAINING = "draining"  # withdrawn; still accepted for packets that are under way
    QUARANTINED = "quarantined"  # not accepted, and not yet given to another


@dataclass(frozen=True, slots=True)
class LabelOwner:
    """What a label stands for: one (VRF, class) of one peer, and what it exposes (bit 0 IPv4, bit 1 IPv6).

    `session` is the IKE session it was given out in; None marks the static label of a plain peer.
    """

    peer: str
    vrf: str
    label_class: ClassId
    payload: int
    session: int | None
    state: LabelState = LabelState.ACTIVE

    @property
    def is_accepted(self) -> bool:
        """Whether packets with this label are (still) taken: the accept set."""
        return self.state is not LabelState.QUARANTINED


class LabelSpace:
    """The labels lo..hi for sessions, and static labels anywhere among 16..1048575.

    A label belongs to one owner until its quarantine is over, so a late packet never means another VRF, class
    or peer. Freed values are used again as late as possible. Times are seconds on the clock handed in.
    """

    def __init__(
        self,
        lo: int = LOWEST_LABEL,
        hi: int = HIGHEST_LABEL,
        *,
        drain_s: float = 5.0,
        quarantine_s: float = 120.0,
    ) -> None:
        if not LOWEST_LABEL <= lo <= hi <= HIGHEST_LABEL:
            raise LabelSpaceError(f"labels {lo}-{hi} are not a range inside {LOWEST_LABEL}-{HIGHEST_LABEL}")
        self._unused, self._lo, self._hi = lo, lo, hi
        self._freed: deque[int] = deque()
        self._owners: dict[int, LabelOwner] = {}
        self._until: dict[int, float] = {}
        self._ends: list[tuple[float, int]] = []
        self._drain_s, self._quarantine_s = drain_s, quarantine_s

    def reserve(self, label: int, peer: str, vrf: str, label_class: ClassId, payload: int = 3) -> None:
        """Give a static *label* to a plain peer, for good. LabelSpaceError when it is taken or cannot be."""
        if not LOWEST_LABEL <= label <= HIGHEST_LABEL:
            raise LabelSpaceError(f"label {label} is outside {LOWEST_LABEL}-{HIGHEST_LABEL}")
        if owner := self._owners.get(label):
            raise LabelSpaceError(f"label {label} belongs to VRF {owner.vrf} of peer {owner.peer}")
        self._owners[label] = LabelOwner(peer, vrf, label_class, payload, session=None)

    def allocate(self, peer: str, vrf: str, label_class: ClassId, payload: int, session: int) -> int:
        """A free label, from now on ACTIVE; LabelSpaceError when there is none."""
        label = self._next_free()
        self._owners[label] = LabelOwner(peer, vrf, label_class, payload, session)
        return label

    def lookup(self, label: int) -> LabelOwner | None:
        """Whose *label* is, quarantined ones included; None when it is given out to nobody."""
        return self._owners.get(label)

    def is_for_peers(self, label: int) -> bool:
        """Whether *label* is, or may become, one of a peer's: then it never comes in clear (RFC 4023 8.1)."""
        return self._lo <= label <= self._hi or label in self._owners

    def accept_set(self, peer: str, vrf: str, label_class: ClassId) -> frozenset[int]:
        """The labels accepted from *peer* for exactly (VRF, class), draining and static ones included."""
        wanted = (peer, vrf, label_class)
        return frozenset(
            label
            for label, owner in self._owners.items()
            if owner.is_accepted and (owner.peer, owner.vrf, owner.label_class) == wanted
        )

    def withdraw(self, label: int, now: float, round_trip_s: float = 0.0) -> None:
        """The peer answered a withdraw of *label*: drain, at least two round trips, then quarantine it."""
        owner = self._owners.get(label)
        if owner is not None and owner.session is not None and owner.state is LabelState.ACTIVE:
            self._enter(label, LabelState.DRAINING, now + max(self._drain_s, 2 * round_trip_s))

    def quarantine(self, label: int, now: float) -> None:
        """Accept *label* no longer, from now on: it was refused, or its binding ended without a withdraw."""
        owner = self._owners.get(label)
        if owner is not None and owner.session is not None and owner.is_accepted:
            self._enter(label, LabelState.QUARANTINED, now + self._quarantine_s)

    def release_session(self, session: int, now: float) -> None:
        """The session ended: its labels go straight to quarantine."""
        for label in [label for label, owner in self._owners.items() if owner.session == session]:
            self.quarantine(label, now)

    def expire(self, now: float) -> None:
        """End every drain and every quarantine that is over."""
        while self._ends and self._ends[0][0] <= now:
            until, label = heapq.heappop(self._ends)
            if self._until.get(label) != until:
                continue  # it has moved on since
            if self._owners[label].state is LabelState.DRAINING:
                self._enter(label, LabelState.QUARANTINED, until + self._quarantine_s)
            else:
                del self._owners[label], self._until[label]
                self._freed.append(label)

    def next_deadline(self) -> float | None:
        """When `expire` has something to do, None for never. It may be early, never late."""
        return self._ends[0][0] if self._ends else None

    def _enter(self, label: int, state: LabelState, until: float) -> None:
        self._owners[label] = replace(self._owners[label], state=state)
        self._until[label] = until
        heapq.heappush(self._ends, (until, label))

    def _next_free(self) -> int:
        while self._unused <= self._hi:
            label, self._unused = self._unused, self._unused + 1
            if label not in self._owners:
                return label
        while self._freed:
            label = self._freed.popleft()
            if label not in self._owners:
                return label
        raise LabelSpaceError("every label is given out or in quarantine")
