"""The golden octets of WIRE section 9, and the notifies of them without their generic header."""

import json
from pathlib import Path
from typing import Any

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "wire_golden.json").read_text()
)


def golden_selector(name: str) -> bytes:
    return bytes.fromhex(GOLDEN["selectors"][name])


def golden_notify(name: str) -> tuple[int, bytes]:
    """(notify type, data); protocol and SPI size are zero, the length is right."""
    octets = bytes.fromhex(GOLDEN["notifies"][name])
    if octets[:6] != b"\0\0" + len(octets).to_bytes(2) + b"\0\0":
        raise ValueError(f"{name} is no notify payload")
    return int.from_bytes(octets[6:8]), octets[8:]
