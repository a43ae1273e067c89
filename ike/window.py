"""Message IDs, windows, and the memory of requests and responses (RFC 7296 2.1-2.3).

Must not know payloads: it keeps sealed datagrams and opaque exchanges.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

ExchangeT = TypeVar("ExchangeT")

LAST_MESSAGE_ID = 2**32 - 1


@dataclass(slots=True)
class InFlight(Generic[ExchangeT]):
    """A request that waits for its answer. Retransmissions are these octets, bit by bit (RFC 7296 2.1)."""

    exchange: ExchangeT
    datagrams: tuple[bytes, ...]
    transmissions: int = 1


class RequestWindow(Generic[ExchangeT]):
    """Our requests: the next Message ID and what is in flight. `size` is what the peer promised to hold."""

    def __init__(self, next_id: int = 0) -> None:
        self.next_id = next_id
        self.size = 1
        self.in_flight: dict[int, InFlight[ExchangeT]] = {}

    @property
    def is_open(self) -> bool:
        """Request X has to wait for the answers up to X - size (RFC 7296 2.3)."""
        if self.next_id > LAST_MESSAGE_ID:
            return False
        return not self.in_flight or self.next_id - min(self.in_flight) < self.size

    @property
    def exchanges(self) -> list[ExchangeT]:
        return [request.exchange for request in self.in_flight.values()]

    def send(self, exchange: ExchangeT, datagrams: tuple[bytes, ...]) -> int:
        """Take the next Message ID for a request that is being sent."""
        message_id = self.next_id
        self.in_flight[message_id] = InFlight(exchange, datagrams)
        self.next_id += 1
        return message_id

    def replace(self, message_id: int, datagrams: tuple[bytes, ...]) -> None:
        """The request is another one from now on, and has been sent once."""
        request = self.in_flight[message_id]
        request.datagrams, request.transmissions = datagrams, 1

    def answered(self, message_id: int) -> ExchangeT | None:
        request = self.in_flight.pop(message_id, None)
        return request.exchange if request else None


class Arrival(Enum):
    """What the Message ID of a request says before anything of it is decrypted."""

    NEW = "new"
    RETRANSMISSION = "retransmission"
    FORGOTTEN = "forgotten"
    ANSWERED = "answered"
    """Under an answered Message ID, but not the octets that were answered."""
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class CachedResponse:
    request_digest: bytes
    datagrams: tuple[bytes, ...]


class ResponseWindow:
    """The peer's requests: which are new, and the responses to repeat for those that are not.

    `size` is what we promised to hold. Only a copy of the very request gets the response again, so that
    nobody who merely guesses a Message ID makes us send (RFC 7296 2.1: retransmissions are identical).
    """

    def __init__(self, next_id: int = 0, size: int = 1) -> None:
        self.size = size
        self._lowest_unanswered = next_id
        self._answered: dict[int, CachedResponse] = {}

    @property
    def next_id(self) -> int:
        """The lowest Message ID that was not answered yet."""
        return self._lowest_unanswered

    def classify(self, message_id: int, request: bytes) -> Arrival:
        cached = self._answered.get(message_id)
        if cached is not None:
            same = cached.request_digest == hashlib.sha256(request).digest()
            return Arrival.RETRANSMISSION if same else Arrival.ANSWERED
        if message_id < self._lowest_unanswered:
            return Arrival.FORGOTTEN
        return Arrival.NEW if message_id < self._lowest_unanswered + self.size else Arrival.OUTSIDE

    def response_to(self, message_id: int) -> tuple[bytes, ...]:
        return self._answered[message_id].datagrams

    def answered(self, message_id: int, request: bytes, datagrams: tuple[bytes, ...]) -> None:
        """Remember the response to a request that was NEW, and forget what the window has passed."""
        self._answered[message_id] = CachedResponse(hashlib.sha256(request).digest(), datagrams)
        while self._lowest_unanswered in self._answered:
            self._lowest_unanswered += 1
        for passed in [seen for seen in self._answered if seen < self._lowest_unanswered - self.size]:
            del self._answered[passed]
