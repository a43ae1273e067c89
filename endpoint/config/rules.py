"""`[[crypto_map]]`: rules of one's own in the crypto map's terms, checked against VRFs, classes and peers.

Knows nothing of packets, nor of the rules that VRFs and classes compile into.
"""

from collections.abc import Callable, Iterable
from enum import Enum

from endpoint.config.model import Config, VrfConfig
from endpoint.config.problems import BadValue, did_you_mean, quoted
from endpoint.config.read import class_id_of
from endpoint.config.table import Table
from endpoint.config.values import (
    parse_dscp,
    parse_interface,
    parse_label_range,
    parse_name,
    parse_port_range,
    parse_prefix,
    parse_protocol,
    parse_tc,
)
from mpls.crypto_map import Action, Bypass, Discard, Match, Protect, Rule
from mpls.identifiers import ClassId
from mpls.labels import MAX_ENTRIES

_WITH_PORTS = (6, 17, 132)  # TCP, UDP, SCTP


class _Action(Enum):
    PROTECT = "protect"
    BYPASS = "bypass"
    DISCARD = "discard"


def read_rule(table: Table, config: Config) -> Rule:
    """One rule; what it names must exist, and what it protects must be the VRF's and allowed to the peer."""
    vrf = _known(table, "vrf", parse_name, (vrf.name for vrf in config.vrfs))
    attachments = (attach.name for vrf in config.vrfs for attach in vrf.attach)
    attachment = _known(table, "attachment", parse_interface, attachments)
    protocol = table.value("protocol", parse_protocol, None)
    match = Match(
        attachment=attachment,
        vrf=vrf,
        depth=table.integer("depth", 1, 1, MAX_ENTRIES),
        labels=table.some("labels", parse_label_range),
        tc=_set(table.some("tc", parse_tc)),
        bottom=table.raw("bottom", bool),
        sources=table.some("source", parse_prefix),
        destinations=table.some("destination", parse_prefix),
        protocol=protocol,
        source_ports=_ports(table, "source_ports", protocol),
        destination_ports=_ports(table, "ports", protocol),
        dscp=_set(table.some("dscp", parse_dscp)),
    )
    number = table.path[-1]
    name = table.text("name", f"rule {number + 1}" if isinstance(number, int) else "rule")
    rule = Rule(name, match, _read_action(table, config, match))
    table.close()
    return rule


def _read_action(table: Table, config: Config, match: Match) -> Action:
    action = table.choice("action", _Action, _Action.DISCARD)
    if "action" not in table:
        table.error("action", "is missing", 'add action = "protect", "bypass" or "discard"')
    peer = _known(table, "peer", parse_name, (peer.name for peer in config.peers))
    class_id = table.value("class", class_id_of, None)
    if action is not _Action.PROTECT:
        for key in ("peer", "class"):
            if key in table:
                table.error(key, f"means nothing with {quoted(action.value)}", "leave it away")
        return Bypass() if action is _Action.BYPASS else Discard()
    owner = _owner(table, config, match)
    if owner is None:
        return Discard()
    class_id = _class_of(table, owner, class_id)
    if class_id is None:
        return Discard()
    granted = next((one.vrf(owner.name) for one in config.peers if one.name == peer), None)
    if peer is not None and (granted is None or class_id not in granted.classes):
        message = f"{quoted(peer)} may not use VRF {quoted(owner.name)}, class {quoted(str(class_id))}"
        table.error("peer", message, "add it to its [[peer.vrf]]")
    return Protect(owner.name, class_id, peer)


def _owner(table: Table, config: Config, match: Match) -> VrfConfig | None:
    """The VRF as which a packet is protected: that of the attachment, or the one named."""
    if match.attachment is None:
        if match.vrf is None and "vrf" not in table and "attachment" not in table:
            table.error("action", "a rule that protects needs a VRF", "add vrf or attachment")
        return config.vrf(match.vrf) if match.vrf else None
    owners = [vrf for vrf in config.vrfs if any(attach.name == match.attachment for attach in vrf.attach)]
    owner = next((vrf for vrf in owners if match.vrf in (None, vrf.name)), None)
    if owner is None:
        message = f"attachment {quoted(match.attachment)} belongs to VRF {quoted(owners[0].name)}"
        table.error("vrf", message, f"write vrf = {quoted(owners[0].name)}, or leave one of them away")
    return owner


def _class_of(table: Table, owner: VrfConfig, class_id: ClassId | None) -> ClassId | None:
    classes = [str(one) for one in owner.classes]
    if class_id is None and "class" not in table:
        if len(owner.classes) == 1:
            return owner.classes[0]
        table.error(
            "class", f"is missing: VRF {quoted(owner.name)} has several", f"use one of {', '.join(classes)}"
        )
    elif class_id is not None and class_id not in owner.classes:
        message = f"VRF {quoted(owner.name)} has no class {quoted(str(class_id))}"
        table.error("class", message, did_you_mean(str(class_id), classes))
        return None
    return class_id


def _known(table: Table, key: str, parse: Callable[[object], str], known: Iterable[str]) -> str | None:
    """A name that must be one of `known`; else None, reported."""

    def parse_known(value: object) -> str:
        name, names = parse(value), list(known)
        if name not in names:
            raise BadValue(f"there is no {key} {quoted(name)}", did_you_mean(name, names))
        return name

    return table.value(key, parse_known, None)


def _ports(table: Table, key: str, protocol: int | None) -> tuple[int, int] | None:
    ports = table.value(key, parse_port_range, None)
    if ports is not None and protocol not in _WITH_PORTS:
        table.error(key, "need a protocol that has ports", 'add protocol = "tcp", "udp" or "sctp"')
        return None
    return ports


def _set(values: tuple[int, ...] | None) -> frozenset[int] | None:
    return None if values is None else frozenset(values)
