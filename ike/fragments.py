"""Putting fragmented messages together again, within bounds (RFC 7383 2.6).

Must not know keys or payloads: what is added has been authenticated, and the chunks are opaque octets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ike.events import DropReason

MAX_FRAGMENTS = 255
"""Of one message. IPv4 packets of 576 octets carry the longest possible one in fewer."""
_UDP_OCTETS = 8
_NON_ESP_MARKER_OCTETS = 4
_IPV4_OCTETS = 20
_IPV6_OCTETS = 40

MessageKey = tuple[bool, int]
"""(is a response, Message ID): what tells the messages of one IKE SA apart that are under way to us."""


def udp_payload_octets(packet_octets: int, address: str) -> int:
    """How long an IKE message may be in an IP packet of that size, on port 4500 too (RFC 7296 2.23)."""
    ip_octets = _IPV6_OCTETS if ":" in address else _IPV4_OCTETS
    return packet_octets - ip_octets - _UDP_OCTETS - _NON_ESP_MARKER_OCTETS


class Budget:
    """Octets that several incomplete messages may hold together. What is taken of a part is taken of the whole."""

    def __init__(self, limit_octets: int, *, part_of: Budget | None = None) -> None:
        self.limit_octets = limit_octets
        self.used_octets = 0
        self._whole = part_of

    def has_room(self, octets: int) -> bool:
        fits = self.used_octets + octets <= self.limit_octets
        return fits and (self._whole is None or self._whole.has_room(octets))

    def take(self, octets: int) -> None:
        """Less than zero gives back."""
        self.used_octets += octets
        if self._whole is not None:
            self._whole.take(octets)


@dataclass(slots=True)
class Fragment:
    """One fragment that has been authenticated. `raw` is the datagram, `chunk` what was sealed in it."""

    number: int
    total: int
    first_type: int
    chunk: bytes
    raw: bytes


@dataclass(slots=True)
class _Incomplete:
    total: int
    fragments: dict[int, Fragment] = field(default_factory=dict)
    octets: int = 0


@dataclass(frozen=True, slots=True)
class Reassembled:
    """The octets of the inner payloads and the type of the first. `first_raw` is fragment 1 as it was received."""

    first_type: int
    inner: bytes
    first_raw: bytes
    fragments: int


class Reassembly:
    """The messages to one IKE SA of which some fragments are missing.

    How many messages that are is the caller's: those within its windows, and for how long they may wait too.
    A message is bounded in fragments (MAX_FRAGMENTS) and in octets, all of them together by `budget`.
    """

    def __init__(self, budget: Budget, max_message_octets: int) -> None:
        self._budget = budget
        self._max_message_octets = max_message_octets
        self._incomplete: dict[MessageKey, _Incomplete] = {}

    def __contains__(self, key: MessageKey) -> bool:
        return key in self._incomplete

    def why_not(self, key: MessageKey, number: int, total: int) -> DropReason | None:
        """Why a fragment of these numbers is of no use, before the cost of authenticating it."""
        if total > MAX_FRAGMENTS:
            return DropReason.FRAGMENT_LIMIT
        incomplete = self._incomplete.get(key)
        if incomplete is None or total > incomplete.total:
            return None
        if total < incomplete.total:
            return DropReason.FRAGMENT_OUTDATED
        return DropReason.FRAGMENT_REPEATED if number in incomplete.fragments else None

    def add(self, key: MessageKey, fragment: Fragment) -> Reassembled | DropReason | None:
        """The whole message if this was what it lacked, None while it lacks more.

        A larger Total Fragments is the peer's next try with smaller ones: what came before is discarded.
        DropReason if it would hold too much.
        """
        incomplete = self._incomplete.get(key)
        kept = incomplete.octets if incomplete and incomplete.total == fragment.total else 0
        size = kept + len(fragment.chunk) + len(fragment.raw) * (fragment.number == 1)
        more = size - (incomplete.octets if incomplete else 0)
        if size > self._max_message_octets or not self._budget.has_room(more):
            return DropReason.FRAGMENT_LIMIT
        if incomplete is None or incomplete.total != fragment.total:
            self.forget(key)
            incomplete = self._incomplete[key] = _Incomplete(fragment.total)
        if fragment.number != 1:
            fragment.raw = b""
        incomplete.fragments[fragment.number] = fragment
        self._budget.take(size - incomplete.octets)
        incomplete.octets = size
        if len(incomplete.fragments) < incomplete.total:
            return None
        self.forget(key)
        ordered = [incomplete.fragments[number] for number in range(1, incomplete.total + 1)]
        first = ordered[0]
        inner = b"".join(each.chunk for each in ordered)
        return Reassembled(first.first_type, inner, first.raw, incomplete.total)

    def forget(self, key: MessageKey) -> bool:
        """Whether there was something to forget."""
        incomplete = self._incomplete.pop(key, None)
        if incomplete is None:
            return False
        self._budget.take(-incomplete.octets)
        return True

    def clear(self) -> None:
        for key in list(self._incomplete):
            self.forget(key)
