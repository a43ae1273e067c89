"""ESP alone against a Linux kernel: SAs by hand (`ip xfrm`), 10,000 packets each way in each mode, none lost.

Must not know: how our ESP does it. Of each pair of SAs some packets are captured, for tshark; all are counted.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..capture import Capture
from ..esp_end import Direction, ManualSas
from ..keys import EspKey, KeyTables
from ..packages import kernel_root
from ..peers.linux_esp import LinuxEsp
from ..peers.linux_pe import parse_xfrm_states
from ..processes import run
from .case import ENDS, IPV6_ENDS, Case, Evidence, Lab, require

PACKETS = 10_000
SAMPLES = 3
"""Of each SA so many packets are captured."""
INSIDE, IPV6_INSIDE = ("10.1.0.1", "10.2.0.2"), ("fd00:1::1", "fd00:2::1")
MODES = tuple((mode, is_udp) for mode in ("transport", "tunnel") for is_udp in (False, True))
SPACE = 1 << 32


@dataclass(frozen=True)
class Suite:
    """Transforms by IANA's numbers, what the kernel and tshark call them, and octets of key.

    `wireshark` is empty where tshark does not know it.
    """

    encr: int
    key_bits: int | None
    integ: int
    key_octets: int
    kernel: str
    wireshark: tuple[str, str] | tuple[()]


SUITES = {
    "aes-gcm": Suite(20, 256, 0, 36, "rfc4106(gcm(aes))", ("AES-GCM with 16 octet ICV [RFC4106]", "NULL")),
    "aes-cbc-sha256": Suite(12, 256, 12, 32, "cbc(aes)", ("AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]")),
    "chacha20": Suite(28, None, 0, 36, "rfc7539esp(chacha20,poly1305)", ()),
}
TITLES = {
    "aes-gcm": "AES-256-GCM",
    "aes-cbc-sha256": "AES-256-CBC with HMAC-SHA-256",
    "chacha20": "ChaCha20-Poly1305",
}


class KernelEsp(Case):
    """Transport and tunnel mode, raw and in UDP, with one suite. With `esn` the numbers pass 2^32 on the way."""

    peer = "linux-kernel"
    role = "initiator"
    """We ask, the kernel answers."""
    roots = (kernel_root(),)
    needs_docker = False

    def __init__(self, suite: str, *, esn: bool = False, ipv6: bool = False) -> None:
        self.suite, self.esn, self.ipv6 = SUITES[suite], esn, ipv6
        self.topology = "ipv6" if ipv6 else "direct"
        self.name = f"linux-esp-{suite}{'-esn' if esn else ''}{'-ipv6' if ipv6 else ''}"
        beyond = " and ESN beyond 2^32" if esn else ""
        self.feature = f"ESP by manual SAs, {TITLES[suite]}{beyond}{', IPv6 in IPv6' if ipv6 else ''}"
        self.sequence = SPACE - PACKETS // 2 if esn else 0
        # With ESN those around the wrap, where the high half changes.
        self.sampled = range(SPACE - 1, SPACE - 1 + SAMPLES) if esn else range(1, 1 + SAMPLES)

    def sas(self, number: int) -> ManualSas:
        """The pair of SAs for the mode of this number; every key is another one."""
        mode, is_udp = MODES[number]
        local, peer = IPV6_ENDS if self.ipv6 else ENDS
        inside = (IPV6_INSIDE if self.ipv6 else INSIDE) if mode == "tunnel" else None

        def direction(base: int) -> Direction:
            key = bytes((base + number + at) % 256 for at in range(self.suite.key_octets))
            integ_key = key[::-1] if self.suite.integ else b""
            return Direction(0x1000 + base + number, key.hex(), integ_key.hex())

        kinds = self.suite.encr, self.suite.key_bits, self.suite.integ
        directions = direction(0x10), direction(0x80)
        return ManualSas(local, peer, inside, is_udp, *kinds, self.esn, self.sequence, PACKETS, *directions)

    def drive(self, lab: Lab) -> dict[str, Any]:
        runs = []
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            addresses = [f"{ENDS[0]}/24", *([f"{IPV6_ENDS[0]}/64"] if self.ipv6 else [])]
            ours = network.host("pe1", *addresses)
            linux = LinuxEsp(
                network,
                folder=lab.folder / "pe2",
                state=lab.state,
                addresses=(f"{IPV6_ENDS[1]}/64",) if self.ipv6 else (f"{ENDS[1]}/24",),
                inside=IPV6_INSIDE if self.ipv6 else INSIDE,
            )
            stack.enter_context(linux)
            only = self._filter()
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge, only=only))
            for number, (mode, is_udp) in enumerate(MODES):
                sas = self.sas(number)
                linux.install(sas)
                argv = [sys.executable, "-m", "interop.esp_end"]
                said = run(argv, netns=ours, stdin=sas.as_json(), timeout_s=90).stdout
                text, errors = linux.count()
                kernel = [
                    {
                        "spi": one.spi,
                        "mode": one.mode,
                        "is_udp": one.is_udp_encapsulated,
                        "packets": one.packets,
                    }
                    for one in parse_xfrm_states(text)
                ]
                algorithms = sorted(set(re.findall(r"^\s+(?:aead|enc) (\S+)", text, re.MULTILINE)))
                runs.append(
                    {
                        "mode": mode,
                        "is_udp": is_udp,
                        "ours": json.loads(said),
                        "kernel": kernel,
                        "algorithms": algorithms,
                        "esn_sas": len(re.findall(r"\bflag\b.*\besn\b", text)),
                        "errors": errors,
                    }
                )
            self._key_tables().write(lab.keys)
            return {"peer_version": f"Linux {linux.kernel_version}", "runs": runs}

    def _filter(self) -> str:
        """Which packets are captured: by the number that stands behind the SPI."""
        raw, udp = ("ip6[44:4]", "ip6[52:4]") if self.ipv6 else ("ip[24:4]", "ip[32:4]")
        numbers = [number % SPACE for number in self.sampled]

        def one_of(place: str) -> str:
            return " or ".join(f"{place} = {number}" for number in numbers)

        return f"(proto 50 and ({one_of(raw)})) or (udp port 4500 and ({one_of(udp)}))"

    def _key_tables(self) -> KeyTables:
        keys: list[EspKey] = []
        for sas in (self.sas(number) for number in range(len(MODES)) if self.suite.wireshark):
            names = self.suite.wireshark
            for one, ends in ((sas.outbound, (sas.local, sas.peer)), (sas.inbound, (sas.peer, sas.local))):
                octets = bytes.fromhex(one.key), *names, bytes.fromhex(one.integ_key)
                keys.append(EspKey(*ends, one.spi, *octets))
        return KeyTables((), tuple(keys))

    def check(self, evidence: Evidence) -> list[str]:
        runs = evidence.fact("runs")
        require(
            [(one["mode"], one["is_udp"]) for one in runs] == list(MODES), "not every mode was gone through"
        )
        for number, one in enumerate(runs):
            self._check_run(one, self.sas(number))
            self._check_wire(evidence, self.sas(number))
        require(len(evidence.esp) == 2 * SAMPLES * len(MODES), f"{len(evidence.esp)} ESP packets captured")
        return [
            *(self._told(one) for one in runs),
            f"the kernel used {self.suite.kernel}{' with ESN' if self.esn else ''}, and counted no error",
            *map(str, evidence.esp[:2]),
        ]

    def _told(self, one: dict[str, Any]) -> str:
        way = "in UDP" if one["is_udp"] else "raw"
        ours = one["ours"]
        return (
            f"{one['mode']} {way}: {ours['packets_out']} packets to the kernel, {ours['packets_in']} from it"
        )

    def _check_run(self, one: dict[str, Any], sas: ManualSas) -> None:
        """Both ends counted every packet once, both ways; the kernel's SAs are what the case is about."""
        ours, last = one["ours"], self.sequence + PACKETS
        require(ours["answers"] == PACKETS and not ours["wrong"], f"{ours['answers']} answers: {ours}")
        require(ours["packets_out"] == ours["packets_in"] == PACKETS, f"what our SAs counted: {ours}")
        require(ours["highest_out"] == ours["highest_in"] == last, f"sequence numbers: {ours}")
        require(not ours["drops"], f"what we dropped: {ours['drops']}")
        require(not one["errors"], f"the kernel counted errors: {one['errors']}")
        require(one["algorithms"] == [self.suite.kernel], f"the kernel's algorithms: {one['algorithms']}")
        require(one["esn_sas"] == 2 * self.esn, f"the kernel has {one['esn_sas']} SAs with ESN")
        expected = {
            spi: {"spi": spi, "mode": one["mode"], "is_udp": one["is_udp"], "packets": PACKETS}
            for spi in (sas.outbound.spi, sas.inbound.spi)
        }
        kernel = {state["spi"]: state for state in one["kernel"]}
        require(kernel == expected, f"the kernel's SAs: {one['kernel']}")

    def _check_wire(self, evidence: Evidence, sas: ManualSas) -> None:
        """The sampled packets of both SAs are on the wire, and what tshark finds inside is what was sent."""
        ways = ((sas.outbound, (sas.local, sas.peer)), (sas.inbound, (sas.peer, sas.local)))
        for kind, (direction, ends) in enumerate(ways):
            found = [packet for packet in evidence.esp if packet.spi == direction.spi]
            header = [packet.packet.layer("esp") for packet in found]
            numbers = [one.number("esp.sequence") for one in header if one]
            require(numbers == [number % SPACE for number in self.sampled], f"numbers {numbers}")
            for packet in found:
                require((packet.source, packet.destination) == ends, f"not between {ends}: {packet}")
                require(packet.is_udp_encapsulated == sas.is_udp, f"UDP encapsulation: {packet}")
                if self.suite.wireshark:
                    require(packet.next_header == sas.next_header, f"not {sas.next_header} inside: {packet}")
                    layer = "icmpv6" if self.ipv6 else "icmp"
                    shown = packet.inner[-1].number(f"{layer}.type") if packet.inner else None
                    expected = ((128, 129) if self.ipv6 else (8, 0))[kind]
                    require(shown == expected, f"not the echo of type {expected}: {packet}")


CASES: tuple[Case, ...] = (
    *(KernelEsp(suite) for suite in SUITES),
    *(KernelEsp(suite, esn=True) for suite in SUITES),
    KernelEsp("aes-gcm", ipv6=True),
)
