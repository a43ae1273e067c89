"""Shared secrets: read from a file that only its owner may read, never from the configuration itself.

Knows nothing of IKE. A message never shows any part of a secret.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from endpoint.config.problems import BadValue, quoted

_MAX_FILE_OCTETS = 65536
_WEAK_BELOW_CHARACTERS = 20


class SecretSource(Protocol):
    """Where the content of a named secret comes from. Raises BadValue."""

    def __call__(self, name: str) -> bytes: ...


def secrets_beside(config_file: Path) -> SecretSource:
    """Files, relative names relative to the folder of the configuration."""
    return lambda name: read_secret_file(config_file.parent / name)


def secrets_from(secrets: Mapping[str, bytes]) -> SecretSource:
    """Secrets held in memory, for a configuration that is embedded in a program."""

    def read(name: str) -> bytes:
        try:
            return secrets[name]
        except KeyError:
            raise BadValue(
                f"no secret {quoted(name)} was handed over", f"pass secrets={{{name!r}: …}}"
            ) from None

    return read


def read_secret_file(path: Path) -> bytes:
    """The content of a file that nobody but its owner can read or write; at most 64 KiB."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block us
    except FileNotFoundError:
        remedy = f"(umask 077; mplsec genkey > {path})"
        raise BadValue(f"there is no file {quoted(str(path))}", remedy) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadValue(
            f"cannot read {quoted(str(path))}: {reason}", "run as a user who may read it"
        ) from None
    try:
        status = os.fstat(descriptor)  # of what was opened, not of what the name means by now
        if not stat.S_ISREG(status.st_mode):
            raise BadValue(f"{quoted(str(path))} is not a regular file", "name a file that holds the secret")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise BadValue(f"{quoted(str(path))} is open to others (mode {mode:04o})", f"chmod 600 {path}")
        content = os.read(descriptor, _MAX_FILE_OCTETS + 1)
    finally:
        os.close(descriptor)
    if len(content) > _MAX_FILE_OCTETS:
        raise BadValue(
            f"{quoted(str(path))} is larger than {_MAX_FILE_OCTETS} octets", "name a file with one line"
        )
    return content


def parse_secret(content: bytes) -> tuple[bytes, bool]:
    """(the secret, whether it is weak) from a file's first line: text as it stands, or 0x and hex digits."""
    line = content.split(b"\n", 1)[0].strip()
    if not line:
        raise BadValue("the secret is empty", "write one with mplsec genkey")
    if not line.startswith((b"0x", b"0X")):
        return line, len(line) < _WEAK_BELOW_CHARACTERS
    try:
        octets = bytes.fromhex(line[2:].decode("ascii"))
    except ValueError:
        octets = b""
    if not octets:
        raise BadValue(
            "the secret begins with 0x but is not hex", "write an even number of hex digits after 0x"
        )
    return octets, len(octets) < _WEAK_BELOW_CHARACTERS // 2
