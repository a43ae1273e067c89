"""A Linux PE router as a guest: kernel MPLS, a VRF with a customer, an RFC 4023 tunnel, and strongSwan.

Must not know: what the other PE is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..guests import Guest
from ..networks import Network
from ..packages import Root, kernel_root
from .strongswan import Connection, StrongSwan

MODULES = (
    *("mpls_router", "mpls_iptunnel", "mpls_gso", "ipip", "ip_gre", "vrf", "veth"),
    *("xfrm_user", "esp4", "gcm", "ctr", "ghash-generic", "seqiv", "drbg", "jitterentropy_rng"),
    *("sha512_generic", "hmac", "authenc", "cbc", "echainiv"),
)


@dataclass(frozen=True)
class XfrmState:
    """One kernel SA as `ip -s xfrm state` shows it."""

    source: str
    destination: str
    spi: int
    mode: str
    is_udp_encapsulated: bool
    packets: int


class LinuxPe(Guest):
    """The PE at 192.0.2.2: VRF red with customer 10.2.0.2; label 102 on arrival, label 101 to the peer."""

    address = "192.0.2.2"
    customer = "10.2.0.2"

    def __init__(
        self,
        network: Network,
        *,
        folder: Path,
        state: Path,
        encapsulation: str,
        peer: str = "192.0.2.1",
        programs: Root | None = None,
    ) -> None:
        kernel = kernel_root()
        super().__init__(
            "pe2",
            root=(programs or kernel).ensure(),
            kernel=kernel.ensure(),
            netns=network.wire,
            taps=[network.tap("pe2")],
            share=folder,
            state=state,
            modules=MODULES,
        )
        tunnel = "gre" if encapsulation == "mpls-in-gre" else "ipip mode mplsip"
        try:
            self.setup(f"""sysctl -qw net.ipv4.ip_forward=1 net.mpls.platform_labels=1000 net.ipv4.conf.all.rp_filter=0
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
ip link set vec0 up
ip addr add {self.address}/24 dev vec0
ip link add red type vrf table 10
ip link set red up
ip netns add customer
ip link add customer0 type veth peer name eth0 netns customer
ip link set customer0 master red up
ip addr add 10.2.0.1/24 dev customer0
ip link add tunnel type {tunnel} local {self.address} remote {peer} ttl 64
ip link set tunnel up mtu 1400
ip route add vrf red 10.1.0.0/24 encap mpls 101 dev tunnel
ip -f mpls route add 102 dev red
ip -n customer link set lo up
ip -n customer addr add {self.customer}/24 dev eth0
ip -n customer link set eth0 up
ip -n customer route add default via 10.2.0.1
sysctl -qw net.mpls.conf.tunnel.input=1
""")
        except BaseException:
            self.stop()
            raise

    def move_to_ipv6(self, *, local: str, peer: str) -> None:
        """An underlay of IPv6 instead: the tunnel carries MPLS as next header 137 between these addresses."""
        self.setup(f"""modprobe -a ip6_tunnel tunnel6 xfrm6_tunnel esp6
for card in all default vec0; do sysctl -qw net.ipv6.conf.$card.disable_ipv6=0; done
ip addr add {local}/64 dev vec0 nodad
ip link del tunnel
ip link add tunnel type ip6tnl mode any local {local} remote {peer} hoplimit 64 encaplimit none
ip link set tunnel up mtu 1400
sysctl -qw net.mpls.conf.tunnel.input=1
ip route add vrf red 10.1.0.0/24 encap mpls 101 dev tunnel
""")

    def separate_classes(self, labels: dict[str, tuple[int, int]], marks: dict[str, int], peer: str) -> None:
        """Two classes, by the DSCP of the customer's packet, each by a tunnel device that marks what it sends.

        labels   of gold and standard: (label to the peer, label on arrival)
        marks    by which the outbound IPsec policies tell the two devices' packets apart
        Gold is what a customer sends with DSCP EF: a route for TOS 0x18, since the kernel looks at the bits
        0x1c of the octet alone. The second device to the same peer has to be bound to a link.
        """
        self.setup(f"""ip link set tunnel type ipip fwmark {marks["standard"]:#x}
ip link add gold type ipip mode mplsip local {self.address} remote {peer} dev vec0 ttl 64 fwmark {marks["gold"]:#x}
ip link set gold up mtu 1400
sysctl -qw net.mpls.conf.gold.input=1
for label in {labels["gold"][1]} {labels["standard"][1]}; do ip -f mpls route add $label dev red; done
ip route replace vrf red 10.1.0.0/24 encap mpls {labels["standard"][0]} dev tunnel
ip route add vrf red 10.1.0.0/24 tos 0x18 encap mpls {labels["gold"][0]} dev gold
""")

    def start_strongswan(self, connection: Connection, *others: Connection) -> StrongSwan:
        return StrongSwan(self, connection, others=others)

    def ping(self, address: str, *, count: int = 3, traffic_class: int = 0, wait_s: int = 5) -> int:
        """Ping from the customer; how many answers came."""
        options = f"-Q {traffic_class} -c {count} -l {count} -W {wait_s}"
        return received(
            self.sh(f"ip netns exec customer ping {options} {address}", check=False, timeout_s=20)
        )

    def xfrm_states(self) -> list[XfrmState]:
        """The kernel's SAs with their packet counters."""
        return parse_xfrm_states(self.sh("ip -s xfrm state"))

    def xfrm_errors(self) -> dict[str, int]:
        """The kernel's IPsec error counters that are not zero."""
        lines = [line.split() for line in self.sh("cat /proc/net/xfrm_stat").splitlines()]
        return {name: int(value) for name, value in lines if int(value)}


def received(output: str) -> int:
    """How many answers a run of ping had."""
    found = re.search(r"(\d+) received", output)
    return int(found[1]) if found else 0


def transmitted(output: str) -> int:
    """How many requests a run of ping sent."""
    found = re.search(r"(\d+) packets transmitted", output)
    return int(found[1]) if found else 0


def parse_xfrm_states(text: str) -> list[XfrmState]:
    """`ip -s xfrm state`: one entry begins with an unindented `src … dst …`."""
    states = []
    for entry in re.split(r"^(?=src )", text, flags=re.MULTILINE):
        head = re.match(r"src (\S+) dst (\S+)\s+proto esp spi 0x([0-9a-f]+).*?mode (\w+)", entry, re.DOTALL)
        if head:
            counted = re.search(r"lifetime current:\s+\d+\(bytes\), (\d+)\(packets\)", entry)
            packets = int(counted[1]) if counted else 0
            encapsulated = "encap type espinudp" in entry
            states.append(XfrmState(head[1], head[2], int(head[3], 16), head[4], encapsulated, packets))
    return states
