"""A Linux router inside, with nothing but kernel MPLS: it sends labelled traffic to our gateway and takes it back.

Must not know: IKE, ESP, or who the gateway is.
"""

from __future__ import annotations

from pathlib import Path

from ..guests import Guest
from ..networks import Network, ip
from ..packages import kernel_root
from .linux_pe import received

MODULES = ("mpls_router", "mpls_iptunnel", "mpls_gso", "ipip", "ip_gre")
GATEWAY, ROUTER = "172.16.1.1", "172.16.1.2"
TO_GATEWAY, FROM_GATEWAY = 301, 401
"""The labels between the two."""


class LinuxRouter(Guest):
    """The router at 172.16.1.2, itself customer `customer`. `link`: mpls (Ethernet), mpls-in-ip or mpls-in-gre."""

    def __init__(
        self,
        network: Network,
        *,
        netns: str,
        folder: Path,
        state: Path,
        link: str,
        customer: str,
        target: str,
    ) -> None:
        """`netns`: where our gateway has eth1 on the same segment; `target`: the prefix behind the gateway."""
        ip("link", "add", "inside", "type", "bridge", "forward_delay", "0", netns=network.wire)
        ip("link", "set", "inside", "up", netns=network.wire)
        network.plug(netns, "inside-gw", f"{GATEWAY}/24", bridge="inside", card="eth1")
        tap = network.tap("router")
        network.replug(tap, bridge="inside")
        kernel = kernel_root()
        super().__init__(
            "router",
            root=kernel.ensure(),
            kernel=kernel.ensure(),
            netns=network.wire,
            taps=[tap],
            share=folder,
            state=state,
            modules=MODULES,
        )
        self.customer = customer
        ends = f"local {ROUTER} remote {GATEWAY} ttl 64"
        make, device, via = {
            "mpls": ("true", "vec0", f"via inet {GATEWAY} dev vec0"),
            "mpls-in-ip": (f"ip link add tunnel type ipip mode mplsip {ends}", "tunnel", "dev tunnel"),
            "mpls-in-gre": (f"ip link add tunnel type gre {ends}", "tunnel", "dev tunnel"),
        }[link]
        try:
            self.setup(f"""sysctl -qw net.mpls.platform_labels=1000 net.ipv4.conf.all.rp_filter=0
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
ip link set lo up
ip addr add {customer}/32 dev lo
ip link set vec0 up
ip addr add {ROUTER}/24 dev vec0
{make}
ip link set {device} up mtu 1400
sysctl -qw net.mpls.conf.{device}.input=1
ip -f mpls route add {FROM_GATEWAY} dev lo
ip route add {target} encap mpls {TO_GATEWAY} {via} src {customer}
""")
        except BaseException:
            self.stop()
            raise

    def ping(self, address: str, *, count: int) -> int:
        """Ping from the customer; how many answers came."""
        return received(self.sh(f"ping -c {count} -l {count} -W 5 -I {self.customer} {address}", check=False))

    def routes(self) -> str:
        """The label that it takes, and the one under which it sends."""
        return self.sh("ip -f mpls route; ip route")
