"""IKE_AUTH: who is who, the first child, what fails and what does not (RFC 7296 1.2, 2.4, 2.15, 2.21.2; RFC 6023)."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network

import pytest

from ike import (
    AddressSelector,
    ChildSaEstablished,
    ChildSaFailed,
    CloseReason,
    Connection,
    FailureReason,
    Identity,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    Message,
    Mode,
    NotifyPayload,
    Path,
    PskAuth,
    SealedBody,
    parse_esp_proposal,
)
from ike.numbers import ExchangeType, NotifyType
from ike.testing.pair import LEFT_ADDRESS, Pair, Side
from ike.wire.payloads import AuthPayload, IdrPayload, TsPayload, UnknownPayload
from tests.ike.engine_kit import CHILD, QUIET, assert_in_sync, established, message, new_pair, only_child

AUTH = ExchangeType.IKE_AUTH


def summaries(side: Side) -> list[str]:
    return [record.summary for record in side.trace if record.direction.value == "sent"]


def connect(pair: Pair) -> None:
    pair.initiate()
    pair.run(1)


@pytest.mark.parametrize("who", ["left", "right"])
def test_wrong_psk_is_authentication_failed_on_both_sides(who: str) -> None:
    pair, _ = new_pair(**{who: {"auth": PskAuth(b"another secret")}})  # type: ignore[arg-type]
    connect(pair)
    left, right = pair.left.last(IkeSaFailed), pair.right.last(IkeSaFailed)
    assert left.reason is right.reason is FailureReason.AUTHENTICATION_FAILED
    assert "left.example is not proved: the pre-shared key is not ours" in right.detail
    assert "AUTHENTICATION_FAILED" in left.detail
    assert (left.connection, right.connection) == ("peer", "peer")
    for side in (pair.left, pair.right):
        assert not side.all(IkeSaEstablished)
        assert not side.engine.sessions()
    pair.run(120)
    for side in (pair.left, pair.right):
        assert not side.engine._host._ike_sas
        assert not side.engine._host.half_open
        assert side.engine.next_deadline() is None


def test_responder_that_does_not_prove_itself_is_told_and_refused() -> None:
    def spoil(outgoing: Message) -> Iterable[Message | SealedBody]:
        payloads = tuple(
            replace(p, data=bytes(len(p.data))) if isinstance(p, AuthPayload) else p
            for p in outgoing.payloads
        )
        return (replace(outgoing, payloads=payloads),)

    pair, _ = new_pair(right_options={"rewrite_outgoing": spoil})
    connect(pair)
    failed = pair.left.last(IkeSaFailed)
    assert failed.reason is FailureReason.AUTHENTICATION_FAILED
    assert "right.example is not proved: the pre-shared key is not ours" in failed.detail
    assert pair.right.last(IkeSaClosed).reason is CloseReason.AUTHENTICATION_FAILED
    assert summaries(pair.left)[-1] == "INFORMATIONAL request 2 {N(AUTHENTICATION_FAILED)}"


def test_peer_of_another_name_is_refused_by_the_initiator() -> None:
    pair, _ = new_pair(right={"local_id": Identity.fqdn("elsewhere.example")})
    connect(pair)
    assert "elsewhere.example, not right.example" in pair.left.last(IkeSaFailed).detail
    assert pair.right.last(IkeSaClosed).reason is CloseReason.AUTHENTICATION_FAILED


def test_unknown_identity_is_refused_by_the_responder() -> None:
    pair, _ = new_pair(left={"local_id": Identity.fqdn("stranger.example")})
    connect(pair)
    assert pair.left.last(IkeSaFailed).reason is FailureReason.AUTHENTICATION_FAILED
    failed = pair.right.last(IkeSaFailed)
    assert failed.connection == ""
    assert failed.detail == f"no connection for stranger.example at {LEFT_ADDRESS}"


def responder_with(pair: Pair, *connections: Connection) -> None:
    pair.restart(pair.right, connections)


def test_identity_of_the_peer_selects_the_connection() -> None:
    pair, _ = new_pair()
    base = Connection(
        **(
            {
                "name": "other",
                "local_id": Identity.fqdn("right.example"),
                "peer_id": Identity.fqdn("other.example"),
                "auth": PskAuth(b"x"),
                "ike_proposals": pair.left.engine._host.connections[0].ike_proposals,
            }
            | QUIET  # type: ignore[arg-type]
        )
    )
    anyone = replace(base, name="anyone", peer_id=None, auth=PskAuth(b"y"))
    alias = replace(base, name="alias", local_id=Identity.fqdn("alias.example"), auth=PskAuth(b"z"))
    mine = replace(
        base,
        name="mine",
        peer_id=Identity.fqdn("left.example"),
        auth=pair.left.engine._host.connections[0].auth,
    )
    responder_with(pair, base, anyone, replace(alias, peer_id=mine.peer_id), mine)
    connect(pair)
    assert pair.right.last(IkeSaEstablished).connection == "mine"


def test_first_child_travels_in_ike_auth_when_not_childless() -> None:
    pair, _ = new_pair(left={"childless": False})
    connect(pair)
    assert_in_sync(pair, children=1)
    assert only_child(pair.left).is_creator
    assert pair.right.last(ChildSaEstablished).use_outbound
    assert summaries(pair.left)[1].endswith(
        "AUTH N(USE_TRANSPORT_MODE) N(ESP_TFC_PADDING_NOT_SUPPORTED) SA TSi(1) TSr(1) N(SET_WINDOW_SIZE)}"
    )
    pair.left.engine.rekey_child(pair.left.session, only_child(pair.left).spi_in, pair.now)
    pair.run(1)
    assert_in_sync(pair, children=1)


def test_child_travels_in_ike_auth_when_the_responder_does_not_offer_childless() -> None:
    def strip(outgoing: Message) -> Iterable[Message | SealedBody]:
        offer = NotifyType.CHILDLESS_IKEV2_SUPPORTED
        kept = (p for p in outgoing.payloads if not (isinstance(p, NotifyPayload) and p.notify_type == offer))
        return (replace(outgoing, payloads=tuple(kept)),)

    pair, _ = new_pair(right_options={"rewrite_outgoing": strip})
    connect(pair)
    assert_in_sync(pair, children=1)


def test_child_with_pfs_travels_in_ike_auth_without_its_group() -> None:
    child = replace(CHILD, proposals=(parse_esp_proposal("aes256gcm16-ecp256"),))
    pair, _ = new_pair(child, left={"childless": False})
    connect(pair)
    assert_in_sync(pair, children=1)
    pair.left.engine.rekey_child(pair.left.session, only_child(pair.left).spi_in, pair.now)
    pair.run(1)
    assert_in_sync(pair, children=1)
    assert "KEi" in next(line for line in summaries(pair.left) if "REKEY_SA" in line)


def test_failed_child_in_ike_auth_leaves_the_ike_sa_up() -> None:
    other = replace(CHILD, mode=Mode.TUNNEL)
    pair, _ = new_pair(left={"childless": False}, right_child=other)
    connect(pair)
    assert_in_sync(pair, children=0)
    failed = pair.left.last(ChildSaFailed)
    assert failed.notify_type == NotifyType.TS_UNACCEPTABLE
    assert pair.left.events.index(failed) > pair.left.events.index(pair.left.last(IkeSaEstablished))


def test_child_proposal_that_does_not_fit_is_no_proposal_chosen() -> None:
    other = replace(CHILD, proposals=(parse_esp_proposal("aes128gcm16"),))
    pair, _ = new_pair(left={"childless": False}, right_child=other)
    connect(pair)
    assert_in_sync(pair, children=0)
    assert pair.left.last(ChildSaFailed).notify_type == NotifyType.NO_PROPOSAL_CHOSEN


def test_initial_contact_replaces_what_a_crashed_peer_left_behind() -> None:
    pair, _ = established()
    old_child = only_child(pair.right)
    connections = pair.left.engine._host.connections
    pair.restart(pair.left, connections)
    connect(pair)
    assert_in_sync(pair, children=0)
    closed = pair.right.last(IkeSaClosed)
    assert closed.reason is CloseReason.REPLACED
    assert old_child.spi_in not in pair.right.children
    pair.run(200)
    assert_in_sync(pair)
    assert len(pair.right.engine._host._ike_sas) == 1


def test_second_ike_sa_of_a_living_peer_says_no_initial_contact() -> None:
    pair, _ = established()
    connect(pair)
    assert not pair.right.all(IkeSaClosed)
    assert len(pair.right.engine.sessions()) == 2


def test_initiations_that_cross_both_stand() -> None:
    pair, _ = new_pair()
    pair.initiate()
    pair.initiate(by=pair.right)
    pair.run(5)
    for side in (pair.left, pair.right):
        assert len(side.all(IkeSaEstablished)) == 2
        assert not side.all(IkeSaClosed)


def test_unsupported_critical_payload_is_named_and_nothing_is_made() -> None:
    def add(outgoing: Message) -> Iterable[Message | SealedBody]:
        if outgoing.exchange != AUTH:
            return (outgoing,)
        strange = UnknownPayload(200, b"?", critical=True)
        return (replace(outgoing, payloads=(*outgoing.payloads, strange)),)

    pair, _ = new_pair(left_options={"rewrite_outgoing": add})
    connect(pair)
    assert summaries(pair.right)[-1] == "IKE_AUTH response 1 {N(UNSUPPORTED_CRITICAL_PAYLOAD)}"
    assert pair.left.last(IkeSaFailed).reason is FailureReason.REFUSED
    assert pair.right.last(IkeSaFailed).reason is FailureReason.PROTOCOL_ERROR


def test_malformed_ike_auth_is_invalid_syntax_and_nothing_is_made() -> None:
    def break_it(outgoing: Message) -> Iterable[Message | SealedBody]:
        return (SealedBody(35, b"\x00\x00\x00\x07\x02"),) if outgoing.exchange == AUTH else (outgoing,)

    pair, _ = new_pair(left_options={"rewrite_outgoing": break_it})
    connect(pair)
    assert summaries(pair.right)[-1] == "IKE_AUTH response 1 {N(INVALID_SYNTAX)}"
    assert pair.left.last(IkeSaFailed).reason is FailureReason.PROTOCOL_ERROR
    assert pair.right.last(IkeSaFailed).reason is FailureReason.PROTOCOL_ERROR


def test_requests_before_authentication_have_no_effect() -> None:
    """A peer that only completed the key exchange may not delete, notify or create."""

    def rename(outgoing: Message) -> Iterable[Message | SealedBody]:
        if outgoing.exchange != AUTH:
            return (outgoing,)
        notify = NotifyPayload(50000, b"let me in")
        return (replace(outgoing, exchange=ExchangeType.INFORMATIONAL, payloads=(notify,)), outgoing)

    told: list[object] = []

    def tell(session: int, notifies: tuple[NotifyPayload, ...]) -> tuple[()]:
        told.append(notifies)
        return ()

    pair, _ = new_pair(
        left_options={"rewrite_outgoing": rename},
        right_options={"informational": tell},
    )
    connect(pair)
    assert told == []
    assert_in_sync(pair, children=0)


def test_lost_ike_auth_response_is_repeated() -> None:
    pair, tap = new_pair(left={"childless": False})
    tap.hold(message(sent_by=pair.right, exchange=AUTH), count=3)
    pair.initiate()
    pair.run(20)
    assert_in_sync(pair, children=1)
    assert len({datagram.data for datagram in tap.held}) == 1


def test_unanswered_ike_auth_is_reported_as_such() -> None:
    pair, tap = new_pair()
    tap.hold(message(sent_by=pair.left, exchange=AUTH))
    pair.initiate()
    pair.run(300)
    failed = pair.left.last(IkeSaFailed)
    assert failed.reason is FailureReason.NO_ANSWER
    assert "IKE_AUTH was not" in failed.detail
    pair.run(100)
    assert not pair.left.engine._host._ike_sas
    assert not pair.right.engine._host._ike_sas


def test_idr_in_the_answer_is_signed_as_it_came() -> None:
    """Reserved octets of an ID payload are covered by AUTH as they are (RFC 7296 2.15)."""

    def reserve(outgoing: Message) -> Iterable[Message | SealedBody]:
        payloads = tuple(
            replace(p, reserved=b"abc") if isinstance(p, IdrPayload) else p for p in outgoing.payloads
        )
        return (replace(outgoing, payloads=payloads),)

    pair, _ = new_pair(right_options={"rewrite_outgoing": reserve})
    connect(pair)
    assert pair.left.last(IkeSaFailed).reason is FailureReason.AUTHENTICATION_FAILED


def test_selectors_of_the_answer_may_not_be_wider_than_asked() -> None:
    wide = AddressSelector.from_network(ip_network("0.0.0.0/0"))

    def widen(outgoing: Message) -> Iterable[Message | SealedBody]:
        payloads = tuple(
            replace(p, selectors=(wide,)) if isinstance(p, TsPayload) else p for p in outgoing.payloads
        )
        return (replace(outgoing, payloads=payloads),)

    pair, _ = new_pair(left={"childless": False}, right_options={"rewrite_outgoing": widen})
    connect(pair)
    assert_in_sync(pair, children=0)
    assert pair.left.last(ChildSaFailed).notify_type is None
    assert "0.0.0.0/0" in pair.left.last(ChildSaFailed).detail


def test_responder_follows_the_initiators_port_only_when_authenticated() -> None:
    pair, tap = new_pair(left={"force_udp": True})
    tap.hold(message(sent_by=pair.left, exchange=AUTH))
    pair.initiate()
    pair.run(0.5)
    genuine = tap.held[0]
    forged = bytearray(genuine.data)
    forged[-1] ^= 1
    elsewhere = Path(genuine.path.local, ("203.0.113.9", 9))
    pair.right.engine.receive_datagram(bytes(forged), elsewhere, pair.now)
    sa = next(iter(pair.right.engine._host._ike_sas.values()))
    assert sa.path.peer == (LEFT_ADDRESS, 500)
    tap.release(pair)
    pair.run(1)
    assert pair.right.last(IkeSaEstablished).path.peer == (LEFT_ADDRESS, 4500)
