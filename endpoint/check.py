"""`mplsec check`: the crypto map of a configuration, and where the octets of a full packet go.

Reads the configuration only; it must not look at interfaces, peers or the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from io import StringIO
from ipaddress import ip_address
from typing import TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from endpoint.check_inside import AttachmentRow, attachment_rows, leak_sentences
from endpoint.config import ANY_ADDRESS, Config, LifetimeConfig, PeerConfig, PeerVrfConfig, Problem, Udp
from endpoint.pool import Pool
from endpoint.tables import build_crypto_map
from esp.transforms import Transform, transform_for
from ike.numbers import TransformType
from mpls.crypto_map import Row
from mpls.encapsulation import Mode
from mpls.identifiers import ClassId
from mpls.mtu import Budget, budget

__all__ = ["BudgetRow", "CheckReport", "check_report", "peer_budgets", "render_check"]

_WIDTH_COLUMNS = 100
BudgetColumn: TypeAlias = tuple[str, str, Budget]
"""(path, ESP proposal, budget)"""


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """The octets of a full-size packet of one (VRF, class) toward one peer, over one kind of path.

    `esp` is the proposal that leaves the least, if the peer may choose among several.
    """

    peer: str
    vrf: str
    class_id: ClassId
    underlay: str
    is_udp: bool
    esp: str
    budget: Budget


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All that `check` prints; `dataclasses.asdict` makes it a JSON document."""

    file: str
    warnings: tuple[Problem, ...]
    crypto_map: tuple[Row, ...]
    budgets: tuple[BudgetRow, ...]
    too_large: tuple[str, ...]
    """Attachments whose fixed MTU is more than a peer of their VRF can carry, each a sentence."""
    lifetimes: tuple[tuple[str, LifetimeConfig], ...]
    """Of each peer's SAs."""
    pools: tuple[str, ...]
    """Each a sentence."""
    attachments: tuple[AttachmentRow, ...]
    leaks: tuple[str, ...]


def check_report(config: Config) -> CheckReport:
    """Compile `config`; nothing is installed."""
    budgets = tuple(row for peer in config.peers for row in peer_budgets(config, peer))
    return CheckReport(
        config.file,
        config.warnings,
        build_crypto_map(config).describe(),
        budgets,
        tuple(_too_large(config, budgets)),
        tuple((peer.name, peer.lifetime) for peer in config.peers),
        tuple(_pools(config)),
        tuple(attachment_rows(config)),
        tuple(leak_sentences(config)),
    )


def render_check(config: Config) -> str:
    """The report as plain text, 100 columns wide."""
    report = check_report(config)
    output = StringIO()
    console = Console(file=output, width=_WIDTH_COLUMNS, color_system=None, highlight=False, markup=False)
    for warning in report.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    for sentence in report.too_large:
        console.print(f"warning: {sentence}", soft_wrap=True)
    if any(row.labels for row in report.attachments):
        console.print("Attachments")
        console.print(_attachment_table(report.attachments))
    for sentence in report.leaks:
        console.print(f"leak: {sentence}", soft_wrap=True)
    console.print("Crypto map: the first rule that matches decides")
    console.print(_crypto_map_table(report.crypto_map))
    if report.lifetimes:
        console.print(
            "Lifetimes: an SA is rekeyed at the first, up to a tenth earlier, and ended at the second"
        )
        console.print(_lifetime_table(report.lifetimes))
    for sentence in report.pools:
        console.print(sentence, soft_wrap=True)
    for (peer, columns), serves in _budget_groups(report.budgets).items():
        esp = ", ".join(dict.fromkeys(text for _, text, _ in columns))
        console.print(f"MTU budget toward {peer} for {', '.join(serves)} ({esp})", soft_wrap=True)
        console.print(_budget_table(columns))
    counts = f"VRFs: {len(config.vrfs)}, peers: {len(config.peers)}, rules: {len(report.crypto_map)}"
    console.print(f"{config.file}: no errors ({counts})", soft_wrap=True)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines())


def peer_budgets(config: Config, peer: PeerConfig) -> Iterator[BudgetRow]:
    """Of each (VRF, class) that the peer may use, over each kind of path to it."""
    addresses = config.endpoint.addresses if peer.is_any else peer.addresses
    versions = sorted({ip_address(address).version for address in addresses if address != ANY_ADDRESS})
    may_be_udp = {Udp.AUTO: (False, True), Udp.ALWAYS: (True,), Udp.NEVER: (False,)}[peer.udp]
    for granted in peer.vrfs:
        for class_id in granted.classes:
            for version in versions:
                for is_udp in may_be_udp:
                    esp, worst = _worst(peer, granted, version == 6, is_udp)
                    yield BudgetRow(peer.name, granted.name, class_id, f"IPv{version}", is_udp, esp, worst)


def _worst(peer: PeerConfig, granted: PeerVrfConfig, is_ipv6: bool, is_udp: bool) -> tuple[str, Budget]:
    """The proposal that leaves the smallest packet, and its budget."""
    inner = ip_address(granted.addresses.peer).version == 6 if granted.addresses else is_ipv6
    found = [
        (
            text,
            budget(
                peer.link_mtu,
                ipv6_underlay=is_ipv6,
                udp_encapsulation=is_udp,
                iv_octets=transform.iv_octets,
                icv_octets=transform.icv_octets,
                block_octets=transform.block_octets,
                encapsulation=peer.encapsulation,
                mode=Mode(peer.mode.value),
                ipv6_inner=inner,
                access_octets=peer.access_overhead,
            ),
        )
        for text, transform in _transforms(peer)
    ]
    return min(found, key=lambda one: one[1].vrf_mtu)


def _transforms(peer: PeerConfig) -> Iterator[tuple[str, Transform]]:
    """Every transform that the peer's proposals allow, with the proposal it is from."""
    for text, proposal in zip(peer.esp_text, peer.esp, strict=True):
        ciphers = [one for one in proposal.transforms if one.type == TransformType.ENCR]
        integrity = [one.id for one in proposal.transforms if one.type == TransformType.INTEG] or [0]
        for cipher in ciphers:
            for integ in integrity:
                yield text, transform_for(cipher.id, cipher.key_bits, integ)


def _too_large(config: Config, budgets: Iterable[BudgetRow]) -> Iterator[str]:
    smallest: dict[str, BudgetRow] = {}
    for row in budgets:
        known = smallest.setdefault(row.vrf, row)
        if row.budget.vrf_mtu < known.budget.vrf_mtu:
            smallest[row.vrf] = row
    for vrf in config.vrfs:
        tightest = smallest.get(vrf.name)
        if tightest is None:
            continue
        limit = tightest.budget.vrf_mtu
        for attach in vrf.attach:
            if attach.mtu is not None and attach.mtu > limit:
                yield (
                    f"VRF {vrf.name}, attachment {attach.name}: mtu = {attach.mtu}, but peer {tightest.peer} "
                    f'carries {limit}, larger packets are dropped; remedy: write mtu = "auto" or {limit}'
                )


def _attachment_table(rows: Iterable[AttachmentRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("VRF", "attachment", "kind", "link", "labels", "behind it"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*(Text(text) for text in astuple(row)))
    return table


def _crypto_map_table(rows: Iterable[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right")
    for heading in ("rule", "matches", "action", ""):
        table.add_column(heading)
    for row in rows:
        table.add_row(str(row.number), *(Text(text) for text in (row.name, row.match, row.action, row.note)))
    return table


def _pools(config: Config) -> Iterator[str]:
    for pool in config.pools:
        sizes = (f"{size} IPv{version}" for version, (_, size) in Pool(pool).usage().items())
        peers = ", ".join(peer.name for peer in config.peers if peer.pool == pool.name) or "nobody"
        fixed = f", fixed for {', '.join(identity for identity, _ in pool.fixed)}" if pool.fixed else ""
        yield f"Pool {pool.name}: {' and '.join(sizes)} addresses for {peers}{fixed}"


def _lifetime_table(rows: Iterable[tuple[str, LifetimeConfig]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("peer", "Child SA", "octets each way", "packets each way", "IKE SA", "reauth"):
        table.add_column(heading)
    for peer, one in rows:
        table.add_row(
            peer,
            _soft_and_hard(one.child_rekey_s, one.child_hard_s, " s"),
            _soft_and_hard(one.child_rekey_octets, one.child_hard_octets),
            _soft_and_hard(one.child_rekey_packets, one.child_hard_packets),
            _soft_and_hard(one.ike_rekey_s, one.ike_hard_s, " s"),
            "-" if one.reauth_s is None else f"{one.reauth_s:g} s",
        )
    return table


def _soft_and_hard(soft: float | None, hard: float | None, unit: str = "") -> str:
    if soft is None and hard is None:
        return "no end"
    return " / ".join("no end" if one is None else f"{one:.15g}{unit}" for one in (soft, hard))


def _budget_groups(rows: Iterable[BudgetRow]) -> dict[tuple[str, tuple[BudgetColumn, ...]], list[str]]:
    """(peer, its budgets by path) -> the VRFs and classes that these are the budgets of."""
    paths: dict[tuple[str, str], list[BudgetColumn]] = {}
    for row in rows:
        path = row.underlay + (" UDP" if row.is_udp else "")
        paths.setdefault((row.peer, f"{row.vrf}/{row.class_id}"), []).append((path, row.esp, row.budget))
    groups: dict[tuple[str, tuple[BudgetColumn, ...]], list[str]] = {}
    for (peer, serves), columns in paths.items():
        groups.setdefault((peer, tuple(columns)), []).append(serves)
    return groups


def _budget_table(columns: Sequence[BudgetColumn]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("octets of a full-size packet")
    for path, _, _ in columns:
        table.add_column(path, justify="right")
    parts = zip(*(one.rows() for _, _, one in columns), strict=True)
    for part in parts:
        table.add_row(part[0][0], *(str(octets) for _, octets in part))
    table.add_section()
    table.add_row("link MTU", *(str(one.link_mtu) for _, _, one in columns))
    table.add_row("Tunnel MTU (RFC 4023 5.1)", *(str(one.tunnel_mtu) for _, _, one in columns))
    return table
