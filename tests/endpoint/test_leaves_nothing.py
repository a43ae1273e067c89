"""After two `mplsec run`, a crash of one among it, the system is what it was: links, addresses, routes, rules.

What stays is the guard routes, by decision (endpoint/guard.py), and README says how they go.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.guard import LOWEST_PREFERENCE
from endpoint.netlink import ROUTE_PROTOCOL
from tests.endpoint.namespaces import Namespaces, Pinger, ip, wait_until
from tests.endpoint.running import Run, running

pytestmark = pytest.mark.root

README = Path(__file__).parents[2] / "README.md"
CONFIG = """
[endpoint]
identity   = "pe{own}.example"
addresses  = ["192.0.2.{own}"]
state_dir  = "STATE"

[[vrf]]
name     = "red"
attach   = [{{ tun = "red0", netns = "{red}", address = ["10.{own}.0.1/24", "2001:db8:{own}::1/64"] }}]
announce = ["10.{own}.0.0/16", "2001:db8:{own}::/48"]

[[vrf]]
name     = "home"
attach   = [{{ tun = "home0", address = ["10.1{own}.0.1/24", "2001:db8:1{own}::1/64"] }}]
announce = ["10.1{own}.0.0/16", "2001:db8:1{own}::/48"]

[[peer]]
name      = "pe{other}"
identity  = "pe{other}.example"
addresses = ["192.0.2.{other}"]
auth      = {{ psk_file = "secret" }}
start     = "traffic"
  [[peer.vrf]]
  name   = "red"
  accept = ["10.{other}.0.0/16", "2001:db8:{other}::/48"]
  [[peer.vrf]]
  name   = "home"
  accept = ["10.1{other}.0.0/16", "2001:db8:1{other}::/48"]
"""
SEEN = (
    ("link",),
    ("address",),
    ("-4", "route", "show", "table", "all"),
    ("-6", "route", "show", "table", "all"),
    ("-4", "rule"),
    ("-6", "rule"),
)
REMOVES_GUARDS = ("-4 route flush proto 137", "-6 route flush proto 137")
REMOVES_GUARD_OF_EVERYTHING = "-6 route del unreachable default proto 137"
"""iproute2 takes an unreachable IPv6 default route of the lowest preference for the kernel's own."""
Snapshot = frozenset[tuple[str, str, str]]
"""(namespace, what `ip` was asked for, one object of its answer)"""


@pytest.fixture
def spaces() -> Iterator[Namespaces]:
    """Two routers with routes and rules of their own, in the table where the guards will be."""
    spaces = Namespaces()
    try:
        for own in (1, 2):
            spaces.add(f"home{own}")
            spaces.add(f"red{own}")
        spaces.join("home1", "192.0.2.1/24", "home2", "192.0.2.2/24")
        for own in (1, 2):
            home, red = spaces.real(f"home{own}"), spaces.real(f"red{own}")
            ip("-n", home, "address", "add", f"2001:db8:f::{own}/64", "dev", "wire", "nodad")
            for family, gateway in (("-4", f"192.0.2.{3 - own}"), ("-6", f"2001:db8:f::{3 - own}")):
                ip("-n", home, family, "route", "add", "default", "via", gateway)
                ip("-n", home, family, "route", "add", "unreachable", "default", "metric", "4294967294")
                ip("-n", red, family, "rule", "add", "fwmark", "7", "table", "100")
        yield spaces
    finally:
        spaces.remove()


@pytest.fixture
def runs(spaces: Namespaces, tmp_path: Path) -> tuple[Run, Run]:
    def run(own: int) -> Run:
        text = CONFIG.format(own=own, other=3 - own, red=spaces.real(f"red{own}"))
        return Run(f"pe{own}", text, tmp_path, spaces.real(f"home{own}"))

    return run(1), run(2)


def snapshot(spaces: Namespaces) -> Snapshot:
    def objects(netns: str, words: tuple[str, ...]) -> list[dict[str, Any]]:
        return list(json.loads(ip("-n", netns, "-json", *words) or "[]"))

    return frozenset(
        (name, " ".join(words), json.dumps(one, sort_keys=True))
        for name in ("home1", "home2", "red1", "red2")
        for words in SEEN
        for one in objects(spaces.real(name), words)
    )


def pings(spaces: Namespaces, sequence: int) -> None:
    """Each VRF of pe1 has an answer from pe2."""
    for name, source, destination in (
        ("red1", "10.1.0.1", "10.2.0.1"),
        ("home1", "10.11.0.1", "10.12.0.1"),
    ):
        pinger = Pinger(spaces.real(name), source)
        pinger.send(destination, sequence)
        wait_until(lambda p=pinger: p.has_answer(sequence), f"{name}: answer {sequence}")  # type: ignore[misc]
        pinger.close()


def guards(own: int) -> set[tuple[str, str, str]]:
    return {(f"home{own}", "-4", f"10.1{3 - own}.0.0/16"), (f"home{own}", "-6", f"2001:db8:1{3 - own}::/48")}


def test_a_system_is_what_it_was_after_a_crash_a_restart_and_a_stop(
    spaces: Namespaces, runs: tuple[Run, Run]
) -> None:
    def is_settled() -> bool:
        return not any("tentative" in text for _, _, text in snapshot(spaces))

    wait_until(is_settled, "link-local addresses are no longer tentative")
    before = snapshot(spaces)
    with running(*runs) as (one, two):
        pings(spaces, 1)
        for destination in ("10.2.0.0/16", "2001:db8:2::/48"):  # it would have been seen
            assert any(
                f'"{destination}"' in text for name, _, text in snapshot(spaces) - before if name == "red1"
            )
        two.stop(signal.SIGKILL)
        of_two = {each for each in snapshot(spaces) if each[0] in ("home2", "red2")} - before
        assert {(name, words[:2], json.loads(text)["dst"]) for name, words, text in of_two} == guards(2)
        two.launch()
        two.wait_up()
        wait_until(lambda: bool(two.status()["peers"][0]["children"]), "pe2 brings back what was up")
        pings(spaces, 2)
        assert [one.stop(), two.stop()] == [0, 0]

    after = snapshot(spaces)
    assert before <= after
    left = [(name, words, json.loads(text)) for name, words, text in after - before]
    assert {route["type"] for _, _, route in left} == {"unreachable"}
    assert {(name, words[:2], route["dst"]) for name, words, route in left} == guards(1) | guards(2)
    for command in REMOVES_GUARDS:
        for name in ("home1", "home2"):
            ip("-n", spaces.real(name), *command.split())
    assert snapshot(spaces) == before


def test_guards_of_everything_go_by_the_commands_of_the_readme(namespace: str) -> None:
    for family in ("-4", "-6"):
        words = ("unreachable", "default", "proto", str(ROUTE_PROTOCOL), "metric", str(LOWEST_PREFERENCE))
        ip("-n", namespace, family, "route", "add", *words)
    for command in (*REMOVES_GUARDS, REMOVES_GUARD_OF_EVERYTHING):
        ip("-n", namespace, *command.split())
    assert [ip("-n", namespace, family, "route") for family in ("-4", "-6")] == ["", ""]


def test_the_readme_says_how_guard_routes_go() -> None:
    text = " ".join(README.read_text().split())
    commands = (*REMOVES_GUARDS, REMOVES_GUARD_OF_EVERYTHING)
    assert [command for command in commands if f"`ip {command}`" not in text] == []
