"""From TOML tables to the configuration's values, section by section, each by itself.

Knows nothing of files. Placeholders stand in for what was reported: what comes of a document with problems
is only good for finding more of them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from endpoint.config.model import (
    ANY_ADDRESS,
    DEFAULT_LABEL_RANGE,
    DEFAULT_STATE_DIR,
    EndpointConfig,
    FlowLabel,
    FrontDoor,
    LabelsPer,
    VrfConfig,
)
from endpoint.config.problems import BadValue, quoted
from endpoint.config.read_attach import read_attachment
from endpoint.config.table import Table
from endpoint.config.values import (
    parse_address,
    parse_dscp,
    parse_interface,
    parse_label,
    parse_name,
    parse_netns,
    parse_outer_dscp,
    parse_prefix,
    parse_tc,
    text_of,
)
from ike.config import EngineSettings
from ike.identities import parse_peer_name
from ike.wire.identity import Identity
from mpls.classes import LabelClass
from mpls.identifiers import ClassId, VrfId, parse_class
from mpls.models import QosModel, TtlModel
from mpls.vrf import Urpf

HIGHEST_WINDOW = 64
T = TypeVar("T")
D = TypeVar("D")


def read_endpoint(root: Table) -> EndpointConfig:
    table = root.table("endpoint")
    if table is None:
        if "endpoint" not in root:
            root.error("endpoint", "is missing", "add [endpoint] with identity and addresses")
        return EndpointConfig("", ())
    endpoint = EndpointConfig(
        identity=identity_of(table),
        addresses=addresses_of(table, allow_any=False),
        front_door=_read_front_door(table),
        state_dir=Path(table.text("state_dir", str(DEFAULT_STATE_DIR))),
        ike_port=table.integer("ike_port", 500, 0, 65535),
        nat_port=table.integer("nat_port", 4500, 1, 65535),
        label_range=_read_label_range(table),
        flow_label=table.choice("flow_label", FlowLabel, FlowLabel.SYSTEM),
        window=table.integer("window", EngineSettings().window, 1, HIGHEST_WINDOW),
    )
    if endpoint.flow_label is not FlowLabel.SYSTEM and not any(":" in one for one in endpoint.addresses):
        table.error("flow_label", "is of IPv6, and none of addresses is", "leave it away")
    if endpoint.ike_port == endpoint.nat_port:
        table.error("ike_port", "is the same as nat_port", "write ike_port = 0 to open nat_port only")
    table.close()
    return endpoint


def read_vrf(table: Table) -> VrfConfig:
    name = name_of(table)
    vrf_id, id_text = vrf_id_of(table, "id", f"name:{name or '-'}")
    vrf = VrfConfig(
        name=name,
        id=vrf_id,
        id_text=id_text,
        classes=table.some("classes", class_id_of) or (0,),
        urpf=table.choice("urpf", Urpf, Urpf.STRICT),
        attach=tuple(read_attachment(one) for one in table.tables("attach", 'attach = [{ tun = "red0" }]')),
        announce=table.unique("announce", parse_prefix) or (),
        labels_per=table.choice("labels_per", LabelsPer, LabelsPer.VRF),
        ttl_model=table.choice("ttl_model", TtlModel, TtlModel.PIPE),
    )
    table.close()
    return vrf


def read_class(table: Table) -> LabelClass:
    label_class = LabelClass(
        id=required(table, "name", class_id_of, "", example='"gold"'),
        dscp=frozenset(table.some("dscp", parse_dscp) or ()),
        tc=tuple(dict.fromkeys(table.some("tc", parse_tc) or ())),
        outer_dscp=table.value("outer_dscp", parse_outer_dscp, 0),
        qos_model=table.choice("qos_model", QosModel, QosModel.PIPE),
    )
    table.close()
    return label_class


def _read_front_door(endpoint: Table) -> FrontDoor | None:
    table = endpoint.table("front_door")
    if table is None:
        return None
    table.one_of(("netns", "device", "mark"))
    door = FrontDoor(
        netns=table.value("netns", parse_netns, None),
        device=table.value("device", parse_interface, None),
        mark=table.integer("mark", 0, 1, 0xFFFFFFFF) or None,
    )
    table.close()
    return door


def _read_label_range(endpoint: Table) -> tuple[int, int]:
    def parse(value: object) -> tuple[int, int]:
        if not isinstance(value, list) or len(value) != 2:
            raise BadValue("must be a list of two labels", "write [100000, 199999]")
        first, last = parse_label(value[0]), parse_label(value[1])
        if first > last:
            raise BadValue("has the higher label first", f"write [{last}, {first}]")
        return first, last

    return endpoint.value("label_range", parse, DEFAULT_LABEL_RANGE)


def addresses_of(table: Table, *, allow_any: bool) -> tuple[str, ...]:
    def parse(value: object) -> str:
        if value == ANY_ADDRESS and allow_any:
            return ANY_ADDRESS
        return str(parse_address(value))

    example = '["192.0.2.1"]' + (', or ["any"] for a peer that calls us' if allow_any else "")
    addresses = table.some("addresses", parse)
    if "addresses" not in table:
        table.error("addresses", "are missing", f"add addresses = {example}")
    elif addresses and ANY_ADDRESS in addresses and len(addresses) > 1:
        table.error("addresses", '"any" stands beside other addresses', 'write either ["any"] or addresses')
        return tuple(one for one in addresses if one != ANY_ADDRESS)
    return addresses or ()


def identity_of(table: Table) -> str:
    """The text of one identity."""
    forms = 'a name, an address, user@domain, "dn:…" or "keyid:…"'

    def parse(text: str) -> None:
        if Identity.parse_text(text) == Identity.null():
            raise ValueError("it names nobody")

    return _identity_text(table, parse, forms)


def peer_identity_of(table: Table) -> str:
    """The text of one identity, or of what stands for several, or "null"."""
    forms = 'a name, an address, user@domain, "dn:…", "keyid:…", *.domain, *@domain or "null"'
    return _identity_text(table, parse_peer_name, forms)


def _identity_text(table: Table, parse: Callable[[str], object], forms: str) -> str:
    text = table.text("identity", example="pe1.example")
    try:
        if text:
            parse(text)
    except ValueError as error:
        table.error("identity", f"{quoted(text)} is no identity: {error}", f"use {forms}")
        return ""
    return text


def name_of(table: Table) -> str:
    return required(table, "name", parse_name, "", example='"red"')


def vrf_id_of(table: Table, key: str, default: str) -> tuple[VrfId, str]:
    """The id and its text, which a name's hash does not give back."""

    def parse(value: object) -> tuple[VrfId, str]:
        text = text_of(value, "a VRF id")
        try:
            return VrfId.parse_text(text), text
        except ValueError:
            remedy = 'use "rd:65000:100", "rd:192.0.2.1:100", "vpn-id:00005e:7" or "name:red"'
            raise BadValue(f"{quoted(text)} is no VRF id", remedy) from None

    return table.value(key, parse, parse(default))


def class_id_of(value: object) -> ClassId:
    """A class by name or number; digits in quotes are the number."""
    try:
        return parse_class(str(value) if type(value) is int else text_of(value, "a class"))
    except BadValue:
        raise
    except ValueError:
        remedy = "use 0 to 65535, or 1 to 64 of A-Z a-z 0-9 . _ : -"
        raise BadValue(f"{quoted(value)} is no class", remedy) from None


def required(table: Table, key: str, parse: Callable[[object], T], default: D, *, example: str) -> T | D:
    if key not in table:
        table.error(key, "is missing", f"add {key} = {example}")
    return table.value(key, parse, default)
