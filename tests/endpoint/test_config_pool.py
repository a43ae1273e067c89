"""`[[pool]]`, `pool` and `virtual_ip`: read, and refused with a remedy where they cannot work."""

from ipaddress import ip_address, ip_network

import pytest

from endpoint.config import Start
from endpoint.config.values import parse_address_range
from tests.endpoint.config_texts import PLAIN_IP, SECOND_PEER, edited, parse, problems

POOL = """
[[pool]]
name = "clients"
addresses = ["10.9.0.0/24", "10.9.1.10-10.9.1.20", "2001:db8:9::/64"]
fixed = { "alice@example.com" = ["10.9.0.7", "2001:db8:9::7"], "bob.example" = ["10.8.0.1"] }
dns = ["10.1.0.53"]
domains = ["corp.example"]
subnets = ["10.1.0.0/16"]
netmask = true
"""
GATEWAY = edited(PLAIN_IP, 'accept = ["10.2.0.0/24"]\n', "").replace(
    'encapsulation = "none"', 'encapsulation = "none"\npool = "clients"'
)
CLIENT = edited(edited(PLAIN_IP, 'announce = ["10.1.0.0/24"]\n', ""), '["any"]', '["192.0.2.2"]').replace(
    'encapsulation = "none"', 'encapsulation = "none"\nvirtual_ip = true\nstart = "boot"'
)


def test_a_pool_is_read() -> None:
    config = parse(GATEWAY + POOL)
    (pool,) = config.pools
    texts = ("10.9.0.0/24", "10.9.1.10-10.9.1.20", "2001:db8:9::/64")
    assert pool.ranges == tuple(map(parse_address_range, texts)) and [
        str(one) for one in pool.ranges
    ] == list(texts)
    assert pool.fixed == (
        ("alice@example.com", (ip_address("10.9.0.7"), ip_address("2001:db8:9::7"))),
        ("bob.example", (ip_address("10.8.0.1"),)),
    )
    assert (pool.dns, pool.domains) == ((ip_address("10.1.0.53"),), ("corp.example",))
    assert pool.subnets == (ip_network("10.1.0.0/16"),) and pool.netmask
    assert config.peers[0].pool == "clients" and not config.peers[0].virtual_ip and not config.warnings


def test_a_client_needs_neither_announce_nor_a_configured_address() -> None:
    config = parse(CLIENT)
    assert config.peers[0].virtual_ip and config.peers[0].start is Start.BOOT and not config.warnings


# fmt: off
PROBLEMS = [
    (GATEWAY + POOL, 'name = "clients"', 'name = "client"', "peer.branch.pool", "no pool", 'did you mean "client"?'),
    (GATEWAY, 'pool = "clients"', 'pool = "clients"', "peer.branch.pool", "no pool", "[[pool]]"),
    (GATEWAY + POOL, 'encapsulation = "none"', 'encapsulation = "mpls-in-ip"', "peer.branch.pool", "plain IP packets",
     'encapsulation = "none"'),
    (GATEWAY + POOL, 'addresses = ["any"]', 'addresses = ["192.0.2.2"]\nstart = "boot"', "peer.branch.start", "calls",
     '"none"'),
    (GATEWAY + POOL, 'mode = "tunnel"', 'mode = "tunnel"\nvirtual_ip = true', "peer.branch.virtual_ip", "asks us",
     "leave pool away"),
    (PLAIN_IP + POOL, 'encapsulation = "none"', 'encapsulation = "none"\npool = "clients"',
     "peer.branch.vrf.office.accept", "gets its address", "leave it away"),
    (CLIENT, 'start = "boot"', 'start = "traffic"', "peer.branch.start", "no packet", '"boot"'),
    (CLIENT, '["192.0.2.2"]', '["any"]', "peer.branch.virtual_ip", "call the peer", "addresses"),
    (GATEWAY + POOL, '"10.9.1.10-10.9.1.20"', '"10.9.1.20-10.9.1.10"', "pool.clients.addresses", "is no range",
     "lower address first"),
    (GATEWAY + POOL, '"10.9.1.10-10.9.1.20"', '"10.9.1.10-2001:db8::1"', "pool.clients.addresses", "is no range",
     "one IP version"),
    (GATEWAY + POOL, '"10.9.0.0/24"', '"10.9.0.1/24"', "pool.clients.addresses", "beyond its length", "10.9.0.0/24"),
    (GATEWAY + POOL, '"10.9.0.7", "2001:db8:9::7"', '"10.9.0.7", "10.9.0.8"', "pool.clients.fixed.alice@example.com",
     "several addresses", "one of each"),
    (GATEWAY + POOL, '"10.8.0.1"', '"10.9.0.7"', "pool.clients.fixed.bob.example", "stands in line",
     "an address of its own"),
    (GATEWAY + POOL, '"bob.example"', '"*.example"', "pool.clients.fixed.*.example", "identity of one peer", ""),
    (GATEWAY + POOL, '"corp.example"', '"corp example"', "pool.clients.domains", "is no domain", "corp.example"),
    (GATEWAY + POOL, "netmask = true", 'nbns = ["10.0.0.1"]', "pool.clients.nbns", "unknown key", ""),
]
# fmt: on


@pytest.mark.parametrize(("text", "old", "new", "key", "message", "remedy"), PROBLEMS)
def test_what_cannot_work_is_refused(
    text: str, old: str, new: str, key: str, message: str, remedy: str
) -> None:
    text = edited(text, old, new)
    found = [one for one in problems(text) if one.key.startswith(key)]
    assert found, problems(text)
    assert message in found[0].message and remedy in found[0].remedy


def test_two_pools_of_one_vrf_must_not_overlap() -> None:
    other = '\n[[pool]]\nname = "guests"\naddresses = ["10.9.0.128/25"]\n'
    second = SECOND_PEER.replace('name = "red"', 'name = "office"').replace('accept = ["10.3.0.0/16"]\n', "")
    settings = 'selectors = "plain"\nmode = "tunnel"\nencapsulation = "none"\npool = "guests"\n[[peer.vrf]]'
    text = GATEWAY + POOL + second.replace("[[peer.vrf]]", settings) + other
    (problem,) = problems(text)
    assert problem.key == "pool.guests.addresses" and 'the pool "clients"' in problem.message


def test_a_pool_that_nobody_uses_is_warned_about() -> None:
    (warning,) = parse(PLAIN_IP + POOL).warnings
    assert "no peer has this pool" in warning.message
