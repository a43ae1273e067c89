"""One line for each fact in the life of an SA, with its SPIs and, where something failed, the remedy.

Must not know how the line is written; secrets are not in any event.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from endpoint.plan import PeerPlan
from ike import (
    ChildSaClosed,
    ChildSaEstablished,
    ChildSaFailed,
    Configuration,
    Event,
    FailureReason,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    IkeSaRekeyed,
    PathRefused,
    PeerAddressChanged,
)
from ike.events import RequestRefused
from ike.numbers import NotifyType, name_of
from ike.proposals import format_proposal
from ike.wire.sa import Proposal

__all__ = ["REMEDIES", "describe"]

REMEDIES = {
    FailureReason.NO_ANSWER: "is the peer running, and do UDP 500 and 4500 get through?",
    FailureReason.NO_PROPOSAL_CHOSEN: "compare `ike` here with the peer's proposals",
    FailureReason.AUTHENTICATION_FAILED: (
        "compare the secret (psk_file) or the certificates, and both identities, on the two ends;"
        " `mplsec genkey` makes a secret"
    ),
    FailureReason.NO_ADDRESS: "give this identity an address at the peer, or enlarge its pool",
    FailureReason.EXTENSION_ABSENT: (
        "the peer does not negotiate MPLS-VRF selectors; `selectors` has values for such peers: plain, seclabel"
    ),
}
_CHILD_REMEDIES: dict[int, str] = {
    NotifyType.NO_PROPOSAL_CHOSEN: "compare `esp` here with the peer's proposals",
    NotifyType.TS_UNACCEPTABLE: (
        "compare VRF ids, classes, mode and encapsulation (with seclabel: the label's text) on the two ends"
    ),
}


def describe(event: Event, plans: Mapping[str, PeerPlan], peer: str | None = None) -> tuple[int, str]:
    """(level, one line); the line is empty for events that are no fact of an SA's life.

    `peer`: whose event it is, if that is not simply the connection's.
    """
    peer = peer or getattr(event, "connection", "")
    match event:
        case IkeSaEstablished():
            selectors = "native" if event.extension_data is not None else "plain"
            if event.connection in plans and event.extension_data is None:
                selectors = plans[event.connection].peer.selectors.value
            role = "initiator" if event.is_initiator else "responder"
            return logging.INFO, (
                f"peer {peer}: IKE SA {_pair(event.spi_i, event.spi_r)} established as {role} with"
                f" {event.peer_id.text()} on {event.path}, {format_proposal(event.proposal)},"
                f" {selectors} selectors{_given('our', event.assigned)}{_given('its', event.leased)}"
                f"{', authenticated again' if event.replaces is not None else ''}"
            )
        case IkeSaRekeyed():
            old = _pair(event.old_spi_i, event.old_spi_r)
            return logging.INFO, f"IKE SA {old} rekeyed: {_pair(event.spi_i, event.spi_r)}"
        case IkeSaFailed():
            remedy = REMEDIES.get(event.reason)
            what = (
                "no IKE SA" if event.replaces is None else "not authenticated again, the old IKE SA goes on"
            )
            return logging.ERROR, (
                f"peer {peer or 'unknown'}: {what}: {event.reason.value.upper()}"
                f"{_detail(event.detail)}{f'; remedy: {remedy}' if remedy else ''}"
            )
        case IkeSaClosed():
            return logging.INFO, (f"peer {peer}: IKE SA closed: {event.reason.value}{_detail(event.detail)}")
        case ChildSaEstablished():
            child = event.child
            kind = "rekeyed" if event.replaces else "established"
            return logging.INFO, (
                f"peer {peer}: child {child.name} {kind}, SPIs {child.spi_in.hex()} in"
                f" {child.spi_out.hex()} out, {child.mode.value} mode, {_esp(child.proposal)},"
                f" {'in UDP' if child.udp_encapsulation else 'protocol 50'}"
            )
        case ChildSaFailed():
            notify = "" if event.notify_type is None else name_of(NotifyType, event.notify_type)
            reason = f"{notify}{_detail(event.detail)}".strip() or "no reason is known"
            return logging.ERROR, (
                f"peer {peer}: no child {event.child}: {reason}{_child_remedy(event.notify_type)}"
            )
        case ChildSaClosed():
            return logging.INFO, (
                f"peer {peer}: child with SPIs {event.spi_in.hex()} in {event.spi_out.hex()} out"
                f" closed: {event.reason.value}"
            )
        case RequestRefused():
            name = name_of(NotifyType, event.notify_type)
            if event.notify_type == NotifyType.TEMPORARY_FAILURE:
                return (
                    logging.INFO,
                    f"peer {peer}: request put off: {name}{_detail(event.detail)}",
                )
            return logging.WARNING, (
                f"peer {peer}: request refused: {name}{_detail(event.detail)}"
                f"{_child_remedy(event.notify_type)}"
            )
        case PeerAddressChanged():
            return logging.INFO, f"the path is now {event.path}"
        case PathRefused():
            return logging.WARNING, f"{event.path} was not accepted: {event.detail}"
    return logging.DEBUG, ""


def _given(whose: str, configuration: Configuration | None) -> str:
    addresses = " ".join(str(address) for address in configuration.addresses) if configuration else ""
    return f", {whose} address {addresses}" if addresses else ""


def _child_remedy(notify_type: int | None) -> str:
    remedy = None if notify_type is None else _CHILD_REMEDIES.get(notify_type)
    return f"; remedy: {remedy}" if remedy else ""


def _pair(spi_i: bytes, spi_r: bytes) -> str:
    return f"{spi_i.hex()}_i {spi_r.hex()}_r"


def _detail(detail: str) -> str:
    return f" ({detail})" if detail else ""


def _esp(proposal: Proposal) -> str:
    return format_proposal(proposal)
