"""Which of several acceptable sets of traffic one Child SA gets (RFC 7296 2.9).

Must not know policies or proposals: it compares what was asked for with what narrowing has left of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ike.selectors import AddressSelector, IpAddress, Selector, Selectors, TrafficSelectors


def includes_first_choice(request: TrafficSelectors, granted: TrafficSelectors) -> bool:
    """Whether the first selectors of both payloads of the request are in what is granted: they MUST, if they can."""
    return all(
        first is not None and _is_inside(first, given)
        for first, given in (
            (_first_address(request.tsi), granted.tsi),
            (_first_address(request.tsr), granted.tsr),
        )
    )


def is_covered(other: TrafficSelectors, granted: TrafficSelectors) -> bool:
    """Whether nothing of `other` is outside `granted`; else a separate Child SA could carry it."""
    return all(_is_inside(selector, granted.tsi) for selector in other.tsi) and all(
        _is_inside(selector, granted.tsr) for selector in other.tsr
    )


def to_one_pair(request: TrafficSelectors, granted: TrafficSelectors) -> TrafficSelectors | None:
    """`granted` between one pair of addresses only: that of the first selectors of the request, or the only one.

    None if the request does not say which: SINGLE_PAIR_REQUIRED.
    """
    if is_one_pair(granted):
        return granted
    return restricted_to_pair(granted, request)


def restricted_to_pair(ts: TrafficSelectors, packet: TrafficSelectors) -> TrafficSelectors | None:
    """`ts` between the two addresses of `packet`, its first selectors. None if those are no single ones, or outside."""
    sides: list[Selectors] = []
    for selectors, first in ((ts.tsi, _first_address(packet.tsi)), (ts.tsr, _first_address(packet.tsr))):
        if first is None or not first.is_single_address:
            return None
        kept = _restricted(selectors, first.start)
        if not any(isinstance(selector, AddressSelector) for selector in kept):
            return None
        sides.append(kept)
    return TrafficSelectors(*sides)


def is_one_pair(ts: TrafficSelectors) -> bool:
    """Whether each end is a single address."""
    return all(
        len({(s.start, s.end) for s in selectors if isinstance(s, AddressSelector)}) == 1
        and all(s.is_single_address for s in selectors if isinstance(s, AddressSelector))
        for selectors in (ts.tsi, ts.tsr)
    )


def _restricted(selectors: Selectors, address: IpAddress) -> Selectors:
    kept: list[Selector] = []
    for selector in selectors:
        if isinstance(selector, AddressSelector):
            common = selector.narrow(AddressSelector.from_address(address))
            if common is not None and common not in kept:
                kept.append(common)
        else:
            kept.append(selector)
    return tuple(kept)


def _first_address(selectors: Iterable[Selector]) -> AddressSelector | None:
    return next((selector for selector in selectors if isinstance(selector, AddressSelector)), None)


def _is_inside(selector: Selector, others: Iterable[Selector]) -> bool:
    return any(type(other) is type(selector) and selector.is_subset_of(other) for other in others)
