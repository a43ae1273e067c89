"""scapy as a peer: `scapy_end.py` started in a namespace and told what to do, a line at a time.

Must not know: what a case wants from it.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..keys import EspKey, IkeKeys, KeyTables
from ..processes import LabError, environment, in_namespace, kill_group, tail_of
from .scapy_end import Terms

ANSWER_S = 30.0


class ScapyPeer:
    """The running peer; a context manager: it is ended on leaving."""

    def __init__(self, terms: Terms, *, folder: Path, netns: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.terms = terms
        self.log = folder / "scapy.log"
        command = [sys.executable, "-m", "interop.peers.scapy_end"]
        with self.log.open("wb") as errors:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *in_namespace(netns, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(),
                start_new_session=True,
                text=True,
            )
        try:
            self.version: str = self.tell(json.dumps(asdict(terms)))["version"]
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> ScapyPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        kill_group(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def tell(self, command: str) -> dict[str, Any]:
        """What it answers to a command (scapy_end.py has the list); `LabError` when it cannot do it."""
        commands, answers = self._process.stdin, self._process.stdout
        if commands is None or answers is None:
            raise LabError("scapy has no pipes")
        try:
            commands.write(f"{command}\n")
            commands.flush()
        except BrokenPipeError as error:
            raise LabError(f"scapy has ended\n{tail_of(self.log)}") from error
        line = answers.readline() if select.select([answers], [], [], ANSWER_S)[0] else ""
        if not line:
            raise LabError(f"scapy does not answer to {command}\n{tail_of(self.log)}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise LabError(f"scapy, told to {command}: {said['error']}")
        return said

    def keys(self) -> KeyTables:
        """What it derived; waits for the child when the other side begins."""
        said, terms = self.tell("keys"), self.terms
        ways = (("outbound", (terms.address, terms.peer)), ("inbound", (terms.peer, terms.address)))
        esp = tuple(EspKey(*ends, int(said[way][0], 16), bytes.fromhex(said[way][1])) for way, ends in ways)
        return KeyTables((IkeKeys(*map(bytes.fromhex, said["ike"])),), esp)
