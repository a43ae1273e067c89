"""Rekeying and deleting IKE SAs message by message, with lost and late ones (RFC 7296 2.8.2, 2.25.2); childless."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ike import (
    ChildSaEstablished,
    CloseReason,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaRekeyed,
    parse_ike_proposal,
)
from ike.numbers import ExchangeType, NotifyType, TransformType
from ike.testing.pair import Side
from ike.wire.message import Message
from ike.wire.payloads import SaPayload
from ike.wire.sa import Transform
from tests.ike.engine_kit import assert_in_sync, established, new_pair, nonce, only_child
from tests.ike.test_scenarios_child import ENDS, LOWEST, Scene, said

IKE_GROUPS = ("aes256gcm16-prfsha384-x25519-ecp384", "aes256gcm16-prfsha384-ecp384")


class IkeScene(Scene):
    """The same, for IKE SAs."""

    def rekey_ike(self, side: Side) -> None:
        self.watch.rekey_ike_sa(side, side.session)
        self.pair.flush()

    def delete_ike(self, side: Side) -> None:
        self.watch.delete_ike_sa(side, side.session)
        self.pair.flush()

    def settle_ike(self, *, rekeys: int = 1) -> None:
        child = only_child(self.left).spi_in
        self.settle(children=1)
        assert only_child(self.left).spi_in == child, "children move as they are"
        assert len(self.left.all(IkeSaRekeyed)) == len(self.right.all(IkeSaRekeyed)) == rekeys

    def settle_over(self) -> None:
        self.post.open()
        self.pair.run(400)
        self.watch.check_rest()
        for side in (self.left, self.right):
            assert not side.engine.sessions()
            assert len(side.all(IkeSaClosed)) == 1
            assert not any(side.engine.sizes[name] for name in ("ike_sas", "children", "timers"))


def ike_scene_of_two_groups() -> IkeScene:
    """Left begins with X25519; right, asked for a rekey, takes P-384 alone."""
    scene = IkeScene()
    for side, text in ((scene.left, IKE_GROUPS[0]), (scene.right, IKE_GROUPS[1])):
        proposals = (parse_ike_proposal(text),)
        for session in side.engine._host.sessions.values():
            assert session.connection
            session.connection = replace(session.connection, ike_proposals=proposals)
    return scene


@ENDS
def test_either_end_rekeys_the_ike_sa(end: str) -> None:
    scene = IkeScene()
    one, other = scene.ends(end)
    old = one.engine.sessions()[0]
    scene.rekey_ike(one)
    scene.post.give(other, "request")
    scene.post.give(one, "response")
    new = one.engine.sessions()[0]
    assert {old.spi_i, old.spi_r}.isdisjoint({new.spi_i, new.spi_r})
    assert new.is_initiator
    scene.post.give(other, "request")
    scene.post.give(one, "response")
    scene.settle_ike()
    assert said(scene.pair, "D(IKE)") == 1


def test_ike_rekey_in_a_group_that_the_peer_does_not_take_is_tried_again_in_its_own() -> None:
    scene = ike_scene_of_two_groups()
    scene.rekey_ike(scene.left)
    scene.settle_ike()
    assert said(scene.pair, "INVALID_KE_PAYLOAD") == 1


def test_ike_rekey_by_the_other_end_begins_with_a_group_that_it_takes() -> None:
    scene = ike_scene_of_two_groups()
    scene.rekey_ike(scene.right)
    scene.settle_ike()


def late_answer(nonces: tuple[int, int, int, int], *, when: str) -> IkeScene:
    """Both rekey and both requests arrive; left has right's answer only `when` right has deleted something."""
    scene = IkeScene()
    scene.draw(nonces)
    scene.rekey_ike(scene.left)
    scene.rekey_ike(scene.right)
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "request")
    scene.post.give(scene.right, "response")
    scene.post.give(scene.left, "request")
    if when == "answered":
        scene.post.give(scene.right, "response", index=0)
    return scene


@LOWEST
@pytest.mark.parametrize("when", ["arrived", "answered"])
def test_answer_to_an_ike_rekey_that_comes_after_the_peers_delete(
    nonces: tuple[int, int, int, int], loser: str, when: str
) -> None:
    scene = late_answer(nonces, when=when)
    scene.settle_ike()
    losing = scene.left if loser == "left" else scene.right
    assert not losing.engine.sessions()[0].is_initiator


@LOWEST
def test_collision_of_ike_rekeys_in_which_one_end_had_to_change_its_group(
    nonces: tuple[int, int, int, int], loser: str
) -> None:
    scene = ike_scene_of_two_groups()
    scene.left.entropy.queue(nonce(9), nonce(nonces[0]), nonce(nonces[1]))
    scene.right.entropy.queue(nonce(nonces[2]), nonce(nonces[3]))
    scene.rekey_ike(scene.left)
    scene.rekey_ike(scene.right)
    scene.post.give(scene.right, "request")
    scene.post.give(scene.left, "response")
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "request")
    scene.settle_ike()
    losing = scene.left if loser == "left" else scene.right
    assert not losing.engine.sessions()[0].is_initiator


def test_who_has_to_change_its_group_gives_way_to_the_ike_rekey_that_it_has_answered_meanwhile() -> None:
    scene = ike_scene_of_two_groups()
    scene.rekey_ike(scene.left)
    scene.rekey_ike(scene.right)
    scene.post.give(scene.right, "request")
    scene.post.give(scene.left, "request")
    scene.post.give(scene.left, "response")
    scene.settle_ike()
    assert scene.right.engine.sessions()[0].is_initiator


@pytest.mark.parametrize("is_gone", [False, True])
def test_second_try_of_an_ike_rekey_that_is_late(is_gone: bool) -> None:
    scene = ike_scene_of_two_groups()
    scene.rekey_ike(scene.left)
    scene.rekey_ike(scene.right)
    scene.post.give(scene.right, "request")
    scene.post.give(scene.left, "response")
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "response")
    if is_gone:
        scene.post.give(scene.left, "request")
        scene.post.give(scene.right, "response")
    scene.post.give(scene.right, "request")
    scene.settle_ike()
    assert scene.right.engine.sessions()[0].is_initiator


def test_request_for_an_ike_rekey_that_is_lost_until_the_peer_is_done() -> None:
    scene = IkeScene()
    scene.rekey_ike(scene.left)
    scene.rekey_ike(scene.right)
    scene.post.lose(scene.right, "request")
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "response")
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "response")
    scene.settle_ike()
    assert scene.right.engine.sessions()[0].is_initiator


@pytest.mark.parametrize("first", ["request", "response"])
def test_request_for_an_ike_rekey_that_arrives_when_the_peer_is_done(first: str) -> None:
    """`first`: whether left gets the Delete of the old IKE SA or TEMPORARY_FAILURE first."""
    scene = IkeScene()
    scene.rekey_ike(scene.left)
    scene.rekey_ike(scene.right)
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "response")
    scene.post.give(scene.right, "request")
    assert said(scene.pair, "TEMPORARY_FAILURE") == 1
    scene.post.give(scene.left, first)
    scene.settle_ike()


@ENDS
def test_ike_rekey_against_the_end_of_the_ike_sa(end: str) -> None:
    scene = IkeScene()
    one, other = scene.ends(end)
    scene.rekey_ike(one)
    scene.delete_ike(other)
    scene.post.give(one, "request")
    scene.post.give(other, "request")
    assert said(scene.pair, "TEMPORARY_FAILURE") == 1
    scene.settle_over()


@ENDS
def test_ike_rekey_against_a_delete_that_is_lost(end: str) -> None:
    scene = IkeScene()
    one, other = scene.ends(end)
    scene.rekey_ike(one)
    scene.delete_ike(other)
    scene.post.lose(one, "request")
    scene.post.give(other, "request")
    scene.post.give(one, "response")
    assert not one.all(IkeSaClosed)
    scene.settle_over()


@ENDS
def test_either_end_deletes_the_ike_sa(end: str) -> None:
    scene = IkeScene()
    one, other = scene.ends(end)
    scene.delete_ike(one)
    assert [event.reason for event in one.all(IkeSaClosed)] == [CloseReason.DELETED_LOCALLY]
    scene.post.give(other, "request")
    assert [event.reason for event in other.all(IkeSaClosed)] == [CloseReason.DELETED_BY_PEER]
    scene.post.give(one, "response")
    scene.settle_over()


@ENDS
@pytest.mark.parametrize("answer_is_first", [False, True])
def test_ike_sa_deleted_while_its_rekey_is_in_flight_takes_the_new_one_with_it(
    end: str, answer_is_first: bool
) -> None:
    scene = IkeScene()
    one, other = scene.ends(end)
    scene.rekey_ike(one)
    if answer_is_first:
        scene.post.give(other, "request")
    scene.delete_ike(one)
    scene.settle_over()


def test_ike_sa_that_ends_with_an_unanswered_request_says_so_when_it_is_answered() -> None:
    """The request had been sent so often that the Delete was never said."""
    scene = IkeScene()
    scene.rekey(scene.left)
    for _ in range(6):
        scene.pair.run(4)
        while scene.post.waiting(scene.right):
            scene.post.lose(scene.right)
    scene.delete_ike(scene.left)
    scene.settle_over()


def test_peer_that_goes_on_with_its_own_new_ike_sa_settles_the_collision() -> None:
    """Left's rekey was put off, which left does not know; right's Deletes of the old IKE SA are all lost."""
    scene = IkeScene()
    scene.rekey_ike(scene.right)
    scene.pair.flush()
    scene.rekey_ike(scene.left)
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "response")
    assert not scene.left.all(IkeSaRekeyed)
    while scene.right.engine.sizes["ike_sas"] > 1:
        scene.pair.run(2)
        for side in (scene.left, scene.right):
            while scene.post.waiting(side):
                scene.post.lose(side)
    scene.rekey(scene.right)
    scene.post.give(scene.left, "request")
    assert len(scene.left.all(IkeSaRekeyed)) == 1
    scene.settle(children=1)


# --- more than one key exchange (RFC 9370) is not offered, and what offers it and nothing else is refused

ADDITIONAL = Transform(TransformType.ADDKE1, 36)


def with_additional_key_exchange(outgoing: Message) -> Message:
    payloads = tuple(
        SaPayload(tuple(replace(p, transforms=(*p.transforms, ADDITIONAL)) for p in payload.proposals))
        if isinstance(payload, SaPayload)
        else payload
        for payload in outgoing.payloads
    )
    return replace(outgoing, payloads=payloads)


@pytest.mark.parametrize("what", ["create child", "rekey child", "rekey IKE SA"])
def test_proposal_with_an_additional_key_exchange_is_refused_and_all_stays_as_it_was(what: str) -> None:
    adds: list[bool] = []

    def rewrite(outgoing: Message) -> tuple[Message, ...]:
        is_ours = adds and outgoing.exchange == ExchangeType.CREATE_CHILD_SA and not outgoing.is_response
        return (with_additional_key_exchange(outgoing) if is_ours else outgoing,)

    pair, _ = established(left_options={"rewrite_outgoing": rewrite})
    adds.append(True)
    left, session = pair.left.engine, pair.left.session
    child = only_child(pair.left)
    match what:
        case "create child":
            left.create_child(session, "net", pair.now)
        case "rekey child":
            left.rekey_child(session, child.spi_in, pair.now)
        case _:
            left.rekey_ike_sa(session, pair.now)
    pair.run(5)
    assert said(pair, "NO_PROPOSAL_CHOSEN") == 1
    assert_in_sync(pair, children=1)
    assert only_child(pair.left).spi_in == child.spi_in
    assert not pair.left.all(IkeSaRekeyed)


@pytest.mark.parametrize("what", ["rekey child", "rekey IKE SA"])
def test_refused_additional_key_exchange_of_one_end_does_not_stop_the_rekey_of_the_other(what: str) -> None:
    """The collision of one that adds and one that does not: the plain one stays."""
    adds: list[bool] = []

    def rewrite(outgoing: Message) -> tuple[Message, ...]:
        is_ours = adds and outgoing.exchange == ExchangeType.CREATE_CHILD_SA and not outgoing.is_response
        return (with_additional_key_exchange(outgoing) if is_ours else outgoing,)

    pair, _ = established(left_options={"rewrite_outgoing": rewrite})
    adds.append(True)
    for side in (pair.left, pair.right):
        if what == "rekey child":
            side.engine.rekey_child(side.session, only_child(side).spi_in, pair.now)
        else:
            side.engine.rekey_ike_sa(side.session, pair.now)
    pair.run(30)
    assert_in_sync(pair, children=1)
    if what == "rekey child":
        assert only_child(pair.right).is_creator
    else:
        assert len(pair.right.all(IkeSaRekeyed)) == 1


def test_follow_up_of_a_key_exchange_that_nobody_began_has_no_effect() -> None:
    follow_up: list[bool] = []

    def rewrite(outgoing: Message) -> tuple[Message, ...]:
        if follow_up and not outgoing.is_response:
            return (replace(outgoing, exchange=ExchangeType.IKE_FOLLOWUP_KE),)
        return (outgoing,)

    pair, _ = established(left_options={"rewrite_outgoing": rewrite})
    follow_up.append(True)
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.run(3)
    assert pair.right.engine.counters["unexpected_exchange"]  # type: ignore[index]
    follow_up.clear()
    assert_in_sync(pair, children=1)


# --- childless (RFC 6023)


@pytest.mark.parametrize("opener", ["left", "right"])
def test_childless_from_either_end_with_the_child_in_an_exchange_of_its_own(opener: str) -> None:
    pair, _ = new_pair()
    side = getattr(pair, opener)
    pair.initiate(by=side)
    pair.run(1)
    assert not side.children
    assert any("CHILDLESS" in record.summary for record in side.trace)
    side.engine.create_child(side.session, "net", pair.now)
    pair.run(1)
    assert_in_sync(pair, children=1)


def test_childless_ike_sa_stays_without_children_until_one_is_asked_for() -> None:
    pair, _ = new_pair()
    pair.initiate()
    pair.run(1000)
    assert len(pair.left.all(IkeSaEstablished)) == 1
    assert not pair.left.all(ChildSaEstablished)
    pair.right.engine.create_child(pair.right.session, "net", pair.now)
    pair.run(1)
    assert_in_sync(pair, children=1)
    assert NotifyType.CHILDLESS_IKEV2_SUPPORTED.name in " ".join(r.summary for r in pair.right.trace)
