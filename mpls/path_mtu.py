"""Packetisation-layer path MTU discovery (RFC 8899) by ESP dummies and what the peer says of them (WIRE 5.8).

Knows nothing of ESP, IKE and time: which sizes to try comes out, which of them arrived goes in.

    sizes()  --  dummies of these sizes, with DF  -->   the tail notes their lengths, and whether they came in fragments
    on_report()            <--  N(PATH_PROBE)  --       asked by N(PATH_PROBE) in an INFORMATIONAL exchange

A dummy is authentic, as big as data, and takes their way; asking does not wait for what is lost. First the largest size
alone, then ladders between what arrived and what did not. Two things it can find beside: that packets arrive in
fragments, so that somebody ignores DF; and that nothing is known, where the peer does not answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mpls import cbor

__all__ = ["MAX_ENTRIES", "PATH_PROBE", "PathReport", "PathReportError", "PathSearch"]

PATH_PROBE: Final = 51140
"""Status notify, protocol ID 0 and SPI size 0."""
VERSION: Final = 1
MAX_ENTRIES: Final = 32
"""Sizes in one report."""
_MAX_OCTETS: Final = 512
_LADDER: Final = 8
_SPI_OCTETS: Final = 4


class PathReportError(ValueError):
    """Octets that are no PATH_PROBE; as a request it is answered without one."""


@dataclass(frozen=True, slots=True)
class PathReport:
    """`spi`: the asker's outbound one. `arrived`: length of an ESP dummy -> its largest fragment, 0 if it came whole.

    The request has no `arrived`.
    """

    spi: bytes
    arrived: Mapping[int, int] | None = None

    @classmethod
    def parse(cls, octets: bytes) -> "PathReport":
        try:
            item = cbor.decode_map(octets, _MAX_OCTETS)
            cbor.check_keys(item, required=frozenset((0, 1)), optional=frozenset((2,)))
            cbor.unsigned(item[0], "version", VERSION, VERSION)
            spi = cbor.octets(item[1], "SPI")
            if len(spi) != _SPI_OCTETS:
                raise PathReportError(f"an SPI has {_SPI_OCTETS} octets, not {len(spi)}")
            if 2 not in item:
                return cls(spi)
            entries = cbor.array(item[2], "entries")
            if len(entries) > MAX_ENTRIES:
                raise PathReportError(f"{len(entries)} entries are too many")
            arrived: dict[int, int] = {}
            for entry in entries:
                size, fragment = cbor.array(entry, "entry", 2)
                arrived[cbor.unsigned(size, "size", 1, 0xFFFF)] = cbor.unsigned(
                    fragment, "fragment", 0, 0xFFFF
                )
        except cbor.CborError as error:
            raise PathReportError(str(error)) from error
        return cls(spi, arrived)

    def encode(self) -> bytes:
        item: dict[int, cbor.Item] = {0: VERSION, 1: self.spi}
        if self.arrived is not None:
            item[2] = [[size, fragment] for size, fragment in self.arrived.items()]
        return cbor.encode(item)


class PathSearch:
    """The search on one path. All sizes are octets of IP packets.

    floor     never below, whatever is lost or said
    most      what the link carries; only sizes that are a multiple of `step` less are tried
    size      what the path carries whole, as far as is known; None: as much as the link
    ladder    how many sizes are tried at a time at most
    fragment  the largest fragment that a size with DF arrived in; 0: none did
    """

    def __init__(self, floor: int, most: int, step: int, ladder: int = _LADDER) -> None:
        self.floor, self.most, self.step = min(floor, most), most, step
        self.size: int | None = None
        self.ladder = ladder
        self.fragment = 0
        self._low, self._high = self.floor, most + step
        self._sizes: tuple[int, ...] = (most,)
        self._confirms = False

    @property
    def confirms(self) -> bool:
        """Whether it is enough that the smaller of `sizes` arrives."""
        return self._confirms and len(self._sizes) > 1

    @property
    def is_done(self) -> bool:
        return not self._sizes

    def sizes(self) -> tuple[int, ...]:
        """What to send now; nothing when the search is done."""
        return self._sizes

    def begin(self, *, confirm: bool = False) -> None:
        """Search anew. `confirm`: only if what is known has become wrong, by being too large or far too small."""
        self._low, self._high = self.floor, self.most + self.step
        self.fragment = 0
        known = () if self.size in (None, self.floor) or self.size is None else (self.size,)
        self._sizes, self._confirms = (*known, self.most), confirm

    def on_report(self, arrived: Mapping[int, int]) -> None:
        """Of `sizes` these came: size -> its largest fragment, 0 if it came whole."""
        whole = [size for size in self._sizes if arrived.get(size) == 0]
        self.fragment = max([self.fragment, *(arrived.get(size, 0) for size in self._sizes)])
        self._low = max([self._low, *whole])
        self._high = min([self._high, *(size for size in self._sizes if size > self._low)])
        if self._low >= self.most:
            self.size, self._sizes = None, ()
            return
        if self._confirms and self.size is not None and self._low >= self.size:
            self._sizes = ()
            return
        self._confirms = False
        self.size = self._low
        first = self.most - (self.most - self._low - 1) // self.step * self.step
        between = range(first, self._high, self.step)
        if self.ladder == 1:  # by halves; in a ladder the topmost size is always one of them
            self._sizes = tuple(between[len(between) // 2 :][:1])
            return
        parts = min(self.ladder, len(between))
        self._sizes = tuple(between[(number + 1) * len(between) // parts - 1] for number in range(parts))
