"""Where the two ends of a session are: NAT keepalives and every move (RFC 7296 2.23, RFC 3948 4, RFC 4555).

Must not know payloads or keys: exchanges/mobike.py says what goes over the wire.

Three ways to another path. The peer's NAT has a new mapping for it, and what it sends shows that: ESP always
(`follow_esp`), IKE only without MOBIKE (`follow`). With MOBIKE the session's opener decides (`change_path`): IKE
takes the new path at once, ESP when the peer has confirmed it. The other end obeys, and may change only its own
address, when the one in use is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ike.child import move_child
from ike.config import Path
from ike.errors import LocalError
from ike.events import PeerAddressChanged
from ike.exchanges.exchange import AddressNews, Outcome
from ike.exchanges.mobike import AnnounceAddresses, CheckRoutability, UpdateAddresses
from ike.nat import NatState
from ike.timers import TimerKind

if TYPE_CHECKING:
    from ike.sa import IkeSa
    from ike.session import Session

__all__ = ["Location"]

PROBE_FROM = 3
"""From this transmission of a request on, the other paths are tried with it (RFC 4555 3.10)."""
MAX_PROBES = 8
"""Other paths that are tried with one retransmission."""


class Location:
    """The paths of one session: `IkeSa.path` is that of IKE, `esp_path` that of its children."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._host = session.host
        self.sent_at = 0.0
        """When we last sent anything, over IKE or ESP."""
        self.is_mobile = False
        """Both ends support MOBIKE."""
        self.change = 0
        """Counts the moves by MOBIKE: an answer that belongs to an earlier one does not count any more."""
        self.local_addresses: tuple[str, ...] = ()
        self.peer_addresses: tuple[str, ...] = ()
        """What the peer has told of its addresses."""
        self.esp_path = Path(("", 0), ("", 0))
        self._refused: set[Path] = set()
        """What the peer answered UNACCEPTABLE_ADDRESSES to, since the last move that it accepted."""
        self._newest: tuple[IkeSa, int] | None = None
        """The last request of the peer that told addresses: its IKE SA and Message ID."""

    def begin(self, peer_addresses: tuple[str, ...] | None, now: float) -> None:
        """The session is established. `peer_addresses`: what a peer with MOBIKE has told; None without MOBIKE."""
        connection = self._session.connection
        self.esp_path = self._session.current.path
        self.is_mobile = peer_addresses is not None
        self.peer_addresses = peer_addresses or ()
        self.local_addresses = self._host.local_addresses or (
            connection.local_addresses if connection else ()
        )
        self._keep_mapping(now)

    @property
    def is_decider(self) -> bool:
        """The opener decides about the paths, also after the peer has rekeyed the IKE SA (RFC 4555 1.3)."""
        return self._session.is_opener

    def permits(self, address: str) -> bool:
        """Whether the peer may be there: anywhere, or where the configuration says."""
        connection = self._session.connection
        return connection is None or not connection.peer_addresses or address in connection.peer_addresses

    # --- NAT mappings

    def note_sent(self, now: float) -> None:
        self.sent_at = max(self.sent_at, now)

    def handle_keepalive_timer(self, now: float) -> None:
        if self.sent_at + self._host.settings.nat_keepalive_s <= now:
            self._host.send_keepalive(self._session.current.path)
            self.sent_at = now
        self._keep_mapping(now)

    def _keep_mapping(self, now: float) -> None:
        """Behind a NAT something must leave now and then, or its mapping for us ends."""
        if self._session.current.nat.local_is_translated:
            at = max(now, self.sent_at + self._host.settings.nat_keepalive_s)
            self._host.timers.set(at, TimerKind.KEEPALIVE, self._session)
        else:
            self._host.timers.cancel(TimerKind.KEEPALIVE, self._session)

    def follow(self, sa: IkeSa, path: Path, now: float) -> None:
        """A fresh authentic message came over `path` on `sa`. With MOBIKE that alone moves nobody."""
        if not self.is_mobile and path != sa.path and self._may_follow(path):
            self.move(path, now)

    def follow_esp(self, path: Path, now: float) -> None:
        """The newest authentic ESP packet of the peer came over `path`: its NAT may have a new mapping for it.

        Also with MOBIKE (RFC 4555 3.8): its opener may notice late, or never, that it has a new mapping.
        """
        is_settled = self._session.current.path == self.esp_path
        if path != self.esp_path and is_settled and self._may_follow(path):
            self.move(path, now)

    def _may_follow(self, path: Path) -> bool:
        return self._session.current.nat.follows_peer and self.permits(path.peer[0])

    # --- moving

    def take(self, path: Path) -> None:
        """IKE goes over `path` from now on."""
        session = self._session
        for sa in (session.current, *session.others):
            sa.path = path

    def move(self, path: Path, now: float, nat: NatState | None = None) -> None:
        """IKE and ESP go over `path` from now on. `nat`: what is found out about it; None: no news."""
        session = self._session
        old = self.esp_path, session.current.nat
        self.take(path)
        for sa in (session.current, *session.others):
            sa.nat = nat or sa.nat
        self.esp_path = path
        self._refused.clear()
        if session.established_at is None or session.is_over:
            return
        self._keep_mapping(now)
        if old[0] == path and old[1].udp_encapsulation == session.current.nat.udp_encapsulation:
            return
        for child in session.children.values():
            child.sa = move_child(child.sa, path, session.current.nat)
        children = tuple(child.sa for child in session.children.values())
        self._host.emit(PeerAddressChanged(session.number, path, children))

    def change_path(self, path: Path, now: float) -> None:
        """Use another path, or have the peer look again where the one in use comes from (RFC 4555 3.5).

        LocalError without MOBIKE, or if the peer decides.
        """
        session = self._session
        if not self.is_mobile or not self.is_decider:
            raise LocalError(f"session {session.number} cannot change addresses by MOBIKE")
        self.change += 1
        is_other = path != session.current.path
        self.take(path)
        session.requests.put_latest(UpdateAddresses(self.change))
        if is_other:
            self._resend(now)
        session.requests.pump(now)

    def _resend(self, now: float) -> None:
        """What waits for its answer is sent on the new path, and has all its tries again."""
        for sa in (self._session.current, *self._session.others):
            sa.sender.resend(now)

    def commit(self, sa: IkeSa, outcome: Outcome, now: float) -> None:
        """What an exchange on `sa` has found out about addresses."""
        if outcome.address_news:
            self._on_news(sa, outcome.address_news, now)
        if outcome.move:
            self.move(outcome.move.path, now, outcome.move.nat)
        if outcome.path_refused:
            self._on_refused(now)
        if outcome.has_new_mapping:
            self.change_path(sa.path, now)

    def is_news(self, sa: IkeSa, message_id: int) -> bool:
        """Whether a request of the peer may still tell addresses; with a large window they overtake each other."""
        is_older = self._newest is not None and self._newest[0] is sa and message_id < self._newest[1]
        return sa is self._session.current and not is_older and not self._session.is_over

    def _on_news(self, sa: IkeSa, news: AddressNews, now: float) -> None:
        self._newest = sa, news.message_id
        if news.told is not None:
            self.peer_addresses = news.told
        if news.nat is None:
            self._on_peer_addresses(news.path, now)
            return
        self.change += 1
        if news.path.peer[0] == self.esp_path.peer[0]:
            self.move(news.path, now, news.nat)
            return
        self.take(news.path)
        self._session.requests.put_latest(CheckRoutability(self.change, news.path, news.nat))

    def _on_peer_addresses(self, path: Path, now: float) -> None:
        """The peer, which may not move us, has told its addresses over `path`; perhaps the one in use is gone."""
        here = self._session.current.path
        known = (path.peer[0], *self.peer_addresses)
        if self.is_decider and here.peer[0] not in known and self.permits(path.peer[0]):
            self.change_path(Path(here.local, path.peer), now)

    def _on_refused(self, now: float) -> None:
        """The peer does not accept the path: another one, or back to the one that ESP still has."""
        self._refused.add(self._session.current.path)
        other = next((path for path in self.alternatives() if path not in self._refused), None)
        if other is not None:
            self.change_path(other, now)
            return
        self.change += 1
        self.take(self.esp_path)

    def alternatives(self) -> tuple[Path, ...]:
        """Every other path between addresses that the two ends have."""
        current, connection = self._session.current.path, self._session.connection
        configured = connection.peer_addresses if connection else ()
        peers = dict.fromkeys((current.peer[0], self.esp_path.peer[0], *self.peer_addresses, *configured))
        pairs = [
            (local, peer)
            for local in self.local_addresses
            for peer in peers
            if ip_address(local).version == ip_address(peer).version and self.permits(peer)
        ]
        paths = (_between(local, peer, current) for local, peer in pairs)
        return tuple(path for path in paths if path != current)

    def on_local_addresses(self, addresses: tuple[str, ...], now: float) -> None:
        """These are our addresses from now on (RFC 4555 3.5, 3.6)."""
        connection = self._session.connection
        allowed = connection.local_addresses if connection else ()
        mine = tuple(address for address in addresses if not allowed or address in allowed)
        if mine == self.local_addresses:
            return
        self.local_addresses = mine
        if not self.is_mobile:
            return
        if self._session.current.path.local[0] not in mine:
            other = next(iter(self.alternatives()), None)
            if other is None:
                return  # There is none: requests are sent again and again, perhaps one comes back in time.
            if self.is_decider:
                self.change_path(other, now)
                return
            # The exception of RFC 4555 3.5: what cannot be used any more is replaced without being asked to.
            self.move(other, now)
            self._resend(now)
        self._session.requests.put_latest(AnnounceAddresses())
        self._session.requests.pump(now)

    def on_answer(self, path: Path, transmissions: int, now: float) -> None:
        """An authentic answer came over `path` to a request that was sent so often.

        If other paths were tried with it, that one works, whatever is with the one in use.
        """
        if self._probes(transmissions) and path in self.alternatives():
            self.change_path(path, now)

    def probe(self, datagrams: Sequence[bytes], transmissions: int) -> None:
        """A request was sent that often without an answer: try the other paths with it."""
        if self._probes(transmissions):
            for path in self.alternatives()[:MAX_PROBES]:
                self._host.send(datagrams, path)

    def _probes(self, transmissions: int) -> bool:
        is_asked = self.is_mobile and self.is_decider and not self._session.is_over
        return is_asked and transmissions >= PROBE_FROM


def _between(local: str, peer: str, like: Path) -> Path:
    return Path((local, like.local[1]), (peer, like.peer[1]))
