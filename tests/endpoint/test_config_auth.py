"""Authentication by certificate in a configuration: what is read, what is refused, and two nodes that use it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from endpoint.config import (
    AnchorsConfig,
    Config,
    ConfigError,
    KeyAuthConfig,
    Problem,
    PskAuthConfig,
    RawKeysConfig,
    load_config,
    parse_config,
)
from endpoint.config.auth_checks import check_validity
from endpoint.config.locate import Locations
from endpoint.config.problems import Report
from endpoint.plan import plan_peers
from ike import Identity, NullAuth, PeerSignature, PskAuth, SignatureAuth
from tests.endpoint.config_texts import COMPLETE, PLAIN_IP, SECRET, edited
from tests.endpoint.pair import NodePair, configuration
from tests.ike.pki import DAY, NOON, Certified, crl_object, issue, leaf, root, trust

ROOT = root()
MIDDLE = issue("Middle", ROOT, number=1, is_ca=True)
PE1 = leaf("pe1.example", MIDDLE)
CERTIFICATE = '{ certificate = "pe1.pem", key_file = "pe1.key", ca = "ca.pem", crl = "crl.pem" }'
TEXT = edited(COMPLETE, '{ psk_file = "pe2.psk" }', CERTIFICATE)


def key_pem(one: Certified, passphrase: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return one.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def crl_pem(issuer: Certified) -> bytes:
    return crl_object(issuer).public_bytes(Encoding.PEM)


FILES = {
    "pe1.pem": PE1.pem + MIDDLE.pem,
    "pe1.key": key_pem(PE1),
    "ca.pem": ROOT.pem,
    "crl.pem": crl_pem(ROOT) + crl_pem(MIDDLE),
    "pe2.psk": SECRET,
}


def parse(text: str = TEXT, **files: bytes) -> Config:
    return parse_config(
        text, "pe1.toml", secrets=FILES | {name.replace("_", "."): files[name] for name in files}
    )


def problems(text: str = TEXT, **files: bytes) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as raised:
        parse(text, **files)
    return raised.value.problems


def test_certificate_key_anchors_and_lists_are_read() -> None:
    auth = parse().peers[0].auth
    (proof,) = parse().peers[0].peer_auth
    assert isinstance(auth, KeyAuthConfig)
    assert isinstance(proof, AnchorsConfig)
    assert auth.chain == (PE1.der, MIDDLE.der)
    assert proof.anchors == (ROOT.der,)
    assert len(proof.crls) == 2
    assert "PrivateKey" not in repr(auth)
    connection = plan_peers(parse(), NOON.timestamp)[0].connection
    assert isinstance(connection.auth, SignatureAuth)
    (planned,) = connection.proofs
    assert isinstance(planned, PeerSignature)
    assert planned.trust is not None
    assert planned.trust.authorities == trust(ROOT).authorities
    planned.trust.verify_chain(plan_peers(parse())[0].connection.local_id, auth.chain)


def test_options_are_read_and_sha1_is_warned_about() -> None:
    text = edited(TEXT, 'crl = "crl.pem"', "rsa_pss = false, rsa_sha1 = true")
    config = parse(text)
    auth = config.peers[0].auth
    (proof,) = config.peers[0].peer_auth
    assert isinstance(auth, KeyAuthConfig)
    assert isinstance(proof, AnchorsConfig)
    assert (proof.crls, auth.rsa_pss, auth.rsa_sha1, proof.rsa_sha1) == ((), False, True, True)
    assert any("SHA-1" in warning.message for warning in config.warnings)


OTHER = leaf("pe1.example", MIDDLE, number=9)
SMALL = leaf("pe1.example", ROOT, kind="rsa1024")
MISTAKES: list[tuple[dict[str, bytes], str, str]] = [
    ({"pe1_pem": b"nothing"}, "certificate", "holds no certificates in PEM"),
    ({"pe1_pem": PE1.der}, "certificate", "holds no certificates in PEM"),
    ({"pe1_pem": PE1.pem + ROOT.pem}, "certificate", "order of a chain"),
    ({"pe1_pem": PE1.pem + MIDDLE.pem + 7 * ROOT.pem}, "certificate", "holds 9 certificates"),
    ({"pe1_pem": leaf("other.example", MIDDLE).pem}, "certificate", "does not name pe1.example"),
    ({"pe1_pem": SMALL.pem}, "certificate", "RSA key of 1024 bits"),
    ({"pe1_key": b"nothing"}, "key_file", "no private key in PEM"),
    ({"pe1_key": key_pem(OTHER)}, "key_file", "not the key of the first certificate"),
    ({"pe1_key": key_pem(PE1, b"sesame")}, "key_file", "protected by a passphrase"),
    ({"ca_pem": b""}, "ca", "holds no certificates in PEM"),
    ({"ca_pem": 65 * ROOT.pem}, "ca", "holds 65 certificates"),
    ({"crl_pem": b""}, "crl", "holds 0 revocation lists"),
    ({"crl_pem": ROOT.pem}, "crl", "something else than revocation lists"),
]


@pytest.mark.parametrize(("files", "key", "said"), MISTAKES)
def test_mistake_is_told_with_its_key_and_a_remedy(files: dict[str, bytes], key: str, said: str) -> None:
    (problem,) = problems(TEXT, **files)
    assert (problem.line, problem.key) == (25, f"peer.pe2.auth.{key}")
    assert said in problem.message
    assert problem.remedy
    assert "sesame" not in str(problem)


def test_every_file_that_is_wrong_is_told_at_once() -> None:
    found = problems(pe1_pem=b"", pe1_key=b"", ca_pem=b"", crl_pem=b"")
    assert [problem.key.rpartition(".")[2] for problem in found] == ["certificate", "key_file", "ca", "crl"]


def test_missing_keys_of_the_table_are_told() -> None:
    found = problems(edited(TEXT, CERTIFICATE, '{ certificate = "pe1.pem" }'))
    assert [(one.key.rpartition(".")[2], one.message) for one in found] == [
        ("key_file", "is missing"),
        ("ca", "is missing"),
    ]


def test_secret_beside_a_certificate_is_refused() -> None:
    (problem,) = problems(edited(TEXT, "{ certificate", '{ psk_file = "pe2.psk", certificate'))
    assert problem.key == "peer.pe2.auth.psk_file"
    assert "beside certificate" in problem.message


def test_peer_that_no_certificate_can_name_is_refused() -> None:
    (problem,) = problems(edited(TEXT, '"pe2.example"', '"keyid:pe2"'))
    assert problem.key == "peer.pe2.identity"


def test_own_subject_can_be_the_identity() -> None:
    text = edited(TEXT, 'identity   = "pe1.example"', 'identity   = "dn:CN=pe1.example,O=Example"')
    assert parse(text).endpoint.identity.startswith("dn:")


def test_key_file_is_as_private_as_a_shared_secret_and_certificates_are_public(tmp_path: Path) -> None:
    (tmp_path / "pe1.toml").write_text(TEXT)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o644)
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path / "pe1.toml")
    (problem,) = raised.value.problems
    assert problem.key == "peer.pe2.auth.key_file"
    assert "open to others (mode 0644)" in problem.message
    (tmp_path / "pe1.key").chmod(0o600)
    assert load_config(tmp_path / "pe1.toml").peers


def test_delta_list_is_refused() -> None:
    builder = x509.CertificateRevocationListBuilder().issuer_name(ROOT.certificate.subject)
    builder = builder.last_update(NOON).next_update(NOON + DAY)
    builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    delta = builder.sign(ROOT.key, ROOT.certificate.signature_hash_algorithm)  # type: ignore[arg-type]
    (problem,) = problems(crl_pem=delta.public_bytes(Encoding.PEM))
    assert "delta list" in problem.message


@pytest.mark.parametrize("is_expired", [False, True])
def test_two_nodes_meet_by_certificates_that_are_valid_now(is_expired: bool) -> None:
    now = datetime.now(UTC)
    ends = [now + DAY, now - DAY if is_expired else now + DAY]
    anchor = root(start=now - 9 * DAY)
    middle = issue("Middle", anchor, number=1, is_ca=True, start=now - 9 * DAY)
    configs = []
    for number, end in enumerate(ends, 1):
        own = leaf(f"pe{number}.example", middle, number=number, start=now - 9 * DAY, end=end)
        auth, proof = KeyAuthConfig(own.key, (own.der, middle.der)), AnchorsConfig((anchor.der,))
        config = configuration(number)
        configs.append(replace(config, peers=(replace(config.peers[0], auth=auth, peer_auth=(proof,)),)))
    pair = NodePair(configs[0], configs[1])
    pair.ends[1].node.initiate("pe2", None, pair.now)
    pair.run(5)
    assert pair.ends[1].node.is_up("pe2", None) is not is_expired


# --- raw public keys, no proof, and ends by means of their own


def public_pem(*owners: Certified) -> bytes:
    return b"".join(
        one.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for one in owners
    )


RAW = "{ key_file = 'pe1.key', peer_key = 'pe2.pub' }"


def with_auth(auth: str, *lines: str) -> str:
    return edited(TEXT, CERTIFICATE, "\n".join((auth, *lines)))


def test_raw_public_keys_are_read() -> None:
    config = parse(with_auth(RAW), pe2_pub=public_pem(OTHER, ROOT))
    auth, (proof,) = config.peers[0].auth, config.peers[0].peer_auth
    assert isinstance(auth, KeyAuthConfig)
    assert isinstance(proof, RawKeysConfig)
    assert (auth.chain, proof.keys) == ((), (OTHER.key.public_key(), ROOT.key.public_key()))
    connection = plan_peers(config)[0].connection
    assert connection.proofs == (PeerSignature(raw_keys=proof.keys),)


def test_no_proof_is_read_for_a_peer_without_identity() -> None:
    text = edited(PLAIN_IP, '{ psk_file = "pe2.psk" }', "{ null = true }")
    text = edited(edited(text, '"branch@example.com"', '"null"'), '["any"]', '["192.0.2.2"]')
    connection = plan_peers(parse(text))[0].connection
    assert (connection.auth, connection.proofs) == (NullAuth(), (NullAuth(),))
    assert connection.local_id == connection.peer_id == Identity.null()
    assert connection.max_peers == 1


def test_peer_may_prove_itself_by_other_means_than_we() -> None:
    text = with_auth('{ psk_file = "pe2.psk" }', 'peer_auth = { ca = "ca.pem", crl = "crl.pem" }')
    connection = plan_peers(parse(text))[0].connection
    assert isinstance(connection.auth, PskAuth)
    (proof,) = connection.proofs
    assert isinstance(proof, PeerSignature)
    assert proof.trust is not None


def test_any_of_several_proofs_may_be_given() -> None:
    ours = '{ certificate = "pe1.pem", key_file = "pe1.key" }'
    theirs = 'peer_auth = [{ ca = "ca.pem" }, { psk_file = "pe2.psk" }, { peer_key = "pe2.pub" }]'
    config = parse(with_auth(ours, theirs), pe2_pub=public_pem(OTHER))
    kinds = [type(proof) for proof in config.peers[0].peer_auth]
    assert kinds == [AnchorsConfig, PskAuthConfig, RawKeysConfig]


PROOF_MISTAKES = [
    (with_auth('{ key_file = "pe1.key" }'), "auth.peer_key", "is missing"),
    (with_auth(RAW), "auth.peer_key", "something else than public keys"),
    (with_auth('{ null = true, psk_file = "pe2.psk" }'), "auth.null", "stands beside psk_file"),
    (with_auth("{ null = false }"), "auth.null", "says nothing"),
    (with_auth('{ null = true, nul = 1 }'), "auth.nul", "unknown key"),
    (with_auth("{ null = true }"), "identity", "proves nothing, and so it has no identity"),
    (edited(TEXT, '"pe2.example"', '"null"'), "identity", "a peer without identity"),
    (with_auth(CERTIFICATE, 'peer_auth = { psk_file = "pe2.psk" }'), "auth.ca", "concerns the peer"),
    (edited(with_auth("{ null = true }"), '"pe2.example"', '"null"'), "selectors", "granted no label"),
    (with_auth('{ psk_file = "pe2.psk" }', 'peer_auth = { key_file = "pe1.key", ca = "ca.pem" }'),
     "peer_auth.key_file", "is ours"),
    (with_auth('{ psk_file = "pe2.psk" }', "peer_auth = []"), "peer_auth", "has 0 items"),
    (with_auth('{ psk_file = "pe2.psk" }', "peer_auth = 7"), "peer_auth", "must be a table"),
    (with_auth('{ psk_file = "pe2.psk" }', 'peer_auth = [{ ca = "no.pem" }]'), "peer_auth[1].ca", "no secret"),
    (edited(TEXT, '"pe2.example"', '"pe*.example"'), "identity", "stands for the whole beginning"),
    (edited(TEXT, 'identity   = "pe1.example"', 'identity   = "null"'), "endpoint.identity", "it names nobody"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key", "said"), PROOF_MISTAKES, ids=[f"{k}: {s}" for _, k, s in PROOF_MISTAKES]
)
def test_mistake_about_proofs_is_told_with_its_key(text: str, key: str, said: str) -> None:
    found = problems(text, pe2_pub=b"-----BEGIN nothing")
    assert any(
        one.key.removeprefix("peer.pe2.") == key and said in one.message and one.remedy for one in found
    ), found


def test_key_of_one_cannot_stand_for_several_and_a_shared_secret_is_warned_about() -> None:
    several = edited(with_auth(RAW), '"pe2.example"', '"*.example"')
    (problem,) = problems(several, pe2_pub=public_pem(OTHER))
    assert "cannot stand for several" in problem.message
    shared = edited(with_auth('{ psk_file = "pe2.psk" }'), '"pe2.example"', '"*.example"')
    assert any("can be any of these peers" in one.message for one in parse(shared).warnings)


# --- validity


def said_at(time: datetime, **files: bytes) -> list[str]:
    names = FILES | {name.replace("_", "."): content for name, content in files.items()}
    config = parse_config(TEXT, "pe1.toml", secrets=names)
    report = Report("pe1.toml", {}, Locations({}))
    check_validity(config, report, time.timestamp())
    return [one.message for one in report.warnings]


def test_certificates_and_lists_that_are_valid_give_no_warning() -> None:
    assert said_at(NOON) == []


def test_what_is_out_of_date_is_warned_about() -> None:
    mine = leaf("pe1.example", MIDDLE, number=3, end=NOON + 3 * DAY)
    files = {"pe1_pem": mine.pem + MIDDLE.pem, "pe1_key": key_pem(mine)}
    assert [one for one in said_at(NOON, **files) if "our" in one] == [
        'our certificate "CN=pe1.example,O=Example" expires in 3 days'
    ]
    late = said_at(NOON + 4 * DAY, **files)
    assert any(one.startswith("our certificate") and "has expired on 2030-06-04" in one for one in late)
    assert sum("is out of date: its peers are refused" in one for one in late) == 2
    early = said_at(NOON - 90 * DAY, **files)
    assert any("our certificate" in one and "is not valid before" in one for one in early)
    assert any("the CA's certificate" in one for one in said_at(NOON + 999 * DAY))


def test_certificate_that_has_expired_is_a_warning_at_load() -> None:
    assert any("is not valid before 2030" in one.message for one in parse().warnings)
