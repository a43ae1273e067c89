"""`python -m interop.golden [CASE …]`: keeps evidence of passed cases for the tests that need no lab.

Without names: one case of each feature, and nothing else stays.

Must not know: what the evidence shows. Taken from build/interop, it goes, slim, to tests/interop/golden.
"""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import struct
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from .capture import parse_pdml
from .cases.case import Evidence
from .keys import ESP_TABLE, IKE_TABLE, KeyTables

GOLDEN = Path("tests/interop/golden")
UNREAD = {
    *("geninfo", "eth", "data", "udp.stream", "ip.id"),
    *("esp.encrypted_data", "esp.iv", "esp.icv", "esp.contained_data"),
    *("isakmp.enc.iv", "isakmp.enc.data", "isakmp.enc.icd"),
    *("icmp.ident_le", "icmp.seq_le", "icmp.data_time", "icmp.data_time_relative", "icmp.resptime"),
    *(f"{layer}.checksum{more}" for layer in ("ip", "udp", "icmp", "icmpv6") for more in ("", ".status")),
}
CONTAINERS = ("esp.decrypted_data", "isakmp.enc.decrypted", "isakmp.enc.contained")
"""Fields of which only the inner ones are read."""
BULKY = ("our_status",)
ALWAYS = (
    "linux-pe-mpls-in-ip-raw-initiator",
    "linux-pe-mpls-in-gre-udp-responder",
    "linux-pe-two-classes-initiator",
    "demo-seen-by-tshark",
    "strongswan-seclabel-initiator",
    "strongswan-wrong-label-initiator",
)
MAX_CAPTURE_OCTETS = 12_000
"""Of what is chosen without being named."""
PCAP_HEADER_OCTETS, PCAP_RECORD_OCTETS = 24, 16


def slim(pdml: str) -> str:
    """The same dissection without what no check reads: hidden fields, positions, ciphertext, checksums, texts."""
    root = ElementTree.fromstring(pdml)  # noqa: S314 - written by the tshark that the lab started
    root.attrib.clear()  # the path and time of the capture
    for parent in list(root.iter()):
        for child in list(parent):
            name = child.get("name") or ""
            if child.get("hide") == "yes" or name in UNREAD or _is_of_frame(name):
                parent.remove(child)
                continue
            if "show" in child.attrib or child.tag == "proto":
                child.attrib.pop("showname", None)
            if name in CONTAINERS:
                child.attrib.pop("show", None)
            if name != "isakmp.typepayload":
                child.attrib.pop("value", None)
            for unread in ("pos", "size", "unmaskedvalue"):
                child.attrib.pop(unread, None)
            child.text = child.tail = None
    return ElementTree.tostring(root, encoding="unicode")


def _is_of_frame(name: str) -> bool:
    return name.startswith("frame.") and name not in ("frame.number", "frame.time_relative")


def keep(folder: Path) -> None:
    """Keep the evidence of the case whose folder this is: capture, keys, dissection, facts."""
    facts = json.loads((folder / "facts.json").read_text())
    short = {name: fact for name, fact in facts.items() if name not in BULKY}
    place = GOLDEN / folder.name
    place.mkdir(parents=True, exist_ok=True)
    status = facts.get("our_status") or {"peers": []}
    short["our_status"] = {"peers": [{"children": peer["children"]} for peer in status["peers"]]}
    (place / "facts.json").write_text(json.dumps(short, indent=1, default=str) + "\n")
    pdml = gzip.decompress((folder / "wire.pdml.gz").read_bytes()).decode()
    (place / "wire.pdml.xz").write_bytes(lzma.compress(slim(pdml).encode()))
    (place / "wire.pcap.xz").write_bytes(lzma.compress((folder / "wire.pcap").read_bytes()))
    for table in (IKE_TABLE, ESP_TABLE):
        shutil.copy(folder / "keys" / table, place / table)


def kept() -> list[str]:
    """The cases of which there is evidence."""
    return sorted(folder.name for folder in GOLDEN.iterdir())


def read(name: str) -> Evidence:
    """The evidence that was kept of a case."""
    pdml = lzma.decompress((GOLDEN / name / "wire.pdml.xz").read_bytes()).decode()
    return Evidence(parse_pdml(pdml), json.loads((GOLDEN / name / "facts.json").read_text()))


def read_keys(name: str) -> KeyTables:
    """The keys of its IKE and Child SAs."""
    return KeyTables.read(GOLDEN / name)


def read_frames(name: str) -> list[bytes]:
    """The frames of its capture: Ethernet, in the order of tshark's frame numbers from 1."""
    octets = lzma.decompress((GOLDEN / name / "wire.pcap.xz").read_bytes())
    frames, at = [], PCAP_HEADER_OCTETS
    while at < len(octets):
        (size,) = struct.unpack_from("<I", octets, at + 8)
        at += PCAP_RECORD_OCTETS
        frames.append(octets[at : at + size])
        at += size
    return frames


def selection(results: list[dict[str, Any]]) -> list[str]:
    """One passed case of each feature, in turn with us as initiator and as responder, and what `ALWAYS` names."""
    passed = [
        result
        for result in results
        if result["result"] == "passed"
        and (result["name"] in ALWAYS or size_octets(result["name"]) <= MAX_CAPTURE_OCTETS)
    ]
    features = list(dict.fromkeys(result["feature"] for result in passed))
    chosen = set(ALWAYS)
    for number, feature in enumerate(features):
        cases = [result for result in passed if result["feature"] == feature]
        role = ("initiator", "responder")[number % 2]
        if not chosen & {case["name"] for case in cases}:
            chosen.add(next((case for case in cases if case["role"] == role), cases[0])["name"])
    return [result["name"] for result in passed if result["name"] in chosen]


def size_octets(name: str) -> int:
    return Path("build/interop", name, "wire.pcap").stat().st_size


def main() -> None:
    results = json.loads(Path("build/interop.json").read_text())
    passed = {result["name"] for result in results if result["result"] == "passed"}
    names = sys.argv[1:]
    if not names:
        names = selection(results)
        shutil.rmtree(GOLDEN, ignore_errors=True)
    for name in names:
        if name not in passed:
            sys.exit(f"{name} did not pass in build/interop.json")
        keep(Path("build/interop", name))
        print(name)


if __name__ == "__main__":
    main()
