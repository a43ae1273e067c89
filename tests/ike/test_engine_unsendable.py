"""What we are told to say and cannot: nothing is raised, nothing is half done (RFC 7296 2.1, 2.6, 2.21.1)."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from ike import (
    CloseReason,
    DropReason,
    FailureReason,
    IkeSaClosed,
    IkeSaFailed,
    Message,
    NotifyPayload,
    ProbeAnswered,
    SealedBody,
    parse_ike_proposal,
)
from ike.numbers import ExchangeType, NotifyType, PayloadType
from ike.testing.pair import Pair, Side
from tests.ike.engine_kit import assert_in_sync, established, message, new_pair
from tests.ike.test_engine_init import init_error, inject

INIT = ExchangeType.IKE_SA_INIT
TOO_LONG = NotifyPayload(40_999, bytes(70_000))
LAST_IV = 2**64 - 1


def too_long_if(rule: Callable[[Message], bool]) -> dict[str, object]:
    """The options of an engine whose messages fit into no datagram where `rule` says so."""

    def rewrite(outgoing: Message) -> Iterable[Message | SealedBody]:
        return (replace(outgoing, payloads=(TOO_LONG,)) if rule(outgoing) else outgoing,)

    return {"rewrite_outgoing": rewrite}


def use_up_ivs(side: Side, but: int = 0) -> None:
    """`side` can seal `but` messages more on its IKE SA, and then none."""
    protection = side.engine._host.sessions[side.session].current.keyed.protection
    protection._last_iv = LAST_IV - but


# --- IKE_SA_INIT: anybody may make us send


@pytest.mark.parametrize(
    "error",
    [
        NotifyPayload(NotifyType.COOKIE, b"of nobody"),
        NotifyPayload(NotifyType.INVALID_KE_PAYLOAD, b"\x00\x14"),
    ],
    ids=["cookie", "group"],
)
def test_forged_wish_that_no_request_can_fulfil_leaves_the_request_in_flight(error: NotifyPayload) -> None:
    requests: list[Message] = []

    def is_another(outgoing: Message) -> bool:
        if outgoing.exchange == INIT:
            requests.append(outgoing)
        return outgoing.exchange == INIT and len(requests) > 1

    ike = "aes256gcm16-prfsha384-x25519-ecp384"
    pair, tap = new_pair(
        left={"ike_proposals": (parse_ike_proposal(ike),)}, left_options=too_long_if(is_another)
    )
    tap.hold(message(sent_by=pair.right, exchange=INIT), count=1)
    pair.initiate()
    pair.flush()
    inject(pair, init_error(tap.seen[0], error))
    assert len(requests) == 2
    assert pair.left.engine.counters[DropReason.UNUSABLE_ANSWER] == 1
    pair.run(10)  # the first request is sent again as it was, and its answer still fits to it
    assert_in_sync(pair)
    assert not pair.left.all(IkeSaFailed)


def test_init_response_that_fits_into_no_message_is_a_refusal_without_state() -> None:
    options = too_long_if(lambda outgoing: outgoing.exchange == INIT and outgoing.is_response)
    pair, _ = new_pair(right_options=options)
    before = pair.right.engine.sizes
    pair.initiate()
    pair.run(200, until=lambda: bool(pair.left.all(IkeSaFailed)))
    assert pair.left.last(IkeSaFailed).reason is FailureReason.NO_PROPOSAL_CHOSEN
    assert pair.right.engine.counters[DropReason.UNSENDABLE_ANSWER] > 0
    assert pair.right.engine.sizes == before
    assert not pair.right.events


# --- an established IKE SA that cannot say a word more: it ends at once, and the peer finds out


def ask(pair: Pair) -> None:
    use_up_ivs(pair.left)
    pair.left.engine.check_liveness(pair.left.session, pair.now)


def answer(pair: Pair) -> None:
    use_up_ivs(pair.left)
    pair.right.engine.check_liveness(pair.right.session, pair.now)


def answer_what_is_malformed(pair: Pair) -> None:
    use_up_ivs(pair.left)
    pair.right.engine._host.rewrite_outgoing = lambda _: (
        SealedBody(PayloadType.NOTIFY, b"\x00\x00\x00\x03"),
    )
    pair.right.engine.check_liveness(pair.right.session, pair.now)


def answer_what_is_critical(pair: Pair) -> None:
    use_up_ivs(pair.left)
    pair.right.engine._host.rewrite_outgoing = lambda _: (SealedBody(200, b"\x00\x80\x00\x04"),)
    pair.right.engine.check_liveness(pair.right.session, pair.now)


def probe(pair: Pair) -> None:
    """The short message takes the last IV, the whole one finds none."""
    use_up_ivs(pair.left, but=1)
    pair.left.engine.send_probe(pair.left.session, 40_999, 1400, pair.now)


@pytest.mark.parametrize("do", [ask, answer, answer_what_is_malformed, answer_what_is_critical, probe])
def test_ike_sa_that_can_seal_no_more_ends_and_leaves_nothing(do: Callable[[Pair], None]) -> None:
    pair, _ = established()
    do(pair)
    pair.run(600)
    assert pair.left.last(IkeSaClosed).reason is CloseReason.PROTOCOL_ERROR
    assert "cannot be sent: all IVs" in pair.left.last(IkeSaClosed).detail
    assert not pair.left.children
    assert not any(pair.left.engine.sizes.values())
    if do is probe:
        assert [answered.arrived for answered in pair.left.all(ProbeAnswered)] == [None]
    if do is not ask and do is not probe:
        assert pair.right.last(IkeSaClosed).reason is CloseReason.PEER_NOT_RESPONDING
