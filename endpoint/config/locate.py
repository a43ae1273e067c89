"""Where a key stands: line numbers for the tables, keys and array items of a TOML document (TOML 1.0).

Knows nothing of what the keys mean. tomllib gives values without positions; this walks the same text again.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Path = tuple[str | int, ...]

# Strings first, so that brackets, commas and hash signs inside them are not taken for syntax.
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*+'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*+"'
    r"|'[^'\n]*+'"
    r"|\#[^\n]*+"
    r"|[\[\]{},=\n]"
    r"|[^\s\"'\#\[\]{},=]++",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Locations:
    """The lines (from 1) of a document's tables, keys and array items, by path: `("peer", 0, "esp", 1)`."""

    lines: Mapping[Path, int]

    def line_of(self, path: Path) -> int:
        """The line of `path`, or of the nearest thing that encloses it; 1 when nothing does."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return 1


def locate_keys(text: str) -> Locations:
    """Walk a document that tomllib accepts. Any other text gives fewer or wrong lines, never an exception."""
    walk = _Walk()
    for symbol, line in _tokens(text):
        walk.take(symbol, line)
    return Locations(walk.lines)


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line, counted = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        if not match[0].startswith("#"):
            yield match[0], line


@dataclass(slots=True)
class _Container:
    """An open array or inline table: where its items lie."""

    path: Path
    is_array: bool
    index: int = 0


@dataclass(slots=True)
class _Walk:
    lines: dict[Path, int] = field(default_factory=dict)
    table: Path = ()  # of the last [header]
    counts: dict[Path, int] = field(default_factory=dict)  # tables so far in each array of tables
    containers: list[_Container] = field(default_factory=list)
    words: list[str] = field(default_factory=list)  # the pieces of a key not yet complete
    brackets: int = 0  # opening brackets of the header being read
    value_of: Path | None = None  # the key whose value comes next

    def take(self, symbol: str, line: int) -> None:
        if self.containers:
            self._take_inside(symbol, line)
        elif self.value_of is not None:
            if symbol == "\n":
                self.value_of = None
            else:
                self._take_value(self.value_of, symbol)
        elif symbol == "\n":
            self.words, self.brackets = [], 0
        elif symbol == "[":
            self.brackets += 1
        elif symbol == "]":
            if self.words:
                self._enter_table(line)
        elif symbol == "=":
            self.value_of = self._note(self._resolve(self.table, self._take_words()), line)
        else:
            self.words.append(symbol)

    def _take_inside(self, symbol: str, line: int) -> None:
        container = self.containers[-1]
        if self.value_of is not None:
            self._take_value(self.value_of, symbol)
        elif symbol in ("]", "}"):
            self.containers.pop()
            self.words = []
        elif symbol == ",":
            container.index += 1
            self.words = []
        elif symbol == "\n":
            pass
        elif container.is_array:
            self._take_value(self._note((*container.path, container.index), line), symbol)
        elif symbol == "=":
            self.value_of = self._note((*container.path, *self._take_words()), line)
        else:
            self.words.append(symbol)

    def _take_value(self, path: Path, symbol: str) -> None:
        """A scalar ends at once; a bracket or brace opens a container at `path`."""
        self.value_of = None
        if symbol in ("[", "{"):
            self.containers.append(_Container(path, is_array=symbol == "["))

    def _enter_table(self, line: int) -> None:
        keys = self._take_words()
        if self.brackets == 1:
            self.table = self._note(self._resolve((), keys), line)
        else:
            array = (*self._resolve((), keys[:-1]), keys[-1])
            index = self.counts.get(array, 0)
            self.counts[array] = index + 1
            self.table = self._note((*array, index), line)

    def _resolve(self, start: Path, keys: Path) -> Path:
        """Append `keys`; one that names an array of tables means its last table."""
        path = start
        for key in keys:
            path = (*path, key)
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
        return path

    def _note(self, path: Path, line: int) -> Path:
        """Remember the line of `path` and, where nothing stood before, of what encloses it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                break
            self.lines[path[:end]] = line
        return path

    def _take_words(self) -> Path:
        keys: list[str] = []
        for word in self.words:
            if word[0] in "\"'":
                keys.append(_unquote(word))
            else:
                keys += [part for part in word.split(".") if part]
        self.words = []
        return tuple(keys) or ("",)


def _unquote(word: str) -> str:
    try:
        return str(tomllib.loads(f"key = {word}")["key"])
    except ValueError:
        return word
