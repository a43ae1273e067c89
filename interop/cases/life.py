"""What happens to SAs after they are up: rekeys, deletes and restarts, begun by either side.

Must not know: which machine the peer is; the case that brings it up is handed in.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from itertools import groupby, pairwise
from typing import Any

from ..peers.mplsec import in_use
from ..peers.strongswan import StrongSwan, installed
from ..processes import wait_until
from ..wire import IKE_AUTH, INITIAL_CONTACT, IkeRekey
from .case import (
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    Case,
    Evidence,
    Lab,
    check_both_ways,
    require,
)
from .linux_pe import PEER_CUSTOMER as GUEST_CUSTOMER
from .linux_pe import LinuxPeCase
from .running import PeerMachine, Running, check_stream
from .strongswan import PEER_CUSTOMER, IpTunnelCase


class LifeCase(Case):
    """A child between us and a Linux PE or a container, and what `live` does to it."""

    what: str

    def __init__(self, base: LinuxPeCase | IpTunnelCase) -> None:
        self.base = base
        self.role, self.peer, self.roots = base.role, base.peer, base.roots
        self.needs_docker, self.topology = base.needs_docker, base.topology
        is_guest = isinstance(base, LinuxPeCase)
        self.customer = GUEST_CUSTOMER if is_guest else PEER_CUSTOMER
        self.name = f"{'linux-pe' if is_guest else 'strongswan'}-{self.what}-{self.role}"

    def config(self, red: str) -> str:
        return self.base.config(red)

    def drive(self, lab: Lab) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        running: AbstractContextManager[Running[Any]] = self.base.running(lab)
        with running as now:
            now.bring_up(self.role, self.base.their_child)
            self.live(now, facts)
            return facts | self.base.facts(now)

    @abstractmethod
    def live(self, now: Running[Any], facts: dict[str, Any]) -> None:
        """What happens after the child is up."""


def one_child(charon: StrongSwan, former: str = "") -> str:
    """The SPI of the single Child SA at the peer, as soon as it is another one than `former`."""

    def replaced() -> str | None:
        spis = [str(child["spi-in"]) for child in charon.child_sas()]
        return spis[0] if len(spis) == 1 and spis[0] != former else None

    return wait_until(replaced, f"one Child SA at the peer, and not {former or 'none'}", every_s=0.1)


def one_ike_sa(charon: StrongSwan, former: str = "") -> str:
    """The initiator's SPI of the single IKE SA at the peer, as soon as it is another one than `former`."""

    def replaced() -> str | None:
        sas = charon.ike_sas()
        spis = [str(sa["initiator-spi"]) for sa in sas]
        if len(spis) == 1 and spis[0] != former and sas[0]["state"] == "ESTABLISHED":
            return spis[0]
        return None

    return wait_until(replaced, f"one IKE SA at the peer, and not {former or 'none'}", every_s=0.1)


def check_generations(evidence: Evidence, source: str, count: int) -> list[int]:
    """The SPIs that `source` sends on, one after the other and never back to an earlier one: `count` of them."""
    turns = [spi for spi, _ in groupby(packet.spi for packet in evidence.esp if packet.source == source)]
    require(len(turns) == len(set(turns)) == count, f"{source} sent on {[f'{spi:#x}' for spi in turns]}")
    return turns


class ChildRekey(LifeCase):
    """The child is rekeyed by us and then by the peer, while pings go on."""

    what = "child-rekey"
    feature = "Child SA rekeyed by either side under a ping stream, nothing lost"

    def live(self, now: Running[PeerMachine], facts: dict[str, Any]) -> None:
        with now.stream(facts):
            spi = one_child(now.charon)
            now.ours.rekey("pe2", self.base.our_child)
            spi = one_child(now.charon, spi)
            now.wait_for_answers()
            now.charon.rekey(self.base.their_child)
            one_child(now.charon, spi)
        facts["our_children"] = [child["spi_in"] for child in now.ours.children()]

    def check(self, evidence: Evidence) -> list[str]:
        seen = [*self.base.check_packets(evidence), check_stream(evidence, self.customer)]
        made = [child for child in evidence.children if child.is_accepted]
        rekeys = [child for child in made if child.is_rekey]
        require(len(made) == 3, f"{len(made)} children were negotiated, not one and two successors")
        require(
            [child.request.source for child in rekeys] == [OUR_ADDRESS, PEER_ADDRESS], "not one rekey by each"
        )
        for before, child in pairwise(made):
            old = before.spis[child.request.source]
            require(child.rekeyed_spi == old, f"REKEY_SA names {child.rekeyed_spi:#x}, not {old:#x}")
        for source, target in ((OUR_ADDRESS, PEER_ADDRESS), (PEER_ADDRESS, OUR_ADDRESS)):
            turns = check_generations(evidence, source, 3)
            agreed = [child.spis[target] for child in made]
            require(turns == agreed, f"{source} sent on {turns}, agreed were {agreed}")
        for before, child in pairwise(made):
            gone = [one for one in evidence.ike if before.spis[child.request.source] in one.deleted_spis]
            require(gone, f"no Delete for the child that {child.request.source} rekeyed")
        last = f"{made[-1].spis[OUR_ADDRESS]:08x}"
        require(evidence.fact("our_children") == [last], "the last child is not the one that is left")
        return [
            *seen,
            *(
                f"CREATE_CHILD_SA with REKEY_SA by {one.request.source}: new SPIs {one.spis}"
                for one in rekeys
            ),
        ]


class PacketLifetime(LifeCase):
    """Our configuration says how many packets a child may carry; it is replaced before that, without a command."""

    what = "packet-lifetime"
    feature = "Child SA replaced by its soft lifetime in packets under a ping stream, nothing lost"
    packets = 100

    def __init__(self, base: IpTunnelCase) -> None:
        super().__init__(base)
        base.more_settings = f"lifetime = {{ child_rekey_packets = {self.packets} }}\n"

    def live(self, now: Running[PeerMachine], facts: dict[str, Any]) -> None:
        with now.stream(facts):
            one_child(now.charon, one_child(now.charon))
        facts["our_children"] = [child["expires_in_packets"] for child in now.ours.children()]

    def check(self, evidence: Evidence) -> list[str]:
        seen = [*self.base.check_packets(evidence), check_stream(evidence, self.customer)]
        rekeys = [child for child in evidence.children if child.is_accepted and child.is_rekey]
        require([child.request.source for child in rekeys] == [OUR_ADDRESS], "not one rekey, by us")
        first, _ = check_generations(evidence, OUR_ADDRESS, 2)
        carried = sum(packet.spi == first for packet in evidence.esp)
        require(
            self.packets * 0.9 <= carried < self.packets * 1.1, f"the first child carried {carried} packets"
        )
        (left,) = evidence.fact("our_children")
        require(0 < left <= self.packets * 1.1, f"the second child ends in {left} packets")
        return [*seen, f"the child was replaced after {carried} packets of at most {self.packets}"]


class IkeRekeyed(LifeCase):
    """The IKE SA is rekeyed by us and then by the peer; the child goes on and is rekeyed in the last IKE SA."""

    what = "ike-rekey"
    feature = "IKE SA rekeyed by either side under a ping stream, the child goes on"

    def live(self, now: Running[PeerMachine], facts: dict[str, Any]) -> None:
        with now.stream(facts):
            spi = one_ike_sa(now.charon)
            now.ours.rekey("pe2")
            spi = one_ike_sa(now.charon, spi)
            now.charon.rekey()
            one_ike_sa(now.charon, spi)
            child = one_child(now.charon)
            now.ours.rekey("pe2", self.base.our_child)
            one_child(now.charon, child)

    def check(self, evidence: Evidence) -> list[str]:
        seen = [*self.base.check_packets(evidence), check_stream(evidence, self.customer)]
        rekeys: list[IkeRekey] = evidence.ike_rekeys
        require(
            [one.request.source for one in rekeys] == [OUR_ADDRESS, PEER_ADDRESS], "not one rekey by each"
        )
        first = next(one.spi_i for one in evidence.ike)
        chain = [first, *(one.spi_i for one in rekeys)]
        require(
            [one.request.spi_i for one in rekeys] == chain[:-1], "an IKE SA that was replaced was rekeyed"
        )
        for spi, rekey in zip(chain, rekeys, strict=False):
            gone = [one for one in evidence.ike if one.spi_i == spi and one.deletes_ike_sa]
            require(gone, f"no Delete in the IKE SA {spi} that {rekey.request.source} rekeyed")
        made = [child for child in evidence.children if child.is_accepted]
        require(
            [one.request.spi_i for one in made] == [chain[0], chain[-1]],
            "the child is not of the last IKE SA",
        )
        require(made[-1].is_rekey and made[-1].request.source == OUR_ADDRESS, "we did not rekey the child")
        check_generations(evidence, OUR_ADDRESS, 2)
        check_generations(evidence, PEER_ADDRESS, 2)
        return [
            *seen,
            *(f"IKE SA {one.request.spi_i} rekeyed by {one.request.source}: {one.spi_i}" for one in rekeys),
            f"the child went on, and was rekeyed in IKE SA {chain[-1]}",
        ]


class Deleted(LifeCase):
    """Child and IKE SA are deleted by us and by the peer; each time both sides have none, and come up again."""

    what = "delete"
    feature = "Child SA and IKE SA deleted by either side, gone on both, and made again"

    def live(self, now: Running[PeerMachine], facts: dict[str, Any]) -> None:
        left: list[list[int]] = []
        answers = [now.ping(count=1)]

        def count(children: int, ike_sas: int) -> None:
            expected = [children, ike_sas]

            def is_so() -> bool:
                status, theirs = now.ours.status(), now.charon.ike_sas()
                ours = [len(in_use(status)), sum(len(peer["sessions"]) for peer in status["peers"])]
                return ours == expected == [len(installed(theirs)), len(theirs)]

            wait_until(is_so, f"{children} children and {ike_sas} IKE SAs on both sides", every_s=0.1)
            left.append(expected)

        now.ours.terminate("pe2", self.base.our_child)
        count(0, 1)
        answers.append(now.ping(count=1, wait_s=1))  # goes nowhere, least of all out in clear
        now.ours.initiate("pe2")
        count(1, 1)
        answers.append(now.ping(count=1))
        now.charon.terminate(self.base.their_child)
        count(0, 1)
        now.charon.initiate(self.base.their_child)
        count(1, 1)
        answers.append(now.ping(count=1))
        now.ours.terminate("pe2")
        count(0, 0)
        now.bring_up(self.role, self.base.their_child)
        count(1, 1)
        answers.append(now.ping(count=1))
        now.charon.terminate()
        count(0, 0)
        facts |= {"answers": answers, "left": left}

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.base.check_packets(evidence)
        deletes = [
            (one.source, "IKE SA" if one.deletes_ike_sa else "child")
            for one in evidence.ike
            if not one.is_response and (one.deletes_ike_sa or one.deleted_spis)
        ]
        expected = [(source, what) for what in ("child", "IKE SA") for source in (OUR_ADDRESS, PEER_ADDRESS)]
        require(deletes == expected, f"Deletes on the wire: {deletes}")
        made = [child for child in evidence.children if child.is_accepted]
        require(
            len(made) == 4 and not any(child.is_rekey for child in made),
            "not four children one after another",
        )
        began = OUR_ADDRESS if self.role == "initiator" else PEER_ADDRESS
        makers = [child.request.source for child in made]
        require(makers == [began, OUR_ADDRESS, PEER_ADDRESS, began], f"the children were made by {makers}")
        first, second, third, fourth = (child.request.spi_i for child in made)
        require(first == second == third != fourth, "the first three children are not of one IKE SA")
        require(evidence.fact("left") == [[0, 1], [1, 1], [0, 1], [1, 1], [0, 0], [1, 1], [0, 0]], "left")
        require(evidence.fact("answers") == [1, 0, 1, 1, 1], f"answers: {evidence.fact('answers')}")
        for source in (OUR_ADDRESS, PEER_ADDRESS):
            check_generations(evidence, source, 4)
        return [*seen, *(f"{what} deleted by {source}, made again" for source, what in expected)]


class Restarted(LifeCase):
    """Whoever began the IKE SA is killed, started again, and begins anew: the other drops what it had."""

    what = "restart"
    feature = "the initiator is killed and started again: INITIAL_CONTACT, traffic heals"

    def __init__(self, base: LinuxPeCase | IpTunnelCase) -> None:
        super().__init__(base)
        base.start = "boot" if self.role == "initiator" else "none"

    def live(self, now: Running[PeerMachine], facts: dict[str, Any]) -> None:
        if self.role == "initiator":
            now.ours.kill()
            now.ours.start()
        else:
            now.charon.kill()
            now.charon.start()
            now.charon.initiate(self.base.their_child)
        wait_until(
            lambda: len(now.ours.ike_sas()) == len(now.ours.children()) == 1, "one IKE SA with one child"
        )
        one_ike_sa(now.charon)
        one_child(now.charon)
        facts |= now.ping_both_ways()

    def check(self, evidence: Evidence) -> list[str]:
        seen = [*self.base.check_packets(evidence), *check_both_ways(evidence, OUR_CUSTOMER, self.customer)]
        began = OUR_ADDRESS if self.role == "initiator" else PEER_ADDRESS
        auth = [one for one in evidence.ike if one.exchange == IKE_AUTH and not one.is_response]
        require(len(auth) == 2 and len({one.spi_i for one in auth}) == 2, f"{len(auth)} IKE_AUTH, not two")
        require(INITIAL_CONTACT in auth[1].notifies, "no INITIAL_CONTACT after the restart")
        require({one.source for one in auth} == {began}, f"IKE_AUTH not by {began} alone")
        other = PEER_ADDRESS if self.role == "initiator" else OUR_ADDRESS
        use = [child.spis for child in evidence.children if child.is_accepted]
        require(len(use) == 2, f"{len(use)} children, not two")
        fresh = {packet.spi for packet in evidence.esp if packet.packet.number > auth[1].packet.number}
        require(fresh == set(use[1].values()), "after the restart the old child is still in use")
        return [
            *seen,
            f"{began} killed and started again: INITIAL_CONTACT to {other}, then only new SPIs in use",
        ]


KINDS: tuple[type[LifeCase], ...] = (ChildRekey, IkeRekeyed, Deleted, Restarted)
CASES: tuple[LifeCase, ...] = (
    *(
        kind(base)
        for kind in KINDS
        for role in ("initiator", "responder")
        for base in (LinuxPeCase("mpls-in-ip", False, role), IpTunnelCase(role))
    ),
    *(PacketLifetime(IpTunnelCase(role)) for role in ("initiator", "responder")),
)
