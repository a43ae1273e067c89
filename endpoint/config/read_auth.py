"""`auth` and `peer_auth` of a `[[peer]]`: how we prove who we are, and what the peer may prove itself by.

    auth = { psk_file = "pe2.psk" }                                           the same secret both ways
    auth = { certificate = "pe1.pem", key_file = "pe1.key", ca = "ca.pem" }   X.509 both ways
    auth = { key_file = "pe1.key", peer_key = "pe2.pub" }                     raw public keys both ways (RFC 7670)
    auth = { null = true }                                                    no proof, either way (RFC 7619)

With `peer_auth`, a table of what concerns the peer or a list of several that each will do, `auth` is ours alone.
Knows nothing of who the identities are (`auth_checks.py`), of paths and of time. A message never shows a secret.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cryptography import x509

from endpoint.config.model import (
    AnchorsConfig,
    KeyAuthConfig,
    LocalAuthConfig,
    NullAuthConfig,
    PeerAuthConfig,
    PskAuthConfig,
    RawKeysConfig,
)
from endpoint.config.pem import (
    parse_anchors,
    parse_chain,
    parse_crls,
    parse_private_key,
    parse_public_keys,
)
from endpoint.config.secret import SecretSource, parse_secret
from endpoint.config.table import Table

T = TypeVar("T")

_NOTHING = PskAuthConfig(b"")
_PSK_EXAMPLE = 'auth = { psk_file = "peer.psk" }'
_CERTIFICATE_EXAMPLE = 'auth = { certificate = "pe1.pem", key_file = "pe1.key", ca = "ca.pem" }'
_RAW_EXAMPLE = 'auth = { key_file = "pe1.key", peer_key = "pe2.pub" }'
_OURS = ("certificate", "key_file", "rsa_pss")
_THEIRS = ("ca", "crl", "peer_key")
_SIGNATURE = (*_OURS, *_THEIRS, "rsa_sha1")
_MAX_PROOFS = 8

Auth = tuple[LocalAuthConfig, tuple[PeerAuthConfig, ...]]


def read_auth(peer: Table, secrets: SecretSource) -> Auth:
    """What `auth` and `peer_auth` say; a placeholder where something was reported."""
    theirs = _read_peer_auth(peer, secrets)
    table = peer.table("auth")
    if table is None:
        if "auth" not in peer:
            peer.error("auth", "is missing", f"add {_PSK_EXAMPLE}")
        return _NOTHING, theirs or ()
    ours, both = _read_local(table, secrets, is_alone=theirs is not None)
    table.close()
    return ours, both if theirs is None else theirs


def _read_peer_auth(peer: Table, secrets: SecretSource) -> tuple[PeerAuthConfig, ...] | None:
    """None: there is no `peer_auth`."""
    value = peer.value("peer_auth", lambda value: value, None)
    if value is None:
        return None
    if type(value) is not list:
        table = peer.table("peer_auth")
        tables = [table] if table else []
    else:
        tables = peer.tables("peer_auth")
        if not 0 < len(tables) <= _MAX_PROOFS:
            peer.error("peer_auth", f"has {len(tables)} items", f"write 1 to {_MAX_PROOFS} tables")
    found = [_read_proof(table, secrets) for table in tables]
    return tuple(proof for proof in found if proof is not None)


def _read_local(table: Table, secrets: SecretSource, *, is_alone: bool) -> Auth:
    """What is ours; with it what is the peer's, unless `peer_auth` says that (`is_alone`)."""
    kind = _kind(table)
    for key in _THEIRS if is_alone else ():
        if key in table:
            table.error(key, "concerns the peer", "move it to peer_auth")
    if kind == "null":
        table.boolean("null", True)
        return NullAuthConfig(), (NullAuthConfig(),)
    if kind == "psk_file":
        return _read_psk(table, secrets), ()
    is_raw = "peer_key" in table or not any(key in table for key in ("certificate", "ca", "crl"))
    if is_raw and "certificate" not in table:
        if not is_alone and "peer_key" not in table:
            table.error("peer_key", "is missing", f"write {_RAW_EXAMPLE}, or {_CERTIFICATE_EXAMPLE}")
        return _read_key(table, secrets, None), (_read_raw_keys(table, secrets),)
    chain = _file(table, "certificate", secrets, parse_chain)
    ours = _read_key(table, secrets, chain)
    if is_alone:
        return ours, ()
    if "peer_key" in table:
        return ours, (_read_raw_keys(table, secrets),)
    anchors = _read_anchors(table, secrets)
    return (ours, (anchors,)) if chain else (_NOTHING, ())


def _read_proof(table: Table, secrets: SecretSource) -> PeerAuthConfig | None:
    """One table of `peer_auth`."""
    kind = _kind(table)
    proof: PeerAuthConfig | None = None
    for key in _OURS:
        if key in table:
            table.error(key, "is ours", "move it to auth")
    if kind == "null":
        table.boolean("null", True)
        proof = NullAuthConfig()
    elif kind == "psk_file":
        proof = _read_psk(table, secrets)
    elif "peer_key" in table:
        for key in ("ca", "crl"):
            if key in table:
                table.error(key, "stands beside peer_key", "make it a table of its own in peer_auth = [ … ]")
        proof = _read_raw_keys(table, secrets)
    else:
        proof = _read_anchors(table, secrets)
    _rsa_sha1(table)
    for key in _OURS:
        table.value(key, lambda value: value, None)
    table.close()
    return proof


def _kind(table: Table) -> str:
    """By what key it is told: psk_file, null, or "" for keys and certificates. Several are reported."""
    signature = [key for key in _SIGNATURE if key in table]
    present = [key for key in ("null", "psk_file") if key in table] + signature[:1]
    if len(present) > 1:
        first, other = (present[0], present[-1])
        table.error(first, f"stands beside {other}", "use one means, or auth and peer_auth")
    kind = "" if signature else present[0] if present else "psk_file"
    for key in ("null", "psk_file"):
        if key != kind:
            table.value(key, lambda value: value, None)
    if kind in ("null", "psk_file"):
        for key in _SIGNATURE:  # known words, so that a misspelt one is recognised
            table.value(key, lambda value: value, None)
    if kind == "null" and table.raw("null", bool) is False:
        table.error("null", "says nothing when it is false", "leave it away")
    return kind


def _read_psk(table: Table, secrets: SecretSource) -> PskAuthConfig:
    name = table.text("psk_file", "")
    inline = table.value("psk", lambda value: value, None)
    if inline is not None:
        remedy = f"put it into a file: {_PSK_EXAMPLE}"
        table.error("psk", "a secret does not belong into a configuration", remedy)
    if not name:
        if "psk_file" not in table and inline is None:
            table.error("psk_file", "is missing", f"write {_PSK_EXAMPLE}")
        return _NOTHING
    try:
        psk, is_weak = parse_secret(secrets(name))
    except ValueError as error:
        table.report.refuse(table.at("psk_file"), error)
        return _NOTHING
    if is_weak:
        message = (
            "the secret is short: whoever records one handshake as the peer's impostor can guess it offline"
        )
        table.report.warn(table.at("psk_file"), message, "write a new one with mplsec genkey")
    return PskAuthConfig(psk)


def _read_key(table: Table, secrets: SecretSource, chain: tuple[bytes, ...] | None) -> LocalAuthConfig:
    """Our key, with the chain that certifies it, if there is one."""
    key = _file(table, "key_file", secrets, parse_private_key, is_public=False)
    rsa_pss, rsa_sha1 = table.boolean("rsa_pss", True), _rsa_sha1(table)
    if key is None:
        return _NOTHING
    if chain and x509.load_der_x509_certificate(chain[0]).public_key() != key.public_key():
        table.error("key_file", "is not the key of the first certificate", "name the key that belongs to it")
        return _NOTHING
    return KeyAuthConfig(key, chain or (), rsa_pss, rsa_sha1)


def _rsa_sha1(table: Table) -> bool:
    is_allowed = table.boolean("rsa_sha1", False)
    if is_allowed:
        message = "peers that do not know RFC 7427 may authenticate with SHA-1, which is broken"
        table.report.warn(table.at("rsa_sha1"), message, "leave it away as soon as the peer is renewed")
    return is_allowed


def _read_anchors(table: Table, secrets: SecretSource) -> AnchorsConfig:
    anchors = _file(table, "ca", secrets, parse_anchors)
    crls = _file(table, "crl", secrets, parse_crls) if "crl" in table else ()
    table.value("peer_key", lambda value: value, None)
    return AnchorsConfig(anchors or (), crls or (), table.boolean("rsa_sha1", False))


def _read_raw_keys(table: Table, secrets: SecretSource) -> RawKeysConfig:
    keys = _file(table, "peer_key", secrets, parse_public_keys) if "peer_key" in table else ()
    for key in ("certificate", "ca", "crl"):
        table.value(key, lambda value: value, None)
    return RawKeysConfig(keys or (), table.boolean("rsa_sha1", False))


def _file(
    table: Table,
    key: str,
    secrets: SecretSource,
    parse: Callable[[bytes], T],
    *,
    is_public: bool = True,
) -> T | None:
    """The content of the file that `key` names; None, reported, when it is of no use."""
    name = table.text(key, "")
    if not name:
        if key not in table:
            table.error(key, "is missing", f"write {_CERTIFICATE_EXAMPLE}")
        return None
    try:
        return parse(secrets(name, is_public=is_public))
    except ValueError as error:
        table.report.refuse(table.at(key), error)
        return None
