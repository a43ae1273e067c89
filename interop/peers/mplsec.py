"""Our own program, run as a user runs it: `mplsec run`, `mplsec status`, `mplsec initiate`.

Must not know: what is inside.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from endpoint.control import ControlError, call

from ..keys import ESP_TABLE, IKE_TABLE, KeyTables, secrets_in_table
from ..processes import Background, LabError, run, tail_of, wait_until

COMMAND = Path(sys.executable).with_name("mplsec")


class Mplsec:
    """`mplsec run` in a namespace; a context manager: it is ended on leaving, and must end well."""

    def __init__(self, folder: Path, config: str, psk: str, *, netns: str, state: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state.mkdir(parents=True, exist_ok=True)
        self.log = folder / "mplsec.log"
        self.netns = netns
        self._folder = folder
        self._starts = 0
        self._config = folder / "mplsec.toml"
        self._control = state / "control.sock"  # not in the folder: the path of a Unix socket is short
        # Kept over a restart of ours, but not from one case to the next.
        self._config.write_text(config.replace("[endpoint]\n", f'[endpoint]\nstate_dir = "{folder}/state"\n'))
        secret = folder / "peer.psk"
        secret.touch(mode=0o600)
        secret.write_text(psk + "\n")

    def __enter__(self) -> Mplsec:
        self.start()
        return self

    def start(self) -> None:
        """Run it, with a key folder of its own, until it answers."""
        self._starts += 1
        keys = self._folder / f"keys-{self._starts}"
        arguments = ("run", self._config, "--control", self._control, "--keys", keys)
        self._process = Background([COMMAND, *arguments], log=self.log, netns=self.netns)

        def is_up() -> bool:
            self._process.require_running()
            with contextlib.suppress(LabError):
                return bool(self.status())
            return False

        try:
            wait_until(is_up, "mplsec answering on its control socket", timeout_s=20, every_s=0.05)
        except BaseException:
            self._process.stop()
            raise

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.stop(first=signal.SIGKILL)

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
        return our_version()

    def initiate(self, peer: str) -> str:
        """`mplsec initiate PEER`; what it printed, `CommandError` when it failed."""
        return self._command("initiate", peer)

    def try_to_initiate(self, peer: str) -> str:
        """The same, when it is expected to be refused: what it said, whatever its exit code."""
        done = self._run("initiate", peer, check=False)
        return done.stdout + done.stderr

    def rekey(self, peer: str, child: str | None = None) -> str:
        """`mplsec rekey PEER`: a child, or without a name the IKE SA."""
        return self._command("rekey", peer, *(("--child", child) if child else ("--ike",)))

    def reauthenticate(self, peer: str) -> str:
        """`mplsec rekey PEER --reauth`."""
        return self._command("rekey", peer, "--reauth")

    def terminate(self, peer: str, child: str | None = None) -> str:
        """`mplsec terminate PEER`: a child, or without a name the IKE SA."""
        return self._command("terminate", peer, *(("--child", child) if child else ()))

    def children(self) -> list[dict[str, Any]]:
        """The Child SAs in use, as `mplsec status` tells them."""
        return in_use(self.status())

    def ike_sas(self) -> list[dict[str, Any]]:
        """The IKE SAs, as `mplsec status` tells them."""
        return [session for peer in self.status()["peers"] for session in peer["sessions"]]

    def status(self) -> dict[str, Any]:
        """What `mplsec status --json` prints, without the start of a program."""
        return self.call("status")

    def call(self, command: str, **arguments: str) -> dict[str, Any]:
        """A command by the control socket, without the start of a program: where there are many."""
        try:
            return call(self._control, command, arguments)
        except ControlError as error:
            raise LabError(str(error)) from error

    def keys(self) -> KeyTables:
        """What it wrote for Wireshark, every run of it."""
        tables = [KeyTables.read(self._folder / f"keys-{n}") for n in range(1, self._starts + 1)]
        ike = tuple(keys for table in tables for keys in table.ike)
        return KeyTables(ike, tuple(key for table in tables for key in table.esp))

    def write_keys(self, folder: Path) -> set[bytes]:
        """Its tables as they are, every run of it, whatever the algorithms; the keys in them."""
        folder.mkdir(parents=True, exist_ok=True)
        secrets: set[bytes] = set()
        for name in (IKE_TABLE, ESP_TABLE):
            text = "".join(
                (self._folder / f"keys-{number}" / name).read_text() for number in range(1, self._starts + 1)
            )
            (folder / name).write_text(text)
            secrets |= secrets_in_table(text)
        return secrets

    def _command(self, name: str, *arguments: str) -> str:
        return self._run(name, *arguments).stdout

    def _run(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv: list[str | Path] = [COMMAND, name, *arguments, "--control", self._control]
        return run(argv, netns=self.netns, timeout_s=45, check=check)


@functools.cache
def our_version() -> str:
    """What `mplsec version` prints."""
    return run([COMMAND, "version"]).stdout.strip()


def in_use(status: Any) -> list[dict[str, Any]]:
    """The Child SAs of a status document on which we send."""
    return [child for peer in status["peers"] for child in peer["children"] if child["sending"]]
