"""Configuration payloads against strongSwan (RFC 7296 2.19, 3.15): who asks, who gives, and what the child is for.

Must not know: how our program does it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from ..peers.linux_pe import received
from ..peers.strongswan import Child, Connection
from ..processes import run, wait_until
from ..wire import IKE_AUTH, SA, TSI, IkeMessage
from .case import (
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    PINGS,
    PSK,
    Case,
    Evidence,
    Lab,
    check_pings,
    require,
)
from .strongswan import PEER_CUSTOMER, SUITE, StrongSwanCase

CP = 47
CFG_REQUEST, CFG_REPLY = 1, 2
INTERNAL_ADDRESS_FAILURE, FAILED_CP_REQUIRED = 36, 37
IP4_ADDRESS, IP4_DNS, IP6_ADDRESS, IP4_SUBNET, DNS_DOMAIN = 1, 3, 8, 13, 25
DNS = "10.2.0.53"
NO_ADDRESS = "configuration payload: no address asked for, or none to be had, and so no child"
GIVEN, GIVEN6 = "10.9.0.7", "2001:db8:9::1"


class VirtualIpCase(StrongSwanCase):
    """The initiator gets its address from the responder, and the child is for that address alone.

    `addresses` are given, the peer has or gives those of `peer_addresses`; `target` is what the client pings.
    """

    feature = "configuration payload: addresses from the responder's pool, DNS, the child for them"
    addresses: tuple[str, ...]
    peer_addresses: tuple[str, ...]
    target: str

    def __init__(self, role: str, suite: str = SUITE) -> None:
        super().__init__("virtual-ip", role, suite)
        self.client, self.gateway = (
            (OUR_ADDRESS, PEER_ADDRESS) if role == "initiator" else (PEER_ADDRESS, OUR_ADDRESS)
        )

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_tunnel(evidence)
        auth = [message for message in evidence.ike if message.exchange == IKE_AUTH]
        require(len(auth) == 2, f"{len(auth)} IKE_AUTH messages")
        asked, given = (
            attributes(message, kind) for message, kind in zip(auth, (CFG_REQUEST, CFG_REPLY), strict=True)
        )
        require(asked.get(IP4_ADDRESS) == [b""], f"no address is asked for: {asked}")
        addresses = [str(IPv4Address(value)) for value in given.get(IP4_ADDRESS, [])]
        addresses += [str(IPv6Address(value[:16])) for value in given.get(IP6_ADDRESS, [])]
        require(tuple(addresses) == self.addresses, f"given: {addresses}")
        require(given.get(IP4_DNS) == [ip_address(DNS).packed], f"DNS servers: {given.get(IP4_DNS)}")
        (child,) = evidence.children
        require(
            tuple(selected(child.response)) == self.addresses, f"TSi of the child: {selected(child.response)}"
        )
        require(
            evidence.fact("peer_says") == [list(self.peer_addresses)],
            f"the peer says {evidence.fact('peer_says')}",
        )
        require(evidence.fact("answers") == PINGS, "pings were lost")
        check_pings(evidence, self.addresses[0], self.target, self.client)
        return [
            *seen,
            f"{self.client} asked, {self.gateway} gave {', '.join(addresses)}, TSi is that",
            *self.more(given),
        ]

    def more(self, given: dict[int, list[bytes]]) -> list[str]:
        return []


class OurAddressCase(VirtualIpCase):
    """charon's pool has IPv4 only; we ask for both families."""

    addresses = peer_addresses = ("10.9.0.1",)
    target = PEER_CUSTOMER

    def config(self, red: str) -> str:
        text = super().config(red).replace('announce = ["10.1.0.0/24"]\n', "")
        return text.replace(f', address = ["{OUR_CUSTOMER}/24"]', "")

    def peer_settings(self) -> str:
        return """selectors = "plain"
encapsulation = "none"
virtual_ip = true

[[peer.vrf]]
name = "red"
accept = ["10.2.0.0/24"]
"""

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        pool = ("addrs = 10.9.0.0/24", f"dns = {DNS}", "subnet = 10.2.0.0/24")
        return PoolConnection(
            *names, psk=PSK, children=self.children(), encap=True, more=("pools = clients",), pool=pool
        )

    def children(self) -> tuple[Child, ...]:
        return (Child("net", "10.2.0.0/24", "dynamic", mode="tunnel"),)

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, "net")
            options = ["-c", str(PINGS), "-l", str(PINGS), "-W", "5", "-I", self.addresses[0]]
            answers = received(run(["ping", *options, self.target], netns=now.red, check=False).stdout)
            facts = now.facts()
            return facts | {
                "answers": answers,
                "peer_says": [ike.get("remote-vips") for ike in facts["peer_sas"]],
            }

    def more(self, given: dict[int, list[bytes]]) -> list[str]:
        subnet = ip_address("10.2.0.0").packed + ip_address("255.255.255.0").packed
        require(given.get(IP4_SUBNET) == [subnet], f"subnets: {given.get(IP4_SUBNET)}")
        return ["INTERNAL_IP4_DNS and INTERNAL_IP4_SUBNET from the peer's pool"]


class TheirAddressCase(VirtualIpCase):
    """We have a pool of both families, in it a fixed address for charon."""

    addresses = (GIVEN, GIVEN6)
    peer_addresses = (GIVEN,)  # its machine has no IPv6 to put the other on
    target = OUR_CUSTOMER

    def config(self, red: str) -> str:
        pool = f"""
[[pool]]
name = "clients"
addresses = ["2001:db8:9::/64"]
fixed = {{ "pe2.example" = ["{GIVEN}"] }}
dns = ["{DNS}"]
"""
        return super().config(red) + pool

    def peer_settings(self) -> str:
        return """selectors = "plain"
encapsulation = "none"
pool = "clients"

[[peer.vrf]]
name = "red"
"""

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        return replace(super().connection(names), more=("vips = 0.0.0.0, ::",))

    def children(self) -> tuple[Child, ...]:
        return (Child("net", "dynamic", "10.1.0.0/24", mode="tunnel"),)

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, "net")
            command = f"ping -c {PINGS} -l {PINGS} -W 5 -I {GIVEN} {self.target}"
            answers = received(now.machine.sh(command, check=False, timeout_s=20))
            facts = now.facts()
            return facts | {
                "answers": answers,
                "peer_says": [ike.get("local-vips") for ike in facts["peer_sas"]],
            }


class NoAddressCase(OurAddressCase):
    """charon has no pool for us: there is no IKE SA without an address, and we say why."""

    feature = NO_ADDRESS

    def __init__(self) -> None:
        StrongSwanCase.__init__(self, "no-virtual-ip", "initiator")

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        return StrongSwanCase.connection(self, names)

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            said = now.ours.try_to_initiate("pe2")
            wait_until(lambda: not now.charon.ike_sas(), "no IKE SA at the peer", every_s=0.1)
            return now.facts() | {"said": said}

    def check(self, evidence: Evidence) -> list[str]:
        answer = refused(evidence, PEER_ADDRESS, INTERNAL_ADDRESS_FAILURE)
        gone = [one for one in evidence.ike if one.source == OUR_ADDRESS and one.deletes_ike_sa]
        require(gone, "we did not delete the IKE SA")
        require("NO_ADDRESS (the peer has no address for us)" in evidence.fact("said"), "we did not say why")
        return [answer, "our Delete for the IKE SA", evidence.fact("said").strip()]


class NotAskedCase(TheirAddressCase):
    """charon asks for no address where it needs one: the IKE SA stays without a child."""

    feature = NO_ADDRESS

    def __init__(self) -> None:
        StrongSwanCase.__init__(self, "no-virtual-ip", "responder")

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        return StrongSwanCase.connection(self, names)

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.charon.try_to_initiate("net")
            said = "received FAILED_CP_REQUIRED" in now.charon.log.read_text(errors="replace")
            states = [ike.get("state") for ike in now.charon.ike_sas()]
            return now.facts() | {"peer_said": said, "peer_states": states}

    def check(self, evidence: Evidence) -> list[str]:
        answer = refused(evidence, OUR_ADDRESS, FAILED_CP_REQUIRED)
        states = evidence.fact("peer_states")
        require(states == ["ESTABLISHED"], f"IKE SAs at the peer: {states}")
        require(evidence.fact("peer_said"), "charon does not say that it got FAILED_CP_REQUIRED")
        return [answer, "the IKE SA is ESTABLISHED at the peer, without a child"]


def refused(evidence: Evidence, source: str, notify: int) -> str:
    """The IKE_AUTH response is `source`'s, with this error and no child."""
    answers = [one for one in evidence.ike if one.exchange == IKE_AUTH and one.is_response]
    require([one.source for one in answers] == [source], f"IKE_AUTH was answered {len(answers)} times")
    require(notify in answers[0].notifies, f"the answer has the notifies {sorted(answers[0].notifies)}")
    require(not answers[0].payload(SA) and not evidence.esp, "there is a child all the same")
    return f"{source} answers IKE_AUTH by error notify {notify}, without a child"


@dataclass(frozen=True)
class PoolConnection(Connection):
    """A connection of charon's with a pool for whom it answers."""

    pool: tuple[str, ...] = ()

    def text(self) -> str:
        settings = "".join(f"  {setting}\n" for setting in self.pool)
        return f"{super().text()}pools {{ clients {{\n{settings}}} }}\n"


def attributes(message: IkeMessage, cfg_type: int) -> dict[int, list[bytes]]:
    """Type -> values of the attributes of the Configuration payload; it has to stand before SA (RFC 7296 2.19)."""
    kinds = [payload.type for payload in message.payloads]
    payload = message.payload(CP)
    require(payload, f"no Configuration payload from {message.source}, only {kinds}")
    octets = payload.octets if payload else b""
    require(octets[4] == cfg_type, f"CFG type {octets[4]} from {message.source}")
    require(kinds.index(CP) < kinds.index(33), "the Configuration payload stands behind SA")
    found: dict[int, list[bytes]] = {}
    at = 8
    while at < len(octets):
        kind, size = int.from_bytes(octets[at : at + 2]), int.from_bytes(octets[at + 2 : at + 4])
        found.setdefault(kind, []).append(octets[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def selected(message: IkeMessage) -> list[str]:
    """The single addresses of TSi; a range as first-last."""
    payload = message.payload(TSI)
    octets, found, at = payload.octets if payload else b"", [], 8
    while at < len(octets):
        size = int.from_bytes(octets[at + 2 : at + 4])
        half = (size - 8) // 2
        first, last = octets[at + 8 : at + 8 + half], octets[at + 8 + half : at + size]
        found.append(str(ip_address(first)) + ("" if first == last else f"-{ip_address(last)}"))
        at += size
    return found


CASES: tuple[Case, ...] = (
    OurAddressCase("initiator"),
    TheirAddressCase("responder"),
    NoAddressCase(),
    NotAskedCase(),
)
