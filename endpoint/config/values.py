"""Parsers of single values: addresses, prefixes, names, DSCP and protocol names, durations, label ranges.

Knows nothing of tables and keys. Each takes the TOML value as it is and raises BadValue, with a remedy.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from endpoint.config.problems import BadValue, did_you_mean, quoted
from endpoint.config.table import kind_of
from esp.replay import LARGEST_WINDOW, SMALLEST_WINDOW
from mpls.classes import DSCP_NAMES

Prefix = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class AddressRange:
    """`first` to `last`, both included. `network`: the prefix that it was written as."""

    first: Address
    last: Address
    network: Prefix | None = None

    @property
    def count(self) -> int:
        return int(self.last) - int(self.first) + 1

    def addresses(self, count: int) -> Iterator[Address]:
        """The first `count` of them."""
        for offset in range(count):
            yield self.first + offset

    def overlaps(self, other: "AddressRange") -> bool:
        if self.first.version != other.first.version:
            return False
        return int(self.first) <= int(other.last) and int(other.first) <= int(self.last)

    def __str__(self) -> str:
        return str(self.network or f"{self.first}-{self.last}")


LOWEST_LABEL, HIGHEST_LABEL = 16, (1 << 20) - 1

PROTOCOL_BY_NAME = {
    "icmp": 1,
    "ipip": 4,
    "tcp": 6,
    "udp": 17,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "ospf": 89,
    "sctp": 132,
    "mpls-in-ip": 137,
}

# Names go into TS_MPLS_VRF and, where a peer uses security labels, into an ASCII string that `;` would end.
NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")
SECLABEL_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_INTERFACE = re.compile(r"[^\s/:%\x00-\x20\x7f]{1,15}")
_NETNS = re.compile(r"[A-Za-z0-9._@+-]{1,64}")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_S = 366 * 86400.0
_COUNT = re.compile(r"([0-9]{1,18})([kMGT]?)")
_MULTIPLES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def text_of(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise BadValue(f"{what} must be text in quotes, not {kind_of(value)}", "put it in quotes")
    return value


def parse_name(value: object) -> str:
    name = text_of(value, "a name")
    if not NAME.fullmatch(name):
        raise BadValue(f"{quoted(name)} is no name", "use 1 to 64 of A-Z a-z 0-9 . _ : -")
    return name


def parse_interface(value: object) -> str:
    name = text_of(value, "an interface name")
    if not _INTERFACE.fullmatch(name) or name in (".", ".."):
        raise BadValue(f"{quoted(name)} is no interface name", "use 1 to 15 characters, no space, no /")
    return name


def parse_netns(value: object) -> str:
    name = text_of(value, "a namespace")
    if not _NETNS.fullmatch(name) or name in (".", ".."):
        raise BadValue(f"{quoted(name)} is no namespace name", "use a name that `ip netns` shows")
    return name


def parse_address(value: object) -> Address:
    text = text_of(value, "an address")
    try:
        address = ip_address(text)
    except ValueError:
        raise BadValue(f"{quoted(text)} is no IPv4 or IPv6 address", 'write it like "192.0.2.1"') from None
    if address.is_unspecified or address.is_multicast or "%" in text:
        raise BadValue(f"{quoted(text)} is not the address of one host", "use a unicast address")
    return address


def parse_prefix(value: object) -> Prefix:
    """A prefix without host bits."""
    text = text_of(value, "a prefix")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise BadValue(f"{quoted(text)} is no prefix", 'write it like "10.1.0.0/24"') from None
    if "%" in text:
        raise BadValue(f"{quoted(text)} names a scope", "leave the part from % on away")
    if network.network_address != ip_address(text.partition("/")[0]):
        raise BadValue(f"{quoted(text)} has bits beyond its length", f"write {quoted(str(network))}")
    return network


def parse_interface_address(value: object) -> str:
    """An address with the length of its network: "10.1.0.1/24"."""
    text = text_of(value, "an address")
    address, slash, _ = text.partition("/")
    try:
        network = ip_network(text, strict=False)
        parse_address(address)
    except ValueError:
        raise BadValue(f"{quoted(text)} is no interface address", 'write it like "10.1.0.1/24"') from None
    if not slash:
        raise BadValue(f"{quoted(text)} has no prefix length", f"write {quoted(f'{text}/24')} or what fits")
    return f"{ip_address(address)}/{network.prefixlen}"


def parse_address_range(value: object) -> AddressRange:
    """Addresses for hosts: a prefix less its network and broadcast addresses, or "10.9.0.10-10.9.0.99"."""
    text = text_of(value, "a range of addresses")
    first_text, dash, last_text = text.partition("-")
    if dash:
        first, last = parse_address(first_text), parse_address(last_text)
        if first.version != last.version or int(first) > int(last):
            raise BadValue(f"{quoted(text)} is no range", "write the lower address first, of one IP version")
        return AddressRange(first, last)
    network = parse_prefix(value)
    is_small = network.prefixlen >= network.max_prefixlen - 1
    skipped_last = 0 if is_small or network.version == 6 else 1
    return AddressRange(
        network.network_address + (0 if is_small else 1), network.broadcast_address - skipped_last, network
    )


def parse_domain(value: object) -> str:
    name = text_of(value, "a domain")
    if not _DOMAIN.fullmatch(name):
        raise BadValue(f"{quoted(name)} is no domain", 'write it like "corp.example"')
    return name


def parse_dscp(value: object) -> int:
    """A DSCP by name or number, 0 to 63 (RFC 2474)."""
    if type(value) is int:
        if 0 <= value < 64:
            return value
        raise BadValue(f"DSCP {quoted(value)} is out of range", 'use 0 to 63, or a name like "ef"')
    name = text_of(value, "a DSCP")
    try:
        return DSCP_NAMES[name.lower()]
    except KeyError:
        raise BadValue(f"unknown DSCP {quoted(name)}", did_you_mean(name.lower(), DSCP_NAMES)) from None


def parse_outer_dscp(value: object) -> int | None:
    """A DSCP, or None for "copy"."""
    return None if value == "copy" else parse_dscp(value)


def parse_tfc(value: object) -> int:
    """Octets, "off" for none, "mtu" for as many as there can be."""
    if value in ("off", "mtu"):
        return 65535 if value == "mtu" else 0
    if type(value) is int and 1 <= value <= 65535:
        return value
    raise BadValue(f"{quoted(value)} is no size to pad to", 'use "mtu", "off" or octets of the inner packet')


def parse_replay_window(value: object) -> int:
    """Packets, "off" for none."""
    if value == "off":
        return 0
    if type(value) is int and SMALLEST_WINDOW <= value <= LARGEST_WINDOW:
        return value
    remedy = f'use {SMALLEST_WINDOW} to {LARGEST_WINDOW} packets, or "off"'
    raise BadValue(f"{quoted(value)} is no replay window", remedy)


def parse_tc(value: object) -> int:
    if type(value) is int and 0 <= value <= 7:
        return value
    raise BadValue(f"{quoted(value)} is no traffic class", "use 0 to 7 (the TC of a label entry, RFC 5462)")


def parse_protocol(value: object) -> int:
    if type(value) is int:
        if 0 <= value <= 255:
            return value
        raise BadValue(f"protocol {quoted(value)} is out of range", 'use 0 to 255, or a name like "udp"')
    name = text_of(value, "a protocol")
    try:
        return PROTOCOL_BY_NAME[name.lower()]
    except KeyError:
        raise BadValue(
            f"unknown protocol {quoted(name)}", did_you_mean(name.lower(), PROTOCOL_BY_NAME)
        ) from None


def parse_label(value: object) -> int:
    if type(value) is int and LOWEST_LABEL <= value <= HIGHEST_LABEL:
        return value
    raise BadValue(f"{quoted(value)} is no MPLS label", f"use {LOWEST_LABEL} to {HIGHEST_LABEL}")


def parse_label_range(value: object) -> tuple[int, int]:
    """A label, or a range as "1000-1999"."""
    return _parse_range(value, 0, HIGHEST_LABEL, "label", "1000-1999")


def parse_port_range(value: object) -> tuple[int, int]:
    """A port, or a range as "5000-5999"."""
    return _parse_range(value, 0, 65535, "port", "5000-5999")


def _parse_range(value: object, lowest: int, highest: int, what: str, example: str) -> tuple[int, int]:
    if type(value) is int:
        first = last = value
    else:
        text = text_of(value, f"a {what} range")
        parts = text.split("-")
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            raise BadValue(f"{quoted(text)} is no {what} range", f"write a number, or {quoted(example)}")
        first, last = int(parts[0]), int(parts[1])
    if not lowest <= first <= last <= highest:
        raise BadValue(
            f"{quoted(value)} is no {what} range", f"use {lowest} to {highest}, the lower one first"
        )
    return first, last


def parse_duration(value: object) -> float | None:
    """Seconds from a number or from text as "90s", "1h"; None for "off"."""
    if value == "off":
        return None
    if isinstance(value, int | float) and type(value) is not bool:
        seconds = float(value) if abs(value) < 1 << 64 else _LONGEST_S * 2
    else:
        text = text_of(value, "a duration")
        match = _DURATION.fullmatch(text)
        if not match:
            raise BadValue(
                f"{quoted(text)} is no duration", 'write seconds, or "90s", "10m", "1h", "1d", "off"'
            )
        seconds = int(match[1]) * _SECONDS[match[2]]
    if not 0.1 <= seconds <= _LONGEST_S:
        raise BadValue(f"{quoted(value)} is out of range", 'use 0.1 seconds to 366 days, or "off"')
    return seconds


def parse_packets(value: object) -> int | None:
    """How many packets an SA may carry, from a number or from text as "100M"; None for "off"."""
    return _parse_count(value, 100, 2**63, "packets")


def parse_octets(value: object) -> int | None:
    """How many octets an SA may carry, from a number or from text as "500G"; None for "off"."""
    return _parse_count(value, 10_000, 2**63, "octets")


def _parse_count(value: object, lowest: int, highest: int, what: str) -> int | None:
    if value == "off":
        return None
    if type(value) is int:
        count = value
    else:
        text = text_of(value, f"a number of {what}")
        match = _COUNT.fullmatch(text)
        if not match:
            remedy = 'write a number, or one with k, M, G or T behind it, or "off"'
            raise BadValue(f"{quoted(text)} is no number of {what}", remedy)
        count = int(match[1]) * _MULTIPLES[match[2]]
    if not lowest <= count <= highest:
        raise BadValue(f"{quoted(value)} {what} are out of range", f'use {lowest} to 2^63, or "off"')
    return count
