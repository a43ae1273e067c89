"""Narrowing: what of the selectors a peer asks for it gets, and whether its answer is one (RFC 7296 2.9).

Must not know: MPLS, exchanges, payload headers. What a type means is the registry's.
"""

from collections.abc import Iterable

from ike.selectors import (
    MAX_SELECTORS,
    AddressSelector,
    RawSelector,
    Selector,
    SelectorError,
    SelectorRegistry,
    Selectors,
    TrafficSelectors,
)


def narrow_selectors(
    request: TrafficSelectors, policy: TrafficSelectors, registry: SelectorRegistry
) -> TrafficSelectors | None:
    """The responder's narrowing by one policy (RFC 7296 section 2.9); None means TS_UNACCEPTABLE.

    Address selectors become the intersections of each requested with each allowed one, in the order of the
    request, so that the initiator's first choice stays first. A complementary type must be in a payload of
    the request exactly when the policy has it there; of several offered the first with an intersection is
    taken. Types that nobody registered are ignored and not returned.
    """
    try:
        asked, allowed = request.interpreted(registry), policy.interpreted(registry)
    except SelectorError:
        return None
    if not registry.is_consistent(asked):
        return None
    tsi = _narrow_payload(asked.tsi, allowed.tsi)
    tsr = _narrow_payload(asked.tsr, allowed.tsr)
    if tsi is None or tsr is None:
        return None
    result = registry.reconcile(TrafficSelectors(tsi, tsr))
    return result if result is not None and result.tsi and result.tsr else None


def _narrow_payload(request: Selectors, policy: Selectors) -> Selectors | None:
    if _has_unknown(policy):
        return None  # a restriction that nobody understands cannot be enforced
    offered, acceptable = _complements(request), _complements(policy)
    if offered.keys() != acceptable.keys():
        return None
    chosen: list[Selector] = []
    for ts_type, ones in offered.items():
        common_ones = (one.narrow(other) for one in ones for other in acceptable[ts_type])
        first = next((common for common in common_ones if common is not None), None)
        if first is None:
            return None
        chosen.append(first)
    addresses = _common_addresses(request, policy, MAX_SELECTORS - len(chosen))
    return (*addresses, *chosen) if addresses else None


def _common_addresses(request: Selectors, policy: Selectors, limit: int) -> Selectors:
    """What both have, in the order of the request, as far as there is room for it in one payload."""
    allowed = _outermost(policy)
    found: dict[AddressSelector, None] = {}
    # Never more than `limit` are compared with each other: the request may be hostile, and the policy long.
    for selector in _outermost(request):
        for common in map(selector.narrow, allowed):
            if common is not None and len(found) < limit:
                found[common] = None
    return tuple(_outermost(found))


def _outermost(selectors: Iterable[Selector]) -> list[AddressSelector]:
    """The address selectors without those inside an earlier one."""
    kept: list[AddressSelector] = []
    for selector in selectors:
        if isinstance(selector, AddressSelector) and not any(map(selector.is_subset_of, kept)):
            kept.append(selector)
    return kept


def _complements(selectors: Selectors) -> dict[int, list[Selector]]:
    """The understood complementary selectors by type, in their order."""
    by_type: dict[int, list[Selector]] = {}
    for selector in selectors:
        if not isinstance(selector, AddressSelector | RawSelector):
            by_type.setdefault(selector.ts_type, []).append(selector)
    return by_type


def is_acceptable_answer(
    proposed: TrafficSelectors, answer: TrafficSelectors, registry: SelectorRegistry
) -> bool:
    """The initiator's check that an answer is never more than was asked for (RFC 7296 2.9, RFC 9478).

    Every address selector lies inside one that was proposed; exactly one selector of each complementary type
    that was proposed is there, inside a proposed one, and none of any other type; and the cross-payload rules
    hold.
    """
    try:
        asked, given = proposed.interpreted(registry), answer.interpreted(registry)
    except SelectorError:
        return False
    return (
        _is_acceptable_payload(asked.tsi, given.tsi)
        and _is_acceptable_payload(asked.tsr, given.tsr)
        and registry.is_consistent(given)
    )


def _is_acceptable_payload(asked: Selectors, given: Selectors) -> bool:
    if _has_unknown(asked) or _has_unknown(given):
        return False
    addresses = [s for s in given if isinstance(s, AddressSelector)]
    allowed = [s for s in asked if isinstance(s, AddressSelector)]
    if not addresses or not all(any(map(s.is_subset_of, allowed)) for s in addresses):
        return False
    offered, chosen = _complements(asked), _complements(given)
    return offered.keys() == chosen.keys() and all(
        len(ones) == 1 and any(map(ones[0].is_subset_of, offered[ts_type]))
        for ts_type, ones in chosen.items()
    )


def _has_unknown(selectors: Selectors) -> bool:
    return any(isinstance(s, RawSelector) for s in selectors)
