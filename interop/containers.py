"""Containers from our own root file systems, by a Docker daemon of our own: no registry, no network.

Must not know: IKE, or what a case wants from the container.

The daemon runs beside whatever Docker the machine may have: own socket, own data, no bridge, no packet filter
rules. A container starts without a network; the lab gives its namespace a name and a card (networks.py).
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .packages import Root, cache_folder, locked
from .processes import Background, CommandError, LabError, environment, run, tail_of, wait_until


class ContainerDaemon:
    """Our dockerd; a context manager. `state` holds its socket, `data` its images."""

    def __init__(self, *, state: Path, data: Path, log: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        data.mkdir(parents=True, exist_ok=True)
        self._state = state
        self._socket = f"unix://{state / 'docker.sock'}"
        self._log = log
        self._arguments: list[str | Path] = [
            "dockerd",
            *("--host", self._socket),
            *("--data-root", data),
            *("--exec-root", state / "exec"),
            *("--pidfile", state / "docker.pid"),
            *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
            *("--log-driver", "none"),
        ]

    def __enter__(self) -> ContainerDaemon:
        wait_until(lambda: not self._pid_of_former(), "the end of an earlier dockerd of the lab")
        # SIGTERM as death signal: the daemon ends its containers and its containerd before itself.
        self._daemon = Background(self._arguments, log=self._log, death_signal="TERM")
        try:
            wait_until(self._answers, "an answer of dockerd", timeout_s=60, every_s=0.1)
            self._remove_leftovers()
        except BaseException:
            self._daemon.stop(timeout_s=20)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(LabError):
            self._remove_leftovers()
        self._daemon.stop(timeout_s=20)

    def docker(self, *argv: str | Path, timeout_s: float = 60, check: bool = True) -> str:
        """`docker ARGV` against our daemon; what it printed."""
        done = run(["docker", "--host", self._socket, *argv], timeout_s=timeout_s, check=check)
        return done.stdout.strip()

    def image(self, root: Root) -> str:
        """The image of a root file system: imported unless the daemon has it; its name."""
        name = f"mplsec-lab:{root.name}"
        with locked(cache_folder() / "locks" / f"image-{root.name}"):
            self._import(root, name)
        return name

    def _import(self, root: Root, name: str) -> None:
        if not self.docker("images", "--quiet", name):
            print(f"importing the {root.suite} root file system as a container image", flush=True)
            packing = f"tar -C '{root.ensure()}' --numeric-owner -cf - ."
            command = f"{packing} | docker --host '{self._socket}' import - '{name}'"
            subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                env=environment(),
                check=True,
                timeout=300,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _pid_of_former(self) -> int:
        """A dockerd of an earlier run of the lab that was killed: it is still ending its containers. Or 0."""
        try:
            pid = int((self._state / "docker.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return 0
        return pid if self._socket.encode() in command else 0

    def _answers(self) -> bool:
        if not self._daemon.is_running():
            raise LabError(f"dockerd ended\n{tail_of(self._log)}")
        try:
            self.docker("version", timeout_s=10)
        except CommandError:
            return False
        return True

    def _remove_leftovers(self) -> None:
        left = self.docker("ps", "--all", "--quiet").split()
        if left:
            self.docker("rm", "--force", *left)


class Container:
    """A running container without network; `sh` runs a script in it. A context manager: removed on leaving.

    `share` is a folder of the host that the container sees, writable, as /share.
    """

    def __init__(
        self, daemon: ContainerDaemon, name: str, *, root: Root, share: Path, command: Sequence[str]
    ) -> None:
        self.name = name
        self.share = share
        self._daemon = daemon
        share.mkdir(parents=True, exist_ok=True)
        daemon.docker(
            *("run", "--detach", "--name", name, "--hostname", name, "--network", "none"),
            *("--cap-add", "NET_ADMIN", "--cap-add", "NET_BIND_SERVICE", "--device", "/dev/net/tun"),
            *("--volume", f"{share}:/share", daemon.image(root)),
            *command,
        )

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(LabError):
            self._daemon.docker("rm", "--force", self.name)

    @property
    def pid(self) -> int:
        """Process id of its first process, as the host sees it."""
        return int(self._daemon.docker("inspect", "--format", "{{.State.Pid}}", self.name))

    def sh(self, script: str, *, timeout_s: int = 30, check: bool = True) -> str:
        """Run a shell script in the container; its output. `CommandError` on another exit code than 0."""
        limited = f"exec 2>&1\n{script}"
        argv = ("exec", self.name, "timeout", "-k", "2", str(timeout_s), "sh", "-c", limited)
        return self._daemon.docker(*argv, timeout_s=timeout_s + 10, check=check)
