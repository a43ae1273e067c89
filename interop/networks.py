"""Network namespaces, bridges, taps and veth pairs of the lab, all below one prefix, all removed at the end.

Must not know: which programs use them, nor what lies between the two sides (topologies.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Self

from .processes import LabError, run

PREFIX = "mplslab-"
NAMES = Path("/run/netns")


def ip(*argv: str, netns: str | None = None) -> str:
    """`ip ARGV` in a namespace; returns what it printed."""
    return run(["ip", *(["-n", netns] if netns else []), *argv], timeout_s=20).stdout


class Network:
    """Two sides on one Ethernet segment, ours and the peer's: hosts are namespaces, containers or guests.

    A context manager: everything is removed on leaving. Link names are local to their namespaces, so only the
    namespaces carry the prefix. `wire` is the namespace where a capture sees, on `bridge`, every frame that our
    program sends or gets. `far_bridge` is where the peer is: the same here, in topologies.py behind something.
    Addresses: 192.0.2.1 ours, 192.0.2.2 the peer's, and where `has_ipv6` also 2001:db8:c::1 and ::2.
    """

    name = "direct"
    bridge = far_bridge = "br0"
    has_ipv6 = False

    def __init__(self, prefix: str = PREFIX) -> None:
        if not prefix.startswith(PREFIX):
            raise LabError(f"{prefix} is not a prefix of the lab")
        self.prefix = prefix
        self.wire = f"{prefix}wire"
        self._names: list[str] = []

    def __enter__(self) -> Self:
        remove_leftovers(self.prefix)
        try:
            self.namespace("wire")
            for bridge in dict.fromkeys((self.bridge, self.far_bridge)):
                options = ("forward_delay", "0", "mcast_snooping", "0")
                ip("link", "add", bridge, "type", "bridge", *options, netns=self.wire)
                ip("link", "set", bridge, "up", netns=self.wire)
            self.connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._names):
            with contextlib.suppress(LabError):
                remove_namespace(name)
        self._names.clear()

    def connect(self) -> None:
        """Put what lies between the two bridges there."""

    def namespace(self, name: str) -> str:
        """Make a namespace; its full name. IPv6 chatter is off: what is captured is what a program sent."""
        full = self.prefix + name
        ip("netns", "add", full)
        self._names.append(full)
        switch_off = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done"
        run(["sh", "-c", switch_off], netns=full)
        ip("link", "set", "lo", "up", netns=full)
        return full

    def adopt(self, name: str, pid: int) -> str:
        """Give the namespace of a running process (a container) a name of ours."""
        full = self.prefix + name
        ip("netns", "attach", full, str(pid))
        self._names.append(full)
        return full

    def host(self, name: str, *addresses: str) -> str:
        """A namespace with a card eth0 on our side; the namespace's full name."""
        full = self.namespace(name)
        self.plug(full, name, *addresses, bridge=self.bridge)
        return full

    def plug(self, namespace: str, port: str, *addresses: str, bridge: str = "", card: str = "eth0") -> None:
        """Give a namespace a card with addresses/lengths; its port is `port`, on the peer's side unless told."""
        ip("link", "add", port, "type", "veth", "peer", "name", card, "netns", namespace, netns=self.wire)
        ip("link", "set", port, "master", bridge or self.far_bridge, "up", netns=self.wire)
        # Datagrams that were handed over as one (UDP_SEGMENT) would be one frame in the capture.
        ip("link", "set", card, "gso_max_segs", "1", netns=namespace)
        for address in addresses:
            if ":" in address:
                write_setting(namespace, f"net/ipv6/conf/{card}/disable_ipv6", "0")
                ip("addr", "add", address, "dev", card, "nodad", netns=namespace)
            else:
                ip("addr", "add", address, "dev", card, netns=namespace)
        ip("link", "set", card, "up", netns=namespace)

    def tap(self, name: str) -> str:
        """A tap on the peer's side, for a guest; its name in the namespace `wire`."""
        ip("tuntap", "add", name, "mode", "tap", netns=self.wire)
        ip("link", "set", name, "master", self.far_bridge, "up", netns=self.wire)
        return name

    def unplug(self, port: str) -> None:
        """Pull the cable of a host: `port` is the name it was plugged with. Both sides notice nothing."""
        ip("link", "set", port, "nomaster", netns=self.wire)

    def replug(self, port: str, *, bridge: str = "") -> None:
        """Put it back, on the peer's side unless told."""
        ip("link", "set", port, "master", bridge or self.far_bridge, netns=self.wire)


def write_setting(namespace: str, path: str, value: str) -> None:
    """Write /proc/sys/`path` of a namespace."""
    run(["sh", "-c", f"echo {value} > /proc/sys/{path}"], netns=namespace)


def remove_leftovers(prefix: str = PREFIX) -> None:
    """Remove what an earlier run of the lab left behind (it was killed with SIGKILL, say)."""
    if NAMES.is_dir():
        for path in sorted(NAMES.iterdir()):
            if path.name.startswith(prefix):
                remove_namespace(path.name)


def remove_scratch() -> None:
    """Remove the temporary folders of a run that was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def remove_namespace(name: str) -> None:
    """End the processes in one of our namespaces, one by one by their id, and remove it."""
    if not name.startswith(PREFIX):
        raise LabError(f"{name} is not a namespace of the lab")
    for pid in run(["ip", "netns", "pids", name], check=False).stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    ip("netns", "delete", name)
