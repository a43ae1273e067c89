"""The quick path against the reference: octets, outcomes, counters and windows, over random sequences."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.batch import Outcome, Row, open_batch, receive_batch, seal_batch
from esp.engine import DUMMY_NEXT_HEADER, MAX_PACKET_OCTETS, InboundSad, Opened, protect, unprotect
from esp.errors import DropReason, EspError, UsedUp
from esp.replay import ReplayWindow
from esp.sa import UNLIMITED, InboundSa, OutboundSa
from esp.transforms import Transform, transform_for

MPLS_IN_IP = 137
SPIS = (b"\xc0\x00\x00\x01", b"\xc0\x00\x00\x02")
"""The second follows the first as number 2**32 would follow 2**32 - 1 in the same 64 bits."""
TRANSFORMS = {
    "gcm16-256": transform_for(20, 256),
    "gcm16-128": transform_for(20, 128),
    "gcm8": transform_for(18, 128),
    "ccm16": transform_for(16, 128),
    "chacha": transform_for(28, None),
    "gmac": transform_for(21, 128),
    "implicit": transform_for(30, 128),
    "cbc": transform_for(12, 128, 12),
}
transforms = st.sampled_from(list(TRANSFORMS.values()))
# Mostly the common case; the others are checked for how they fall back.
mostly_gcm = st.one_of(st.just(TRANSFORMS["gcm16-256"]), st.just(TRANSFORMS["gcm16-128"]), transforms)
payloads = st.lists(st.binary(max_size=40), max_size=12)
starts = st.sampled_from([0, 0, 1, 5, 100, 2**32 - 30, 2**32 - 3, 2**32 - 1])
high_starts = st.sampled_from([2**32, 2**33 - 4, 2**64 - 30, 2**64 - 2, 2**64 - 1])
hard_lifetimes = st.tuples(st.just(UNLIMITED) | st.integers(0, 15), st.just(UNLIMITED) | st.integers(0, 150))
COMMON = TRANSFORMS["gcm16-256"]


def keys(transform: Transform) -> tuple[bytes, bytes]:
    return bytes(range(transform.key_octets)), bytes(range(100, 100 + transform.integ_key_octets))


def outbound(transform: Transform, start: int = 0, *, esn: bool = False, spi: bytes = SPIS[0]) -> OutboundSa:
    sa = OutboundSa(spi, transform, *keys(transform), esn=esn)
    sa.sequence = start
    return sa


def inbound(
    transform: Transform,
    start: int = 0,
    *,
    esn: bool = False,
    spi: bytes = SPIS[0],
    window: int = 64,
    accepts: tuple[int, ...] | None = None,
) -> InboundSa:
    sa = InboundSa(spi, transform, *keys(transform), esn=esn, window=window, accepts_next_headers=accepts)
    sa.replay = ReplayWindow(window, esn=esn, highest=start)
    return sa


def outbound_state(sa: OutboundSa) -> tuple[object, ...]:
    return sa.sequence, sa.packets, sa.octets, dict(sa.drops)


def inbound_state(sa: InboundSa) -> tuple[object, ...]:
    window = sa.replay
    near = (window.highest + n & 0xFFFFFFFF for n in range(-window.size - 2, window.size + 2))
    return window.highest, [window.check(low) for low in near], sa.packets, sa.octets, dict(sa.drops)


def protect_each(sa: OutboundSa, batch: list[bytes], next_header: int) -> list[bytes]:
    packets = []
    for payload in batch:
        try:
            packets.append(protect(sa, payload, next_header))
        except UsedUp:
            continue
    return packets


# Outbound


@given(
    transform=mostly_gcm,
    esn=st.booleans(),
    start=starts | high_starts,
    left=st.none() | st.integers(-1, 12),
    hard=hard_lifetimes,
    batches=st.lists(st.tuples(payloads, st.integers(0, 255)), max_size=4),
)
def test_seal_is_protect_many_times(
    transform: Transform,
    esn: bool,
    start: int,
    left: int | None,
    hard: tuple[int, int],
    batches: list[tuple[list[bytes], int]],
) -> None:
    start = start if esn else min(start, 2**32 - 1)
    quick, reference = outbound(transform, start, esn=esn), outbound(transform, start, esn=esn)
    for sa in (quick, reference):
        sa.hard_packets, sa.hard_octets = hard
    if left is not None:
        quick.last_sequence = reference.last_sequence = min(start + left, quick.last_sequence)
    for batch, next_header in batches:
        assert seal_batch(quick, batch, next_header) == protect_each(reference, batch, next_header)
        assert outbound_state(quick) == outbound_state(reference)


@pytest.mark.parametrize("name", ["gcm16-256", "cbc"])
def test_sa_that_is_told_to_stop_earlier_stops_at_once(name: str) -> None:
    sa = outbound(TRANSFORMS[name], 7)
    sa.last_sequence = 4
    assert seal_batch(sa, [b"a", b"b", b"c"], 4) == []
    assert outbound_state(sa) == (7, 0, 0, {DropReason.SEQUENCE_EXHAUSTED: 3})


@pytest.mark.parametrize("name", ["gcm16-256", "cbc"])
@pytest.mark.parametrize("limits", [(3, 1000), (1000, 21), (1000, 15)])
def test_a_batch_stops_at_the_hard_lifetime(name: str, limits: tuple[int, int]) -> None:
    sender, receiver = outbound(TRANSFORMS[name]), inbound(TRANSFORMS[name])
    packets = seal_batch(outbound(TRANSFORMS[name]), [b"payload"] * 5, 4)
    for sa in (sender, receiver):
        sa.hard_packets, sa.hard_octets = limits
    assert seal_batch(sender, [b"payload"] * 5, 4) == packets[:3]
    assert open_each(receiver, packets)[3:] == [DropReason.LIFETIME] * 2
    assert sender.drops == receiver.drops == {DropReason.LIFETIME: 2}
    assert sender.octets == receiver.octets == 21


@pytest.mark.parametrize("name", ["gcm16-256", "cbc"])
def test_what_no_packet_can_hold_seals_nothing(name: str) -> None:
    sa = outbound(TRANSFORMS[name])
    for batch, next_header in (([b"x", bytes(MAX_PACKET_OCTETS)], 4), ([b"x"], 256), ([b"x"], -1)):
        with pytest.raises(EspError):
            seal_batch(sa, batch, next_header)
    assert outbound_state(sa) == (0, 0, 0, {})


def test_the_numbers_are_used_up_when_sealing_fails() -> None:
    sa = outbound(COMMON)
    with pytest.raises(TypeError):
        seal_batch(sa, [b"first", "no octets", b"third"], 4)  # type: ignore[list-item]
    assert (sa.sequence, sa.packets, sa.octets) == (3, 0, 0)


# Inbound


def each(outcomes: list[Outcome]) -> list[Opened | DropReason]:
    """Packet by packet, as the reference gives them."""
    return [packet for one in outcomes for packet in ([one] if isinstance(one, DropReason) else one.packets)]


def open_each(sa: InboundSa, packets: list[bytes]) -> list[Opened | DropReason]:
    return each(open_batch(sa, packets))


def receive_each(sad: InboundSad, packets: list[bytes]) -> list[Opened | DropReason]:
    return [packet for _, outcomes in receive_batch(sad, packets) for packet in each(outcomes)]


@dataclass(frozen=True)
class Damage:
    """What becomes of a packet on its way: where it comes from in the row, and what is done to its octets."""

    index: int
    kind: str
    amount: int

    def apply(self, packet: bytes) -> bytes:
        at = self.amount % len(packet)
        match self.kind:
            case "cut":
                return packet[:at]
            case "flip":
                return packet[:at] + bytes((packet[at] ^ 1 << self.amount % 8,)) + packet[at + 1 :]
            case "other SPI":
                return SPIS[1] + packet[4:]
            case "strange SPI":
                return self.amount.to_bytes(4, "big") + packet[4:]
            case "forged number":
                return packet[:4] + (self.amount * 0x01000193 & 0xFFFFFFFF).to_bytes(4, "big") + packet[8:]
        return packet


one_arrival = st.builds(
    lambda *damage: [Damage(*damage)],
    st.integers(0, 130),
    st.sampled_from(["as it is", "cut", "flip", "other SPI", "strange SPI", "forged number"]),
    st.integers(0, 2000),
)
in_order = st.builds(
    lambda first, count: [Damage(n, "as it is", 0) for n in range(first, first + count)],
    st.integers(0, 40),
    st.integers(1, 90),
)
arrivals = st.lists(in_order | one_arrival, max_size=9).map(
    lambda parts: [one for part in parts for one in part]
)


def wire(transform: Transform, esn: bool, start: int, kinds: list[int]) -> list[bytes]:
    """Packets from `start` on, some of the second SA; kinds: 59 is a dummy, 0 one with wrong padding."""
    senders = [outbound(transform, start, esn=esn, spi=spi) for spi in SPIS]
    packets = []
    for number in range(131):
        kind = kinds[number % len(kinds)]
        sender = senders[kind % 7 == 6]
        if sender.sequence >= sender.last_sequence:
            break
        if kind:
            packets.append(protect(sender, bytes(kind % 9) + bytes((number,)), kind))
        else:
            sequence = sender.next_sequence()
            header = sender.spi + (sequence & 0xFFFFFFFF).to_bytes(4, "big")
            high = (sequence >> 32).to_bytes(4, "big") if esn else b""
            plaintext = bytes(14) + b"\x05\x04"
            packets.append(sender.cipher.seal(header, high, sender.cipher.iv(sequence), plaintext))
    return packets


def sad_of(*sas: InboundSa) -> InboundSad:
    sad = InboundSad()
    for sa in sas:
        sad.add(sa)
    return sad


@given(
    transform=mostly_gcm,
    esn=st.booleans(),
    start=starts | high_starts,
    behind=st.integers(0, 70),
    window=st.sampled_from([0, 64, 64, 65, 1024]),
    kinds=st.lists(st.sampled_from([4, 4, 4, 137, 137, 41, 59, 6, 0]), min_size=1, max_size=9),
    accepts=st.sampled_from([None, (4, 137), (137,)]),
    hard=st.just((UNLIMITED, UNLIMITED)) | hard_lifetimes,
    batches=st.lists(arrivals, max_size=4),
)
def test_receive_is_the_reference_many_times(
    transform: Transform,
    esn: bool,
    start: int,
    behind: int,
    window: int,
    kinds: list[int],
    accepts: tuple[int, ...] | None,
    hard: tuple[int, int],
    batches: list[list[Damage]],
) -> None:
    start = start if esn else min(start, 2**32 - 1)
    window = window or 64 * esn
    highest = max(0, start - behind)
    sent = wire(transform, esn, start, kinds) or [SPIS[0] + bytes(60)]
    sides = [
        [inbound(transform, highest, esn=esn, spi=spi, window=window, accepts=accepts) for spi in SPIS]
        for _ in range(2)
    ]
    for sa in (*sides[0], *sides[1]):
        sa.hard_packets, sa.hard_octets = hard
    quick, reference = (sad_of(*side) for side in sides)
    for batch in batches:
        packets = [one.apply(sent[one.index % len(sent)]) for one in batch]
        expected: list[Opened | DropReason] = []
        for packet in packets:
            received = reference.receive(packet)
            expected.append(received if isinstance(received, DropReason) else received.opened)
        outcomes = receive_each(quick, packets)
        assert outcomes == expected
        assert [type(one) for one in outcomes] == [type(one) for one in expected]
        assert quick.drops == reference.drops
        for one, other in zip(*sides, strict=True):
            assert inbound_state(one) == inbound_state(other)


def test_every_truncation_is_told_from_a_wrong_icv() -> None:
    packet = protect(outbound(COMMON), b"a payload", MPLS_IN_IP)
    least = len(packet) - len(b"a payload") - 1  # without payload there is one octet of padding less
    for length in range(len(packet)):
        receiver = inbound(COMMON)
        expected = DropReason.TRUNCATED if length < least else DropReason.INTEGRITY
        assert open_each(receiver, [packet[:length]] * 2) == [expected] * 2
        assert receiver.drops == {expected: 2}


def test_packets_with_the_numbers_that_come_next_are_one_row() -> None:
    packets = seal_batch(outbound(COMMON), [bytes([n]) for n in range(50)], MPLS_IN_IP)
    (row,) = open_batch(inbound(COMMON), packets)
    assert isinstance(row, Row)
    assert (row.payloads, row.next_header, row.sequence) == ([bytes([n]) for n in range(50)], MPLS_IN_IP, 1)


def test_one_octet_of_padding_that_is_not_as_the_others_is_found() -> None:
    """RFC 4303 2.4: what a row of equal trailers saves is the look at the padding of each."""
    sender, receiver = outbound(COMMON), inbound(COMMON)
    packets = []
    for padding in (b"\x01\x02\x02", b"\x01\x02\x02", b"\x01\x03\x02", b"\x01\x02\x02"):
        number = sender.next_sequence()
        header = sender.spi + number.to_bytes(4, "big")
        packets.append(
            sender.cipher.seal(header, b"", sender.cipher.iv(number), bytes(4) + padding + b"\x04")
        )
    opened = open_each(receiver, packets)
    assert [one if isinstance(one, DropReason) else one.payload for one in opened] == [
        bytes(4),
        bytes(4),
        DropReason.PADDING,
        bytes(4),
    ]


def test_a_replay_after_a_row_moves_the_window_once() -> None:
    packets = seal_batch(outbound(COMMON), [b"payload"] * 3, MPLS_IN_IP)
    receiver = inbound(COMMON)
    outcomes = open_each(receiver, [packets[0], packets[1], packets[0], packets[2]])
    assert [one for one in outcomes if isinstance(one, DropReason)] == [DropReason.REPLAY]
    assert receiver.replay.highest == 3


@pytest.mark.parametrize("esn", [False, True], ids=["sn32", "esn"])
def test_a_row_across_the_wrap_of_the_low_half(esn: bool) -> None:
    start = 2**32 - 5
    sender, receiver = outbound(COMMON, start, esn=esn), inbound(COMMON, start, esn=esn)
    packets = seal_batch(sender, [bytes([n]) for n in range(10)], MPLS_IN_IP)
    opened = open_each(receiver, packets)
    count = 10 if esn else 4
    assert opened == [Opened(bytes([n]), MPLS_IN_IP, start + 1 + n) for n in range(count)]
    assert receiver.replay.highest == start + count
    assert open_each(receiver, packets) == [DropReason.REPLAY] * count


def test_a_peer_that_begins_its_numbers_anew_without_esn_is_dropped_by_both() -> None:
    """It has the keys, so the ICVs are right; 2^32 packets later its numbers have been used (RFC 4303 3.3.3)."""
    sender = outbound(COMMON, 2**32 - 4)
    sender.last_sequence = 2**33
    packets = seal_batch(sender, [bytes([n]) for n in range(8)], 4)
    quick, reference = inbound(COMMON, 2**32 - 4), inbound(COMMON, 2**32 - 4)
    assert open_each(quick, packets) == [unprotect(reference, packet) for packet in packets]
    assert inbound_state(quick) == inbound_state(reference)
    assert quick.packets == 3 and quick.drops == {DropReason.TOO_OLD: 5}


@pytest.mark.parametrize("plaintexts", [(b"", b"\x00\x04"), (b"\x00", b"\x00\x04"), (b"\x00\x04", b"\x00")])
def test_a_plaintext_too_short_for_a_trailer_raises_nothing_though_its_icv_is_right(
    plaintexts: tuple[bytes, ...],
) -> None:
    sender, packets = outbound(COMMON), []
    for octets in plaintexts:
        number = sender.next_sequence()
        header = sender.spi + number.to_bytes(4, "big")
        packets.append(sender.cipher.seal(header, b"", sender.cipher.iv(number), octets))
    quick, reference = inbound(COMMON), inbound(COMMON)
    assert open_each(quick, packets) == [unprotect(reference, packet) for packet in packets]
    assert inbound_state(quick) == inbound_state(reference)
    assert quick.drops == {DropReason.TRUNCATED: 1}


def test_the_spi_behind_ours_is_not_ours_when_the_numbers_wrap() -> None:
    """With ESN the associated data is made here, so a wrong SPI would pass if it were not looked at."""
    sender, receiver = outbound(COMMON, 2**32 - 3, esn=True), inbound(COMMON, 2**32 - 3, esn=True)
    packets = seal_batch(sender, [b"payload"] * 4, MPLS_IN_IP)
    packets[2] = SPIS[1] + packets[2][4:]
    outcomes = open_each(receiver, packets)
    assert [isinstance(one, Opened) for one in outcomes] == [True, True, False, True]
    assert outcomes[2] is DropReason.UNKNOWN_SPI


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_dummies_and_foreign_protocols_move_the_window(name: str) -> None:
    transform = TRANSFORMS[name]
    sender, receiver = outbound(transform), inbound(transform, accepts=(MPLS_IN_IP,))
    packets = [
        packet
        for next_header in (DUMMY_NEXT_HEADER, 4, MPLS_IN_IP)
        for packet in seal_batch(sender, [b"payload"], next_header)
    ]
    assert open_each(receiver, packets) == [
        DropReason.DUMMY,
        DropReason.NEXT_HEADER,
        Opened(b"payload", MPLS_IN_IP, 3),
    ]
    assert open_each(receiver, packets) == [DropReason.REPLAY] * 3
    assert (receiver.packets, receiver.octets) == (1, 7)


@given(octets=st.lists(st.binary(max_size=60), max_size=8))
def test_no_octets_from_the_network_raise_or_pass(octets: list[bytes]) -> None:
    sad = sad_of(inbound(COMMON))
    outcomes = receive_each(sad, [*octets, *(SPIS[0] + one for one in octets)])
    assert all(isinstance(one, DropReason) for one in outcomes)
    assert len(outcomes) == 2 * len(octets)
