"""The page of a run: a row and a cell for each case, the ladder of its capture, nothing from elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from interop import golden
from interop.browser import complaints
from interop.ladder import ladder
from interop.page import tail, write_page

NAME = "linux-pe-mpls-in-ip-raw-initiator"
RESULT = {
    "name": NAME,
    "feature": "labels <inside> ESP",
    "peer": "linux-pe",
    "peer_version": "Linux 6.1, strongSwan 5.9.8",
    "role": "initiator",
    "result": "passed",
    "seconds": 8.7,
    "evidence": ["12 ESP packets & no others"],
}


class Page(HTMLParser):
    """What a page is made of: the tags with their attributes, the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def write_report(folder: Path) -> list[dict[str, object]]:
    failed = RESULT | {
        "name": "other",
        "role": "responder",
        "result": "failed",
        "evidence": ["CheckError: no"],
    }
    report = folder / "interop.json"
    report.write_text(json.dumps([RESULT, failed]))
    case = folder / "interop" / NAME
    (case / "pe2").mkdir(parents=True)
    (case / "pe2" / "charon.log").write_text("00[DMN] starting\n05[IKE]    0: AA BB CC  ...\n05[IKE] up\n")
    rungs = [rung.as_json() for rung in ladder(golden.read(NAME).packets)]
    (case / "ladder.json").write_text(json.dumps(rungs))
    write_page(report)
    return [RESULT, failed]


def page_of(folder: Path) -> Page:
    write_report(folder)
    return Page((folder / "interop.html").read_text())


def test_each_case_has_a_cell_that_leads_to_its_row(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    rows = [attributes["id"] for tag, attributes in page.tags if tag == "details" and "id" in attributes]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert rows == [NAME, "other"]
    assert [link for link in links if link and link.startswith("#")] == [f"#{NAME}", "#other"]
    assert f"interop/{NAME}/wire.pcap" in links
    assert f"interop/{NAME}/pe2/charon.log" in links
    assert "1 of 2 cases passed" in page.text
    assert "CheckError: no" in page.text
    assert "The wire was not decoded." in page.text


def test_what_programs_said_is_text_and_not_markup(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "labels <inside> ESP" in page.text
    assert "12 ESP packets & no others" in page.text


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page_of(tmp_path)
    text = (tmp_path / "interop.html").read_text()
    assert not re.search(r"https?://|\ssrc=|@import|url\(|<link", text)


def test_logs_are_shown_without_their_dumps_of_keys(tmp_path: Path) -> None:
    page_of(tmp_path)
    assert tail(tmp_path / "interop" / NAME / "pe2" / "charon.log") == "00[DMN] starting\n05[IKE] up"


def test_ladder_has_the_messages_and_counts_the_packets_of_each_sa() -> None:
    rungs = ladder(golden.read(NAME).packets)
    assert [rung.text.split(":")[0] for rung in rungs[:4]] == [
        "IKE_SA_INIT request 0",
        "IKE_SA_INIT response 0",
        "IKE_AUTH request 1",
        "IKE_AUTH response 1",
    ]
    assert "N(USE_TRANSPORT_MODE)" in "".join(rung.text for rung in rungs)
    esp = [(rung.source, rung.count) for rung in rungs if rung.kind == "esp"]
    assert esp == [("192.0.2.1", 6), ("192.0.2.2", 6)]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium: make interop has it")
def test_a_browser_shows_the_rows_and_opens_the_ladders_without_overflow(tmp_path: Path) -> None:
    results = write_report(tmp_path)
    page = tmp_path / "interop.html"
    assert complaints(page, results) == []
    text = page.read_text().replace("one.open = true", "one.open = false")
    page.write_text(text.replace("</body>", '<p style="width: 1400px">wide</p></body>'))
    wrong = complaints(page, results[:1])
    assert wrong[:2] == [
        "the rows are not those of the report",
        f"the cell of {NAME} does not open its ladder",
    ]
    assert "the window has 1280" in wrong[2]
