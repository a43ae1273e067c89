"""A private extension: Vendor ID, childless, notify beside AUTH; and what happens without it."""

from dataclasses import replace

import pytest

from ike import (
    ChildSaFailed,
    Extension,
    FailureReason,
    IkeSaEstablished,
    IkeSaFailed,
    LocalError,
    Message,
    NotifyAnswered,
    NotifyPayload,
)
from ike.numbers import ExchangeType, NotifyType
from ike.testing.pair import Pair, Side, connections
from ike.wire.payloads import VendorIdPayload
from tests.ike.engine_kit import (
    CHILD,
    QUIET,
    SETTINGS,
    assert_in_sync,
    established,
    message,
    only_child,
)

LEFT = Extension("colour", b"seventeen octets!", 51137, b"left")
RIGHT = replace(LEFT, notify_data=b"right")
NATIVE = replace(CHILD, name="native", extension="colour")


def extended(
    left: Extension | None = LEFT,
    right: Extension | None = RIGHT,
    *,
    required: bool = True,
    **options: object,
) -> Pair:
    left_side, right_side = connections(
        CHILD,
        NATIVE,
        left=QUIET | {"extension": left, "extension_required": required and left is not None},
        right=QUIET | {"extension": right, "extension_required": required and right is not None},
    )
    return Pair(left_side, right_side, left_settings=SETTINGS, right_settings=SETTINGS, **options)  # type: ignore[arg-type]


def sent(side: Side) -> list[str]:
    return [record.summary for record in side.trace if record.direction.value == "sent"]


def connect(pair: Pair) -> None:
    pair.initiate()
    pair.run(1)


def test_extension_is_on_when_both_announce_it() -> None:
    pair = extended()
    connect(pair)
    assert pair.left.last(IkeSaEstablished).extension_data == b"right"
    assert pair.right.last(IkeSaEstablished).extension_data == b"left"
    assert sent(pair.left)[0].endswith(" V}")
    assert sent(pair.right)[0].endswith("N(CHILDLESS_IKEV2_SUPPORTED) V}")
    assert sent(pair.left)[1].endswith("AUTH N(NOTIFY_51137) N(SET_WINDOW_SIZE)}")
    assert sent(pair.right)[1].endswith("AUTH N(NOTIFY_51137) N(SET_WINDOW_SIZE)}")


def test_only_children_of_the_extension_exist_where_it_is_on() -> None:
    pair = extended()
    connect(pair)
    with pytest.raises(LocalError):
        pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.left.engine.create_child(pair.left.session, "native", pair.now)
    pair.run(1)
    assert only_child(pair.right).name == "native"


def test_children_of_the_extension_do_not_exist_where_it_is_off() -> None:
    pair = extended(right=None, required=False)
    connect(pair)
    assert_in_sync(pair, children=0)
    assert pair.left.last(IkeSaEstablished).extension_data is None
    with pytest.raises(LocalError):
        pair.left.engine.create_child(pair.left.session, "native", pair.now)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    assert only_child(pair.right).name == "net"


def test_no_child_travels_in_ike_auth_to_a_responder_with_the_vendor_id() -> None:
    left_side, right_side = connections(
        CHILD,
        NATIVE,
        left=QUIET | {"extension": LEFT, "childless": False},
        right=QUIET | {"extension": RIGHT},
    )
    pair = Pair(left_side, right_side)
    connect(pair)
    assert_in_sync(pair, children=0)
    assert "TSi" not in sent(pair.left)[1]


def test_initiator_that_requires_it_waits_for_another_answer_and_then_fails() -> None:
    pair = extended(right=None)
    pair.initiate()
    pair.run(10)
    assert not pair.left.all(IkeSaFailed)
    pair.run(300)
    failed = pair.left.last(IkeSaFailed)
    assert failed.reason is FailureReason.EXTENSION_ABSENT
    assert "colour" in failed.detail
    assert not any("IKE_AUTH" in line for line in sent(pair.left))


def test_vendor_id_without_childless_does_not_count() -> None:
    def drop_childless(outgoing: Message) -> tuple[Message]:
        kept = tuple(
            p
            for p in outgoing.payloads
            if not (isinstance(p, NotifyPayload) and p.notify_type == NotifyType.CHILDLESS_IKEV2_SUPPORTED)
        )
        return (replace(outgoing, payloads=kept),)

    pair = extended(right_options={"rewrite_outgoing": drop_childless})
    pair.initiate()
    pair.run(300)
    assert pair.left.last(IkeSaFailed).reason is FailureReason.EXTENSION_ABSENT


def test_vendor_id_of_another_version_is_another_extension() -> None:
    pair = extended(right=replace(RIGHT, vendor_id=b"seventeen octets?"), required=False)
    connect(pair)
    assert pair.left.last(IkeSaEstablished).extension_data is None
    assert not any(line.endswith(" V}") for line in sent(pair.right))


def strip_notify(outgoing: Message) -> tuple[Message]:
    kept = tuple(
        p for p in outgoing.payloads if not (isinstance(p, NotifyPayload) and p.notify_type == 51137)
    )
    return (replace(outgoing, payloads=kept),)


def test_initiator_that_requires_it_deletes_the_ike_sa_of_a_peer_that_does_not_announce_it() -> None:
    pair = extended(right_options={"rewrite_outgoing": strip_notify})
    connect(pair)
    assert pair.left.last(IkeSaFailed).reason is FailureReason.EXTENSION_ABSENT
    assert not pair.left.all(IkeSaEstablished)
    assert "D(IKE)" in sent(pair.left)[-1]
    pair.run(100)
    for side in (pair.left, pair.right):
        assert not side.engine.sessions()
        assert not side.engine._host._ike_sas


def test_responder_that_requires_it_deletes_the_ike_sa_of_a_peer_that_does_not_announce_it() -> None:
    pair = extended(left_options={"rewrite_outgoing": strip_notify})
    connect(pair)
    failed = pair.right.last(IkeSaFailed)
    assert (failed.reason, failed.connection) == (FailureReason.EXTENSION_ABSENT, "peer")
    assert "D(IKE)" in "".join(sent(pair.right))
    pair.run(100)
    for side in (pair.left, pair.right):
        assert not side.engine.sessions()
        assert not side.engine._host.half_open
        assert not side.engine._host._ike_sas


def test_responder_that_requires_it_makes_no_child_for_a_plain_initiator() -> None:
    left_side, right_side = connections(
        CHILD,
        left=QUIET | {"childless": False},
        right=QUIET | {"extension": RIGHT, "extension_required": True},
    )
    pair = Pair(left_side, right_side)
    connect(pair)
    assert any("TS_UNACCEPTABLE" in line for line in sent(pair.right))
    assert pair.left.last(ChildSaFailed).notify_type == NotifyType.TS_UNACCEPTABLE
    assert pair.right.last(IkeSaFailed).reason is FailureReason.EXTENSION_ABSENT
    pair.run(100)
    assert not pair.left.engine.sessions()


def test_extension_survives_a_rekey_of_the_ike_sa() -> None:
    pair = extended()
    connect(pair)
    pair.right.engine.rekey_ike_sa(pair.right.session, pair.now)
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "native", pair.now)
    pair.run(1)
    assert_in_sync(pair, children=1)
    assert pair.left.engine.sessions()[0].extension_data == b"right"


def test_vendor_id_comes_last_in_every_retry() -> None:
    left_side, right_side = connections(left=QUIET | {"extension": LEFT}, right=QUIET | {"extension": RIGHT})
    settings = replace(SETTINGS, cookie_threshold=0)
    pair = Pair(left_side, right_side, right_settings=settings)
    connect(pair)
    assert [line.endswith(" V}") for line in sent(pair.left) if "IKE_SA_INIT" in line] == [True, True]
    assert VendorIdPayload.TYPE == 43


# --- private notifies


def test_notifies_are_handed_to_the_owner_and_answered() -> None:
    told: list[tuple[int, tuple[NotifyPayload, ...]]] = []

    def answer(session: int, notifies: tuple[NotifyPayload, ...]) -> list[NotifyPayload]:
        told.append((session, notifies))
        return [NotifyPayload(51139, b"well")]

    pair, _ = established(right_options={"informational": answer})
    token = pair.left.engine.send_notify(pair.left.session, (NotifyPayload(51138, b"hello"),), pair.now)
    pair.run(1)
    assert told == [(pair.right.session, (NotifyPayload(51138, b"hello"),))]
    answered = pair.left.last(NotifyAnswered)
    assert (answered.token, answered.notifies) == (token, (NotifyPayload(51139, b"well"),))


def test_notify_is_answered_once_although_it_came_twice() -> None:
    told: list[object] = []

    def tell(session: int, notifies: tuple[NotifyPayload, ...]) -> tuple[()]:
        told.append(notifies)
        return ()

    pair, tap = established(right_options={"informational": tell})
    tap.hold(message(sent_by=pair.right, exchange=ExchangeType.INFORMATIONAL), count=2)
    pair.left.engine.send_notify(pair.left.session, (NotifyPayload(51138, b"hello"),), pair.now)
    pair.run(10)
    assert len(told) == 1
    assert len(pair.left.all(NotifyAnswered)) == 1


@pytest.mark.parametrize("who", ["left", "right"])
def test_notify_waits_while_the_ike_sa_is_rekeyed_and_goes_on_the_new_one(who: str) -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.right, exchange=ExchangeType.CREATE_CHILD_SA), count=1)
    tap.hold(message(sent_by=pair.left, exchange=ExchangeType.INFORMATIONAL), count=1)
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(0.1)
    side = pair.left if who == "left" else pair.right
    side.engine.send_notify(side.session, (NotifyPayload(51138, b"hello"),), pair.now)
    pair.run(10)
    spis = side.engine.sessions()[0].spi_i, side.engine.sessions()[0].spi_r
    record = next(record for record in side.trace if "51138" in record.summary)
    assert (record.spi_i, record.spi_r) == spis
    assert side.last(NotifyAnswered).notifies == ()


def test_notify_waits_until_the_old_ike_sa_is_gone() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.left, exchange=ExchangeType.INFORMATIONAL, is_response=False), count=1)
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(0.5)
    for side in (pair.left, pair.right):
        side.engine.send_notify(side.session, (NotifyPayload(51138, b"hello"),), pair.now)
        assert not any("51138" in line for line in sent(side))
    pair.run(10)
    for side in (pair.left, pair.right):
        assert side.last(NotifyAnswered).notifies == ()


def test_unanswered_notify_is_sent_again_unchanged_on_the_survivor() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.right, exchange=ExchangeType.INFORMATIONAL))
    pair.right.engine.send_notify(pair.right.session, (NotifyPayload(51138, b"hello"),), pair.now)
    pair.flush()
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(0.5)
    tap.open()
    pair.run(20)
    sent_as = [
        record for record in pair.right.trace if "request" in record.summary and "51138" in record.summary
    ]
    assert [record.direction.value for record in sent_as] == ["sent", "sent"]
    assert sent_as[0].spi_i != sent_as[1].spi_i
    assert len(pair.right.all(NotifyAnswered)) == 1
    assert_in_sync(pair, children=1)


def test_notify_that_cannot_be_answered_any_more_says_so() -> None:
    pair, tap = established()
    tap.hold(message(sent_by=pair.right))
    engine, session = pair.left.engine, pair.left.session
    first = engine.send_notify(session, (NotifyPayload(51138, b"1"),), pair.now)
    second = engine.send_notify(session, (NotifyPayload(51138, b"2"),), pair.now)
    pair.flush()
    engine.delete_ike_sa(session, pair.now)
    third = engine.send_notify(session, (NotifyPayload(51138, b"3"),), pair.now)
    pair.flush()
    answers = [(event.token, event.notifies) for event in pair.left.all(NotifyAnswered)]
    assert sorted(answers) == [(first, None), (second, None), (third, None)]
