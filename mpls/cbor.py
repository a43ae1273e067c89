"""The one way CBOR is read and written here: core deterministic encoding (RFC 8949 4.2.1), WIRE 3.2.

It knows nothing of selectors, bindings or what a map means.

Hostile octets pass four gates: the strict walk below, which allocates nothing; cbor2; the exact type of each
key and value (`unsigned`, `octets`, `text`, `array`, called by the codecs); and the re-encoding of the whole,
which must give the same octets.
"""

from typing import Final, TypeAlias, TypeVar

import cbor2

Item: TypeAlias = "int | bytes | str | list[Item] | dict[int, Item]"

MAX_LEVELS: Final = 6
MAX_UNSIGNED: Final = (1 << 64) - 1

_UNSIGNED, _OCTETS, _TEXT, _ARRAY, _MAP = 0, 2, 3, 4, 5
_ARGUMENT_OCTETS: Final = {24: 1, 25: 2, 26: 4, 27: 8}
_SMALLEST: Final = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}

_T = TypeVar("_T", bytes, str, list[Item])


class CborError(ValueError):
    """Octets that are not one deterministic map, or an item of another type than the one asked for."""


def decode_map(octets: bytes, max_octets: int) -> dict[int, Item]:
    """The one map that *octets* hold, keys unsigned; CborError otherwise (WIRE 3.2 steps 1, 2 and 4)."""
    if not 0 < len(octets) <= max_octets:
        raise CborError(f"a map of {len(octets)} octets, 1 to {max_octets} expected")
    if octets[0] >> 5 != _MAP:
        raise CborError("the outermost item is not a map")
    end = _walk(octets, 0, level=1)
    if end != len(octets):
        raise CborError(f"{len(octets) - end} octets behind the map")
    try:
        item: dict[int, Item] = cbor2.loads(octets)
    except cbor2.CBORError as error:  # the walk leaves no way here; a decoder's own limit would be one
        raise CborError(f"not CBOR: {error}") from error
    if encode(item) != octets:
        raise CborError("not the deterministic encoding of its content")
    return item


def encode(item: Item) -> bytes:
    """The core deterministic encoding of *item* (RFC 8949 4.2.1)."""
    return cbor2.dumps(item, canonical=True)


def _walk(octets: bytes, at: int, level: int) -> int:
    """Where the item at *at* ends. Checks heads, order, counts and nesting; goes MAX_LEVELS deep at most."""
    if level > MAX_LEVELS:
        raise CborError(f"nested deeper than {MAX_LEVELS} levels")
    major, argument, at = _head(octets, at)
    remaining = len(octets) - at
    if major == _UNSIGNED:
        return at
    if major in (_OCTETS, _TEXT):
        if argument > remaining:
            raise CborError(f"a string of {argument} octets where {remaining} remain")
        if major == _TEXT and not octets[at : at + argument].isascii():
            raise CborError("text that is not ASCII")
        return at + argument
    if major == _ARRAY:
        if argument > remaining:
            raise CborError(f"an array of {argument} items where {remaining} octets remain")
        for _ in range(argument):
            at = _walk(octets, at, level + 1)
        return at
    if 2 * argument > remaining:
        raise CborError(f"a map of {argument} pairs where {remaining} octets remain")
    previous = -1
    for _ in range(argument):
        if level == MAX_LEVELS:
            raise CborError(f"nested deeper than {MAX_LEVELS} levels")
        key_major, key, at = _head(octets, at)
        if key_major != _UNSIGNED:
            raise CborError("a map key that is not an unsigned integer")
        if key <= previous:
            raise CborError(f"map key {key} behind {previous}")
        previous = key
        at = _walk(octets, at, level + 1)
    return at


def _head(octets: bytes, at: int) -> tuple[int, int, int]:
    """(major type, argument, offset behind) of the head at *at*; the argument is in its shortest form."""
    if at >= len(octets):
        raise CborError("cut off where an item should begin")
    major, information = octets[at] >> 5, octets[at] & 31
    if major not in (_UNSIGNED, _OCTETS, _TEXT, _ARRAY, _MAP):
        raise CborError(f"major type {major} is not used here")
    at += 1
    if information < 24:
        return major, information, at
    count = _ARGUMENT_OCTETS.get(information)
    if count is None:
        raise CborError("indefinite length" if information == 31 else f"additional information {information}")
    if at + count > len(octets):
        raise CborError("cut off inside the head of an item")
    argument = int.from_bytes(octets[at : at + count])
    if argument < _SMALLEST[information]:
        raise CborError(f"{argument} not in its shortest form")
    return major, argument, at + count


def unsigned(item: object, what: str, lowest: int = 0, highest: int = MAX_UNSIGNED) -> int:
    """*item* as an integer of lowest..highest. *true* is not 1 and 1.0 is not 1."""
    if type(item) is not int:
        raise CborError(f"{what} is not an unsigned integer")
    if not lowest <= item <= highest:
        raise CborError(f"{what} {item} is outside {lowest}..{highest}")
    return item


def octets(item: object, what: str) -> bytes:
    """*item* as a byte string."""
    return _exactly(item, bytes, what, "a byte string")


def text(item: object, what: str) -> str:
    """*item* as a text string."""
    return _exactly(item, str, what, "text")


def array(item: object, what: str, count: int | None = None) -> list[Item]:
    """*item* as an array, of *count* items if that is given."""
    items: list[Item] = _exactly(item, list, what, "an array")
    if count is not None and len(items) != count:
        raise CborError(f"{what} has {len(items)} items, not {count}")
    return items


def _exactly(item: object, kind: type[_T], what: str, name: str) -> _T:
    if type(item) is not kind:
        raise CborError(f"{what} is not {name}")
    return item


def check_keys(item: dict[int, Item], required: frozenset[int], optional: frozenset[int]) -> None:
    """Each required key is there, and no unknown one: an unknown restriction cannot be proven a subset."""
    if missing := required - item.keys():
        raise CborError(f"key {min(missing)} is missing")
    if unknown := item.keys() - required - optional:
        raise CborError(f"key {min(unknown)} is unknown")
