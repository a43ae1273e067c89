"""Two `mplsec run` for soaks, in namespaces joined by a wire, with a TUN device each in `red1` and `red2`.

Must not know what is sent between them.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from endpoint.netns import in_namespace
from tests.endpoint.namespaces import Namespaces, wait_until
from tests.endpoint.running import Run, running

__all__ = ["Pair", "pid_of", "process_pair"]

CONFIG = """
[endpoint]
identity   = "pe{own}.example"
addresses  = ["192.0.2.{own}"]
front_door = {{ netns = "{front}" }}
state_dir  = "STATE"

[[vrf]]
name     = "red"
attach   = [{{ tun = "red0", netns = "{red}", address = ["10.{own}.0.1/24"] }}]
announce = ["10.{own}.0.0/24"]

[[peer]]
name      = "pe{other}"
identity  = "pe{other}.example"
addresses = ["192.0.2.{other}"]
auth      = {{ psk_file = "secret" }}
udp       = "{udp}"
start     = "{start}"

  [[peer.vrf]]
  name    = "red"
  accept  = ["10.{other}.0.0/16"]
"""


@dataclass(frozen=True)
class Pair:
    """`pe[1]` at 192.0.2.1 in `front1`, 10.1.0.1 behind it in `red1`; `pe[2]` likewise."""

    spaces: Namespaces
    pe: dict[int, Run]


@contextlib.contextmanager
def process_pair(*, udp: str = "always") -> Iterator[Pair]:
    """Both up, with a Child SA between them. Nothing but what is sent by a test is on the way: there is no IPv6.

    Each keeps to a processor: what a process sends from two of them, the kernel may put out of order.
    """
    spaces = Namespaces()
    with contextlib.ExitStack() as stack:
        stack.callback(spaces.remove)
        for name in ("front1", "front2", "red1", "red2"):
            real = spaces.add(name)
            in_namespace(real, lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))
        spaces.join("front1", "192.0.2.1/24", "front2", "192.0.2.2/24")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        both = [_process(spaces, folder, number, udp) for number in (1, 2)]
        stack.enter_context(running(*both))
        wait_until(lambda: all(pe.status()["peers"][0]["children"] for pe in both), "children")
        processors = sorted(os.sched_getaffinity(0))
        for pe, processor in zip(both, (processors[0], processors[-1]), strict=True):
            os.sched_setaffinity(pid_of(pe), {processor})
        yield Pair(spaces, dict(enumerate(both, 1)))


def pid_of(pe: Run) -> int:
    if pe.process is None:
        raise ProcessLookupError(pe.name)
    return pe.process.pid


def _process(spaces: Namespaces, folder: Path, number: int, udp: str) -> Run:
    config = CONFIG.format(
        own=number,
        other=3 - number,
        front=spaces.real(f"front{number}"),
        red=spaces.real(f"red{number}"),
        udp=udp,
        start="boot" if number == 1 else "none",
    )
    return Run(f"pe{number}", config, folder)
