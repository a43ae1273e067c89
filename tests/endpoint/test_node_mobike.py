"""Two whole nodes whose underlay addresses change: sessions move and traffic goes on (RFC 4555)."""

from dataclasses import replace

import pytest

from endpoint.config import Config, ConfigError, parse_config
from endpoint.dataplane import EspArrival
from ike import IkeSaClosed, IkeSaEstablished, PeerAddressChanged
from ike.testing.link import Nat
from tests.endpoint.pair import ENDPOINT, GRANTS, PEER, STATIC_GRANTS, VRFS, NodePair, configuration

FIRST, SECOND = ("192.0.2.1", "192.0.2.2"), ("198.51.100.1", "198.51.100.2")
TUNNEL = 'mode = "tunnel"\nliveness = "20s"\n'
PLAIN = TUNNEL + 'selectors = "plain"\n'


def mobile(number: int, settings: str, *, grants: str = GRANTS) -> Config:
    """pe<number> with two addresses, and its peer with two."""
    config = configuration(number, settings, grants=grants)
    own, other = number - 1, 2 - number
    return replace(
        config,
        endpoint=replace(config.endpoint, addresses=(FIRST[own], SECOND[own])),
        peers=(replace(config.peers[0], addresses=(FIRST[other], SECOND[other])),),
    )


def up(settings: str = TUNNEL, *, grants: str = GRANTS, nat: Nat | None = None) -> NodePair:
    nodes = NodePair(
        mobile(1, f'start = "boot"\n{settings}', grants=grants),
        mobile(2, f'start = "none"\n{settings}', grants=grants),
        nat,
    ).start()
    nodes.run()
    assert nodes.pe1.of(IkeSaEstablished)[0].is_mobile
    return nodes


def lose(nodes: NodePair, number: int, *addresses: str) -> None:
    nodes.absent |= set(addresses)
    tell(nodes, number)


def tell(nodes: NodePair, number: int) -> None:
    own = (FIRST[number - 1], SECOND[number - 1])
    present = [address for address in own if address not in nodes.absent]
    nodes.ends[number].node.set_local_addresses(present, nodes.now)


def outer(nodes: NodePair, number: int) -> set[tuple[str, str]]:
    return {(child.path.local[0], child.path.peer[0]) for child in nodes.ends[number].node.children}


@pytest.mark.parametrize(("settings", "grants"), [(TUNNEL, GRANTS), (PLAIN, STATIC_GRANTS)])
def test_traffic_goes_on_when_the_openers_address_goes(settings: str, grants: str) -> None:
    nodes = up(settings, grants=grants)
    nodes.ping(1, "red", 1)
    nodes.run()
    lose(nodes, 1, FIRST[0])
    nodes.run()
    nodes.ping(1, "red", 2)
    nodes.ping(2, "blue", 3)
    nodes.run()
    assert (nodes.pongs(1, "red"), nodes.pongs(2, "blue")) == ([1, 2], [3])
    assert outer(nodes, 1) == {(SECOND[0], FIRST[1])}
    assert not nodes.pe1.of(IkeSaClosed)
    assert len(nodes.pe1.of(IkeSaEstablished)) == 1


def test_traffic_goes_on_when_the_answering_ends_address_goes() -> None:
    nodes = up()
    lose(nodes, 2, FIRST[1])
    nodes.run()
    nodes.ping(1, "red", 1)
    nodes.run()
    assert nodes.pongs(1, "red") == [1]
    assert outer(nodes, 1) == {(FIRST[0], SECOND[1])}


def test_a_move_between_two_good_paths_loses_no_packet() -> None:
    nodes = up()
    nodes.ping(1, "red", 0)
    nodes.run()
    session = nodes.pe1.node.engine.sessions()[0]
    path = replace(session.path, local=(SECOND[0], 4500))
    nodes.pe1.node.engine.change_address(session.session, path, nodes.now)
    nodes.pe1.node.handle_timer(nodes.now)
    for sequence in range(1, 21):
        nodes.ping(1, "red", sequence)
        nodes.ping(2, "red", 100 + sequence)
        nodes.run(0.0005)
    nodes.run()
    assert nodes.pongs(1, "red") == list(range(21))
    assert nodes.pongs(2, "red") == list(range(101, 121))
    assert outer(nodes, 1) == {(SECOND[0], FIRST[1])}


def test_children_are_rekeyed_after_a_move_and_keep_their_inner_addresses() -> None:
    nodes = up(PLAIN, grants=STATIC_GRANTS)
    lose(nodes, 1, FIRST[0])
    nodes.run()
    for number in (1, 2):
        nodes.ends[number].node.rekey(f"pe{3 - number}", None, nodes.now)
        nodes.run(5)
    nodes.ping(1, "red", 1)
    nodes.run()
    assert nodes.pongs(1, "red") == [1]
    (child,) = [child for child in nodes.pe1.node.children if child.retires_at is None]
    assert (str(child.encapsulator.local), str(child.encapsulator.peer)) == FIRST


def test_a_move_behind_a_nat_puts_esp_into_udp_and_narrows_the_mtu() -> None:
    nodes = up(nat=Nat(inside=SECOND[0], outside="203.0.113.77"))
    before = {child.budget.tunnel_mtu for child in nodes.pe1.node.children}
    lose(nodes, 1, FIRST[0])
    nodes.run()
    assert not nodes.pe1.of(PeerAddressChanged), (
        "pe2 has a list of pe1's addresses, and the NAT's is not in it"
    )
    permissive = mobile(2, f'start = "none"\n{TUNNEL}')
    permissive = replace(permissive, peers=(replace(permissive.peers[0], addresses=("any",)),))
    opening = mobile(1, f'start = "boot"\n{TUNNEL}')
    nodes = NodePair(opening, permissive, Nat(inside=SECOND[0], outside="203.0.113.77")).start()
    nodes.run()
    lose(nodes, 1, FIRST[0])
    nodes.run()
    nodes.ping(1, "red", 1)
    nodes.run()
    assert nodes.pongs(1, "red") == [1]
    assert all(child.sa.udp_encapsulation for child in nodes.pe1.node.children)
    after = {child.budget.tunnel_mtu for child in nodes.pe1.node.children}
    assert max(after) < min(before)


def test_a_new_session_begins_at_an_address_that_is_there() -> None:
    nodes = NodePair(mobile(1, f'start = "none"\n{TUNNEL}'), mobile(2, f'start = "none"\n{TUNNEL}')).start()
    lose(nodes, 1, FIRST[0])
    nodes.pe1.node.initiate("pe2", None, nodes.now)
    nodes.run()
    assert outer(nodes, 1) == {(SECOND[0], FIRST[1])}


def test_each_attempt_takes_the_next_pair_of_addresses() -> None:
    nodes = NodePair(mobile(1, f'start = "boot"\n{TUNNEL}'), mobile(2, f'start = "none"\n{TUNNEL}'))
    nodes.absent |= {FIRST[1]}
    nodes.start()
    nodes.run(600)
    assert nodes.pe1.children()
    assert {peer for _, peer in outer(nodes, 1)} == {SECOND[1]}


def test_mobike_is_on_in_tunnel_mode_and_off_in_transport_mode() -> None:
    assert configuration(1, 'mode = "tunnel"').peers[0].mobike
    assert not configuration(1, 'mode = "tunnel"\nmobike = false').peers[0].mobike
    assert not configuration(1).peers[0].mobike


def test_mobike_in_transport_mode_is_refused() -> None:
    text = (ENDPOINT + VRFS + PEER + GRANTS).format(own=1, other=2, settings="mobike = true")
    with pytest.raises(ConfigError, match="transport mode the addresses"):
        parse_config(text, "pe1.toml", secrets={"psk": b"a secret of the test"})


def test_key_logs_are_told_where_the_children_are_now() -> None:
    """Wireshark looks keys up by SPI and addresses."""
    nodes = up()
    nodes.told.clear()
    lose(nodes, 1, FIRST[0])
    nodes.run()
    told = {(number, path.local[0], path.peer[0]) for number, path in nodes.told}
    assert told == {(1, SECOND[0], FIRST[1]), (2, FIRST[1], SECOND[0])}


@pytest.mark.parametrize("source", [FIRST[0], SECOND[0]])
def test_esp_from_another_address_than_agreed_is_taken_but_proves_no_path(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 4555 3.12: else a peer that never heard of our move would count as alive for ever."""
    nodes = up()
    nodes.lose = lambda sender, octets: sender == 1
    nodes.ping(1, "red", 1)
    (packet,) = [octets for sender, octets in nodes.wire if sender == 1]
    heard: list[bytes] = []
    engine = nodes.pe2.node.engine
    monkeypatch.setattr(engine, "note_esp_received", lambda spi_in, now: heard.append(spi_in))
    nodes.pe2.node.receive_esp([EspArrival([packet], (source, 0), FIRST[1])], nodes.now)
    assert nodes.pe2.node.dataplane.delivered == 1
    assert bool(heard) is (source == FIRST[0])
