"""Traffic selectors that the responder narrows (RFC 7296 2.9): charon ours, and we charon's; several of them.

Must not know: how our program does it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from ..peers.strongswan import Child
from ..wire import TSI, TSR, IkeMessage
from .case import (
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    Evidence,
    Lab,
    check_both_ways,
    check_pings,
    require,
)
from .strongswan import PEER_CUSTOMER, IpTunnelCase

OUR_OTHER_CUSTOMER = "10.3.0.1"
ICMP, ANY_PORT = 1, (0, 65535)


@dataclass(frozen=True)
class Selector:
    """One address selector (RFC 7296 3.13.1)."""

    protocol: int
    ports: tuple[int, int]
    first: str
    last: str


def selectors(message: IkeMessage, kind: int) -> list[Selector]:
    """The address selectors of TSi or TSr."""
    payload = message.payload(kind)
    octets, found, at = payload.octets if payload else b"", [], 8
    while at + 8 <= len(octets):
        size = int.from_bytes(octets[at + 2 : at + 4])
        ports = (int.from_bytes(octets[at + 4 : at + 6]), int.from_bytes(octets[at + 6 : at + 8]))
        half = (size - 8) // 2
        first, last = octets[at + 8 : at + 8 + half], octets[at + 8 + half : at + size]
        found.append(Selector(octets[at + 1], ports, str(ip_address(first)), str(ip_address(last))))
        at += max(size, 8)
    return found


def subnet(prefix: str, last: str, protocol: int = 0) -> Selector:
    return Selector(protocol, ANY_PORT, prefix, last)


OURS = [subnet("10.1.0.0", "10.1.0.255"), subnet("10.3.0.0", "10.3.0.255")]


class Narrowed(IpTunnelCase):
    """Two customers' subnets are ours; what is asked for is more than what is granted."""

    asked: tuple[list[Selector], list[Selector]]
    granted: tuple[list[Selector], list[Selector]]
    """TSi and TSr."""

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-narrowed-{role}"
        self.feature = "traffic selectors narrowed by the responder, several in one child"

    @property
    def includes(self) -> frozenset[str]:
        return frozenset({IpTunnelCase(self.role).claim})

    def config(self, red: str) -> str:
        text = super().config(red).replace('["10.1.0.0/24"]', '["10.1.0.0/24", "10.3.0.0/24"]')
        return text.replace(f'["{OUR_CUSTOMER}/24"]', f'["{OUR_CUSTOMER}/24", "{OUR_OTHER_CUSTOMER}/24"]')

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            facts = now.ping_both_ways()
            facts["answers_to_other"] = now.ping(source=OUR_OTHER_CUSTOMER, wait_s=1)
            return facts | now.facts()

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        children = [child for child in evidence.children if child.is_accepted]
        require(len(children) == 1, f"{len(children)} children")
        request, answer = children[0].request, children[0].response
        for message, expected in ((request, self.asked), (answer, self.granted)):
            for kind, wanted in zip((TSI, TSR), expected, strict=True):
                found = selectors(message, kind)
                require(found == wanted, f"{message.source} wrote {found}, not {wanted}")
        seen += check_both_ways(evidence, OUR_CUSTOMER, PEER_CUSTOMER)
        inside = [packet for packet in evidence.esp if packet.ping and OUR_OTHER_CUSTOMER in packet.ping[1:3]]
        return [*seen, *self.check_other(evidence, bool(inside)), f"TSi {answer_text(self.granted[0])}"]

    @abstractmethod
    def check_other(self, evidence: Evidence, is_inside: bool) -> list[str]:
        """Our other customer's pings."""


def answer_text(found: list[Selector]) -> str:
    return ", ".join(f"{one.first}-{one.last} protocol {one.protocol}" for one in found)


class PeerNarrows(Narrowed):
    """charon takes a half of one subnet, none of the other, a part of its own, and of all ICMP only."""

    asked = (OURS, [subnet("10.2.0.0", "10.2.255.255")])
    granted = (
        [subnet("10.1.0.0", "10.1.0.127", ICMP)],
        [subnet("10.2.0.0", "10.2.0.255", ICMP)],
    )

    def __init__(self) -> None:
        super().__init__("initiator")

    def peer_settings(self) -> str:
        return super().peer_settings().replace("10.2.0.0/24", "10.2.0.0/16")

    def children(self) -> tuple[Child, ...]:
        (child,) = super().children()
        return (replace(child, local_ts="10.2.0.0/24[icmp]", remote_ts="10.1.0.0/25[icmp]"),)

    def check_other(self, evidence: Evidence, is_inside: bool) -> list[str]:
        require(evidence.fact("answers_to_other") == 0 and not is_inside, "what was not granted was sent")
        return ["what the peer did not grant was neither answered nor sent, inside ESP or in clear"]


class WeNarrow(Narrowed):
    """charon asks for larger prefixes than we serve, and for one that we do not."""

    asked = (
        [subnet("10.2.0.0", "10.2.255.255"), subnet("10.4.0.0", "10.4.0.255")],
        [subnet("10.1.0.0", "10.1.255.255"), subnet("10.3.0.0", "10.3.255.255")],
    )
    granted = ([subnet("10.2.0.0", "10.2.0.255")], OURS)

    def __init__(self) -> None:
        super().__init__("responder")

    def children(self) -> tuple[Child, ...]:
        (child,) = super().children()
        return (replace(child, local_ts="10.2.0.0/16,10.4.0.0/24", remote_ts="10.1.0.0/16,10.3.0.0/16"),)

    def check_other(self, evidence: Evidence, is_inside: bool) -> list[str]:
        check_pings(evidence, OUR_OTHER_CUSTOMER, PEER_CUSTOMER, OUR_ADDRESS)
        (sa,) = evidence.fact("peer_sas")
        (child,) = sa["child-sas"].values()
        taken = (child["local-ts"], child["remote-ts"])
        require(taken == (["10.2.0.0/24"], ["10.1.0.0/24", "10.3.0.0/24"]), f"{PEER_ADDRESS} took {taken}")
        return ["both subnets of ours on one child, as the peer says too"]


CASES = (PeerNarrows(), WeNarrow())
