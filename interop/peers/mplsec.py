"""Our own program, run as a user runs it: `mplsec run`, `mplsec status`, `mplsec initiate`.

Must not know: what is inside.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..keys import KeyTables
from ..processes import Background, LabError, run, tail_of, wait_until

COMMAND = Path(sys.executable).with_name("mplsec")


class Mplsec:
    """`mplsec run` in a namespace; a context manager: it is ended on leaving, and must end well."""

    def __init__(self, folder: Path, config: str, psk: str, *, netns: str, state: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state.mkdir(parents=True, exist_ok=True)
        self.log = folder / "mplsec.log"
        self._netns = netns
        self._keys = folder / "keys"
        self._config = folder / "mplsec.toml"
        self._control = state / "control.sock"  # not in the folder: the path of a Unix socket is short
        self._config.write_text(config)
        secret = folder / "peer.psk"
        secret.touch(mode=0o600)
        secret.write_text(psk + "\n")

    def __enter__(self) -> Mplsec:
        arguments = ("run", self._config, "--control", self._control, "--keys", self._keys)
        self._process = Background([COMMAND, *arguments], log=self.log, netns=self._netns)

        def is_up() -> bool:
            self._process.require_running()
            return self._run("status", "--json", check=False).returncode == 0

        try:
            wait_until(is_up, "mplsec answering on its control socket", timeout_s=20, every_s=0.1)
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        was_running = self._process.is_running()
        code = self._process.stop(first=signal.SIGTERM)
        if kind is not None:
            return
        if code != 0 or not was_running:
            raise LabError(f"mplsec ended with code {code}\n{tail_of(self.log)}")
        if "Traceback" in self.log.read_text(errors="replace"):
            raise LabError(f"a traceback in mplsec's log\n{tail_of(self.log)}")

    @property
    def version(self) -> str:
        return run([COMMAND, "version"]).stdout.strip()

    def initiate(self, peer: str) -> str:
        """`mplsec initiate PEER`; what it printed, `CommandError` when it failed."""
        return self._command("initiate", peer)

    def try_to_initiate(self, peer: str) -> str:
        """The same, when it is expected to be refused: what it said, whatever its exit code."""
        done = self._run("initiate", peer, check=False)
        return done.stdout + done.stderr

    def status(self) -> Any:
        """`mplsec status --json`."""
        return json.loads(self._command("status", "--json"))

    def keys(self) -> KeyTables:
        """What it wrote for Wireshark."""
        return KeyTables.read(self._keys)

    def _command(self, name: str, *arguments: str) -> str:
        return self._run(name, *arguments).stdout

    def _run(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv: list[str | Path] = [COMMAND, name, *arguments, "--control", self._control]
        return run(argv, netns=self._netns, timeout_s=45, check=check)
