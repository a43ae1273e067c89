"""MOBIKE: agreed in IKE_AUTH, moves by the opener, the other end's addresses, NATs on new paths (RFC 4555)."""

from dataclasses import replace

import pytest

from ike import (
    ChildSaEstablished,
    CloseReason,
    DropReason,
    FailureReason,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaRekeyed,
    LocalError,
    Mode,
    NotifyPayload,
    Path,
    PathRefused,
    PeerAddressChanged,
    ProbeAnswered,
)
from ike.numbers import ExchangeType, NotifyType
from ike.selectors import AddressSelector
from ike.testing.link import ImpairedLink, Nat
from ike.testing.pair import LEFT_ADDRESS, RIGHT_ADDRESS, Pair, Side
from ike.wire.message import Header, Message
from tests.ike.engine_kit import CHILD, Tap, assert_in_sync, message, new_pair, only_child

LEFT_OTHER, RIGHT_OTHER = "198.51.100.1", "203.0.113.2"
LEFT_V6, RIGHT_V6 = "2001:db8::1", "2001:db8::2"
HERE = Path((LEFT_ADDRESS, 4500), (RIGHT_ADDRESS, 4500))
THERE = Path((LEFT_OTHER, 4500), (RIGHT_ADDRESS, 4500))
INFORMATIONAL = ExchangeType.INFORMATIONAL
TUNNEL = replace(
    CHILD,
    mode=Mode.TUNNEL,
    local_ts=(AddressSelector.from_address("10.0.0.1"),),
    peer_ts=(AddressSelector.from_address("10.0.0.2"),),
)
RIGHT_TUNNEL = replace(TUNNEL, local_ts=TUNNEL.peer_ts, peer_ts=TUNNEL.local_ts)


def mobile(
    *, left: dict[str, object] | None = None, right: dict[str, object] | None = None, **options: object
) -> tuple[Pair, Tap]:
    """An IKE SA with a child that left has opened; either end has two addresses."""
    ours: dict[str, object] = {
        "mobike": True,
        "local_addresses": (LEFT_ADDRESS, LEFT_OTHER),
        "peer_addresses": (RIGHT_ADDRESS, RIGHT_OTHER),
    }
    theirs: dict[str, object] = {"mobike": True, "local_addresses": (RIGHT_ADDRESS, RIGHT_OTHER)}
    pair, tap = new_pair(
        TUNNEL,
        right_child=RIGHT_TUNNEL,
        left=ours | (left or {}),
        right=theirs | (right or {}),
        **options,  # type: ignore[arg-type]
    )
    pair.left.addresses, pair.right.addresses = {LEFT_ADDRESS, LEFT_OTHER}, {RIGHT_ADDRESS, RIGHT_OTHER}
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    tap.seen.clear()
    return pair, tap


def change(pair: Pair, path: Path = THERE) -> None:
    pair.left.engine.change_address(pair.left.session, path, pair.now)


def lose(pair: Pair, side: Side, *addresses: str) -> None:
    """These addresses are gone, and the side knows it."""
    left_over = (side.addresses or set()) - set(addresses)
    side.addresses = left_over
    side.engine.set_local_addresses(sorted(left_over), pair.now)


def path_of(side: Side) -> Path:
    return side.engine.sessions()[0].path


def esp_path(side: Side) -> Path:
    """As the owner of the engine knows it: from the events alone."""
    moves = side.all(PeerAddressChanged)
    return moves[-1].path if moves else only_child(side).path


def mirrored(path: Path) -> Path:
    return Path(path.peer, path.local)


def sent(side: Side, text: str) -> list[str]:
    return [
        record.summary for record in side.trace if record.direction.value == "sent" and text in record.summary
    ]


def assert_at(pair: Pair, path: Path) -> None:
    """Both ends have moved, IKE and ESP."""
    assert_in_sync(pair, children=1)
    assert path_of(pair.left) == esp_path(pair.left) == path
    assert path_of(pair.right) == esp_path(pair.right) == mirrored(path)
    for side in (pair.left, pair.right):
        (snapshot,) = side.engine.sessions()
        assert {child.path for child in snapshot.children} == {snapshot.path}


# --- agreeing


def test_both_ends_say_mobike_supported_and_use_port_4500_without_a_nat() -> None:
    pair, _ = mobile()
    for side in (pair.left, pair.right):
        assert sent(side, "IKE_AUTH")[0].count("MOBIKE_SUPPORTED") == 1
        assert side.last(IkeSaEstablished).is_mobile
        assert not only_child(side).udp_encapsulation
    assert_at(pair, HERE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_without_the_others_consent_there_is_no_mobike(side: str) -> None:
    options: dict[str, object] = {side: {"mobike": False}}
    pair, _ = mobile(**options)  # type: ignore[arg-type]
    assert not pair.left.last(IkeSaEstablished).is_mobile
    assert not pair.right.last(IkeSaEstablished).is_mobile
    with pytest.raises(LocalError, match="MOBIKE"):
        change(pair)


def test_additional_addresses_are_told_in_ike_auth() -> None:
    pair, _ = mobile()
    for side in (pair.left, pair.right):
        assert "ADDITIONAL_IP4_ADDRESS" in sent(side, "IKE_AUTH")[0]


def test_the_end_that_did_not_open_the_session_may_not_decide() -> None:
    pair, _ = mobile()
    with pytest.raises(LocalError):
        pair.right.engine.change_address(pair.right.session, mirrored(THERE), pair.now)


# --- a move


def test_ike_and_esp_move_and_everything_stays_up() -> None:
    pair, _ = mobile()
    change(pair)
    pair.run(2)
    assert_at(pair, THERE)
    for side in (pair.left, pair.right):
        side.engine.rekey_child(side.session, only_child(side).spi_in, pair.now)
        pair.run(2)
        side.engine.rekey_ike_sa(side.session, pair.now)
        pair.run(2)
        assert_at(pair, THERE)


def test_our_esp_moves_only_when_the_peer_has_confirmed() -> None:
    pair, tap = mobile()
    tap.hold(message(sent_by=pair.right, is_response=True), count=1)
    change(pair)
    pair.run(0.5)
    assert path_of(pair.left) == THERE, "IKE moves at once"
    assert esp_path(pair.left) == HERE
    pair.run(2)
    assert esp_path(pair.left) == THERE


def test_the_peers_esp_moves_only_after_the_return_routability_check() -> None:
    pair, tap = mobile()
    tap.hold(message(sent_by=pair.right, is_response=False))
    change(pair)
    pair.run(0.5)
    assert path_of(pair.right) == mirrored(THERE)
    assert esp_path(pair.right) == mirrored(HERE)
    assert any("COOKIE2" in summary for summary in sent(pair.right, "INFORMATIONAL request"))
    tap.release(pair)
    pair.run(0.5)
    assert esp_path(pair.right) == mirrored(THERE)


def test_no_check_is_needed_when_only_the_checking_ends_address_changes() -> None:
    pair, _ = mobile()
    path = Path((LEFT_ADDRESS, 4500), (RIGHT_OTHER, 4500))
    change(pair, path)
    pair.run(1)
    assert_at(pair, path)
    assert not sent(pair.right, "INFORMATIONAL request")


def test_a_request_in_flight_is_sent_again_on_the_new_path() -> None:
    pair, tap = mobile()
    tap.hold(message(sent_by=pair.left, is_response=False), count=1)
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(0.1)
    (lost,) = tap.held
    tap.seen.clear()
    change(pair)
    pair.run(0.005)
    again, update = tap.seen
    assert (again.data, again.path.peer) == (lost.data, THERE.local)
    assert update.path == again.path
    pair.run(2)
    assert_at(pair, THERE)


def test_a_second_move_while_the_first_is_unanswered_wins() -> None:
    pair, tap = mobile(left={"local_addresses": (LEFT_ADDRESS, LEFT_OTHER, "198.51.100.7")})
    pair.left.addresses = {LEFT_ADDRESS, LEFT_OTHER, "198.51.100.7"}
    tap.hold(message(sent_by=pair.right, is_response=True), count=1)
    change(pair)
    pair.run(0.2)
    second = Path(("198.51.100.7", 4500), (RIGHT_ADDRESS, 4500))
    change(pair, second)
    pair.run(3)
    assert_at(pair, second)
    assert [move.path for move in pair.left.all(PeerAddressChanged)] == [second]


def test_a_late_answer_to_the_first_of_two_moves_changes_nothing() -> None:
    pair, tap = mobile()
    tap.hold(message(sent_by=pair.right, is_response=True), count=1)
    change(pair)
    pair.run(0.2)
    change(pair, HERE)
    tap.release(pair)
    pair.run(3)
    assert_at(pair, HERE)
    assert not pair.left.all(PeerAddressChanged)


def test_a_move_under_loss_comes_through() -> None:
    elsewhere = 0
    for seed in range(10):
        link = ImpairedLink(seed, duplicate=0.2, reorder=0.2, reorder_s=2.0)
        pair, _ = mobile(link=link)
        link.loss = 0.3
        change(pair)
        pair.run(150)
        # Where three transmissions are lost, the others of the four paths are tried.
        assert_at(pair, path_of(pair.left))
        elsewhere += path_of(pair.left) != THERE
    assert elsewhere <= 3


def test_a_move_during_a_rekey_of_the_ike_sa() -> None:
    for hold in (True, False):
        pair, tap = mobile()
        if hold:
            tap.hold(message(sent_by=pair.right, is_response=True), count=1)
        pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
        pair.run(0.015)
        pair.left.addresses = {LEFT_OTHER}
        change(pair)
        pair.run(5)
        assert pair.left.all(IkeSaRekeyed) and pair.right.all(IkeSaRekeyed)
        assert_at(pair, THERE)


def test_a_move_while_the_peer_still_has_to_delete_the_rekeyed_ike_sa() -> None:
    pair, tap = mobile()
    tap.hold(message(sent_by=pair.right, exchange=INFORMATIONAL, is_response=False), count=1)
    pair.right.engine.rekey_ike_sa(pair.right.session, pair.now)
    pair.run(0.3)
    pair.left.addresses = {LEFT_OTHER}
    change(pair)
    pair.run(5)
    assert_at(pair, THERE)


def test_the_right_to_decide_outlives_rekeys_by_the_other_end() -> None:
    pair, _ = mobile()
    pair.right.engine.rekey_ike_sa(pair.right.session, pair.now)
    pair.run(2)
    assert not pair.left.engine.sessions()[0].is_initiator
    change(pair)
    pair.run(2)
    assert_at(pair, THERE)


def test_the_family_of_the_addresses_may_change() -> None:
    pair, _ = mobile(
        left={
            "local_addresses": (LEFT_ADDRESS, LEFT_V6),
            "peer_addresses": (RIGHT_ADDRESS, RIGHT_V6),
        },
        right={"local_addresses": (RIGHT_ADDRESS, RIGHT_V6)},
    )
    assert "ADDITIONAL_IP6_ADDRESS" in sent(pair.left, "IKE_AUTH")[0]
    pair.left.addresses, pair.right.addresses = {LEFT_ADDRESS, LEFT_V6}, {RIGHT_ADDRESS, RIGHT_V6}
    lose(pair, pair.left, LEFT_ADDRESS)
    pair.run(2)
    assert_at(pair, Path((LEFT_V6, 4500), (RIGHT_V6, 4500)))


# --- addresses that come and go


def test_the_opener_moves_when_its_address_goes() -> None:
    pair, _ = mobile()
    lose(pair, pair.left, LEFT_ADDRESS)
    pair.run(2)
    assert_at(pair, THERE)
    assert not sent(pair.left, "IKE_SA_INIT")[1:], "by an update, not by a new IKE SA"


def test_an_address_that_comes_is_told_and_moves_nobody() -> None:
    pair, _ = mobile()
    lose(pair, pair.left, LEFT_OTHER)
    pair.run(1)
    assert "NO_ADDITIONAL_ADDRESSES" in sent(pair.left, "INFORMATIONAL")[-1]
    pair.left.engine.set_local_addresses((LEFT_ADDRESS, LEFT_OTHER), pair.now)
    pair.run(1)
    assert "ADDITIONAL_IP4_ADDRESS" in sent(pair.left, "INFORMATIONAL")[-1]
    assert_at(pair, HERE)
    assert not pair.left.all(PeerAddressChanged)


def test_without_any_address_the_session_waits_for_one() -> None:
    pair, _ = mobile()
    lose(pair, pair.left, LEFT_ADDRESS, LEFT_OTHER)
    pair.run(20)
    pair.left.addresses = {LEFT_OTHER}
    pair.left.engine.set_local_addresses((LEFT_OTHER,), pair.now)
    pair.run(2)
    assert_at(pair, THERE)


def test_the_opener_follows_when_the_other_ends_address_goes() -> None:
    pair, _ = mobile()
    lose(pair, pair.right, RIGHT_ADDRESS)
    pair.run(3)
    assert_at(pair, Path((LEFT_ADDRESS, 4500), (RIGHT_OTHER, 4500)))


def test_both_ends_move_at_once() -> None:
    pair, _ = mobile()
    lose(pair, pair.left, LEFT_ADDRESS)
    lose(pair, pair.right, RIGHT_ADDRESS)
    pair.run(60)
    assert_at(pair, Path((LEFT_OTHER, 4500), (RIGHT_OTHER, 4500)))


def test_a_path_that_is_cut_is_left_after_some_retransmissions() -> None:
    """Nobody tells that the path is cut: the liveness check finds out, and which path works (RFC 4555 3.10)."""
    pair, _ = mobile(left={"liveness_s": 10.0})
    pair.link.on_path = lambda datagram: (
        ()
        if {datagram.path.local[0], datagram.path.peer[0]} == {LEFT_ADDRESS, RIGHT_ADDRESS}
        else (datagram,)
    )
    pair.run(30)
    assert_in_sync(pair, children=1)
    path = path_of(pair.left)
    assert path != HERE
    assert_at(pair, path)


def test_other_paths_are_not_tried_at_once() -> None:
    pair, tap = mobile()
    tap.hold(lambda datagram: True)
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(2)
    assert {one.path for one in tap.seen} == {mirrored(HERE)}
    pair.run(6)
    assert len({one.path for one in tap.seen}) == 4, "now all four pairs of addresses"


# --- refusals


def test_an_address_that_the_peer_does_not_permit_is_refused() -> None:
    pair, _ = mobile(right={"peer_addresses": (LEFT_ADDRESS,)})
    change(pair)
    pair.run(3)
    refused = pair.left.all(PathRefused)
    assert refused[0].path == THERE
    assert "UNACCEPTABLE_ADDRESSES" in refused[0].detail
    assert path_of(pair.left).local == (LEFT_ADDRESS, 4500)
    assert_at(pair, path_of(pair.left))


def test_after_every_path_is_refused_the_old_one_is_kept() -> None:
    pair, _ = mobile(left={"peer_addresses": (RIGHT_ADDRESS,)}, right={"peer_addresses": (LEFT_ADDRESS,)})
    change(pair)
    pair.run(3)
    assert len(pair.left.all(PathRefused)) == 1
    assert_at(pair, HERE)
    assert not pair.left.all(PeerAddressChanged)


def test_an_update_by_the_end_that_may_not_decide_is_refused() -> None:
    pair, _ = mobile()
    update = NotifyPayload(NotifyType.UPDATE_SA_ADDRESSES)
    pair.right.engine.send_notify(pair.right.session, (update,), pair.now)
    pair.run(1)
    assert "UNACCEPTABLE_ADDRESSES" in sent(pair.left, "INFORMATIONAL response")[-1]


def cookie2(message: Message, replace_by: tuple[NotifyPayload, ...]) -> Message:
    kept = [
        payload
        for payload in message.payloads
        if not (isinstance(payload, NotifyPayload) and payload.notify_type == NotifyType.COOKIE2)
    ]
    return replace(message, payloads=(*kept, *replace_by))


@pytest.mark.parametrize("wrong", [(), (NotifyPayload(NotifyType.COOKIE2, bytes(16)),)])
@pytest.mark.parametrize("liar", ["left", "right"])
def test_a_wrong_cookie2_closes_the_ike_sa(wrong: tuple[NotifyPayload, ...], liar: str) -> None:
    def rewrite(message: Message) -> tuple[Message]:
        is_answer = message.is_response and message.notify(NotifyType.COOKIE2) is not None
        return (cookie2(message, wrong) if is_answer else message,)

    options = {f"{liar}_options": {"rewrite_outgoing": rewrite}}
    pair, _ = mobile(**options)  # type: ignore[arg-type]
    change(pair)
    pair.run(3)
    honest = pair.right if liar == "left" else pair.left
    closed = honest.last(IkeSaClosed)
    assert (closed.reason, "COOKIE2" in closed.detail) == (CloseReason.PROTOCOL_ERROR, True)


@pytest.mark.parametrize("is_behind_nat", [False, True])
def test_a_message_without_update_moves_nobody_with_mobike(is_behind_nat: bool) -> None:
    """An INFORMATIONAL exchange serves to try a path (RFC 4555 3.8)."""
    pair, tap = behind_nat()[:2] if is_behind_nat else mobile()
    before = path_of(pair.right)
    tap.hold(lambda datagram: True)
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.flush()
    (request,) = tap.held
    elsewhere = Path(request.path.local, (LEFT_OTHER, 4500))
    pair.right.engine.receive_datagram(request.data, elsewhere, pair.now)
    (answer,) = pair.right.engine.datagrams_to_send(pair.now)
    assert answer.path == elsewhere
    assert path_of(pair.right) == before


def test_an_attackers_copy_of_an_update_moves_only_to_where_the_check_is_answered() -> None:
    """A copy of the update that arrives first, from elsewhere: ESP does not follow."""
    pair, tap = mobile()
    tap.hold(lambda datagram: True, count=1)
    change(pair)
    pair.flush()
    (update,) = tap.held
    victim = Path(update.path.local, ("198.51.100.99", 4500))
    pair.right.engine.receive_datagram(update.data, victim, pair.now)
    pair.run(20)
    assert esp_path(pair.right) == mirrored(HERE)
    assert all(move.path.peer[0] != "198.51.100.99" for move in pair.right.all(PeerAddressChanged))


# --- NATs


def behind_nat(**options: object) -> tuple[Pair, Tap, Nat]:
    nat = Nat(inside=LEFT_ADDRESS, outside="203.0.113.77")
    pair, tap = mobile(link=ImpairedLink(nat=nat), **options)  # type: ignore[arg-type]
    return pair, tap, nat


def test_moving_from_behind_a_nat_ends_encapsulation_and_keepalives() -> None:
    pair, tap, _ = behind_nat()
    assert only_child(pair.left).udp_encapsulation
    change(pair)
    pair.run(2)
    for side in (pair.left, pair.right):
        (child,) = side.last(PeerAddressChanged).children
        assert not child.udp_encapsulation
    tap.seen.clear()
    pair.run(100)
    assert not [one for one in tap.seen if one.is_keepalive]


def test_moving_behind_a_nat_begins_encapsulation_and_keepalives() -> None:
    pair, tap = mobile(link=ImpairedLink(nat=Nat(inside=LEFT_OTHER, outside="203.0.113.77")))
    assert not only_child(pair.left).udp_encapsulation
    change(pair)
    pair.run(2)
    for side in (pair.left, pair.right):
        (child,) = side.last(PeerAddressChanged).children
        assert child.udp_encapsulation
    assert pair.right.last(PeerAddressChanged).path.peer[0] == "203.0.113.77"
    tap.seen.clear()
    pair.run(100)
    assert [one for one in tap.seen if one.is_keepalive]


@pytest.mark.parametrize("outside", ["203.0.113.77", "203.0.113.78"])
def test_a_new_mapping_is_found_by_the_liveness_check_and_told(outside: str) -> None:
    pair, _, nat = behind_nat(left={"liveness_s": 15.0})
    pair.run(20)
    before = path_of(pair.right).peer
    nat.rebind()
    nat.outside = outside
    pair.run(20)
    assert path_of(pair.right).peer not in (before,)
    assert esp_path(pair.right) == path_of(pair.right)
    assert path_of(pair.right).peer[0] == outside
    pair.right.engine.check_liveness(pair.right.session, pair.now)
    pair.run(2)
    assert pair.right.engine.is_quiet


def test_a_hash_that_nobody_asked_for_moves_nobody() -> None:
    """Only the opener looks for a new mapping; the other end may not change paths, whatever an answer says."""

    def rewrite(message: Message) -> tuple[Message]:
        unasked = NotifyPayload(NotifyType.NAT_DETECTION_DESTINATION_IP, bytes(20))
        is_answer = message.is_response and message.exchange == INFORMATIONAL
        return (replace(message, payloads=(*message.payloads, unasked)) if is_answer else message,)

    for liar in ("left", "right"):
        pair, _ = mobile(**{f"{liar}_options": {"rewrite_outgoing": rewrite}})  # type: ignore[arg-type]
        honest = pair.right if liar == "left" else pair.left
        honest.engine.check_liveness(honest.session, pair.now)
        pair.run(2)
        assert_at(pair, HERE)
        assert not sent(honest, "UPDATE_SA_ADDRESSES")


def test_the_same_mapping_is_not_told_again_and_again() -> None:
    pair, tap, _ = behind_nat(left={"liveness_s": 15.0})
    pair.run(20)
    tap.seen.clear()
    pair.run(150)
    assert len(sent(pair.left, "UPDATE_SA_ADDRESSES")) <= 1


def test_esp_from_a_new_mapping_is_followed_though_ike_is_not() -> None:
    """An opener without liveness checks would never tell (RFC 4555 3.8)."""
    pair, _, _ = behind_nat()
    elsewhere = Path((RIGHT_ADDRESS, 4500), ("203.0.113.9", 41000))
    pair.right.engine.note_esp_path(only_child(pair.right).spi_in, elsewhere, pair.now)
    pair.flush()
    assert path_of(pair.right) == esp_path(pair.right) == elsewhere


def test_esp_does_not_overtake_the_return_routability_check() -> None:
    pair, tap, _ = behind_nat()
    tap.hold(lambda datagram: datagram.path.local[0] in (LEFT_ADDRESS, LEFT_OTHER))
    change(pair)
    pair.run(0.1)
    assert path_of(pair.right) != esp_path(pair.right)
    elsewhere = Path((RIGHT_ADDRESS, 4500), ("203.0.113.9", 41000))
    pair.right.engine.note_esp_path(only_child(pair.right).spi_in, elsewhere, pair.now)
    pair.flush()
    assert not pair.right.all(PeerAddressChanged)


def test_a_nat_is_refused_when_nat_traversal_is_forbidden() -> None:
    """NO_NATS_ALLOWED holds what is in the IP header (RFC 4555 3.9)."""
    forbidden: dict[str, object] = {"forbid_udp": True}
    pair, _ = mobile(left=forbidden, right=forbidden)
    assert "NO_NATS_ALLOWED" in sent(pair.left, "IKE_AUTH")[0]
    pair.link.nat = Nat(inside=LEFT_OTHER, outside="203.0.113.77")
    change(pair, replace(THERE, local=(LEFT_OTHER, 500), peer=(RIGHT_ADDRESS, 500)))
    pair.run(3)
    assert "UNEXPECTED_NAT_DETECTED" in pair.left.all(PathRefused)[0].detail
    assert len(sent(pair.right, "UNEXPECTED_NAT_DETECTED")) >= 4, "tried again: perhaps it was one packet"
    assert path_of(pair.right).peer == (LEFT_ADDRESS, 500)
    assert_in_sync(pair, children=1)


def test_without_a_nat_a_move_goes_on_when_nat_traversal_is_forbidden() -> None:
    forbidden: dict[str, object] = {"forbid_udp": True}
    pair, _ = mobile(left=forbidden, right=forbidden)
    path = Path((LEFT_OTHER, 500), (RIGHT_ADDRESS, 500))
    change(pair, path)
    pair.run(3)
    assert_at(pair, path)


def test_an_ike_sa_through_a_nat_is_refused_when_nat_traversal_is_forbidden() -> None:
    forbidden: dict[str, object] = {"forbid_udp": True, "mobike": True}
    nat = Nat(inside=LEFT_ADDRESS, outside="203.0.113.77")
    pair, _ = new_pair(link=ImpairedLink(nat=nat), left=forbidden, right=forbidden)
    pair.initiate()
    pair.run(3)
    assert pair.left.last(IkeSaFailed).reason is FailureReason.REFUSED
    assert not pair.right.all(IkeSaEstablished)


# --- hostile


def test_malformed_addresses_are_passed_over() -> None:
    pair, _ = mobile()
    notifies = [
        NotifyPayload(NotifyType.ADDITIONAL_IP4_ADDRESS, b"abc"),
        NotifyPayload(NotifyType.ADDITIONAL_IP6_ADDRESS, bytes(4)),
        NotifyPayload(NotifyType.ADDITIONAL_IP4_ADDRESS, bytes(4)),
        *(NotifyPayload(NotifyType.ADDITIONAL_IP4_ADDRESS, bytes((10, 0, 0, n))) for n in range(40)),
        NotifyPayload(NotifyType.COOKIE2, b"short"),
        NotifyPayload(NotifyType.NO_NATS_ALLOWED, b""),
    ]
    pair.left.engine.send_notify(pair.left.session, notifies[:5], pair.now)
    pair.left.engine.send_notify(pair.left.session, notifies, pair.now)
    pair.run(2)
    assert_in_sync(pair, children=1)
    assert pair.right.engine.counters[DropReason.MALFORMED] == 0


def test_an_opener_that_moves_on_and_on_and_answers_nothing_makes_no_queue() -> None:
    pair, tap = mobile()
    tap.hold(lambda one: one.path.local[0] == RIGHT_ADDRESS and Header.parse(one.data).is_response, 10**9)
    for count in range(100):
        change(pair, HERE if count % 2 else THERE)
        pair.run(0.1)
    assert pair.right.engine.sizes["requests"] <= 10, "a window of checks, and one that waits"
    tap.open()
    change(pair, THERE)
    pair.run(30)
    assert_at(pair, THERE)


def test_a_new_child_during_a_move_ends_on_the_new_path() -> None:
    pair, tap = mobile()
    tap.hold(message(sent_by=pair.right, is_response=True), count=1)
    change(pair)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(5)
    assert len(pair.left.all(ChildSaEstablished)) == 2
    assert_in_sync(pair, children=2)
    for side in (pair.left, pair.right):
        (snapshot,) = side.engine.sessions()
        assert {child.path for child in snapshot.children} == {snapshot.path}


def test_a_probe_that_was_under_way_at_a_move_says_nothing_of_either_path() -> None:
    pair, _ = mobile()
    pair.left.engine.send_probe(pair.left.session, 40_999, 1200, pair.now)
    change(pair)
    pair.run(10)
    assert pair.left.last(ProbeAnswered).arrived is None
    assert_at(pair, THERE)
