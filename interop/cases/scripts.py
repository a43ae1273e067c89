"""`mplsec peer`: every script that it ships against gateways of others and against our own, one after the other.

Must not know: how a script does it. What each gateway answered is a table in docs/PEER.md (`interop/script_table.py`).
"""

from __future__ import annotations

import json
import re
import sys
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ..capture import Capture
from ..networks import Network
from ..packages import kernel_root, libreswan_root, strongswan_root
from ..peers.container import SwanContainer
from ..peers.libreswan import Conn, Libreswan
from ..peers.linux_pe import LinuxPe
from ..peers.mplsec import Mplsec
from ..peers.strongswan import Connection
from ..processes import Background, LabError, run, wait_until
from ..wire import IKE_SA_INIT
from .case import OUR_ADDRESS, PEER_ADDRESS, PSK, Case, CheckError, Evidence, Lab, require
from .libreswan import NAMES, LibreswanPe
from .strongswan import SUITE, IpTunnelCase

COMMAND = Path(sys.executable).with_name("mplsec")
WAITS_FOR_THE_GATEWAY = ("missing_auth", "widened_selectors")
WAITS_FOR_A_REKEY = ("rekey_collision",)
MUST_ANSWER = {
    "wrong_auth": r".*AUTHENTICATION_FAILED.*",
    "unknown_critical": r".*UNSUPPORTED_CRITICAL_PAYLOAD.*",
    "wrong_order": r"(?!GRANTED).*",
    "wide_request": r"(?!GRANTED).*",
    "missing_auth": r"[1-9]\d* retransmissions, octet for octet",
}
"""What every gateway has to answer; the rest is told and not judged."""


class Gateway(Protocol):
    """What a script is aimed at."""

    @property
    def version(self) -> str: ...

    def initiate(self) -> None:
        """Begin an IKE SA with us, whatever comes of it."""

    def rekey(self) -> None:
        """Rekey the child, once there is one."""


class ScriptsCase(Case):
    """All scripts against one gateway."""

    role = "initiator"
    is_patient = True
    feature = "the scripts of a peer that misbehaves: each gets an answer, and the gateway serves afterwards"

    @abstractmethod
    def config(self, red: str) -> str:
        """The configuration that the scripts are run with."""

    @abstractmethod
    def gateway(self, lab: Lab, network: Network) -> Any:
        """A context manager: the running gateway, at the peer's address."""

    def drive(self, lab: Lab) -> dict[str, Any]:
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            front_door, red = network.host("pe1", f"{OUR_ADDRESS}/24"), network.namespace("red")
            gateway: Gateway = stack.enter_context(self.gateway(lab, network))
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge))
            runner = ScriptRunner(lab.folder / "pe1", self.config(red), front_door)
            told = {name: runner.run(name, gateway) for name in shipped_scripts()}
            lab.keys.mkdir(exist_ok=True)
            return {"peer_version": gateway.version, "gateway": self.peer, "scripts": told}

    def check(self, evidence: Evidence) -> list[str]:
        told: dict[str, dict[str, Any]] = evidence.fact("scripts")
        gateway = evidence.fact("gateway")
        require(gateway == self.peer, f"the scripts were aimed at {gateway}")
        require(len(told) >= 10, f"only {len(told)} scripts were run")
        began = [m for m in evidence.ike if m.exchange == IKE_SA_INIT and m.source == OUR_ADDRESS]
        require(len(began) > 200, f"{len(began)} IKE_SA_INIT of ours on the wire: no flood")
        for name, one in told.items():
            require(one["serves_after_s"] is not None, f"after {name} the gateway does not serve")
            require(one["answered"] is not None, f"{name} ended early: {one['problem']}")
            if not re.fullmatch(MUST_ANSWER.get(name, ".+"), str(one["answered"])):
                raise CheckError(f"{name} was answered with {one['answered']}")
        return [f"{name}: {one['answered']}" for name, one in told.items()]


class ScriptRunner:
    """`mplsec peer SCRIPT CONFIG --json` in a namespace."""

    def __init__(self, folder: Path, config: str, netns: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._netns = folder, netns
        self._config = folder / "script.toml"
        self._config.write_text(config)
        secret = folder / "peer.psk"
        secret.touch(mode=0o600)
        secret.write_text(PSK + "\n")

    def run(self, name: str, gateway: Gateway) -> dict[str, Any]:
        """What it printed. The gateway does its part while the script waits for it."""
        output = self._folder / f"{name}.log"
        script = Background([COMMAND, "peer", name, self._config, "--json"], log=output, netns=self._netns)
        try:
            if name in WAITS_FOR_THE_GATEWAY:
                gateway.initiate()
            elif name in WAITS_FOR_A_REKEY:
                gateway.rekey()
            wait_until(lambda: not script.is_running(), f"the end of {name}", timeout_s=120, every_s=0.05)
        finally:
            script.stop()
        text = output.read_text()
        try:
            told: dict[str, Any] = json.loads(text[text.index("{") :])
        except ValueError as error:
            raise LabError(f"mplsec peer {name}: {text[-2000:]}") from error
        return told


def shipped_scripts() -> list[str]:
    return [line.split()[0] for line in run([COMMAND, "peer", "--list"]).stdout.splitlines()]


class _Charon:
    def __init__(self, container: SwanContainer, connection: Connection, child: str, settings: str) -> None:
        self._charon = container.start_strongswan(connection, settings=settings)
        self._child = child

    @property
    def version(self) -> str:
        return self._charon.version

    def initiate(self) -> None:
        self._charon.forget()
        self._charon.try_to_initiate(self._child)

    def rekey(self) -> None:
        self._charon.wait_for_children(1)
        self._charon.rekey(self._child)


class StrongSwanScripts(ScriptsCase):
    """charon in a container: its ESP is always in UDP, so everything goes over port 4500 from the beginning."""

    peer = f"strongswan-{SUITE}"
    name = "scripts-strongswan"
    roots = (strongswan_root(SUITE),)

    def __init__(self) -> None:
        self._base = IpTunnelCase(self.role)

    def config(self, red: str) -> str:
        return self._base.config(red).replace('udp = "always"', 'udp = "always"\nport = 4500')

    @contextmanager
    def gateway(self, lab: Lab, network: Network) -> Iterator[Gateway]:
        names = (PEER_ADDRESS, OUR_ADDRESS, "pe2.example", "pe1.example")
        container = SwanContainer(lab.daemon, network, folder=lab.folder / "pe2", suite=SUITE)
        with container:
            connection = replace(
                self._base.connection(names), more=("local_port = 4500", "remote_port = 4500")
            )
            yield _Charon(container, connection, self._base.their_child, "retransmit_timeout = 1.0")


class _Pluto:
    def __init__(self, linux: LinuxPe) -> None:
        protocol = ("type=transport", "leftprotoport=137", "rightprotoport=137", "pfs=no")
        self._pluto = Libreswan(linux, Conn(*NAMES, more=protocol))
        self._linux = linux

    @property
    def version(self) -> str:
        return f"Linux {self._linux.kernel_version}, {self._pluto.version}"

    def initiate(self) -> None:
        """Anew: it would go on with the SAs of earlier scripts, for as long as it takes to find them dead."""
        self._pluto.restart()
        self._pluto.initiate(check=False)

    def rekey(self) -> None:
        wait_until(lambda: len(self._pluto.esp_keys()) >= 2, "two SAs in the kernel", every_s=0.2)
        self._pluto.rekey_child()


class LibreswanScripts(ScriptsCase):
    """pluto on a Linux PE, whose kernel has ESP."""

    peer = "linux-pe-libreswan"
    name = "scripts-libreswan"
    roots = (kernel_root(), libreswan_root())
    needs_docker = False

    def config(self, red: str) -> str:
        return LibreswanPe(self.role).config(red).replace("aes256gcm16-x25519-esn", "aes256gcm16")

    @contextmanager
    def gateway(self, lab: Lab, network: Network) -> Iterator[Gateway]:
        place: dict[str, Any] = {"folder": lab.folder / "pe2", "state": lab.state}
        linux = LinuxPe(network, **place, encapsulation="mpls-in-ip", programs=libreswan_root())
        with linux:
            yield _Pluto(linux)


class _Ours:
    def __init__(self, ours: Mplsec) -> None:
        self._ours = ours

    @property
    def version(self) -> str:
        return self._ours.version

    def initiate(self) -> None:
        self._ours.try_to_initiate("pe1")

    def rekey(self) -> None:
        (child,) = wait_until(self._ours.children, "a child at our gateway", every_s=0.1)
        self._ours.rekey("pe1", str(child["name"]))


class OurScripts(ScriptsCase):
    """`mplsec run`."""

    peer = "mplsec"
    name = "scripts-mplsec"
    roots = ()
    needs_docker = False

    def config(self, red: str) -> str:
        """Without a pretended NAT: it makes the gateway float to port 4500, where no script listens."""
        return IpTunnelCase(self.role).config(red).replace('udp = "always"\n', "")

    @contextmanager
    def gateway(self, lab: Lab, network: Network) -> Iterator[Gateway]:
        front_door, red = network.host("pe2", f"{PEER_ADDRESS}/24"), network.namespace("red2")
        config = mirrored(IpTunnelCase(self.role).config(red))
        with Mplsec(lab.folder / "pe2", config, PSK, netns=front_door, state=lab.state) as ours:
            yield _Ours(ours)


def mirrored(config: str) -> str:
    """The configuration of the other end. Without MOBIKE, for the same reason."""
    swaps = {"pe1": "pe2", OUR_ADDRESS: PEER_ADDRESS, "10.1.0.": "10.2.0."}
    both = swaps | {theirs: ours for ours, theirs in swaps.items()}
    pattern = "|".join(map(re.escape, sorted(both, key=len, reverse=True)))
    return re.sub(pattern, lambda found: both[found[0]], config).replace(
        'udp = "always"\n', "mobike = false\n"
    )


CASES: tuple[Case, ...] = (StrongSwanScripts(), LibreswanScripts(), OurScripts())
