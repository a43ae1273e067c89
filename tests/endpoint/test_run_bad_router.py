"""Two `mplsec run` processes and a router between them that does what it should not."""

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endpoint.bad_router import BadRouter, TooBig
from tests.endpoint.namespaces import Namespaces, Pinger, wait_until
from tests.endpoint.test_run_namespaces import Pe

pytestmark = pytest.mark.root
EF = 46


@pytest.fixture
def spaces() -> Iterator[Namespaces]:
    made = Namespaces()
    try:
        for name in ("front1", "front2", "red1", "red2", "blue1", "blue2"):
            made.add(name)
        yield made
    finally:
        made.remove()


@pytest.fixture
def router(spaces: Namespaces) -> Iterator[BadRouter]:
    made = BadRouter(spaces.real("front1"), "192.0.2.1/24", spaces.real("front2"), "192.0.2.2/24")
    yield made
    made.close()


@pytest.fixture
def pes(spaces: Namespaces, tmp_path: Path) -> Iterator[list[Pe]]:
    made = [Pe(number, spaces, tmp_path) for number in (1, 2)]
    yield made
    for pe in made:
        if pe.process is not None:
            pe.process.kill()
            pe.process.wait()


def start(pes: list[Pe], udp: str = "never") -> None:
    for pe in pes:
        text = pe.config.read_text().replace('udp       = "auto"', f'udp = "{udp}"\npath_mtu = "probe"')
        pe.config.write_text(text.replace("tc   = [5, 6, 7]", 'tc = [5, 6, 7]\nouter_dscp = "ef"'))
        pe.launch()
    for pe in pes:
        pe.wait_up()
    assert answers(pes[0], 1, 100)


def answers(pe: Pe, sequence: int, octets: int, dscp: int = 0, seconds: float = 10.0) -> bool:
    """Whether an IP packet of so many octets goes to the other customer and back."""
    pinger = Pinger(pe.red, "10.1.0.1", dscp)
    try:
        for _ in range(int(seconds * 10)):
            with contextlib.suppress(AssertionError, OSError):  # OSError: the kernel knows that it is too big
                pinger.send("10.2.0.1", sequence, octets - 28)
                wait_until(lambda: pinger.has_answer(sequence), "an answer", 0.1)
                return True
        return False
    finally:
        pinger.close()


def told_mtu(pe: Pe, octets: int) -> int:
    """What the customer's own kernel has learnt by ICMP from a packet of that size with DF."""
    command = [
        "ip",
        "netns",
        "exec",
        pe.red,
        "ping",
        "-M",
        "do",
        "-s",
        str(octets - 28),
        "-c",
        "3",
        "-i",
        "0.2",
    ]
    said = subprocess.run([*command, "-W", "1", "10.2.0.1"], capture_output=True, text=True, check=False)
    found = re.search(r"mtu ?= ?(\d+)", said.stdout + said.stderr)
    return int(found[1]) if found else 0


def path(pe: Pe) -> dict[str, object]:
    (peer,) = pe.status()["peers"]
    return dict(peer["path"] or {})


def vrf_mtu(pe: Pe) -> int:
    (peer,) = pe.status()["peers"]
    (child,) = {
        child["name"]: child for child in peer["children"] if child["name"] == "red/standard"
    }.values()
    return int(child["tunnel_mtu"]) - 4


@pytest.mark.parametrize(("udp", "overhead"), [("never", 58), ("always", 66)])
def test_a_router_that_drops_silently_costs_nothing_but_the_octets(
    router: BadRouter, pes: list[Pe], udp: str, overhead: int
) -> None:
    router.mtu = 1492  # PPPoE that nobody has configured
    start(pes, udp)
    for pe in pes:
        wait_until(lambda pe=pe: path(pe) == path(pe) | {"state": "done", "path_mtu": 1492}, "1492 found")  # type: ignore[misc]
    most = vrf_mtu(pes[0])
    assert 1492 - overhead - 3 <= most <= 1492 - overhead
    assert answers(pes[0], 2, most)
    assert told_mtu(pes[0], most + 1) == most


def test_a_router_that_ignores_df_is_named_and_one_that_zeroes_dscp_changes_no_class(
    router: BadRouter, pes: list[Pe]
) -> None:
    router.mtu, router.too_big, router.zeroes_dscp = 1400, TooBig.FRAGMENT, True
    start(pes)
    for pe in pes:
        wait_until(lambda pe=pe: path(pe).get("state") == "done", "the search's end")  # type: ignore[misc]
        assert path(pe) == path(pe) | {"path_mtu": 1400, "ignores_df": True, "largest_fragment": 1396}
        assert "ignores DF" in pe.log()
    assert answers(pes[0], 2, vrf_mtu(pes[0]), dscp=EF)
    assert EF in router.seen_dscp, "it was there to be zeroed"
    (peer,) = pes[1].status()["peers"]
    gold = next(child for child in peer["children"] if child["name"] == "red/gold")
    assert gold["packets_in"] and gold["packets_out"]


@pytest.mark.parametrize("udp", ["never", "always"])
def test_an_honest_router_with_less_makes_us_look_at_once_and_not_after_a_minute(
    router: BadRouter, pes: list[Pe], udp: str
) -> None:
    start(pes, udp)
    wait_until(lambda: path(pes[0]).get("state") == "done", "the search's end")
    router.mtu, router.too_big = 1300, TooBig.ICMP
    answers(pes[0], 3, vrf_mtu(pes[0]), seconds=0.3)
    wait_until(lambda: path(pes[0]) == path(pes[0]) | {"state": "done", "path_mtu": 1300}, "1300 found")
    assert answers(pes[0], 4, vrf_mtu(pes[0]))
