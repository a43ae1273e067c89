"""Scapy as an independent codec, in both directions; it shares nothing with ours but the cipher library."""

import os
import random
import warnings
from typing import Any

import pytest

from esp.engine import Opened, protect, unprotect
from esp.sa import InboundSa, OutboundSa
from esp.tfc import pad_to
from esp.transforms import Transform, transform_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.ipsec import ESP, SecurityAssociation
    from scapy.packet import Raw

MPLS_IN_IP = 137
SPI = 0xC0DE0137
PACKETS = int(os.environ.get("MPLSEC_SCAPY_PACKETS", "50"))
OUTER, INNER = ("192.0.2.1", "192.0.2.2"), ("10.1.0.9", "10.2.0.9")
OUTER6, INNER6 = ("2001:db8::1", "2001:db8::2"), ("2001:db8:1::9", "2001:db8:2::9")

SUITES = [
    (transform_for(20, 128), "AES-GCM", None),
    (transform_for(20, 256), "AES-GCM", None),
    (transform_for(28, None), "CHACHA20-POLY1305", None),
    (transform_for(12, 128, 12), "AES-CBC", "SHA2-256-128"),
    (transform_for(12, 256, 13), "AES-CBC", "SHA2-384-192"),
    (transform_for(12, 256, 14), "AES-CBC", "SHA2-512-256"),
    (transform_for(12, 128, 2), "AES-CBC", "HMAC-SHA1-96"),
    (transform_for(12, 128, 8), "AES-CBC", "AES-CMAC-96"),
    (transform_for(13, 128, 12), "AES-CTR", "SHA2-256-128"),
    (transform_for(13, 256, 14), "AES-CTR", "SHA2-512-256"),
    (transform_for(14, 128), "AES-CCM", None),
    (transform_for(15, 192), "AES-CCM", None),
    (transform_for(16, 256), "AES-CCM", None),
    (transform_for(21, 128), "AES-NULL-GMAC", None),
    (transform_for(21, 256), "AES-NULL-GMAC", None),
    (transform_for(11, None, 12), "NULL", "SHA2-256-128"),
    (transform_for(11, None, 13), "NULL", "SHA2-384-192"),
    (transform_for(11, None, 14), "NULL", "SHA2-512-256"),
    (transform_for(11, None, 8), "NULL", "AES-CMAC-96"),
]
every_suite = pytest.mark.parametrize(
    ("transform", "crypt", "auth"), SUITES, ids=[f"{s[1]}-{s[0].key_bits}-{s[0].integ}" for s in SUITES]
)
starts = pytest.mark.parametrize(
    ("esn", "start"), [(False, 0), (True, 0x5_0000_0000 - 20)], ids=["sn32", "esn"]
)


SHAPES = ["transport", "transport-udp", "tunnel4", "tunnel6-udp"]
"""Mode, outer family and encapsulation. The low half of an ESN wraps on the way."""
every_shape = pytest.mark.parametrize("shape", SHAPES)


@pytest.fixture(autouse=True)
def opaque_payloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random octets stay octets, also when another test has loaded scapy's MPLS."""
    monkeypatch.setattr(IP, "guess_payload_class", lambda self, _: ESP if self.proto == 50 else Raw)


def keys(transform: Transform, chance: random.Random) -> tuple[bytes, bytes]:
    return chance.randbytes(transform.key_octets), chance.randbytes(transform.integ_key_octets)


IPV4_IN_IP, IPV6_IN_IP = 4, 41


def scapy_sa(
    transform: Transform, encr_key: bytes, integ_key: bytes, crypt: str, auth: str | None, shape: str
) -> Any:
    tunnel = {"tunnel4": IP(src=OUTER[0], dst=OUTER[1]), "tunnel6": IPv6(src=OUTER6[0], dst=OUTER6[1])}
    return SecurityAssociation(
        ESP,
        spi=SPI,
        crypt_algo=crypt,
        crypt_key=encr_key,
        crypt_icv_size=None if auth else transform.icv_octets,
        auth_algo=auth,
        auth_key=integ_key or None,
        tunnel_header=tunnel.get(shape.removesuffix("-udp")),
        nat_t_header=UDP(sport=4500, dport=4500) if shape.endswith("udp") else None,
    )


def clear_packet(shape: str, octets: bytes) -> Any:
    """The packet that scapy protects: in tunnel mode the whole of it, in transport mode its payload."""
    if shape == "tunnel4":  # the inner family is not that of the tunnel
        return IPv6(src=INNER6[0], dst=INNER6[1], nh=MPLS_IN_IP) / Raw(octets)
    return IP(src=INNER[0], dst=INNER[1], proto=MPLS_IN_IP) / Raw(octets)


def payload_of(shape: str, clear: Any, octets: bytes) -> tuple[bytes, int]:
    """What is inside ESP, and its next header."""
    if shape.startswith("tunnel"):
        return bytes(clear), IPV6_IN_IP if shape == "tunnel4" else IPV4_IN_IP
    return octets, MPLS_IN_IP


def esp_of(shape: str, packet: bytes) -> bytes:
    """The ESP packet behind its outer headers."""
    outer_octets = 40 if packet[0] >> 4 == 6 else 20
    return packet[outer_octets + (8 if shape.endswith("udp") else 0) :]


def as_received(shape: str, esp: bytes) -> Any:
    """Our ESP packet with its outer headers, as scapy gets it from the wire."""
    behind = UDP(sport=4500, dport=4500) / ESP(esp) if shape.endswith("udp") else ESP(esp)
    number = 17 if shape.endswith("udp") else 50
    if shape == "tunnel6-udp":
        return IPv6(src=OUTER6[0], dst=OUTER6[1], nh=number) / behind
    return IP(src=OUTER[0], dst=OUTER[1], proto=number) / behind


@every_suite
@starts
@every_shape
def test_scapy_opens_what_we_protect(
    transform: Transform, crypt: str, auth: str | None, esn: bool, start: int, shape: str
) -> None:
    chance = random.Random(f"{crypt}{start}{shape}")
    encr_key, integ_key = keys(transform, chance)
    ours = OutboundSa(SPI.to_bytes(4, "big"), transform, encr_key, integ_key, esn=esn)
    ours.sequence = start
    theirs = scapy_sa(transform, encr_key, integ_key, crypt, auth, shape)
    for sequence in range(start + 1, start + 1 + PACKETS):
        octets = chance.randbytes(chance.randrange(300))
        clear = clear_packet(shape, octets)
        packet = protect(ours, *payload_of(shape, clear, octets))
        opened = theirs.decrypt(as_received(shape, packet), esn_en=esn, esn=sequence >> 32)
        if shape.startswith("tunnel"):
            assert bytes(opened) == bytes(clear)
        else:
            assert (opened.nh if opened.version == 6 else opened.proto) == MPLS_IN_IP
            assert bytes(opened.payload) == octets


@every_suite
@starts
@every_shape
def test_we_open_what_scapy_protects(
    transform: Transform, crypt: str, auth: str | None, esn: bool, start: int, shape: str
) -> None:
    chance = random.Random(f"{crypt}{start}{shape}")
    encr_key, integ_key = keys(transform, chance)
    ours = InboundSa(SPI.to_bytes(4, "big"), transform, encr_key, integ_key, esn=esn)
    ours.replay.highest = start
    theirs = scapy_sa(transform, encr_key, integ_key, crypt, auth, shape)
    for sequence in range(start + 1, start + 1 + PACKETS):
        octets = chance.randbytes(chance.randrange(1, 300))
        clear = clear_packet(shape, octets)
        theirs.seq_num = sequence & 0xFFFFFFFF
        sent = theirs.encrypt(
            clear,
            iv=chance.randbytes(transform.iv_octets),
            esn_en=esn,
            esn=sequence >> 32,
        )
        expected, next_header = payload_of(shape, clear, octets)
        assert unprotect(ours, esp_of(shape, bytes(sent))) == Opened(expected, next_header, sequence)


@every_suite
@pytest.mark.parametrize("shape", ["tunnel4", "tunnel6-udp"])
def test_scapy_drops_our_tfc_padding(transform: Transform, crypt: str, auth: str | None, shape: str) -> None:
    """RFC 4303 2.7: the inner IP header says where its packet ends."""
    chance = random.Random(f"{crypt}{shape}")
    encr_key, integ_key = keys(transform, chance)
    ours = OutboundSa(SPI.to_bytes(4, "big"), transform, encr_key, integ_key)
    theirs = scapy_sa(transform, encr_key, integ_key, crypt, auth, shape)
    lengths = set()
    for _ in range(10):
        clear = clear_packet(shape, chance.randbytes(chance.randrange(300)))
        payload, next_header = payload_of(shape, clear, b"")
        (padded,) = pad_to([payload], 400)
        packet = protect(ours, padded, next_header)
        lengths.add(len(packet))
        opened = theirs.decrypt(as_received(shape, packet))
        trailing = bytes(opened)[len(payload) :]
        assert bytes(opened)[: len(payload)] == bytes(clear)
        assert not any(trailing), "padding is zeros, and no part of the packet that scapy dissects"
    assert lengths == {transform.packet_octets(400)}
