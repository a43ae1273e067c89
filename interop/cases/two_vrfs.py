"""Two VRFs with equal addresses behind a Linux PE: one SA for all, told apart by labels, or an address pair each.

Must not know: how our program does it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from ..capture import Capture
from ..networks import Network, write_setting
from ..peers.linux_pe import received
from ..peers.linux_vrfs import IPV6_CUSTOMER, LinuxVrfs, Tunnel, VrfLabels
from ..peers.mplsec import Mplsec
from ..peers.strongswan import Child, Connection
from ..processes import Background
from ..wire import ESP, GRE_MPLS, IPV6, EspPacket
from .case import (
    IPV6_ENDS,
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    PINGS,
    PSK,
    Evidence,
    Lab,
    check_decrypted,
    check_initiator,
    check_keys,
    require,
)
from .linux_pe import PEER_CUSTOMER, LinuxPeCase
from .running import Running
from .strongswan import CLASS_TABLES, EF

VRFS = ("red", "blue")
OUR_IPV6_CUSTOMER = "fd00:1::1"
LABELS = (
    VrfLabels("red", 111, 112, is_gold=True),
    VrfLabels("red", 121, 122),
    VrfLabels("blue", 201, 202),
)
"""`leaving` is what the guest sends and we take."""
NOBODYS_LABEL = 999
WRONG_IDENTIFIER = 3000


@dataclass(frozen=True)
class Ping:
    """A run of pings: the identifier in each says which VRF's customers may see it."""

    identifier: int
    vrf: str
    is_ours: bool
    is_ipv6: bool
    is_gold: bool = False

    @property
    def ends(self) -> tuple[str, str]:
        """Who asks, who answers."""
        ours, theirs = (OUR_IPV6_CUSTOMER, IPV6_CUSTOMER) if self.is_ipv6 else (OUR_CUSTOMER, PEER_CUSTOMER)
        return (ours, theirs) if self.is_ours else (theirs, ours)

    @property
    def labels(self) -> VrfLabels:
        return next(one for one in LABELS if (one.vrf, one.is_gold) == (self.vrf, self.is_gold))


PINGS_OF_ALL = tuple(
    Ping(2000 + number, vrf, is_ours, is_ipv6, is_gold)
    for number, (vrf, is_ours, is_ipv6, is_gold) in enumerate(
        (vrf, is_ours, is_ipv6, is_gold)
        for vrf in VRFS
        for is_ours in (True, False)
        for is_ipv6, is_gold in ((False, False), (True, False), (False, True))
        if vrf == "red" or not is_gold
    )
)


class TwoVrfs(LinuxPeCase):
    """Red with two classes and blue, each by its labels, IPv4 and IPv6 inside; then a label where it may not be.

    `pairs`: a pair of addresses for each VRF, which is the IKE SA's in transport mode, that of the inner header
    in tunnel mode; without it one SA carries all.
    """

    def __init__(
        self, encapsulation: str, role: str, *, pairs: bool, ipv6: bool, tunnel: bool = False
    ) -> None:
        super().__init__(encapsulation, False, role)
        self.pairs, self.ipv6, self.is_tunnel = pairs, ipv6, tunnel
        self.topology = "ipv6" if ipv6 else "direct"
        self.ends = IPV6_ENDS if ipv6 else (OUR_ADDRESS, PEER_ADDRESS)
        how = "pairs" if pairs else "one-sa"
        inner = "137" if encapsulation == "mpls-in-ip" else "gre"
        self.name = f"linux-pe-two-vrfs-{how}-{inner}-{'ipv6' if ipv6 else 'ipv4'}-{role}"
        separated = f"an address pair each in {'tunnel' if tunnel else 'transport'} mode"
        self.feature = (
            f"two VRFs with equal addresses, {separated if pairs else 'one SA for all'}, "
            f"{encapsulation}, over {'IPv6' if ipv6 else 'IPv4'}"
        )

    def outer(self, vrf: str) -> tuple[str, str]:
        """Addresses on the wire, ours and the peer's, for the packets of a VRF."""
        if not self.pairs or self.is_tunnel or vrf == "red":
            return self.ends
        return ("2001:db8:c::11", "2001:db8:c::12") if self.ipv6 else ("192.0.2.11", "192.0.2.12")

    def tunnel_ends(self, vrf: str) -> tuple[str, str]:
        """Ends of the MPLS tunnel, ours and the peer's: the outer addresses, but in tunnel mode inner ones."""
        if not self.is_tunnel:
            return self.outer(vrf)
        nth = VRFS.index(vrf) + 1
        return (f"fd00:f{nth}::1", f"fd00:f{nth}::2") if self.ipv6 else (f"10.9.{nth}.1", f"10.9.{nth}.2")

    def peers(self) -> tuple[tuple[str, ...], ...]:
        """The VRFs of each of our [[peer]]s."""
        return tuple((vrf,) for vrf in VRFS) if self.pairs and not self.is_tunnel else (VRFS,)

    def child_names(self) -> tuple[str, ...]:
        return VRFS if self.pairs else (self.their_child,)

    def config(self, red: str) -> str:
        addresses = ", ".join(f'"{one}"' for one in dict.fromkeys(self.outer(vrf)[0] for vrf in VRFS))
        customers = f'"{OUR_CUSTOMER}/24", "{OUR_IPV6_CUSTOMER}/64"'
        vrfs = "".join(
            f"""
[[vrf]]
name = "{vrf}"
{'classes = ["gold", "standard"]' if vrf == "red" else ""}
attach = [{{ tun = "{vrf}0", netns = "{red[: -len("red")]}{vrf}", address = [{customers}] }}]
announce = ["10.1.0.0/24", "fd00:1::/64"]
"""
            for vrf in VRFS
        )
        peers = "".join(self._peer(names) for names in self.peers())
        return f"""
[endpoint]
identity = "pe1.example"
addresses = [{addresses}]
{vrfs}{CLASS_TABLES["gold"]}{CLASS_TABLES["standard"]}{peers}"""

    def _peer(self, vrfs: tuple[str, ...]) -> str:
        name = "pe2" if "red" in vrfs else "pe2-blue"
        grants = "".join(self._grant(vrf) for vrf in vrfs)
        return f"""
[[peer]]
name = "{name}"
identity = "pe2.example"
addresses = ["{self.outer(vrfs[0])[1]}"]
auth = {{ psk_file = "peer.psk" }}
ike = ["aes256gcm16-prfsha384-x25519"]
esp = ["aes256gcm16"]
selectors = "plain"
mode = "{"tunnel" if self.is_tunnel else "transport"}"
encapsulation = "{self.encapsulation}"
start = "none"
{grants}"""

    def _grant(self, vrf: str) -> str:
        ours, theirs = self.tunnel_ends(vrf)
        addresses = f'addresses = {{ local = "{ours}", peer = "{theirs}" }}' if self.pairs else ""
        labels = "".join(
            f"labels{'' if vrf == 'blue' else '.gold' if one.is_gold else '.standard'} = "
            f'{{ local = {one.leaving}, peer = {one.arriving}, routes = ["10.2.0.0/24", "fd00:2::/64"] }}\n'
            for one in LABELS
            if one.vrf == vrf
        )
        classes = 'classes = ["gold", "standard"]' if vrf == "red" else ""
        return f"""
[[peer.vrf]]
name = "{vrf}"
{classes}
{addresses}
{labels}"""

    def children(self) -> tuple[Child, ...]:
        if not self.is_tunnel:
            return super().children()
        return tuple(self._tunnel_child(vrf) for vrf in VRFS)

    def _tunnel_child(self, vrf: str) -> Child:
        ours, theirs = self.tunnel_ends(vrf)
        length = 128 if self.ipv6 else 32
        local, remote = (f"{address}/{length}[{self.protocol}]" for address in (theirs, ours))
        return Child(vrf, local, remote, mode="tunnel")

    def connections(self) -> tuple[Connection, ...]:
        """One for each of our [[peer]]s. The same identities are at several addresses: that replaces nothing."""
        made = []
        for vrfs in self.peers():
            ours, theirs = self.outer(vrfs[0])
            selector = f"dynamic[{self.protocol}]"
            child = Child(vrfs[0], selector, selector)
            children = (child,) if len(self.peers()) > 1 else self.children()
            names = theirs, ours, "pe2.example", "pe1.example"
            made.append(Connection(*names, PSK, children, more=("unique = never",), name=f"peer-{vrfs[0]}"))
        return tuple(made)

    def machine(self, network: Network, lab: Lab) -> LinuxVrfs:
        length = 64 if self.ipv6 else 24
        outer = dict.fromkeys(self.outer(vrf)[1] for vrf in VRFS)
        groups = tuple((vrf,) for vrf in VRFS) if self.pairs else (VRFS,)
        return LinuxVrfs(
            network,
            folder=lab.folder / "pe2",
            state=lab.state,
            encapsulation=self.encapsulation,
            addresses=tuple(f"{one}/{length}" for one in outer if one != PEER_ADDRESS),
            inner=tuple(self.tunnel_ends(vrf)[::-1] for vrf in VRFS) if self.is_tunnel else (),
            tunnels=tuple(Tunnel(*self.tunnel_ends(vrfs[0])[::-1], vrfs) for vrfs in groups),
            labels=LABELS,
        )

    def front_door(self, network: Network) -> str:
        outer = dict.fromkeys(self.outer(vrf)[0] for vrf in VRFS)
        addresses = [f"{one}/{64 if self.ipv6 else 24}" for one in outer]
        return network.host(
            "pe1", f"{OUR_ADDRESS}/24", *(one for one in addresses if one != f"{OUR_ADDRESS}/24")
        )

    @contextmanager
    def running(self, lab: Lab) -> Iterator[Running[LinuxVrfs]]:
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            front_door = self.front_door(network)
            for name in (network.namespace(vrf) for vrf in VRFS):
                for setting in ("all", "default"):
                    write_setting(name, f"net/ipv6/conf/{setting}/disable_ipv6", "0")
            red = f"{network.prefix}red"
            linux = self.machine(network, lab)
            stack.enter_context(linux)
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge))
            charon = linux.start_strongswan(*self.connections())
            ours = Mplsec(lab.folder / "pe1", self.config(red), PSK, netns=front_door, state=lab.state)
            stack.enter_context(ours)
            yield Running(lab, network, red, linux, charon, ours)

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            if self.role == "initiator":
                for vrfs in self.peers():
                    now.ours.initiate("pe2" if "red" in vrfs else "pe2-blue")
            else:
                for child in self.child_names():
                    now.charon.initiate(child)
            now.charon.wait_for_children(len(self.child_names()))
            theirs = tuple(
                (one.vrf, one.ends[1], one.identifier, EF if one.is_gold else 0)
                for one in PINGS_OF_ALL
                if not one.is_ours
            )
            answers = self._ping(now) + now.machine.ping_of(theirs, count=PINGS)
            # A label that nobody has; with a pair for each VRF also that of the other VRF.
            for vrf, label in self.wrong_labels().items():
                device = next(one.name for one in self.tunnels() if vrf in one.vrfs)
                now.machine.sh(f"ip route add vrf {vrf} {OUR_CUSTOMER}/32 encap mpls {label} dev {device}")
            wrong = tuple(
                (vrf, OUR_CUSTOMER, WRONG_IDENTIFIER + number, 0)
                for number, vrf in enumerate(self.wrong_labels())
            )
            to_wrong = now.machine.ping_of(wrong, count=PINGS, wait_s=1)
            facts = self.facts(now)
            drops = facts["our_status"]["counters"]["drops"]
            return facts | {"answers": answers, "answers_to_wrong": to_wrong, "drops": drops}

    def tunnels(self) -> tuple[Tunnel, ...]:
        groups = tuple((vrf,) for vrf in VRFS) if self.pairs else (VRFS,)
        return tuple(Tunnel(*self.tunnel_ends(vrfs[0])[::-1], vrfs) for vrfs in groups)

    def wrong_labels(self) -> dict[str, int]:
        """What the peer sends at the end from each VRF: a label that nobody has, or that of the other VRF."""
        if not self.pairs:
            return {"red": NOBODYS_LABEL}
        return {"red": LABELS[2].leaving, "blue": LABELS[1].leaving}

    def _ping(self, now: Running[LinuxVrfs]) -> list[int]:
        """Our customers' pings, all at the same time."""
        running = []
        for one in PINGS_OF_ALL:
            if one.is_ours:
                source, target = one.ends
                log = now.lab.folder / f"ping-{one.identifier}.log"
                octet = str(EF if one.is_gold else 0)
                options = [
                    "-e",
                    str(one.identifier),
                    "-Q",
                    octet,
                    "-c",
                    str(PINGS),
                    "-l",
                    str(PINGS),
                    "-W",
                    "5",
                ]
                netns = f"{now.network.prefix}{one.vrf}"
                argv = ["ping", *options, "-I", source, target]
                running.append((Background(argv, log=log, netns=netns), log))
        for process, _ in running:
            process.process.wait(20)
        return [received(log.read_text()) for _, log in running]

    def check(self, evidence: Evidence) -> list[str]:
        seen = [
            self._check_initiators(evidence),
            check_decrypted(evidence),
            check_keys(evidence),
        ]
        made = [child for child in evidence.children if child.is_accepted]
        require(len(made) == len(self.child_names()), f"{len(made)} children were negotiated")
        for child in made:
            require(child.is_transport != self.is_tunnel, f"transport mode: {child.is_transport}")
            require(child.protocols == {self.protocol}, f"the selectors name {child.protocols}")
        wrong = [one for one in evidence.esp if (one.ping_id or 0) >= WRONG_IDENTIFIER]
        by_vrf: dict[str, set[int]] = {vrf: set() for vrf in VRFS}
        for packet in evidence.esp:
            self._check_form(packet)
            if packet not in wrong:
                by_vrf[self._vrf_of(packet)].add(packet.spi)
        if self.pairs:
            require(not by_vrf["red"] & by_vrf["blue"], f"an SA carries both VRFs: {by_vrf}")
        else:
            require(by_vrf["red"] == by_vrf["blue"] and len(by_vrf["red"]) == 2, f"not one SA: {by_vrf}")
        for ping in PINGS_OF_ALL:
            self._check_ping(evidence, ping)
        expected = [PINGS] * len(PINGS_OF_ALL)
        require(evidence.fact("answers") == expected, f"answers: {evidence.fact('answers')}")
        self._check_wrong(evidence, wrong)
        self._check_kernel(evidence)
        both = len(PINGS_OF_ALL) * PINGS
        return [
            *seen,
            f"{both} pings of red and blue between the same addresses, IPv4 and IPv6, answered in their own VRF",
            *(f"{one.vrf}: labels {one.arriving} to the peer, {one.leaving} from it" for one in LABELS),
            f"SAs of red {sorted(map(hex, by_vrf['red']))}, of blue {sorted(map(hex, by_vrf['blue']))}",
            f"{len(wrong)} packets with the label of another VRF or of nobody: all dropped and counted",
        ]

    def _check_initiators(self, evidence: Evidence) -> str:
        ends = [self.outer(vrfs[0]) for vrfs in self.peers()]
        if len(ends) == 1:
            return check_initiator(evidence, self.role, ends[0])
        began = {one.source for one in evidence.ike if one.exchange == 34 and not one.is_response}
        expected = {pair[0 if self.role == "initiator" else 1] for pair in ends}
        require(began == expected, f"IKE_SA_INIT was sent by {sorted(began)}, not by {sorted(expected)}")
        return f"IKE begun by {' and '.join(sorted(expected))}"

    def _vrf_of(self, packet: EspPacket) -> str:
        """The VRF of a packet by its label, which has to be that of the direction and of the addresses."""
        (label,) = (one for one, _ in packet.labels)
        is_ours = packet.source in {self.outer(vrf)[0] for vrf in VRFS}
        known = {one.arriving if is_ours else one.leaving: one.vrf for one in LABELS}
        require(label in known, f"label {label} is nobody's: {packet}")
        vrf = known[label or 0]
        ends = self.outer(vrf) if is_ours else self.outer(vrf)[::-1]
        require((packet.source, packet.destination) == ends, f"{vrf} not between {ends}: {packet}")
        return vrf

    def _check_form(self, packet: EspPacket) -> None:
        outer = packet.packet.layer("ipv6" if self.ipv6 else "ip")
        protocol = outer and outer.number("ipv6.nxt" if self.ipv6 else "ip.proto")
        require(protocol == ESP, f"not ESP directly over IP: {packet}")
        expected = (IPV6 if self.ipv6 else 4) if self.is_tunnel else self.protocol
        require(packet.next_header == expected, f"next header is not {expected}: {packet}")
        require(len(packet.labels) == 1 and packet.labels[0][1] == 1, f"not a single label: {packet}")
        if self.encapsulation == "mpls-in-gre":
            require(packet.gre_protocol == GRE_MPLS, f"not GRE protocol 0x8847: {packet}")

    def _check_ping(self, evidence: Evidence, ping: Ping) -> None:
        """Its requests and their answers have the labels of its VRF, and nobody else has answered."""
        found = [one for one in evidence.esp if one.ping_id == ping.identifier]
        asker, answerer = ping.ends
        kinds = Counter(one.ping[0] for one in found if one.ping)
        require(kinds == {8: PINGS, 0: PINGS}, f"{ping}: {dict(kinds)}")
        for packet in found:
            require(self._vrf_of(packet) == ping.vrf, f"{ping} in another VRF: {packet}")
            kind, *ends, _ = packet.ping or (0, "", "", 0)
            require(
                tuple(ends) == ((asker, answerer) if kind == 8 else (answerer, asker)), f"{ping}: {packet}"
            )
            # By IPv6 the guest sends all of red as standard; the class of ours is by DSCP in both families.
            labels = {one.arriving if self._is_ours(packet) else one.leaving for one in [ping.labels]}
            require({label for label, _ in packet.labels} == labels, f"{ping} by another label: {packet}")

    def _is_ours(self, packet: EspPacket) -> bool:
        return packet.source in {self.outer(vrf)[0] for vrf in VRFS}

    def _check_wrong(self, evidence: Evidence, wrong: list[EspPacket]) -> None:
        """What the peer sent with a label where it may not be: all requests, none answered, all counted."""
        expected = self.wrong_labels()
        require(len(wrong) == PINGS * len(expected), f"{len(wrong)} packets with a wrong label")
        labels = {label for one in wrong for label, _ in one.labels}
        require(labels == set(expected.values()), f"wrong labels {labels}")
        require(not any(evidence.fact("answers_to_wrong")), "packets with a wrong label were answered")
        drops = evidence.fact("drops")
        reason = "label_foreign" if self.pairs else "label_unbound"
        require(drops == {reason: len(wrong)}, f"what we dropped: {drops}")

    def _check_kernel(self, evidence: Evidence) -> None:
        on_wire = Counter(packet.spi for packet in evidence.esp)
        states, errors = evidence.fact("kernel_sas"), evidence.fact("kernel_errors")
        counted = {state["spi"]: state["packets"] for state in states if state["packets"]}
        require(counted == on_wire, f"the kernel's SAs counted {counted}, the wire had {dict(on_wire)}")
        modes = {state["mode"] for state in states}
        require(modes == {"tunnel" if self.is_tunnel else "transport"}, f"the kernel's SAs: {modes}")
        require(not errors, f"the kernel counted errors: {errors}")


CASES: tuple[TwoVrfs, ...] = tuple(
    case
    for role in ("initiator", "responder")
    for case in (
        TwoVrfs("mpls-in-ip", role, pairs=False, ipv6=False),
        TwoVrfs("mpls-in-gre", role, pairs=False, ipv6=True),
        TwoVrfs("mpls-in-gre", role, pairs=True, ipv6=False),
        TwoVrfs("mpls-in-ip", role, pairs=True, ipv6=True, tunnel=True),
    )
)
