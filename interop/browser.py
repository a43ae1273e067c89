"""The page of a run, seen by a browser (headless Chromium): its rows, what its cells open, whether it fits.

Must not know: how the page is made. What is asserted is what the browser laid out, 1280 px wide.
"""

from __future__ import annotations

import json
import re
import tempfile
from html import unescape
from pathlib import Path
from typing import Any

from .processes import LabError, run

WIDTH = 1280
PROBE = """
<script>
async function probe() {
  const root = document.documentElement;
  const rows = [...document.querySelectorAll("details.case")].map(one => [one.id, one.dataset.result]);
  const opened = {};
  let width = root.scrollWidth;
  for (const cell of document.querySelectorAll(".matrix a")) {
    const changed = new Promise(resolve => addEventListener("hashchange", resolve, { once: true }));
    cell.click();
    await changed;
    const one = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const ladder = one.querySelector(".ladder");
    opened[one.id] = one.open && ladder !== null && ladder.offsetHeight > 0 ? ladder.rows.length : 0;
    for (const inner of one.querySelectorAll("details")) inner.open = true;
    width = Math.max(width, root.scrollWidth);
    one.open = false;
  }
  const result = document.createElement("pre");
  result.id = "probe";
  result.textContent = JSON.stringify({ rows, opened, width, window: innerWidth });
  document.body.append(result);
}
addEventListener("load", () => probe());
</script>
"""


def browse(page: Path, *options: str) -> str:
    """Chromium's output for a page, laid out `WIDTH` wide."""
    with tempfile.TemporaryDirectory(prefix="mplslab-") as scratch:
        argv = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        argv += [
            f"--user-data-dir={scratch}",
            f"--window-size={WIDTH},900",
            *options,
            page.resolve().as_uri(),
        ]
        home = {"HOME": scratch, "XDG_CONFIG_HOME": scratch, "XDG_CACHE_HOME": scratch}
        return run(argv, timeout_s=120, extra_environment=home).stdout


def look_at(page: Path) -> dict[str, Any]:
    """What the browser found: `rows` (name, verdict), `opened` (name: rungs shown), `width`, `window`."""
    with tempfile.TemporaryDirectory(prefix="mplslab-") as scratch:
        copy = Path(scratch, "page.html")
        copy.write_text(page.read_text() + PROBE)
        dom = browse(copy, "--virtual-time-budget=60000", "--dump-dom")
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    if not found:
        raise LabError(f"the browser did not get through {page}")
    seen: dict[str, Any] = json.loads(unescape(found[1]))
    return seen


def complaints(page: Path, results: list[dict[str, Any]]) -> list[str]:
    """What a browser finds wrong with the page of these results (interop.json); empty when it is right."""
    seen = look_at(page)
    wrong = []
    if seen["rows"] != [[result["name"], result["result"]] for result in results]:
        wrong.append("the rows are not those of the report")
    passed = [result["name"] for result in results if result["result"] == "passed"]
    wrong += [
        f"the cell of {name} does not open its ladder" for name in passed if not seen["opened"].get(name)
    ]
    if seen["width"] > seen["window"]:
        wrong.append(f"{seen['width']} px wide, the window has {seen['window']}")
    return wrong
