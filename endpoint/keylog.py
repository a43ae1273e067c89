"""Keys for Wireshark: the tables `ikev2_decryption_table` and `esp_sa`, written only when asked for.

Must not know: how keys come about. Whoever has these files reads all the traffic, so they are for their owner
alone. The folder is used as `$XDG_CONFIG_HOME/wireshark` with the preference esp.enable_encryption_decode on
(`tshark_options`).
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

from endpoint.errors import SetupError

__all__ = ["ESP_TABLE", "IKE_TABLE", "TSHARK_PREFERENCE", "KeyLog", "tshark_options"]

IKE_TABLE = "ikev2_decryption_table"
ESP_TABLE = "esp_sa"
TSHARK_PREFERENCE = "esp.enable_encryption_decode:TRUE"
"""What tshark needs after -o; the program itself starts with this preference off."""

# IANA's transform IDs of types 1 (encryption) and 3 (integrity), as Wireshark calls them in its two tables.
_GCM_ICV_OCTETS = {18: 8, 19: 12, 20: 16}
_CCM_ICV_OCTETS = {14: 8, 15: 12, 16: 16}
_IKE_AEAD = {
    **{encr: f"AES-GCM-{{}} with {octets} octet ICV [RFC5282]" for encr, octets in _GCM_ICV_OCTETS.items()},
    **{encr: f"AES-CCM-{{}} with {octets} octet ICV [RFC5282]" for encr, octets in _CCM_ICV_OCTETS.items()},
}
_IKE_CIPHERS = {12: "AES-CBC-{} [RFC3602]", 13: "AES-CTR-{} [RFC5930]"}
# AES-XCBC and AES-CMAC it cannot check; keys for that it refuses, and with them the whole table.
_IKE_UNCHECKED = "ANY 96-bits of Authentication [No Checking]"
_IKE_INTEGRITY = {
    2: "HMAC_SHA1_96 [RFC2404]",
    5: _IKE_UNCHECKED,
    8: _IKE_UNCHECKED,
    12: "HMAC_SHA2_256_128 [RFC4868]",
    13: "HMAC_SHA2_384_192 [RFC4868]",
    14: "HMAC_SHA2_512_256 [RFC4868]",
}
# For ESP it knows no AES-CCM, no AES-GMAC and no implicit IV.
_ESP_AEAD = {encr: f"AES-GCM with {octets} octet ICV [RFC4106]" for encr, octets in _GCM_ICV_OCTETS.items()}
_ESP_CIPHERS = {11: "NULL", 12: "AES-CBC [RFC3602]", 13: "AES-CTR [RFC3686]"}
_ESP_INTEGRITY = {
    2: "HMAC-SHA-1-96 [RFC2404]",
    5: "ANY 96 bit authentication [no checking]",
    8: "ANY 96 bit authentication [no checking]",
    12: "HMAC-SHA-256-128 [RFC4868]",
    13: "HMAC-SHA-384-192 [RFC4868]",
    14: "HMAC-SHA-512-256 [RFC4868]",
}


class KeyLog:
    """The two tables, begun anew in `folder` (mode 0700, files 0600)."""

    def __init__(self, folder: Path) -> None:
        """SetupError if the folder cannot be made or is open to others."""
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise SetupError(f"key folder {folder}: open to others; chmod 700 {folder}")
            for name in (IKE_TABLE, ESP_TABLE):
                self._append(
                    name, "# Made by mplsec. Whoever has these keys can read the traffic.", os.O_TRUNC
                )
        except OSError as error:
            raise SetupError(f"key folder {folder}: {error.strerror}") from error

    def add_ike_sa(
        self,
        spi_i: bytes,
        spi_r: bytes,
        sk_ei: bytes,
        sk_er: bytes,
        encr: int,
        key_bits: int | None,
        *,
        integ: int = 0,
        sk_ai: bytes = b"",
        sk_ar: bytes = b"",
    ) -> bool:
        """Add an IKE SA: SPIs of 8 octets, SK_ei and SK_er with the salt, IANA numbers of the transforms.

        False, and nothing is written, if Wireshark does not know the transforms.
        """
        if encr in _IKE_AEAD and not integ:
            cipher, integrity = _IKE_AEAD[encr].format(key_bits), "NONE [RFC4306]"
        elif encr in _IKE_CIPHERS and integ in _IKE_INTEGRITY:
            cipher, integrity = _IKE_CIPHERS[encr].format(key_bits), _IKE_INTEGRITY[integ]
            if integrity == _IKE_UNCHECKED:
                sk_ai = sk_ar = b""
        else:
            return False
        keys = f'{sk_ei.hex()},{sk_er.hex()},"{cipher}",{sk_ai.hex()},{sk_ar.hex()},"{integrity}"'
        self._append(IKE_TABLE, f"{spi_i.hex()},{spi_r.hex()},{keys}")
        return True

    def add_esp_sa(
        self,
        spi: bytes,
        source: str,
        destination: str,
        encr: int,
        encr_key: bytes,
        *,
        integ: int = 0,
        integ_key: bytes = b"",
    ) -> bool:
        """Add one direction of a Child SA: SPI of 4 octets, outer addresses, encryption key with the salt.

        False, and nothing is written, if Wireshark does not know the transforms.
        """
        if encr in _ESP_AEAD and not integ:
            cipher, integrity = _ESP_AEAD[encr], "NULL"
        elif encr in _ESP_CIPHERS and integ in _ESP_INTEGRITY:
            cipher, integrity = _ESP_CIPHERS[encr], _ESP_INTEGRITY[integ]
        else:
            return False
        family = f"IPv{ip_address(source).version}"
        fields = [
            family,
            source,
            destination,
            f"0x{spi.hex()}",
            cipher,
            _hex(encr_key),
            integrity,
            _hex(integ_key),
        ]
        self._append(ESP_TABLE, ",".join(f'"{field}"' for field in fields))
        return True

    def _append(self, name: str, line: str, flags: int = 0) -> None:
        descriptor = os.open(
            self.folder / name,
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | flags,
            0o600,
        )
        with os.fdopen(descriptor, "a", encoding="ascii") as table:
            os.fchmod(descriptor, 0o600)
            table.write(line + "\n")


def tshark_options(capture: Path) -> list[str]:
    """The options that make tshark decode `capture` with a key folder in its configuration."""
    return ["-r", str(capture), "-o", TSHARK_PREFERENCE]


def _hex(key: bytes) -> str:
    return f"0x{key.hex()}" if key else ""
