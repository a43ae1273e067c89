"""Cases with another Linux inside: the dedicated security device between a router with kernel MPLS and a Linux PE.

Must not know: how our program does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..capture import Capture
from ..networks import Network
from ..peers.linux_pe import LinuxPe
from ..peers.linux_router import FROM_GATEWAY, GATEWAY, ROUTER, TO_GATEWAY, LinuxRouter
from ..peers.mplsec import Mplsec
from .case import OUR_CUSTOMER, PINGS, PSK, Case, Evidence, Lab, require
from .linux_pe import LinuxPeCase
from .running import Running


class InnerRouterCase(LinuxPeCase):
    """Labelled traffic of an unmodified router inside, protected by us toward a Linux PE."""

    def __init__(self, link: str, role: str) -> None:
        super().__init__("mpls-in-ip", False, role)
        self.link = link
        self.name = f"linux-inside-{link}-{role}"
        self.feature = f"an inner Linux router's labelled traffic by {link}, protected toward a Linux PE"

    @property
    def includes(self) -> frozenset[str]:
        return frozenset({LinuxPeCase("mpls-in-ip", False, self.role).claim})

    def config(self, red: str) -> str:
        reach = (
            f'device = "eth1"\n  next_hop = "{ROUTER}"'
            if self.link == "mpls"
            else f'tunnel = {{ local = "{GATEWAY}", peer = "{ROUTER}" }}'
        )
        tun = f'attach = [{{ tun = "red0", netns = "{red}", address = ["{OUR_CUSTOMER}/24"] }}]\n'
        text = super().config(red)
        require(tun in text, "the configuration of the Linux PE's cases has another attachment")
        return text.replace(tun, "").replace(
            "[[peer]]",
            f"""  [[vrf.attach]]
  {self.link} = "inside"
  netns = "{red}"
  labels = "pop"
  local_labels = [{TO_GATEWAY}]
  peer_label = {FROM_GATEWAY}
  {reach}

[[peer]]""",
        )

    def router(self, network: Network, lab: Lab, red: str) -> LinuxRouter:
        return LinuxRouter(
            network,
            netns=red,
            folder=lab.folder / "router",
            state=lab.state,
            link=self.link,
            customer=OUR_CUSTOMER,
            target="10.2.0.0/24",
        )

    @contextmanager
    def running_inside(self, lab: Lab) -> Iterator[tuple[Running[LinuxPe], LinuxRouter]]:
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            front_door, red = self.front_door(network), network.namespace("red")
            router = self.router(network, lab, red)
            stack.enter_context(router)
            linux = self.machine(network, lab)
            stack.enter_context(linux)
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge))
            charon = linux.start_strongswan(self.connection())
            ours = Mplsec(lab.folder / "pe1", self.config(red), PSK, netns=front_door, state=lab.state)
            stack.enter_context(ours)
            yield Running(lab, network, red, linux, charon, ours), router

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running_inside(lab) as (now, router):
            now.bring_up(self.role, self.their_child)
            answers = {
                "answers_to_us": router.ping(LinuxPe.customer, count=PINGS),
                "answers_to_peer": now.machine.ping(OUR_CUSTOMER, count=PINGS),
            }
            inside = {"inner_link": self.link, "inner_routes": router.routes()}
            facts = self.facts(now)
            return answers | inside | facts | {"our_drops": facts["our_status"]["counters"]["drops"]}

    def check(self, evidence: Evidence) -> list[str]:
        require(evidence.fact("inner_link") == self.link, f"the inner router is not on {self.link}")
        routes = evidence.fact("inner_routes")
        require(f"10.2.0.0/24  encap mpls  {TO_GATEWAY}" in routes, f"it does not send labels: {routes}")
        require(not evidence.fact("our_drops"), f"our gateway dropped {evidence.fact('our_drops')}")
        seen = super().check(evidence)
        return [*seen, f"inside: label {TO_GATEWAY} from the router, {FROM_GATEWAY} to it, by {self.link}"]


CASES: tuple[Case, ...] = tuple(
    InnerRouterCase(link, role)
    for link in ("mpls", "mpls-in-ip", "mpls-in-gre")
    for role in ("initiator", "responder")
)
