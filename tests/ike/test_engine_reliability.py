"""Retransmission, windows, liveness, lifetimes, moving peers (RFC 7296 2.1-2.4, 2.8, 2.23)."""

from dataclasses import replace

import pytest

from ike import (
    ChildSaClosed,
    ChildSaEstablished,
    CloseReason,
    DropReason,
    IkeKeyLogEntry,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaRekeyed,
    NotifyAnswered,
    NotifyPayload,
    Path,
    PeerAddressChanged,
    RetransmitPolicy,
)
from ike.numbers import ExchangeType
from ike.testing.link import ImpairedLink, Nat
from ike.testing.pair import LEFT_ADDRESS, RIGHT_ADDRESS, Side
from ike.wire.message import Header
from tests.ike.engine_kit import CHILD, SETTINGS, assert_in_sync, established, message, new_pair, only_child

INFORMATIONAL = ExchangeType.INFORMATIONAL


def sent(side: Side, text: str) -> int:
    return sum(text in record.summary for record in side.trace if record.direction.value == "sent")


def test_retransmissions_are_identical_and_slow_down() -> None:
    policy = RetransmitPolicy(first_s=1.0, factor=2.0, maximum_s=8.0, tries=6, jitter=0.0)
    pair, tap = established(left={"retransmit": policy})
    tap.hold(message(sent_by=pair.left))
    start = pair.now
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    times = []
    for second in range(1, 40):
        before = len(tap.seen)
        pair.run(1)
        times.extend([second] * (len(tap.seen) - before))
    assert times == [1, 1, 3, 7, 15, 23]
    assert len({datagram.data for datagram in tap.seen}) == 1
    closed = pair.left.last(IkeSaClosed)
    assert closed.reason is CloseReason.PEER_NOT_RESPONDING
    assert pair.left.last(ChildSaClosed).reason is CloseReason.IKE_SA_CLOSED
    assert start < pair.now


def test_jitter_only_shortens_and_comes_from_entropy() -> None:
    policy = RetransmitPolicy(first_s=10.0, factor=1.0, maximum_s=10.0, tries=3, jitter=0.5)
    pair, tap = established(left={"retransmit": policy})
    tap.hold(message(sent_by=pair.left))
    pair.left.entropy.queue(b"\xff\xff")
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    deadline = pair.left.engine.next_deadline()
    assert deadline is not None
    assert deadline.reason == "retransmit"
    assert deadline.at - pair.now == pytest.approx(5.0, abs=0.01)


def test_one_request_at_a_time_in_order_of_urgency() -> None:
    pair, tap = established(settings=replace(SETTINGS, window=1))
    tap.hold(message(sent_by=pair.right), count=1)
    engine, session = pair.left.engine, pair.left.session
    engine.send_notify(session, (NotifyPayload(51138, b"first"),), pair.now)
    engine.send_notify(session, (NotifyPayload(51138, b"last"),), pair.now)
    engine.create_child(session, "net", pair.now)
    engine.rekey_child(session, only_child(pair.left).spi_in, pair.now)
    pair.flush()
    assert sent(pair.left, "51138") == 1
    pair.run(20)
    asked = [r.summary.split("{")[1][:9] for r in pair.left.trace if r.direction.value == "sent"][3:]
    assert asked == ["N(NOTIFY_", "N(REKEY_S", "D(ESP " + asked[2][6:], "N(USE_TRA", "N(NOTIFY_"]
    ids = [Header.parse(d.data).message_id for d in tap.seen if d.path.peer[0] == LEFT_ADDRESS]
    assert sorted(set(ids)) == list(range(min(ids), min(ids) + 5))
    assert_in_sync(pair, children=2)


def test_requests_cross_without_deadlock() -> None:
    pair, _ = established()
    for side in (pair.left, pair.right):
        side.engine.create_child(side.session, "net", pair.now)
    pair.run(1)
    assert_in_sync(pair, children=3)


def test_replayed_request_is_answered_from_memory_alone() -> None:
    pair, tap = established(settings=replace(SETTINGS, window=1))
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    request = tap.seen[0]
    response = tap.seen[1]
    pair.right.engine.receive_datagram(request.data, request.path, pair.now)
    (again,) = pair.right.engine.datagrams_to_send(pair.now)
    assert again.data == response.data
    assert_in_sync(pair, children=2)
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(1)
    pair.right.engine.receive_datagram(request.data, request.path, pair.now)
    assert pair.right.engine.datagrams_to_send(pair.now) == []
    assert pair.right.engine.counters[DropReason.OLD_RETRANSMISSION] == 1


def test_replayed_response_has_no_effect() -> None:
    pair, tap = established()
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    response = tap.seen[1]
    pair.left.engine.receive_datagram(response.data, response.path, pair.now)
    assert pair.left.engine.counters[DropReason.NO_REQUEST_IN_FLIGHT] == 1
    assert_in_sync(pair, children=2)


def test_liveness_is_checked_only_in_silence() -> None:
    pair, _ = established(left={"liveness_s": 10.0})
    for _ in range(30):
        pair.run(1)
        pair.left.engine.note_esp_received(only_child(pair.left).spi_in, pair.now)
    assert sent(pair.left, "INFORMATIONAL") == 0
    pair.run(10.5)
    assert sent(pair.left, "INFORMATIONAL request 3 {}") == 1
    pair.run(35)
    assert sent(pair.left, "INFORMATIONAL") == 4
    assert_in_sync(pair, children=1)


def test_dead_peer_is_noticed() -> None:
    pair, tap = established(left={"liveness_s": 10.0})
    tap.hold(message(sent_by=pair.right))
    pair.run(10 + 101)
    assert pair.left.last(IkeSaClosed).reason is CloseReason.PEER_NOT_RESPONDING
    pair.run(30)
    assert not pair.left.engine._host._ike_sas
    assert pair.left.engine.next_deadline() is None


def test_lifetimes_rekey_by_themselves_and_nobody_loses_anything() -> None:
    child = replace(CHILD, rekey_s=100.0, hard_s=150.0)
    pair, _ = established(
        child=child,
        left={"ike_rekey_s": 240.0, "ike_hard_s": 400.0, "liveness_s": 30.0},
        right={"ike_rekey_s": 240.0, "ike_hard_s": 400.0, "liveness_s": 30.0},
    )
    pair.run(3600)
    assert_in_sync(pair, children=1)
    assert 30 <= len(pair.left.all(ChildSaEstablished)) <= 120
    assert 10 <= len(pair.left.all(IkeSaRekeyed)) <= 30
    assert {event.reason for event in pair.left.all(ChildSaClosed)} <= {
        CloseReason.REKEYED,
        CloseReason.REDUNDANT,
    }
    assert len(pair.left.engine._host._ike_sas) <= 3


def test_child_that_cannot_be_rekeyed_ends_at_its_lifetime() -> None:
    child = replace(CHILD, rekey_s=100.0, rekey_jitter=0.0, hard_s=150.0)
    pair, _ = established(child=child, right_child=CHILD)
    right = pair.right.engine._host.sessions[pair.right.session]
    for each in right.children.values():
        each.sa = replace(each.sa, local_ts=each.sa.peer_ts)
    pair.run(140)
    assert len(pair.left.children) == 1
    pair.run(20)
    assert pair.left.last(ChildSaClosed).reason is CloseReason.LIFETIME
    assert pair.right.last(ChildSaClosed).reason is CloseReason.DELETED_BY_PEER


def test_ike_sa_ends_at_its_lifetime() -> None:
    pair, _ = established(left={"ike_hard_s": 60.0})
    pair.run(61)
    assert pair.left.last(IkeSaClosed).reason is CloseReason.LIFETIME
    assert pair.right.last(IkeSaClosed).reason is CloseReason.DELETED_BY_PEER


def test_old_ike_sa_whose_delete_never_comes_is_dropped() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=INFORMATIONAL, is_response=False), count=4)
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(200)
    assert_in_sync(pair, children=1)
    for side in (pair.left, pair.right):
        assert len(side.engine._host._ike_sas) == 1
        side.engine.send_notify(side.session, (NotifyPayload(51138, b"still here"),), pair.now)
    pair.run(1)
    assert pair.left.all(NotifyAnswered) and pair.right.all(NotifyAnswered)


def test_requests_of_the_peer_on_the_new_ike_sa_are_answered_before_the_old_one_is_gone() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=INFORMATIONAL, is_response=False), count=1)
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(0.5)
    assert len(pair.right.all(IkeSaRekeyed)) == 1
    pair.run(20)
    assert_in_sync(pair, children=1)


def test_nat_is_detected_and_a_new_mapping_is_followed() -> None:
    nat = Nat(inside=LEFT_ADDRESS, outside="203.0.113.1")
    tunnel = replace(CHILD, name="net")
    pair, _ = new_pair(tunnel, link=ImpairedLink(nat=nat), left={"liveness_s": 20.0})
    pair.initiate()
    pair.run(1)
    left, right = pair.left.last(IkeSaEstablished), pair.right.last(IkeSaEstablished)
    assert left.udp_encapsulation and right.udp_encapsulation
    assert left.path == Path((LEFT_ADDRESS, 4500), (RIGHT_ADDRESS, 4500))
    assert right.path.peer[0] == "203.0.113.1"
    nat.rebind()
    pair.run(30)
    moved = pair.right.last(PeerAddressChanged)
    assert moved.path.peer != right.path.peer
    assert not pair.left.all(PeerAddressChanged)
    pair.right.engine.check_liveness(pair.right.session, pair.now)
    pair.run(5)
    assert_in_sync(pair)


def test_peer_without_nat_is_not_followed_to_another_address() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left))
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.flush()
    (request,) = tap.held
    elsewhere = Path(request.path.local, ("203.0.113.9", 500))
    pair.right.engine.receive_datagram(request.data, elsewhere, pair.now)
    (answer,) = pair.right.engine.datagrams_to_send(pair.now)
    assert answer.path == elsewhere, "answers go where the request came from (RFC 7296 2.11)"
    assert pair.right.engine.sessions()[0].path.peer == (LEFT_ADDRESS, 500)
    assert not pair.right.all(PeerAddressChanged)


def test_keys_are_logged_for_those_who_ask() -> None:
    logs: tuple[list[IkeKeyLogEntry], list[IkeKeyLogEntry]] = ([], [])
    pair, _ = established(left_options={"key_log": logs[0].append}, right_options={"key_log": logs[1].append})
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(1)
    assert logs[0] == logs[1]
    assert len(logs[0]) == 2
    assert len(logs[0][0].sk_ei) == 36
    assert logs[0][0].sk_ai == b""
    assert logs[0][0].sk_ei.hex() not in repr(logs[0][0])


def test_no_secret_in_any_representation() -> None:
    pair, _ = established()
    session = pair.left.engine._host.sessions[pair.left.session]
    keys = session.current.keyed.keys
    texts = [repr(session.current.keyed), repr(pair.left.engine.sessions()), repr(pair.left.events)]
    texts += [repr(pair.left.engine._host.connections), repr(pair.left.trace)]
    child = only_child(pair.left)
    for secret in (
        keys.sk_ei,
        keys.sk_d,
        keys.sk_pi,
        *child.keys_in[:1],
        *child.keys_out[:1],
        b"a secret of both",
    ):
        for text in texts:
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text


def test_trace_tells_both_directions() -> None:
    pair, _ = established()
    received = [r.summary for r in pair.right.trace if r.direction.value == "received"]
    told = [r.summary for r in pair.left.trace if r.direction.value == "sent"]
    assert received == told
    assert told[1] == (
        "IKE_AUTH request 1 {IDi(left.example) N(INITIAL_CONTACT) IDr(right.example) AUTH N(SET_WINDOW_SIZE)}"
    )
