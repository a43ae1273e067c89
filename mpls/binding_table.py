"""What is bound in one session, by (VRF, class): labels and the routes on them (WIRE 5.3).

It knows nothing of messages. The head keeps one of what it accepted, the tail one of what the head has
answered; both change it by the same operations.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from mpls.bindings import EXPLICIT_NULL, Entry, Prefix
from mpls.identifiers import ClassId

Key: TypeAlias = tuple[str, ClassId]  # the local name of the VRF, and the class
Route: TypeAlias = (
    Prefix | None
)  # None: bound as per-VRF label, for routes the head's own configuration makes

KEEP_WITHOUT_CHILD_S: Final = 30.0
"""When the last child of a (VRF, class) has gone, both ends keep its bindings for so long (WIRE 5.5)."""
_STALE: Final = -1


@dataclass(frozen=True, slots=True)
class RouteAdded:
    """*prefix* of (VRF, class) is reached by *label*, and no longer by any other label of this session.

    Without a prefix: the label may be used for routes configured at the head, of the families in *payload*.
    """

    vrf: str
    label_class: ClassId
    prefix: Route
    label: int
    payload: int


@dataclass(frozen=True, slots=True)
class RouteRemoved:
    """*prefix* of (VRF, class) is not reached by *label* any more; or the per-VRF label is gone."""

    vrf: str
    label_class: ClassId
    prefix: Route
    label: int


RouteChange: TypeAlias = RouteAdded | RouteRemoved


@dataclass(slots=True)
class BoundLabel:
    """A label with its routes; the generation of each says whether the snapshot under way confirmed it."""

    payload: int
    generation: int = _STALE
    routes: dict[Route, int] = field(default_factory=dict)


class BindingTable:
    """Labels and routes. `count` is what limits count: labels plus prefixes, the stale ones included."""

    def __init__(self) -> None:
        self.count = 0
        self._generation = 0
        self._labels: dict[Key, dict[int, BoundLabel]] = {}
        self._holders: dict[Key, dict[Prefix, int]] = {}
        self._keys: dict[int, Key] = {}

    def bound_keys(self) -> set[Key]:
        """Each (VRF, class) that has labels, or had."""
        return set(self._labels)

    def labels(self, key: Key) -> Mapping[int, BoundLabel]:
        """The labels bound for (VRF, class)."""
        return self._labels.get(key, {})

    def has_prefix(self, key: Key, prefix: Prefix) -> bool:
        return prefix in self._holders.get(key, {})

    def key_of(self, label: int) -> Key | None:
        """The (VRF, class) of an ordinary label; None for one that is not bound, and for explicit null."""
        return self._keys.get(label)

    def is_confirmed(self, key: Key, label: int, route: Route) -> bool:
        """Whether the route is on the label and not stale."""
        bound = self.labels(key).get(label)
        return bound is not None and bound.routes.get(route) == self._generation

    def growth(self, key: Key, entries: Iterable[Entry]) -> int:
        """By how much `count` grows when *entries*, no label or prefix twice among them, are added."""
        labels, holders = self.labels(key), self._holders.get(key, {})
        return sum(
            (entry.label not in labels) + sum(prefix not in holders for prefix in entry.prefixes)
            for entry in entries
        )

    def add(self, key: Key, entry: Entry) -> list[RouteChange]:
        """Bind the label; move the prefixes to it. No prefixes: it becomes a per-VRF label."""
        labels, holders = self._labels.setdefault(key, {}), self._holders.setdefault(key, {})
        bound = labels.get(entry.label)
        if bound is None:
            bound = labels[entry.label] = BoundLabel(entry.payload)
            self.count += 1
            if entry.label not in EXPLICIT_NULL:
                self._keys[entry.label] = key
        bound.generation = self._generation
        changes: list[RouteChange] = []
        for route in entry.prefixes or (None,):
            if route not in bound.routes:
                changes.append(RouteAdded(*key, route, entry.label, bound.payload))
                if route is not None:
                    self._move(holders, labels, route, entry.label)
            bound.routes[route] = self._generation
        return changes

    def withdraw(self, key: Key, entry: Entry) -> list[RouteChange]:
        """Take the listed prefixes from the label, or without any the label. What is not there is gone."""
        bound = self.labels(key).get(entry.label)
        if bound is None:
            return []
        if not entry.prefixes:
            return self._remove_label(key, entry.label)
        return [self._remove_route(key, entry.label, p) for p in entry.prefixes if p in bound.routes]

    def begin_snapshot(self) -> None:
        """All that is here is stale from now on, and stays usable."""
        self._generation += 1

    def end_snapshot(self) -> list[RouteChange]:
        """Remove what is still stale."""
        changes: list[RouteChange] = []
        for key, labels in self._labels.items():
            for label, bound in list(labels.items()):
                if bound.generation != self._generation:
                    changes += self._remove_label(key, label)
                    continue
                stale = [
                    route for route, generation in bound.routes.items() if generation != self._generation
                ]
                changes += [self._remove_route(key, label, route) for route in stale]
        return changes

    def mark_stale(self, key: Key) -> None:
        """Everything of (VRF, class) is to be confirmed anew."""
        for bound in self.labels(key).values():
            bound.generation = _STALE
            bound.routes = dict.fromkeys(bound.routes, _STALE)

    def drop(self, key: Key) -> list[RouteChange]:
        """Remove everything of (VRF, class)."""
        return [change for label in list(self.labels(key)) for change in self._remove_label(key, label)]

    def clear(self) -> list[RouteChange]:
        """Remove everything."""
        return [change for key in self._labels for change in self.drop(key)]

    def _move(
        self, holders: dict[Prefix, int], labels: dict[int, BoundLabel], prefix: Prefix, label: int
    ) -> None:
        if prefix in holders:
            del labels[holders[prefix]].routes[prefix]
        else:
            self.count += 1
        holders[prefix] = label

    def _remove_label(self, key: Key, label: int) -> list[RouteChange]:
        changes: list[RouteChange] = [
            self._remove_route(key, label, route) for route in list(self._labels[key][label].routes)
        ]
        del self._labels[key][label]
        self._keys.pop(label, None)
        self.count -= 1
        return changes

    def _remove_route(self, key: Key, label: int, route: Route) -> RouteRemoved:
        del self._labels[key][label].routes[route]
        if route is not None:
            del self._holders[key][route]
            self.count -= 1
        return RouteRemoved(*key, route, label)
