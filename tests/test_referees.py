"""README's table of referees is that of tests/referees.toml, and everything that it names exists."""

from __future__ import annotations

import ast

import pytest

from interop.cases import CASES
from tests.referees import (
    ALONE,
    ROOT,
    Feature,
    features,
    matching,
    referees_of,
    title_of,
    with_table,
)

NAMES = [case.name for case in CASES]


def test_readme_has_the_table_of_now() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme == with_table(readme, NAMES), "run: python -m tests.referees"


@pytest.mark.parametrize("feature", features(), ids=lambda feature: feature.name)
def test_all_that_a_feature_names_exists(feature: Feature) -> None:
    for pattern in feature.cases:
        assert matching(pattern, NAMES), f"no interop case {pattern}"
    for name in feature.vectors:
        assert title_of(name)
    tests = (*feature.tests, *feature.programs.values())
    for test in tests:
        file, _, function = test.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        functions = {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert any(name.startswith("test_") for name in functions), f"{file} holds no tests"
        assert not function or function in functions, test
    for program, test in feature.programs.items():
        assert program in (ROOT / test.partition("::")[0]).read_text(), f"{test} does not use {program}"
    assert tests or feature.cases or feature.vectors, "nobody has looked at it"


def test_features_are_named_once() -> None:
    names = [feature.name for feature in features()]
    assert len(set(names)) == len(names)


def test_every_published_vector_referees_something() -> None:
    vectors = {path.stem for path in (ROOT / "tests" / "vectors").glob("*.json")}
    assert vectors - {name for feature in features() for name in feature.vectors} == {"wire_golden"}


def test_feature_without_referee_says_so() -> None:
    assert referees_of(Feature("alone", tests=("tests/test_referees.py",)), NAMES) == ALONE
    assert "strongSwan" in referees_of(Feature("x", cases=("strongswan-mobike-*",)), NAMES)
    assert "RFC 5903" in referees_of(Feature("x", vectors=("rfc5903",)), NAMES)
