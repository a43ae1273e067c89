"""Typed reading of one TOML table: each accessor checks the exact type, and notes what does not fit.

Knows nothing of what the keys mean. A missing or bad value is reported and replaced by a placeholder, so that
the rest is still read and every problem is told at once; a document with problems is never used.
"""

from collections.abc import Callable, Collection
from enum import Enum
from typing import TypeVar

from endpoint.config.locate import Path
from endpoint.config.problems import Report, did_you_mean, quoted

T = TypeVar("T")
D = TypeVar("D")
E = TypeVar("E", bound=Enum)

_KINDS: dict[type, str] = {
    str: "text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number with a fraction",
    list: "a list in [ ]",
    dict: "a table",
}
_MAX_ITEMS = 100_000


def kind_of(value: object) -> str:
    """What a TOML value is, in the words of the messages."""
    return _KINDS.get(type(value), "a date or time")


class Table:
    """One table of the document. `close` reports the keys that nobody asked for."""

    def __init__(self, report: Report, path: Path, data: dict[str, object]) -> None:
        self.report = report
        self.path = path
        self._data = data
        self._asked: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def at(self, key: str) -> Path:
        return (*self.path, key)

    def error(self, key: str, message: str, remedy: str) -> None:
        self.report.error(self.at(key), message, remedy)

    def keys(self) -> list[str]:
        return list(self._data)

    def holds_only_tables(self) -> bool:
        """Whether there is a key, and the value of each is a table."""
        return bool(self._data) and all(type(value) is dict for value in self._data.values())

    def checked(self, key: str, parse: Callable[[object], T]) -> T | None:
        """The key itself, where keys are names of something; None, reported, when it is no such name."""
        return self._parse(self.at(key), parse, key, None)

    def close(self) -> None:
        """Every key not asked for until now is unknown."""
        for key in self._data:
            if key not in self._asked:
                self.error(key, "unknown key", did_you_mean(key, self._asked))

    def raw(self, key: str, kind: type[T], remedy: str = "") -> T | None:
        """The value if it is there and exactly of this type; a bool is no int."""
        if key not in self._asked:
            self._asked.append(key)
        if key not in self._data:
            return None
        value = self._data[key]
        if type(value) is kind:
            return value
        self.error(key, f"must be {_KINDS[kind]}, not {kind_of(value)}", remedy or f"write {_KINDS[kind]}")
        return None

    def text(self, key: str, default: str | None = None, *, example: str = "") -> str:
        """The text of `key`. Without a default it is required."""
        value = self.raw(key, str)
        if value is None:
            if default is None and key not in self:
                self.error(key, "is missing", f"add {key} = {quoted(example or '…')}")
            return default or ""
        if not value:
            self.error(
                key, "is empty", f"write something like {quoted(example)}" if example else "leave it away"
            )
        return value

    def choice(self, key: str, choices: type[E], default: E) -> E:
        value = self.raw(key, str, remedy=f"use one of {', '.join(quoted(one.value) for one in choices)}")
        if value is None:
            return default
        try:
            return choices(value)
        except ValueError:
            self.error(
                key, f"unknown value {quoted(value)}", did_you_mean(value, [one.value for one in choices])
            )
            return default

    def integer(self, key: str, default: int, lowest: int, highest: int) -> int:
        return self._bounded(key, self.raw(key, int), default, lowest, highest)

    def boolean(self, key: str, default: bool) -> bool:
        value = self.raw(key, bool)
        return default if value is None else value

    def value(self, key: str, parse: Callable[[object], T], default: D) -> T | D:
        """A value of several possible types: `parse` takes it as it is and raises ValueError."""
        if key not in self._asked:
            self._asked.append(key)
        if key not in self._data:
            return default
        return self._parse(self.at(key), parse, self._data[key], default)

    def values(self, key: str, parse: Callable[[object], T]) -> tuple[T, ...] | None:
        """A list, each item through `parse`; bad items are reported and left out. None: no list there."""
        items = self.raw(key, list)
        if items is None:
            return None
        if len(items) > _MAX_ITEMS:
            self.error(key, f"has {len(items)} items", f"at most {_MAX_ITEMS} are accepted")
            return ()
        parsed = (self._parse((*self.at(key), index), parse, item, None) for index, item in enumerate(items))
        return tuple(item for item in parsed if item is not None)

    def unique(self, key: str, parse: Callable[[object], T]) -> tuple[T, ...] | None:
        """Like `values`; an item that stands twice is a problem."""
        values = self.values(key, parse)
        seen: set[T] = set()
        for value in values or ():
            if value in seen:
                self.error(key, f"{value} stands twice", "write it once")
            seen.add(value)
        return values

    def some(self, key: str, parse: Callable[[object], T]) -> tuple[T, ...] | None:
        """Like `unique`, but an empty list is a problem: it could be meant as everything or as nothing."""
        if self._data.get(key) == []:
            self.error(key, "is an empty list", "leave it away, or fill it")
        return self.unique(key, parse) or None

    def table(self, key: str) -> "Table | None":
        value = self.raw(key, dict)
        return None if value is None else Table(self.report, self.at(key), value)

    def tables(self, key: str, header: str = "") -> "list[Table]":
        """The tables of an array of tables; `header` is how it is usually written."""
        remedy = f"write {header}" if header else "write a list of tables: [{ … }, { … }]"
        found: list[Table] = []
        for index, item in enumerate(self.raw(key, list, remedy) or ()):
            path = (*self.at(key), index)
            if type(item) is dict:
                found.append(Table(self.report, path, item))
            else:
                self.report.error(path, f"must be a table, not {kind_of(item)}", remedy)
        return found

    def one_of(self, keys: Collection[str]) -> str | None:
        """The one key of `keys` that is there. None, reported, for none or several."""
        present = [key for key in keys if key in self]
        if len(present) == 1:
            return present[0]
        some = "several" if present else "none"
        names = ", ".join(keys)
        self.report.error(self.path, f"has {some} of {names}", "write exactly one of them")
        return None

    def _bounded(self, key: str, value: int | None, default: int, lowest: int, highest: int) -> int:
        if value is None:
            return default
        if not lowest <= value <= highest:
            self.error(key, f"{quoted(value)} is out of range", f"use {lowest} to {highest}")
            return default
        return value

    def _parse(self, path: Path, parse: Callable[[object], T], value: object, default: D) -> T | D:
        try:
            return parse(value)
        except ValueError as error:
            self.report.refuse(path, error)
            return default
