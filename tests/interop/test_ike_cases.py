"""What the cases about IKE read from the wire and from logs, and that their suites leave no algorithm of ours out."""

from __future__ import annotations

from pathlib import Path

from endpoint.config import load_config
from ike.proposals import parse_esp_proposal, parse_ike_proposal
from ike.wire.sa import Proposal
from interop.capture import Field, Packet
from interop.cases import ike_algorithms, ike_handshake, ike_life, ike_liveness, ike_narrowing
from interop.cases.ike_algorithms import KERNEL_SUITES, SUITES, TRANSFORMS, expected, transforms
from interop.cases.ike_handshake import COOKIE, notify
from interop.cases.ike_narrowing import Selector, selectors
from interop.keys import secrets_in_table
from interop.peers.strongswan import secrets_from_log
from interop.wire import NOTIFY, SA, TSI, IkeMessage, Payload

NOTHING = Field("isakmp.typepayload", "", "", ())


def message(*payloads: Payload) -> IkeMessage:
    return IkeMessage(Packet(1, 0.0, ()), "192.0.2.1", "", 34, 0, True, False, payloads)


def of(proposal: Proposal) -> set[tuple[int, int, int]]:
    return {(one.type, one.id, one.key_bits or 0) for one in proposal.transforms if one.id}


def test_suites_are_the_transforms_of_our_own_words() -> None:
    for ike, esp in SUITES:
        assert of(parse_ike_proposal(ike)) == expected(ike)
        assert of(parse_esp_proposal(esp)) == expected(esp)
    for esp in KERNEL_SUITES:
        assert of(parse_esp_proposal(esp)) == expected(esp)


def test_suites_leave_no_algorithm_of_ours_out() -> None:
    words = {word for ike, esp in SUITES for word in (*ike.split("-"), *esp.split("-"))}
    words |= {word for esp in KERNEL_SUITES for word in esp.split("-")}
    assert {TRANSFORMS[word][:2] for word in words} == {one[:2] for one in TRANSFORMS.values()}


def test_transforms_are_read_with_their_key_length() -> None:
    gcm = bytes.fromhex("0300000c01000014800e0100")
    group = bytes.fromhex("000000080400001f")
    body = gcm + group
    proposal = bytes([0, 0, *(8 + 4 + len(body)).to_bytes(2), 1, 3, 4, 2]) + b"spi!" + body
    payload = Payload(SA, bytes([0, 0, *(4 + len(proposal)).to_bytes(2)]) + proposal, NOTHING)
    assert list(transforms(payload)) == [(1, 20, 256), (4, 31, 0)]
    assert list(transforms(Payload(SA, payload.octets[:9], NOTHING))) == []


def test_selectors_are_read_with_protocol_and_ports() -> None:
    one = bytes([7, 1, 0, 16, 0, 0, 255, 255, 10, 1, 0, 0, 10, 1, 0, 127])
    payload = Payload(TSI, bytes([0, 0, 0, 24, 1, 0, 0, 0]) + one, NOTHING)
    assert selectors(message(payload), TSI) == [Selector(1, (0, 65535), "10.1.0.0", "10.1.0.127")]


def test_notify_data_follows_the_spi() -> None:
    octets = bytes([0, 0, 0, 14, 3, 4, *COOKIE.to_bytes(2)]) + b"spi!" + b"ab"
    assert notify(message(Payload(NOTIFY, octets, NOTHING)), COOKIE) == b"ab"
    assert notify(message(Payload(NOTIFY, octets, NOTHING)), COOKIE + 1) == b""


def test_secrets_of_any_algorithm_are_read_from_a_log() -> None:
    log = """12[IKE] Sk_ai secret => 4 bytes @ 0x7f
12[IKE]    0: 01 02 03 04                                      ....
12[CHD] integrity responder key => 2 bytes @ 0x7f
12[CHD]    0: AA BB                                            ..
12[IKE] shared Diffie Hellman secret => 1 bytes @ 0x7f
12[IKE]    0: CC                                               .
"""
    assert secrets_from_log(log) == {bytes([1, 2, 3, 4]), bytes([0xAA, 0xBB])}


def test_secrets_of_a_table_are_keys_and_not_spis() -> None:
    ei, er, ai = ("11" * 16, "22" * 16, "33" * 32)
    ike = f'{"ab" * 8},{"cd" * 8},{ei},{er},"AES-CBC-128 [RFC3602]",{ai},,"HMAC_SHA2_256_128 [RFC4868]"\n'
    esp = f'"IPv4","192.0.2.1","192.0.2.2","0x01020304","AES-CBC [RFC3602]","0x{ei}","NULL",""\n'
    assert secrets_in_table("# a comment\n" + ike) == {bytes.fromhex(one) for one in (ei, er, ai)}
    assert secrets_in_table(esp) == {bytes.fromhex(ei)}


def test_configurations_are_accepted(tmp_path: Path) -> None:
    secret = tmp_path / "peer.psk"
    secret.write_text("a secret of the interop lab, known to everybody\n")
    secret.chmod(0o600)
    modules = (ike_algorithms, ike_handshake, ike_life, ike_liveness, ike_narrowing)
    configs = [case.config("mplslab-red") for module in modules for case in module.CASES]
    for number, config in enumerate(configs):
        path = tmp_path / f"{number}.toml"
        path.write_text(config)
        assert load_config(path)
