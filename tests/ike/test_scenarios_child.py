"""Rekeying and deleting Child SAs message by message, with lost and late ones (RFC 7296 2.8.1, 2.25.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ike import (
    ChildSaClosed,
    ChildSaDeletionBegun,
    ChildSaEstablished,
    ChildSaFailed,
    CloseReason,
    IkeSaClosed,
    IkeSaRekeyed,
    parse_esp_proposal,
)
from ike.numbers import ExchangeType, NotifyType
from ike.testing.invariants import Invariants
from ike.testing.pair import Pair, Side
from ike.wire.message import Message
from ike.wire.payloads import NotifyPayload
from tests.ike.engine_kit import CHILD, assert_in_sync, established, nonce, only_child
from tests.ike.post import Post, watched

CREATE_CHILD_SA = ExchangeType.CREATE_CHILD_SA
ENDS = pytest.mark.parametrize("end", ["original initiator", "original responder"])
# Who draws the lowest of the four nonces, and whose new child is therefore redundant.
LOWEST = pytest.mark.parametrize(
    ("nonces", "loser"),
    [((1, 5, 6, 7), "left"), ((5, 6, 7, 1), "left"), ((5, 6, 1, 7), "right"), ((5, 1, 6, 7), "right")],
)


class Scene:
    """A pair with one child and a network in the hands of the test."""

    def __init__(self, *, is_judged: bool = True, **options: object) -> None:
        self.pair, tap = established(**options)
        self.left, self.right = self.pair.left, self.pair.right
        self.watch: Invariants = watched(self.pair)
        if not is_judged:  # one end does what it should not
            self.pair.observers.clear()
        self.post = Post(self.pair, tap)

    def ends(self, end: str) -> tuple[Side, Side]:
        """Who acts, and the other."""
        return (self.left, self.right) if end == "original initiator" else (self.right, self.left)

    def draw(self, nonces: tuple[int, int, int, int]) -> None:
        """(left as initiator, left as responder, right as initiator, right as responder)."""
        self.left.entropy.queue(nonce(nonces[0]), nonce(nonces[1]))
        self.right.entropy.queue(nonce(nonces[2]), nonce(nonces[3]))

    def rekey(self, side: Side, spi_in: bytes | None = None) -> bytes:
        spi_in = spi_in or only_child(side).spi_in
        self.watch.rekey_child(side, side.session, spi_in)
        self.pair.flush()
        return spi_in

    def delete(self, side: Side, spi_in: bytes | None = None) -> bytes:
        spi_in = spi_in or only_child(side).spi_in
        self.watch.delete_child(side, side.session, spi_in)
        self.pair.flush()
        return spi_in

    def settle(self, *, children: int) -> None:
        """The network works again: both ends agree, as was wanted, with nothing left over."""
        self.post.open()
        self.pair.run(400)
        self.watch.check_rest()
        assert_in_sync(self.pair, children=children)

    def lone_losers(self) -> dict[str, int]:
        return {s.name: reasons(s).count(CloseReason.REDUNDANT) for s in (self.left, self.right)}


def reasons(side: Side) -> list[CloseReason]:
    return [event.reason for event in side.all(ChildSaClosed)]


def said(pair: Pair, text: str) -> int:
    """How many messages that either end has sent contain `text`."""
    sides = (pair.left, pair.right)
    return sum(text in r.summary for side in sides for r in side.trace if r.direction.value == "sent")


@ENDS
def test_either_end_rekeys_a_child(end: str) -> None:
    scene = Scene()
    one, other = scene.ends(end)
    old = scene.rekey(one)
    scene.post.give(other, "request")
    assert other.last(ChildSaEstablished).use_outbound is False
    assert not other.all(ChildSaClosed)
    scene.post.give(one, "response")
    assert one.last(ChildSaEstablished).use_outbound is True
    assert one.last(ChildSaDeletionBegun).spi_in == old
    scene.post.give(other, "request")
    assert reasons(other) == [CloseReason.REKEYED]
    scene.post.give(one, "response")
    assert reasons(one) == [CloseReason.REKEYED]
    scene.settle(children=1)
    assert only_child(one).is_creator


GROUPS = ("aes256gcm16-x25519-ecp384", "aes256gcm16-ecp384")


def scene_of_two_groups() -> Scene:
    """Left begins with X25519, right takes P-384 alone.

    Not P-256: its private keys are drawn by as many octets as a nonce here.
    """
    left, right = (replace(CHILD, proposals=(parse_esp_proposal(groups),)) for groups in GROUPS)
    return Scene(child=left, right_child=right)


def test_rekey_in_a_group_that_the_peer_does_not_take_is_tried_again_in_its_own() -> None:
    scene = scene_of_two_groups()
    before = said(scene.pair, "INVALID_KE_PAYLOAD")
    scene.rekey(scene.left)
    scene.settle(children=1)
    assert said(scene.pair, "INVALID_KE_PAYLOAD") == before + 1
    assert reasons(scene.left) == reasons(scene.right) == [CloseReason.REKEYED]


def test_rekey_by_the_other_end_needs_no_second_try() -> None:
    scene = scene_of_two_groups()
    before = said(scene.pair, "INVALID_KE_PAYLOAD")
    scene.rekey(scene.right)
    scene.settle(children=1)
    assert said(scene.pair, "INVALID_KE_PAYLOAD") == before


def test_several_groups_are_tried_one_after_the_other_each_once() -> None:
    """A peer that asks for another group each time is followed through all that were offered, and then refused."""
    asked = [19, 20, 21, 31, 19]

    def insist(outgoing: Message) -> tuple[Message, ...]:
        if not outgoing.is_response or outgoing.exchange != CREATE_CHILD_SA or not picky:
            return (outgoing,)
        group = asked.pop(0)
        return (
            replace(outgoing, payloads=(NotifyPayload(NotifyType.INVALID_KE_PAYLOAD, bytes([0, group])),)),
        )

    picky: list[bool] = []
    child = replace(CHILD, proposals=(parse_esp_proposal("aes256gcm16-x25519-ecp256-ecp384-ecp521"),))
    pair, _ = established(child=child, right_options={"rewrite_outgoing": insist})
    picky.append(True)
    pair.left.engine.rekey_child(pair.left.session, only_child(pair.left).spi_in, pair.now)
    pair.run(5)
    assert asked == [19], "X25519 was tried first and is asked for in vain"
    assert pair.left.last(ChildSaFailed).notify_type == NotifyType.INVALID_KE_PAYLOAD
    assert len(pair.left.children) == 1


def test_responder_of_a_rekey_does_not_rekey_what_is_about_to_go() -> None:
    scene = Scene()
    scene.rekey(scene.left)
    old = only_child(scene.right).spi_in
    scene.post.give(scene.right, "request")
    scene.rekey(scene.right, old)
    assert not scene.post.waiting(scene.left, "request")
    scene.settle(children=1)


def test_responder_of_a_rekey_whose_old_child_reaches_its_hard_lifetime_meanwhile() -> None:
    scene = Scene()
    scene.rekey(scene.left)
    old = only_child(scene.right).spi_in
    scene.post.give(scene.right, "request")
    scene.post.give(scene.left, "response")
    scene.right.engine.expire_child(scene.right.session, old, scene.pair.now)
    scene.pair.flush()
    assert old not in [s.sa.spi_in for s in scene.watch.owners["right"].senders()]
    scene.settle(children=1)
    assert len(scene.left.all(ChildSaClosed)) == len(scene.right.all(ChildSaClosed)) == 1


def test_responder_of_a_rekey_deletes_the_new_child_before_the_old_one_is_gone() -> None:
    scene = Scene()
    scene.rekey(scene.left)
    scene.post.give(scene.right, "request")
    scene.post.give(scene.left, "response")
    new = scene.right.last(ChildSaEstablished).child.spi_in
    scene.delete(scene.right, new)
    scene.settle(children=0)
    assert sorted(reasons(scene.left)) == [CloseReason.DELETED_BY_PEER, CloseReason.REKEYED]


@pytest.mark.parametrize("first", ["delete", "answer"])
def test_responder_that_deletes_the_old_child_itself_does_no_harm(first: str) -> None:
    """As some do; its Delete may overtake its answer."""
    scene = Scene(is_judged=False)
    scene.rekey(scene.left)
    old = only_child(scene.right).spi_in
    scene.post.give(scene.right, "request")
    scene.right.engine.delete_child(scene.right.session, old, scene.pair.now)
    scene.pair.flush()
    scene.post.give(scene.left, "request" if first == "delete" else "response")
    scene.post.open()
    assert_in_sync(scene.pair, children=1)
    assert len(reasons(scene.left)) == 1


def test_old_child_whose_delete_is_never_answered_is_closed_once() -> None:
    scene = Scene()
    scene.rekey(scene.left)
    scene.post.give(scene.right, "request")
    scene.post.give(scene.left, "response")
    old = scene.left.last(ChildSaDeletionBegun).spi_in
    while scene.pair.now < 400 and not scene.left.all(IkeSaClosed):
        scene.pair.run(5)
        while scene.post.waiting(scene.right):
            scene.post.lose(scene.right)
    assert scene.left.last(IkeSaClosed).reason is CloseReason.PEER_NOT_RESPONDING
    assert [event.spi_in for event in scene.left.all(ChildSaClosed)].count(old) == 1
    assert not scene.left.engine.sizes["children"]


@LOWEST
def test_answer_that_comes_after_the_peers_delete_in_a_collision(
    nonces: tuple[int, int, int, int], loser: str
) -> None:
    """Right has compared the nonces and deleted, old child or its own, before left has right's answer."""
    scene = Scene()
    scene.draw(nonces)
    scene.rekey(scene.left)
    scene.rekey(scene.right)
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "request")
    scene.post.give(scene.right, "response")
    scene.post.give(scene.left, "request")  # the Delete, before the answer
    scene.settle(children=1)
    losing = scene.left if loser == "left" else scene.right
    assert not only_child(losing).is_creator


@LOWEST
def test_answer_that_comes_after_the_peer_has_deleted_the_new_child_too(
    nonces: tuple[int, int, int, int], loser: str
) -> None:
    scene = Scene()
    scene.draw(nonces)
    scene.rekey(scene.left)
    scene.rekey(scene.right)
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "request")
    scene.post.give(scene.right, "response")
    survivor = [s for s in scene.watch.owners["right"].open_children() if not s.is_deleting]
    for one in survivor:
        scene.delete(scene.right, one.sa.spi_in)
    while scene.post.waiting(scene.left, "request"):
        scene.post.give(scene.left, "request")
    scene.settle(children=0)


@pytest.mark.parametrize("first", ["delete", "failure"])
def test_request_that_arrives_when_the_peer_is_done_and_deletes(first: str) -> None:
    """Left's request is late: right, which has rekeyed and is deleting the old child, puts it off."""
    scene = Scene()
    scene.rekey(scene.left)
    scene.rekey(scene.right)
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "response")
    scene.post.give(scene.right, "request")
    assert said(scene.pair, "TEMPORARY_FAILURE") == 1
    scene.post.give(scene.left, "request" if first == "delete" else "response")
    scene.settle(children=1)
    assert only_child(scene.right).is_creator
    assert reasons(scene.left) == [CloseReason.REKEYED]
    assert not scene.left.all(ChildSaFailed)


@pytest.mark.parametrize("deletes_the_new_one", [False, True])
def test_request_that_arrives_when_the_old_child_is_gone(deletes_the_new_one: bool) -> None:
    scene = Scene()
    scene.rekey(scene.left)
    scene.rekey(scene.right)
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "response")
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "response")
    if deletes_the_new_one:
        scene.delete(scene.right)
        scene.post.give(scene.left, "request")
        scene.post.give(scene.right, "response")
    scene.post.give(scene.right, "request")
    assert said(scene.pair, "CHILD_SA_NOT_FOUND") == 1
    scene.settle(children=0 if deletes_the_new_one else 1)
    assert not scene.left.all(ChildSaFailed)


@LOWEST
def test_collision_in_which_one_end_had_to_change_its_group(
    nonces: tuple[int, int, int, int], loser: str
) -> None:
    scene = scene_of_two_groups()
    # Left's first try, refused, draws a nonce, too.
    scene.left.entropy.queue(nonce(9), nonce(nonces[0]), nonce(nonces[1]))
    scene.right.entropy.queue(nonce(nonces[2]), nonce(nonces[3]))
    scene.rekey(scene.left)
    scene.rekey(scene.right)
    scene.post.give(scene.right, "request")
    scene.post.give(scene.left, "response")
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "request")
    scene.settle(children=1)
    losing = scene.left if loser == "left" else scene.right
    assert scene.lone_losers() == {"left": 1, "right": 1}
    assert not only_child(losing).is_creator


def test_who_has_to_change_its_group_gives_way_to_the_rekey_that_it_has_answered_meanwhile() -> None:
    scene = scene_of_two_groups()
    scene.rekey(scene.left)
    scene.rekey(scene.right)
    scene.post.give(scene.right, "request")
    scene.post.give(scene.left, "request")
    scene.post.give(scene.left, "response")
    assert not scene.post.waiting(scene.right, "request")
    scene.settle(children=1)
    assert only_child(scene.right).is_creator


@pytest.mark.parametrize("is_gone", [False, True])
def test_second_try_in_another_group_that_is_late_looks_like_no_collision(is_gone: bool) -> None:
    scene = scene_of_two_groups()
    scene.rekey(scene.left)
    scene.rekey(scene.right)
    scene.post.give(scene.right, "request")
    scene.post.give(scene.left, "response")  # INVALID_KE_PAYLOAD; the second try waits
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "response")
    if is_gone:
        scene.post.give(scene.left, "request")
        scene.post.give(scene.right, "response")
    scene.post.give(scene.right, "request")
    assert said(scene.pair, "CHILD_SA_NOT_FOUND" if is_gone else "TEMPORARY_FAILURE") == 1
    scene.settle(children=1)
    assert only_child(scene.right).is_creator


def test_loser_of_a_collision_that_deletes_the_old_child_does_no_harm() -> None:
    scene = Scene(is_judged=False)
    scene.draw((5, 6, 1, 7))
    scene.rekey(scene.left)
    scene.rekey(scene.right)
    old = only_child(scene.right).spi_in
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "request")
    scene.right.engine.delete_child(scene.right.session, old, scene.pair.now)
    scene.pair.flush()
    scene.post.give(scene.right, "response")
    while scene.post.waiting(scene.left, "request"):
        scene.post.give(scene.left, "request")
    scene.post.open(400)
    assert_in_sync(scene.pair)
    assert len(scene.left.children) <= 1


@ENDS
def test_rekey_of_a_child_that_the_peer_deletes_at_the_same_time(end: str) -> None:
    scene = Scene()
    one, other = scene.ends(end)
    scene.rekey(one)
    scene.delete(other)
    scene.post.give(one, "request")
    scene.post.give(other, "request")
    assert said(scene.pair, "TEMPORARY_FAILURE") == 1
    scene.settle(children=0)


@ENDS
def test_rekey_of_a_child_whose_delete_is_lost(end: str) -> None:
    scene = Scene()
    one, other = scene.ends(end)
    scene.rekey(one)
    scene.delete(other)
    scene.post.lose(one, "request")
    scene.post.give(other, "request")
    scene.post.give(one, "response")
    assert said(scene.pair, "TEMPORARY_FAILURE") == 1
    scene.settle(children=0)
    assert not one.all(ChildSaFailed)


@ENDS
def test_lost_rekey_of_a_child_that_is_deleted_meanwhile(end: str) -> None:
    scene = Scene()
    one, other = scene.ends(end)
    scene.rekey(one)
    scene.delete(other)
    scene.post.lose(other, "request")
    scene.post.give(one, "request")
    scene.post.give(other, "response")
    scene.settle(children=0)
    assert said(scene.pair, "CHILD_SA_NOT_FOUND") == 1


@ENDS
def test_delete_of_the_new_child_overtakes_the_answer_that_makes_it(end: str) -> None:
    scene = Scene()
    one, other = scene.ends(end)
    scene.rekey(one)
    scene.post.give(other, "request")
    scene.delete(other, other.last(ChildSaEstablished).child.spi_in)
    scene.post.give(one, "request")
    scene.settle(children=0)


@ENDS
def test_rekey_of_a_child_against_a_rekey_of_the_ike_sa(end: str) -> None:
    """Each puts the other off, and both get what they want in the end."""
    scene = Scene()
    one, other = scene.ends(end)
    scene.rekey(one)
    scene.watch.rekey_ike_sa(other, other.session)
    scene.post.give(other, "request")
    scene.post.give(one, "request")
    assert said(scene.pair, "TEMPORARY_FAILURE") == 2
    scene.settle(children=1)
    assert len(one.all(IkeSaRekeyed)) == 1
    assert reasons(one) == [CloseReason.REKEYED]


@ENDS
@pytest.mark.parametrize("command", ["rekey", "delete"])
def test_a_child_against_the_end_of_the_ike_sa(end: str, command: str) -> None:
    scene = Scene()
    one, other = scene.ends(end)
    getattr(scene, command)(one)
    scene.watch.delete_ike_sa(other, other.session)
    scene.post.give(one, "request")
    scene.post.give(other, "request")
    scene.post.open()
    scene.watch.check_rest()
    for side in (one, other):
        assert reasons(side) == [CloseReason.IKE_SA_CLOSED]
        assert len(side.all(IkeSaClosed)) == 1
    assert said(scene.pair, "TEMPORARY_FAILURE") == (command == "rekey")


@ENDS
def test_either_end_deletes_a_child(end: str) -> None:
    scene = Scene()
    one, other = scene.ends(end)
    spi_in = scene.delete(one)
    assert one.last(ChildSaDeletionBegun).spi_in == spi_in
    scene.post.give(other, "request")
    assert reasons(other) == [CloseReason.DELETED_BY_PEER]
    assert not one.all(ChildSaClosed)
    scene.post.give(one, "response")
    assert reasons(one) == [CloseReason.DELETED_LOCALLY]
    scene.settle(children=0)


def test_both_delete_a_child_and_one_delete_is_lost() -> None:
    scene = Scene()
    scene.delete(scene.left)
    scene.delete(scene.right)
    scene.post.lose(scene.right, "request")
    scene.post.give(scene.left, "request")
    scene.post.give(scene.right, "response")
    scene.settle(children=0)
    assert len(reasons(scene.left)) == len(reasons(scene.right)) == 1


@ENDS
def test_delete_of_a_child_against_a_rekey_of_the_ike_sa(end: str) -> None:
    scene = Scene()
    one, other = scene.ends(end)
    scene.delete(one)
    scene.watch.rekey_ike_sa(other, other.session)
    scene.post.give(one, "request")
    assert said(scene.pair, "TEMPORARY_FAILURE") == 1
    scene.post.give(other, "request")
    assert reasons(other) == [CloseReason.DELETED_BY_PEER]
    scene.settle(children=0)
    assert len(one.all(IkeSaRekeyed)) == 1


def test_new_child_against_a_rekey_of_the_ike_sa() -> None:
    scene = Scene()
    scene.watch.create_child(scene.left, scene.left.session, "net")
    scene.watch.rekey_ike_sa(scene.right, scene.right.session)
    scene.post.give(scene.right, "request")
    scene.post.give(scene.left, "request")
    assert said(scene.pair, "TEMPORARY_FAILURE") == 2
    scene.settle(children=2)
    assert len(scene.left.all(IkeSaRekeyed)) == 1


def test_child_deleted_while_its_rekey_is_in_flight_takes_the_new_one_with_it() -> None:
    scene = Scene()
    spi_in = scene.rekey(scene.left)
    scene.delete(scene.left, spi_in)
    scene.settle(children=0)


def test_child_that_waits_for_another_try_is_answered_for_when_the_session_ends() -> None:
    scene = Scene()
    scene.watch.rekey_ike_sa(scene.right, scene.right.session)
    scene.pair.flush()
    scene.watch.create_child(scene.left, scene.left.session, "net")
    scene.post.give(scene.right, "request")
    scene.post.give(scene.left, "response")
    assert not scene.left.all(ChildSaFailed)
    scene.watch.delete_ike_sa(scene.left, scene.left.session)
    scene.pair.flush()
    assert scene.left.last(ChildSaFailed).notify_type is None
    scene.post.open()
    scene.watch.check_rest()


def test_nobody_sends_on_the_redundant_child_of_a_collision() -> None:
    scene = Scene()
    scene.draw((5, 6, 1, 7))
    scene.rekey(scene.left)
    scene.rekey(scene.right)
    for side, kind in ((scene.left, "request"), (scene.right, "request"), (scene.right, "response")):
        scene.post.give(side, kind)
    redundant = scene.right.last(ChildSaDeletionBegun)
    assert redundant.reason is CloseReason.REDUNDANT
    scene.post.give(scene.left, "response")
    assert scene.left.all(ChildSaDeletionBegun)[0].spi_in == redundant.spi_out
    scene.settle(children=1)
    assert NotifyType.TEMPORARY_FAILURE not in [e.notify_type for e in scene.left.all(ChildSaFailed)]
