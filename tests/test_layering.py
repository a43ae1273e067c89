"""The import rule of ARCHITECTURE.md, checked on the syntax trees: ike, esp and mpls never import each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "ike": {"ike"},
    "esp": {"esp"},
    "mpls": {"mpls"},
    "endpoint": {"endpoint", "ike", "esp", "mpls"},
}
OURS = set(MAY_IMPORT) | {"interop", "tests"}
# What a sans-IO package has no business with: sockets, clocks, processes, the system's entropy.
IMPURE = {"asyncio", "socket", "select", "selectors", "time", "random", "secrets", "subprocess", "threading"}


def imported_roots(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_package_imports_only_what_its_layer_may(package: str) -> None:
    assert modules(package)
    for path in modules(package):
        foreign = set(imported_roots(path.read_text())) & OURS - MAY_IMPORT[package]
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


@pytest.mark.parametrize("package", ["ike", "esp", "mpls"])
def test_protocol_packages_do_no_io_and_read_no_clock(package: str) -> None:
    for path in modules(package):
        impure = set(imported_roots(path.read_text())) & IMPURE
        assert not impure, f"{path.relative_to(ROOT)} imports {sorted(impure)}"
        if path != ROOT / "ike" / "entropy.py":
            assert "urandom" not in path.read_text(), f"{path.relative_to(ROOT)} reads the system's entropy"


def test_the_rule_can_fail() -> None:
    assert set(imported_roots("import esp.engine\nfrom mpls import labels")) == {"esp", "mpls"}
