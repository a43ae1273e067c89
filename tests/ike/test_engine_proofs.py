"""Raw public keys, no proof at all, and ends that prove themselves by different means (RFC 7670, RFC 7619)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_network

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ike import (
    AddressSelector,
    ChildConfig,
    CloseReason,
    Connection,
    FailureReason,
    Identity,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    LocalError,
    Mode,
    NullAuth,
    PeerSignature,
    PskAuth,
    SignatureAuth,
)
from ike.config import LocalAuth, PeerAuth
from ike.crypto.auth import psk_auth
from ike.crypto.prf import Prf
from ike.directory import ConnectionDirectory
from ike.identities import parse_peer_name
from ike.numbers import AuthMethod, CertEncoding, NotifyType
from ike.testing.pair import PSK, Pair
from ike.wire.payloads import (
    AuthPayload,
    CertPayload,
    CertreqPayload,
    IdiPayload,
    IdPayload,
    NotifyPayload,
    Payload,
)
from tests.ike.engine_kit import CHILD, assert_in_sync
from tests.ike.pki import KINDS, Means, key
from tests.ike.test_engine_signatures import (
    AUTHS,
    LEFT,
    changing,
    connect,
    methods,
    pair_with,
    recorded,
    recording,
    seen_by,
)

NOBODY = Identity.null()


def raw(kind: str, own: int, *known: int) -> Means:
    """The `own`-th key of a kind, and what the peer's may be."""
    proof = PeerSignature(raw_keys=tuple(key(kind, number).public_key() for number in known))
    return Means(SignatureAuth(key(kind, own)), (proof,))


def refused(pair: Pair) -> str:
    """Why, in the words of whoever said no."""
    connect(pair)
    assert not pair.right.all(IkeSaEstablished) or pair.right.last(IkeSaClosed)
    told = [one.detail for one in (*pair.left.all(IkeSaFailed), *pair.right.all(IkeSaFailed))]
    assert pair.left.last(IkeSaFailed).reason is FailureReason.AUTHENTICATION_FAILED
    return " | ".join(told)


# --- raw public keys


@pytest.mark.parametrize("kind", KINDS)
def test_raw_public_keys_of_every_kind_prove_both_ends(kind: str) -> None:
    pair = connect(recording(raw(kind, 0, 1), raw(kind, 1, 0)))
    assert_in_sync(pair)
    assert methods(pair) == [AuthMethod.DIGITAL_SIGNATURE] * 2
    asked = CertreqPayload(CertEncoding.RAW_PUBLIC_KEY, b"")
    assert seen_by(pair, CertreqPayload) == [asked, asked]
    sent = [one for one in seen_by(pair, CertPayload) if isinstance(one, CertPayload)]
    assert [one.encoding for one in sent] == [CertEncoding.RAW_PUBLIC_KEY] * 2


def test_raw_key_is_sent_as_rfc_7670_writes_it() -> None:
    pair = connect(recording(raw("ed25519", 0, 1), raw("ed25519", 1, 0)))
    first, _ = (one.data for one in seen_by(pair, CertPayload) if isinstance(one, CertPayload))
    # SubjectPublicKeyInfo of id-Ed25519 (RFC 8410 4): a fixed head, then the 32 octets of the key.
    public = key("ed25519", 0).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert first == bytes.fromhex("302a300506032b6570032100") + public


def without(kind: type[Payload]) -> dict[str, object]:
    return {"rewrite_outgoing": changing(lambda payload: None if isinstance(payload, kind) else payload)}


@pytest.mark.parametrize("side", ["left", "right"])
def test_known_key_need_not_be_sent(side: str) -> None:
    pair = pair_with(raw("p256", 0, 1), raw("p256", 1, 0), **{f"{side}_options": without(CertPayload)})
    assert_in_sync(connect(pair))


def test_old_key_goes_on_while_the_new_one_takes_its_place() -> None:
    for own in (1, 2):
        assert_in_sync(connect(pair_with(raw("p256", 0, 1, 2), raw("p256", own, 0))))


def test_key_that_is_not_known_is_refused() -> None:
    said = refused(pair_with(raw("p256", 5, 1), raw("p256", 1, 0)))
    assert "left.example is not proved: its raw public key is not one that we know" in said
    said = refused(pair_with(raw("p256", 0, 1), raw("p256", 5, 0)))
    assert "right.example is not proved: its raw public key is not one that we know" in said


def test_known_key_beside_the_signature_of_another_is_refused() -> None:
    stolen = seen_by(connect(recording(raw("p256", 0, 1), raw("p256", 1, 0))), CertPayload)[0]
    lie = changing(lambda payload: stolen if isinstance(payload, CertPayload) else payload)
    pair = pair_with(raw("p256", 5, 1), raw("p256", 1, 0), left_options={"rewrite_outgoing": lie})
    assert "left.example is not proved: the signature is wrong" in refused(pair)


def test_certificate_of_a_known_key_proves_it_where_none_is_trusted() -> None:
    means = AUTHS["left"]
    known = PeerSignature(raw_keys=(LEFT.key.public_key(),))
    right = Means(SignatureAuth(key("p256", 1)), (known,))
    left = Means(means.auth, (PeerSignature(raw_keys=(key("p256", 1).public_key(),)),))
    assert_in_sync(connect(pair_with(left, right)))


def test_raw_key_proves_nothing_where_certificates_are_wanted() -> None:
    assert "left.example is not proved: it sent no certificate" in refused(
        pair_with(raw("p256", 0, 1), AUTHS["right"])
    )


def test_key_without_certificate_that_is_not_used_here_is_a_local_error() -> None:
    with pytest.raises(LocalError, match="our key: an ECDSA key on the curve secp224r1"):
        SignatureAuth(key("p224"))


# --- each end by means of its own


def test_one_end_proves_itself_by_certificate_the_other_by_secret() -> None:
    left = Means(PskAuth(b"secret"), AUTHS["left"].peer_auth)
    right = Means(AUTHS["right"].auth, (PskAuth(b"secret"),))
    for first, second, order in ((left, right, [2, 14]), (right, left, [14, 2])):
        ids = {} if first is left else {"left_id": Identity.fqdn("right.example")}
        pair = recording(first, second)
        if ids:
            swap(pair)
        assert_in_sync(connect(pair))
        assert methods(pair) == order


def swap(pair: Pair) -> None:
    """The names change sides, as the certificate does."""
    for side, own in ((pair.left, "right.example"), (pair.right, "left.example")):
        (connection,) = side.engine._host.connections
        other = "left.example" if own.startswith("right") else "right.example"
        changed = replace(connection, local_id=Identity.fqdn(own), peer_id=Identity.fqdn(other))
        side.engine._host.directory = ConnectionDirectory((changed,))
        side.engine._connections = {"peer": changed}


def test_any_one_of_several_proofs_is_enough() -> None:
    takes = (PskAuth(b"old"), PskAuth(b"new"), *AUTHS["right"].peer_auth)
    right = Means(AUTHS["right"].auth, takes)
    for auth in (PskAuth(b"old"), PskAuth(b"new"), AUTHS["left"].auth):
        assert_in_sync(connect(pair_with(Means(auth, AUTHS["left"].peer_auth), right)))
    said = refused(pair_with(Means(PskAuth(b"else"), AUTHS["left"].peer_auth), right))
    assert "left.example is not proved: the pre-shared key is not ours" in said


def test_signature_without_word_on_the_peer_is_a_local_error() -> None:
    (connection,) = pair_with().left.engine._host.connections
    with pytest.raises(LocalError, match="does not say how the peer proves itself"):
        replace(connection, peer_auth=())
    with pytest.raises(LocalError, match="identity to a peer that proves none"):
        replace(connection, peer_auth=(NullAuth(),))


# --- no proof


def test_nobody_meets_nobody() -> None:
    ids: dict[str, object] = {"local_id": NOBODY, "peer_id": NOBODY}
    pair = connect(recording(nobody(NullAuth(), ids), nobody(NullAuth(), ids)))
    assert_in_sync(pair)
    assert methods(pair) == [AuthMethod.NULL] * 2
    for side in (pair.left, pair.right):
        assert side.last(IkeSaEstablished).peer_id == NOBODY
    first, second = (one.data for one in seen_by(pair, AuthPayload) if isinstance(one, AuthPayload))
    assert first != second
    request = next(one for one in seen_by(pair, IdPayload))
    assert isinstance(request, IdiPayload)
    assert request.identity.data == b""


def test_each_end_has_a_key_of_its_own_in_place_of_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7619 2.1: SK_pi for the initiator's AUTH payload, SK_pr for the responder's."""
    secrets: list[bytes] = []

    def record(prf: Prf, secret: bytes, octets: bytes) -> bytes:
        secrets.append(secret)
        return psk_auth(prf, secret, octets)

    monkeypatch.setattr("ike.exchanges.credentials.psk_auth", record)
    ids: dict[str, object] = {"local_id": NOBODY, "peer_id": NOBODY}
    pair = connect(pair_with(nobody(NullAuth(), ids), nobody(NullAuth(), ids)))
    keys = pair.left.engine._host.sessions[pair.left.session].current.keyed.keys
    assert secrets == [keys.sk_pi, keys.sk_pr]


@dataclass(frozen=True)
class NullMeans(Means):
    """One or both ends prove nothing; `ids` replace the identities."""

    ids: dict[str, object] = field(default_factory=dict)

    def fields(self) -> dict[str, object]:
        return super().fields() | self.ids


def nobody(auth: LocalAuth, ids: dict[str, object], *peer_auth: PeerAuth) -> NullMeans:
    return NullMeans(auth, peer_auth or (NullAuth(),), ids)


@pytest.mark.parametrize("opener", ["left", "right"])
def test_one_end_may_stay_nobody_while_the_other_proves_itself(opener: str) -> None:
    client = nobody(NullAuth(), {"local_id": NOBODY}, *AUTHS["left"].peer_auth)
    server = nobody(AUTHS["right"].auth, {"peer_id": NOBODY})
    pair = recording(client, server)
    (pair.left if opener == "left" else pair.right).engine.initiate(
        "peer", (pair.left if opener == "left" else pair.right).path, pair.now
    )
    pair.flush()
    pair.run(2)
    assert_in_sync(pair)
    assert pair.left.last(IkeSaEstablished).peer_id == Identity.fqdn("right.example")
    assert pair.right.last(IkeSaEstablished).peer_id == NOBODY
    assert sorted(methods(pair)) == [AuthMethod.NULL, AuthMethod.DIGITAL_SIGNATURE]


def test_nobody_who_claims_a_name_gets_nothing_of_it() -> None:
    """The name's connection wants a proof, whatever the method pretends (RFC 7619 2.2, 2.4)."""
    pair = pair_with(nobody(NullAuth(), {}, PskAuth(PSK)), Means(PskAuth(PSK)))
    assert "no connection for null at 192.0.2.1" in refused(pair)


def test_claimed_name_of_a_peer_that_proves_nothing_is_forgotten() -> None:
    client = nobody(NullAuth(), {}, *AUTHS["left"].peer_auth)
    server = nobody(AUTHS["right"].auth, {"peer_id": NOBODY})
    pair = connect(pair_with(client, server))
    assert pair.right.last(IkeSaEstablished).peer_id == NOBODY


def test_responder_that_proves_nothing_is_not_who_it_should_be() -> None:
    """An impostor answers; the initiator wants the certificate of right.example."""
    pair = pair_with(AUTHS["left"], nobody(NullAuth(), {}, *AUTHS["right"].peer_auth))
    assert "the peer is null, not right.example" in refused(pair)
    assert pair.right.last(IkeSaClosed).reason is CloseReason.AUTHENTICATION_FAILED


@pytest.mark.parametrize("side", ["left", "right"])
def test_no_proof_is_still_bound_to_the_handshake(side: str) -> None:
    def flip(payload: Payload) -> Payload:
        return replace(payload, data=bytes(32)) if isinstance(payload, AuthPayload) else payload

    ids: dict[str, object] = {"local_id": NOBODY, "peer_id": NOBODY}
    both = (nobody(NullAuth(), ids), nobody(NullAuth(), ids))
    pair = pair_with(*both, **{f"{side}_options": {"rewrite_outgoing": changing(flip)}})
    assert "null is not proved: the IKE_SA_INIT messages differ" in refused(pair)


def test_initial_contact_of_nobody_ends_no_session_of_another_nobody() -> None:
    """RFC 7619 2.3: it is asked whether it is still there instead."""
    ids: dict[str, object] = {"local_id": NOBODY, "peer_id": NOBODY}
    pair = connect(recording(nobody(NullAuth(), ids), nobody(NullAuth(), ids)))
    assert not any(n.notify_type == NotifyType.INITIAL_CONTACT for n in seen_notifies(pair))
    pair.restart(pair.left, pair.left.engine._host.connections)
    pair.initiate()
    pair.run(5)
    assert len(pair.right.all(IkeSaEstablished)) == 2
    assert not pair.right.all(IkeSaClosed)


def seen_notifies(pair: Pair) -> list[NotifyPayload]:
    return [notify for message in recorded(pair) for notify in message.notifies]


# --- connections that stand for many


def several(pair: Pair, *responders: Connection) -> None:
    pair.restart(pair.right, responders)


def connection_of(pair: Pair, **changes: object) -> Connection:
    return replace(pair.right.engine._host.connections[0], **changes)  # type: ignore[arg-type]


def test_pattern_admits_whom_it_means_and_no_other() -> None:
    pair = pair_with(Means(PskAuth(PSK)), Means(PskAuth(PSK)))
    several(pair, connection_of(pair, peer_id=parse_peer_name("*.example")))
    connect(pair)
    assert pair.right.last(IkeSaEstablished).peer_id == Identity.fqdn("left.example")
    pair = pair_with(Means(PskAuth(PSK)), Means(PskAuth(PSK)))
    several(pair, connection_of(pair, peer_id=parse_peer_name("*.else")))
    assert "no connection for left.example" in refused(pair)


def test_who_has_a_connection_of_its_own_gets_none_for_many() -> None:
    """Also not by the proof of the many, nor from another address: one of them could pass for it."""
    pair = pair_with(Means(PskAuth(b"of the many")), Means(PskAuth(b"own")))
    many = connection_of(
        pair, name="many", peer_id=parse_peer_name("*.example"), auth=PskAuth(b"of the many"), peer_auth=()
    )
    several(pair, many, connection_of(pair))
    assert "the pre-shared key is not ours" in refused(pair)
    pair = pair_with(Means(PskAuth(b"of the many")), Means(PskAuth(b"own")))
    several(pair, many, connection_of(pair, peer_addresses=("198.51.100.9",)))
    assert "no connection for left.example" in refused(pair)


def test_initiator_takes_whom_the_pattern_means() -> None:
    for pattern, is_good in (("*.example", True), ("*.else", False)):
        pair = pair_with(Means(PskAuth(PSK)), Means(PskAuth(PSK)))
        (connection,) = pair.left.engine._host.connections
        pair.restart(pair.left, [replace(connection, peer_id=parse_peer_name(pattern))])
        connect(pair)
        assert bool(pair.left.all(IkeSaEstablished)) is is_good


def test_initiator_takes_nobody_for_many_who_has_a_connection_of_its_own() -> None:
    """Else one of the many could pass for it, and by INITIAL_CONTACT end its sessions."""
    pair = pair_with(Means(PskAuth(b"of the many")), Means(PskAuth(b"of the many")))
    (own,) = pair.left.engine._host.connections
    many = replace(own, peer_id=parse_peer_name("*.example"))
    pair.restart(pair.left, [many, replace(own, name="own", auth=PskAuth(b"own"), peer_auth=())])
    connect(pair)
    assert not pair.left.all(IkeSaEstablished)
    assert "right.example has a connection of its own" in pair.left.last(IkeSaFailed).detail


def test_exclusive_connection_is_for_one_at_a_time() -> None:
    pair = pair_with(Means(PskAuth(PSK)), Means(PskAuth(PSK)))
    several(pair, connection_of(pair, peer_id=parse_peer_name("*.example"), max_peers=1))
    connect(pair)
    (connection,) = pair.left.engine._host.connections
    pair.restart(pair.left, [replace(connection, local_id=Identity.fqdn("other.example"))])
    pair.initiate()
    pair.run(2)
    said = pair.right.last(IkeSaFailed)
    assert "left.example at 192.0.2.1 has the place of other.example" in said.detail
    assert len(pair.right.all(IkeSaEstablished)) == 1
    # The one who has it may come again, and the place is free when it is gone.
    pair.restart(pair.left, [connection])
    pair.initiate()
    pair.run(2)
    assert len(pair.right.all(IkeSaEstablished)) == 2
    pair.left.engine.delete_ike_sa(pair.left.session, pair.now)
    pair.run(2)
    pair.restart(pair.left, [replace(connection, local_id=Identity.fqdn("other.example"))])
    pair.initiate()
    pair.run(2)
    assert pair.right.last(IkeSaEstablished).peer_id == Identity.fqdn("other.example")


@pytest.mark.parametrize("claim", ["left.example", "LEFT.example"])
def test_name_in_another_case_is_the_same_peer(claim: str) -> None:
    pair = pair_with(Means(PskAuth(PSK)), Means(PskAuth(PSK)))
    connect(pair)
    (connection,) = pair.left.engine._host.connections
    pair.restart(pair.left, [replace(connection, local_id=Identity.fqdn(claim))])
    pair.initiate()
    pair.run(2)
    assert pair.right.last(IkeSaClosed).reason is CloseReason.REPLACED
    assert len(pair.right.engine.sessions()) == 1


# --- who may ask for what


def net(name: str, local: str, peer: str) -> ChildConfig:
    """A kind of child between two networks, tunnel mode."""
    ends = (
        (AddressSelector.from_network(ip_network(local)),),
        (AddressSelector.from_network(ip_network(peer)),),
    )
    return replace(CHILD, name=name, mode=Mode.TUNNEL, local_ts=ends[0], peer_ts=ends[1])


@pytest.mark.parametrize(
    ("wants", "gets"),
    [
        (("10.1.0.0/16", "10.9.0.0/16"), ["10.1.0.0/16"]),  # its own
        (("10.2.0.0/16", "10.9.0.0/16"), []),  # that of the other one
        (("10.0.0.0/8", "10.9.0.0/16"), ["10.1.0.0/16"]),  # everything: narrowed to its own
        (("10.1.0.0/16", "10.8.0.0/16"), []),  # its own prefix, toward what only the other may reach
    ],
)
def test_peer_gets_what_its_identity_may_have_and_nothing_of_another(
    wants: tuple[str, str], gets: list[str]
) -> None:
    """One address, two identities, each with networks of its own behind it."""
    pair = pair_with(Means(PskAuth(PSK)), Means(PskAuth(PSK)))
    mine = connection_of(pair, children=(net("a", "10.9.0.0/16", "10.1.0.0/16"),))
    other = connection_of(
        pair, name="other", peer_id=Identity.fqdn("other.example"), auth=PskAuth(b"other"),
        children=(net("b", "10.9.0.0/16", "10.2.0.0/16"), net("c", "10.8.0.0/16", "10.1.0.0/16")),
    )  # fmt: skip
    several(pair, other, mine)
    (ours,) = pair.left.engine._host.connections
    pair.restart(pair.left, [replace(ours, children=(net("x", *wants),))])
    connect(pair)
    pair.left.engine.create_child(pair.left.session, "x", pair.now)
    pair.run(2)
    assert pair.right.last(IkeSaEstablished).connection == "peer"
    assert [str(one.peer_ts[0]) for one in pair.right.children.values()] == [
        str(AddressSelector.from_network(ip_network(one))) for one in gets
    ]


def test_two_identities_behind_one_address_have_sessions_of_their_own() -> None:
    pair = pair_with(Means(PskAuth(PSK)), Means(PskAuth(PSK)))
    other = connection_of(pair, name="other", peer_id=Identity.fqdn("other.example"), auth=PskAuth(b"other"))
    several(pair, connection_of(pair), other)
    (ours,) = pair.left.engine._host.connections
    second = replace(ours, name="second", local_id=Identity.fqdn("other.example"), auth=PskAuth(b"other"))
    pair.restart(pair.left, [ours, second])
    pair.initiate()
    pair.initiate("second")
    pair.run(2)
    found = {(one.connection, one.peer_id.text()) for one in pair.right.all(IkeSaEstablished)}
    assert found == {("peer", "left.example"), ("other", "other.example")}
    assert not pair.right.all(IkeSaClosed)
