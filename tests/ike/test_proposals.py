"""Proposals: how they are written, and which one wins (RFC 7296 2.7, 3.3)."""

from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ike.crypto.integ import INTEGRITY_ALGORITHMS
from ike.crypto.kex import GROUPS
from ike.crypto.prf import PRFS
from ike.crypto.sk import SK_CIPHERS
from ike.numbers import AttributeType, Encr, Integ, Ke, ProtocolId, Sn, TransformType
from ike.proposals import (
    _KEYWORDS,
    format_proposal,
    is_valid_selection,
    number_proposals,
    parse_esp_proposal,
    parse_ike_proposal,
    select_proposal,
    without_ke,
)
from ike.wire.sa import Attribute, Proposal, Transform


def esp(*texts: str, spi: bytes = b"\1\2\3\4") -> tuple[Proposal, ...]:
    return number_proposals([parse_esp_proposal(text) for text in texts], spi)


def ike(*texts: str) -> tuple[Proposal, ...]:
    return number_proposals([parse_ike_proposal(text) for text in texts])


def chosen(offered: tuple[Proposal, ...], configured: tuple[Proposal, ...]) -> str | None:
    selection = select_proposal(offered, configured)
    if selection is None:
        return None
    assert is_valid_selection([replace(selection, spi=b"ours")], offered)
    return format_proposal(selection)


# The written form


@pytest.mark.parametrize(
    "text",
    [
        "aes256gcm16-prfsha384-x25519",
        "aes256gcm16-aes128gcm16-prfsha384-prfsha256-x25519-ecp384",
        "aes192gcm12-prfsha512-ecp521",
        "aes128gcm8-prfsha256-ecp256",
        "chacha20poly1305-prfsha256-x25519",
        "aes128ccm16-prfaescmac-x448",
        "aes256-prfsha384-sha512-modp4096",
        "aes192ctr-aes128-prfsha1-prfaesxcbc-sha1-aesxcbc-modp2048-modp3072-ecp256bp-ecp384bp-ecp512bp",
    ],
)
def test_ike_proposal_is_written_as_it_was_read(text: str) -> None:
    proposal = parse_ike_proposal(text)
    assert proposal.protocol == ProtocolId.IKE
    assert format_proposal(proposal) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("aes256gcm16", "aes256gcm16-noesn"),
        ("aes256gcm16-esn", "aes256gcm16-esn"),
        ("aes256gcm16-esn-noesn", "aes256gcm16-esn-noesn"),
        ("aes256gcm16-noesn-esn", "aes256gcm16-noesn-esn"),
        ("aes128gcm16-curve25519-noesn", "aes128gcm16-x25519-noesn"),
        ("AES256GCM128", "aes256gcm16-noesn"),
        (" aes256gcm ", "aes256gcm16-noesn"),
        ("esn-ecp384-aes128gcm64", "aes128gcm8-ecp384-esn"),
        ("aes128-sha2_256", "aes128-sha256-noesn"),
        ("aes128ccm64-aes128ccm96-aes128ccm128", "aes128ccm8-aes128ccm12-aes128ccm16-noesn"),
        ("aes256ctr-sha-curve448", "aes256ctr-sha1-x448-noesn"),
        ("aes128-aesxcbc-aescmac", "aes128-aesxcbc-aescmac-noesn"),
        ("null-sha256-esn", "null-sha256-esn"),
        ("aes256gmac-aes128gmac", "aes256gmac-aes128gmac-noesn"),
        ("aes256gcm16iiv-aes256gcm16", "aes256gcm16iiv-aes256gcm16-noesn"),
        ("aes128ccm8iiv-chacha20poly1305iiv", "aes128ccm8iiv-chacha20poly1305iiv-noesn"),
        ("aes256-aes128-sha512-sha384", "aes256-aes128-sha512-sha384-noesn"),
    ],
)
def test_esp_proposal_always_says_which_sequence_numbers(text: str, written: str) -> None:
    proposal = parse_esp_proposal(text)
    assert proposal.protocol == ProtocolId.ESP
    assert format_proposal(proposal) == written
    assert proposal.of_type(TransformType.SN)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("aes256-sha256-x25519", "aes256-prfsha256-sha256-x25519"),
        ("aes128-sha512-sha384-modp3072", "aes128-prfsha512-prfsha384-sha512-sha384-modp3072"),
        ("aes128ctr-sha2_384-ecp256", "aes128ctr-prfsha384-sha384-ecp256"),
        ("aes128-aesxcbc-modp2048", "aes128-prfaesxcbc-aesxcbc-modp2048"),
        ("aes128-aescmac-modp2048", "aes128-prfaescmac-aescmac-modp2048"),
        ("aes128-sha1-modp2048", "aes128-prfsha1-sha1-modp2048"),
        ("aes128-sha1-prfsha256-modp2048", "aes128-prfsha256-sha1-modp2048"),
    ],
)
def test_prf_follows_the_integrity_words_unless_written(text: str, written: str) -> None:
    assert format_proposal(parse_ike_proposal(text)) == written


def test_every_word_for_ike_names_what_works() -> None:
    """What can be configured can be computed: no peer may choose an algorithm that we lack."""
    working: dict[int, Collection[int]] = {1: SK_CIPHERS, 2: PRFS, 3: INTEGRITY_ALGORITHMS, 4: GROUPS}
    for word in _KEYWORDS:
        for text in (f"{word}-prfsha256-x25519", f"aes128-{word}-sha256-prfsha256-x25519"):
            try:
                proposal = parse_ike_proposal(text)
            except ValueError:
                continue
            for transform in proposal.transforms:
                assert transform.id in working[transform.type]


def test_group_that_the_library_lacks_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(GROUPS, Ke.BRAINPOOL_P256R1)
    with pytest.raises(ValueError, match='"ecp256bp" is not in the installed cryptography library'):
        parse_ike_proposal("aes256gcm16-prfsha256-ecp256bp")


def test_transforms_carry_the_numbers_of_the_registry() -> None:
    assert parse_esp_proposal("aes256gcm16-x25519-esn").transforms == (
        Transform(1, 20, 256),
        Transform(4, 31),
        Transform(5, 1),
    )
    assert parse_ike_proposal("chacha20poly1305-prfsha384-ecp256").transforms == (
        Transform(1, 28),
        Transform(2, 6),
        Transform(4, 19),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unknown word"),
        ("aes256gcm16", "no PRF.*prfsha256"),
        ("aes256gcm16-x25519", "no PRF.*prfsha256"),
        ("aes256gcm16-prfsha256", "no key exchange.*x25519"),
        ("prfsha256-x25519", "no encryption.*aes256gcm16"),
        ("aes256-x25519", "no integrity.*sha256"),
        ("aes256-prfsha256-x25519", "no integrity.*sha256"),
        ("aes256-aes256gcm16-sha256-x25519", "a proposal each"),
        ("aes256gcm16-sha256-x25519-prfsha256", "an AEAD protects integrity itself"),
        ("null-sha256-x25519", '"null" is for ESP alone'),
        ("aes256gmac-prfsha256-x25519", '"aes256gmac" is for ESP alone'),
        ("aes256gcm16iiv-prfsha256-x25519", '"aes256gcm16iiv" is for ESP alone'),
        ("aes256gcm16-prfsha256-x25519-esn", r'"esn" \(sequence number\) has no place'),
        ("aes256gcm16-prfsha256-x25519-x25519", "twice"),
        ("aes256gcm16-prfsha256-modp8192", '"modp8192" is not available yet'),
        ("aes256gcm16-prfsha256-modp1024", '"modp1024" is too weak'),
        ("aes256gcm16-prfmd5-x25519", '"prfmd5" is too weak'),
        ("aes256gcm16-prfsha256-x25518", 'unknown word "x25518"; known are .*x25519'),
        ("aes256gcm16,prfsha256", "unknown word"),
    ],
)
def test_wrong_ike_proposal_is_explained(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_ike_proposal(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x25519", "no encryption"),
        ("aes256gcm16-prfsha256", r'"prfsha256" \(PRF\) has no place'),
        ("aes128", "no integrity.*sha256"),
        ("aes128gcm16-sha256", "an AEAD protects integrity itself"),
        ("aes128gcm16-aes128-sha256", "a proposal each"),
        ("aes256gcm16-aes256gcm", "twice"),
        ("3des-sha256", "too weak"),
        ("null", "no integrity.*sha256"),
        ("null-aes128-sha256", "a proposal of its own"),
        ("aes128gmac-aes128gcm16", "a proposal of its own"),
        ("aes128gmac-sha256", "an AEAD protects integrity itself"),
        ("null-aes128gmac-sha256", "a proposal each"),
        ("aes256gcm16-", 'unknown word ""'),
    ],
)
def test_wrong_esp_proposal_is_explained(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_esp_proposal(text)


@given(st.text(alphabet="aes128gcm6-xprfhnocp453021", max_size=40))
def test_any_text_is_a_proposal_or_a_value_error(text: str) -> None:
    for parse in (parse_ike_proposal, parse_esp_proposal):
        try:
            proposal = parse(text)
        except ValueError:
            continue
        assert parse(format_proposal(proposal)) == proposal


def test_what_has_no_word_is_written_by_name_or_number() -> None:
    proposal = Proposal(3, (Transform(1, Encr.TRIPLE_DES), Transform(1, 4711, 99), Transform(99, 3)))
    assert format_proposal(proposal) == "TRIPLE_DES-ENCR_4711_99-TRANSFORM_99_3"


def test_offers_are_numbered_from_one_and_carry_our_spi() -> None:
    first, second = esp("aes256gcm16", "aes128gcm16", spi=b"spi!")
    assert (first.number, second.number) == (1, 2)
    assert first.spi == second.spi == b"spi!"


# The choice


def test_our_order_of_proposals_decides() -> None:
    offered = ike("aes128gcm16-prfsha256-x25519", "aes256gcm16-prfsha384-x25519")
    configured = ike("aes256gcm16-prfsha384-x25519", "aes128gcm16-prfsha256-x25519")
    assert chosen(offered, configured) == "aes256gcm16-prfsha384-x25519"
    selection = select_proposal(offered, configured)
    assert selection is not None
    assert selection.number == 2


def test_our_order_of_algorithms_decides() -> None:
    offered = ike("aes128gcm16-aes256gcm16-prfsha256-prfsha512-ecp256-x25519")
    configured = ike("aes256gcm16-aes128gcm16-prfsha512-prfsha256-x25519-ecp256")
    assert chosen(offered, configured) == "aes256gcm16-prfsha512-x25519"


def test_selection_keeps_number_and_spi_of_the_offer() -> None:
    selection = select_proposal(esp("aes128-sha256", "aes256gcm16", spi=b"peer"), esp("aes256gcm16", spi=b""))
    assert selection is not None
    assert (selection.number, selection.spi) == (2, b"peer")


def test_nothing_in_common_is_no_selection() -> None:
    assert chosen(esp("aes256gcm16"), esp("aes128gcm16", "aes256gcm12", "aes256-sha256")) is None
    assert chosen((), esp("aes128gcm16")) is None
    assert chosen(esp("aes128gcm16"), ()) is None


def test_protocols_are_not_mixed_up() -> None:
    as_ah = tuple(replace(p, protocol=ProtocolId.AH) for p in esp("aes256gcm16"))
    assert chosen(as_ah, esp("aes256gcm16")) is None


def test_key_length_is_part_of_the_algorithm() -> None:
    without = Proposal(3, (Transform(1, Encr.AES_GCM_16), Transform(5, 0)), b"peer")
    assert chosen((without,), esp("aes128gcm16-aes256gcm16")) is None
    fixed_with_length = Proposal(3, (Transform(1, Encr.CHACHA20_POLY1305, 256), Transform(5, 0)), b"peer")
    assert chosen((fixed_with_length,), esp("chacha20poly1305")) is None


def test_transform_with_an_unknown_attribute_is_passed_over() -> None:
    strange = Transform(
        1, Encr.AES_GCM_16, None, (Attribute(AttributeType.KEY_LENGTH, 256), Attribute(99, 1))
    )
    plain = Transform(1, Encr.AES_GCM_16, 128)
    configured = esp("aes256gcm16-aes128gcm16")
    offered = Proposal(3, (strange, plain, Transform(5, 0)), b"peer")
    assert chosen((offered,), configured) == "aes128gcm16-noesn"
    assert chosen((Proposal(3, (strange, Transform(5, 0)), b"peer"),), configured) is None


def test_unknown_algorithms_beside_known_ones_do_no_harm() -> None:
    offered = Proposal(
        3, (Transform(1, 4711), Transform(1, 20, 256), Transform(5, 2), Transform(5, 0)), b"peer"
    )
    assert chosen((offered,), esp("aes256gcm16")) == "aes256gcm16-noesn"


@pytest.mark.parametrize("extra", [6, 7, 13, 241])
def test_transform_type_that_we_did_not_ask_for_makes_a_proposal_unusable(extra: int) -> None:
    (plain,) = esp("aes256gcm16")
    strange = replace(plain, transforms=(*plain.transforms, Transform(extra, 0), Transform(extra, 1)))
    assert chosen((strange,), esp("aes256gcm16")) is None
    assert chosen((strange, replace(plain, number=2)), esp("aes256gcm16")) == "aes256gcm16-noesn"


def test_missing_mandatory_type_makes_a_proposal_unusable() -> None:
    no_sn = Proposal(3, (Transform(1, 20, 256),), b"peer")
    assert chosen((no_sn,), esp("aes256gcm16")) is None
    no_prf = Proposal(1, (Transform(1, 20, 256), Transform(4, 31)))
    assert chosen((no_prf,), ike("aes256gcm16-prfsha256-x25519")) is None


def test_pfs_is_used_when_both_ask_for_it_and_none_counts_as_no_pfs() -> None:
    plain, with_pfs = esp("aes256gcm16"), esp("aes256gcm16-x25519")
    optional = tuple(replace(p, transforms=(*p.transforms, Transform(4, Ke.NONE))) for p in with_pfs)
    assert chosen(with_pfs, with_pfs) == "aes256gcm16-x25519-noesn"
    assert chosen(with_pfs, plain) is None
    assert chosen(plain, with_pfs) is None
    assert chosen(optional, with_pfs) == "aes256gcm16-x25519-noesn"
    selection = select_proposal(optional, plain)
    assert selection is not None
    assert selection.of_type(TransformType.KE) == (Transform(TransformType.KE, Ke.NONE),)


def test_ike_sa_is_never_selected_without_key_exchange() -> None:
    none = Proposal(1, (Transform(1, 20, 256), Transform(2, 5), Transform(4, Ke.NONE)))
    assert chosen((none,), ike("aes256gcm16-prfsha256-x25519")) is None


def test_first_child_ignores_our_pfs() -> None:
    configured = esp("aes256gcm16-x25519")
    assert chosen(esp("aes256gcm16"), without_ke(configured)) == "aes256gcm16-noesn"
    assert chosen(configured, without_ke(configured)) is None


def test_integrity_none_beside_an_aead_is_taken() -> None:
    """RFC 7296 3.3: combined-mode ciphers may come with the single integrity algorithm NONE."""
    (plain,) = esp("aes256gcm16")
    with_none = replace(plain, transforms=(*plain.transforms, Transform(3, Integ.NONE)))
    selection = select_proposal((with_none,), esp("aes256gcm16"))
    assert selection is not None
    assert Transform(3, Integ.NONE) in selection.transforms
    real = replace(plain, transforms=(*plain.transforms, Transform(3, Integ.HMAC_SHA2_256_128)))
    assert chosen((real,), esp("aes256gcm16")) is None


def test_extended_sequence_numbers_are_negotiated() -> None:
    assert chosen(esp("aes256gcm16-esn-noesn"), esp("aes256gcm16")) == "aes256gcm16-noesn"
    assert chosen(esp("aes256gcm16-noesn-esn"), esp("aes256gcm16-esn-noesn")) == "aes256gcm16-esn"
    assert chosen(esp("aes256gcm16-esn"), esp("aes256gcm16")) is None


# The answer to our offer


def test_answer_must_be_one_proposal_of_ours_with_one_transform_of_each_type() -> None:
    offered = esp("aes256gcm16-aes128gcm16-esn-noesn", "aes128-sha256")
    sn, gcm = Transform(5, Sn.SEQUENTIAL_32), Transform(1, Encr.AES_GCM_16, 128)
    good = Proposal(3, (gcm, sn), b"peer", 1)
    assert is_valid_selection([good], offered)
    wrong = {
        "number of the other proposal": replace(good, number=2),
        "number never offered": replace(good, number=3),
        "protocol": replace(good, protocol=ProtocolId.AH),
        "algorithm": replace(good, transforms=(Transform(1, Encr.AES_GCM_16, 192), sn)),
        "type missing": replace(good, transforms=(gcm,)),
        "two of a type": replace(good, transforms=(gcm, Transform(1, Encr.AES_GCM_16, 256), sn)),
        "the same twice": replace(good, transforms=(gcm, gcm, sn)),
        "type added": replace(good, transforms=(gcm, sn, Transform(4, Ke.CURVE25519))),
        "unknown type added": replace(good, transforms=(gcm, sn, Transform(241, 1))),
    }
    for what, answer in wrong.items():
        assert not is_valid_selection([answer], offered), what
    assert not is_valid_selection([], offered)
    assert not is_valid_selection([good, good], offered)


TRANSFORMS = st.builds(
    Transform,
    st.sampled_from([1, 2, 3, 4, 5, 6]),
    st.sampled_from([0, 1, 5, 12, 20, 31]),
    st.sampled_from([None, 128]),
)
PROPOSALS = st.builds(
    Proposal, st.sampled_from([1, 3]), st.lists(TRANSFORMS, min_size=1, max_size=8).map(tuple)
)


@given(st.lists(PROPOSALS, max_size=4), st.lists(PROPOSALS, max_size=4))
def test_every_selection_is_one_that_the_initiator_accepts(
    offered_list: list[Proposal], configured: list[Proposal]
) -> None:
    offered = number_proposals(offered_list, b"peer")
    selection = select_proposal(offered, configured)
    if selection is not None:
        theirs = next(p for p in offered if p.number == selection.number)
        kinds = [t.type for t in selection.transforms]
        assert sorted(kinds) == sorted({t.type for t in theirs.transforms})
        assert set(selection.transforms) <= set(theirs.transforms)
        assert is_valid_selection([selection], offered)
