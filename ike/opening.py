"""From datagrams to authentic messages, whole or put together from fragments (RFC 7296 3.14, RFC 7383 2.6).

Must not know windows or what messages say: its caller has seen that a message of that ID is wanted.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from ike.events import DropReason
from ike.fragments import Fragment, Reassembly
from ike.host import Host
from ike.protection import IntegrityError, Protection
from ike.timers import TimerKind
from ike.wire.message import Message
from ike.wire.payloads import EncryptedPayload


@dataclass(frozen=True, slots=True)
class Opened:
    """A whole message whose integrity is good, its payloads not read yet.

    `first_type` and `inner` are the inner payloads. Of a message in fragments `message` is the first of them.
    """

    message: Message
    first_type: int
    inner: bytes
    datagrams: int = 1


class Opener:
    """What comes to one IKE SA. Everything that is of no use is a counted drop."""

    def __init__(self, host: Host, *, is_stranger: bool = False) -> None:
        """`is_stranger`: the peer has begun this and has not proved who it is yet."""
        self._host = host
        budget = host.stranger_budget if is_stranger else host.reassembly_budget
        self._reassembly = Reassembly(budget, host.settings.max_message_octets)

    def open(self, message: Message, protection: Protection, now: float) -> Opened | None:
        """The message, if all of it is here and authentic."""
        sealed = message.encrypted
        if sealed and sealed.is_fragment:
            return self._reassemble(message, sealed, protection, now)
        try:
            first_type, inner = protection.open(message.raw)
        except IntegrityError:
            self._host.drop(DropReason.INTEGRITY)
            return None
        self._forget(message.is_response, message.message_id)
        return Opened(message, first_type, inner)

    def _reassemble(
        self, message: Message, sealed: EncryptedPayload, protection: Protection, now: float
    ) -> Opened | None:
        """One fragment more. Nothing is kept and nothing discarded before its integrity is seen."""
        key = (message.is_response, message.message_id)
        number, total = sealed.fragment_number, sealed.total_fragments
        if why_not := self._reassembly.why_not(key, number, total):
            self._host.drop(why_not)
            return None
        try:
            first_type, chunk = protection.open_fragment(message.raw)
        except IntegrityError:
            self._host.drop(DropReason.INTEGRITY)
            return None
        is_new = key not in self._reassembly
        added = self._reassembly.add(key, Fragment(number, total, first_type, chunk, message.raw))
        if isinstance(added, DropReason):
            self._host.drop(added)
        elif added is None and is_new:
            # Not moved by later fragments, so that nobody keeps a message incomplete for ever.
            self._host.timers.set(now + self._host.settings.reassembly_s, TimerKind.REASSEMBLY, self, key)
        elif added:
            self._host.timers.cancel(TimerKind.REASSEMBLY, self, key)
            whole = replace(message, raw=added.first_raw)
            return Opened(whole, added.first_type, added.inner, added.fragments)
        return None

    def is_authentic(self, message: Message, protection: Protection) -> bool:
        """For what will not be processed: a datagram with SK, or a single fragment."""
        is_fragment = message.encrypted is not None and message.encrypted.is_fragment
        try:
            (protection.open_fragment if is_fragment else protection.open)(message.raw)
        except IntegrityError:
            self._host.drop(DropReason.INTEGRITY)
            return False
        return True

    def _forget(self, is_response: bool, message_id: int) -> None:
        if self._reassembly.forget((is_response, message_id)):
            self._host.timers.cancel(TimerKind.REASSEMBLY, self, (is_response, message_id))

    def clear(self) -> None:
        """The IKE SA is gone."""
        self._reassembly.clear()
        self._host.timers.cancel_all(self)

    def handle_timer(self, kind: TimerKind, detail: Hashable, now: float) -> None:
        match detail:
            case (bool(is_response), int(message_id)):
                self._reassembly.forget((is_response, message_id))
                self._host.drop(DropReason.FRAGMENT_TIMEOUT)
