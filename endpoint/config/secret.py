"""Secrets, and what stands beside them: read from files, a secret only from one that only its owner may read.

Knows nothing of IKE. A message never shows any part of a secret.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from endpoint.config.problems import BadValue, quoted

_MAX_SECRET_OCTETS = 65536
_MAX_PUBLIC_OCTETS = 4 << 20  # a revocation list may be long
_WEAK_BELOW_CHARACTERS = 20


class SecretSource(Protocol):
    """Where the content of a named file comes from; `is_public`: it is no secret. Raises BadValue."""

    def __call__(self, name: str, *, is_public: bool = False) -> bytes: ...


def secrets_beside(config_file: Path) -> SecretSource:
    """Files, relative names relative to the folder of the configuration."""

    def read(name: str, *, is_public: bool = False) -> bytes:
        return read_file(config_file.parent / name, is_public=is_public)

    return read


def secrets_from(secrets: Mapping[str, bytes]) -> SecretSource:
    """Secrets held in memory, for a configuration that is embedded in a program."""

    def read(name: str, *, is_public: bool = False) -> bytes:
        try:
            return secrets[name]
        except KeyError:
            raise BadValue(
                f"no secret {quoted(name)} was handed over", f"pass secrets={{{name!r}: …}}"
            ) from None

    return read


def read_file(path: Path, *, is_public: bool) -> bytes:
    """The content of a file, at most 4 MiB; a secret has at most 64 KiB and is open to its owner alone."""
    most = _MAX_PUBLIC_OCTETS if is_public else _MAX_SECRET_OCTETS
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block us
    except FileNotFoundError:
        remedy = (
            "name a file that is there"
            if is_public
            else f"(umask 077; mplsec genkey > {path}) makes a shared secret"
        )
        raise BadValue(f"there is no file {quoted(str(path))}", remedy) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadValue(
            f"cannot read {quoted(str(path))}: {reason}", "run as a user who may read it"
        ) from None
    try:
        status = os.fstat(descriptor)  # of what was opened, not of what the name means by now
        if not stat.S_ISREG(status.st_mode):
            raise BadValue(f"{quoted(str(path))} is not a regular file", "name a file that holds it")
        if status.st_mode & 0o077 and not is_public:
            mode = stat.S_IMODE(status.st_mode)
            raise BadValue(f"{quoted(str(path))} is open to others (mode {mode:04o})", f"chmod 600 {path}")
        content = os.read(descriptor, most + 1)
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise BadValue(f"{quoted(str(path))} is larger than {most} octets", "name a smaller file")
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
