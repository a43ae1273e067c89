"""`python -m interop.peers.scapy_end`: an IKEv2 peer (RFC 7296) whose messages and whose ESP are scapy's.

Must not know: our own IKE, ESP and MPLS. What scapy has not, the keys and the SK payload, is written here by the RFCs.

stdin: a line of JSON (`Terms`), then commands, a line each: `initiate`, `keys`, `ping COUNT`, `alive`,
`delete-child`, `delete`, `events`. Each is answered by a line of JSON; all the while what the other side asks is
answered. One suite: AES-256-GCM, HMAC-SHA-384, X25519. One child, in transport mode for MPLS-in-IP; a pre-shared key.
"""

from __future__ import annotations

import hmac
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scapy.config import conf
from scapy.contrib import ikev2 as ike
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP
from scapy.layers.ipsec import ESP, SecurityAssociation

SA, KE, ID_I, ID_R, AUTH, NONCE, NOTIFY, DELETE, TS_I, TS_R, ENCRYPTED = (
    *(33, 34, 35, 36, 39, 40, 41, 42, 44, 45, 46),
)
IKE_SA_INIT, IKE_AUTH, INFORMATIONAL = 34, 35, 37
ENCR, PRF, DH, ESN = 1, 2, 4, 5
AES_GCM_16, HMAC_SHA2_384, X25519, KEY_BITS = 20, 6, 31, 256
PROTOCOL_IKE, PROTOCOL_ESP = 1, 3
SHARED_KEY, FQDN, USE_TRANSPORT_MODE = 2, 2, 16391
INITIATOR, RESPONSE = 0x08, 0x20
MPLS_IN_IP, IP_ESP, ICMP_ECHO, ICMP_ANSWER = 137, 50, 8, 0
KEY_OCTETS, PRF_OCTETS, IV_OCTETS, ICV_OCTETS, FRONT_OCTETS = 36, 48, 8, 16, 32
"""A key with its salt (RFC 4106, 5282); of the headers in front of what is sealed: IKE's, and SK's."""
WAIT_S, TRIES = 1.0, 5
CLASSES = {
    SA: ike.IKEv2_SA,
    KE: ike.IKEv2_KE,
    NONCE: ike.IKEv2_Nonce,
    ID_I: ike.IKEv2_IDi,
    ID_R: ike.IKEv2_IDr,
    AUTH: ike.IKEv2_AUTH,
    TS_I: ike.IKEv2_TSi,
    TS_R: ike.IKEv2_TSr,
    NOTIFY: ike.IKEv2_Notify,
    DELETE: ike.IKEv2_Delete,
}
Payload = tuple[int, dict[str, Any]]
"""Type, and scapy's fields."""


@dataclass(frozen=True)
class Terms:
    """Whom to talk to. `customers`: its own and the other side's; `labels`: that it sends, and that it takes."""

    address: str
    peer: str
    identity: str
    peer_identity: str
    psk: str
    customers: tuple[str, str]
    labels: tuple[int, int]


class UnexpectedError(Exception):
    """The other side said something else than the RFC has it say."""


def require(condition: object, what: str) -> None:
    if not condition:
        raise UnexpectedError(what)


def prf(key: bytes, octets: bytes) -> bytes:
    return hmac.digest(key, octets, "sha384")


def prf_plus(key: bytes, seed: bytes, octets: int) -> bytes:
    """RFC 7296 2.13."""
    block, stream = b"", b""
    for number in range(1, octets // PRF_OCTETS + 2):
        block = prf(key, block + seed + bytes([number]))
        stream += block
    return stream[:octets]


def chained(payloads: list[Payload]) -> Any:
    """scapy's packet of these payloads."""
    kinds = [kind for kind, _ in payloads[1:]] + [0]
    packet = None
    for (kind, fields), following in zip(payloads, kinds, strict=True):
        one = CLASSES[kind](next_payload=following, **fields)
        packet = one if packet is None else packet / one
    return packet


def proposal(protocol: int, spi: bytes, *transforms: tuple[int, int]) -> Payload:
    """An SA payload with one proposal; the encryption has the length of its key."""
    chain = None
    for number, (kind, which) in enumerate(transforms, 1):
        key = {"length": 12, "key_length": KEY_BITS} if kind == ENCR else {}
        following = 3 if number < len(transforms) else 0
        one = ike.IKEv2_Transform(next_payload=following, transform_type=kind, transform_id=which, **key)
        chain = one if chain is None else chain / one
    fields = {"proto": protocol, "SPI": spi, "trans_nb": len(transforms), "trans": chain}
    return SA, {"prop": ike.IKEv2_Proposal(next_payload=0, **fields)}


def chosen(payload: Any, protocol: int) -> tuple[bytes, set[tuple[int, int]]]:
    """SPI and transforms of the first proposal of an SA payload."""
    offered = payload.prop
    require(offered.proto == protocol, f"a proposal for protocol {offered.proto}")
    transforms, one = set(), offered.trans
    while one is not None and isinstance(one, ike.IKEv2_Transform):
        if one.transform_type == ENCR:
            require(one.key_length == KEY_BITS, f"a key of {one.key_length} bits")
        transforms.add((one.transform_type, one.transform_id))
        one = one.payload
    return bytes(offered.SPI), transforms


IKE_SUITE = ((ENCR, AES_GCM_16), (PRF, HMAC_SHA2_384), (DH, X25519))
ESP_SUITE = ((ENCR, AES_GCM_16), (ESN, 0))


class IkeSa:
    """One IKE SA and its child, on either side of it."""

    def __init__(self, terms: Terms, *, is_initiator: bool) -> None:
        self.terms, self.is_initiator = terms, is_initiator
        self.spi_i, self.spi_r = (os.urandom(8), bytes(8)) if is_initiator else (bytes(8), os.urandom(8))
        self.secret, self.nonce = X25519PrivateKey.generate(), os.urandom(32)
        self.child_spi = os.urandom(4)
        self.peer_child_spi = b""
        self.init_octets = self.peer_init_octets = b""
        self.next_id, self.next_iv = 0, 0
        self.has_child = False

    def header(self, exchange: int, message_id: int, *, is_response: bool, first: int) -> Any:
        flags = INITIATOR * self.is_initiator | RESPONSE * is_response
        names = {"init_SPI": self.spi_i, "resp_SPI": self.spi_r, "exch_type": exchange, "id": message_id}
        return ike.IKEv2(**names, flags=flags, next_payload=first)

    def key_exchange(self) -> list[Payload]:
        """SA, KE and Ni or Nr."""
        public = self.secret.public_key().public_bytes_raw()
        return [
            proposal(PROTOCOL_IKE, b"", *IKE_SUITE),
            (KE, {"group": X25519, "ke": public}),
            (NONCE, {"nonce": self.nonce}),
        ]

    def agree(self, message: Any) -> None:
        """The keys of the IKE SA (2.14), from the other side's SA, KE and nonce."""
        _, transforms = chosen(message[ike.IKEv2_SA], PROTOCOL_IKE)
        require(transforms == set(IKE_SUITE), f"transforms {sorted(transforms)}")
        shared = self.secret.exchange(X25519PublicKey.from_public_bytes(bytes(message[ike.IKEv2_KE].ke)))
        self.peer_nonce = bytes(message[ike.IKEv2_Nonce].nonce)
        pair = (self.nonce, self.peer_nonce)
        self.nonces = b"".join(pair if self.is_initiator else pair[::-1])
        seed = prf(self.nonces, shared)
        keys = prf_plus(seed, self.nonces + self.spi_i + self.spi_r, 3 * PRF_OCTETS + 2 * KEY_OCTETS)
        self.sk_d, keys = keys[:PRF_OCTETS], keys[PRF_OCTETS:]
        self.sk_ei, self.sk_er, keys = (
            keys[:KEY_OCTETS],
            keys[KEY_OCTETS : 2 * KEY_OCTETS],
            keys[2 * KEY_OCTETS :],
        )
        sk_pi, sk_pr = keys[:PRF_OCTETS], keys[PRF_OCTETS:]
        self.sk_p, self.peer_sk_p = (sk_pi, sk_pr) if self.is_initiator else (sk_pr, sk_pi)

    def auth(self, *, is_ours: bool, identity: bytes) -> bytes:
        """AUTH of the pre-shared key (2.15); `identity`: the body of the ID payload."""
        octets, nonce, key = (
            (self.init_octets, self.peer_nonce, self.sk_p)
            if is_ours
            else (self.peer_init_octets, self.nonce, self.peer_sk_p)
        )
        padded = prf(self.terms.psk.encode(), b"Key Pad for IKEv2")
        return prf(padded, octets + nonce + prf(key, identity))

    def auth_payloads(self) -> list[Payload]:
        """IDi, AUTH, SA, TSi, TSr and USE_TRANSPORT_MODE, or the responder's."""
        fields = {"IDtype": FQDN, "ID": self.terms.identity.encode()}
        kind = ID_I if self.is_initiator else ID_R
        body = bytes(CLASSES[kind](next_payload=0, **fields))[4:]
        ends = (self.terms.address, self.terms.peer)
        ends = ends if self.is_initiator else ends[::-1]
        selectors = [
            {"IP_protocol_ID": MPLS_IN_IP, "starting_address_v4": end, "ending_address_v4": end}
            for end in ends
        ]
        ts_i, ts_r = ([ike.IPv4TrafficSelector(**one)] for one in selectors)
        return [
            (kind, fields),
            (AUTH, {"auth_type": SHARED_KEY, "load": self.auth(is_ours=True, identity=body)}),
            (NOTIFY, {"proto": 0, "type": USE_TRANSPORT_MODE}),
            proposal(PROTOCOL_ESP, self.child_spi, *ESP_SUITE),
            (TS_I, {"traffic_selector": ts_i}),
            (TS_R, {"traffic_selector": ts_r}),
        ]

    def accept_auth(self, message: Any) -> None:
        """Verify who the other side is, and install the child that it asks for or grants (2.17)."""
        identity = message[CLASSES[ID_R if self.is_initiator else ID_I]]
        require(bytes(identity.ID) == self.terms.peer_identity.encode(), f"identity {identity.ID!r}")
        identity = identity.copy()
        identity.remove_payload()
        expected = self.auth(is_ours=False, identity=bytes(identity)[4:])
        require(hmac.compare_digest(bytes(message[ike.IKEv2_AUTH].load), expected), "AUTH is wrong")
        notifies = {one.type for one in payloads_of(message) if isinstance(one, ike.IKEv2_Notify)}
        require(USE_TRANSPORT_MODE in notifies, f"no USE_TRANSPORT_MODE: {sorted(notifies)}")
        ends = {}
        for kind in (ike.IKEv2_TSi, ike.IKEv2_TSr):
            (one,) = message[kind].traffic_selector
            require(one.IP_protocol_ID == MPLS_IN_IP, f"selectors for protocol {one.IP_protocol_ID}")
            require(one.starting_address_v4 == one.ending_address_v4, "selectors of more than an address")
            ends[kind] = one.starting_address_v4
        own = ike.IKEv2_TSi if self.is_initiator else ike.IKEv2_TSr
        require(ends[own] == self.terms.address, f"selectors {ends}")
        self.peer_child_spi, transforms = chosen(message[ike.IKEv2_SA], PROTOCOL_ESP)
        require(transforms >= set(ESP_SUITE), f"transforms {sorted(transforms)}")
        keys = prf_plus(self.sk_d, self.nonces, 2 * KEY_OCTETS)
        pair = keys[:KEY_OCTETS], keys[KEY_OCTETS:]
        self.esp_out_key, self.esp_in_key = pair if self.is_initiator else pair[::-1]
        self.outbound = esp_sa(self.peer_child_spi, self.esp_out_key)
        self.inbound = esp_sa(self.child_spi, self.esp_in_key)
        self.has_child = True

    def seal(self, exchange: int, message_id: int, payloads: list[Payload], *, is_response: bool) -> bytes:
        """A message with an SK payload (RFC 5282 3, 5.1)."""
        inner = bytes(chained(payloads)) if payloads else b""
        clear = inner + b"\0"
        self.next_iv += 1
        iv = self.next_iv.to_bytes(IV_OCTETS)
        header = self.header(exchange, message_id, is_response=is_response, first=ENCRYPTED)
        first = payloads[0][0] if payloads else 0
        empty = ike.IKEv2_Encrypted(next_payload=first, load=bytes(IV_OCTETS + len(clear) + ICV_OCTETS))
        front = bytes(header / empty)[:FRONT_OCTETS]
        key = self.sk_ei if self.is_initiator else self.sk_er
        return front + iv + AESGCM(key[:-4]).encrypt(key[-4:] + iv, clear, front)

    def open(self, octets: bytes) -> Any:
        """The payloads of a message of the other side, behind its header, as scapy's packet."""
        message = ike.IKEv2(octets)
        if message.exch_type == IKE_SA_INIT:
            return message
        sealed = message[ike.IKEv2_Encrypted]
        key = self.sk_er if self.is_initiator else self.sk_ei
        iv, closed = octets[FRONT_OCTETS : FRONT_OCTETS + IV_OCTETS], octets[FRONT_OCTETS + IV_OCTETS :]
        clear = AESGCM(key[:-4]).decrypt(key[-4:] + iv, closed, octets[:FRONT_OCTETS])
        inner = clear[: len(clear) - 1 - clear[-1]]
        header = ike.IKEv2(octets[:28])
        header.next_payload, header.length = sealed.next_payload, None
        return ike.IKEv2(bytes(header)[:28] + inner)


def payloads_of(message: Any) -> list[Any]:
    """What follows the header, one after the other."""
    found, one = [], message.payload
    while one:
        found.append(one)
        one = one.payload
    return found


def esp_sa(spi: bytes, key: bytes) -> Any:
    return SecurityAssociation(
        ESP, spi=int.from_bytes(spi), crypt_algo="AES-GCM", crypt_key=key, crypt_icv_size=ICV_OCTETS
    )


class End:
    """The peer: its sockets, its SA, and what came."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((terms.address, 500))
        self.udp.connect((terms.peer, 500))
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, IP_ESP)
        self.raw.bind((terms.address, 0))
        self.raw.connect((terms.peer, 0))
        self.sa: IkeSa | None = None
        self.answer: Any = None
        self.said: dict[bytes, bytes] = {}
        """Requests that were answered, and how: a repeated one gets the same octets (2.1)."""
        self.pings: set[int] = set()
        self.events: list[str] = []

    @property
    def ike_sa(self) -> IkeSa:
        if self.sa is None:
            raise UnexpectedError("there is no IKE SA")
        return self.sa

    def serve(self, until: Callable[[], object], seconds: float, also: int | None = None) -> bool:
        """Answer what comes until a question is true (True), the time is over, or `also` can be read."""
        end = time.monotonic() + seconds
        while not until():
            sources: list[Any] = [self.udp, self.raw, *([also] if also is not None else [])]
            ready, _, _ = select.select(sources, [], [], max(0.0, end - time.monotonic()))
            if self.udp in ready:
                self.receive_ike(self.udp.recv(65535))
            if self.raw in ready:
                self.receive_esp(self.raw.recv(65535))
            if not ready or also in ready:
                return False
        return True

    def exchange(self, octets: bytes) -> Any:
        """The response to a request, which is repeated until it comes."""
        self.answer = None
        for _ in range(TRIES):
            self.udp.send(octets)
            if self.serve(lambda: self.answer is not None, WAIT_S):
                return self.answer
        raise UnexpectedError("no answer")

    def request(self, exchange: int, payloads: list[Payload]) -> Any:
        sa = self.ike_sa
        octets = sa.seal(exchange, sa.next_id, payloads, is_response=False)
        answer = self.exchange(octets)
        sa.next_id += 1
        return answer

    def initiate(self) -> dict[str, Any]:
        sa = self.sa = IkeSa(self.terms, is_initiator=True)
        sa.init_octets = bytes(
            sa.header(IKE_SA_INIT, 0, is_response=False, first=SA) / chained(sa.key_exchange())
        )
        message = self.exchange(sa.init_octets)
        sa.spi_r = bytes(message.resp_SPI)
        sa.agree(message)
        sa.next_id = 1
        identity: Payload = (ID_R, {"IDtype": FQDN, "ID": self.terms.peer_identity.encode()})
        own, *others = sa.auth_payloads()
        sa.accept_auth(self.request(IKE_AUTH, [own, identity, *others]))
        return self.keys()

    def receive_ike(self, octets: bytes) -> None:
        if octets in self.said:
            self.udp.send(self.said[octets])
            return
        header = ike.IKEv2(octets[:28])
        is_response = bool(int(header.flags) & RESPONSE)
        if is_response:
            sa = self.ike_sa
            if header.id == sa.next_id:
                if header.exch_type == IKE_SA_INIT:
                    sa.peer_init_octets = octets
                self.answer = sa.open(octets)
            return
        if header.exch_type == IKE_SA_INIT:
            answer = self.respond_init(octets)
        else:
            answer = self.respond(self.ike_sa.open(octets))
        self.said[octets] = answer
        self.udp.send(answer)

    def respond_init(self, octets: bytes) -> bytes:
        sa = self.sa = IkeSa(self.terms, is_initiator=False)
        message = ike.IKEv2(octets)
        sa.spi_i, sa.peer_init_octets = bytes(message.init_SPI), octets
        sa.agree(message)
        header = sa.header(IKE_SA_INIT, 0, is_response=True, first=SA)
        sa.init_octets = bytes(header / chained(sa.key_exchange()))
        return sa.init_octets

    def respond(self, message: Any) -> bytes:
        """IKE_AUTH, or an INFORMATIONAL: a Delete of the child is answered by one of ours."""
        sa, payloads = self.ike_sa, []
        if message.exch_type == IKE_AUTH:
            sa.accept_auth(message)
            payloads = sa.auth_payloads()
        else:
            require(message.exch_type == INFORMATIONAL, f"a request of exchange {message.exch_type}")
            for one in payloads_of(message):
                if isinstance(one, ike.IKEv2_Delete) and one.proto == PROTOCOL_ESP:
                    payloads = [deleted(sa.child_spi)]
                if isinstance(one, ike.IKEv2_Delete):
                    self.events.append(f"deleted {one.proto}")
        return sa.seal(message.exch_type, message.id, payloads, is_response=True)

    def receive_esp(self, octets: bytes) -> None:
        """Answer a ping of the other side's customer; note an answer to ours."""
        inner = self.ike_sa.inbound.decrypt(IP(octets))
        require(inner.proto == MPLS_IN_IP, f"protocol {inner.proto} inside ESP")
        shim = MPLS(bytes(inner.payload))
        require((shim.label, shim.s) == (self.terms.labels[1], 1), f"label {shim.label}")
        packet = IP(bytes(shim.payload))
        own, other = self.terms.customers
        require((packet.src, packet.dst) == (other, own), f"{packet.src} > {packet.dst}")
        if packet[ICMP].type == ICMP_ANSWER:
            self.pings.add(packet[ICMP].seq)
        else:
            echo = ICMP(type=ICMP_ANSWER, id=packet[ICMP].id, seq=packet[ICMP].seq)
            self.send(echo / bytes(packet[ICMP].payload))

    def send(self, packet: Any) -> None:
        """From the customer to the other one's: IP, a label, MPLS-in-IP, ESP."""
        own, other = self.terms.customers
        inside = MPLS(label=self.terms.labels[0], s=1, ttl=64) / IP(src=own, dst=other) / packet
        outer = IP(src=self.terms.address, dst=self.terms.peer, proto=MPLS_IN_IP)
        self.raw.send(bytes(self.ike_sa.outbound.encrypt(outer / bytes(inside)).payload))

    def ping(self, count: int) -> dict[str, Any]:
        self.pings.clear()
        for number in range(1, count + 1):
            self.send(ICMP(type=ICMP_ECHO, id=os.getpid() & 0xFFFF, seq=number) / bytes(range(56)))
            self.serve(lambda wanted=number: wanted in self.pings, 5)  # type: ignore[misc]
        return {"answers": len(self.pings)}

    def alive(self) -> dict[str, Any]:
        """An empty INFORMATIONAL; its answer has to be empty too."""
        require(not payloads_of(self.request(INFORMATIONAL, [])), "the answer is not empty")
        return {}

    def delete_child(self) -> dict[str, Any]:
        sa = self.ike_sa
        (answer,) = payloads_of(self.request(INFORMATIONAL, [deleted(sa.child_spi)]))
        require(answer.proto == PROTOCOL_ESP, f"a Delete of protocol {answer.proto}")
        require([bytes(spi) for spi in answer.SPI] == [sa.peer_child_spi], "a Delete of another SPI")
        sa.has_child = False
        return {}

    def delete(self) -> dict[str, Any]:
        answer = self.request(INFORMATIONAL, [(DELETE, {"proto": PROTOCOL_IKE, "SPIsize": 0, "SPInum": 0})])
        require(not payloads_of(answer), "the answer is not empty")
        return {}

    def keys(self) -> dict[str, Any]:
        """What tshark needs; waits for the child when the other side begins."""
        self.serve(lambda: self.sa is not None and self.sa.has_child, 10)
        sa = self.ike_sa
        require(sa.has_child, "no child")
        return {
            "ike": [one.hex() for one in (sa.spi_i, sa.spi_r, sa.sk_ei, sa.sk_er)],
            "outbound": [sa.peer_child_spi.hex(), sa.esp_out_key.hex()],
            "inbound": [sa.child_spi.hex(), sa.esp_in_key.hex()],
        }

    def obey(self, command: str) -> dict[str, Any]:
        name, *arguments = command.split()
        match name:
            case "initiate":
                return self.initiate()
            case "events":
                return {}
            case "keys":
                return self.keys()
            case "ping":
                return self.ping(int(arguments[0]))
            case "alive":
                return self.alive()
            case "delete-child":
                return self.delete_child()
            case "delete":
                return self.delete()
        raise UnexpectedError(f"no such command: {command}")


def deleted(spi: bytes) -> Payload:
    return DELETE, {"proto": PROTOCOL_ESP, "SPIsize": 4, "SPInum": 1, "SPI": [spi]}


def main() -> None:
    stdin = sys.stdin.fileno()
    commands = iter(lambda: _line(stdin), "")
    end = End(Terms(**json.loads(next(commands))))
    print(json.dumps({"version": f"scapy {conf.version}"}), flush=True)
    while True:
        while not select.select([stdin], [], [], 0)[0]:
            end.serve(lambda: False, 60, also=stdin)
        command = next(commands, "")
        if not command:
            return
        try:
            said = end.obey(command)
        except UnexpectedError as error:
            said = {"error": str(error)}
        print(json.dumps(said | {"events": end.events}), flush=True)


def _line(descriptor: int) -> str:
    """A line without reading ahead: what is not read yet has to be seen by `select`."""
    octets = b""
    while not octets.endswith(b"\n") and (one := os.read(descriptor, 1)):
        octets += one
    return octets.decode().strip()


if __name__ == "__main__":
    main()
