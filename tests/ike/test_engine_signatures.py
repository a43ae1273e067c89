"""Authentication by signature: every kind of key, wrong proofs, downgrades (RFC 7427, RFC 8420, RFC 4754)."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from ike import (
    CloseReason,
    Datagram,
    FailureReason,
    Identity,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    LocalError,
    Message,
    PskAuth,
    SealedBody,
    SignatureAuth,
)
from ike.crypto.signatures import HASHES, SignatureError, choose_method, sign, verify
from ike.numbers import AuthMethod, CertEncoding, ExchangeType, HashAlg, NotifyType
from ike.testing.pair import Pair
from ike.wire.payloads import AuthPayload, CertPayload, CertreqPayload, NotifyPayload, Payload
from tests.ike.engine_kit import assert_in_sync, new_pair
from tests.ike.pki import KINDS, Certified, Means, crl, issue, key, leaf, root, signature_auth, trust

ROOT = root()
MIDDLE = issue("Middle", ROOT, number=1, is_ca=True)
LEFT, RIGHT = leaf("left.example", MIDDLE, number=60), leaf("right.example", MIDDLE, number=61)
STORE = trust(ROOT)
AUTHS = {
    "left": signature_auth(LEFT, MIDDLE, trusts=STORE),
    "right": signature_auth(RIGHT, MIDDLE, trusts=STORE),
}
SHA2 = (HashAlg.SHA2_256, HashAlg.SHA2_384, HashAlg.SHA2_512)
Rewrite = Callable[[Message], Iterable[Message | SealedBody]]


def pair_with(left: Any = None, right: Any = None, **options: Any) -> Pair:
    """`left` and `right` authenticate by these, or by ECDSA certificates."""
    pair, _ = new_pair(
        left=(left or AUTHS["left"]).fields(),
        right=(right or AUTHS["right"]).fields(),
        **options,
    )
    return pair


def connect(pair: Pair) -> Pair:
    pair.initiate()
    pair.run(200, until=lambda: bool(pair.left.all(IkeSaFailed)) or bool(pair.left.all(IkeSaEstablished)))
    pair.run(1)
    return pair


@pytest.mark.parametrize("side", ["left", "right"])
def test_end_whose_certificates_fit_into_no_message_fails_and_says_so(side: str) -> None:
    """What a datagram asks for never makes the engine raise, even if we are told to answer what cannot be said."""
    auth = AUTHS[side].auth
    assert isinstance(auth, SignatureAuth)
    huge = replace(AUTHS[side], auth=replace(auth, chain=(*auth.chain, bytes(70_000))))
    pair = connect(pair_with(**{side: huge}))
    end = pair.left if side == "left" else pair.right
    failed = end.last(IkeSaFailed)
    assert failed.reason is FailureReason.PROTOCOL_ERROR
    what = "request" if side == "left" else "answer"
    assert failed.detail.startswith(f"our {what} cannot be sent: CertPayload")
    pair.run(300)
    assert pair.left.all(IkeSaFailed) and not end.engine.sessions()
    assert not end.engine.sizes["ike_sas"]


def of_kind(kind: str, side: str, **options: bool) -> Means:
    return signature_auth(
        leaf(f"{side}.example", MIDDLE, kind=kind, number=7), MIDDLE, trusts=STORE, **options
    )


def changing(change: Callable[[Payload], Payload | None], exchange: int = ExchangeType.IKE_AUTH) -> Rewrite:
    """Rewrites what one side sends before it is protected: its own lie, not that of somebody on the path."""

    def rewrite(outgoing: Message) -> Iterable[Message | SealedBody]:
        if outgoing.exchange != exchange:
            return (outgoing,)
        changed = [change(payload) for payload in outgoing.payloads]
        return (replace(outgoing, payloads=tuple(one for one in changed if one is not None)),)

    return rewrite


def without_hashes(payload: Payload) -> Payload | None:
    is_it = isinstance(payload, NotifyPayload) and payload.notify_type == NotifyType.SIGNATURE_HASH_ALGORITHMS
    return None if is_it else payload


def seen_by(pair: Pair, kind: type[Payload]) -> list[Payload]:
    """What of a kind left before it was sealed; `pair` was made with `recording`."""
    return [
        payload for message in recorded(pair) for payload in message.payloads if isinstance(payload, kind)
    ]


_RECORDS: dict[int, list[Message]] = {}


def recorded(pair: Pair) -> list[Message]:
    return _RECORDS[id(pair)]


def recording(left: Any = None, right: Any = None, **options: Any) -> Pair:
    messages: list[Message] = []

    def record(outgoing: Message) -> Iterable[Message]:
        messages.append(outgoing)
        return (outgoing,)

    observers = {"left_options": {"rewrite_outgoing": record}, "right_options": {"rewrite_outgoing": record}}
    pair = pair_with(left, right, **(observers | options))
    _RECORDS[id(pair)] = messages
    return pair


def methods(pair: Pair) -> list[int]:
    return [payload.method for payload in seen_by(pair, AuthPayload) if isinstance(payload, AuthPayload)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key_authenticates_beside_any_other(kind: str) -> None:
    for left, right in ((kind, "p256"), ("ed25519", kind)):
        pair = connect(recording(of_kind(left, "left"), of_kind(right, "right")))
        assert_in_sync(pair)
        assert methods(pair) == [AuthMethod.DIGITAL_SIGNATURE] * 2


def test_rsa_pkcs1_where_the_peer_has_no_pss() -> None:
    pair = connect(recording(of_kind("rsa2048", "left", rsa_pss=False), of_kind("rsa2048", "right")))
    assert_in_sync(pair)
    first, second = (p.data for p in seen_by(pair, AuthPayload) if isinstance(p, AuthPayload))
    assert first.startswith(bytes.fromhex("0f300d06092a864886f70d01010b0500"))
    assert second.startswith(bytes.fromhex("433041"))


def test_the_trailer_field_of_pss_is_left_away_and_taken_either_way() -> None:
    """RFC 4055 3.1; the octets with it are those of RFC 7427 A.4.3."""
    secret = key("rsa2048", "left")
    method = choose_method(secret, frozenset({HashAlg.SHA2_256}))
    made = sign(method, secret, b"octets")
    published = bytes.fromhex(
        "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d010108"
        "300d06096086480165030402010500a203020120a303020101"
    )
    without = bytes((0x30, 0x41)) + published[2:13] + bytes((0x30, 0x34)) + published[15:-5]
    assert made[: 1 + len(without)] == bytes((len(without),)) + without
    signature = made[1 + len(without) :]
    for identifier in (without, published):
        data = bytes((len(identifier),)) + identifier + signature
        assert verify(secret.public_key(), 14, data, b"octets", is_announced=True)


def test_certificates_and_what_is_trusted_travel_both_ways() -> None:
    pair = connect(recording())
    sent = seen_by(pair, CertPayload)
    assert sent == [
        CertPayload(CertEncoding.X509_SIGNATURE, one.der) for one in (LEFT, MIDDLE, RIGHT, MIDDLE)
    ]
    wanted = CertreqPayload(CertEncoding.X509_SIGNATURE, STORE.authorities[0])
    assert seen_by(pair, CertreqPayload) == [wanted, wanted]
    init_response, auth_request = recorded(pair)[1:3]
    assert wanted in init_response.payloads
    assert wanted in auth_request.payloads
    announced = b"".join(hash_alg.to_bytes(2, "big") for hash_alg in HASHES)
    for message in recorded(pair)[:2]:
        notify = message.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
        assert notify is not None
        assert notify.data == announced == b"\0\2\0\3\0\4\0\5"


def test_psk_announces_no_hashes_and_no_authorities() -> None:
    pair = connect(recording(Means(PskAuth(b"k")), Means(PskAuth(b"k"))))
    assert_in_sync(pair)
    assert not seen_by(pair, CertreqPayload) + seen_by(pair, CertPayload)
    assert not any(message.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS) for message in recorded(pair))


# --- what does not prove anything


def assert_refused(pair: Pair, said: str) -> None:
    """By the side named in `said`'s identity: the responder refuses left, the initiator refuses right."""
    connect(pair)
    refuser, other = (pair.right, pair.left) if "left" in said else (pair.left, pair.right)
    failed = refuser.last(IkeSaFailed)
    assert failed.reason is FailureReason.AUTHENTICATION_FAILED
    assert said in failed.detail
    assert not pair.left.all(IkeSaEstablished)
    if refuser is pair.left:
        assert other.last(IkeSaClosed).reason is CloseReason.AUTHENTICATION_FAILED
    else:
        assert not other.all(IkeSaEstablished)


def flip(payload: Payload) -> Payload:
    if isinstance(payload, AuthPayload):
        return replace(payload, data=payload.data[:-1] + bytes([payload.data[-1] ^ 1]))
    return payload


def as_method_1(payload: Payload) -> Payload:
    return replace(payload, method=1) if isinstance(payload, AuthPayload) else payload


def as_psk(payload: Payload) -> Payload:
    return replace(payload, method=2) if isinstance(payload, AuthPayload) else payload


def other_algorithm(payload: Payload) -> Payload:
    if not isinstance(payload, AuthPayload):
        return payload
    sha1 = bytes.fromhex("300906072a8648ce3d0401")  # ecdsa-with-SHA1
    return replace(payload, data=bytes([len(sha1)]) + sha1 + payload.data[11:])


def no_certificate(payload: Payload) -> Payload | None:
    return None if isinstance(payload, CertPayload) else payload


def no_intermediate(payload: Payload) -> Payload | None:
    return None if isinstance(payload, CertPayload) and payload.data == MIDDLE.der else payload


def url_instead(payload: Payload) -> Payload:
    if isinstance(payload, CertPayload):
        return CertPayload(CertEncoding.HASH_AND_URL_X509, bytes(20) + b"http://192.0.2.9/x")
    return payload


def empty(payload: Payload) -> Payload:
    return replace(payload, data=b"") if isinstance(payload, AuthPayload) else payload


LIES = [
    (flip, "is not proved"),
    (as_method_1, "is not proved: method 1 although both ends know RFC 7427"),
    (as_psk, "authenticates by SHARED_KEY_MIC, not by certificate"),
    (other_algorithm, "is not proved: unknown signature algorithm"),
    (empty, "is not proved: unknown signature algorithm (none)"),
    (no_certificate, "is not proved: it sent no certificate"),
    (no_intermediate, "unable to get local issuer certificate"),
    (url_instead, "is not proved: it sent no certificate"),
]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("lie", "said"), LIES)
def test_proof_that_is_wrong_is_refused(side: str, lie: Callable[[Payload], Payload], said: str) -> None:
    pair = pair_with(**{f"{side}_options": {"rewrite_outgoing": changing(lie)}})
    if said.startswith("unable"):
        assert_refused(pair, f"{side}.example is not proved: the certificate is not accepted: {said}")
    else:
        assert_refused(pair, f"{side}.example {said}")


@pytest.mark.parametrize("side", ["left", "right"])
def test_certificate_of_another_identity_is_refused(side: str) -> None:
    stolen = signature_auth(leaf("other.example", MIDDLE), MIDDLE, trusts=STORE)
    assert_refused(
        pair_with(**{side: stolen}), f"{side}.example is not proved: the certificate does not name"
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_certificate_without_its_key_is_refused(side: str) -> None:
    """A key of one's own beside the certificate of another, which travels in clear to whoever connects."""

    def steal(payload: Payload) -> Payload:
        victim = LEFT if side == "left" else RIGHT
        is_leaf = isinstance(payload, CertPayload) and payload.data != MIDDLE.der
        return replace(payload, data=victim.der) if is_leaf else payload  # type: ignore[call-arg]

    thief = of_kind("p256", side)
    pair = pair_with(**{side: thief, f"{side}_options": {"rewrite_outgoing": changing(steal)}})
    assert_refused(pair, f"{side}.example is not proved: the signature is wrong")


@pytest.mark.parametrize("side", ["left", "right"])
def test_revoked_certificate_is_refused(side: str) -> None:
    revoked = {"left": LEFT, "right": RIGHT}[side]
    store = trust(ROOT, crls=[crl(ROOT), crl(MIDDLE, revoked)])
    judge = "right" if side == "left" else "left"
    pair = pair_with(**{judge: AUTHS[judge].trusting(store)})
    assert_refused(
        pair, f"{side}.example is not proved: the certificate is not accepted: certificate revoked"
    )


def test_psk_and_certificate_do_not_meet() -> None:
    said = "left.example authenticates by SHARED_KEY_MIC, not by certificate"
    assert_refused(pair_with(left=Means(PskAuth(b"x"))), said)
    said = "left.example authenticates by ECDSA_SHA256_P256, not by pre-shared key"
    assert_refused(pair_with(right=Means(PskAuth(b"x"))), said)


# --- downgrades


def on_path(pair: Pair, change: Callable[[Message], Message], *, is_response: bool) -> None:
    """Somebody between the two changes an IKE_SA_INIT message, which nothing protects."""

    def meddle(datagram: Datagram) -> tuple[Datagram, ...]:
        message = Message.parse(datagram.data)
        if message.exchange != ExchangeType.IKE_SA_INIT or message.is_response is not is_response:
            return (datagram,)
        return (replace(datagram, data=change(message).encode()),)

    pair.link.on_path = meddle


def strip_hashes(message: Message) -> Message:
    kept = tuple(payload for payload in message.payloads if without_hashes(payload))
    assert len(kept) < len(message.payloads) or message.is_response
    return replace(message, payloads=kept)


def weaken_hashes(message: Message) -> Message:
    def weaker(payload: Payload) -> Payload:
        is_it = without_hashes(payload) is None
        return replace(payload, data=b"\0\2") if is_it else payload  # type: ignore[call-arg]

    return replace(message, payloads=tuple(weaker(payload) for payload in message.payloads))


@pytest.mark.parametrize("is_response", [False, True])
@pytest.mark.parametrize("change", [strip_hashes, weaken_hashes])
def test_announcement_changed_on_the_way_is_noticed(
    change: Callable[[Message], Message], is_response: bool
) -> None:
    pair = pair_with()
    on_path(pair, change, is_response=is_response)
    connect(pair)
    assert not pair.left.all(IkeSaEstablished)
    assert not pair.right.engine.sessions()
    # Who is shown the other message than was sent refuses; the responder's is only seen in its own signature.
    if change is weaken_hashes and is_response:
        assert "right.example is not proved: the signature is wrong" in pair.left.last(IkeSaFailed).detail
        assert pair.right.last(IkeSaClosed).reason is CloseReason.AUTHENTICATION_FAILED
    else:
        assert "left.example is not proved" in pair.right.last(IkeSaFailed).detail


OLD = {"left_options": {"rewrite_outgoing": changing(without_hashes, ExchangeType.IKE_SA_INIT)}}


@pytest.mark.parametrize(("kind", "method"), [("p256", 9), ("p384", 10), ("p521", 11)])
def test_old_ecdsa_methods_where_the_peer_knows_no_other(kind: str, method: int) -> None:
    messages = recording(of_kind(kind, "left"), of_kind(kind, "right"))
    record = messages.left.engine._host.rewrite_outgoing
    assert record is not None

    def old(outgoing: Message) -> Iterable[Message | SealedBody]:
        (changed,) = OLD["left_options"]["rewrite_outgoing"](outgoing)
        return record(changed)  # type: ignore[arg-type]

    messages.left.engine._host.rewrite_outgoing = old
    assert_in_sync(connect(messages))
    assert methods(messages) == [method, method]


def test_rsa_with_sha1_is_refused_unless_it_is_allowed() -> None:
    pair = connect(pair_with(of_kind("rsa2048", "left"), of_kind("rsa2048", "right"), **OLD))
    failed = pair.left.last(IkeSaFailed)
    assert failed.reason is FailureReason.REFUSED
    assert "RSA with SHA-1 is not allowed" in failed.detail
    pair = pair_with(of_kind("rsa2048", "left", rsa_sha1=True), of_kind("rsa2048", "right"), **OLD)
    assert_refused(pair, "left.example is not proved: no accepted hash")
    both = (of_kind("rsa2048", "left", rsa_sha1=True), of_kind("rsa2048", "right", rsa_sha1=True))
    assert_in_sync(connect(pair_with(*both, **OLD)))


def test_eddsa_needs_a_peer_that_announces() -> None:
    pair = connect(pair_with(of_kind("ed25519", "left"), **OLD))
    assert "does not know RFC 7427, which our key needs" in pair.left.last(IkeSaFailed).detail


# --- the signatures themselves


@pytest.mark.parametrize("kind", KINDS)
def test_signature_holds_for_its_octets_and_its_key_alone(kind: str) -> None:
    own, other = key(kind), key(kind, 99)
    method = choose_method(own, HASHES)
    data = sign(method, own, b"octets")
    assert verify(own.public_key(), 14, data, b"octets", is_announced=True)
    for public, octets, received in (
        (own.public_key(), b"octetz", data),
        (other.public_key(), b"octets", data),
        (own.public_key(), b"octets", data[:-1]),
        (own.public_key(), b"octets", data + b"\0"),
    ):
        with pytest.raises(SignatureError, match="wrong"):
            verify(public, 14, received, octets, is_announced=True)


@pytest.mark.parametrize(
    ("kind", "peer", "chosen"),
    [
        ("p384", HASHES, HashAlg.SHA2_384),
        ("p521", HASHES, HashAlg.SHA2_512),
        ("p521", [HashAlg.SHA2_256], HashAlg.SHA2_256),
        ("rsa2048", [HashAlg.SHA2_512], HashAlg.SHA2_512),
        ("ed448", HASHES, HashAlg.IDENTITY),
    ],
)
def test_hash_is_one_that_the_peer_listed(kind: str, peer: list[int], chosen: HashAlg) -> None:
    assert choose_method(key(kind), peer).algorithm.hash is chosen


@pytest.mark.parametrize(
    ("kind", "peer"), [("ed25519", SHA2), ("p256", [HashAlg.IDENTITY]), ("rsa2048", [5])]
)
def test_nothing_is_signed_with_a_hash_that_the_peer_did_not_list(kind: str, peer: list[int]) -> None:
    with pytest.raises(SignatureError, match="no hash algorithm"):
        choose_method(key(kind), peer)


def test_algorithm_of_another_kind_of_key_is_refused() -> None:
    data = sign(choose_method(key("p256"), HASHES), key("p256"), b"octets")
    for kind in ("rsa2048", "ed25519", "ed448"):
        with pytest.raises(SignatureError, match="does not go with the key"):
            verify(key(kind).public_key(), 14, data, b"octets", is_announced=True)


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p521", "ed25519"])
@pytest.mark.parametrize("method", [0, 1, 2, 3, 9, 10, 11, 14, 255])
@pytest.mark.parametrize("data", [b"", b"\xff", bytes(64), bytes(132), b"\x0c300a06082a8648ce3d040302"])
def test_octets_that_are_no_signature_are_a_signature_error(kind: str, method: int, data: bytes) -> None:
    for is_announced in (False, True):
        with pytest.raises(SignatureError):
            verify(key(kind).public_key(), method, data, b"octets", is_announced=is_announced)


def test_key_that_is_not_of_the_certificate_is_a_local_error() -> None:
    with pytest.raises(LocalError, match="not that of our certificate"):
        SignatureAuth(RIGHT.key, (LEFT.der,))
    for chain in ((b"0",), (Certified(leaf("x", ROOT, kind="p224").certificate, LEFT.key).der,)):
        with pytest.raises(LocalError, match="our certificate"):
            SignatureAuth(LEFT.key, chain)
    assert "PrivateKey" not in repr(AUTHS["left"].auth)


def test_wildcard_peer_is_whoever_a_certificate_names() -> None:
    pair, _ = new_pair(left=AUTHS["left"].fields(), right=AUTHS["right"].fields() | {"peer_id": None})
    connect(pair)
    assert pair.right.last(IkeSaEstablished).peer_id == Identity.fqdn("left.example")
