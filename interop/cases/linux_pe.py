"""Cases against a Linux PE (kernel MPLS, VRF, XFRM, strongSwan): MPLS in transport-mode ESP, into a VRF.

Must not know: how our program does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from ..capture import Capture
from ..networks import Network
from ..packages import KERNEL_SUITE, kernel_root, strongswan_root
from ..peers.linux_pe import LinuxPe
from ..peers.mplsec import Mplsec
from ..peers.strongswan import Child, Connection
from ..wire import ESP, GRE, GRE_MPLS, MPLS_IN_IP
from .case import (
    ENDS,
    IPV6_ENDS,
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PSK,
    Case,
    Evidence,
    Lab,
    check_both_ways,
    check_decrypted,
    check_initiator,
    check_keys,
    quoted,
    require,
)
from .running import Running

PEER_CUSTOMER = LinuxPe.customer
OUR_LABEL, PEER_LABEL = 101, 102
GRE_KEY = 7


class LinuxPeCase(Case):
    """Labels from static configuration, one child for protocol 137 or 47 in transport mode."""

    peer = "linux-pe"
    needs_docker = False
    ends = ENDS
    """Our address and the peer's."""
    peer_address = ""
    """The peer's address in our configuration, if it is another one."""
    our_child = their_child = "mpls"
    has_esn = False
    ike: tuple[str, ...] = ("aes256gcm16-prfsha384-x25519",)
    esp: tuple[str, ...] = ("aes256gcm16",)
    """What we propose."""
    start = "none"
    more_settings = ""
    """Lines of our [[peer]] beyond those that all these cases share."""

    def __init__(self, encapsulation: str, is_udp: bool, role: str, suite: str = KERNEL_SUITE) -> None:
        self.encapsulation, self.is_udp, self.role, self.suite = encapsulation, is_udp, role, suite
        self.peer = LinuxPeCase.peer if suite == KERNEL_SUITE else f"{LinuxPeCase.peer}-{suite}"
        self.roots = tuple(dict.fromkeys((kernel_root(), strongswan_root(suite))))
        self.protocol = GRE if encapsulation == "mpls-in-gre" else MPLS_IN_IP
        esp = "UDP-encapsulated ESP" if is_udp else "raw ESP"
        self.name = f"{self.peer}-{encapsulation}-{'udp' if is_udp else 'raw'}-{role}"
        self.feature = f"{encapsulation} in transport mode, {esp}, static labels into a VRF"

    @property
    def claim(self) -> str:
        """The same whatever version charon is of."""
        return f"{self.feature}, {self.role}"

    def config(self, red: str) -> str:
        """Our configuration; `red` is the namespace of the VRF's customers."""
        return f"""
[endpoint]
identity = "pe1.example"
addresses = ["{self.ends[0]}"]

[[vrf]]
name = "red"
attach = [{{ tun = "red0", netns = "{red}", address = ["{OUR_CUSTOMER}/24"] }}]
announce = ["10.1.0.0/24"]

[[peer]]
name = "pe2"
identity = "pe2.example"
addresses = ["{self.peer_address or self.ends[1]}"]
auth = {{ psk_file = "peer.psk" }}
ike = [{quoted(self.ike)}]
esp = [{quoted(self.esp)}]
selectors = "plain"
mode = "transport"
encapsulation = "{self.encapsulation}"
udp = "auto"
start = "{self.start}"
{self.more_settings}
[[peer.vrf]]
name = "red"
labels = {{ local = {OUR_LABEL}, peer = {PEER_LABEL}, routes = ["10.2.0.0/24"] }}
"""

    def children(self) -> tuple[Child, ...]:
        """The children that charon knows."""
        selector = f"dynamic[{self.protocol}]"
        return (Child(self.their_child, selector, selector),)

    def connection(self) -> Connection:
        """The connection that charon knows."""
        names = (self.ends[1], self.ends[0], "pe2.example", "pe1.example")
        return Connection(*names, PSK, self.children(), encap=self.is_udp)

    @contextmanager
    def running(self, lab: Lab) -> Iterator[Running[LinuxPe]]:
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            front_door, red = self.front_door(network), network.namespace("red")
            linux = self.machine(network, lab)
            stack.enter_context(linux)
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge))
            charon = linux.start_strongswan(self.connection())
            ours = Mplsec(lab.folder / "pe1", self.config(red), PSK, netns=front_door, state=lab.state)
            stack.enter_context(ours)
            yield Running(lab, network, red, linux, charon, ours)

    def front_door(self, network: Network) -> str:
        return network.host("pe1", f"{OUR_ADDRESS}/24")

    def machine(self, network: Network, lab: Lab) -> LinuxPe:
        return LinuxPe(
            network,
            folder=lab.folder / "pe2",
            state=lab.state,
            encapsulation=self.encapsulation,
            programs=strongswan_root(self.suite),
        )

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            return now.ping_both_ways() | self.facts(now)

    def facts(self, now: Running[LinuxPe]) -> dict[str, Any]:
        """What both sides say at the end, and what the peer's kernel counted."""
        linux, facts = now.machine, now.facts()
        return facts | {
            "peer_version": f"Linux {linux.kernel_version}, {facts['peer_version']}",
            "kernel_sas": [asdict(state) for state in linux.xfrm_states()],
            "kernel_errors": linux.xfrm_errors(),
        }

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        made = sum(child.is_accepted for child in evidence.children)
        require(made == 1, f"{made} children were negotiated, not one")
        seen += check_both_ways(evidence, OUR_CUSTOMER, PEER_CUSTOMER, self.ends)
        self._check_kernel(evidence)
        return [*seen, "the counters of the kernel's SAs equal the packets on the wire"]

    def check_packets(self, evidence: Evidence) -> list[str]:
        """What all cases with this peer share: who began; nothing but ESP of the form that was asked for."""
        seen = [
            check_initiator(evidence, self.role, self.ends),
            check_decrypted(evidence),
            check_keys(evidence),
        ]
        accepted = [child for child in evidence.children if child.is_accepted]
        require(accepted, "no child was negotiated")
        for child in accepted:
            require(child.is_transport, "USE_TRANSPORT_MODE was not agreed")
            require(child.has_esn == self.has_esn, f"extended sequence numbers: {child.has_esn}")
            require(child.protocols == {self.protocol}, f"the selectors name the protocols {child.protocols}")
        for packet in evidence.esp:
            require(packet.is_udp_encapsulated == self.is_udp, f"UDP encapsulation is not as asked: {packet}")
            require(packet.next_header == self.protocol, f"next header is not {self.protocol}: {packet}")
            label = PEER_LABEL if packet.source == self.ends[0] else OUR_LABEL
            require(packet.labels == [(label, 1)], f"not the single label {label} with S=1: {packet}")
            if self.protocol == GRE:
                require(packet.gre_protocol == GRE_MPLS, f"not GRE protocol 0x8847: {packet}")
        return [
            *seen,
            f"Child SA in transport mode for protocol {self.protocol}",
            f"next header {self.protocol}, label {PEER_LABEL} to the peer and {OUR_LABEL} from it, S=1",
        ]

    def _check_kernel(self, evidence: Evidence) -> None:
        """The peer's kernel took and sent through its SAs exactly the packets that are on the wire."""
        on_wire: dict[int, int] = {}
        for packet in evidence.esp:
            on_wire[packet.spi] = on_wire.get(packet.spi, 0) + 1
        states, errors = evidence.fact("kernel_sas"), evidence.fact("kernel_errors")
        counted = {state["spi"]: state["packets"] for state in states if state["packets"]}
        require(counted == on_wire, f"the kernel's SAs counted {counted}, the wire had {on_wire}")
        for state in states:
            require(state["mode"] == "transport", "the kernel's SA is not in transport mode")
            require(state["is_udp_encapsulated"] == self.is_udp, "UDP encapsulation is not the kernel's")
        require(not errors, f"the kernel counted errors: {errors}")


class LinuxPeOverIpv6(LinuxPeCase):
    """The same between IPv6 addresses: MPLS as next header 137 of IPv6."""

    ends = IPV6_ENDS
    topology = "ipv6"

    def __init__(self, role: str) -> None:
        super().__init__("mpls-in-ip", False, role)
        self.name = f"linux-pe-mpls-in-ipv6-raw-{role}"
        self.feature = "mpls-in-ip in transport mode, raw ESP, over IPv6"

    def front_door(self, network: Network) -> str:
        return network.host("pe1", f"{OUR_ADDRESS}/24", f"{self.ends[0]}/64")

    def machine(self, network: Network, lab: Lab) -> LinuxPe:
        linux = super().machine(network, lab)
        try:
            linux.move_to_ipv6(local=self.ends[1], peer=self.ends[0])
        except BaseException:
            linux.stop()
            raise
        return linux

    def check(self, evidence: Evidence) -> list[str]:
        seen = super().check(evidence)
        for packet in evidence.esp:
            outer = packet.packet.layer("ipv6")
            require(outer and outer.number("ipv6.nxt") == ESP, f"not directly inside IPv6: {packet}")
        return [*seen, "ESP directly inside IPv6"]


class GreOptionsFromLinux(LinuxPeCase):
    """The peer's GRE has a key, a checksum and sequence numbers, which we take as configured; ours has none."""

    more_settings = f"gre = {{ key = {GRE_KEY}, checksum = true, sequence = true }}\n"

    def __init__(self, role: str) -> None:
        super().__init__("mpls-in-gre", False, role)
        self.name = f"linux-pe-mpls-in-gre-options-{role}"
        self.feature = "mpls-in-gre with key, checksum and sequence number from the peer"

    @property
    def includes(self) -> frozenset[str]:
        """What we send is GRE without options, and the check of that case asks no more of the peer."""
        return frozenset({f"mpls-in-gre in transport mode, raw ESP, static labels into a VRF, {self.role}"})

    def machine(self, network: Network, lab: Lab) -> LinuxPe:
        linux = super().machine(network, lab)
        try:
            linux.setup(f"ip link set tunnel type gre okey {GRE_KEY} ocsum oseq")
        except BaseException:
            linux.stop()
            raise
        return linux

    def check(self, evidence: Evidence) -> list[str]:
        seen = super().check(evidence)
        for packet in evidence.esp:
            is_ours = packet.source == self.ends[0]
            wanted = set() if is_ours else {"checksum", "key", "sequence_number"}
            require(packet.gre_options == wanted, f"GRE options {packet.gre_options}, not {wanted}: {packet}")
        return [*seen, f"GRE from the kernel with key {GRE_KEY}, checksum and sequence numbers; ours without"]


CASES = (
    *(
        LinuxPeCase(encapsulation, is_udp, role)
        for encapsulation in ("mpls-in-ip", "mpls-in-gre")
        for is_udp in (False, True)
        for role in ("initiator", "responder")
    ),
    *(LinuxPeOverIpv6(role) for role in ("initiator", "responder")),
    *(GreOptionsFromLinux(role) for role in ("initiator", "responder")),
    *(
        LinuxPeCase("mpls-in-ip", False, role, suite)
        for suite in ("trixie", "forky")
        for role in ("initiator", "responder")
    ),
)
