"""`mplsec run`: devices, sockets, node and control socket of one endpoint, until SIGTERM or SIGINT.

It must not know protocols. What it made (devices, addresses, routes, the control socket) is gone when it ends; after
a SIGKILL the kernel removes the devices, and the control socket's file is replaced at the next start.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from endpoint.address_monitor import AddressMonitor
from endpoint.capture import Capture
from endpoint.check import check_report
from endpoint.config import AttachConfig, AttachmentKind, Config, VrfConfig
from endpoint.control import ControlError, ControlServer
from endpoint.guard import set_guards
from endpoint.inside import Inside
from endpoint.keylog import KeyLog
from endpoint.memory import MemoryHost
from endpoint.node import Observers
from endpoint.runtime import Runtime, now
from endpoint.status import snapshot
from endpoint.tun import Tun
from ike import LocalError, TraceRecord
from mpls.bindings import Prefix
from mpls.vrf import Interface

__all__ = ["Service", "run_endpoint"]

_log = logging.getLogger("mplsec")

INITIATE_S = 20.0
"""How long the command `initiate` waits; the attempt itself goes on as the configuration says."""
NEW_OBJECTS = 10_000
"""The collector looks after so many: an IKE SA with its child makes about a thousand, few of them in cycles."""
LOWEST_MTU = 1280
"""Of an attachment whose VRF no peer shares."""


async def run_endpoint(config: Config, *, control: Path, keys: Path | None, capture: Path | None) -> int:
    """Run until a signal comes; 0 then. SetupError, with the remedy, when something cannot be made."""
    for warning in config.warnings:
        _log.warning("%s", warning)
    recorder = None if capture is None else Capture(capture)
    service = Service(config)
    # First of all, so that nothing is begun where another mplsec is running already.
    server = await ControlServer.open(control, service.handle)
    try:
        await service.open(None if keys is None else KeyLog(keys), recorder)
        _spare_the_collector()
        _log.info("%s is up, control socket %s", config.endpoint.identity, control)
        await _signalled()
        _log.info("shutting down")
        await service.shut_down()
    finally:
        await server.close()
        await service.close()
        if recorder is not None:
            recorder.close()
    return 0


def _log_message(record: TraceRecord) -> None:
    _log.debug("%s %s", record.path, record.summary)


def _spare_the_collector() -> None:
    """What the start has made stays to the end and is not looked at again; what is new is looked at less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)


async def _signalled() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


class Service:
    """A runtime with the attachments of its configuration and the commands of the control socket."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.runtime: Runtime | None = None
        self._tuns: dict[str, Tun] = {}
        self._tuns_of: dict[str, list[Tun]] = {}
        self._hosts: dict[str, MemoryHost] = {}
        self._monitor: AddressMonitor | None = None
        self._inside: Inside | None = None

    async def open(self, keys: KeyLog | None, capture: Capture | None) -> None:
        """Make the devices, open the sockets, start."""
        set_guards(self.config)
        for vrf in self.config.vrfs:
            for attach in vrf.attach:
                self._attach(vrf, attach)
        self.runtime = await Runtime.open(
            self.config,
            self._deliver,
            keys=keys,
            capture=capture,
            state_dir=self.config.endpoint.state_dir,
            observers=Observers(
                # Nobody reads it otherwise, and without a reader no record is made.
                trace=_log_message if _log.isEnabledFor(logging.DEBUG) else None,
                route=self._route,
                address=self._address,
            ),
        )
        drops = self.runtime.node.dataplane.drops
        self._inside = Inside.open(self.config, self._received, drops)
        for name, tun in self._tuns.items():
            tun.start(self._receiver(name))
        door = self.config.endpoint.front_door
        self._monitor = AddressMonitor(
            self.config.endpoint.addresses,
            door.netns if door else None,
            self._on_addresses,
            device=door.device if door else None,
        )
        self.runtime.start()

    def _attach(self, vrf: VrfConfig, attach: AttachConfig) -> None:
        if attach.kind is AttachmentKind.TUN:
            mtu = attach.mtu or self._mtu(vrf.name)
            tun = Tun.create(attach.name, netns=attach.netns, addresses=attach.address, mtu=mtu)
            self._tuns[attach.name] = tun
            self._tuns_of.setdefault(vrf.name, []).append(tun)
        elif attach.kind is AttachmentKind.MEMORY:
            self._hosts[attach.name] = MemoryHost(attach.address, self._sender(attach.name))

    def _mtu(self, vrf: str) -> int:
        """What every peer of the VRF can carry over its link.

        It does not follow a path MTU that is found: the device is that of all peers, and below 1280 octets Linux takes
        IPv6 off it. ICMP and the MSS tell each host what its own peer's path carries.
        """
        sizes = [row.budget.vrf_mtu for row in check_report(self.config).budgets if row.vrf == vrf]
        return min(sizes, default=LOWEST_MTU)

    def _receiver(self, name: str) -> Callable[[list[bytes]], None]:
        return lambda packets: self._received(name, packets)

    def _sender(self, name: str) -> Callable[[bytes], None]:
        # Not at once: a virtual host may answer while the node is still busy with what made it answer.
        loop = asyncio.get_running_loop()

        def send(packet: bytes) -> None:
            loop.call_soon(self._received, name, [packet])

        return send

    def _received(self, attachment: str, packets: list[bytes]) -> None:
        if self.runtime is not None:
            self.runtime.receive_packets(attachment, packets)

    def _deliver(self, attachment: str, packets: list[bytes]) -> None:
        if attachment in self._tuns:
            self._tuns[attachment].write_batch(packets)
        elif self._inside is not None and self._inside.has(attachment):
            for packet in packets:
                self._inside.deliver(attachment, packet)
        else:
            for packet in packets:
                self._hosts[attachment].receive(packet)

    def _on_addresses(self, addresses: tuple[str, ...]) -> None:
        if self.runtime is not None:
            self.runtime.set_local_addresses(addresses)

    def _route(self, vrf: str, prefix: Prefix, is_there: bool) -> None:
        for tun in self._tuns_of.get(vrf, ()):
            if is_there:
                tun.routes.add(prefix)
            else:
                tun.routes.remove(prefix)

    def _address(self, attachment: str, address: Interface, is_there: bool) -> None:
        if attachment in self._tuns:
            self._tuns[attachment].change_address("add" if is_there else "del", address)
        elif attachment in self._hosts:
            self._hosts[attachment].change_address("add" if is_there else "del", address)

    async def shut_down(self) -> None:
        """Say goodbye to the peers."""
        if self.runtime is not None:
            await self.runtime.shut_down()
            self.runtime = None

    async def close(self) -> None:
        """Close what is open, the devices last."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self.runtime is not None:
            await self.runtime.close()
            self.runtime = None
        if self._inside is not None:
            self._inside.close()
            self._inside = None
        for tun in self._tuns.values():
            tun.close()
        self._tuns.clear()

    async def handle(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """One command of the control socket. ControlError: refused, with the reason."""
        try:
            return await self._handle(command, arguments)
        except (LookupError, LocalError) as error:
            raise ControlError(str(error.args[0])) from error

    async def _handle(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        runtime = self.runtime
        if runtime is None:
            raise ControlError("starting or shutting down; try again")
        node, at = runtime.node, now()
        if command == "status":
            drops = runtime.sockets.drops() + (self._inside.drops() if self._inside else Counter())
            for tun in tuple(self._tuns.values()):
                drops += await tun.all_drops()
            return snapshot(node, at, dict(drops))
        peer, child = arguments.get("peer"), arguments.get("child")
        if not isinstance(peer, str) or not isinstance(child, str | None):
            raise ControlError("peer and child are names")
        if command == "initiate":
            return await self._initiate(runtime, peer, child)
        if command == "terminate":
            count = node.terminate(peer, child, at)
            text = f"{count} {'IKE SAs' if child is None else 'children'} of {peer} are being deleted"
        elif command == "rekey" and arguments.get("reauth") is True:
            count = node.reauthenticate(peer, at)
            text = f"{count} IKE SAs of {peer} are being authenticated again"
        elif command == "rekey":
            count = node.rekey(peer, child, at, ike=arguments.get("ike") is True)
            text = f"{count} SAs of {peer} are being rekeyed"
        else:
            raise ControlError(f"no command {command!r}")
        runtime.arm()
        if not count:
            raise ControlError(f"peer {peer} has nothing to {command}")
        return {"peer": peer, "child": child, "count": count, "text": text}

    async def _initiate(self, runtime: Runtime, peer: str, child: str | None) -> dict[str, Any]:
        """Begin, and wait until it is up or has failed."""
        node = runtime.node
        failures: list[str] = []

        def watch(failed: str, kind: str | None, text: str) -> None:
            if failed == peer and (kind is None or child in (None, kind)):
                failures.append(text)

        node.watchers.append(watch)
        try:
            node.initiate(peer, child, now())
            runtime.arm()
            if not await runtime.wait_until(lambda: node.is_up(peer, child) or bool(failures), INITIATE_S):
                failures.append(f"peer {peer}: not up within {INITIATE_S:.0f} s")
        finally:
            node.watchers.remove(watch)
        if failures:
            raise ControlError(failures[0])
        names = sorted(one.kind.name for one in node.children if one.peer == peer and one.retires_at is None)
        return {
            "peer": peer,
            "child": child,
            "count": len(names),
            "text": f"{peer} is up: {', '.join(names)}",
        }
