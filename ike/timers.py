"""One table of everything an engine waits for, each with its reason (RFC 7296 2.1, 2.4, 2.8).

Must not know what happens when a timer fires: its owner does.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from enum import StrEnum
from typing import NamedTuple, Protocol

from ike.events import Deadline


class TimerKind(StrEnum):
    RETRANSMIT = "retransmit"
    HALF_OPEN = "half-open IKE SA"
    LIVENESS = "liveness check"
    KEEPALIVE = "NAT keepalive"
    IKE_REKEY = "IKE SA rekey"
    IKE_HARD = "IKE SA lifetime"
    REAUTH = "authentication lifetime"
    CHILD_REKEY = "Child SA rekey"
    CHILD_HARD = "Child SA lifetime"
    RETRY = "retry after TEMPORARY_FAILURE"
    SUCCESSION = "peer has to delete the replaced IKE SA"
    REASSEMBLY = "fragments of a message are missing"
    LINGER = "closed IKE SA answers retransmissions"


class TimerOwner(Protocol):
    def handle_timer(self, kind: TimerKind, detail: Hashable, now: float) -> None: ...


class TimerKey(NamedTuple):
    """`owner` counts by identity; `detail` tells several timers of one kind and owner apart."""

    kind: TimerKind
    owner: TimerOwner
    detail: Hashable = None


class TimerTable:
    """Setting a timer again moves it. Times are those of the `now` that callers hand in."""

    def __init__(self) -> None:
        self._at: dict[TimerKey, float] = {}
        self._of_owner: dict[TimerOwner, dict[TimerKey, None]] = {}
        self._heap: list[tuple[float, int, TimerKey]] = []
        self._count = 0

    def set(self, at: float, kind: TimerKind, owner: TimerOwner, detail: Hashable = None) -> None:
        key = TimerKey(kind, owner, detail)
        self._at[key] = at
        self._of_owner.setdefault(owner, {})[key] = None
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))

    def cancel(self, kind: TimerKind, owner: TimerOwner, detail: Hashable = None) -> None:
        self._forget(TimerKey(kind, owner, detail))
        self._compact()

    def cancel_all(self, owner: TimerOwner) -> None:
        for key in self._of_owner.pop(owner, {}):
            del self._at[key]
        self._compact()

    def _forget(self, key: TimerKey) -> None:
        if self._at.pop(key, None) is None:
            return
        keys = self._of_owner[key.owner]
        del keys[key]
        if not keys:
            del self._of_owner[key.owner]

    def __len__(self) -> int:
        return len(self._at)

    def due_at(self, kind: TimerKind, owner: TimerOwner, detail: Hashable = None) -> float | None:
        """None for a timer that is not set."""
        return self._at.get(TimerKey(kind, owner, detail))

    def next_deadline(self) -> Deadline | None:
        self._drop_stale()
        if not self._heap:
            return None
        at, _, key = self._heap[0]
        return Deadline(at, key.kind.value)

    def pop_due(self, now: float) -> TimerKey | None:
        """Take out the earliest timer that has run out."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        key = heapq.heappop(self._heap)[2]
        self._forget(key)
        return key

    def _drop_stale(self) -> None:
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def _compact(self) -> None:
        """Stale heap entries never outnumber the live ones by more than a constant."""
        if len(self._heap) > 2 * len(self._at) + 64:
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
