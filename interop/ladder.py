"""A decoded capture as a ladder: each IKE message with its payloads, and runs of ESP packets, in their order.

Must not know: any case, nor how the ladder is shown. Names of payloads: RFC 7296 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ike.numbers import ExchangeType, NotifyType, name_of

from .capture import Packet
from .wire import (
    NOTIFY,
    SK,
    SKF,
    EspPacket,
    IkeMessage,
    Payload,
    ends,
    esp_packets,
    ike_fragments,
    ike_messages,
)

PAYLOADS = {
    33: "SA",
    34: "KE",
    35: "IDi",
    36: "IDr",
    37: "CERT",
    38: "CERTREQ",
    39: "AUTH",
    40: "Nonce",
    42: "D",
    43: "V",
    44: "TSi",
    45: "TSr",
    46: "SK",
    47: "CP",
    48: "EAP",
    53: "SKF",
}


@dataclass
class Rung:
    """One line of the ladder: a message, or a run of ESP packets of one direction on one SA."""

    frame: int
    time_s: float
    source: str
    kind: str
    text: str
    count: int = 1

    def as_json(self) -> dict[str, Any]:
        return vars(self)


def ladder(packets: list[Packet]) -> list[Rung]:
    """The rungs in the order of the capture. Alternating pings on two SAs make one rung for each, not many."""
    found: list[Rung] = []
    esp = {packet.packet.number: packet for packet in esp_packets(packets)}
    ike = {message.packet.number: message for message in ike_messages(packets)}
    fragments = {packet.number: (number, total) for packet, number, total in ike_fragments(packets)}
    running: dict[tuple[str, str], Rung] = {}
    for packet in packets:
        if packet.number in ike:
            message = ike[packet.number]
            running.clear()
            found.append(Rung(packet.number, packet.time_s, message.source, "ike", describe_message(message)))
        elif packet.number in fragments:
            number, total = fragments[packet.number]
            text = f"fragment {number} of {total}"
            found.append(Rung(packet.number, packet.time_s, ends(packet)[0], "ike", text))
        elif packet.number in esp:
            what = esp[packet.number]
            text = describe_esp(what)
            rung = running.get((what.source, text))
            if rung is None:
                rung = Rung(packet.number, packet.time_s, what.source, "esp", text, 0)
                running[what.source, text] = rung
                found.append(rung)
            rung.count += 1
    return found


def describe_message(message: IkeMessage) -> str:
    exchange = name_of(ExchangeType, message.exchange)
    kind = "response" if message.is_response else "request"
    names = [_name(one) for one in message.payloads if one.type not in (SK, SKF)]
    last = f", in {message.fragments} fragments" if message.fragments > 1 else ""
    return f"{exchange} {kind} {message.message_id}{last}: {', '.join(names) or 'empty'}"


def describe_esp(packet: EspPacket) -> str:
    inside = " / ".join(packet.layers) or f"next header {packet.next_header}"
    labels = "".join(f", label {label}" for label, _ in packet.labels)
    wrapped = "UDP-encapsulated ESP" if packet.is_udp_encapsulated else "ESP"
    return f"{wrapped} SPI {packet.spi:#010x}, next header {packet.next_header}: {inside}{labels}"


def _name(payload: Payload) -> str:
    if payload.type != NOTIFY:
        return PAYLOADS.get(payload.type, f"payload {payload.type}")
    number = payload.field.number("isakmp.notify.msgtype")
    return f"N({name_of(NotifyType, number or 0)})"
