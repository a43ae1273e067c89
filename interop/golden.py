"""`python -m interop.golden [CASE …]`: keeps evidence of passed cases for the tests that need no lab.

Must not know: what the evidence shows. Taken from build/interop, it goes, slim, to tests/interop/golden.
"""

from __future__ import annotations

import gzip
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from .capture import parse_pdml
from .cases.case import Evidence

GOLDEN = Path("tests/interop/golden")
BULKY = ("our_status", "peer_sas")


def slim(pdml: str) -> str:
    """The same dissection without what no check reads: hidden fields, positions, long texts."""
    root = ElementTree.fromstring(pdml)  # noqa: S314 - written by the tshark that the lab started
    root.attrib.clear()  # the path and time of the capture
    for parent in list(root.iter()):
        for child in list(parent):
            if child.get("hide") == "yes" or child.get("name") in ("geninfo", "eth"):
                parent.remove(child)
            elif "show" in child.attrib:
                child.attrib.pop("showname", None)
            for unread in ("pos", "size", "unmaskedvalue"):
                child.attrib.pop(unread, None)
            child.tail = None
    return ElementTree.tostring(root, encoding="unicode")


def keep(folder: Path) -> None:
    """Keep the evidence of the case whose folder this is."""
    facts = json.loads((folder / "facts.json").read_text())
    short = {name: fact for name, fact in facts.items() if name not in BULKY}
    GOLDEN.mkdir(parents=True, exist_ok=True)
    (GOLDEN / f"{folder.name}.json").write_text(json.dumps(short, indent=1) + "\n")
    pdml = gzip.decompress((folder / "wire.pdml.gz").read_bytes()).decode()
    (GOLDEN / f"{folder.name}.pdml.gz").write_bytes(gzip.compress(slim(pdml).encode(), mtime=0))


def read(name: str) -> Evidence:
    """The evidence that was kept of a case."""
    pdml = gzip.decompress((GOLDEN / f"{name}.pdml.gz").read_bytes()).decode()
    return Evidence(parse_pdml(pdml), json.loads((GOLDEN / f"{name}.json").read_text()))


def main() -> None:
    results = json.loads(Path("build/interop.json").read_text())
    passed = [result["name"] for result in results if result["result"] == "passed"]
    for name in sys.argv[1:] or passed:
        if name not in passed:
            sys.exit(f"{name} did not pass in build/interop.json")
        keep(Path("build/interop", name))
        print(name)


if __name__ == "__main__":
    main()
