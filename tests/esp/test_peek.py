"""Looking at a packet tells what the engine would do with it, and changes nothing."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp import DropReason, EspError, InboundSa, OutboundSa, peek, protect, transform_for, unprotect
from esp.peek import Inside

SPI = bytes.fromhex("c0de0137")
KEY = bytes(range(36))
GCM = transform_for(20, 256)


def pair(*, esn: bool = False, **options: object) -> tuple[OutboundSa, InboundSa]:
    inbound = InboundSa(SPI, GCM, KEY, esn=esn, window=64, **options)  # type: ignore[arg-type]
    return OutboundSa(SPI, GCM, KEY, esn=esn), inbound


def state(sa: InboundSa) -> tuple[object, ...]:
    return sa.packets, sa.octets, dict(sa.drops), sa.replay.highest, sa.replay._seen


def test_header_is_seen_without_an_sa() -> None:
    ours, _ = pair()
    packet = protect(ours, b"secret", 137)
    seen = peek(packet)
    assert (seen.spi, seen.sequence, seen.octets) == (SPI, 1, len(packet))
    assert (seen.verdict, seen.highest, seen.inside) == (None, None, None)


def test_packet_that_would_be_accepted_is_opened_and_not_counted() -> None:
    ours, theirs = pair()
    packet = protect(ours, b"12345", 137)
    before = state(theirs)
    seen = peek(packet, theirs)
    assert (seen.verdict, seen.inside) == (None, Inside(b"12345", 137, 1))
    assert (seen.highest, seen.window) == (0, 64)
    assert state(theirs) == before
    assert not isinstance(unprotect(theirs, packet), DropReason)


def test_replayed_packet_is_opened_all_the_same() -> None:
    ours, theirs = pair()
    packet = protect(ours, b"again", 137)
    unprotect(theirs, packet)
    seen = peek(packet, theirs)
    assert seen.verdict is DropReason.REPLAY
    assert seen.inside is not None and seen.inside.payload == b"again"


def test_extended_sequence_number_is_inferred() -> None:
    ours, theirs = pair(esn=True)
    ours.sequence, theirs.replay.highest = 2**32 - 1, 2**32 - 1
    assert peek(protect(ours, b"x", 137), theirs).sequence == 2**32


def test_dummies_and_foreign_protocols_are_named() -> None:
    ours, theirs = pair(accepts_next_headers={137})
    assert peek(protect(ours, b"", 59), theirs).verdict is DropReason.DUMMY
    assert peek(protect(ours, b"", 4), theirs).verdict is DropReason.NEXT_HEADER


@pytest.mark.parametrize("packet", [b"", SPI, SPI + bytes(3), bytes(4) + bytes(40)])
def test_what_is_no_packet_of_the_sa_is_refused(packet: bytes) -> None:
    with pytest.raises(EspError):
        peek(packet, pair()[1])


@given(st.binary(max_size=80), st.integers(0, 20), st.integers(0, 7))
def test_verdict_is_the_engines_whatever_the_octets_are(octets: bytes, at: int, bit: int) -> None:
    ours, theirs = pair()
    packet = bytearray(protect(ours, octets, 137))
    if at < 16:
        packet[4 + at % (len(packet) - 4)] ^= 1 << bit
    twin = copy.deepcopy(state(theirs))
    seen = peek(bytes(packet), theirs)
    assert state(theirs) == twin
    result = unprotect(theirs, bytes(packet))
    assert (seen.verdict is None) == (not isinstance(result, DropReason))
    if isinstance(result, DropReason):
        assert seen.verdict is result
