"""What every reader refuses, for each of the four maps (WIRE 3.2; the classes of 9.3 that are marked T)."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpls import cbor
from mpls.bindings import BindingError, LabelBinding, LabelStatus
from mpls.capability import Capability, CapabilityError
from mpls.selectors import MplsVrfSelector, SelectorError
from tests.mpls.cbor_octets import ARRAY, MAP, OCTETS, TEXT, UNSIGNED, head, join, tokens, with_token

SCALARS, CONTAINERS = {UNSIGNED, OCTETS, TEXT}, {ARRAY, MAP}
EVERY = SCALARS | CONTAINERS
RD = bytes.fromhex("0000fde800000064")


def parse_selector(octets: bytes) -> MplsVrfSelector:
    return MplsVrfSelector.parse(b"\xf6\0" + (4 + len(octets)).to_bytes(2) + octets)


Parse = Callable[[bytes], Any]
MAPS: dict[str, tuple[Parse, type[ValueError], dict[int, Any]]] = {
    "selector": (
        parse_selector,
        SelectorError,
        {0: 1, 1: [0, RD], 2: 10, 3: 3, 4: 224, 5: [[16, 1015], [100000, 100999]], 6: [1, 3], 7: 128},
    ),
    "selector of a named class": (parse_selector, SelectorError, {0: 1, 1: [0, RD], 2: "gold"}),
    "binding": (
        LabelBinding.parse,
        BindingError,
        {
            0: 1,
            1: [0, RD],
            2: 10,
            3: 5,
            4: 1,
            5: 0,
            6: [[100, 3, [[24, b"\xc6\x33\x64"]], [[32, b" \x01\r\xb8"]]]],
        },
    ),
    "snapshot": (LabelBinding.parse, BindingError, {0: 1, 3: 70000, 4: 2, 5: 2}),
    "status": (LabelStatus.parse, BindingError, {0: 1, 3: 5, 4: 1, 5: 3, 6: [[100, 1], [200, 4]]}),
    "capability": (Capability.parse, CapabilityError, {0: 1, 1: 4096, 2: 7, 3: 1000}),
}


def trailing_octets(good: bytes) -> Iterator[bytes]:
    """Class 3."""
    yield good + b"\0"
    yield good + good


def cut_off(good: bytes) -> Iterator[bytes]:
    """Class 5, at every offset."""
    yield from (good[:count] for count in range(len(good)))


def outermost_not_a_map(good: bytes) -> Iterator[bytes]:
    """Class 6."""
    yield from (b"\x01", b"\x41\x00", b"\x61a", b"\x80", b"\x81" + good, b"\xf6")


def value_not_shortest(good: bytes) -> Iterator[bytes]:
    """Class 7: every number and every length, in every longer form."""
    yield from _longer(good, UNSIGNED, keys=False)


def length_not_shortest(good: bytes) -> Iterator[bytes]:
    """Class 8: keys, strings, arrays, maps."""
    yield from _longer(good, UNSIGNED, keys=True)
    for major in (OCTETS, TEXT, ARRAY, MAP):
        yield from _longer(good, major, keys=False)


def _longer(good: bytes, major: int, keys: bool) -> Iterator[bytes]:
    parts = tokens(good)
    for i, token in enumerate(parts):
        if token.major == major and token.is_key == keys:
            shortest = len(head(token.major, token.argument))
            for count in (1, 2, 4, 8):
                if count + 1 > shortest:
                    yield join(parts, {i: head(token.major, token.argument, count) + token.content})


def indefinite_length(good: bytes) -> Iterator[bytes]:
    """Class 9."""
    parts = tokens(good)
    for i, token in enumerate(parts):
        start = bytes((token.major << 5 | 31,))
        if token.major in CONTAINERS:
            yield join(parts, {i: start}, after={token.end - 1: b"\xff"})
        elif token.major in (OCTETS, TEXT):
            yield join(parts, {i: start + token.octets + b"\xff"})


def reserved_information(good: bytes) -> Iterator[bytes]:
    """Class 10."""
    parts = tokens(good)
    for i, token in enumerate(parts):
        yield from (join(parts, {i: bytes((token.major << 5 | n,)) + token.content}) for n in (28, 29, 30))


def keys_not_ascending(good: bytes) -> Iterator[bytes]:
    """Class 11: each neighbouring pair swapped."""
    pairs = _pairs(good)
    for i in range(len(pairs) - 1):
        yield head(MAP, len(pairs)) + b"".join((*pairs[:i], pairs[i + 1], pairs[i], *pairs[i + 2 :]))


def key_twice(good: bytes) -> Iterator[bytes]:
    """Class 12."""
    pairs = _pairs(good)
    for i, pair in enumerate(pairs):
        yield head(MAP, len(pairs) + 1) + b"".join((*pairs[: i + 1], pair, *pairs[i + 1 :]))


def _pairs(good: bytes) -> list[bytes]:
    parts = tokens(good)
    starts = [1]
    while starts[-1] < len(parts):
        starts.append(parts[starts[-1] + 1].end)
    return [join(parts[a:b]) for a, b in pairwise(starts)]


def key_of_another_type(good: bytes) -> Iterator[bytes]:
    """Class 13: text, octets, true, negative."""
    for key in (b"\x61\x31", b"\x41\x01", b"\xf5", b"\x20"):
        yield from with_token(good, key, {UNSIGNED}, keys=True)


def tag_anywhere(good: bytes) -> Iterator[bytes]:
    """Class 14: before every key and value."""
    parts = tokens(good)
    for i, token in enumerate(parts):
        for tag in (b"\xc0", b"\xc2", b"\xd8\x20", b"\xd9\xd9\xf7"):
            yield join(parts, {i: tag + token.octets})


def floating_point(good: bytes) -> Iterator[bytes]:
    """Class 15: 1.0 in three sizes."""
    for number in ("f93c00", "fa3f800000", "fb3ff0000000000000"):
        yield from with_token(good, bytes.fromhex(number), EVERY)


def simple_value(good: bytes) -> Iterator[bytes]:
    """Class 16: false, true, null, undefined, others, for everything."""
    for value in ("f4", "f5", "f6", "f7", "e0", "f3", "f820", "f8ff"):
        yield from with_token(good, bytes.fromhex(value), EVERY)


def negative_integer(good: bytes) -> Iterator[bytes]:
    """Class 17."""
    for number in ("20", "3863", "3a000fffff"):
        yield from with_token(good, bytes.fromhex(number), EVERY)


def nested_too_deep(good: bytes) -> Iterator[bytes]:
    """Class 18."""
    for depth in (6, 7, 1000):
        yield from with_token(good, b"\x81" * depth + b"\x01", EVERY, keys=False)
        yield from with_token(good, b"\xa1\x00" * depth + b"\x01", EVERY, keys=False)


def count_beyond_the_end(good: bytes) -> Iterator[bytes]:
    """Class 19: one too many, and far too many."""
    parts = tokens(good)
    for i, token in enumerate(parts):
        if token.major != UNSIGNED:
            for count in (len(good), 1 << 16, (1 << 32) - 1, (1 << 64) - 1):
                yield join(parts, {i: head(token.major, count) + token.content})


def bad_text(good: bytes) -> Iterator[bytes]:
    """Class 20: not ASCII, not UTF-8, outside the alphabet."""
    for text in ("zoë", "a b", "a/b", "a\0", "g\nold", "Straße", "１２"):
        encoded = text.encode()
        yield from with_token(good, head(TEXT, len(encoded)) + encoded, EVERY, keys=False)
    yield from with_token(good, b"\x62\xff\xfe", EVERY, keys=False)
    yield from with_token(good, b"\x63\xed\xa0\x80", EVERY, keys=False)


def wrong_version(good: bytes) -> Iterator[bytes]:
    """Class 23."""
    parts = tokens(good)
    yield from (join(parts, {2: head(UNSIGNED, version)}) for version in (0, 2, 255, 1 << 32))


CLASSES = {
    3: trailing_octets,
    5: cut_off,
    6: outermost_not_a_map,
    7: value_not_shortest,
    8: length_not_shortest,
    9: indefinite_length,
    10: reserved_information,
    11: keys_not_ascending,
    12: key_twice,
    13: key_of_another_type,
    14: tag_anywhere,
    15: floating_point,
    16: simple_value,
    17: negative_integer,
    18: nested_too_deep,
    19: count_beyond_the_end,
    20: bad_text,
    23: wrong_version,
}


@pytest.mark.parametrize("name", MAPS)
def test_good_map_is_accepted_and_gives_the_same_octets(name: str) -> None:
    parse, _, content = MAPS[name]
    octets = cbor.encode(content)
    encoded = parse(octets).encode()
    assert encoded.endswith(octets)
    assert join(tokens(octets)) == octets


@pytest.mark.parametrize("number", CLASSES)
@pytest.mark.parametrize("name", MAPS)
def test_class_is_refused_in_each_map(name: str, number: int) -> None:
    parse, error, content = MAPS[name]
    variants = list(CLASSES[number](cbor.encode(content)))
    assert variants
    for octets in variants:
        with pytest.raises(error):
            parse(octets)


@pytest.mark.parametrize("number", CLASSES.keys() - {20, 23})
@pytest.mark.parametrize("name", MAPS)
def test_class_is_refused_before_anything_is_decoded(
    name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = MAPS[name][2]
    variants = list(CLASSES[number](cbor.encode(content)))
    monkeypatch.setattr(cbor2, "loads", lambda octets: pytest.fail(f"decoded {octets.hex()}"))
    for octets in variants:
        with pytest.raises(cbor.CborError):
            cbor.decode_map(octets, 4096)


def test_text_that_is_not_ascii_is_refused_before_anything_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cbor2, "loads", lambda octets: pytest.fail(f"decoded {octets.hex()}"))
    for text in ("zoë".encode(), b"\xff\xfe"):
        with pytest.raises(cbor.CborError):
            cbor.decode_map(b"\xa1\x00" + head(TEXT, len(text)) + text, 100)


# VRF and class, which selectors and bindings share.
VRF_VALUES: dict[int, list[Any]] = {
    24: [[], [0], [0, RD, 0], [3, RD], [255, RD], 0, RD],
    25: [[0, RD[1:]], [0, RD + b"\0"], [1, RD], [1, RD[:6]], [2, RD], [2, bytes(33)], [0, "0" * 8], [0, b""]],
}
CLASS_VALUES: dict[int, list[Any]] = {
    26: [65536, 1 << 20, b"gold", [1], {}],
    27: ["", "x" * 65, "7", "0", "65535", "123456789"],
}


@pytest.mark.parametrize("name", ["selector", "binding"])
@pytest.mark.parametrize(
    ("key", "value"),
    [(1, v) for values in VRF_VALUES.values() for v in values]
    + [(2, v) for values in CLASS_VALUES.values() for v in values],
)
def test_wrong_vrf_or_class_is_refused(name: str, key: int, value: Any) -> None:
    parse, error, content = MAPS[name]
    with pytest.raises(error):
        parse(cbor.encode(content | {key: value}))


@pytest.mark.parametrize("name", MAPS)
def test_missing_and_unknown_keys_are_refused(name: str) -> None:
    parse, error, content = MAPS[name]
    required = {"selector": 3, "binding": 7}.get(name.split()[0], len(content))
    for key in list(content)[:required]:
        with pytest.raises(error):
            parse(cbor.encode({k: v for k, v in content.items() if k != key}))
    for key in (8, 9, 255, 1 << 32):
        with pytest.raises(error):
            parse(cbor.encode(content | {key: 1}))


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b"\xa3\x00\x01\x01\x82" + tail))
def test_random_octets_raise_the_typed_error_or_come_back(octets: bytes) -> None:
    for parse, error, _ in MAPS.values():
        try:
            parsed = parse(octets)
        except error:
            continue
        assert parsed.encode().endswith(octets)


def test_reader_bounds_size_before_it_looks() -> None:
    cbor.decode_map(b"\xa0", 1)
    with pytest.raises(cbor.CborError):
        cbor.decode_map(b"\xa1\x00\x01", 2)
    with pytest.raises(cbor.CborError):
        cbor.decode_map(b"", 1024)


def test_six_levels_are_read_and_the_seventh_is_not() -> None:
    def nested(arrays: int) -> bytes:
        return b"\xa1\x00" + b"\x81" * arrays + b"\x80"

    assert cbor.decode_map(nested(4), 100) == {0: [[[[[]]]]]}
    with pytest.raises(cbor.CborError):
        cbor.decode_map(nested(5), 100)
    with pytest.raises(cbor.CborError):  # a key counts as well as a value
        cbor.decode_map(b"\xa1\x00" + b"\x81" * 4 + b"\xa1\x00\x00", 100)


@given(st.recursive(
    st.integers(0, (1 << 64) - 1) | st.binary(max_size=30) | st.text("abc", max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 300), inner, max_size=4),
    max_leaves=12,
))  # fmt: skip
def test_what_is_encoded_is_read_back_unless_too_deep(item: Any) -> None:
    octets = cbor.encode({0: item})
    if _levels(item) + 1 > cbor.MAX_LEVELS:
        with pytest.raises(cbor.CborError):
            cbor.decode_map(octets, 1 << 20)
    else:
        assert cbor.decode_map(octets, 1 << 20) == {0: item}


def _levels(item: Any) -> int:
    if isinstance(item, dict):
        return 1 + max((max(1, _levels(value)) for value in item.values()), default=0)
    if isinstance(item, list):
        return 1 + max(map(_levels, item), default=0)
    return 1


@pytest.mark.parametrize("item", [True, 1.0, -1, "1", None, 1 << 64])
def test_exact_types_only(item: object) -> None:
    with pytest.raises(cbor.CborError):
        cbor.unsigned(item, "number")
