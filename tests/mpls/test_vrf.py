"""Longest-prefix match, and what belongs behind which attachment."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpls.ip import Address, Network
from mpls.vrf import Attachment, PrefixTable, Vrf


def packed(text: str) -> bytes:
    return ip_address(text).packed


@st.composite
def networks(draw: st.DrawFn) -> Network:
    if draw(st.booleans()):
        return IPv4Network((draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 32))), strict=False)
    return IPv6Network((draw(st.integers(0, 2**128 - 1)), draw(st.integers(0, 128))), strict=False)


@given(st.dictionaries(networks(), st.integers(), max_size=30), st.ip_addresses(), st.data())
def test_lookup_finds_the_longest_of_the_prefixes_that_hold_the_address(
    entries: dict[Network, int], address: Address, data: st.DataObject
) -> None:
    table = PrefixTable(entries.items())
    if entries:
        address = data.draw(st.sampled_from([address, *(prefix.broadcast_address for prefix in entries)]))
    holding = [p for p in entries if p.version == address.version and address in p]
    longest_first = sorted(holding, key=lambda prefix: -prefix.prefixlen)
    assert list(table.matches(address.packed)) == [entries[prefix] for prefix in longest_first]
    assert table.lookup(address.packed) == (entries[longest_first[0]] if longest_first else None)
    assert dict(table.items()) == entries and len(table) == len(entries)


@given(st.dictionaries(networks(), st.integers(), min_size=1, max_size=20), st.data())
def test_what_is_taken_away_is_no_longer_found(entries: dict[Network, int], data: st.DataObject) -> None:
    table = PrefixTable(entries.items())
    gone = data.draw(st.sampled_from(sorted(entries, key=str)))
    del table[gone]
    del entries[gone]
    assert table.get(gone) is None
    assert dict(table.items()) == entries
    with pytest.raises(KeyError):
        del table[gone]


def test_equal_numbers_in_the_two_families_are_different_prefixes() -> None:
    table: PrefixTable[str] = PrefixTable([(ip_network("0.0.0.0/0"), "v4"), (ip_network("::/0"), "v6")])
    assert table.lookup(packed("10.0.0.1")) == "v4"
    assert table.lookup(packed("::a00:1")) == "v6"


def red(*attachments: Attachment, announce: tuple[str, ...] = ()) -> Vrf:
    return Vrf("red", "name:red", attachments=attachments, announce=tuple(map(ip_network, announce)))


LEFT = Attachment("left", (ip_interface("10.1.0.1/24"), ip_interface("2001:db8:1::1/64")))
RIGHT = Attachment("right", (ip_interface("10.2.0.1/24"),), (ip_network("10.2.128.0/17"),))


def test_source_belongs_to_the_attachment_it_is_behind() -> None:
    vrf = red(LEFT, RIGHT)
    assert vrf.is_behind("left", packed("10.1.0.77"))
    assert not vrf.is_behind("right", packed("10.1.0.77"))
    assert vrf.is_behind("right", packed("10.2.200.1"))
    assert not vrf.is_behind("left", packed("192.0.2.1"))
    assert vrf.is_local(packed("2001:db8:1::5")) and not vrf.is_local(packed("2001:db8:2::5"))


def test_announced_prefix_is_behind_every_attachment_unless_one_claims_it() -> None:
    vrf = red(LEFT, RIGHT, announce=("10.1.0.0/24", "10.9.0.0/16"))
    assert vrf.is_behind("left", packed("10.9.0.1")) and vrf.is_behind("right", packed("10.9.0.1"))
    assert not vrf.is_behind("right", packed("10.1.0.77"))


def test_packet_leaves_by_the_attachment_its_destination_is_behind() -> None:
    vrf = red(LEFT, RIGHT)
    assert vrf.attachment_for(packed("10.2.0.5")) == "right"
    assert vrf.attachment_for(packed("192.0.2.1")) is None
    assert red(LEFT).attachment_for(packed("192.0.2.1")) == "left"


def test_router_answers_from_its_own_address_of_the_family() -> None:
    assert str(red(RIGHT, LEFT).router_address(6)) == "2001:db8:1::1"
    assert red(RIGHT).router_address(6) is None
    assert red(LEFT).local_addresses == {packed("10.1.0.1"), packed("2001:db8:1::1")}


def test_class_number_and_class_name_are_different() -> None:
    vrf = red()
    assert vrf.label_class(0) is not None and vrf.label_class("0") is None


def test_vrf_without_a_class_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="no class"):
        Vrf("red", "name:red", ())
