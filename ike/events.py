"""What an IKE engine tells its owner: datagrams, events, deadlines, traces (past tense, RFC 7296's words).

Values only; they must not know the engine. The owner handles all events first and sends datagrams second:
an inbound Child SA is installed before the answer that lets the peer use it leaves (RFC 7296 2.8).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum

from ike.config import Mode, Path
from ike.configuration import Configuration
from ike.selectors import Selector
from ike.transport_nat import OriginalAddresses
from ike.wire.identity import Identity
from ike.wire.payloads import NotifyPayload
from ike.wire.sa import Proposal


@dataclass(frozen=True, slots=True)
class Datagram:
    """An IKE message for `path`; the four zero octets of port 4500 (RFC 7296 2.23) are not part of it.

    `is_keepalive`: no message but the one octet of a NAT keepalive, without zero octets (RFC 3948 2.3).
    `dont_fragment`: it is lost rather than sent in fragments of IP, also on its way.
    """

    data: bytes
    path: Path
    is_keepalive: bool = False
    dont_fragment: bool = False


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time at which `handle_timer` wants to be called next, and why."""

    at: float
    reason: str


class FailureReason(StrEnum):
    """Why an IKE SA never came to be."""

    NO_ANSWER = "no_answer"
    NO_PROPOSAL_CHOSEN = "no_proposal_chosen"
    REFUSED = "refused"
    """The answers (unauthenticated, RFC 7296 2.21.1) held another error or nothing usable."""
    EXTENSION_ABSENT = "extension_absent"
    AUTHENTICATION_FAILED = "authentication_failed"
    NO_ADDRESS = "no_address"
    """The peer gave us none of the addresses that we need (RFC 7296 3.15.4)."""
    PROTOCOL_ERROR = "protocol_error"
    CLOSED_LOCALLY = "closed_locally"


class CloseReason(StrEnum):
    """Why an IKE SA or a Child SA that was established is gone."""

    DELETED_LOCALLY = "deleted_locally"
    DELETED_BY_PEER = "deleted_by_peer"
    REKEYED = "rekeyed"
    """A Child SA whose successor is in place."""
    REDUNDANT = "redundant"
    """The loser of two simultaneous rekeys (RFC 7296 2.8.1)."""
    UNACCEPTABLE_ANSWER = "unacceptable_answer"
    LIFETIME = "lifetime"
    PEER_NOT_RESPONDING = "peer_not_responding"
    REPLACED = "replaced"
    """By another IKE SA with the same identities: INITIAL_CONTACT (RFC 7296 2.4), or there were too many."""
    EXTENSION_ABSENT = "extension_absent"
    AUTHENTICATION_FAILED = "authentication_failed"
    PROTOCOL_ERROR = "protocol_error"
    OUT_OF_SYNC = "out_of_sync"
    IKE_SA_CLOSED = "ike_sa_closed"
    NOT_FOUND_BY_PEER = "not_found_by_peer"
    """The peer answered CHILD_SA_NOT_FOUND (RFC 7296 2.25)."""


class DropReason(StrEnum):
    """Why a datagram, or something in it, had no effect. Counted in `IkeEngine.counters`."""

    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    VERSION = "version"
    UNKNOWN_SPI = "unknown_spi"
    UNEXPECTED_EXCHANGE = "unexpected_exchange"
    INTEGRITY = "integrity"
    OUTSIDE_WINDOW = "outside_window"
    OLD_RETRANSMISSION = "old_retransmission"
    RETRANSMITTED_REQUEST = "retransmitted_request"
    """Not lost: the cached response was sent again."""
    NO_REQUEST_IN_FLIGHT = "no_request_in_flight"
    SCHEMA = "schema"
    NO_CONNECTION = "no_connection"
    HALF_OPEN_LIMIT = "half_open_limit"
    SESSION_LIMIT = "session_limit"
    COOKIE_REQUIRED = "cookie_required"
    """Answered with a cookie; no state was made."""
    UNAUTHENTICATED_ERROR = "unauthenticated_error"
    UNUSABLE_ANSWER = "unusable_answer"
    UNSENDABLE_ANSWER = "unsendable_answer"
    """What our connections have to say in IKE_SA_INIT fits into no message."""
    UNPROTECTED = "unprotected"
    FRAGMENT_REFUSED = "fragment_refused"
    """Not both ends have announced fragmentation (RFC 7383 2.3)."""
    FRAGMENT_REPEATED = "fragment_repeated"
    FRAGMENT_OUTDATED = "fragment_outdated"
    """The peer has sent smaller fragments of the same message since (RFC 7383 2.6)."""
    FRAGMENT_LIMIT = "fragment_limit"
    FRAGMENT_TIMEOUT = "fragment_timeout"
    """A message of which some fragments never came."""


@dataclass(frozen=True, slots=True)
class ChildSa:
    """A pair of ESP SAs, ready to install (RFC 7296 2.17).

    `keys_in` and `keys_out` are (encryption key with salt, integrity key or empty). `spi_in` is the SPI we
    receive on, `spi_out` the one we send with, four octets each. `local_ts` are packets sent to us, `peer_ts`
    packets sent to the peer. `lowest_nonce` is the lower of the two nonces of the exchange that made it.
    `tfc_out_allowed`: the peer accepts TFC padding. `path` and `udp_encapsulation` are as they were when this
    value was made; they follow the peer's address. `original_addresses`: transport mode through a NAT.
    """

    name: str
    spi_in: bytes
    spi_out: bytes
    mode: Mode
    proposal: Proposal
    keys_in: tuple[bytes, bytes] = field(repr=False)
    keys_out: tuple[bytes, bytes] = field(repr=False)
    local_ts: tuple[Selector, ...]
    peer_ts: tuple[Selector, ...]
    is_creator: bool
    esn: bool
    udp_encapsulation: bool
    path: Path
    lowest_nonce: bytes
    tfc_out_allowed: bool
    original_addresses: OriginalAddresses | None = None


@dataclass(frozen=True, slots=True)
class IkeSaEstablished:
    """Both ends are authenticated. `extension_data` is the peer's notify data when the extension is on.

    `assigned` is what the peer has given us, `leased` what we have given it (RFC 7296 2.19); both last as long as
    the session. `replaces`: the session that goes in a moment, because this one has authenticated its ends again.
    `may_fragment`: long messages go in fragments (RFC 7383), so that their length is no burden for the path.
    """

    session: int
    connection: str
    is_opener: bool
    is_initiator: bool
    spi_i: bytes
    spi_r: bytes
    local_id: Identity
    peer_id: Identity
    path: Path
    proposal: Proposal
    extension_data: bytes | None
    udp_encapsulation: bool
    assigned: Configuration | None = None
    leased: Configuration | None = None
    replaces: int | None = None
    is_mobile: bool = False
    may_fragment: bool = False
    """Both ends support MOBIKE: the peer may send from any of its addresses."""


@dataclass(frozen=True, slots=True)
class IkeSaRekeyed:
    """The session goes on under a new IKE SA; all its children moved with it."""

    session: int
    old_spi_i: bytes
    old_spi_r: bytes
    spi_i: bytes
    spi_r: bytes


@dataclass(frozen=True, slots=True)
class IkeSaFailed:
    """The session ended before it was established. `connection` is "" when none was chosen yet."""

    session: int
    connection: str
    reason: FailureReason
    detail: str
    replaces: int | None = None
    """The session that this one would have replaced, and that goes on."""


@dataclass(frozen=True, slots=True)
class IkeSaClosed:
    """The session is over; a ChildSaClosed for each of its children came before."""

    session: int
    connection: str
    reason: CloseReason
    detail: str


@dataclass(frozen=True, slots=True)
class ChildSaEstablished:
    """Install inbound at once. `replaces` is the `spi_in` of the child that this one rekeys.

    `use_outbound` False: send on the replaced child until traffic arrives on this one, or until the
    replaced child is closed or its deletion begins (RFC 7296 2.8).
    """

    session: int
    connection: str
    child: ChildSa
    replaces: bytes | None
    use_outbound: bool


@dataclass(frozen=True, slots=True)
class ChildSaFailed:
    """A child that we asked for is not there. `notify_type` is the peer's error, None when it was ours."""

    session: int
    connection: str
    child: str
    notify_type: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class ChildSaDeletionBegun:
    """Send on this pair no more: we ask the peer to delete it, and it may have done so by the time we know.

    Or the peer will delete it: the redundant one of two rekeys, which it has made (RFC 7296 2.8.1). What comes
    in on it is still taken until ChildSaClosed. A successor that waited for it is sent on from now on.
    """

    session: int
    connection: str
    spi_in: bytes
    spi_out: bytes
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class ChildSaClosed:
    """Remove both ESP SAs of the pair."""

    session: int
    connection: str
    spi_in: bytes
    spi_out: bytes
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class PeerAddressChanged:
    """An authenticated message came over another path, which is used from now on (RFC 7296 2.23).

    `children` are those of the session as they are now; their ESP takes the path, too.
    """

    session: int
    path: Path
    children: tuple[ChildSa, ...]


@dataclass(frozen=True, slots=True)
class PathRefused:
    """The peer did not accept an address change; ESP has not moved (RFC 4555 3.5)."""

    session: int
    path: Path
    detail: str


@dataclass(frozen=True, slots=True)
class AddressesUnused:
    """What `configure` has given for this session was not told to the peer, whose request was refused after all."""

    session: int


@dataclass(frozen=True, slots=True)
class NotifyAnswered:
    """The answer to `send_notify`; `notifies` is None when the session went before it came."""

    session: int
    token: int
    notifies: tuple[NotifyPayload, ...] | None


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """The answer to `send_probe`: whether the message came as it was; None when its IKE SA went or moved before."""

    session: int
    token: int
    arrived: bool | None


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """A request of the authenticated peer was answered by an error notify and changed nothing."""

    session: int
    connection: str
    notify_type: int
    detail: str


Event = (
    IkeSaEstablished
    | IkeSaRekeyed
    | IkeSaFailed
    | IkeSaClosed
    | ChildSaEstablished
    | ChildSaFailed
    | ChildSaDeletionBegun
    | ChildSaClosed
    | PeerAddressChanged
    | PathRefused
    | AddressesUnused
    | NotifyAnswered
    | ProbeAnswered
    | RequestRefused
)


class Direction(Enum):
    SENT = "sent"
    RECEIVED = "received"


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """One message of one session, for researchers and narratives.

    `summary`: "IKE_AUTH request 1 {IDi AUTH}". `datagrams`: how many carried it, as fragments if more than one.
    """

    at: float
    session: int | None
    direction: Direction
    path: Path
    summary: str
    message_id: int
    spi_i: bytes
    spi_r: bytes
    datagrams: int = 1


@dataclass(frozen=True, slots=True)
class IkeKeyLogEntry:
    """The keys of one IKE SA, for an explicit key log only (Wireshark's ikev2_decryption_table)."""

    spi_i: bytes
    spi_r: bytes
    proposal: Proposal
    sk_ei: bytes = field(repr=False)
    sk_er: bytes = field(repr=False)
    sk_ai: bytes = field(repr=False)
    sk_ar: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """A session as it is now, for status displays. The IKE SA is rekeyed at `rekey_at`, ends at `expires_at`."""

    session: int
    connection: str
    state: str
    is_opener: bool
    is_initiator: bool
    spi_i: bytes
    spi_r: bytes
    local_id: Identity | None
    peer_id: Identity | None
    path: Path
    proposal: Proposal | None
    extension_data: bytes | None
    assigned: Configuration | None
    leased: Configuration | None
    udp_encapsulation: bool
    is_mobile: bool
    established_at: float | None
    rekey_at: float | None
    expires_at: float | None
    children: tuple[ChildSa, ...]
    child_times: tuple[tuple[float | None, float | None], ...]
    """For each of `children` (rekey_at, expires_at); None: never, or it is being replaced already."""
