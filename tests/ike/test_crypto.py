"""PRFs, key exchange, key derivation and AUTH against published vectors, and what they refuse."""

import hmac

import pytest

from ike.crypto.algorithms import encr_key_octets, integ_key_octets, selected
from ike.crypto.auth import psk_auth, signed_octets, verify_psk_auth
from ike.crypto.kex import GROUPS, KeyExchange, KeyExchangeError
from ike.crypto.keymat import derive_child_keys, derive_ike_keys, derive_rekeyed_ike_keys
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
ALL_GROUPS = [Ke.CURVE25519, Ke.ECP_256, Ke.ECP_384, Ke.ECP_521]


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


@pytest.mark.parametrize("prf_id", [0, PrfId.HMAC_SHA1, PrfId.AES128_XCBC, 4711])
def test_unknown_prf_is_refused(prf_id: int) -> None:
    with pytest.raises(LocalError, match="PRF"):
        Prf(prf_id)


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


@pytest.mark.parametrize("group", ALL_GROUPS[1:])
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


@pytest.mark.parametrize("group", ALL_GROUPS[1:])
@pytest.mark.parametrize("octet", [0x00, 0xFF])
def test_every_draw_of_entropy_yields_a_valid_private_key(group: int, octet: int) -> None:
    one, other = KeyExchange(group), KeyExchange(group)
    public = one.generate(FixedEntropy(bytes([octet]) * (GROUPS[group] // 2 + 8)))
    assert other.generate(SystemEntropy())
    assert len(other.derive(public)) == GROUPS[group] // 2


def test_key_exchange_is_used_in_order_and_with_a_known_group() -> None:
    with pytest.raises(LocalError, match="before generate"):
        KeyExchange(Ke.CURVE25519).derive(bytes(32))
    for group in (Ke.NONE, Ke.MODP_2048, 4711):
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
    ],
)
def test_child_keys_have_the_sizes_their_transforms_ask_for(text: str, sizes: tuple[int, ...]) -> None:
    prf, proposal = Prf(PrfId.HMAC_SHA2_256), parse_esp_proposal(text)
    keys = derive_child_keys(prf, b"d" * 32, b"i" * 16, b"r" * 16, None, proposal)
    got = (keys.initiator_encr, keys.initiator_integ, keys.responder_encr, keys.responder_integ)
    assert tuple(map(len, got)) == sizes
    assert b"".join(got) == prf.plus(b"d" * 32, b"i" * 16 + b"r" * 16, sum(sizes))


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
