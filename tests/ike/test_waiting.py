"""The order of waiting requests, and which may be in flight together (RFC 7296 2.3)."""

import pytest

from ike.events import CloseReason
from ike.exchanges.create_child import CreateChildSa, RekeyChildSa
from ike.exchanges.exchange import Exchange
from ike.exchanges.informational import DeleteChildSa, LivenessCheck, SendNotify
from ike.exchanges.rekey_ike import RekeyIkeSa
from ike.waiting import RequestQueue, may_accompany

ONE, OTHER = b"\0\0\1\1", b"\0\0\1\2"


def delete(spi: bytes) -> DeleteChildSa:
    return DeleteChildSa(spi, CloseReason.DELETED_LOCALLY)


def notify(token: int = 0) -> SendNotify:
    return SendNotify(token, ())


@pytest.mark.parametrize(
    ("exchange", "in_flight", "may"),
    [
        (RekeyChildSa(ONE), RekeyChildSa(ONE), False),
        (RekeyChildSa(ONE), delete(ONE), False),
        (delete(ONE), RekeyChildSa(ONE), False),
        (delete(ONE), delete(ONE), False),
        (delete(ONE), RekeyChildSa(OTHER), True),
        (RekeyChildSa(ONE), delete(OTHER), True),
        (CreateChildSa("net"), CreateChildSa("net"), True),
        (CreateChildSa("net"), delete(ONE), True),
        (delete(ONE), CreateChildSa("net"), True),
        (notify(1), notify(2), False),
        (notify(), CreateChildSa("net"), True),
        (CreateChildSa("net"), notify(), True),
        (LivenessCheck(), delete(ONE), True),
        (RekeyIkeSa(), LivenessCheck(), False),
        (RekeyIkeSa(), notify(), False),
    ],
)
def test_nothing_is_sent_beside_what_it_could_overtake(
    exchange: Exchange, in_flight: Exchange, may: bool
) -> None:
    assert may_accompany(exchange, [LivenessCheck(), in_flight]) is may
    assert may_accompany(exchange, [])


def take(queue: RequestQueue, in_flight: list[Exchange]) -> Exchange | None:
    return queue.take(in_flight, lambda exchange: True)


def filled(*exchanges: Exchange) -> RequestQueue:
    queue = RequestQueue()
    for exchange in exchanges:
        queue.put(exchange)
    return queue


def test_by_priority_and_then_first_come_first_served() -> None:
    notifies, creates = [notify(1), notify(2)], [CreateChildSa("a"), CreateChildSa("b")]
    removal = delete(ONE)
    queue = filled(notifies[0], creates[0], notifies[1], creates[1], removal)
    assert [take(queue, []) for _ in range(5)] == [removal, *creates, *notifies]
    assert take(queue, []) is None


def test_what_has_to_wait_lets_others_pass() -> None:
    removal, create = delete(ONE), CreateChildSa("a")
    queue = filled(removal, create)
    rekey = RekeyChildSa(ONE)
    assert take(queue, [rekey]) is create
    assert take(queue, [rekey]) is None
    assert take(queue, []) is removal


def test_nothing_passes_a_rekey_of_the_ike_sa_that_waits() -> None:
    create, rekey, removal = CreateChildSa("a"), RekeyIkeSa(), delete(ONE)
    queue = filled(create, rekey, removal)
    check = LivenessCheck()
    assert take(queue, [check]) is removal
    assert take(queue, [check]) is None
    assert take(queue, []) is rekey
    assert take(queue, []) is create


def test_what_may_not_start_is_passed_over() -> None:
    removal, create = delete(ONE), CreateChildSa("a")
    queue = filled(removal, create)
    assert queue.take([], lambda exchange: exchange is create) is create
    assert queue.take([], lambda exchange: exchange is create) is None
    assert list(queue) == [removal]


def test_what_is_sent_again_goes_before_what_was_never_sent() -> None:
    waiting, first, second = notify(3), notify(1), notify(2)
    queue = filled(waiting)
    queue.put_back([first, second])
    queue.put_back([removal := delete(ONE)])
    assert [take(queue, []) for _ in range(4)] == [removal, first, second, waiting]


def test_what_makes_others_of_its_kind_pointless_takes_their_place() -> None:
    create = CreateChildSa("a")
    queue = filled(notify(1), create, notify(2))
    queue.put_latest(last := notify(3))
    assert [take(queue, []) for _ in range(3)] == [create, last, None]


def test_cleared_queue_is_empty() -> None:
    queue = filled(notify())
    assert list(queue)
    queue.clear()
    assert list(queue) == []
