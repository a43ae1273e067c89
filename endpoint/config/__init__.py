"""The configuration of an endpoint: one TOML file, every key checked, every problem told at once.

Knows nothing of sockets, of IKE engines or of packets: what comes out are frozen values (see `model.py`).
"""

import re
import time
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from endpoint.config.attach_checks import check_attachments
from endpoint.config.auth_checks import check_auth, check_validity
from endpoint.config.checks import check_classes, check_names
from endpoint.config.leaks import beyond_announce, check_leaks, read_leak
from endpoint.config.locate import locate_keys
from endpoint.config.model import (
    ANY_ADDRESS,
    EVERYTHING,
    AddressPair,
    AnchorsConfig,
    AttachConfig,
    AttachmentKind,
    Config,
    Dummies,
    DummiesWhen,
    EndpointConfig,
    FlowLabel,
    FrontDoor,
    KeyAuthConfig,
    LabelledConfig,
    LabelsPer,
    LeakConfig,
    LifetimeConfig,
    LocalAuthConfig,
    NullAuthConfig,
    PeerAuthConfig,
    PeerConfig,
    PeerVrfConfig,
    PoolConfig,
    PskAuthConfig,
    RawKeysConfig,
    Selectors,
    Start,
    StaticLabels,
    Udp,
    VrfConfig,
)
from endpoint.config.peer_checks import check_peers
from endpoint.config.pool_checks import check_pools
from endpoint.config.problems import ConfigError, Problem, Report
from endpoint.config.read import read_class, read_endpoint, read_vrf
from endpoint.config.read_peer import read_peer
from endpoint.config.read_pool import read_pool
from endpoint.config.rules import read_rule
from endpoint.config.secret import SecretSource, secrets_beside, secrets_from
from endpoint.config.table import Table
from ike.config import Mode
from mpls.encapsulation import Encapsulation

__all__ = [
    "ANY_ADDRESS",
    "EVERYTHING",
    "AddressPair",
    "AnchorsConfig",
    "AttachConfig",
    "AttachmentKind",
    "Config",
    "ConfigError",
    "Dummies",
    "DummiesWhen",
    "Encapsulation",
    "EndpointConfig",
    "FlowLabel",
    "FrontDoor",
    "KeyAuthConfig",
    "LabelledConfig",
    "LabelsPer",
    "LeakConfig",
    "LifetimeConfig",
    "LocalAuthConfig",
    "Mode",
    "NullAuthConfig",
    "PeerAuthConfig",
    "PeerConfig",
    "PeerVrfConfig",
    "PoolConfig",
    "Problem",
    "PskAuthConfig",
    "RawKeysConfig",
    "Selectors",
    "Start",
    "StaticLabels",
    "Udp",
    "VrfConfig",
    "beyond_announce",
    "load_config",
    "parse_config",
]

_MAX_OCTETS = 16 << 20
_AT_LINE = re.compile(r" \(at line ([0-9]+), column [0-9]+\)$")
_AT_END = " (at end of document)"


def load_config(path: Path) -> Config:
    """The configuration in a file; secret files are named relative to it. ConfigError has every problem."""
    file = str(path)
    try:
        with path.open("rb") as opened:
            content = opened.read(_MAX_OCTETS + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            [Problem(file, 1, "", f"cannot be read: {reason}", "name a readable file")]
        ) from None
    if len(content) > _MAX_OCTETS:
        raise ConfigError(
            [Problem(file, 1, "", f"has more than {_MAX_OCTETS} octets", "split the peers over hosts")]
        )
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, "", "is not UTF-8 text", "save it as UTF-8")]) from None
    return _parse(text, file, secrets_beside(path))


def parse_config(text: str, name: str, *, secrets: Mapping[str, bytes] | None = None) -> Config:
    """A configuration held in memory. `psk_file` names an entry of `secrets`; `name` stands for the file."""
    return _parse(text, name, secrets_from(secrets or {}))


def _parse(text: str, file: str, secrets: SecretSource) -> Config:
    report = _read_document(text, file)
    root = Table(report, (), report.document)
    endpoint = read_endpoint(root)
    classes = tuple(read_class(table) for table in root.tables("class", "[[class]]"))
    vrfs = tuple(read_vrf(table) for table in root.tables("vrf", "[[vrf]]"))
    vrf_by_name = {vrf.name: vrf for vrf in vrfs if vrf.name}
    peers = tuple(read_peer(table, vrf_by_name, secrets) for table in root.tables("peer", "[[peer]]"))
    pools = tuple(read_pool(table) for table in root.tables("pool", "[[pool]]"))
    config = Config(file, endpoint, vrfs, classes, peers, pools)
    rules = tuple(read_rule(table, config) for table in root.tables("crypto_map", "[[crypto_map]]"))
    leaks = tuple(read_leak(table, config) for table in root.tables("leak", "[[leak]]"))
    config = replace(config, leaks=leaks)
    root.close()
    checks = check_names, check_attachments, check_classes, check_peers, check_leaks, check_auth, check_pools
    for check in checks:
        check(config, report)
    check_validity(config, report, time.time())
    if report.problems:
        raise ConfigError(report.problems)
    return replace(config, crypto_map=rules, warnings=tuple(report.warnings))


def _read_document(text: str, file: str) -> Report:
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ConfigError([Problem(file, 1, "", "is nested too deeply", "write it flat")]) from None
    except ValueError as error:  # TOMLDecodeError, and int() about numbers of thousands of digits
        message = str(error)
        at = _AT_LINE.search(message)
        line = int(at[1]) if at else text.count("\n") + 1 if message.endswith(_AT_END) else 1
        said = _AT_LINE.sub("", message).removesuffix(_AT_END)
        raise ConfigError(
            [Problem(file, line, "", f"is not TOML: {said}", "see toml.io for the syntax")]
        ) from None
    return Report(file, document, locate_keys(text))
