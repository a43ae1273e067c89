"""The table "feature: who has agreed with it" of README.md, made from tests/referees.toml.

`python -m tests.referees` writes it; test_referees.py holds README equal to it and every name in it true. Must not
know what a feature is.
"""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = Path(__file__).with_suffix(".toml")
BEGIN = "<!-- made by python -m tests.referees -->\n"
END = "<!-- end -->\n"
ALONE = "tested against itself only"
PEERS = {
    "linux-pe": "Linux with strongSwan",
    "linux-inside": "Linux (MPLS)",
    "linux-host": "Linux with strongSwan",
    "linux-esp": "Linux",
    "strongswan": "strongSwan",
    "libreswan": "libreswan",
    "demo-seen-by-tshark": "tshark",
    "scripts-strongswan": "strongSwan",
    "scripts-libreswan": "libreswan",
}
"""The beginning of a case's name -> the program that it is about."""


@dataclass(frozen=True)
class Feature:
    name: str
    cases: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    programs: dict[str, str] = field(default_factory=dict)
    tests: tuple[str, ...] = ()

    @property
    def is_alone(self) -> bool:
        return not (self.cases or self.vectors or self.programs)


def features() -> list[Feature]:
    def one(entry: dict[str, Any]) -> Feature:
        cases, vectors, tests = (tuple(entry.pop(key, ())) for key in ("cases", "vectors", "tests"))
        return Feature(cases=cases, vectors=vectors, tests=tests, **entry)

    return [one(entry) for entry in tomllib.loads(SOURCE.read_text())["feature"]]


def matching(pattern: str, names: list[str]) -> list[str]:
    return fnmatch.filter(names, pattern)


def peer_of(case: str) -> str:
    """The program that a case with this name is about."""
    beginning = max((key for key in PEERS if case.startswith(key)), key=len, default="")
    if not beginning:
        raise LookupError(f"tests/referees.py does not know whom {case} is about")
    return PEERS[beginning]


def title_of(vectors: str) -> str:
    """How a file of tests/vectors calls its source, shortly."""
    source = str(json.loads((ROOT / "tests" / "vectors" / f"{vectors}.json").read_text())["source"])
    found = re.match(r"RFC \d+|NIST SP [\d-]+|draft-[a-z-]+\d*", source)
    if found is None:
        raise LookupError(f"{vectors}.json: {source!r} names no document first")
    return found[0].rstrip("-")


def referees_of(feature: Feature, case_names: list[str]) -> str:
    """One cell: the programs of its cases, documents, programs inside tests."""
    if feature.is_alone:
        return ALONE
    peers = [peer_of(case) for pattern in feature.cases for case in matching(pattern, case_names)]
    return ", ".join(
        dict.fromkeys([*peers, *(title_of(name) for name in feature.vectors), *feature.programs])
    )


def table(case_names: list[str]) -> str:
    rows = [f"| {feature.name} | {referees_of(feature, case_names)} |" for feature in features()]
    return "\n".join(["| feature | referee |", "|---|---|", *rows]) + "\n"


def with_table(readme: str, case_names: list[str]) -> str:
    """README with the table of now. LookupError if it has no place for it."""
    if BEGIN not in readme or END not in readme:
        raise LookupError("README.md has no place for the table of referees")
    before, rest = readme.split(BEGIN, 1)
    return before + BEGIN + table(case_names) + END + rest.split(END, 1)[1]


def main() -> None:
    from interop.cases import CASES

    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(), [case.name for case in CASES]))


if __name__ == "__main__":
    main()
