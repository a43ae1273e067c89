"""1,000,000 broken, repeated, late and foreign ESP packets among good ones: each is counted for what it is."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

from esp.batch import Row, open_batch, seal_batch
from esp.engine import InboundSad, protect
from esp.errors import DropReason
from esp.sa import InboundSa, OutboundSa
from esp.transforms import transform_for
from tests.soak.run import Run

FAULTS = 1_000_000
GOOD = 20
"""Good packets of a case, with as many faults among them, and as many for SAs that are not there."""
WINDOW = 64
SPI = b"\xc0\0\0\x01"
MAX_GROWTH_OCTETS = 2 * 1024 * 1024


def soak(run: Run) -> None:
    transform = transform_for(20, 256)
    some = random.Random("esp faults")
    keys = some.randbytes(transform.key_octets)
    ours = OutboundSa(SPI, transform, keys, esn=True)
    theirs = InboundSa(SPI, transform, keys, esn=True, window=WINDOW)
    sad = InboundSad()
    expected: Counter[DropReason] = Counter()
    tracemalloc.start()
    base = 0
    for number in run.cases(FAULTS // (2 * GOOD)):
        payloads = [number.to_bytes(4, "big") + bytes([index]) for index in range(GOOD)]
        good = seal_batch(ours, payloads, 137)
        some.shuffle(good)  # reordering inside the window passes
        arrivals: list[bytes] = []
        for packet in good:
            arrivals.append(packet)
            fault, reason = _fault(some, packet, ours)
            arrivals.append(fault)
            expected[reason] += 1
        rows = [one for one in open_batch(theirs, arrivals) if isinstance(one, Row)]
        for _ in range(GOOD):
            assert sad.receive(some.randbytes(4) + arrivals[0][4:]) is DropReason.UNKNOWN_SPI
        opened = sorted(payload for row in rows for payload in row.payloads)
        assert opened == sorted(payloads), f"case {number}: of {GOOD} good packets {len(opened)} came out"
        assert theirs.drops == expected, f"case {number}: {theirs.drops} and not {expected}"
        if number == 100:
            base = tracemalloc.get_traced_memory()[0]
        run.step(f"{sum(expected.values())} faults")
    grown = tracemalloc.get_traced_memory()[0] - base
    tracemalloc.stop()
    assert not base or grown < MAX_GROWTH_OCTETS, f"{grown} octets more than after the first cases"


def _fault(some: random.Random, packet: bytes, ours: OutboundSa) -> tuple[bytes, DropReason]:
    """Something wrong with a packet that has just arrived, and what it is to be dropped for."""
    match some.randrange(4):
        case 0:
            return packet, DropReason.REPLAY
        case 1:
            return packet[: some.randrange(8, len(packet) - 24)], DropReason.TRUNCATED
        case 2:
            at = some.randrange(8, len(packet))
            forged = bytearray(protect(ours, b"forged", 137))
            forged[8 + at % (len(forged) - 8)] ^= 1 << some.randrange(8)
            return bytes(forged), DropReason.INTEGRITY
    # Far ahead, by another's key: the window must not move.
    stranger = OutboundSa(SPI, ours.transform, some.randbytes(ours.transform.key_octets), esn=True)
    stranger.sequence = ours.sequence + 10 * WINDOW
    return protect(stranger, b"not ours", 137), DropReason.INTEGRITY
