"""mplsec with itself: two processes in two namespaces, native selectors (TS 246), labels by LABEL_BINDING, two classes.

Must not know: how our program does it. The same code on both ends proves nothing about the codecs of our private
parts but that tshark, by the keys of the second process, finds them where WIRE.md puts them.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ..capture import Capture
from ..networks import Network
from ..packages import Root
from ..peers.linux_pe import received
from ..peers.mplsec import Mplsec
from ..processes import run, wait_until
from ..topologies import NAT_ADDRESSES, Nat
from ..wire import CREATE_CHILD_SA, MPLS_IN_IP, TSI, TSR
from .case import (
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    PINGS,
    PSK,
    Case,
    Evidence,
    Lab,
    check_decrypted,
    check_initiator,
    check_keys,
    require,
)
from .paths import BEHIND, check_nat_detection
from .strongswan import CLASS_TABLES, EF

PEER_CUSTOMER = "10.2.0.1"
TS_MPLS_VRF = 246
CLASSES = {"gold": EF, "standard": 0}


class NativeCase(Case):
    """VRF red with two classes; each class by its own label on its own SA, both ways, through a rekey by each side."""

    peer = "mplsec"
    roots: tuple[Root, ...] = ()
    needs_docker = False

    def __init__(self, role: str, side: str = "") -> None:
        self.role, self.side = role, side
        self.topology = f"nat-{side}" if side else "direct"
        self.name = f"mplsec-{f'nat-{side}' if side else 'native'}-{role}"
        where = ", a NAT in front of the side that begins" if side else ""
        self.feature = f"VRF and class by TS 246, labels by LABEL_BINDING, rekeys by each side{where}"
        self.ends = (OUR_ADDRESS, NAT_ADDRESSES[0] if side == "peer" else PEER_ADDRESS)

    def config(self, red: str) -> str:
        address = "any" if self.side == "peer" else PEER_ADDRESS
        return text(red, "pe1", OUR_ADDRESS, "pe2", address)

    def peer_config(self, red: str) -> str:
        address = "any" if self.side == "ours" else OUR_ADDRESS
        return text(red, "pe2", PEER_ADDRESS, "pe1", address)

    def drive(self, lab: Lab) -> dict[str, Any]:
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            ours = self._start(stack, lab, network, "pe1", network.host("pe1", f"{OUR_ADDRESS}/24"))
            far = network.namespace("pe2")
            network.plug(far, "pe2", f"{PEER_ADDRESS}/24")
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge))
            theirs = self._start(stack, lab, network, "pe2", far)
            if self.role == "initiator":
                ours.initiate("pe2")
            else:
                theirs.initiate("pe1")
            wait_until(lambda: len(ours.children()) == len(theirs.children()) == 2, "two children on both")
            answers = [ping(network, side, octet) for octet in CLASSES.values() for side in ("pe1", "pe2")]
            ours.rekey("pe2", "red/gold")
            theirs.rekey("pe1", "red/standard")
            answers += [ping(network, side, octet) for octet in CLASSES.values() for side in ("pe1", "pe2")]
            keys, own = theirs.keys(), ours.keys()
            if isinstance(network, Nat):
                keys, own = keys.by_spi(), own.by_spi()
            keys.write(lab.keys)
            return {
                "peer_version": theirs.version,
                "keys_agree": keys.agrees_with(own),
                "answers": answers,
                "our_status": ours.status(),
                "peer_sas": theirs.ike_sas(),
            }

    def _start(self, stack: ExitStack, lab: Lab, network: Network, name: str, front_door: str) -> Mplsec:
        red = network.namespace(f"{name}-red")
        config = self.config(red) if name == "pe1" else self.peer_config(red)
        state = lab.state / name
        return stack.enter_context(Mplsec(lab.folder / name, config, PSK, netns=front_door, state=state))

    def check(self, evidence: Evidence) -> list[str]:
        seen = [
            check_initiator(evidence, self.role, self.ends),
            check_decrypted(evidence),
            check_keys(evidence),
        ]
        made = [child for child in evidence.children if child.is_accepted]
        for child in made:
            for kind in (TSI, TSR):
                payload = child.response.payload(kind)
                require(payload and bytes([TS_MPLS_VRF, 0]) in payload.octets, "no TS of type 246")
        rekeys = [child.request.source for child in made if child.is_rekey]
        require(rekeys == list(self.ends), f"children rekeyed by {rekeys}")
        require(len(made) == 4, f"{len(made)} children, not two and two successors")
        require(
            any(child.request.exchange == CREATE_CHILD_SA and not child.is_rekey for child in made), "not two"
        )
        require(evidence.fact("answers") == [PINGS] * 8, f"answers: {evidence.fact('answers')}")
        labels: dict[tuple[str, int | None], set[int | None]] = {}
        by_sa: dict[int, set[int | None]] = {}
        for packet in evidence.esp:
            require(packet.next_header == MPLS_IN_IP, f"next header is not {MPLS_IN_IP}: {packet}")
            require(packet.is_udp_encapsulated == bool(self.side), f"UDP encapsulation: {packet}")
            require(len(packet.labels) == 1 and packet.labels[0][1] == 1, f"not a single label: {packet}")
            label = packet.labels[0][0]
            labels.setdefault((packet.source, packet.dscp), set()).add(label)
            by_sa.setdefault(packet.spi, set()).add(label)
        require(len(by_sa) == 8 and all(len(one) == 1 for one in by_sa.values()), f"labels by SA: {by_sa}")
        for source in self.ends:
            gold, standard = (labels.get((source, octet >> 2), set()) for octet in CLASSES.values())
            require(gold and standard and not gold & standard, f"{source}: labels {gold} and {standard}")
            seen.append(
                f"{source}: gold by {sorted(map(str, gold))}, standard by {sorted(map(str, standard))}"
            )
        if self.side:
            seen += check_nat_detection(evidence)
        return seen


def ping(network: Network, side: str, octet: int) -> int:
    """Ping from the customer of one side to that of the other; how many answers came."""
    source, target = (OUR_CUSTOMER, PEER_CUSTOMER) if side == "pe1" else (PEER_CUSTOMER, OUR_CUSTOMER)
    options = ["-Q", str(octet), "-c", str(PINGS), "-l", str(PINGS), "-W", "5", "-I", source]
    return received(run(["ping", *options, target], netns=f"{network.prefix}{side}-red", check=False).stdout)


def text(red: str, own: str, address: str, other: str, peer_address: str) -> str:
    """The configuration of one of the two."""
    mine, theirs = (1, 2) if own == "pe1" else (2, 1)
    return f"""
[endpoint]
identity = "{own}.example"
addresses = ["{address}"]

[[vrf]]
name = "red"
classes = ["gold", "standard"]
attach = [{{ tun = "red0", netns = "{red}", address = ["10.{mine}.0.1/24"] }}]
announce = ["10.{mine}.0.0/24"]
{CLASS_TABLES["gold"]}{CLASS_TABLES["standard"]}
[[peer]]
name = "{other}"
identity = "{other}.example"
addresses = ["{peer_address}"]
auth = {{ psk_file = "peer.psk" }}
ike = ["aes256gcm16-prfsha384-x25519"]
esp = ["aes256gcm16"]
selectors = "native"
mode = "transport"
encapsulation = "mpls-in-ip"
udp = "auto"
start = "none"

[[peer.vrf]]
name = "red"
classes = ["gold", "standard"]
accept = ["10.{theirs}.0.0/16"]
"""


CASES: tuple[NativeCase, ...] = (
    *(NativeCase(role) for role in ("initiator", "responder")),
    *(NativeCase(role, side) for side, role in BEHIND.items()),
)
