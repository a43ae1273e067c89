"""What `mplsec status` tells: a snapshot of a node as one JSON document, and the same as text for a person.

Must not know the node's insides beyond what it reads; no secret is in it.
"""

from __future__ import annotations

import io
from collections import defaultdict
from typing import Any

from rich.console import Console
from rich.table import Table

from endpoint.children import Child
from endpoint.node import Node
from esp.sa import UNLIMITED
from ike import Configuration, SessionSnapshot
from ike.numbers import NotifyType, name_of
from ike.proposals import format_proposal

__all__ = ["render_status", "snapshot"]


def snapshot(node: Node, now: float, socket_drops: dict[str, int]) -> dict[str, Any]:
    """Peers with their sessions and children, labels, routes and counters."""
    return {
        "identity": node.config.endpoint.identity,
        "addresses": list(node.config.endpoint.addresses),
        "peers": _peers(node, now),
        "labels": [
            {"peer": node.session_peer(exchange.session), "vrf": vrf, "class": label_class, "label": label}
            for exchange in node.labels
            for vrf, label_class, label in exchange.labels_given()
        ],
        "pools": [
            {
                "name": name,
                "families": {
                    f"ipv{version}": {"in_use": in_use, "size": size}
                    for version, (in_use, size) in pool.usage().items()
                },
            }
            for name, pool in node.addresses.pools.items()
        ],
        "routes": [
            {
                "vrf": vrf,
                "class": label_class,
                "prefix": str(route.prefix),
                "peer": route.peer,
                "label": route.label,
                "source": route.source,
            }
            for vrf, label_class, route in node.table.routes()
        ],
        "counters": {
            "delivered": node.dataplane.delivered,
            "ecn_alarms": node.dataplane.ecn_alarms,
            "invalid_selectors": {"sent": node.mismatches.sent, "received": node.mismatches.received},
            "drops": dict(sorted(node.dataplane.drops.items())),
            "ike": {reason.value: count for reason, count in sorted(node.engine.counters.items())},
            "sockets": dict(sorted(socket_drops.items())),
        },
    }


def _peers(node: Node, now: float) -> list[dict[str, Any]]:
    """Each with its sessions and children; the clients of an entry follow it."""
    sessions: defaultdict[str, list[SessionSnapshot]] = defaultdict(list)
    children: defaultdict[str, list[Child]] = defaultdict(list)
    for session in node.engine.sessions():
        sessions[node.session_peer(session.session) or session.connection].append(session)
    for child in node.children:
        children[child.peer].append(child)
    names = (
        name
        for entry, plan in node.plans.items()
        if plan.entry is None
        for name in (entry, *node.clients.names(entry))
    )
    return [_peer(node, name, sessions[name], children[name], now) for name in names]


def _peer(
    node: Node, name: str, sessions: list[SessionSnapshot], children: list[Child], now: float
) -> dict[str, Any]:
    state = node.starter.peers[name]
    peer, entry = state.plan.peer, state.plan.entry
    times = {
        child.spi_in: at for one in sessions for child, at in zip(one.children, one.child_times, strict=True)
    }
    return {
        "name": name,
        "identity": peer.identity,
        "entry": entry,
        "clients": (
            {"now": len(node.clients.names(name)), "max": peer.max_clients}
            if entry is None and peer.is_shared
            else None
        ),
        "selectors": peer.selectors.value,
        "path": node.paths.state(name),
        "sessions": [
            {
                "state": str(one.state).lower(),
                "peer_identity": one.peer_id.text() if one.peer_id else None,
                "spi_i": one.spi_i.hex(),
                "spi_r": one.spi_r.hex(),
                "role": "initiator" if one.is_initiator else "responder",
                "path": str(one.path),
                "proposal": format_proposal(one.proposal) if one.proposal else None,
                "native": one.extension_data is not None,
                "assigned": _configuration(one.assigned),
                "leased": _configuration(one.leased),
                "age_s": None if one.established_at is None else round(now - one.established_at, 1),
                "rekey_in_s": _until(one.rekey_at, now),
                "expires_in_s": _until(one.expires_at, now),
            }
            for one in sessions
        ],
        "children": [
            {
                "name": child.kind.name,
                "spi_in": child.sa.spi_in.hex(),
                "spi_out": child.sa.spi_out.hex(),
                "mode": child.sa.mode.value,
                "proposal": format_proposal(child.sa.proposal),
                "udp": child.sa.udp_encapsulation,
                "sending": child.may_send and child.retires_at is None,
                "tunnel_mtu": child.budget.tunnel_mtu,
                "path_mtu": child.budget.path_mtu,
                "tfc_octets": child.tfc_octets,
                "fragmented_in": child.fragmented,
                "budget": dict(child.budget.rows()),
                "local_ts": [str(one) for one in child.sa.local_ts],
                "peer_ts": [str(one) for one in child.sa.peer_ts],
                "packets_in": child.inbound.packets,
                "octets_in": child.inbound.octets,
                "packets_out": child.outbound.packets,
                "octets_out": child.outbound.octets,
                "sequence_out": child.outbound.sequence,
                "dummies_out": child.dummies_out,
                **_remaining(child, *times.get(child.sa.spi_in, (None, None)), now),
                "drops": dict(sorted(child.drops.items())),
            }
            for child in children
        ],
        "down": [
            {
                "child": kind,
                "reason": _reason(one.notify_type, one.detail),
                "retry_in_s": round(max(0.0, one.back_off.not_before - now), 1),
            }
            for kind, one in state.children.items()
            if one.is_down
        ],
    }


def _remaining(child: Child, rekey_at: float | None, expires_at: float | None, now: float) -> dict[str, Any]:
    """What is left until the child is rekeyed and until it ends; None: without end, or replaced already."""
    soft, outbound = child.soft, child.outbound
    packets, octets = (
        max(outbound.sequence, child.inbound.packets),
        max(outbound.octets, child.inbound.octets),
    )
    return {
        "rekey_in_s": _until(rekey_at, now),
        "rekey_in_packets": _left(soft.packets, packets),
        "rekey_in_octets": _left(soft.octets, octets),
        "expires_in_s": _until(expires_at, now),
        "expires_in_packets": _left(min(outbound.hard_packets, outbound.last_sequence), packets),
        "expires_in_octets": _left(outbound.hard_octets, octets),
    }


def _configuration(one: Configuration | None) -> dict[str, list[str]] | None:
    """What one end has given the other."""
    if one is None:
        return None
    fields = {"addresses": one.addresses, "dns": one.dns, "domains": one.domains, "subnets": one.subnets}
    return {name: [str(value) for value in values] for name, values in fields.items()}


def _until(at: float | None, now: float) -> float | None:
    return None if at is None else round(max(0.0, at - now), 1)


def _left(end: int, count: int) -> int | None:
    return None if end >= UNLIMITED - 1 else max(0, end - count)


def _reason(notify_type: int | None, detail: str) -> str:
    name = "" if notify_type is None else name_of(NotifyType, notify_type)
    return " ".join(filter(None, (name, f"({detail})" if name and detail else detail)))


def _given(session: dict[str, Any]) -> str:
    texts = []
    for key, words in (("assigned", "our address"), ("leased", "its address")):
        if session[key] is not None:
            texts.append(f", {words} {' '.join(session[key]['addresses'])}")
    return "".join(texts)


def render_status(document: dict[str, Any]) -> str:
    """The document as text of at most 120 columns."""
    # Names may be those that clients give themselves: nothing in them is markup.
    console = Console(file=io.StringIO(), width=120, highlight=False, markup=False)
    console.print(f"{document['identity']} on {', '.join(document['addresses'])}")
    for peer in document["peers"]:
        console.print(f"\npeer {peer['name']} ({peer['identity']}, {peer['selectors']})")
        if peer["clients"] is not None:
            console.print(f"  {peer['clients']['now']} clients of at most {peer['clients']['max']}")
        elif not peer["sessions"]:
            console.print("  no IKE SA")
        for session in peer["sessions"]:
            console.print(
                f"  IKE SA {session['spi_i']}_i {session['spi_r']}_r {session['state']} as {session['role']},"
                f" {session['path']}, {session['proposal']}{', native' if session['native'] else ''}"
                + _given(session)
                + ("" if session["rekey_in_s"] is None else f", rekey in {session['rekey_in_s']:.0f} s")
            )
        if peer["children"]:
            table = Table(
                "child",
                "SPI in",
                "SPI out",
                "mode",
                "in",
                "out",
                "rekey in",
                "drops",
                box=None,
                padding=(0, 2),
            )
            for child in peer["children"]:
                drops = " ".join(f"{reason}={count}" for reason, count in child["drops"].items())
                table.add_row(
                    child["name"] + ("" if child["sending"] else " *"),
                    child["spi_in"],
                    child["spi_out"],
                    child["mode"],
                    str(child["packets_in"]),
                    str(child["packets_out"]),
                    "-" if child["rekey_in_s"] is None else f"{child['rekey_in_s']:.0f} s",
                    drops or "-",
                )
            console.print(table)
        for down in peer["down"]:
            console.print(
                f"  child {down['child']} is down: {down['reason']}, again in {down['retry_in_s']:.0f} s"
            )
    if document["routes"]:
        console.print()
        table = Table("VRF", "class", "prefix", "peer", "label", "source", box=None, padding=(0, 2))
        for route in document["routes"]:
            label = "-" if route["label"] is None else str(route["label"])
            values = (route["vrf"], route["class"], route["prefix"], route["peer"], label, route["source"])
            table.add_row(*map(str, values))
        console.print(table)
    console.print(f"\ndelivered {document['counters']['delivered']} packets")
    for group in ("drops", "ike", "sockets"):
        if document["counters"][group]:
            counts = ", ".join(f"{reason} {count}" for reason, count in document["counters"][group].items())
            console.print(f"{group}: {counts}")
    file = console.file
    return file.getvalue().rstrip() if isinstance(file, io.StringIO) else ""
