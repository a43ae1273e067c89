"""Both programs up and the wire being captured: what most cases have in common while they drive.

Must not know: any particular case, nor which machine the peer is.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ..networks import Network
from ..peers.linux_pe import received, transmitted
from ..peers.mplsec import Mplsec
from ..peers.strongswan import StrongSwan
from ..processes import Background, run, wait_until
from ..topologies import Nat
from .case import OUR_ADDRESS, OUR_CUSTOMER, PEER_ADDRESS, PINGS, Evidence, Lab, require

STREAMS = {"stream": 1000, "gold": 1001, "standard": 1002}
"""What streams of pings there are, each with its ICMP identifier."""
STREAM_EVERY_S = 0.05
SETTLE_S = 0.3
"""Between the end of a stream and that of the capture: the last answer is still under way."""


class PeerMachine(Protocol):
    """A `LinuxPe` or a `SwanContainer`: a customer behind the peer."""

    @property
    def customer(self) -> str: ...

    def ping(self, address: str, *, count: int = 3) -> int: ...


M_co = TypeVar("M_co", bound=PeerMachine, covariant=True)


@dataclass(frozen=True)
class Running(Generic[M_co]):
    """Our program and charon on its machine. `red` is the namespace of our VRF's customers."""

    lab: Lab
    network: Network
    red: str
    machine: M_co
    charon: StrongSwan
    ours: Mplsec

    def bring_up(self, role: str, *children: str) -> None:
        """The IKE SA and its children, begun by us as `role` initiator or by the peer, which calls them so."""
        if role == "initiator":
            self.ours.initiate("pe2")
        else:
            for child in children:
                self.charon.initiate(child)
        self.charon.wait_for_children(len(children))

    def ping(
        self,
        *,
        traffic_class: int = 0,
        count: int = PINGS,
        wait_s: int = 5,
        source: str = OUR_CUSTOMER,
        target: str = "",
        more: tuple[str, ...] = (),
    ) -> int:
        """Ping from our customer to the peer's; how many answers came. `more`: further options of ping."""
        options = [
            *more,
            "-Q",
            str(traffic_class),
            "-c",
            str(count),
            "-l",
            str(count),
            "-W",
            str(wait_s),
            "-I",
            source,
        ]
        return received(
            run(["ping", *options, target or self.machine.customer], netns=self.red, check=False).stdout
        )

    def ping_both_ways(self) -> dict[str, Any]:
        """`PINGS` from our customer and `PINGS` from the peer's, as the facts of `check_both_ways`."""
        return {
            "answers_to_us": self.ping(),
            "answers_to_peer": self.machine.ping(OUR_CUSTOMER, count=PINGS),
        }

    @contextmanager
    def stream(
        self, facts: dict[str, Any], name: str = "stream", *, traffic_class: int = 0
    ) -> Iterator[None]:
        """Our customer pings the peer's all the while; afterwards `facts[name]` is (sent, answered)."""
        log = self.lab.folder / f"{name}.log"
        options = ["-e", str(STREAMS[name]), "-Q", str(traffic_class), "-i", str(STREAM_EVERY_S)]
        ping = Background(
            ["ping", *options, "-I", OUR_CUSTOMER, self.machine.customer], log=log, netns=self.red
        )
        try:
            self.wait_for_answers(name)
            yield
            self.wait_for_answers(name)
        finally:
            ping.stop(first=signal.SIGINT)
        time.sleep(SETTLE_S)
        said = log.read_text()
        facts[name] = (transmitted(said), received(said))

    def wait_for_answers(self, name: str = "stream", count: int = 3) -> None:
        """Wait until the stream has had `count` more answers."""
        log = self.lab.folder / f"{name}.log"
        before = log.read_text().count("icmp_seq=")
        wait_until(
            lambda: log.read_text().count("icmp_seq=") >= before + count, f"answers to {name}", every_s=0.02
        )

    def facts(self, *, by_spi: bool = False) -> dict[str, Any]:
        """What both sides say at the end; the peer's keys go to the lab's folder.

        `by_spi`: ESP is opened whatever its addresses are, as behind a NAT.
        """
        keys, ours = self.charon.keys(), self.ours.keys()
        if by_spi or isinstance(self.network, Nat):
            keys, ours = keys.by_spi(), ours.by_spi()
        keys.write(self.lab.keys)
        return {
            "peer_version": self.charon.version,
            "our_version": self.ours.version,
            "keys_agree": keys.agrees_with(ours),
            "peer_sas": self.charon.ike_sas(),
            "our_status": self.ours.status(),
        }


def check_stream(evidence: Evidence, customer: str, name: str = "stream") -> str:
    """Every echo request of the stream is inside ESP exactly once, in order, and each is answered inside ESP.

    `customer` is the peer's.
    """
    sent, answered = evidence.fact(name)
    request, answer = (OUR_ADDRESS, 8, OUR_CUSTOMER, customer), (PEER_ADDRESS, 0, customer, OUR_CUSTOMER)
    numbers: dict[tuple[str, int, str, str], list[int]] = {request: [], answer: []}
    for packet in evidence.esp:
        if packet.ping and packet.ping_id == STREAMS[name]:
            kind = (packet.source, *packet.ping[:3])
            require(kind in numbers, f"neither request nor answer of {name}: {packet}")
            numbers[kind].append(packet.ping[3])
    asked = numbers[request]
    require(asked == list(range(1, sent + 1)), f"{name}: of {sent} requests, on the wire: {asked}")
    lost = sorted(set(asked) - set(numbers[answer]))
    require(not lost, f"{name}: no answer on the wire to {lost}")
    require(len(numbers[answer]) == sent, f"{name}: {len(numbers[answer])} answers to {sent} requests")
    # The stream is ended while its last answer may be under way: on the wire it is there all the same.
    require(sent - answered <= 1, f"{name}: {answered} answers to {sent} requests came back to our customer")
    return f"{name} of {sent} pings inside ESP, none lost"
