"""Every octet from the network is an attack: nothing raises, nothing established is lost, nothing grows."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ike import (
    ChildSaClosed,
    CloseReason,
    DropReason,
    IkeSaClosed,
    IkeSaFailed,
    Message,
    NotifyPayload,
    Path,
    SealedBody,
)
from ike.numbers import ExchangeType, NotifyType, PayloadType
from ike.testing.entropy import ScriptedEntropy
from ike.testing.pair import LEFT_ADDRESS, RIGHT_ADDRESS, Pair
from ike.wire.message import Header
from ike.wire.payloads import DeletePayload, EapPayload, NoncePayload, UnknownPayload
from tests.ike.engine_kit import SETTINGS, assert_in_sync, established, message, new_pair, only_child

TO_RIGHT = Path((RIGHT_ADDRESS, 500), (LEFT_ADDRESS, 500))
TO_LEFT = Path((LEFT_ADDRESS, 500), (RIGHT_ADDRESS, 500))
INFORMATIONAL = ExchangeType.INFORMATIONAL


def recorded() -> tuple[Pair, list[bytes]]:
    """An established pair, and every kind of message that it exchanged or would have."""
    pair, tap = established(seed="hostile")
    for side in (pair.left, pair.right):
        side.engine.rekey_child(side.session, only_child(side).spi_in, pair.now)
        pair.run(2)
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(2)
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(100)
    # And fresh ones, that the peer has not seen yet: only their octets are known to the attacker.
    tap.hold(lambda datagram: True)
    for side in (pair.left, pair.right):
        side.engine.check_liveness(side.session, pair.now)
    pair.initiate()
    pair.flush()
    return pair, [datagram.data for datagram in tap.seen]


PAIR, MESSAGES = recorded()
BEFORE = [side.engine.sessions()[0] for side in (PAIR.left, PAIR.right)]


def check(data: bytes) -> None:
    for side, path in ((PAIR.left, TO_LEFT), (PAIR.right, TO_RIGHT)):
        side.engine.receive_datagram(data, path, PAIR.now)
        side.engine.datagrams_to_send(PAIR.now)
        while (event := side.engine.next_event()) is not None:
            assert not isinstance(event, IkeSaClosed | ChildSaClosed), event
        snapshot = side.engine.sessions()[0]
        before = BEFORE[0 if side is PAIR.left else 1]
        assert (snapshot.spi_i, snapshot.state, snapshot.path) == (before.spi_i, before.state, before.path)
        assert snapshot.children == before.children
        assert len(side.engine._host.half_open) <= 1024


@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_garbage_has_no_effect(data: bytes) -> None:
    check(data)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_mutated_messages_have_no_effect(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(MESSAGES))
    octets = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        match data.draw(st.sampled_from(["flip", "cut", "insert", "length"])):
            case "flip" if octets:
                octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
            case "cut" if octets:
                del octets[data.draw(st.integers(0, len(octets) - 1)) :]
            case "insert":
                octets[len(octets) // 2 : len(octets) // 2] = data.draw(st.binary(max_size=8))
            case "length" if len(octets) >= 28:
                octets[24:28] = len(octets).to_bytes(4, "big")
            case _:
                pass
    if bytes(octets) != original:
        check(bytes(octets))


def test_truncation_at_every_octet_has_no_effect() -> None:
    for original in MESSAGES:
        for end in range(0, len(original), 7):
            cut = bytearray(original[:end])
            check(bytes(cut))
            if end >= 28:
                cut[24:28] = end.to_bytes(4, "big")
                check(bytes(cut))


def test_established_pair_goes_on_after_a_storm() -> None:
    pair, tap = established()
    entropy = ScriptedEntropy("storm")
    for _ in range(300):
        data = bytearray(tap.seen[0].data if tap.seen else entropy.octets(80))
        data[entropy.below(len(data))] ^= 1 + entropy.below(255)
        pair.left.engine.receive_datagram(bytes(data), TO_LEFT, pair.now)
        pair.right.engine.receive_datagram(bytes(data), TO_RIGHT, pair.now)
    pair.left.engine.rekey_child(pair.left.session, only_child(pair.left).spi_in, pair.now)
    pair.run(5)
    assert_in_sync(pair, children=1)


def test_unprotected_messages_of_an_established_ike_sa_have_no_effect() -> None:
    pair, _ = established()
    spis = pair.left.engine.sessions()[0].spi_i, pair.left.engine.sessions()[0].spi_r
    for exchange in (ExchangeType.INFORMATIONAL, ExchangeType.CREATE_CHILD_SA, ExchangeType.IKE_AUTH):
        for message_id in range(5):
            for is_response in (False, True):
                payloads = (DeletePayload(1), NotifyPayload(NotifyType.AUTHENTICATION_FAILED))
                forged = Message(*spis, exchange, True, is_response, message_id, payloads)
                pair.right.engine.receive_datagram(forged.encode(), TO_RIGHT, pair.now)
    assert_in_sync(pair, children=1)
    assert pair.right.engine.counters[DropReason.INTEGRITY] >= 1


def send_once(pair: Pair, body: SealedBody) -> None:
    """Right gets an authentic request with these inner octets from left."""
    host = pair.left.engine._host
    host.rewrite_outgoing = lambda outgoing: (body if not outgoing.is_response else outgoing,)
    pair.left.engine.send_notify(pair.left.session, (NotifyPayload(51138),), pair.now)
    host.rewrite_outgoing = None
    pair.run(2)


def test_authentic_but_malformed_request_ends_the_ike_sa_at_both_ends() -> None:
    """RFC 7296 2.21.3: INVALID_SYNTAX is fatal without a Delete."""
    pair, _ = established()
    send_once(pair, SealedBody(PayloadType.NOTIFY, b"\x00\x00\x00\x03"))
    assert pair.right.last(IkeSaClosed).reason is CloseReason.PROTOCOL_ERROR
    assert pair.left.last(IkeSaClosed).reason is CloseReason.PROTOCOL_ERROR
    assert "N(INVALID_SYNTAX)" in pair.right.trace[-1].summary
    pair.run(100)
    for side in (pair.left, pair.right):
        assert not side.engine._host._ike_sas


@pytest.mark.parametrize(
    "payload", [NoncePayload(bytes(16)), EapPayload(b"\x01\x01\x00\x04")], ids=["nonce", "EAP"]
)
def test_payload_out_of_place_is_invalid_syntax(payload: NoncePayload | EapPayload) -> None:
    pair, _ = established()
    body = payload.encode_body()
    octets = b"\x00\x00" + (4 + len(body)).to_bytes(2, "big") + body
    send_once(pair, SealedBody(payload.payload_type, octets))
    assert pair.right.last(IkeSaClosed).reason is CloseReason.PROTOCOL_ERROR


def test_unknown_critical_payload_is_named_and_the_ike_sa_stays() -> None:
    pair, _ = established()
    send_once(pair, SealedBody(200, b"\x00\x80\x00\x05?"))
    assert "{N(UNSUPPORTED_CRITICAL_PAYLOAD)}" in pair.right.trace[-1].summary
    assert_in_sync(pair, children=1)


def test_unknown_payload_without_the_critical_bit_is_skipped() -> None:
    pair, _ = established()
    send_once(pair, SealedBody(200, b"\x00\x00\x00\x05?"))
    assert pair.right.trace[-1].summary == "INFORMATIONAL response 3 {}"
    assert_in_sync(pair, children=1)


def test_malformed_response_ends_the_ike_sa_and_says_so() -> None:
    def break_it(outgoing: Message) -> Iterable[Message | SealedBody]:
        if outgoing.is_response and outgoing.exchange == ExchangeType.CREATE_CHILD_SA:
            return (SealedBody(PayloadType.SA, b"\x00\x00\x00\x08abcd"),)
        return (outgoing,)

    pair, _ = new_pair(right_options={"rewrite_outgoing": break_it})
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(2)
    assert pair.left.last(IkeSaClosed).reason is CloseReason.PROTOCOL_ERROR
    assert pair.right.last(IkeSaClosed).reason is CloseReason.PROTOCOL_ERROR
    assert not pair.left.all(IkeSaFailed)


def test_unknown_error_in_a_response_means_that_the_request_failed() -> None:
    def refuse(outgoing: Message) -> Iterable[Message | SealedBody]:
        if outgoing.is_response and outgoing.exchange == ExchangeType.CREATE_CHILD_SA:
            return (replace(outgoing, payloads=(NotifyPayload(8191),)),)
        return (outgoing,)

    pair, _ = new_pair(right_options={"rewrite_outgoing": refuse})
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(2)
    assert "NOTIFY_8191" in pair.left.events[-1].detail  # type: ignore[union-attr]


def test_answer_of_another_exchange_is_no_answer() -> None:
    def rename(outgoing: Message) -> Iterable[Message | SealedBody]:
        if outgoing.is_response and outgoing.exchange == ExchangeType.CREATE_CHILD_SA:
            return (replace(outgoing, exchange=INFORMATIONAL, payloads=()),)
        return (outgoing,)

    pair, _ = new_pair(right_options={"rewrite_outgoing": rename})
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(2)
    assert pair.left.engine.counters[DropReason.UNEXPECTED_EXCHANGE] >= 1
    assert len(pair.left.engine.sessions()) == 1


def test_unknown_status_in_a_response_is_ignored() -> None:
    def add(outgoing: Message) -> Iterable[Message | SealedBody]:
        unknown = UnknownPayload(200, b"?")
        return (replace(outgoing, payloads=(NotifyPayload(40000), *outgoing.payloads, unknown)),)

    pair, _ = new_pair(left_options={"rewrite_outgoing": add}, right_options={"rewrite_outgoing": add})
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    assert_in_sync(pair, children=1)


def test_reflected_messages_are_not_taken_for_the_peers() -> None:
    pair, tap = established()
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.flush()
    own = tap.seen[-1].data
    pair.left.engine.receive_datagram(own, TO_LEFT, pair.now)
    assert pair.left.engine.counters[DropReason.MALFORMED] == 1
    pair.run(5)
    assert_in_sync(pair, children=1)


def test_requests_outside_the_window_are_dropped() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left))
    session = pair.left.engine._host.sessions[pair.left.session]
    session.current.requests.next_id += SETTINGS.window
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.flush()
    pair.right.engine.receive_datagram(tap.held[0].data, tap.held[0].path, pair.now)
    assert pair.right.engine.counters[DropReason.OUTSIDE_WINDOW] == 1
    (told,) = pair.right.engine.datagrams_to_send(pair.now)
    assert Header.parse(told.data).is_response is False, "the invalid request MUST NOT be acknowledged"
    assert pair.right.trace[-1].summary.endswith("{N(INVALID_MESSAGE_ID)}")
