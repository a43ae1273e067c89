"""TCP, paced UDP and ping through two `mplsec run` and through other VPNs, in namespaces over veth, in one run.

    python -m tests.benchmarks.bench_dataplane [--quick]          as root; builds what it needs from Debian's packages

Must not know: how either end works. The figure is Gbit per CPU-second of both ends, the worse direction of the two:
the CPU time is that of the two VPN processes, from /proc, in the kernel and outside it; iperf3's own is not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from endpoint.control import ControlError, call
from tests.benchmarks.libipsec import LibIpsec
from tests.benchmarks.others import OpenVpn, WireguardGo
from tests.benchmarks.results import ROUNDS, Result, interleave, print_interpreter, print_table, write
from tests.benchmarks.tunnels import LARGEST_MTU, WIRE_MTU, NotHere, Tunnel, install, wire
from tests.endpoint.namespaces import Namespaces, ip, wait_until

TOOLS = {"iperf3": "iperf3", "ethtool": "ethtool", "ping": "iputils-ping", "debootstrap": "debootstrap"}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PACE = "100M"
PINGS = 100
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
start     = "{start}"
link_mtu  = {link_mtu}

  [[peer.vrf]]
  name    = "red"
  accept  = ["10.{other}.0.0/16"]
"""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What goes through a tunnel, and how. Without GSO the path takes every packet apart (veth, ethtool)."""

    name: str
    mtu: int = 1400
    has_gso: bool = True
    options: tuple[str, ...] = ()


SCENARIOS = (
    Scenario("esp_tcp_1400"),
    Scenario("esp_tcp_8900", mtu=LARGEST_MTU),
    Scenario("esp_tcp_1400_nogso", has_gso=False),
    Scenario("esp_udp_1400", options=("--udp", "--bitrate", PACE, "--length", "1300")),
)


@dataclass(frozen=True, slots=True)
class Flow:
    """One stream: bits that arrived, and the CPU seconds that sending and receiving end took for it."""

    bits: float
    seconds: float
    send_s: float
    receive_s: float

    @property
    def gbit_per_cpu_s(self) -> float:
        return self.bits / (self.send_s + self.receive_s) / 1e9

    @property
    def mbit_s(self) -> float:
        return self.bits / self.seconds / 1e6

    def __str__(self) -> str:
        return (
            f"{self.mbit_s:6.0f} Mbit/s, Gbit per CPU-second: "
            f"{self.bits / self.send_s / 1e9:.2f} sending, {self.bits / self.receive_s / 1e9:.2f} receiving, "
            f"{self.gbit_per_cpu_s:.3f} both ends"
        )


class Ours:
    """Two `mplsec run`: MPLS-in-IP in ESP in UDP."""

    has_jumbo = True
    version = ""

    def __init__(self, spaces: Namespaces, folder: Path) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self.namespaces = (spaces.add("red1"), spaces.add("red2"))
        self.fronts = (spaces.add("front1"), spaces.add("front2"))
        wire(spaces, "front1", "front2")
        self._controls = [self._start(n, self.fronts[n - 1], folder / f"pe{n}") for n in (1, 2)]

    @property
    def processes(self) -> tuple[int, int]:
        return self._running[0].pid, self._running[1].pid

    def set_mtu(self, mtu: int) -> None:
        for netns in self.namespaces:
            ip("-n", netns, "link", "set", "red0", "mtu", str(mtu))

    def _start(self, number: int, front: str, folder: Path) -> Path:
        folder.mkdir()
        secret = folder / "secret"
        secret.write_text("0x" + os.urandom(32).hex() if number == 1 else "")
        if number == 2:
            secret.write_text((folder.parent / "pe1" / "secret").read_text())
        secret.chmod(0o600)
        own = {"own": number, "other": 3 - number, "front": front, "red": self.namespaces[number - 1]}
        config, control = folder / "pe.toml", folder / "control.sock"
        config.write_text(
            CONFIG.format(
                **own,
                folder=folder,
                start="boot" if number == 1 else "none",
                mtu=LARGEST_MTU,
                link_mtu=WIRE_MTU,
            )
        )
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


def stream(tunnel: Tunnel, sender: int, seconds: float = 3, options: tuple[str, ...] = ()) -> Flow:
    """One stream from end `sender` (0 or 1) to the other."""
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
        command = ["iperf3", "--client", target, "--bind", source, "--time", str(seconds), "--json", *options]
        done = subprocess.run(
            ["ip", "netns", "exec", here, *command], capture_output=True, timeout=seconds + 20
        )
        after = cpu_s(tunnel.processes[sender]), cpu_s(tunnel.processes[1 - sender])
        report = json.loads(done.stdout)
        if "error" in report:
            raise SystemExit(f"iperf3: {report['error']}")
    finally:
        server.kill()
        server.wait()
    end = report["end"]
    if "--udp" in options:
        octets = end["sum"]["bytes"] * (1 - end["sum"]["lost_percent"] / 100)
        took = end["sum"]["seconds"]
    else:
        octets, took = end["sum_received"]["bytes"], end["sum_received"]["seconds"]
    # One tick more than was counted at least: a figure is never better than the clock is fine.
    spent = [max(after[n] - before[n], 1 / TICKS_PER_S) for n in (0, 1)]
    return Flow(8 * octets, took, *spent)


def ping_us(netns: str, source: str, target: str) -> float:
    """The median time there and back, in microseconds."""
    command = ["ping", "-n", "-c", str(PINGS), "-i", "0.01", "-I", source, target]
    done = subprocess.run(
        ["ip", "netns", "exec", netns, *command], capture_output=True, text=True, timeout=30
    )
    return 1000 * median(float(found) for found in re.findall(r"time=([\d.]+) ms", done.stdout))


def added_us(tunnel: Tunnel) -> float:
    """What the tunnel adds to a ping over the wire."""
    over_wire = ping_us(tunnel.fronts[0], "192.0.2.1", "192.0.2.2")
    return ping_us(tunnel.namespaces[0], "10.1.0.1", "10.2.0.1") - over_wire


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


class Bench:
    """The tunnels that there are, why others are `absent`, what was measured, and how each is set up at the moment."""

    def __init__(self, tunnels: dict[str, Tunnel], absent: dict[str, str], seconds: float) -> None:
        self.tunnels, self.absent = tunnels, absent
        self.others = [who for who in (*tunnels, *absent) if who != OURS]
        self.flows: dict[tuple[str, str, int], list[Flow]] = {}
        self._seconds = seconds
        self._set_up: dict[str, tuple[int, bool]] = {}

    def measure(self, scenario: Scenario, who: str, sender: int) -> float:
        tunnel = self.tunnels[who]
        wanted = scenario.mtu, scenario.has_gso
        if self._set_up.get(who) != wanted:
            self._set_up[who] = wanted
            tunnel.set_mtu(scenario.mtu)
            for front in tunnel.fronts:
                switch = "on" if scenario.has_gso else "off"
                ip("netns", "exec", front, "ethtool", "-K", "wire", "tx-udp-segmentation", switch)
        flow = stream(tunnel, sender, self._seconds, scenario.options)
        self.flows.setdefault((scenario.name, who, sender), []).append(flow)
        print(f"{scenario.name:19} {who:21} {sender + 1} to {2 - sender}: {flow}", flush=True)
        return flow.gbit_per_cpu_s

    def results(self, rounds: int, scenarios: tuple[Scenario, ...] = SCENARIOS) -> list[Result]:
        variants = {
            f"{scenario.name} {who} {sender}": (
                lambda scenario=scenario, who=who, sender=sender: self.measure(scenario, who, sender)
            )
            for scenario in scenarios
            for sender in (0, 1)
            for who in self.tunnels
        }
        medians = interleave(variants, rounds)
        results = []
        for scenario in scenarios:
            name = scenario.name
            worse = {who: min(medians[f"{name} {who} {n}"] for n in (0, 1)) for who in self.tunnels}
            speeds = {who: self._speed(name, who) for who in self.tunnels}
            results.append(Result(name, UNIT, round(worse[OURS], 3), None, None, None))
            for who in self.others:
                is_small = scenario.mtu > 1400 and who in self.tunnels and not self.tunnels[who].has_jumbo
                peer_name = self.peer_name(who) + (", its device has 1400" if is_small else "")
                results.append(self._beside(f"{name}_vs_{who}", UNIT, worse, who, peer_name))
                results.append(self._beside(f"{name}_mbit_s_vs_{who}", "Mbit/s", speeds, who, peer_name))
        return results

    def _beside(self, name: str, unit: str, figures: dict[str, float], who: str, peer_name: str) -> Result:
        if who not in figures:
            return Result.missing(name, unit, figures[OURS], peer_name)
        return Result.gain(name, unit, figures[OURS], figures[who], peer_name)

    def _speed(self, name: str, who: str) -> float:
        """Mbit/s, the median of the worse direction; the first round is a warm-up."""
        return min(median(flow.mbit_s for flow in self.flows[name, who, n][1:]) for n in (0, 1))

    def peer_name(self, who: str) -> str:
        """Its name and version, or its name and why it is not here."""
        name = NAMES.get(who, who)
        return (
            f"{name} {self.tunnels[who].version}".strip()
            if who in self.tunnels
            else f"{name}: {self.absent[who]}"
        )

    def latency(self, rounds: int) -> list[Result]:
        variants = {who: lambda who=who: added_us(self.tunnels[who]) for who in self.tunnels}
        medians = interleave(variants, rounds)
        results = []
        for who in self.others:
            name, unit = f"esp_ping_added_vs_{who}", "us added to a ping"
            if who in medians:
                results.append(Result.cost(name, unit, medians[OURS], medians[who], self.peer_name(who)))
            else:
                results.append(Result.missing(name, unit, medians[OURS], self.peer_name(who)))
        return results


OURS = "mplsec"
UNIT = "Gbit per CPU-second"
NAMES = {
    "libipsec": "strongSwan kernel-libipsec",
    "wireguard_go": "wireguard-go",
    "wireguard_go_stable": "wireguard-go",
    "openvpn": "OpenVPN",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one second each, a median of three")
    quick = parser.parse_args().quick
    if os.geteuid() != 0:
        raise SystemExit("bench_dataplane needs root")
    print_interpreter()
    install(TOOLS)
    with tempfile.TemporaryDirectory(prefix="mplsec-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        absent: dict[str, str] = {}
        tunnels: dict[str, Tunnel] = {OURS: stack.enter_context(ours(folder))}
        others: dict[str, contextlib.AbstractContextManager[Tunnel]] = {
            "libipsec": LibIpsec(folder),
            "wireguard_go": WireguardGo(folder, newest=True),
            "wireguard_go_stable": WireguardGo(folder, newest=False),
            "openvpn": OpenVpn(folder),
        }
        for who, other in others.items():
            try:
                tunnels[who] = stack.enter_context(other)
            except NotHere as reason:
                print(f"without {NAMES[who]}: {reason}", flush=True)
                absent[who] = str(reason)
        bench = Bench(tunnels, absent, 1 if quick else 3)
        rounds = 3 if quick else ROUNDS
        results = bench.latency(rounds) + bench.results(rounds)
    print_table(results)
    write(results)


if __name__ == "__main__":
    main()
