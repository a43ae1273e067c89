"""Every algorithm of IKE and of ESP that we have, one suite after another: strongSwan's ESP, and the Linux kernel's.

Must not know: how our program does it. We offer all suites at once and charon one at a time, so it is always the
peer's configuration that decides; where we begin, our guess of the key exchange is wrong nearly every time and is
corrected by INVALID_KE_PAYLOAD.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any

from ..peers.container import PLUGINS
from ..peers.linux_pe import LinuxPe
from ..peers.strongswan import Child, Connection
from ..processes import wait_until
from ..wire import IKE_AUTH, IKE_SA_INIT, SA, ChildNegotiation, EspPacket, IkeMessage, Payload
from .case import (
    OUR_ADDRESS,
    PEER_ADDRESS,
    Evidence,
    Lab,
    check_initiator,
    require,
)
from .life import LifeCase
from .linux_pe import LinuxPeCase
from .running import Running
from .strongswan import SUITE, IpTunnelCase

ENCR, PRF, INTEG, KE, ESN = 1, 2, 3, 4, 5
AES = {
    "gcm8": 18,
    "gcm12": 19,
    "gcm16": 20,
    "ccm8": 14,
    "ccm12": 15,
    "ccm16": 16,
    "ctr": 13,
    "gmac": 21,
    "": 12,
}
TRANSFORMS: dict[str, tuple[int, int, int]] = {
    **{f"aes{bits}{mode}": (ENCR, number, bits) for bits in (128, 192, 256) for mode, number in AES.items()},
    "chacha20poly1305": (ENCR, 28, 0),
    "null": (ENCR, 11, 0),
    **{
        f"prf{name}": (PRF, number, 0)
        for name, number in {"sha1": 2, "sha256": 5, "sha384": 6, "sha512": 7}.items()
    },
    "prfaesxcbc": (PRF, 4, 0),
    "prfaescmac": (PRF, 8, 0),
    "sha1": (INTEG, 2, 0),
    "aesxcbc": (INTEG, 5, 0),
    "aescmac": (INTEG, 8, 0),
    "sha256": (INTEG, 12, 0),
    "sha384": (INTEG, 13, 0),
    "sha512": (INTEG, 14, 0),
    **{f"modp{bits}": (KE, number, 0) for bits, number in {2048: 14, 3072: 15, 4096: 16}.items()},
    **{f"ecp{bits}": (KE, number, 0) for bits, number in {256: 19, 384: 20, 521: 21}.items()},
    **{f"ecp{bits}bp": (KE, number, 0) for bits, number in {256: 28, 384: 29, 512: 30}.items()},
    "x25519": (KE, 31, 0),
    "x448": (KE, 32, 0),
    "esn": (ESN, 1, 0),
}
"""What the words of a proposal are on the wire: type, number and key length (IANA, IKEv2 Parameters)."""
# What tshark opens neither in IKE nor in ESP; and, of what it opens in IKE, not in ESP.
CLOSED_IKE = "chacha20poly1305"
CLOSED_ESP = ("chacha20poly1305", "ccm", "gmac")

SUITES = (
    ("aes256gcm16-prfsha384-x25519", "aes256gcm16"),
    ("aes128gcm8-prfsha256-ecp256", "aes128gcm8"),
    ("aes192gcm12-prfsha512-x448", "aes192gcm12"),
    ("aes128ccm8-prfsha256-ecp384", "aes128ccm8"),
    ("aes192ccm12-prfaesxcbc-ecp521", "aes192ccm12"),
    ("aes256ccm16-prfaescmac-modp2048", "aes256ccm16"),
    ("aes256ctr-sha256-prfsha256-modp3072", "aes128ctr-sha256"),
    ("aes128-sha256-prfsha256-modp4096", "aes128-sha256"),
    ("aes192-sha384-prfsha384-ecp256bp", "aes192-sha384"),
    ("aes256-sha512-prfsha512-ecp384bp", "aes256-sha512"),
    ("aes128-aesxcbc-prfaesxcbc-ecp512bp", "aes128-aesxcbc"),
    ("aes128-aescmac-prfaescmac-x25519", "aes128-aescmac"),
    ("aes256-sha1-prfsha1-x25519", "chacha20poly1305"),
    ("chacha20poly1305-prfsha256-x25519", "aes128-sha1"),
)
"""(IKE, ESP), in strongSwan's words."""
KERNEL_SUITES = (
    *(esp for _, esp in SUITES),
    "aes256ctr-sha512",
    "aes128gmac",
    "null-sha256",
    "aes256gcm16-esn",
    "aes128-sha256-esn",
    "chacha20poly1305-esn",
)
"""What the kernel is asked for on one IKE SA, one child after another."""

KERNEL_MODULES = "ccm cmac xcbc chacha20poly1305 chacha_generic poly1305_generic authencesn crypto_null"
MORE_PLUGINS = "aes sha1 sha2 hmac ctr ccm xcbc cmac curve25519"
KEPT = ("spi-", "packets-")


def expected(words: str) -> set[tuple[int, int, int]]:
    """The transforms of a proposal."""
    return {TRANSFORMS[word] for word in words.split("-")}


def transforms(payload: Payload) -> Iterator[tuple[int, int, int]]:
    """(type, number, key length or 0) of every transform of an SA payload (RFC 7296 3.3)."""
    octets = payload.octets
    at = 4
    while at + 8 <= len(octets):
        end, spi_size = at + int.from_bytes(octets[at + 2 : at + 4]), octets[at + 6]
        one = at + 8 + spi_size
        while one + 8 <= end:
            size = int.from_bytes(octets[one + 2 : one + 4])
            # The only attribute: type 14 in the short form, its value the key length.
            bits = int.from_bytes(octets[one + 10 : one + 12]) if size == 12 else 0
            yield octets[one + 4], int.from_bytes(octets[one + 6 : one + 8]), bits
            one += max(size, 8)
        at = max(end, at + 8)


def chosen(message: IkeMessage, kinds: set[int]) -> set[tuple[int, int, int]]:
    """What an answer's SA payload took, of these types; NONE is nothing."""
    payload = message.payload(SA)
    return {one for one in transforms(payload) if one[0] in kinds and one[1]} if payload else set()


def check_traffic(evidence: Evidence, words: str, spis: dict[str, int]) -> EspPacket:
    """One ping and its answer on these SPIs (address of the receiver: SPI); opened wherever tshark can."""
    found = [packet for packet in evidence.esp if packet.spi in spis.values()]
    require(
        {packet.destination: packet.spi for packet in found} == spis and len(found) == 2,
        f"{words}: of the SPIs {spis} on the wire: {[str(packet) for packet in found]}",
    )
    if any(word in words for word in CLOSED_ESP):
        require(all(packet.next_header is None for packet in found), f"{words}: tshark opened it")
    else:
        pings = [
            packet.ping and packet.ping[0] for packet in sorted(found, key=lambda one: one.packet.number)
        ]
        require(pings == [8, 0], f"{words}: not a ping and its answer inside: {[str(one) for one in found]}")
    return found[0]


class IkeSuites(LifeCase):
    """Each suite on an IKE SA of its own; ESP in charon's own process, which counts what it opened and sealed."""

    what = "algorithms"
    feature = f"{len(SUITES)} suites of IKE and ESP: GCM, CCM, CTR, CBC, ChaCha20; 11 key exchanges; 6 PRFs"

    def __init__(self, role: str, suite: str = SUITE) -> None:
        base = IpTunnelCase(role, suite)
        base.charon_settings = PLUGINS.replace("load = ", f"load = {MORE_PLUGINS} ")
        base.ike, base.esp = (tuple(words) for words in zip(*SUITES, strict=True))
        super().__init__(base)
        self.name = base.name.replace("ip-tunnel", self.what)

    @property
    def claim(self) -> str:
        """The same whatever version charon is of."""
        return f"{self.feature}, {self.role}"

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.base.running(lab) as now:
            rounds = [self.ask(now, ike, esp) for ike, esp in SUITES]
            return {"rounds": rounds} | facts_of(lab, now)

    def live(self, now: Running[Any], facts: dict[str, Any]) -> None:
        """Nothing: each suite has a life of its own."""

    def ask(self, now: Running[Any], ike: str, esp: str) -> dict[str, Any]:
        """An IKE SA of this suite with a child, begun by whom the role says; a ping through it; its end."""
        former: Connection = now.charon.connection
        child = replace(former.children[0], esp_proposals=esp)
        now.charon.reconfigure(replace(former, proposals=ike, children=(child,)))
        if self.role == "initiator":
            now.ours.call("initiate", peer="pe2")
        else:
            now.charon.initiate(child.name)
        answers, sas = now.ping(count=1), now.charon.child_sas()
        now.charon.terminate()
        told = [{key: str(value) for key, value in sa.items() if key.startswith(KEPT)} for sa in sas]
        return {"ike": ike, "esp": esp, "answers": answers, "peer_says": told}

    def check(self, evidence: Evidence) -> list[str]:
        seen = [check_initiator(evidence, self.role)]
        rounds = check_rounds(evidence, [list(suite) for suite in SUITES])
        made = [one for one in evidence.ike if one.exchange == IKE_SA_INIT and one.is_response]
        made = [one for one in made if one.payload(SA)]
        require(len(made) == len(rounds), f"{len(made)} IKE SAs for {len(rounds)} suites")
        for one, answer in zip(rounds, made, strict=True):
            took = chosen(answer, {ENCR, PRF, INTEG, KE})
            require(took == expected(one["ike"]), f"{one['ike']}: on the wire is {sorted(took)}")
            (sa,) = one["peer_says"]
            counted = (sa["packets-in"], sa["packets-out"])
            require(counted == ("1", "1"), f"{one['esp']}: the peer counted {counted}")
            spis = {PEER_ADDRESS: int(sa["spi-in"], 16), OUR_ADDRESS: int(sa["spi-out"], 16)}
            children = [child for child in evidence.children if child.request.spi_i == answer.spi_i]
            if CLOSED_IKE not in one["ike"]:
                require(
                    [child.spis for child in children] == [spis], f"{one['ike']}: IKE_AUTH is not readable"
                )
                require(children[0].request.exchange == IKE_AUTH, "the child was not made by IKE_AUTH")
                check_child(one["esp"], children[0])
            check_traffic(evidence, one["esp"], spis)
            seen.append(f"{one['ike']} and {one['esp']}: ping answered")
        return seen


class ManyChildren(LinuxPeCase):
    """charon knows a child for each suite, all with the same selectors. Every other suite is of the other role."""

    def __init__(self, role: str) -> None:
        super().__init__("mpls-in-ip", False, role)
        self.esp = KERNEL_SUITES[int(role == "responder") :: 2]

    def children(self) -> tuple[Child, ...]:
        (child,) = super().children()
        return tuple(replace(child, name=f"suite{n}", esp_proposals=esp) for n, esp in enumerate(self.esp))


class KernelSuites(LifeCase):
    """Each suite of ESP on one IKE SA, in transport mode with MPLS-in-IP, sealed and opened by the kernel.

    Our role is that of the IKE SA; the children after the first are begun by the peer.
    """

    what = "esp-algorithms"
    feature = f"{len(KERNEL_SUITES)} suites of ESP with the kernel's XFRM, half in each role: all, with GMAC, NULL, ESN"

    def __init__(self, role: str) -> None:
        self.many = ManyChildren(role)
        super().__init__(self.many)

    def drive(self, lab: Lab) -> dict[str, Any]:
        running: AbstractContextManager[Running[LinuxPe]] = self.many.running(lab)
        with running as now:
            now.machine.sh(f"modprobe -a {KERNEL_MODULES}")
            now.bring_up(self.role, "suite0")
            rounds = [self.ask(now, number, esp) for number, esp in enumerate(self.base.esp)]
            facts = {"rounds": rounds, "kernel_errors": now.machine.xfrm_errors()} | facts_of(lab, now)
            return facts | {"peer_version": f"Linux {now.machine.kernel_version}, {now.charon.version}"}

    def live(self, now: Running[Any], facts: dict[str, Any]) -> None:
        """Nothing: each suite has a life of its own."""

    def ask(self, now: Running[Any], number: int, esp: str) -> dict[str, Any]:
        """A child of this suite, a ping through it, what the kernel counted; then we delete it."""
        if number:
            now.charon.initiate(f"suite{number}")
        answers = now.ping(count=1)
        states = [asdict(state) for state in now.machine.xfrm_states()]
        now.ours.call("terminate", peer="pe2", child=self.base.our_child)
        wait_until(lambda: not now.ours.children(), "no child left", every_s=0.02)
        return {"ike": self.base.ike[0], "esp": esp, "answers": answers, "kernel_sas": states}

    def check(self, evidence: Evidence) -> list[str]:
        seen = [check_initiator(evidence, self.role)]
        rounds = check_rounds(evidence, [[self.base.ike[0], esp] for esp in self.base.esp])
        require(not evidence.fact("kernel_errors"), f"the kernel counted {evidence.fact('kernel_errors')}")
        children = [child for child in evidence.children if child.is_accepted]
        require(len(children) == len(rounds), f"{len(children)} children for {len(rounds)} suites")
        for one, child in zip(rounds, children, strict=True):
            check_child(one["esp"], child)
            require(child.is_transport, "not in transport mode")
            counted = {state["spi"]: state["packets"] for state in one["kernel_sas"]}
            require(
                counted == dict.fromkeys(child.spis.values(), 1),
                f"{one['esp']}: the kernel counted {counted}",
            )
            packet = check_traffic(evidence, one["esp"], child.spis)
            require(not packet.is_udp_encapsulated, f"not raw ESP: {packet}")
            seen.append(f"{one['esp']}: ping answered")
        return seen


def facts_of(lab: Lab, now: Running[Any]) -> dict[str, Any]:
    """The capture is opened by our tables, every key of which the peer must have derived too."""
    ours, theirs = now.ours.write_keys(lab.keys), now.charon.secrets()
    return {
        "peer_version": now.charon.version,
        "our_version": now.ours.version,
        "keys_agree": bool(ours) and ours <= theirs,
    }


def check_rounds(evidence: Evidence, suites: list[list[str]]) -> list[dict[str, Any]]:
    """All suites were asked for, each with an answered ping; nothing in clear."""
    rounds: list[dict[str, Any]] = evidence.fact("rounds")
    require([[one["ike"], one["esp"]] for one in rounds] == suites, "not the suites of this case")
    for one in rounds:
        require(one["answers"] == 1, f"{one['ike']}, {one['esp']}: no answer")
    require(not evidence.clear, f"in clear: {[packet.stack for packet in evidence.clear[:3]]}")
    require(evidence.fact("keys_agree"), "a key of ours is not among those that the peer derived")
    return rounds


def check_child(words: str, child: ChildNegotiation) -> None:
    """It was agreed with exactly these algorithms."""
    took = chosen(child.response, {ENCR, INTEG, ESN})
    require(took == expected(words), f"{words}: on the wire is {sorted(took)}")


CASES: tuple[IkeSuites | KernelSuites, ...] = (
    *(IkeSuites(role) for role in ("initiator", "responder")),
    IkeSuites("responder", "bookworm"),
    IkeSuites("initiator", "forky"),
    *(KernelSuites(role) for role in ("initiator", "responder")),
)
