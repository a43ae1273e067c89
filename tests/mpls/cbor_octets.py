"""A writer of CBOR that may be wrong: octets split into tokens, so that a test can spoil any one of them.

It is independent of mpls.cbor, and understands only what that accepts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

UNSIGNED, NEGATIVE, OCTETS, TEXT, ARRAY, MAP = range(6)


@dataclass(frozen=True)
class Token:
    """The head of an item and the content of a string. `end` is the index of the token behind the item."""

    is_key: bool
    major: int
    argument: int
    content: bytes
    end: int

    @property
    def octets(self) -> bytes:
        return head(self.major, self.argument) + self.content


def head(major: int, argument: int, octet_count: int | None = None) -> bytes:
    """A head in its shortest form, or with an argument of 1, 2, 4 or 8 octets."""
    if octet_count is None:
        if argument < 24:
            return bytes((major << 5 | argument,))
        octet_count = next(count for count in (1, 2, 4, 8) if argument < 1 << 8 * count)
    return bytes((major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[octet_count],)) + argument.to_bytes(octet_count)


def tokens(octets: bytes) -> list[Token]:
    """The tokens of one good item."""
    found: list[Token] = []
    _read(octets, 0, False, found)
    return found


def _read(octets: bytes, at: int, is_key: bool, found: list[Token]) -> int:
    major, information = octets[at] >> 5, octets[at] & 31
    at += 1
    argument = information
    if information >= 24:
        count = 1 << information - 24
        argument = int.from_bytes(octets[at : at + count])
        at += count
    content = octets[at : at + argument] if major in (OCTETS, TEXT) else b""
    at += len(content)
    index = len(found)
    found.append(Token(is_key, major, argument, content, 0))
    for child in range({ARRAY: argument, MAP: 2 * argument}.get(major, 0)):
        at = _read(octets, at, major == MAP and child % 2 == 0, found)
    found[index] = replace(found[index], end=len(found))
    return at


def join(
    parts: list[Token], changes: dict[int, bytes] | None = None, after: dict[int, bytes] | None = None
) -> bytes:
    """The octets of the tokens, token i replaced by changes[i] and followed by after[i]."""
    changes, after = changes or {}, after or {}
    return b"".join(changes.get(i, token.octets) + after.get(i, b"") for i, token in enumerate(parts))


def with_token(octets: bytes, spoil: bytes, majors: set[int], keys: bool | None = None) -> Iterator[bytes]:
    """Each variant with one whole item of these major types (keys only, values only, or both) replaced."""
    parts = tokens(octets)
    for i, token in enumerate(parts):
        if token.major in majors and keys in (None, token.is_key):
            gone = dict.fromkeys(range(i, token.end), b"") | {i: spoil}
            yield join(parts, gone)
