"""What an IKE SA with its first Child SA costs a responder: `mplsec run` beside strongSwan's charon.

    python -m tests.benchmarks.bench_ike          as root

Must not know: how either works. CPU is that of the responder's process from /proc, memory its resident set;
the load is ours for both: PSK, X25519, AES-256-GCM, a child in IKE_AUTH, one IKE SA after the other.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from endpoint.control import ControlError, call
from interop.peers.container import PLUGINS
from interop.peers.strongswan import Child, Connection, StrongSwan
from tests.benchmarks.ike_load import NETWORK_OF_ALL, network_of
from tests.benchmarks.libipsec import SwanMachine, swan_root
from tests.benchmarks.results import Result, print_table, write
from tests.benchmarks.tunnels import NotHere
from tests.endpoint.namespaces import Namespaces, wait_until

SAS_OF_A_ROUND, ROUNDS = 200, 5
SAS = SAS_OF_A_ROUND * (ROUNDS + 1)
SECRET = "a secret of the load, which everybody knows"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_OCTETS = os.sysconf("SC_PAGE_SIZE")
CLIENT, GATEWAY, PORT = "192.0.2.1", "192.0.2.2", 4500
ENDPOINT = """
[endpoint]
identity   = "gateway.example"
addresses  = ["{address}"]
front_door = {{ netns = "{front}" }}
state_dir  = "{folder}/state"
nat_port   = {port}

[[vrf]]
name     = "red"
attach   = [{{ memory = "red0", address = ["10.255.0.1/16"] }}]
announce = ["{all}"]
"""
PEER = """
[[peer]]
name          = "c{n}"
identity      = "c{n}.example"
addresses     = ["any"]
auth          = {{ psk_file = "secret" }}
ike           = ["aes256gcm16-prfsha384-x25519"]
esp           = ["aes256gcm16"]
mode          = "tunnel"
selectors     = "plain"
encapsulation = "none"
start         = "none"

  [[peer.vrf]]
  name   = "red"
  accept = ["{network}"]
"""


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def resident_octets(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_OCTETS


@contextlib.contextmanager
def ours(namespaces: Namespaces, folder: Path) -> Iterator[int]:
    """`mplsec run` with a [[peer]] for each client; its process."""
    secret = folder / "secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    front = namespaces.real("gateway")
    text = ENDPOINT.format(address=GATEWAY, front=front, folder=folder, port=PORT, all=NETWORK_OF_ALL)
    peers = (PEER.format(n=client, network=network_of(client)) for client in range(SAS))
    (folder / "gateway.toml").write_text(text + "".join(peers))
    control = folder / "control.sock"
    command = [
        sys.executable,
        "-m",
        "endpoint.cli",
        "run",
        str(folder / "gateway.toml"),
        "--control",
        str(control),
    ]
    with (folder / "mplsec.log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)

        def is_up() -> bool:
            if process.poll() is not None:
                raise SystemExit((folder / "mplsec.log").read_text()[-3000:])
            with contextlib.suppress(ControlError):
                return bool(call(control, "status", {}))
            return False

        try:
            wait_until(is_up, "our gateway", 60)
            yield process.pid
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def charon(namespaces: Namespaces, folder: Path) -> Iterator[int]:
    """charon with kernel-libipsec and a secret for everybody; its process."""
    machine = SwanMachine("gateway", namespaces.real("charon"), folder / "swan", swan_root())
    try:
        child = Child("net", NETWORK_OF_ALL, "10.0.0.0/8", mode="tunnel", esp_proposals="aes256gcm16")
        names = (GATEWAY, "%any", "gateway.example", "*.example")
        more = (f"local_port = {PORT}", "unique = never")
        StrongSwan(
            machine,
            Connection(*names, psk=SECRET, children=(child,), encap=True, more=more),
            plugins=f"{PLUGINS}\n  ikesa_table_size = 1024",
            logs_keys=False,
        )
        yield machine.charon()
    finally:
        machine.stop()


def measure(process: int, client: str, number: int) -> tuple[float, float]:
    """CPU seconds and octets of memory that one IKE SA with its child took, of those of a round."""
    before, memory = cpu_s(process), resident_octets(process)
    load = [sys.executable, "-m", "tests.benchmarks.ike_load", CLIENT, GATEWAY, str(PORT)]
    counts = [str(number * SAS_OF_A_ROUND), str(SAS_OF_A_ROUND), SECRET]
    subprocess.run(["ip", "netns", "exec", client, *load, *counts], check=True, timeout=120)
    grown = resident_octets(process) - memory
    return (cpu_s(process) - before) / SAS_OF_A_ROUND, grown / SAS_OF_A_ROUND


def main() -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        namespaces = Namespaces()
        stack.callback(namespaces.remove)
        for end in ("load1", "gateway", "load2", "charon"):
            namespaces.add(end)
        for load, gateway in (("load1", "gateway"), ("load2", "charon")):
            namespaces.join(load, f"{CLIENT}/24", gateway, f"{GATEWAY}/24")
        try:
            processes = {
                "load2": stack.enter_context(charon(namespaces, folder)),
                "load1": stack.enter_context(ours(namespaces, folder)),
            }
        except NotHere as error:
            raise SystemExit(f"no charon to compare with: {error}") from error
        rounds: dict[str, list[tuple[float, float]]] = {client: [] for client in processes}
        for number in range(ROUNDS + 1):
            for client, process in processes.items():
                figures = measure(process, namespaces.real(client), number)
                if number:  # the first round is a warm-up
                    rounds[client].append(figures)
    cpu, memory = (
        {client: median(figures[which] for figures in rounds[client]) for client in rounds}
        for which in (0, 1)
    )
    results = [
        Result.cost(
            "ike_responder_cpu_vs_charon",
            "ms of CPU per IKE + Child SA",
            cpu["load1"] * 1000,
            cpu["load2"] * 1000,
            "charon",
        ),
        Result.cost(
            "ike_memory_per_sa_vs_charon",
            "KiB per IKE + Child SA",
            memory["load1"] / 1024,
            memory["load2"] / 1024,
            "charon",
        ),
    ]
    print_table(results)
    write(results)


if __name__ == "__main__":
    main()
