"""What must hold between pools, the peers that name them, and peers that ask us or are asked for an address.

Knows nothing of TOML types. Paths are those of the document: the n-th value comes from the n-th table.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from endpoint.config.checks import refuse_repeats
from endpoint.config.locate import Path
from endpoint.config.model import Config, PeerConfig, PoolConfig, Start
from endpoint.config.problems import Report, did_you_mean, quoted
from ike.config import Mode
from mpls.encapsulation import Encapsulation


def check_pools(config: Config, report: Report) -> None:
    _check_names(config, report)
    for index, peer in enumerate(config.peers):
        path: Path = ("peer", index)
        if peer.pool is not None:
            _check_gateway(config, report, peer, path)
        if peer.virtual_ip:
            _check_client(report, peer, path)
        for key, is_set in (("pool", peer.pool is not None), ("virtual_ip", peer.virtual_ip)):
            if is_set:
                _check_plain_ip(report, peer, (*path, key))
    _check_overlap(config, report)


def _check_names(config: Config, report: Report) -> None:
    used = {peer.pool for peer in config.peers}
    names: list[tuple[Hashable, str, Path]] = []
    for index, pool in enumerate(config.pools):
        path = ("pool", index, "name")
        if pool.name:
            names.append((pool.name, f"the pool {quoted(pool.name)}", path))
            if pool.name not in used:
                report.warn(
                    path, "no peer has this pool", f"write pool = {quoted(pool.name)} into a [[peer]]"
                )
        refuse_repeats(report, _fixed_entries(pool, index), "give each identity an address of its own")
    refuse_repeats(report, names, "give it another name")


def _fixed_entries(pool: PoolConfig, index: int) -> Iterator[tuple[Hashable, str, Path]]:
    for identity, addresses in pool.fixed:
        for address in addresses:
            yield address, f"the address {address}", ("pool", index, "fixed", identity)


def _check_gateway(config: Config, report: Report, peer: PeerConfig, path: Path) -> None:
    names = [pool.name for pool in config.pools]
    if peer.pool not in names:
        remedy = did_you_mean(peer.pool or "", names) or "add it as [[pool]]"
        report.error((*path, "pool"), f"there is no pool {quoted(peer.pool or '')}", remedy)
    if peer.start is Start.BOOT:
        message = "the peer asks for its address when it calls, so it has to be the one who calls"
        report.error((*path, "start"), message, 'write start = "none"')
    for position, vrf in enumerate(peer.vrfs):
        if vrf.accept:
            message = "the peer gets its address from the pool: that is what it may use"
            report.error((*path, "vrf", position, "accept"), message, "leave it away, or take pool away")


def _check_client(report: Report, peer: PeerConfig, path: Path) -> None:
    if peer.pool is not None:
        report.error(
            (*path, "virtual_ip"), "we ask the peer for an address, or it asks us", "leave pool away"
        )
    if peer.is_any:
        report.error((*path, "virtual_ip"), "we have to call the peer, at an address", "write addresses")
    elif peer.start is Start.TRAFFIC:
        message = "without an address there is no packet that could start anything"
        report.error((*path, "start"), message, 'write start = "boot", or "none" to start it by command')


def _check_plain_ip(report: Report, peer: PeerConfig, path: Path) -> None:
    if peer.encapsulation is not Encapsulation.NONE or peer.mode is not Mode.TUNNEL:
        message = "an address for the peer's end is for plain IP packets in tunnel mode"
        report.error(path, message, 'write selectors = "plain", mode = "tunnel" and encapsulation = "none"')
    if len(peer.vrfs) > 1:
        report.error(path, "the address belongs to one VRF", "write one [[peer.vrf]]")


def _check_overlap(config: Config, report: Report) -> None:
    """Within a VRF an address is one peer's."""
    pools = {pool.name: (index, pool) for index, pool in enumerate(config.pools)}
    seen: dict[str, list[str]] = {}
    for peer in config.peers:
        for vrf in peer.vrfs:
            if peer.pool in pools and peer.pool not in seen.setdefault(vrf.name, []):
                seen[vrf.name].append(peer.pool or "")
    for vrf_name, names in seen.items():
        for position, name in enumerate(names):
            index, pool = pools[name]
            for other_name in names[:position]:
                other = pools[other_name][1]
                if any(one.overlaps(two) for one in pool.ranges for two in other.ranges):
                    message = f"has addresses of the pool {quoted(other_name)}, and VRF {quoted(vrf_name)} uses both"
                    report.error(("pool", index, "addresses"), message, "let each address be in one of them")
