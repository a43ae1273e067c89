"""Packets side by side in one buffer, as a receive with UDP_GRO gives them (udp(7)).

Must not know what they are. A field of all of them is taken out in one go, and no packet is copied before
somebody asks for it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from struct import Struct
from typing import overload

__all__ = ["Segments", "fronts"]


class Segments(Sequence[bytes]):
    """At least one packet: `size` octets of `octets` each, and what is left over is the last, a shorter one."""

    __slots__ = ("_count", "octets", "size")

    def __init__(self, octets: bytes, size: int) -> None:
        self.octets, self.size = octets, size
        self._count = -(-len(octets) // size)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        octets, size = self.octets, self.size
        return (octets[start : start + size] for start in range(0, len(octets), size))

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._count)
            if step != 1 or start >= stop:
                return list(self)[index]
            return Segments(self.octets[start * self.size : stop * self.size], self.size)
        start = range(self._count)[index] * self.size
        return self.octets[start : start + self.size]

    def split(self, *sizes: int) -> tuple[Sequence[bytes], ...]:
        """Fields of these lengths, from the first octet on: of each field those of all packets, in their order.

        Fields of a last packet that is too short are shorter.
        """
        rest = len(self.octets) % self.size
        whole = self._count - bool(rest)
        fields = len(sizes)
        parts = _splitter(whole, self.size, sizes)(self.octets[: whole * self.size] if rest else self.octets)
        columns: tuple[Sequence[bytes], ...] = tuple(parts[field::fields] for field in range(fields))
        if not rest:
            return columns
        last, ends = self.octets[-rest:], [sum(sizes[: field + 1]) for field in range(fields)]
        return tuple(
            (*column, last[end - size : end]) for column, end, size in zip(columns, ends, sizes, strict=True)
        )


def fronts(packets: Sequence[bytes], octets: int) -> Sequence[bytes]:
    """The first octets of each; of a shorter packet what there is."""
    if isinstance(packets, Segments) and packets.size >= octets:
        return packets.split(octets)[0]
    return [packet[:octets] for packet in packets]


@lru_cache(maxsize=256)
def _splitter(count: int, size: int, sizes: tuple[int, ...]) -> Callable[[bytes], tuple[bytes, ...]]:
    skipped = size - sum(sizes)
    return Struct(("".join(f"{octets}s" for octets in sizes) + f"{skipped}x") * count).unpack
