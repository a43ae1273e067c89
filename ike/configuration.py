"""What a Configuration payload asks for and gives: addresses, DNS, subnets (RFC 7296 2.19, 3.15; RFC 8598).

Must not know exchanges, or where addresses come from. What an attribute says that makes no sense is passed over, as
unknown attributes are (RFC 7296 3.15.1); only the framing of the payload is its parser's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)

from ike.config import Path
from ike.numbers import CfgAttribute, CfgType
from ike.wire.identity import Identity
from ike.wire.payloads import ConfigAttribute, ConfigPayload

__all__ = [
    "AddressRequest",
    "Configuration",
    "Ends",
    "encode_reply",
    "encode_request",
    "read_reply",
    "read_request",
]

IpAddress = IPv4Address | IPv6Address
IpInterface = IPv4Interface | IPv6Interface
IpNetwork = IPv4Network | IPv6Network

MAX_SERVERS = 16
MAX_DOMAINS = 64
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_ADDRESS = {4: CfgAttribute.INTERNAL_IP4_ADDRESS, 6: CfgAttribute.INTERNAL_IP6_ADDRESS}
_DNS = {4: CfgAttribute.INTERNAL_IP4_DNS, 6: CfgAttribute.INTERNAL_IP6_DNS}


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """The authenticated peer of a session asks for addresses: one of each family that is in `addresses`.

    An unspecified address (0.0.0.0 or ::) stands for any; another one is what the peer would like to have, as it
    had it before perhaps. `is_only_one`: it said INITIAL_CONTACT, so its other sessions are gone.
    """

    session: int
    connection: str
    peer_id: Identity
    addresses: tuple[IpAddress, ...]
    is_only_one: bool


@dataclass(frozen=True, slots=True)
class Configuration:
    """What one end gives the other for as long as the session lasts, rekeys of the IKE SA included.

    `addresses`, each with the prefix of its link, 32 or 128 bits where none is told; `dns` servers; `domains` to
    ask them for, all if empty (RFC 8598); `subnets` to send traffic for (RFC 7296 3.15.2).
    """

    addresses: tuple[IpInterface, ...]
    dns: tuple[IpAddress, ...] = ()
    domains: tuple[str, ...] = ()
    subnets: tuple[IpNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class Ends:
    """What a DynamicSelector stands for at either end: addresses or prefixes, as text."""

    local: tuple[str, ...]
    peer: tuple[str, ...]

    @classmethod
    def of(
        cls, path: Path, assigned: Configuration | None = None, leased: Configuration | None = None
    ) -> Ends:
        """An end that was given addresses has those, any other that of the path."""
        return cls(_texts(assigned) or (path.local[0],), _texts(leased) or (path.peer[0],))


def _texts(configuration: Configuration | None) -> tuple[str, ...]:
    return tuple(str(one.ip) for one in configuration.addresses) if configuration else ()


def encode_request(addresses: Iterable[IpAddress]) -> ConfigPayload:
    """CP(CFG_REQUEST) for these addresses (unspecified: any) and the DNS servers of their families."""
    attributes: list[ConfigAttribute] = []
    for address in addresses:
        prefix = b"\x80" if address.version == 6 else b""
        value = b"" if address.is_unspecified else address.packed + prefix
        attributes += (
            ConfigAttribute(_ADDRESS[address.version], value),
            ConfigAttribute(_DNS[address.version]),
        )
    attributes.append(ConfigAttribute(CfgAttribute.INTERNAL_DNS_DOMAIN))
    return ConfigPayload(CfgType.CFG_REQUEST, tuple(attributes))


def read_request(payload: ConfigPayload) -> tuple[IpAddress, ...]:
    """The addresses that a CFG_REQUEST asks for, at most one of a family; unspecified: any."""
    wanted: dict[int, IpAddress] = {}
    for attribute in payload.attributes:
        value = attribute.value
        if attribute.type == CfgAttribute.INTERNAL_IP4_ADDRESS and len(value) in (0, 4):
            wanted.setdefault(4, IPv4Address(value or bytes(4)))
        elif attribute.type == CfgAttribute.INTERNAL_IP6_ADDRESS and len(value) in (0, 16, 17):
            wanted.setdefault(6, IPv6Address(value[:16] or bytes(16)))
    return tuple(wanted.values())


def encode_reply(given: Configuration, request: ConfigPayload) -> ConfigPayload:
    """CP(CFG_REPLY). DNS domains only go to a peer that asked for them (RFC 8598 3.1)."""
    attributes: list[ConfigAttribute] = []
    for one in given.addresses:
        if isinstance(one, IPv6Interface):
            value = one.ip.packed + bytes((one.network.prefixlen,))
            attributes.append(ConfigAttribute(CfgAttribute.INTERNAL_IP6_ADDRESS, value))
            continue
        attributes.append(ConfigAttribute(CfgAttribute.INTERNAL_IP4_ADDRESS, one.ip.packed))
        if one.network.prefixlen < 32:
            mask = ConfigAttribute(CfgAttribute.INTERNAL_IP4_NETMASK, one.netmask.packed)
            attributes.append(mask)
    attributes += (ConfigAttribute(_DNS[server.version], server.packed) for server in given.dns)
    if any(asked.type == CfgAttribute.INTERNAL_DNS_DOMAIN for asked in request.attributes):
        attributes += (
            ConfigAttribute(CfgAttribute.INTERNAL_DNS_DOMAIN, domain.encode("ascii"))
            for domain in given.domains
        )
    for subnet in given.subnets:
        address = subnet.network_address.packed
        if subnet.version == 4:
            value = address + subnet.netmask.packed
            attributes.append(ConfigAttribute(CfgAttribute.INTERNAL_IP4_SUBNET, value))
        else:
            value = address + bytes((subnet.prefixlen,))
            attributes.append(ConfigAttribute(CfgAttribute.INTERNAL_IP6_SUBNET, value))
    return ConfigPayload(CfgType.CFG_REPLY, tuple(attributes))


def read_reply(payload: ConfigPayload, wanted: Iterable[IpAddress]) -> Configuration | None:
    """What a CFG_REPLY gives; None without an address of a family that we `wanted`. At most one of each counts."""
    families = {address.version for address in wanted}
    addresses: dict[int, IpInterface] = {}
    for address in _addresses(payload.attributes):
        if address.version in families and _is_host(address.ip):
            addresses.setdefault(address.version, address)
    if not addresses:
        return None
    dns = [ip_address(value) for value in _values(payload, CfgAttribute.INTERNAL_IP4_DNS, 4)]
    dns += [ip_address(value) for value in _values(payload, CfgAttribute.INTERNAL_IP6_DNS, 16)]
    domains = (one.value for one in payload.attributes if one.type == CfgAttribute.INTERNAL_DNS_DOMAIN)
    texts = (domain.decode("ascii", "replace") for domain in domains)
    return Configuration(
        tuple(addresses.values()),
        tuple(filter(_is_host, dns))[:MAX_SERVERS],
        tuple(filter(_DOMAIN.fullmatch, texts))[:MAX_DOMAINS],
        tuple(_subnets(payload)),
    )


def _addresses(attributes: tuple[ConfigAttribute, ...]) -> Iterator[IpInterface]:
    masks = [a.value for a in attributes if a.type == CfgAttribute.INTERNAL_IP4_NETMASK and len(a.value) == 4]
    for attribute in attributes:
        value = attribute.value
        if attribute.type == CfgAttribute.INTERNAL_IP4_ADDRESS and len(value) == 4:
            length = _prefix_length(masks[0]) if masks else 32
            yield IPv4Interface((value, 32 if length is None else length))
        elif attribute.type == CfgAttribute.INTERNAL_IP6_ADDRESS and len(value) == 17 and value[16] <= 128:
            yield IPv6Interface((value[:16], value[16]))


def _subnets(payload: ConfigPayload) -> Iterator[IpNetwork]:
    for value in _values(payload, CfgAttribute.INTERNAL_IP4_SUBNET, 8):
        length = _prefix_length(value[4:])
        if length is not None:
            yield IPv4Network((value[:4], length), strict=False)
    for value in _values(payload, CfgAttribute.INTERNAL_IP6_SUBNET, 17):
        if value[16] <= 128:
            yield IPv6Network((value[:16], value[16]), strict=False)


def _values(payload: ConfigPayload, kind: CfgAttribute, octets: int) -> list[bytes]:
    return [one.value for one in payload.attributes if one.type == kind and len(one.value) == octets]


def _prefix_length(mask: bytes) -> int | None:
    """None for a mask whose ones are not all in front."""
    inverted = int.from_bytes(mask, "big") ^ 0xFFFFFFFF
    return None if inverted & (inverted + 1) else 32 - inverted.bit_length()


def _is_host(address: IpAddress) -> bool:
    return not (address.is_unspecified or address.is_multicast or address.is_loopback)
