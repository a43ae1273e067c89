"""Published ESP packets and algorithms: RFC 7634, 3602, 3686, 4868, 3566, 4615, McGrew's AES-GCM cases."""

import pytest

from esp.engine import Opened, add_trailer, strip_trailer, unprotect
from esp.errors import DropReason
from esp.integrity import mac_for
from esp.modes import AesCbc, AesCtr
from esp.sa import InboundSa
from esp.transforms import transform_for
from tests.vectors.loader import Case, cases

IPV4_HEADER_OCTETS = 20


def test_packet_of_rfc_7634_appendix_a() -> None:
    (case,) = cases("rfc7634_esp")
    transform = transform_for(28, None)
    packet = case.octets("ip_packet")[IPV4_HEADER_OCTETS:]
    plaintext = add_trailer(case.octets("source_packet"), 4, transform.block_octets)
    assert plaintext == case.octets("plaintext")
    cipher = transform.cipher(case.octets("keymat"))
    assert cipher.seal(case.octets("aad"), b"", case.octets("iv"), plaintext) == packet

    sa = InboundSa(case.octets("spi"), transform, case.octets("keymat"))
    assert unprotect(sa, packet) == Opened(case.octets("source_packet"), 4, case.number("sequence"))


@pytest.mark.parametrize("case", cases("mcgrew_gcm_esp"), ids=repr)
def test_aes_gcm_packets_of_mcgrew(case: Case) -> None:
    key = case.octets("key") + case.octets("salt")
    transform = transform_for(20, 8 * len(case.octets("key")))
    whole = case.octets("sequence")
    esn, sequence = bool(case.number("esn")), int.from_bytes(whole, "big")
    header, high = case.octets("spi") + whole[-4:], whole[:-4]
    packet = header + case.octets("iv") + case.octets("ciphertext_and_icv")

    assert transform.cipher(key).seal(header, high, case.octets("iv"), case.octets("plaintext")) == packet

    sa = InboundSa(case.octets("spi"), transform, key, esn=esn)
    sa.replay.highest = sequence - 1
    opened = unprotect(sa, packet)
    assert isinstance(opened, Opened)
    assert opened.sequence == sequence
    assert add_trailer(opened.payload, opened.next_header, 4) == case.octets("plaintext")
    assert unprotect(sa, packet) is DropReason.REPLAY


@pytest.mark.parametrize("case", cases("rfc3602"), ids=repr)
def test_aes_cbc_of_rfc_3602(case: Case) -> None:
    cbc = AesCbc(case.octets("key"))
    assert cbc.encrypt(case.octets("iv"), case.octets("plaintext")) == case.octets("ciphertext")
    assert cbc.decrypt(case.octets("iv"), case.octets("ciphertext")) == case.octets("plaintext")


@pytest.mark.parametrize("case", cases("rfc3602", "esp_cases"), ids=repr)
def test_esp_packets_of_rfc_3602(case: Case) -> None:
    """These packets have no ICV, which no SA of ours allows: cipher and trailer are checked by themselves."""
    payload = case.octets("original_data")
    if case.number("next_header") == 4:
        payload = case.octets("original_ip_header") + payload
    plaintext = add_trailer(payload, case.number("next_header"), 16)
    assert plaintext == case.octets("plaintext")
    cbc = AesCbc(case.octets("key"))
    assert cbc.encrypt(case.octets("iv"), plaintext) == case.octets("ciphertext")
    assert strip_trailer(cbc.decrypt(case.octets("iv"), case.octets("ciphertext"))) == (
        payload,
        case.number("next_header"),
    )


@pytest.mark.parametrize("case", cases("rfc3602", "esp_cases"), ids=repr)
def test_esp_packets_of_rfc_3602_open_when_an_icv_is_added(case: Case) -> None:
    transform = transform_for(12, 128, 12)
    header = case.octets("spi") + case.number("sequence").to_bytes(4, "big")
    packet = transform.cipher(case.octets("key"), bytes(32)).seal(
        header, b"", case.octets("iv"), case.octets("plaintext")
    )
    assert packet[:-16] == header + case.octets("iv") + case.octets("ciphertext")
    sa = InboundSa(case.octets("spi"), transform, case.octets("key"), bytes(32))
    opened = unprotect(sa, packet)
    assert isinstance(opened, Opened)
    assert opened.payload.endswith(case.octets("original_data"))


@pytest.mark.parametrize(
    ("integ", "field"), [(12, "hmac_sha_256_128"), (13, "hmac_sha_384_192"), (14, "hmac_sha_512_256")]
)
def test_icvs_of_rfc_4868(integ: int, field: str) -> None:
    transform = transform_for(12, 128, integ)
    present = [case for case in cases("rfc4868") if field in case]
    assert present
    for case in present:
        assert transform.integ_key_octets == len(case.octets("key"))
        assert transform.icv_octets == len(case.octets(field))
        assert mac_for(integ, case.octets("key")).icv(case.octets("data")) == case.octets(field)


@pytest.mark.parametrize("case", cases("rfc3566"), ids=repr)
def test_aes_xcbc_of_rfc_3566(case: Case) -> None:
    assert mac_for(5, case.octets("key")).icv(case.octets("data")) == case.octets("icv")


def test_aes_cmac_agrees_with_rfc_4615() -> None:
    """With a key of 16 octets the PRF is AES-CMAC itself; RFC 4494 cuts that to 96 bits."""
    (case,) = [case for case in cases("rfc4615") if len(case.octets("key")) == 16]
    assert mac_for(8, case.octets("key")).icv(case.octets("data")) == case.octets("output")[:12]


@pytest.mark.parametrize("case", cases("rfc3686"), ids=repr)
def test_aes_ctr_of_rfc_3686(case: Case) -> None:
    ctr = AesCtr(case.octets("key") + case.octets("nonce"))
    assert ctr.encrypt(case.octets("iv"), case.octets("plaintext")) == case.octets("ciphertext")
    assert ctr.decrypt(case.octets("iv"), case.octets("ciphertext")) == case.octets("plaintext")
