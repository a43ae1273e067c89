"""Captures on the wire by tcpdump, decoded by tshark with keys: the lab's referee.

Must not know: our own codecs. What is asserted about a packet is what Wireshark says it is.
"""

from __future__ import annotations

import gzip
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .processes import Background, LabError, run, tail_of, wait_until

BUFFER_KIB = 32768
"""Room for what arrives while tcpdump waits for a processor."""


class Capture:
    """tcpdump on an interface of a namespace, as a context manager; the file is complete on leaving.

    `only` is tcpdump's expression for what is kept; empty: everything.
    """

    def __init__(self, file: Path, *, netns: str, interface: str, only: str = "") -> None:
        self.file = file
        self._log = file.with_suffix(".tcpdump.log")
        options = ["--immediate-mode", "-U", "-n", "-s", "0", "-B", str(BUFFER_KIB)]
        self._arguments = ["tcpdump", *options, "-i", interface, "-w", str(file), *([only] if only else [])]
        self._netns = netns

    def __enter__(self) -> Capture:
        self.file.unlink(missing_ok=True)
        self._tcpdump = Background(self._arguments, log=self._log, netns=self._netns)

        def is_listening() -> bool:
            self._tcpdump.require_running()
            return "listening on" in self._log.read_text(errors="replace")

        try:
            wait_until(is_listening, "tcpdump listening", timeout_s=15)
        except BaseException:
            self._tcpdump.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._tcpdump.stop()
        if "0 packets dropped by kernel" not in self._log.read_text(errors="replace"):
            raise LabError(f"the capture is not complete\n{tail_of(self._log)}")


@dataclass(frozen=True)
class Field:
    """One field of a dissection: its name, printed value, octets in hexadecimal, and the fields inside."""

    name: str
    show: str
    value: str
    inner: tuple[Field, ...]

    def walk(self) -> Iterator[Field]:
        """All fields inside, in the order of the packet."""
        for field in self.inner:
            yield field
            yield from field.walk()

    def all(self, name: str) -> list[str]:
        """The printed values of all fields inside that have this name."""
        return [field.show for field in self.walk() if field.name == name]

    def first(self, name: str, default: str = "") -> str:
        return next((field.show for field in self.walk() if field.name == name), default)

    def number(self, name: str) -> int | None:
        """The value of a numeric field (decimal or 0x…), or None when it is not there."""
        shown = self.first(name)
        return int(shown, 0) if shown else None


@dataclass(frozen=True)
class Packet:
    """A dissected frame: its layers from the outside to the inside, decrypted ones included."""

    number: int
    time_s: float
    layers: tuple[Field, ...]

    @property
    def stack(self) -> tuple[str, ...]:
        """Names of the layers, such as ("eth", "ip", "esp", "mpls", "ip", "icmp")."""
        return tuple(layer.name for layer in self.layers)

    def layer(self, name: str, nth: int = 0) -> Field | None:
        """The nth layer of that name."""
        found = [layer for layer in self.layers if layer.name == name]
        return found[nth] if nth < len(found) else None


def decode(capture: Path, keys: Path, *, may_be_malformed: bool = False) -> list[Packet]:
    """Dissect a capture with the key tables of a folder (`ikev2_decryption_table`, `esp_sa`).

    What tshark wrote stays beside the capture, as .pdml.gz. Raises `LabError` when tshark cannot read the
    capture or, unless it `may_be_malformed`, finds a malformed packet in it.
    """
    with tempfile.TemporaryDirectory(prefix="mplslab-") as scratch:
        Path(scratch, "wireshark").symlink_to(keys.resolve())
        done = run(
            ["tshark", "-n", "-r", capture, "-o", "esp.enable_encryption_decode:TRUE", "-T", "pdml"],
            timeout_s=120,
            extra_environment={"XDG_CONFIG_HOME": scratch, "HOME": scratch},
        )
    capture.with_suffix(".pdml.gz").write_bytes(gzip.compress(done.stdout.encode(), mtime=0))
    packets = parse_pdml(done.stdout)
    for packet in packets:
        if "_ws.malformed" in packet.stack and not may_be_malformed:
            layers = "/".join(packet.stack)
            raise LabError(f"tshark finds frame {packet.number} of {capture} malformed: {layers}")
    return packets


def parse_pdml(text: str) -> list[Packet]:
    """The packets of tshark's PDML output."""
    packets = []
    root = ElementTree.fromstring(text)  # noqa: S314 - written by the tshark that we started
    for element in root.iter("packet"):
        protos = [_field(proto) for proto in element.findall("proto") if proto.get("name") != "geninfo"]
        frame, layers = protos[0], protos[1:]
        number, time_s = int(frame.first("frame.number")), float(frame.first("frame.time_relative"))
        packets.append(Packet(number, time_s, tuple(layers)))
    return packets


def _field(element: ElementTree.Element) -> Field:
    inner = tuple(_field(child) for child in element if child.tag in ("field", "proto"))
    # A payload of ISAKMP is a field without a name: tshark prints it only as text.
    name = element.get("name") or ""
    return Field(
        name, element.get("show") or element.get("showname") or "", element.get("value") or "", inner
    )


def describe(packet: Packet) -> str:
    """One line about a packet, for evidence and messages."""
    words = [f"#{packet.number}"]
    for layer in packet.layers:
        match layer.name:
            case "ip":
                words.append(
                    f"ip {layer.first('ip.src')} > {layer.first('ip.dst')} proto {layer.first('ip.proto')}"
                )
            case "ipv6":
                ends = f"{layer.first('ipv6.src')} > {layer.first('ipv6.dst')}"
                words.append(f"ipv6 {ends} next {layer.first('ipv6.nxt')}")
            case "udp":
                words.append(f"udp {layer.first('udp.srcport')} > {layer.first('udp.dstport')}")
            case "esp":
                words.append(
                    f"esp spi {layer.first('esp.spi')} seq {layer.first('esp.sequence')} "
                    f"next header {layer.number('esp.protocol')}"
                )
            case "mpls":
                label, bottom = layer.first("mpls.label"), layer.first("mpls.bottom")
                words.append(
                    f"mpls {label} tc {layer.first('mpls.exp')} s {bottom} ttl {layer.first('mpls.ttl')}"
                )
            case "gre":
                words.append(f"gre {layer.first('gre.proto')}")
            case "icmp":
                words.append(f"icmp type {layer.first('icmp.type')} seq {layer.first('icmp.seq')}")
            case "isakmp":
                words.append(f"ike exchange {layer.first('isakmp.exchangetype')}")
            case "eth" | "udpencap":
                pass
            case other:
                words.append(other)
    return " | ".join(words)
