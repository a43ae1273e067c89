"""Liveness: silence and one-way ESP are asked about, arriving traffic never (RFC 7296 2.4)."""

from collections.abc import Callable

import pytest

from ike import CloseReason, IkeSaClosed
from ike.liveness import ONE_WAY_S
from ike.testing.pair import Pair
from tests.ike.engine_kit import Tap, established, only_child

LIVENESS_S = 60.0


def alive(liveness_s: float | None = LIVENESS_S) -> tuple[Pair, Tap]:
    return established(left={"liveness_s": liveness_s})


def every_second(pair: Pair, seconds: int, act: Callable[[], None]) -> None:
    for _ in range(seconds):
        act()
        pair.run(1)


def send_esp(pair: Pair) -> None:
    pair.left.engine.note_esp_sent(only_child(pair.left).spi_in, pair.now)


def receive_esp(pair: Pair) -> None:
    pair.left.engine.note_esp_received(only_child(pair.left).spi_in, pair.now)


def test_silence_is_asked_about_once_it_lasts() -> None:
    pair, tap = alive()
    pair.run(LIVENESS_S - 5)
    assert not tap.seen
    pair.run(10)
    assert len(tap.seen) == 2, "a request and its answer"
    pair.run(LIVENESS_S)
    assert len(tap.seen) == 4


def test_arriving_esp_puts_every_check_off() -> None:
    pair, tap = alive()
    every_second(pair, 200, lambda: receive_esp(pair))
    assert not tap.seen


def test_esp_both_ways_is_never_asked_about() -> None:
    pair, tap = alive()

    def both() -> None:
        send_esp(pair)
        receive_esp(pair)

    every_second(pair, 200, both)
    assert not tap.seen


def test_esp_that_nothing_comes_back_for_is_asked_about_soon() -> None:
    pair, tap = alive()
    every_second(pair, int(2 * ONE_WAY_S) + 1, lambda: send_esp(pair))
    assert len(tap.seen) == 2
    every_second(pair, 100, lambda: send_esp(pair))
    assert 5 <= len(tap.seen) // 2 <= 12, "now and then, not with each packet"


def test_a_black_hole_under_traffic_ends_the_ike_sa_long_before_silence_would() -> None:
    pair, tap = alive(3600.0)
    tap.hold(lambda datagram: True)
    spi_in = only_child(pair.left).spi_in
    every_second(pair, 150, lambda: pair.left.engine.note_esp_sent(spi_in, pair.now))
    assert pair.left.last(IkeSaClosed).reason is CloseReason.PEER_NOT_RESPONDING


@pytest.mark.parametrize("liveness_s", [None, 4.0])
def test_one_way_esp_follows_the_setting(liveness_s: float | None) -> None:
    pair, tap = alive(liveness_s)
    every_second(pair, 9, lambda: send_esp(pair))
    assert bool(tap.seen) is (liveness_s is not None)


def test_a_request_that_is_under_way_is_a_check_already() -> None:
    pair, tap = alive()
    tap.hold(lambda datagram: True)
    pair.left.engine.rekey_child(pair.left.session, only_child(pair.left).spi_in, pair.now)
    every_second(pair, 40, lambda: send_esp(pair))
    assert len({datagram.data for datagram in tap.seen}) == 1
