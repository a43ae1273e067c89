"""Addresses by Configuration payload: asked for, given, refused, kept (RFC 7296 2.19, 3.15.4)."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network

import pytest

from ike import (
    AddressesUnused,
    AddressRequest,
    AddressSelector,
    ChildConfig,
    ChildSaFailed,
    Configuration,
    DynamicSelector,
    FailureReason,
    IkeSaEstablished,
    IkeSaFailed,
    LocalError,
    Message,
    Mode,
    PskAuth,
    SealedBody,
    parse_esp_proposal,
)
from ike.events import RequestRefused
from ike.numbers import CfgType, ExchangeType, NotifyType
from ike.testing.pair import Pair
from ike.wire.payloads import ConfigAttribute, ConfigPayload, NotifyPayload, TsiPayload
from tests.ike.engine_kit import assert_in_sync, new_pair, only_child

ANY4, ANY6 = IPv4Address(0), IPv6Address(0)
EVERYTHING = AddressSelector.from_network(ip_network("0.0.0.0/0"))
INSIDE = AddressSelector.from_network(ip_network("10.0.0.0/8"))
INSIDE6 = AddressSelector.from_network(ip_network("2001:db8::/32"))
CLIENT = ChildConfig(
    "net",
    (parse_esp_proposal("aes256gcm16"),),
    Mode.TUNNEL,
    (DynamicSelector(),),
    (INSIDE, INSIDE6),
    rekey_s=None,
    hard_s=None,
)
GATEWAY = replace(CLIENT, local_ts=(INSIDE, INSIDE6), peer_ts=(DynamicSelector(),))
GIVEN = Configuration((ip_interface("10.9.0.7/32"),), dns=(ip_address("10.9.0.1"),))
GIVEN6 = Configuration((ip_interface("10.9.0.7/24"), ip_interface("2001:db8:9::7/64")))
HOST = AddressSelector.from_address("10.9.0.7")
HOST6 = AddressSelector.from_address("2001:db8:9::7")


class Gateway:
    """What the owner of the right engine answers, and what it was asked."""

    def __init__(self, *answers: Configuration | None) -> None:
        self.asked: list[AddressRequest] = []
        self._answers = list(answers)

    def __call__(self, request: AddressRequest) -> Configuration | None:
        self.asked.append(request)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def pair_of(
    gateway: Gateway | None,
    *,
    wanted: Iterable[object] = (ANY4,),
    assigns: bool = True,
    rewrite: Callable[[Message], Iterable[Message | SealedBody]] | None = None,
    left: dict[str, object] | None = None,
) -> Pair:
    options: dict[str, object] = {"configure": gateway}
    if rewrite is not None:
        options["rewrite_outgoing"] = rewrite
    pair, _ = new_pair(
        CLIENT,
        right_child=GATEWAY,
        left={"request_addresses": tuple(wanted)} | (left or {}),
        right={"assigns_addresses": assigns},
        right_options=options,
    )
    return pair


def up(gateway: Gateway, **options: object) -> Pair:
    pair = pair_of(gateway, **options)  # type: ignore[arg-type]
    pair.initiate()
    pair.run(2)
    assert_in_sync(pair, children=1)
    return pair


def test_the_address_is_the_clients_traffic_selector() -> None:
    gateway = Gateway(GIVEN)
    pair = up(gateway)
    child = only_child(pair.left)
    assert child.local_ts == (HOST,) and child.peer_ts == (INSIDE, INSIDE6)
    assert pair.left.last(IkeSaEstablished).assigned == GIVEN
    assert pair.left.last(IkeSaEstablished).leased is None
    assert pair.right.last(IkeSaEstablished).leased == GIVEN
    (asked,) = gateway.asked
    assert asked.addresses == (ANY4,) and asked.is_only_one
    assert (asked.connection, asked.peer_id.text(), asked.session) == (
        "peer",
        "left.example",
        pair.right.session,
    )


def test_the_request_travels_before_the_child_in_ike_auth() -> None:
    pair = up(Gateway(GIVEN))
    auths = [record.summary for record in pair.left.trace if record.summary.startswith("IKE_AUTH")]
    assert (
        " AUTH CP(CFG_REQUEST) N(ESP_TFC_PADDING_NOT_SUPPORTED) SA TSi(1) TSr(2) N(SET_WINDOW_SIZE)}"
        in auths[0]
    )
    assert (
        " AUTH CP(CFG_REPLY) N(ESP_TFC_PADDING_NOT_SUPPORTED) SA TSi(1) TSr(2) N(SET_WINDOW_SIZE)}"
        in auths[1]
    )


def test_both_families_at_once() -> None:
    gateway = Gateway(GIVEN6)
    pair = up(gateway, wanted=(ANY4, ANY6))
    assert gateway.asked[0].addresses == (ANY4, ANY6)
    assert only_child(pair.left).local_ts == (HOST, HOST6)
    assert pair.left.last(IkeSaEstablished).assigned == GIVEN6


def test_a_family_that_the_gateway_does_not_have_is_done_without() -> None:
    pair = up(Gateway(GIVEN), wanted=(ANY4, ANY6))
    assert only_child(pair.left).local_ts == (HOST,)


@pytest.mark.parametrize("answer", [None, Configuration(())])
def test_without_an_address_for_it_the_client_has_no_ike_sa_and_the_gateway_says_why(
    answer: Configuration | None,
) -> None:
    pair = pair_of(Gateway(answer))
    pair.initiate()
    pair.run(5)
    failed = pair.left.last(IkeSaFailed)
    assert failed.reason is FailureReason.NO_ADDRESS and "no address for us" in failed.detail
    assert pair.right.last(RequestRefused).notify_type == NotifyType.INTERNAL_ADDRESS_FAILURE
    assert not pair.right.children and not pair.left.children
    assert not pair.left.engine.sessions() and not pair.right.engine.sessions(), (
        "the client deletes the IKE SA"
    )


def test_a_gateway_that_ignores_the_request_is_of_no_use() -> None:
    pair = pair_of(None, assigns=False)
    pair.initiate()
    pair.run(5)
    assert pair.left.last(IkeSaFailed).reason is FailureReason.NO_ADDRESS
    assert not pair.right.engine.sessions() and not pair.right.children


def test_a_client_that_asks_for_no_address_where_one_is_needed_has_an_ike_sa_without_child() -> None:
    gateway = Gateway(GIVEN)
    pair = pair_of(gateway, wanted=(), left={"childless": False})
    pair.initiate()
    pair.run(2)
    assert pair.left.last(ChildSaFailed).notify_type == NotifyType.FAILED_CP_REQUIRED
    assert pair.left.last(IkeSaEstablished) and not gateway.asked
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(2)
    assert [event.notify_type for event in pair.left.all(ChildSaFailed)] == [
        NotifyType.FAILED_CP_REQUIRED
    ] * 2
    assert_in_sync(pair, children=0)


def test_a_child_made_later_has_the_same_address() -> None:
    gateway = Gateway(GIVEN)
    pair = up(gateway)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(2)
    assert_in_sync(pair, children=2)
    assert {child.local_ts for child in pair.left.children.values()} == {(HOST,)}
    assert len(gateway.asked) == 1


def test_a_child_that_the_gateway_makes_is_for_the_address() -> None:
    pair = up(Gateway(GIVEN))
    pair.right.engine.create_child(pair.right.session, "net", pair.now)
    pair.run(2)
    assert_in_sync(pair, children=2)
    assert {child.peer_ts for child in pair.right.children.values()} == {(HOST,)}


def test_the_address_outlives_rekeys_of_the_ike_sa_and_of_the_child() -> None:
    gateway = Gateway(GIVEN)
    pair = up(gateway)
    for side in (pair.left, pair.right):
        side.engine.rekey_ike_sa(side.session, pair.now)
        pair.run(2)
        side.engine.rekey_child(side.session, only_child(side).spi_in, pair.now)
        pair.run(2)
    assert_in_sync(pair, children=1)
    assert only_child(pair.left).local_ts == (HOST,)
    (left,), (right,) = pair.left.engine.sessions(), pair.right.engine.sessions()
    assert left.assigned == GIVEN and right.leased == GIVEN
    assert len(gateway.asked) == 1


def test_a_second_ike_sa_asks_for_the_address_that_the_first_has() -> None:
    gateway = Gateway(GIVEN)
    pair = up(gateway)
    pair.initiate()
    pair.run(2)
    assert gateway.asked[1].addresses == (ip_address("10.9.0.7"),) and not gateway.asked[1].is_only_one


def widened(message: Message) -> Iterable[Message]:
    """The gateway grants more than the address that it gave."""
    if message.is_response and message.exchange == ExchangeType.IKE_AUTH:
        payloads = tuple(
            replace(payload, selectors=(EVERYTHING,)) if isinstance(payload, TsiPayload) else payload
            for payload in message.payloads
        )
        return (replace(message, payloads=payloads),)
    return (message,)


def test_a_grant_beyond_the_address_is_refused() -> None:
    pair = pair_of(Gateway(GIVEN), rewrite=widened)
    pair.initiate()
    pair.run(2)
    assert "asked for 10.9.0.7" in pair.left.last(ChildSaFailed).detail
    assert not pair.left.children and not pair.right.children, "the gateway is told to delete it"


def test_a_client_cannot_take_more_than_its_address() -> None:
    """Its own selectors are everything; what it gets is the address."""
    assert only_child(up(Gateway(GIVEN)).right).peer_ts == (HOST,)


# --- what other clients may send


def asking(payload: ConfigPayload, exchange: ExchangeType) -> Callable[[Message], Iterable[Message]]:
    """Put a Configuration payload in front of every request of an exchange."""

    def rewrite(message: Message) -> Iterable[Message]:
        if message.exchange == exchange and not message.is_response:
            return (replace(message, payloads=(payload, *message.payloads)),)
        return (message,)

    return rewrite


ASK4 = ConfigPayload(CfgType.CFG_REQUEST, (ConfigAttribute(1),))


def childless_pair(gateway: Gateway, payload: ConfigPayload, exchange: ExchangeType) -> Pair:
    pair, _ = new_pair(
        replace(CLIENT, local_ts=(EVERYTHING,)),
        right_child=GATEWAY,
        right={"assigns_addresses": True},
        left_options={"rewrite_outgoing": asking(payload, exchange)},
        right_options={"configure": gateway},
    )
    pair.initiate()
    pair.run(2)
    return pair


def last_answer(pair: Pair, exchange: str) -> str:
    return [r.summary for r in pair.right.trace if r.summary.startswith(f"{exchange} response")][-1]


def test_an_address_without_a_child_is_the_sessions() -> None:
    gateway = Gateway(GIVEN)
    pair = childless_pair(gateway, ASK4, ExchangeType.IKE_AUTH)
    assert "CP(CFG_REPLY)" in last_answer(pair, "IKE_AUTH")
    pair.right.engine.create_child(pair.right.session, "net", pair.now)
    pair.run(1)
    (session,) = pair.right.engine.sessions()
    assert session.leased == GIVEN and len(gateway.asked) == 1


def test_no_address_for_an_ike_sa_without_child_is_said() -> None:
    pair = childless_pair(Gateway(None), ASK4, ExchangeType.IKE_AUTH)
    assert "INTERNAL_ADDRESS_FAILURE" in last_answer(pair, "IKE_AUTH")
    assert len(pair.right.engine.sessions()) == 1


def test_the_request_may_come_with_a_later_child() -> None:
    gateway = Gateway(GIVEN)
    pair = childless_pair(gateway, ASK4, ExchangeType.CREATE_CHILD_SA)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    assert len(gateway.asked) == 1
    assert only_child(pair.left).local_ts == only_child(pair.right).peer_ts == (HOST,)


def test_an_address_for_a_child_that_is_refused_is_given_back_and_may_be_had_again() -> None:
    gateway = Gateway(GIVEN)
    pair = childless_pair(gateway, ASK4, ExchangeType.CREATE_CHILD_SA)
    (connection,) = pair.left.engine._host.connections
    wrong = replace(connection.children[0], name="wrong", mode=Mode.TRANSPORT)
    session = pair.left.engine._host.sessions[pair.left.session]
    session.connection = replace(connection, children=(wrong, *connection.children))
    pair.left.engine.create_child(pair.left.session, "wrong", pair.now)
    pair.run(1)
    assert len(pair.left.all(ChildSaFailed)) == len(pair.right.all(AddressesUnused)) == 1
    assert pair.right.engine.sessions()[0].leased is None
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    assert len(gateway.asked) == 2 and len(pair.right.all(AddressesUnused)) == 1
    assert only_child(pair.right).peer_ts == (HOST,)
    pair.left.engine.create_child(pair.left.session, "wrong", pair.now)
    pair.run(1)
    assert len(pair.left.all(ChildSaFailed)) == 2
    assert len(pair.right.all(AddressesUnused)) == 1, "now it is in use"
    assert pair.right.engine.sessions()[0].leased == GIVEN


def test_an_address_is_kept_by_an_ike_sa_whose_first_child_is_refused() -> None:
    gateway = Gateway(GIVEN)
    pair = pair_of(gateway, left={"children": (replace(CLIENT, mode=Mode.TRANSPORT),)})
    pair.initiate()
    pair.run(2)
    assert pair.left.all(ChildSaFailed) and not pair.right.all(AddressesUnused)
    assert pair.left.engine.sessions()[0].assigned == pair.right.engine.sessions()[0].leased == GIVEN


def test_the_request_may_come_by_itself() -> None:
    gateway = Gateway(None, GIVEN)
    pair = childless_pair(gateway, ASK4, ExchangeType.INFORMATIONAL)
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(1)
    assert "INTERNAL_ADDRESS_FAILURE" in last_answer(pair, "INFORMATIONAL")
    for _ in range(2):
        pair.left.engine.check_liveness(pair.left.session, pair.now)
        pair.run(1)
        assert "CP(CFG_REPLY)" in last_answer(pair, "INFORMATIONAL")
    assert len(gateway.asked) == 2, "the second reply repeats the lease"


def test_nobody_is_asked_for_an_address_after_the_session() -> None:
    """Its end was told already: what it got then would be nobody's for ever."""
    gateway = Gateway(GIVEN)
    pair = childless_pair(gateway, ASK4, ExchangeType.INFORMATIONAL)
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.right.engine.delete_ike_sa(pair.right.session, pair.now)
    pair.run(2)
    assert "INFORMATIONAL response" in pair.right.trace[-1].summary or not pair.right.engine.sessions()
    assert not gateway.asked


@pytest.mark.parametrize(
    "payload",
    [
        ConfigPayload(CfgType.CFG_SET, (ConfigAttribute(1, bytes((10, 0, 0, 1))),)),
        ConfigPayload(CfgType.CFG_REQUEST, (ConfigAttribute(7),)),
        ConfigPayload(CfgType.CFG_ACK),
        ConfigPayload(200, (ConfigAttribute(1),)),
    ],
    ids=["CFG_SET", "APPLICATION_VERSION", "CFG_ACK", "unknown"],
)
def test_what_is_no_request_for_an_address_is_ignored(payload: ConfigPayload) -> None:
    gateway = Gateway(GIVEN)
    pair = childless_pair(gateway, payload, ExchangeType.INFORMATIONAL)
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(1)
    assert last_answer(pair, "INFORMATIONAL").endswith("{}")
    assert not gateway.asked


def test_nobody_is_asked_for_an_address_before_the_peer_is_authenticated() -> None:
    gateway = Gateway(GIVEN)
    pair = pair_of(gateway, left={"auth": PskAuth(b"another secret altogether")})
    pair.initiate()
    pair.run(5)
    assert not gateway.asked and pair.left.last(IkeSaFailed).reason is FailureReason.AUTHENTICATION_FAILED


def test_a_reply_nobody_asked_for_is_ignored() -> None:
    def rewrite(message: Message) -> Iterable[Message]:
        if message.is_response and message.exchange == ExchangeType.IKE_AUTH:
            reply = ConfigPayload(CfgType.CFG_REPLY, (ConfigAttribute(1, bytes((10, 0, 0, 1))),))
            return (replace(message, payloads=(*message.payloads, reply)),)
        return (message,)

    pair, _ = new_pair(right_options={"rewrite_outgoing": rewrite})
    pair.initiate()
    pair.run(2)
    assert pair.left.last(IkeSaEstablished).assigned is None


def test_an_error_notify_alone_is_told_from_silence() -> None:
    def rewrite(message: Message) -> Iterable[Message]:
        if message.is_response and message.exchange == ExchangeType.IKE_AUTH:
            kept = tuple(p for p in message.payloads if not isinstance(p, NotifyPayload))
            return (replace(message, payloads=kept),)
        return (message,)

    pair = pair_of(Gateway(None), rewrite=rewrite)
    pair.initiate()
    pair.run(2)
    assert pair.left.last(IkeSaFailed).detail == "the peer's answer holds no address for us"


def test_a_gateway_makes_no_child_before_the_client_has_asked() -> None:
    pair, _ = new_pair(CLIENT, right_child=GATEWAY, right={"assigns_addresses": True})
    pair.initiate()
    pair.run(2)
    with pytest.raises(LocalError, match="has not asked for an address"):
        pair.right.engine.create_child(pair.right.session, "net", pair.now)


def test_a_client_that_is_called_has_no_address_and_takes_no_child() -> None:
    pair = pair_of(Gateway(GIVEN), assigns=False)
    pair.initiate(by=pair.right)
    pair.run(2)
    pair.right.engine.create_child(pair.right.session, "net", pair.now)
    pair.run(2)
    assert pair.right.last(ChildSaFailed).notify_type == NotifyType.TS_UNACCEPTABLE
    assert not pair.left.children and len(pair.left.engine.sessions()) == 1
