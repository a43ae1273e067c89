"""Every soak, with a handful of cases: none of them rots."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.soak.__main__ import Soak, main, soaks
from tests.soak.run import Run, TooLongError


@pytest.mark.parametrize(
    "soak",
    [pytest.param(soak, id=soak.name, marks=pytest.mark.root if soak.needs_root else ()) for soak in soaks()],
)
def test_soak_runs(soak: Soak) -> None:
    run = Run(soak.name, scale=0.002, limit_s=60.0, say=lambda text: None)
    soak.function(run)
    assert run.done == run.total > 0


def _fails(run: Run) -> None:
    raise AssertionError("seed 4711")


def _passes(run: Run) -> None:
    for _ in run.cases(3):
        run.step()
    run.figures["lost"] = 0


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two soaks; where their record goes."""
    both = [Soak("bad", "A bad one.", _fails, 10.0), Soak("good", "A good one.", _passes, 10.0)]
    monkeypatch.setattr("tests.soak.__main__.soaks", lambda only: [one for one in both if only in one.name])
    monkeypatch.setattr("tests.soak.__main__.RECORD", tmp_path / "build" / "soak.json")
    monkeypatch.setattr("tests.soak.__main__.RECORD_OF_SOME", tmp_path / "build" / "some.json")
    return tmp_path / "build"


def test_soak_that_fails_is_named(capsys: pytest.CaptureFixture[str], record: Path) -> None:
    assert main([]) == 1
    captured = capsys.readouterr()
    assert "failed: bad" in captured.out
    assert "seed 4711" in captured.err


def test_whole_run_is_on_record(record: Path) -> None:
    main([])
    document = json.loads((record / "soak.json").read_text())
    assert document["scale"] == 1.0
    bad, good = document["soaks"]
    assert (bad["name"], bad["outcome"], bad["detail"]) == ("bad", "failed", "AssertionError: seed 4711")
    assert (good["name"], good["outcome"], good["cases"]) == ("good", "passed", 3)
    assert good["figures"] == {"lost": 0}
    assert good["seconds"] >= 0


@pytest.mark.parametrize("arguments", [["--only", "good"], ["--scale", "0.5"]])
def test_run_of_less_than_all_leaves_the_record_of_a_whole_one(record: Path, arguments: list[str]) -> None:
    main([])
    before = (record / "soak.json").read_text()
    main(arguments)
    assert (record / "soak.json").read_text() == before
    assert json.loads((record / "some.json").read_text())["soaks"]


def test_soak_is_bounded() -> None:
    run = Run("long", limit_s=-1.0, say=lambda text: None)
    with pytest.raises(TooLongError):
        run.step()
