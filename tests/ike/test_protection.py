"""The Encrypted payload: published vector, round trips of every cipher, and that nothing else opens."""

import hmac

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC as CBC_MODE
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given
from hypothesis import strategies as st

from ike.crypto.integ import Integrity
from ike.crypto.keymat import IkeKeys, derive_ike_keys
from ike.crypto.sk import sk_cipher
from ike.errors import LocalError
from ike.numbers import Encr, ExchangeType, Integ, NotifyType, PayloadType
from ike.proposals import parse_esp_proposal, parse_ike_proposal
from ike.protection import IntegrityError, Protection
from ike.wire.message import Message, SealedBody, encode_payloads
from ike.wire.payloads import NotifyPayload, parse_payloads
from tests.vectors.loader import cases

# Suite, then octets of IV, block and ICV.
SUITES = {
    **{
        f"aes{bits}{mode}{icv}-prfsha256-x25519": (8, 1, icv)
        for bits in (128, 192, 256)
        for mode in ("gcm", "ccm")
        for icv in (8, 12, 16)
    },
    "chacha20poly1305-prfsha512-ecp256": (8, 1, 16),
    **{
        f"aes{bits}{mode}-{integ}-x25519": (iv, block, icv)
        for bits in (128, 192, 256)
        for mode, iv, block in (("", 16, 16), ("ctr", 8, 1))
        for integ, icv in (("sha256", 16), ("sha384", 24), ("sha512", 32))
    },
    "aes128-sha1-x25519": (16, 16, 12),
    "aes128-aesxcbc-x25519": (16, 16, 12),
    "aes128ctr-aescmac-x25519": (8, 1, 12),
}
GCM = "aes128gcm8-prfsha256-x25519"
CBC = "aes256-sha256-x25519"
ONE_OF_EACH = [
    GCM,
    "aes128ccm8-prfsha256-x25519",
    "chacha20poly1305-prfsha512-ecp256",
    CBC,
    "aes128ctr-sha512-x25519",
]


def message(*payloads: NotifyPayload, is_initiator: bool = True, message_id: int = 1) -> Message:
    return Message(
        spi_i=b"initiatr",
        spi_r=b"respondr",
        exchange=ExchangeType.INFORMATIONAL,
        is_initiator=is_initiator,
        is_response=False,
        message_id=message_id,
        payloads=payloads,
    )


def both_ends(suite: str = GCM) -> tuple[Protection, Protection]:
    proposal = parse_ike_proposal(suite)
    keys = derive_ike_keys(proposal, b"i" * 32, b"r" * 32, b"g" * 32, b"initiatr", b"respondr")
    return Protection(proposal, keys, True), Protection(proposal, keys, False)


NOTIFY = NotifyPayload(NotifyType.SET_WINDOW_SIZE, b"\0\0\0\x0a")


def test_message_of_rfc_7634_appendix_b_opens_and_seals() -> None:
    (case,) = cases("rfc7634_ike")
    proposal = parse_ike_proposal("chacha20poly1305-prfsha256-x25519")
    key = case.octets("keymat")
    keys = IkeKeys(b"", b"", b"", key, key, b"", b"")
    raw = case.octets("message")
    first_type, inner = Protection(proposal, keys, True).open(raw)
    assert (first_type, inner) == (PayloadType.NOTIFY, case.octets("notify_payload"))
    assert parse_payloads(first_type, inner) == (NOTIFY,)

    cipher = sk_cipher(Encr.CHACHA20_POLY1305, None, key)
    sealed = cipher.seal(case.octets("aad"), case.octets("plaintext"), case.octets("iv"))
    assert sealed == case.octets("ciphertext") + case.octets("tag")
    assert case.octets("aad") + case.octets("iv") + sealed == raw

    # The whole message, by way of the counter that makes our IVs.
    responder = Protection(proposal, keys, False)
    responder._last_iv = int.from_bytes(case.octets("iv"), "big") - 1
    ours = Message(
        case.octets("spi_i"), case.octets("spi_r"), ExchangeType.INFORMATIONAL, False, False, 9, (NOTIFY,)
    )
    assert responder.seal(ours) == raw


@pytest.mark.parametrize("suite", SUITES)
def test_what_one_end_seals_the_other_opens(suite: str) -> None:
    initiator, responder = both_ends(suite)
    for sender, receiver, is_initiator in ((initiator, responder, True), (responder, initiator, False)):
        raw = sender.seal(message(NOTIFY, NOTIFY, is_initiator=is_initiator))
        first_type, inner = receiver.open(raw)
        assert parse_payloads(first_type, inner) == (NOTIFY, NOTIFY)
        iv_octets, block_octets, icv_octets = SUITES[suite]
        plaintext_octets = -(-(2 * 12 + 1) // block_octets) * block_octets
        assert len(raw) == 28 + 4 + iv_octets + plaintext_octets + icv_octets
        assert Message.parse(raw).message_id == 1


def test_empty_message_has_an_empty_inside() -> None:
    initiator, responder = both_ends()
    assert responder.open(initiator.seal(message())) == (PayloadType.NO_NEXT_PAYLOAD, b"")


def test_no_iv_comes_twice_even_for_the_same_message() -> None:
    initiator, _ = both_ends()
    sealed = [initiator.seal(message(NOTIFY)) for _ in range(100)]
    assert len({raw[32:40] for raw in sealed}) == 100


def test_cbc_ivs_are_not_the_counter_and_differ_from_key_to_key() -> None:
    """RFC 7296 3.14: unpredictable to whoever has not the keys."""
    ivs = {end.seal(message())[32:48] for end in (*both_ends(CBC), *both_ends(CBC)) for _ in range(100)}
    # The second pair has the keys of the first, so its IVs are the same; each end has its own.
    assert len(ivs) == 200
    assert all(iv[:8] != bytes(8) for iv in ivs)


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31])
def test_authentic_message_with_a_broken_block_is_refused(size: int) -> None:
    proposal = parse_ike_proposal("aes128-sha256-x25519")
    key, integ_key = bytes(16), bytes(32)
    sk_octets = 4 + 16 + size + 16
    head = message().header(PayloadType.SK, 28 + sk_octets).encode()
    covered = head + bytes((41, 0)) + sk_octets.to_bytes(2, "big") + bytes(16) + bytes(size)
    raw = covered + Integrity(Integ.HMAC_SHA2_256_128, integ_key).icv(covered)
    end = Protection(proposal, IkeKeys(b"", integ_key, integ_key, key, key, b"", b""), False)
    with pytest.raises(IntegrityError):
        end.open(raw)


def test_icv_of_cbc_covers_the_message_as_rfc_7296_3_14_says() -> None:
    """All octets from the header to the one before the ICV, with the sender's SK_a."""
    proposal = parse_ike_proposal("aes128-sha256-x25519")
    keys = IkeKeys(b"", b"i" * 32, b"r" * 32, b"I" * 16, b"R" * 16, b"", b"")
    raw = Protection(proposal, keys, True).seal(message(NOTIFY))
    assert raw[-16:] == hmac.digest(b"i" * 32, raw[:-16], "sha256")[:16]
    answer = Protection(proposal, keys, False).seal(message(NOTIFY, is_initiator=False))
    assert answer[-16:] == hmac.digest(b"r" * 32, answer[:-16], "sha256")[:16]
    decryptor = Cipher(AES(b"I" * 16), CBC_MODE(raw[32:48])).decryptor()
    plaintext = decryptor.update(raw[48:-16])
    assert plaintext == encode_payloads([NOTIFY])[1] + bytes(3) + b"\3"


def test_ctr_agrees_with_rfc_5930() -> None:
    """SK_ei ends with the nonce; the counter block is nonce, IV, 1; there is no padding but its length."""
    proposal = parse_ike_proposal("aes128ctr-sha256-x25519")
    keys = IkeKeys(b"", b"i" * 32, b"r" * 32, b"I" * 16 + b"salt", bytes(20), b"", b"")
    raw = Protection(proposal, keys, True).seal(message(NOTIFY))
    decryptor = Cipher(AES(b"I" * 16), CTR(b"salt" + raw[32:40] + b"\0\0\0\1")).decryptor()
    assert decryptor.update(raw[40:-16]) == encode_payloads([NOTIFY])[1] + b"\0"


def test_ivs_run_out_rather_than_begin_again() -> None:
    initiator, _ = both_ends()
    initiator._last_iv = 2**64 - 2
    assert initiator.seal(message())[32:40] == b"\xff" * 8
    with pytest.raises(LocalError, match="used up"):
        initiator.seal(message())


def test_no_end_opens_its_own_messages() -> None:
    for end in both_ends():
        with pytest.raises(IntegrityError):
            end.open(end.seal(message(NOTIFY)))


@pytest.mark.parametrize("suite", ONE_OF_EACH)
def test_every_flipped_bit_is_noticed(suite: str) -> None:
    initiator, responder = both_ends(suite)
    raw = initiator.seal(message(NOTIFY))
    for position in range(len(raw) * 8):
        octets = bytearray(raw)
        octets[position // 8] ^= 1 << position % 8
        with pytest.raises(IntegrityError):
            responder.open(bytes(octets))


@pytest.mark.parametrize("suite", ONE_OF_EACH)
def test_every_truncation_is_noticed_even_with_lengths_put_right(suite: str) -> None:
    initiator, responder = both_ends(suite)
    raw = initiator.seal(message(NOTIFY))
    for length in range(len(raw)):
        short = raw[:length]
        with pytest.raises(IntegrityError):
            responder.open(short)
        if length >= 32:
            lengths_right = (
                short[:24]
                + length.to_bytes(4, "big")
                + short[28:30]
                + (length - 28).to_bytes(2, "big")
                + short[32:]
            )
            with pytest.raises(IntegrityError):
                responder.open(lengths_right)


def test_failures_cannot_be_told_apart() -> None:
    initiator, responder = both_ends()
    raw = initiator.seal(message(NOTIFY))
    bad_pad_length = initiator.seal(message(), SealedBody(0, b""))[:-1] + b"\0"
    texts = set()
    for octets in (b"", raw[:20], raw[:35], raw[:-1] + b"\0", bad_pad_length, message(NOTIFY).encode()):
        with pytest.raises(IntegrityError) as raised:
            responder.open(octets)
        texts.add(str(raised.value))
    assert len(texts) == 1


def sealed_by_hand(plaintext: bytes) -> tuple[Protection, bytes]:
    """A message with this plaintext, authentic but not made by `seal`, and the end that should open it."""
    proposal = parse_ike_proposal("aes128gcm16-prfsha256-x25519")
    key = bytes(20)
    sk_octets = 4 + 8 + len(plaintext) + 16
    aad = (
        message().header(PayloadType.SK, 28 + sk_octets).encode()
        + bytes((41, 0))
        + sk_octets.to_bytes(2, "big")
    )
    sealed = sk_cipher(Encr.AES_GCM_16, 128, key).seal(aad, plaintext, bytes(8))
    return Protection(proposal, IkeKeys(b"", b"", b"", key, key, b"", b""), False), aad + bytes(8) + sealed


@pytest.mark.parametrize("padding", [0, 1, 3, 16, 255])
def test_any_amount_of_padding_is_taken_off(padding: int) -> None:
    end, raw = sealed_by_hand(b"inner" + bytes(padding) + bytes([padding]))
    assert end.open(raw) == (41, b"inner")


@pytest.mark.parametrize("plaintext", [b"", b"\x01", b"inner\x06", b"\xff" * 200])
def test_padding_that_does_not_fit_is_refused(plaintext: bytes) -> None:
    end, raw = sealed_by_hand(plaintext)
    with pytest.raises(IntegrityError):
        end.open(raw)


def test_message_without_sk_is_refused() -> None:
    _, responder = both_ends()
    for raw in (message().encode(), message(NOTIFY).encode()):
        with pytest.raises(IntegrityError):
            responder.open(raw)


def test_fragment_is_refused_even_if_authentic() -> None:
    """Nobody negotiated RFC 7383; the inside of a fragment is no chain of payloads."""
    proposal = parse_ike_proposal("aes128gcm16-prfsha256-x25519")
    key, skf_octets = bytes(20), 4 + 4 + 8 + 1 + 16
    head = message().header(PayloadType.SKF, 28 + skf_octets).encode()
    aad = head + bytes((41, 0, 0, skf_octets)) + b"\0\1\0\1"
    raw = aad + bytes(8) + sk_cipher(Encr.AES_GCM_16, 128, key).seal(aad, b"\0", bytes(8))
    sealed = Message.parse(raw).encrypted
    assert sealed is not None
    assert sealed.is_fragment
    with pytest.raises(IntegrityError):
        Protection(proposal, IkeKeys(b"", b"", b"", key, key, b"", b""), False).open(raw)


def test_payloads_in_clear_before_sk_are_authenticated() -> None:
    """RFC 5282 5.1: the associated data begins at the IKE header and ends with the generic header of SK."""
    proposal = parse_ike_proposal("aes128gcm16-prfsha256-x25519")
    key, clear = bytes(20), bytes((PayloadType.SK, 0, 0, 8)) + b"\0\0\x40\x01"
    sk_octets = 4 + 8 + 1 + 16
    head = message().header(PayloadType.NOTIFY, 28 + len(clear) + sk_octets).encode()
    aad = head + clear + bytes((0, 0, 0, sk_octets))
    raw = aad + bytes(8) + sk_cipher(Encr.AES_GCM_16, 128, key).seal(aad, b"\0", bytes(8))
    end = Protection(proposal, IkeKeys(b"", b"", b"", key, key, b"", b""), False)
    assert end.open(raw) == (0, b"")
    with pytest.raises(IntegrityError):
        end.open(raw[:35] + b"\x02" + raw[36:])


@given(octets=st.binary(max_size=200), first_type=st.integers(0, 255))
def test_sealed_body_goes_in_as_it_is(octets: bytes, first_type: int) -> None:
    initiator, responder = both_ends()
    raw = initiator.seal(message(NOTIFY), SealedBody(first_type, octets))
    assert responder.open(raw) == (first_type, octets)


@given(octets=st.binary(max_size=120), suite=st.sampled_from(ONE_OF_EACH))
def test_no_octets_from_the_network_raise_anything_else(octets: bytes, suite: str) -> None:
    _, responder = both_ends(suite)
    with pytest.raises(IntegrityError):
        responder.open(octets)


def test_message_that_fits_no_datagram_is_refused_before_it_costs_an_iv() -> None:
    initiator, responder = both_ends()
    most = 65535 - 28 - 4 - 8 - 1 - 8
    assert len(initiator.seal(message(), SealedBody(41, bytes(most)))) == 65535
    with pytest.raises(LocalError, match="octets"):
        initiator.seal(message(), SealedBody(41, bytes(most + 1)))
    assert initiator.seal(message())[39] == 2
    assert responder.open(initiator.seal(message())) == (0, b"")


def test_protection_wants_a_cipher_that_it_has_and_keys_that_fit() -> None:
    keys = IkeKeys(b"", b"", b"", bytes(20), bytes(20), b"", b"")
    with pytest.raises(LocalError):
        Protection(parse_esp_proposal("aes128-sha256"), keys, True)
    with pytest.raises(LocalError):
        Protection(parse_ike_proposal("aes256gcm16-prfsha256-x25519"), keys, True)
    with pytest.raises(LocalError):
        Protection(parse_ike_proposal("aes128-sha256-x25519"), keys, True)
    for encr, integ, key, integ_key in (
        (Encr.AES_CBC, Integ.NONE, bytes(16), b""),
        (Encr.AES_CBC, Integ.HMAC_SHA2_256_128, bytes(16), bytes(20)),
        (Encr.AES_GCM_16, Integ.HMAC_SHA2_256_128, bytes(20), bytes(32)),
        (Encr.AES_GCM_16, Integ.NONE, bytes(20), bytes(32)),
        (Encr.AES_GCM_16_IIV, Integ.NONE, bytes(20), b""),
        (Encr.NULL, Integ.HMAC_SHA2_256_128, b"", bytes(32)),
    ):
        with pytest.raises(LocalError):
            sk_cipher(encr, None if encr == Encr.NULL else 128, key, integ, integ_key)
