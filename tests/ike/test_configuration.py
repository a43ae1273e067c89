"""The attributes of a Configuration payload (RFC 7296 3.15.1, RFC 8598)."""

from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
    ip_network,
)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ike.configuration import Configuration, encode_reply, encode_request, read_reply, read_request
from ike.numbers import CfgAttribute, CfgType
from ike.wire.payloads import ConfigAttribute, ConfigPayload

ANY = (IPv4Address(0), IPv6Address(0))
A = CfgAttribute


def request(*attributes: tuple[int, bytes]) -> ConfigPayload:
    return ConfigPayload(CfgType.CFG_REQUEST, tuple(ConfigAttribute(*one) for one in attributes))


def reply(*attributes: tuple[int, bytes]) -> ConfigPayload:
    return ConfigPayload(CfgType.CFG_REPLY, tuple(ConfigAttribute(*one) for one in attributes))


def test_a_request_for_any_address_is_empty_attributes() -> None:
    payload = encode_request(ANY)
    assert payload.cfg_type == CfgType.CFG_REQUEST
    assert [(one.type, one.value) for one in payload.attributes] == [
        (1, b""),
        (3, b""),
        (8, b""),
        (10, b""),
        (25, b""),
    ]
    assert read_request(payload) == ANY


def test_a_request_for_an_address_names_it() -> None:
    wanted = (ip_address("10.9.0.7"), ip_address("2001:db8:9::7"))
    values = {one.type: one.value for one in encode_request(wanted).attributes}
    assert values[A.INTERNAL_IP4_ADDRESS] == bytes((10, 9, 0, 7))
    assert len(values[A.INTERNAL_IP6_ADDRESS]) == 17
    assert read_request(encode_request(wanted)) == wanted


@pytest.mark.parametrize(
    "attributes",
    [
        [(1, bytes(3)), (1, bytes(5)), (8, bytes(15)), (8, bytes(18))],
        [(3, b""), (7, b""), (14, b""), (16383, b"x")],
    ],
)
def test_what_is_no_request_for_an_address_asks_for_none(attributes: list[tuple[int, bytes]]) -> None:
    assert read_request(request(*attributes)) == ()


def test_of_several_addresses_of_a_family_the_first_counts() -> None:
    asked = request((1, bytes((10, 0, 0, 1))), (1, b""), (8, bytes(16)), (8, bytes(15) + b"\x01\x40"))
    assert read_request(asked) == (ip_address("10.0.0.1"), ip_address("::"))


GIVEN = Configuration(
    (ip_interface("10.9.0.7/24"), ip_interface("2001:db8:9::7/64")),
    (ip_address("10.9.0.1"), ip_address("2001:db8:9::1")),
    ("example.com", "corp.example."),
    (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")),
)


def test_a_reply_has_the_octets_of_the_rfc() -> None:
    payload = encode_reply(GIVEN, encode_request(ANY))
    assert payload.cfg_type == CfgType.CFG_REPLY
    address6, network6 = (ip_address(text).packed for text in ("2001:db8:9::7", "2001:db8::"))
    assert [(one.type, one.value) for one in payload.attributes] == [
        (1, bytes((10, 9, 0, 7))),
        (2, bytes((255, 255, 255, 0))),
        (8, address6 + b"\x40"),
        (3, bytes((10, 9, 0, 1))),
        (10, ip_address("2001:db8:9::1").packed),
        (25, b"example.com"),
        (25, b"corp.example."),
        (13, bytes((10, 0, 0, 0, 255, 0, 0, 0))),
        (15, network6 + b"\x20"),
    ]
    assert read_reply(payload, ANY) == GIVEN


def test_no_netmask_without_a_link_and_no_domain_that_nobody_asked_for() -> None:
    given = Configuration((ip_interface("10.9.0.7/32"),), domains=("example.com",))
    kinds = [one.type for one in encode_reply(given, request((1, b""))).attributes]
    assert kinds == [A.INTERNAL_IP4_ADDRESS]


@pytest.mark.parametrize(
    "attributes",
    [
        [],
        [(1, b"")],
        [(1, bytes(4))],
        [(1, bytes((224, 0, 0, 1)))],
        [(1, bytes((127, 0, 0, 1)))],
        [(8, bytes(16) + b"\x40")],
        [(8, ip_address("2001:db8::1").packed + b"\x81")],
        [(8, ip_address("2001:db8::1").packed)],
    ],
)
def test_a_reply_without_the_address_of_a_host_is_none(attributes: list[tuple[int, bytes]]) -> None:
    assert read_reply(reply(*attributes), ANY) is None


def test_an_address_of_a_family_that_we_did_not_ask_for_is_none() -> None:
    payload = encode_reply(GIVEN, encode_request(ANY))
    given = read_reply(payload, ANY[:1])
    assert given is not None and given.addresses == (IPv4Interface("10.9.0.7/24"),)
    assert read_reply(reply((1, bytes((10, 0, 0, 1)))), ANY[1:]) is None


def test_a_netmask_with_holes_counts_as_none() -> None:
    payload = reply(
        (1, bytes((10, 0, 0, 1))), (2, bytes((255, 0, 255, 0))), (13, bytes((10, 0, 0, 0, 255, 0, 0, 1)))
    )
    given = read_reply(payload, ANY)
    assert given == Configuration((IPv4Interface("10.0.0.1/32"),))


@pytest.mark.parametrize(
    "domain", [b"", b"-x..y", b"a b", b"\xffx", b"x" * 64, b"x\n", b"a." * 127 + b"a" * 63]
)
def test_a_domain_that_is_no_name_is_left_out(domain: bytes) -> None:
    given = read_reply(reply((1, bytes((10, 0, 0, 1))), (25, domain), (25, b"ok.example")), ANY)
    assert given is not None and given.domains == ("ok.example",)


def test_a_reply_is_bounded() -> None:
    many = reply((1, bytes((10, 0, 0, 1))), *((3, bytes((10, 0, 0, n))) for n in range(2, 250)))
    given = read_reply(many, ANY)
    assert given is not None and len(given.dns) == 16


@given(
    attributes=st.lists(
        st.tuples(st.sampled_from([1, 2, 3, 7, 8, 10, 13, 14, 15, 25, 99]), st.binary(max_size=40)),
        max_size=20,
    )
)
def test_no_octets_of_a_payload_raise(attributes: list[tuple[int, bytes]]) -> None:
    assert len(read_request(request(*attributes))) <= 2
    given = read_reply(reply(*attributes), ANY)
    if given is not None:
        assert {type(one) for one in given.addresses} <= {IPv4Interface, IPv6Interface}
        encode_reply(given, request((25, b"")))
