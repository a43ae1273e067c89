"""TS_MPLS_VRF: golden octets, what is refused, the set algebra, the rules between payloads (WIRE 3, 9)."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ike.selectors import AddressSelector, RawSelector, SecurityLabel
from ike.wire.payloads import TsrPayload, encode_payloads, parse_payloads
from mpls import cbor
from mpls.identifiers import ClassId, VrfId
from mpls.selectors import MplsVrfSelector, SelectorError, is_well_formed, reconcile
from tests.mpls.golden import GOLDEN, golden_selector

RD = VrfId.parse_text("rd:65000:100")
A = MplsVrfSelector(RD, 10)
B = MplsVrfSelector(RD, 10, tc=0b1110_0000, ranges=((16, 1015), (100000, 100999)))
C = MplsVrfSelector(
    VrfId.parse_text("vpn-id:00005e:7"), "gold", encapsulations=3, depth=(1, 3), special=1 << 7
)
N = MplsVrfSelector(VrfId.parse_text("name:blue"), 0)
M = MplsVrfSelector(RD, 10, tc=0b0110_0001, ranges=((1000, 100100),))
MAP: dict[int, Any] = {0: 1, 1: [0, RD.octets], 2: 10}


def framed(content: dict[int, Any] | bytes) -> bytes:
    octets = content if isinstance(content, bytes) else cbor.encode(content)
    return b"\xf6\0" + (4 + len(octets)).to_bytes(2) + octets


# Golden octets.


@pytest.mark.parametrize(("name", "selector"), [("A", A), ("B", B), ("C", C), ("N", N)])
def test_golden_selector_in_both_directions(name: str, selector: MplsVrfSelector) -> None:
    assert MplsVrfSelector.parse(golden_selector(name)) == selector
    assert selector.encode() == golden_selector(name)
    assert selector.ts_type == 246


def test_golden_intersection_of_b_and_m() -> None:
    meet = B.narrow(M)
    assert meet is not None
    assert meet.encode() == golden_selector("B meet M")
    assert meet.ranges == ((1000, 1015), (100000, 100100))


def test_golden_tsr_payload_in_both_directions() -> None:
    octets = bytes.fromhex(GOLDEN["tsr_payload"])
    address = AddressSelector(IPv4Address("192.0.2.2"), IPv4Address("192.0.2.2"), protocol=137)
    (payload,) = parse_payloads(TsrPayload.TYPE, octets)
    assert isinstance(payload, TsrPayload)
    first, second = payload.selectors
    assert first == address
    assert isinstance(second, RawSelector)
    assert MplsVrfSelector.parse(second.octets) == A
    assert encode_payloads([TsrPayload((address, RawSelector(246, A.encode())))]) == (TsrPayload.TYPE, octets)


# What is refused, by the classes of WIRE 9.3. Those that all four maps share are in test_cbor.


def test_class_1_reserved_octet_not_zero_is_refused() -> None:
    for reserved in (1, 128, 255):
        octets = bytearray(A.encode())
        octets[1] = reserved
        with pytest.raises(SelectorError):
            MplsVrfSelector.parse(bytes(octets))


def test_class_2_selector_length_other_than_the_octets_is_refused() -> None:
    good = A.encode()
    for length in (0, 3, 4, len(good) - 1, len(good) + 1, 65535):
        with pytest.raises(SelectorError):
            MplsVrfSelector.parse(good[:2] + length.to_bytes(2) + good[4:])


def test_another_ts_type_is_refused() -> None:
    with pytest.raises(SelectorError):
        MplsVrfSelector.parse(b"\xf5" + A.encode()[1:])


def test_class_4_map_over_1024_octets_or_empty_is_refused() -> None:
    large = {**MAP, 5: [[16 + 2 * i, 16 + 2 * i] for i in range(400)]}
    assert len(cbor.encode(large)) > 1024
    for content in (large, b""):
        with pytest.raises(SelectorError):
            MplsVrfSelector.parse(framed(content))


def test_class_5_cut_off_at_every_offset_is_refused_with_either_length() -> None:
    for good in map(golden_selector, GOLDEN["selectors"]):
        for count in range(len(good)):
            with pytest.raises(SelectorError):
                MplsVrfSelector.parse(good[:count])
            with pytest.raises(SelectorError):
                MplsVrfSelector.parse(framed(good[4 : max(4, count)]))


REFUSED: dict[int, list[dict[int, Any]]] = {
    21: [{8: 1}, {9: []}, {1 << 32: 1}],
    28: [{3: 1}, {4: 255}, {5: [[16, 1048575]]}, {6: [1, 1]}, {7: 0}],
    29: [{3: mask} for mask in range(300) if mask not in (1, 2, 3, 8, 9, 10, 11)],
    30: [{4: 0}, {4: 256}, {4: 1 << 32}],
    31: [{5: []}, {5: [[100 + 2 * i, 100 + 2 * i] for i in range(33)]}],
    32: [{5: [pair]} for pair in ([15, 20], [0, 0], [16, 1048576], [20, 19], [20], [20, 21, 22], [], 20)],
    33: [
        {5: ranges}
        for ranges in ([[30, 40], [20, 25]], [[20, 30], [30, 40]], [[20, 30], [31, 40]], [[20, 30]] * 2)
    ],
    34: [{6: depth} for depth in ([0, 1], [1, 0], [0, 0], [1, 17], [17, 17], [3, 2], [1], [1, 2, 3], [], 3)],
    35: [{6: [1, 3], 7: special} for special in range(1, 512) if special & ~0b1000_0111],
    36: [{7: 128}, {6: [1, 2], 7: 128}, {6: [2, 2], 7: 129}],
}


@pytest.mark.parametrize("number", REFUSED)
def test_class_is_refused(number: int) -> None:
    for change in REFUSED[number]:
        with pytest.raises(SelectorError):
            MplsVrfSelector.parse(framed(MAP | change))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_class_22_missing_key_is_refused(missing: int) -> None:
    with pytest.raises(SelectorError):
        MplsVrfSelector.parse(framed({key: value for key, value in MAP.items() if key != missing}))


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"vrf": "rd:1:1"},
            {"label_class": "7"},
            {"label_class": True},
            {"encapsulations": 0},
            {"encapsulations": 5},
        ),
        *(
            {"tc": 0},
            {"tc": 256},
            {"tc": True},
            {"ranges": ()},
            {"ranges": [(16, 20)]},
            {"ranges": ((16, 20, 21),)},
        ),
        *(
            {"ranges": ((20, 19),)},
            {"ranges": ((15, 20),)},
            {"ranges": ((16, 20), (21, 30))},
            {"ranges": (16, 20)},
        ),
        *(
            {"depth": (0, 1)},
            {"depth": (2, 1)},
            {"depth": [1, 1]},
            {"depth": (1,)},
            {"special": 8},
            {"special": -1},
        ),
        *({"depth": (1, 2), "special": 128}, {"special": 256}),
    ],
)
def test_constructor_refuses_what_has_no_encoding(change: dict[str, Any]) -> None:
    with pytest.raises(SelectorError):
        replace(A, **change)


def test_selector_error_is_a_value_error() -> None:
    assert issubclass(SelectorError, ValueError)


# The algebra.


def ranges_of(steps: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sorted, disjoint and not adjacent: each range begins at least two beyond the last."""
    label, ranges = 14, []
    for gap, length in steps:
        ranges.append((label + 2 + gap, label + 2 + gap + length))
        label = ranges[-1][1]
    return tuple(ranges)


NEAR, FAR = st.integers(0, 40), st.integers(0, 15000)
label_ranges = st.lists(st.tuples(NEAR, NEAR), min_size=1, max_size=32).map(ranges_of) | st.lists(
    st.tuples(FAR, FAR), min_size=1, max_size=32
).map(ranges_of)


@st.composite
def selectors(draw: st.DrawFn, of_one_class: bool = False) -> MplsVrfSelector:
    vrf = RD if of_one_class else draw(st.sampled_from([RD, C.vrf, N.vrf]))
    classes: list[ClassId] = [10] if of_one_class else [10, 0, 65535, "gold", "x" * 64]
    label_class = draw(st.sampled_from(classes))
    least = draw(st.integers(1, 4))
    depth = (least, draw(st.integers(least, 16)))
    special = draw(st.sampled_from([0, 1, 2, 4, 5, 7]) | st.sampled_from([128, 135]))
    return MplsVrfSelector(
        vrf,
        label_class,
        encapsulations=draw(st.sampled_from([1, 2, 3, 8, 9, 10, 11])),
        tc=draw(st.integers(1, 255)),
        ranges=draw(st.just(((16, 1048575),)) | label_ranges),
        depth=depth,
        special=special & 7 if depth[1] < 3 else special,
    )


@given(selectors())
def test_what_is_encoded_is_read_back_and_gives_the_same_octets(selector: MplsVrfSelector) -> None:
    octets = selector.encode()
    assert MplsVrfSelector.parse(octets) == selector
    assert MplsVrfSelector.parse(octets).encode() == octets
    assert len(octets) <= 1028


@given(selectors(of_one_class=True), selectors(of_one_class=True) | selectors())
def test_narrowing_is_commutative_idempotent_and_a_subset_of_both(
    one: MplsVrfSelector, other: MplsVrfSelector
) -> None:
    meet = one.narrow(other)
    assert meet == other.narrow(one)
    assert one.narrow(one) == one
    if meet is None:
        assert one != other
        return
    assert meet.is_subset_of(one)
    assert meet.is_subset_of(other)
    assert meet.narrow(one) == meet
    assert meet.narrow(other) == meet
    assert MplsVrfSelector.parse(meet.encode()) == meet


@given(selectors(of_one_class=True), selectors(of_one_class=True))
def test_subset_means_that_narrowing_takes_nothing_away(one: MplsVrfSelector, other: MplsVrfSelector) -> None:
    assert one.is_subset_of(other) == (one.narrow(other) == one)


@given(*[selectors(of_one_class=True)] * 3)
def test_order_of_narrowing_does_not_matter(
    a: MplsVrfSelector, b: MplsVrfSelector, c: MplsVrfSelector
) -> None:
    ab, ac = a.narrow(b), a.narrow(c)
    if ab and ac and (abc := ab.narrow(c)):
        assert abc == ac.narrow(b)
        assert abc.is_subset_of(a)


@given(st.binary(max_size=60), st.booleans())
def test_random_octets_raise_only_selector_error(octets: bytes, as_map: bool) -> None:
    try:
        parsed = MplsVrfSelector.parse(framed(octets) if as_map else octets)
    except SelectorError:
        return
    assert parsed.encode().endswith(octets)


@given(selectors(), st.data())
def test_octets_with_one_bit_changed_are_refused_or_come_back(
    selector: MplsVrfSelector, data: st.DataObject
) -> None:
    octets = bytearray(selector.encode())
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        parsed = MplsVrfSelector.parse(bytes(octets))
    except SelectorError:
        return
    assert parsed.encode() == octets


def test_another_vrf_or_class_has_no_intersection_and_is_no_subset() -> None:
    for other in (N, replace(A, label_class=11), replace(A, label_class="ten"), replace(A, vrf=C.vrf)):
        assert A.narrow(other) is None
        assert not A.is_subset_of(other)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"encapsulations": 1}, {"encapsulations": 2}),
        ({"tc": 1}, {"tc": 2}),
        ({"ranges": ((16, 20),)}, {"ranges": ((21, 30),)}),
        ({"depth": (1, 2)}, {"depth": (3, 4)}),
    ],
)
def test_each_key_can_make_the_intersection_empty(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert replace(A, **ours).narrow(replace(A, **theirs)) is None


def test_entropy_label_goes_when_the_stack_becomes_too_low_for_it() -> None:
    deep = replace(A, depth=(1, 3), special=0b1000_0001)
    meet = deep.narrow(replace(A, depth=(1, 4), special=0b1000_0001))
    assert meet == deep
    assert deep.narrow(replace(A, depth=(1, 2), special=1)) == replace(A, depth=(1, 2), special=1)


def test_more_than_32_ranges_in_the_intersection_are_none() -> None:
    combs = [replace(A, ranges=tuple((100 * i, 100 * i + 60) for i in range(1, 33)))]
    combs.append(replace(A, ranges=tuple((100 * i + 50, 100 * i + 120) for i in range(1, 33))))
    assert combs[0].narrow(combs[1]) is None
    assert combs[0].narrow(replace(A, ranges=((16, 200000),))) == combs[0]


def test_label_is_in_one_of_the_ranges_or_not() -> None:
    assert all(B.has_label(label) for label in (16, 1015, 100000, 100999))
    assert not any(B.has_label(label) for label in (15, 1016, 99999, 101000))


# The rules between the payloads (WIRE 3.3, 3.5).

LOCAL, PEER = "192.0.2.1", "192.0.2.2"


@dataclass(frozen=True)
class Address:
    """As much of an address selector as the rules look at."""

    start: IPv4Address | IPv6Address
    end: IPv4Address | IPv6Address
    protocol: int = 137
    start_port: int = 0
    end_port: int = 65535
    ts_type: int = 7


def at(address: str, protocol: int = 137, end: str | None = None) -> Address:
    ports = (6635, 6635) if protocol == 17 else (0, 65535)
    return Address(IPv4Address(address), IPv4Address(end or address), protocol, *ports)


ALL = replace(A, encapsulations=11)


def test_good_payloads_are_left_as_they_are() -> None:
    tsi, tsr = (at(LOCAL), A), (at(PEER), replace(A, tc=1))
    assert reconcile(tsi, tsr) == (tsi, tsr)
    assert is_well_formed(tsi, tsr, transport=True)


def test_any_order_is_taken_and_the_map_is_sent_last() -> None:
    assert reconcile((A, at(LOCAL)), (A, at(PEER))) == ((at(LOCAL), A), (at(PEER), A))
    assert is_well_formed((A, at(LOCAL)), (A, at(PEER)), transport=True)


def test_encapsulations_become_those_left_in_both_payloads() -> None:
    tsi, tsr = (at(LOCAL), at(LOCAL, 47), ALL), (ALL, at(PEER, 47), at(PEER, 17))
    gre = replace(A, encapsulations=2)
    assert reconcile(tsi, tsr) == ((at(LOCAL, 47), gre), (at(PEER, 47), gre))
    assert not is_well_formed(tsi, tsr, transport=False)


def test_no_common_encapsulation_is_unacceptable() -> None:
    assert reconcile((at(LOCAL), ALL), (at(PEER, 47), ALL)) is None
    assert reconcile((at(LOCAL, 47), A), (at(PEER, 47), A)) is None


@pytest.mark.parametrize(
    "payload",
    [
        (at(PEER), A, A),
        (at(PEER), A, replace(A, tc=1)),
        (at(PEER),),
        (A,),
        (),
        (at(PEER), SecurityLabel(b"red"), A),
        (at(PEER), RawSelector(9, b"\x09\0\0\x08aaaa"), A),
        (at(PEER), RawSelector(246, A.encode())),
        (at(PEER), A, RawSelector(246, A.encode())),
    ],
)
def test_class_37_wrong_shape_is_unacceptable(payload: tuple[Any, ...]) -> None:
    good = (at(LOCAL), A)
    for tsi, tsr in ((good, payload), (payload, good)):
        assert reconcile(tsi, tsr) is None
        assert not is_well_formed(tsi, tsr, transport=False)


@pytest.mark.parametrize(
    "other", [replace(A, vrf=N.vrf), replace(A, label_class=11), replace(A, encapsulations=3)]
)
def test_class_38_different_vrf_class_or_encapsulations_are_unacceptable(other: MplsVrfSelector) -> None:
    tsi, tsr = (at(LOCAL), at(LOCAL, 47), A), (at(PEER), at(PEER, 47), other)
    assert reconcile(tsi, tsr) is None
    assert not is_well_formed(tsi, tsr, transport=True)


@pytest.mark.parametrize(
    "address",
    [
        at(PEER, 0),
        at(PEER, 4),
        replace(at(PEER), start_port=1),
        replace(at(PEER), end_port=65534),
        replace(at(PEER), start_port=65535, end_port=0),
        replace(at(PEER, 47), start_port=6635, end_port=6635),
        replace(at(PEER, 17), start_port=0, end_port=65535),
        replace(at(PEER, 17), start_port=49152),
    ],
)
def test_class_39_wrong_protocol_or_ports_are_unacceptable(address: Address) -> None:
    tsi, tsr = (
        (at(LOCAL), at(LOCAL, 47), at(LOCAL, 17), ALL),
        (at(PEER), at(PEER, 47), at(PEER, 17), address, ALL),
    )
    assert reconcile(tsi, tsr) is None
    assert reconcile(tsr, tsi) is None
    assert not is_well_formed(tsi, tsr, transport=False)


def test_class_39_protocol_missing_in_one_payload_is_not_well_formed() -> None:
    both = replace(A, encapsulations=3)
    full, less = (at(LOCAL), at(LOCAL, 47), both), (at(PEER), both)
    assert not is_well_formed((at(LOCAL), both), less, transport=False)
    assert not is_well_formed(full, less, transport=False)
    assert not is_well_formed(less, full, transport=False)
    assert not is_well_formed((at(LOCAL), at(LOCAL, 47), A), (at(PEER), at(PEER, 47), A), transport=False)


def test_class_40_more_than_one_address_in_transport_mode_is_not_well_formed() -> None:
    both = replace(A, encapsulations=3)
    good = (at(LOCAL), at(LOCAL, 47), both)
    assert is_well_formed(good, (at(PEER), at(PEER, 47), both), transport=True)
    for payload in (
        (at(PEER), at(LOCAL, 47), both),
        (at(PEER), at(PEER), at(PEER, 47), both),
        (at(PEER, end="192.0.2.3"), at(PEER, 47, end="192.0.2.3"), both),
    ):
        assert not is_well_formed(good, payload, transport=True)
        assert not is_well_formed(payload, good, transport=True)
        assert is_well_formed(good, payload, transport=False)


def test_address_selectors_of_ike_are_understood() -> None:
    tsi = (AddressSelector(IPv6Address("2001:db8::1"), IPv6Address("2001:db8::1"), 137), A)
    tsr = (AddressSelector(IPv6Address("2001:db8::2"), IPv6Address("2001:db8::2"), 137), A)
    assert reconcile(tsi, tsr) == (tsi, tsr)
    assert is_well_formed(tsi, tsr, transport=True)
