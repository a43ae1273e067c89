"""Scapy as an independent codec, in both directions; it shares nothing with ours but the cipher library.

What it cannot do is in NOT_IN_SCAPY, with who else has agreed.
"""

import os
import random
import warnings
from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import cycle, islice
from typing import Any, NamedTuple

import pytest

from esp.engine import Opened, protect, unprotect
from esp.errors import EspError
from esp.integrity import INTEGRITY
from esp.sa import InboundSa, OutboundSa
from esp.tfc import pad_to
from esp.transforms import HEADER_OCTETS, Transform, transform_for
from interop.cases import CASES

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
    *((transform_for(20, bits), "AES-GCM", None) for bits in (128, 192, 256)),
    (transform_for(28, None), "CHACHA20-POLY1305", None),
    (transform_for(12, 128, 12), "AES-CBC", "SHA2-256-128"),
    (transform_for(12, 192, 12), "AES-CBC", "SHA2-256-128"),
    (transform_for(12, 256, 13), "AES-CBC", "SHA2-384-192"),
    (transform_for(12, 256, 14), "AES-CBC", "SHA2-512-256"),
    (transform_for(12, 128, 2), "AES-CBC", "HMAC-SHA1-96"),
    (transform_for(12, 128, 8), "AES-CBC", "AES-CMAC-96"),
    (transform_for(13, 128, 12), "AES-CTR", "SHA2-256-128"),
    (transform_for(13, 192, 13), "AES-CTR", "SHA2-384-192"),
    (transform_for(13, 256, 14), "AES-CTR", "SHA2-512-256"),
    *((transform_for(encr, bits), "AES-CCM", None) for encr in (14, 15, 16) for bits in (128, 192, 256)),
    *((transform_for(21, bits), "AES-NULL-GMAC", None) for bits in (128, 192, 256)),
    (transform_for(11, None, 12), "NULL", "SHA2-256-128"),
    (transform_for(11, None, 13), "NULL", "SHA2-384-192"),
    (transform_for(11, None, 14), "NULL", "SHA2-512-256"),
    (transform_for(11, None, 8), "NULL", "AES-CMAC-96"),
]
"""Every ENCR transform with each of its key lengths, and every INTEG transform, that scapy has."""


class Elsewhere(NamedTuple):
    """Why scapy cannot, and the cases of `interop` where a foreign program does."""

    reason: str
    cases: tuple[str, ...]


_CUT, _NO_IV = "its ICV is all 16 octets", "it sends every IV"
_KERNEL, _CHARON = "linux-pe-esp-algorithms-*", "strongswan-algorithms-*"
NOT_IN_SCAPY: dict[tuple[str, int, int | None], Elsewhere] = {
    ("encr", 18, 128): Elsewhere(_CUT, (_KERNEL, _CHARON)),
    ("encr", 18, 192): Elsewhere(_CUT, ()),
    ("encr", 18, 256): Elsewhere(_CUT, ()),
    ("encr", 19, 128): Elsewhere(_CUT, ()),
    ("encr", 19, 192): Elsewhere(_CUT, (_KERNEL, _CHARON)),
    ("encr", 19, 256): Elsewhere(_CUT, ()),
    **{("encr", number, bits): Elsewhere(_NO_IV, ()) for number in (29, 30) for bits in (128, 192, 256)},
    ("encr", 31, None): Elsewhere(_NO_IV, ()),
    ("integ", 5, None): Elsewhere("it has no AES-XCBC-96", (_KERNEL, _CHARON)),
}
"""Transforms by type, number and key length. Where no case is named, no foreign program has seen its packets; what
they differ in from those that scapy has is held below, by scapy's packets with the IV left out or the ICV cut.
"""
SUITE_NAMES = [f"{crypt}-{one.encr}-{one.key_bits}-{one.integ}" for one, crypt, _ in SUITES]
every_suite = pytest.mark.parametrize(("transform", "crypt", "auth"), SUITES, ids=SUITE_NAMES)
starts = pytest.mark.parametrize(
    ("esn", "start"), [(False, 0), (True, 0x5_0000_0000 - 20)], ids=["sn32", "esn"]
)
"""The low half of an ESN wraps on the way."""


class Shape(NamedTuple):
    """What is around ESP. `outer` and `inner` are IP versions; in transport mode there is one header, the outer."""

    mode: str
    is_udp: bool
    outer: int
    inner: int

    @property
    def is_tunnel(self) -> bool:
        return self.mode == "tunnel"


SHAPES = {
    f"{mode}{'-udp' if is_udp else ''}": [Shape(mode, is_udp, *versions) for versions in families]
    for mode, families in {
        "transport": [(4, 4), (6, 6)],
        "tunnel": [(4, 4), (4, 6), (6, 4), (6, 6)],
    }.items()
    for is_udp in (False, True)
}
"""Mode and encapsulation: the packets of a test take turns among the families."""
every_way = pytest.mark.parametrize("way", SHAPES)


def shapes_of(way: str, packets: int = PACKETS) -> Iterator[Shape]:
    return islice(cycle(SHAPES[way]), packets)


@pytest.fixture(autouse=True)
def opaque_payloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random octets stay octets, also when another test has loaded scapy's MPLS."""
    monkeypatch.setattr(IP, "guess_payload_class", lambda self, _: ESP if self.proto == 50 else Raw)
    monkeypatch.setattr(IPv6, "guess_payload_class", lambda self, _: ESP if self.nh == 50 else Raw)


def keys(transform: Transform, chance: random.Random) -> tuple[bytes, bytes]:
    return chance.randbytes(transform.key_octets), chance.randbytes(transform.integ_key_octets)


IPV4_IN_IP, IPV6_IN_IP = 4, 41


def header(version: int, ends: tuple[str, str], ends6: tuple[str, str], protocol: int) -> Any:
    if version == 4:
        return IP(src=ends[0], dst=ends[1], proto=protocol)
    return IPv6(src=ends6[0], dst=ends6[1], nh=protocol)


def scapy_sa(
    transform: Transform, encr_key: bytes, integ_key: bytes, crypt: str, auth: str | None, shape: Shape
) -> Any:
    return SecurityAssociation(
        ESP,
        spi=SPI,
        crypt_algo=crypt,
        crypt_key=encr_key,
        crypt_icv_size=None if auth else transform.icv_octets,
        auth_algo=auth,
        auth_key=integ_key or None,
        tunnel_header=header(shape.outer, OUTER, OUTER6, 50) if shape.is_tunnel else None,
        nat_t_header=UDP(sport=4500, dport=4500) if shape.is_udp else None,
    )


def clear_packet(shape: Shape, octets: bytes) -> Any:
    """The packet that scapy protects: in tunnel mode the whole of it, in transport mode its payload."""
    return header(shape.inner, INNER, INNER6, MPLS_IN_IP) / Raw(octets)


def payload_of(shape: Shape, clear: Any, octets: bytes) -> tuple[bytes, int]:
    """What is inside ESP, and its next header."""
    if shape.is_tunnel:
        return bytes(clear), IPV4_IN_IP if shape.inner == 4 else IPV6_IN_IP
    return octets, MPLS_IN_IP


def esp_of(shape: Shape, packet: bytes) -> bytes:
    """The ESP packet behind its outer headers, which are what the shape says."""
    assert packet[0] >> 4 == shape.outer
    outer_octets = 20 if shape.outer == 4 else 40
    assert packet[9 if shape.outer == 4 else 6] == (17 if shape.is_udp else 50)
    return packet[outer_octets + (8 if shape.is_udp else 0) :]


def as_received(shape: Shape, esp: bytes) -> Any:
    """Our ESP packet with its outer headers, as scapy gets it from the wire."""
    behind = UDP(sport=4500, dport=4500) / ESP(esp) if shape.is_udp else ESP(esp)
    return header(shape.outer, OUTER, OUTER6, 17 if shape.is_udp else 50) / behind


@every_suite
@starts
@every_way
def test_scapy_opens_what_we_protect(
    transform: Transform, crypt: str, auth: str | None, esn: bool, start: int, way: str
) -> None:
    chance = random.Random(f"{crypt}{start}{way}")
    encr_key, integ_key = keys(transform, chance)
    ours = OutboundSa(SPI.to_bytes(4, "big"), transform, encr_key, integ_key, esn=esn)
    ours.sequence = start
    theirs = {one: scapy_sa(transform, encr_key, integ_key, crypt, auth, one) for one in SHAPES[way]}
    for sequence, shape in enumerate(shapes_of(way), start + 1):
        octets = chance.randbytes(chance.randrange(300))
        clear = clear_packet(shape, octets)
        packet = protect(ours, *payload_of(shape, clear, octets))
        opened = theirs[shape].decrypt(as_received(shape, packet), esn_en=esn, esn=sequence >> 32)
        if shape.is_tunnel:
            assert bytes(opened) == bytes(clear), shape
        else:
            assert opened.version == shape.outer
            assert (opened.nh if opened.version == 6 else opened.proto) == MPLS_IN_IP, shape
            assert bytes(opened.payload) == octets, shape


@every_suite
@starts
@every_way
def test_we_open_what_scapy_protects(
    transform: Transform, crypt: str, auth: str | None, esn: bool, start: int, way: str
) -> None:
    chance = random.Random(f"{crypt}{start}{way}")
    encr_key, integ_key = keys(transform, chance)
    ours = InboundSa(SPI.to_bytes(4, "big"), transform, encr_key, integ_key, esn=esn)
    ours.replay.highest = start
    theirs = {one: scapy_sa(transform, encr_key, integ_key, crypt, auth, one) for one in SHAPES[way]}
    for sequence, shape in enumerate(shapes_of(way), start + 1):
        octets = chance.randbytes(chance.randrange(1, 300))
        clear = clear_packet(shape, octets)
        theirs[shape].seq_num = sequence & 0xFFFFFFFF
        sent = theirs[shape].encrypt(
            clear,
            iv=chance.randbytes(transform.iv_octets),
            esn_en=esn,
            esn=sequence >> 32,
        )
        expected, next_header = payload_of(shape, clear, octets)
        assert unprotect(ours, esp_of(shape, bytes(sent))) == Opened(expected, next_header, sequence), shape


@every_suite
@pytest.mark.parametrize("way", ["tunnel", "tunnel-udp"])
def test_scapy_drops_our_tfc_padding(transform: Transform, crypt: str, auth: str | None, way: str) -> None:
    """RFC 4303 2.7: the inner IP header says where its packet ends."""
    chance = random.Random(f"{crypt}{way}")
    encr_key, integ_key = keys(transform, chance)
    ours = OutboundSa(SPI.to_bytes(4, "big"), transform, encr_key, integ_key)
    theirs = {one: scapy_sa(transform, encr_key, integ_key, crypt, auth, one) for one in SHAPES[way]}
    lengths = set()
    for shape in shapes_of(way, 12):
        clear = clear_packet(shape, chance.randbytes(chance.randrange(300)))
        payload, next_header = payload_of(shape, clear, b"")
        (padded,) = pad_to([payload], 400)
        packet = protect(ours, padded, next_header)
        lengths.add(len(packet))
        opened = theirs[shape].decrypt(as_received(shape, packet))
        trailing = bytes(opened)[len(payload) :]
        assert bytes(opened)[: len(payload)] == bytes(clear)
        assert not any(trailing), "padding is zeros, and no part of the packet that scapy dissects"
    assert lengths == {transform.packet_octets(400)}


@starts
@pytest.mark.parametrize(
    ("encr", "bits", "crypt"),
    [
        *((18, bits, "AES-GCM") for bits in (128, 192, 256)),
        *((19, bits, "AES-GCM") for bits in (128, 192, 256)),
        *((29, bits, "AES-CCM") for bits in (128, 192, 256)),
        *((30, bits, "AES-GCM") for bits in (128, 192, 256)),
        (31, None, "CHACHA20-POLY1305"),
    ],
)
def test_short_icv_and_implicit_iv_are_packets_of_scapy_with_less(
    encr: int, bits: int | None, crypt: str, esn: bool, start: int
) -> None:
    """RFC 4106 6: the ICV is the beginning of the tag. RFC 8750 4: the IV is the sequence number, and not sent."""
    transform, shape = transform_for(encr, bits), SHAPES["transport"][0]
    chance = random.Random(f"{encr}{bits}{start}")
    encr_key, _ = keys(transform, chance)
    ours = OutboundSa(SPI.to_bytes(4, "big"), transform, encr_key, esn=esn)
    peer = InboundSa(SPI.to_bytes(4, "big"), transform, encr_key, esn=esn)
    ours.sequence = peer.replay.highest = start
    uncut = transform_for({18: 20, 19: 20, 29: 14, 30: 20, 31: 28}[encr], bits)
    theirs = scapy_sa(uncut, encr_key, b"", crypt, None, shape)
    for sequence in range(start + 1, start + 1 + PACKETS):
        octets = chance.randbytes(chance.randrange(1, 300))
        packet = protect(ours, octets, MPLS_IN_IP)
        iv = packet[HEADER_OCTETS : HEADER_OCTETS + 8] if transform.iv_octets else sequence.to_bytes(8, "big")
        theirs.seq_num = sequence & 0xFFFFFFFF
        sent = theirs.encrypt(clear_packet(shape, octets), iv=iv, esn_en=esn, esn=sequence >> 32)
        whole = esp_of(shape, bytes(sent))
        if not transform.iv_octets:
            whole = whole[:HEADER_OCTETS] + whole[HEADER_OCTETS + 8 :]
        cut = whole[: len(whole) - (uncut.icv_octets - transform.icv_octets)]
        assert packet == cut
        assert unprotect(peer, cut) == Opened(octets, MPLS_IN_IP, sequence)


def every_transform() -> Iterator[Transform]:
    """Whatever `esp.transforms` has for any number, key length and integrity."""
    for encr in range(256):
        for bits in (None, 128, 192, 256):
            for integ in (0, *INTEGRITY):
                try:
                    yield transform_for(encr, bits, integ)
                except EspError:
                    continue


def parts_of(transform: Transform) -> set[tuple[str, int, int | None]]:
    """The ENCR transform with its key length, and the INTEG transform if there is one, as in NOT_IN_SCAPY."""
    integ: set[tuple[str, int, int | None]] = {("integ", transform.integ, None)} if transform.integ else set()
    return {("encr", transform.encr, transform.key_bits)} | integ


def test_every_transform_is_held_by_scapy_or_said_not_to_be() -> None:
    known = set().union(*map(parts_of, every_transform()))
    held = set().union(*(parts_of(transform) for transform, _, _ in SUITES))
    assert len(known) > 30
    assert held | NOT_IN_SCAPY.keys() == known
    assert not held & NOT_IN_SCAPY.keys()


def test_whoever_else_has_agreed_is_a_case() -> None:
    names = [case.name for case in CASES]
    patterns = {pattern for one in NOT_IN_SCAPY.values() for pattern in one.cases}
    assert {pattern for pattern in patterns if any(fnmatch(name, pattern) for name in names)} == patterns
