"""IKE_SA_INIT: retries, cookies, NAT detection, answers that anybody may forge (RFC 7296 1.2, 2.6, 2.21.1, 2.23)."""

from dataclasses import replace

import pytest

from ike import (
    Datagram,
    DropReason,
    EngineSettings,
    FailureReason,
    IkeSaEstablished,
    IkeSaFailed,
    LocalError,
    Message,
    NotifyPayload,
    Path,
    parse_ike_proposal,
)
from ike.numbers import ExchangeType, NotifyType
from ike.testing.pair import LEFT_ADDRESS, RIGHT_ADDRESS, Pair, Side
from ike.wire.message import NO_SPI, Header
from ike.wire.payloads import KePayload, NoncePayload, SaPayload
from tests.ike.engine_kit import SETTINGS, assert_in_sync, established, message, new_pair, only_child

INIT = ExchangeType.IKE_SA_INIT


def summaries(side: Side, direction: str = "sent") -> list[str]:
    return [record.summary for record in side.trace if record.direction.value == direction]


def init_error(request: Datagram, *notifies: NotifyPayload, spi_r: bytes = NO_SPI) -> Datagram:
    """An answer to the initiator's request, as anybody on the path may send it."""
    header = Header.parse(request.data)
    answer = Message(header.spi_i, spi_r, INIT, False, True, 0, notifies)
    return Datagram(answer.encode(), Path(request.path.peer, request.path.local))


def inject(pair: Pair, datagram: Datagram) -> None:
    side = pair.left if datagram.path.local[0] == LEFT_ADDRESS else pair.right
    side.engine.receive_datagram(datagram.data, datagram.path, pair.now)
    pair.flush()


def test_ike_sa_is_established_childless_when_the_responder_offers_it() -> None:
    pair, _ = new_pair()
    pair.initiate()
    pair.run(1)
    assert_in_sync(pair, children=0)
    left, right = pair.left.last(IkeSaEstablished), pair.right.last(IkeSaEstablished)
    assert (left.is_opener, left.is_initiator, right.is_opener, right.is_initiator) == (
        True,
        True,
        False,
        False,
    )
    assert (left.local_id, left.peer_id) == (right.peer_id, right.local_id)
    assert left.peer_id.text() == "right.example"
    assert not left.udp_encapsulation
    assert "TSi" not in "".join(summaries(pair.left))


def test_initiate_knows_only_its_connections() -> None:
    pair, _ = new_pair()
    with pytest.raises(LocalError, match="nobody"):
        pair.initiate("nobody")
    with pytest.raises(LocalError):
        pair.left.engine.delete_ike_sa(1, 0.0)


def test_ke_is_retried_in_the_group_that_the_responder_names() -> None:
    pair, _ = new_pair(
        left={"ike_proposals": (parse_ike_proposal("aes256gcm16-prfsha256-x25519-ecp384"),)},
        right={"ike_proposals": (parse_ike_proposal("aes256gcm16-prfsha256-ecp384"),)},
    )
    pair.initiate()
    pair.run(1)
    assert_in_sync(pair)
    assert "INVALID_KE_PAYLOAD" in summaries(pair.right)[0]
    assert pair.right.engine.counters[DropReason.INTEGRITY] == 0


def test_responder_that_wants_a_group_we_did_not_offer_is_not_followed() -> None:
    pair, tap = new_pair()
    tap.hold(message(sent_by=pair.right))
    pair.initiate()
    pair.run(0.1)
    request = tap.seen[0]
    tap.held.clear()
    for group in (19, 31, 0, 65535):
        data = group.to_bytes(2, "big")
        inject(pair, init_error(request, NotifyPayload(NotifyType.INVALID_KE_PAYLOAD, data)))
    assert sum("IKE_SA_INIT" in line for line in summaries(pair.left)) == 1
    assert pair.left.engine.counters[DropReason.UNAUTHENTICATED_ERROR] == 4


def test_no_proposal_chosen_is_reported_when_the_timer_ends() -> None:
    pair, _ = new_pair(right={"ike_proposals": (parse_ike_proposal("aes128gcm16-prfsha256-x25519"),)})
    pair.initiate()
    pair.run(5)
    assert not pair.left.events
    pair.run(300)
    failed = pair.left.last(IkeSaFailed)
    assert failed.reason is FailureReason.NO_PROPOSAL_CHOSEN
    assert "NO_PROPOSAL_CHOSEN" in failed.detail
    assert not pair.left.engine.sessions()
    assert not pair.right.engine._host._ike_sas


def test_silence_is_reported_as_such() -> None:
    pair, tap = new_pair()
    tap.hold(message(sent_by=pair.left))
    pair.initiate()
    pair.run(300)
    assert pair.left.last(IkeSaFailed).reason is FailureReason.NO_ANSWER
    assert len(tap.seen) == 8
    assert len({datagram.data for datagram in tap.seen}) == 1


def test_unknown_address_gets_no_proposal_chosen() -> None:
    pair, _ = new_pair(right={"peer_addresses": ("198.51.100.7",)})
    pair.initiate()
    pair.run(0.5)
    assert pair.right.engine.counters[DropReason.NO_CONNECTION] >= 1
    assert pair.left.engine.counters[DropReason.UNAUTHENTICATED_ERROR] >= 1


def test_forged_refusals_do_not_stop_the_handshake() -> None:
    """Errors, a cookie and a group arrive before the genuine answer (RFC 7296 2.21.1, 2.4)."""
    forgeries = [
        (NotifyPayload(NotifyType.NO_PROPOSAL_CHOSEN),),
        (NotifyPayload(NotifyType.INVALID_SYNTAX),),
        (NotifyPayload(NotifyType.AUTHENTICATION_FAILED),),
        (NotifyPayload(NotifyType.INVALID_MAJOR_VERSION),),
        (NotifyPayload(NotifyType.INVALID_KE_PAYLOAD, b"\x00\x13"),),
        (NotifyPayload(NotifyType.INVALID_KE_PAYLOAD, b""),),
        (NotifyPayload(NotifyType.COOKIE, b"of nobody"),),
        (NotifyPayload(NotifyType.COOKIE, bytes(65)),),
        (NotifyPayload(4711),),
        (),
    ]
    for notifies in forgeries:
        pair, tap = new_pair()
        tap.hold(message(sent_by=pair.right, exchange=INIT), count=1)
        pair.initiate()
        pair.flush()
        inject(pair, init_error(tap.seen[0], *notifies))
        pair.run(0.015)
        tap.release(pair)
        pair.run(10)
        assert_in_sync(pair)
        pair.left.engine.check_liveness(pair.left.session, pair.now)
        pair.run(1)
        assert not pair.left.all(IkeSaFailed)


def test_forged_complete_answer_does_not_stop_the_handshake() -> None:
    """Someone on the path answers with an SA of its own before the responder does."""
    mallory, _ = new_pair()
    pair, tap = new_pair()
    tap.hold(message(sent_by=pair.right, exchange=INIT), count=1)
    pair.initiate()
    pair.flush()
    mallory.right.engine.receive_datagram(
        tap.seen[0].data, Path(tap.seen[0].path.local, tap.seen[0].path.peer), 0.0
    )
    (forged,) = mallory.right.engine.datagrams_to_send(0.0)
    assert Header.parse(forged.data).spi_r != NO_SPI
    inject(pair, Datagram(forged.data, Path(tap.seen[0].path.peer, tap.seen[0].path.local)))
    pair.run(0.015)
    tap.release(pair)
    pair.run(10)
    assert_in_sync(pair)
    assert len(pair.left.all(IkeSaEstablished)) == 1
    assert len(pair.left.engine._host._ike_sas) == 1


def test_duplicated_answer_is_followed_once() -> None:
    pair, tap = new_pair()
    tap.hold(message(sent_by=pair.left, exchange=ExchangeType.IKE_AUTH))
    pair.initiate()
    pair.run(0.03)
    answer = tap.seen[1]
    for _ in range(3):
        inject(pair, answer)
    assert sum("IKE_AUTH" in line for line in summaries(pair.left)) == 1
    assert len(tap.held) == 1


def test_at_most_a_few_answers_are_followed() -> None:
    pair, tap = new_pair()
    tap.hold(message(sent_by=pair.right))
    pair.initiate()
    pair.run(0.03)
    answer = Message.parse(tap.held[0].data)
    for number in range(20):
        forged = replace(answer, spi_r=bytes([number + 1]) * 8)
        inject(pair, Datagram(forged.encode(), tap.held[0].path))
    assert sum("IKE_AUTH" in line for line in summaries(pair.left)) == 4
    assert len(pair.left.engine._host._ike_sas) == 5


def test_endless_cookies_are_followed_a_few_times_only() -> None:
    pair, tap = new_pair()
    tap.hold(message(sent_by=pair.left))
    pair.initiate()
    pair.run(0.1)
    for number in range(50):
        inject(pair, init_error(tap.seen[0], NotifyPayload(NotifyType.COOKIE, bytes([number + 1]))))
    assert sum("IKE_SA_INIT request" in line for line in summaries(pair.left)) == SETTINGS.max_init_rounds


def test_cookie_is_demanded_above_the_threshold_and_brought() -> None:
    pair, _ = new_pair(settings=replace(SETTINGS, cookie_threshold=0))
    pair.initiate()
    pair.run(1)
    assert_in_sync(pair)
    sent = summaries(pair.left)
    assert sent[1].startswith("IKE_SA_INIT request 0 {N(COOKIE) SA KEi Ni")
    assert pair.right.engine.counters[DropReason.COOKIE_REQUIRED] == 1


def test_cookie_and_ke_retries_work_in_one_go() -> None:
    pair, _ = new_pair(
        settings=replace(SETTINGS, cookie_threshold=0),
        left={"ike_proposals": (parse_ike_proposal("aes256gcm16-prfsha256-x25519-ecp384"),)},
        right={"ike_proposals": (parse_ike_proposal("aes256gcm16-prfsha256-ecp384"),)},
    )
    pair.initiate()
    pair.run(1)
    assert_in_sync(pair)
    requests = [line for line in summaries(pair.left) if "IKE_SA_INIT" in line]
    assert len(requests) == 3, "the cookie is kept in the retry (RFC 7296 2.6.1)"


def test_wrong_cookie_is_answered_with_a_new_one_and_makes_no_state() -> None:
    pair, tap = new_pair(settings=replace(SETTINGS, cookie_threshold=0))
    tap.hold(message(sent_by=pair.right))
    pair.initiate()
    pair.run(0.1)
    request = Message.parse(tap.seen[0].data)
    forged = replace(request, payloads=(NotifyPayload(NotifyType.COOKIE, bytes(33)), *request.payloads))
    path = Path((RIGHT_ADDRESS, 500), (LEFT_ADDRESS, 500))
    pair.right.engine.receive_datagram(forged.encode(), path, pair.now)
    assert summaries(pair.right)[-1] == "IKE_SA_INIT response 0 {N(COOKIE)}"
    assert not pair.right.engine._host._ike_sas


def flood(pair: Pair, count: int) -> None:
    """Requests of initiators that never go on."""
    pair.initiate()
    pair.left.engine.datagrams_to_send(pair.now)
    for _ in range(count):
        pair.initiate()
        (datagram,) = pair.left.engine.datagrams_to_send(pair.now)
        path = Path(datagram.path.peer, datagram.path.local)
        pair.right.engine.receive_datagram(datagram.data, path, pair.now)


def test_half_open_ike_sas_are_bounded_and_go_by_themselves() -> None:
    settings = EngineSettings(cookie_threshold=1000, max_half_open=5, half_open_s=30.0)
    pair, tap = new_pair(settings=settings)
    flood(pair, 12)
    right = pair.right.engine
    assert len(right._host.half_open) == 5
    assert right.counters[DropReason.HALF_OPEN_LIMIT] == 7
    tap.hold(message(sent_by=pair.left))
    right.handle_timer(30.0)
    assert not right._host.half_open
    assert not right._host._ike_sas
    assert right.next_deadline() is None
    assert right.next_event() is None


def test_copy_of_the_init_request_gets_the_same_response_and_makes_no_state() -> None:
    pair, tap = new_pair()
    tap.hold(message(sent_by=pair.right))
    pair.initiate()
    pair.run(0.02)
    first = tap.held[-1]
    path = Path((RIGHT_ADDRESS, 500), (LEFT_ADDRESS, 500))
    for _ in range(3):
        pair.right.engine.receive_datagram(tap.seen[0].data, path, pair.now)
    again = pair.right.engine.datagrams_to_send(pair.now)
    assert [datagram.data for datagram in again] == [first.data] * 3
    assert len(pair.right.engine._host._ike_sas) == 1


def test_copy_of_the_init_request_is_ignored_once_authenticated() -> None:
    pair, tap = new_pair()
    pair.initiate()
    pair.run(1)
    path = Path((RIGHT_ADDRESS, 500), (LEFT_ADDRESS, 500))
    pair.right.engine.receive_datagram(tap.seen[0].data, path, pair.now)
    assert pair.right.engine.datagrams_to_send(pair.now) == []
    assert pair.right.engine.counters[DropReason.OLD_RETRANSMISSION] == 1


def test_two_initiators_with_one_spi_get_an_ike_sa_each() -> None:
    """Two peers behind one NAT may choose the same SPI (RFC 7296 2.1)."""
    pair, tap = new_pair()
    other, other_tap = new_pair(seed="other")
    for each, each_tap in ((pair, tap), (other, other_tap)):
        each_tap.hold(message(sent_by=each.right))
        each.initiate()
        each.run(0.005)
    first, second = Message.parse(tap.seen[0].data), Message.parse(other_tap.seen[0].data)
    twin = replace(second, spi_i=first.spi_i).encode()
    path = Path((RIGHT_ADDRESS, 500), (LEFT_ADDRESS, 500))
    pair.right.engine.receive_datagram(tap.seen[0].data, path, 0.0)
    pair.right.engine.receive_datagram(twin, path, 0.0)
    assert len(pair.right.engine._host._ike_sas) == 2


@pytest.mark.parametrize("who", ["left", "right"])
def test_force_udp_moves_both_ends_to_4500_and_encapsulates(who: str) -> None:
    options = {"left": {"force_udp": who == "left"}, "right": {"force_udp": who == "right"}}
    pair, tap = new_pair(**options)  # type: ignore[arg-type]
    pair.initiate()
    pair.run(1)
    assert_in_sync(pair)
    for side in (pair.left, pair.right):
        event = side.last(IkeSaEstablished)
        assert event.udp_encapsulation
        assert (event.path.local[1], event.path.peer[1]) == (4500, 4500)
    ports = [(datagram.path.peer[1], datagram.path.local[1]) for datagram in tap.seen]
    assert ports == [(500, 500)] * 2 + [(4500, 4500)] * 2
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    assert only_child(pair.right).udp_encapsulation
    assert only_child(pair.right).path == pair.right.last(IkeSaEstablished).path


def test_forbid_udp_sends_no_nat_detection() -> None:
    pair, _ = new_pair(left={"forbid_udp": True, "force_udp": True})
    pair.initiate()
    pair.run(1)
    assert_in_sync(pair)
    assert "NAT_DETECTION" not in "".join(summaries(pair.left) + summaries(pair.right))
    assert pair.left.last(IkeSaEstablished).path.local[1] == 500


def test_ike_may_start_on_4500() -> None:
    pair, _ = new_pair(port=4500)
    pair.initiate()
    pair.run(1)
    assert pair.left.last(IkeSaEstablished).path.local[1] == 4500
    assert not pair.left.last(IkeSaEstablished).udp_encapsulation


def test_answers_with_what_was_not_proposed_are_not_followed() -> None:
    pair, tap = new_pair()
    tap.hold(message(sent_by=pair.right))
    pair.initiate()
    pair.run(0.1)
    genuine = Message.parse(tap.held[0].data)
    for payloads in (
        (SaPayload((parse_ike_proposal("aes128gcm16-prfsha256-x25519"),)), *genuine.payloads[1:]),
        (genuine.payloads[0], KePayload(31, bytes(32)), *genuine.payloads[2:]),
        (genuine.payloads[0], KePayload(19, bytes(64)), *genuine.payloads[2:]),
        (genuine.payloads[0], KePayload(31, b"short"), *genuine.payloads[2:]),
    ):
        answer = replace(genuine, payloads=payloads).encode()
        inject(pair, Datagram(answer, tap.held[0].path))
    assert pair.left.engine.counters[DropReason.UNUSABLE_ANSWER] == 4
    inject(pair, Datagram(replace(genuine, payloads=(NoncePayload(bytes(16)),)).encode(), tap.held[0].path))
    assert pair.left.engine.counters[DropReason.SCHEMA] == 1
    tap.release(pair)
    pair.run(2)
    assert_in_sync(pair)


def test_initiation_can_be_called_off() -> None:
    pair, tap = new_pair()
    tap.hold(message(sent_by=pair.right))
    session = pair.initiate()
    pair.run(1)
    pair.left.engine.delete_ike_sa(session, pair.now)
    pair.flush()
    assert pair.left.last(IkeSaFailed).reason is FailureReason.CLOSED_LOCALLY
    tap.release(pair)
    pair.run(100)
    assert not pair.left.engine.sessions()
    assert not pair.left.engine._host._ike_sas


def test_unknown_spi_is_told_so_at_a_limited_rate() -> None:
    pair, tap = established()
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.flush()
    stray = tap.seen[-1]
    other, _ = new_pair(settings=replace(SETTINGS, invalid_spi_answers_per_s=2.0))
    for _ in range(20):
        other.right.engine.receive_datagram(stray.data, stray.path, 100.0)
    answers = other.right.engine.datagrams_to_send(100.0)
    assert len(answers) == 2
    answer, request = Message.parse(answers[0].data), Header.parse(stray.data)
    assert answer.notify(NotifyType.INVALID_IKE_SPI)
    assert (answer.spi_i, answer.spi_r, answer.message_id) == (
        request.spi_i,
        request.spi_r,
        request.message_id,
    )
    assert answer.is_response and not answer.is_initiator
    # It is a hint to nobody: the established pair does not believe it.
    pair.left.engine.receive_datagram(answers[0].data, Path(stray.path.peer, stray.path.local), pair.now)
    pair.run(5)
    assert_in_sync(pair, children=1)


def test_higher_major_version_is_refused() -> None:
    pair, tap = new_pair()
    tap.hold(message(sent_by=pair.left))
    pair.initiate()
    pair.run(0.1)
    data = bytearray(tap.seen[0].data)
    data[17] = 0x30
    path = Path((RIGHT_ADDRESS, 500), (LEFT_ADDRESS, 500))
    pair.right.engine.receive_datagram(bytes(data), path, 1.0)
    (answer,) = pair.right.engine.datagrams_to_send(1.0)
    assert Message.parse(answer.data).notify(NotifyType.INVALID_MAJOR_VERSION)
    data[17] = 0x10
    pair.right.engine.receive_datagram(bytes(data), path, 2.0)
    assert pair.right.engine.datagrams_to_send(2.0) == []
    assert pair.right.engine.counters[DropReason.VERSION] == 2
