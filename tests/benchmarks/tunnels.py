"""What all tunnels of the comparison have in common: two namespaces over veth, a process at either end, a device.

Must not know: what is measured, and how any of them works.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from interop.packages import Root
from interop.processes import LabError, run
from tests.endpoint.namespaces import Namespaces, ip, wait_until

__all__ = ["LARGEST_MTU", "WIRE_MTU", "Ends", "NotHere", "Tunnel", "install", "package_version", "wire"]

WIRE_MTU = 9200
LARGEST_MTU = 8900
ENTER = """
set -e
mount --rbind /dev {root}/dev
mount -t tmpfs tmpfs {root}/run
mount --bind {folder} {root}/mnt
exec chroot {root} {command}
"""


class NotHere(Exception):  # noqa: N818 - a state of the machine, not an error
    """This machine cannot have that tunnel to compare with; the message says why."""


class Tunnel(Protocol):
    """Two VPN processes; 10.1.0.1 is reached from the second end's namespace, 10.2.0.1 from the first's."""

    @property
    def namespaces(self) -> tuple[str, str]:
        """Where the two addresses are."""

    @property
    def fronts(self) -> tuple[str, str]:
        """Where the two ends of the wire are."""

    @property
    def processes(self) -> tuple[int, int]: ...

    @property
    def version(self) -> str: ...

    @property
    def has_jumbo(self) -> bool:
        """Whether its device can have any MTU."""

    def set_mtu(self, mtu: int) -> None:
        """Of both devices, in octets."""


def wire(spaces: Namespaces, one: str, other: str) -> None:
    """A veth pair between two namespaces, 192.0.2.1 and 192.0.2.2, wide enough for every packet measured."""
    spaces.join(one, "192.0.2.1/24", other, "192.0.2.2/24")
    for name in (one, other):
        ip("-n", spaces.real(name), "link", "set", "wire", "mtu", str(WIRE_MTU))


def install(tools: dict[str, str]) -> None:
    """Install the Debian packages of the tools that this machine lacks."""
    missing = sorted({package for tool, package in tools.items() if shutil.which(tool) is None})
    if missing:
        run(["apt-get", "update"], timeout_s=300, check=False)
        run(["apt-get", "install", "-y", "--no-install-recommends", *missing], timeout_s=300)


def package_version(root: Path, package: str) -> str:
    """What is installed in a root file system."""
    status = (root / "var/lib/dpkg/status").read_text()
    found = re.search(rf"^Package: {package}\n(?:.+\n)*?Version: (\S+)", status, re.MULTILINE)
    return found[1] if found else ""


class Ends:
    """A context manager: two programs from a Debian suite's packages, one in each of two namespaces.

    A subclass starts them in `_start` and says where their devices are. NotHere where that does not succeed.
    """

    device = "tun0"
    has_jumbo = True

    def __init__(self, folder: Path, root: Root) -> None:
        self.folder = folder / type(self).__name__ / root.suite
        self.version = root.suite
        self._root = root
        self._spaces = Namespaces()
        self._running: list[subprocess.Popen[bytes]] = []
        self.namespaces = ("", "")

    @property
    def fronts(self) -> tuple[str, str]:
        return self.namespaces

    @property
    def processes(self) -> tuple[int, int]:
        return self._running[0].pid, self._running[1].pid

    def set_mtu(self, mtu: int) -> None:
        for netns in self.namespaces:
            ip("-n", netns, "link", "set", self.device, "mtu", str(mtu))

    def __enter__(self) -> Self:
        with self._cleared():
            root = self._root.ensure()
            self.folder.mkdir(parents=True)
            name = f"{type(self).__name__[:4].lower()}{self._root.suite[:3]}"
            self.namespaces = (self._spaces.add(f"{name}1"), self._spaces.add(f"{name}2"))
            wire(self._spaces, f"{name}1", f"{name}2")
            self._start(root)
            for number, netns in enumerate(self.namespaces, 1):
                self._configure(number, netns)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _start(self, root: Path) -> None:
        raise LabError("nothing to start")

    def _configure(self, number: int, netns: str) -> None:
        """The addresses and routes of an end once its device is there."""
        ip("-n", netns, "address", "add", f"10.{number}.0.1/24", "dev", "lo")
        ip("-n", netns, "link", "set", self.device, "up")
        source = ["src", f"10.{number}.0.1"]
        ip("-n", netns, "route", "replace", f"10.{3 - number}.0.0/24", "dev", self.device, *source)

    def _run(self, netns: str, root: Path, command: Sequence[str]) -> None:
        """Start a program from the root file system, with our folder as /mnt."""
        script = ENTER.format(root=root, folder=self.folder, command=" ".join(command))
        with (self.folder / f"log{len(self._running)}").open("wb") as log:
            whole = ["ip", "netns", "exec", netns, "unshare", "--mount", "sh", "-c", script]
            self._running.append(subprocess.Popen(whole, stdout=log, stderr=log))

    def _wait_for_devices(self) -> None:
        for netns in self.namespaces:
            wait_until(lambda netns=netns: self._has_device(netns), f"{self.device} in {netns}")  # type: ignore[misc]

    def _has_device(self, netns: str) -> bool:
        if any(one.poll() is not None for one in self._running):
            logs = " ".join(file.read_text()[-300:] for file in self.folder.glob("log*"))
            raise NotHere(f"it ended: {logs}")
        return self.device in ip("-n", netns, "-o", "link")

    @contextlib.contextmanager
    def _cleared(self) -> Iterator[None]:
        """What fails leaves nothing behind and is NotHere."""
        try:
            yield
        except (LabError, AssertionError, subprocess.SubprocessError, OSError) as error:
            self._end()
            raise NotHere(f"it does not come up: {error}") from error
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        for process in self._running:
            process.kill()
        for process in self._running:
            process.wait()
        self._running.clear()
        self._spaces.remove()
