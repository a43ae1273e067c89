"""The MTU of a path, found with charon at its other end, which knows nothing of our probes (RFC 8899).

Must not know: how our program searches. What was tried and what was answered is on the wire.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from ..peers.container import SwanContainer
from ..processes import Background, run, wait_until
from ..topologies import HOP, SMALL_MTU
from ..wire import INFORMATIONAL, IkeMessage
from .case import OUR_ADDRESS, OUR_CUSTOMER, PEER_ADDRESS, Evidence, Lab, require
from .running import Running
from .strongswan import PEER_CUSTOMER, IpTunnelCase

PATH_PROBE = 51140
LINK_MTU = 1500
STREAM_OCTETS = 20_000
PORT = 7000
IP_AND_ICMP_OCTETS = 28
NEEDS_FRAGMENTATION = (3, 4)
SERVER = f"""
import socket
server = socket.create_server(("{OUR_CUSTOMER}", {PORT}))
print("ready", flush=True)
taking, _ = server.accept()
taken = 0
while data := taking.recv(65536):
    taken += len(data)
print("taken", taken, flush=True)
giving, _ = server.accept()
giving.sendall(bytes({STREAM_OCTETS}))
giving.close()
"""


class PathMtuCase(IpTunnelCase):
    """Both customers fill the path, whatever a router does with what is too big."""

    more_settings = 'path_mtu = "probe"\n'
    found = SMALL_MTU
    """What the search has to find."""
    has_icmp = False

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-path-mtu-{self.topology}-{role}"

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            wait_until(lambda: self.path(now)["state"] == "done", "the end of the search", timeout_s=30)
            (peer,) = now.ours.status()["peers"]
            room = next(child["tunnel_mtu"] for child in peer["children"])
            full = ("-M", "do", "-s", str(room - IP_AND_ICMP_OCTETS))
            return {
                "path": self.path(now),
                "room": room,
                "said": self.too_big(now, room + 1),
                "full": now.ping(more=full, count=3),
                "streams": self.streams(now),
                **now.facts(),
            }

    def path(self, now: Running[SwanContainer]) -> dict[str, Any]:
        (peer,) = now.ours.status()["peers"]
        return dict(peer["path"] or {"state": ""})

    def too_big(self, now: Running[SwanContainer], octets: int) -> int:
        """The MTU that the customer is told for a packet of that size; 0: none."""
        size = str(octets - IP_AND_ICMP_OCTETS)
        ping = [
            "ping",
            "-M",
            "do",
            "-s",
            size,
            "-c",
            "2",
            "-i",
            "0.2",
            "-W",
            "1",
            "-I",
            OUR_CUSTOMER,
            PEER_CUSTOMER,
        ]
        done = run(ping, netns=now.red, check=False)
        said = re.search(r"mtu ?= ?(\d+)", done.stdout + done.stderr)
        return int(said[1]) if said else 0

    def streams(self, now: Running[SwanContainer]) -> tuple[int, int]:
        """Octets that came over TCP: from the peer's customer to ours, from ours to the peer's."""
        log = now.lab.folder / "stream.log"
        server = Background([sys.executable, "-c", SERVER], log=log, netns=now.red)
        try:
            wait_until(lambda: "ready" in log.read_text(), "the server of our customer")
            way = f"/dev/tcp/{OUR_CUSTOMER}/{PORT}"
            now.machine.sh(f"timeout 20 bash -c 'head -c {STREAM_OCTETS} /dev/zero > {way}'")
            wait_until(lambda: "taken" in log.read_text(), "the end of the peer's stream")
            got = now.machine.sh(f"timeout 20 bash -c 'wc -c < {way}'")
        finally:
            server.stop()
        taken = re.search(r"taken (\d+)", log.read_text())
        return int(taken[1]) if taken else 0, int(got.split()[-1])

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_tunnel(evidence)
        path, room = evidence.fact("path"), evidence.fact("room")
        require(path["path_mtu"] == self.found, f"our program says that the path carries {path}")
        answered, lost = _probes(evidence)
        require(max(answered, default=0) == self.found, f"probes that were answered at once: {answered}")
        require(not lost or min(lost) > self.found, f"probes that were lost: {lost}")
        require((LINK_MTU in lost) == (self.found < LINK_MTU), f"{LINK_MTU} octets were not tried: {lost}")
        full = {packet.inner[0].number("ip.len") for packet in evidence.esp if packet.ping}
        require(max(one or 0 for one in full) == room, f"pings inside ESP of {full} octets")
        largest = max(_octets(packet.packet) for packet in evidence.esp if packet.source == OUR_ADDRESS)
        require(self.found - 4 < largest <= self.found, f"our largest ESP packet has {largest} octets")
        require(evidence.fact("full") == 3, "pings that fill the path were lost")
        require(evidence.fact("said") == room, f"one octet more was answered by MTU {evidence.fact('said')}")
        streams = tuple(evidence.fact("streams"))
        require(streams == (STREAM_OCTETS, STREAM_OCTETS), f"of TCP came {streams} octets")
        inside = {packet.source for packet in evidence.esp if packet.layers[:2] == ("ip", "tcp")}
        require(inside == {OUR_ADDRESS, PEER_ADDRESS}, f"TCP inside ESP came from {inside}")
        told = [one for one in evidence.packets if _said_by_hop(one)]
        require(bool(told) == self.has_icmp, f"{len(told)} ICMP errors of the router on the wire")
        return [
            *seen,
            f"IKE messages of {sorted(answered)} octets with DF were answered, of {sorted(lost)} lost",
            f"pings of {room} octets fill ESP of {largest}; one octet more: ICMP with MTU {room}",
            f"TCP of {STREAM_OCTETS} octets each way",
        ]


class SmallMtu(PathMtuCase):
    """The router says so, which makes us look; what counts is what arrived."""

    topology = "small-mtu"
    feature = "path MTU found by IKE messages of its size, the router sends ICMP"
    has_icmp = True


class SilentSmallMtu(PathMtuCase):
    """Nobody says so."""

    topology = "small-mtu-silent"
    feature = "path MTU found by IKE messages of its size, where ICMP is filtered"


class IgnoresDf(PathMtuCase):
    """What is too big comes in fragments, of which such a peer cannot tell us: all of it arrives."""

    topology = "ignores-df"
    feature = "path MTU with a router that ignores DF: what comes in fragments has come"
    found = LINK_MTU


def _probes(evidence: Evidence) -> tuple[set[int], set[int]]:
    """Octets of our IKE packets with DF: those answered before they were sent again without it, and the others."""
    answered: set[int] = set()
    lost: set[int] = set()
    for message in filter(_has_df, evidence.ike):
        exchange = [
            one for one in evidence.ike if (one.spi_i, one.message_id) == (message.spi_i, message.message_id)
        ]
        answers = [one.packet.time_s for one in exchange if one.is_response and one.source == PEER_ADDRESS]
        again = [one.packet.time_s for one in exchange if _is_probe(one) and not _has_df(one)]
        in_time = answers and (not again or min(answers) < min(again))
        (answered if in_time else lost).add(_octets(message.packet))
    return answered, lost


def _is_probe(message: IkeMessage) -> bool:
    is_ours = message.source == OUR_ADDRESS and not message.is_response
    return is_ours and message.exchange == INFORMATIONAL and PATH_PROBE in message.notifies


def _has_df(message: IkeMessage) -> bool:
    outer = message.packet.layer("ip")
    return _is_probe(message) and bool(outer and outer.first("ip.flags.df") in ("1", "True"))


def _octets(packet: Any) -> int:
    outer = packet.layer("ip")
    return (outer.number("ip.len") or 0) if outer else 0


def _said_by_hop(packet: Any) -> bool:
    outer, icmp = packet.layer("ip"), packet.layer("icmp")
    if not outer or not icmp or outer.first("ip.src") != HOP[0]:
        return False
    kind = (icmp.number("icmp.type"), icmp.number("icmp.code"))
    return kind == NEEDS_FRAGMENTATION and icmp.number("icmp.mtu") == SMALL_MTU


CASES: tuple[PathMtuCase, ...] = (
    *(kind(role) for kind in (SmallMtu, SilentSmallMtu, IgnoresDf) for role in ("initiator", "responder")),
)
