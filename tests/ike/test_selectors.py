"""ike.selectors: each selector type for itself, and the registry (RFC 7296 section 3.13.1, RFC 9478)."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings

from ike.errors import LocalError
from ike.selectors import (
    AddressSelector,
    DynamicSelector,
    RawSelector,
    SecurityLabel,
    Selector,
    SelectorError,
    SelectorRegistry,
    SelectorType,
    TrafficSelectors,
    resolve_dynamic,
)
from tests.ike.wire_strategies import address_selectors, raw_selectors

HOST = IPv4Address("192.0.2.1")
OPAQUE = (65535, 0)


def one(
    address: str = "192.0.2.1", protocol: int = 0, ports: tuple[int, int] = (0, 65535)
) -> AddressSelector:
    return AddressSelector.from_address(address, protocol, *ports)


# --- addresses ---


def test_ipv4_range_is_what_the_rfc_draws() -> None:
    selector = AddressSelector(IPv4Address("198.51.100.0"), IPv4Address("198.51.100.255"), 17, 100, 200)
    octets = bytes.fromhex("07 11 0010 0064 00c8 c6336400 c63364ff")
    assert selector.encode() == octets
    assert AddressSelector.parse(octets) == selector
    assert selector.ts_type == 7


def test_ipv6_range_is_what_the_rfc_draws() -> None:
    selector = AddressSelector.from_network(ip_network("2001:db8::/120"), 58, 128 << 8, 128 << 8 | 255)
    octets = bytes.fromhex("08 3a 0028 8000 80ff" + "20010db8" + "00" * 12 + "20010db8" + "00" * 11 + "ff")
    assert selector.encode() == octets
    assert AddressSelector.parse(octets) == selector
    assert selector.ts_type == 8


@given(address_selectors())
def test_every_address_selector_survives_a_round_trip(selector: AddressSelector) -> None:
    assert AddressSelector.parse(selector.encode()) == selector


@pytest.mark.parametrize(
    "octets",
    [
        "",
        "07",
        "07000010" + "00" * 11,
        "07000010" + "00" * 13,
        "07000011" + "00" * 12,
        "08000010" + "00" * 12,
        "09000010" + "00" * 12,
        "07000010 0000ffff c0000202 c0000201",
        "07000010 00090001 c0000201 c0000201",
    ],
)
def test_octets_that_are_no_range_are_a_selector_error(octets: str) -> None:
    with pytest.raises(SelectorError):
        AddressSelector.parse(bytes.fromhex(octets))


@pytest.mark.parametrize(
    "fields",
    [
        (HOST, IPv4Address("192.0.2.0")),
        (HOST, IPv6Address("::ffff:ffff:ffff")),
        (HOST, HOST, 256),
        (HOST, HOST, -1),
        (HOST, HOST, 0, -1, 5),
        (HOST, HOST, 0, 0, 65536),
        (HOST, HOST, 0, 2, 1),
    ],
)
def test_values_that_are_no_range_are_a_selector_error(fields: tuple[IPv4Address, IPv4Address]) -> None:
    with pytest.raises(SelectorError):
        AddressSelector(*fields)


@pytest.mark.parametrize(
    ("ours", "policy", "common"),
    [
        (one(), one(), one()),
        (one(), one("192.0.2.2"), None),
        (one(), one("2001:db8::1"), None),
        (one(protocol=137), one(), one(protocol=137)),
        (one(), one(protocol=137), one(protocol=137)),
        (one(protocol=47), one(protocol=137), None),
        (one(protocol=17, ports=(1, 9)), one(protocol=17, ports=(5, 20)), one(protocol=17, ports=(5, 9))),
        (one(protocol=17, ports=(1, 4)), one(protocol=17, ports=(5, 20)), None),
        (one(ports=OPAQUE), one(), one(ports=OPAQUE)),  # ANY includes OPAQUE
        (one(), one(ports=OPAQUE), one(ports=OPAQUE)),
        (one(ports=OPAQUE), one(ports=OPAQUE), one(ports=OPAQUE)),
        (one(ports=OPAQUE), one(ports=(0, 65534)), None),
        (one(ports=(65535, 65535)), one(ports=OPAQUE), None),
        (one(ports=(0, 0)), one(ports=OPAQUE), None),
        (
            AddressSelector.from_network(ip_network("10.0.0.0/8"), 6),
            AddressSelector(IPv4Address("10.1.0.7"), IPv4Address("11.0.0.0")),
            AddressSelector(IPv4Address("10.1.0.7"), IPv4Address("10.255.255.255"), 6),
        ),
    ],
)
def test_narrowing_one_selector_by_one_policy(
    ours: AddressSelector, policy: AddressSelector, common: AddressSelector | None
) -> None:
    assert ours.narrow(policy) == common


@settings(max_examples=400)
@given(address_selectors(small=True), address_selectors(small=True))
def test_narrowing_is_intersection(ours: AddressSelector, policy: AddressSelector) -> None:
    common = ours.narrow(policy)
    assert common == policy.narrow(ours)
    assert ours.is_subset_of(policy) == (common == ours)
    if common is not None:
        assert common.is_subset_of(ours)
        assert common.is_subset_of(policy)
        assert common.narrow(policy) == common
    for number in range(8):
        for address in (IPv4Address(number), IPv6Address(number)):
            for protocol in (17, 47, 137):
                for port in (None, 0, 2, 65535):
                    expected = ours.contains(address, protocol, port) and policy.contains(
                        address, protocol, port
                    )
                    assert (common is not None and common.contains(address, protocol, port)) == expected


def test_a_packet_is_matched_by_address_protocol_and_port() -> None:
    selector = AddressSelector.from_network(ip_network("10.0.0.0/24"), 17, 5, 9)
    assert selector.contains(ip_address("10.0.0.0"), 17, 5)
    assert selector.contains(ip_address("10.0.0.255"), 17, 9)
    assert not selector.contains(ip_address("10.0.1.0"), 17, 5)
    assert not selector.contains(ip_address("10.0.0.1"), 6, 5)
    assert not selector.contains(ip_address("10.0.0.1"), 17, 4)
    assert not selector.contains(ip_address("10.0.0.1"), 17, 10)
    assert not selector.contains(ip_address("10.0.0.1"), 17)
    assert not selector.contains(ip_address("::a00:1"), 17, 5)
    assert one(ports=OPAQUE).contains(HOST, 17)
    assert not one(ports=OPAQUE).contains(HOST, 17, 5)
    assert one().contains(HOST, 17)
    # ICMP echo request as a port: type 8 in the upper octet (RFC 4301 section 4.4.1.1)
    assert one(protocol=1, ports=(8 << 8, 8 << 8 | 255)).contains(HOST, 1, 8 << 8)


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (one(protocol=137), "192.0.2.1[137]"),
        (AddressSelector.from_network(ip_network("10.0.0.0/8")), "10.0.0.0/8"),
        (AddressSelector.from_network(ip_network("::/0"), 17, 6635, 6635), "::/0[17/6635]"),
        (one(protocol=17, ports=(1, 9)), "192.0.2.1[17/1-9]"),
        (one(ports=OPAQUE), "192.0.2.1[0/opaque]"),
        (AddressSelector(HOST, IPv4Address("192.0.2.3")), "192.0.2.1-192.0.2.3"),
        (DynamicSelector(47), "dynamic[47]"),
        (RawSelector(99, b"\x63\x00\x00\x06\xab\xcd"), "TS_99:abcd"),
        (SecurityLabel(b"mpls:vrf=red;class=gold"), "seclabel:mpls:vrf=red;class=gold"),
        (SecurityLabel(b"\xff\n"), r"seclabel:\xff\x0a"),
    ],
)
def test_selectors_print_on_one_line(selector: object, text: str) -> None:
    assert str(selector) == text


def test_traffic_selectors_print_both_ends() -> None:
    assert str(TrafficSelectors((one(), SecurityLabel(b"x")), ())) == "192.0.2.1 seclabel:x === (none)"


def test_dynamic_selectors_become_the_address_of_the_path() -> None:
    label = SecurityLabel(b"x")
    resolved = resolve_dynamic((DynamicSelector(137), label), "192.0.2.1")
    assert resolved == (one(protocol=137), label)
    assert resolve_dynamic((DynamicSelector(17, 6635, 6635),), IPv6Address("::1")) == (
        one("::1", 17, (6635, 6635)),
    )
    with pytest.raises(SelectorError):
        DynamicSelector(256)


# --- other types ---


@given(raw_selectors())
def test_a_raw_selector_is_equal_or_nothing(raw: RawSelector) -> None:
    other = replace(raw, octets=raw.octets[:1] + bytes((raw.octets[1] ^ 1,)) + raw.octets[2:])
    assert raw.encode() == raw.octets
    assert raw.narrow(replace(raw)) == raw
    assert raw.is_subset_of(replace(raw))
    assert raw.narrow(other) is None
    assert not raw.is_subset_of(other)


# WIRE.md 9.1, "TS_SECLABEL mpls:vrf=red;class=gold and its zero"
GOLDEN_LABEL = bytes.fromhex("0a00001c6d706c733a7672663d7265643b636c6173733d676f6c6400")


def test_golden_security_label() -> None:
    label = SecurityLabel(b"mpls:vrf=red;class=gold")
    assert label.encode() == GOLDEN_LABEL
    assert SecurityLabel.parse(GOLDEN_LABEL) == label


def test_a_label_is_compared_without_one_trailing_zero() -> None:
    assert SecurityLabel.parse(b"\x0a\x00\x00\x05a") == SecurityLabel(b"a")
    assert SecurityLabel.parse(b"\x0a\x00\x00\x06a\0") == SecurityLabel(b"a")
    assert SecurityLabel.parse(b"\x0a\x00\x00\x07a\0\0") == SecurityLabel(b"a\0")
    assert SecurityLabel.parse(b"\x0a\xff\x00\x06a\0") == SecurityLabel(b"a")  # the reserved octet is ignored


def test_labels_are_equal_or_not() -> None:
    gold, standard = SecurityLabel(b"gold"), SecurityLabel(b"standard")
    assert gold.narrow(gold) == gold
    assert gold.narrow(standard) is None
    assert gold.is_subset_of(gold)
    assert not gold.is_subset_of(standard)


@pytest.mark.parametrize(
    "octets", [b"\x0a\0\0\4", b"\x0a\0\0\5\0", b"\x0a\0\0\6a", b"\x0b\0\0\5a", b"\x0a\0", b""]
)
def test_octets_that_are_no_label_are_a_selector_error(octets: bytes) -> None:
    with pytest.raises(SelectorError):
        SecurityLabel.parse(octets)


def test_a_label_longer_than_its_length_field_is_a_selector_error() -> None:
    assert len(SecurityLabel(bytes(65530)).encode()) == 65535
    with pytest.raises(SelectorError):
        SecurityLabel(bytes(65531))


# --- the registry ---


@dataclass(frozen=True, slots=True)
class Colour:
    """A selector type of one's own: a set of colours as a bit mask."""

    mask: int

    @property
    def ts_type(self) -> int:
        return 241

    @classmethod
    def parse(cls, octets: bytes) -> "Colour":
        if len(octets) != 5:
            raise ValueError("a colour is one octet")
        return cls(octets[4])

    def encode(self) -> bytes:
        return bytes((241, 0, 0, 5, self.mask))

    def narrow(self, policy: "Colour", /) -> "Colour | None":
        return Colour(self.mask & policy.mask) if self.mask & policy.mask else None

    def is_subset_of(self, other: "Colour", /) -> bool:
        return not self.mask & ~other.mask


COLOUR = SelectorType(241, Colour.parse)


def raw(selector: Selector) -> RawSelector:
    return RawSelector(selector.ts_type, selector.encode())


def test_registered_types_are_interpreted_and_others_stay_raw() -> None:
    registry = SelectorRegistry([COLOUR])
    unknown = RawSelector(99, b"\x63\0\0\4")
    received = (one(), raw(Colour(3)), unknown, raw(SecurityLabel(b"x")))
    assert registry.interpret(received) == (one(), Colour(3), unknown, SecurityLabel(b"x"))
    assert registry.interpret(registry.interpret(received)) == registry.interpret(received)
    assert SelectorRegistry().interpret(received[1:2]) == received[1:2]
    assert registry.is_registered(241)
    assert registry.is_registered(10)
    assert not registry.is_registered(99)


@pytest.mark.parametrize(
    "octets",
    [
        "f1000004",  # refused by the type of one's own
        "0a000004",  # an empty label
        "07890010 0000ffff c0000203 c0000202",  # no range
    ],
)
def test_content_that_a_known_type_refuses_is_a_selector_error(octets: str) -> None:
    data = bytes.fromhex(octets)
    with pytest.raises(SelectorError):
        SelectorRegistry([COLOUR]).interpret((RawSelector(data[0], data),))


@pytest.mark.parametrize("ts_type", [0, 7, 8, 10, 241, 256, -1])
def test_a_number_that_is_none_or_is_taken_cannot_be_registered(ts_type: int) -> None:
    registry = SelectorRegistry([COLOUR])
    with pytest.raises(LocalError):
        registry.register(SelectorType(ts_type, Colour.parse))
