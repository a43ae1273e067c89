"""endpoint/keylog.py: the tables are for their owner alone; Wireshark decodes with them down to the label."""

import os
import shutil
import stat
import struct
import subprocess
from itertools import product
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from endpoint.capture import Capture
from endpoint.errors import SetupError
from endpoint.keylog import ESP_TABLE, IKE_TABLE, KeyLog, tshark_options
from esp.engine import protect
from esp.sa import OutboundSa
from esp.transforms import transform_for
from ike.crypto.algorithms import selected
from ike.crypto.keymat import derive_ike_keys
from ike.numbers import ExchangeType
from ike.proposals import parse_ike_proposal
from ike.protection import Protection
from ike.wire.identity import Identity
from ike.wire.message import Message
from ike.wire.payloads import IdiPayload

GCM_8, GCM_12, GCM_16, AES_CBC, CHACHA20 = 18, 19, 20, 12, 28
ICV_OCTETS = {GCM_8: 8, GCM_12: 12, GCM_16: 16}
PE1, PE2 = "192.0.2.1", "192.0.2.2"
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def seal(key: bytes, iv: bytes, plaintext: bytes, aad: bytes, icv_octets: int) -> bytes:
    """AES-GCM as RFC 4106 and RFC 5282 use it: the last four octets of the key are the salt."""
    encryptor = Cipher(algorithms.AES(key[:-4]), modes.GCM(key[-4:] + iv)).encryptor()
    encryptor.authenticate_additional_data(aad)
    return iv + encryptor.update(plaintext) + encryptor.finalize() + encryptor.tag[:icv_octets]


def esp_packet(key: bytes, spi: bytes, payload: bytes, next_header: int, icv_octets: int) -> bytes:
    header = spi + struct.pack(">I", 1)
    pad = -(len(payload) + 2) % 4
    trailer = bytes(range(1, pad + 1)) + bytes([pad, next_header])
    return header + seal(key, bytes(8), payload + trailer, header, icv_octets)


def ike_auth_message(key: bytes, spi_i: bytes, spi_r: bytes, identity: bytes, icv_octets: int) -> bytes:
    """An IKE_AUTH request whose only payload is IDi (ID_FQDN)."""
    idi = struct.pack(">BBH", 0, 0, 8 + len(identity)) + b"\2\0\0\0" + identity + b"\0"
    sk_octets = 4 + 8 + len(idi) + icv_octets
    header = spi_i + spi_r + struct.pack(">BBBBII", 46, 0x20, 35, 0x08, 1, 28 + sk_octets)
    sk_header = struct.pack(">BBH", 35, 0, sk_octets)
    return header + sk_header + seal(key, bytes(8), idi, header + sk_header, icv_octets)


def tshark(capture: Path, keys: Path, home: Path, *fields: str) -> list[str]:
    shutil.copytree(keys, home / "wireshark")
    wanted = [argument for field in fields for argument in ("-e", field)]
    done = subprocess.run(
        ["tshark", *tshark_options(capture), "-T", "fields", *wanted],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "XDG_CONFIG_HOME": str(home), "HOME": str(home)},
    )
    return done.stdout.splitlines()


def test_folder_and_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    log = KeyLog(keys)
    log.add_esp_sa(b"\0\0\x10\0", PE1, PE2, GCM_16, bytes(36))
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()} == {
        ESP_TABLE: 0o600,
        IKE_TABLE: 0o600,
    }


def test_folder_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o755)
    with pytest.raises(SetupError, match="chmod 700"):
        KeyLog(tmp_path / "keys")


def test_lines_are_as_wireshark_saves_them(tmp_path: Path) -> None:
    log = KeyLog(tmp_path / "keys")
    assert log.add_ike_sa(b"\1" * 8, b"\2" * 8, b"\3" * 36, b"\4" * 36, GCM_16, 256)
    assert log.add_esp_sa(bytes.fromhex("c0ffee01"), PE1, PE2, GCM_16, b"\5" * 20)
    assert log.add_esp_sa(
        bytes.fromhex("c0ffee02"),
        "2001:db8::1",
        "2001:db8::2",
        AES_CBC,
        b"\6" * 16,
        integ=12,
        integ_key=b"\7" * 32,
    )
    assert (tmp_path / "keys" / IKE_TABLE).read_text().splitlines()[1:] == [
        "0101010101010101,0202020202020202," + "03" * 36 + "," + "04" * 36 + ","
        '"AES-GCM-256 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"'
    ]
    assert (tmp_path / "keys" / ESP_TABLE).read_text().splitlines()[1:] == [
        f'"IPv4","{PE1}","{PE2}","0xc0ffee01","AES-GCM with 16 octet ICV [RFC4106]",'
        f'"0x{"05" * 20}","NULL",""',
        f'"IPv6","2001:db8::1","2001:db8::2","0xc0ffee02","AES-CBC [RFC3602]","0x{"06" * 16}",'
        f'"HMAC-SHA-256-128 [RFC4868]","0x{"07" * 32}"',
    ]


def test_transform_unknown_to_wireshark_is_not_written(tmp_path: Path) -> None:
    # One line that Wireshark does not understand would make it ignore the whole table.
    log = KeyLog(tmp_path / "keys")
    assert not log.add_esp_sa(b"\0\0\x10\0", PE1, PE2, CHACHA20, bytes(36))
    assert not log.add_ike_sa(bytes(8), bytes(8), bytes(36), bytes(36), CHACHA20, 256)
    assert (tmp_path / "keys" / ESP_TABLE).read_text().count("\n") == 1


def test_tables_are_begun_anew(tmp_path: Path) -> None:
    KeyLog(tmp_path / "keys").add_esp_sa(b"\0\0\x10\0", PE1, PE2, GCM_16, bytes(36))
    KeyLog(tmp_path / "keys")
    assert (tmp_path / "keys" / ESP_TABLE).read_text().count("\n") == 1


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / ESP_TABLE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError):
        KeyLog(tmp_path / "keys")


@needs_tshark
def test_tshark_decodes_mpls_in_esp_with_the_keys(tmp_path: Path) -> None:
    log, capture = KeyLog(tmp_path / "keys"), Capture(tmp_path / "test.pcapng")
    stack = struct.pack(">I", 1001 << 12 | 5 << 9 | 1 << 8 | 64)
    inner = bytes.fromhex("4500001c00000000400100000a0100010a020001") + bytes(8)
    spis: list[str] = []
    for encr, key_octets in product(ICV_OCTETS, (16, 24, 32)):
        key, spi = os.urandom(key_octets + 4), struct.pack(">I", 0xC0FFEE00 + len(spis))
        spis.append(spi.hex())
        log.add_esp_sa(spi, PE1, PE2, encr, key)
        packet = esp_packet(key, spi, stack + inner, 137, ICV_OCTETS[encr])
        capture.write_udp((PE1, 4500), (PE2, 4500), packet)
        capture.write_ip(PE1, PE2, 50, packet)
    capture.close()
    lines = tshark(
        capture.path, log.folder, tmp_path, "esp.spi", "esp.protocol", "mpls.label", "mpls.exp", "ip.dst"
    )
    assert lines == [f"0x{spi}\t0x89\t1001\t5\t{PE2},10.2.0.1" for spi in spis for _ in range(2)]


@needs_tshark
def test_tshark_decodes_ike_with_the_keys(tmp_path: Path) -> None:
    log, capture = KeyLog(tmp_path / "keys"), Capture(tmp_path / "test.pcapng")
    names: list[str] = []
    for encr, key_octets in product(ICV_OCTETS, (16, 24, 32)):
        key, spi_i, spi_r = os.urandom(key_octets + 4), os.urandom(8), os.urandom(8)
        names.append(f"pe{len(names)}.example")
        log.add_ike_sa(spi_i, spi_r, key, bytes(key_octets + 4), encr, key_octets * 8)
        message = ike_auth_message(key, spi_i, spi_r, names[-1].encode(), ICV_OCTETS[encr])
        capture.write_udp((PE1, 500), (PE2, 500), message)
        capture.write_udp((PE1, 4500), (PE2, 4500), bytes(4) + message)
    capture.close()
    lines = tshark(capture.path, log.folder, tmp_path, "isakmp.id.data.fqdn")
    assert lines == [name for name in names for _ in range(2)]


@needs_tshark
def test_tshark_decodes_what_we_seal_with_every_transform_that_it_knows(tmp_path: Path) -> None:
    """Wireshark as an independent codec of ours."""
    log, capture = KeyLog(tmp_path / "keys"), Capture(tmp_path / "test.pcapng")
    stack = struct.pack(">I", 1001 << 12 | 5 << 9 | 1 << 8 | 64)
    inner = bytes.fromhex("4500001c00000000400100000a0100010a020001") + bytes(8)
    integrity = (2, 5, 8, 12, 13, 14)
    transforms = [
        *(
            transform_for(encr, bits, integ)
            for encr in (12, 13)
            for bits in (128, 256)
            for integ in integrity
        ),
        *(transform_for(11, None, integ) for integ in integrity),
    ]
    for number, transform in enumerate(transforms):
        spi = struct.pack(">I", 0xC0FFEE00 + number)
        keys = os.urandom(transform.key_octets), os.urandom(transform.integ_key_octets)
        assert log.add_esp_sa(
            spi, PE1, PE2, transform.encr, keys[0], integ=transform.integ, integ_key=keys[1]
        )
        capture.write_ip(PE1, PE2, 50, protect(OutboundSa(spi, transform, *keys), stack + inner, 137))
    capture.close()
    lines = tshark(capture.path, log.folder, tmp_path, "esp.protocol", "mpls.label", "ip.dst")
    assert lines == [f"0x89\t1001\t{PE2},10.2.0.1"] * len(transforms)


@needs_tshark
@pytest.mark.parametrize("in_fragments", [False, True], ids=["whole", "fragments"])
def test_tshark_decodes_ike_with_every_suite_that_it_knows(tmp_path: Path, in_fragments: bool) -> None:
    log, capture = KeyLog(tmp_path / "keys"), Capture(tmp_path / "test.pcapng")
    names: list[str] = []
    suites = [
        *(f"aes{bits}ccm{icv}-prfsha256" for bits in (128, 192, 256) for icv in (8, 12, 16)),
        *(
            f"aes{bits}{mode}-{integ}"
            for bits in (128, 192, 256)
            for mode in ("", "ctr")
            for integ in ("sha1", "aesxcbc", "aescmac", "sha256", "sha384", "sha512")
        ),
    ]
    for number, suite in enumerate(suites):
        proposal = parse_ike_proposal(suite + "-x25519")
        spi_i, spi_r = struct.pack(">Q", 1000 + number), struct.pack(">Q", 3000 + number)
        keys = derive_ike_keys(proposal, os.urandom(32), os.urandom(32), os.urandom(32), spi_i, spi_r)
        encr, integ = selected(proposal, 1), selected(proposal, 3)
        assert encr is not None
        assert log.add_ike_sa(
            spi_i,
            spi_r,
            keys.sk_ei,
            keys.sk_er,
            encr.id,
            encr.key_bits,
            integ=integ.id if integ else 0,
            sk_ai=keys.sk_ai,
            sk_ar=keys.sk_ar,
        )
        names.append(f"pe{number}.example" if not in_fragments else f"pe{number}.{'fragments' * 25}")
        message = Message(
            spi_i, spi_r, ExchangeType.IKE_AUTH, True, False, 1, (IdiPayload(Identity.fqdn(names[-1])),)
        )
        limit_octets = 180 if in_fragments else 1280
        for datagram in Protection(proposal, keys, True).seal_datagrams(message, limit_octets):
            capture.write_udp((PE1, 500), (PE2, 500), datagram)
    capture.close()
    lines = tshark(capture.path, log.folder, tmp_path, "isakmp.id.data.fqdn", "_ws.expert.message")
    # It would complain of an ICV that does not verify.
    assert [line for line in lines if line != "\t"] == [f"{name}\t" for name in names]
    assert len(lines) > 2 * len(names) if in_fragments else len(lines) == len(names)
