"""ike.testing.mutators: each way of breaking things does what it says."""

from dataclasses import replace

import pytest

from ike.testing.entropy import ScriptedEntropy
from ike.testing.mutators import (
    OCTET_MUTATORS,
    corrupt_payload_length,
    duplicate_payload,
    flip_bit,
    insert_octets,
    mutate,
    overwrite_length,
    overwrite_octet,
    remove_payload,
    repeat_octets,
    swap_payloads,
    truncate,
)
from ike.wire.message import Message
from ike.wire.payloads import VendorIdPayload, encode_payloads
from tests.ike.wire_strategies import SAMPLE_MESSAGES

OCTETS = bytes(range(100))
MESSAGE = SAMPLE_MESSAGES[0]
EMPTY = replace(MESSAGE, payloads=())


@pytest.fixture
def entropy() -> ScriptedEntropy:
    return ScriptedEntropy()


def test_one_bit_is_flipped(entropy: ScriptedEntropy) -> None:
    for _ in range(50):
        changed = int.from_bytes(OCTETS, "big") ^ int.from_bytes(flip_bit(OCTETS, entropy), "big")
        assert changed.bit_count() == 1


def test_truncation_keeps_the_front(entropy: ScriptedEntropy) -> None:
    cuts = {truncate(OCTETS, entropy) for _ in range(50)}
    assert len(cuts) > 10
    assert all(OCTETS.startswith(cut) and cut != OCTETS for cut in cuts)


def test_overwriting_keeps_the_size(entropy: ScriptedEntropy) -> None:
    for _ in range(50):
        assert len(overwrite_octet(OCTETS, entropy)) == len(overwrite_length(OCTETS, entropy)) == 100


def test_insertion_and_repetition_keep_what_was_there(entropy: ScriptedEntropy) -> None:
    repeated = set()
    for _ in range(50):
        longer = insert_octets(OCTETS, entropy)
        assert 100 < len(longer) <= 108
        added = len(longer) - 100
        assert any(longer[:at] + longer[at + added :] == OCTETS for at in range(101))
        twice = repeat_octets(OCTETS, entropy)
        again = len(twice) - 100
        repeated.add(again)
        assert any(twice == OCTETS[: at + again] + OCTETS[at:] for at in range(101 - again))
    assert len(repeated) > 10
    assert max(repeated) <= 64


@pytest.mark.parametrize("mutator", OCTET_MUTATORS)
def test_no_octets_at_all_break_no_mutator(mutator: object, entropy: ScriptedEntropy) -> None:
    assert callable(mutator)
    assert len(mutator(b"", entropy)) <= 8


def test_mutants_are_reproducible_and_nearly_always_different() -> None:
    mutants = [mutate(OCTETS, ScriptedEntropy(seed)) for seed in range(100)]
    assert mutants == [mutate(OCTETS, ScriptedEntropy(seed)) for seed in range(100)]
    assert len(set(mutants)) > 90


def test_one_payload_is_removed_doubled_or_moved(entropy: ScriptedEntropy) -> None:
    count = len(MESSAGE.payloads)
    removed = remove_payload(MESSAGE, entropy)
    assert len(removed.payloads) == count - 1
    assert set(removed.payloads) < set(MESSAGE.payloads)
    doubled = duplicate_payload(MESSAGE, entropy)
    assert len(doubled.payloads) == count + 1
    assert set(doubled.payloads) == set(MESSAGE.payloads)
    moved = [swap_payloads(MESSAGE, entropy) for _ in range(5)]
    assert all(set(m.payloads) == set(MESSAGE.payloads) for m in moved)
    assert any(m != MESSAGE for m in moved)


@pytest.mark.parametrize("change", [remove_payload, duplicate_payload, swap_payloads])
def test_a_message_without_payloads_stays_as_it_is(change: object, entropy: ScriptedEntropy) -> None:
    assert callable(change)
    assert change(EMPTY, entropy) == EMPTY


def test_exactly_one_payload_length_becomes_wrong(entropy: ScriptedEntropy) -> None:
    # among them payloads whose right length is one that tempts
    message = replace(MESSAGE, payloads=(*MESSAGE.payloads, VendorIdPayload(b"1"), VendorIdPayload(b"")))
    first_type, octets = encode_payloads(message.payloads)
    sizes = [len(encode_payloads([payload])[1]) for payload in message.payloads]
    starts = {sum(sizes[:number]) for number in range(len(sizes))}
    hit = set()
    for _ in range(400):
        body = corrupt_payload_length(message, entropy)
        assert body.first_type == first_type
        changed = [at for at, (old, new) in enumerate(zip(octets, body.octets, strict=True)) if old != new]
        assert changed
        (start,) = {start for start in starts if start + 2 <= changed[0] and changed[-1] <= start + 3}
        hit.add(start)
    assert hit == starts
    assert corrupt_payload_length(EMPTY, entropy).octets == b""


def test_sample_message_is_whole() -> None:
    assert Message.parse(MESSAGE.encode()) == MESSAGE
