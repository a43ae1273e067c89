"""What the tail wants bound, and the next entries that bring the head's table there (WIRE 5.3, 5.5).

It knows nothing of messages, sequence or time: `binding_sender` asks and sends.
"""

from dataclasses import dataclass, field
from typing import Final

from mpls.binding_table import BindingTable, Key, Route
from mpls.bindings import EXPLICIT_NULL, BindingError, Entry, Prefix

# Upper bounds of what the encoding takes: a whole message without its entries (a hashed VRF name, a class
# name of 64 characters, two 64-bit numbers), an entry without prefixes, a prefix.
MESSAGE_OCTETS: Final = 136
_ENTRY_OCTETS: Final = 13
_PREFIX_OCTETS: Final = {4: 8, 6: 20}


@dataclass(slots=True)
class Room:
    """What still fits: labels plus prefixes in the message, its octets, and growth of the head's table."""

    weight: int
    octets: int
    growth: int = 0

    @property
    def is_full(self) -> bool:
        """Nothing more fits, not even a label alone."""
        return self.weight < 1 or self.octets < _ENTRY_OCTETS

    def take(self, octets: int, growth: int = 0) -> bool:
        """Use room for one label or prefix; False, and nothing used, when there is not enough."""
        if self.weight < 1 or self.octets < octets or self.growth < growth:
            return False
        self.weight -= 1
        self.octets -= octets
        self.growth -= growth
        return True


@dataclass(slots=True)
class _Wanted:
    payload: int
    routes: dict[Route, None] = field(default_factory=dict)


class BindingPlan:
    """The labels and routes wanted, by (VRF, class).

    Labels for which plan and table may differ are kept apart, so that a message costs by what is in it and not by
    all that is bound.
    """

    def __init__(self) -> None:
        self._unsettled: dict[Key, dict[int, None]] = {}
        self._labels: dict[Key, dict[int, _Wanted]] = {}
        self._holders: dict[Key, dict[Prefix, int]] = {}
        self._keys: dict[int, Key] = {}

    def labels(self, key: Key) -> set[int]:
        return set(self._labels.get(key, ()))

    def wants(self, key: Key, label: int) -> bool:
        return label in self._labels.get(key, ())

    def unsettle(self, key: Key, table: BindingTable) -> None:
        """Everything of (VRF, class) is to be compared with the table anew."""
        self._unsettled[key] = dict.fromkeys((*self._labels.get(key, ()), *table.labels(key)))

    def wanted_keys(self) -> set[Key]:
        return set(self._labels)

    def bind(self, key: Key, entry: Entry) -> None:
        """Want *entry*; its prefixes move here. BindingError: the label is wanted for something else."""
        other = self._keys.get(entry.label, key)
        if other != key:
            raise BindingError(f"label {entry.label} is bound for class {other[1]} of VRF {other[0]}")
        wanted = self._labels.setdefault(key, {}).setdefault(entry.label, _Wanted(entry.payload))
        if wanted.payload != entry.payload:
            raise BindingError(f"label {entry.label} is bound with payload {wanted.payload}")
        if entry.label not in EXPLICIT_NULL:
            self._keys[entry.label] = key
        holders = self._holders.setdefault(key, {})
        unsettled = self._unsettled.setdefault(key, {})
        unsettled[entry.label] = None
        for prefix in entry.prefixes:
            holder = holders.get(prefix, entry.label)
            if holder != entry.label:
                del self._labels[key][holder].routes[prefix]
                unsettled[holder] = None
            holders[prefix] = entry.label
        wanted.routes.update(dict.fromkeys(entry.prefixes or (None,)))

    def unbind(self, key: Key, entry: Entry) -> bool:
        """Want the entry's prefixes, or without any its label, no longer. Whether the label still is."""
        wanted = self._labels.get(key, {}).get(entry.label)
        if wanted is None:
            return False
        self._unsettled.setdefault(key, {})[entry.label] = None
        routes: tuple[Route, ...] = entry.prefixes or tuple(wanted.routes)
        for route in routes:
            if route in wanted.routes:
                del wanted.routes[route]
                if route is not None:
                    del self._holders[key][route]
        if entry.prefixes:
            return True
        del self._labels[key][entry.label]
        self._keys.pop(entry.label, None)
        return False

    def give_up(self, key: Key, entry: Entry, is_bound: bool) -> None:
        """The head refused *entry*: want it no longer, nor its label unless an earlier entry stands."""
        wanted = self._labels.get(key, {}).get(entry.label)
        if wanted is None:
            return
        if entry.prefixes:
            self.unbind(key, entry)
        else:
            self._unsettled.setdefault(key, {})[entry.label] = None
            wanted.routes.pop(None, None)
        if not is_bound or not wanted.routes:
            self.unbind(key, Entry(entry.label, entry.payload))

    def forget(self, key: Key) -> None:
        """Want nothing of (VRF, class)."""
        for label in self._labels.pop(key, {}):
            self._keys.pop(label, None)
        self._holders.pop(key, None)
        self._unsettled.pop(key, None)

    def missing(self, key: Key, table: BindingTable, room: Room) -> tuple[Entry, ...]:
        """Entries to add for what *table* has not, or not confirmed, as many as there is room for."""
        unsettled = self._unsettled.get(key, {})
        entries, settled = [], []
        for label in unsettled:
            if room.is_full:
                break
            entry = self._add(key, label, table, room)
            if entry is not None:
                entries.append(entry)
            elif self._is_settled(key, label, table):
                settled.append(label)
        for label in settled:
            del unsettled[label]
        return tuple(entries)

    def _add(self, key: Key, label: int, table: BindingTable, room: Room) -> Entry | None:
        wanted = self._labels.get(key, {}).get(label)
        routes = self._missing_routes(key, label, table)
        is_new = label not in table.labels(key)
        if wanted is None or not routes or not room.take(_ENTRY_OCTETS, growth=is_new):
            return None
        # A label stands once in a message, and without prefixes it means the per-VRF label.
        if None in routes:
            return Entry(label, wanted.payload)
        fitting = tuple(
            prefix
            for prefix in routes
            if prefix is not None
            and room.take(_PREFIX_OCTETS[prefix.version], growth=not table.has_prefix(key, prefix))
        )
        return Entry(label, wanted.payload, fitting) if fitting else None

    def surplus(self, key: Key, table: BindingTable, room: Room) -> tuple[Entry, ...]:
        """Entries to withdraw for what *table* has and nobody wants, as many as there is room for."""
        entries: list[Entry] = []
        for label in self._unsettled.get(key, {}):
            if room.is_full:
                break
            bound, is_wanted = table.labels(key).get(label), self.wants(key, label)
            gone = self._surplus_routes(key, label, table)
            if bound is None or (is_wanted and not gone) or not room.take(_ENTRY_OCTETS):
                continue
            fitting = tuple(prefix for prefix in gone if room.take(_PREFIX_OCTETS[prefix.version]))
            if fitting or not is_wanted:
                entries.append(Entry(label, bound.payload, fitting))
        return tuple(entries)

    def _is_settled(self, key: Key, label: int, table: BindingTable) -> bool:
        if not self.wants(key, label):
            return label not in table.labels(key)
        return not self._missing_routes(key, label, table) and not self._surplus_routes(key, label, table)

    def _missing_routes(self, key: Key, label: int, table: BindingTable) -> list[Route]:
        wanted = self._labels.get(key, {}).get(label)
        if wanted is None:
            return []
        return [route for route in wanted.routes if not table.is_confirmed(key, label, route)]

    def _surplus_routes(self, key: Key, label: int, table: BindingTable) -> list[Prefix]:
        """Prefixes that the table has on a label that is wanted, but not for them."""
        wanted, bound = self._labels.get(key, {}).get(label), table.labels(key).get(label)
        if wanted is None or bound is None:
            return []
        return [route for route in bound.routes if route is not None and route not in wanted.routes]
