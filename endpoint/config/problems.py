"""What is wrong with a configuration: file, line, key, message, remedy; all of them are told at once.

Knows nothing of the keys themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

from endpoint.config.locate import Locations, Path

_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what to do about it. `line` counts from 1."""

    file: str
    line: int
    key: str
    message: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: "
        key = f"{self.key}: " if self.key else ""
        remedy = f"; remedy: {self.remedy}" if self.remedy else ""
        return f"{where}{key}{self.message}{remedy}"


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` has every reason, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class BadValue(ValueError):  # noqa: N818 - what a value parser says of its input; becomes a Problem
    """A value that cannot be used, with its remedy."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(slots=True)
class Report:
    """The problems and warnings of one document, located by path."""

    file: str
    document: dict[str, object]
    locations: Locations
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def error(self, path: Path, message: str, remedy: str) -> None:
        self.problems.append(self._problem(path, message, remedy))

    def warn(self, path: Path, message: str, remedy: str) -> None:
        self.warnings.append(self._problem(path, message, remedy))

    def refuse(self, path: Path, error: ValueError) -> None:
        """Record what a value parser raised."""
        self.error(path, str(error), error.remedy if isinstance(error, BadValue) else "")

    def _problem(self, path: Path, message: str, remedy: str) -> Problem:
        line = self.locations.line_of(path)
        return Problem(self.file, line, self._shown(path), _one_line(message), _one_line(remedy))

    def _shown(self, path: Path) -> str:
        """`("peer", 0, "esp", 1)` is `peer.pe2.esp`: tables of an array by name, items not at all."""
        shown = ""
        here: object = self.document
        for step in path:
            if isinstance(here, dict) and isinstance(step, str):
                here = here.get(step)
                shown += ("." if shown else "") + _printable(step)
            elif isinstance(here, list) and isinstance(step, int):
                here = here[step] if step < len(here) else None
                if isinstance(here, dict):
                    name = here.get("name")
                    shown += f".{_printable(name)}" if isinstance(name, str) and name else f"[{step + 1}]"
        return shown


def quoted(value: object) -> str:
    """A value from the file as a message shows it: one line, bounded, no control characters."""
    if isinstance(value, str):
        return f'"{_printable(value)}"'
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "a number of that size"  # printing one can take long, or be refused
    return _printable(repr(value))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy for a misspelt word: the nearest known one, else all of them."""
    words = list(known)
    near = get_close_matches(word[:_SHOWN_CHARACTERS], words, n=1)
    if near:
        return f"did you mean {quoted(near[0])}?"
    return f"use one of {', '.join(quoted(word) for word in words)}" if words else ""


def _printable(text: str) -> str:
    return _one_line(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…")


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
