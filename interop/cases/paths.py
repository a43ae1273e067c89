"""What lies between: NATs on either side that change their mind, bad links, IPv6, against a container and a Linux PE.

Must not know: how our program does it. The capture is taken on our side; what the far side of a NAT sees, the peer
says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..networks import Network, write_setting
from ..peers.container import SwanContainer
from ..peers.linux_pe import LinuxPe
from ..peers.mplsec import in_use
from ..peers.strongswan import Child, Connection
from ..processes import wait_until
from ..topologies import NAT_ADDRESSES, NAT_PORTS, SMALL_MTU, Nat
from ..wire import IKE_SA_INIT, IPV6
from .case import (
    IPV6_ENDS,
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    PINGS,
    Evidence,
    Lab,
    check_both_ways,
    check_pings,
    require,
)
from .linux_pe import LinuxPeCase
from .running import Running
from .strongswan import PEER_CUSTOMER, IpTunnelCase

OUR_IPV6_CUSTOMER, PEER_IPV6_CUSTOMER = "fd00:1::1", "fd00:2::1"
BIG_PING = 1320
NAT_DETECTION = {16388, 16389}
BEHIND = {"ours": "initiator", "peer": "responder"}
"""Who is behind the NAT has to begin: our role then."""


def check_nat_detection(evidence: Evidence) -> list[str]:
    """Both looked for a NAT, and all ESP goes over UDP."""
    first = [message for message in evidence.ike if message.exchange == IKE_SA_INIT]
    require(all(message.notifies >= NAT_DETECTION for message in first), "not both ask for NAT_DETECTION")
    for packet in evidence.esp:
        require(packet.is_udp_encapsulated, f"not UDP-encapsulated: {packet}")
    return ["NAT_DETECTION by both sides, ESP over UDP"]


def check_behind_nat(evidence: Evidence, side: str, address: str = NAT_ADDRESSES[0]) -> list[str]:
    """Both looked for a NAT, and one side is seen by the NAT's address and a port of its choice, over UDP alone."""
    check_nat_detection(evidence)
    if side == "ours":
        (sa,) = evidence.fact("peer_sas")
        seen: tuple[str, int | None] = (sa["remote-host"], int(sa["remote-port"]))
    else:
        from_peer = [packet.packet for packet in evidence.esp if packet.source != OUR_ADDRESS]
        require(from_peer, "no ESP of the peer")
        outer, udp = from_peer[-1].layer("ip"), from_peer[-1].layer("udp")
        require(outer and udp, "no ESP over IPv4 and UDP")
        seen = (outer.first("ip.src"), udp.number("udp.srcport")) if outer and udp else ("", 0)
    require(seen[0] == address and seen[1] in NAT_PORTS, f"{side} is seen as {seen}")
    return [f"NAT in front of {side}: seen as {seen[0]}, port {seen[1]}"]


class SimpleTunnelOver(IpTunnelCase):
    """The simplest tunnel, over something: its evidence proves the simplest tunnel too."""

    @property
    def includes(self) -> frozenset[str]:
        return frozenset({IpTunnelCase(self.role).claim})


class TunnelThroughNat(SimpleTunnelOver):
    """The simplest tunnel; UDP encapsulation comes from nothing but the detection of the NAT."""

    udp = "auto"

    def __init__(self, side: str) -> None:
        super().__init__(BEHIND[side])
        self.side, self.topology = side, f"nat-{side}"
        self.name = f"strongswan-nat-{side}-{self.role}"
        self.feature = "NAT in front of the side that begins, tunnel mode"
        if side == "peer":
            self.ends, self.peer_address = (OUR_ADDRESS, NAT_ADDRESSES[0]), "any"

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        remote = NAT_ADDRESSES[0] if self.side == "ours" else OUR_ADDRESS
        made = super().connection((PEER_ADDRESS, remote, *names[2:]))
        return replace(made, encap=False)

    def check(self, evidence: Evidence) -> list[str]:
        return [*super().check(evidence), *check_behind_nat(evidence, self.side)]


class NatMoves(TunnelThroughNat):
    """The NAT gets another address while the tunnel is up: what comes from behind it makes the other side follow.

    We follow ESP and IKE; charon in a container IKE alone, that is our question whether it lives, and it then
    makes a new child.
    """

    more_settings = 'liveness = "2s"\n'

    def __init__(self, side: str) -> None:
        super().__init__(side)
        self.name = f"strongswan-nat-{side}-moves-{self.role}"
        self.feature = f"{self.feature}, followed when it moves to another address"

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            before = now.ping(count=1)
            if not isinstance(now.network, Nat):
                raise TypeError(f"no NAT in {now.network.name}")
            now.network.rebind()
            # What comes from behind the NAT shows the other side where it is now.
            wait_until(lambda: self.ping_from_behind(now), "an answer to who is behind the NAT", timeout_s=30)
            return {"before": before, **now.ping_both_ways(), **now.facts()}

    def ping_from_behind(self, now: Running[Any]) -> int:
        return now.ping(count=1, wait_s=1) if self.side == "ours" else now.machine.ping(OUR_CUSTOMER, count=1)

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        require(evidence.fact("before") == 1, "no answer before the NAT moved")
        answers = (evidence.fact("answers_to_us"), evidence.fact("answers_to_peer"))
        require(all(answers), f"answers after the NAT moved: {answers}")
        begun = {message.spi_i for message in evidence.ike}
        require(len(begun) == 1, f"{len(begun)} IKE SAs: not the same one before and after")
        sources = {packet.source for packet in evidence.esp} | {packet.destination for packet in evidence.esp}
        if self.side == "peer":
            require(set(NAT_ADDRESSES) <= sources, f"ESP between {sorted(sources)}")
        return [*seen, *check_behind_nat(evidence, self.side, NAT_ADDRESSES[1])]


class TransportThroughNat(LinuxPeCase):
    """MPLS-in-IP in transport mode with a NAT in between: selectors are those of RFC 7296 section 2.23.1."""

    def __init__(self, side: str) -> None:
        super().__init__("mpls-in-ip", True, BEHIND[side])
        self.side, self.topology = side, f"nat-{side}"
        self.name = f"linux-pe-nat-{side}-{self.role}"
        self.feature = "NAT in front of the side that begins, mpls-in-ip in transport mode"
        if side == "peer":
            self.ends, self.peer_address = (OUR_ADDRESS, NAT_ADDRESSES[0]), "any"

    @property
    def includes(self) -> frozenset[str]:
        return frozenset({LinuxPeCase("mpls-in-ip", True, self.role).claim})

    def connection(self) -> Connection:
        remote = NAT_ADDRESSES[0] if self.side == "ours" else OUR_ADDRESS
        made = super().connection()
        return replace(made, local_address=PEER_ADDRESS, remote_address=remote, encap=False)

    def machine(self, network: Network, lab: Lab) -> LinuxPe:
        remote = NAT_ADDRESSES[0] if self.side == "ours" else OUR_ADDRESS
        folder, state = lab.folder / "pe2", lab.state
        return LinuxPe(network, folder=folder, state=state, encapsulation=self.encapsulation, peer=remote)

    def check(self, evidence: Evidence) -> list[str]:
        return [*super().check(evidence), *check_behind_nat(evidence, self.side)]


class TunnelOverIpv6(IpTunnelCase):
    """The simplest tunnel between IPv6 addresses."""

    ends = IPV6_ENDS
    topology = "ipv6"

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-over-ipv6-{role}"
        self.feature = "PSK, tunnel mode over IPv6, plain IP inside"

    def check(self, evidence: Evidence) -> list[str]:
        seen = super().check(evidence)
        for packet in evidence.esp:
            outer = packet.packet.layer("ipv6")
            require(outer and outer.number("ipv6.nxt") == 17, f"not over UDP and IPv6: {packet}")
        return [*seen, "UDP-encapsulated ESP over IPv6"]


class Ipv6Inside(IpTunnelCase):
    """The simplest tunnel between IPv6 addresses, between two IPv6 subnets."""

    ends = IPV6_ENDS
    topology = "ipv6"

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-ipv6-in-ipv6-{role}"
        self.feature = "PSK, tunnel mode over IPv6, plain IPv6 inside"

    def config(self, red: str) -> str:
        text = super().config(red).replace("10.2.0.0/24", "fd00:2::/64").replace("10.1.0.0/24", "fd00:1::/64")
        return text.replace(f"{OUR_CUSTOMER}/24", f"{OUR_IPV6_CUSTOMER}/64")

    def children(self) -> tuple[Child, ...]:
        return (Child(self.their_child, "fd00:2::/64", "fd00:1::/64", mode="tunnel"),)

    def prepare(self, lab: Lab, container: SwanContainer) -> None:
        for setting in ("all", "default"):
            write_setting(f"{container.network.prefix}red", f"net/ipv6/conf/{setting}/disable_ipv6", "0")
        swan = container.name
        for setting in ("all", "default", "lo"):
            write_setting(swan, f"net/ipv6/conf/{setting}/disable_ipv6", "0")
        container.sh(f"ip addr add {PEER_IPV6_CUSTOMER}/64 dev lo")

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            to_us = now.ping(source=OUR_IPV6_CUSTOMER, target=PEER_IPV6_CUSTOMER)
            to_peer = now.machine.ping(OUR_IPV6_CUSTOMER, source=PEER_IPV6_CUSTOMER)
            return {"answers_to_us": to_us, "answers_to_peer": to_peer, **now.facts()}

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_tunnel(evidence, next_header=IPV6)
        for packet in evidence.esp:
            require(packet.layers[:2] == ("ipv6", "icmpv6"), f"not IPv6 and ICMPv6 inside: {packet}")
        return [*seen, *check_both_ways(evidence, OUR_IPV6_CUSTOMER, PEER_IPV6_CUSTOMER, self.ends)]


class IgnoresDf(SimpleTunnelOver):
    """A router clears DF and fragments our ESP; it is put together again, both ways."""

    topology = "ignores-df"

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-ignores-df-{role}"
        self.feature = "ESP in fragments, by a router that ignores DF"

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            size = ("-s", str(BIG_PING))
            to_us = now.ping(more=size)
            to_peer = now.machine.ping(OUR_CUSTOMER, count=PINGS, more=" ".join(size))
            return {"answers_to_us": to_us, "answers_to_peer": to_peer, **now.facts()}

    def check(self, evidence: Evidence) -> list[str]:
        seen = super().check(evidence)
        fragmented = {
            packet.source
            for packet in evidence.esp
            if (outer := packet.packet.layer("ip")) and outer.all("ip.fragment.count")
        }
        require(fragmented == {PEER_ADDRESS}, f"ESP in fragments came from {fragmented}, not from the peer")
        ours = [packet for packet in evidence.esp if packet.source == OUR_ADDRESS]
        for packet in ours:
            outer = packet.packet.layer("ip")
            require(outer and (outer.number("ip.len") or 0) > SMALL_MTU, f"it fits: {packet}")
        return [*seen, f"ESP larger than {SMALL_MTU} octets answered; from the peer it came in fragments"]


class SlowTunnel(SimpleTunnelOver):
    """The simplest tunnel, with 600 ms there and back."""

    topology = "slow"

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-slow-{role}"
        self.feature = "PSK, tunnel mode, over a link of 600 ms there and back"

    def check(self, evidence: Evidence) -> list[str]:
        seen = super().check(evidence)
        first = check_pings(evidence, OUR_CUSTOMER, PEER_CUSTOMER, OUR_ADDRESS)
        answer = next(
            one for one in evidence.esp if one.ping and one.ping[0] == 0 and one.source != OUR_ADDRESS
        )
        took = answer.packet.time_s - first.packet.time_s
        require(took >= 0.6, f"the first answer took {took:.3f} s")
        return [*seen, f"the first answer took {took:.3f} s"]


class LossyTunnel(IpTunnelCase):
    """The simplest tunnel over a link that loses, doubles and reorders; the child is rekeyed all the same."""

    topology = "lossy"

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-lossy-{role}"
        self.feature = "tunnel and rekey over a link that loses and reorders a tenth and doubles some"

    def drive(self, lab: Lab) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            with now.stream(facts):
                now.wait_for_answers(count=20)
                now.ours.rekey("pe2", self.our_child)
                now.wait_for_answers(count=20)
            return facts | now.facts()

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        sent, answered = evidence.fact("stream")
        require(sent // 2 < answered < sent, f"{answered} answers to {sent} pings")
        last: dict[int, int] = {}
        late = 0
        for packet in evidence.esp:
            if packet.source == PEER_ADDRESS:
                late += packet.sequence <= last.get(packet.spi, 0)
                last[packet.spi] = max(packet.sequence, last.get(packet.spi, 0))
        require(late, "nothing of the peer's came doubled or out of order")
        rekeys = [child for child in evidence.children if child.is_rekey and child.is_accepted]
        require(rekeys, "the child was not rekeyed")
        left = in_use(evidence.fact("our_status"))
        require(len(left) == 1, f"{len(left)} children are left")
        return [*seen, f"{answered} of {sent} pings answered, {late} came doubled or late, the child rekeyed"]


ROLES = ("initiator", "responder")
CASES: tuple[IpTunnelCase | LinuxPeCase, ...] = (
    *(kind(side) for kind in (TunnelThroughNat, NatMoves, TransportThroughNat) for side in BEHIND),
    *(
        kind(role)
        for kind in (TunnelOverIpv6, Ipv6Inside, IgnoresDf, SlowTunnel, LossyTunnel)
        for role in ROLES
    ),
)
