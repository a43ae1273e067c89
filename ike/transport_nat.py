"""Transport mode through NATs: whose address a selector names is seen differently at each end (RFC 7296 2.23.1).

Must not know exchanges or keys. What the peer sent is rewritten to the addresses of the path as this end sees
them, before anything is looked up or compared; what this end sends is in its own view and is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from ike.config import Path
from ike.nat import NatState
from ike.selectors import AddressSelector, Selector, Selectors, TrafficSelectors

__all__ = ["OriginalAddresses", "is_host_to_host", "moved", "seen_from_here"]


@dataclass(frozen=True, slots=True)
class OriginalAddresses:
    """The two ends as the peer's selectors named them (NAT-OA): with these it computes checksums (RFC 3948 3.1.2)."""

    local: str
    peer: str


def is_host_to_host(ts: TrafficSelectors) -> bool:
    """Transport mode is between two hosts: all addresses of a payload are one address."""
    return all(len(_ends(payload)) == 1 for payload in (ts.tsi, ts.tsr))


def seen_from_here(
    ts: TrafficSelectors, path: Path, nat: NatState, *, tsi_is_local: bool
) -> tuple[TrafficSelectors, OriginalAddresses | None]:
    """The peer's transport-mode selectors in this end's view, and the addresses that they had if any changed.

    Only the addresses of an end behind a NAT are replaced, and only in selectors of type 7 and 8. Selectors that
    are not between two hosts are left as they are: nothing will allow them.
    """
    if not (nat.local_is_translated or nat.peer_is_translated) or not is_host_to_host(ts):
        return ts, None
    local, peer = (ts.tsi, ts.tsr) if tsi_is_local else (ts.tsr, ts.tsi)
    originals = OriginalAddresses(str(*_ends(local)), str(*_ends(peer)))
    if nat.local_is_translated:
        local = _at(path.local[0], local)
    if nat.peer_is_translated:
        peer = _at(path.peer[0], peer)
    return TrafficSelectors(local, peer) if tsi_is_local else TrafficSelectors(peer, local), originals


def moved(selectors: Selectors, old: str, new: str) -> Selectors:
    """Those of one end of a transport-mode child when its NAT has another outer address for it."""
    return _at(new, selectors) if _ends(selectors) == {ip_address(old)} else selectors


def _at(address: str, selectors: Sequence[Selector]) -> Selectors:
    there = ip_address(address)
    return tuple(
        replace(one, start=there, end=there)
        if isinstance(one, AddressSelector) and one.start.version == there.version
        else one
        for one in selectors
    )


def _ends(selectors: Sequence[Selector]) -> set[object]:
    return {end for one in selectors if isinstance(one, AddressSelector) for end in (one.start, one.end)}
