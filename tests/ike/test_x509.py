"""Which chain proves which identity, and why another does not (RFC 5280 6, RFC 4945)."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from ike import Identity, TrustStore, UntrustedError
from ike.numbers import IdType
from ike.x509 import MAX_AUTHORITIES, MAX_CHAIN
from tests.ike.pki import CA_USAGE, DAY, KINDS, NOON, USAGE, Certified, crl, issue, leaf, root, trust

PEER = "peer.example"
ROOT = root()
MIDDLE = issue("Middle", ROOT, number=1, is_ca=True)
OTHER_ROOT = issue("Root", None, number=2)
GOOD = leaf(PEER, MIDDLE)
OTHER = issue("Other", None, number=5)
CROSS = issue("Middle", OTHER, number=1, is_ca=True)
EXPIRED_CROSS = issue("Middle", ROOT, number=1, is_ca=True, end=NOON - DAY)


@dataclass
class Case:
    """`chain` as a peer sends it; `said` is part of the reason against it, "" where there is none."""

    chain: Callable[[], list[Certified]]
    said: str = ""
    identity: str = PEER
    anchors: list[Certified] = field(default_factory=lambda: [ROOT])
    crls: Callable[[], list[bytes]] = list


def constrained(
    *, permitted: str | None = None, excluded: str | None = None, name: str = PEER
) -> list[Certified]:
    constraints = x509.NameConstraints(
        [x509.DNSName(permitted)] if permitted else None, [x509.DNSName(excluded)] if excluded else None
    )
    ca = issue("Limited", ROOT, number=3, is_ca=True, extensions=[(constraints, True)])
    return [leaf(name, ca), ca]


def constrained_address(address: str) -> list[Certified]:
    constraints = x509.NameConstraints([x509.IPAddress(ip_network("192.0.2.0/24"))], None)
    ca = issue("Limited", ROOT, number=3, is_ca=True, extensions=[(constraints, True)])
    return [leaf(address, ca), ca]


def with_purposes(*purposes: ObjectIdentifier) -> list[Certified]:
    return [leaf(PEER, ROOT, extensions=[(x509.ExtendedKeyUsage(purposes), True)])]


def under(**options: object) -> list[Certified]:
    """A leaf under an intermediate CA with `options`."""
    ca = issue("Odd", ROOT, number=4, **({"is_ca": True} | options))  # type: ignore[arg-type]
    return [leaf(PEER, ca), ca]


def deep(count: int, **options: object) -> list[Certified]:
    """A leaf under `count` CAs below the root."""
    chain = [ROOT]
    for number in range(count):
        chain.append(issue(f"CA {number}", chain[-1], number=10 + number, is_ca=True, **options))  # type: ignore[arg-type]
    return [leaf(PEER, chain[-1]), *chain[:0:-1]]


UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
NETSCAPE_CA = x509.UnrecognizedExtension(ObjectIdentifier("2.16.840.1.113730.1.1"), b"\x03\x02\x00\x07")
CASES = {
    "good": Case(lambda: [GOOD, MIDDLE]),
    "anchor sent too": Case(lambda: [GOOD, MIDDLE, ROOT]),
    "any order, some needless": Case(lambda: [GOOD, OTHER_ROOT, MIDDLE, MIDDLE]),
    "intermediate as anchor": Case(lambda: [GOOD], anchors=[MIDDLE]),
    "the certificate itself as anchor": Case(lambda: [GOOD], anchors=[GOOD]),
    "intermediate not sent": Case(lambda: [GOOD], "unable to get local issuer"),
    "other CA of the same name": Case(lambda: [leaf(PEER, OTHER_ROOT)], "signature failure"),
    "other CA brought along": Case(lambda: [leaf(PEER, OTHER_ROOT), OTHER_ROOT], "signature failure"),
    "self-signed": Case(lambda: [issue(PEER, None, number=50, usage=USAGE, sans=[x509.DNSName(PEER)])], "self-signed"),
    "expired": Case(lambda: [leaf(PEER, ROOT, end=NOON - DAY)], "has expired"),
    "not yet valid": Case(lambda: [leaf(PEER, ROOT, start=NOON + DAY)], "not yet valid"),
    "expired CA": Case(lambda: under(end=NOON - DAY), "has expired"),
    "expired anchor": Case(
        lambda: [leaf(PEER, root(end=NOON - DAY))], "has expired", anchors=[root(end=NOON - DAY)]
    ),
    # constraints on CAs
    "issuer is no CA": Case(lambda: under(is_ca=False, usage=CA_USAGE), "invalid CA"),
    "issuer without basic constraints": Case(lambda: under(has_constraints=False), "invalid CA"),
    "issuer by Netscape's certificate type only": Case(
        lambda: under(has_constraints=False, usage=[], extensions=[(NETSCAPE_CA, False)]), "invalid CA"
    ),
    "issuer may not sign certificates": Case(lambda: under(usage=["crl_sign"]), "number 1 is not accepted"),
    "path length held": Case(lambda: deep(2)),
    "path length exceeded": Case(lambda: deep(2, path_length=0), "path length"),
    "name inside the constraint": Case(lambda: constrained(permitted="example")),
    "name outside of the constraint": Case(lambda: constrained(permitted="else"), "permitted subtree"),
    "name excluded": Case(lambda: constrained(excluded="example"), "excluded subtree"),
    "address inside the constraint": Case(lambda: constrained_address("192.0.2.7"), identity="192.0.2.7"),
    "address outside of it": Case(
        lambda: constrained_address("198.51.100.7"), "permitted subtree", identity="198.51.100.7"
    ),
    "unknown critical extension": Case(
        lambda: [leaf(PEER, ROOT, extensions=[(UNKNOWN, True)])], "unhandled critical"
    ),
    "unknown extension": Case(lambda: [leaf(PEER, ROOT, extensions=[(UNKNOWN, False)])]),
    # key usage
    "without key usage": Case(lambda: [leaf(PEER, ROOT, usage=[])]),
    "non-repudiation is enough": Case(lambda: [leaf(PEER, ROOT, usage=["content_commitment"])]),
    "key usage without signatures": Case(lambda: [leaf(PEER, ROOT, usage=["key_agreement"])], "key usage"),
    "purpose IKE": Case(lambda: with_purposes(ObjectIdentifier("1.3.6.1.5.5.7.3.17"))),
    "any purpose": Case(lambda: with_purposes(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)),
    "another purpose": Case(lambda: with_purposes(ExtendedKeyUsageOID.CODE_SIGNING), "extended key usage"),
    # strength
    "RSA of 1024 bits": Case(lambda: [leaf(PEER, ROOT, kind="rsa1024")], "RSA key of 1024 bits"),
    "CA with RSA of 1024 bits": Case(lambda: under(kind="rsa1024"), "RSA key of 1024 bits"),
    "P-224": Case(lambda: [leaf(PEER, ROOT, kind="p224")], "curve secp224r1"),
    "signed with SHA-224": Case(lambda: [leaf(PEER, ROOT, algorithm=hashes.SHA224())], "signed with sha224"),
    # revocation
    "not revoked": Case(lambda: [GOOD, MIDDLE], crls=lambda: [crl(ROOT), crl(MIDDLE)]),
    "revoked": Case(lambda: [GOOD, MIDDLE], "revoked", crls=lambda: [crl(ROOT), crl(MIDDLE, GOOD)]),
    "issuer revoked": Case(lambda: [GOOD, MIDDLE], "revoked", crls=lambda: [crl(ROOT, MIDDLE), crl(MIDDLE)]),
    "list of an issuer missing": Case(lambda: [GOOD, MIDDLE], "get certificate CRL", crls=lambda: [crl(ROOT)]),
    "list out of date": Case(
        lambda: [GOOD, MIDDLE], "CRL has expired",
        crls=lambda: [crl(ROOT), crl(MIDDLE, start=NOON - 3 * DAY, end=NOON - DAY)],
    ),
    "list forged": Case(
        lambda: [leaf(PEER, ROOT)], "CRL signature failure", crls=lambda: [crl(OTHER_ROOT)]
    ),
    "anchor that is not self-signed needs no list of its own": Case(
        lambda: [GOOD], anchors=[MIDDLE], crls=lambda: [crl(MIDDLE)]
    ),
    "revoked below an anchor that is not self-signed": Case(
        lambda: [GOOD], "revoked", anchors=[MIDDLE], crls=lambda: [crl(MIDDLE, GOOD)]
    ),
    "anchor in a list of its issuer": Case(
        lambda: [GOOD], anchors=[MIDDLE], crls=lambda: [crl(ROOT, MIDDLE), crl(MIDDLE)]
    ),
    "list not yet valid": Case(
        lambda: [leaf(PEER, ROOT)], "CRL is not yet valid",
        crls=lambda: [crl(ROOT, start=NOON + DAY, end=NOON + 2 * DAY)],
    ),
    "an old list beside the current one": Case(
        lambda: [GOOD, MIDDLE], "revoked",
        crls=lambda: [crl(ROOT), crl(MIDDLE, start=NOON - 3 * DAY, end=NOON - DAY), crl(MIDDLE, GOOD)],
    ),
    "list signed by another CA of the same name": Case(
        lambda: [GOOD, MIDDLE], "CRL signature failure", crls=lambda: [crl(OTHER_ROOT), crl(MIDDLE)]
    ),
    # the same CA, certified twice
    "cross-signed, the way that leads to the anchor": Case(lambda: [GOOD, CROSS, MIDDLE]),
    "cross-signed, the other anchor": Case(lambda: [GOOD, MIDDLE, CROSS], anchors=[OTHER]),
    "cross-signed, one way has expired": Case(lambda: [GOOD, EXPIRED_CROSS, MIDDLE]),
    "cross-signed, neither way": Case(lambda: [GOOD, CROSS], "unable to get local issuer"),
    # identity
    "name in another case": Case(lambda: [leaf("Peer.EXAMPLE", ROOT)]),
    "another name": Case(lambda: [leaf("other.example", ROOT)], "does not name peer.example"),
    "no wildcards": Case(lambda: [leaf("*.example", ROOT)], "does not name"),
    "common name counts for nothing": Case(lambda: [issue(PEER, ROOT)], "does not name"),
    "mailbox": Case(lambda: [leaf("pe@peer.example", ROOT)], identity="PE@peer.example"),
    "another mailbox": Case(lambda: [leaf("pe@peer.example", ROOT)], "does not name", identity="x@peer.example"),
    "mailbox is no name": Case(lambda: [leaf("pe@peer.example", ROOT)], "does not name"),
    "IPv4 address": Case(lambda: [leaf("192.0.2.1", ROOT)], identity="192.0.2.1"),
    "IPv6 address": Case(lambda: [leaf("2001:db8::1", ROOT)], identity="2001:db8::1"),
    "another address": Case(lambda: [leaf("192.0.2.1", ROOT)], "does not name", identity="192.0.2.2"),
    "distinguished name": Case(lambda: [issue(PEER, ROOT)], identity=f"dn:CN={PEER},O=Example"),
    "distinguished name in another case": Case(lambda: [issue(PEER, ROOT)], identity=f"dn:CN={PEER.upper()},O=EXAMPLE"),
    "distinguished name in another order": Case(
        lambda: [issue(PEER, ROOT)], "does not name", identity=f"dn:O=Example,CN={PEER}"
    ),
    "another distinguished name": Case(lambda: [issue(PEER, ROOT)], "does not name", identity="dn:CN=x,O=Example"),
    "key ID": Case(lambda: [GOOD, MIDDLE], "no certificate can prove", identity="keyid:peer"),
    # bounds
    "the longest chain": Case(lambda: deep(MAX_CHAIN - 1)),
    "too many certificates": Case(lambda: [GOOD, *[MIDDLE] * MAX_CHAIN], "a chain of 9"),
    "no certificate": Case(list, "a chain of 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_chain_is_accepted_or_refused_for_its_reason(case: Case) -> None:
    chain = [one.der for one in case.chain()]
    store = trust(*case.anchors, crls=case.crls())
    identity = Identity.parse_text(case.identity)
    if case.said:
        with pytest.raises(UntrustedError, match=case.said):
            store.verify_chain(identity, chain)
    else:
        assert store.verify_chain(identity, chain) == case.chain()[0].key.public_key()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key_makes_a_chain(kind: str) -> None:
    anchor = root(kind)
    one = leaf(PEER, anchor, kind=kind)
    assert trust(anchor).verify_chain(Identity.fqdn(PEER), [one.der]) == one.key.public_key()


def test_one_store_judges_each_chain_by_the_time_it_is_then() -> None:
    now = NOON
    store = TrustStore([ROOT.der], wall_clock=lambda: now.timestamp())
    one = leaf(PEER, ROOT, end=NOON + DAY)
    store.verify_chain(Identity.fqdn(PEER), [one.der])
    now = NOON + 2 * DAY
    with pytest.raises(UntrustedError, match="expired"):
        store.verify_chain(Identity.fqdn(PEER), [one.der])


def test_chain_made_by_openssl_is_accepted(tmp_path: Path) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "30", "-subj")
    openssl(*new, "/O=Example/CN=CA", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(
        *new, "/O=Example/CN=peer", "-addext", f"subjectAltName=DNS:{PEER}", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "peer.key", "-out", "peer.pem",
    )  # fmt: skip
    for file in ("ca", "peer"):
        openssl("x509", "-in", f"{file}.pem", "-outform", "DER", "-out", f"{file}.der")
    anchor, own = (tmp_path / "ca.der").read_bytes(), (tmp_path / "peer.der").read_bytes()
    made = x509.load_der_x509_certificate(own).not_valid_before_utc
    store = TrustStore([anchor], wall_clock=(made + DAY).timestamp)
    store.verify_chain(Identity.fqdn(PEER), [own])
    with pytest.raises(UntrustedError, match="does not name"):
        store.verify_chain(Identity.fqdn("other.example"), [own])


def test_authorities_are_hashes_of_the_public_keys() -> None:
    store = trust(ROOT, MIDDLE, OTHER_ROOT, ROOT)
    ski = {x509.SubjectKeyIdentifier.from_public_key(one.key.public_key()).digest for one in (ROOT, MIDDLE)}
    assert len(store.authorities) == 3
    assert all(len(authority) == 20 for authority in store.authorities)
    assert not ski & set(store.authorities), "the whole SubjectPublicKeyInfo is hashed, not the key bits"


def test_store_needs_some_anchors_and_not_too_many() -> None:
    with pytest.raises(ValueError, match="0 trust anchors"):
        TrustStore([], wall_clock=float)
    with pytest.raises(ValueError, match="65 trust anchors"):
        TrustStore([ROOT.der] * (MAX_AUTHORITIES + 1), wall_clock=float)
    with pytest.raises(ValueError):
        TrustStore([b"0"], wall_clock=float)


def test_certificate_that_rfc_5280_does_not_allow_is_refused_and_warns_nobody() -> None:
    negative = bytearray(GOOD.der)
    negative[15] |= 0x80  # the first octet of the serial number
    with pytest.raises(UntrustedError, match="cannot be used: Parsed a serial number"):
        trust(ROOT).verify_chain(Identity.fqdn(PEER), [bytes(negative), MIDDLE.der])


STORE, STORE_WITH_CRL = trust(ROOT), trust(ROOT, crls=[crl(ROOT), crl(MIDDLE)])


@settings(max_examples=300)
@given(
    chain=st.lists(st.binary(max_size=64) | st.sampled_from([GOOD.der, MIDDLE.der, ROOT.der]), max_size=10),
    place=st.integers(0, 10_000),
    octets=st.binary(min_size=1, max_size=4),
    identity=st.builds(Identity, st.sampled_from([*IdType, 77]), st.binary(max_size=20))
    | st.just(Identity.fqdn(PEER)),
)
def test_whatever_the_certificates_are_only_untrusted_error_is_raised(
    chain: list[bytes], place: int, octets: bytes, identity: Identity
) -> None:
    spoiled = []
    for one in chain:
        at = place % (len(one) + 1)
        spoiled.append(one[:at] + octets + one[at + len(octets) :])
    for store in (STORE, STORE_WITH_CRL):
        for candidate in (chain, spoiled):
            try:
                store.verify_chain(identity, candidate)
            except UntrustedError as error:
                assert str(error).isprintable()
            else:
                assert candidate[0] == GOOD.der
