"""What one address, identity or session may take up, and when a series of refusals ends (RFC 7296 2.6, 2.25)."""

from dataclasses import replace
from itertools import count

import pytest

from ike import (
    CloseReason,
    DropReason,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaRekeyed,
    Message,
    NotifyPayload,
    Path,
    PskAuth,
)
from ike.events import RequestRefused
from ike.numbers import ExchangeType, NotifyType
from ike.session import Session
from ike.testing.pair import RIGHT_ADDRESS, Pair, Side
from ike.wire.identity import Identity
from tests.ike.engine_kit import SETTINGS, assert_in_sync, established, message, new_pair

PROVEN = replace(SETTINGS, cookie_threshold=0, max_half_open_per_address=3)


def session_of(side: Side) -> Session:
    return side.engine._host.sessions[side.session]


# --- a series of TEMPORARY_FAILURE


def two_children_of_which_the_first_cannot_be_rekeyed() -> tuple[Pair, bytes, bytes]:
    """Right says TEMPORARY_FAILURE to left's rekey of the first child. Returns left's SPIs of both."""
    pair, _ = established()
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    first, second = pair.left.children
    set_busy(pair, first)
    pair.left.engine.rekey_child(pair.left.session, first, pair.now)
    pair.run(1)
    assert pair.right.last(RequestRefused).notify_type == NotifyType.TEMPORARY_FAILURE
    return pair, first, second


def set_busy(pair: Pair, spi_in: bytes, *, is_busy: bool = True) -> None:
    child = session_of(pair.right).children.by_spi_out(spi_in)
    assert child is not None
    child.is_deleting = is_busy


def refused_much_later(pair: Pair, spi_in: bytes) -> bool:
    """A TEMPORARY_FAILURE that has nothing to do with the first one; whether left lives on."""
    pair.run(200)
    refusals = len(pair.right.all(RequestRefused))
    set_busy(pair, spi_in)
    pair.left.engine.rekey_child(pair.left.session, spi_in, pair.now)
    pair.run(1)
    assert len(pair.right.all(RequestRefused)) == refusals + 1
    return not pair.left.all(IkeSaClosed)


def test_series_of_temporary_failures_ends_when_the_child_goes_before_the_retry() -> None:
    pair, first, second = two_children_of_which_the_first_cannot_be_rekeyed()
    pair.left.engine.delete_child(pair.left.session, first, pair.now)
    pair.run(1)
    assert refused_much_later(pair, second)


def test_series_of_temporary_failures_ends_with_another_error() -> None:
    pair, first, second = two_children_of_which_the_first_cannot_be_rekeyed()
    child = session_of(pair.right).children.by_spi_out(first)
    assert child is not None
    child.sa = replace(child.sa, local_ts=child.sa.peer_ts)
    set_busy(pair, first, is_busy=False)
    pair.run(20)
    assert pair.right.last(RequestRefused).notify_type == NotifyType.TS_UNACCEPTABLE
    assert refused_much_later(pair, second)


def test_series_of_temporary_failures_goes_on_while_other_requests_are_answered() -> None:
    pair, _, _ = two_children_of_which_the_first_cannot_be_rekeyed()
    for _ in range(25):
        pair.left.engine.send_notify(pair.left.session, (NotifyPayload(51138),), pair.now)
        pair.run(10)
        if pair.left.all(IkeSaClosed):
            break
    assert pair.left.last(IkeSaClosed).reason is CloseReason.OUT_OF_SYNC


# --- half-open IKE SAs


PORTS = count(1024)


def knock(pair: Pair, address: str, *, with_cookie: bool = True) -> None:
    """One more IKE_SA_INIT from that address, whose initiator never goes on."""
    pair.initiate()
    (first,) = pair.left.engine.datagrams_to_send(pair.now)
    path = Path((RIGHT_ADDRESS, 500), (address, next(PORTS)))
    right, request = pair.right.engine, Message.parse(first.data)
    right.receive_datagram(request.encode(), path, pair.now)
    if with_cookie:
        (answer,) = right.datagrams_to_send(pair.now)
        cookie = Message.parse(answer.data).notify(NotifyType.COOKIE)
        assert cookie is not None
        again = replace(request, payloads=(cookie, *request.payloads))
        right.receive_datagram(again.encode(), path, pair.now)
    right.datagrams_to_send(pair.now)


def half_open(pair: Pair) -> int:
    return len(pair.right.engine._host.half_open)


def test_one_address_cannot_take_the_place_of_the_others() -> None:
    pair, _ = new_pair(settings=PROVEN)
    for _ in range(10):
        knock(pair, "198.51.100.1")
    assert half_open(pair) == 3
    assert pair.right.engine.counters[DropReason.HALF_OPEN_LIMIT] == 7
    knock(pair, "198.51.100.2")
    assert half_open(pair) == 4


def test_an_ipv6_address_is_its_64_bit_prefix() -> None:
    pair, _ = new_pair(settings=PROVEN)
    for number in range(10):
        knock(pair, f"2001:db8::{number:x}:0:0:1")
    assert half_open(pair) == 3
    knock(pair, "2001:db8:0:1::1")
    assert half_open(pair) == 4


def test_ipv4_addresses_inside_ipv6_are_not_one_prefix() -> None:
    pair, _ = new_pair(settings=PROVEN)
    for number in range(5):
        knock(pair, f"::ffff:198.51.100.{number}")
    assert half_open(pair) == 5


def test_requests_with_a_forged_address_do_not_shut_its_owner_out() -> None:
    """Only what a cookie has proven counts against an address."""
    pair, _ = new_pair(settings=replace(PROVEN, cookie_threshold=5))
    for _ in range(5):
        knock(pair, "198.51.100.1", with_cookie=False)
    for _ in range(4):
        knock(pair, "198.51.100.1")
    assert half_open(pair) == 5 + 3


def test_place_of_an_initiator_that_failed_to_authenticate_is_free_soon() -> None:
    pair, tap = new_pair(left={"auth": PskAuth(b"another secret")})
    pair.initiate()
    pair.run(1)
    assert pair.right.all(IkeSaFailed)
    assert half_open(pair) == 1
    request, response = tap.seen[-2], tap.seen[-1]
    pair.run(2)
    path = Path(request.path.peer, request.path.local)
    pair.right.engine.receive_datagram(request.data, path, pair.now)
    (again,) = pair.right.engine.datagrams_to_send(pair.now)
    assert again.data == response.data, "the answer is still remembered for those that have lost it"
    pair.run(4)
    assert half_open(pair) == 0
    assert not pair.right.engine._host._ike_sas


# --- the authenticated peer


@pytest.mark.parametrize("who", ["left", "right"])
def test_oldest_session_with_one_identity_ends_when_there_are_too_many(who: str) -> None:
    pair, _ = new_pair()
    limited, other = (pair.left, pair.right) if who == "left" else (pair.right, pair.left)
    limited.engine._host.settings = replace(SETTINGS, max_sessions_per_identity=2)
    for _ in range(4):
        pair.initiate()
        pair.run(1)
    established_ones = [event.session for event in limited.all(IkeSaEstablished)]
    closed = limited.all(IkeSaClosed)
    assert [event.session for event in closed] == established_ones[:2]
    assert {event.reason for event in closed} == {CloseReason.REPLACED}
    assert {event.reason for event in other.all(IkeSaClosed)} == {CloseReason.DELETED_BY_PEER}
    for side in (limited, other):
        assert len(side.engine.sessions()) == 2


def test_sessions_with_other_identities_do_not_count() -> None:
    pair, _ = new_pair()
    pair.right.engine._host.settings = replace(SETTINGS, max_sessions_per_identity=1)
    pair.initiate()
    pair.run(1)
    host, session = pair.right.engine._host, session_of(pair.right)
    host.forget_session(session)
    session.peer_id = Identity.fqdn("other.example")
    host.sessions[session.number] = session
    host.note_peer(session)
    pair.initiate()
    pair.run(1)
    assert len(pair.right.engine.sessions()) == 2


def test_peer_that_rekeys_and_never_deletes_is_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, _ = established(right={"max_children": 2})
    monkeypatch.setattr(session_of(pair.left).children, "delete", lambda spi_in, reason: None)
    for _ in range(3):
        pair.left.engine.rekey_child(pair.left.session, list(pair.left.children)[-1], pair.now)
        pair.run(0.5)
    assert len(pair.right.children) == 4
    pair.left.engine.rekey_child(pair.left.session, list(pair.left.children)[-1], pair.now)
    pair.run(0.5)
    assert pair.right.last(RequestRefused).notify_type == NotifyType.TEMPORARY_FAILURE
    assert len(pair.right.children) == 4
    pair.run(150)
    assert_in_sync(pair, children=1)


def test_peer_that_rekeys_the_ike_sa_and_never_deletes_is_put_off() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=ExchangeType.INFORMATIONAL, is_response=False))
    for _ in range(5):
        session_of(pair.left).others.clear()
        pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
        pair.run(0.5)
    assert len(pair.right.all(IkeSaRekeyed)) == 4
    assert pair.right.last(RequestRefused).notify_type == NotifyType.TEMPORARY_FAILURE
    assert len(pair.right.engine._host._ike_sas) == 5
    pair.run(150)
    assert len(pair.right.all(IkeSaRekeyed)) == 5
    assert_in_sync(pair, children=1)
