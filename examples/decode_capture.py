"""Decode a capture with the keys that `mplsec --keys` wrote: every ESP packet down to its label stack.

    mplsec demo --capture demo.pcapng --keys keys && python examples/decode_capture.py demo.pcapng keys

Reads the capture with scapy; ESP and MPLS are this project's own libraries, used without any endpoint.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from scapy.utils import RawPcapNgReader

from esp.demux import Kind, classify
from esp.engine import InboundSad
from esp.errors import DropReason
from esp.sa import InboundSa
from esp.transforms import transform_for
from mpls.ip import UDP, IpHeader
from mpls.labels import LabelStack

AES_GCM_16 = 20


def sad_of(keys: Path) -> InboundSad:
    """The SAs of Wireshark's table `esp_sa`: AES-GCM with 16 octets of ICV, 32-bit sequence numbers."""
    sad = InboundSad()
    with (keys / "esp_sa").open() as table:
        for row in csv.reader(line for line in table if not line.startswith("#")):
            spi, key = bytes.fromhex(row[3].removeprefix("0x")), bytes.fromhex(row[5].removeprefix("0x"))
            sad.add(InboundSa(spi, transform_for(AES_GCM_16, (len(key) - 4) * 8), key))
    return sad


def decode(capture: Path, keys: Path) -> Iterator[str]:
    """One line for each ESP packet."""
    sad = sad_of(keys)
    with RawPcapNgReader(str(capture)) as reader:
        for packet, _ in reader:
            header = IpHeader.parse(packet)
            if isinstance(header, str) or header.protocol != UDP:
                continue
            payload = packet[header.upper_offset + 8 :]
            if classify(payload) is not Kind.ESP:
                continue
            received = sad.receive(payload)
            if isinstance(received, DropReason):
                yield f"SPI {payload[:4].hex()} {received}"
                continue
            opened = received.opened
            stack = LabelStack.parse(opened.payload)
            yield f"SPI {payload[:4].hex()} seq {opened.sequence} next header {opened.next_header} [{stack}]"


if __name__ == "__main__":
    for line in decode(Path(sys.argv[1]), Path(sys.argv[2])):
        print(line)
