"""What the lab says where it cannot run as a whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from interop import __main__ as lab
from interop import unprivileged
from interop.cases import CASES
from interop.processes import LabError


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["interop", *arguments])
    return lab.main()


def test_without_root_it_says_what_is_in_the_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(unprivileged, "obstacles", lambda: ["no user namespaces"])
    assert run_main(monkeypatch) == 1
    said = capsys.readouterr().err
    assert "no user namespaces" in said
    assert "make demo" in said
    assert "make test" in said


def test_without_root_it_goes_on_in_namespaces_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class GoneError(Exception):
        pass

    def go_inside() -> NoReturn:
        raise GoneError

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(unprivileged, "obstacles", list)
    monkeypatch.setattr(unprivileged, "go_inside", go_inside)
    with pytest.raises(GoneError):
        run_main(monkeypatch)


def test_without_root_run_the_cases_that_need_neither_containers_nor_what_root_has_to_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPLSEC_LAB", str(tmp_path))
    without_roots = unprivileged.select(CASES)
    assert {case.name for case in without_roots} >= {"mplsec-native-initiator", "scapy-mpls-in-ip-responder"}
    assert not any(case.roots or case.needs_docker for case in without_roots)
    assert "containers need root" in capsys.readouterr().out
    for case in CASES:
        for root in case.roots:
            root.path.mkdir(parents=True, exist_ok=True)
    names = {case.name for case in unprivileged.select(CASES)}
    assert "linux-pe-mpls-in-ip-raw-responder" in names
    assert "strongswan-ip-tunnel-responder" not in names


def test_without_docker_it_says_what_can_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_tools: object) -> NoReturn:
        raise LabError("docker.io cannot be installed")

    monkeypatch.setattr(lab, "install_tools", refuse)
    with pytest.raises(LabError, match=r"docker\.io cannot be installed\n.*ONLY='linux-pe\*'"):
        lab.start_docker(tmp_path).__enter__()


def test_what_is_said_to_run_without_docker_does_not_need_it() -> None:
    named = [case for case in CASES if case.name.startswith(("linux-pe", "demo"))]
    assert named
    assert not any(case.needs_docker for case in named)


def test_a_pattern_that_matches_nothing_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(monkeypatch, "--only", "no-such-case") == 2
    assert run_main(monkeypatch, "--only", "demo", "--lanes", "0") == 2
