"""What an endpoint keeps over restarts: it comes back as it was, or the endpoint does not start."""

import json
import logging
from pathlib import Path

import pytest

from endpoint.errors import SetupError
from endpoint.plan import PeerPlan, plan_peers
from endpoint.state import FILE, EndpointState
from tests.endpoint.pair import STATIC_GRANTS, configuration


def plan(selectors: str) -> PeerPlan:
    (made,) = plan_peers(configuration(1, f'selectors = "{selectors}"', grants=STATIC_GRANTS))
    return made


def test_what_is_remembered_is_there_after_a_restart(tmp_path: Path) -> None:
    state = EndpointState(tmp_path / "made" / "with-its-parents")
    state.remember_native("pe2.example")
    state.remember_up("pe2", ["red/standard", "blue/0"], 0.0)
    state.flush()
    again = EndpointState(tmp_path / "made" / "with-its-parents")
    assert again.native == {"pe2.example"}
    assert again.up == {"pe2": ["blue/0", "red/standard"]}


def test_a_peer_with_nothing_up_leaves_no_trace(tmp_path: Path) -> None:
    state = EndpointState(tmp_path)
    state.remember_up("pe2", ["blue/0"], 0.0)
    state.remember_up("pe2", [], 0.0)
    state.flush()
    assert EndpointState(tmp_path).up == {}


def test_nothing_is_written_before_there_is_something_to_keep(tmp_path: Path) -> None:
    state = EndpointState(tmp_path)
    state.remember_up("pe2", [], 0.0)
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_already_is_not_written_again(tmp_path: Path) -> None:
    state = EndpointState(tmp_path)
    state.remember_native("pe2.example")
    state.remember_up("pe2", ["blue/0", "red/gold"], 0.0)
    state.flush()
    (tmp_path / FILE).unlink()
    state.remember_native("pe2.example")
    state.remember_up("pe2", ["red/gold", "blue/0"], 0.0)
    state.flush()
    assert list(tmp_path.iterdir()) == []


def test_the_new_file_takes_the_place_of_the_old_one_in_one_step(tmp_path: Path) -> None:
    state = EndpointState(tmp_path)
    state.remember_native("pe2.example")
    before = (tmp_path / FILE).stat().st_ino
    state.remember_native("pe3.example")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).stat().st_ino != before


def test_what_a_killed_process_had_half_written_does_no_harm(tmp_path: Path) -> None:
    EndpointState(tmp_path).remember_native("pe2.example")
    (tmp_path / FILE).with_suffix(".new").write_text('{"native": ["pe3.ex')
    assert EndpointState(tmp_path).native == {"pe2.example"}


def test_the_file_holds_names_and_nothing_else(tmp_path: Path) -> None:
    state = EndpointState(tmp_path)
    state.remember_native("pe2.example")
    state.remember_up("pe2", ["red/gold"], 0.0)
    state.flush()
    document = json.loads((tmp_path / FILE).read_text())
    assert document == {"native": ["pe2.example"], "up": {"pe2": ["red/gold"]}}


def test_without_a_folder_nothing_outlives_the_process() -> None:
    state = EndpointState(None)
    state.remember_native("pe2.example")
    state.remember_up("pe2", ["blue/0"], 0.0)
    assert (state.native, state.up) == ({"pe2.example"}, {"pe2": ["blue/0"]})
    assert EndpointState(None).native == set()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"native"',
        b"7",
        b"{}",
        b'{"native": []}',
        b'{"up": {}}',
        b'{"native": "pe2.example", "up": {}}',
        b'{"native": {"pe2.example": 1}, "up": {}}',
        b'{"native": [1], "up": {}}',
        b'{"native": [["pe2.example"]], "up": {}}',
        b'{"native": [], "up": []}',
        b'{"native": [], "up": {"pe2": "red/gold"}}',
        b'{"native": [], "up": {"pe2": [null]}}',
        b'{"native": [], "up": {"pe2": {"red/gold": true}}}',
    ],
)
def test_a_broken_file_is_refused_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(SetupError) as raised:
        EndpointState(tmp_path)
    text = str(raised.value)
    assert text.startswith(str(tmp_path / FILE)) and "remove it" in text
    assert "\n" not in text
    assert (tmp_path / FILE).read_bytes() == content, "it is left for the operator to look at"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(SetupError, match="cannot be read"):
        EndpointState(tmp_path)


def test_a_folder_that_cannot_be_written_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    state = EndpointState(tmp_path / "file" / "below")
    with caplog.at_level(logging.ERROR):
        state.remember_native("pe2.example")
    assert state.native == {"pe2.example"}
    (record,) = caplog.records
    assert "make `state_dir` writable" in record.getMessage()


def test_a_peer_that_was_native_once_must_be_so_for_ever() -> None:
    state = EndpointState(None)
    fresh = plan("native-or-plain")
    assert state.tighten(fresh) is fresh and not fresh.connection.extension_required
    state.remember_native("pe2.example")
    tightened = state.tighten(fresh)
    assert tightened.connection.extension_required
    assert tightened.children == fresh.children


def test_another_peers_past_tightens_nothing() -> None:
    state = EndpointState(None)
    state.remember_native("pe3.example")
    assert not state.tighten(plan("native-or-plain")).connection.extension_required


@pytest.mark.parametrize("selectors", ["plain", "seclabel"])
def test_a_peer_that_is_configured_plain_stays_so_whatever_it_was(selectors: str) -> None:
    state = EndpointState(None)
    state.remember_native("pe2.example")
    assert not state.tighten(plan(selectors)).connection.extension_required


def test_a_file_nested_too_deeply_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"[" * 100_000)
    with pytest.raises(SetupError, match="remove it"):
        EndpointState(tmp_path)


def test_what_comes_up_in_a_row_is_written_once_and_soon(tmp_path: Path) -> None:
    state = EndpointState(tmp_path)
    assert state.next_deadline() is None
    for number in range(100):
        state.remember_up(f"pe{number}", ["red/gold"], number / 1000)
    assert list(EndpointState(tmp_path).up) == ["pe0"]
    at = state.next_deadline()
    assert at is not None and at <= 1.0
    state.expire(at)
    assert len(EndpointState(tmp_path).up) == 100 and state.next_deadline() is None
