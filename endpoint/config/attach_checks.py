"""What must hold between attachments: names, links that several share, and labels in clear (RFC 4023 8.1, 8.2).

Knows nothing of TOML types. Paths are those of the document: the n-th value comes from the n-th table.
"""

from collections.abc import Iterator
from ipaddress import ip_address

from endpoint.config.checks import refuse_repeats
from endpoint.config.locate import Path
from endpoint.config.model import ANY_ADDRESS, AttachConfig, AttachmentKind, Config, LabelledConfig
from endpoint.config.problems import Report, quoted

_Placed = tuple[AttachConfig, Path]


def check_attachments(config: Config, report: Report) -> None:
    placed: list[_Placed] = [
        (attach, ("vrf", index, "attach", position))
        for index, vrf in enumerate(config.vrfs)
        for position, attach in enumerate(vrf.attach)
    ]
    refuse_repeats(
        report,
        ((one.name, f"the attachment {quoted(one.name)}", path) for one, path in placed if one.name),
        "an attachment belongs to one VRF; give each a name of its own, whatever its namespace",
    )
    _check_shared_links(placed, report)
    for attach, path in placed:
        if attach.labelled is not None:
            _check_labels(config, report, attach.labelled, path)
            _check_tunnel(config, report, attach, attach.labelled, path)
    _check_loops(config, report)
    for index, vrf in enumerate(config.vrfs):
        if not vrf.attach:
            message = "the VRF has no attachment: no customer packet can enter or leave it"
            report.warn(("vrf", index), message, 'add attach = [{ tun = "…" }]')


def _check_shared_links(placed: list[_Placed], report: Report) -> None:
    """Only the topmost label tells apart whose a packet is: each needs labels of its own."""
    links: dict[tuple[object, ...], list[_Placed]] = {}
    for attach, path in placed:
        if attach.labelled is not None:
            links.setdefault(attach.link, []).append((attach, path))
    for sharing in links.values():
        if len(sharing) == 1:
            continue
        taken: list[tuple[int, int, str]] = []
        for attach, path in sharing:
            side = attach.labelled or LabelledConfig()
            others = ", ".join(quoted(one.name) for one, _ in sharing if one is not attach)
            if not side.local_labels:
                message = f"{quoted(attach.name)} shares its link with {others}: only labels tell them apart"
                report.error(path, message, "add local_labels to each of them")
            if side.next_hop != (sharing[0][0].labelled or side).next_hop:
                message = f"{quoted(attach.name)} has another next hop than {others} on the same link"
                report.error((*path, "next_hop"), message, "a link leads to one router")
            for low, high in side.local_labels:
                other = next((name for first, last, name in taken if low <= last and first <= high), None)
                if other is not None and other != attach.name:
                    message = f"{low}-{high} meets the labels of {quoted(other)} on the same link"
                    report.error((*path, "local_labels"), message, "let a label name one VRF")
                taken.append((low, high, attach.name))


def _check_labels(config: Config, report: Report, side: LabelledConfig, path: Path) -> None:
    """What a peer has, or may get, never comes in clear: the sets must not meet (RFC 4023 8.1)."""
    for low, high in side.local_labels:
        for first, last, what in _labels_of_peers(config):
            if low <= last and first <= high:
                message = f"{low}-{high} meets {what}, whose packets come out of ESP only"
                report.error(
                    (*path, "local_labels"), message, "use other labels, or move endpoint.label_range"
                )
                return


def _labels_of_peers(config: Config) -> Iterator[tuple[int, int, str]]:
    first, last = config.endpoint.label_range
    yield first, last, f"endpoint.label_range {first}-{last}"
    for peer in config.peers:
        for vrf in peer.vrfs:
            for labels in vrf.labels:
                yield labels.local, labels.local, f"the local label {labels.local} of {quoted(peer.name)}"


def _check_tunnel(
    config: Config, report: Report, attach: AttachConfig, side: LabelledConfig, path: Path
) -> None:
    """Where the inside is reached through the same table as the peers, a source address alone proves little."""
    if side.tunnel is None or side.device is not None:
        return
    door = config.endpoint.front_door
    if attach.netns == (door.netns if door else None):
        message = f"whoever on the underlay forges the source {side.tunnel.peer} sends as the inner router"
        report.warn((*path, "tunnel"), message, "add device, or a netns of its own")


def _check_loops(config: Config, report: Report) -> None:
    """A prefix that holds a peer's own address would lead ESP into the tunnel that it is to make."""
    door = config.endpoint.front_door
    if door is not None and door.netns is None:
        return  # a mark or a device: the underlay has a table of its own
    underlay = door.netns if door is not None else None
    shared = {
        vrf.name
        for vrf in config.vrfs
        if any(one.kind is AttachmentKind.TUN and one.netns == underlay for one in vrf.attach)
    }
    addresses = [ip_address(one) for peer in config.peers for one in peer.addresses if one != ANY_ADDRESS]
    for index, peer in enumerate(config.peers):
        for position, granted in enumerate(peer.vrfs):
            for prefix in granted.accept if granted.name in shared else ():
                if any(address in prefix for address in addresses if address.version == prefix.version):
                    message = (
                        f"{prefix} holds the address of a peer, and its routes are where the underlay is"
                    )
                    remedy = "give the VRF's tun a netns, or the front door one, or a mark"
                    report.warn(("peer", index, "vrf", position, "accept"), message, remedy)
