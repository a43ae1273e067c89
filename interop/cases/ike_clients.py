"""Several clients of one `[[peer]]` for a wildcard identity: two of strongSwan's, from one address, each with its own.

Must not know: how our program does it.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from ..peers.linux_pe import received
from ..peers.strongswan import Child, Connection
from ..processes import wait_until
from ..wire import IKE_AUTH, EspPacket
from .case import OUR_ADDRESS, OUR_CUSTOMER, PEER_ADDRESS, PINGS, Case, Evidence, Lab, require
from .ike_config import CFG_REPLY, IP4_ADDRESS, attributes, selected
from .strongswan import StrongSwanCase

CLIENTS = ("west", "east")
IDI = 35


class TwoClientsCase(StrongSwanCase):
    """Both have the secret of one entry, `*.branch.example`, and get an address each from one pool."""

    feature = "two clients of one wildcard entry, each with an address, a child and routes of its own"

    def __init__(self) -> None:
        super().__init__("two-clients", "responder")

    def config(self, red: str) -> str:
        text = super().config(red).replace('identity = "pe2.example"', 'identity = "*.branch.example"')
        pool = '\n[[pool]]\nname = "clients"\naddresses = ["10.9.0.0/28"]\n'
        return text.replace(f'addresses = ["{PEER_ADDRESS}"]', 'addresses = ["any"]') + pool

    def peer_settings(self) -> str:
        return """selectors = "plain"
encapsulation = "none"
pool = "clients"

[[peer.vrf]]
name = "red"
"""

    def children(self) -> tuple[Child, ...]:
        return (Child("west", "dynamic", "10.1.0.0/24", mode="tunnel"),)

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        one = super().connection(names)
        return replace(one, name="west", local_id="west.branch.example", more=("vips = 0.0.0.0",))

    def more_connections(self, names: tuple[str, str, str, str]) -> tuple[Connection, ...]:
        child = replace(self.children()[0], name="east")
        one = replace(self.connection(names), name="east", local_id="east.branch.example")
        return (replace(one, children=(child,)),)

    def drive(self, lab: Lab) -> dict[str, Any]:
        answers: dict[str, list[int]] = {}
        with self.running(lab) as now:
            now.bring_up(self.role, *CLIENTS)
            sas = now.charon.ike_sas()
            addresses = {str(sa["local-id"]).split(".")[0]: str(sa["local-vips"][0]) for sa in sas}  # type: ignore[index]
            for name, address in addresses.items():
                ping = f"ping -c {PINGS} -l {PINGS} -W 5 -I {address} {OUR_CUSTOMER}"
                theirs = received(now.machine.sh(ping, check=False, timeout_s=20))
                answers[name] = [theirs, now.ping(target=address)]
            said = now.ours.status()["peers"]
            now.ours.terminate("pe2/fqdn:east.branch.example")
            wait_until(lambda: len(now.charon.ike_sas()) == 1, "one IKE SA at the peer", every_s=0.1)
            left = now.ping(target=addresses["west"], count=1)
            return now.facts() | {
                "answers": answers,
                "addresses": addresses,
                "peers": [[peer["name"], peer["identity"], len(peer["sessions"])] for peer in said],
                "left": left,
                "peers_left": [peer["name"] for peer in now.ours.status()["peers"]],
            }

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_tunnel(evidence)
        addresses = evidence.fact("addresses")
        require(set(addresses) == set(CLIENTS), f"clients: {addresses}")
        require(len(set(addresses.values())) == 2, f"addresses: {addresses}")
        answers = [m for m in evidence.ike if m.exchange == IKE_AUTH and m.is_response]
        requests = [m for m in evidence.ike if m.exchange == IKE_AUTH and not m.is_response]
        require(len(answers) == len(requests) == 2, f"{len(requests)} IKE_AUTH requests")
        require({m.source for m in requests} == {PEER_ADDRESS}, "not from one address")
        for request in requests:
            idi = request.payload(IDI)
            name = idi.octets[8:].decode() if idi else ""
            answer = next(m for m in answers if m.spi_i == request.spi_i)
            (given,) = attributes(answer, CFG_REPLY)[IP4_ADDRESS]
            client = name.removesuffix(".branch.example")
            wanted = addresses[client]
            require(str(IPv4Address(given)) == wanted, f"{name} got {IPv4Address(given)}, uses {wanted}")
            child = next(one for one in evidence.children if one.request.spi_i == request.spi_i)
            require(selected(child.response) == [wanted], f"TSi of {name}: {selected(child.response)}")
            spis = set(child.spis.values())
            inside = [one for one in evidence.esp if wanted in _ends(one)]
            require(inside and {one.spi for one in inside} == spis, f"{name}'s packets are not on its SAs")
            require({one for one in evidence.esp if one.spi in spis} == set(inside), f"others' on {name}'s")
            require(evidence.fact("answers")[client] == [PINGS, PINGS], f"pings of {name} were lost")
            seen.append(f"{name} has {wanted}, its packets alone are on SAs {[f'{spi:#x}' for spi in spis]}")
        named = {name: f"pe2/fqdn:{name}.branch.example" for name in CLIENTS}
        peers = {name: sessions for name, _, sessions in evidence.fact("peers")}
        require(peers == {"pe2": 0, **dict.fromkeys(named.values(), 1)}, f"status: {peers}")
        require(evidence.fact("peers_left") == ["pe2", named["west"]], "the other client did not stay alone")
        require(evidence.fact("left") == 1, "the other client's traffic did not go on")
        first = next(m for m in evidence.ike if m.deletes_ike_sa)
        after = {
            one.ping[1:3] for one in evidence.esp if one.packet.number > first.packet.number and one.ping
        }
        require(first.source == OUR_ADDRESS, "the peer deleted an IKE SA first")
        require(
            after == {(OUR_CUSTOMER, addresses["west"]), (addresses["west"], OUR_CUSTOMER)}, f"then: {after}"
        )
        return [*seen, "one terminated by its name, the other goes on"]


def _ends(packet: EspPacket) -> tuple[str, ...]:
    return packet.ping[1:3] if packet.ping else ()


CASES: tuple[Case, ...] = (TwoClientsCase(),)
