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
)

from endpoint.config import CertificateAuthConfig, Config, ConfigError, Problem, load_config, parse_config
from endpoint.plan import plan_peers
from ike import SignatureAuth
from tests.endpoint.config_texts import COMPLETE, SECRET, edited
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
    assert isinstance(auth, CertificateAuthConfig)
    assert auth.chain == (PE1.der, MIDDLE.der)
    assert auth.anchors == (ROOT.der,)
    assert len(auth.crls) == 2
    assert "PrivateKey" not in repr(auth)
    planned = plan_peers(parse(), NOON.timestamp)[0].connection.auth
    assert isinstance(planned, SignatureAuth)
    assert planned.trust.authorities == trust(ROOT).authorities
    planned.trust.verify_chain(plan_peers(parse())[0].connection.local_id, auth.chain)


def test_options_are_read_and_sha1_is_warned_about() -> None:
    text = edited(TEXT, 'crl = "crl.pem"', "rsa_pss = false, rsa_sha1 = true")
    config = parse(text)
    auth = config.peers[0].auth
    assert isinstance(auth, CertificateAuthConfig)
    assert (auth.crls, auth.rsa_pss, auth.rsa_sha1) == ((), False, True)
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
        auth = CertificateAuthConfig((own.der, middle.der), own.key, (anchor.der,))
        config = configuration(number)
        configs.append(replace(config, peers=(replace(config.peers[0], auth=auth),)))
    pair = NodePair(configs[0], configs[1])
    pair.ends[1].node.initiate("pe2", None, pair.now)
    pair.run(5)
    assert pair.ends[1].node.is_up("pe2", None) is not is_expired
