"""Two `mplsec run` processes whose path changes: an underlay address goes (RFC 4555), a NAT forgets (RFC 7296 2.23)."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endpoint.namespaces import Namespaces, ip, wait_until
from tests.endpoint.test_run_namespaces import Pe, answered

pytestmark = pytest.mark.root


@pytest.fixture
def spaces() -> Iterator[Namespaces]:
    made = Namespaces()
    try:
        for name in ("front1", "front2", "router", "red1", "red2", "blue1", "blue2"):
            made.add(name)
        yield made
    finally:
        made.remove()


def configured(spaces: Namespaces, folder: Path, number: int, own: str, other: str, settings: str = "") -> Pe:
    """A PE with these underlay addresses (TOML lists) and lines for its peer."""
    pe = Pe(number, spaces, folder)
    text = pe.config.read_text()
    text = text.replace(f'addresses  = ["192.0.2.{number}"]', f"addresses  = {own}")
    text = text.replace(f'addresses = ["192.0.2.{3 - number}"]', f"addresses = {other}")
    pe.config.write_text(text.replace('start     = "traffic"', f'start     = "traffic"\n{settings}'))
    return pe


@pytest.fixture
def running() -> Iterator[list[Pe]]:
    pes: list[Pe] = []
    yield pes
    for pe in pes:
        if pe.process is not None:
            pe.process.kill()
            pe.process.wait()


def start(running: list[Pe], *pes: Pe) -> None:
    running.extend(pes)
    for pe in pes:
        pe.launch()
    for pe in pes:
        pe.wait_up()


def wire(spaces: Namespaces, one: str, device: str, address: str, router_address: str) -> None:
    """A link between a namespace and the router; in the router it is called as the namespace."""
    inside, router = spaces.real(one), spaces.real("router")
    ip("-n", inside, "link", "add", device, "type", "veth", "peer", "name", one, "netns", router)
    for real, name, text in ((inside, device, address), (router, one, router_address)):
        ip("-n", real, "address", "add", text, "dev", name)
        ip("-n", real, "link", "set", name, "up")


def masquerade(router: str, first_port: int) -> None:
    """What leaves toward pe2 has the router's address and a port from `first_port` on."""
    rules = f"""
    table ip lab
    delete table ip lab
    table ip lab {{
        chain out {{
            type nat hook postrouting priority srcnat;
            oifname "front2" ip protocol udp masquerade to :{first_port}-{first_port + 999}
        }}
    }}
    """
    subprocess.run(["ip", "netns", "exec", router, "nft", "-f", "-"], input=rules, text=True, check=True)


def test_a_session_moves_to_the_other_address_when_one_is_taken_away(
    spaces: Namespaces, tmp_path: Path, running: list[Pe]
) -> None:
    spaces.join("front1", "192.0.2.1/24", "front2", "192.0.2.2/24")
    front = spaces.real("front1")
    ip("-n", front, "address", "add", "192.0.2.11/24", "dev", "wire")
    ip("netns", "exec", front, "sysctl", "-q", "net.ipv4.conf.all.promote_secondaries=1")
    ours, theirs = '["192.0.2.1", "192.0.2.11"]', '["192.0.2.2"]'
    pe1 = configured(spaces, tmp_path, 1, ours, theirs, 'mode = "tunnel"')
    pe2 = configured(spaces, tmp_path, 2, theirs, ours, 'mode = "tunnel"')
    start(running, pe1, pe2)
    answered(pe1.red, "10.1.0.1", "10.2.0.1", 1)
    ip("-n", front, "address", "del", "192.0.2.1/24", "dev", "wire")
    wait_until(lambda: "192.0.2.11[4500]-192.0.2.2[4500]" in pe1.log(), f"a move: {pe1.log()}")
    answered(pe1.red, "10.1.0.1", "10.2.0.1", 2)
    answered(pe2.red, "10.2.0.1", "10.1.0.1", 3)
    assert "192.0.2.2[4500]-192.0.2.11[4500]" in pe2.log()
    assert "closed" not in pe1.log() + pe2.log()
    ip("-n", front, "address", "add", "192.0.2.1/24", "dev", "wire")
    ip("-n", front, "address", "del", "192.0.2.11/24", "dev", "wire")
    wait_until(
        lambda: "192.0.2.1[4500]-192.0.2.2[4500]" in pe1.log().rpartition("192.0.2.11")[2], "back again"
    )
    answered(pe1.red, "10.1.0.1", "10.2.0.1", 4)


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
def test_labels_go_through_a_masquerading_router_that_forgets_its_mappings(
    spaces: Namespaces, tmp_path: Path, running: list[Pe]
) -> None:
    wire(spaces, "front1", "wire", "10.99.0.1/24", "10.99.0.254/24")
    wire(spaces, "front2", "wire", "192.0.2.2/24", "192.0.2.254/24")
    front, router = spaces.real("front1"), spaces.real("router")
    ip("-n", front, "route", "add", "default", "via", "10.99.0.254")
    ip("netns", "exec", router, "sysctl", "-q", "net.ipv4.ip_forward=1")
    masquerade(router, 20000)
    pe1 = configured(spaces, tmp_path, 1, '["10.99.0.1"]', '["192.0.2.2"]')
    pe2 = configured(spaces, tmp_path, 2, '["192.0.2.2"]', '["any"]')
    start(running, pe1, pe2)
    answered(pe1.red, "10.1.0.1", "10.2.0.1", 1)
    answered(pe2.red, "10.2.0.1", "10.1.0.1", 2)
    # As if the router was restarted: with its link go its mappings, and the new ones have other ports.
    ip("-n", router, "link", "set", "front2", "down")
    masquerade(router, 30000)
    ip("-n", router, "link", "set", "front2", "up")
    answered(pe1.red, "10.1.0.1", "10.2.0.1", 3)
    answered(pe2.red, "10.2.0.1", "10.1.0.1", 4)
    assert "the path is now 192.0.2.2[4500]-192.0.2.254[30" in pe2.log()
    assert "closed" not in pe1.log() + pe2.log()
