"""Ways to break octets and messages: for fuzzing, and for a peer that misbehaves on purpose.

Must not know what is right: each function changes something and promises nothing about the result.
"""

from collections.abc import Callable
from dataclasses import replace

from ike.testing.entropy import ScriptedEntropy
from ike.wire.message import Message, SealedBody
from ike.wire.payloads import encode_payloads

# Where lengths and counts go wrong: empty, shorter than a header, off by one, all ones.
_TEMPTING = (0, 1, 2, 3, 4, 5, 7, 8, 9, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)


def flip_bit(octets: bytes, entropy: ScriptedEntropy) -> bytes:
    """One bit inverted."""
    if not octets:
        return octets
    position = entropy.below(8 * len(octets))
    mutant = bytearray(octets)
    mutant[position // 8] ^= 1 << position % 8
    return bytes(mutant)


def truncate(octets: bytes, entropy: ScriptedEntropy) -> bytes:
    """Cut off anywhere."""
    return octets[: entropy.below(len(octets))] if octets else octets


def overwrite_octet(octets: bytes, entropy: ScriptedEntropy) -> bytes:
    """One octet replaced by a value that tempts counts and types."""
    if not octets:
        return octets
    at = entropy.below(len(octets))
    return octets[:at] + bytes((_tempting(entropy) & 0xFF,)) + octets[at + 1 :]


def overwrite_length(octets: bytes, entropy: ScriptedEntropy) -> bytes:
    """Two octets replaced by a value that tempts 16-bit lengths, or by what was there plus or minus one."""
    if len(octets) < 2:
        return octets
    at = entropy.below(len(octets) - 1)
    there = int.from_bytes(octets[at : at + 2], "big")
    value = (_tempting(entropy), (there + 1) & 0xFFFF, (there - 1) & 0xFFFF)[entropy.below(3)]
    return octets[:at] + value.to_bytes(2, "big") + octets[at + 2 :]


def insert_octets(octets: bytes, entropy: ScriptedEntropy) -> bytes:
    """Up to eight octets more, anywhere."""
    at = entropy.below(len(octets) + 1)
    return octets[:at] + entropy.octets(1 + entropy.below(8)) + octets[at:]


def repeat_octets(octets: bytes, entropy: ScriptedEntropy) -> bytes:
    """A piece of at most 64 octets written twice."""
    start = entropy.below(len(octets) + 1)
    end = min(len(octets), start + entropy.below(65))
    return octets[:end] + octets[start:]


OCTET_MUTATORS: tuple[Callable[[bytes, ScriptedEntropy], bytes], ...] = (
    flip_bit,
    truncate,
    overwrite_octet,
    overwrite_length,
    insert_octets,
    repeat_octets,
)


def mutate(octets: bytes, entropy: ScriptedEntropy, at_most: int = 4) -> bytes:
    """One to `at_most` of OCTET_MUTATORS, one after the other."""
    for _ in range(1 + entropy.below(at_most)):
        octets = OCTET_MUTATORS[entropy.below(len(OCTET_MUTATORS))](octets, entropy)
    return octets


def remove_payload(message: Message, entropy: ScriptedEntropy) -> Message:
    """One payload gone; the chain stays whole."""
    if not message.payloads:
        return message
    at = entropy.below(len(message.payloads))
    return replace(message, payloads=message.payloads[:at] + message.payloads[at + 1 :])


def duplicate_payload(message: Message, entropy: ScriptedEntropy) -> Message:
    """One payload there twice; the chain stays whole."""
    if not message.payloads:
        return message
    at = entropy.below(len(message.payloads))
    return replace(message, payloads=message.payloads[: at + 1] + message.payloads[at:])


def swap_payloads(message: Message, entropy: ScriptedEntropy) -> Message:
    """Two payloads in each other's place."""
    if len(message.payloads) < 2:
        return message
    payloads = list(message.payloads)
    first, second = entropy.below(len(payloads)), entropy.below(len(payloads))
    payloads[first], payloads[second] = payloads[second], payloads[first]
    return replace(message, payloads=tuple(payloads))


def corrupt_payload_length(message: Message, entropy: ScriptedEntropy) -> SealedBody:
    """The payloads of a message, ready to be sealed, with the Payload Length of one of them wrong."""
    first_type, octets = encode_payloads(message.payloads)
    starts = _payload_starts(octets)
    if not starts:
        return SealedBody(first_type, octets)
    at = starts[entropy.below(len(starts))] + 2
    right = int.from_bytes(octets[at : at + 2], "big")
    wrong = next(value for value in (_tempting(entropy), right ^ 1) if value != right)
    return SealedBody(first_type, octets[:at] + wrong.to_bytes(2, "big") + octets[at + 2 :])


def splice(octets: bytes, other: bytes, entropy: ScriptedEntropy) -> bytes:
    """The beginning of one and the end of the other, cut anywhere."""
    return octets[: entropy.below(len(octets) + 1)] + other[entropy.below(len(other) + 1) :]


def mutate_inside(message: Message, entropy: ScriptedEntropy) -> SealedBody:
    """What a message says, broken, and ready to be sealed by whoever has the keys: it reaches the meaning.

    One time in three payloads are removed, repeated or swapped and each is whole; one time in three a Payload Length
    is wrong; else the octets are mutated, and the first payload's type now and then.
    """
    match entropy.below(3):
        case 0:
            changes = (remove_payload, duplicate_payload, swap_payloads)
            for _ in range(1 + entropy.below(3)):
                message = changes[entropy.below(3)](message, entropy)
            return SealedBody(*encode_payloads(message.payloads))
        case 1:
            return corrupt_payload_length(message, entropy)
    first_type, octets = encode_payloads(message.payloads)
    if entropy.below(8) == 0:
        first_type = 33 + entropy.below(24)
    return SealedBody(first_type, mutate(octets, entropy))


def mutate_body(octets: bytes, entropy: ScriptedEntropy) -> bytes:
    """The body of one payload, mutated, with a generic header whose length is right: it reaches the body's parser."""
    body = mutate(octets[4:], entropy)
    return octets[:2] + (4 + len(body)).to_bytes(2, "big") + body


def _payload_starts(octets: bytes) -> list[int]:
    starts: list[int] = []
    at = 0
    while at < len(octets):
        starts.append(at)
        at += int.from_bytes(octets[at + 2 : at + 4], "big")
    return starts


def _tempting(entropy: ScriptedEntropy) -> int:
    return _TEMPTING[entropy.below(len(_TEMPTING))]
