"""VRF and label class negotiated by TS_SECLABEL with an unmodified strongSwan, kept apart by the Linux kernel.

Must not know: how our program does it. At the peer both children have the same reqid, so that the one inbound
policy takes both; outbound, the mark of the tunnel device chooses the policy and so the SA.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..networks import Network
from ..packages import KERNEL_SUITE
from ..peers.linux_pe import LinuxPe
from ..peers.strongswan import Child
from ..wire import ChildNegotiation, EspPacket
from .case import (
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    PINGS,
    Evidence,
    Lab,
    check_decrypted,
    check_initiator,
    check_keys,
    require,
)
from .linux_pe import PEER_CUSTOMER, LinuxPeCase
from .running import Running, check_stream
from .strongswan import CLASS_TABLES, EF, negotiated

LABELS = {"gold": (111, 112), "standard": (121, 122)}
"""(label that we take, label that we send)"""
MARKS = {"gold": 0x10, "standard": 0x20}
TRAFFIC_CLASS = {"gold": EF, "standard": 0}
PHASES = ("before", "after")


class TwoClassesOnLinux(LinuxPeCase):
    """Each class by its own label on its own SA, both ways, through a rekey of each child, counted by both sides.

    At the end the peer sends with the label of gold on the SA of standard, which we must not take.
    """

    feature = (
        "VRF and class by TS_SECLABEL, classes kept apart by the kernel with marks, strict, through rekeys"
    )

    def __init__(self, role: str, suite: str = KERNEL_SUITE) -> None:
        super().__init__("mpls-in-ip", False, role, suite)
        self.name = f"{self.peer}-two-classes-{role}"
        self.feature = type(self).feature

    def config(self, red: str) -> str:
        return f"""
[endpoint]
identity = "pe1.example"
addresses = ["{OUR_ADDRESS}"]

[[vrf]]
name = "red"
classes = ["gold", "standard"]
attach = [{{ tun = "red0", netns = "{red}", address = ["{OUR_CUSTOMER}/24"] }}]
announce = ["10.1.0.0/24"]
{CLASS_TABLES["gold"]}{CLASS_TABLES["standard"]}
[[peer]]
name = "pe2"
identity = "pe2.example"
addresses = ["{PEER_ADDRESS}"]
auth = {{ psk_file = "peer.psk" }}
ike = ["aes256gcm16-prfsha384-x25519"]
esp = ["aes256gcm16"]
selectors = "seclabel"
strict_child = true
mode = "transport"
encapsulation = "mpls-in-ip"
start = "none"

[[peer.vrf]]
name = "red"
classes = ["gold", "standard"]

[peer.vrf.labels]
gold     = {{ local = {LABELS["gold"][0]}, peer = {LABELS["gold"][1]}, routes = ["10.2.0.0/24"] }}
standard = {{ local = {LABELS["standard"][0]}, peer = {LABELS["standard"][1]}, routes = ["10.2.0.0/24"] }}
"""

    def children(self) -> tuple[Child, ...]:
        return tuple(
            Child(
                name,
                "dynamic[137]",
                "dynamic[137]",
                label=f"mpls:vrf=red;class={name}",
                more=("reqid = 7", f"mark_out = {MARKS[name]:#x}"),
            )
            for name in LABELS
        )

    def machine(self, network: Network, lab: Lab) -> LinuxPe:
        linux = super().machine(network, lab)
        try:
            linux.separate_classes(LABELS, MARKS, OUR_ADDRESS)
        except BaseException:
            linux.stop()
            raise
        return linux

    def drive(self, lab: Lab) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        with self.running(lab) as now:
            now.bring_up(self.role, *LABELS)
            facts["answers"] = [
                answers
                for octet in TRAFFIC_CLASS.values()
                for answers in (
                    now.ping(traffic_class=octet),
                    now.machine.ping(OUR_CUSTOMER, count=PINGS, traffic_class=octet),
                )
            ]
            facts["before"] = counters(now)
            gold, standard = (
                now.stream(facts, name, traffic_class=octet) for name, octet in TRAFFIC_CLASS.items()
            )
            with gold, standard:
                now.ours.rekey("pe2", "red/gold")
                now.wait_for_answers("gold")
                now.charon.rekey("standard")
                now.charon.wait_for_children(2)
                now.wait_for_answers("gold", 10)
                now.wait_for_answers("standard", 10)
            facts["after"] = counters(now)
            wrong = f"ip route add vrf red {OUR_CUSTOMER}/32 encap mpls {LABELS['gold'][0]} dev tunnel"
            now.machine.sh(wrong)
            facts["answers_to_wrong"] = now.machine.ping(OUR_CUSTOMER, count=PINGS, wait_s=1)
            return facts | self.facts(now)

    def check(self, evidence: Evidence) -> list[str]:
        seen = [check_initiator(evidence, self.role), check_decrypted(evidence), check_keys(evidence)]
        children = {name: negotiated(evidence, f"mpls:vrf=red;class={name}") for name in LABELS}
        for name, by in (("gold", OUR_ADDRESS), ("standard", PEER_ADDRESS)):
            made = children[name]
            require(
                len(made) == 2 and made[1].is_rekey, f"{name}: {len(made)} children, not one and its rekey"
            )
            require(made[1].request.source == by, f"{name} was not rekeyed by {by}")
            require(all(child.is_transport for child in made), f"{name} is not in transport mode")
            seen.append(
                f"{name}: mpls:vrf=red;class={name} on SPIs {spis(made[0])}, rekeyed by {by}: {spis(made[1])}"
            )
        wrong = self._check_wrong(evidence, children["standard"][1])
        for packet in evidence.esp:
            if packet not in wrong:
                _check_separated(packet, children)
        require(evidence.fact("answers") == [PINGS] * 4, f"answers to pings: {evidence.fact('answers')}")
        seen += [check_stream(evidence, PEER_CUSTOMER, name) for name in LABELS]
        seen += self._check_counters(evidence, children, wrong)
        errors = evidence.fact("kernel_errors")
        require(not errors, f"the kernel counted errors: {errors}")
        return seen

    def _check_wrong(self, evidence: Evidence, standard: ChildNegotiation) -> list[EspPacket]:
        """The packets with gold's label on the SA of standard: all of them at the end, none answered."""
        spi = standard.spis[OUR_ADDRESS]
        wrong = [one for one in evidence.esp if one.spi == spi and one.labels == [(LABELS["gold"][0], 1)]]
        require(wrong == evidence.esp[-PINGS:], "not three packets with a foreign label at the end")
        require(evidence.fact("answers_to_wrong") == 0, "packets with a foreign label were answered")
        return wrong

    def _check_counters(
        self, evidence: Evidence, children: dict[str, list[ChildNegotiation]], wrong: list[EspPacket]
    ) -> list[str]:
        """What both sides counted on each SA is what the wire had: of the first SAs, and of those after the rekeys."""
        seen = []
        for phase, generation in ((0, 0), (1, 1)):
            ours, kernel = evidence.fact(PHASES[phase])
            for name, made in children.items():
                for address, direction in ((OUR_ADDRESS, "packets_in"), (PEER_ADDRESS, "packets_out")):
                    spi = made[generation].spis[address]
                    on_wire = sum(one.spi == spi and one not in wrong for one in evidence.esp)
                    # Before the rekeys: `PINGS` requests of one side and `PINGS` answers to the other's.
                    expected = on_wire if phase else 2 * PINGS
                    own = ours.get(f"red/{name} {direction} {spi:08x}")
                    require(own == expected, f"{name}: we counted {own} on {spi:#x}, not {expected}")
                    theirs = kernel.get(f"{spi:08x}")
                    require(
                        theirs == expected, f"{name}: the kernel counted {theirs} on {spi:#x}, not {expected}"
                    )
                    seen.append(
                        f"{name} {PHASES[phase]} the rekey: SA {spi:#010x} {expected} packets on both sides"
                    )
        drops = evidence.fact("drops")
        require(drops == {"label_foreign": PINGS}, f"what we dropped: {drops}")
        return [*seen, f"gold's label on the SA of standard: {PINGS} packets dropped as label_foreign"]

    def facts(self, now: Running[LinuxPe]) -> dict[str, Any]:
        facts = super().facts(now)
        drops: dict[str, int] = {}
        for peer in facts["our_status"]["peers"]:
            for child in peer["children"]:
                for reason, count in child["drops"].items():
                    drops[reason] = drops.get(reason, 0) + count
        return facts | {"drops": drops}


def counters(now: Running[LinuxPe]) -> tuple[dict[str, int], dict[str, int]]:
    """Packets on each SA as we tell them, by child, direction and SPI, and as the kernel does, by SPI."""
    ours = {
        f"{child['name']} {direction} {child[spi]}": child[direction]
        for child in now.ours.children()
        for direction, spi in (("packets_in", "spi_in"), ("packets_out", "spi_out"))
    }
    states = [asdict(state) for state in now.machine.xfrm_states()]
    return ours, {f"{state['spi']:08x}": state["packets"] for state in states}


def spis(child: ChildNegotiation) -> str:
    return ", ".join(f"{spi:#010x} to {address}" for address, spi in sorted(child.spis.items()))


def _check_separated(packet: EspPacket, children: dict[str, list[ChildNegotiation]]) -> None:
    """A packet's DSCP, its label and the SA that carries it are of one class."""
    name = "gold" if packet.dscp == EF >> 2 else "standard"
    receiver = PEER_ADDRESS if packet.source == OUR_ADDRESS else OUR_ADDRESS
    agreed = {child.spis[receiver] for child in children[name]}
    require(packet.spi in agreed, f"class {name} not on an SA of its own: {packet}")
    label = LABELS[name][0 if receiver == OUR_ADDRESS else 1]
    require(packet.next_header == 137 and not packet.is_udp_encapsulated, f"not raw ESP with 137: {packet}")
    require(packet.labels == [(label, 1)], f"class {name} not by the single label {label}: {packet}")


CASES = tuple(
    TwoClassesOnLinux(role, suite) for suite in (KERNEL_SUITE, "forky") for role in ("initiator", "responder")
)
