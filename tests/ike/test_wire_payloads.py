"""ike.wire.payloads: each payload's octets, its bounds, and the chain (RFC 7296 section 3)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ike.errors import LocalError, ParseError
from ike.numbers import NotifyType, PayloadType
from ike.selectors import AddressSelector, RawSelector
from ike.wire.identity import Identity
from ike.wire.payloads import (
    AuthPayload,
    ConfigAttribute,
    ConfigPayload,
    DeletePayload,
    EapPayload,
    EncryptedPayload,
    IdiPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    Payload,
    SaPayload,
    TsiPayload,
    TsrPayload,
    UnknownPayload,
    VendorIdPayload,
    encode_payloads,
    parse_payloads,
)
from ike.wire.sa import Proposal, Transform
from tests.ike.wire_strategies import SAMPLE_PAYLOADS, clear_payloads

# WIRE.md 9.1, "whole TSr payload": 192.0.2.2, protocol 137, and a TS_MPLS_VRF
GOLDEN_TSR = bytes.fromhex(
    "0000002d02000000078900100000ffffc0000202c0000202f6000015a30001018200480000fde800000064020a"
)
# WIRE.md 9.2, "add, seq 1"
GOLDEN_NOTIFY = bytes.fromhex(
    "000000480000c7c2a70001018200480000fde800000064020a031a6921de00040105000682841a000186a1038182181843c63364"
    "818218304620010db80001841a000186a2018080"
)


def body(payload_type: int, octets: str) -> Payload:
    """The one payload of this type whose body these octets are."""
    data = bytes.fromhex(octets)
    (payload,) = parse_payloads(payload_type, bytes(2) + (4 + len(data)).to_bytes(2, "big") + data)
    return payload


def encoded(payload: Payload) -> str:
    return encode_payloads([payload])[1][4:].hex()


# --- octets that were written down before the code ---


def test_golden_tsr_is_one_address_and_one_raw_selector() -> None:
    (tsr,) = parse_payloads(PayloadType.TSR, GOLDEN_TSR)
    assert isinstance(tsr, TsrPayload)
    assert tsr.selectors == (
        AddressSelector.from_address("192.0.2.2", 137, 0, 65535),
        RawSelector(246, bytes.fromhex("f6000015a30001018200480000fde800000064020a")),
    )
    assert encode_payloads([tsr]) == (PayloadType.TSR, GOLDEN_TSR)


def test_golden_notify_has_no_spi() -> None:
    (notify,) = parse_payloads(PayloadType.NOTIFY, GOLDEN_NOTIFY)
    assert isinstance(notify, NotifyPayload)
    assert (notify.notify_type, notify.protocol, notify.spi) == (51138, 0, b"")
    assert notify.data == GOLDEN_NOTIFY[8:]
    assert encode_payloads([notify]) == (PayloadType.NOTIFY, GOLDEN_NOTIFY)


@pytest.mark.parametrize(
    ("payload", "octets"),
    [
        (KePayload(31, b"\xaa\xbb"), "001f0000aabb"),
        (IdiPayload(Identity.fqdn("a.b")), "02000000612e62"),
        (AuthPayload(2, b"\xcc"), "02000000cc"),
        (NoncePayload(bytes(range(16))), "000102030405060708090a0b0c0d0e0f"),
        (NotifyPayload(16393, b"", 3, b"\1\2\3\4"), "0304400901020304"),
        (NotifyPayload(7, b"\x2e"), "000000072e"),
        (DeletePayload(1), "01000000"),
        (DeletePayload(3, (b"\1\2\3\4", b"\5\6\7\x08")), "030400020102030405060708"),
        (VendorIdPayload(b"\xde\xad"), "dead"),
        (
            SaPayload((Proposal(3, (Transform(1, 20, 256), Transform(5, 0)), b"\1\2\3\4", 1),)),
            "00000020010304020102030403 00000c 01000014800e0100 00000008 05000000",
        ),
        (
            TsiPayload((AddressSelector.from_address("192.0.2.1", 1, 8 << 8, 8 << 8 | 255),)),
            "01000000 0701001008000 8ffc0000201c0000201",
        ),
        (
            ConfigPayload(1, (ConfigAttribute(1), ConfigAttribute(3, b"\1\2\3\4"))),
            "010000000001000000030004 01020304",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Payload) else "",
)
def test_body_is_what_the_rfc_draws(payload: Payload, octets: str) -> None:
    octets = octets.replace(" ", "")
    assert encoded(payload) == octets
    assert body(payload.payload_type, octets) == payload


# --- round trips ---


@given(st.lists(clear_payloads, max_size=8))
def test_every_chain_survives_a_round_trip(payloads: list[Payload]) -> None:
    first_type, octets = encode_payloads(payloads)
    parsed = parse_payloads(first_type, octets)
    assert parsed == tuple(payloads)
    assert encode_payloads(parsed) == (first_type, octets)


@pytest.mark.parametrize("payload", SAMPLE_PAYLOADS, ids=lambda p: type(p).__name__)
def test_truncation_at_every_offset_is_a_parse_error(payload: Payload) -> None:
    first_type, octets = encode_payloads([payload])
    for end in range(len(octets)):
        with pytest.raises(ParseError):
            parse_payloads(first_type, octets[:end])


# A payload that ends inside a fixed field or a substructure is refused even when its own length says so;
# open-ended ones (KE, ID, CERT, AUTH...) may become shorter, but never raise anything else.
@pytest.mark.parametrize("payload", SAMPLE_PAYLOADS, ids=lambda p: type(p).__name__)
def test_a_body_cut_short_with_a_matching_length_raises_only_parse_errors(payload: Payload) -> None:
    first_type, octets = encode_payloads([payload])
    for end in range(4, len(octets)):
        cut = octets[:2] + end.to_bytes(2, "big") + octets[4:end]
        try:
            (shorter,) = parse_payloads(first_type, cut)
        except ParseError:
            continue
        assert encode_payloads([shorter]) == (first_type, cut)
        assert not isinstance(payload, SaPayload | TsiPayload | TsrPayload | DeletePayload | EapPayload)


def test_reserved_bits_are_ignored_and_not_repeated() -> None:
    assert body(PayloadType.KE, "001fffffaa") == KePayload(31, b"\xaa")
    assert body(PayloadType.AUTH, "02ffffffaa") == AuthPayload(2, b"\xaa")
    assert body(PayloadType.TSI, "00ffffff") == TsiPayload(())
    assert body(PayloadType.CP, "01ffffff80010000") == ConfigPayload(1, (ConfigAttribute(1),))
    flags = bytes.fromhex("007f0005aa")
    assert parse_payloads(PayloadType.VENDOR_ID, flags) == (VendorIdPayload(b"\xaa"),)


def test_reserved_octets_of_an_identity_survive_because_auth_covers_them() -> None:
    payload = body(PayloadType.IDI, "02aabbcc612e62")
    assert isinstance(payload, IdiPayload)
    assert payload.encode_body() == bytes.fromhex("02aabbcc612e62")
    assert payload.identity == Identity.fqdn("a.b")


def test_unknown_payloads_keep_type_octets_and_critical_bit() -> None:
    chain = bytes.fromhex("c8 80 0006 abcd  00 00 0005 ef".replace(" ", ""))
    parsed = parse_payloads(199, chain)
    assert parsed == (UnknownPayload(199, b"\xab\xcd", critical=True), UnknownPayload(200, b"\xef"))
    assert encode_payloads(parsed) == (199, chain)


# --- bounds ---


def test_at_most_64_payloads() -> None:
    assert len(parse_payloads(*encode_payloads([VendorIdPayload(b"")] * 64))) == 64
    with pytest.raises(ParseError, match="64 payloads"):
        parse_payloads(*encode_payloads([VendorIdPayload(b"")] * 65))


@pytest.mark.parametrize("size", [0, 15, 257])
def test_a_nonce_has_16_to_256_octets(size: int) -> None:
    with pytest.raises(ParseError, match="nonce"):
        body(PayloadType.NONCE, "00" * size)


@pytest.mark.parametrize("spi_octets", [1, 2, 3, 5, 7, 9, 16, 255])
def test_a_notify_spi_has_0_4_or_8_octets(spi_octets: int) -> None:
    with pytest.raises(ParseError, match="SPI"):
        body(PayloadType.NOTIFY, f"03{spi_octets:02x}4009" + "00" * spi_octets)


def test_a_notify_whose_spi_is_cut_short_is_refused() -> None:
    with pytest.raises(ParseError):
        body(PayloadType.NOTIFY, "03044009010203")


@pytest.mark.parametrize(
    "octets",
    [
        "0304000101020304ff",  # an octet too many
        "03040002 01020304",  # one SPI missing
        "0304ffff 01020304",  # a count far beyond the octets
        "01000001",  # an IKE SA is not counted
        "0104000101020304",  # nor has it an SPI here
        "0308000100000000 00000000",
        "030000ff",  # many SPIs of no octets
    ],
)
def test_a_delete_whose_numbers_do_not_agree_is_refused(octets: str) -> None:
    with pytest.raises(ParseError):
        body(PayloadType.DELETE, octets)


@pytest.mark.parametrize(
    "octets",
    [
        "02000000 078900100000ffffc0000202c0000202",  # two announced, one there
        "00000000 078900100000ffffc0000202c0000202",  # none announced, one there
        "01000000 078900110000ffffc0000202c000020200",  # 17 octets for type 7
        "01000000 0789000c0000ffffc0000202",  # 12 octets for type 7
        "01000000 088900100000ffffc0000202c0000202",  # 16 octets for type 8
        "01000000 f6000003",  # shorter than its own header
        "01000000 f6000000",
        "01000000 f6000009aabbccdd",  # beyond the payload
        "ff000000",
    ],
)
def test_a_ts_payload_that_its_selectors_do_not_fill_is_refused(octets: str) -> None:
    with pytest.raises(ParseError):
        body(PayloadType.TSI, octets)


@pytest.mark.parametrize(
    "octets",
    [
        "078900100000ffffc0000203c0000202",  # from .3 to .2
        "0789001000090001c0000202c0000202",  # ports 9-1
        "07890010ffff0001c0000202c0000202",  # nearly OPAQUE
    ],
)
def test_a_range_that_is_none_is_kept_raw_for_the_registry_to_refuse(octets: str) -> None:
    payload = body(PayloadType.TSI, "01000000" + octets)
    assert isinstance(payload, TsiPayload)
    assert payload.selectors == (RawSelector(7, bytes.fromhex(octets)),)
    assert payload.encode_body() == bytes.fromhex("01000000" + octets)


def test_an_eap_message_has_the_length_it_says() -> None:
    for octets in ("", "0101", "01010005", "0101000301", "01010004ff"):
        with pytest.raises(ParseError, match="EAP"):
            body(PayloadType.EAP, octets)


def test_at_most_256_configuration_attributes() -> None:
    assert body(PayloadType.CP, "01000000" + "00010000" * 256)
    with pytest.raises(ParseError, match="256"):
        body(PayloadType.CP, "01000000" + "00010000" * 257)


# --- the chain ---


@pytest.mark.parametrize("sealed_type", [PayloadType.SK, PayloadType.SKF])
def test_nothing_sealed_is_inside_something_sealed(sealed_type: int) -> None:
    with pytest.raises(ParseError, match="inside another"):
        parse_payloads(sealed_type, bytes.fromhex("0000000c0001000100000000"))


def test_octets_behind_the_last_payload_are_refused() -> None:
    with pytest.raises(ParseError, match="left over"):
        parse_payloads(PayloadType.VENDOR_ID, bytes.fromhex("00000005aabb"))
    with pytest.raises(ParseError, match="left over"):
        parse_payloads(0, b"\0")


def test_no_payloads_are_no_octets() -> None:
    assert parse_payloads(0, b"") == ()
    assert encode_payloads(()) == (0, b"")


@pytest.mark.parametrize("length", [0, 1, 3, 6, 0xFFFF])
def test_a_payload_length_below_its_header_or_beyond_the_message_is_refused(length: int) -> None:
    with pytest.raises(ParseError):
        parse_payloads(PayloadType.VENDOR_ID, bytes(2) + length.to_bytes(2, "big") + b"a")


def test_a_sealed_payload_is_encoded_last_or_not_at_all() -> None:
    with pytest.raises(LocalError, match="last"):
        encode_payloads([EncryptedPayload(0, b""), VendorIdPayload(b"")])


@pytest.mark.parametrize(
    "payload",
    [
        VendorIdPayload(bytes(65532)),
        NotifyPayload(70000),
        AuthPayload(-1, b""),
        SaPayload((Proposal(1, (), b"", 1),)),
        SaPayload((Proposal(1, (Transform(1, 20, 1 << 20),), b"", 1),)),
        TsiPayload((AddressSelector.from_address("192.0.2.1"),) * 256),
    ],
    ids=["too long", "notify type", "auth method", "no transforms", "key length", "256 selectors"],
)
def test_what_does_not_fit_its_fields_is_a_local_error(payload: Payload) -> None:
    with pytest.raises(LocalError):
        encode_payloads([payload])


def test_notifies_print_by_name() -> None:
    assert str(NotifyPayload(NotifyType.TS_UNACCEPTABLE)) == "N(TS_UNACCEPTABLE)"
    assert str(NotifyPayload(51138)) == "N(NOTIFY_51138)"


@settings(max_examples=300)
@given(st.integers(0, 255), st.binary(max_size=200))
def test_arbitrary_octets_raise_only_parse_errors(first_type: int, octets: bytes) -> None:
    try:
        payloads = parse_payloads(first_type, octets)
    except ParseError:
        return
    assert len(encode_payloads(payloads)[1]) == len(octets)
