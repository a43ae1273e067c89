"""Who looks for the MTU of the paths to the peers, and when: timers, dummies and questions around `mpls.path_mtu`.

It must not know sockets, nor how dummies are sealed: a node lends it what it needs.

    a child can be sent on -> dummies -> 0.3 s later: which arrived? -> next ladder -> ... -> the children's budgets
    every minute with traffic: is it still so?   every ten minutes: is it more by now?   ICMP: look, at most every 5 s

A peer that does not know N(PATH_PROBE) answers IKE messages all the same: it gets some in the sizes in question, one at
a time, whole and with DF (`ike`'s send_probe). What comes in fragments is not told from what comes whole there.

ICMP is not authenticated: it only makes us look. To a peer that does not take IKE in fragments either nothing is sent;
there ICMP counts, not below the floor and for ten minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from typing import Final, Protocol

from endpoint.children import Child
from mpls.mtu import LOWEST_LINK_MTU
from mpls.path_mtu import PathReport, PathReportError, PathSearch

__all__ = ["Host", "PathProber"]

_log = logging.getLogger("mplsec.path")

COPIES: Final = 2
"""Of each dummy: a single loss says nothing."""
ARRIVE_S: Final = 0.3
ANSWER_S: Final = 60.0
CONFIRM_S: Final = 60.0
CONFIRMS_UNTIL_RAISE: Final = 10
HINTS_S: Final = 5.0
HINT_LASTS_S: Final = 600.0


class Host(Protocol):
    """What the node lends."""

    def sender_to(self, peer: str) -> Child | None:
        """A child that packets to the peer leave by."""

    def children_of(self, peer: str) -> Iterator[Child]: ...

    def send_dummies(self, child: Child, sizes: Sequence[int], now: float) -> None:
        """Dummies of these lengths, octets of ESP, with DF."""

    def ask_path(self, session: int, question: bytes, now: float) -> int:
        """Send N(PATH_PROBE); the token of the answer to come."""

    def can_answer(self, session: int) -> bool:
        """Whether the session's peer knows N(PATH_PROBE), as far as one can tell."""

    def can_send_probe(self, session: int, packet_octets: int) -> bool:
        """Whether IKE messages up to that length can be sent to the session's peer at no risk."""

    def send_probe(self, session: int, packet_octets: int, now: float) -> int:
        """One that makes an IP packet of that length; the token of the answer to come."""


class _Step(Enum):
    SEND = "send"
    ASK = "ask"
    ANSWER = "answer"
    ARRIVAL = "arrival"  # of an IKE message
    IDLE = "idle"
    HINTED = "hinted"  # the peer cannot be asked: what ICMP has said holds until then


@dataclass(slots=True)
class _Path:
    search: PathSearch
    at: float
    outer_octets: int
    address: str = ""
    step: _Step = _Step.SEND
    token: int | None = None
    spi: bytes = b""
    confirms: int = 0
    packets: int = 0
    hinted_at: float = field(default=float("-inf"))
    is_told: bool = False
    left: list[int] = field(default_factory=list)
    arrived: dict[int, int] = field(default_factory=dict)
    has_arrived: bool = False  # any size that was tried, ever
    known: int | None = None  # the outcome of the last search


class PathProber:
    """The paths to all peers that are to be probed."""

    def __init__(self, host: Host, has_changed: Callable[[], None] = lambda: None) -> None:
        self._host, self._has_changed = host, has_changed
        self._paths: dict[str, _Path] = {}
        self._peers_at: dict[str, list[str]] = {}
        """Address -> peers. Whoever floods us with ICMP makes us look here, and no further for what is nobody's."""

    def on_child(self, child: Child, now: float) -> None:
        """It can be sent on, or has moved to another path."""
        if not child.plan.peer.probes_path:
            return
        known = self._paths.get(child.peer)
        search, outer = _search_for(child)
        if known is None or (known.search.most, known.outer_octets) != (search.most, outer):
            self._paths[child.peer] = known = _Path(search, now + ARRIVE_S, outer)
        if known.address != child.path.peer[0]:
            known.address = child.path.peer[0]
            self._note_addresses()
        child.set_path_mtu(known.known)

    def forget(self, peer: str) -> None:
        """No child of the peer is left."""
        if self._paths.pop(peer, None) is not None:
            self._note_addresses()

    def _note_addresses(self) -> None:
        self._peers_at = {}
        for peer, path in self._paths.items():
            self._peers_at.setdefault(path.address, []).append(peer)

    def on_hint(self, address: str, mtu: int, now: float) -> None:
        """A router, or who pretends to be one, says that the path to this address carries no more than `mtu`."""
        for peer in self._peers_at.get(address, ()):
            path = self._paths[peer]
            search = path.search
            if now - path.hinted_at < HINTS_S or mtu >= (search.size or search.most):
                continue
            path.hinted_at = now
            child = self._host.sender_to(peer)
            if child is None:
                continue
            if not self._can_look(child, path):
                path.known = search.size = max(mtu, search.floor)
                path.step, path.at = _Step.HINTED, now + HINT_LASTS_S
                self._apply(peer, path)
            elif path.step is _Step.IDLE:
                search.begin(confirm=True)
                path.step, path.at = _Step.SEND, now

    def next_deadline(self) -> float | None:
        return min((path.at for path in self._paths.values()), default=None)

    def handle_timer(self, now: float) -> None:
        for peer, path in list(self._paths.items()):
            if path.at <= now:
                self._go_on(peer, path, now)

    def _go_on(self, peer: str, path: _Path, now: float) -> None:
        child = self._host.sender_to(peer)
        if child is None or (path.step is not _Step.HINTED and not self._can_look(child, path)):
            path.at = now + CONFIRM_S
            return
        match path.step:
            case _Step.SEND if not self._host.can_answer(child.session):
                path.search.ladder = 1
                path.left, path.arrived = list(path.search.sizes()), {}
                self._send_probe(child, path, now)
            case _Step.SEND:
                sizes = [size - path.outer_octets for size in path.search.sizes() for _ in range(COPIES)]
                self._host.send_dummies(child, sizes, now)
                path.spi = child.sa.spi_out
                path.step, path.at = _Step.ASK, now + ARRIVE_S
            case _Step.ASK:
                path.token = self._host.ask_path(child.session, PathReport(path.spi).encode(), now)
                path.step, path.at = _Step.ANSWER, now + ANSWER_S
            case _Step.ANSWER | _Step.ARRIVAL:
                path.step, path.at = _Step.SEND, now
            case _Step.HINTED:
                path.known = path.search.size = None
                path.step, path.at = _Step.IDLE, now + CONFIRM_S
                self._apply(peer, path)
            case _Step.IDLE:
                sent = self._packets_to(peer)
                has_traffic, path.packets = sent != path.packets, sent
                path.at = now + CONFIRM_S
                if has_traffic:
                    path.confirms = (path.confirms + 1) % CONFIRMS_UNTIL_RAISE
                    path.search.begin(confirm=bool(path.confirms))
                    path.step, path.at = _Step.SEND, now

    def _can_look(self, child: Child, path: _Path) -> bool:
        host, session = self._host, child.session
        return host.can_answer(session) or host.can_send_probe(session, path.search.most)

    def _send_probe(self, child: Child, path: _Path, now: float) -> None:
        path.token = self._host.send_probe(child.session, path.left[0], now)
        path.step, path.at = _Step.ARRIVAL, now + ANSWER_S

    def on_probe_answer(self, token: int, arrived: bool | None, now: float) -> None:
        """An IKE message of the first size that is left came whole, or not; None: nobody knows."""
        for peer, path in self._paths.items():
            if path.step is _Step.ARRIVAL and path.token == token:
                self._on_arrival(peer, path, arrived, now)
                return

    def _on_arrival(self, peer: str, path: _Path, arrived: bool | None, now: float) -> None:
        child = self._host.sender_to(peer)
        if arrived is None or child is None:
            path.step, path.at = _Step.SEND, now + ARRIVE_S
            return
        search, size = path.search, path.left.pop(0)
        if arrived:
            path.arrived[size], path.has_arrived = 0, True
        if path.left and not (arrived and search.confirms):
            self._send_probe(child, path, now)
            return
        search.on_report(path.arrived)
        if not search.is_done:
            path.step, path.at = _Step.SEND, now
            return
        if not path.has_arrived:
            search.size = path.known  # no message came back in time, of no size: nothing is known
        self._conclude(peer, path, now)

    def on_answer(self, token: int, data: bytes | None, now: float) -> bool:
        """Whether the answer was to a question of ours; `data`: of its N(PATH_PROBE), None without."""
        for peer, path in self._paths.items():
            if path.step is _Step.ANSWER and path.token == token:
                self._on_report(peer, path, data, now)
                return True
        return False

    def _on_report(self, peer: str, path: _Path, data: bytes | None, now: float) -> None:
        try:
            report = None if data is None else PathReport.parse(data)
        except PathReportError:
            report = None
        if report is None or report.arrived is None or report.spi != path.spi:
            path.step, path.at = _Step.IDLE, now + CONFIRM_S  # it cannot say, or no longer: nothing is known
            return
        path.search.on_report(
            {size + path.outer_octets: fragment for size, fragment in report.arrived.items()}
        )
        if path.search.is_done:
            self._conclude(peer, path, now)
        else:
            path.step, path.at = _Step.SEND, now

    def _conclude(self, peer: str, path: _Path, now: float) -> None:
        """What is known in the middle of a search is less than the path carries: hosts would remember it for long."""
        path.step, path.at = _Step.IDLE, now + CONFIRM_S
        before, path.known = path.known, path.search.size
        self._apply(peer, path)
        path.packets = self._packets_to(peer)  # our own dummies are no traffic
        self._tell(peer, path, before)

    def _apply(self, peer: str, path: _Path) -> None:
        for child in self._host.children_of(peer):
            child.set_path_mtu(path.known)
        self._has_changed()

    def _packets_to(self, peer: str) -> int:
        return sum(one.outbound.packets for one in self._host.children_of(peer))

    def _tell(self, peer: str, path: _Path, before: int | None) -> None:
        search = path.search
        if search.fragment and not path.is_told:
            _log.warning(
                "the path to %s ignores DF: packets of %d octets arrive in fragments of at most %d; %d arrive whole",
                peer,
                search.most,
                search.fragment,
                search.size or search.most,
            )
        path.is_told = bool(search.fragment)
        if search.size != before:
            _log.info("the path to %s carries %d octets", peer, search.size or search.most)

    def state(self, peer: str) -> dict[str, object] | None:
        """For the status: what is known of the path."""
        path = self._paths.get(peer)
        if path is None:
            return None
        search = path.search
        return {
            "state": "done"
            if path.step is _Step.IDLE
            else "hinted"
            if path.step is _Step.HINTED
            else "searching",
            "path_mtu": path.known or search.most,
            "floor": search.floor,
            "ignores_df": bool(search.fragment),
            "largest_fragment": search.fragment,
        }


def _search_for(child: Child) -> tuple[PathSearch, int]:
    """The search for a child's path, and what stands before ESP there, in octets."""
    peer, budget = child.plan.peer, child.budget
    outer = budget.outer_ip + budget.udp
    link = peer.link_mtu - peer.access_overhead
    least = outer + budget.esp_header + budget.iv + budget.icv
    most = link - (link - least) % budget.alignment
    floor = peer.path_mtu_floor or LOWEST_LINK_MTU[ip_address(child.path.peer[0]).version == 6]
    return PathSearch(floor, most, budget.alignment), outer
