"""Several clients of one `[[peer]]`: each its own children, addresses, routes, labels and limits, and a clean end."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, summarize_address_range
from typing import Any

import pytest

from endpoint.clients import MAX_PREFIXES
from endpoint.config import Config, ConfigError, parse_config
from endpoint.status import render_status, snapshot
from ike import AddressSelector, CloseReason, IkeSaClosed
from ike.numbers import IdType, NotifyType, ProtocolId
from ike.testing.link import Nat
from ike.wire.identity import Identity
from ike.wire.payloads import NotifyPayload
from mpls.ip import build_ip
from tests.endpoint.config_texts import SECRET
from tests.endpoint.star import Star

HUB = "192.0.2.1"
GATEWAY = """
[endpoint]
identity  = "gateway.example"
addresses = ["192.0.2.1"]

[[vrf]]
name     = "red"
attach   = [{ memory = "inside", address = ["10.1.0.1/24"] }]
announce = ["10.1.0.0/24"]

[[pool]]
name      = "road"
addresses = ["10.9.0.0/28"]

[[peer]]
name      = "branch"
identity  = "*.branch.example"
addresses = ["any"]
auth      = { psk_file = "psk" }
start     = "none"
"""
PLAIN = """
selectors = "plain"
mode      = "tunnel"
encapsulation = "none"
"""
POOLED = PLAIN + 'pool = "road"\n[[peer.vrf]]\nname = "red"\n'
SITES = PLAIN + '[[peer.vrf]]\nname = "red"\naccept = ["10.2.0.0/16"]\n'
NATIVE = '[[peer.vrf]]\nname = "red"\naccept = ["10.2.0.0/16"]\n'
CLIENT = """
[endpoint]
identity  = "{name}.branch.example"
addresses = ["{address}"]

[[vrf]]
name     = "red"
attach   = [{{ memory = "inside", address = ["10.2.{own}.1/24"] }}]
announce = ["{announce}"]

[[peer]]
name      = "gateway"
identity  = "gateway.example"
addresses = ["192.0.2.1"]
auth      = {{ psk_file = "psk" }}
start     = "boot"
"""
TO_HUB = '[[peer.vrf]]\nname = "red"\naccept = ["10.1.0.0/24"]\n'
BEHIND_NAT = (Nat("192.0.2.11", "203.0.113.1"), Nat("192.0.2.12", "203.0.113.1", 50000))
NAMES = {"west": 11, "east": 12, "north": 13}
WEST, EAST, NORTH = (f"branch/fqdn:{name}.branch.example" for name in NAMES)


def read(text: str) -> Config:
    return parse_config(text, "pe.toml", secrets={"psk": SECRET})


def gateway(kind: str, settings: str = "") -> Config:
    return read(GATEWAY + settings + kind)


def client(name: str, kind: str, *, announce: str = "", own: int = 0) -> Config:
    own = own or NAMES[name]
    text = CLIENT.format(
        name=name, own=own, address=f"192.0.2.{own}", announce=announce or f"10.2.{own}.0/24"
    )
    if kind == POOLED:
        text = text.replace(f', address = ["10.2.{own}.1/24"]', "")
        text = text.replace(f'announce = ["10.2.{own}.0/24"]', "")
    return read(text + {POOLED: PLAIN + "virtual_ip = true\n", SITES: PLAIN, NATIVE: ""}[kind] + TO_HUB)


def star(kind: str, settings: str = "", *, names: tuple[str, ...] = tuple(NAMES)) -> Star:
    one = Star(gateway(kind, settings), *(client(name, kind) for name in names), nats=BEHIND_NAT)
    one.run(8)
    return one


def packet(source: str, destination: str) -> bytes:
    return build_ip(ip_address(source).packed, ip_address(destination).packed, 17, bytes(8))


def peers(one: Star) -> dict[str, Any]:
    document = snapshot(one.members[HUB].node, one.now, {})
    return {peer["name"]: peer for peer in document["peers"]}


def inside_addresses(one: Star, kind: str) -> dict[str, str]:
    """Name of each client -> an address behind it."""
    if kind != POOLED:
        return {name: f"10.2.{own}.2" for name, own in NAMES.items()}
    found = {}
    for session in one.members[HUB].node.engine.sessions():
        assert session.leased is not None and session.peer_id is not None
        found[session.peer_id.text().split(".")[0]] = str(session.leased.addresses[0].ip)
    return found


def check_traffic(one: Star, kind: str, *names: str) -> None:
    """A packet to and from each of these, and each arrives where it should and nowhere else."""
    addresses = inside_addresses(one, kind)
    for name in names:
        own, member = f"192.0.2.{NAMES[name]}", one.members[f"192.0.2.{NAMES[name]}"]
        before = {address: len(other.delivered) for address, other in one.members.items()}
        one.send(HUB, "inside", packet("10.1.0.9", addresses[name]))
        one.send(own, "inside", packet(addresses[name], "10.1.0.9"))
        one.run(0.1)
        after = {address: len(other.delivered) for address, other in one.members.items()}
        grown = {address for address in after if after[address] != before[address]}
        assert grown == {HUB, own}, (name, grown, one.members[HUB].node.dataplane.drops, member.node)


@pytest.mark.parametrize("kind", [POOLED, SITES, NATIVE], ids=["pool", "sites", "native"])
def test_three_clients_of_one_entry_have_traffic_of_their_own(kind: str) -> None:
    """Two of them behind one NAT address."""
    one = star(kind)
    found = peers(one)
    assert list(found) == ["branch", *(name for name in found if name.startswith("branch/"))]
    assert set(found) == {"branch", WEST, EAST, NORTH}
    assert found["branch"]["clients"] == {"now": 3, "max": 256} and not found["branch"]["sessions"]
    for name in (WEST, EAST, NORTH):
        assert found[name]["entry"] == "branch" and found[name]["identity"] == name.split("fqdn:")[1]
        assert [child["name"] for child in found[name]["children"]] == ["red/0" if kind == NATIVE else "red"]
    check_traffic(one, kind, *NAMES, *NAMES)


@pytest.mark.parametrize("kind", [POOLED, SITES, NATIVE], ids=["pool", "sites", "native"])
def test_client_that_starts_afresh_replaces_itself_and_nobody_else(kind: str) -> None:
    one = star(kind)
    before = inside_addresses(one, kind)
    sessions = {session.session for session in one.members[HUB].node.engine.sessions()}
    one.restart("192.0.2.12", client("east", kind))
    one.run(8)
    after = {session.session for session in one.members[HUB].node.engine.sessions()}
    assert len(sessions & after) == 2 and len(after) == 3
    assert inside_addresses(one, kind) == before
    check_traffic(one, kind, *NAMES)


@pytest.mark.parametrize("kind", [POOLED, SITES, NATIVE], ids=["pool", "sites", "native"])
def test_nothing_of_a_client_outlives_it(kind: str) -> None:
    one = star(kind)
    node = one.members[HUB].node
    for own in NAMES.values():
        one.members[f"192.0.2.{own}"].node.shut_down(one.now)
    one.run(200)
    assert set(node.plans) == set(node.starter.peers) == {"branch"}
    assert node.clients.names("branch") == () and not node.engine.sessions()
    assert [route for route in node.table.routes() if route[2].source == "binding"] == []
    assert not list(node.children) and not node.labels and not node.table._group
    assert not (node.clients._clients or node.clients._by_session or node._client_routes._users)
    assert all(pool.usage()[4][0] == 0 for pool in node.addresses.pools.values())
    assert node.engine.sizes["sessions"] == 0 and not node.engine._host._places.get("branch")
    assert not node.space._owners and not node._attempts._counts


def test_terminate_by_name_ends_one_client_and_by_entry_all() -> None:
    one = star(SITES)
    node = one.members[HUB].node
    assert node.terminate(EAST, None, one.now) == 1
    one.run(0.5)
    assert {WEST, NORTH} <= set(node.plans) and EAST not in node.plans
    with pytest.raises(LookupError, match=f"no peer {EAST}; there are: branch$"):
        node.terminate(EAST, None, one.now)
    assert node.rekey("branch", None, one.now) == 2
    one.run(0.5)
    check_traffic(one, SITES, "west", "north")
    assert node.terminate("branch", None, one.now) == 2


def test_rekeys_of_a_client_keep_its_routes() -> None:
    one = star(SITES)
    node = one.members[HUB].node
    for peer in (WEST, EAST):
        assert node.rekey(peer, None, one.now) == 1
        assert node.rekey(peer, None, one.now, ike=True) == 1
    one.run(5)
    check_traffic(one, SITES, *NAMES)


def test_what_is_behind_one_client_cannot_be_taken_by_another() -> None:
    """Neither the same prefix nor a longer one inside it, as long as the one who came first has it."""
    thief = client("thief", SITES, announce="10.2.11.128/25", own=14)
    one = Star(gateway(SITES), client("west", SITES), nats=BEHIND_NAT)
    one.run(4)
    one.restart("192.0.2.14", thief)
    one.run(4)
    node = one.members[HUB].node
    assert not node.children.of_peer("branch/fqdn:thief.branch.example")
    (down,) = peers(one)["branch/fqdn:thief.branch.example"]["down"]
    assert down["reason"] == f"10.2.11.0/24 is behind {WEST}"
    one.send(HUB, "inside", packet("10.1.0.9", "10.2.11.200"))
    one.run(0.1)
    assert [len(one.members[f"192.0.2.{own}"].delivered) for own in (11, 14)] == [1, 0]
    node.terminate(WEST, None, one.now)
    one.absent.add("192.0.2.11")
    one.run(60)
    assert node.children.of_peer("branch/fqdn:thief.branch.example"), "it is free now"


def test_selectors_of_a_client_that_are_too_many_prefixes_are_not_all_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A range of IPv6 can be 250 prefixes, and a payload has 255 ranges: the others wait meanwhile."""
    one = star(SITES, names=("west",))
    node, made = one.members[HUB].node, 0
    (child,) = node.children.of_peer(WEST)
    ends = [(ip_address(f"2001:db8:{n:x}::1"), ip_address(f"2001:db8:{n:x}:ffff::fffe")) for n in range(200)]
    wide = replace(child, sa=replace(child.sa, peer_ts=tuple(AddressSelector(*both) for both in ends)))

    def counted(first: Any, last: Any) -> Iterator[Any]:
        nonlocal made
        for prefix in summarize_address_range(first, last):
            made += 1
            yield prefix

    monkeypatch.setattr("endpoint.clients.summarize_address_range", counted)
    with pytest.raises(ValueError, match=f"more than {MAX_PREFIXES} prefixes"):
        node._client_routes.add(wide)
    assert made == MAX_PREFIXES + 1


def test_selectors_of_a_client_that_differ_by_ports_alone_are_one_prefix() -> None:
    one = star(SITES, names=("west",))
    node = one.members[HUB].node
    (child,) = node.children.of_peer(WEST)
    ends = ip_address("10.2.11.0"), ip_address("10.2.11.255")
    ports = tuple(AddressSelector(*ends, 17, port, port) for port in range(MAX_PREFIXES + 1))
    node._client_routes.add(replace(child, sa=replace(child.sa, peer_ts=ports)))
    assert [str(prefix) for _, prefix in node._client_routes._users] == ["10.2.11.0/24"]


def test_client_that_tells_of_packets_or_goes_makes_nobody_look_through_all_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = star(SITES)
    node = one.members[HUB].node
    (child,) = node.children.of_peer(WEST)

    def refuse(*_: object) -> None:
        raise RuntimeError("all are looked at")

    with monkeypatch.context() as patched:
        patched.setattr("endpoint.children.ChildTable.__iter__", refuse)
        told = NotifyPayload(NotifyType.INVALID_SELECTORS, b"", ProtocolId.ESP, child.sa.spi_out)
        node._on_informational(child.session, (told,))
    assert node.mismatches.received == 1
    monkeypatch.setattr(node.engine, "sessions", refuse)
    closed = IkeSaClosed(child.session, "branch", CloseReason.DELETED_BY_PEER, "")
    node._dispatch.handle(closed, one.now)
    assert set(node.plans) == {"branch", EAST, NORTH}


def test_source_of_another_client_is_dropped() -> None:
    one = star(SITES)
    one.send("192.0.2.13", "inside", packet("10.2.11.2", "10.1.0.9"))
    one.run(0.1)
    assert not one.members[HUB].delivered


def test_client_beyond_the_limit_is_refused_and_displaces_nobody_who_answers() -> None:
    one = star(SITES, "max_clients = 2\n")
    assert len(peers(one)) == 3
    one.run(120)
    names = set(peers(one))
    one.run(120)
    assert set(peers(one)) == names and peers(one)["branch"]["clients"] == {"now": 2, "max": 2}


def test_place_of_a_client_that_is_gone_is_free_before_its_liveness_says_so() -> None:
    """Of two that do not answer the one that was not heard for the longest time goes."""
    one = star(SITES, "max_clients = 2\nretransmit_tries = 20\n", names=("west", "east"))
    one.absent.add("192.0.2.11")
    one.run(1)
    one.restart("192.0.2.13", client("north", SITES))
    for _ in itertools.takewhile(lambda _: NORTH not in peers(one), range(200)):
        one.run(1)
    assert set(peers(one)) == {"branch", EAST, NORTH}
    check_traffic(one, SITES, "east", "north")


def test_client_that_answers_again_keeps_its_place() -> None:
    one = star(SITES, "max_clients = 2\nretransmit_tries = 20\n", names=("west", "east"))
    one.absent.add("192.0.2.11")
    one.run(50)
    one.absent.clear()
    one.run(40)
    one.restart("192.0.2.13", client("north", SITES))
    one.run(3)
    assert set(peers(one)) == {"branch", WEST, EAST}


def test_one_client_at_a_time_where_it_is_asked_for() -> None:
    one = star(SITES, "max_clients = 1\n")
    (peer,) = peers(one).values()
    assert peer["name"] == "branch" and peer["clients"] is None
    assert len(peer["sessions"]) == 1


def test_names_of_clients_count_without_case() -> None:
    one = star(SITES, names=("west",))
    other = read(
        CLIENT.format(name="WEST", own=13, address="192.0.2.13", announce="10.2.13.0/24") + PLAIN + TO_HUB
    )
    one.restart("192.0.2.13", other)
    one.run(5)
    assert set(peers(one)) == {"branch", WEST}
    assert len(one.members[HUB].node.engine.sessions()) == 1, "its first contact: it has replaced itself"


def test_status_shows_the_clients_below_their_entry() -> None:
    one = star(POOLED, names=("west",))
    text = render_status(snapshot(one.members[HUB].node, one.now, {}))
    assert "peer branch (*.branch.example, plain)\n  1 clients of at most 256\n" in text
    assert f"peer {WEST} (west.branch.example, plain)\n  IKE SA " in text


def test_name_that_a_client_gives_itself_is_no_markup_of_the_status() -> None:
    one = star(SITES, names=("west",))
    node = one.members[HUB].node
    plan, _ = node.clients.join("branch", Identity(IdType.FQDN, b"[/red].branch.example"), 99)
    node.plans[plan.peer.name] = plan
    node.starter.add(plan)
    text = render_status(snapshot(node, one.now, {}))
    assert "peer branch/fqdn:[/red].branch.example ([/red].branch.example, plain)" in text


@pytest.mark.parametrize(
    ("old", "new", "kind", "said"),
    [
        ('"*.branch.example"', '"a.branch.example"', SITES, "the identity is that of one peer"),
        ('["any"]', '["192.0.2.7"]', SITES, "many clients are at many addresses"),
        ("", "", SITES + "route_based = true\n", "are for one peer"),
        ("", "", SITES.replace("tunnel", "transport").replace("10.2.0.0/16", "10.2.0.1/32"), "tell clients apart"),
    ],
)  # fmt: skip
def test_limit_where_clients_cannot_be_told_apart_is_told(old: str, new: str, kind: str, said: str) -> None:
    text = GATEWAY.replace(old, new)
    assert read(text + kind).peers[0].max_clients == 1
    with pytest.raises(ConfigError) as caught:
        read(text + "max_clients = 2\n" + kind)
    (problem,) = caught.value.problems
    assert (
        problem.key == "peer.branch.max_clients" and said in problem.message and problem.remedy == "write 1"
    )


def test_peers_without_identity_cannot_share_an_entry() -> None:
    text = GATEWAY.replace('"*.branch.example"', '"null"').replace('psk_file = "psk"', "null = true")
    with pytest.raises(ConfigError, match="cannot be told apart"):
        read(text + "max_clients = 2\n" + SITES)
