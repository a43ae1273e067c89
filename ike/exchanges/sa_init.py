"""IKE_SA_INIT as initiator (RFC 7296 1.2, 2.4, 2.6, 2.6.1, 2.21.1).

    HDR, [N(COOKIE)], SAi1, KEi, Ni, N(NAT_DETECTION_*), [N+], [V]  -->
      <--  HDR, SAr1, KEr, Nr, N(NAT_DETECTION_*), [CERTREQ], [N+], [V]
                         or   <--  HDR, N(COOKIE)   or   HDR, N(INVALID_KE_PAYLOAD)   or another error

None of the answers is authenticated. So an error never ends the attempt, and each usable answer is followed
up by an IKE_AUTH of its own until one of them proves itself. Must not know what comes after IKE_SA_INIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ike.child import ke_groups
from ike.config import Connection, Path
from ike.crypto.kex import KeyExchange, KeyExchangeError
from ike.crypto.keymat import derive_ike_keys
from ike.errors import LocalError, ParseError, SchemaError
from ike.events import Direction, DropReason, FailureReason
from ike.exchanges.auth import Authenticate
from ike.exchanges.credentials import announced_hashes, hash_announcement, wants_raw_key, why_no_auth
from ike.exchanges.exchange import NOTHING, Exchange, Fail, Outcome, Priority, error_in
from ike.exchanges.key_exchange import group_asked_for
from ike.exchanges.nat_detection import nat_detection, nat_state
from ike.exchanges.schema import Story, story_of
from ike.host import Host
from ike.material import InitMaterial
from ike.nat import NatState, floated
from ike.numbers import ExchangeType, NotifyType, name_of
from ike.proposals import is_valid_selection, number_proposals
from ike.wire.message import NO_SPI, Message
from ike.wire.payloads import KePayload, NoncePayload, NotifyPayload, Payload, SaPayload, VendorIdPayload

if TYPE_CHECKING:
    from ike.sa import IkeSa

MAX_COOKIE_OCTETS = 64
MAX_CANDIDATES = 4
MESSAGE_ID = 0


class InitiateSa(Exchange):
    """In flight from the first request until an IKE_AUTH response proves one of the answers genuine."""

    exchange_type = ExchangeType.IKE_SA_INIT
    priority = Priority.REKEY

    def __init__(self, host: Host, connection: Connection) -> None:
        self._connection = connection
        self._offered = number_proposals(connection.ike_proposals)
        self._nonce = host.nonce()
        self._cookie = b""
        self._rounds = 1
        self._group = ke_groups(self._offered)[0]
        self._key_exchanges: dict[int, tuple[KeyExchange, bytes]] = {}
        self._sent: dict[int, bytes] = {}
        """Group -> the latest request with a KE payload of that group, as it was on the wire."""
        self._followed = 0
        self._hint: tuple[FailureReason, str] | None = None

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload]:
        if self._group not in self._key_exchanges:
            key_exchange = KeyExchange(self._group)
            self._key_exchanges[self._group] = key_exchange, key_exchange.generate(sa.host.entropy)
        payloads: list[Payload] = []
        if self._cookie:
            payloads.append(NotifyPayload(NotifyType.COOKIE, self._cookie))
        payloads.append(SaPayload(self._offered))
        payloads.append(KePayload(self._group, self._key_exchanges[self._group][1]))
        payloads.append(NoncePayload(self._nonce))
        connection = self._connection
        if not connection.forbid_udp:
            payloads.extend(nat_detection(sa.host, sa.spi_i, NO_SPI, sa.path, is_forced=connection.force_udp))
        payloads.extend(hash_announcement((connection,)))
        payloads.extend(fragmentation_announcement(connection.fragment_octets))
        if connection.extension:
            payloads.append(VendorIdPayload(connection.extension.vendor_id))
        return payloads

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        return NOTHING  # The answers are not protected; they come to `receive_response`.

    def receive_response(self, sa: IkeSa, data: bytes, path: Path, now: float) -> None:
        """An answer that anybody may have sent."""
        try:
            message = Message.parse(data)
            sa.host.trace_message(now, sa.session.number, Direction.RECEIVED, path, message)
            story = story_of(message)
        except (ParseError, SchemaError) as error:
            is_schema = isinstance(error, SchemaError)
            sa.host.drop(DropReason.SCHEMA if is_schema else DropReason.MALFORMED)
            return
        self._sent[self._group] = sa.requests.in_flight[MESSAGE_ID].datagrams[0]
        if story is Story.INIT_ERROR:
            self._on_error(sa, message, now)
        else:
            self._on_answer(sa, message, path, now)

    def _on_error(self, sa: IkeSa, message: Message, now: float) -> None:
        cookie, error = message.notify(NotifyType.COOKIE), error_in(message)
        may_retry = self._rounds < sa.host.settings.max_init_rounds
        if cookie and may_retry and 0 < len(cookie.data) <= MAX_COOKIE_OCTETS:
            if cookie.data != self._cookie:
                self._retry(sa, cookie.data, self._group, now)
            return
        if error and error.notify_type == NotifyType.INVALID_KE_PAYLOAD and may_retry:
            group = group_asked_for(error, ke_groups(self._offered), self._key_exchanges)
            if group is not None:
                self._retry(sa, self._cookie, group, now)
                return
        sa.host.drop(DropReason.UNAUTHENTICATED_ERROR)
        if error:
            is_proposal = error.notify_type == NotifyType.NO_PROPOSAL_CHOSEN
            reason = FailureReason.NO_PROPOSAL_CHOSEN if is_proposal else FailureReason.REFUSED
            name = name_of(NotifyType, error.notify_type)
            self._hint = reason, f"IKE_SA_INIT was answered with {name} (unauthenticated)"

    def _retry(self, sa: IkeSa, cookie: bytes, group: int, now: float) -> None:
        """The request as the peer seems to want it. If that fits into no message, the one in flight stays."""
        self._rounds += 1
        in_flight = self._cookie, self._group
        self._cookie, self._group = cookie, group
        try:
            sa.sender.replace_request(MESSAGE_ID, self, self.request(sa, now), now)
        except LocalError:
            self._cookie, self._group = in_flight
            sa.host.drop(DropReason.UNUSABLE_ANSWER)

    def _on_answer(self, sa: IkeSa, message: Message, path: Path, now: float) -> None:
        if self._followed >= MAX_CANDIDATES:
            return
        candidate = self._candidate(sa, message, path)
        if candidate is None:
            sa.host.drop(DropReason.UNUSABLE_ANSWER)
            return
        self._followed += 1
        sa.sender.stop_retransmission(MESSAGE_ID)
        sa.session.follow(candidate)
        candidate.start(Authenticate(self._connection), now)

    def _candidate(self, sa: IkeSa, message: Message, path: Path) -> IkeSa | None:
        """The IKE SA that this answer would make, if it is usable."""
        connection = self._connection
        answer, ke, nonce = message.get(SaPayload), message.get(KePayload), message.get(NoncePayload)
        if answer is None or ke is None or nonce is None or message.spi_r == NO_SPI:
            return None
        if not is_valid_selection(answer.proposals, self._offered) or ke.group not in self._sent:
            self._hint = FailureReason.REFUSED, "IKE_SA_INIT was answered with what was not proposed"
            return None
        chosen = answer.proposals[0]
        if ke_groups((chosen,)) != (ke.group,):
            return None
        offers_childless = message.notify(NotifyType.CHILDLESS_IKEV2_SUPPORTED) is not None
        vendor_ids = self._shared_vendor_ids(message) if offers_childless else frozenset()
        if connection.extension and connection.extension_required and not vendor_ids:
            detail = f"no answer to IKE_SA_INIT announced {connection.extension.name}"
            self._hint = FailureReason.EXTENSION_ABSENT, detail
            return None
        peer_hashes = announced_hashes(message) if hash_announcement((connection,)) else frozenset()
        if why_not := why_no_auth(connection.auth, peer_hashes):
            self._hint = FailureReason.REFUSED, f"after IKE_SA_INIT: {why_not} (unauthenticated)"
            return None
        try:
            shared = self._key_exchanges[ke.group][0].derive(ke.data)
        except KeyExchangeError:
            return None
        keys = derive_ike_keys(chosen, self._nonce, nonce.data, shared, sa.spi_i, message.spi_r)
        init = InitMaterial(self._sent[ke.group], message.raw, self._nonce, nonce.data)
        nat = NatState() if connection.forbid_udp else nat_state(message, path, connection.force_udp)
        # With MOBIKE also without a NAT: there may be one on a later path (RFC 4555 3.3).
        does_float = nat.udp_encapsulation or (connection.mobike and nat.is_supported)
        candidate = sa.candidate(message.spi_r, floated(path) if does_float else sa.path, init, nat)
        candidate.vendor_ids, candidate.offers_childless = vendor_ids, offers_childless
        candidate.peer_hashes, candidate.wants_raw_key = peer_hashes, wants_raw_key(message)
        if message.notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED):
            candidate.fragment_octets = connection.fragment_octets
        candidate.use_keys(chosen, keys)
        return candidate

    def _shared_vendor_ids(self, message: Message) -> frozenset[bytes]:
        extension = self._connection.extension
        sent = {extension.vendor_id} if extension else set()
        return frozenset(sent & {vendor.data for vendor in message.all(VendorIdPayload)})

    def give_up(self) -> Fail:
        """The timer ended."""
        reason, detail = self._hint or (FailureReason.NO_ANSWER, "IKE_SA_INIT was not answered")
        return Fail(reason, detail)


def fragmentation_announcement(fragment_octets: int | None) -> tuple[NotifyPayload, ...]:
    """N(IKEV2_FRAGMENTATION_SUPPORTED), unless there is no size (RFC 7383 2.3)."""
    return () if fragment_octets is None else (NotifyPayload(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED),)
