"""`[[peer]]` and what belongs to it, from TOML tables to values, each by itself.

Knows nothing of files: secrets come from a source handed in. Placeholders stand in for what was reported.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from endpoint.config.model import (
    DEFAULT_LIVENESS_S,
    AddressPair,
    Dummies,
    DummiesWhen,
    LifetimeConfig,
    PathMtu,
    PeerConfig,
    PeerVrfConfig,
    Selectors,
    Start,
    StaticLabels,
    Udp,
    VrfConfig,
)
from endpoint.config.problems import BadValue, did_you_mean, quoted
from endpoint.config.read import addresses_of, class_id_of, name_of, peer_identity_of, required, vrf_id_of
from endpoint.config.read_attach import read_gre
from endpoint.config.read_auth import read_auth
from endpoint.config.secret import SecretSource
from endpoint.config.table import Table
from endpoint.config.values import (
    LOWEST_LABEL,
    parse_address,
    parse_duration,
    parse_label,
    parse_name,
    parse_octets,
    parse_packets,
    parse_prefix,
    parse_replay_window,
    parse_tfc,
    text_of,
)
from esp.replay import DEFAULT_WINDOW
from ike.config import Mode, RetransmitPolicy
from ike.exchanges.auth_lifetime import SHORTEST_S
from ike.proposals import parse_esp_proposal, parse_ike_proposal
from ike.wire.sa import Proposal
from mpls.encapsulation import Encapsulation
from mpls.fit import Fitting, Fragment, OuterDf
from mpls.identifiers import ClassId, VrfId
from mpls.models import Ecn

DEFAULT_IKE = "aes256gcm16-prfsha384-x25519"
DEFAULT_ESP = "aes256gcm16"
DEFAULT_MAX_CLIENTS, HIGHEST_MAX_CLIENTS = 256, 10_000
MOST_DUMMIES_PER_S = 1000


def read_peer(table: Table, vrfs: Mapping[str, VrfConfig], secrets: SecretSource) -> PeerConfig:
    selectors = table.choice("selectors", Selectors, Selectors.NATIVE)
    ike, ike_text = _proposals(table, "ike", parse_ike_proposal, DEFAULT_IKE)
    esp, esp_text = _proposals(table, "esp", parse_esp_proposal, DEFAULT_ESP)
    auth, peer_auth = read_auth(table, secrets)
    mode = table.choice("mode", Mode, Mode.TRANSPORT)
    peer = PeerConfig(
        name=name_of(table),
        identity=peer_identity_of(table),
        addresses=addresses_of(table, allow_any=True),
        auth=auth,
        peer_auth=peer_auth,
        ike=ike,
        esp=esp,
        ike_text=ike_text,
        esp_text=esp_text,
        vrfs=tuple(_read_peer_vrf(one, vrfs, selectors) for one in table.tables("vrf", "[[peer.vrf]]")),
        port=table.integer("port", 500, 1, 65535),
        selectors=selectors,
        mode=mode,
        encapsulation=table.value("encapsulation", _encapsulation, Encapsulation.MPLS_IN_IP),
        udp=table.choice("udp", Udp, Udp.AUTO),
        start=table.choice("start", Start, Start.TRAFFIC),
        strict_child=table.boolean("strict_child", False),
        seclabel_in_auth=table.boolean("seclabel_in_auth", False),
        gre=read_gre(table),
        link_mtu=table.integer("link_mtu", 1500, 576, 65535),
        access_overhead=table.integer("access_overhead", 0, 0, 256),
        probes_path=table.choice("path_mtu", PathMtu, PathMtu.FIXED) is PathMtu.PROBE,
        path_mtu_floor=table.integer("path_mtu_floor", 0, 256, 65535) or None,
        tfc_octets=table.value("tfc", parse_tfc, 0),
        replay_window=table.value("replay_window", parse_replay_window, DEFAULT_WINDOW),
        dummies=_read_dummies(table),
        tells_mismatch=table.boolean("invalid_selectors", False),
        ecn=table.choice("ecn", Ecn, Ecn.OFF),
        fitting=Fitting(
            clamp_mss=table.boolean("clamp_mss", True),
            fragment=table.choice("fragment", Fragment, Fragment.NEVER),
            outer_df=table.choice("outer_df", OuterDf, OuterDf.SET),
        ),
        fragmentation=table.boolean("fragmentation", True),
        fragment_size=table.integer("fragment_size", 1280, 576, 65535),
        lifetime=_read_lifetime(table),
        liveness_s=table.value("liveness", parse_duration, DEFAULT_LIVENESS_S),
        retransmit_tries=table.integer("retransmit_tries", RetransmitPolicy().tries, 2, 20),
        pool=table.value("pool", parse_name, None),
        virtual_ip=table.boolean("virtual_ip", False),
        mobike=table.boolean("mobike", mode is Mode.TUNNEL),
        max_clients=table.integer("max_clients", 0, 1, HIGHEST_MAX_CLIENTS),
    )
    if not peer.max_clients:
        peer = replace(peer, max_clients=1 if peer.why_not_shared else DEFAULT_MAX_CLIENTS)
    table.close()
    return peer


def _read_peer_vrf(table: Table, vrfs: Mapping[str, VrfConfig], selectors: Selectors) -> PeerVrfConfig:
    """What is not given comes from the VRF: its own id, all its classes."""
    name = name_of(table)
    named = f"name:{name or '-'}"
    ours = vrfs.get(name) or VrfConfig(name, VrfId.parse_text(named), named)
    if name and name not in vrfs:
        table.error(
            "name", f"there is no VRF {quoted(name)}", did_you_mean(name, vrfs) or "add it as [[vrf]]"
        )
    classes = table.some("classes", class_id_of) or ours.classes
    for class_id in classes:
        if name in vrfs and class_id not in ours.classes:
            message = f"VRF {quoted(name)} has no class {quoted(str(class_id))}"
            table.error("classes", message, did_you_mean(str(class_id), map(str, ours.classes)))
    labels = _read_labels(table, classes)
    if labels and selectors is Selectors.NATIVE:
        message = 'is not used: with selectors = "native" labels are negotiated'
        table.report.warn(table.at("labels"), message, "leave it away, or set selectors to what the peer can")
        labels = ()
    peer_id, peer_id_text = vrf_id_of(table, "peer_id", ours.id_text)
    vrf = PeerVrfConfig(
        name=name,
        peer_id=peer_id,
        peer_id_text=peer_id_text,
        classes=classes,
        accept=table.unique("accept", parse_prefix) or (),
        labels=labels,
        addresses=_read_address_pair(table),
        route_based=table.boolean("route_based", False),
        routes=table.unique("routes", parse_prefix) or (),
    )
    table.close()
    return vrf


def _read_dummies(peer: Table) -> Dummies | None:
    table = peer.table("dummies")
    if table is None:
        return None
    dummies = Dummies(
        table.integer("per_s", 1, 1, MOST_DUMMIES_PER_S), table.choice("when", DummiesWhen, DummiesWhen.IDLE)
    )
    table.close()
    return dummies


def _read_lifetime(peer: Table) -> LifetimeConfig:
    """Of a pair that is given by half: the hard lifetime lies a tenth above the soft one."""
    default = LifetimeConfig()
    table = peer.table("lifetime")
    if table is None:
        return default

    def pair(kind: str, rekey_default: float | None) -> tuple[float | None, float | None]:
        rekey = table.value(f"{kind}_rekey", parse_duration, rekey_default)
        hard = table.value(f"{kind}_hard", parse_duration, None if rekey is None else rekey * 1.1)
        if rekey is not None and hard is not None and hard <= rekey:
            remedy = f"make it longer than {kind}_rekey, {rekey:g} s"
            table.error(f"{kind}_hard", f"{hard:g} s end before the rekey begins", remedy)
        return rekey, hard

    def volume(unit: str, parse: Callable[[object], int | None]) -> tuple[int | None, int | None]:
        key = f"child_hard_{unit}"
        hard = table.value(key, parse, None)
        rekey = table.value(f"child_rekey_{unit}", parse, hard and hard * 10 // 11)
        if key not in table:
            hard = rekey and rekey * 11 // 10
        if rekey is not None and hard is not None and hard <= rekey:
            table.error(key, f"{hard} {unit} end before the rekey begins", f"allow more than {rekey} {unit}")
        return rekey, hard

    child, ike = pair("child", default.child_rekey_s), pair("ike", default.ike_rekey_s)
    octets, packets = volume("octets", parse_octets), volume("packets", parse_packets)
    reauth_s = table.value("reauth", _reauth, None)
    table.close()
    return LifetimeConfig(*child, *ike, *octets, *packets, reauth_s)


def _reauth(value: object) -> float | None:
    """RFC 4478 3 calls less than 5 minutes unreasonable; less than 1 a peer does not have to bear."""
    seconds = parse_duration(value)
    if seconds is not None and seconds < SHORTEST_S:
        raise BadValue(f"{seconds:g} s are too short", f"use {SHORTEST_S:g} s or more")
    return seconds


def _read_labels(peer_vrf: Table, classes: tuple[ClassId, ...]) -> tuple[StaticLabels, ...]:
    """`{ local, peer, routes }` for the first class, or `{ gold = { … }, standard = { … } }`."""
    table = peer_vrf.table("labels")
    if table is None:
        return ()
    if not table.holds_only_tables():
        return (_read_static(table, classes[0]),)
    found: list[StaticLabels] = []
    for key in table.keys():  # noqa: SIM118 - a Table is no mapping
        inner = table.table(key)
        class_id = table.checked(key, class_id_of)
        if class_id is not None and class_id not in classes:
            remedy = did_you_mean(key, map(str, classes))
            table.error(key, f"class {quoted(key)} is not one of classes", remedy)
        elif class_id is not None and inner is not None:
            found.append(_read_static(inner, class_id))
    return tuple(found)


def _read_static(table: Table, class_id: ClassId) -> StaticLabels:
    labels = StaticLabels(
        class_id=class_id,
        local=required(table, "local", parse_label, 0, example=str(LOWEST_LABEL + 85)),
        peer=required(table, "peer", parse_label, 0, example=str(LOWEST_LABEL + 86)),
        routes=table.unique("routes", parse_prefix) or (),
    )
    table.close()
    return labels


def _read_address_pair(peer_vrf: Table) -> AddressPair | None:
    table = peer_vrf.table("addresses")
    if table is None:
        return None
    local = required(table, "local", parse_address, None, example='"192.0.2.1"')
    peer = required(table, "peer", parse_address, None, example='"192.0.2.2"')
    table.close()
    if local is None or peer is None:
        return None
    if local.version != peer.version:
        table.error("peer", "is of another IP version than local", "use two IPv4 or two IPv6 addresses")
    return AddressPair(str(local), str(peer))


def _proposals(
    table: Table, key: str, parse: Callable[[str], Proposal], default: str
) -> tuple[tuple[Proposal, ...], tuple[str, ...]]:
    def parse_item(value: object) -> tuple[Proposal, str]:
        text = text_of(value, "a proposal")
        try:
            return parse(text), text
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            remedy = _proposal_remedy(text, hint) or f"write it like {quoted(default)}"
            raise BadValue(message, remedy) from None

    chosen = table.some(key, parse_item) or ((parse(default), default),)
    return tuple(proposal for proposal, _ in chosen), tuple(text for _, text in chosen)


def _proposal_remedy(text: str, hint: str) -> str:
    """What to write instead; where the hint lists the known words, the nearest to the unknown one."""
    if "known" not in hint:
        return hint
    known = re.findall(r"[a-z0-9_]+", hint)
    unknown = [word for word in text.lower().split("-") if word not in known]
    return next((remedy for word in unknown if "?" in (remedy := did_you_mean(word, known))), hint)


def _encapsulation(value: object) -> Encapsulation:
    text = text_of(value, "an encapsulation")
    try:
        return Encapsulation.parse(text)
    except ValueError:
        raise BadValue(f"unknown value {quoted(text)}", did_you_mean(text, map(str, Encapsulation))) from None
