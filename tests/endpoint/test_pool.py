"""Pools of addresses: who gets which, who gets it again, and that nobody gets another's (RFC 7296 2.19, 3.15)."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.config import PoolConfig
from endpoint.config.values import parse_address_range
from endpoint.pool import MAX_LEASES, Pool
from ike import AddressRequest, Configuration
from ike.wire.identity import Identity

ANY4, ANY6 = ip_address(0), ip_address("::")


def pool(*ranges: str, **fields: object) -> Pool:
    return Pool(PoolConfig("clients", tuple(map(parse_address_range, ranges)), **fields))  # type: ignore[arg-type]


def ask(
    one: Pool,
    who: str,
    session: int,
    *wanted: str,
    is_only_one: bool = False,
    families: Sequence[object] = (ANY4,),
) -> str:
    """The addresses as text; empty: none."""
    identity = Identity.parse_text(who)
    addresses = tuple(map(ip_address, wanted)) or families
    given = one.lease(AddressRequest(session, "peer", identity, addresses, is_only_one))  # type: ignore[arg-type]
    return " ".join(str(interface) for interface in given.addresses) if given else ""


def test_each_identity_gets_an_address_of_its_own_in_order() -> None:
    one = pool("10.9.0.0/30")
    assert [ask(one, who, n) for n, who in enumerate(("a", "b", "c"))] == ["10.9.0.1/32", "10.9.0.2/32", ""]
    assert one.usage() == {4: (2, 2)}


def test_a_session_that_asks_twice_gets_the_same() -> None:
    one = pool("10.9.0.0/24")
    assert ask(one, "a", 1) == ask(one, "a", 1, "10.9.0.77") == "10.9.0.1/32"


def test_an_identity_that_comes_back_gets_its_address_again() -> None:
    one = pool("10.9.0.0/24")
    ask(one, "a", 1), ask(one, "b", 2)
    assert one.release(1) == (ip_address("10.9.0.1"),)
    assert ask(one, "c", 3) == "10.9.0.3/32", "what was never used comes first"
    assert ask(one, "A", 4) == "10.9.0.1/32", "names count without case"


def test_the_address_that_was_longest_unused_goes_to_another_when_there_is_no_other() -> None:
    one = pool("10.9.0.0/30")
    ask(one, "a", 1), ask(one, "b", 2)
    one.release(2), one.release(1)
    assert ask(one, "c", 3) == "10.9.0.2/32"
    assert ask(one, "b", 4) == "10.9.0.1/32" and ask(one, "a", 5) == ""


def test_a_second_session_that_takes_the_place_of_the_first_shares_its_address() -> None:
    one = pool("10.9.0.0/24")
    assert ask(one, "a", 1) == ask(one, "a", 2, "10.9.0.1") == "10.9.0.1/32", "it asks for that very address"
    assert ask(one, "a", 3, is_only_one=True) == "10.9.0.1/32", "or the first is gone (INITIAL_CONTACT)"
    assert one.release(1) == () and one.release(2) == (), "somebody still has it"
    assert one.release(3) == (ip_address("10.9.0.1"),) and one.usage() == {4: (0, 254)}


def test_two_devices_of_one_identity_get_different_addresses() -> None:
    one = pool("10.9.0.0/24")
    assert (ask(one, "a", 1), ask(one, "a", 2)) == ("10.9.0.1/32", "10.9.0.2/32")
    one.release(2)
    assert ask(one, "a", 3) == "10.9.0.2/32"


def test_an_address_that_is_asked_for_is_given_if_it_is_free() -> None:
    one = pool("10.9.0.0/24")
    assert ask(one, "a", 1, "10.9.0.2") == "10.9.0.2/32", "as after a restart of ours"
    assert ask(one, "b", 2, "10.9.0.2") == "10.9.0.1/32", "another's is not"
    assert ask(one, "c", 3, "192.0.2.1") == "10.9.0.3/32", (
        "nor one that is not in the pool; the second is passed over"
    )
    assert ask(one, "d", 4, "10.9.0.0") == ask(one, "d", 4, "10.9.0.255") == "10.9.0.4/32"


def test_fixed_addresses_are_for_one_identity_only() -> None:
    fixed = (("boss@example.com", (ip_address("10.9.0.1"), ip_address("2001:db8::1"))),)
    one = pool("10.9.0.0/30", fixed=fixed)
    assert ask(one, "a", 1, "10.9.0.1") == "10.9.0.2/32" and ask(one, "b", 2) == ""
    assert ask(one, "BOSS@example.com", 3, families=(ANY4, ANY6)) == "10.9.0.1/32 2001:db8::1/128"
    one.release(3)
    assert ask(one, "b", 4) == "", "also while its owner is away"
    assert one.usage() == {4: (1, 2), 6: (0, 1)}


def test_nobody_in_particular_is_remembered_for_nothing() -> None:
    one = pool("10.9.0.0/24")
    assert ask(one, "null", 1) == "10.9.0.1/32"
    assert ask(one, "null", 2, is_only_one=True) == "10.9.0.2/32"


def test_owners_without_an_address_leave_nothing_behind() -> None:
    one = pool("10.9.0.1-10.9.0.2")
    for session in range(100):
        assert ask(one, "null", session)
        one.release(session)
    assert len(one._families[4]._by_owner) == 2


def test_only_families_that_are_asked_for_and_there() -> None:
    one = pool("10.9.0.0/24", "2001:db8::/64")
    assert ask(one, "a", 1, families=(ANY6,)) == "2001:db8::1/128"
    assert ask(one, "b", 2, families=(ANY4, ANY6)) == "10.9.0.1/32 2001:db8::2/128"
    assert ask(pool("10.9.0.0/24"), "a", 1, families=(ANY6,)) == ""


def test_netmask_tells_the_prefix_that_the_address_is_from() -> None:
    one = pool("10.9.0.0/24", "2001:db8::/64", "10.8.0.5-10.8.0.6", netmask=True)
    assert ask(one, "a", 1, families=(ANY4, ANY6)) == "10.9.0.1/24 2001:db8::1/64"
    assert ask(one, "b", 2, "10.8.0.5") == "10.8.0.5/32", "a range has none"


def test_servers_and_subnets_come_with_the_address() -> None:
    dns, subnets = (ip_address("10.9.0.1"),), (ip_network("10.0.0.0/8"),)
    one = pool("10.9.0.7-10.9.0.9", dns=dns, domains=("corp.example",), subnets=subnets)
    request = AddressRequest(1, "peer", Identity.fqdn("a"), (ANY4,), False)
    expected = Configuration((ip_interface("10.9.0.7/32"),), dns, ("corp.example",), subnets)
    assert one.lease(request) == expected


def test_a_large_pool_is_used_up_to_a_bound() -> None:
    one = pool("2001:db8::/64")
    assert one.usage() == {6: (0, MAX_LEASES)}
    assert ask(one, "a", 1, "2001:db8::1:0") == "2001:db8::1:0/128", "the last within the bound"
    assert ask(one, "b", 2, "2001:db8::1:1") == "2001:db8::1/128"


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("10.9.0.0/24", "10.9.0.1", "10.9.0.254"),
        ("10.9.0.4/31", "10.9.0.4", "10.9.0.5"),
        ("10.9.0.4/32", "10.9.0.4", "10.9.0.4"),
        ("2001:db8::/64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"),
        ("2001:db8::/127", "2001:db8::", "2001:db8::1"),
        ("10.9.0.10-10.9.0.12", "10.9.0.10", "10.9.0.12"),
    ],
)
def test_a_range_is_what_hosts_can_have(text: str, first: str, last: str) -> None:
    one = parse_address_range(text)
    assert (str(one.first), str(one.last)) == (first, last)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 4), st.booleans(), st.integers(0, 7), st.booleans()),
        max_size=60,
    )
)
def test_no_address_is_ever_held_by_two_identities(steps: list[tuple[int, int, bool, int, bool]]) -> None:
    one = pool("10.9.0.0/29")
    held: dict[int, tuple[str, str]] = {}
    for session, who, is_asking, last, is_only_one in steps:
        if not is_asking:
            one.release(session)
            held.pop(session, None)
        elif session not in held or held[session][0] == f"id{who}":
            address = ask(one, f"id{who}", session, f"10.9.0.{last}", is_only_one=is_only_one)
            if address:
                held[session] = f"id{who}", address
        owners: dict[str, set[str]] = {}
        for owner, address in held.values():
            owners.setdefault(address, set()).add(owner)
        assert all(len(names) == 1 for names in owners.values())
        assert one.usage()[4][0] == len(owners)
