"""What belongs to no SA: INVALID_IKE_SPI, INVALID_MAJOR_VERSION, INVALID_SPI, lingering SAs (RFC 7296 1.5, 2.21.4)."""

from dataclasses import replace

import pytest

from ike import CloseReason, Datagram, DropReason, IkeSaClosed, Message, NotifyPayload, Path
from ike.limits import RateLimit
from ike.numbers import ExchangeType, NotifyType, PayloadType
from ike.testing.pair import LEFT_ADDRESS, RIGHT_ADDRESS, Pair
from ike.wire.message import NO_SPI
from ike.wire.payloads import EncryptedPayload, Payload
from tests.ike.engine_kit import SETTINGS, assert_in_sync, established, message, new_pair, only_child

INFORMATIONAL = ExchangeType.INFORMATIONAL
SEALED = EncryptedPayload(PayloadType.NOTIFY, bytes(40))
STRANGER = Path((RIGHT_ADDRESS, 500), ("203.0.113.9", 1234))


def stray(
    payload: Payload,
    *,
    spi_i: bytes = b"stranger",
    exchange: int = INFORMATIONAL,
    is_response: bool = False,
) -> bytes:
    return Message(spi_i, b"whatever", exchange, True, is_response, 7, (payload,)).encode()


def receive(pair: Pair, data: bytes, path: Path = STRANGER) -> list[Datagram]:
    pair.right.engine.receive_datagram(data, path, pair.now)
    return pair.right.engine.datagrams_to_send(pair.now)


def test_bucket_fills_with_time_up_to_its_size() -> None:
    limit = RateLimit(0.5, 2)
    assert [limit.allows(0.0) for _ in range(3)] == [True, True, False]
    assert not limit.allows(1.9)
    assert limit.allows(2.1)
    assert [limit.allows(1000.0) for _ in range(3)] == [True, True, False]


# --- messages


def test_request_to_an_unknown_ike_sa_is_answered_with_everything_copied() -> None:
    pair, _ = new_pair()
    pair.clock.advance_to(100)
    (answer,) = receive(pair, stray(SEALED))
    told = Message.parse(answer.data)
    assert answer.path == STRANGER
    assert (told.spi_i, told.spi_r, told.exchange, told.message_id) == (b"stranger", b"whatever", 37, 7)
    assert told.is_response
    assert not told.is_initiator
    assert [n.notify_type for n in told.notifies] == [NotifyType.INVALID_IKE_SPI]


@pytest.mark.parametrize(
    "data",
    [
        stray(SEALED, is_response=True),
        stray(NotifyPayload(NotifyType.INVALID_SPI, b"\0\0\1\1")),
        stray(NotifyPayload(NotifyType.INVALID_SPI, b"\0\0\1\1"), spi_i=NO_SPI),
        stray(NotifyPayload(NotifyType.INVALID_SPI, b"\0\0\1\1"), is_response=True),
        stray(NotifyPayload(NotifyType.INVALID_IKE_SPI), is_response=True),
        stray(NotifyPayload(NotifyType.INVALID_IKE_SPI)),
        stray(SEALED, spi_i=NO_SPI),
    ],
)
def test_responses_and_unprotected_messages_get_no_answer(data: bytes) -> None:
    """Else two ends that do not know each other could go on for ever (RFC 7296 1.5)."""
    pair, _ = new_pair()
    pair.clock.advance_to(100)
    assert receive(pair, data) == []


def test_answers_are_limited() -> None:
    pair, _ = new_pair()
    rate = SETTINGS.invalid_spi_answers_per_s
    assert sum(len(receive(pair, stray(SEALED))) for _ in range(50)) == rate
    pair.clock.advance_to(0.5)
    assert sum(len(receive(pair, stray(SEALED))) for _ in range(50)) == rate / 2


def test_higher_version_is_told_ours_and_a_lower_one_nothing() -> None:
    pair, _ = new_pair()
    for version, count in ((0x30, 1), (0x10, 0)):
        octets = bytearray(stray(SEALED))
        octets[17] = version
        answers = receive(pair, bytes(octets))
        assert len(answers) == count
        for answer in answers:
            assert answer.data[17] == 0x20
            assert Message.parse(answer.data).notify(NotifyType.INVALID_MAJOR_VERSION)
    octets[17], octets[19] = 0x30, octets[19] | 0x20
    assert receive(pair, bytes(octets)) == []


# --- ESP


def test_unknown_esp_of_a_peer_is_told_over_its_ike_sa_and_seldom() -> None:
    pair, _ = established()
    for number in range(5):
        pair.right.engine.note_unknown_esp(bytes((1, 2, 3, number)), pair.right.path, pair.now)
    pair.run(1)
    told = [r.summary for r in pair.left.trace if "INVALID_SPI" in r.summary]
    assert len(told) == 1
    assert_in_sync(pair, children=1)


def test_unknown_esp_of_a_stranger_is_told_without_protection() -> None:
    pair, _ = established()
    pair.right.engine.note_unknown_esp(b"\1\2\3\4", STRANGER, pair.now)
    (hint,) = pair.right.engine.datagrams_to_send(pair.now)
    told = Message.parse(hint.data)
    assert hint.path == STRANGER
    assert (told.exchange, told.is_response, told.is_initiator) == (INFORMATIONAL, False, True)
    notify = told.notify(NotifyType.INVALID_SPI)
    assert notify is not None
    assert notify.data == b"\1\2\3\4"
    for _ in range(50):
        pair.right.engine.note_unknown_esp(b"\1\2\3\4", STRANGER, pair.now)
    assert len(pair.right.engine.datagrams_to_send(pair.now)) < SETTINGS.invalid_spi_answers_per_s


def test_esp_of_a_child_whose_grant_is_under_way_is_no_stray() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.right), 1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(0.3)
    (new,) = [c for c in pair.right.children.values() if c.spi_out not in pair.left.children]
    pair.left.engine.note_unknown_esp(new.spi_out, pair.left.path, pair.now)
    pair.run(0.3)
    assert not any("INVALID_SPI" in record.summary for record in pair.right.trace)


@pytest.mark.parametrize("data", [b"", b"\1\2\3", b"\1\2\3\4\5"])
def test_what_is_no_spi_is_not_told(data: bytes) -> None:
    pair, _ = new_pair()
    pair.right.engine.note_unknown_esp(data, STRANGER, pair.now)
    assert pair.right.engine.datagrams_to_send(pair.now) == []


def hint(pair: Pair, spi: bytes, address: str = RIGHT_ADDRESS, *, is_response: bool = False) -> int:
    """INVALID_SPI arrives at the left end; how many requests that brings about."""
    before = len([r for r in pair.left.trace if r.direction.value == "sent"])
    data = stray(NotifyPayload(NotifyType.INVALID_SPI, spi), spi_i=NO_SPI, is_response=is_response)
    path = Path((LEFT_ADDRESS, 500), (address, 500))
    pair.left.engine.receive_datagram(data, path, pair.now)
    pair.run(1.5)
    return len([r for r in pair.left.trace if r.direction.value == "sent"]) - before


def test_hint_of_a_child_that_we_send_on_makes_us_ask_for_a_sign_of_life() -> None:
    pair, _ = established()
    spi_out = only_child(pair.left).spi_out
    assert hint(pair, spi_out) == 1
    assert hint(pair, b"\1\2\3\4") == 0
    assert hint(pair, spi_out, "203.0.113.9") == 0
    assert hint(pair, spi_out, is_response=True) == 0
    assert_in_sync(pair, children=1)


def test_hints_are_limited() -> None:
    pair, _ = established()
    data = stray(NotifyPayload(NotifyType.INVALID_SPI, only_child(pair.left).spi_out))
    for _ in range(20):
        pair.left.engine.receive_datagram(data, pair.left.path, pair.now)
        pair.run(0.1)
    assert len([r for r in pair.left.trace if r.summary.startswith("INFORMATIONAL request")]) <= 3


def test_peer_that_has_forgotten_everything_is_noticed_at_once() -> None:
    pair, _ = established()
    spi_out = only_child(pair.left).spi_out
    pair.restart(pair.right, [])
    pair.right.engine.note_unknown_esp(spi_out, pair.right.path, pair.now)
    pair.run(150)
    assert pair.left.last(IkeSaClosed).reason is CloseReason.PEER_NOT_RESPONDING


# --- those that linger


def test_closed_ike_sas_linger_in_a_bounded_number() -> None:
    settings = replace(SETTINGS, max_lingering=3, max_sessions_per_identity=100)
    pair, _ = new_pair(settings=settings)
    for _ in range(6):
        session = pair.initiate()
        pair.run(0.5)
        pair.left.engine.delete_ike_sa(session, pair.now)
        pair.run(0.5)
    assert len(pair.right.engine._host.ike_sas()) == 3
    assert len(pair.left.engine._host.ike_sas()) <= 3
    pair.run(40)
    for side in (pair.left, pair.right):
        assert side.engine._host.ike_sas() == ()
        assert side.engine._host._over == {}
        assert side.engine.next_deadline() is None


def test_session_goes_on_when_its_replaced_ike_sa_may_not_linger() -> None:
    settings = replace(SETTINGS, max_lingering=1)
    pair, tap = established(settings=settings)
    for _ in range(4):
        tap.hold(message(sent_by=pair.right, exchange=INFORMATIONAL), 1)
        pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
        pair.run(5)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(10)
    assert_in_sync(pair, children=2)


def test_what_was_in_flight_on_a_closed_ike_sa_is_sent_again_once() -> None:
    heard: list[bytes] = []

    def informational(session: int, notifies: tuple[NotifyPayload, ...]) -> tuple[NotifyPayload, ...]:
        heard.extend(notify.data for notify in notifies)
        return ()

    settings = replace(SETTINGS, max_lingering=1)
    pair, tap = established(settings=settings, right_options={"informational": informational})
    tap.hold(message(sent_by=pair.left, exchange=INFORMATIONAL, is_response=False), 1)
    pair.left.engine.send_notify(pair.left.session, (NotifyPayload(51138, b"once"),), pair.now)
    pair.run(0.1)
    pair.right.engine.rekey_ike_sa(pair.right.session, pair.now)
    pair.run(0.5)
    assert heard == [b"once"]
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(5)
    assert heard == [b"once"]
    assert_in_sync(pair, children=1)


def test_delete_that_may_not_linger_frees_the_session() -> None:
    """Another IKE SA ends while the Delete of a replaced one has no answer yet."""
    settings = replace(SETTINGS, max_lingering=1, max_sessions_per_identity=4)
    pair, tap = established(settings=settings)
    first = pair.left.session
    tap.hold(message(sent_by=pair.right, exchange=INFORMATIONAL))
    pair.left.engine.rekey_ike_sa(first, pair.now)
    pair.run(0.3)
    second = pair.initiate()
    pair.run(0.3)
    pair.left.engine.delete_ike_sa(second, pair.now)
    pair.left.engine.create_child(first, "net", pair.now)
    pair.run(2)
    assert len(pair.left.children) == 2
    assert pair.left.engine.counters[DropReason.MALFORMED] == 0
