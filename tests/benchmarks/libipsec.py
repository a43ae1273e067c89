"""strongSwan with kernel-libipsec, ESP in charon's own process, twice: the peer of the comparison.

Must not know: what is measured. It runs from the interop lab's root file system of strongSwan, read-only under a
tmpfs, in a mount and a PID namespace of its own: nothing is installed, and nothing is left at the end.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from interop.packages import strongswan_root
from interop.peers.container import PLUGINS
from interop.peers.strongswan import Child, Connection, StrongSwan
from interop.processes import LabError
from tests.benchmarks.tunnels import NotHere, wire
from tests.endpoint.namespaces import Namespaces, ip, wait_until

__all__ = ["LibIpsec", "SwanMachine", "swan_root"]

SUITE = "trixie"
START = """
set -e
mount -t tmpfs tmpfs {root}
mkdir {root}/upper {root}/work {root}/merged
mount -t overlay overlay -o lowerdir={lower},upperdir={root}/upper,workdir={root}/work {root}/merged
mkdir -p {root}/merged/share
mount --bind {share} {root}/merged/share
mount --rbind /dev {root}/merged/dev
mount -t proc proc {root}/merged/proc
exec chroot {root}/merged sleep infinity
"""


def swan_root() -> Path:
    """A root file system with Debian's strongSwan, the interop lab's; built if it is not there yet."""
    try:
        return strongswan_root(SUITE).ensure()
    except LabError as error:
        raise NotHere(f"its file system cannot be built: {error}") from error


class SwanMachine:
    """A namespace with strongSwan's file system; what `StrongSwan` runs on."""

    def __init__(self, name: str, netns: str, folder: Path, lower: Path) -> None:
        self.name, self.netns = name, netns
        self.share, root = folder / "share", folder / "root"
        for made in (self.share, root):
            made.mkdir(parents=True)
        script = START.format(root=root, lower=lower, share=self.share)
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]
        self._outside = subprocess.Popen(["ip", "netns", "exec", netns, *isolated], stderr=subprocess.PIPE)
        wait_until(self._is_ready, f"the file system of {name}")

    @property
    def _inside(self) -> int:
        outside = self._outside.pid
        children = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
        return int(children[0]) if children else 0

    def _is_ready(self) -> bool:
        if self._outside.poll() is not None:
            said = self._outside.stderr.read().decode() if self._outside.stderr else ""
            raise NotHere(f"its file system cannot be mounted: {said.strip()}")
        inside = self._inside
        return bool(inside) and Path(f"/proc/{inside}/comm").read_text().strip() == "sleep"

    def sh(self, script: str, *, timeout_s: int = 30, check: bool = True) -> str:
        enter = ["nsenter", "--target", str(self._inside), "--mount", "--net", "--pid", "--root", "--wd=/"]
        done = subprocess.run([*enter, "sh", "-c", script], capture_output=True, text=True, timeout=timeout_s)
        if check and done.returncode:
            raise LabError(f"{script}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def charon(self) -> int:
        """The process of charon, by its number on this machine."""
        here = Path(f"/proc/{self._inside}/ns/pid").readlink()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (folder / "comm").read_text() == "charon\n" and (folder / "ns/pid").readlink() == here:
                    return int(folder.name)
            except OSError:
                continue  # it has ended meanwhile
        raise LabError(f"no charon on {self.name}")

    def stop(self) -> None:
        self._outside.kill()
        self._outside.communicate()


class LibIpsec:
    """A context manager; NotHere where Debian's strongSwan cannot be had, or does not come up."""

    has_jumbo = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spaces = Namespaces()
        self._machines: list[SwanMachine] = []
        self.namespaces = ("", "")
        self.processes = (0, 0)
        self.version = ""

    @property
    def fronts(self) -> tuple[str, str]:
        return self.namespaces

    def set_mtu(self, mtu: int) -> None:
        """Its device has 1400, whatever is wanted."""

    def __enter__(self) -> LibIpsec:
        lower = swan_root()
        try:
            self._start(lower)
        except (LabError, AssertionError, subprocess.SubprocessError, OSError) as error:
            self._end()
            raise NotHere(f"it does not come up: {error}") from error
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _start(self, lower: Path) -> None:
        self.namespaces = (self._spaces.add("swan1"), self._spaces.add("swan2"))
        wire(self._spaces, "swan1", "swan2")
        ends = []
        for number, netns in enumerate(self.namespaces, 1):
            ip("-n", netns, "address", "add", f"10.{number}.0.1/24", "dev", "lo")
            machine = SwanMachine(f"swan{number}", netns, self._folder / f"swan{number}", lower)
            self._machines.append(machine)
            ends.append(StrongSwan(machine, _connection(number), plugins=PLUGINS))
        ends[0].initiate("net")
        self.version = ends[0].version
        self.processes = (self._machines[0].charon(), self._machines[1].charon())

    def _end(self) -> None:
        for machine in self._machines:
            machine.stop()
        self._machines.clear()
        self._spaces.remove()


def _connection(own: int) -> Connection:
    other = 3 - own
    child = Child("net", f"10.{own}.0.0/24", f"10.{other}.0.0/24", mode="tunnel", esp_proposals="aes256gcm16")
    return Connection(
        f"192.0.2.{own}",
        f"192.0.2.{other}",
        f"swan{own}.example",
        f"swan{other}.example",
        "a secret of the benchmark",
        (child,),
        encap=True,
    )
