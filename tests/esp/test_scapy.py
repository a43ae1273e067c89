"""Scapy as an independent codec, in both directions; it shares nothing with ours but the cipher library."""

import random
import warnings
from typing import Any

import pytest

from esp.engine import Opened, protect, unprotect
from esp.sa import InboundSa, OutboundSa
from esp.transforms import Transform, transform_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP
    from scapy.layers.ipsec import ESP, SecurityAssociation
    from scapy.packet import Raw

MPLS_IN_IP = 137
SPI = 0xC0DE0137
PACKETS = 50

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
    ("esn", "start"), [(False, 0), (True, 0), (True, 0x5_0000_0000 - 20)], ids=["sn32", "esn", "esn-wrap"]
)


@pytest.fixture(autouse=True)
def opaque_payloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random octets stay octets, also when another test has loaded scapy's MPLS."""
    monkeypatch.setattr(IP, "guess_payload_class", lambda self, _: ESP if self.proto == 50 else Raw)


def keys(transform: Transform, chance: random.Random) -> tuple[bytes, bytes]:
    return chance.randbytes(transform.key_octets), chance.randbytes(transform.integ_key_octets)


def scapy_sa(transform: Transform, encr_key: bytes, integ_key: bytes, crypt: str, auth: str | None) -> Any:
    return SecurityAssociation(
        ESP,
        spi=SPI,
        crypt_algo=crypt,
        crypt_key=encr_key,
        crypt_icv_size=None if auth else transform.icv_octets,
        auth_algo=auth,
        auth_key=integ_key or None,
    )


@every_suite
@starts
def test_scapy_opens_what_we_protect(
    transform: Transform, crypt: str, auth: str | None, esn: bool, start: int
) -> None:
    chance = random.Random(f"{crypt}{start}")
    encr_key, integ_key = keys(transform, chance)
    ours = OutboundSa(SPI.to_bytes(4, "big"), transform, encr_key, integ_key, esn=esn)
    ours.sequence = start
    theirs = scapy_sa(transform, encr_key, integ_key, crypt, auth)
    for sequence in range(start + 1, start + 1 + PACKETS):
        payload = chance.randbytes(chance.randrange(300))
        packet = protect(ours, payload, MPLS_IN_IP)
        received = IP(bytes(IP(src="192.0.2.1", dst="192.0.2.2", proto=50) / Raw(packet)))
        opened = theirs.decrypt(received, esn_en=esn, esn=sequence >> 32)
        assert opened.proto == MPLS_IN_IP
        assert bytes(opened.payload) == payload


@every_suite
@starts
def test_we_open_what_scapy_protects(
    transform: Transform, crypt: str, auth: str | None, esn: bool, start: int
) -> None:
    chance = random.Random(f"{crypt}{start}")
    encr_key, integ_key = keys(transform, chance)
    ours = InboundSa(SPI.to_bytes(4, "big"), transform, encr_key, integ_key, esn=esn)
    ours.replay.highest = start
    theirs = scapy_sa(transform, encr_key, integ_key, crypt, auth)
    for sequence in range(start + 1, start + 1 + PACKETS):
        payload = chance.randbytes(chance.randrange(1, 300))
        clear = IP(src="192.0.2.1", dst="192.0.2.2", proto=MPLS_IN_IP) / Raw(payload)
        theirs.seq_num = sequence & 0xFFFFFFFF
        sent = theirs.encrypt(
            clear,
            iv=chance.randbytes(transform.iv_octets),
            esn_en=esn,
            esn=sequence >> 32,
        )
        assert unprotect(ours, bytes(sent)[20:]) == Opened(payload, MPLS_IN_IP, sequence)
