"""Cases against strongSwan in a container, whose ESP is its own: tunnel mode, IP or MPLS-in-IP inside.

Must not know: how our program does it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from ..capture import Capture
from ..networks import Network
from ..packages import strongswan_root
from ..peers.container import SwanContainer
from ..peers.mplsec import Mplsec
from ..peers.strongswan import SUITE as PROPOSALS
from ..peers.strongswan import Child, Connection
from ..wire import (
    AUTH,
    CHILDLESS_IKEV2_SUPPORTED,
    CREATE_CHILD_SA,
    IKE_AUTH,
    IKE_SA_INIT,
    MPLS_IN_IP,
    SA,
    TS_UNACCEPTABLE,
    TSI,
    ChildNegotiation,
    EspPacket,
)
from .case import (
    ENDS,
    IPV6_ENDS,
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    PINGS,
    PSK,
    Case,
    Evidence,
    Lab,
    check_both_ways,
    check_decrypted,
    check_initiator,
    check_keys,
    check_pings,
    quoted,
    require,
)
from .running import Running

SUITE = "trixie"
SHARED_KEY = 2
PEER_CUSTOMER = SwanContainer.customer
OUR_END, PEER_END = "10.255.0.1", SwanContainer.tunnel_end
CLASS_TABLES = {
    "gold": '\n[[class]]\nname = "gold"\ndscp = ["ef"]\ntc = [5]\n',
    "silver": '\n[[class]]\nname = "silver"\ndscp = ["af11"]\ntc = [2]\n',
    "standard": '\n[[class]]\nname = "standard"\ndscp = ["cs0"]\ntc = [0]\n',
}
EF = 0xB8  # the traffic class octet of DSCP ef
# (label that we take, label that we send)
LABELS = {"gold": (111, 112), "standard": (121, 122), "silver": (131, 132)}


class StrongSwanCase(Case):
    """Our VRF red on one side, charon in a container on the other."""

    def __init__(self, what: str, role: str, suite: str = SUITE) -> None:
        self.role, self.suite = role, suite
        self.peer = f"strongswan-{suite}"
        self.roots = (strongswan_root(suite),)
        self.name = f"{'strongswan' if suite == SUITE else self.peer}-{what}-{role}"

    @property
    def claim(self) -> str:
        """The same whatever version charon is of."""
        return f"{self.feature}, {self.role}"

    @abstractmethod
    def peer_settings(self) -> str:
        """The part of our [[peer]] that differs, with its [[peer.vrf]]."""

    @abstractmethod
    def children(self) -> tuple[Child, ...]:
        """The children that charon knows."""

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        """The connection that charon knows; `names`: its address and ours, its identity and ours."""
        return Connection(
            *names, psk=PSK, children=self.children(), encap=True, proposals=self.peer_proposals
        )

    def more_connections(self, names: tuple[str, str, str, str]) -> tuple[Connection, ...]:
        """Those that charon knows beside it."""
        return ()

    def prepare(self, lab: Lab, container: SwanContainer) -> None:
        """What both programs need in their folders (pe1, pe2) before they start."""

    def front_door(self, network: Network) -> str:
        """The namespace that our program is in."""
        more = [f"{IPV6_ENDS[0]}/64"] if network.has_ipv6 else []
        return network.host("pe1", f"{OUR_ADDRESS}/24", *more)

    ends = ENDS
    """Our address and the peer's, as our side sees them."""
    peer_address = ""
    """The peer's address in our configuration, if it is another one."""
    udp = "always"
    ike: tuple[str, ...] = ("aes256gcm16-prfsha384-x25519",)
    esp: tuple[str, ...] = ("aes256gcm16",)
    """What we propose."""
    peer_proposals = PROPOSALS
    """What charon proposes for the IKE SA."""
    classes: tuple[str, ...] = ()
    start = "none"
    charon_settings = ""
    """Lines of the peer's strongswan.conf, for charon."""
    more_settings = ""
    """Lines of our [[peer]] beyond those that all these cases share."""

    def config(self, red: str) -> str:
        """Our configuration; `red` is the namespace of the VRF's customers."""
        classes = f"classes = [{quoted(self.classes)}]" if self.classes else ""
        tables = "".join(CLASS_TABLES[name] for name in self.classes)
        return f"""
[endpoint]
identity = "pe1.example"
addresses = ["{self.ends[0]}"]

[[vrf]]
name = "red"
{classes}
attach = [{{ tun = "red0", netns = "{red}", address = ["{OUR_CUSTOMER}/24"] }}]
announce = ["10.1.0.0/24"]
{tables}
[[peer]]
name = "pe2"
identity = "pe2.example"
addresses = ["{self.peer_address or self.ends[1]}"]
auth = {{ psk_file = "peer.psk" }}
ike = [{quoted(self.ike)}]
esp = [{quoted(self.esp)}]
mode = "tunnel"
udp = "{self.udp}"
start = "{self.start}"
{self.more_settings}{self.peer_settings()}"""

    @contextmanager
    def running(self, lab: Lab) -> Iterator[Running[SwanContainer]]:
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            front_door, red = self.front_door(network), network.namespace("red")
            container = SwanContainer(lab.daemon, network, folder=lab.folder / "pe2", suite=self.suite)
            stack.enter_context(container)
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge))
            self.prepare(lab, container)
            names = (self.ends[1], self.ends[0], "pe2.example", "pe1.example")
            connections = (self.connection(names), *self.more_connections(names))
            charon = container.start_strongswan(*connections, settings=self.charon_settings)
            ours = Mplsec(lab.folder / "pe1", self.config(red), PSK, netns=front_door, state=lab.state)
            stack.enter_context(ours)
            yield Running(lab, network, red, container, charon, ours)

    def facts(self, now: Running[SwanContainer]) -> dict[str, Any]:
        """What both sides say at the end."""
        return now.facts()

    def check_tunnel(self, evidence: Evidence, next_header: int = 4) -> list[str]:
        """What these cases share: who began; nothing but UDP-encapsulated tunnel-mode ESP that opens."""
        seen = [
            check_initiator(evidence, self.role, self.ends),
            check_decrypted(evidence),
            check_keys(evidence),
        ]
        for packet in evidence.esp:
            require(packet.is_udp_encapsulated, f"not UDP-encapsulated: {packet}")
            require(packet.next_header == next_header, f"not tunnel mode: {packet}")
        for child in evidence.children:
            require(not child.is_transport, "transport mode was agreed")
        return seen


class IpTunnelCase(StrongSwanCase):
    """The simplest tunnel: a PSK, two subnets, IP inside."""

    feature = "PSK, tunnel mode between two subnets, plain IP inside"
    our_child, their_child = "red", "net"
    first_exchange = IKE_AUTH

    def __init__(self, role: str, suite: str = SUITE) -> None:
        super().__init__("ip-tunnel", role, suite)

    def peer_settings(self) -> str:
        return """selectors = "plain"
encapsulation = "none"

[[peer.vrf]]
name = "red"
accept = ["10.2.0.0/24"]
"""

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        return replace(super().connection(names), more=("childless = never",))

    def children(self) -> tuple[Child, ...]:
        return (Child(self.their_child, "10.2.0.0/24", "10.1.0.0/24", mode="tunnel"),)

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            return now.ping_both_ways() | now.facts()

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        made = [child.request.exchange for child in evidence.children if child.is_accepted]
        require(made == [self.first_exchange], f"children were made in the exchanges {made}")
        proofs = {one.octets[4] for message in evidence.ike for one in message.payloads if one.type == AUTH}
        require(proofs == {SHARED_KEY}, f"AUTH methods {sorted(proofs)}, not the pre-shared key's alone")
        return [*seen, *check_both_ways(evidence, OUR_CUSTOMER, PEER_CUSTOMER, self.ends)]

    def check_packets(self, evidence: Evidence) -> list[str]:
        seen = self.check_tunnel(evidence)
        for packet in evidence.esp:
            require(packet.layers[:2] == ("ip", "icmp"), f"not IP and ICMP inside: {packet}")
        return seen


class ChildlessCase(IpTunnelCase):
    """IKE_AUTH makes no child: the first one is made by CREATE_CHILD_SA."""

    first_exchange = CREATE_CHILD_SA
    feature = "childless IKE_AUTH (RFC 6023), the child by CREATE_CHILD_SA"

    def __init__(self, role: str, suite: str = SUITE) -> None:
        StrongSwanCase.__init__(self, "childless", role, suite)

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        return replace(super().connection(names), more=("childless = force",))

    def check(self, evidence: Evidence) -> list[str]:
        seen = super().check(evidence)
        offers = [one for one in evidence.ike if one.exchange == IKE_SA_INIT and one.is_response]
        offered = all(CHILDLESS_IKEV2_SUPPORTED in one.notifies for one in offers)
        require(offers and offered, "the responder does not offer CHILDLESS_IKEV2_SUPPORTED")
        auth = [one for one in evidence.ike if one.exchange == IKE_AUTH]
        with_child = [one for one in auth if one.payload(SA) or one.payload(TSI)]
        require(len(auth) == 2 and not with_child, "IKE_AUTH is not childless")
        return [*seen, "CHILDLESS_IKEV2_SUPPORTED, IKE_AUTH without SA and TS, the child by CREATE_CHILD_SA"]


class SeclabelCase(StrongSwanCase):
    """A child for each class of VRF red, told apart by TS_SECLABEL; inside the tunnel MPLS-in-IP."""

    classes: tuple[str, ...] = ("gold", "standard")

    def peer_settings(self) -> str:
        labels = ", ".join(
            f'{name} = {{ local = {LABELS[name][0]}, peer = {LABELS[name][1]}, routes = ["10.2.0.0/24"] }}'
            for name in self.classes
        )
        return f"""selectors = "seclabel"
encapsulation = "mpls-in-ip"

[[peer.vrf]]
name = "red"
classes = [{quoted(self.classes)}]
addresses = {{ local = "{OUR_END}", peer = "{PEER_END}" }}
labels = {{ {labels} }}
"""

    def children(self) -> tuple[Child, ...]:
        return tuple(_labelled_child(name) for name in ("gold", "standard"))


def _labelled_child(name: str) -> Child:
    selectors = (f"{PEER_END}/32[{MPLS_IN_IP}]", f"{OUR_END}/32[{MPLS_IN_IP}]")
    return Child(name, *selectors, mode="tunnel", label=f"mpls:vrf=red;class={name}")


def negotiated(evidence: Evidence, label: str) -> list[ChildNegotiation]:
    """The accepted children, the first and its rekeys, whose answers carry exactly this security label."""
    found = [child for child in evidence.children if child.is_accepted and child.labels == {label}]
    require(found, f"no child with TS_SECLABEL {label} was accepted")
    for child in found:
        require(child.protocols == {MPLS_IN_IP}, f"its selectors name the protocols {child.protocols}")
    return found


def check_stack(packet: EspPacket, labels: set[int]) -> None:
    """Inside the tunnel: IP with protocol 137, one label of the set with S=1, IP."""
    require(packet.layers[:3] == ("ip", "mpls", "ip"), f"not MPLS-in-IP inside the tunnel: {packet}")
    require(packet.inner[0].number("ip.proto") == MPLS_IN_IP, f"inner protocol is not 137: {packet}")
    require(len(packet.labels) == 1, f"not a single label: {packet}")
    label, bottom = packet.labels[0]
    require(bottom == 1 and label in labels, f"not a label of {sorted(labels)} with S=1: {packet}")


class TwoClassesCase(SeclabelCase):
    """Both children come up, and traffic of each class goes by its own label on its own SA."""

    feature = "two label classes by TS_SECLABEL (label_mode simple), MPLS-in-IP in tunnel mode"

    def __init__(self, role: str, suite: str = SUITE) -> None:
        super().__init__("seclabel", role, suite)

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, "gold", "standard")
            now.machine.answer_mpls(peer=OUR_END, labels={sent: taken for taken, sent in LABELS.values()})
            answers = {
                "gold_answers": now.ping(traffic_class=EF),
                "standard_answers": now.ping(),
                "answers_to_peer": now.machine.ping_mpls(
                    peer=OUR_END, label=LABELS["standard"][0], target=OUR_CUSTOMER, count=PINGS
                ),
            }
            return answers | now.facts()

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_tunnel(evidence)
        spis = {
            name: {child.spis[PEER_ADDRESS] for child in negotiated(evidence, f"mpls:vrf=red;class={name}")}
            for name in self.classes
        }
        first = {}
        for name in self.classes:
            on_its_sas = [packet for packet in evidence.esp if packet.spi in spis[name]]
            require(on_its_sas, f"nothing on the SAs of class {name}")
            for packet in on_its_sas:
                check_stack(packet, {LABELS[name][1]})
            first[name] = on_its_sas[0]
        taken = {LABELS[name][0] for name in self.classes}
        for packet in evidence.esp:
            if packet.source == PEER_ADDRESS:
                check_stack(packet, taken)
        require(evidence.fact("gold_answers") == PINGS, "pings of class gold were lost")
        require(evidence.fact("standard_answers") == PINGS, "pings of class standard were lost")
        require(evidence.fact("answers_to_peer") == PINGS, "pings of the peer's customer were lost")
        check_pings(evidence, PEER_CUSTOMER, OUR_CUSTOMER, PEER_ADDRESS)
        return [
            *seen,
            *(f"mpls:vrf=red;class={name} on SPI {first[name].spi:#010x}" for name in self.classes),
            *(str(packet) for packet in first.values()),
        ]


class WrongLabelCase(SeclabelCase):
    """A child with a label that the other side does not know is refused, and the IKE SA goes on."""

    feature = "TS_SECLABEL that nobody knows: TS_UNACCEPTABLE, the IKE SA stays"

    def __init__(self, role: str, suite: str = SUITE) -> None:
        super().__init__("wrong-label", role, suite)
        self.classes = ("gold", "silver") if role == "initiator" else ("gold",)
        self.wrong = "silver" if role == "initiator" else "standard"

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            if self.role == "initiator":
                said = now.ours.try_to_initiate("pe2")
            else:
                now.charon.initiate("gold")
                said = now.charon.try_to_initiate(self.wrong)
            now.charon.wait_for_children(1)
            now.machine.answer_mpls(peer=OUR_END, labels={sent: taken for taken, sent in LABELS.values()})
            now.charon.rekey("gold")
            now.charon.wait_for_children(1)
            answers = {"gold_answers": now.ping(traffic_class=EF), "said": said}
            refused = [line for line in now.ours.log.read_text().splitlines() if "TS_UNACCEPTABLE" in line]
            return answers | now.facts() | {"our_reason": refused}

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_tunnel(evidence)
        negotiated(evidence, "mpls:vrf=red;class=gold")
        wrong = f"mpls:vrf=red;class={self.wrong}"
        asked_by = OUR_ADDRESS if self.role == "initiator" else PEER_ADDRESS
        refused = [child for child in evidence.children if not child.is_accepted and child.labels == {wrong}]
        require(refused, f"no child with TS_SECLABEL {wrong} was refused")
        for child in refused:
            require(child.request.source == asked_by, f"{wrong} was asked for by {child.request.source}")
            require(TS_UNACCEPTABLE in child.response.notifies, f"refused by {child.response.notifies}")
        last = max(child.response.packet.number for child in refused)
        require(
            not [child for child in evidence.children if child.is_accepted and child.labels == {wrong}],
            f"a child with TS_SECLABEL {wrong} was accepted",
        )
        goes_on = [
            child
            for child in evidence.children
            if child.is_accepted
            and child.is_rekey
            and child.request.exchange == CREATE_CHILD_SA
            and child.request.spi_i == refused[0].request.spi_i
            and child.request.packet.number > last
        ]
        require(goes_on, "nothing was negotiated in the same IKE SA after the refusal")
        require(evidence.fact("gold_answers") == PINGS, "pings of class gold were lost")
        require(evidence.fact("our_reason"), "our log does not name TS_UNACCEPTABLE")
        after = [packet for packet in evidence.esp if packet.packet.number > last]
        require(after, "no ESP after the refusal")
        for packet in after:
            check_stack(packet, {LABELS["gold"][0 if packet.source == PEER_ADDRESS else 1]})
        return [
            *seen,
            f"{wrong} asked for by {asked_by}: TS_UNACCEPTABLE (frame {last})",
            f"same IKE SA: gold rekeyed in frame {goes_on[0].request.packet.number}",
            f"our reason: {evidence.fact('our_reason')[0]}",
        ]


ROLES = ("initiator", "responder")
CASES: tuple[StrongSwanCase, ...] = (
    *(kind(role) for kind in (IpTunnelCase, ChildlessCase, TwoClassesCase, WrongLabelCase) for role in ROLES),
    *(
        kind(role, suite)
        for suite in ("bookworm", "forky")
        for kind in (IpTunnelCase, ChildlessCase, TwoClassesCase)
        for role in ROLES
    ),
)
