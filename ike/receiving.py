"""What comes to one IKE SA: from a datagram with its SPIs to the exchange it is meant for (RFC 7296 2.1-2.3, 2.21).

What fails its integrity check changes nothing. Must not know what a message asks for, and changes nothing itself:
an exchange stages, `IkeSa.commit` applies.
"""

from __future__ import annotations

from dataclasses import replace

from ike import succession
from ike.config import Path
from ike.errors import ParseError, SchemaError
from ike.events import Direction, DropReason, FailureReason
from ike.exchanges.exchange import Exchange, Fail, Outcome, error_in
from ike.exchanges.informational import Complain, LastWords
from ike.exchanges.rekey_ike import RekeyIkeSa
from ike.exchanges.respond import respond
from ike.exchanges.sa_init import InitiateSa
from ike.exchanges.schema import UnsupportedCriticalPayload, story_of
from ike.exchanges.window_size import promised
from ike.numbers import ExchangeType, NotifyType, ProtocolId
from ike.opening import Opened
from ike.sa import IkeSa
from ike.states import IkeSaState
from ike.window import Arrival
from ike.wire.message import Header, Message, parse_payloads
from ike.wire.payloads import DeletePayload, NotifyPayload

__all__ = ["receive"]


def receive(sa: IkeSa, header: Header, data: bytes, path: Path, now: float) -> None:
    """A datagram whose two SPIs are ours. `header` is that of `data`."""
    if header.is_initiator is sa.is_initiator:
        sa.host.drop(DropReason.MALFORMED)
    elif header.is_response:
        _receive_response(sa, header, data, path, now)
    else:
        _receive_request(sa, header, data, path, now)


def _receive_request(sa: IkeSa, header: Header, data: bytes, path: Path, now: float) -> None:
    if not sa.is_keyed:
        sa.host.drop(DropReason.UNPROTECTED)
        return
    arrival = sa.responses.classify(header.message_id, data)
    if arrival is Arrival.RETRANSMISSION:
        sa.host.drop(DropReason.RETRANSMITTED_REQUEST)
        sa.sender.repeat_response(header.message_id, path)
    elif arrival is Arrival.FORGOTTEN:
        sa.host.drop(DropReason.OLD_RETRANSMISSION)
    elif arrival is Arrival.ANSWERED:
        _receive_answered(sa, data, path)
    elif arrival is Arrival.OUTSIDE or sa.state is IkeSaState.CLOSED:
        sa.host.drop(DropReason.OUTSIDE_WINDOW)
        _complain_of_id(sa, data, now)
    elif header.exchange not in _expected_exchanges(sa):
        sa.host.drop(DropReason.UNEXPECTED_EXCHANGE)
    elif (opened := _open(sa, data, now)) is not None:
        _heard(sa, path, now)
        _process_request(sa, opened, path, now)
        sa.session.requests.pump(now)


def _expected_exchanges(sa: IkeSa) -> tuple[ExchangeType, ...]:
    """Requests that make sense now. What came too early is sent again by the peer; nothing is lost."""
    if sa.init is None:
        return (ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL)
    return () if sa.is_initiator else (ExchangeType.IKE_AUTH,)


def _process_request(sa: IkeSa, opened: Opened, path: Path, now: float) -> None:
    message = opened.message
    try:
        message = _read(sa, opened, path, now)
        story = story_of(message)
    except UnsupportedCriticalPayload as unsupported:
        notify = NotifyPayload(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, bytes([unsupported.payload_type]))
        sa.host.drop(DropReason.SCHEMA)
        if sa.answer(message, (notify,), path, now) and sa.state is IkeSaState.CONNECTING:
            sa.commit(Outcome(end=Fail(FailureReason.PROTOCOL_ERROR, str(unsupported))), now)
        return
    except (ParseError, SchemaError) as error:
        # Authentic and yet malformed: fatal at both ends, without a Delete (RFC 7296 2.21.3).
        sa.host.drop(DropReason.SCHEMA if isinstance(error, SchemaError) else DropReason.MALFORMED)
        if sa.answer(message, (NotifyPayload(NotifyType.INVALID_SYNTAX),), path, now):
            sa.give_up(f"the peer sent a malformed request: {error}", now)
        return
    if not any(delete.protocol == ProtocolId.IKE for delete in message.all(DeletePayload)):
        succession.on_request(sa, now)
    outcome = respond(sa, message, story, path)
    if sa.answer(message, outcome.response, path, now):
        sa.commit(outcome, now)


def _receive_answered(sa: IkeSa, data: bytes, path: Path) -> None:
    """A request that is answered already, in other octets.

    Only fragment 1 of another division of it gets the response again (RFC 7383 2.5.2, 2.6.1).
    """
    message = _parse(sa, data)
    sealed = message.encrypted if message else None
    if message is None:
        return
    if sealed is None or not sealed.is_fragment:
        sa.host.drop(DropReason.OUTSIDE_WINDOW)
    elif sealed.fragment_number != 1:
        sa.host.drop(DropReason.FRAGMENT_REPEATED)
    elif sa.opener.is_authentic(message, sa.keyed.protection):
        sa.host.drop(DropReason.RETRANSMITTED_REQUEST)
        sa.sender.repeat_response(message.message_id, path)


def _complain_of_id(sa: IkeSa, data: bytes, now: float) -> None:
    """INVALID_MESSAGE_ID, seldom, to whoever can seal a message, in a request of ours (RFC 7296 2.3, 3.10.1)."""
    if sa.state is not IkeSaState.ESTABLISHED or not sa.session.complaints.allows(now):
        return
    message = _parse(sa, data)
    if message and sa.opener.is_authentic(message, sa.keyed.protection):
        message_id = message.message_id.to_bytes(4, "big")
        sa.session.requests.put(Complain(NotifyPayload(NotifyType.INVALID_MESSAGE_ID, message_id)))
        sa.session.requests.pump(now)


def _receive_response(sa: IkeSa, header: Header, data: bytes, path: Path, now: float) -> None:
    request = sa.requests.in_flight.get(header.message_id)
    if request is None or sa.state is IkeSaState.CLOSED:
        sa.host.drop(DropReason.NO_REQUEST_IN_FLIGHT)
    elif request.exchange.exchange_type != header.exchange:
        sa.host.drop(DropReason.UNEXPECTED_EXCHANGE)
    elif isinstance(request.exchange, InitiateSa):
        request.exchange.receive_response(sa, data, path, now)
    elif not sa.is_keyed:
        sa.host.drop(DropReason.UNPROTECTED)
    elif (opened := _open(sa, data, now)) is not None:
        _heard(sa, path, now)
        sa.requests.answered(header.message_id)
        sa.session.location.on_answer(path, request.transmissions, now)
        sa.sender.stop_retransmission(header.message_id)
        _process_response(sa, request.exchange, opened, path, now)
        sa.say_last_words(now)
        sa.session.requests.pump(now)


def _process_response(sa: IkeSa, exchange: Exchange, opened: Opened, path: Path, now: float) -> None:
    try:
        message = _read(sa, opened, path, now)
        story = story_of(message)
    except (ParseError, SchemaError) as error:
        sa.host.drop(DropReason.SCHEMA if isinstance(error, SchemaError) else DropReason.MALFORMED)
        sa.lose(exchange)
        from_us = () if sa.state is IkeSaState.CONNECTING else (NotifyPayload(NotifyType.INVALID_SYNTAX),)
        sa.give_up(f"the peer sent a malformed response: {error}", now, from_us)
        return
    refusal = error_in(message)
    is_fatal = refusal is not None and refusal.notify_type == NotifyType.INVALID_SYNTAX
    if is_fatal and not isinstance(exchange, LastWords):
        sa.lose(exchange)
        sa.give_up("the peer answered INVALID_SYNTAX", now)
        return
    if sa.state is IkeSaState.DELETING and not isinstance(exchange, LastWords):
        if isinstance(exchange, RekeyIkeSa):  # what it has made at the peer has to go, too
            made = exchange.on_response(sa, message, story, now).successor
            sa.commit(Outcome(successor=made), now)
        return
    outcome = exchange.on_response(sa, message, story, now)
    if outcome.retry is None:
        sa.session.requests.note_end(exchange)
    sa.commit(outcome, now)


def _open(sa: IkeSa, data: bytes, now: float) -> Opened | None:
    message = _parse(sa, data)
    return sa.opener.open(message, sa.keyed.protection, now) if message else None


def _parse(sa: IkeSa, data: bytes) -> Message | None:
    try:
        message = Message.parse(data)
    except ParseError:
        sa.host.drop(DropReason.MALFORMED)
        return None
    if sa.fragment_octets is None and message.encrypted and message.encrypted.is_fragment:
        sa.host.drop(DropReason.FRAGMENT_REFUSED)
        return None
    return message


def _heard(sa: IkeSa, path: Path, now: float) -> None:
    """A fresh authenticated message. Only now may the peer's address follow (RFC 7296 2.23)."""
    sa.session.liveness.heard(now)
    if path == sa.path or sa not in (sa.session.current, *sa.session.others):
        return
    if sa.state is not IkeSaState.CONNECTING:
        sa.session.location.follow(sa, path, now)
    elif not sa.is_initiator:
        sa.path = path  # the initiator may have gone on to port 4500


def _read(sa: IkeSa, opened: Opened, path: Path, now: float) -> Message:
    """The message in clear. Raises ParseError."""
    message = replace(opened.message, payloads=parse_payloads(opened.first_type, opened.inner))
    sa.host.trace_message(now, sa.session.number, Direction.RECEIVED, path, message, opened.datagrams)
    # The peer never takes a promise back; we use as much of it as ours is.
    usable = min(promised(message), sa.host.settings.window)
    sa.requests.size = max(sa.requests.size, usable)
    return message
