"""Why a packet from a customer is dropped: a sentence for each reason, with what the configuration says.

It must not decide anything: the reason is that of the walk in mpls.outbound.
"""

from __future__ import annotations

from ipaddress import ip_address

from endpoint.config import Config, Selectors
from mpls.classes import dscp_text
from mpls.crypto_map import Action, Protect, Rule
from mpls.drops import DropReason
from mpls.ip import IpHeader
from mpls.labels import LabelStack
from mpls.vrf import Urpf, Vrf

__all__ = ["why_dropped"]


def why_dropped(
    config: Config,
    reason: DropReason,
    rule: Rule | None,
    attachment: str,
    vrf: Vrf,
    stack: LabelStack | None,
    header: IpHeader | None,
) -> str:
    """Of a packet that came in by the attachment; its stack and IP header are None if they cannot be read."""
    destination = ip_address(header.destination) if header else None
    match reason:
        case DropReason.MALFORMED_IP:
            return "not a whole IP packet: version, lengths, header checksum or extension headers are wrong"
        case DropReason.URPF:
            return _why_urpf(attachment, vrf, header)
        case DropReason.DISCARDED:
            return f"rule {rule.name} says discard" if rule else "a rule says discard"
        case DropReason.NO_CLASS:
            what = f"TC {stack.entries[0].tc}" if stack else f"DSCP {dscp_text(header.dscp if header else 0)}"
            return (
                f"no rule but the last one matches: {what} selects no class of VRF {vrf.name} that a peer "
                "may use, and no rule of [[crypto_map]] takes the packet"
            )
        case DropReason.NO_ROUTE | DropReason.NO_LABEL:
            action = rule.action if rule else None
            serves = f"{action.vrf}/{action.label_class}" if isinstance(action, Protect) else vrf.name
            who = f"peer {action.peer}" if isinstance(action, Protect) and action.peer else "no peer"
            verb = "does not serve" if who != "no peer" else "serves"
            return f"{who} {verb} {destination} in {serves}: {_known_prefixes(config, action)}"
        case DropReason.TTL:
            return "it came with TTL 0"
        case DropReason.TTL_EXPIRED:
            return "it came with TTL 1 and this PE is a hop; ICMP time exceeded goes back into the VRF"
        case DropReason.OUTSIDE_SELECTOR:
            return (
                "its labels are kept, but the peer behind its destination takes packets without labels only"
            )
        case DropReason.INNER_LABEL:
            return f"it comes with labels, and attachment {attachment} takes IP packets only"
        case DropReason.STACK_TRUNCATED:
            return "the octets end before an entry with the bottom-of-stack bit"
        case DropReason.STACK_DEPTH:
            return "the label stack is too deep"
        case DropReason.SPECIAL_LABEL | DropReason.NO_SERVICE_LABEL:
            return f"special-purpose labels may not stand there at attachment {attachment}"
        case DropReason.CLEARTEXT_MPLS:
            topmost = stack.entries[0].label if stack else 0
            return (
                f"label {topmost} is, or may become, one of a peer's: it comes out of ESP or not at all "
                "(RFC 4023 8.1); see endpoint.label_range and the local labels of the peers"
            )
        case DropReason.LABEL_UNBOUND:
            topmost = stack.entries[0].label if stack else 0
            return f"label {topmost} is none of the local_labels of attachment {attachment}"
        case DropReason.PAYLOAD:
            return "no IP packet of the right version follows the label stack"
        case _:
            return reason.value


def _why_urpf(attachment: str, vrf: Vrf, header: IpHeader | None) -> str:
    source = header.source if header else b""
    others = [one.name for one in vrf.attachments if vrf.is_behind(one.name, source)]
    if vrf.urpf is Urpf.LOOSE:
        return f"urpf = loose: VRF {vrf.name} has no route to {ip_address(source)} unless a peer binds one"
    where = (
        f"it is behind {', '.join(others)}"
        if others
        else "it is in no network or announced prefix of the VRF"
    )
    return f"urpf = strict: {ip_address(source)} does not belong behind {attachment}; {where}"


def _known_prefixes(config: Config, action: Action | None) -> str:
    """What the peers serve there, as far as the configuration says."""
    if not isinstance(action, Protect):
        return ""
    words: list[str] = []
    for peer in config.peers:
        granted = peer.vrf(action.vrf)
        if (
            granted is None
            or action.label_class not in granted.classes
            or action.peer not in (None, peer.name)
        ):
            continue
        labels = granted.labels_of(action.label_class)
        is_static = peer.selectors in (Selectors.PLAIN, Selectors.SECLABEL) and labels is not None
        prefixes = labels.routes if is_static and labels is not None else granted.accept
        words.append(f"{peer.name} has {' '.join(map(str, prefixes)) or 'no prefix'}")
    return "; ".join(words) or "no peer may use it"
