"""The attachments of a `[[vrf]]`, from TOML tables to values, each by itself.

Knows nothing of files, nor of what other attachments say. Placeholders stand in for what was reported.
"""

import re

from endpoint.config.model import AddressPair, AttachConfig, AttachmentKind, LabelledConfig
from endpoint.config.problems import BadValue, quoted
from endpoint.config.table import Table, kind_of
from endpoint.config.values import (
    parse_address,
    parse_interface,
    parse_interface_address,
    parse_label,
    parse_label_range,
    parse_netns,
    parse_prefix,
    text_of,
)
from mpls.encapsulation import NO_GRE_OPTIONS, GreOptions
from mpls.labels import FIRST_ORDINARY_LABEL
from mpls.vrf import Labels

_LABELLED = (AttachmentKind.MPLS, AttachmentKind.MPLS_IN_IP, AttachmentKind.MPLS_IN_GRE)
_ONLY_LABELLED = ("labels", "local_labels", "peer_label", "device", "next_hop", "tunnel", "gre")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)


def read_attachment(table: Table) -> AttachConfig:
    kinds = [kind.value for kind in AttachmentKind]
    chosen = table.one_of(kinds)
    names = {kind: table.value(kind, parse_interface, "") for kind in kinds}
    kind = AttachmentKind(chosen or AttachmentKind.MEMORY.value)
    attachment = AttachConfig(
        kind=kind,
        name=names[kind.value],
        netns=table.value("netns", parse_netns, None),
        address=table.unique("address", parse_interface_address) or (),
        mtu=table.value("mtu", _mtu, None),
        prefixes=table.unique("prefixes", parse_prefix) or (),
        labelled=_read_labelled(table, kind, names[kind.value]),
    )
    if attachment.netns and chosen == AttachmentKind.MEMORY.value:
        table.error("netns", "means nothing for a memory attachment", "leave it away")
    if attachment.mtu and attachment.labelled:
        table.error("mtu", "belongs to the interface, which mplsec does not make", "set it there")
    table.close()
    return attachment


def _read_labelled(table: Table, kind: AttachmentKind, name: str) -> LabelledConfig | None:
    """Each key of its own; those of the other kinds are reported."""
    if kind not in _LABELLED:
        for key in _ONLY_LABELLED:
            if key in table:
                table.value(key, lambda value: value, None)
                kinds = ", ".join(one.value for one in _LABELLED)
                table.error(key, f"means nothing for {kind.value}", f"use it with {kinds}")
        return None
    is_ethernet = kind is AttachmentKind.MPLS
    device = table.value("device", parse_interface, name if is_ethernet else None)
    if "labels" not in table:
        table.error("labels", "is missing", 'add labels = "pop" (they end here) or "keep" (they go on)')
    side = LabelledConfig(
        labels=_labels(table),
        local_labels=_ranges(table),
        peer_label=table.value("peer_label", parse_label, None),
        device=device,
        next_hop=table.value("next_hop", _next_hop, ""),
        tunnel=_read_tunnel(table),
        gre=read_gre(table),
    )
    if is_ethernet and "next_hop" not in table:
        table.error("next_hop", "is missing", "add the router's address, IP or MAC")
    for key, belongs in (("next_hop", is_ethernet), ("tunnel", not is_ethernet)):
        if key in table and not belongs:
            table.error(key, f"means nothing for {kind.value}", "leave it away")
    if not is_ethernet and "tunnel" not in table:
        table.error("tunnel", "is missing", 'add tunnel = { local = "10.0.0.1", peer = "10.0.0.2" }')
    if "gre" in table and kind is not AttachmentKind.MPLS_IN_GRE:
        table.error("gre", f"means nothing for {kind.value}", "leave it away")
    return side


def _labels(table: Table) -> Labels:
    labels = table.choice("labels", Labels, Labels.POP)
    if labels is Labels.NONE:
        table.error("labels", '"none" is what other attachments have', 'write "pop" or "keep"')
    return labels


def _ranges(table: Table) -> tuple[tuple[int, int], ...]:
    ranges = tuple(sorted(table.some("local_labels", parse_label_range) or ()))
    if ranges and ranges[0][0] < FIRST_ORDINARY_LABEL:
        message = f"{ranges[0][0]} is a special-purpose label, which names no VRF"
        table.error("local_labels", message, f"begin at {FIRST_ORDINARY_LABEL}")
    return ranges


def _read_tunnel(attachment: Table) -> AddressPair | None:
    table = attachment.table("tunnel")
    if table is None:
        return None
    local, peer = table.value("local", parse_address, None), table.value("peer", parse_address, None)
    for key, address in (("local", local), ("peer", peer)):
        if address is None and key not in table:
            table.error(key, "is missing", f'add {key} = "10.0.0.1"')
    table.close()
    if local is None or peer is None:
        return None
    if local.version != peer.version:
        table.error("peer", "is of another IP version than local", "use two IPv4 or two IPv6 addresses")
    return AddressPair(str(local), str(peer))


def read_gre(of: Table) -> GreOptions:
    """`gre = { key, checksum, sequence }` of an attachment or a peer: the options that are taken."""
    table = of.table("gre")
    if table is None:
        return NO_GRE_OPTIONS
    key = table.integer("key", -1, 0, 0xFFFFFFFF)
    options = GreOptions(
        checksum=table.boolean("checksum", False),
        key=None if key < 0 else key,
        sequence=table.boolean("sequence", False),
    )
    table.close()
    return options


def _next_hop(value: object) -> str:
    text = text_of(value, "a next hop")
    if _MAC.fullmatch(text):
        if int(text[:2], 16) & 1:
            raise BadValue(f"{quoted(text)} is the address of a group", "use that of the router's interface")
        return text.lower()
    return str(parse_address(value))


def _mtu(value: object) -> int | None:
    """Octets, or None for "auto"."""
    if value == "auto":
        return None
    if type(value) is int and 576 <= value <= 65535:
        return value
    said = quoted(value) if type(value) in (int, str) else kind_of(value)
    raise BadValue(f"{said} is no MTU", 'use "auto", or 576 to 65535')
