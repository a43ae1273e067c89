"""What a configuration means to `mpls`: VRFs, crypto map, label space and routes that are there from the start.

Pure translation; it must not know sockets, devices or time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_interface

from endpoint.config import (
    AttachConfig,
    Config,
    Encapsulation,
    PeerConfig,
    Selectors,
    VrfConfig,
    beyond_announce,
)
from mpls.crypto_map import CryptoMap, compile_default
from mpls.identifiers import ClassId
from mpls.ip import Network
from mpls.label_space import LabelSpace
from mpls.outbound import Outbound
from mpls.routes import ForwardingTable
from mpls.vrf import Attachment, Labels, Vrf

__all__ = [
    "StaticRoute",
    "Tables",
    "build_attachment",
    "build_crypto_map",
    "build_tables",
    "build_vrf",
    "static_routes",
]


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """A prefix behind a peer that needs no binding; `label` None without labels."""

    peer: str
    vrf: str
    label_class: ClassId
    prefix: Network
    label: int | None


@dataclass(frozen=True, slots=True)
class Tables:
    """The forwarding state of one node."""

    space: LabelSpace
    table: ForwardingTable
    outbound: Outbound


def build_tables(config: Config) -> Tables:
    """All tables, with static labels reserved and static routes installed."""
    space = LabelSpace(*config.endpoint.label_range)
    unlabelled = [peer.name for peer in config.peers if peer.encapsulation is Encapsulation.NONE]
    table = ForwardingTable([peer.name for peer in config.peers], unlabelled)
    for peer in config.peers:
        for granted in peer.vrfs:
            for labels in granted.labels:
                space.reserve(labels.local, peer.name, granted.name, labels.class_id)
        if peer.selectors in (Selectors.PLAIN, Selectors.SECLABEL):
            for route in static_routes(peer):
                table.add(route.peer, route.vrf, route.label_class, route.prefix, route.label, "static")
        else:
            for granted in peer.vrfs:
                for class_id in granted.classes:
                    for prefix in granted.accept:
                        table.add_candidate(peer.name, granted.name, class_id, prefix)
                    for prefix in granted.routes:
                        table.add(peer.name, granted.name, class_id, prefix, None, "static")
    vrfs = [build_vrf(config, vrf) for vrf in config.vrfs]
    return Tables(space, table, Outbound(vrfs, build_crypto_map(config), table, space.is_for_peers))


def static_routes(peer: PeerConfig) -> Iterator[StaticRoute]:
    """What the configuration says is behind a peer that binds no labels."""
    for granted in peer.vrfs:
        if peer.encapsulation is Encapsulation.NONE:
            for class_id in granted.classes:
                for prefix in granted.accept:
                    yield StaticRoute(peer.name, granted.name, class_id, prefix, None)
        for labels in granted.labels:
            for prefix in labels.routes:
                yield StaticRoute(peer.name, granted.name, labels.class_id, prefix, labels.peer)


def build_vrf(config: Config, vrf: VrfConfig) -> Vrf:
    """A VRF with its classes and the attachments of its customers."""
    attachments = tuple(build_attachment(attach) for attach in vrf.attach)
    leaks = tuple(
        (prefix, leak.source) for leak in config.leaks if leak.target == vrf.name for prefix in leak.prefixes
    )
    return Vrf(
        vrf.name,
        vrf.id_text,
        tuple(config.label_class(class_id) for class_id in vrf.classes),
        vrf.urpf,
        attachments,
        vrf.announce,
        reachable=tuple(beyond_announce(config, vrf.name)) if leaks else (),
        leaks=leaks,
        ttl_model=vrf.ttl_model,
    )


def build_attachment(attach: AttachConfig) -> Attachment:
    """An attachment with what is behind it and what becomes of labels there."""
    side = attach.labelled
    return Attachment(
        attach.name,
        tuple(ip_interface(address) for address in attach.address),
        attach.prefixes,
        Labels.NONE if side is None else side.labels,
        () if side is None else side.local_labels,
        None if side is None else side.peer_label,
    )


def build_crypto_map(config: Config) -> CryptoMap:
    """The rules of `[[crypto_map]]`, then those that VRFs, classes and peers compile into."""
    served: dict[str, set[ClassId]] = {}
    for peer in config.peers:
        for granted in peer.vrfs:
            served.setdefault(granted.name, set()).update(granted.classes)
    labelled = [vrf.name for vrf in config.vrfs if vrf.is_labelled]
    compiled = compile_default([build_vrf(config, vrf) for vrf in config.vrfs], served, labelled)
    return CryptoMap((*config.crypto_map, *compiled.rules[:-1]))
