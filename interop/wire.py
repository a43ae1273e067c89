"""Views of a decoded capture: IKE messages and the children they negotiate, ESP packets with what is inside.

Must not know: how the packets came about, nor our own codecs. Numbers: RFC 7296, 4303, 4023, 9478.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .capture import Field, Packet, describe

IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL = 34, 35, 36, 37
SA, KE, AUTH, NONCE, NOTIFY, DELETE, TSI, TSR = 33, 34, 39, 40, 41, 42, 44, 45
SK, SKF = 46, 53
NO_PROPOSAL_CHOSEN = 14
TS_UNACCEPTABLE, INITIAL_CONTACT, USE_TRANSPORT_MODE, REKEY_SA = 38, 16384, 16391, 16393
CHILDLESS_IKEV2_SUPPORTED = 16418
PROTOCOL_IKE, PROTOCOL_ESP = 1, 3
TS_SECLABEL = 10
MPLS_IN_IP, GRE, ESP, IPV6 = 137, 47, 50, 41
GRE_MPLS = 0x8847
ECHO_REPLY, ECHO_REQUEST = 0, 8
OF_ICMPV6 = {128: ECHO_REQUEST, 129: ECHO_REPLY}


@dataclass(frozen=True)
class Payload:
    """A payload of an IKE message, with its generic header in `octets`."""

    type: int
    octets: bytes
    field: Field


@dataclass(frozen=True)
class IkeMessage:
    """One IKE message, decrypted; one that came in fragments (RFC 7383) is in the packet that completed it."""

    packet: Packet
    source: str
    spi_i: str
    exchange: int
    message_id: int
    is_response: bool
    is_from_initiator: bool
    payloads: tuple[Payload, ...]
    fragments: int = 1
    """How many it came in."""

    @cached_property
    def notifies(self) -> set[int]:
        """Types of the notifies in it."""
        numbers = (
            payload.field.number("isakmp.notify.msgtype")
            for payload in self.payloads
            if payload.type == NOTIFY
        )
        return {number for number in numbers if number is not None}

    def payload(self, kind: int) -> Payload | None:
        return next((payload for payload in self.payloads if payload.type == kind), None)

    @property
    def deletes_ike_sa(self) -> bool:
        """Whether it has a Delete for its IKE SA (RFC 7296 3.11)."""
        return any(one.type == DELETE and one.octets[4] == PROTOCOL_IKE for one in self.payloads)

    @property
    def deleted_spis(self) -> set[int]:
        """SPIs of the Child SAs that it deletes."""
        octets = [
            one.octets[8:] for one in self.payloads if one.type == DELETE and one.octets[4] == PROTOCOL_ESP
        ]
        return {int.from_bytes(spis[at : at + 4]) for spis in octets for at in range(0, len(spis), 4)}


@dataclass(frozen=True)
class ChildNegotiation:
    """Request and answer that make a child, or refuse it."""

    request: IkeMessage
    response: IkeMessage

    @property
    def is_accepted(self) -> bool:
        return self.response.payload(SA) is not None and self.response.payload(TSR) is not None

    @property
    def spis(self) -> dict[str, int]:
        """For each side's address the SPI that it wants to receive on."""
        return {message.source: _spi(message) for message in (self.request, self.response) if _spi(message)}

    @property
    def labels(self) -> set[str]:
        """Security labels (RFC 9478) of both selector payloads of the answer; of the request if refused."""
        message = self.response if self.is_accepted else self.request
        return {label for kind in (TSI, TSR) for label in _labels(message.payload(kind))}

    @property
    def protocols(self) -> set[int]:
        """Protocols of the address selectors of the answer."""
        found = set()
        for kind in (TSI, TSR):
            payload = self.response.payload(kind)
            if payload is not None:
                found |= {int(shown, 0) for shown in payload.field.all("isakmp.ts.protoid")}
        return found

    @property
    def is_transport(self) -> bool:
        """Whether both sides agreed on transport mode."""
        return USE_TRANSPORT_MODE in self.request.notifies & self.response.notifies

    @property
    def has_esn(self) -> bool:
        """Whether extended sequence numbers were agreed."""
        payload = self.response.payload(SA)
        return payload is not None and [int(one, 0) for one in payload.field.all("isakmp.tf.id.esn")] == [1]

    @property
    def is_rekey(self) -> bool:
        return REKEY_SA in self.request.notifies

    @property
    def rekeyed_spi(self) -> int:
        """The SPI that REKEY_SA names: the one on which the requester receives (RFC 7296 1.3.3)."""
        for payload in self.request.payloads:
            octets = payload.octets
            if payload.type == NOTIFY and int.from_bytes(octets[6:8]) == REKEY_SA:
                return int.from_bytes(octets[8 : 8 + octets[5]])
        return 0


@dataclass(frozen=True)
class IkeRekey:
    """Request and answer of CREATE_CHILD_SA that replace an IKE SA; `spi_i` is the requester's new SPI."""

    request: IkeMessage
    response: IkeMessage
    spi_i: str


@dataclass(frozen=True)
class EspPacket:
    """An ESP packet; `next_header` is None when it could not be decrypted."""

    packet: Packet
    source: str
    destination: str
    is_udp_encapsulated: bool
    spi: int
    sequence: int
    next_header: int | None
    inner: tuple[Field, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of what is inside, from the outside to the inside."""
        return tuple(layer.name for layer in self.inner)

    @property
    def labels(self) -> list[tuple[int | None, int | None]]:
        """(label, S bit) of each entry of the label stack."""
        return [
            (entry.number("mpls.label"), entry.number("mpls.bottom"))
            for entry in self.inner
            if entry.name == "mpls"
        ]

    @property
    def ping(self) -> tuple[int, str, str, int] | None:
        """(ICMP type, source, destination, sequence) of the innermost packet when it is an echo.

        The types of ICMPv6 are told by those of ICMP.
        """
        if self.layers[-2:] not in (("ip", "icmp"), ("ipv6", "icmpv6")):
            return None
        address, icmp = self.inner[-2:]
        kind = icmp.number(f"{icmp.name}.type")
        number = "icmp.seq" if icmp.name == "icmp" else "icmpv6.echo.sequence_number"
        sequence = icmp.number(number)
        kind = OF_ICMPV6.get(kind or 0, kind) if icmp.name == "icmpv6" else kind
        if kind not in (ECHO_REQUEST, ECHO_REPLY) or sequence is None:
            return None
        return kind, address.first(f"{address.name}.src"), address.first(f"{address.name}.dst"), sequence

    @property
    def ping_id(self) -> int | None:
        """Identifier of the echo that is innermost: which run of ping it belongs to."""
        icmp = self.inner[-1] if self.ping else None
        return (
            icmp.number("icmp.ident" if icmp.name == "icmp" else "icmpv6.echo.identifier") if icmp else None
        )

    @property
    def dscp(self) -> int | None:
        """DSCP of the innermost IP header."""
        found = [layer.number("ip.dsfield.dscp") for layer in self.inner if layer.name == "ip"]
        return found[-1] if found else None

    @property
    def gre_protocol(self) -> int | None:
        return next((layer.number("gre.proto") for layer in self.inner if layer.name == "gre"), None)

    @property
    def gre_options(self) -> set[str]:
        """Which of checksum, key and sequence_number the GRE header has (RFC 2784, 2890)."""
        return {
            name
            for layer in self.inner
            if layer.name == "gre"
            for name in ("checksum", "key", "sequence_number")
            if layer.number(f"gre.flags.{name}")
        }

    def __str__(self) -> str:
        return describe(self.packet)


def ike_messages(packets: list[Packet]) -> list[IkeMessage]:
    """All IKE messages, in the order of the capture. What is of a fragment alone is in `ike_fragments`."""
    messages = []
    for packet in packets:
        header = packet.layer("isakmp")
        if header is None or is_error(packet):
            continue
        inside = [
            field
            for field in header.walk()
            if field.name == "isakmp.enc.contained" or _is_fragment_payload(field)
        ]
        payloads = tuple(
            Payload(int(field.show), bytes.fromhex(field.value), field)
            for level in (header, *inside)
            for field in level.inner
            if field.name == "isakmp.typepayload"
        )
        fragments = header.number("isakmp.frag.total") or 1
        if fragments > 1 and all(payload.type == SKF for payload in payloads):
            continue
        flags = header.number("isakmp.flags") or 0
        messages.append(
            IkeMessage(
                packet=packet,
                source=ends(packet)[0],
                spi_i=header.first("isakmp.ispi").replace(":", ""),
                exchange=header.number("isakmp.exchangetype") or 0,
                message_id=header.number("isakmp.messageid") or 0,
                is_response=bool(flags & 0x20),
                is_from_initiator=bool(flags & 0x08),
                payloads=payloads,
                fragments=fragments,
            )
        )
    return messages


def ike_fragments(packets: list[Packet]) -> list[tuple[Packet, int, int]]:
    """Every packet with a fragment of an IKE message, its number from 1 and their total (RFC 7383)."""
    found = []
    for packet in packets:
        header = packet.layer("isakmp")
        if header is not None and not is_error(packet) and (total := header.number("isakmp.frag.total")):
            found.append((packet, header.number("isakmp.frag.number") or 0, total))
    return found


def is_error(packet: Packet) -> bool:
    """Whether it is an ICMP error: that quotes what it refuses."""
    return "icmp" in packet.stack or "icmpv6" in packet.stack


def _is_fragment_payload(field: Field) -> bool:
    """Whether it is an Encrypted Fragment payload; the one that completes the message has all payloads in it."""
    return field.name == "isakmp.typepayload" and field.show == str(SKF)


def child_negotiations(packets: list[Packet]) -> list[ChildNegotiation]:
    """Every exchange that asked for a child, with its answer; an unanswered one is left out."""
    messages = ike_messages(packets)
    answers = {_exchange(message): message for message in messages if message.is_response}
    requests = {
        _exchange(message): message
        for message in messages
        if not message.is_response
        and message.exchange in (IKE_AUTH, CREATE_CHILD_SA)
        and message.payload(TSI) is not None
    }
    return [ChildNegotiation(request, answers[key]) for key, request in requests.items() if key in answers]


def ike_rekeys(packets: list[Packet]) -> list[IkeRekey]:
    """Every accepted exchange that rekeys an IKE SA."""
    messages = ike_messages(packets)
    answers = {_exchange(message): message for message in messages if message.is_response}
    found = []
    for request in messages:
        answer = answers.get(_exchange(request))
        if (
            request.exchange == CREATE_CHILD_SA
            and not request.is_response
            and request.payload(TSI) is None
            and answer is not None
            and (offer := request.payload(SA)) is not None
            and answer.payload(SA) is not None
        ):
            found.append(IkeRekey(request, answer, offer.field.first("isakmp.spi").replace(":", "")))
    return found


def esp_packets(packets: list[Packet]) -> list[EspPacket]:
    """All ESP packets, in the order of the capture."""
    found = []
    for packet in packets:
        header = packet.layer("esp")
        if header is None or {"icmp", "icmpv6"} & set(packet.stack[: packet.stack.index("esp")]):
            continue
        source, destination = ends(packet)
        found.append(
            EspPacket(
                packet=packet,
                source=source,
                destination=destination,
                is_udp_encapsulated=packet.stack.index("esp") > 0
                and "udp" in packet.stack[: packet.stack.index("esp")],
                spi=header.number("esp.spi") or 0,
                sequence=header.number("esp.sequence") or 0,
                next_header=header.number("esp.protocol"),
                inner=packet.layers[packet.stack.index("esp") + 1 :],
            )
        )
    return found


def in_clear(packets: list[Packet]) -> list[Packet]:
    """Packets that show MPLS, GRE or a customer's address (10.0.0.0/8, fd00::/16) outside of ESP."""

    def is_clear(layer: Field) -> bool:
        addresses = [layer.first(f"{ip}.{end}") for ip in ("ip", "ipv6") for end in ("src", "dst")]
        return (
            layer.name in ("mpls", "gre")
            or layer.number("ip.proto") in (MPLS_IN_IP, GRE)
            or layer.number("ipv6.nxt") in (MPLS_IN_IP, GRE)
            or any(address.startswith(("10.", "fd00:")) for address in addresses)
        )

    found = []
    for packet in packets:
        outside = packet.stack.index("esp") if "esp" in packet.stack else len(packet.stack)
        if any(is_clear(layer) for layer in packet.layers[:outside]):
            found.append(packet)
    return found


def ends(packet: Packet) -> tuple[str, str]:
    """Source and destination of the outermost IP header."""
    outer = next((layer for layer in packet.layers if layer.name in ("ip", "ipv6")), None)
    return (outer.first(f"{outer.name}.src"), outer.first(f"{outer.name}.dst")) if outer else ("", "")


def _exchange(message: IkeMessage) -> tuple[str, int, bool]:
    """What request and answer have in common: SA, message ID, and which side asked."""
    return message.spi_i, message.message_id, message.is_from_initiator != message.is_response


def _spi(message: IkeMessage) -> int:
    payload = message.payload(SA)
    shown = payload.field.first("isakmp.spi").replace(":", "") if payload else ""
    return int(shown, 16) if shown else 0


def _labels(payload: Payload | None) -> set[str]:
    """Security labels of a TSi or TSr payload, without the zero octet at their end.

    Wireshark shows their type and not their octets: so the selectors are walked here (RFC 7296 section 3.13).
    """
    labels = set()
    octets = payload.octets[8:] if payload else b""
    while len(octets) >= 4:
        size = int.from_bytes(octets[2:4])
        if octets[0] == TS_SECLABEL:
            labels.add(octets[4:size].removesuffix(b"\0").decode("ascii", "replace"))
        octets = octets[max(size, 4) :]
    return labels
