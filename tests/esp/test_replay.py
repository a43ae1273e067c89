"""The replay window against a model that remembers everything, and the inference of extended numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.errors import DropReason, EspError
from esp.replay import DEFAULT_WINDOW, ReplayWindow

LOW = 0xFFFFFFFF
SIZES = st.sampled_from([64, 65, 100, 1024, 4096])


def receive(window: ReplayWindow, low: int) -> int | DropReason:
    verdict = window.check(low)
    if isinstance(verdict, int):
        window.update(verdict)
    return verdict


def test_size_is_bounded_and_none_only_when_said() -> None:
    assert ReplayWindow().size == DEFAULT_WINDOW == 1024
    for size in (1, 63, 4097, -1):
        with pytest.raises(EspError):
            ReplayWindow(size)
    with pytest.raises(EspError):
        ReplayWindow(0, esn=True)


def test_without_a_window_everything_passes() -> None:
    window = ReplayWindow(0)
    for low in (5, 5, LOW, 1, 0):
        assert receive(window, low) == low


def test_check_alone_changes_nothing() -> None:
    window = ReplayWindow()
    assert [window.check(low) for low in (7, 7, 5000, 7)] == [7, 7, 5000, 7]
    assert window.highest == 0


@pytest.mark.parametrize("esn", [False, True])
def test_number_zero_is_never_new(esn: bool) -> None:
    assert ReplayWindow(esn=esn).check(0) is DropReason.REPLAY


def test_edges_of_the_window() -> None:
    window = ReplayWindow(64)
    assert receive(window, 1000) == 1000
    assert receive(window, 1000) is DropReason.REPLAY
    assert receive(window, 936) is DropReason.TOO_OLD
    assert receive(window, 937) == 937
    assert receive(window, 937) is DropReason.REPLAY
    assert receive(window, 1001) == 1001
    assert receive(window, 937) is DropReason.TOO_OLD
    assert receive(window, 938) == 938
    assert receive(window, 1001 + 64) == 1065
    assert receive(window, 1001) is DropReason.TOO_OLD
    assert receive(window, 1002) == 1002


def test_number_is_remembered_exactly_as_long_as_it_is_in_the_window() -> None:
    for ahead in (1, 63, 64, 65, 1 << 31):
        window = ReplayWindow(64)
        receive(window, 100)
        receive(window, 100 + ahead)
        assert window.check(100) is (DropReason.REPLAY if ahead < 64 else DropReason.TOO_OLD)


def test_memory_of_a_window_is_bounded_by_its_size() -> None:
    window = ReplayWindow(64)
    for low in range(1, 2000, 7):
        receive(window, low)
    assert window._seen.bit_length() <= 64


def test_last_of_32_bits_is_the_end() -> None:
    window = ReplayWindow(64)
    assert receive(window, LOW) == LOW
    assert receive(window, 0) is DropReason.TOO_OLD
    assert receive(window, LOW - 63) == LOW - 63


@given(size=SIZES, steps=st.lists(st.integers(-5000, 5000), max_size=80), start=st.integers(1, LOW - 500000))
def test_window_agrees_with_a_set_that_remembers_everything(size: int, steps: list[int], start: int) -> None:
    window = ReplayWindow(size)
    seen: set[int] = set()
    highest = 0
    at = start
    for step in steps:
        at = min(max(at + step, 1), LOW)
        expected: int | DropReason = at
        if at <= highest - size:
            expected = DropReason.TOO_OLD
        elif at in seen:
            expected = DropReason.REPLAY
        assert receive(window, at) == expected
        if expected == at:
            seen.add(at)
            highest = max(highest, at)
        assert window.highest == highest


@given(
    size=SIZES,
    start=st.integers(1, 2**64 - 1) | st.sampled_from([n << 32 for n in (1, 2, 0xFFFFFFFF)]),
    steps=st.lists(st.integers(-4200, 70000) | st.integers(0, 2**32 - 4200), max_size=60),
)
def test_extended_window_agrees_with_a_set_that_remembers_everything(
    size: int, start: int, steps: list[int]
) -> None:
    """What lies between the window's left edge and 2^32 numbers further on is known by its low half."""
    window = ReplayWindow(size, esn=True, highest=start)
    seen = {start}
    highest = start
    for step in steps:
        at = highest + max(step, 1 - size)
        if not 0 < at < 2**64 or at >= highest - size + 1 + 2**32:
            continue
        expected = DropReason.REPLAY if at in seen else at
        assert receive(window, at & LOW) == expected
        seen.add(at)
        highest = max(highest, at)


def rfc_4303_a2(highest: int, size: int, low: int) -> int:
    """RFC 4303 A2.2 in its own words: the whole number for `low`, which may lie below zero."""
    tl, th = highest & LOW, highest >> 32
    bottom = (tl - size + 1) & LOW
    if tl >= size - 1:
        return (th if low >= bottom else th + 1) << 32 | low
    return ((th - 1 if low >= bottom else th) << 32) + low


@given(size=SIZES, highest=st.integers(0, 2**64 - 1), low=st.integers(0, LOW))
def test_inference_is_that_of_rfc_4303_appendix_a2(size: int, highest: int, low: int) -> None:
    window = ReplayWindow(size, esn=True, highest=highest)
    whole = rfc_4303_a2(highest, size, low)
    verdict = window.check(low)
    if not 0 <= whole < 2**64:
        assert verdict is DropReason.TOO_OLD
    elif whole == highest:
        assert verdict is DropReason.REPLAY
    else:
        assert verdict == whole


def test_extended_numbers_cross_into_the_next_subspace_and_back() -> None:
    window = ReplayWindow(64, esn=True, highest=2**32 - 10)
    assert receive(window, LOW - 1) == 2**32 - 2
    assert receive(window, 3) == 2**32 + 3
    assert receive(window, LOW) == 2**32 - 1
    assert receive(window, LOW) is DropReason.REPLAY
    assert receive(window, LOW - 1) is DropReason.REPLAY
    assert receive(window, 0) == 2**32
    assert receive(window, 3) is DropReason.REPLAY


def test_young_extended_window_reaches_not_below_zero() -> None:
    window = ReplayWindow(64, esn=True)
    assert window.check(LOW) is DropReason.TOO_OLD
    assert window.check(LOW - 62) is DropReason.TOO_OLD
    assert window.check(LOW - 63) == LOW - 63


def test_last_extended_number_has_no_successor() -> None:
    window = ReplayWindow(64, esn=True, highest=2**64 - 1)
    for low in (0, 1, LOW - 64):
        assert window.check(low) is DropReason.TOO_OLD
    assert window.check(LOW - 1) == 2**64 - 2
