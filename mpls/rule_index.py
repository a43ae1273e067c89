"""Which of thousands of ordered matches is the first to hold for a flow, without trying each (RFC 4301 4.4.1).

Knows nothing of what is done then. For every condition there is one table from a value to the matches that do not
object to it, as an integer with bit n for match n; the tables' answers are and-ed, and the lowest bit is the first.
A look-up costs some ten such operations, however many matches there are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from mpls.ip import Network
from mpls.vrf import PrefixTable

if TYPE_CHECKING:
    from mpls.crypto_map import Flow, Match, Range

_BOUNDS_PER_CHECKPOINT: Final = 32
"""Of ranges not every step keeps its set: 10,000 matches with ranges of their own would take 25 MB."""


class RuleIndex:
    """Built once from the matches in their order."""

    def __init__(self, matches: Sequence[Match]) -> None:
        self._attachments = _Values(
            (n, None if m.attachment is None else (m.attachment,)) for n, m in enumerate(matches)
        )
        self._vrfs = _Values((n, None if m.vrf is None else (m.vrf,)) for n, m in enumerate(matches))
        self._protocols = _Values(
            (n, None if m.protocol is None else (m.protocol,)) for n, m in enumerate(matches)
        )
        self._dscps = _Values((n, m.dscp) for n, m in enumerate(matches))
        self._labelled = _Values(
            (n, None if m.labelled is None else (m.labelled,)) for n, m in enumerate(matches)
        )
        self._sources = _Prefixes((n, m.sources) for n, m in enumerate(matches))
        self._destinations = _Prefixes((n, m.destinations) for n, m in enumerate(matches))
        self._source_ports = _Ranges((n, _one(m.source_ports)) for n, m in enumerate(matches))
        self._destination_ports = _Ranges((n, _one(m.destination_ports)) for n, m in enumerate(matches))
        depths = sorted({m.depth for m in matches if m.looks_at_entry})
        self._entries = [_Entries(depth, matches) for depth in depths]

    def first(self, flow: Flow) -> int | None:
        """The number of the first match that holds, counted from 0."""
        left = (
            self._vrfs.admit(flow.vrf)
            & self._attachments.admit(flow.attachment)
            & self._protocols.admit(flow.protocol)
            & self._dscps.admit(flow.dscp)
            & self._labelled.admit(bool(flow.labels))
            & self._source_ports.admit(flow.source_port)
            & self._destination_ports.admit(flow.destination_port)
            & self._sources.admit(flow.source)
            & self._destinations.admit(flow.destination)
        )
        for entries in self._entries:
            left &= entries.admit(flow)
        return (left & -left).bit_length() - 1 if left else None


class _Values:
    """A condition that is a set of values; None is no condition."""

    def __init__(self, conditions: Iterable[tuple[int, Iterable[Hashable] | None]]) -> None:
        self._indifferent = 0
        self._admitted: dict[Hashable, int] = {}
        asking: defaultdict[Hashable, int] = defaultdict(int)
        for number, values in conditions:
            if values is None:
                self._indifferent |= 1 << number
            for value in values or ():
                asking[value] |= 1 << number
        for value, numbers in asking.items():
            self._admitted[value] = numbers | self._indifferent

    def admit(self, value: Hashable) -> int:
        return self._admitted.get(value, self._indifferent)


class _Prefixes:
    """A condition that is a list of networks, for a packed address; b"" is in none."""

    def __init__(self, conditions: Iterable[tuple[int, Iterable[Network] | None]]) -> None:
        self._indifferent = 0
        self._table: PrefixTable[int] = PrefixTable()
        for number, networks in conditions:
            if networks is None:
                self._indifferent |= 1 << number
            for network in networks or ():
                self._table[network] = (self._table.get(network) or 0) | 1 << number

    def admit(self, address: bytes) -> int:
        admitted = self._indifferent
        if address:
            for numbers in self._table.matches(address):
                admitted |= numbers
        return admitted


class _Ranges:
    """A condition that is a list of inclusive ranges; a value of None is in none.

    Between two bounds the set does not change; at a bound some matches come or go. Every few bounds the whole set
    is kept, from there on the changes are applied.
    """

    def __init__(self, conditions: Iterable[tuple[int, Iterable[Range] | None]]) -> None:
        self._indifferent = 0
        changes: defaultdict[int, int] = defaultdict(int)
        for number, ranges in conditions:
            if ranges is None:
                self._indifferent |= 1 << number
            for low, high in _merged(ranges or ()):
                changes[low] ^= 1 << number
                changes[high + 1] ^= 1 << number
        self._bounds = sorted(changes)
        self._changes = [changes[bound] for bound in self._bounds]
        self._checkpoints: list[int] = []
        admitted = self._indifferent
        for at, change in enumerate(self._changes):
            if at % _BOUNDS_PER_CHECKPOINT == 0:
                self._checkpoints.append(admitted)
            admitted ^= change

    def admit(self, value: int | None) -> int:
        if value is None or not self._bounds:
            return self._indifferent
        count = bisect_right(self._bounds, value)
        if count == 0:
            return self._indifferent
        checkpoint = (count - 1) // _BOUNDS_PER_CHECKPOINT
        admitted = self._checkpoints[checkpoint]
        for change in self._changes[checkpoint * _BOUNDS_PER_CHECKPOINT : count]:
            admitted ^= change
        return admitted


class _Entries:
    """The conditions on the label stack entry at one depth."""

    def __init__(self, depth: int, matches: Sequence[Match]) -> None:
        def of_depth(condition: Callable[[Match], Iterable[Hashable] | None]) -> _Values:
            return _Values((n, condition(m) if m.depth == depth else None) for n, m in enumerate(matches))

        self._depth = depth
        looking = (1 << n for n, m in enumerate(matches) if m.looks_at_entry and m.depth == depth)
        self._without = ~sum(looking)
        """For a stack that is not so deep."""
        self._labels = _Ranges((n, m.labels if m.depth == depth else None) for n, m in enumerate(matches))
        self._tcs = of_depth(lambda match: match.tc)
        self._bottoms = of_depth(lambda match: None if match.bottom is None else (match.bottom,))

    def admit(self, flow: Flow) -> int:
        if len(flow.labels) < self._depth:
            return self._without
        at = self._depth - 1
        is_bottom = len(flow.labels) == self._depth
        return (
            self._labels.admit(flow.labels[at])
            & self._tcs.admit(flow.tcs[at])
            & self._bottoms.admit(is_bottom)
        )


def _one(ports: Range | None) -> tuple[Range, ...] | None:
    return None if ports is None else (ports,)


def _merged(ranges: Iterable[Range]) -> list[Range]:
    """The same numbers in ranges that do not touch, so that each bound is one change."""
    merged: list[Range] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], high)
        else:
            merged.append((low, high))
    return merged
