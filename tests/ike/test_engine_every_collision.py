"""Every command of one end against every command of the other, with each message lost or late in its turn.

RFC 7296 2.8.1, 2.8.2, 2.25; judged by `Invariants` at every moment and by the end that both commands want.
"""

from __future__ import annotations

import pytest

from ike.testing.invariants import Invariants
from ike.testing.pair import Pair, Side
from tests.ike.engine_kit import established, nonce, only_child
from tests.ike.post import Post, watched

COMMANDS = ("create child", "rekey child", "delete child", "rekey IKE SA", "delete IKE SA")
SCHEDULES = (
    "in order",
    "left first",
    "right first",
    "responses last",
    *(f"message {n} lost" for n in range(6)),
    *(f"message {n} late" for n in range(6)),
)


def order(watch: Invariants, side: Side, command: str) -> None:
    session, spi_in = side.session, only_child(side).spi_in
    match command:
        case "create child":
            watch.create_child(side, session, "net")
        case "rekey child":
            watch.rekey_child(side, session, spi_in)
        case "delete child":
            watch.delete_child(side, session, spi_in)
        case "rekey IKE SA":
            watch.rekey_ike_sa(side, session)
        case "delete IKE SA":
            watch.delete_ike_sa(side, session)


def deliver(pair: Pair, post: Post, schedule: str) -> None:
    """What both have sent, and what they send next, by one of SCHEDULES."""
    kind = schedule.split()[-1]
    number = int(schedule.split()[1]) if kind in ("lost", "late") else -1
    count = 0
    for _ in range(40):
        queue = [(side, d) for side in (pair.left, pair.right) for d in post.waiting(side)]
        if not queue:
            return
        side = queue[0][0]
        if schedule == "in order":
            side = min(
                (pair.left, pair.right), key=lambda s: (not post.waiting(s), count % 2 == (s is pair.left))
            )
        elif schedule == "right first":
            side = queue[-1][0]
        elif schedule == "responses last" and (asked := [s for s, _ in queue if post.waiting(s, "request")]):
            post.give(asked[0], "request")
            continue
        if count == number and kind == "lost":
            post.lose(side)
        elif count == number and kind == "late":
            waiting = post.waiting(side)
            if len(waiting) > 1:
                post.give(side, index=1)
                number += 1
            else:
                other = pair.right if side is pair.left else pair.left
                if not post.waiting(other):
                    return
                post.give(other)
                number += 1
        else:
            post.give(side)
        count += 1


@pytest.mark.parametrize("right", COMMANDS)
@pytest.mark.parametrize("left", COMMANDS)
def test_both_ends_agree_whatever_is_lost_or_late(left: str, right: str) -> None:
    for lowest in (0, 3):
        for schedule in SCHEDULES:
            pair, tap = established()
            numbers = [5, 6, 7, 8]
            numbers[lowest] = 1
            pair.left.entropy.queue(nonce(numbers[0]), nonce(numbers[1]))
            pair.right.entropy.queue(nonce(numbers[2]), nonce(numbers[3]))
            watch, post = watched(pair), Post(pair, tap)
            order(watch, pair.left, left)
            order(watch, pair.right, right)
            try:
                deliver(pair, post, schedule)
                post.open(200)
                watch.check_rest()
                check_intent(pair, left, right)
            except AssertionError as error:
                raise AssertionError(f"{schedule}, lowest nonce {lowest}: {error}") from error


def check_intent(pair: Pair, left: str, right: str) -> None:
    """The number of children that both commands leave behind."""
    commands = (left, right)
    sessions = 0 if "delete IKE SA" in commands else 1
    children = 1 - ("delete child" in commands) + commands.count("create child")
    for side in (pair.left, pair.right):
        assert len(side.engine.sessions()) == sessions, (
            f"{side.name} has {len(side.engine.sessions())} sessions"
        )
        found = len(side.children)
        assert found == (children if sessions else 0), f"{side.name} has {found} children"
        assert side.engine.next_deadline() is None, f"{side.name} waits for {side.engine.next_deadline()}"
