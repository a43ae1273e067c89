"""Plain IP packets in a Child SA, without labels: what may go in, and what came out of transport mode.

Knows nothing of VRFs and routes (RFC 4301 5.1 and 5.2, RFC 4303 3.1.1 and 3.3.4, RFC 3948 3.1.2).

    tunnel mode      the packet as it is                 next header 4 or 41
    transport mode   what follows its IP header          next header that of the packet; the outer header is its own
"""

from ipaddress import ip_address
from typing import Final

from mpls.child_policy import EgressPolicy
from mpls.drops import DropReason
from mpls.encapsulation import Mode
from mpls.ip import IPV4_HEADER_OCTETS, UDP, IpHeader, build_ip, internet_checksum

__all__ = ["check_plain", "open_transport"]

_TCP: Final = 6
_ICMPV6: Final = 58
_CHECKSUM_AT: Final = {_TCP: 16, UDP: 6, _ICMPV6: 2}
_BEFORE_ESP: Final = (0, 43, 44)
"""Extension headers that stand before ESP in transport mode: hop-by-hop options, routing, fragment."""


def check_plain(policy: EgressPolicy, packet: bytes) -> DropReason | None:
    """OUTSIDE_SELECTOR when an outbound packet is not what the child was made for (RFC 4301 5.1 step 3)."""
    header = IpHeader.parse(packet)
    if isinstance(header, DropReason):
        return header
    if not policy.admits_outbound(header):
        return DropReason.OUTSIDE_SELECTOR
    if policy.mode is Mode.TRANSPORT:
        is_whole = not header.is_fragment
        if header.version == 4:
            is_plain = header.upper_offset == IPV4_HEADER_OCTETS
        else:
            is_plain = packet[6] not in _BEFORE_ESP
        if not (is_whole and is_plain):
            return DropReason.OUTSIDE_SELECTOR
    return None


def open_transport(
    policy: EgressPolicy, next_header: int, payload: bytes, source: str, destination: str
) -> bytes | DropReason:
    """The packet that transport mode carried, under a header of the outer addresses; ADDRESS_SELECTOR.

    Behind a NAT its checksums are still those of the sender's addresses: they are set right, incrementally.
    """
    ends = ip_address(source).packed, ip_address(destination).packed
    if policy.original_addresses is not None:
        original = (ip_address(address).packed for address in policy.original_addresses)
        payload = _with_checksum_for(payload, next_header, b"".join(original), b"".join(ends))
    try:
        packet = build_ip(*ends, next_header, payload)
    except ValueError:
        return DropReason.MALFORMED_IP
    header = IpHeader.parse(packet)
    if isinstance(header, DropReason):
        return header
    return packet if policy.admits_addresses(header) else DropReason.ADDRESS_SELECTOR


def _with_checksum_for(payload: bytes, protocol: int, old: bytes, new: bytes) -> bytes:
    """The upper-layer header with its checksum moved from one pair of addresses to another (RFC 1624 3)."""
    at = _CHECKSUM_AT.get(protocol)
    if at is None or len(payload) < at + 2 or old == new:
        return payload
    checksum = payload[at : at + 2]
    if protocol == UDP and checksum == b"\0\0":
        return payload
    complement = bytes(octet ^ 0xFF for octet in checksum + old)
    moved = internet_checksum(complement + new) or (0xFFFF if protocol == UDP else 0)
    return payload[:at] + moved.to_bytes(2, "big") + payload[at + 2 :]
