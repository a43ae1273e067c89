"""The examples of `ike` do what they say."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_two_engines_talk_in_forty_lines(capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / "two_engines.py"
    assert len(path.read_text().splitlines()) <= 40
    runpy.run_path(str(path), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    children = [line.split() for line in lines if line.startswith("Child SA")]
    assert len(children) == 2
    assert (children[0][2], children[0][4]) == (children[1][4], children[1][2])


def test_own_selector_type_is_negotiated(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "own_selector_type.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [
        "red and green, with green and blue: 2",
        "red, with blue: None",
    ]


def test_life_of_an_sa_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "sa_life.py"), run_name="__main__")
    told = capsys.readouterr().out
    for what in (
        "IKE_SA_INIT request 0",
        "again, transmission 2",
        "collision:",
        "commit: add",
        "event: ChildSaClosed",
    ):
        assert what in told, what
