"""ike.wire.reader: reading never passes an end."""

import pytest

from ike.errors import ParseError
from ike.wire.reader import Reader


def test_integers_are_big_endian() -> None:
    reader = Reader(bytes.fromhex("01 0203 04050607 08"))
    assert (reader.u8(), reader.u16(), reader.u32(), reader.rest()) == (1, 0x0203, 0x04050607, b"\x08")
    reader.expect_end("nothing")


@pytest.mark.parametrize(
    "read", [Reader.u8, Reader.u16, Reader.u32, lambda r: r.take(1), lambda r: r.restrict(1)]
)
def test_reading_past_the_end_is_a_parse_error(read: object) -> None:
    assert callable(read)
    with pytest.raises(ParseError):
        read(Reader(b""))


def test_a_negative_count_is_a_parse_error() -> None:
    reader = Reader(b"abcd", start=2)
    with pytest.raises(ParseError):
        reader.take(-1)
    with pytest.raises(ParseError):
        reader.restrict(-2)
    assert reader.rest() == b"cd"


def test_a_restricted_reader_ends_before_its_parent() -> None:
    reader = Reader(b"abcdef")
    inner = reader.restrict(3)
    assert inner.take(2) == b"ab"
    assert inner.position == 2
    with pytest.raises(ParseError):
        inner.u16()
    assert inner.rest() == b"c"
    assert reader.rest() == b"def"


def test_octets_left_over_are_a_parse_error() -> None:
    with pytest.raises(ParseError, match="2 octets left over in a test"):
        Reader(b"ab").expect_end("a test")


def test_integers_are_what_their_octets_say_wherever_they_stand() -> None:
    data = bytes(range(250, 256)) + bytes(range(6))
    for start in range(len(data)):
        for end in range(start, len(data) + 1):
            for octets, read in ((1, Reader.u8), (2, Reader.u16)):
                reader = Reader(data, start, end)
                if end - start < octets:
                    with pytest.raises(ParseError):
                        read(reader)
                    assert reader.position == start
                else:
                    assert read(reader) == int.from_bytes(Reader(data, start, end).take(octets), "big")
                    assert reader.position == start + octets
