"""Network namespaces, bridges, taps and veth pairs of the lab, all below one prefix, all removed at the end.

Must not know: which programs use them.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from .processes import LabError, run

PREFIX = "mplslab-"
NAMES = Path("/run/netns")


def ip(*argv: str, netns: str | None = None) -> str:
    """`ip ARGV` in a namespace; returns what it printed."""
    return run(["ip", *(["-n", netns] if netns else []), *argv], timeout_s=20).stdout


class Network:
    """One bridge in a namespace of its own, and namespaces (hosts) whose cards are its ports.

    A context manager: everything is removed on leaving. Link names are local to their namespaces, so only the
    namespaces carry the prefix. `wire` is the namespace where a capture sees every frame, on `bridge`.
    """

    bridge = "br0"

    def __init__(self) -> None:
        self.wire = f"{PREFIX}wire"
        self._names: list[str] = []

    def __enter__(self) -> Network:
        remove_leftovers()
        self.namespace("wire")
        ip(
            "link",
            "add",
            self.bridge,
            "type",
            "bridge",
            "forward_delay",
            "0",
            "mcast_snooping",
            "0",
            netns=self.wire,
        )
        ip("link", "set", self.bridge, "up", netns=self.wire)
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._names):
            with contextlib.suppress(LabError):
                remove_namespace(name)
        self._names.clear()

    def namespace(self, name: str) -> str:
        """Make a namespace; its full name. IPv6 chatter is off: what is captured is what a program sent."""
        full = PREFIX + name
        ip("netns", "add", full)
        self._names.append(full)
        switch_off = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done"
        run(["sh", "-c", switch_off], netns=full)
        ip("link", "set", "lo", "up", netns=full)
        return full

    def adopt(self, name: str, pid: int) -> str:
        """Give the namespace of a running process (a container) a name of ours."""
        full = PREFIX + name
        ip("netns", "attach", full, str(pid))
        self._names.append(full)
        return full

    def host(self, name: str, address: str) -> str:
        """A namespace with a card eth0 on the bridge; the namespace's full name."""
        full = self.namespace(name)
        self.plug(full, name, address)
        return full

    def plug(self, namespace: str, port: str, address: str) -> None:
        """Give a namespace a card eth0 with an address/length; its port on the bridge is `port`."""
        ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace, netns=self.wire)
        ip("link", "set", port, "master", self.bridge, "up", netns=self.wire)
        ip("addr", "add", address, "dev", "eth0", netns=namespace)
        ip("link", "set", "eth0", "up", netns=namespace)

    def add_ipv6(self, namespace: str, address: str) -> None:
        """Give the card eth0 of a host an IPv6 address/length beside the other."""
        path = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6"
        run(["sh", "-c", f"echo 0 > {path}"], netns=namespace)
        ip("addr", "add", address, "dev", "eth0", "nodad", netns=namespace)

    def tap(self, name: str) -> str:
        """A tap on the bridge, for a guest; its name in the namespace `wire`."""
        ip("tuntap", "add", name, "mode", "tap", netns=self.wire)
        ip("link", "set", name, "master", self.bridge, "up", netns=self.wire)
        return name


def remove_leftovers() -> None:
    """Remove what an earlier run of the lab left behind (it was killed with SIGKILL, say)."""
    if NAMES.is_dir():
        for path in sorted(NAMES.iterdir()):
            if path.name.startswith(PREFIX):
                remove_namespace(path.name)


def remove_namespace(name: str) -> None:
    """End the processes in one of our namespaces, one by one by their id, and remove it."""
    if not name.startswith(PREFIX):
        raise LabError(f"{name} is not a namespace of the lab")
    for pid in run(["ip", "netns", "pids", name], check=False).stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    ip("netns", "delete", name)
