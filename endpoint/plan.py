"""What a configuration means to `ike`: a connection for each peer, a kind of Child SA for each thing it serves.

Pure translation; it must not know sockets or devices, and of time no more than to hand a clock on.

    selectors = native           a child for each (VRF, class): TS_MPLS_VRF beside the address selectors
    selectors = seclabel         a child for each (VRF, class): TS_SECLABEL beside the address selectors
    selectors = plain            one child for all VRFs, or one for each VRF that has `addresses` of its own
    encapsulation = none         a child for each VRF without labels: its prefixes are the selectors (policy-based), or
                                 everything is (route-based), or in transport mode the two hosts
    selectors = native-or-plain  both the native and the plain ones; the capability decides which can exist
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from endpoint.config import (
    EVERYTHING,
    AddressPair,
    AnchorsConfig,
    Config,
    Encapsulation,
    KeyAuthConfig,
    LocalAuthConfig,
    NullAuthConfig,
    PeerAuthConfig,
    PeerConfig,
    PeerVrfConfig,
    PskAuthConfig,
    RawKeysConfig,
    Selectors,
    Udp,
)
from ike import (
    AddressSelector,
    ChildConfig,
    Connection,
    DynamicSelector,
    Extension,
    Identity,
    Mode,
    NullAuth,
    PeerSignature,
    PskAuth,
    RetransmitPolicy,
    SelectorRegistry,
    SelectorType,
    SignatureAuth,
    TrafficPolicy,
    TrustStore,
)
from ike.config import ConfigSelector, LocalAuth, PeerAuth
from ike.identities import parse_peer_name
from ike.selectors import SecurityLabel
from mpls import capability
from mpls.identifiers import ClassId, VrfId
from mpls.selectors import (
    ANY_DEPTH,
    ENTROPY_LABEL_INDICATOR,
    ONE_ENTRY,
    PORTS_OF_PROTOCOL,
    TS_MPLS_VRF,
    MplsVrfSelector,
    reconcile,
)

__all__ = ["EXTENSION_NAME", "ChildPlan", "PeerPlan", "Serves", "plan_peers", "selector_registry"]

EXTENSION_NAME: Final = "mpls-vrf"
MAX_BINDINGS: Final = 65536
"""Labels plus prefixes that we take from one peer, and announce that we take."""
BINDINGS_PER_MESSAGE: Final = 1000

ANY_OF_EACH_FAMILY: Final = (IPv4Address(0), IPv6Address(0))

Serves = tuple[str, ClassId]
"""A VRF's name and a class."""


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """One kind of Child SA with one peer.

    serves      the (VRF, class) pairs whose packets it carries
    is_native   its selectors hold the map; otherwise labels come from the configuration
    inner       tunnel mode: the addresses of the inner header around the labels; None: those of the IKE SA
    config      the same for `ike`
    """

    name: str
    serves: tuple[Serves, ...]
    is_native: bool
    inner: AddressPair | None
    config: ChildConfig


@dataclass(frozen=True, slots=True)
class PeerPlan:
    """A peer with its IKE connection and its children, in the order of the configuration.

    `entry`: the `[[peer]]` that this client has together with others; the connection is that one's.
    """

    peer: PeerConfig
    connection: Connection
    children: tuple[ChildPlan, ...]
    entry: str | None = None

    def child(self, name: str) -> ChildPlan | None:
        return next((child for child in self.children if child.name == name), None)

    def child_for(self, vrf: str, class_id: ClassId, *, native: bool) -> ChildPlan | None:
        """The child that carries (VRF, class) when the capability is on (`native`) or off."""
        return next(
            (c for c in self.children if c.is_native == native and (vrf, class_id) in c.serves),
            None,
        )


def selector_registry() -> SelectorRegistry:
    """The traffic selector types of this endpoint: those of `ike` and TS_MPLS_VRF."""
    return SelectorRegistry([SelectorType(TS_MPLS_VRF, MplsVrfSelector.parse, reconcile)])


def plan_peers(config: Config, wall_clock: Callable[[], float] = time.time) -> tuple[PeerPlan, ...]:
    """One plan for each `[[peer]]`. `wall_clock`: seconds since 1970, for the validity of certificates."""
    return tuple(_plan_peer(config, peer, wall_clock) for peer in config.peers)


def _local_auth(auth: LocalAuthConfig) -> LocalAuth:
    match auth:
        case PskAuthConfig():
            return PskAuth(auth.psk)
        case KeyAuthConfig():
            return SignatureAuth(auth.key, auth.chain, auth.rsa_pss, auth.rsa_sha1)
        case NullAuthConfig():
            return NullAuth()


def _peer_auth(proof: PeerAuthConfig, wall_clock: Callable[[], float]) -> PeerAuth:
    match proof:
        case PskAuthConfig():
            return PskAuth(proof.psk)
        case AnchorsConfig():
            trust = TrustStore(proof.anchors, proof.crls, wall_clock=wall_clock)
            return PeerSignature(trust, rsa_sha1=proof.rsa_sha1)
        case RawKeysConfig():
            return PeerSignature(raw_keys=proof.keys, rsa_sha1=proof.rsa_sha1)
        case NullAuthConfig():
            return NullAuth()


def _plan_peer(config: Config, peer: PeerConfig, wall_clock: Callable[[], float]) -> PeerPlan:
    children: list[ChildPlan] = []
    if peer.selectors in (Selectors.NATIVE, Selectors.NATIVE_OR_PLAIN):
        children += _native_children(config, peer)
    if peer.selectors is Selectors.SECLABEL:
        children += _seclabel_children(peer)
    elif peer.selectors in (Selectors.PLAIN, Selectors.NATIVE_OR_PLAIN):
        children += (
            _ip_children(config, peer) if peer.encapsulation is Encapsulation.NONE else _plain_children(peer)
        )
    is_native = peer.selectors in (Selectors.NATIVE, Selectors.NATIVE_OR_PLAIN)
    first = next((child for child in children if not child.is_native), None)
    may_start_in_auth = peer.selectors is not Selectors.SECLABEL or peer.seclabel_in_auth
    local_addresses, peer_addresses = _addresses(config, peer)
    connection = Connection(
        name=peer.name,
        local_id=_local_identity(config, peer),
        peer_id=parse_peer_name(peer.identity),
        auth=_local_auth(peer.auth),
        peer_auth=tuple(_peer_auth(proof, wall_clock) for proof in peer.peer_auth),
        max_peers=peer.max_clients if peer.is_several else None,
        ike_proposals=peer.ike,
        children=tuple(child.config for child in children),
        local_addresses=local_addresses,
        peer_addresses=peer_addresses,
        local_port=config.endpoint.nat_port if config.starts_on_nat_port(peer) else config.endpoint.ike_port,
        peer_port=peer.port,
        extension=_extension(peer, is_uniform=config.is_uniform) if is_native else None,
        extension_required=peer.selectors is Selectors.NATIVE,
        first_child=first.name if first is not None and may_start_in_auth else None,
        force_udp=peer.udp is Udp.ALWAYS,
        forbid_udp=peer.udp is Udp.NEVER,
        fragment_octets=peer.fragment_size if peer.fragmentation else None,
        liveness_s=peer.liveness_s,
        retransmit=RetransmitPolicy(tries=peer.retransmit_tries),
        mobike=peer.mobike,
        ike_rekey_s=peer.lifetime.ike_rekey_s,
        ike_hard_s=peer.lifetime.ike_hard_s,
        reauth_s=peer.lifetime.reauth_s,
        max_children=max(16, 4 * len(children)),
        request_addresses=ANY_OF_EACH_FAMILY if peer.virtual_ip else (),
        assigns_addresses=peer.pool is not None,
    )
    return PeerPlan(peer, connection, tuple(children))


def _addresses(config: Config, peer: PeerConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(ours, the peer's) that IKE may use; of the peer none for any.

    In transport mode they are those of the packets: an address pair of a VRF is that of its IKE SA too.
    """
    peers = () if peer.is_any else peer.addresses
    pair = next((vrf.addresses for vrf in peer.vrfs if vrf.addresses), None)
    if pair is None or peer.mode is not Mode.TRANSPORT:
        return config.endpoint.addresses, peers
    return (pair.local,), (pair.peer,)


def _local_identity(config: Config, peer: PeerConfig) -> Identity:
    """Whoever proves nothing claims nothing (RFC 7619 2.2)."""
    is_anonymous = isinstance(peer.auth, NullAuthConfig)
    return Identity.null() if is_anonymous else Identity.parse_text(config.endpoint.identity)


def _extension(peer: PeerConfig, *, is_uniform: bool) -> Extension:
    hint = {
        Encapsulation.MPLS_IN_IP: capability.MPLS_IN_IP,
        Encapsulation.MPLS_IN_GRE: capability.MPLS_IN_GRE,
    }.get(peer.encapsulation, 0)
    uniform = capability.UNIFORM_MODEL if is_uniform else 0
    features = capability.LABEL_BINDINGS | hint | uniform
    ours = capability.Capability(MAX_BINDINGS, features, BINDINGS_PER_MESSAGE)
    return Extension(EXTENSION_NAME, capability.VENDOR_ID, capability.MPLS_VRF_SUPPORTED, ours.encode())


def _child(
    peer: PeerConfig,
    name: str,
    propose: TrafficPolicy,
    accept: TrafficPolicy | None = None,
    *,
    extension: str | None = None,
) -> ChildConfig:
    return ChildConfig(
        name=name,
        proposals=peer.esp,
        mode=peer.mode,
        local_ts=propose.local_ts,
        peer_ts=propose.peer_ts,
        accept=() if accept is None else (accept,),
        extension=extension,
        # A transport-mode MPLS payload has no length of its own: padding could not be told from it (RFC 4303 2.7).
        tfc_padding_supported=peer.mode is Mode.TUNNEL,
        rekey_s=peer.lifetime.child_rekey_s,
        hard_s=peer.lifetime.child_hard_s,
    )


def _address_selectors(
    peer: PeerConfig, inner: AddressPair | None
) -> tuple[tuple[ConfigSelector, ...], tuple[ConfigSelector, ...]]:
    """(local, peer): the MPLS encapsulation's protocol between the two ends of the (inner) header."""
    protocol = peer.encapsulation.value
    ports = PORTS_OF_PROTOCOL[protocol]
    if inner is None:
        dynamic = DynamicSelector(protocol, *ports)
        return (dynamic,), (dynamic,)
    return (
        (AddressSelector.from_address(inner.local, protocol, *ports),),
        (AddressSelector.from_address(inner.peer, protocol, *ports),),
    )


def _native_children(config: Config, peer: PeerConfig) -> Iterator[ChildPlan]:
    for granted in peer.vrfs:
        own = config.vrf(granted.name)
        if own is None:
            continue
        for class_id in granted.classes:
            local, remote = _address_selectors(peer, granted.addresses)
            depth, special = (ANY_DEPTH, ENTROPY_LABEL_INDICATOR) if own.keeps_labels else (ONE_ENTRY, 0)

            def policy(
                vrf_id: VrfId,
                class_id: ClassId = class_id,
                local: tuple[ConfigSelector, ...] = local,
                remote: tuple[ConfigSelector, ...] = remote,
                depth: tuple[int, int] = depth,
                special: int = special,
            ) -> TrafficPolicy:
                selector = MplsVrfSelector(
                    vrf_id,
                    class_id,
                    encapsulations=peer.encapsulation.mask,
                    tc=config.label_class(class_id).tc_mask,
                    depth=depth,
                    special=special,
                )
                return TrafficPolicy((*local, selector), (*remote, selector))

            # The creator names the VRF by its own id: ours when we create, the peer's when it does (WIRE 3.3).
            name = f"{granted.name}/{class_id}"
            child = _child(peer, name, policy(own.id), policy(granted.peer_id), extension=EXTENSION_NAME)
            yield ChildPlan(name, ((granted.name, class_id),), True, granted.addresses, child)


def _seclabel_children(peer: PeerConfig) -> Iterator[ChildPlan]:
    for granted in peer.vrfs:
        # The name that the peer knows (WIRE 7); the configuration has seen to it that there is one.
        vrf_name = granted.peer_id_text.removeprefix("name:")
        for class_id in granted.classes:
            local, remote = _address_selectors(peer, granted.addresses)
            label = SecurityLabel(f"mpls:vrf={vrf_name};class={class_id}".encode("ascii"))
            name = f"{granted.name}/{class_id}"
            child = _child(peer, name, TrafficPolicy((*local, label), (*remote, label)))
            yield ChildPlan(name, ((granted.name, class_id),), False, granted.addresses, child)


def _plain_children(peer: PeerConfig) -> Iterator[ChildPlan]:
    shared = [granted for granted in peer.vrfs if granted.addresses is None]
    if shared:
        local, remote = _address_selectors(peer, None)
        serves = tuple(pair for granted in shared for pair in _pairs(granted))
        yield ChildPlan("mpls", serves, False, None, _child(peer, "mpls", TrafficPolicy(local, remote)))
    for granted in peer.vrfs:
        if granted.addresses is not None:
            local, remote = _address_selectors(peer, granted.addresses)
            child = _child(peer, granted.name, TrafficPolicy(local, remote))
            yield ChildPlan(granted.name, tuple(_pairs(granted)), False, granted.addresses, child)


def _ip_children(config: Config, peer: PeerConfig) -> Iterator[ChildPlan]:
    for granted in peer.vrfs:
        vrf = config.vrf(granted.name)
        if vrf is None:
            continue
        local: tuple[ConfigSelector, ...]
        remote: tuple[ConfigSelector, ...]
        if peer.mode is Mode.TRANSPORT:
            local = remote = (DynamicSelector(),)
        else:
            prefixes = (EVERYTHING, EVERYTHING) if granted.route_based else (vrf.announce, granted.accept)
            local, remote = (tuple(map(AddressSelector.from_network, side)) for side in prefixes)
        # An end that gets its address from the other has that alone.
        if peer.virtual_ip:
            local = (DynamicSelector(),)
        if peer.pool is not None:
            remote = (DynamicSelector(),)
        policy = TrafficPolicy(local, remote)
        child = _child(peer, granted.name, policy)
        yield ChildPlan(granted.name, tuple(_pairs(granted)), False, None, child)


def _pairs(granted: PeerVrfConfig) -> Iterator[Serves]:
    return ((granted.name, class_id) for class_id in granted.classes)
