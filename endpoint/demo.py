"""`mplsec demo`: two PEs in one process, real UDP between two loopback addresses, the whole answer in some seconds.

Needs no privileges and no TUN. Every step checks what it claims by counters of the side that received; what only a
live wire can show is in the capture it writes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from endpoint.capture import Capture
from endpoint.children import Child
from endpoint.config import Config, parse_config
from endpoint.demo_config import PE1, PE2
from endpoint.errors import SetupError
from endpoint.keylog import KeyLog
from endpoint.memory import MemoryHost
from endpoint.node import Observers
from endpoint.runtime import Runtime, now
from esp.engine import Received, protect
from ike import TraceRecord
from ike.events import Direction
from mpls.capability import LABEL_BINDING, LABEL_STATUS, MPLS_VRF_SUPPORTED
from mpls.encapsulation import MPLS_IN_IP
from mpls.hop import Drop
from mpls.inbound import Delivery
from mpls.ip import Echo
from mpls.labels import LabelEntry, LabelStack

__all__ = ["DEFAULT_CAPTURE", "DEFAULT_KEYS", "run_demo"]

DEFAULT_CAPTURE = Path("build/demo/demo.pcapng")
DEFAULT_KEYS = Path("build/demo/wireshark")
STEP_S = 5.0
REKEY_PINGS = 300
PING_IDENTIFIER = 0x6D70
EXPEDITED = 46
"""The DSCP that selects class gold."""


_PRIVATE = re.compile("NOTIFY_511[0-9]{2}")


def _private_name(match: re.Match[str]) -> str:
    """The name of a notify that only `mpls` knows."""
    names = {
        MPLS_VRF_SUPPORTED: "MPLS_VRF_SUPPORTED",
        LABEL_BINDING: "LABEL_BINDING",
        LABEL_STATUS: "LABEL_STATUS",
    }
    return names.get(int(match[0][7:]), match[0])


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the result."""

    name: str
    ok: bool
    evidence: str


class StepError(Exception):
    """A step did not hold; the text says what was seen instead."""


class Side:
    """One PE with a virtual host behind each attachment."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.hosts: dict[str, MemoryHost] = {}
        self.runtime: Runtime
        self.seen: list[tuple[Child, Received, Delivery | Drop]] = []

    async def open(self, capture: Capture | None, keys: KeyLog | None, observers: Observers) -> None:
        for vrf in self.config.vrfs:
            for attach in vrf.attach:
                self.hosts[attach.name] = MemoryHost(attach.address, self._sender(attach.name))
        self.runtime = await Runtime.open(
            self.config, self._deliver, keys=keys, capture=capture, observers=observers
        )
        self.runtime.node.dataplane.observe = lambda *what: self.seen.append(what)
        self.runtime.start()

    def _sender(self, attachment: str) -> Callable[[bytes], None]:
        # Not at once: a host may answer while the node is still busy with what made it answer.
        loop = asyncio.get_running_loop()

        def send(packet: bytes) -> None:
            loop.call_soon(self.runtime.receive_packets, attachment, [packet])

        return send

    def _deliver(self, attachment: str, packets: list[bytes]) -> None:
        for packet in packets:
            self.hosts[attachment].receive(packet)

    def child(self, name: str) -> Child:
        """The child of this name that is sent on."""
        peer = self.config.peers[0].name
        return [child for child in self.runtime.node.children.of_kind(peer, name) if child.may_send][-1]

    def drops(self, reason: str) -> int:
        return self.runtime.node.dataplane.drops[reason]

    def children_up(self) -> set[str]:
        return {child.kind.name for child in self.runtime.node.children if child.retires_at is None}


def run_demo(*, capture: Path | None, keys: Path | None, as_json: bool) -> int:
    """Run it; 0 only if every step held."""
    capture, keys = capture or DEFAULT_CAPTURE, keys or DEFAULT_KEYS
    console = Console(stderr=as_json, quiet=as_json, highlight=False, soft_wrap=not sys.stdout.isatty())
    try:
        capture.parent.mkdir(parents=True, exist_ok=True)
        demo = Demo(console, Capture(capture), KeyLog(keys))
        steps, counters = asyncio.run(demo.run())
    except (SetupError, OSError) as error:
        print(f"mplsec: {error}", file=sys.stderr)
        return 1
    ok = all(step.ok for step in steps)
    if as_json:
        document: dict[str, Any] = {
            "steps": [{"name": step.name, "ok": step.ok, "evidence": step.evidence} for step in steps],
            "counters": counters,
            "capture": str(capture),
            "keys": str(keys),
        }
        print(json.dumps(document, indent=2))
    else:
        _show(console, steps, capture, keys)
    return 0 if ok else 1


class Demo:
    """The story, step by step."""

    def __init__(self, console: Console, capture: Capture, keys: KeyLog) -> None:
        psk = {"demo.psk": secrets.token_hex(32).encode()}
        self._pe1 = Side(parse_config(PE1, "pe1.toml", secrets=psk))
        self._pe2 = Side(parse_config(PE2, "pe2.toml", secrets=psk))
        self._console, self._capture, self._keys = console, capture, keys
        _show_log_lines(console)
        self._sequence = 0

    async def run(self) -> tuple[list[Step], dict[str, Any]]:
        """(steps, counters of both PEs)."""
        story: tuple[tuple[str, Callable[[], Awaitable[str]]], ...] = (
            ("two PEs up", self._come_up),
            ("IKE SA established", self._establish),
            ("a Child SA for each (VRF, class), negotiated with TS type 246", self._children),
            ("label bindings exchanged", self._bindings),
            ("ping red to red on red's SA", self._ping_red),
            ("ping blue to blue, the same addresses, on blue's SA", self._ping_blue),
            ("gold traffic on gold's SA", self._ping_gold),
            ("blue's label sealed into red's SA: dropped", self._foreign_label),
            ("a replayed packet: dropped", self._replay),
            ("cleartext protocol 137: dropped", self._cleartext),
            ("a Child SA rekeyed under traffic, no packet lost", self._rekey),
        )
        steps: list[Step] = []
        try:
            for number, (name, play) in enumerate(story, 1):
                self._console.print(f"[bold]{number:2}  {escape(name)}[/bold]")
                if steps and not steps[-1].ok:
                    steps.append(Step(name, False, "not reached"))
                    continue
                steps.append(await self._play(name, play))
                colour = "green" if steps[-1].ok else "red"
                self._console.print(f"    [{colour}]{escape(steps[-1].evidence)}[/{colour}]")
            if steps[-1].ok:
                self._decode()
            counters = {"pe1": self._counters(self._pe1), "pe2": self._counters(self._pe2)}
        finally:
            for side in (self._pe1, self._pe2):
                if hasattr(side, "runtime"):
                    await side.runtime.shut_down()
            self._capture.close()
        return steps, counters

    async def _play(self, name: str, play: Callable[[], Awaitable[str]]) -> Step:
        try:
            return Step(name, True, await play())
        except StepError as failure:
            return Step(name, False, str(failure))

    # --- the steps

    async def _come_up(self) -> str:
        await self._pe2.open(None, None, Observers())
        await self._pe1.open(self._capture, self._keys, Observers(trace=self._tell))
        ends = ", ".join(
            f"{s.config.endpoint.identity} on {s.config.endpoint.addresses[0]}[4500]" for s in self._sides
        )
        return f"{ends}; VRFs red (gold, standard) and blue, both with 10.1.0.0/24 and 10.2.0.0/24"

    async def _establish(self) -> str:
        node = self._pe1.runtime.node
        await self._until(
            self._pe1,
            lambda: any(one.established_at is not None for one in node.engine.sessions()),
            "no IKE SA",
        )
        session = node.engine.sessions()[0]
        suite = self._pe1.config.peers[0].ike_text[0]
        return f"{session.spi_i.hex()}_i {session.spi_r.hex()}_r, {suite}, PSK, childless"

    async def _children(self) -> str:
        wanted = {"red/gold", "red/standard", "blue/0"}

        def has_children(side: Side) -> bool:
            return side.children_up() == wanted

        for side in self._sides:
            await self._until(side, partial(has_children, side), f"not all of {sorted(wanted)}")
        spis = ", ".join(f"{name} {self._pe1.child(name).sa.spi_out.hex()}" for name in sorted(wanted))
        gold = self._pe1.child("red/gold").outbound_selector
        return f"SPIs to pe2: {spis}; gold's selector: {gold.encode().hex() if gold else 'none'}"

    async def _bindings(self) -> str:
        def bound(side: Side) -> bool:
            return {(vrf, cls) for vrf, cls, _ in side.runtime.node.table.routes()} >= {
                ("red", "gold"),
                ("red", "standard"),
                ("blue", 0),
            }

        for side in self._sides:
            await self._until(side, partial(bound, side), "not every (VRF, class) has a route")
        routes = sorted(self._pe1.runtime.node.table.routes(), key=str)
        return "pe1 learned: " + ", ".join(
            f"{vrf}/{cls} {r.prefix} label {r.label}" for vrf, cls, r in routes
        )

    async def _ping_red(self) -> str:
        return await self._ping("red", "red/standard", dscp=0)

    async def _ping_blue(self) -> str:
        return await self._ping("blue", "blue/0", dscp=0)

    async def _ping_gold(self) -> str:
        return await self._ping("red", "red/gold", dscp=EXPEDITED)

    async def _ping(self, vrf: str, child: str, *, dscp: int) -> str:
        """One echo and its reply, each on the child of this name and on no other."""
        before = {side: self._packets(side) for side in self._sides}
        self._send_ping(vrf, dscp)
        wanted = self._sequence
        await self._until(self._pe1, lambda: wanted in self._answered(vrf), "no answer")
        for side in self._sides:
            after = self._packets(side)
            used = {name for name, packets in after.items() if packets != before[side][name]}
            if used != {child}:
                raise StepError(f"{side.config.endpoint.identity} received on {sorted(used)}, not on {child}")
        label = self._pe2.seen[-1][2]
        shown = f"label {label.label} TC {label.tc}" if isinstance(label, Delivery) else ""
        return f"10.1.0.2 to 10.2.0.2 and back in {vrf}, both ways on child {child} alone, {shown}"

    async def _foreign_label(self) -> str:
        label = next(r.label for vrf, _, r in self._pe1.runtime.node.table.routes() if vrf == "blue")
        if label is None:
            raise StepError("blue has no label")
        before = self._pe2.drops("label_foreign")
        self._inject("red/standard", label)
        await self._until(
            self._pe2, lambda: self._pe2.drops("label_foreign") == before + 1, "it was not counted"
        )
        child = self._pe2.child("red/standard")
        return f"label {label} on SPI {child.sa.spi_in.hex()}: label_foreign {before} -> {before + 1} at pe2"

    async def _replay(self) -> str:
        label = next(
            r.label
            for vrf, cls, r in self._pe1.runtime.node.table.routes()
            if (vrf, cls) == ("red", "standard")
        )
        if label is None:
            raise StepError("red has no label")
        before, delivered = self._pe2.drops("replay"), self._pe2.runtime.node.dataplane.delivered
        self._inject("red/standard", label, times=2)
        await self._until(self._pe2, lambda: self._pe2.drops("replay") == before + 1, "it was not counted")
        if self._pe2.runtime.node.dataplane.delivered != delivered + 1:
            raise StepError("the packet itself was not delivered once")
        return f"the same octets sent twice: delivered once, replay {before} -> {before + 1} at pe2"

    async def _cleartext(self) -> str:
        label = next(r.label for _, _, r in self._pe1.runtime.node.table.routes())
        if label is None:
            raise StepError("no label is bound")
        before = self._pe2.drops("cleartext_mpls")
        # An ordinary user may not send protocol 137: it is handed to the function that receives such packets.
        self._pe2.runtime.receive_cleartext(MPLS_IN_IP, self._labelled(label))
        if self._pe2.drops("cleartext_mpls") != before + 1:
            raise StepError("it was not counted")
        return f"handed to the packet-input function: cleartext_mpls {before} -> {before + 1} at pe2"

    async def _rekey(self) -> str:
        old, first = self._pe1.child("red/standard"), self._sequence + 1
        for number in range(REKEY_PINGS):
            if number == REKEY_PINGS // 3:
                self._pe1.runtime.node.rekey("pe2", "red/standard", now())
                self._pe1.runtime.arm()
            self._send_ping("red", 0)
            await asyncio.sleep(0.002)
        sent = set(range(first, first + REKEY_PINGS))
        await self._until(self._pe1, lambda: sent <= self._answered("red"), "packets were lost")
        new = self._pe1.child("red/standard")
        if new.sa.spi_in == old.sa.spi_in:
            raise StepError("the child is still the old one")
        if not new.inbound.packets or not old.inbound.packets:
            raise StepError("not both of the SAs carried traffic")
        return (
            f"{REKEY_PINGS} pings, {len(sent & self._answered('red'))} answered; SPI {old.sa.spi_in.hex()} "
            f"-> {new.sa.spi_in.hex()} after {old.inbound.packets} packets"
        )

    # --- helpers

    @property
    def _sides(self) -> tuple[Side, Side]:
        return self._pe1, self._pe2

    async def _until(self, side: Side, holds: Callable[[], bool], failure: str) -> None:
        if not await side.runtime.wait_until(holds, STEP_S):
            raise StepError(f"{failure} within {STEP_S:.0f} s")

    def _send_ping(self, vrf: str, dscp: int) -> None:
        self._sequence += 1
        self._pe1.hosts[f"{vrf}-ce1"].ping(
            "10.1.0.2",
            "10.2.0.2",
            identifier=PING_IDENTIFIER,
            sequence=self._sequence,
            dscp=dscp,
            data=b"mplsec",
        )

    def _answered(self, vrf: str) -> set[int]:
        """The sequence numbers of the story's own pings that were answered."""
        pongs = self._pe1.hosts[f"{vrf}-ce1"].pongs
        return {pong.sequence for pong in pongs if pong.identifier == PING_IDENTIFIER}

    def _labelled(self, label: int) -> bytes:
        echo = Echo(ip_address("10.1.0.2"), ip_address("10.2.0.9"), 1, 1, b"forged")
        return LabelEntry(label, 0, True, 64).encode() + echo.encode()

    def _inject(self, child: str, label: int, *, times: int = 1) -> None:
        """Seal a packet with this label into pe1's own SA, past all of its checks, and send it."""
        sender = self._pe1.child(child)
        packet = protect(sender.outbound, self._labelled(label), MPLS_IN_IP)
        for _ in range(times):
            self._pe1.runtime.sockets.send_esp(sender.path, [packet], udp=True, tos=0)

    def _packets(self, side: Side) -> dict[str, int]:
        counts: dict[str, int] = {}
        for child in side.runtime.node.children:
            counts[child.kind.name] = counts.get(child.kind.name, 0) + child.inbound.packets
        return counts

    def _counters(self, side: Side) -> dict[str, Any]:
        if not hasattr(side, "runtime"):
            return {}
        node = side.runtime.node
        return {
            "children": {
                child.kind.name: {
                    "spi_in": child.sa.spi_in.hex(),
                    "packets_in": child.inbound.packets,
                    "packets_out": child.outbound.packets,
                    "drops": dict(child.drops),
                }
                for child in node.children
                if child.retires_at is None
            },
            "delivered": node.dataplane.delivered,
            "drops": dict(node.dataplane.drops),
        }

    def _tell(self, record: TraceRecord) -> None:
        arrow = "pe1 -> pe2" if record.direction is Direction.SENT else "pe1 <- pe2"
        line = f"    {arrow}  {_PRIVATE.sub(_private_name, record.summary)}"
        self._console.print(f"[dim]{escape(line)}[/dim]")

    def _decode(self) -> None:
        """One packet of gold as pe2 saw it."""
        golden = (one for one in self._pe2.seen if one[0].kind.name == "red/gold")
        child, received, outcome = next(golden, (None, None, None))
        if child is None or received is None or not isinstance(outcome, Delivery):
            return
        opened = received.opened
        stack = LabelStack.parse(opened.payload)
        echo = Echo.parse(outcome.packet)
        inner = (
            f"{echo.source} -> {echo.destination} ICMP echo seq {echo.sequence} DSCP {echo.dscp}"
            if echo
            else "?"
        )
        self._console.print("\n[bold]One packet, decoded at pe2[/bold]")
        for line in (
            f"IP 127.0.0.11 -> 127.0.0.12, UDP 4500 -> 4500, ESP SPI 0x{child.sa.spi_in.hex()} seq {opened.sequence}",
            f"  ESP next header {opened.next_header} (MPLS-in-IP, RFC 4023), transport mode, AES-GCM-256",
            f"    label stack [{stack}] -> VRF {outcome.vrf}, class {outcome.label_class}",
            f"      {inner}",
        ):
            self._console.print("  " + escape(line))


def _show_log_lines(console: Console) -> None:
    """What the two nodes log from warnings on is part of the story."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(f"    [yellow]log: {escape(record.getMessage())}[/yellow]")

    logger = logging.getLogger("mplsec")
    logger.handlers = [Handler(logging.WARNING)]
    logger.propagate = False


def _show(console: Console, steps: list[Step], capture: Path, keys: Path) -> None:
    table = Table(title="mplsec demo", box=box.ROUNDED if console.is_terminal else box.ASCII)
    table.add_column("#", justify="right")
    table.add_column("step")
    table.add_column("result")
    for number, step in enumerate(steps, 1):
        table.add_row(str(number), escape(step.name), "[green]ok[/green]" if step.ok else "[red]FAILED[/red]")
    console.print()
    console.print(table)
    # tshark and Wireshark read the tables from a folder of this name in XDG_CONFIG_HOME.
    where = f"XDG_CONFIG_HOME={keys.parent} " if keys.name == "wireshark" else ""
    console.print(f"Capture {capture}, keys {keys}. To see the labels inside ESP:")
    if not where:
        console.print(f"  cp {keys}/* ~/.config/wireshark/")
    for program in ("wireshark", "tshark -V -Y mpls"):
        options = "-o esp.enable_encryption_decode:TRUE"
        console.print(f"  {where}{program} {options} -r {capture}")
