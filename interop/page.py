"""build/interop.html from interop.json and the evidence beside it: one page, nothing loaded from elsewhere.

Must not know: any case. A matrix of features and peers; behind each cell what was seen, the ladder, the logs.
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

LOG_LINES = 40
SIGNS = {"passed": "&check;", "failed": "&cross;", "unsupported": "&mdash;"}
STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; --soft: #8881; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1180px; padding: 0 1rem;
       overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { border: 1px solid var(--line); padding: .3rem .5rem; text-align: left; vertical-align: top;
         overflow-wrap: anywhere; font-size: .88rem; }
thead th { background: var(--soft); }
.matrix th:first-child { width: 32%; font-weight: 500; }
.matrix td { white-space: nowrap; } .matrix thead th { font-size: .78rem; }
.passed { color: var(--good); } .failed { color: var(--bad); font-weight: 600; } .unsupported { opacity: .7; }
a { color: inherit; } .small { opacity: .7; font-size: .85rem; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0; padding: .3rem .8rem; }
details details { border-style: dashed; }
summary { cursor: pointer; overflow-wrap: anywhere; }
pre { overflow-x: auto; font-size: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.ladder td { border: 0; border-bottom: 1px solid var(--soft); padding: .12rem .4rem; font-size: .82rem; }
.ladder td:nth-child(1) { width: 4.6rem; text-align: right; opacity: .7; } .ladder td:nth-child(2) { width: 15rem; }
.ladder .esp td { opacity: .8; }
"""
SCRIPT = """
function open_case() {
  const one = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (one && one.tagName === "DETAILS") { one.open = true; one.scrollIntoView(); }
}
addEventListener("hashchange", open_case); open_case();
"""


def write_page(report: Path) -> Path:
    """The page of a report (interop.json), whose evidence lies in the folder `interop` beside it."""
    results: list[dict[str, Any]] = json.loads(report.read_text())
    folder = report.parent / "interop"
    page = report.with_suffix(".html")
    cases = "\n".join(render_case(result, folder / result["name"]) for result in results)
    passed = sum(result["result"] == "passed" for result in results)
    peers = len({result["peer"] for result in results})
    page.write_text(f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>mplsec: interop</title><style>{STYLE}</style></head><body>
<h1>Interop: {passed} of {len(results)} cases passed, {peers} peers</h1>
<p>Each case ran our program against another one, captured the wire, and judged what tshark decoded there.
A cell leads to what was seen, the messages, and both programs' logs. It names our role, initiator or responder of the
IKE SA: &check; passed, &cross; failed, &mdash; unsupported by the peer.</p>
{render_matrix(results)}
<h2>Cases</h2>
{cases}
<script>{SCRIPT}</script></body></html>
""")
    return page


def render_matrix(results: list[dict[str, Any]]) -> str:
    """A row for each feature, a column for each peer, in a cell each role."""
    peers = list(dict.fromkeys(result["peer"] for result in results))
    versions: dict[str, set[str]] = {peer: set() for peer in peers}
    rows: dict[str, dict[str, list[str]]] = {}
    for result in results:
        versions[result["peer"]].add(str(result["peer_version"]))
        cell = (
            f'<a class="{escape(result["result"])}" href="#{escape(result["name"])}" title="{escape(result["name"])}, '
            f'{escape(result["result"])}">{SIGNS[result["result"]]} {escape(result["role"][:4])}</a>'
        )
        rows.setdefault(result["feature"], {}).setdefault(result["peer"], []).append(cell)
    head = "".join(
        f'<th>{escape(peer)}<br><span class="small">{escape("; ".join(sorted(versions[peer])))}</span></th>'
        for peer in peers
    )
    body = "\n".join(
        f"<tr><th>{escape(feature)}</th>"
        + "".join(f"<td>{'<br>'.join(cells.get(peer, []))}</td>" for peer in peers)
        + "</tr>"
        for feature, cells in rows.items()
    )
    top = f"<thead><tr><th>feature</th>{head}</tr></thead>"
    return f'<table class="matrix">{top}\n<tbody>{body}</tbody></table>'


def render_case(result: dict[str, Any], folder: Path) -> str:
    """One line of interop.json, folded: evidence, ladder, logs."""
    verdict = escape(result["result"])
    seen = "".join(f"<li>{escape(line)}</li>" for line in result["evidence"])
    logs = "".join(render_log(log, folder) for log in sorted(folder.glob("pe*/*.log")))
    wire = f"interop/{escape(result['name'])}/wire.pcap"
    opening = f'<details class="case" id="{escape(result["name"])}" data-result="{verdict}">'
    return f"""{opening}<summary><span class="{verdict}">{verdict}</span>
 <b>{escape(result["name"])}</b> <span class="small">{escape(str(result["peer_version"]))}, {result["seconds"]} s</span>
</summary><p>{escape(result["feature"])}</p><ul>{seen}</ul>
{render_ladder(folder / "ladder.json")}
{logs}
<p class="small">Capture: <a href="{wire}">{wire}</a>, its keys in the folder keys beside it.</p></details>"""


def render_log(log: Path, folder: Path) -> str:
    """The end of a log, folded, and a link to all of it."""
    name = escape(str(log.relative_to(folder)))
    whole = f'<a class="small" href="interop/{escape(folder.name)}/{name}">all of it</a>'
    return f"<details><summary>{name}</summary>{whole}<pre>{escape(tail(log))}</pre></details>"


def render_ladder(file: Path) -> str:
    if not file.exists():
        return "<p>The wire was not decoded.</p>"
    rungs = json.loads(file.read_text())
    left = min((rung["source"] for rung in rungs), default="")
    rows = []
    for rung in rungs:
        source, text = escape(rung["source"]), escape(rung["text"])
        arrow = f"{source} &rarr;" if rung["source"] == left else f"&larr; {source}"
        times = f"{rung['count']} &times; " if rung["kind"] == "esp" else ""
        cells = f"<td>{rung['time_s']:.3f} s</td><td>{arrow}</td><td>{times}{text}</td>"
        rows.append(f'<tr class="{escape(rung["kind"])}">{cells}</tr>')
    return f'<h3>On the wire</h3><table class="ladder"><tbody>{"".join(rows)}</tbody></table>'


def tail(log: Path) -> str:
    """The end of a log without its hexadecimal dumps: they are keys, most of them."""
    lines = log.read_text(errors="replace").splitlines()
    plain = [line for line in lines if not re.search(r"\]\s+\d+: (?:[0-9A-F]{2} )", line)]
    return "\n".join(plain[-LOG_LINES:])
