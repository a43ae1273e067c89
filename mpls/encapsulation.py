"""MPLS in IP, GRE and UDP, what stands between ESP and the label stack: RFC 4023, 2784 with 2890, 7510.

Knows nothing of VRFs and of what a label means; ESP itself and the outer IP header are elsewhere.

    transport mode   ESP | [GRE or UDP] | label stack | body             next header 137, 47 or 17
    tunnel mode      ESP | inner IP | [GRE or UDP] | label stack | body   next header 4 or 41
    none, tunnel     ESP | IP packet                                      next header 4 or 41, no labels
    none, transport  ESP | what follows the packet's IP header            next header that of the packet
"""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import ip_address
from typing import Final

from mpls import selectors
from mpls.drops import DropReason
from mpls.ip import IPV6_HEADER_OCTETS, UDP, Address, build_ip, internet_checksum, pseudo_header

GRE: Final = 47
MPLS_IN_IP: Final = 137
IPV4_IN_IP: Final = 4
IPV6_IN_IP: Final = 41
NO_NEXT_HEADER: Final = 59
MPLS_UNICAST: Final = 0x8847
MPLS_MULTICAST: Final = 0x8848
MPLS_UDP_PORT: Final = 6635
UDP_HEADER_OCTETS: Final = 8
_GRE_MPLS: Final = bytes.fromhex("00008847")
_PORTS: Final = MPLS_UDP_PORT.to_bytes(2, "big") * 2
_GRE_CHECKSUM: Final = 0x8000
_GRE_KEY: Final = 0x2000
_GRE_SEQUENCE: Final = 0x1000


class Mode(StrEnum):
    """The mode of the Child SA: in tunnel mode the MPLS-in-IP header is inside ESP."""

    TRANSPORT = "transport"
    TUNNEL = "tunnel"


class Encapsulation(IntEnum):
    """How MPLS stands in IP; the value is the IP protocol, 0 for plain IP packets without labels."""

    MPLS_IN_IP = MPLS_IN_IP
    MPLS_IN_GRE = GRE
    MPLS_IN_UDP = UDP
    NONE = 0

    @classmethod
    def parse(cls, text: str) -> "Encapsulation":
        """From its configuration name: mpls-in-ip, mpls-in-gre, mpls-in-udp or none; else ValueError."""
        try:
            return cls[text.upper().replace("-", "_")]
        except KeyError:
            raise ValueError(
                f"no encapsulation: {text!r} (known: mpls-in-ip, mpls-in-gre, mpls-in-udp, none)"
            ) from None

    @property
    def mask(self) -> int:
        """Its bit in key 3 of the selector; 0 for NONE."""
        return selectors.ENCAPSULATION_OF_PROTOCOL.get(self.value, 0)

    @property
    def shim_octets(self) -> int:
        """What stands between the IP header and the label stack."""
        return {GRE: len(_GRE_MPLS), UDP: UDP_HEADER_OCTETS}.get(self.value, 0)

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class GreOptions:
    """The optional GRE fields that are accepted; none is sent (RFC 4023 4). A key must have this value."""

    checksum: bool = False
    key: int | None = None
    sequence: bool = False


NO_GRE_OPTIONS: Final = GreOptions()


@dataclass(frozen=True, slots=True)
class Encapsulator:
    """How one Child SA wraps what it sends. Addresses: those of the MPLS-in-IP header in either mode."""

    encapsulation: Encapsulation
    mode: Mode
    local: Address
    peer: Address
    _fixed: tuple[int, bytes] | None = field(init=False, repr=False, compare=False)
    """Next header and what stands before the stack, where they are the same for all packets."""

    def __post_init__(self) -> None:
        if self.local.version != self.peer.version:
            raise ValueError(f"{self.local} and {self.peer} are not of one address family")
        shim = {Encapsulation.MPLS_IN_IP: b"", Encapsulation.MPLS_IN_GRE: _GRE_MPLS}.get(self.encapsulation)
        is_fixed = shim is not None and self.mode is Mode.TRANSPORT
        object.__setattr__(self, "_fixed", (self.encapsulation.value, shim) if is_fixed else None)

    def encapsulate(self, stack: bytes, body: bytes, dscp: int = 0) -> tuple[int, bytes]:
        """(ESP next header, ESP payload) for an encoded label stack and what it labels.

        Without labels (encapsulation none) the body is the packet itself. `dscp` marks the inner header of
        tunnel mode; its ECN field is Not-ECT, as the tail does not read it back (RFC 6040 4.1).
        """
        if self._fixed is not None:
            next_header, shim = self._fixed
            return next_header, shim + stack + body
        if self.encapsulation is Encapsulation.NONE and self.mode is Mode.TRANSPORT:
            if body[0] >> 4 == 4:
                return body[9], body[(body[0] & 15) * 4 :]
            return body[6], body[IPV6_HEADER_OCTETS:]
        if self.encapsulation is Encapsulation.NONE:
            return IPV4_IN_IP if body[0] >> 4 == 4 else IPV6_IN_IP, body
        mpls = stack + body
        if self.encapsulation is Encapsulation.MPLS_IN_GRE:
            mpls = _GRE_MPLS + mpls
        elif self.encapsulation is Encapsulation.MPLS_IN_UDP:
            mpls = self._udp(mpls)
        if self.mode is Mode.TRANSPORT:
            return self.encapsulation.value, mpls
        packet = build_ip(self.local.packed, self.peer.packed, self.encapsulation.value, mpls, dscp=dscp)
        return IPV4_IN_IP if self.local.version == 4 else IPV6_IN_IP, packet

    def wrapper(self, stack: bytes) -> tuple[int, bytes] | None:
        """ESP next header, and what `encapsulate` puts before each body, where that is the same for all."""
        if self._fixed is None:
            return None
        next_header, shim = self._fixed
        return next_header, shim + stack

    def encapsulate_batch(self, stack: bytes, bodies: list[bytes], dscp: int = 0) -> tuple[int, list[bytes]]:
        """As `encapsulate` for each of some bodies, at least one, of one IP version and under one stack."""
        payloads = [self.encapsulate(stack, body, dscp) for body in bodies]
        return payloads[0][0], [payload for _, payload in payloads]

    def _udp(self, mpls: bytes) -> bytes:
        """RFC 7510 3.1: on IPv4 the checksum may be zero, on IPv6 it is computed."""
        octet_count = (UDP_HEADER_OCTETS + len(mpls)).to_bytes(2, "big")
        if self.local.version == 4:
            return _PORTS + octet_count + b"\0\0" + mpls
        covered = pseudo_header(self.local.packed, self.peer.packed, UDP, UDP_HEADER_OCTETS + len(mpls))
        checksum = internet_checksum(covered + _PORTS + octet_count + b"\0\0" + mpls) or 0xFFFF
        return _PORTS + octet_count + checksum.to_bytes(2, "big") + mpls


def strip_gre(octets: bytes, options: GreOptions = NO_GRE_OPTIONS) -> bytes | DropReason:
    """The MPLS packet behind a GRE header (RFC 2784, 2890).

    GRE_HEADER: version or reserved bits not zero, an option not configured, a wrong key or checksum, cut off.
    NOT_MPLS: any protocol but 0x8847.
    """
    if octets[:4] == _GRE_MPLS:
        return octets[4:]
    if len(octets) < 4:
        return DropReason.GRE_HEADER
    flags = octets[0] << 8 | octets[1]
    if flags & ~(_GRE_CHECKSUM | _GRE_KEY | _GRE_SEQUENCE):
        return DropReason.GRE_HEADER
    offset = 4
    if flags & _GRE_CHECKSUM:
        if not options.checksum or internet_checksum(octets):
            return DropReason.GRE_HEADER
        offset += 4
    if flags & _GRE_KEY:
        if options.key is None or octets[offset : offset + 4] != options.key.to_bytes(4, "big"):
            return DropReason.GRE_HEADER
        offset += 4
    if flags & _GRE_SEQUENCE:
        if not options.sequence:
            return DropReason.GRE_HEADER
        offset += 4
    if offset > len(octets):
        return DropReason.GRE_HEADER
    if octets[2] << 8 | octets[3] != MPLS_UNICAST:
        return DropReason.NOT_MPLS
    return octets[offset:]


def strip_udp(octets: bytes, source: bytes, destination: bytes) -> bytes | DropReason:
    """The MPLS packet behind a UDP header (RFC 7510); the packed addresses are those of its IP header.

    UDP_HEADER: another destination port, a wrong length, a checksum neither right nor zero, cut off.
    """
    if len(octets) < UDP_HEADER_OCTETS or octets[4] << 8 | octets[5] != len(octets):
        return DropReason.UDP_HEADER
    if octets[2] << 8 | octets[3] != MPLS_UDP_PORT:
        return DropReason.UDP_HEADER
    if octets[6:8] != b"\0\0":
        covered = pseudo_header(source, destination, UDP, len(octets))
        if internet_checksum(covered + octets):
            return DropReason.UDP_HEADER
    return octets[UDP_HEADER_OCTETS:]


def strip(
    protocol: int,
    octets: bytes,
    source: str | bytes,
    destination: str | bytes,
    gre: GreOptions = NO_GRE_OPTIONS,
) -> bytes | DropReason:
    """The MPLS packet behind protocol 137, 47 or 17 (else NEXT_HEADER); addresses as text or packed."""
    if protocol == MPLS_IN_IP:
        return octets
    if protocol == GRE:
        return strip_gre(octets, gre)
    if protocol == UDP:
        return strip_udp(octets, ip_address(source).packed, ip_address(destination).packed)
    return DropReason.NEXT_HEADER


def is_cleartext_mpls(protocol: int, payload: bytes) -> bool:
    """Whether an IP payload is MPLS by its outside: 137, GRE with 0x8847 or 0x8848, UDP to port 6635."""
    if protocol == MPLS_IN_IP:
        return True
    if protocol == GRE:
        return len(payload) >= 4 and payload[2] << 8 | payload[3] in (MPLS_UNICAST, MPLS_MULTICAST)
    if protocol == UDP:
        return len(payload) >= 4 and payload[2] << 8 | payload[3] == MPLS_UDP_PORT
    return False
