"""Both ends act at once (RFC 7296 2.8.1, 2.8.2, 2.25), on virtual time with chosen nonces."""

import pytest

from ike import ChildSaClosed, ChildSaEstablished, CloseReason, IkeSaClosed, IkeSaRekeyed, Path
from ike.exchanges.rekey_ike import RekeyIkeSa
from ike.numbers import ExchangeType
from ike.states import IkeSaState
from ike.testing.pair import Pair, Side
from tests.ike.engine_kit import assert_in_sync, established, message, nonce, only_child

CREATE = ExchangeType.CREATE_CHILD_SA
INFORMATIONAL = ExchangeType.INFORMATIONAL


def reasons(side: Side) -> list[CloseReason]:
    return [event.reason for event in side.all(ChildSaClosed)]


def rekey_child_on_both(pair: Pair) -> None:
    for side in (pair.left, pair.right):
        side.engine.rekey_child(side.session, only_child(side).spi_in, pair.now)


def rekey_ike_on_both(pair: Pair) -> None:
    for side in (pair.left, pair.right):
        side.engine.rekey_ike_sa(side.session, pair.now)


def sent(side: Side, text: str) -> int:
    return sum(text in record.summary for record in side.trace if record.direction.value == "sent")


# Who draws the lowest of the four nonces: (left as initiator, left as responder, right as …, right as …).
NONCES = [
    pytest.param((1, 5, 6, 7), "left", id="initiator left"),
    pytest.param((5, 6, 7, 1), "left", id="left's exchange, responder right"),
    pytest.param((5, 6, 1, 7), "right", id="initiator right"),
    pytest.param((5, 1, 6, 7), "right", id="right's exchange, responder left"),
]


@pytest.mark.parametrize(("nonces", "loser"), NONCES)
def test_lowest_nonce_loses_when_both_rekey_child(nonces: tuple[int, int, int, int], loser: str) -> None:
    pair, _ = established()
    pair.left.entropy.queue(nonce(nonces[0]), nonce(nonces[1]))
    pair.right.entropy.queue(nonce(nonces[2]), nonce(nonces[3]))
    rekey_child_on_both(pair)
    pair.run(5)
    assert_in_sync(pair, children=1)
    losing, winning = (pair.left, pair.right) if loser == "left" else (pair.right, pair.left)
    assert reasons(losing).count(CloseReason.REDUNDANT) == 1
    assert only_child(winning).is_creator
    assert min(nonce(number) for number in nonces) != only_child(winning).lowest_nonce
    for side in (losing, winning):
        assert sent(side, "request") - sent(side, "IKE_SA_INIT") - sent(side, "IKE_AUTH") <= 3
        assert sorted(reasons(side)) == [CloseReason.REDUNDANT, CloseReason.REKEYED]


def test_a_nonce_that_ends_first_is_the_lower_one() -> None:
    from ike.states import is_redundant

    assert is_redundant((b"\x01" * 16,), (b"\x01" * 17,))
    assert not is_redundant((b"\x01" * 17,), (b"\x01" * 16,))


def test_rekey_that_the_peer_never_saw_ends_with_child_sa_not_found() -> None:
    """RFC 7296 2.8.1, the second drawing: left's request is lost until right is done."""
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=CREATE, is_response=False))
    rekey_child_on_both(pair)
    pair.run(0.5)
    assert_in_sync(pair, children=1)
    survivor = only_child(pair.right).spi_in
    tap.release(pair)
    pair.run(5)
    assert sent(pair.right, "CHILD_SA_NOT_FOUND") == 1
    assert_in_sync(pair, children=1)
    assert only_child(pair.right).spi_in == survivor


def test_rekey_request_that_arrives_while_the_peer_deletes_is_put_off_and_then_forgotten() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=CREATE, is_response=False))
    tap.hold(message(sent_by=pair.left, exchange=INFORMATIONAL, is_response=True))
    rekey_child_on_both(pair)
    pair.run(0.2)
    held, tap.held = tap.held, []
    request = held[0]
    pair.right.engine.receive_datagram(request.data, request.path, pair.now)
    pair.flush()
    assert sent(pair.right, "TEMPORARY_FAILURE") == 1
    tap.open()
    pair.run(60)
    assert_in_sync(pair, children=1)


def test_late_answer_to_a_rekey_still_counts_its_nonces() -> None:
    """Left's rekey is answered, but the answer comes after right's rekey and its Delete."""
    pair, tap = established()
    pair.left.entropy.queue(nonce(1), nonce(5))
    pair.right.entropy.queue(nonce(6), nonce(7))
    tap.hold(message(sent_by=pair.right, exchange=CREATE, is_response=True), count=1)
    rekey_child_on_both(pair)
    pair.run(0.3)
    tap.release(pair)
    pair.run(5)
    assert_in_sync(pair, children=1)
    assert CloseReason.REDUNDANT in reasons(pair.left)


def test_delete_of_a_child_that_the_peer_deletes_too_is_answered_without_delete() -> None:
    pair, _ = established()
    for side in (pair.left, pair.right):
        side.engine.delete_child(side.session, only_child(side).spi_in, pair.now)
    pair.run(5)
    assert_in_sync(pair, children=0)
    for side in (pair.left, pair.right):
        assert sent(side, "INFORMATIONAL response 0 {}") + sent(side, "INFORMATIONAL response 3 {}") == 1


def test_rekey_of_a_child_that_the_peer_is_deleting_is_put_off() -> None:
    pair, _ = established()
    pair.left.engine.delete_child(pair.left.session, only_child(pair.left).spi_in, pair.now)
    pair.right.engine.rekey_child(pair.right.session, only_child(pair.right).spi_in, pair.now)
    pair.run(60)
    assert sent(pair.left, "TEMPORARY_FAILURE") == 1
    assert sent(pair.left, "D(ESP") == 1
    assert_in_sync(pair, children=0)


def test_lost_delete_crosses_a_rekey() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=INFORMATIONAL, is_response=False), count=1)
    pair.left.engine.delete_child(pair.left.session, only_child(pair.left).spi_in, pair.now)
    pair.right.engine.rekey_child(pair.right.session, only_child(pair.right).spi_in, pair.now)
    pair.run(60)
    assert_in_sync(pair, children=0)


def test_rekey_of_a_child_that_is_unknown_makes_a_new_one() -> None:
    """Right forgot the child without a word: left drops its half silently and asks for another."""
    pair, _ = established()
    host = pair.right.engine._host
    host.sessions[pair.right.session].children.close(only_child(pair.right).spi_in, CloseReason.LIFETIME)
    lost = only_child(pair.left).spi_in
    pair.left.engine.rekey_child(pair.left.session, lost, pair.now)
    pair.run(5)
    assert pair.left.all(ChildSaClosed)[-1].reason is CloseReason.NOT_FOUND_BY_PEER
    assert sent(pair.left, "D(ESP") == 0
    assert_in_sync(pair, children=1)


@pytest.mark.parametrize(("nonces", "loser"), NONCES)
def test_lowest_nonce_loses_when_both_rekey_ike_sa(nonces: tuple[int, int, int, int], loser: str) -> None:
    pair, _ = established()
    pair.left.entropy.queue(nonce(nonces[0]), nonce(nonces[1]))
    pair.right.entropy.queue(nonce(nonces[2]), nonce(nonces[3]))
    child = only_child(pair.left).spi_in
    rekey_ike_on_both(pair)
    pair.run(5)
    assert_in_sync(pair, children=1)
    assert only_child(pair.left).spi_in == child
    losing, winning = (pair.left, pair.right) if loser == "left" else (pair.right, pair.left)
    assert winning.engine.sessions()[0].is_initiator
    assert not losing.engine.sessions()[0].is_initiator
    for side in (losing, winning):
        assert len(side.all(IkeSaRekeyed)) == 1
        assert not side.all(IkeSaClosed)
        assert sent(side, "D(IKE)") == 1
        pair.run(60)
        assert len(side.engine._host._ike_sas) == 1
        side.engine.create_child(side.session, "net", pair.now)
    pair.run(5)
    assert_in_sync(pair, children=3)


def test_ike_rekey_that_the_peer_never_saw_is_forgotten_with_the_old_ike_sa() -> None:
    """RFC 7296 2.8.2, the drawing: right gets the Delete before its own request arrives."""
    pair, tap = established()
    tap.hold(message(sent_by=pair.right, exchange=CREATE, is_response=False))
    rekey_ike_on_both(pair)
    pair.run(0.5)
    assert_in_sync(pair, children=1)
    tap.release(pair)
    pair.run(5)
    assert_in_sync(pair, children=1)
    assert len(pair.left.all(IkeSaRekeyed)) == len(pair.right.all(IkeSaRekeyed)) == 1


def test_late_ike_rekey_request_after_ours_is_done_gets_temporary_failure() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.right, exchange=CREATE, is_response=False))
    tap.hold(message(sent_by=pair.right, exchange=INFORMATIONAL, is_response=True))
    rekey_ike_on_both(pair)
    pair.run(0.3)
    request = tap.held[0]
    pair.left.engine.receive_datagram(request.data, request.path, pair.now)
    pair.flush()
    assert sent(pair.left, "TEMPORARY_FAILURE") == 1
    tap.open()
    pair.run(30)
    assert_in_sync(pair, children=1)


@pytest.mark.parametrize("command", ["create", "rekey", "delete"])
def test_ike_rekey_is_put_off_while_the_peer_is_busy_with_a_child(command: str) -> None:
    pair, _ = established()
    left = pair.left.engine
    spi = only_child(pair.left).spi_in
    match command:
        case "create":
            left.create_child(pair.left.session, "net", pair.now)
        case "rekey":
            left.rekey_child(pair.left.session, spi, pair.now)
        case "delete":
            left.delete_child(pair.left.session, spi, pair.now)
    pair.right.engine.rekey_ike_sa(pair.right.session, pair.now)
    pair.run(1)
    assert sent(pair.left, "TEMPORARY_FAILURE") == 1
    pair.run(60)
    assert_in_sync(pair, children={"create": 2, "rekey": 1, "delete": 0}[command])
    assert len(pair.right.all(IkeSaRekeyed)) == 1


@pytest.mark.parametrize("command", ["create", "rekey"])
def test_child_requests_are_put_off_while_we_rekey_the_ike_sa(command: str) -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=CREATE, is_response=False), count=1)
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.flush()
    if command == "create":
        pair.right.engine.create_child(pair.right.session, "net", pair.now)
    else:
        pair.right.engine.rekey_child(pair.right.session, only_child(pair.right).spi_in, pair.now)
    pair.run(0.1)
    assert sent(pair.left, "TEMPORARY_FAILURE") == 1
    pair.run(60)
    assert_in_sync(pair, children=2 if command == "create" else 1)
    assert len(pair.left.all(IkeSaRekeyed)) == 1


def test_delete_of_a_child_is_answered_while_we_rekey_the_ike_sa() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=CREATE, is_response=False), count=1)
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.flush()
    pair.right.engine.delete_child(pair.right.session, only_child(pair.right).spi_in, pair.now)
    pair.run(0.1)
    assert sent(pair.left, "INFORMATIONAL response 0 {D(ESP") == 1
    pair.run(60)
    assert_in_sync(pair, children=0)


def test_delete_of_the_ike_sa_ends_our_rekey_of_it() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=CREATE, is_response=False))
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.flush()
    pair.right.engine.delete_ike_sa(pair.right.session, pair.now)
    pair.run(60)
    for side in (pair.left, pair.right):
        assert len(side.all(IkeSaClosed)) == 1
        assert not side.engine.sessions()
        assert not side.engine._host._ike_sas
        assert not side.children


def test_both_delete_the_ike_sa() -> None:
    pair, _ = established()
    for side in (pair.left, pair.right):
        side.engine.delete_ike_sa(side.session, pair.now)
    pair.run(60)
    for side in (pair.left, pair.right):
        assert [event.reason for event in side.all(IkeSaClosed)] == [CloseReason.DELETED_LOCALLY]
        assert not side.engine._host._ike_sas
        assert side.engine.next_deadline() is None


def test_peer_that_says_temporary_failure_for_minutes_is_given_up() -> None:
    pair, _ = established()
    right = pair.right.engine._host.sessions[pair.right.session]
    right.children[only_child(pair.right).spi_in].is_deleting = True
    pair.left.engine.rekey_child(pair.left.session, only_child(pair.left).spi_in, pair.now)
    pair.run(170)
    assert not pair.left.all(IkeSaClosed)
    pair.run(60)
    assert pair.left.all(IkeSaClosed)[-1].reason is CloseReason.OUT_OF_SYNC
    assert pair.right.all(IkeSaClosed)[-1].reason is CloseReason.DELETED_BY_PEER


def test_responder_of_a_rekey_keeps_sending_on_the_old_child() -> None:
    pair, _ = established()
    old = only_child(pair.left)
    pair.left.engine.rekey_child(pair.left.session, old.spi_in, pair.now)
    pair.run(5)
    ours, theirs = pair.left.last(ChildSaEstablished), pair.right.last(ChildSaEstablished)
    assert (ours.replaces, ours.use_outbound) == (old.spi_in, True)
    assert (theirs.replaces, theirs.use_outbound) == (old.spi_out, False)
    assert ours.child.local_ts == old.local_ts


def test_redundant_ike_sa_that_went_before_our_answer_came_does_not_stop_the_survivor() -> None:
    """Right has compared the nonces and deleted its own, while the answer to left's rekey is still on its way."""
    pair, tap = established()
    pair.left.entropy.queue(nonce(5), nonce(6))
    pair.right.entropy.queue(nonce(1), nonce(7))
    tap.hold(message(sent_by=pair.right, exchange=CREATE, is_response=True), count=1)
    rekey_ike_on_both(pair)
    pair.run(0.5)
    tap.release(pair)
    pair.run(5)
    assert_in_sync(pair, children=1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(5)
    assert_in_sync(pair, children=2)


def test_redundant_ike_sa_that_the_peer_rekeys_does_not_push_the_survivor_aside() -> None:
    """Right has to delete it (RFC 7296 2.8.1), and asks on it for another one instead."""
    pair, tap = established()
    pair.left.entropy.queue(nonce(5), nonce(6))
    pair.right.entropy.queue(nonce(1), nonce(7))
    rekey_ike_on_both(pair)
    tap.hold(message(sent_by=pair.right, exchange=INFORMATIONAL, is_response=False))
    pair.run(0.5)
    right = pair.right.engine._host.sessions[pair.right.session]
    redundant = next(sa for sa in right.others if sa.state is IkeSaState.DELETING)
    asked = RekeyIkeSa()
    redundant.sender.send_request(asked, asked.request(redundant, pair.now) or (), pair.now)
    pair.run(0.5)
    assert sent(pair.left, "TEMPORARY_FAILURE") == 1
    assert len(pair.left.all(IkeSaRekeyed)) == 1
    tap.release(pair)
    pair.run(60)
    assert_in_sync(pair, children=1)
    for side in (pair.left, pair.right):
        assert len(side.engine._host._ike_sas) == 1


def test_child_that_is_deleted_before_its_grant_arrives_is_closed_at_once() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.right, exchange=CREATE, is_response=True), count=1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(0.1)
    new = pair.right.last(ChildSaEstablished).child
    pair.right.engine.delete_child(pair.right.session, new.spi_in, pair.now)
    pair.run(0.1)
    tap.release(pair)
    pair.run(5)
    assert pair.left.last(ChildSaClosed).spi_out == new.spi_in
    assert_in_sync(pair, children=1)


def test_rekey_of_a_child_whose_grant_has_not_arrived_is_put_off() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.right, exchange=CREATE, is_response=True), count=1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(0.1)
    new = pair.right.last(ChildSaEstablished).child
    pair.right.engine.rekey_child(pair.right.session, new.spi_in, pair.now)
    pair.run(0.1)
    assert sent(pair.left, "TEMPORARY_FAILURE") == 1
    tap.release(pair)
    pair.run(30)
    assert_in_sync(pair, children=2)


def test_nothing_is_made_by_an_answer_that_comes_after_the_end() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.right, exchange=CREATE, is_response=True), count=1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(0.1)
    pair.left.engine.delete_ike_sa(pair.left.session, pair.now)
    pair.flush()
    assert isinstance(pair.left.events[-1], IkeSaClosed)
    tap.release(pair)
    pair.run(60)
    assert isinstance(pair.left.events[-1], IkeSaClosed)
    assert pair.right.last(IkeSaClosed).reason is CloseReason.DELETED_BY_PEER
    for side in (pair.left, pair.right):
        assert not side.engine._host._ike_sas
        assert not side.engine._host._child_spis


def test_ike_rekey_of_ours_fails_and_the_peers_new_ike_sa_is_gone_already() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=CREATE, is_response=False))
    tap.hold(message(sent_by=pair.right, exchange=INFORMATIONAL, is_response=False), count=1)
    rekey_ike_on_both(pair)
    pair.run(0.2)
    request = tap.held[0]
    pair.right.engine.receive_datagram(request.data, request.path, pair.now)
    (refusal,) = pair.right.engine.datagrams_to_send(pair.now)
    pair.right.engine.delete_ike_sa(pair.right.session, pair.now)
    pair.run(0.2)
    assert not pair.left.all(IkeSaClosed)
    pair.left.engine.receive_datagram(refusal.data, Path(refusal.path.peer, refusal.path.local), pair.now)
    pair.run(60)
    assert pair.left.last(IkeSaClosed).reason is CloseReason.DELETED_BY_PEER
    assert not pair.left.engine._host._ike_sas
