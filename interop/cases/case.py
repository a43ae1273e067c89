"""What a case is: a name, what it proves, how it is driven, and a check that looks at the wire.

Must not know: any particular case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..capture import Packet
from ..containers import ContainerDaemon
from ..networks import Network
from ..packages import Root
from ..processes import LabError
from ..topologies import network
from ..wire import (
    ChildNegotiation,
    EspPacket,
    IkeMessage,
    IkeRekey,
    child_negotiations,
    esp_packets,
    ike_messages,
    ike_rekeys,
    in_clear,
)

OUR_ADDRESS, PEER_ADDRESS = "192.0.2.1", "192.0.2.2"
ENDS = (OUR_ADDRESS, PEER_ADDRESS)
IPV6_ENDS = ("2001:db8:c::1", "2001:db8:c::2")
OUR_CUSTOMER = "10.1.0.1"
PSK = "a secret of the interop lab, known to everybody"
PINGS = 3
"""Sent at once (ping -l): once it has an answer ping waits for the others an interval at most, whatever -W says."""


class CheckError(Exception):
    """The evidence does not show what the case claims."""


class UnsupportedError(Exception):
    """The peer cannot do it, and said so; the text is the reason."""

    def __init__(self, reason: str, peer_version: str) -> None:
        super().__init__(reason)
        self.peer_version = peer_version


@dataclass(frozen=True)
class Lab:
    """What a case gets: a folder to keep things in, one for sockets, the container daemon, and networks.

    `prefix` begins the names of all that is made for this case: another one may run beside it.
    """

    folder: Path
    state: Path
    docker: ContainerDaemon | None
    prefix: str

    @property
    def daemon(self) -> ContainerDaemon:
        if self.docker is None:
            raise LabError("this case did not say that it needs Docker")
        return self.docker

    def network(self, topology: str = "direct") -> Network:
        """The network of a name in topologies.py; a context manager."""
        return network(topology, self.prefix)

    @property
    def capture(self) -> Path:
        return self.folder / "wire.pcap"

    @property
    def keys(self) -> Path:
        """The key tables that the capture is decoded with."""
        return self.folder / "keys"


@dataclass(frozen=True)
class Evidence:
    """The decoded capture of a case, and what the two programs said."""

    packets: list[Packet]
    facts: dict[str, Any] = field(default_factory=dict)

    def fact(self, name: str) -> Any:
        if name not in self.facts:
            raise CheckError(f"nothing is known about {name}")
        return self.facts[name]

    @cached_property
    def esp(self) -> list[EspPacket]:
        return esp_packets(self.packets)

    @cached_property
    def ike(self) -> list[IkeMessage]:
        return ike_messages(self.packets)

    @cached_property
    def children(self) -> list[ChildNegotiation]:
        return child_negotiations(self.packets)

    @cached_property
    def ike_rekeys(self) -> list[IkeRekey]:
        return ike_rekeys(self.packets)

    @cached_property
    def clear(self) -> list[Packet]:
        return in_clear(self.packets)


class Case(ABC):
    """One case. `role` is ours: initiator or responder of the IKE SA.

    `drive` leaves a capture and the peer's keys in the lab's folder and returns facts, `peer_version` among
    them; `check` returns what it saw, a line each, or raises `CheckError`. It sees nothing but the evidence,
    so that it can be run on the evidence of another case, where it must fail.
    """

    name: str
    feature: str
    peer: str
    role: str
    roots: tuple[Root, ...]
    """The root file systems that its peer runs from."""
    may_be_malformed = False
    """Whether tshark is known not to understand what is on the wire."""
    needs_docker = True
    is_patient = False
    """Whether it does nothing but wait for most of its time."""
    topology = "direct"
    """What lies between us and the peer: a name in topologies.py."""

    @property
    def claim(self) -> str:
        """What the check asserts: two cases with equal claims pass on each other's evidence, others must not."""
        return self.name

    @property
    def includes(self) -> frozenset[str]:
        """Claims of simpler cases that this one's evidence proves as well, so that their checks pass on it."""
        return frozenset()

    def must_refuse(self, other: Case) -> bool:
        """Whether the check has to fail on the evidence of the other case."""
        return self.claim != other.claim and self.claim not in other.includes

    @abstractmethod
    def drive(self, lab: Lab) -> dict[str, Any]: ...

    @abstractmethod
    def check(self, evidence: Evidence) -> list[str]: ...


def require(condition: object, message: str) -> None:
    if not condition:
        raise CheckError(message)


def quoted(words: tuple[str, ...]) -> str:
    """What stands in an array of strings of our configuration."""
    return ", ".join(f'"{word}"' for word in words)


def check_initiator(evidence: Evidence, role: str, ends: tuple[str, str] = ENDS) -> str:
    """IKE was begun by us (`role` initiator) or by the peer, and by nobody else. `ends`: our address, the peer's."""
    began = {message.source for message in evidence.ike if message.exchange == 34 and not message.is_response}
    expected = ends[0] if role == "initiator" else ends[1]
    require(began == {expected}, f"IKE_SA_INIT was sent by {sorted(began)}, not by {expected}")
    return f"IKE begun by {expected}"


def check_decrypted(evidence: Evidence) -> str:
    """There is ESP, all of it opens with the keys, and nothing of the customer's went in clear."""
    require(evidence.esp, "no ESP on the wire")
    closed = [str(packet) for packet in evidence.esp if packet.next_header is None]
    require(not closed, f"ESP that the keys do not open: {closed[:2]}")
    require(not evidence.clear, f"in clear on the wire: {[packet.stack for packet in evidence.clear[:3]]}")
    return f"{len(evidence.esp)} ESP packets, none of the customer's packets in clear"


def check_pings(evidence: Evidence, source: str, target: str, sender: str) -> EspPacket:
    """`PINGS` echo requests `source` > `target` inside ESP from `sender`, each answered by the other side.

    Returns the first.
    """
    which = f"pings {source} > {target}"
    requests = [packet for packet in evidence.esp if packet.ping and packet.ping[:3] == (8, source, target)]
    answers = [packet for packet in evidence.esp if packet.ping and packet.ping[:3] == (0, target, source)]
    require(requests, f"no {which} inside ESP")
    require({packet.source for packet in requests} == {sender}, f"{which} were not sent by {sender}")
    require(sender not in {packet.source for packet in answers}, f"{which} are answered by the wrong side")
    asked, answered = ({packet.ping[3] for packet in found if packet.ping} for found in (requests, answers))
    require(asked == answered, f"{which}: sent {sorted(asked)}, answered {sorted(answered)}")
    require(len(requests) == len(answers) == PINGS, f"{which}: {len(requests)}, not {PINGS}")
    return requests[0]


def check_both_ways(evidence: Evidence, ours: str, theirs: str, ends: tuple[str, str] = ENDS) -> list[str]:
    """The customers `ours` and `theirs` reach each other inside ESP, with no loss."""
    first = check_pings(evidence, ours, theirs, ends[0])
    check_pings(evidence, theirs, ours, ends[1])
    require(evidence.fact("answers_to_us") == PINGS, "pings of our customer were lost")
    require(evidence.fact("answers_to_peer") == PINGS, "pings of the peer's customer were lost")
    return [f"{PINGS} + {PINGS} pings answered inside ESP", str(first)]


def check_keys(evidence: Evidence) -> str:
    """Our exported keys are those of the peer's own log, which opened the capture."""
    require(evidence.fact("keys_agree"), "the keys that we export are not those that the peer derived")
    return "our key tables equal the peer's own"
