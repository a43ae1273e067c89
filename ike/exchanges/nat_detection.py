"""NAT detection in messages: the two notifies, and what they say about a path (RFC 7296 2.23, RFC 4555 3.8).

Must not know sessions: it takes a message and a path and says what is between.
"""

from __future__ import annotations

from ike.config import Path
from ike.host import Host
from ike.nat import NatState, detection_hash, is_translated
from ike.numbers import NotifyType
from ike.wire.message import Message
from ike.wire.payloads import NotifyPayload


def nat_detection(
    host: Host, spi_i: bytes, spi_r: bytes, path: Path, *, is_forced: bool
) -> tuple[NotifyPayload, NotifyPayload]:
    """N(NAT_DETECTION_SOURCE_IP), N(NAT_DETECTION_DESTINATION_IP).

    `is_forced`: a source that nothing can match.
    """
    source = host.entropy.octets(20) if is_forced else detection_hash(spi_i, spi_r, path.local)
    return (
        NotifyPayload(NotifyType.NAT_DETECTION_SOURCE_IP, source),
        NotifyPayload(NotifyType.NAT_DETECTION_DESTINATION_IP, detection_hash(spi_i, spi_r, path.peer)),
    )


def nat_state(message: Message, path: Path, is_forced: bool) -> NatState:
    """What the peer's hashes say about the path on which they came (RFC 7296 2.23)."""
    sources, destinations = (
        [n.data for n in message.notifies if n.notify_type == kind]
        for kind in (NotifyType.NAT_DETECTION_SOURCE_IP, NotifyType.NAT_DETECTION_DESTINATION_IP)
    )
    return NatState(
        local_is_translated=is_translated(destinations, message.spi_i, message.spi_r, path.local),
        peer_is_translated=is_translated(sources, message.spi_i, message.spi_r, path.peer),
        is_forced=is_forced,
        is_supported=bool(sources and destinations),
        seen_as=destinations[0] if destinations else b"",
    )


def has_nat_detection(message: Message) -> bool:
    return message.notify(NotifyType.NAT_DETECTION_SOURCE_IP) is not None
