"""What a peer's settings require together, and what must hold between the peers (WIRE.md 3.3, 5.5 and 7).

Knows nothing of TOML types. Paths are those of the document: the n-th value comes from the n-th table.
Placeholders for what was reported already (an empty name, label 0) are passed over.
"""

from collections.abc import Hashable, Iterator
from ipaddress import ip_address

from endpoint.config.checks import refuse_repeats
from endpoint.config.locate import Path
from endpoint.config.model import (
    ANY_ADDRESS,
    EVERYTHING,
    Config,
    PeerConfig,
    PeerVrfConfig,
    Selectors,
    Start,
)
from endpoint.config.problems import Report, quoted
from endpoint.config.values import SECLABEL_NAME, Prefix
from ike.config import Mode
from ike.numbers import Sn, TransformType
from mpls.encapsulation import NO_GRE_OPTIONS, Encapsulation
from mpls.fit import Fragment
from mpls.identifiers import VrfId
from mpls.mtu import LOWEST_LINK_MTU


def check_peers(config: Config, report: Report) -> None:
    for index, peer in enumerate(config.peers):
        path = ("peer", index)
        _check_addresses(config, report, peer, path)
        _check_settings(report, peer, path)
        vrfs = [
            (vrf.name, f"VRF {quoted(vrf.name)}", (*path, "vrf", i, "name"))
            for i, vrf in enumerate(peer.vrfs)
            if vrf.name
        ]
        refuse_repeats(report, vrfs, "write one [[peer.vrf]] for each VRF")
        for position, vrf in enumerate(peer.vrfs):
            _check_peer_vrf(config, report, peer, vrf, (*path, "vrf", position))
    _check_identities(config, report)
    _check_vrf_ids(config, report)
    _check_static_labels(config, report)
    _check_routes(config, report)
    _check_plain_ip_overlap(config, report)


def _check_addresses(config: Config, report: Report, peer: PeerConfig, path: Path) -> None:
    endpoint = config.endpoint
    ours = {ip_address(address).version for address in endpoint.addresses}
    addresses = [ip_address(address) for address in peer.addresses if address != ANY_ADDRESS]
    for address in addresses:
        if ours and address.version not in ours:
            message = f"{address} cannot be reached: endpoint.addresses has no IPv{address.version} address"
            report.error((*path, "addresses"), message, "add one there")
    lowest = LOWEST_LINK_MTU[any(address.version == 6 for address in addresses)]
    if peer.link_mtu - peer.access_overhead < lowest:
        what = f"an IPv6 link has at least {lowest} octets (RFC 8200 5)"
        if lowest < 1280:
            what = f"less than {lowest} octets are left for IP (RFC 791 3.1)"
        remedy = f"use {lowest + peer.access_overhead} or more"
        report.error((*path, "link_mtu"), what, remedy)
    if peer.is_any and peer.start is Start.BOOT:
        message = 'there is no address to start toward: addresses is ["any"]'
        report.error(
            (*path, "start"), message, 'use "none", or "traffic" for children once the peer has called'
        )
    if endpoint.ike_port == 0 and not peer.is_any and not config.starts_on_nat_port(peer):
        message = f"port {peer.port} cannot be reached: endpoint.ike_port is 0, so only nat_port is open"
        report.error((*path, "port"), message, f"write port = {endpoint.nat_port}, or open ike_port")


def _check_settings(report: Report, peer: PeerConfig, path: Path) -> None:
    if peer.encapsulation is Encapsulation.NONE:
        if peer.selectors is not Selectors.PLAIN:
            message = f'{quoted(peer.selectors.value)} does not go with encapsulation = "none"'
            report.error((*path, "selectors"), message, 'write selectors = "plain"')
        if peer.mode is Mode.TRANSPORT:
            _check_host_to_host(report, peer, path)
            if peer.fitting.fragment is Fragment.INNER:
                message = "does not go with plain IP in transport mode, which carries whole packets (RFC 4303 3.3.4)"
                report.error((*path, "fragment"), message, "leave it away")
    if peer.selectors is not Selectors.SECLABEL:
        for key, is_set in (("strict_child", peer.strict_child), ("seclabel_in_auth", peer.seclabel_in_auth)):
            if is_set:
                report.error(
                    (*path, key), 'means something with selectors = "seclabel" only', "leave it away"
                )
    if peer.mobike and peer.mode is Mode.TRANSPORT:
        message = (
            "in transport mode the addresses of the underlay are those of the packets: they cannot change"
        )
        report.error((*path, "mobike"), message, 'leave it away, or write mode = "tunnel"')
    if peer.tfc_octets and peer.mode is Mode.TRANSPORT:
        message = (
            "a payload in transport mode does not say where it ends and the padding begins (RFC 4303 2.7)"
        )
        report.error((*path, "tfc"), message, 'leave it away, or write mode = "tunnel"')
    takes_esn = any(
        one.type is TransformType.SN and one.id == Sn.PARTIALLY_TRANSMITTED_64
        for proposal in peer.esp
        for one in proposal.transforms
    )
    if not peer.replay_window and takes_esn:
        message = "extended sequence numbers cannot do without a window (RFC 4303 3.3.3)"
        report.error((*path, "replay_window"), message, "leave it away, or esn out of esp")
    elif not peer.replay_window:
        message = "replayed packets are taken"
        report.warn((*path, "replay_window"), message, "leave it away unless the path repeats and reorders")
    if peer.gre != NO_GRE_OPTIONS and peer.encapsulation is not Encapsulation.MPLS_IN_GRE:
        message = 'means something with encapsulation = "mpls-in-gre" only'
        report.error((*path, "gre"), message, "leave it away")
    if peer.is_shared and (why := peer.why_not_shared):
        report.error((*path, "max_clients"), f"{peer.max_clients} clients cannot share it: {why}", "write 1")
    if not peer.vrfs:
        report.warn(path, "the peer may use no VRF", "add [[peer.vrf]] with a name")
    paired = [vrf for vrf in peer.vrfs if vrf.addresses]
    if peer.mode is Mode.TRANSPORT and paired and len(peer.vrfs) > 1:
        message = "in transport mode an address pair of a VRF needs an IKE SA of its own"
        remedy = 'write one [[peer]] for each pair, with the same identity, or mode = "tunnel"'
        report.error((*path, "vrf"), message, remedy)


def _check_host_to_host(report: Report, peer: PeerConfig, path: Path) -> None:
    """Plain IP in transport mode has no addresses but those of the two hosts."""
    if len(peer.vrfs) > 1:
        message = 'several VRFs cannot be told apart with encapsulation = "none" in transport mode'
        report.error((*path, "vrf"), message, 'use one, or mode = "tunnel"')
    for position, vrf in enumerate(peer.vrfs):
        for prefix in vrf.accept:
            is_host = prefix.num_addresses == 1
            if not is_host or not (peer.is_any or str(prefix.network_address) in peer.addresses):
                message = f"{prefix} is no address of the peer: transport mode is between two hosts"
                remedy = 'name its addresses, or write mode = "tunnel"'
                report.error((*path, "vrf", position, "accept"), message, remedy)


def _check_peer_vrf(config: Config, report: Report, peer: PeerConfig, vrf: PeerVrfConfig, path: Path) -> None:
    if vrf.route_based and (peer.encapsulation is not Encapsulation.NONE or peer.mode is not Mode.TUNNEL):
        message = 'is for encapsulation = "none" in tunnel mode: labels are routed as it is'
        report.error((*path, "route_based"), message, "leave it away")
    if vrf.routes and peer.selectors is not Selectors.NATIVE:
        message = "are for native peers, whose per-VRF label they take"
        report.error(
            (*path, "routes"), message, "write them into labels = { …, routes = [ … ] }, or into accept"
        )
    ours = config.vrf(vrf.name)
    announce = ours.announce if ours else ()
    for prefix in vrf.accept:
        if prefix in announce:
            message = f"{prefix} is announced by us: VRF {quoted(vrf.name)} has it in announce"
            report.error((*path, "accept"), message, "a prefix is ours or the peer's")
    if peer.encapsulation is Encapsulation.NONE:
        # In transport mode and with route_based the prefixes are no selectors.
        needs_announce = ours is not None and peer.mode is Mode.TUNNEL and not vrf.route_based
        needs_announce = needs_announce and not peer.virtual_ip
        _check_plain_ip(report, peer, vrf, announce, path, needs_announce=needs_announce)
        return
    if peer.selectors is Selectors.NATIVE:
        if vrf.addresses:
            message = 'are for plain peers: with selectors = "native" the map keeps VRFs apart'
            report.error((*path, "addresses"), message, "leave them away")
        if not vrf.accept:
            message = "the peer may announce no prefix, so nothing can be sent to it"
            report.warn(path, message, "add accept with the prefixes behind it")
        return
    _check_labels(report, peer, vrf, path)
    if peer.selectors is Selectors.SECLABEL:
        _check_seclabel(report, vrf, path)
    if vrf.addresses and peer.mode is Mode.TRANSPORT:
        pair = vrf.addresses
        if pair.local not in config.endpoint.addresses:
            message = f"in transport mode {pair.local} must be an address that IKE uses"
            report.error((*path, "addresses", "local"), message, "add it to endpoint.addresses")
        if not peer.is_any and pair.peer not in peer.addresses:
            message = f"in transport mode {pair.peer} must be an address that IKE uses"
            report.error((*path, "addresses", "peer"), message, "add it to the peer's addresses")


def _check_plain_ip(
    report: Report,
    peer: PeerConfig,
    vrf: PeerVrfConfig,
    announce: tuple[Prefix, ...],
    path: Path,
    *,
    needs_announce: bool,
) -> None:
    """encapsulation = "none": announce and accept are the selectors, and nothing tells classes apart.

    An end that gets its address from the other has that in their place.
    """
    for key, value in (("labels", vrf.labels), ("addresses", vrf.addresses)):
        if value:
            report.error((*path, key), 'means nothing with encapsulation = "none"', "leave it away")
    if not vrf.accept and peer.pool is None:
        message = 'is empty, but with encapsulation = "none" it is the traffic selector of the peer'
        report.error((*path, "accept"), message, "add the prefixes behind the peer")
    if needs_announce and not announce:
        message = f"VRF {quoted(vrf.name)} has no announce, which would be the local traffic selector"
        report.error((*path, "name"), message, "add announce to the [[vrf]]")
    if len(vrf.classes) > 1:
        message = 'several classes cannot be told apart with encapsulation = "none"'
        report.error((*path, "classes"), message, f"write classes = [{quoted(str(vrf.classes[-1]))}]")


def _check_labels(report: Report, peer: PeerConfig, vrf: PeerVrfConfig, path: Path) -> None:
    missing = [class_id for class_id in vrf.classes if vrf.labels_of(class_id) is None]
    if missing:
        names = ", ".join(str(class_id) for class_id in missing)
        message = f"are missing for {names}: selectors = {quoted(peer.selectors.value)} negotiates none"
        remedy = "add labels = { local = 101, peer = 102, routes = [ … ] }"
        if len(vrf.classes) > 1:
            remedy = f"add labels = {{ {vrf.classes[0]} = {{ local = 101, peer = 102, routes = [ … ] }}, … }}"
        report.error((*path, "labels"), message, remedy)
    if not vrf.accept:
        return
    for labels in vrf.labels:
        for route in labels.routes:
            if not any(_is_inside(route, allowed) for allowed in vrf.accept):
                message = f"the route {route} is outside of what accept allows this peer"
                report.error((*path, "labels"), message, "widen accept, or take the route away")


def _check_seclabel(report: Report, vrf: PeerVrfConfig, path: Path) -> None:
    """The label is the text mpls:vrf=<name>;class=<class>, so both need the alphabet of WIRE.md 7."""
    form, _, name = vrf.peer_id_text.partition(":")
    if form != "name" or not SECLABEL_NAME.fullmatch(name):
        message = f"a security label names the VRF, and {quoted(vrf.peer_id_text)} gives no such name"
        report.error((*path, "peer_id"), message, 'write "name:…" with 1 to 64 of A-Z a-z 0-9 . _ -')
    for class_id in vrf.classes:
        if not SECLABEL_NAME.fullmatch(str(class_id)):
            message = f"{quoted(str(class_id))} cannot stand in a security label"
            report.error((*path, "classes"), message, "use names of A-Z a-z 0-9 . _ -")


def _check_identities(config: Config, report: Report) -> None:
    def entries() -> Iterator[tuple[Hashable, str, Path]]:
        for index, peer in enumerate(config.peers):
            for address in peer.addresses if peer.identity else ():
                called = f"a peer {quoted(peer.identity)} at {address}"
                yield (peer.identity, address), called, ("peer", index, "identity")

    refuse_repeats(report, entries(), "tell them apart by identity or by address")


def _check_vrf_ids(config: Config, report: Report) -> None:
    """Toward one identity no id may name two VRFs, our own ids of the shared VRFs included (WIRE.md 3.3)."""
    named: dict[tuple[str, VrfId], str] = {}
    shared = [
        (peer, vrf, ours, ("peer", index, "vrf", position))
        for index, peer in enumerate(config.peers)
        for position, vrf in enumerate(peer.vrfs)
        if (ours := config.vrf(vrf.name)) is not None
    ]
    for peer, _, ours, _ in shared:
        named.setdefault((peer.identity, ours.id), ours.name)
    for peer, vrf, ours, path in shared:
        other = named.setdefault((peer.identity, vrf.peer_id), ours.name)
        if other != ours.name:
            message = (
                f"toward {quoted(peer.identity)} {quoted(vrf.peer_id_text)} names VRF {quoted(other)} already"
            )
            report.error((*path, "peer_id"), message, "let an id name one VRF")


def _check_static_labels(config: Config, report: Report) -> None:
    """A local label belongs to exactly one (VRF, class) of one peer; a label of the peer to one VRF."""
    locals_seen: list[tuple[Hashable, str, Path]] = []
    peer_label: dict[tuple[str, int], str] = {}
    first, last = config.endpoint.label_range
    for index, peer in enumerate(config.peers):
        for position, vrf in enumerate(peer.vrfs):
            path: Path = ("peer", index, "vrf", position, "labels")
            for labels in vrf.labels:
                inner = (*path, str(labels.class_id))
                at = inner if inner in report.locations.lines else path
                if first <= labels.local <= last:
                    message = f"the local label {labels.local} lies in the range that bindings are taken from"
                    remedy = f"use one outside of {first}-{last}, or move endpoint.label_range"
                    report.error((*at, "local"), message, remedy)
                if labels.local:
                    locals_seen.append((labels.local, f"the local label {labels.local}", (*at, "local")))
                other = peer_label.setdefault((peer.identity, labels.peer), vrf.name)
                if labels.peer and other != vrf.name:
                    message = f"the peer's label {labels.peer} leads into VRF {quoted(other)} already"
                    report.error((*at, "peer"), message, "write the label that the peer gave to this VRF")
    refuse_repeats(report, locals_seen, "a local label belongs to one VRF and class of one peer")


def _check_plain_ip_overlap(config: Config, report: Report) -> None:
    """The selectors are all that tells plain IP children of one identity apart: they must not meet."""
    seen: list[tuple[str, str, tuple[Prefix, ...], tuple[Prefix, ...]]] = []
    for index, peer in enumerate(config.peers):
        for position, vrf in enumerate(peer.vrfs):
            ours = config.vrf(vrf.name)
            if peer.encapsulation is not Encapsulation.NONE or ours is None:
                continue
            selectors = (EVERYTHING, EVERYTHING) if vrf.route_based else (ours.announce, vrf.accept)
            for identity, name, announce, accept in seen:
                if (identity, name) == (peer.identity, vrf.name) or identity != peer.identity:
                    continue
                if _overlap(announce, selectors[0]) and _overlap(accept, selectors[1]):
                    message = f"VRF {quoted(vrf.name)} has the same selectors as VRF {quoted(name)}"
                    remedy = 'with encapsulation = "none" VRFs of one peer need prefixes of their own'
                    report.error(("peer", index, "vrf", position, "accept"), message, remedy)
            seen.append((peer.identity, vrf.name, *selectors))


def _overlap(first: tuple[Prefix, ...], second: tuple[Prefix, ...]) -> bool:
    return any(one.version == other.version and one.overlaps(other) for one in first for other in second)


def _check_routes(config: Config, report: Report) -> None:
    """A fixed route of a (VRF, class) leads to one peer."""

    def entries() -> Iterator[tuple[Hashable, str, Path]]:
        for index, peer in enumerate(config.peers):
            for position, vrf in enumerate(peer.vrfs):
                path = ("peer", index, "vrf", position)
                for labels in vrf.labels:
                    for route in labels.routes:
                        called = f"the route {route} of VRF {quoted(vrf.name)}"
                        yield (vrf.name, labels.class_id, route), called, (*path, "labels")
                if peer.encapsulation is Encapsulation.NONE:
                    for prefix in vrf.accept:
                        called = f"the prefix {prefix} of VRF {quoted(vrf.name)}"
                        yield (vrf.name, vrf.classes[-1], prefix), called, (*path, "accept")

    refuse_repeats(report, entries(), "let one peer serve it")


def _is_inside(inner: Prefix, outer: Prefix) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer  # a network holds addresses of its own version only
    )
