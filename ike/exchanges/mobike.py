"""MOBIKE in messages: support, addresses, updates, the return routability check (RFC 4555 3, 4).

    HDR, SK {IDi, …, N(MOBIKE_SUPPORTED), [N(NO_NATS_ALLOWED)], [N(ADDITIONAL_*_ADDRESS)+]}  -->      IKE_AUTH
    HDR, SK {N(UPDATE_SA_ADDRESSES), N(NAT_DETECTION_*) or N(NO_NATS_ALLOWED), N(COOKIE2), addresses}  -->
                               <--  HDR, SK {N(NAT_DETECTION_*), N(COOKIE2)}   or   an error
    HDR, SK {N(COOKIE2)}  -->                   <--  HDR, SK {N(COOKIE2)}      the check, before ESP moves

Must not know which path is the best, or when to move: that is location.py's.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ike.config import Connection, Path
from ike.events import CloseReason, PathRefused
from ike.exchanges.exchange import (
    NOTHING,
    AddressNews,
    Close,
    Exchange,
    Move,
    Outcome,
    Priority,
    error_in,
)
from ike.exchanges.nat_detection import has_nat_detection, nat_detection, nat_state
from ike.exchanges.schema import Story
from ike.nat import NatState
from ike.numbers import ExchangeType, NotifyType, ProtocolId, name_of
from ike.wire.message import Message
from ike.wire.payloads import DeletePayload, NotifyPayload, Payload

if TYPE_CHECKING:
    from ike.sa import IkeSa

COOKIE2_OCTETS = 16
_COOKIE2_SIZES = range(8, 65)
MAX_ADDRESSES = 32
"""Of one peer; RFC 4555 sets no limit."""
MAX_TRIES = 4
"""Of one update that is answered UNEXPECTED_NAT_DETECTED, before another path is tried."""

_FAMILIES = {NotifyType.ADDITIONAL_IP4_ADDRESS: 4, NotifyType.ADDITIONAL_IP6_ADDRESS: 16}


# --- IKE_AUTH


def mobike_offer(sa: IkeSa, connection: Connection, *, is_request: bool) -> tuple[NotifyPayload, ...]:
    """What goes beside AUTH if the connection wants MOBIKE (RFC 4555 3.2, 3.4)."""
    if not connection.mobike:
        return ()
    local = sa.host.local_addresses or connection.local_addresses
    return (
        NotifyPayload(NotifyType.MOBIKE_SUPPORTED),
        *(_no_nats_allowed(sa) if is_request else ()),
        *_additional(local, sa.path.local[0]),
    )


def mobike_agreed(connection: Connection, message: Message) -> tuple[str, ...] | None:
    """The addresses that the peer has told if both ends support MOBIKE, else None."""
    if not connection.mobike or message.notify(NotifyType.MOBIKE_SUPPORTED) is None:
        return None
    return _told(message.notifies) or ()


def is_modified(message: Message, path: Path) -> bool:
    """Whether NO_NATS_ALLOWED says other addresses than the message came from and to (RFC 4555 3.9)."""
    notify = message.notify(NotifyType.NO_NATS_ALLOWED)
    return notify is not None and notify.data != _ends(path.peer, path.local)


# --- requests


class _Informational(Exchange):
    exchange_type = ExchangeType.INFORMATIONAL
    priority = Priority.ADDRESS


class UpdateAddresses(_Informational):
    """The opener has moved to the path of the IKE SA. `change` counts its moves: only the last one matters."""

    def __init__(self, change: int, tries: int = 1) -> None:
        self._change = change
        self._tries = tries
        self._cookie = b""

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        location = sa.session.location
        if self._change != location.change:
            return None
        self._cookie = sa.host.entropy.octets(COOKIE2_OCTETS)
        return (
            NotifyPayload(NotifyType.UPDATE_SA_ADDRESSES),
            *(_detection(sa, sa.path) or _no_nats_allowed(sa)),
            *_address_list(location.local_addresses, sa.path.local[0]),
            NotifyPayload(NotifyType.COOKIE2, self._cookie),
        )

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        location, error = sa.session.location, error_in(message)
        if not _is_returned(self._cookie, message, is_demanded=error is None):
            return _COOKIE2_MISMATCH
        if self._change != location.change:
            return NOTHING
        if error is None:
            nat = nat_state(message, sa.path, sa.nat.is_forced) if has_nat_detection(message) else sa.nat
            return Outcome(move=Move(sa.path, nat))
        if error.notify_type == NotifyType.UNEXPECTED_NAT_DETECTED and self._tries < MAX_TRIES:
            return Outcome(start=(UpdateAddresses(self._change, self._tries + 1),))
        reason = name_of(NotifyType, error.notify_type)
        refused = PathRefused(sa.session.number, sa.path, f"the peer answered {reason}")
        return Outcome(events=(refused,), path_refused=True)

    def on_lost(self, sa: IkeSa, *, session_is_over: bool) -> Outcome:
        return NOTHING if session_is_over else Outcome(start=(UpdateAddresses(self._change),))


class AnnounceAddresses(_Informational):
    """Our addresses are others than we have told (RFC 4555 3.6)."""

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        told = _address_list(sa.session.location.local_addresses, sa.path.local[0])
        return (*told, *_no_nats_allowed(sa))

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        return NOTHING

    def on_lost(self, sa: IkeSa, *, session_is_over: bool) -> Outcome:
        return NOTHING if session_is_over else Outcome(start=(AnnounceAddresses(),))


class CheckRoutability(_Informational):
    """Whether the opener really is where its update came from, before ESP goes there (RFC 4555 3.7)."""

    def __init__(self, change: int, path: Path, nat: NatState) -> None:
        self._change, self._path, self._nat = change, path, nat
        self._cookie = b""

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        if self._change != sa.session.location.change:
            return None
        self._cookie = sa.host.entropy.octets(COOKIE2_OCTETS)
        return (NotifyPayload(NotifyType.COOKIE2, self._cookie),)

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        if not _is_returned(self._cookie, message, is_demanded=True):
            return _COOKIE2_MISMATCH
        if self._change != sa.session.location.change:
            return NOTHING
        return Outcome(move=Move(self._path, self._nat))

    def on_lost(self, sa: IkeSa, *, session_is_over: bool) -> Outcome:
        again = CheckRoutability(self._change, self._path, self._nat)
        return NOTHING if session_is_over else Outcome(start=(again,))


def mapping_check(sa: IkeSa) -> tuple[NotifyPayload, ...]:
    """What lets the opener's liveness check see that its NAT has a new mapping for it (RFC 4555 3.8)."""
    return _detection(sa, sa.path) if _checks_mapping(sa) else ()


def has_new_mapping(sa: IkeSa, message: Message) -> bool:
    """Whether the answer to a `mapping_check` says another outside address than before."""
    notify = message.notify(NotifyType.NAT_DETECTION_DESTINATION_IP)
    return notify is not None and _checks_mapping(sa) and notify.data != sa.nat.seen_as


def _checks_mapping(sa: IkeSa) -> bool:
    location = sa.session.location
    return location.is_mobile and location.is_decider and sa.nat.local_is_translated


# --- answers


def respond_addresses(
    sa: IkeSa, message: Message, path: Path
) -> tuple[tuple[NotifyPayload, ...], AddressNews | None]:
    """The notifies of the response to an INFORMATIONAL request, and what the request changes (RFC 4555 3.5 to 3.9).

    COOKIE2 comes back whatever else is said.
    """
    location = sa.session.location
    cookie = message.notify(NotifyType.COOKIE2)
    back = (cookie,) if cookie and len(cookie.data) in _COOKIE2_SIZES else ()
    if not location.is_mobile:
        return back, None
    is_update = message.notify(NotifyType.UPDATE_SA_ADDRESSES) is not None
    told = _told(message.notifies)
    detection = _detection(sa, path) if has_nat_detection(message) else ()
    if (not is_update and told is None) or not location.is_news(sa, message.message_id):
        return (*detection, *back), None
    if is_modified(message, path):
        return (NotifyPayload(NotifyType.UNEXPECTED_NAT_DETECTED), *back), None
    if is_update and (location.is_decider or not location.permits(path.peer[0])):
        return (NotifyPayload(NotifyType.UNACCEPTABLE_ADDRESSES), *back), None
    nat = nat_state(message, path, sa.nat.is_forced) if detection else sa.nat
    return (*detection, *back), AddressNews(message.message_id, path, told, nat if is_update else None)


# --- notifies


def _detection(sa: IkeSa, path: Path) -> tuple[NotifyPayload, ...]:
    if not sa.nat.is_supported:
        return ()
    return nat_detection(sa.host, sa.spi_i, sa.spi_r, path, is_forced=sa.nat.is_forced)


def _no_nats_allowed(sa: IkeSa) -> tuple[NotifyPayload, ...]:
    """The addresses and ports of a request that NATs must not touch, if NAT traversal is not on."""
    if sa.nat.is_supported:
        return ()
    return (NotifyPayload(NotifyType.NO_NATS_ALLOWED, _ends(sa.path.local, sa.path.peer)),)


def _ends(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """Two addresses, then two ports: 12 octets for IPv4, 36 for IPv6 (RFC 4555 4.2.6)."""
    addresses = ip_address(source[0]).packed + ip_address(destination[0]).packed
    return addresses + source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")


def _additional(addresses: Iterable[str], used: str) -> tuple[NotifyPayload, ...]:
    """Those beside the one in the IP header."""
    others = [ip_address(address) for address in addresses if address != used]
    kinds = {4: NotifyType.ADDITIONAL_IP4_ADDRESS, 6: NotifyType.ADDITIONAL_IP6_ADDRESS}
    return tuple(NotifyPayload(kinds[other.version], other.packed) for other in others[:MAX_ADDRESSES])


def _address_list(addresses: Iterable[str], used: str) -> tuple[NotifyPayload, ...]:
    return _additional(addresses, used) or (NotifyPayload(NotifyType.NO_ADDITIONAL_ADDRESSES),)


def _told(notifies: Iterable[NotifyPayload]) -> tuple[str, ...] | None:
    """The list that a message holds; None if it holds none. What is no address is passed over."""
    lists = [n for n in notifies if n.notify_type in (*_FAMILIES, NotifyType.NO_ADDITIONAL_ADDRESSES)]
    addresses = [n.data for n in lists if _FAMILIES.get(NotifyType(n.notify_type)) == len(n.data)]
    return tuple(str(ip_address(data)) for data in addresses[:MAX_ADDRESSES]) if lists else None


def _is_returned(cookie: bytes, message: Message, *, is_demanded: bool) -> bool:
    back = message.notify(NotifyType.COOKIE2)
    return not is_demanded if back is None else hmac.compare_digest(back.data, cookie)


_COOKIE2_MISMATCH = Outcome(
    end=Close(
        CloseReason.PROTOCOL_ERROR,
        "COOKIE2 did not come back as it was sent",
        (DeletePayload(ProtocolId.IKE),),
    )
)
