"""What lies between us and the peer, by name: nothing, a router with a small MTU, a NAT, a bad link.

Must not know: which programs talk over it. Addresses stay those of networks.py in every topology: a router answers
ARP and ND for the other side, so that a case needs no other configuration.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Self

from .networks import PREFIX, Network, ip, write_setting
from .processes import Background, run, wait_until

OURS, PEERS = ("192.0.2.1", "2001:db8:c::1"), ("192.0.2.2", "2001:db8:c::2")
HOP = ("192.0.2.254", "2001:db8:c::fe")
SMALL_MTU = 1300
NAT_ADDRESSES = ("192.0.2.101", "192.0.2.102")
NAT_PORTS = range(40000, 50000)


class Ipv6(Network):
    """One segment, IPv6 beside IPv4."""

    name = "ipv6"
    has_ipv6 = True


class Hop(Network):
    """A router in between: `hop`, near0 on our side, far0 on the peer's. It fragments, or says it may not."""

    name = "hop"
    far_bridge = "br1"
    mtu: int | None = None
    """Of both directions: a property of the routes, since a card of that MTU would drop what comes in."""
    rules = ""
    """nftables of the router."""

    def connect(self) -> None:
        self.hop = self.namespace("hop")
        self.plug(self.hop, "near", bridge=self.bridge, card="near0")
        self.plug(self.hop, "far", bridge=self.far_bridge, card="far0")
        families = (0, 1) if self.has_ipv6 else (0,)
        for setting in ("ip_forward", "conf/all/rp_filter"):
            write_setting(self.hop, f"net/ipv4/{setting}", str(int(setting == "ip_forward")))
        if self.has_ipv6:
            for card in ("all", "lo", "near0", "far0"):
                write_setting(self.hop, f"net/ipv6/conf/{card}/disable_ipv6", "0")
            write_setting(self.hop, "net/ipv6/conf/all/forwarding", "1")
        for family in families:
            ip("addr", "add", HOP[family], "dev", "lo", netns=self.hop)
            for card, hosts in (("near0", OURS), ("far0", PEERS)):
                limit = ("mtu", "lock", str(self.mtu)) if self.mtu else ()
                ip("route", "add", hosts[family], "dev", card, *limit, netns=self.hop)
        for card, others in (("near0", PEERS), ("far0", OURS)):
            self.answer_for(card, others[: len(families)])
        if self.rules:
            self.load_rules(self.rules)

    def answer_for(self, card: str, addresses: tuple[str, ...]) -> None:
        """Say on a card, by ARP and ND, that these addresses are here."""
        write_setting(self.hop, f"net/ipv4/conf/{card}/rp_filter", "0")
        for address in addresses:
            ip("neigh", "add", "proxy", address, "dev", card, netns=self.hop)
            family = "ipv6" if ":" in address else "ipv4"
            write_setting(self.hop, f"net/{family}/neigh/{card}/proxy_delay", "0")
            if family == "ipv6":
                write_setting(self.hop, f"net/ipv6/conf/{card}/proxy_ndp", "1")

    def load_rules(self, rules: str) -> None:
        run(["nft", "-f", "-"], netns=self.hop, stdin=rules)


class SmallMtu(Hop):
    """The router's link takes 1300 octets, and it says so by ICMP to whoever set DF."""

    name = "small-mtu"
    mtu = SMALL_MTU


class SilentSmallMtu(SmallMtu):
    """The same, and its ICMP errors never arrive."""

    name = "small-mtu-silent"
    rules = """table inet lab {
  chain out {
    type filter hook output priority 0;
    icmp type destination-unreachable drop
    icmpv6 type packet-too-big drop
  }
}
"""


class IgnoresDf(SmallMtu):
    """The same, but it clears DF and fragments what is too big."""

    name = "ignores-df"
    rules = """table ip lab {
  chain before {
    type filter hook prerouting priority -300;
    ip frag-off & 0x4000 != 0 ip frag-off set 0
  }
}
"""


class SmallMtuIpv6(SmallMtu):
    """The small MTU with Packet Too Big of IPv6."""

    name = "small-mtu-ipv6"
    has_ipv6 = True


class Nat(Hop):
    """The router masquerades one side: by the address 192.0.2.101 and with ports of its own choice.

    What the other side sends without being asked is dropped.
    """

    inside, outside = "near0", "far0"
    hidden = OURS[0]

    def connect(self) -> None:
        self.address = NAT_ADDRESSES[0]
        super().connect()
        ip("addr", "add", self.address, "dev", self.outside, netns=self.hop)
        # The hidden address is not answered for on the other side: there it does not exist.
        ip("neigh", "del", "proxy", self.hidden, "dev", self.outside, netns=self.hop)
        ports = f"{NAT_PORTS.start}-{NAT_PORTS.stop - 1}"
        self.load_rules(f"""table ip lab {{
  chain after {{
    type nat hook postrouting priority 100;
    oifname "{self.outside}" ip protocol udp masquerade to :{ports} random
    oifname "{self.outside}" masquerade
  }}
  chain unasked {{
    type filter hook input priority 0;
    iifname "{self.outside}" drop
  }}
  chain through {{
    type filter hook forward priority 0;
    iifname "{self.outside}" ct state new drop
  }}
}}
""")

    def rebind(self) -> str:
        """Another address outside, as after a new dial-in: every mapping is gone. The new address."""
        former = self.address
        self.address = NAT_ADDRESSES[1 - NAT_ADDRESSES.index(former)]
        ip("addr", "add", self.address, "dev", self.outside, netns=self.hop)
        ip("addr", "del", former, "dev", self.outside, netns=self.hop)
        return self.address


class NatOurs(Nat):
    """We are behind the NAT."""

    name = "nat-ours"


class NatPeer(Nat):
    """The peer is behind the NAT: it has to begin."""

    name = "nat-peer"
    inside, outside = "far0", "near0"
    hidden = PEERS[0]


class Impaired(Network):
    """A link of two taps with a process between them: `relay.py` delays, loses, doubles and reorders frames."""

    far_bridge = "br1"
    delay_s, loss, duplicate, reorder = 0.0, 0.0, 0.0, 0.0

    def __enter__(self) -> Self:
        self._relay: Background | None = None
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        if self._relay is not None:
            self._relay.stop()
            self._relay.log.unlink(missing_ok=True)
        super().__exit__()

    def connect(self) -> None:
        for tap, bridge in (("near", self.bridge), ("far", self.far_bridge)):
            ip("tuntap", "add", tap, "mode", "tap", netns=self.wire)
            ip("link", "set", tap, "master", bridge, "up", netns=self.wire)
        figures = (self.delay_s, self.loss, self.duplicate, self.reorder)
        log = Path(f"/run/{self.prefix}relay.log")
        log.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "interop.relay", "near", "far", *map(str, figures)]
        self._relay = relay = Background(argv, log=log, netns=self.wire)

        def is_up() -> bool:
            relay.require_running()
            return "ready" in log.read_text()

        wait_until(is_up, "the relay between the taps")


class Slow(Impaired):
    """300 ms in each direction."""

    name = "slow"
    delay_s = 0.3


class Lossy(Impaired):
    """A tenth of the frames lost, a tenth overtaken, one in twenty doubled; 20 ms in each direction."""

    name = "lossy"
    delay_s, loss, duplicate, reorder = 0.02, 0.1, 0.05, 0.1


TOPOLOGIES: dict[str, type[Network]] = {
    kind.name: kind
    for kind in (
        Network,
        Ipv6,
        Hop,
        SmallMtu,
        SilentSmallMtu,
        IgnoresDf,
        SmallMtuIpv6,
        NatOurs,
        NatPeer,
        Slow,
        Lossy,
    )
}


def network(name: str, prefix: str = PREFIX) -> Network:
    """The network of a name; a context manager."""
    return TOPOLOGIES[name](prefix)
