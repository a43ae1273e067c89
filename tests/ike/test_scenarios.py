"""`scenarios.toml` names a test of ours for every scenario of strongSwan's unit tests, and every test is there."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCENARIOS = tomllib.loads((HERE / "scenarios.toml").read_text())
SOURCE = SCENARIOS.pop("source")


@cache
def collected() -> frozenset[str]:
    """The node ids of all tests of ike, with and without their parameters."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/ike"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    nodes = [line for line in done.stdout.splitlines() if "::" in line]
    return frozenset(nodes) | {node.partition("[")[0] for node in nodes}


def test_every_scenario_has_its_place() -> None:
    lines = (HERE / "scenario_names.txt").read_text().splitlines()
    names = {tuple(line.split()) for line in lines if line and not line.startswith("#")}
    assert {(file, name) for file, scenarios in SCENARIOS.items() for name in scenarios} == names
    assert len(names) == 62


def test_every_scenario_is_claimed_by_tests_that_are_there() -> None:
    for file, scenarios in SCENARIOS.items():
        for name, scenario in scenarios.items():
            assert scenario["claim"].endswith("."), f"{file} {name}"
            assert scenario["tests"], f"{file} {name}"
            missing = [node for node in scenario["tests"] if node not in collected()]
            assert not missing, f"{file} {name}: {missing}"


def test_the_source_is_named() -> None:
    assert SOURCE["project"] == "strongSwan"
    assert len(SOURCE["commit"]) == 40
