"""`python -m interop.relay NEAR FAR DELAY_S LOSS DUPLICATE REORDER`: two taps and a bad link between them.

Must not know: what the frames say. Run in the namespace of the taps; what it does to them is `ImpairedLink`'s.
Address resolution passes unharmed: it would make every case wait, and is no part of what they prove.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import time

from ike.config import Path
from ike.events import Datagram
from ike.testing.link import ImpairedLink

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
MAX_FRAME_OCTETS = 65536
ARP = 0x0806
TO_FAR, TO_NEAR = Path(("near", 0), ("far", 0)), Path(("far", 0), ("near", 0))


def open_tap(name: str) -> int:
    """The descriptor of an existing tap, whole frames without a header."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def relay(near: int, far: int, delay_s: float, loss: float, duplicate: float, reorder: float) -> None:
    """Carry frames between two taps until the end of the process."""
    harmed = ImpairedLink("relay", delay_s=delay_s, loss=loss, duplicate=duplicate, reorder=reorder)
    unharmed = ImpairedLink("relay", delay_s=delay_s)
    tap_of, path_of = {"near": near, "far": far}, {near: TO_FAR, far: TO_NEAR}
    while True:
        due_at = min((at for link in (harmed, unharmed) if (at := link.next_at()) is not None), default=None)
        wait_s = None if due_at is None else max(0.0, due_at - time.monotonic())
        ready, _, _ = select.select([near, far], [], [], wait_s)
        now = time.monotonic()
        for tap in ready:
            frame = os.read(tap, MAX_FRAME_OCTETS)
            link = unharmed if int.from_bytes(frame[12:14]) == ARP else harmed
            link.submit(Datagram(frame, path_of[tap]), now)
        for link in (unharmed, harmed):
            for datagram in link.due(now):
                os.write(tap_of[datagram.path.local[0]], datagram.data)


def main() -> None:
    near, far = (open_tap(name) for name in sys.argv[1:3])
    print("ready", flush=True)
    relay(near, far, *(float(figure) for figure in sys.argv[3:7]))


if __name__ == "__main__":
    main()
