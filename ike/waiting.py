"""Requests of ours that wait for the window, and which of them may be in flight together (RFC 7296 2.3).

With a window of several requests the answers, and the requests at the peer, come in any order. So nothing is sent
beside a request whose effect it could overtake. Must not know Message IDs or what an exchange says.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Iterator

from ike.exchanges.create_child import RekeyChildSa
from ike.exchanges.exchange import Exchange
from ike.exchanges.informational import DeleteChildSa, SendNotify
from ike.exchanges.rekey_ike import RekeyIkeSa


class RequestQueue:
    """In order of priority, and within one in the order of `put`."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Exchange]] = []
        self._count = 0

    def put(self, exchange: Exchange) -> None:
        self._count += 1
        insort(self._waiting, (exchange.priority, self._count, exchange))

    def put_latest(self, exchange: Exchange) -> None:
        """In the place of those of its kind that still wait: however often it is put, one waits."""
        self._waiting = [entry for entry in self._waiting if type(entry[2]) is not type(exchange)]
        self.put(exchange)

    def put_back(self, exchanges: Collection[Exchange]) -> None:
        """Those that were sent before and have to be sent again: before what waits with the same priority."""
        self._count += len(exchanges)
        for number, exchange in enumerate(exchanges):
            insort(self._waiting, (exchange.priority, number - self._count, exchange))

    def take(self, in_flight: Collection[Exchange], may_start: Callable[[Exchange], bool]) -> Exchange | None:
        """The first that may start now, beside those that are sent already.

        What waits behind a rekey of the IKE SA waits too.
        """
        for index, (_, _, exchange) in enumerate(self._waiting):
            if may_start(exchange) and may_accompany(exchange, in_flight):
                del self._waiting[index]
                return exchange
            if isinstance(exchange, RekeyIkeSa):
                break
        return None

    def clear(self) -> None:
        self._waiting = []

    def __iter__(self) -> Iterator[Exchange]:
        return (exchange for _, _, exchange in self._waiting)


def may_accompany(exchange: Exchange, in_flight: Collection[Exchange]) -> bool:
    """Whether it does not matter which of them the peer sees first."""
    match exchange:
        case RekeyIkeSa():
            # It would be refused, or take the others to the new IKE SA while they are answered on the old one.
            return not in_flight
        case SendNotify():
            return not any(isinstance(other, SendNotify) for other in in_flight)
        case RekeyChildSa(spi_in=spi_in) | DeleteChildSa(spi_in=spi_in):
            return not any(
                isinstance(other, RekeyChildSa | DeleteChildSa) and other.spi_in == spi_in
                for other in in_flight
            )
    return True
