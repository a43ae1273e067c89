"""ike.wire.message: the header and whole messages (RFC 7296 sections 3.1, 3.14, RFC 7383 section 2.5)."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from ike.errors import LocalError, ParseError
from ike.numbers import ExchangeType, NotifyType, PayloadType
from ike.wire.message import HEADER_OCTETS, Header, Message
from ike.wire.payloads import (
    EncryptedPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    UnknownPayload,
    VendorIdPayload,
)
from tests.ike.wire_strategies import SAMPLE_MESSAGES, messages

# An INFORMATIONAL request with N(SET_WINDOW_SIZE), sealed with ChaCha20-Poly1305
RFC7634_B = bytes.fromhex(
    json.loads((Path(__file__).parent.parent / "vectors" / "rfc7634_ike.json").read_text())["cases"][0][
        "message"
    ]
)


def header(**changes: object) -> Header:
    base = Header(b"initiate", b"responds", 33, 2, 0, 34, True, False, False, 7, 28)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_the_header_is_what_the_rfc_draws() -> None:
    octets = bytes.fromhex("696e697469617465726573706f6e6473 21 20 22 08 00000007 0000001c")
    assert Header.parse(octets) == header()
    assert header().encode() == octets
    assert header(is_initiator=False, is_response=True).encode()[19] == 0x20
    assert header(higher_version=True).encode()[19] == 0x18


def test_unknown_flags_are_ignored() -> None:
    octets = bytearray(header().encode())
    octets[19] |= 0b11000111
    assert Header.parse(bytes(octets)) == header()


def test_the_header_of_another_version_can_be_read_to_answer_it() -> None:
    octets = header(major=3, minor=1).encode()
    assert (Header.parse(octets).major, Header.parse(octets).minor) == (3, 1)
    with pytest.raises(ParseError, match=r"version 3\.1"):
        Message.parse(octets)


def test_another_minor_version_is_ignored() -> None:
    octets = header(minor=5, next_payload=0).encode()
    assert Message.parse(octets).payloads == ()


@pytest.mark.parametrize(
    "changes", [{"spi_i": b"short"}, {"message_id": -1}, {"message_id": 1 << 32}, {"exchange": 256}]
)
def test_a_header_out_of_range_is_a_local_error(changes: dict[str, object]) -> None:
    with pytest.raises(LocalError):
        header(**changes).encode()


@given(messages())
def test_every_message_survives_a_round_trip(message: Message) -> None:
    octets = message.encode()
    parsed = Message.parse(octets)
    assert parsed == message
    assert parsed.raw == octets
    assert parsed.encode() == octets


@pytest.mark.parametrize("message", SAMPLE_MESSAGES, ids=["clear", "SK", "SKF"])
def test_truncation_at_every_offset_is_a_parse_error(message: Message) -> None:
    octets = message.encode()
    for end in range(len(octets)):
        with pytest.raises(ParseError):
            Message.parse(octets[:end])


@pytest.mark.parametrize("message", SAMPLE_MESSAGES[:1])
def test_truncation_with_a_matching_header_length_is_a_parse_error(message: Message) -> None:
    octets = message.encode()
    for end in range(HEADER_OCTETS, len(octets)):
        with pytest.raises(ParseError):
            Message.parse(octets[:24] + end.to_bytes(4, "big") + octets[28:end])


@pytest.mark.parametrize("length", [0, 27, 29, 0xFFFFFFFF])
def test_a_header_length_that_is_not_the_datagram_s_is_refused(length: int) -> None:
    with pytest.raises(ParseError):
        Message.parse(header(next_payload=0, length=length).encode())


def test_a_message_over_65535_octets_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ParseError, match="65536"):
        Message.parse(header(length=65536).encode() + bytes(65536 - 28))


def test_a_message_over_65535_octets_is_not_written() -> None:
    message = replace(SAMPLE_MESSAGES[0], payloads=(VendorIdPayload(bytes(40000)),) * 2)
    with pytest.raises(LocalError, match="octets"):
        message.encode()


def test_a_sealed_payload_shows_what_an_aead_needs() -> None:
    message = Message.parse(RFC7634_B)
    assert message.exchange == ExchangeType.INFORMATIONAL
    assert message.message_id == 9
    sealed = message.encrypted
    assert sealed == EncryptedPayload(PayloadType.NOTIFY, RFC7634_B[32:])
    assert sealed is not None
    assert not sealed.is_fragment
    assert message.raw[: sealed.body_offset] == RFC7634_B[:32]
    assert message.encode() == RFC7634_B


def test_a_fragment_shows_its_place_and_what_an_aead_needs() -> None:
    original = Message(
        b"initiate", b"responds", 35, True, False, 1, (EncryptedPayload(PayloadType.IDI, b"sealed", 1, 3),)
    )
    octets = original.encode()
    assert octets[28:40].hex() == "2300000e00010003" + b"seal".hex()
    fragment = Message.parse(octets).encrypted
    assert fragment is not None
    assert (fragment.is_fragment, fragment.fragment_number, fragment.total_fragments) == (True, 1, 3)
    assert fragment.body_offset == 36
    assert octets[fragment.body_offset :] == b"sealed"


@pytest.mark.parametrize("numbers", ["00000001", "00010000", "00000000", "00030002", "0001", ""])
def test_a_fragment_outside_its_total_is_refused(numbers: str) -> None:
    body = bytes.fromhex(numbers)
    octets = header(next_payload=PayloadType.SKF, length=32 + len(body)).encode()
    with pytest.raises(ParseError):
        Message.parse(octets + bytes(2) + (4 + len(body)).to_bytes(2, "big") + body)


def test_nothing_follows_a_sealed_payload() -> None:
    sealed = bytes.fromhex("2b000008aabbccdd")
    vendor_id = bytes.fromhex("00000005ee")
    octets = header(next_payload=PayloadType.SK, length=28 + 13).encode() + sealed + vendor_id
    with pytest.raises(ParseError, match="left over"):
        Message.parse(octets)


def test_clear_payloads_may_stand_before_a_sealed_one() -> None:
    message = replace(SAMPLE_MESSAGES[1], payloads=(VendorIdPayload(b"v"), EncryptedPayload(0, b"")))
    parsed = Message.parse(message.encode())
    assert parsed == message
    assert parsed.encrypted is not None
    assert parsed.encrypted.body_offset == HEADER_OCTETS + 5 + 4


def test_payloads_are_found_by_class_and_notifies_by_type() -> None:
    first, second = NotifyPayload(NotifyType.COOKIE, b"1"), NotifyPayload(NotifyType.COOKIE, b"2")
    other = NotifyPayload(NotifyType.REKEY_SA)
    message = replace(SAMPLE_MESSAGES[0], payloads=(first, NoncePayload(bytes(16)), other, second))
    assert message.get(NoncePayload) == NoncePayload(bytes(16))
    assert message.get(KePayload) is None
    assert message.all(NotifyPayload) == message.notifies == (first, other, second)
    assert message.notify(NotifyType.COOKIE) is first
    assert message.notify(NotifyType.REDIRECT) is None
    assert message.encrypted is None


def test_a_critical_unknown_payload_reaches_the_schema_check() -> None:
    message = replace(SAMPLE_MESSAGES[0], payloads=(UnknownPayload(200, b"x", critical=True),))
    parsed = Message.parse(message.encode()).get(UnknownPayload)
    assert parsed is not None
    assert (parsed.payload_type, parsed.critical) == (200, True)


def test_received_octets_are_neither_compared_nor_printed() -> None:
    message = SAMPLE_MESSAGES[1]
    parsed = Message.parse(message.encode())
    assert parsed == message
    assert message.raw == b""
    assert "raw" not in repr(parsed)
