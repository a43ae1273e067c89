"""The search for a path's MTU, on paths that lose, fragment and change (RFC 8899)."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpls.path_mtu import PathReport, PathReportError, PathSearch

SPI = bytes.fromhex("c0ffee01")


def walk(search: PathSearch, path_mtu: int, *, ignores_df: bool = False, loss: float = 0.0) -> int:
    """Rounds until it is done on such a path."""
    some, rounds = random.Random(path_mtu), 0
    while not search.is_done:
        rounds += 1
        assert rounds < 20
        arrived = {}
        for size in search.sizes():
            assert search.floor < size <= search.most and (search.most - size) % search.step == 0
            if size <= path_mtu and some.random() >= loss:
                arrived[size] = 0
            elif size > path_mtu and ignores_df:
                arrived[size] = path_mtu
        search.on_report(arrived)
    return rounds


@given(st.integers(600, 9000), st.integers(576, 9000), st.sampled_from([4, 16]), st.booleans())
def test_search_ends_at_the_largest_size_that_arrives_whole(
    most: int, path_mtu: int, step: int, ignores_df: bool
) -> None:
    search = PathSearch(576, most, step)
    rounds = walk(search, path_mtu, ignores_df=ignores_df)
    assert rounds <= 6
    if path_mtu >= most:
        assert (search.size, search.fragment, rounds) == (None, 0, 1)
        return
    assert search.size is not None
    assert search.size <= path_mtu
    assert search.size == 576 or search.size + step > path_mtu
    assert search.fragment == (path_mtu if ignores_df else 0)


def test_a_path_below_the_floor_is_taken_for_the_floor() -> None:
    search = PathSearch(1280, 1500, 4)
    walk(search, 1000)
    assert search.size == 1280


def test_confirmation_costs_one_round_and_a_narrower_path_is_found() -> None:
    search = PathSearch(576, 1500, 4)
    walk(search, 1400)
    search.begin(confirm=True)
    assert search.sizes() == (1400, 1500)
    assert walk(search, 1400) == 1
    assert search.size == 1400
    search.begin(confirm=True)
    walk(search, 1300)
    assert search.size == 1300
    search.begin(confirm=True)
    walk(search, 1450)
    assert search.size == 1300, "that it has grown a little is found when it is raised"
    search.begin()
    walk(search, 1450)
    assert search.size == 1448
    search.begin(confirm=True)
    walk(search, 9000)
    assert search.size is None, "and that it is as wide as the link at once"


@given(st.dictionaries(st.integers(1, 0xFFFF), st.integers(0, 0xFFFF), max_size=32))
def test_report_is_read_as_it_was_written(arrived: dict[int, int]) -> None:
    for report in (PathReport(SPI), PathReport(SPI, arrived)):
        assert PathReport.parse(report.encode()) == report


@pytest.mark.parametrize(
    "octets",
    [
        "",
        "a0",
        "a10001",
        "a2000201" + "44c0ffee01",  # version
        "a2000101" + "43c0ffee",  # SPI
        "a3000101" + "44c0ffee01" + "0200",
        "a3000101" + "44c0ffee01" + "028101",
        "a3000101" + "44c0ffee01" + "02818100",
        "a3000101" + "44c0ffee01" + "0281820000",  # size 0
        "a3000101" + "44c0ffee01" + "0281821a0001000000",
        "a3000101" + "44c0ffee01" + "02982100" + "8200" * 33,
        "a3000101" + "44c0ffee01" + "0300",
        PathReport(SPI, {}).encode().hex() + "00",
    ],
)
def test_anything_else_is_no_report(octets: str) -> None:
    with pytest.raises(PathReportError):
        PathReport.parse(bytes.fromhex(octets))


def test_nothing_that_is_cut_off_is_a_report() -> None:
    whole = PathReport(SPI, {1480: 0, 1400: 1396}).encode()
    for end in range(len(whole)):
        with pytest.raises(PathReportError):
            PathReport.parse(whole[:end])
