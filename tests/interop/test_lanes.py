"""Lanes run their work side by side and leave nothing; topologies are what the lab's page says of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import interop
from interop.lanes import Lanes
from interop.networks import Network
from interop.processes import LabError
from interop.topologies import TOPOLOGIES


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_number_is_worked_on_once_by_lanes_that_are_gone_afterwards() -> None:
    with Lanes(2, lambda lane, number: (lane, number * number, os.getpid())) as lanes:
        results = list(lanes.results(range(10)))
    assert sorted(square for _, square, _ in results) == [number * number for number in range(10)]
    pids = {pid for _, _, pid in results}
    assert {lane for lane, _, _ in results} == {0, 1}
    assert os.getpid() not in pids
    assert not any(alive(pid) for pid in pids)


def test_what_is_aside_is_left_to_one_lane_which_does_nothing_else() -> None:
    with Lanes(3, lambda lane, number: (lane, number)) as lanes:
        results = list(lanes.results(range(10), aside=[20, 21]))
    assert sorted(number for _, number in results) == [*range(10), 20, 21]
    assert {lane for lane, number in results if number >= 20} == {2}
    assert 2 not in {lane for lane, number in results if number < 10}


def test_a_lane_that_ends_by_itself_is_an_error() -> None:
    with (
        Lanes(1, lambda lane, number: os._exit(3)) as lanes,
        pytest.raises(LabError, match="ended by itself"),
    ):
        list(lanes.results([1]))


def test_a_lane_that_is_busy_is_unwound_when_the_others_are_given_up(tmp_path: Path) -> None:
    def work(lane: int, number: int) -> int:
        if number == 0:
            return 0
        (tmp_path / "begun").touch()
        try:
            while True:
                os.read(endless, 1)
        finally:
            (tmp_path / "unwound").touch()

    endless, _kept_open = os.pipe()
    with Lanes(2, work) as lanes:
        next(lanes.results([0, 1]))
        while not (tmp_path / "begun").exists():
            os.sched_yield()
    assert (tmp_path / "unwound").exists()


def test_every_topology_is_in_the_labs_documentation() -> None:
    text = Path(interop.__file__).with_name("README.md").read_text()
    for name, kind in TOPOLOGIES.items():
        assert f"| `{name}` |" in text
        assert kind.__doc__


def test_nothing_is_made_or_removed_outside_of_the_labs_prefix() -> None:
    with pytest.raises(LabError, match="not a prefix of the lab"):
        Network("other-")
