"""`[[pool]]`: addresses for peers that ask for one, from TOML tables to values.

Knows nothing of files, nor of the peers that name a pool.
"""

from typing import TypeVar

from endpoint.config.model import PoolConfig
from endpoint.config.problems import BadValue, quoted
from endpoint.config.read import name_of
from endpoint.config.table import Table
from endpoint.config.values import Address, parse_address, parse_address_range, parse_domain, parse_prefix
from ike.identities import parse_peer_name
from ike.wire.identity import Identity

T = TypeVar("T")
MAX_SUBNETS, MAX_DOMAINS, MAX_SERVERS = 64, 32, 8
"""All of them have to fit into one Configuration payload, which has at most 256 attributes."""


def read_pool(table: Table) -> PoolConfig:
    pool = PoolConfig(
        name=name_of(table),
        ranges=table.some("addresses", parse_address_range) or (),
        fixed=_read_fixed(table),
        dns=_bounded(table, "dns", table.unique("dns", parse_address) or (), MAX_SERVERS),
        domains=_bounded(table, "domains", table.unique("domains", parse_domain) or (), MAX_DOMAINS),
        subnets=_bounded(table, "subnets", table.unique("subnets", parse_prefix) or (), MAX_SUBNETS),
        netmask=table.boolean("netmask", False),
    )
    if "addresses" not in table and not pool.fixed:
        table.error("addresses", "are missing", 'add addresses = ["10.9.0.0/24"]')
    table.close()
    return pool


def _read_fixed(pool: Table) -> tuple[tuple[str, tuple[Address, ...]], ...]:
    """`{ "alice@example.com" = ["10.9.0.7", "2001:db8:9::7"] }`: at most one address of each family."""
    table = pool.table("fixed")
    if table is None:
        return ()
    found: list[tuple[str, tuple[Address, ...]]] = []
    for identity in table.keys():  # noqa: SIM118 - a Table is no mapping
        table.checked(identity, _checked_identity)
        addresses = table.some(identity, parse_address) or ()
        if len({address.version for address in addresses}) < len(addresses):
            table.error(identity, "has several addresses of one IP version", "write one of each")
        found.append((identity, addresses))
    table.close()
    return tuple(found)


def _checked_identity(value: object) -> object:
    name = parse_peer_name(str(value))
    if not isinstance(name, Identity) or name == Identity.null():
        raise BadValue(
            f"{quoted(value)} is not the identity of one peer", "write it as the peer's identity is"
        )
    return name


def _bounded(table: Table, key: str, values: tuple[T, ...], highest: int) -> tuple[T, ...]:
    if len(values) > highest:
        table.error(key, f"has {len(values)} items", f"at most {highest} are told to a peer")
    return values
