"""1,000,000 broken, repeated, late and foreign ESP packets among good ones: each is counted for what it is.

Half of the cases are with extended sequence numbers, where a late packet is no "too old" one: its number stands for one
of the next 2^32 (RFC 4303 A2.2), for which its ICV is wrong.
"""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter, deque

from esp.batch import Row, open_batch, seal_batch
from esp.engine import InboundSad, protect
from esp.errors import DropReason
from esp.sa import InboundSa, OutboundSa
from esp.transforms import transform_for
from tests.soak.run import Run

FAULTS = 1_000_000
GOOD = 20
"""Good packets of a case, with as many faults among them, and as many for SAs that are not there."""
KEPT_BACK = 4
"""Good packets of a case that arrive when the window has passed them, or never."""
WINDOW = 64
SPI = b"\xc0\0\0\x01"
MAX_GROWTH_OCTETS = 2 * 1024 * 1024


def soak(run: Run) -> None:
    some = random.Random("esp faults")
    ends = [End(some, esn=False), End(some, esn=True)]
    sad = InboundSad()
    tracemalloc.start()
    base = grown = 0
    for number in run.cases(FAULTS // (2 * GOOD)):
        end = ends[number % 2]
        payloads = [number.to_bytes(4, "big") + bytes([index]) for index in range(GOOD)]
        good = seal_batch(end.ours, payloads, 137)
        some.shuffle(good)  # reordering inside the window passes
        arrivals: list[bytes] = []
        for packet in good:
            arrivals += packet, end.fault(packet)
        rows = [one for one in open_batch(end.theirs, arrivals) if isinstance(one, Row)]
        end.keep_back()
        for _ in range(GOOD):
            assert sad.receive(some.randbytes(4) + arrivals[0][4:]) is DropReason.UNKNOWN_SPI
        opened = sorted(payload for row in rows for payload in row.payloads)
        assert opened == sorted(payloads), f"case {number}: of {GOOD} good packets {len(opened)} came out"
        assert end.theirs.drops == end.expected, f"case {number}: {end.theirs.drops} and not {end.expected}"
        if number == 100:
            base = tracemalloc.get_traced_memory()[0]
        run.step(f"{sum(one.expected.total() for one in ends)} faults")
    if base:
        grown = tracemalloc.get_traced_memory()[0] - base
    tracemalloc.stop()
    assert grown < MAX_GROWTH_OCTETS, f"{grown} octets more than after the first cases"
    assert not base or all(one.theirs.drops[reason] for one, reason in zip(ends, LATE, strict=True))
    run.figures.update(
        drops=dict(ends[0].expected), drops_esn=dict(ends[1].expected), unknown_spi=run.done * GOOD,
        late=sum(one.late for one in ends), octets_grown=grown,
    )  # fmt: skip


LATE = DropReason.TOO_OLD, DropReason.INTEGRITY
"""What a packet is that comes when the window has passed it, without and with extended sequence numbers."""


class End:
    """A pair of SAs; `expected` are the drops of the receiving one, `late` how many came too late."""

    def __init__(self, some: random.Random, *, esn: bool) -> None:
        self._some, self._late_reason = some, LATE[esn]
        transform = transform_for(20, 256)
        keys = some.randbytes(transform.key_octets)
        self.ours = OutboundSa(SPI, transform, keys, esn=esn)
        self.theirs = InboundSa(SPI, transform, keys, esn=esn, window=WINDOW)
        self.expected: Counter[DropReason] = Counter()
        self.late = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=4 * WINDOW)

    def keep_back(self) -> None:
        for _ in range(KEPT_BACK):
            packet = protect(self.ours, b"kept back", 137)
            self._kept.append((self.ours.sequence, packet))

    def fault(self, packet: bytes) -> bytes:
        """Something wrong with a packet that has just arrived; notes what it is to be dropped for."""
        faulty, reason = self._fault(packet)
        self.expected[reason] += 1
        return faulty

    def _fault(self, packet: bytes) -> tuple[bytes, DropReason]:
        some, ours = self._some, self.ours
        match some.randrange(5):
            case 0 if self._kept and self._kept[0][0] <= self.theirs.replay.highest - WINDOW:
                self.late += 1
                return self._kept.popleft()[1], self._late_reason
            case 1:
                return packet[: some.randrange(8, len(packet) - 24)], DropReason.TRUNCATED
            case 2:
                at = some.randrange(8, len(packet))
                forged = bytearray(protect(ours, b"forged", 137))
                forged[8 + at % (len(forged) - 8)] ^= 1 << some.randrange(8)
                return bytes(forged), DropReason.INTEGRITY
            case 3:
                # Far ahead, by another's key: the window must not move.
                stranger = OutboundSa(
                    SPI, ours.transform, some.randbytes(ours.transform.key_octets), esn=ours.esn
                )
                stranger.sequence = ours.sequence + 10 * WINDOW
                return protect(stranger, b"not ours", 137), DropReason.INTEGRITY
        return packet, DropReason.REPLAY
