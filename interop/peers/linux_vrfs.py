"""A Linux PE with two VRFs, red and blue, whose customers have the same addresses, IPv4 and IPv6.

Must not know: what the other PE is, nor how IPsec is set up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..networks import Network
from .linux_pe import LinuxPe, received

CUSTOMER_OF = {"red": "customer", "blue": "customer-blue"}
"""Namespaces of the guest."""
IPV6_CUSTOMER = "fd00:2::2"
DEVICES = {
    ("mpls-in-ip", 4): "type ipip mode mplsip local {} remote {} ttl 64",
    ("mpls-in-gre", 4): "type gre local {} remote {} ttl 64",
    ("mpls-in-ip", 6): "type ip6tnl mode any local {} remote {} hoplimit 64 encaplimit none",
    ("mpls-in-gre", 6): "type ip6gre local {} remote {} hoplimit 64 encaplimit none",
}
TOS_OF_EF = 0x18
"""The kernel looks at the bits 0x1c of the octet alone when it chooses a route."""


@dataclass(frozen=True)
class Tunnel:
    """A tunnel device of the guest: its own address, ours, and the VRFs that send by it."""

    local: str
    remote: str
    vrfs: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"to-{'-'.join(self.vrfs)}"


@dataclass(frozen=True)
class VrfLabels:
    """Labels of one class of a VRF. `leaving`: those that the guest sends; `arriving`: those that it takes."""

    vrf: str
    leaving: int
    arriving: int
    is_gold: bool = False


class LinuxVrfs(LinuxPe):
    """The guest with its VRFs, tunnels and label routes. Gold is what a customer sends by IPv4 with DSCP EF."""

    def __init__(
        self,
        network: Network,
        *,
        folder: Path,
        state: Path,
        encapsulation: str,
        addresses: tuple[str, ...],
        inner: tuple[tuple[str, str], ...],
        tunnels: tuple[Tunnel, ...],
        labels: tuple[VrfLabels, ...],
    ) -> None:
        """`addresses`: more of its card, with their lengths; `inner`: (its own, ours) inside of tunnel mode."""
        super().__init__(network, folder=folder, state=state, encapsulation="mpls-in-ip")
        version = 6 if ":" in tunnels[0].local else 4
        lines = [f"ip addr add {one} dev vec0 {'nodad' if ':' in one else ''}" for one in addresses]
        for own, ours in inner:
            lines += [f"ip addr add {own} dev lo", f"ip route add {ours} dev vec0"]
        device_of: dict[str, str] = {}
        for tunnel in tunnels:
            kind = DEVICES[encapsulation, version].format(tunnel.local, tunnel.remote)
            lines += [
                f"ip link add {tunnel.name} {kind}",
                f"ip link set {tunnel.name} addrgenmode none",
                f"ip link set {tunnel.name} up mtu 1300",
                f"sysctl -qw net.mpls.conf.{tunnel.name}.input=1",
            ]
            device_of |= dict.fromkeys(tunnel.vrfs, tunnel.name)
        for one in labels:
            lines.append(f"ip -f mpls route add {one.arriving} dev {one.vrf}")
            way = f"encap mpls {one.leaving} dev {device_of[one.vrf]}"
            if one.is_gold:
                lines.append(f"ip route add vrf {one.vrf} 10.1.0.0/24 tos {TOS_OF_EF:#x} {way}")
            else:
                lines.append(f"ip route add vrf {one.vrf} 10.1.0.0/24 {way}")
                lines.append(f"ip -6 route add vrf {one.vrf} fd00:1::/64 {way}")
        setup = "\n".join(lines)
        try:
            # Without link-local addresses there is no chatter of IPv6, neither on the wire nor in the tunnels; toward
            # the customers there has to be one, from which they are solicited.
            self.setup(f"""modprobe -a esp6 tunnel6 xfrm6_tunnel ip6_tunnel ip6_gre
ip link del tunnel
ip -f mpls route del 102
ip link set vec0 addrgenmode none
ip link set customer0 addrgenmode none
for card in all default lo vec0 red customer0; do sysctl -qw net.ipv6.conf.$card.disable_ipv6=0; done
sysctl -qw net.ipv6.conf.all.forwarding=1
ip link add blue type vrf table 20
ip link set blue up
ip netns add customer-blue
ip link add customer1 type veth peer name eth0 netns customer-blue
ip link set customer1 addrgenmode none master blue up
ip addr add 10.2.0.1/24 dev customer1
for address in fe80::1 fd00:2::1; do
  for card in customer0 customer1; do ip addr add $address/64 dev $card nodad; done
done
ip -n customer-blue link set lo up
ip -n customer-blue addr add {self.customer}/24 dev eth0
ip -n customer-blue link set eth0 up
ip -n customer-blue route add default via 10.2.0.1
for customer in customer customer-blue; do
  ip netns exec $customer sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0
  ip -n $customer addr add {IPV6_CUSTOMER}/64 dev eth0 nodad
  ip -n $customer route add default via fd00:2::1
done
{setup}
""")
        except BaseException:
            self.stop()
            raise

    def ping_of(
        self, pings: tuple[tuple[str, str, int, int], ...], *, count: int, wait_s: int = 2
    ) -> list[int]:
        """Pings of customers, all at the same time: (VRF, target, identifier, traffic class); the answers of each."""
        lines = [
            f"ip netns exec {CUSTOMER_OF[vrf]} ping -e {identifier} -Q {octet} -c {count} -l {count} -W {wait_s}"
            f" {target} >/tmp/ping-{identifier} &"
            for vrf, target, identifier, octet in pings
        ]
        read = "\n".join(f"cat /tmp/ping-{identifier}; echo NEXT" for _, _, identifier, _ in pings)
        text = self.sh("\n".join(lines) + f"\nwait\n{read}", timeout_s=25)
        return [received(one) for one in text.split("NEXT\n")[: len(pings)]]

    def counts(self) -> str:
        """The kernel's MPLS and VRF routes, for the facts."""
        return self.sh("ip -f mpls route; ip route show vrf red; ip route show vrf blue")
