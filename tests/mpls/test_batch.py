"""Many packets at once have the outcomes, octet for octet, that each of them has alone."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpls.batch import _octets_in_front, check_inbound_batch, forward_batch
from mpls.child_policy import AddressMatch, EgressPolicy, PlainMap
from mpls.classes import LabelClass
from mpls.crypto_map import compile_default
from mpls.encapsulation import Encapsulation, Encapsulator, Mode
from mpls.headers import runs
from mpls.hop import Drop
from mpls.identifiers import ClassId
from mpls.inbound import Delivery, check_inbound
from mpls.ip import build_ip, decrement_ttl, internet_checksum
from mpls.label_space import LabelSpace
from mpls.labels import LabelStack
from mpls.outbound import Bypassed, Labelled, Outbound
from mpls.routes import ForwardingTable
from mpls.vrf import Attachment, Vrf

HERE, THERE = "192.0.2.1", "192.0.2.2"
GRE = b"\0\0\x88\x47"
CLASSES = (LabelClass("gold", frozenset({46}), (5, 6)), LabelClass("rest"))
RED = Vrf(
    "red",
    "name:red",
    CLASSES,
    attachments=(Attachment("a", (ip_interface("10.1.0.1/24"), ip_interface("2001:db8:1::1/64"))),),
)
SOURCES = ("10.1.0.1", "10.1.0.9", "10.1.0.9", "192.0.2.1", "2001:db8:1::1", "2001:db8:1::9")
DESTINATIONS = ("10.2.0.9", "10.9.0.9", "10.1.0.1", "10.1.0.9", "2001:db8:2::9", "2001:db8:1::1")


def with_checksum(octets: bytes) -> bytes:
    if len(octets) < 20 or octets[0] >> 4 != 4:
        return octets
    blank = octets[:10] + b"\0\0" + octets[12:]
    return blank[:10] + internet_checksum(blank[: (octets[0] & 15) * 4]).to_bytes(2, "big") + blank[12:]


def packet(source: str, destination: str, number: int, size: int, *, ttl: int = 64, dscp: int = 0) -> bytes:
    ends = ip_address(source).packed, ip_address(destination).packed
    made = build_ip(*ends, 17, bytes.fromhex("03e80035") + bytes(size), ttl=ttl, dscp=dscp)
    if len(ends[0]) == 4:  # the identification of another packet of the flow
        made = with_checksum(made[:4] + number.to_bytes(2, "big") + made[6:])
    return made


# A run: a flow, and what becomes of its packets: a changed octet, with IPv4's checksum set right or not, some cut
# off or some padding.
changes = st.one_of(
    st.just((0, 0, False, 0)),
    st.just((0, 0, False, 0)),
    st.tuples(st.integers(0, 47), st.integers(1, 255), st.booleans(), st.integers(-30, 6)),
    st.tuples(st.just(0), st.just(0), st.just(False), st.integers(-30, 6)),
)
flows = st.tuples(
    st.sampled_from([(a, b) for a in SOURCES for b in DESTINATIONS if (":" in a) == (":" in b)]),
    st.lists(st.tuples(st.sampled_from([0, 8, 8, 8, 9, 40]), changes), min_size=1, max_size=6),
    st.sampled_from([64, 64, 64, 1, 2, 0]),
    st.sampled_from([0, 0, 46]),
    st.sampled_from([0, 0, 3]),
)


@st.composite
def batches(draw: st.DrawFn) -> list[bytes]:
    packets = []
    for (source, destination), rest, ttl, dscp, padding in draw(st.lists(flows, max_size=5)):
        for number, (size, (at, flip, is_repaired, cut)) in enumerate(rest):
            octets = bytearray(packet(source, destination, number, size, ttl=ttl, dscp=dscp) + bytes(padding))
            octets[at % len(octets)] ^= flip
            changed = with_checksum(bytes(octets)) if is_repaired else bytes(octets)
            packets.append(changed[:cut] if cut < 0 else changed + bytes(cut))
    return packets


def walk() -> Outbound:
    table = ForwardingTable(["pe2"])
    for label_class, label in (("gold", 100), ("rest", 101)):
        table.add("pe2", "red", label_class, ip_network("10.2.0.0/16"), label)
        table.add("pe2", "red", label_class, ip_network("2001:db8:2::/48"), label)
    return Outbound([RED], compile_default([RED]), table)


@given(batches())
def test_outbound_is_forward_many_times(packets: list[bytes]) -> None:
    outcomes: list[Labelled | Bypassed | Drop] = []
    seen = []
    for one in forward_batch(walk(), "a", packets):
        seen += one.packets
        if isinstance(one.first, Labelled):
            assert one.bodies[0] == one.first.body
            assert one.bodies_behind(b"abcd") == [b"abcd" + body for body in one.bodies]
            outcomes += [one.first._replace(body=body) for body in one.bodies]
        else:
            assert len(one.packets) == 1 and not one.bodies
            outcomes.append(one.first)
    reference = walk()
    assert seen == packets
    assert outcomes == [reference.forward("a", octets) for octets in packets]


LABELS = LabelSpace()
LABELS.reserve(100, "pe1", "red", "gold")
LABELS.reserve(101, "pe1", "red", "rest", payload=1)
LABELS.reserve(102, "pe9", "red", "rest")
ANY4, ANY6 = (AddressMatch.of_network(ip_network(one)) for one in ("0.0.0.0/0", "::/0"))
SOME4 = AddressMatch.of_network(ip_network("10.1.0.0/24"), 17)


def policy(
    encapsulation: Encapsulation, mode: Mode, *, local: tuple[AddressMatch, ...] = (ANY4, ANY6)
) -> EgressPolicy:
    plain = encapsulation is Encapsulation.NONE
    label_class: ClassId | None = None if plain else "gold"
    child_map = None if plain else PlainMap(encapsulation.mask, depth=(1, 2))
    return EgressPolicy(
        "pe1",
        "red",
        label_class,
        child_map,
        mode,
        THERE,
        frozenset({HERE}),
        (ANY4, ANY6),
        local,
        strict=False,
    )


POLICIES = [
    policy(Encapsulation.MPLS_IN_IP, Mode.TRANSPORT),
    policy(Encapsulation.MPLS_IN_GRE, Mode.TRANSPORT),
    policy(Encapsulation.MPLS_IN_UDP, Mode.TRANSPORT),
    policy(Encapsulation.MPLS_IN_IP, Mode.TUNNEL),
    policy(Encapsulation.NONE, Mode.TUNNEL),
    policy(Encapsulation.NONE, Mode.TUNNEL, local=(SOME4,)),
    policy(Encapsulation.NONE, Mode.TRANSPORT),
]
stacks = st.sampled_from(
    [
        LabelStack.push(100).encode(),
        LabelStack.push(100).encode(),
        LabelStack.push(101).encode(),
        LabelStack.push(102).encode(),
        LabelStack.push(100, ttl=1).encode(),
        LabelStack.push(100, ttl=0).encode(),
        LabelStack.push(100, tc=5).encode(),
        LabelStack.push(100, 17).encode(),
        LabelStack.push(7).encode(),
        LabelStack.push(999).encode(),
        b"",
    ]
)


@given(
    chosen=st.sampled_from(POLICIES),
    next_header=st.sampled_from([137, 47, 17, 4, 41, 59, 6]) | st.none(),
    parts=st.lists(st.tuples(stacks, batches()), max_size=4),
    gre=st.sampled_from([GRE, GRE, b"\x20\0\x88\x47\0\0\0\x07", b"\0\0\x08\0"]),
    source=st.sampled_from([THERE, THERE, THERE, "198.51.100.1"]),
    behind=st.sampled_from([b"", b"\0\x89", b"\x01\x02\x02\x89"]),
)
def test_inbound_is_check_inbound_many_times(
    chosen: EgressPolicy,
    next_header: int | None,
    parts: list[tuple[bytes, list[bytes]]],
    gre: bytes,
    source: str,
    behind: bytes,
) -> None:
    """`next_header` None: the one that the policy admits."""
    encapsulation = Encapsulation.NONE
    if chosen.map is not None:
        encapsulation = next(one for one in Encapsulation if one.mask & chosen.map.encapsulations)
    admitted = encapsulation.value or 4
    wrapper = Encapsulator(encapsulation, chosen.mode, ip_address(THERE), ip_address(HERE))
    payloads = []
    for stack, packets in parts:
        for octets in packets:
            if encapsulation is Encapsulation.MPLS_IN_GRE:
                payloads.append(gre + stack + octets)
            elif chosen.map is None or not octets:
                payloads.append(octets)
            else:
                admitted, payload = wrapper.encapsulate(stack, octets)
                payloads.append(payload)
    if next_header is None:
        next_header = admitted
    vrfs = {"red": RED}
    outcomes: list[Delivery | Drop] = []
    octets_behind = [payload + behind for payload in payloads]
    found = check_inbound_batch(chosen, LABELS, next_header, octets_behind, source, HERE, vrfs, len(behind))
    for one in found:
        if isinstance(one.first, Delivery):
            assert one.packets[0] == one.first.packet
            outcomes += [one.first._replace(packet=octets) for octets in one.packets]
        else:
            assert not one.packets
            outcomes.append(one.first)
    assert outcomes == [
        check_inbound(chosen, LABELS, next_header, payload, source, HERE, vrfs) for payload in payloads
    ]


@pytest.mark.parametrize(
    ("source", "destination"), [("10.1.0.9", "10.2.0.9"), ("2001:db8:1::9", "2001:db8:2::9")]
)
def test_packets_of_a_flow_are_one_run(source: str, destination: str) -> None:
    packets = [packet(source, destination, number, 8 + number % 3) for number in range(40)]
    assert [len(one.bodies) for one in forward_batch(walk(), "a", packets)] == [40]
    payloads = [LabelStack.push(100).encode() + octets for octets in packets]
    found = check_inbound_batch(POLICIES[0], LABELS, 137, payloads, THERE, HERE, {"red": RED})
    assert [len(one.packets) for one in found] == [40]


def bodies_of(packets: list[bytes]) -> list[list[bytes]]:
    return [one.bodies for one in forward_batch(walk(), "a", packets)]


def test_padding_behind_the_first_is_not_taken_from_the_others() -> None:
    short, longer = (packet("10.1.0.1", "10.2.0.9", number, 8 + 4 * number) for number in range(2))
    assert bodies_of([short + bytes(3), short + bytes(3), longer, longer + b"x"]) == [
        [short, short],
        [longer],
        [longer],
    ]


def test_a_wrong_header_checksum_ends_a_run() -> None:
    packets = [packet("10.1.0.1", "10.2.0.9", number, 8) for number in range(3)]
    packets[1] = packets[1][:5] + b"\x77" + packets[1][6:]
    assert bodies_of(packets) == [packets[:1], [], packets[2:]]


@pytest.mark.parametrize("front", [b"", GRE], ids=["137", "47"])
def test_more_than_one_label_is_looked_at_singly(front: bytes) -> None:
    chosen, next_header = (POLICIES[1], 47) if front else (POLICIES[0], 137)
    octets = packet("10.1.0.1", "10.2.0.9", 1, 8)
    assert _octets_in_front(chosen, next_header, front + LabelStack.push(100).encode() + octets) == 4 + len(
        front
    )
    assert _octets_in_front(chosen, next_header, front + LabelStack.push(100, 17).encode() + octets) is None
    assert _octets_in_front(chosen, next_header, front) is None
    assert _octets_in_front(chosen, 47, b"\x20" + GRE[1:] + LabelStack.push(17).encode() + octets) is None


@pytest.mark.parametrize("encapsulation", list(Encapsulation))
@pytest.mark.parametrize("mode", list(Mode))
def test_encapsulate_batch_is_encapsulate_many_times(encapsulation: Encapsulation, mode: Mode) -> None:
    wrapper = Encapsulator(encapsulation, mode, ip_address(THERE), ip_address(HERE))
    bodies = [packet("10.1.0.9", "10.2.0.9", number, number) for number in range(3)]
    next_header, payloads = wrapper.encapsulate_batch(b"abcd", bodies, 46)
    assert [(next_header, payload) for payload in payloads] == [
        wrapper.encapsulate(b"abcd", body, 46) for body in bodies
    ]
    alike = wrapper.wrapper(b"abcd")
    if alike is not None:
        assert (alike[0], [alike[1] + body for body in bodies]) == (next_header, payloads)


def test_checksums_near_the_end_of_their_range_go_on_as_one_by_one() -> None:
    packets = []
    for checksum in (0xFEFE, 0xFEFF, 0xFF00, 0xFFFE, 0xFFFF, 0x0000, 0x0001, 0xFEFF):
        blank = packet("10.1.0.9", "10.2.0.9", 0, 8)
        blank = blank[:10] + checksum.to_bytes(2, "big") + blank[12:]
        identification = -int.from_bytes(blank[:20], "big") % 0xFFFF
        packets.append(blank[:4] + identification.to_bytes(2, "big") + blank[6:])
    assert bodies_of(packets) == [[decrement_ttl(one) for one in packets]]


def test_flows_that_change_in_a_batch_are_runs_of_their_own() -> None:
    one, other, six = (
        packet(f"10.1.0.{number}" if number < 6 else "2001:db8:1::9", destination, 1, 8)
        for number, destination in ((4, "10.2.0.9"), (5, "10.2.0.9"), (6, "2001:db8:2::9"))
    )
    tiny = one[:22]
    batch = [one, one, tiny, other, six, six, one, one, other, other, other] * 10
    found = [run.packets for run in runs(batch)]
    assert [packet for run in found for packet in run] == batch
    assert [len(run) for run in found][:7] == [2, 1, 1, 2, 2, 3, 2]


def test_a_packet_cut_within_its_ports_is_of_no_flow() -> None:
    ends = ip_address("10.1.0.9").packed, ip_address("10.2.0.9").packed
    whole, cut = (build_ip(*ends, 17, b"\x03\xe8" + rest) for rest in (b"  data", b""))
    assert [len(run.packets) for run in runs([whole, whole, cut, whole])] == [2, 1, 1]
