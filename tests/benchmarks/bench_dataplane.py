"""TCP through two `mplsec run` in namespaces over veth: Gbit per CPU-second of both ends, beside strongSwan's.

    python -m tests.benchmarks.bench_dataplane          as root; installs iperf3

Must not know: how either end works. The CPU time is that of the two VPN processes, from /proc, in the kernel
and outside it; iperf3's own is not in it. Ours carries MPLS-in-IP in ESP in UDP, with GSO kept on the path.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from endpoint.control import ControlError, call
from interop.processes import run
from tests.benchmarks.libipsec import LibIpsec, NotHere
from tests.benchmarks.results import Result, interleave, print_table, write
from tests.endpoint.namespaces import Namespaces, wait_until

SECONDS = 3
MTU = 1400
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CONFIG = """
[endpoint]
identity   = "pe{own}.example"
addresses  = ["192.0.2.{own}"]
front_door = {{ netns = "{front}" }}
state_dir  = "{folder}/state"

[[vrf]]
name     = "red"
attach   = [{{ tun = "red0", netns = "{red}", address = ["10.{own}.0.1/24"], mtu = {mtu} }}]
announce = ["10.{own}.0.0/24"]

[[peer]]
name      = "pe{other}"
identity  = "pe{other}.example"
addresses = ["192.0.2.{other}"]
auth      = {{ psk_file = "secret" }}
ike       = ["aes256gcm16-prfsha384-x25519"]
esp       = ["aes256gcm16"]
udp       = "always"
start     = "boot"

  [[peer.vrf]]
  name    = "red"
  accept  = ["10.{other}.0.0/16"]
"""


class Tunnel(Protocol):
    """Two VPN processes; 10.1.0.1 is reached from the second end's namespace, 10.2.0.1 from the first's."""

    @property
    def namespaces(self) -> tuple[str, str]: ...
    @property
    def processes(self) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class Flow:
    """One TCP stream: bits a second, and the CPU seconds that sending and receiving end took for it."""

    bits: float
    seconds: float
    send_s: float
    receive_s: float

    @property
    def gbit_per_cpu_s(self) -> float:
        return self.bits / (self.send_s + self.receive_s) / 1e9

    def __str__(self) -> str:
        return (
            f"{self.bits / self.seconds / 1e6:6.0f} Mbit/s, Gbit per CPU-second: "
            f"{self.bits / self.send_s / 1e9:.2f} sending, {self.bits / self.receive_s / 1e9:.2f} receiving, "
            f"{self.gbit_per_cpu_s:.3f} both ends"
        )


class Ours:
    """Two `mplsec run`."""

    def __init__(self, spaces: Namespaces, folder: Path) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self.namespaces = (spaces.add("red1"), spaces.add("red2"))
        fronts = (spaces.add("front1"), spaces.add("front2"))
        spaces.join("front1", "192.0.2.1/24", "front2", "192.0.2.2/24")
        self._controls = [self._start(n, fronts[n - 1], folder / f"pe{n}") for n in (1, 2)]

    @property
    def processes(self) -> tuple[int, int]:
        return self._running[0].pid, self._running[1].pid

    def _start(self, number: int, front: str, folder: Path) -> Path:
        folder.mkdir()
        secret = folder / "secret"
        secret.write_text("0x" + os.urandom(32).hex() if number == 1 else "")
        if number == 2:
            secret.write_text((folder.parent / "pe1" / "secret").read_text())
        secret.chmod(0o600)
        own = {"own": number, "other": 3 - number, "front": front, "red": self.namespaces[number - 1]}
        config, control = folder / "pe.toml", folder / "control.sock"
        config.write_text(CONFIG.format(**own, folder=folder, mtu=MTU))
        command = [sys.executable, "-m", "endpoint", "run", str(config), "--control", str(control)]
        with (folder / "log").open("wb") as log:
            self._running.append(subprocess.Popen(command, stdout=log, stderr=log))
        return control

    def wait_up(self) -> None:
        wait_until(
            lambda: all(self._is_up(control) for control in self._controls), "the children of both ends"
        )

    def _is_up(self, control: Path) -> bool:
        with contextlib.suppress(ControlError):
            return any(peer["children"] for peer in call(control, "status", {})["peers"])
        return False

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(20)


def cpu_s(process: int) -> float:
    """CPU seconds of a process so far: proc(5), stat, utime and stime."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def stream(tunnel: Tunnel, sender: int) -> Flow:
    """One TCP stream for SECONDS from end `sender` (0 or 1) to the other."""
    here, there = tunnel.namespaces[sender], tunnel.namespaces[1 - sender]
    source, target = f"10.{sender + 1}.0.1", f"10.{2 - sender}.0.1"
    server = subprocess.Popen(
        ["ip", "netns", "exec", there, "iperf3", "--server", "--one-off", "--bind", target, "--forceflush"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        if server.stdout is None or not server.stdout.readline():
            raise SystemExit("iperf3 does not start")
        before = cpu_s(tunnel.processes[sender]), cpu_s(tunnel.processes[1 - sender])
        command = ["iperf3", "--client", target, "--bind", source, "--time", str(SECONDS), "--json"]
        done = subprocess.run(
            ["ip", "netns", "exec", here, *command], capture_output=True, timeout=SECONDS + 20
        )
        after = cpu_s(tunnel.processes[sender]), cpu_s(tunnel.processes[1 - sender])
        report = json.loads(done.stdout)
        if "error" in report:
            raise SystemExit(f"iperf3: {report['error']}")
    finally:
        server.kill()
        server.wait()
    total = report["end"]["sum_received"]
    return Flow(8 * total["bytes"], total["seconds"], after[0] - before[0], after[1] - before[1])


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[Ours]:
    spaces = Namespaces()
    try:
        tunnel = Ours(spaces, folder)
        try:
            tunnel.wait_up()
            yield tunnel
        finally:
            tunnel.stop()
    finally:
        spaces.remove()


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("bench_dataplane needs root")
    if shutil.which("iperf3") is None:
        run(["apt-get", "install", "-y", "--no-install-recommends", "iperf3"], timeout_s=300)
    with tempfile.TemporaryDirectory(prefix="mplsec-bench-") as name, contextlib.ExitStack() as stack:
        tunnels: dict[str, Tunnel] = {"mplsec": stack.enter_context(ours(Path(name)))}
        try:
            tunnels["libipsec"] = stack.enter_context(LibIpsec(Path(name)))
        except NotHere as reason:
            print(f"without strongSwan: {reason}")

        def measure(who: str, sender: int) -> float:
            flow = stream(tunnels[who], sender)
            print(f"{who:9} {sender + 1} to {2 - sender}: {flow}", flush=True)
            return flow.gbit_per_cpu_s

        medians = interleave(
            {
                f"{who} {sender}": lambda who=who, sender=sender: measure(who, sender)  # type: ignore[misc]
                for sender in (0, 1)
                for who in tunnels
            }
        )
    worse = {who: min(medians[f"{who} 0"], medians[f"{who} 1"]) for who in tunnels}
    unit = "Gbit per CPU-second"
    if "libipsec" in worse:
        name = "strongSwan kernel-libipsec"
        results = [Result.gain("esp_tcp_1400_vs_libipsec", unit, worse["mplsec"], worse["libipsec"], name)]
    else:
        results = [Result("esp_tcp_1400", unit, round(worse["mplsec"], 3), None, None, None)]
    print_table(results)
    write(results)


if __name__ == "__main__":
    main()
