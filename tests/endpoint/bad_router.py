"""A bad router between two namespaces: it drops what is too big in silence, fragments in spite of DF, zeroes DSCP.

Two TAP devices and a thread of ours between them: neither nftables nor traffic control has to be there.
"""

import contextlib
import fcntl
import os
import select
import struct
import threading
from enum import Enum
from ipaddress import ip_address

from endpoint.netns import in_namespace
from mpls.fit import fragment_ipv4
from mpls.ip import icmp_too_big, internet_checksum, remark, ttl_of
from tests.endpoint.namespaces import ip

_TUNSETIFF = 0x400454CA
_TAP_WITHOUT_INFO = 0x1002
_ETHERNET_OCTETS = 14
ROUTER = ip_address("192.0.2.254")


class TooBig(Enum):
    """What it does with an IPv4 packet that is larger than its MTU."""

    DROP = "drop"
    FRAGMENT = "fragment"  # DF or not
    ICMP = "icmp"


class BadRouter:
    """Between the device `wire` of either namespace, with these addresses. Settings may change at any time."""

    def __init__(self, first: str, first_address: str, second: str, second_address: str) -> None:
        self.mtu, self.too_big, self.zeroes_dscp = 1500, TooBig.DROP, False
        self.seen_dscp: set[int] = set()
        self._taps = [in_namespace(real, _open_tap) for real in (first, second)]
        for real, address in ((first, first_address), (second, second_address)):
            ip("-n", real, "address", "add", address, "dev", "wire")
            ip("-n", real, "link", "set", "wire", "up")
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        os.close(self._stopped)
        self._thread.join()
        for descriptor in (*self._taps, self._stop):
            os.close(descriptor)

    def _run(self) -> None:
        others = dict(zip(self._taps, reversed(self._taps), strict=True))
        while True:
            ready, _, _ = select.select([*self._taps, self._stop], [], [])
            if self._stop in ready:
                return
            for tap in ready:
                with contextlib.suppress(OSError):  # a namespace that is going
                    self._carry(os.read(tap, 65536), tap, others[tap])

    def _carry(self, frame: bytes, origin: int, target: int) -> None:
        head, packet = frame[:_ETHERNET_OCTETS], frame[_ETHERNET_OCTETS:]
        if head[12:] != b"\x08\x00":
            os.write(target, frame)
            return
        packet = packet[: packet[2] << 8 | packet[3]]
        self.seen_dscp.add(packet[1] >> 2)
        if self.zeroes_dscp:
            packet = remark(packet, packet[1] & 3, ttl_of(packet))
        if len(packet) <= self.mtu:
            os.write(target, head + packet)
        elif self.too_big is TooBig.FRAGMENT:
            for fragment in fragment_ipv4(_without_df(packet), self.mtu):
                os.write(target, head + fragment)
        elif self.too_big is TooBig.ICMP:
            answer = icmp_too_big(packet, ROUTER, self.mtu)
            if answer is not None:
                os.write(origin, head[6:12] + head[:6] + head[12:] + answer)


def _without_df(packet: bytes) -> bytes:
    """And with an identification, which a packet with DF may lack."""
    octets = (packet[0] & 15) * 4
    blank = (
        packet[:4] + os.urandom(2) + bytes((packet[6] & 0xBF,)) + packet[7:10] + bytes(2) + packet[12:octets]
    )
    return blank[:10] + internet_checksum(blank).to_bytes(2, "big") + blank[12:] + packet[octets:]


def _open_tap() -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", b"wire", _TAP_WITHOUT_INFO))
    return descriptor
