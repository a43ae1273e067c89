"""Packets side by side are the packets: by index, slice, iteration and field."""

from hypothesis import given
from hypothesis import strategies as st

from esp.segments import Segments

sizes = st.integers(1, 40)


@given(
    octets=st.binary(min_size=1, max_size=200), size=sizes, start=st.integers(-9, 9), stop=st.integers(-9, 9)
)
def test_segments_are_the_packets_that_are_cut_out(octets: bytes, size: int, start: int, stop: int) -> None:
    packets = [octets[at : at + size] for at in range(0, len(octets), size)]
    segments = Segments(octets, size)
    assert list(segments) == packets and len(segments) == len(packets)
    assert [segments[n] for n in range(len(packets))] == packets and segments[-1] == packets[-1]
    assert list(segments[start:stop]) == packets[start:stop]
    assert list(segments[::2]) == packets[::2]


@given(
    octets=st.binary(min_size=1, max_size=200),
    size=sizes,
    fields=st.lists(st.integers(0, 9), min_size=1, max_size=4),
)
def test_fields_are_those_of_each_packet(octets: bytes, size: int, fields: list[int]) -> None:
    size = max(size, sum(fields), 1)
    columns: list[list[bytes]] = [[] for _ in fields]
    for packet in Segments(octets, size):
        at = 0
        for column, length in zip(columns, fields, strict=True):
            column.append(packet[at : at + length])
            at += length
    assert [list(column) for column in Segments(octets, size).split(*fields)] == columns
