"""Broken octets meet every parser of ike.wire: only ParseError comes out, and what is accepted is sane."""

import pytest

from ike.errors import ParseError
from ike.testing.entropy import ScriptedEntropy
from ike.testing.mutators import (
    corrupt_payload_length,
    duplicate_payload,
    mutate,
    remove_payload,
    swap_payloads,
)
from ike.wire.message import HEADER_OCTETS, Header, Message
from ike.wire.payloads import Payload, encode_payloads, parse_payloads
from tests.ike.fuzz import use
from tests.ike.wire_strategies import SAMPLE_MESSAGES, SAMPLE_PAYLOADS

CASES_PER_PAYLOAD = 800
CASES_PER_MESSAGE = 2000


@pytest.mark.parametrize("payload", SAMPLE_PAYLOADS, ids=lambda p: type(p).__name__)
def test_mutated_bodies_of_each_payload(payload: Payload) -> None:
    entropy = ScriptedEntropy(f"body {payload.payload_type}")
    first_type, octets = encode_payloads([payload])
    accepted = 0
    for _ in range(CASES_PER_PAYLOAD):
        body = mutate(octets[4:], entropy)
        try:
            use(parse_payloads(first_type, bytes(2) + (4 + len(body)).to_bytes(2, "big") + body))
        except ParseError:
            continue
        accepted += 1
    assert accepted  # else the mutations would only ever meet the first check


@pytest.mark.parametrize("message", SAMPLE_MESSAGES, ids=["clear", "SK", "SKF"])
@pytest.mark.parametrize("length", ["as it was", "corrected"])
def test_mutated_messages(message: Message, length: str) -> None:
    entropy = ScriptedEntropy(f"message {length}")
    octets = message.encode()
    for _ in range(CASES_PER_MESSAGE // 2):
        mutant = mutate(octets, entropy)
        if length == "corrected" and len(mutant) >= HEADER_OCTETS:
            mutant = mutant[:24] + len(mutant).to_bytes(4, "big") + mutant[28:]
        try:
            Header.parse(mutant)
            use(Message.parse(mutant).payloads)
        except ParseError:
            continue


def test_chains_with_one_wrong_length() -> None:
    entropy = ScriptedEntropy("lengths")
    for _ in range(1000):
        body = corrupt_payload_length(SAMPLE_MESSAGES[0], entropy)
        try:
            use(parse_payloads(body.first_type, body.octets))
        except ParseError:
            continue


def test_whole_chains_in_any_order_parse() -> None:
    entropy = ScriptedEntropy("order")
    message = SAMPLE_MESSAGES[0]
    for _ in range(300):
        message = swap_payloads(message, entropy)
        changed = duplicate_payload(remove_payload(message, entropy), entropy)
        assert Message.parse(changed.encode()) == changed
