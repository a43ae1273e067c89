"""Two nodes: a client that gets its address from the gateway's pool (RFC 7296 2.19, 3.15)."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from endpoint.config import Config, parse_config
from endpoint.status import render_status, snapshot
from ike import (
    AddressRequest,
    ChildSaEstablished,
    FailureReason,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
)
from ike.events import RequestRefused
from ike.numbers import NotifyType
from ike.wire.identity import Identity
from tests.endpoint.pair import NodePair

GATEWAY = """
[endpoint]
identity  = "gateway.example"
addresses = ["192.0.2.2"]

[[vrf]]
name     = "office"
attach   = [{{ memory = "office", address = ["10.2.0.1/24", "2001:db8:2::1/64"] }}]
announce = ["10.2.0.0/24", "2001:db8:2::/64"]

[[pool]]
name      = "clients"
addresses = [{pool}]
dns       = ["10.2.0.53"]
domains   = ["corp.example"]
subnets   = ["10.2.0.0/24"]

[[peer]]
name          = "client"
identity      = "client@example"
addresses     = ["any"]
auth          = {{ psk_file = "psk" }}
ike           = ["aes256gcm16-prfsha384-x25519"]
esp           = ["aes256gcm16-esn"]
selectors     = "plain"
mode          = "tunnel"
encapsulation = "none"
start         = "none"
pool          = "clients"

  [[peer.vrf]]
  name = "office"
"""
CLIENT = """
[endpoint]
identity  = "client@example"
addresses = ["192.0.2.1"]

[[vrf]]
name   = "office"
attach = [{{ memory = "home" }}]

[[peer]]
name          = "gateway"
identity      = "gateway.example"
addresses     = ["192.0.2.2"]
auth          = {{ psk_file = "psk" }}
ike           = ["aes256gcm16-prfsha384-x25519"]
esp           = ["aes256gcm16-esn"]
selectors     = "plain"
mode          = "tunnel"
encapsulation = "none"
start         = "{start}"
{settings}

  [[peer.vrf]]
  name   = "office"
  accept = ["10.2.0.0/24", "2001:db8:2::/64"]
"""
BOTH = '"10.9.0.0/29", "2001:db8:9::/64"'
SECRET = {"psk": b"a secret of the test"}


def gateway(pool: str = BOTH) -> Config:
    return parse_config(GATEWAY.format(pool=pool), "gateway.toml", secrets=SECRET)


def client(start: str = "boot", settings: str = "virtual_ip = true") -> Config:
    return parse_config(CLIENT.format(start=start, settings=settings), "client.toml", secrets=SECRET)


def up(pool: str = BOTH) -> NodePair:
    nodes = NodePair(client(), gateway(pool)).start()
    nodes.run(2)
    assert nodes.pe1.children() == nodes.pe2.children() == {"office": 1}
    return nodes


def ping(nodes: NodePair, sequence: int, source: str = "10.9.0.1", destination: str = "10.2.0.2") -> None:
    nodes.pe1.hosts["home"].ping(source, destination, identifier=7, sequence=sequence)
    nodes.run(0.1)


def ping_back(nodes: NodePair, sequence: int, destination: str = "10.9.0.1") -> None:
    nodes.pe2.hosts["office"].ping("10.2.0.2", destination, identifier=7, sequence=sequence)
    nodes.run(0.1)


def routes(nodes: NodePair) -> list[str]:
    return [str(route.prefix) for _, _, route in nodes.pe2.node.table.routes()]


def test_packets_go_both_ways_from_and_to_the_address_that_the_gateway_gave() -> None:
    nodes = up()
    ping(nodes, 1)
    ping(nodes, 2, "2001:db8:9::1", "2001:db8:2::2")
    ping_back(nodes, 3)
    assert nodes.pongs(1, "home") == [1, 2] and nodes.pongs(2, "office") == [3]
    child = nodes.pe1.of(ChildSaEstablished)[0].child
    assert [str(one) for one in child.local_ts] == ["10.9.0.1", "2001:db8:9::1"]


def test_another_source_is_not_ours_and_another_destination_not_the_peers() -> None:
    nodes = up()
    ping(nodes, 1, "10.9.0.2")
    assert nodes.pe1.drops("urpf") == 1
    ping_back(nodes, 2, "10.9.0.2")
    assert nodes.pe2.drops("no_route") == 1 and not nodes.wire


def test_a_gateway_without_ipv6_gives_ipv4_alone() -> None:
    nodes = up('"10.9.0.0/29"')
    ping(nodes, 1)
    assert nodes.pongs(1, "home") == [1]
    assert nodes.pe1.of(IkeSaEstablished)[0].assigned == nodes.pe2.of(IkeSaEstablished)[0].leased


def test_before_the_address_and_after_the_session_nothing_leaves() -> None:
    nodes = NodePair(client("none"), gateway()).start()
    ping(nodes, 1)
    assert nodes.pe1.drops("urpf") == 1
    nodes.pe1.node.initiate("gateway", None, nodes.now)
    nodes.run(1)
    assert routes(nodes) == ["10.9.0.1/32", "2001:db8:9::1/128"]
    nodes.pe1.node.terminate("gateway", None, nodes.now)
    nodes.run(1)
    ping(nodes, 2)
    assert nodes.pe1.drops("urpf") == 2 and routes(nodes) == []
    assert nodes.pe2.node.addresses.pools["clients"].usage()[4] == (0, 6)


def test_the_client_has_its_address_again_after_a_crash() -> None:
    nodes = up()
    nodes.restart(1)
    nodes.run(5)
    ping(nodes, 1)
    assert nodes.pongs(1, "home") == [1]
    assert nodes.pe2.of(IkeSaClosed) and routes(nodes) == ["10.9.0.1/32", "2001:db8:9::1/128"]


def test_the_address_outlives_rekeys() -> None:
    nodes = up()
    for number, peer in ((1, "gateway"), (2, "client")):
        nodes.ends[number].node.rekey(peer, None, nodes.now, ike=True)
        nodes.run(1)
        nodes.ends[number].node.rekey(peer, None, nodes.now)
        nodes.run(1)
    ping(nodes, 1)
    ping_back(nodes, 2)
    assert nodes.pongs(1, "home") == [1] and nodes.pongs(2, "office") == [2]


def test_a_second_session_shares_the_address_until_the_first_is_gone() -> None:
    """Of two sessions one is deleted by its opener; both asked for the one address."""
    nodes = up()
    engine = nodes.pe1.node.engine
    engine.initiate("gateway", engine.sessions()[0].path, nodes.now)
    nodes.pe1.node.handle_timer(nodes.now)
    nodes.run(2)
    given = [event.leased.addresses for event in nodes.pe2.of(IkeSaEstablished) if event.leased]
    assert given[0] == given[1]
    assert nodes.pe2.node.addresses.pools["clients"].usage()[4][0] == 1
    assert len(engine.sessions()) == 1
    ping(nodes, 1)
    assert nodes.pongs(1, "home") == [1] and routes(nodes) == ["10.9.0.1/32", "2001:db8:9::1/128"]


def test_a_pool_without_a_free_address_refuses_and_the_client_tries_again_later() -> None:
    nodes = NodePair(client(), gateway('"10.9.0.1-10.9.0.1"')).start()
    (pool,) = nodes.pe2.node.addresses.pools.values()
    other = AddressRequest(999, "other", Identity.fqdn("other"), (ip_address(0),), False)
    assert pool.lease(other)
    nodes.run(10)
    failed = nodes.pe1.of(IkeSaFailed)
    assert [event.reason for event in failed] == [FailureReason.NO_ADDRESS]
    assert nodes.pe2.of(RequestRefused)[0].notify_type == NotifyType.INTERNAL_ADDRESS_FAILURE
    assert not nodes.pe2.node.engine.sessions()
    pool.release(999)
    nodes.run(60)
    assert nodes.pe1.children() == {"office": 1}


def test_a_client_that_asks_for_nothing_gets_no_child() -> None:
    text = CLIENT.replace("attach = [", 'announce = ["10.9.0.1/32"]\nattach = [')
    config = parse_config(text.format(start="boot", settings=""), "client.toml", secrets=SECRET)
    nodes = NodePair(config, gateway()).start()
    nodes.run(2)
    assert nodes.pe1.children() == {} and routes(nodes) == []
    assert nodes.pe2.of(RequestRefused)[0].notify_type == NotifyType.FAILED_CP_REQUIRED


def test_the_gateway_makes_no_child_before_the_client_has_asked() -> None:
    nodes = NodePair(client("none"), gateway()).start()
    nodes.pe2.node.initiate("client", None, nodes.now)
    nodes.run(5)
    assert not nodes.pe2.events and not nodes.pe1.events


def test_status_shows_what_is_given_and_what_is_left() -> None:
    nodes = up()
    document = snapshot(nodes.pe2.node, nodes.now, {})
    (session,) = document["peers"][0]["sessions"]
    assert session["assigned"] is None
    assert session["leased"] == {
        "addresses": ["10.9.0.1/32", "2001:db8:9::1/128"],
        "dns": ["10.2.0.53"],
        "domains": ["corp.example"],
        "subnets": ["10.2.0.0/24"],
    }
    families = {"ipv4": {"in_use": 1, "size": 6}, "ipv6": {"in_use": 1, "size": 65536}}
    assert document["pools"] == [{"name": "clients", "families": families}]
    assert "its address 10.9.0.1/32 2001:db8:9::1/128" in render_status(document)
    ours = snapshot(nodes.pe1.node, nodes.now, {})["peers"][0]["sessions"][0]
    assert ours["assigned"] == session["leased"] and ours["leased"] is None


@pytest.mark.parametrize("number", [1, 2])
def test_an_end_that_shuts_down_leaves_nothing(number: int) -> None:
    nodes = up()
    nodes.ends[number].node.shut_down(nodes.now)
    nodes.run(2)
    assert routes(nodes) == []
    assert not nodes.pe1.hosts["home"].has("10.9.0.1")
    assert nodes.pe2.node.addresses.pools["clients"].usage()[4] == (0, 6)


def test_the_address_outlives_a_reauthentication() -> None:
    nodes = up()
    nodes.pe1.node.reauthenticate("gateway", nodes.now)
    for sequence in range(20):
        ping(nodes, sequence)
        nodes.run(1)
    assert len(nodes.pe1.of(IkeSaEstablished)) == 2 and len(nodes.pe1.of(IkeSaClosed)) == 1
    assert nodes.pongs(1, "home") == list(range(20))
    assert routes(nodes) == ["10.9.0.1/32", "2001:db8:9::1/128"]
    assert nodes.pe1.hosts["home"].has("10.9.0.1")


def test_a_link_that_the_gateway_names_draws_nothing_to_the_client() -> None:
    """The child is for the address alone; half the world on the device would be lost there."""
    nodes = NodePair(client(), gateway('"128.0.0.0/1"')).start()
    (pool,) = nodes.pe2.node.addresses.pools.values()
    pool.config = replace(pool.config, netmask=True)
    nodes.run(2)
    assigned = nodes.pe1.of(IkeSaEstablished)[0].assigned
    assert assigned is not None
    (given,) = assigned.addresses
    assert given.network.prefixlen == 1
    vrf = nodes.pe1.node.outbound.vrfs["office"]
    assert [str(one) for one in vrf.attachments[0].addresses] == [f"{given.ip}/32"]
