"""What the MPLS layer costs: labels beside ESP alone, the crypto map with many rules, many VRFs, many labels.

python -m tests.benchmarks.bench_mpls
"""

from __future__ import annotations

import os
import random
import time
import tracemalloc
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network

from esp.batch import open_batch, seal_batch
from esp.replay import ReplayWindow
from esp.sa import InboundSa, OutboundSa
from esp.transforms import transform_for
from mpls.batch import check_inbound_batch, forward_batch
from mpls.binding_receiver import BindingReceiver
from mpls.binding_sender import BindingSender
from mpls.capability import LABEL_BINDINGS, Capability
from mpls.child_policy import EgressPolicy, PlainMap
from mpls.crypto_map import CryptoMap, Flow, Match, Protect, Rule, compile_default
from mpls.encapsulation import Encapsulation, Mode
from mpls.identifiers import VrfId
from mpls.ip import IPV4_HEADER_OCTETS, build_ip, internet_checksum
from mpls.label_space import LabelSpace
from mpls.labels import LabelEntry
from mpls.outbound import Labelled, Outbound, check_outbound
from mpls.routes import ForwardingTable
from mpls.selectors import MplsVrfSelector
from mpls.vrf import Attachment, Vrf
from tests.benchmarks.results import Result, interleave, print_table, write

OCTETS = 1400
BATCH = 46
BATCHES = 12
"""Short rounds, many of them: the median passes over what else the machine does."""
LABEL_ROUNDS = 41
MPLS_IN_IP = 137
HERE, THERE = "192.0.2.1", "192.0.2.2"
RULES = 10_000
VRFS, PREFIXES = 1_000, 100_000
LABELS = 100_000


def ns_each(work: Callable[[], int]) -> Callable[[], float]:
    """CPU time of one item; `work` says how many items it did."""

    def measure() -> float:
        start = time.process_time_ns()
        count = work()
        return (time.process_time_ns() - start) / count

    return measure


def udp_packet(number: int) -> bytes:
    """One of 1400 octets of a flow; as of a customer's host, each has an identification of its own."""
    packet = bytearray(
        build_ip(ip_address("10.1.0.9").packed, ip_address("10.2.0.9").packed, 17, bytes(OCTETS - 28))
    )
    packet[4:6], packet[10:12] = number.to_bytes(2, "big"), b"\0\0"
    packet[10:12] = internet_checksum(bytes(packet[:IPV4_HEADER_OCTETS])).to_bytes(2, "big")
    return bytes(packet)


def label_path() -> Result:
    """A plain packet of 1400 octets from the customer to the customer, and ESP over the same octets alone."""
    red = Vrf("red", "name:red", attachments=(Attachment("red0", (ip_interface("10.1.0.1/24"),)),))
    table = ForwardingTable(["pe2"])
    table.add("pe2", "red", 0, ip_network("10.2.0.0/24"), 1001)
    outbound = Outbound([red], compile_default([red]), table)
    child_map = PlainMap(Encapsulation.MPLS_IN_IP.mask)
    policy = EgressPolicy("pe1", "red", 0, child_map, Mode.TRANSPORT, HERE, frozenset({THERE}))
    space = LabelSpace()
    space.reserve(1001, "pe1", "red", 0)
    transform, keys = transform_for(20, 256), os.urandom(36)
    sender = OutboundSa(b"\xc0\0\0\1", transform, keys)
    receiver = InboundSa(b"\xc0\0\0\1", transform, keys)
    packets = [udp_packet(number) for number in range(BATCH)]
    payloads = [LabelEntry(1001, 0, True, 255).encode() + packet for packet in packets]

    def esp(batch: list[bytes]) -> list[bytes]:
        receiver.replay = ReplayWindow()
        sealed = seal_batch(sender, batch, MPLS_IN_IP)
        return [one for row in open_batch(receiver, sealed) for one in row.payloads]  # type: ignore[union-attr]

    def esp_alone() -> int:
        for _ in range(BATCHES):
            esp(payloads)
        return BATCHES * BATCH

    def with_labels() -> int:
        for _ in range(BATCHES):
            ready: list[bytes] = []
            for run in forward_batch(outbound, "red0", packets):
                first = run.first
                if not isinstance(first, Labelled):
                    raise SystemExit(f"not forwarded: {first}")
                if check_outbound(child_map, first, Encapsulation.MPLS_IN_IP) is not None:
                    raise SystemExit("outside the selectors")
                ready += run.bodies_behind(first.stack)
            opened = esp(ready)
            delivered = check_inbound_batch(policy, space, MPLS_IN_IP, opened, HERE, THERE, {"red": red})
            if sum(len(run.packets) for run in delivered) != BATCH:
                raise SystemExit("not delivered")
        return BATCHES * BATCH

    ns = interleave({"labels": ns_each(with_labels), "esp": ns_each(esp_alone)}, LABEL_ROUNDS)
    return Result.cost(
        "mpls_label_path_vs_esp_alone", "ns per packet of 1400", ns["labels"], ns["esp"], "ESP alone"
    )


def crypto_map() -> list[Result]:
    """A look-up that the cache answers, and one that it does not, with few rules and with many."""
    some = random.Random(1)

    def rule(number: int) -> Rule:
        third, fourth = number >> 8 & 255, number & 255
        match = (
            Match(vrf=f"vrf{number % 100}", destinations=(ip_network(f"10.{third}.{fourth}.0/24"),)),
            Match(vrf=f"vrf{number % 100}", labels=((1000 + number * 10, 1009 + number * 10),)),
            Match(protocol=17, destination_ports=(number, number + 5), dscp=frozenset({number % 64})),
            Match(attachment=f"core{number}"),
        )[number % 4]
        return Rule(str(number), match, Protect("red", 0))

    def flow(number: int) -> Flow:
        labels = (some.randrange(100_000),) if number % 2 else ()
        destination = ip_address(f"10.{number >> 8 & 255}.{number & 255}.9").packed
        ports = some.randrange(65536), some.randrange(65536)
        return Flow(
            "red0",
            f"vrf{number % 100}",
            labels,
            labels and (0,),
            bytes(4),
            destination,
            17,
            *ports,
            number % 64,
        )

    few, many, few_scanned, many_scanned = (
        CryptoMap([rule(number) for number in range(count)]) for count in (10, RULES, 10, RULES)
    )
    active, scan = [flow(number) for number in range(1000)], [flow(number) for number in range(20_000)]

    def hits(crypto_map: CryptoMap) -> Callable[[], int]:
        def work() -> int:
            for _ in range(50):
                for one in active:
                    crypto_map.lookup(one)
            return 50 * len(active)

        return work

    def misses(crypto_map: CryptoMap) -> Callable[[], int]:
        def work() -> int:
            for one in scan:
                crypto_map.lookup(one)
            return len(scan)

        return work

    variants = {
        "hit few": hits(few),
        "hit many": hits(many),
        "miss few": misses(few_scanned),
        "miss many": misses(many_scanned),
    }
    for warmed in (few, many):  # the active flows are known from here on
        hits(warmed)()
    ns = interleave({name: ns_each(work) for name, work in variants.items()})
    return [
        Result.cost(
            "crypto_map_hit_10000_vs_10", "ns per look-up", ns["hit many"], ns["hit few"], "10 rules"
        ),
        Result.cost(
            "crypto_map_miss_10000_vs_10", "ns per look-up", ns["miss many"], ns["miss few"], "10 rules"
        ),
    ]


def many_vrfs() -> list[Result]:
    """1,000 VRFs with 100,000 prefixes: memory, and a route look-up beside one in a single VRF."""
    tracemalloc.start()
    table, alone = ForwardingTable(["pe2"]), ForwardingTable(["pe2"])
    for number in range(PREFIXES):
        prefix = ip_network(f"10.{number % 256}.{number // 256 % 256}.0/{24 if number % 3 else 26}")
        table.add("pe2", f"vrf{number % VRFS}", 0, prefix, 16 + number)
    mebioctets = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    for number in range(100):
        alone.add("pe2", "vrf0", 0, ip_network(f"10.{number}.0.0/24"), 16 + number)
    wanted = [
        (f"vrf{n % VRFS}", ip_address(f"10.{n % 256}.{n // 256 % 256}.9").packed) for n in range(20_000)
    ]

    def look_up(routes: ForwardingTable, is_alone: bool) -> Callable[[], int]:
        def work() -> int:
            for vrf, destination in wanted:
                routes.route("vrf0" if is_alone else vrf, 0, destination)
            return len(wanted)

        return work

    ns = interleave({"many": ns_each(look_up(table, False)), "one": ns_each(look_up(alone, True))})
    unit = "ns per look-up"
    return [
        Result.cost(
            "route_1000_vrfs_100000_prefixes_vs_one_vrf", unit, ns["many"], ns["one"], "100 prefixes"
        ),
        Result("routes_100000_memory", "MiB", round(mebioctets, 1), None, None, None),
    ]


def many_labels() -> list[Result]:
    """100,000 labels bound to one peer: time and octets of the messages, and the longest single step."""
    capability = Capability(LABELS * 2, LABEL_BINDINGS, 1000)
    red = MplsVrfSelector(VrfId.parse_text("name:red"), 0)
    sender = BindingSender(1, capability)
    receiver = BindingReceiver(capability, capability)
    sender.on_child_established("red", red)
    receiver.on_child_established("red", red, [ip_network("10.0.0.0/8")])
    start = time.process_time()
    for number in range(LABELS):
        prefix = ip_network(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/32")
        sender.bind("red", 0, 16 + number, 3, [prefix])
    octets, messages, longest = 0, 0, 0.0
    while (message := sender.next_message()) is not None:
        before = time.process_time()
        answer = receiver.receive_binding(message)
        sender.on_response(answer.status)
        longest = max(longest, time.process_time() - before)
        octets, messages = octets + len(message), messages + 1
    seconds = time.process_time() - start
    bound = len(receiver.table.labels(("red", 0)))
    if bound != LABELS:
        raise SystemExit(f"{bound} labels were bound, not {LABELS}")
    return [
        Result("labels_100000_bind", "s of CPU, both ends", round(seconds, 2), None, None, None),
        Result("labels_100000_octets", "octets per label", round(octets / LABELS, 1), None, None, None),
        Result("labels_100000_messages", "messages", messages, None, None, None),
        Result("labels_100000_longest_step", "ms", round(longest * 1000, 2), None, None, None),
    ]


def main() -> None:
    results = [label_path(), *crypto_map(), *many_vrfs(), *many_labels()]
    print_table(results)
    write(results)


if __name__ == "__main__":
    main()
