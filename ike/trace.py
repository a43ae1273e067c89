"""One line of text for one message: "IKE_AUTH request 1 {IDi AUTH N(INITIAL_CONTACT)}" (RFC 7296's notation).

Must not know sessions, and never prints what a payload keeps secret.
"""

from __future__ import annotations

from ike.numbers import CfgType, ExchangeType, PayloadType, ProtocolId, name_of
from ike.wire.message import Message
from ike.wire.payloads import (
    ConfigPayload,
    DeletePayload,
    EncryptedPayload,
    IdPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    Payload,
    TsPayload,
)

_SHORT = {
    PayloadType.IDI: "IDi",
    PayloadType.IDR: "IDr",
    PayloadType.TSI: "TSi",
    PayloadType.TSR: "TSr",
    PayloadType.VENDOR_ID: "V",
    PayloadType.NOTIFY: "N",
    PayloadType.DELETE: "D",
    PayloadType.NONCE: "N",
}


def summary(message: Message) -> str:
    """The exchange, request or response, its Message ID and its payloads."""
    kind = "response" if message.is_response else "request"
    names = " ".join(describe(payload, is_response=message.is_response) for payload in message.payloads)
    return f"{name_of(ExchangeType, message.exchange)} {kind} {message.message_id} {{{names}}}"


def describe(payload: Payload, *, is_response: bool = False) -> str:
    match payload:
        case NotifyPayload():
            return str(payload)
        case NoncePayload():
            return "Nr" if is_response else "Ni"
        case KePayload():
            return "KEr" if is_response else "KEi"
        case IdPayload():
            return f"{_name(payload)}({payload.identity.text()})"
        case DeletePayload():
            spis = " ".join(spi.hex() for spi in payload.spis)
            return f"D({' '.join(filter(None, (name_of(ProtocolId, payload.protocol), spis)))})"
        case ConfigPayload():
            return f"CP({name_of(CfgType, payload.cfg_type)})"
        case TsPayload():
            return f"{_name(payload)}({len(payload.selectors)})"
        case EncryptedPayload():
            return f"{_name(payload)}({len(payload.body)} octets)"
    return _name(payload)


def _name(payload: Payload) -> str:
    short = _SHORT.get(payload.payload_type)  # type: ignore[call-overload]
    return short or name_of(PayloadType, payload.payload_type)
