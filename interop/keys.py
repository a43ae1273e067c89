"""Wireshark's key tables for IKEv2 and ESP (ikev2_decryption_table and esp_sa): read, compared, written.

Must not know: where the keys come from.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path

IKE_TABLE = "ikev2_decryption_table"
ESP_TABLE = "esp_sa"
AES_GCM = "AES-GCM with 16 octet ICV [RFC4106]"


@dataclass(frozen=True)
class IkeKeys:
    """SPIs (8 octets) and SK_ei, SK_er (AES-GCM key and 4 octets of salt) of an IKE SA."""

    spi_i: bytes
    spi_r: bytes
    sk_ei: bytes
    sk_er: bytes

    def row(self) -> str:
        cipher = f'"AES-GCM-{(len(self.sk_ei) - 4) * 8} with 16 octet ICV [RFC5282]"'
        octets = ",".join(part.hex() for part in (self.spi_i, self.spi_r, self.sk_ei, self.sk_er))
        return f'{octets},{cipher},,,"NONE [RFC4306]"'


@dataclass(frozen=True)
class EspKey:
    """One direction of a Child SA: the key, with its salt, for packets from `source` to `destination`.

    `cipher` and `integrity` are Wireshark's names.
    """

    source: str
    destination: str
    spi: int
    key: bytes
    cipher: str = AES_GCM
    integrity: str = "NULL"
    integ_key: bytes = b""

    def row(self) -> str:
        family = "IPv6" if ":" in self.source else "IPv4"
        fields = (
            *(family, self.source, self.destination, f"0x{self.spi:08x}"),
            *(self.cipher, f"0x{self.key.hex()}"),
            *(self.integrity, f"0x{self.integ_key.hex()}" if self.integ_key else ""),
        )
        return ",".join(f'"{field}"' for field in fields)


@dataclass(frozen=True)
class KeyTables:
    """All keys of one side."""

    ike: tuple[IkeKeys, ...]
    esp: tuple[EspKey, ...]

    @classmethod
    def read(cls, folder: Path) -> KeyTables:
        """The tables of a folder; a file that is missing is an empty table."""
        ike = [
            IkeKeys(*(bytes.fromhex(field) for field in row[:4]))
            for row in _rows(folder / IKE_TABLE)
            if len(row) >= 5
        ]
        esp = [
            EspKey(row[1], row[2], int(row[3], 16), _octets(row[5]), row[4], row[6], _octets(row[7]))
            for row in _rows(folder / ESP_TABLE)
            if len(row) >= 8
        ]
        return cls(tuple(ike), tuple(esp))

    def agrees_with(self, other: KeyTables) -> bool:
        """Whether both sides know the same SAs by the same keys, and at least one of each kind."""
        ike, esp = set(self.ike), set(self.esp)
        return bool(ike and esp) and ike == set(other.ike) and esp == set(other.esp)

    def by_spi(self) -> KeyTables:
        """The same for any address (Wireshark's *): behind a NAT the two sides do not see the same ones."""
        return KeyTables(self.ike, tuple(replace(key, source="*", destination="*") for key in self.esp))

    def write(self, folder: Path) -> Path:
        """Write both tables; returns the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / IKE_TABLE).write_text("".join(f"{keys.row()}\n" for keys in self.ike))
        (folder / ESP_TABLE).write_text("".join(f"{key.row()}\n" for key in self.esp))
        return folder


def secrets_in_table(text: str) -> set[bytes]:
    """The keys of a table of either kind, whatever their algorithms."""
    fields = (
        field
        for row in _parse(text)
        for field in (row[4:] if row[0].startswith("IP") else (*row[2:4], *row[5:7]))
    )
    octets = (field.removeprefix("0x") for field in fields if re.fullmatch(r"(0x)?([0-9a-f]{2}){16,}", field))
    return {bytes.fromhex(one) for one in octets}


def _octets(field: str) -> bytes:
    return bytes.fromhex(field.removeprefix("0x"))


def _rows(path: Path) -> list[list[str]]:
    return _parse(path.read_text()) if path.exists() else []


def _parse(text: str) -> list[list[str]]:
    lines = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    return [row for row in csv.reader(io.StringIO(lines)) if row]
