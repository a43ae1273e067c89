"""The compiled forwarding against the blackboard's: random PEs, routes that come and go, packets of every kind."""

import random
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from mpls.child_policy import EgressPolicy, PlainMap
from mpls.classes import LabelClass
from mpls.crypto_map import Action, Bypass, CryptoMap, Discard, Match, Protect, Rule, compile_default
from mpls.encapsulation import Encapsulation, Mode
from mpls.hop import Drop
from mpls.inbound import Delivery, check_inbound
from mpls.ip import build_ip
from mpls.label_space import LabelSpace
from mpls.labels import LabelEntry
from mpls.models import QosModel, TtlModel
from mpls.outbound import Bypassed, Labelled, Outbound
from mpls.routes import ForwardingTable
from mpls.vrf import Attachment, Urpf, Vrf
from tests.mpls.reference import Outcome, ReferencePe, networks

CASES = 20_000
PACKETS_OF_A_PE = 400
PEERS = ("pe2", "pe3", "pe4")
PREFIXES = networks(
    "0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.2.0.0/16", "10.2.3.0/24", "10.2.3.4/32",
    "::/0", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:2::/48", "2001:db8:2::4/128",
)  # fmt: skip
HOSTS = {
    4: ("10.1.0.1", "10.1.1.1", "10.1.1.9", "10.1.2.9", "10.2.3.4", "10.2.3.5", "10.2.9.9", "192.0.2.9"),
    6: ("2001:db8:1::1", "2001:db8:1::9", "2001:db8:2::4", "2001:db8:2::5", "2001:db8:9::9", "fd00::9"),
}
CLASSES = (
    LabelClass(0),
    LabelClass("gold", frozenset({46, 40}), (5, 6), 46),
    LabelClass("silver", frozenset({10, 12, 14}), (3,), None),
    LabelClass("rest", tc=(0,), outer_dscp=0),
)
DSCPS = (0, 10, 14, 40, 46, 63)
PORTS = (53, 80, 6635)


class World:
    """One random PE, built twice: as `mpls` builds it and at the blackboard."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.vrfs = [self._vrf(name) for name in ("red", "blue", "green")]
        rules = [self._rule(number) for number in range(self.random.randrange(5))]
        rules += compile_default(self.vrfs).rules[:-1]
        self.table = ForwardingTable(PEERS[:2])
        self.outbound = Outbound(self.vrfs, CryptoMap(rules, cache_flows=8), self.table)
        self.reference = ReferencePe({vrf.name: vrf for vrf in self.vrfs}, rules, list(PEERS[:2]))
        self.labels = LabelSpace()
        for _ in range(12):
            self._give_out_label()

    def _vrf(self, name: str) -> Vrf:
        some = self.random
        attachments = tuple(
            Attachment(
                f"{name}{number}",
                tuple(
                    ip_interface(text)
                    for text in some.sample(
                        ("10.1.0.1/24", "10.1.1.1/24", "2001:db8:1::1/64"), some.randrange(3)
                    )
                ),
                tuple(some.sample(PREFIXES[1:7] + PREFIXES[8:], some.randrange(3))),
            )
            for number in range(1 + some.randrange(2))
        )
        classes = tuple(some.sample(CLASSES, 1 + some.randrange(len(CLASSES))))
        announce = tuple(some.sample(PREFIXES[2:4] + PREFIXES[9:10], some.randrange(3)))
        classes = tuple(replace(one, qos_model=some.choice(list(QosModel))) for one in classes)
        urpf, ttl_model = some.choice(list(Urpf)), some.choice(list(TtlModel))
        return Vrf(name, f"name:{name}", classes, urpf, attachments, announce, ttl_model=ttl_model)

    def _rule(self, number: int) -> Rule:
        some = self.random
        vrf = some.choice(self.vrfs)
        action: Action = some.choice(
            (
                Discard(),
                Bypass(),
                Protect(vrf.name, some.choice(vrf.classes).id, some.choice((None, *PEERS))),
            )
        )
        protocol = some.choice((None, 17, 6))
        ports = some.choice((None, (53, 80), (80, 80))) if protocol else None
        match = Match(
            vrf=some.choice((None, "red", "blue")),
            attachment=some.choice((None, None, "red0", "blue0")),
            labelled=some.choice((None, None, False, True)),
            sources=some.choice((None, None, tuple(some.sample(PREFIXES, 2)))),
            destinations=some.choice((None, None, tuple(some.sample(PREFIXES, 2)))),
            protocol=protocol,
            destination_ports=ports,
            dscp=some.choice((None, None, frozenset(some.sample(DSCPS, 2)))),
        )
        return Rule(f"rule{number}", match, action)

    def _give_out_label(self) -> None:
        some, label = self.random, self.random.randrange(16, 40)
        if label in self.reference.labels:
            return
        vrf = some.choice(self.vrfs)
        owner = some.choice(PEERS), vrf.name, some.choice(vrf.classes).id, some.choice((1, 2, 3))
        self.labels.reserve(label, *owner[:3], payload=owner[3])
        self.reference.labels[label] = owner

    def change_routes(self) -> None:
        """One route, per-VRF label or candidate comes or goes, in both."""
        some, table, reference = self.random, self.table, self.reference
        vrf, peer, prefix = some.choice(self.vrfs), some.choice(PEERS), some.choice(PREFIXES)
        class_id, label = some.choice(vrf.classes).id, some.randrange(16, 1 << 20)
        match some.randrange(7):
            case 0 | 1 | 2:
                source = some.choice(("binding", "static"))
                bound = some.choice((label, label, None)) if source == "static" else label
                table.add(
                    peer, vrf.name, class_id, prefix, bound, "static" if source == "static" else "binding"
                )
                reference.routes[vrf.name, class_id, prefix, peer, source] = bound
            case 3:
                table.remove(peer, vrf.name, class_id, prefix)
                reference.routes.pop((vrf.name, class_id, prefix, peer, "binding"), None)
            case 4:
                table.bind_vrf_label(peer, vrf.name, class_id, label)
                reference.vrf_labels[peer, vrf.name, class_id] = label
            case 5:
                table.unbind_vrf_label(peer, vrf.name, class_id)
                reference.vrf_labels.pop((peer, vrf.name, class_id), None)
            case 6:
                table.add_candidate(peer, vrf.name, class_id, prefix)
                reference.candidates.add((vrf.name, class_id, prefix, peer))

    def packet(self) -> bytes:
        some = self.random
        hosts = HOSTS[some.choice((4, 6))]
        source, destination = (ip_address(some.choice(hosts)).packed for _ in range(2))
        udp = some.choice(PORTS).to_bytes(2, "big") + some.choice(PORTS).to_bytes(2, "big") + bytes(4)
        ttl = some.choice((0, 1, 2, 64, 64, 64, 255))
        return build_ip(source, destination, 17, udp, dscp=some.choice(DSCPS), ecn=some.randrange(4), ttl=ttl)

    def policy(self) -> EgressPolicy:
        some = self.random
        vrf = some.choice(self.vrfs)
        child_map = PlainMap(
            Encapsulation.MPLS_IN_IP.mask,
            tc=some.choice((0xFF, 0b0110_0000, 0b1)),
            ranges=some.choice((((16, (1 << 20) - 1),), ((16, 30), (35, 36)))),
        )
        class_id, strict = some.choice(vrf.classes).id, some.random() < 0.7
        here = frozenset({"192.0.2.1"})
        peer = some.choice(PEERS)
        return EgressPolicy(
            peer, vrf.name, class_id, child_map, Mode.TRANSPORT, "192.0.2.2", here, strict=strict
        )

    def labelled(self) -> bytes:
        some = self.random
        label = some.choice((*self.reference.labels, *self.reference.labels, 3, 15, 41, 99))
        entry = LabelEntry(label, some.randrange(8), some.random() < 0.95, some.choice((0, 1, 2, 255, 255)))
        return entry.encode() + some.choice((self.packet(), self.packet(), self.packet(), b""))


def outcome(result: Labelled | Bypassed | Drop | Delivery) -> Outcome:
    match result:
        case Labelled():
            assert result.stack == LabelEntry(result.label or 0, result.tc, True, result.ttl or 255).encode()
            return (
                "labelled", result.peer, result.vrf, result.label_class, result.label, result.tc, result.dscp,
                result.ecn, result.ttl, result.body,
            )  # fmt: skip
        case Bypassed():
            return ("bypass",)
        case Delivery():
            return "deliver", result.vrf, result.label_class, result.packet
    return "drop", result.reason


def compare(seed: str, packets: int) -> None:
    """A random PE and so many packets in either direction; AssertionError where the two disagree."""
    world = World(seed)
    vrfs = {vrf.name: vrf for vrf in world.vrfs}
    attachments = [one.name for vrf in world.vrfs for one in vrf.attachments]
    for _ in range(20):
        world.change_routes()
    for number in range(packets // 2):
        if number % 5 == 0:
            world.change_routes()
        attachment, packet = world.random.choice(attachments), world.packet()
        result = world.outbound.forward(attachment, packet)
        assert outcome(result) == world.reference.forward(attachment, packet), (seed, number, packet.hex())
        policy, payload = world.policy(), world.labelled()
        inbound = check_inbound(policy, world.labels, 137, payload, "192.0.2.2", "192.0.2.1", vrfs)
        assert outcome(inbound) == world.reference.deliver(policy, payload), (seed, number, payload.hex())
        if isinstance(inbound, Delivery) and policy.strict:
            assert (inbound.vrf, inbound.label_class) == (policy.vrf, policy.label_class)


@pytest.mark.parametrize("seed", range(CASES // PACKETS_OF_A_PE))
def test_compiled_tables_forward_as_the_blackboard_says(seed: int) -> None:
    compare(f"reference {seed}", PACKETS_OF_A_PE)


def test_random_pes_see_every_kind_of_outcome() -> None:
    """The comparison is worth something only if packets get everywhere."""
    seen: set[object] = set()
    for seed in range(30):
        world = World(f"kinds {seed}")
        attachments = [one.name for vrf in world.vrfs for one in vrf.attachments]
        for _ in range(150):
            world.change_routes()
            result = world.reference.forward(world.random.choice(attachments), world.packet())
            seen.add(result[1] if result[0] == "drop" else result[0])
            result = world.reference.deliver(world.policy(), world.labelled())
            seen.add(result[1] if result[0] == "drop" else result[0])
    assert {"labelled", "bypass", "deliver"} < seen
    assert len(seen) >= 3 + 14
