"""Several requests at once: SET_WINDOW_SIZE, order, loss, collisions, what is outside (RFC 7296 2.3)."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from ike import (
    ChildSaClosed,
    CloseReason,
    DropReason,
    EngineSettings,
    IkeSaClosed,
    Message,
    NotifyAnswered,
    NotifyPayload,
    SealedBody,
)
from ike.numbers import ExchangeType, NotifyType
from ike.testing.link import ImpairedLink
from ike.testing.pair import Pair, Side
from ike.wire.message import Header
from tests.ike.engine_kit import (
    CHILD,
    SETTINGS,
    Tap,
    assert_in_sync,
    established,
    message,
    new_pair,
    only_child,
)

INFORMATIONAL = ExchangeType.INFORMATIONAL
NARROW = replace(SETTINGS, window=1)


def window_of(side: Side) -> int:
    return side.engine._host.sessions[side.session].current.requests.size


def create(side: Side, pair: Pair, count: int) -> None:
    for _ in range(count):
        side.engine.create_child(side.session, "net", pair.now)


def requests_of(tap: Tap, side: Side) -> list[int]:
    rule = message(sent_by=side, is_response=False)
    return [Header.parse(datagram.data).message_id for datagram in tap.seen if rule(datagram)]


def telling(size: bytes) -> dict[str, object]:
    """Options of a side that tells this window size, whatever its own is."""

    def rewrite(outgoing: Message) -> Iterable[Message | SealedBody]:
        payloads = tuple(
            NotifyPayload(NotifyType.SET_WINDOW_SIZE, size)
            if isinstance(payload, NotifyPayload) and payload.notify_type == NotifyType.SET_WINDOW_SIZE
            else payload
            for payload in outgoing.payloads
        )
        return (replace(outgoing, payloads=payloads),)

    return {"rewrite_outgoing": rewrite}


# --- telling and keeping to it


def test_both_ends_tell_their_window_beside_auth_and_use_the_peers() -> None:
    pair, _ = established()
    assert window_of(pair.left) == window_of(pair.right) == SETTINGS.window == 8
    for side in (pair.left, pair.right):
        told = [r.summary for r in side.trace if "SET_WINDOW_SIZE" in r.summary]
        assert [line.split()[0] for line in told] == ["IKE_AUTH", "IKE_AUTH"]


@pytest.mark.parametrize(("left", "right", "size"), [(8, 3, 3), (3, 8, 3), (1, 8, 1), (8, 1, 1)])
def test_window_in_use_is_the_smaller_of_both(left: int, right: int, size: int) -> None:
    pair, tap = new_pair(
        left_settings=replace(SETTINGS, window=left), right_settings=replace(SETTINGS, window=right)
    )
    pair.initiate()
    pair.run(1)
    assert window_of(pair.left) == window_of(pair.right) == size
    tap.seen.clear()
    tap.hold(message(sent_by=pair.right))
    create(pair.left, pair, 10)
    pair.run(0.5)
    assert len(requests_of(tap, pair.left)) == size
    tap.release(pair)
    pair.run(40)
    assert_in_sync(pair, children=10)


@pytest.mark.parametrize("size", [b"", bytes(4), bytes(3), b"\0\0\0\0\x09"])
def test_nonsense_is_no_promise(size: bytes) -> None:
    pair, _ = established(right_options=telling(size))
    assert window_of(pair.left) == 1
    create(pair.left, pair, 3)
    pair.run(1)
    assert_in_sync(pair, children=4)


def test_huge_promise_is_used_up_to_what_we_would_take() -> None:
    pair, _ = established(right_options=telling(b"\xff" * 4))
    assert window_of(pair.left) == SETTINGS.window


def test_promise_is_never_taken_back() -> None:
    pair, _ = established()
    lower = (NotifyPayload(NotifyType.SET_WINDOW_SIZE, b"\0\0\0\1"),)
    pair.right.engine.send_notify(pair.right.session, lower, pair.now)
    pair.run(1)
    assert window_of(pair.left) == 8


def test_unauthenticated_promise_counts_for_nothing() -> None:
    def in_init(outgoing: Message) -> Iterable[Message | SealedBody]:
        if outgoing.exchange != ExchangeType.IKE_SA_INIT:
            return (outgoing,)
        notify = NotifyPayload(NotifyType.SET_WINDOW_SIZE, b"\0\0\0\x08")
        return (replace(outgoing, payloads=(*outgoing.payloads, notify)),)

    options = {"rewrite_outgoing": in_init}
    pair, _ = established(
        left_settings=NARROW, right_settings=NARROW, left_options=options, right_options=options
    )
    assert window_of(pair.left) == window_of(pair.right) == 1


def test_new_ike_sa_begins_with_one_and_grows_with_the_first_messages() -> None:
    pair, _ = established()
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(1)
    assert window_of(pair.left) == window_of(pair.right) == 1
    for side in (pair.left, pair.right):
        assert side.engine._host.sessions[side.session].current.responses.size == 8
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(1)
    assert window_of(pair.left) == window_of(pair.right) == 8
    create(pair.right, pair, 6)
    pair.run(1)
    assert_in_sync(pair, children=7)


# --- several at once


def test_requests_leave_together_and_are_answered_in_any_order() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left), 8)
    create(pair.left, pair, 8)
    pair.run(0.2)
    assert len(tap.held) == 8
    for datagram in reversed(tap.held):
        pair.right.engine.receive_datagram(datagram.data, datagram.path, pair.now)
    tap.held.clear()
    pair.run(0.2)
    assert_in_sync(pair, children=9)


def test_ninth_waits_for_the_oldest_not_for_any() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left), 1)
    create(pair.left, pair, 10)
    pair.run(0.5)
    ids = requests_of(tap, pair.left)
    assert ids == list(range(ids[0], ids[0] + 8))
    assert len(pair.right.children) == 8, "one and the seven behind the lost request"
    pair.run(5)
    assert_in_sync(pair, children=11)


@pytest.mark.parametrize("seed", range(8))
def test_many_requests_from_both_ends_through_loss_and_reordering(seed: int) -> None:
    link = ImpairedLink(seed, loss=0.25, duplicate=0.2, reorder=0.5, reorder_s=0.7)
    pair, _ = new_pair(link=link, seed=seed)
    pair.initiate()
    pair.run(100, until=lambda: len(pair.right.engine.sessions()) == 1)
    pair.run(5)
    for side in (pair.left, pair.right):
        create(side, pair, 6)
    pair.run(60)
    assert_in_sync(pair, children=12)
    for side in (pair.left, pair.right):
        for spi_in, child in list(side.children.items()):
            if child.is_creator:
                side.engine.rekey_child(side.session, spi_in, pair.now)
    pair.run(100)
    assert_in_sync(pair, children=12)
    for spi_in in list(pair.left.children):
        pair.left.engine.delete_child(pair.left.session, spi_in, pair.now)
    pair.run(100)
    assert_in_sync(pair, children=0)


@pytest.mark.parametrize("seed", range(8))
def test_both_ends_rekey_all_children_at_once(seed: int) -> None:
    pair, _ = established(link=ImpairedLink(seed, reorder=0.5, reorder_s=0.3), seed=seed)
    create(pair.left, pair, 5)
    pair.run(5)
    for side in (pair.left, pair.right):
        for spi_in in list(side.children):
            side.engine.rekey_child(side.session, spi_in, pair.now)
    pair.run(20)
    assert_in_sync(pair, children=6)


def test_delete_of_a_child_waits_for_its_rekey_and_takes_what_that_makes_with_it() -> None:
    pair, tap = established()
    spi_in = only_child(pair.left).spi_in
    tap.hold(message(sent_by=pair.right), 1)
    pair.left.engine.rekey_child(pair.left.session, spi_in, pair.now)
    pair.left.engine.delete_child(pair.left.session, spi_in, pair.now)
    pair.flush()
    assert len(requests_of(tap, pair.left)) == 1
    pair.run(10)
    assert_in_sync(pair, children=0)


def test_notifies_keep_their_order() -> None:
    heard: list[bytes] = []

    def informational(session: int, notifies: tuple[NotifyPayload, ...]) -> tuple[NotifyPayload, ...]:
        heard.extend(notify.data for notify in notifies)
        return ()

    link = ImpairedLink(3, loss=0.2, reorder=0.5, reorder_s=0.5)
    pair, _ = established(link=link, right_options={"informational": informational})
    sent = [bytes([number]) for number in range(12)]
    for data in sent:
        pair.left.engine.send_notify(pair.left.session, (NotifyPayload(51138, data),), pair.now)
    pair.run(200)
    assert heard == sent
    assert len(pair.left.all(NotifyAnswered)) == 12


def test_notifies_keep_their_order_over_a_rekey_of_the_ike_sa() -> None:
    heard: list[bytes] = []

    def informational(session: int, notifies: tuple[NotifyPayload, ...]) -> tuple[NotifyPayload, ...]:
        heard.extend(notify.data for notify in notifies)
        return ()

    pair, tap = established(right_options={"informational": informational})
    tap.hold(message(sent_by=pair.left, exchange=INFORMATIONAL, is_response=False))
    for data in (b"1", b"2", b"3"):
        pair.left.engine.send_notify(pair.left.session, (NotifyPayload(51138, data),), pair.now)
    pair.run(0.1)
    pair.right.engine.rekey_ike_sa(pair.right.session, pair.now)
    pair.run(0.1)
    tap.open()
    pair.run(30)
    assert_in_sync(pair, children=1)
    assert heard == [b"1", b"2", b"3"]


def test_rekey_of_the_ike_sa_waits_for_what_is_in_flight() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.right), 3)
    create(pair.left, pair, 3)
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    create(pair.left, pair, 1)
    pair.run(0.5)
    sent = [r.summary for r in pair.left.trace[-10:] if r.direction.value == "sent"]
    assert len(requests_of(tap, pair.left)) == 3, sent
    pair.run(20)
    assert_in_sync(pair, children=5)


# --- the last words


def test_delete_of_the_ike_sa_does_not_wait_where_the_window_is_open() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.right), 3)
    create(pair.left, pair, 3)
    pair.flush()
    pair.left.engine.delete_ike_sa(pair.left.session, pair.now)
    pair.run(0.5)
    assert pair.right.last(IkeSaClosed).reason is CloseReason.DELETED_BY_PEER
    sent = requests_of(tap, pair.left)
    pair.run(0.5)
    assert requests_of(tap, pair.left) == sent
    for side in (pair.left, pair.right):
        assert side.children == {}
        assert side.engine.sessions() == ()


def test_last_words_are_repeated_although_older_requests_have_no_answer() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=ExchangeType.CREATE_CHILD_SA))
    create(pair.left, pair, 3)
    pair.run(20)
    tap.hold(message(sent_by=pair.left, exchange=INFORMATIONAL), 3)
    pair.left.engine.delete_ike_sa(pair.left.session, pair.now)
    pair.run(30)
    assert pair.right.last(IkeSaClosed).reason is CloseReason.DELETED_BY_PEER
    assert pair.left.engine.is_quiet


def test_everything_that_was_asked_ends_when_the_peer_deletes_the_ike_sa() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, is_response=False))
    create(pair.left, pair, 4)
    pair.flush()
    pair.right.engine.delete_ike_sa(pair.right.session, pair.now)
    pair.run(1)
    assert pair.left.last(IkeSaClosed).reason is CloseReason.DELETED_BY_PEER
    assert len(pair.left.all(ChildSaClosed)) == 1
    assert pair.left.engine.sessions() == ()


# --- outside the window


def beyond(pair: Pair, tap: Tap, message_id: int) -> bytes:
    """An authentic request of the left end with that Message ID."""
    sa = pair.left.engine._host.sessions[pair.left.session].current
    empty = Message(sa.spi_i, sa.spi_r, INFORMATIONAL, sa.is_initiator, False, message_id)
    return sa.keyed.protection.seal(empty)


def test_invalid_message_id_is_told_in_a_request_of_its_own_and_seldom() -> None:
    pair, tap = established()
    next_id = pair.right.engine._host.sessions[pair.right.session].current.responses.next_id
    for offset in (8, 9, 10):
        data = beyond(pair, tap, next_id + offset)
        pair.right.engine.receive_datagram(data, pair.right.path, pair.now)
    pair.run(1)
    assert pair.right.engine.counters[DropReason.OUTSIDE_WINDOW] == 3
    told = [r.summary for r in pair.left.trace if "INVALID_MESSAGE_ID" in r.summary]
    assert len(told) == 1
    pair.run(10)
    pair.right.engine.receive_datagram(beyond(pair, tap, next_id + 8), pair.right.path, pair.now)
    pair.run(1)
    told = [r.summary for r in pair.left.trace if "INVALID_MESSAGE_ID" in r.summary]
    assert len(told) == 2
    assert_in_sync(pair, children=1)


def test_forged_message_ids_are_not_told() -> None:
    pair, tap = established()
    data = bytearray(beyond(pair, tap, 50))
    data[-1] ^= 1
    pair.right.engine.receive_datagram(bytes(data), pair.right.path, pair.now)
    assert pair.right.engine.datagrams_to_send(pair.now) == []
    assert pair.right.engine.counters[DropReason.INTEGRITY] == 1


def test_responses_are_kept_for_as_long_as_the_window_says() -> None:
    pair, tap = established()
    for _ in range(10):
        pair.left.engine.check_liveness(pair.left.session, pair.now)
        pair.run(0.1)
    requests = [d for d in tap.seen if message(sent_by=pair.left, is_response=False)(d)]
    cached = pair.right.engine._host.sessions[pair.right.session].current.responses._answered
    assert len(cached) == 8
    tap.seen.clear()
    for datagram in requests:
        pair.right.engine.receive_datagram(datagram.data, datagram.path, pair.now)
    pair.flush()
    assert len(tap.seen) == 8
    assert pair.right.engine.counters[DropReason.OLD_RETRANSMISSION] == 2


def test_half_open_ike_sa_takes_one_request_only() -> None:
    pair, tap = new_pair(settings=EngineSettings(nonce_octets=SETTINGS.nonce_octets), right_child=CHILD)
    tap.hold(message(sent_by=pair.left, exchange=ExchangeType.IKE_AUTH))
    pair.initiate()
    pair.run(0.5)
    (half_open,) = pair.right.engine._host.half_open.values()
    assert half_open.responses.size == 1
