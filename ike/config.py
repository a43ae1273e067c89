"""What an IKE engine is told about its peers: connections, children, limits and timers (RFC 7296).

Plain frozen values; they must not know files, sockets, names of interfaces or any other connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from cryptography import x509

from ike.crypto.signatures import PrivateKey, PublicKey, SignatureError, check_public_key
from ike.errors import LocalError
from ike.identities import PeerName
from ike.selectors import DynamicSelector, Selector
from ike.wire.identity import Identity
from ike.wire.sa import Proposal

__all__ = [
    "ChildConfig",
    "Connection",
    "EngineSettings",
    "Extension",
    "LocalAuth",
    "Mode",
    "NullAuth",
    "Path",
    "PeerAuth",
    "PeerSignature",
    "PskAuth",
    "RetransmitPolicy",
    "SignatureAuth",
    "TrafficPolicy",
    "Trust",
]

ConfigSelector = Selector | DynamicSelector
"""What a configuration may hold: a selector, or "the address of the path", which is never sent."""


class Mode(Enum):
    """How ESP carries a packet (RFC 7296 1.3.1, USE_TRANSPORT_MODE)."""

    TRANSPORT = "transport"
    TUNNEL = "tunnel"


@dataclass(frozen=True, slots=True)
class Path:
    """The two ends of a UDP flow, each (address as text, port)."""

    local: tuple[str, int]
    peer: tuple[str, int]

    def __str__(self) -> str:
        return f"{self.local[0]}[{self.local[1]}]-{self.peer[0]}[{self.peer[1]}]"


@dataclass(frozen=True, slots=True)
class PskAuth:
    """Whoever proves itself by this knows the secret (RFC 7296 2.15, auth method 2)."""

    psk: bytes = field(repr=False)


class Trust(Protocol):
    """Who decides whether a certificate chain proves an identity: `ike.x509.TrustStore`, or another."""

    @property
    def authorities(self) -> tuple[bytes, ...]:
        """For CERTREQ: the SHA-1 of each trust anchor's SubjectPublicKeyInfo, 20 octets (RFC 7296 3.7)."""

    def verify_chain(self, identity: Identity, chain: Sequence[bytes]) -> PublicKey:
        """The key of `chain[0]` if the chain (DER, at least one) leads from `identity` to a trust anchor.

        Raises UntrustedError, and nothing else whatever the octets are.
        """


@dataclass(frozen=True, slots=True)
class NullAuth:
    """No proof of who one is, only that one saw the whole of IKE_SA_INIT (RFC 7619, auth method 13)."""


@dataclass(frozen=True, slots=True)
class SignatureAuth:
    """We prove that we have a private key (RFC 7296 2.15, RFC 7427).

    `chain` is ours in DER, the end entity first and without the trust anchor; it is always sent. Without one the
    peer knows our key already; it is sent as a raw public key (RFC 7670) to a peer that asks for it. `rsa_pss`
    False: sign by PKCS#1 v1.5 with an RSA key. `rsa_sha1`: sign with RSA and SHA-1 for a peer that does not know
    RFC 7427. Raises LocalError for a key that does not belong to `chain[0]` or is not used here.
    """

    key: PrivateKey = field(repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    rsa_pss: bool = True
    rsa_sha1: bool = False

    def __post_init__(self) -> None:
        try:
            check_public_key(self.key.public_key())
            certified = _key_of(self.chain[0]) if self.chain else None
        except (ValueError, SignatureError) as error:
            raise LocalError(f"our {'certificate' if self.chain else 'key'}: {error}") from error
        if certified is not None and certified != self.key.public_key():
            raise LocalError("our key is not that of our certificate")


@dataclass(frozen=True, slots=True)
class PeerSignature:
    """The peer proves that it has a private key: that of a certificate or a raw public key (RFC 7670).

    `trust` judges certificates; None: none is accepted. `raw_keys` are keys that prove the connection's peer
    whatever its identity is called. `rsa_sha1` accepts RSA with SHA-1 from a peer that does not know RFC 7427.
    Its key may be of another kind than ours.
    """

    trust: Trust | None = None
    raw_keys: tuple[PublicKey, ...] = field(default=(), repr=False)
    rsa_sha1: bool = False


def _key_of(certificate: bytes) -> PublicKey:
    return check_public_key(x509.load_der_x509_certificate(certificate).public_key())


LocalAuth = PskAuth | SignatureAuth | NullAuth
PeerAuth = PskAuth | PeerSignature | NullAuth


@dataclass(frozen=True, slots=True)
class Extension:
    """A private extension announced by Vendor ID and by a status notify beside AUTH.

    It is on when both ends sent `vendor_id` in IKE_SA_INIT and `notify_type` in IKE_AUTH and AUTH succeeded.
    The responder's Vendor ID counts only together with CHILDLESS_IKEV2_SUPPORTED (RFC 6023).
    """

    name: str
    vendor_id: bytes
    notify_type: int
    notify_data: bytes


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """What may be agreed when the peer creates a child.

    `local_ts` packets sent to us, `peer_ts` sent to it.
    """

    local_ts: tuple[ConfigSelector, ...]
    peer_ts: tuple[ConfigSelector, ...]


@dataclass(frozen=True, slots=True)
class RetransmitPolicy:
    """When a request is sent again and when the peer counts as gone (RFC 7296 2.1, 2.4).

    Wait `first_s`, then `factor` times longer each time but at most `maximum_s`; after `tries` transmissions
    and their waits the IKE SA has failed. Each wait is shortened by up to `jitter` of itself.
    """

    first_s: float = 1.0
    factor: float = 1.8
    maximum_s: float = 30.0
    tries: int = 8
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class ChildConfig:
    """A kind of Child SA: what we propose as its creator and what we accept when the peer creates it.

    `accept` empty: the same as we would propose. `extension`: the child exists only on an IKE SA with that
    extension on; where one is on, only such children exist. Lifetimes are in seconds, None is without end;
    rekeying starts up to `rekey_jitter` of `rekey_s` earlier (RFC 7296 2.8.1). A child that is still there
    after `hard_s` is deleted. `rekey_s` must lie below `hard_s`. `single_pair`: each is for one pair of addresses;
    a request that does not say for which is refused with SINGLE_PAIR_REQUIRED (RFC 7296 2.9).
    """

    name: str
    proposals: tuple[Proposal, ...]
    mode: Mode
    local_ts: tuple[ConfigSelector, ...]
    peer_ts: tuple[ConfigSelector, ...]
    accept: tuple[TrafficPolicy, ...] = ()
    extension: str | None = None
    tfc_padding_supported: bool = False
    single_pair: bool = False
    rekey_s: float | None = 3600.0
    rekey_jitter: float = 0.1
    hard_s: float | None = 5400.0

    @property
    def policies(self) -> tuple[TrafficPolicy, ...]:
        return self.accept or (TrafficPolicy(self.local_ts, self.peer_ts),)


@dataclass(frozen=True, slots=True)
class Connection:
    """One peer: who it is, where it is, how it proves it, and which children it may have.

    We authenticate by `auth`, the peer by any one of `peer_auth`; empty: by the same secret. Empty
    `local_addresses` or `peer_addresses`: any. `peer_id` None: any identity that knows the secret, or that a
    certificate proves. A peer that proves nothing (NullAuth) has no identity: `peer_id` is ID_NULL (RFC 7619 2.2).
    `reauth_s`: authenticate again after that time at the latest; of the other end the same is asked (RFC 4478).
    `max_peers`: of all whom `peer_id` stands for, so many at a time; who comes later is refused, unless one of them
    does not answer any more. None: any number.
    `childless`: as initiator leave the child out of IKE_AUTH when the responder offers it (RFC 6023);
    otherwise `first_child` travels in IKE_AUTH. `force_udp` falsifies NAT_DETECTION_SOURCE_IP so that both
    ends encapsulate ESP in UDP; `forbid_udp` sends no NAT detection at all. `fragment_octets`: protected
    messages whose IP packet would be larger are sent in fragments, if the peer takes them; None: none are sent
    and none taken (RFC 7383).
    `request_addresses`: as initiator ask for one address of each family that is here (unspecified: any), in
    IKE_AUTH with the first child; without one there is no IKE SA. `assigns_addresses`: the peer's children are
    only for addresses that it asked us for and got from the engine's `configure` (RFC 7296 2.19).
    `mobike`: the addresses may change while the IKE SA lives, the peer's to others of `peer_addresses` (RFC 4555).
    """

    name: str
    local_id: Identity
    peer_id: PeerName
    auth: LocalAuth
    ike_proposals: tuple[Proposal, ...]
    children: tuple[ChildConfig, ...] = ()
    local_addresses: tuple[str, ...] = ()
    peer_addresses: tuple[str, ...] = ()
    local_port: int = 500
    peer_port: int = 500
    extension: Extension | None = None
    extension_required: bool = False
    childless: bool = True
    first_child: str | None = None
    force_udp: bool = False
    forbid_udp: bool = False
    fragment_octets: int | None = 1280
    mobike: bool = False
    initial_contact: bool = True
    retransmit: RetransmitPolicy = RetransmitPolicy()
    liveness_s: float | None = 30.0
    ike_rekey_s: float | None = 14400.0
    ike_rekey_jitter: float = 0.1
    ike_hard_s: float | None = 21600.0
    max_children: int = 64
    peer_auth: tuple[PeerAuth, ...] = ()
    max_peers: int | None = None
    reauth_s: float | None = None
    request_addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    assigns_addresses: bool = False

    def __post_init__(self) -> None:
        if not self.peer_auth and not isinstance(self.auth, PskAuth):
            raise LocalError(f"connection {self.name} does not say how the peer proves itself")
        if any(isinstance(proof, NullAuth) for proof in self.proofs) and self.peer_id != Identity.null():
            raise LocalError(f"connection {self.name} gives an identity to a peer that proves none")

    @property
    def proofs(self) -> tuple[PeerAuth, ...]:
        """What the peer may prove itself by."""
        return self.peer_auth or ((self.auth,) if isinstance(self.auth, PskAuth) else ())

    def child(self, name: str) -> ChildConfig | None:
        return next((child for child in self.children if child.name == name), None)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Limits and timers that belong to the whole engine, not to one peer. Times in seconds.

    Above `cookie_threshold` half-open SAs as responder every IKE_SA_INIT request must bring a cookie
    (RFC 7296 2.6). None is answered above `max_half_open`, nor one whose cookie proves an IPv4 address or IPv6
    /64 that has `max_half_open_per_address` of them already. The oldest session of more than
    `max_sessions_per_identity` with the same two identities is ended. `nat_keepalive_s`: after so much silence
    an end behind a NAT sends a keepalive (RFC 3948 4). A message that comes in fragments may have
    `max_message_octets`; all that are incomplete may hold `max_incomplete_octets`, for `reassembly_s` each; those of
    half-open IKE SAs half of it.
    `window`: how many requests of a peer we promise to take at once (SET_WINDOW_SIZE, RFC 7296 2.3), and have in
    flight ourselves if it promises as many. `invalid_spi_answers_per_s`: answers to what belongs to no IKE SA;
    `complaints_per_s`: what an IKE SA is told about stray messages of its peer. No more than `max_lingering` IKE
    SAs that are over are kept to repeat their last words.
    """

    cookie_threshold: int = 32
    max_half_open: int = 1024
    max_half_open_per_address: int = 16
    half_open_s: float = 30.0
    max_sessions: int = 10_000
    max_sessions_per_identity: int = 4
    cookie_lifetime_s: float = 30.0
    max_init_rounds: int = 6
    invalid_spi_answers_per_s: float = 10.0
    complaints_per_s: float = 0.1
    window: int = 8
    max_lingering: int = 1024
    temporary_failure_retry_s: float = 5.0
    reauth_overlap_s: float = 5.0
    reauth_retry_s: float = 60.0
    temporary_failure_limit_s: float = 180.0
    collision_timeout_s: float = 60.0
    nat_keepalive_s: float = 20.0
    nonce_octets: int = 32
    max_message_octets: int = 65_535
    max_incomplete_octets: int = 16 * 2**20
    reassembly_s: float = 30.0
