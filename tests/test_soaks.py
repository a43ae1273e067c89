"""Every soak, with a handful of cases: none of them rots."""

from __future__ import annotations

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


def test_soak_that_fails_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(run: Run) -> None:
        raise AssertionError("seed 4711")

    monkeypatch.setattr("tests.soak.__main__.soaks", lambda only: [Soak("bad", "A bad one.", fails, 10.0)])
    assert main([]) == 1
    captured = capsys.readouterr()
    assert "failed: bad" in captured.out
    assert "seed 4711" in captured.err


def test_soak_is_bounded() -> None:
    run = Run("long", limit_s=-1.0, say=lambda text: None)
    with pytest.raises(TooLongError):
        run.step()
