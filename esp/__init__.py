"""ESP without input or output: SAs, transforms, replay windows, packets (RFC 4303), UDP (RFC 3948).

Must not know IKE, MPLS or sockets.
"""

from esp.demux import KEEPALIVE, NON_ESP_MARKER, Kind, classify, strip_marker
from esp.engine import InboundSad, Opened, Received, protect, unprotect
from esp.errors import DropReason, EspError, LifetimeExpired, SequenceExhausted, UsedUp
from esp.peek import Inside, Peeked, peek
from esp.replay import ReplayWindow
from esp.sa import InboundSa, OutboundSa
from esp.transforms import Transform, transform_for

__all__ = [
    "KEEPALIVE",
    "NON_ESP_MARKER",
    "DropReason",
    "EspError",
    "InboundSa",
    "InboundSad",
    "Inside",
    "Kind",
    "LifetimeExpired",
    "Opened",
    "OutboundSa",
    "Peeked",
    "Received",
    "ReplayWindow",
    "SequenceExhausted",
    "Transform",
    "UsedUp",
    "classify",
    "peek",
    "protect",
    "strip_marker",
    "transform_for",
    "unprotect",
]
