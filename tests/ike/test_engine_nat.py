"""Through NATs: keepalives, following a new mapping, transport mode (RFC 7296 2.23, 2.23.1, RFC 3948 4)."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ike import ChildSa, Datagram, IkeSaEstablished, Mode, Path, PeerAddressChanged
from ike.child import ChildTerms
from ike.nat import KEEPALIVE, NatState
from ike.selectors import AddressSelector, RawSelector, TrafficSelectors
from ike.testing.link import ImpairedLink, Nat
from ike.testing.pair import LEFT_ADDRESS, RIGHT_ADDRESS, Pair
from ike.transport_nat import OriginalAddresses, seen_from_here
from tests.ike.engine_kit import Tap, new_pair, only_child

OUTSIDE = "203.0.113.1"
KEEPALIVE_S = 20.0


def through_nat(nat: Nat | None = None, **options: object) -> tuple[Pair, Tap, Nat]:
    """An IKE SA with a child; left, which opened it, is behind the NAT."""
    nat = nat or Nat(inside=LEFT_ADDRESS, outside=OUTSIDE)
    pair, tap = new_pair(link=ImpairedLink(nat=nat), **options)  # type: ignore[arg-type]
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    tap.seen.clear()
    return pair, tap, nat


def keepalives(tap: Tap) -> list[Datagram]:
    return [datagram for datagram in tap.seen if datagram.is_keepalive]


def peer_of(pair: Pair) -> tuple[str, int]:
    """Where right takes left to be."""
    return pair.right.engine.sessions()[0].path.peer


# --- keepalives


def test_only_the_end_behind_the_nat_sends_keepalives_and_only_after_silence() -> None:
    pair, tap, _ = through_nat()
    pair.run(10 * KEEPALIVE_S)
    sent = keepalives(tap)
    assert len(sent) == len(tap.seen) == 10
    assert {datagram.data for datagram in sent} == {KEEPALIVE}
    assert {datagram.path.local for datagram in sent} == {(RIGHT_ADDRESS, 4500)}


def test_no_nat_no_keepalives() -> None:
    pair, tap = new_pair()
    pair.initiate()
    pair.run(1)
    tap.seen.clear()
    pair.run(100)
    assert not tap.seen


def test_esp_that_leaves_puts_the_keepalive_off() -> None:
    pair, tap, _ = through_nat()
    spi_in = only_child(pair.left).spi_in
    for _ in range(20):
        pair.run(KEEPALIVE_S - 2)
        pair.left.engine.note_esp_sent(spi_in, pair.now)
    assert not tap.seen
    pair.run(KEEPALIVE_S + 1)
    assert len(keepalives(tap)) == 1


def test_a_request_puts_the_keepalive_off() -> None:
    pair, tap, _ = through_nat(left={"liveness_s": KEEPALIVE_S - 1})
    pair.run(100)
    assert tap.seen and not keepalives(tap)


def test_keepalives_end_with_the_session() -> None:
    pair, tap, _ = through_nat()
    pair.left.engine.delete_ike_sa(pair.left.session, pair.now)
    pair.run(1)
    tap.seen.clear()
    pair.run(200)
    assert not tap.seen


def test_keepalives_go_on_after_a_rekey_of_the_ike_sa() -> None:
    pair, tap, _ = through_nat()
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(2)
    tap.seen.clear()
    pair.run(3 * KEEPALIVE_S)
    assert len(keepalives(tap)) >= 2


# --- a new mapping


def test_esp_from_a_new_mapping_moves_the_peer_and_its_children() -> None:
    pair, _, _ = through_nat()
    path = Path((RIGHT_ADDRESS, 4500), ("203.0.113.9", 41000))
    pair.right.engine.note_esp_path(only_child(pair.right).spi_in, path, pair.now)
    pair.flush()
    moved = pair.right.last(PeerAddressChanged)
    assert moved.path == path
    assert [child.path for child in moved.children] == [path]
    assert peer_of(pair) == path.peer


def test_a_peer_is_followed_only_to_where_it_may_be() -> None:
    pair, _, nat = through_nat(right={"peer_addresses": (OUTSIDE,)})
    spi_in = only_child(pair.right).spi_in
    pair.right.engine.note_esp_path(spi_in, Path((RIGHT_ADDRESS, 4500), ("203.0.113.9", 41000)), pair.now)
    pair.flush()
    assert not pair.right.all(PeerAddressChanged)
    path = Path((RIGHT_ADDRESS, 4500), (OUTSIDE, 41000))
    pair.right.engine.note_esp_path(spi_in, path, pair.now)
    pair.flush()
    assert pair.right.last(PeerAddressChanged).path == path
    nat.outside = "203.0.113.9"
    nat.rebind()
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(1)
    assert peer_of(pair) == path.peer


def test_an_end_behind_a_nat_follows_no_esp() -> None:
    pair, _, _ = through_nat()
    path = Path((LEFT_ADDRESS, 4500), ("203.0.113.9", 41000))
    pair.left.engine.note_esp_path(only_child(pair.left).spi_in, path, pair.now)
    pair.flush()
    assert not pair.left.all(PeerAddressChanged)


def test_between_two_nats_nobody_follows() -> None:
    nat = TwoNats()
    pair, _ = new_pair(link=ImpairedLink(nat=nat))
    pair.left.path = replace(pair.left.path, peer=(nat.server_outside, 500))
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    path = Path((RIGHT_ADDRESS, 4500), ("203.0.113.9", 41000))
    pair.right.engine.note_esp_path(only_child(pair.right).spi_in, path, pair.now)
    pair.flush()
    assert not pair.right.all(PeerAddressChanged)


def test_a_peer_that_is_not_behind_a_nat_is_not_followed_by_esp() -> None:
    pair, _ = new_pair()
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    path = Path((RIGHT_ADDRESS, 500), ("203.0.113.9", 41000))
    pair.right.engine.note_esp_path(only_child(pair.right).spi_in, path, pair.now)
    pair.flush()
    assert not pair.right.all(PeerAddressChanged)


def test_requests_in_flight_reach_a_peer_that_moved() -> None:
    pair, _, nat = through_nat()
    nat.rebind()
    pair.right.engine.check_liveness(pair.right.session, pair.now)
    pair.run(0.5)
    assert pair.link.counters["no_mapping"] == 1
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(5)
    assert pair.right.engine.is_quiet, "the retransmission took the new path"


# --- transport mode (RFC 7296 2.23.1)


def ends(child: ChildSa) -> tuple[str, str]:
    (local,), (peer,) = child.local_ts, child.peer_ts
    assert isinstance(local, AddressSelector) and isinstance(peer, AddressSelector)
    assert (local.start, peer.start) == (local.end, peer.end)
    return str(local.start), str(peer.start)


class TwoNats(Nat):
    """The whole picture of 2.23.1: NAT A before left, and NAT B, which has a fixed address for right."""

    def __init__(self) -> None:
        super().__init__(inside=LEFT_ADDRESS, outside=OUTSIDE)
        self.server_outside = "203.0.113.2"

    def translate(
        self, source: tuple[str, int], destination: tuple[str, int]
    ) -> tuple[tuple[str, int], tuple[str, int]] | None:
        if destination[0] == self.server_outside:
            destination = (RIGHT_ADDRESS, destination[1])
        if source[0] == RIGHT_ADDRESS:
            source = (self.server_outside, source[1])
        return super().translate(source, destination)


@pytest.mark.parametrize("in_auth", [True, False])
def test_a_transport_child_comes_up_between_two_nats(in_auth: bool) -> None:
    nat = TwoNats()
    options: dict[str, object] = {"childless": not in_auth}
    pair, _ = new_pair(link=ImpairedLink(nat=nat), left=options, right=options)
    pair.left.path = replace(pair.left.path, peer=(nat.server_outside, 500))
    pair.initiate()
    pair.run(1)
    if not in_auth:
        pair.left.engine.create_child(pair.left.session, "net", pair.now)
        pair.run(1)
    left, right = only_child(pair.left), only_child(pair.right)
    assert left.mode is right.mode is Mode.TRANSPORT
    assert ends(left) == (LEFT_ADDRESS, nat.server_outside), "as left sees the two"
    assert ends(right) == (RIGHT_ADDRESS, OUTSIDE), "as right sees them"
    assert left.original_addresses == OriginalAddresses(OUTSIDE, RIGHT_ADDRESS)
    assert right.original_addresses == OriginalAddresses(nat.server_outside, LEFT_ADDRESS)
    for side in (pair.left, pair.right):
        side.engine.rekey_child(side.session, only_child(side).spi_in, pair.now)
        pair.run(3)
        assert (len(pair.left.children), len(pair.right.children)) == (1, 1)
        assert only_child(side).spi_in not in {left.spi_in, right.spi_in}
        assert ends(only_child(pair.left)) == ends(left) and ends(only_child(pair.right)) == ends(right)


def test_a_transport_child_is_rekeyed_after_its_nat_got_another_address() -> None:
    pair, _, nat = through_nat()
    nat.rebind()
    nat.outside = "203.0.113.77"
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(1)
    (child,) = pair.right.last(PeerAddressChanged).children
    assert ends(child) == (RIGHT_ADDRESS, nat.outside)
    for side in (pair.left, pair.right):
        old = only_child(side).spi_in
        side.engine.rekey_child(side.session, old, pair.now)
        pair.run(3)
        assert only_child(side).spi_in != old
    assert ends(only_child(pair.right)) == (RIGHT_ADDRESS, nat.outside)


def test_a_responder_grants_no_address_but_that_of_the_path() -> None:
    """Whatever a client behind a NAT writes into TSi, it gets what its packets come from."""
    pair, _, _ = through_nat()
    assert ends(only_child(pair.right)) == (RIGHT_ADDRESS, OUTSIDE)


def test_without_nats_nothing_is_replaced() -> None:
    ts = TrafficSelectors(
        (AddressSelector.from_address("10.0.0.1"),), (AddressSelector.from_address("10.0.0.2"),)
    )
    path = Path(("10.9.9.1", 4500), ("10.9.9.2", 4500))
    assert seen_from_here(ts, path, NatState(), tsi_is_local=True) == (ts, None)


def test_only_addresses_are_replaced_and_of_the_translated_end_alone() -> None:
    opaque = RawSelector(246, b"\xf6\x00\x00\x08abcd")
    tsi = (
        AddressSelector.from_address("10.0.0.1", 17, 4000, 4000),
        AddressSelector.from_address("10.0.0.1", 17),
        opaque,
    )
    tsr = (AddressSelector.from_address("192.0.2.2", 17, 6635, 6635),)
    path = Path(("192.0.2.2", 4500), ("203.0.113.1", 4500))
    behind = NatState(peer_is_translated=True)
    ts, originals = seen_from_here(TrafficSelectors(tsi, tsr), path, behind, tsi_is_local=False)
    assert originals == OriginalAddresses("192.0.2.2", "10.0.0.1")
    assert ts.tsr == tsr
    assert ts.tsi[2] == opaque
    first = ts.tsi[0]
    assert isinstance(first, AddressSelector)
    assert (first.start, first.end) == (ip_address("203.0.113.1"),) * 2
    assert (first.protocol, first.start_port, first.end_port) == (17, 4000, 4000)


def test_selectors_of_more_than_one_host_are_left_alone() -> None:
    tsi = (AddressSelector(ip_address("10.0.0.1"), ip_address("10.0.0.9")),)
    ts = TrafficSelectors(tsi, (AddressSelector.from_address("192.0.2.2"),))
    path = Path(("192.0.2.2", 4500), ("203.0.113.1", 4500))
    behind = NatState(peer_is_translated=True)
    assert seen_from_here(ts, path, behind, tsi_is_local=False) == (ts, None)


def test_tunnel_mode_keeps_the_peers_addresses() -> None:
    ts = TrafficSelectors(
        (AddressSelector.from_address("10.0.0.1"),), (AddressSelector.from_address("10.0.0.2"),)
    )
    path = Path(("192.0.2.2", 4500), ("203.0.113.1", 4500))
    terms = ChildTerms((), ts, Mode.TUNNEL, True)
    assert terms.seen_from_here(path, NatState(peer_is_translated=True), tsi_is_local=False) is terms


def test_keepalives_are_no_message_for_the_engine() -> None:
    pair, _, _ = through_nat()
    pair.left.engine.handle_timer(pair.now + 2 * KEEPALIVE_S)
    sent = pair.left.engine.datagrams_to_send(pair.now)
    assert [(one.data, one.is_keepalive) for one in sent] == [(KEEPALIVE, True)]
    assert pair.left.last(IkeSaEstablished).path == sent[0].path
