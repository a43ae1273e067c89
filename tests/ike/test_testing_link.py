"""ike.testing.link: what happens to datagrams on an impaired network, on virtual time."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from ike.config import Path
from ike.events import Datagram
from ike.testing.link import ImpairedLink, Nat

A, B = ("192.0.2.1", 500), ("192.0.2.2", 500)


def datagram(data: bytes = b"x", source: tuple[str, int] = A, destination: tuple[str, int] = B) -> Datagram:
    return Datagram(data, Path(local=source, peer=destination))


def numbered(count: int) -> list[Datagram]:
    return [datagram(number.to_bytes(2, "big")) for number in range(count)]


def carry(link: ImpairedLink, datagrams: Iterable[Datagram], step_s: float = 0.0) -> list[bytes]:
    """Submit all, `step_s` apart, and return what arrives in the end."""
    for number, each in enumerate(datagrams):
        link.submit(each, number * step_s)
    return [each.data for each in link.due(1e9)]


def test_an_unimpaired_link_delivers_everything_once_and_in_order() -> None:
    link = ImpairedLink()
    assert carry(link, numbered(100)) == [d.data for d in numbered(100)]
    assert link.counters == {"submitted": 100, "delivered": 100}


def test_the_receiver_sees_the_path_from_its_own_end() -> None:
    link = ImpairedLink()
    link.submit(datagram(), 0)
    assert link.due(1) == [datagram(source=B, destination=A)]


def test_nothing_arrives_before_its_delay() -> None:
    link = ImpairedLink(delay_s=0.25)
    assert link.next_at() is None
    link.submit(datagram(b"1"), 10.0)
    link.submit(datagram(b"2"), 10.5)
    assert link.next_at() == 10.25
    assert link.due(10.2) == []
    assert [d.data for d in link.due(10.25)] == [b"1"]
    assert link.next_at() == 10.75
    assert [d.data for d in link.due(11)] == [b"2"]
    assert link.next_at() is None


def test_loss_takes_about_its_share() -> None:
    link = ImpairedLink(loss=0.3)
    arrived = carry(link, numbered(1000))
    assert 650 < len(arrived) < 750
    assert link.counters["lost"] == 1000 - len(arrived)
    assert arrived == sorted(arrived)
    assert carry(ImpairedLink(loss=1.0), numbered(50)) == []


def test_duplicates_are_counted() -> None:
    link = ImpairedLink(duplicate=0.5)
    arrived = carry(link, numbered(200))
    assert len(arrived) == 200 + link.counters["duplicated"]
    assert 60 < link.counters["duplicated"] < 140
    assert set(arrived) == {d.data for d in numbered(200)}


def test_reordered_datagrams_are_overtaken_and_not_lost() -> None:
    link = ImpairedLink(reorder=0.2, reorder_s=0.05)
    arrived = carry(link, numbered(200), step_s=0.01)
    assert arrived != sorted(arrived)
    assert sorted(arrived) == [d.data for d in numbered(200)]
    assert link.counters["reordered"]


def test_the_same_seed_gives_the_same_fate() -> None:
    def fate(seed: int) -> list[bytes]:
        return carry(ImpairedLink(seed, loss=0.2, duplicate=0.2, reorder=0.2), numbered(100), step_s=0.01)

    assert fate(1) == fate(1)
    assert fate(1) != fate(2)


@pytest.mark.parametrize(("source", "overhead"), [(A, 28), (("2001:db8::1", 500), 48)])
def test_what_is_larger_than_the_mtu_is_lost(source: tuple[str, int], overhead: int) -> None:
    link = ImpairedLink(mtu_octets=1280)
    fits = datagram(bytes(1280 - overhead), source)
    assert carry(link, [fits, replace(fits, data=fits.data + b"x")]) == [fits.data]
    assert link.counters["too_big"] == 1


def test_an_attacker_on_the_path_changes_adds_and_drops() -> None:
    def attacker(seen: Datagram) -> list[Datagram]:
        return [] if seen.data == b"drop" else [seen, replace(seen, data=b"forged")]

    link = ImpairedLink(on_path=attacker)
    assert carry(link, [datagram(b"drop"), datagram(b"pass")]) == [b"pass", b"forged"]


# --- NAT ---

INSIDE, PUBLIC = ("10.0.0.5", 4500), "203.0.113.9"


def through(link: ImpairedLink, source: tuple[str, int], destination: tuple[str, int]) -> Path | None:
    link.submit(datagram(b"x", source, destination), 0)
    arrived = link.due(1)
    return arrived[0].path if arrived else None


def test_a_nat_rewrites_the_source_and_lets_answers_back_in() -> None:
    link = ImpairedLink(nat=Nat(INSIDE[0], PUBLIC))
    assert through(link, INSIDE, B) == Path(local=B, peer=(PUBLIC, 40000))
    assert through(link, B, (PUBLIC, 40000)) == Path(local=INSIDE, peer=B)
    assert through(link, INSIDE, B) == Path(local=B, peer=(PUBLIC, 40000))
    assert through(link, ("10.0.0.5", 500), B) == Path(local=B, peer=(PUBLIC, 40001))


def test_what_has_no_mapping_does_not_get_in() -> None:
    link = ImpairedLink(nat=Nat(INSIDE[0], PUBLIC))
    assert through(link, B, (PUBLIC, 40000)) is None
    assert link.counters["no_mapping"] == 1
    assert through(link, A, B) == Path(local=B, peer=A)


def test_a_rebound_nat_gives_a_new_port_and_forgets_the_old_one() -> None:
    nat = Nat(INSIDE[0], PUBLIC)
    link = ImpairedLink(nat=nat)
    through(link, INSIDE, B)
    nat.rebind()
    assert through(link, B, (PUBLIC, 40000)) is None
    assert through(link, INSIDE, B) == Path(local=B, peer=(PUBLIC, 40001))
