"""Cases about who proves what against strongSwan in a container: raw keys, means that differ, authenticating again.

Must not know: how our program does it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..capture import Capture
from ..peers.container import PLUGINS, SwanContainer
from ..peers.libreswan import Conn
from ..peers.mplsec import Mplsec
from ..peers.strongswan import Connection, StrongSwan
from ..pki import Certified, certify
from ..processes import wait_until
from ..wire import IKE_AUTH, NOTIFY
from .case import (
    OUR_ADDRESS,
    OUR_CUSTOMER,
    PEER_ADDRESS,
    PINGS,
    PSK,
    Case,
    Evidence,
    Lab,
    check_initiator,
    check_pings,
    require,
)
from .certificates import AUTH, CERT, CERTREQ, DIGITAL_SIGNATURE, OUR_ALGORITHM, PEER_ALGORITHM, write
from .ike_config import OurAddressCase, selected
from .libreswan import NAMES, LibreswanIke
from .running import Running, check_stream
from .strongswan import PEER_CUSTOMER, IpTunnelCase

SHARED_KEY = 2
RAW_PUBLIC_KEY = 15
INITIAL_CONTACT = 16384
AUTH_LIFETIME = 16403
IDI, IDR, ID_NULL = 35, 36, bytes((13, 0, 0, 0))


@dataclass(frozen=True)
class AuthConnection(Connection):
    """The same connection with other lines in `local`, `remote` and before them."""

    local: str = "auth = psk"
    remote: str = "auth = psk"
    settings: str = ""

    def text(self) -> str:
        text = super().text().replace("auth = psk", "auth = local", 1).replace("auth = psk", self.remote, 1)
        text = text.replace("auth = local", self.local, 1)
        return text.replace("  version = 2\n", f"  version = 2\n{self.settings}", 1)


class AuthCase(IpTunnelCase):
    """The simplest tunnel, with `auth` of ours and the lines of the peer that go with it."""

    our_auth = '{ psk_file = "peer.psk" }'
    local = remote = "auth = psk"
    settings = ""
    plugins = PLUGINS

    def __init__(self, what: str, role: str) -> None:
        super().__init__(role)
        self.name = f"strongswan-{what}-{role}"

    def config(self, red: str) -> str:
        return super().config(red).replace('{ psk_file = "peer.psk" }', self.our_auth)

    def files(self) -> tuple[dict[str, str], dict[str, str]]:
        """What lies beside our configuration, and in the peer's folder."""
        return {}, {}

    @contextmanager
    def running(self, lab: Lab) -> Iterator[Running[SwanContainer]]:
        with ExitStack() as stack:
            network = stack.enter_context(lab.network(self.topology))
            front_door, red = network.host("pe1", f"{OUR_ADDRESS}/24"), network.namespace("red")
            container = SwanContainer(lab.daemon, network, folder=lab.folder / "pe2", suite=self.suite)
            stack.enter_context(container)
            stack.enter_context(Capture(lab.capture, netns=network.wire, interface=network.bridge))
            ours, theirs = self.files()
            write(lab, "pe1", ours)
            write(lab, "pe2", theirs)
            container.sh(
                "for d in /etc/swanctl /share; do mkdir -p $d/private; cp /share/*.key $d/private/; done; true"
            )
            names = (PEER_ADDRESS, OUR_ADDRESS, "pe2.example", "pe1.example")
            connection = AuthConnection(
                *names,
                PSK,
                self.children(),
                encap=True,
                local=self.local,
                remote=self.remote,
                settings=self.settings,
            )
            charon = StrongSwan(container, connection, plugins=self.plugins)
            program = Mplsec(lab.folder / "pe1", self.config(red), PSK, netns=front_door, state=lab.state)
            stack.enter_context(program)
            yield Running(lab, network, red, container, charon, program)

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            return {"answers_to_us": now.ping()} | now.facts()

    def proof(self, evidence: Evidence, source: str) -> tuple[bytes, list[int]]:
        """(the body of AUTH, encodings of the certificates) of the one IKE_AUTH message of `source`."""
        sent = [m for m in evidence.ike if m.exchange == IKE_AUTH and m.source == source]
        require(len(sent) == 1, f"{source} sent {len(sent)} IKE_AUTH messages")
        auth = sent[0].payload(AUTH)
        require(auth is not None, f"{source} sent no AUTH")
        body = auth.octets[4:] if auth else b""
        return body, [payload.octets[4] for payload in sent[0].payloads if payload.type == CERT]


def public_pem(one: Certified) -> str:
    key = one.key.public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class RawKeyCase(AuthCase):
    """Both ends know the other's public key; charon never sends one, and does not ask for ours."""

    our_auth = '{ key_file = "pe1.key", peer_key = "pe2.pub" }'
    local = "auth = pubkey\n    pubkeys = /share/pe2.pub"
    remote = "auth = pubkey\n    pubkeys = /share/pe1.pub"

    def __init__(self, ours: str, theirs: str, role: str) -> None:
        super().__init__(f"raw-keys-{ours}-{theirs}", role)
        self.ours, self.theirs = ours, theirs
        self.feature = f"raw public keys: {ours} (ours) and {theirs} (the peer's), RFC 7670 and RFC 7427"

    def files(self) -> tuple[dict[str, str], dict[str, str]]:
        ours, theirs = certify("pe1.example", self.ours), certify("pe2.example", self.theirs)
        return (
            {"pe1.key": ours.key_pem, "pe2.pub": public_pem(theirs)},
            {"pe2.key": theirs.key_pem, "pe1.pub": public_pem(ours), "pe2.pub": public_pem(theirs)},
        )

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        check_pings(evidence, OUR_CUSTOMER, PEER_CUSTOMER, OUR_ADDRESS)
        for source, algorithm in (
            (OUR_ADDRESS, OUR_ALGORITHM[self.ours]),
            (PEER_ADDRESS, PEER_ALGORITHM[self.theirs]),
        ):
            body, certificates = self.proof(evidence, source)
            require(body[0] == DIGITAL_SIGNATURE, f"{source} proved itself by method {body[0]}")
            identifier = body[5 : 5 + body[4]].hex()
            require(identifier.startswith(algorithm), f"{source} signed by {identifier}")
            require(not certificates, f"{source} sent certificates of the encodings {certificates}")
        asked = [m for m in evidence.ike if m.source == OUR_ADDRESS and m.payload(CERTREQ)]
        require(asked, "we asked for no raw public key")
        wanted = asked[0].payload(CERTREQ)
        require(wanted and wanted.octets[4:] == bytes([RAW_PUBLIC_KEY]), "we asked for something else")
        return [*seen, "both AUTH payloads are digital signatures, no certificate was sent"]


class MixedCase(AuthCase):
    """We know a secret, the peer has a certificate."""

    our_auth = '{ psk_file = "peer.psk" }\npeer_auth = { ca = "ca.pem" }'
    local = "auth = pubkey\n    certs = /share/pe2.pem"
    feature = "each end by means of its own: PSK (ours), certificate (the peer's)"

    def __init__(self, role: str) -> None:
        super().__init__("psk-and-certificate", role)

    def files(self) -> tuple[dict[str, str], dict[str, str]]:
        root = certify("Root", "p384", is_ca=True)
        theirs = certify("pe2.example", "p384", root)
        return {"ca.pem": root.pem}, {"pe2.pem": theirs.pem, "pe2.key": theirs.key_pem, "ca.pem": root.pem}

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        check_pings(evidence, OUR_CUSTOMER, PEER_CUSTOMER, OUR_ADDRESS)
        for source, method, certificates in (
            (OUR_ADDRESS, SHARED_KEY, []),
            (PEER_ADDRESS, DIGITAL_SIGNATURE, [4]),
        ):
            body, sent = self.proof(evidence, source)
            require((body[0], sent) == (method, certificates), f"{source} proved itself by {body[0]}, {sent}")
        return [*seen, "AUTH method 2 from us, method 14 with a certificate from the peer"]


class ReauthenticationCase(AuthCase):
    """Both ends prove again who they are, on a new IKE SA; a stream of pings goes on.

    As responder: charon does it (`make_before_break`) when its `reauth_time` has come.
    """

    feature = "reauthentication, make before break, under traffic"

    def __init__(self, role: str) -> None:
        super().__init__("reauthentication", role)
        if role == "responder":
            self.settings = "  rekey_time = 0\n  reauth_time = 8s\n  over_time = 30s\n  rand_time = 0\n"
            self.plugins = f"make_before_break = yes\n  {PLUGINS}"

    def drive(self, lab: Lab) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            first = {one["spi_i"] for one in now.ours.ike_sas()}
            with now.stream(facts):
                if self.role == "initiator":
                    now.ours.reauthenticate("pe2")
                wait_until(
                    lambda: (sas := {one["spi_i"] for one in now.ours.ike_sas()}) and not sas & first,
                    "another IKE SA, and no longer the first",
                    timeout_s=30,
                )
                time.sleep(1)
            return facts | now.facts()

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        return [*seen, check_replaced(evidence), check_stream(evidence, PEER_CUSTOMER)]


def check_replaced(evidence: Evidence) -> str:
    """A second IKE SA is authenticated and has its child before the first one goes."""
    requests = [m for m in evidence.ike if m.exchange == IKE_AUTH and not m.is_response]
    pairs = list(dict.fromkeys(message.spi_i for message in requests))
    require(len(pairs) >= 2, f"{len(pairs)} IKE SAs were authenticated")
    again = next(message for message in requests if message.spi_i == pairs[1])
    require(INITIAL_CONTACT not in again.notifies, "INITIAL_CONTACT although the first is there")
    gone = [m for m in evidence.ike if m.spi_i == pairs[0] and m.deletes_ike_sa]
    require(gone, "the first IKE SA was not deleted")
    children = [c for c in evidence.children if c.is_accepted and c.request.spi_i == pairs[1]]
    require(children, "no child on the second IKE SA")
    require(
        children[0].response.packet.number < gone[0].packet.number,
        "the first IKE SA went before the second had its child",
    )
    return f"IKE SA {pairs[0]} replaced by {pairs[1]} with its child, then deleted"


def check_told(evidence: Evidence, teller: str, comer: str, within_s: int) -> str:
    """`teller` said AUTH_LIFETIME of `within_s` (less what has gone by), `comer` authenticated again in time."""
    told = [
        (message, int.from_bytes(payload.octets[8:]))
        for message in evidence.ike
        for payload in message.payloads
        if payload.type == NOTIFY and int.from_bytes(payload.octets[6:8]) == AUTH_LIFETIME
    ]
    require(told, "nobody said AUTH_LIFETIME")
    require({message.source for message, _ in told} == {teller}, f"not {teller} said it")
    message, seconds = told[0]
    require(within_s - 2 <= seconds <= within_s, f"it said {seconds} s")
    again = [m for m in evidence.ike if m.exchange == IKE_AUTH and m.spi_i != message.spi_i]
    require(again[0].source == comer, f"{again[0].source} authenticated again")
    after_s = again[0].packet.time_s - message.packet.time_s
    require(after_s < seconds, f"only after {after_s:.0f} s")
    return f"{teller} said AUTH_LIFETIME {seconds} s, {comer} came after {after_s:.1f} s"


TOLD = "AUTH_LIFETIME: the responder says when the initiator has to authenticate again, and so it does"


def ping_around_reauthentication(now: Running[SwanContainer], source: str) -> list[int]:
    """How many pings were answered before and after another IKE SA has taken the place of the first."""
    first = {one["spi_i"] for one in now.ours.ike_sas()}
    before = now.ping(source=source)
    wait_until(
        lambda: (sas := {one["spi_i"] for one in now.ours.ike_sas()}) and not sas & first,
        "another IKE SA, and no longer the first",
        timeout_s=35,
    )
    return [before, now.ping(source=source)]


class WeTellCase(AuthCase):
    """We say AUTH_LIFETIME (RFC 4478), charon authenticates again `over_time` before that."""

    feature = TOLD
    settings = "  rekey_time = 0\n  reauth_time = 0\n  over_time = 54s\n  rand_time = 0\n"
    plugins = f"make_before_break = yes\n  {PLUGINS}"
    more_settings = 'lifetime = { reauth = "1m" }\n'

    def __init__(self) -> None:
        super().__init__("auth-lifetime", "responder")

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, self.their_child)
            return {"answers": ping_around_reauthentication(now, OUR_CUSTOMER)} | now.facts()

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_packets(evidence)
        require(evidence.fact("answers") == [PINGS, PINGS], f"pings were lost: {evidence.fact('answers')}")
        told = check_told(evidence, OUR_ADDRESS, PEER_ADDRESS, 60)
        return [*seen, check_replaced(evidence), told]


class WeAreToldCase(OurAddressCase):
    """charon says AUTH_LIFETIME to clients that have their address from it: they alone can authenticate again."""

    feature = TOLD
    within_s = 22

    def __init__(self) -> None:
        super().__init__("initiator")
        self.name = "strongswan-auth-lifetime-initiator"

    def connection(self, names: tuple[str, str, str, str]) -> Connection:
        times = ("rekey_time = 0", f"reauth_time = {self.within_s}s", "over_time = 30s", "rand_time = 0")
        one = super().connection(names)
        return replace(one, more=(*one.more, *times))

    def drive(self, lab: Lab) -> dict[str, Any]:
        with self.running(lab) as now:
            now.bring_up(self.role, "net")
            answers = ping_around_reauthentication(now, self.addresses[0])
            return now.facts() | {"answers": answers}

    def check(self, evidence: Evidence) -> list[str]:
        seen = self.check_tunnel(evidence)
        require(evidence.fact("answers") == [PINGS, PINGS], f"pings were lost: {evidence.fact('answers')}")
        told = check_told(evidence, PEER_ADDRESS, OUR_ADDRESS, self.within_s)
        given = {tuple(selected(one.response)) for one in evidence.children}
        require(given == {self.addresses}, f"the address did not stay: {given}")
        return [*seen, check_replaced(evidence), told, "the address is the same on both"]


class NullConn(Conn):
    """Nobody proves anything, and nobody has a name (RFC 7619)."""

    def text(self) -> str:
        names = {f"leftid=@{self.local_id}": "leftid=%null", f"rightid=@{self.remote_id}": "rightid=%null"}
        text = super().text().replace("authby=secret", "authby=null")
        for named, null in names.items():
            text = text.replace(named, null)
        return text


class NullCase(LibreswanIke):
    """Neither end proves anything: AUTH of method 13 over the handshake, ID_NULL without data, both ways."""

    feature = "NULL authentication and ID_NULL, both ways (RFC 7619)"
    may_be_malformed = True  # tshark 4.0 does not expect an identification without data

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.name = f"libreswan-null-{role}"

    def config(self, red: str) -> str:
        text = super().config(red).replace('{ psk_file = "peer.psk" }', "{ null = true }")
        return text.replace('identity = "pe2.example"', 'identity = "null"')

    def connection(self, more: tuple[str, ...]) -> Conn:
        return NullConn(*NAMES, more)

    def drive(self, lab: Lab) -> dict[str, Any]:
        facts = super().drive(lab)
        log = (lab.folder / "pe2" / "pluto.log").read_text(errors="replace")
        return facts | {"peer_words": [line for line in log.splitlines() if "established IKE SA" in line]}

    def check(self, evidence: Evidence) -> list[str]:
        seen = [check_initiator(evidence, self.role)]
        words = " ".join(evidence.fact("peer_words")[:1])
        require("authby=null and ID_NULL" in words, f"the peer says: {words}")
        (ours,) = evidence.fact("our_ike_sas")
        require((ours["state"], ours["role"]) == ("established", self.role), f"our IKE SA: {ours}")
        require(ours["peer_identity"] == "null", f"our IKE SA: {ours}")
        for kind in (IDI, IDR):  # behind these tshark reads no further, so AUTH is in the peer's words alone
            sent = [
                one.octets[4:] for message in evidence.ike for one in message.payloads if one.type == kind
            ]
            require(
                sent == [ID_NULL], f"identities of payload {kind}: {sent}, not one of type 13 without data"
            )
        return [*seen, f"the peer says: {words}"]


CASES: tuple[Case, ...] = (
    WeTellCase(),
    WeAreToldCase(),
    *(
        RawKeyCase(ours, theirs, role)
        for ours, theirs in (("ed25519", "p384"), ("rsa", "rsa"))
        for role in ("initiator", "responder")
    ),
    *(
        kind(role)
        for kind in (MixedCase, ReauthenticationCase, NullCase)
        for role in ("initiator", "responder")
    ),
)
