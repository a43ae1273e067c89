"""ike.wire.sa: proposals, transforms and attributes (RFC 7296 section 3.3)."""

import pytest
from hypothesis import given

from ike.errors import ParseError
from ike.wire.reader import Reader
from ike.wire.sa import Attribute, Proposal, Transform, encode_proposals, parse_proposals
from tests.ike.wire_strategies import proposals

ESP = Proposal(3, (Transform(1, 20, 256), Transform(5, 0)), b"\1\2\3\4", 1)
ESP_OCTETS = "00000020 01030402 01020304  0300000c01000014800e0100  0000000805000000"


def parse(octets: str) -> tuple[Proposal, ...]:
    return parse_proposals(Reader(bytes.fromhex(octets)))


def replaced(octets: str, at: int, new: str) -> str:
    """`octets` with those from offset `at` on replaced."""
    plain = bytes.fromhex(octets)
    patch = bytes.fromhex(new)
    return (plain[:at] + patch + plain[at + len(patch) :]).hex()


def test_one_esp_proposal() -> None:
    assert parse(ESP_OCTETS) == (ESP,)
    assert encode_proposals((ESP,)) == bytes.fromhex(ESP_OCTETS)


@given(proposals())
def test_every_list_of_proposals_survives_a_round_trip(original: tuple[Proposal, ...]) -> None:
    octets = encode_proposals(original)
    assert parse_proposals(Reader(octets)) == original
    for end in range(len(octets)):
        with pytest.raises(ParseError):
            parse_proposals(Reader(octets[:end]))


def test_reserved_octets_are_ignored() -> None:
    octets = replaced(replaced(replaced(ESP_OCTETS, 1, "ff"), 13, "ff"), 17, "ff")
    assert parse(octets) == (ESP,)


def test_an_unknown_attribute_makes_a_transform_unusable_and_keeps_its_octets() -> None:
    octets = "00000018 01010001" + "00000010 01000014 800e0100 80630001"
    (proposal,) = parse(octets)
    (transform,) = proposal.transforms
    assert transform == Transform(1, 20, None, (Attribute(14, 256), Attribute(99, 1)))
    assert not transform.is_understood
    assert transform != Transform(1, 20, 256)
    assert encode_proposals((proposal,)).hex() == octets.replace(" ", "")


@pytest.mark.parametrize("attributes", ["800e0080800e0100", "000e00020100", "000e0000"])
def test_two_key_lengths_or_one_in_long_form_are_not_understood(attributes: str) -> None:
    size = len(attributes) // 2
    octets = f"0000{16 + size:04x} 01010001 0000{8 + size:04x} 01000014 {attributes}"
    (proposal,) = parse(octets)
    assert proposal.transforms[0].key_bits is None
    assert not proposal.transforms[0].is_understood
    assert encode_proposals((proposal,)) == bytes.fromhex(octets)


def test_transforms_of_unknown_types_do_not_hurt_the_other_proposals() -> None:
    odd = Proposal(3, (Transform(99, 4711),), b"\0\0\0\1", 2)
    assert parse_proposals(Reader(encode_proposals((ESP, odd)))) == (ESP, odd)


@pytest.mark.parametrize(
    ("at", "new"),
    [
        (0, "02"),  # "more" before the end
        (0, "01"),
        (2, "0021"),  # beyond the payload
        (2, "001f"),  # an octet left over
        (2, "0003"),  # shorter than its header
        (2, "0000"),
        (6, "00"),  # SPI sizes
        (6, "05"),
        (6, "08"),
        (6, "ff"),
        (7, "00"),  # transform counts
        (7, "01"),
        (7, "03"),
        (7, "ff"),
        (12, "00"),  # "last" before the last transform
        (12, "02"),
        (14, "0007"),  # transform lengths
        (14, "0000"),
        (14, "0015"),
        (20, "000e"),  # a long form of 256 octets
        (24, "03"),  # "more" behind the last transform
    ],
)
def test_lengths_and_counts_that_do_not_agree_are_refused(at: int, new: str) -> None:
    with pytest.raises(ParseError):
        parse(replaced(ESP_OCTETS, at, new))


def test_proposals_are_numbered_one_by_one() -> None:
    first, second = ESP, Proposal(3, ESP.transforms, b"\0\0\0\1", 3)
    with pytest.raises(ParseError, match="proposal 3 follows proposal 1"):
        parse_proposals(Reader(encode_proposals((first, second))))


def test_at_most_32_proposals_of_at_most_128_transforms_of_at_most_16_attributes() -> None:
    many = tuple(Proposal(1, (Transform(2, 5),), b"", number) for number in range(1, 34))
    assert parse_proposals(Reader(encode_proposals(many[:32]))) == many[:32]
    with pytest.raises(ParseError, match="32 proposals"):
        parse_proposals(Reader(encode_proposals(many)))
    wide = Proposal(1, (Transform(2, 5),) * 129)
    with pytest.raises(ParseError, match="129 transforms"):
        parse_proposals(Reader(encode_proposals((wide,))))
    deep = Proposal(1, (Transform(2, 5, None, (Attribute(99, 0),) * 17),))
    with pytest.raises(ParseError, match="16 attributes"):
        parse_proposals(Reader(encode_proposals((deep,))))


@pytest.mark.parametrize(
    ("protocol", "spi_octets"),
    [(1, 4), (1, 1), (1, 16), (2, 0), (2, 8), (3, 0), (3, 8), (3, 3), (6, 5), (0, 255)],
)
def test_an_spi_of_the_wrong_size_for_its_protocol_is_refused(protocol: int, spi_octets: int) -> None:
    proposal = Proposal(protocol, (Transform(5, 0),), bytes(spi_octets))
    with pytest.raises(ParseError, match="SPI"):
        parse_proposals(Reader(encode_proposals((proposal,))))


def test_a_list_of_no_proposals_is_refused() -> None:
    with pytest.raises(ParseError):
        parse("")


def test_proposals_print_by_name() -> None:
    assert str(ESP) == "ESP:AES_GCM_16_256/SEQUENTIAL_32"
    assert str(Transform(99, 4711)) == "TRANSFORM_99_4711"
    assert str(Transform(6, 36)) == "ML_KEM_768"
    assert ESP.of_type(5) == (Transform(5, 0),)
