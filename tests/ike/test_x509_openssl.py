"""Chains and revocation lists that `openssl` has made, as an administrator makes them (RFC 5280)."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ike import Identity, TrustStore, UntrustedError

PEER = "peer.example"
DAY = 86_400.0
CONFIG = """
[ca]
default_ca = {name}
[{name}]
database = {name}.txt
crlnumber = {name}.number
default_md = default
default_crl_days = 3
[unknown]
1.2.3.4 = critical,ASN1:NULL
"""
CA = "basicConstraints=critical,CA:TRUE"
LEAF = "basicConstraints=critical,CA:FALSE"
SAN = f"subjectAltName=DNS:{PEER}"


@dataclass(frozen=True)
class Openssl:
    """A folder in which `openssl` runs."""

    folder: Path

    def run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def issue(
        self, name: str, issuer: str | None, *extensions: str, kind: str = "ed25519", days: int = 30
    ) -> None:
        key = ["-newkey", kind] if kind in ("ed25519", "rsa:2048") else ["-newkey", "ec", "-pkeyopt", kind]
        signer = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"] if issuer else []
        more = [word for extension in extensions for word in ("-addext", extension)]
        self.run(
            "req", "-x509", *key, "-nodes", "-days", str(days), "-subj", f"/O=Example/CN={name}", *signer,
            "-keyout", f"{name}.key", "-out", f"{name}.pem", *more,
        )  # fmt: skip

    def crl(self, issuer: str, *revoked: str, days: int = 3) -> None:
        """A list of `issuer` in <issuer>.crl."""
        (self.folder / f"{issuer}.txt").write_text("")
        (self.folder / f"{issuer}.number").write_text("01\n")
        (self.folder / f"{issuer}.cnf").write_text(CONFIG.format(name=issuer))
        ca = ("ca", "-config", f"{issuer}.cnf", "-cert", f"{issuer}.pem", "-keyfile", f"{issuer}.key")
        for one in revoked:
            self.run(*ca, "-revoke", f"{one}.pem")
        self.run(*ca, "-gencrl", "-crldays", str(days), "-out", f"{issuer}.crl")

    def der(self, name: str) -> bytes:
        return x509.load_pem_x509_certificate((self.folder / f"{name}.pem").read_bytes()).public_bytes(
            Encoding.DER
        )

    def crl_der(self, issuer: str) -> bytes:
        return x509.load_pem_x509_crl((self.folder / f"{issuer}.crl").read_bytes()).public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Openssl:
    """root -> middle -> good, bad (revoked), nameless; root -> lost (revoked CA) -> orphan; and odd ones."""
    openssl = Openssl(tmp_path_factory.mktemp("openssl"))
    openssl.issue("root", None, CA)
    openssl.issue("middle", "root", CA, kind="ec_paramgen_curve:P-384")
    openssl.issue("lost", "root", CA)
    openssl.issue("short", "root", "basicConstraints=critical,CA:TRUE,pathlen:0")
    openssl.issue("below", "short", CA)
    openssl.issue("limited", "root", CA, "nameConstraints=critical,permitted;DNS:else.example")
    openssl.issue("stranger", None, CA)
    for name, issuer in (
        ("good", "middle"),
        ("bad", "middle"),
        ("orphan", "lost"),
        ("deep", "below"),
        ("out", "limited"),
    ):
        openssl.issue(name, issuer, LEAF, SAN)
    openssl.issue("rsa", "middle", LEAF, SAN, kind="rsa:2048")
    openssl.issue("nameless", "middle", LEAF)
    openssl.issue("odd", "middle", LEAF, SAN, "1.2.3.4=critical,ASN1:NULL")
    openssl.issue("encipher", "middle", LEAF, SAN, "keyUsage=critical,keyEncipherment")
    openssl.issue("foreign", "stranger", LEAF, SAN)
    openssl.issue("brief", "middle", LEAF, SAN, days=1)
    openssl.crl("root", "lost")
    openssl.crl("middle", "bad")
    openssl.crl("lost")
    return openssl


@dataclass(frozen=True)
class Case:
    """The chain as it is sent, and a part of the reason against it; `days` from now on."""

    chain: str
    said: str = ""
    identity: str = PEER
    crls: str = "root middle lost"
    days: float = 0.5


CASES = {
    "good": Case("good middle"),
    "any order": Case("good stranger root middle"),
    "RSA below ECDSA below Ed25519": Case("rsa middle"),
    "without lists": Case("bad middle", crls=""),
    "end entity revoked": Case("bad middle", "certificate is not accepted: certificate revoked"),
    "CA revoked": Case("orphan lost", "issuer number 1 is not accepted: certificate revoked"),
    "list of the root missing": Case(
        "good middle", "issuer number 1 .* unable to get certificate CRL", crls="middle"
    ),
    "list of the issuer missing": Case("good middle", "unable to get certificate CRL", crls="root"),
    "lists out of date": Case("good middle", "CRL has expired", days=5),
    "path too long": Case("deep below short", "path length", crls=""),
    "name outside of the constraint": Case("out limited", "permitted subtree", crls=""),
    "unknown critical extension": Case("odd middle", "unhandled critical"),
    "key usage": Case("encipher middle", "key usage"),
    "issuer not sent": Case("good", "unable to get local issuer"),
    "another root": Case("foreign", "unable to get local issuer"),
    "another root sent along": Case("foreign stranger", "self-signed"),
    "expired": Case("brief middle", "certificate has expired", crls="", days=2),
    "not yet valid": Case("good middle", "not yet valid", crls="", days=-1),
    "no SAN, by its subject": Case("nameless middle", identity="dn:CN=nameless,O=Example"),
    "no SAN, by its subject in another case": Case("nameless middle", identity="dn:CN=Nameless, O=EXAMPLE"),
    "no SAN, by its common name": Case("nameless middle", "does not name", identity="nameless"),
    "another name": Case("good middle", "does not name", identity="other.example"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_chain_made_by_openssl(made: Openssl, case: Case) -> None:
    crls = [made.crl_der(issuer) for issuer in case.crls.split()]
    store = TrustStore([made.der("root")], crls, wall_clock=lambda: time.time() + case.days * DAY)
    chain = [made.der(name) for name in case.chain.split()]
    identity = Identity.parse_text(case.identity)
    if case.said:
        with pytest.raises(UntrustedError, match=case.said):
            store.verify_chain(identity, chain)
    else:
        leaf = x509.load_der_x509_certificate(chain[0])
        assert store.verify_chain(identity, chain) == leaf.public_key()


@pytest.mark.parametrize("which", [0, 1])
def test_signature_with_a_bit_changed_is_refused(made: Openssl, which: int) -> None:
    chain = [bytearray(made.der(name)) for name in ("good", "middle")]
    chain[which][-5] ^= 1
    store = TrustStore([made.der("root")], wall_clock=lambda: time.time() + DAY / 2)
    with pytest.raises(UntrustedError, match=r"signature failure|cannot be used"):
        store.verify_chain(Identity.fqdn(PEER), [bytes(one) for one in chain])


def test_openssl_itself_agrees(made: Openssl) -> None:
    """The same verdicts of `openssl verify` where it is asked the same."""
    (made.folder / "all.crl").write_bytes(
        b"".join((made.folder / f"{one}.crl").read_bytes() for one in ("root", "middle"))
    )
    for name, is_good in (("good", True), ("bad", False), ("odd", False)):
        done = subprocess.run(
            ["openssl", "verify", "-CAfile", "root.pem", "-untrusted", "middle.pem", "-crl_check_all",
             "-CRLfile", "all.crl", f"{name}.pem"],
            cwd=made.folder, check=False, capture_output=True,
        )  # fmt: skip
        assert (done.returncode == 0) is is_good, done.stderr
