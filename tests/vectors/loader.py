"""Reads the published test vectors beside this file; each JSON file names its source in its first line."""

import json
from pathlib import Path
from typing import Any


class Case:
    """One case of a vector file."""

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.fields = fields

    def __repr__(self) -> str:
        return self.name

    def __contains__(self, field: str) -> bool:
        return field in self.fields

    def octets(self, field: str) -> bytes:
        return bytes.fromhex(self.fields[field])

    def number(self, field: str) -> int:
        return int(self.fields[field])


def cases(file: str, group: str = "cases") -> list[Case]:
    """The cases of `file` (its name without .json), each with its place as its name."""
    content = json.loads((Path(__file__).parent / f"{file}.json").read_text())
    return [Case(f"{file}-{n}", fields) for n, fields in enumerate(content[group], 1)]
