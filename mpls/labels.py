"""The MPLS label stack: RFC 3032 2.1, with the names of RFC 5462 (TC) and RFC 7274 (special-purpose labels).

Knows nothing of VRFs, bindings or selectors: it reads and writes entries, it judges none of them.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from mpls.drops import DropReason

ENTRY_OCTETS: Final = 4
MAX_ENTRIES: Final = 16
"""No stack deeper than this is read or written, whatever a selector says."""
FIRST_ORDINARY_LABEL: Final = 16
MAX_LABEL: Final = 0xFFFFF


class SpecialLabel(IntEnum):
    """The special-purpose labels that have a meaning. 4-6 and 8-12 are unassigned."""

    IPV4_EXPLICIT_NULL = 0
    ROUTER_ALERT = 1
    IPV6_EXPLICIT_NULL = 2
    IMPLICIT_NULL = 3  # signalling only, never in a packet
    ENTROPY_LABEL_INDICATOR = 7  # RFC 6790
    GAL = 13  # RFC 5586
    OAM_ALERT = 14  # RFC 3429
    EXTENSION = 15  # RFC 7274


def label_text(label: int) -> str:
    """`"101"` for an ordinary label, `"0 (ipv4-explicit-null)"` or `"5 (unassigned)"` for a special one."""
    if label >= FIRST_ORDINARY_LABEL:
        return str(label)
    try:
        name = SpecialLabel(label).name.lower().replace("_", "-")
    except ValueError:
        name = "unassigned"
    return f"{label} ({name})"


@dataclass(frozen=True, slots=True)
class LabelEntry:
    """One label stack entry: label (20 bits), TC (3), bottom of stack (1), TTL (8), RFC 3032 2.1."""

    label: int
    tc: int = 0
    bottom: bool = True
    ttl: int = 255

    def __post_init__(self) -> None:
        if not (0 <= self.label <= MAX_LABEL and 0 <= self.tc <= 7 and 0 <= self.ttl <= 255):
            raise ValueError(f"no label stack entry: label {self.label}, TC {self.tc}, TTL {self.ttl}")

    def encode(self) -> bytes:
        """4 octets."""
        word = self.label << 12 | self.tc << 9 | self.bottom << 8 | self.ttl
        return word.to_bytes(ENTRY_OCTETS, "big")

    @classmethod
    def parse(cls, octets: bytes, offset: int = 0) -> Self:
        """The entry at `offset`; ValueError when fewer than 4 octets are left."""
        entry = octets[offset : offset + ENTRY_OCTETS]
        if len(entry) < ENTRY_OCTETS:
            raise ValueError(f"a label stack entry has {ENTRY_OCTETS} octets, not {len(entry)}")
        word = int.from_bytes(entry, "big")
        return cls(word >> 12, word >> 9 & 7, bool(word & 0x100), word & 0xFF)

    def __str__(self) -> str:
        return f"{label_text(self.label)} TC {self.tc} S {int(self.bottom)} TTL {self.ttl}"


@dataclass(frozen=True, slots=True)
class LabelStack:
    """A complete stack, top first: the last entry and no other has S=1."""

    entries: tuple[LabelEntry, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.entries) <= MAX_ENTRIES:
            raise ValueError(f"a label stack has 1 to {MAX_ENTRIES} entries, not {len(self.entries)}")
        last = len(self.entries) - 1
        if any(entry.bottom != (number == last) for number, entry in enumerate(self.entries)):
            raise ValueError("the bottom-of-stack bit belongs to the last entry and to no other")

    @classmethod
    def push(cls, *labels: int, tc: int = 0, ttl: int = 255) -> Self:
        """The stack of these labels, top first, all with one TC and TTL."""
        last = len(labels) - 1
        return cls(tuple(LabelEntry(label, tc, n == last, ttl) for n, label in enumerate(labels)))

    @classmethod
    def parse(cls, octets: bytes, max_entries: int = MAX_ENTRIES) -> Self | DropReason:
        """The stack in front of `octets`; what follows starts at `octet_count`.

        STACK_TRUNCATED: the octets end before S=1. STACK_DEPTH: no S=1 within `max_entries`.
        """
        entries: list[LabelEntry] = []
        for offset in range(0, ENTRY_OCTETS * min(max_entries, MAX_ENTRIES), ENTRY_OCTETS):
            if len(octets) < offset + ENTRY_OCTETS:
                return DropReason.STACK_TRUNCATED
            entries.append(LabelEntry.parse(octets, offset))
            if entries[-1].bottom:
                return cls(tuple(entries))
        return DropReason.STACK_DEPTH

    def encode(self) -> bytes:
        return b"".join(entry.encode() for entry in self.entries)

    @property
    def octet_count(self) -> int:
        return ENTRY_OCTETS * len(self.entries)

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(entry.label for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __str__(self) -> str:
        return " / ".join(str(entry) for entry in self.entries)
