"""PRFs, key exchange, key derivation and AUTH against published vectors, and what they refuse."""

import hmac
import warnings

import pytest

from ike.crypto.algorithms import encr_key_octets, integ_key_octets, selected
from ike.crypto.auth import psk_auth, signed_octets, verify_psk_auth
from ike.crypto.integ import INTEGRITY_ALGORITHMS, Integrity
from ike.crypto.kex import _CURVES, GROUPS, KeyExchange, KeyExchangeError
from ike.crypto.keymat import derive_child_keys, derive_ike_keys, derive_rekeyed_ike_keys
from ike.crypto.modp import MODP_GROUPS
from ike.crypto.prf import Prf
from ike.entropy import SystemEntropy
from ike.errors import LocalError
from ike.numbers import Encr, Integ, Ke, TransformType
from ike.numbers import Prf as PrfId
from ike.proposals import parse_esp_proposal, parse_ike_proposal
from tests.vectors.loader import Case, cases

PRF_FIELDS = {
    PrfId.HMAC_SHA2_256: "prf_hmac_sha_256",
    PrfId.HMAC_SHA2_384: "prf_hmac_sha_384",
    PrfId.HMAC_SHA2_512: "prf_hmac_sha_512",
}
MONTGOMERY = [Ke.CURVE25519, Ke.CURVE448]
CURVES = [
    Ke.ECP_256,
    Ke.ECP_384,
    Ke.ECP_521,
    Ke.BRAINPOOL_P256R1,
    Ke.BRAINPOOL_P384R1,
    Ke.BRAINPOOL_P512R1,
]
MODP = [Ke.MODP_2048, Ke.MODP_3072, Ke.MODP_4096]
ALL_GROUPS = MONTGOMERY + CURVES + MODP


class FixedEntropy:
    """Gives one value, for the draw of its size."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    def octets(self, count: int) -> bytes:
        assert count == len(self.value)
        return self.value


# Entropy


def test_system_entropy_gives_what_was_asked_for_and_never_the_same() -> None:
    entropy = SystemEntropy()
    assert [len(entropy.octets(n)) for n in (0, 1, 32)] == [0, 1, 32]
    assert entropy.octets(16) != entropy.octets(16)


# PRF


@pytest.mark.parametrize("case", cases("rfc4868"), ids=repr)
def test_prf_agrees_with_rfc_4868(case: Case) -> None:
    present = {prf_id: field for prf_id, field in PRF_FIELDS.items() if field in case}
    assert present
    for prf_id, field in present.items():
        assert Prf(prf_id).compute(case.octets("key"), case.octets("data")) == case.octets(field)


@pytest.mark.parametrize(
    ("prf_id", "file"), [(PrfId.AES128_XCBC, "rfc4434"), (PrfId.AES128_CMAC, "rfc4615")], ids=["xcbc", "cmac"]
)
def test_prf_of_aes_takes_keys_of_any_length(prf_id: int, file: str) -> None:
    for case in cases(file):
        assert Prf(prf_id).compute(case.octets("key"), case.octets("data")) == case.octets("output")


def test_prf_hmac_sha1_agrees_with_rfc_2202() -> None:
    output = bytes.fromhex("b617318655057264e28bc0b6fb378c8ef146be00")
    assert Prf(PrfId.HMAC_SHA1).compute(b"\x0b" * 20, b"Hi There") == output


@pytest.mark.parametrize("prf_id", [PrfId.AES128_XCBC, PrfId.AES128_CMAC])
def test_skeyseed_of_aes_takes_the_first_64_bits_of_each_nonce_alone(prf_id: int) -> None:
    prf = Prf(prf_id)
    nonce_i, nonce_r = bytes(range(32)), bytes(range(100, 132))
    assert prf.skeyseed(nonce_i, nonce_r, b"g") == prf.compute(nonce_i[:8] + nonce_r[:8], b"g")
    proposal = parse_ike_proposal(f"aes128gcm16-{'prfaesxcbc' if prf_id == 4 else 'prfaescmac'}-x25519")
    keys = derive_ike_keys(proposal, nonce_i, nonce_r, b"g", b"I" * 8, b"R" * 8)
    skeyseed = prf.skeyseed(nonce_i, nonce_r, b"g")
    assert keys.sk_d == prf.plus(skeyseed, nonce_i + nonce_r + b"I" * 8 + b"R" * 8, 16)
    assert len(keys.sk_pi) == len(keys.sk_pr) == 16


def test_skeyseed_of_hmac_takes_the_whole_nonces() -> None:
    prf = Prf(PrfId.HMAC_SHA2_256)
    assert prf.skeyseed(b"i" * 32, b"r" * 16, b"g") == prf.compute(b"i" * 32 + b"r" * 16, b"g")


def test_prf_plus_is_the_chain_of_rfc_7296_2_13() -> None:
    prf = Prf(PrfId.HMAC_SHA2_384)
    t1 = prf.compute(b"key", b"seed\x01")
    t2 = prf.compute(b"key", t1 + b"seed\x02")
    t3 = prf.compute(b"key", t2 + b"seed\x03")
    assert prf.plus(b"key", b"seed", 100) == (t1 + t2 + t3)[:100]
    assert prf.plus(b"key", b"seed", 0) == b""


def test_prf_plus_ends_after_255_computations() -> None:
    prf = Prf(PrfId.HMAC_SHA2_256)
    assert len(prf.plus(b"k", b"s", 255 * 32)) == 255 * 32
    with pytest.raises(LocalError):
        prf.plus(b"k", b"s", 255 * 32 + 1)
    with pytest.raises(LocalError):
        prf.plus(b"k", b"s", -1)


@pytest.mark.parametrize("prf_id", [0, PrfId.HMAC_MD5, PrfId.HMAC_TIGER, 4711])
def test_unknown_prf_is_refused(prf_id: int) -> None:
    with pytest.raises(LocalError, match="PRF"):
        Prf(prf_id)


# Integrity


@pytest.mark.parametrize("case", cases("rfc4868"), ids=repr)
def test_integrity_of_hmac_sha2_agrees_with_rfc_4868(case: Case) -> None:
    for integ, field in ((12, "hmac_sha_256_128"), (13, "hmac_sha_384_192"), (14, "hmac_sha_512_256")):
        if field in case:
            assert Integrity(integ, case.octets("key")).icv(case.octets("data")) == case.octets(field)


@pytest.mark.parametrize("case", cases("rfc3566"), ids=repr)
def test_integrity_of_aes_xcbc_agrees_with_rfc_3566(case: Case) -> None:
    assert Integrity(Integ.AES_XCBC_96, case.octets("key")).icv(case.octets("data")) == case.octets("icv")


def test_integrity_is_the_beginning_of_the_mac_with_the_same_key() -> None:
    for integ, prf_id in ((2, 2), (5, 4), (8, 8), (12, 5), (13, 6), (14, 7)):
        key = bytes(range(integ_key_octets(integ)))
        mac = Integrity(integ, key)
        assert mac.icv(b"data") == Prf(prf_id).compute(key, b"data")[: mac.icv_octets]
        assert mac.verifies(b"data", mac.icv(b"data"))
        for wrong in (b"", mac.icv(b"data")[:-1], mac.icv(b"data") + b"\0", mac.icv(b"date")):
            assert not mac.verifies(b"data", wrong)


def test_integrity_wants_a_known_algorithm_and_a_key_that_fits() -> None:
    assert set(INTEGRITY_ALGORITHMS) == {2, 5, 8, 12, 13, 14}
    for integ, key in ((0, b""), (1, bytes(16)), (4711, bytes(16)), (12, bytes(31)), (5, bytes(17))):
        with pytest.raises(LocalError):
            Integrity(integ, key)


# Key exchange


@pytest.mark.parametrize("case", cases("rfc5903"), ids=repr)
def test_ecp_groups_agree_with_rfc_5903(case: Case) -> None:
    group, field_octets = case.number("group"), len(case.octets("gix"))
    halves = {}
    for side in "ir":
        kex = KeyExchange(group)
        private = int.from_bytes(case.octets(side), "big")
        public = kex.generate(FixedEntropy((private - 1).to_bytes(field_octets + 8, "big")))
        # The KE payload: generic header 4 octets, group 2, reserved 2.
        assert public == case.octets(f"ke{side}_payload")[8:]
        halves[side] = (kex, public)
    assert halves["i"][0].derive(halves["r"][1]) == case.octets("girx")
    assert halves["r"][0].derive(halves["i"][1]) == case.octets("girx")


def test_x25519_agrees_with_rfc_8031() -> None:
    (case,) = cases("rfc8031")
    initiator, responder = KeyExchange(Ke.CURVE25519), KeyExchange(Ke.CURVE25519)
    assert initiator.generate(FixedEntropy(case.octets("random_i"))) == case.octets("pub_i")
    assert responder.generate(FixedEntropy(case.octets("random_r"))) == case.octets("pub_r")
    assert initiator.derive(case.octets("pub_r")) == case.octets("shared_secret")
    assert responder.derive(case.octets("pub_i")) == case.octets("shared_secret")


def test_x448_agrees_with_rfc_7748() -> None:
    (case,) = cases("rfc7748")
    initiator, responder = KeyExchange(Ke.CURVE448), KeyExchange(Ke.CURVE448)
    assert initiator.generate(FixedEntropy(case.octets("private_i"))) == case.octets("pub_i")
    assert responder.generate(FixedEntropy(case.octets("private_r"))) == case.octets("pub_r")
    assert initiator.derive(case.octets("pub_r")) == case.octets("shared_secret")
    assert responder.derive(case.octets("pub_i")) == case.octets("shared_secret")


@pytest.mark.parametrize("case", cases("rfc6954"), ids=repr)
def test_brainpool_groups_agree_with_rfc_6954(case: Case) -> None:
    group = case.number("group")
    one, other = KeyExchange(group), KeyExchange(group)
    for kex, side in ((one, "a"), (other, "b")):
        private = int.from_bytes(case.octets(f"d_{side}"), "big")
        draw = (private - 1).to_bytes(len(case.octets("x_z")) + 8, "big")
        assert kex.generate(FixedEntropy(draw)) == case.octets(f"public_{side}")
    assert one.derive(case.octets("public_b")) == case.octets("x_z")
    assert other.derive(case.octets("public_a")) == case.octets("x_z")


def pi_times_2_to(bits: int) -> int:
    """The whole part of pi * 2**bits, by Machin's formula."""
    one = 1 << bits + 64

    def arctan_of_inverse(n: int) -> int:
        term, total, k = one // n, 0, 1
        while term:
            total += term // k if k % 4 == 1 else -(term // k)
            term, k = term // (n * n), k + 2
        return total

    return 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239)) >> 64


@pytest.mark.parametrize(
    ("group", "bits", "addend"),
    [(Ke.MODP_2048, 2048, 124476), (Ke.MODP_3072, 3072, 1690314), (Ke.MODP_4096, 4096, 240904)],
)
def test_modp_primes_are_those_of_rfc_3526(group: int, bits: int, addend: int) -> None:
    prime = 2**bits - 2 ** (bits - 64) - 1 + 2**64 * (pi_times_2_to(bits - 130) + addend)
    assert MODP_GROUPS[group].prime == prime
    assert MODP_GROUPS[group].octets == GROUPS[group] == bits // 8
    # Fermat's test, for the prime and for (prime - 1) / 2.
    assert pow(3, prime - 1, prime) == pow(3, prime // 2 - 1, prime // 2) == 1


@pytest.mark.parametrize("group", MODP)
def test_modp_agrees_with_openssl(group: int) -> None:
    dh = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.dh")
    prime = MODP_GROUPS[group].prime
    ours = KeyExchange(group)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        numbers = dh.DHParameterNumbers(prime, 2)
        theirs = numbers.parameters().generate_private_key()
        public = theirs.public_key().public_numbers().y.to_bytes(GROUPS[group], "big")
        value = int.from_bytes(ours.generate(SystemEntropy()), "big")
        shared = theirs.exchange(dh.DHPublicNumbers(value, numbers).public_key())
    assert ours.derive(public) == shared.rjust(GROUPS[group], b"\0")


@pytest.mark.parametrize("group", MODP)
def test_modp_value_out_of_range_is_refused(group: int) -> None:
    kex = KeyExchange(group)
    kex.generate(SystemEntropy())
    prime, octets = MODP_GROUPS[group].prime, GROUPS[group]
    for wrong in (0, 1, prime - 1, prime, prime + 1, 2 ** (8 * octets) - 1):
        with pytest.raises(KeyExchangeError):
            kex.derive(wrong.to_bytes(octets, "big"))
    for right in (2, prime - 2):
        assert len(kex.derive(right.to_bytes(octets, "big"))) == octets


@pytest.mark.parametrize("group", MODP)
def test_modp_values_keep_their_leading_zeros(group: int) -> None:
    """Small results come from inverses: 2**-x times 2**x is one, times two is two."""
    kex = KeyExchange(group)
    prime, octets = MODP_GROUPS[group].prime, GROUPS[group]
    exponent_octets = MODP_GROUPS[group].exponent_octets
    kex.generate(FixedEntropy(bytes(exponent_octets)))
    exponent = 1 << 8 * exponent_octets - 1
    # The peer's value whose power is 4, a square as all powers of 2 are.
    peer = pow(4, pow(exponent, -1, prime // 2), prime)
    assert kex.derive(peer.to_bytes(octets, "big")) == bytes(octets - 1) + b"\4"


def test_x25519_ignores_the_top_bit_of_a_public_value() -> None:
    (case,) = cases("rfc8031")
    initiator = KeyExchange(Ke.CURVE25519)
    initiator.generate(FixedEntropy(case.octets("random_i")))
    public = case.octets("pub_r")
    assert initiator.derive(public[:-1] + bytes([public[-1] | 0x80])) == case.octets("shared_secret")


# Points of small order on Curve25519 and its twist (RFC 7748 6.1): 0, 1, two of order 8, p - 1, p, p + 1.
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("value", [0, 1, 2**448 - 2**224 - 2, 2**448 - 2**224 - 1, 2**448 - 2**224])
def test_x448_refuses_a_public_value_that_leads_to_zero(value: int) -> None:
    kex = KeyExchange(Ke.CURVE448)
    kex.generate(SystemEntropy())
    with pytest.raises(KeyExchangeError):
        kex.derive(value.to_bytes(56, "little"))


@pytest.mark.parametrize("public", SMALL_ORDER)
def test_x25519_refuses_a_public_value_that_leads_to_zero(public: str) -> None:
    kex = KeyExchange(Ke.CURVE25519)
    kex.generate(SystemEntropy())
    with pytest.raises(KeyExchangeError):
        kex.derive(bytes.fromhex(public))


@pytest.mark.parametrize("group", ALL_GROUPS)
def test_public_value_of_wrong_length_is_refused(group: int) -> None:
    kex = KeyExchange(group)
    public = kex.generate(SystemEntropy())
    assert len(public) == GROUPS[group]
    for wrong in (b"", public[:-1], public + b"\0", b"\x04" + public):
        with pytest.raises(KeyExchangeError):
            kex.derive(wrong)


@pytest.mark.parametrize("group", CURVES)
def test_point_off_the_curve_is_refused(group: int) -> None:
    kex = KeyExchange(group)
    public = kex.generate(SystemEntropy())
    half = len(public) // 2
    off_curve = public[:-1] + bytes([public[-1] ^ 1])
    out_of_range = b"\xff" * half + public[half:]
    for wrong in (bytes(len(public)), off_curve, out_of_range):
        with pytest.raises(KeyExchangeError):
            kex.derive(wrong)


@pytest.mark.parametrize("group", ALL_GROUPS)
def test_both_sides_derive_one_secret_and_every_key_pair_is_fresh(group: int) -> None:
    one, other = KeyExchange(group), KeyExchange(group)
    first = one.generate(SystemEntropy())
    public, peer = one.generate(SystemEntropy()), other.generate(SystemEntropy())
    assert first != public
    assert one.derive(peer) == other.derive(public)


@pytest.mark.parametrize("group", CURVES)
def test_private_keys_go_from_one_to_the_order_less_one(group: int) -> None:
    curve = _CURVES[group]

    def public(draw: int) -> bytes:
        return KeyExchange(group).generate(FixedEntropy(draw.to_bytes(curve.octets + 8, "big")))

    base, minus_base = public(0), public(curve.order - 2)
    assert base != minus_base
    assert base[: curve.octets] == minus_base[: curve.octets]
    assert public(curve.order - 1) == base


@pytest.mark.parametrize("group", CURVES)
@pytest.mark.parametrize("octet", [0x00, 0xFF])
def test_every_draw_of_entropy_yields_a_valid_private_key(group: int, octet: int) -> None:
    one, other = KeyExchange(group), KeyExchange(group)
    public = one.generate(FixedEntropy(bytes([octet]) * (GROUPS[group] // 2 + 8)))
    assert other.generate(SystemEntropy())
    assert len(other.derive(public)) == GROUPS[group] // 2


def test_key_exchange_is_used_in_order_and_with_a_known_group() -> None:
    with pytest.raises(LocalError, match="before generate"):
        KeyExchange(Ke.CURVE25519).derive(bytes(32))
    for group in (Ke.NONE, Ke.MODP_1024, Ke.ML_KEM_768, 4711):
        with pytest.raises(LocalError):
            KeyExchange(group)


def test_key_exchange_shows_no_secret() -> None:
    kex = KeyExchange(Ke.CURVE25519)
    kex.generate(FixedEntropy(b"\x5a" * 32))
    assert repr(kex) == "KeyExchange(CURVE25519)"


# Key derivation

IKE_SUITE = parse_ike_proposal("aes256gcm16-prfsha256-x25519")


def test_key_derivation_agrees_with_nist() -> None:
    (case,) = cases("nist_ikev2_kdf")
    nonce_i, nonce_r = case.octets("ni"), case.octets("nr")
    shared, shared_new = case.octets("g_ir"), case.octets("g_ir_new")
    spi_i, spi_r, dkm = case.octets("spi_i"), case.octets("spi_r"), case.octets("dkm")

    prf = Prf(PrfId.HMAC_SHA2_256)
    assert prf.compute(nonce_i + nonce_r, shared) == case.octets("skeyseed")
    assert prf.plus(case.octets("skeyseed"), nonce_i + nonce_r + spi_i + spi_r, len(dkm)) == dkm

    keys = derive_ike_keys(IKE_SUITE, nonce_i, nonce_r, shared, spi_i, spi_r)
    assert (keys.sk_ai, keys.sk_ar) == (b"", b"")
    assert [len(k) for k in (keys.sk_d, keys.sk_ei, keys.sk_er, keys.sk_pi, keys.sk_pr)] == [
        32,
        36,
        36,
        32,
        32,
    ]
    assert dkm.startswith(keys.sk_d + keys.sk_ei + keys.sk_er + keys.sk_pi + keys.sk_pr)

    for esp, field, secret in (
        ("aes256gcm16", "dkm_child_sa", None),
        ("aes128-sha512", "dkm_child_sa", None),
        ("aes256gcm16-x25519", "dkm_child_sa_dh", shared_new),
    ):
        child = derive_child_keys(prf, keys.sk_d, nonce_i, nonce_r, secret, parse_esp_proposal(esp))
        taken = child.initiator_encr + child.initiator_integ + child.responder_encr + child.responder_integ
        assert case.octets(field).startswith(taken)

    # The rekeyed IKE SA: NIST gives its SKEYSEED, made with SK_d; the rest is prf+ as above.
    assert prf.compute(keys.sk_d, shared_new + nonce_i + nonce_r) == case.octets("skeyseed_rekey")
    rekeyed = derive_rekeyed_ike_keys(prf, keys.sk_d, IKE_SUITE, nonce_i, nonce_r, shared_new, spi_i, spi_r)
    expanded = prf.plus(case.octets("skeyseed_rekey"), nonce_i + nonce_r + spi_i + spi_r, 168)
    assert expanded == rekeyed.sk_d + rekeyed.sk_ei + rekeyed.sk_er + rekeyed.sk_pi + rekeyed.sk_pr


def test_rekeyed_ike_sa_takes_skeyseed_from_the_old_prf_and_keys_from_the_new() -> None:
    old, new = Prf(PrfId.HMAC_SHA2_512), Prf(PrfId.HMAC_SHA2_256)
    keys = derive_rekeyed_ike_keys(
        old, b"d" * 64, IKE_SUITE, b"i" * 32, b"r" * 32, b"g" * 32, b"I" * 8, b"R" * 8
    )
    skeyseed = old.compute(b"d" * 64, b"g" * 32 + b"i" * 32 + b"r" * 32)
    assert len(skeyseed) == 64
    assert keys.sk_d == new.plus(skeyseed, b"i" * 32 + b"r" * 32 + b"I" * 8 + b"R" * 8, 32)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("aes128gcm16", (20, 0, 20, 0)),
        ("aes192gcm12", (28, 0, 28, 0)),
        ("aes256gcm8", (36, 0, 36, 0)),
        ("chacha20poly1305", (36, 0, 36, 0)),
        ("aes128-sha256", (16, 32, 16, 32)),
        ("aes256-sha384", (32, 48, 32, 48)),
        ("aes192-sha512", (24, 64, 24, 64)),
        ("aes256-sha1", (32, 20, 32, 20)),
        ("aes128-aesxcbc", (16, 16, 16, 16)),
        ("aes128-aescmac", (16, 16, 16, 16)),
        ("aes256ctr-sha256", (36, 32, 36, 32)),
        ("aes128ccm16", (19, 0, 19, 0)),
        ("aes256ccm8", (35, 0, 35, 0)),
        ("aes256gmac", (36, 0, 36, 0)),
        ("aes128gcm16iiv", (20, 0, 20, 0)),
        ("aes128ccm8iiv", (19, 0, 19, 0)),
        ("chacha20poly1305iiv", (36, 0, 36, 0)),
        ("null-sha256", (0, 32, 0, 32)),
    ],
)
def test_child_keys_have_the_sizes_their_transforms_ask_for(text: str, sizes: tuple[int, ...]) -> None:
    prf, proposal = Prf(PrfId.HMAC_SHA2_256), parse_esp_proposal(text)
    keys = derive_child_keys(prf, b"d" * 32, b"i" * 16, b"r" * 16, None, proposal)
    got = (keys.initiator_encr, keys.initiator_integ, keys.responder_encr, keys.responder_integ)
    assert tuple(map(len, got)) == sizes
    assert b"".join(got) == prf.plus(b"d" * 32, b"i" * 16 + b"r" * 16, sum(sizes))


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("aes256-sha384-modp2048", (48, 48, 48, 32, 32, 48, 48)),
        ("aes128-aesxcbc-x25519", (16, 16, 16, 16, 16, 16, 16)),
        ("aes128ctr-sha1-x25519", (20, 20, 20, 20, 20, 20, 20)),
        ("aes192ccm12-prfaescmac-x448", (16, 0, 0, 27, 27, 16, 16)),
    ],
)
def test_ike_keys_have_the_sizes_their_transforms_ask_for(text: str, sizes: tuple[int, ...]) -> None:
    keys = derive_ike_keys(parse_ike_proposal(text), b"i" * 16, b"r" * 16, b"g" * 32, b"I" * 8, b"R" * 8)
    assert tuple(len(getattr(keys, name)) for name in keys.__slots__) == sizes


def test_keys_are_not_shown() -> None:
    keys = derive_ike_keys(IKE_SUITE, b"i" * 16, b"r" * 16, b"g" * 32, b"I" * 8, b"R" * 8)
    child = derive_child_keys(
        Prf(PrfId.HMAC_SHA2_256), keys.sk_d, b"i" * 16, b"r" * 16, None, parse_esp_proposal("aes128gcm16")
    )
    assert repr(keys) == "IkeKeys()"
    assert repr(child) == "ChildKeys()"


def test_key_derivation_needs_a_selected_suite_with_known_sizes() -> None:
    undecided = parse_ike_proposal("aes256gcm16-aes128gcm16-prfsha256-x25519")
    esp = parse_esp_proposal("aes128gcm16")
    for proposal in (undecided, esp):
        with pytest.raises(LocalError):
            derive_ike_keys(proposal, b"i" * 16, b"r" * 16, b"g" * 32, b"I" * 8, b"R" * 8)
    for encr, key_bits in (
        (Encr.AES_GCM_16, None),
        (Encr.AES_GCM_16, 100),
        (Encr.CHACHA20_POLY1305, 256),
        (Encr.TRIPLE_DES, None),
        (4711, 128),
    ):
        with pytest.raises(LocalError):
            encr_key_octets(encr, key_bits)
    with pytest.raises(LocalError):
        integ_key_octets(Integ.HMAC_MD5_96)
    assert selected(esp, TransformType.KE) is None


# AUTH


def test_auth_octets_are_those_of_rfc_7296_2_15() -> None:
    prf = Prf(PrfId.HMAC_SHA2_256)
    id_body = b"\x02\0\0\0pe1.example"
    octets = signed_octets(prf, b"message one", b"nonce of the peer", b"p" * 32, id_body)
    assert octets == b"message one" + b"nonce of the peer" + hmac.digest(b"p" * 32, id_body, "sha256")
    pad_key = hmac.digest(b"secret", b"Key Pad for IKEv2", "sha256")
    assert psk_auth(prf, b"secret", octets) == hmac.digest(pad_key, octets, "sha256")


def test_auth_verifies_only_with_the_same_secret_and_octets() -> None:
    prf = Prf(PrfId.HMAC_SHA2_512)
    auth = psk_auth(prf, b"secret", b"octets")
    assert verify_psk_auth(prf, b"secret", b"octets", auth)
    assert not verify_psk_auth(prf, b"Secret", b"octets", auth)
    assert not verify_psk_auth(prf, b"secret", b"octet", auth)
    for wrong in (b"", auth[:-1], auth + b"\0", bytes(64)):
        assert not verify_psk_auth(prf, b"secret", b"octets", wrong)
