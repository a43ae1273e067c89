"""INTEROP.md says what the report says, and the stability record where runs differ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import interop
from interop.report import HEADING, INTRODUCTION, render, summary
from interop.stability import compare, record

CELL = re.compile(r"(([ir]|\([ir] (failed|unsupported)\))( |$))*")


def result(
    name: str, peer: str, role: str, verdict: str = "passed", feature: str = "tunnel"
) -> dict[str, Any]:
    version = f"{peer} 1.0"
    evidence = ["it says no"] if verdict == "unsupported" else ["seen"]
    return {
        "name": name,
        "feature": feature,
        "peer": peer,
        "peer_version": version,
        "role": role,
        "result": verdict,
        "seconds": 1.0,
        "evidence": evidence,
    }


RESULTS = [
    result("a", "swan", "initiator"),
    result("b", "swan", "responder", "failed"),
    result("c", "linux", "responder"),
    result("d", "linux", "initiator", "unsupported"),
    result("e", "linux", "initiator", feature="tunnel | rekey"),
]


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown document, as rows of cells."""
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    return [[line[2:-2].split(" | ") for line in block.splitlines()] for block in blocks]


def test_cells_name_the_roles_that_were_proven() -> None:
    _, features = tables(render(RESULTS))
    assert features[0] == ["feature", "linux", "swan"]
    assert features[2] == ["tunnel", "(i unsupported) r", "i (r failed)"]
    assert features[3] == ["tunnel   rekey", "i", ""]


def test_what_a_peer_cannot_do_is_told_with_its_reason() -> None:
    assert "* linux, tunnel, we as initiator: it says no" in render(RESULTS)


def test_proven_is_counted_once_for_a_feature_a_peer_and_a_role() -> None:
    again = [*RESULTS, result("again", "swan", "initiator")]
    for results in (RESULTS, again):
        assert summary(results).startswith("3 proven (feature, peer, role) over 2 peers;")


def test_the_committed_document_has_the_shape_of_a_report_without_failures() -> None:
    text = Path(interop.__file__).parents[1].joinpath("INTEROP.md").read_text()
    assert text.startswith(f"{HEADING}\n\n{INTRODUCTION}\n\n")
    found = re.search(
        r"^(\d+) proven \(feature, peer, role\) over (\d+) peers;.* 0 failed\.$", text, re.MULTILINE
    )
    assert found
    assert int(found[1]) >= 60
    assert int(found[2]) >= 6
    peers, features = tables(text)
    assert features[0][1:] == [row[0] for row in peers[2:]]
    cells = [cell for row in features[2:] for cell in row[1:]]
    assert all(CELL.fullmatch(cell) for cell in cells)
    assert len(re.findall(r"(?:^| )[ir](?= |$)", "\n".join(cells), re.MULTILINE)) == int(found[1])


def test_runs_that_agree_have_no_differences_and_others_name_the_case() -> None:
    other = [*RESULTS[1:], result("a", "swan", "initiator", "failed")]
    assert compare([RESULTS, RESULTS, list(reversed(RESULTS))]) == []
    assert [one["name"] for one in compare([RESULTS, other])] == ["a"]
    assert [one["name"] for one in compare([RESULTS, RESULTS[:-1]])] == ["e"]
    again = RESULTS[0] | {"evidence": ["at the second attempt, alone; the first: a ping was lost"]}
    assert [one["name"] for one in compare([RESULTS, [again, *RESULTS[1:]]])] == [again["name"]]
    assert record([RESULTS], [1.23], [0])["runs"] == [
        {"seconds": 1.2, "exit_code": 0, "cases": 5, "passed": 3}
    ]
