"""The inside of labelled attachments: whose a packet on a shared link is, and which labels a router gets there.

Knows nothing of links and frames, nor of peers: `outbound` and `inbound` have the walks, this is what stands
at their outer ends (RFC 3032 2.1, RFC 4023 8.1).
"""

from collections.abc import Sequence
from typing import Final

from mpls.labels import ENTRY_OCTETS, LabelEntry, SpecialLabel
from mpls.routes import PIPE_TTL
from mpls.vrf import Attachment

__all__ = ["attachment_of", "stack_toward"]

_EXPLICIT_NULL: Final = {4: SpecialLabel.IPV4_EXPLICIT_NULL, 6: SpecialLabel.IPV6_EXPLICIT_NULL}


def attachment_of(sharing: Sequence[Attachment], octets: bytes) -> Attachment:
    """Of the attachments that share a link: the one whose label stands on top of the packet.

    Nobody's packet goes to the first, whose walk refuses it by the same ranges: it is dropped there and counted.
    """
    if len(sharing) > 1 and len(octets) >= ENTRY_OCTETS:
        topmost = int.from_bytes(octets[:ENTRY_OCTETS], "big") >> 12
        for one in sharing:
            if one.takes_label(topmost):
                return one
    return sharing[0]


def stack_toward(side: Attachment, kept: bytes, tc: int, packet: bytes) -> bytes:
    """The encoded stack under which a router on the inside gets an IP packet.

    Labels that were kept go on as they are. Else one entry: the router's own label, or explicit null of the packet's
    version (RFC 4182 lets it stand alone as well), with the TTL of the pipe model.
    """
    if kept:
        return kept
    label = _EXPLICIT_NULL[packet[0] >> 4] if side.peer_label is None else side.peer_label
    return LabelEntry(label, tc, True, PIPE_TTL).encode()
