"""protect, unprotect and the SAD: round trips, every kind of drop, and that no drop moves the window."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.engine import (
    DUMMY_NEXT_HEADER,
    MAX_PACKET_OCTETS,
    InboundSad,
    Opened,
    Received,
    add_trailer,
    protect,
    strip_trailer,
    unprotect,
)
from esp.errors import DropReason, EspError, LifetimeExpired, SequenceExhausted
from esp.integrity import mac_for
from esp.sa import InboundSa, OutboundSa
from esp.transforms import Transform, transform_for

MPLS_IN_IP = 137
SPI = b"\xc0\x00\x00\x01"
TRANSFORMS = [
    *(transform_for(encr, bits) for encr in (14, 15, 16, 18, 19, 20, 21, 29, 30) for bits in (128, 192, 256)),
    transform_for(28, None),
    transform_for(31, None),
    *(
        transform_for(encr, bits, integ)
        for encr in (12, 13)
        for bits in (128, 192, 256)
        for integ in (2, 5, 8, 12, 13, 14)
    ),
    *(transform_for(11, None, integ) for integ in (2, 5, 8, 12, 13, 14)),
]
NAMES = [f"{t.encr}-{t.key_bits}-{t.integ}" for t in TRANSFORMS]
ONE_OF_EACH = [
    transform_for(20, 256),
    transform_for(18, 128),
    transform_for(28, None),
    transform_for(12, 128, 12),
    transform_for(14, 128),
    transform_for(21, 128),
    transform_for(30, 128),
    transform_for(13, 128, 5),
    transform_for(11, None, 14),
]
ONE_OF_EACH_NAMES = ["gcm16", "gcm8", "chacha", "cbc", "ccm8", "gmac", "gcm16iiv", "ctr", "null"]
every_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=NAMES)
one_of_each = pytest.mark.parametrize("transform", ONE_OF_EACH, ids=ONE_OF_EACH_NAMES)
with_and_without_esn = pytest.mark.parametrize("esn", [False, True], ids=["sn32", "esn"])


def pair(transform: Transform, *, esn: bool = False, window: int = 1024) -> tuple[OutboundSa, InboundSa]:
    encr_key = bytes(range(transform.key_octets))
    integ_key = bytes(range(100, 100 + transform.integ_key_octets))
    return (
        OutboundSa(SPI, transform, encr_key, integ_key, esn=esn),
        InboundSa(SPI, transform, encr_key, integ_key, esn=esn, window=window),
    )


def payload_of(result: Opened | DropReason) -> bytes:
    assert isinstance(result, Opened)
    return result.payload


# Round trips


@every_transform
@with_and_without_esn
def test_what_is_protected_comes_out(transform: Transform, esn: bool) -> None:
    outbound, inbound = pair(transform, esn=esn)
    for number, size in enumerate([*range(40), 1400, 9000], 1):
        payload = bytes(n & 0xFF for n in range(size))
        packet = protect(outbound, payload, MPLS_IN_IP)
        assert len(packet) == transform.packet_octets(size)
        assert unprotect(inbound, packet) == Opened(payload, MPLS_IN_IP, number)
    assert outbound.packets == inbound.packets == 42
    assert outbound.octets == inbound.octets == sum(range(40)) + 1400 + 9000
    assert not inbound.drops


@every_transform
def test_packet_is_laid_out_as_rfc_4303_says(transform: Transform) -> None:
    outbound, _ = pair(transform)
    protect(outbound, b"first", 4)
    packet = protect(outbound, b"second", 4)
    assert packet[:8] == SPI + b"\0\0\0\2"
    body_octets = len(packet) - 8 - transform.iv_octets - transform.icv_octets
    assert body_octets % transform.block_octets == 0
    assert len(packet) % 4 == 0
    if transform.iv_octets == 8:
        assert packet[8:16] == (2).to_bytes(8, "big")


def test_aead_iv_is_the_whole_sequence_number() -> None:
    outbound, inbound = pair(transform_for(20, 128), esn=True)
    outbound.sequence = inbound.replay.highest = 0x1_0000_0004
    packet = protect(outbound, b"payload", 4)
    assert packet[4:16] == bytes.fromhex("00000005 00000001 00000005")
    assert unprotect(inbound, packet) == Opened(b"payload", 4, 0x1_0000_0005)


@pytest.mark.parametrize(
    ("implicit", "explicit", "bits"),
    [(29, 14, 128), (29, 14, 256), (30, 20, 128), (30, 20, 256), (31, 28, None)],
)
@with_and_without_esn
def test_implicit_iv_is_the_explicit_one_left_out(
    implicit: int, explicit: int, bits: int | None, esn: bool
) -> None:
    """RFC 8750 4: all but the IV in the packet is as it was; ours is the sequence number in both."""
    shorter, longer = (
        pair(transform_for(implicit, bits), esn=esn)[0],
        pair(transform_for(explicit, bits), esn=esn)[0],
    )
    shorter.sequence = longer.sequence = 2**32 - 2 - 64 * (not esn)
    for _ in range(4):
        packet = protect(longer, b"payload", MPLS_IN_IP)
        assert protect(shorter, b"payload", MPLS_IN_IP) == packet[:8] + packet[16:]


@pytest.mark.parametrize(
    "transform", [transform_for(11, None, 12), transform_for(21, 256)], ids=["null", "gmac"]
)
def test_payload_stands_in_clear_without_encryption(transform: Transform) -> None:
    outbound, _ = pair(transform)
    start = 8 + transform.iv_octets
    packet = protect(outbound, b"payload", MPLS_IN_IP)
    assert packet[start : -transform.icv_octets] == b"payload\1\2\3\3\x89"


def test_cbc_ivs_repeat_neither_within_an_sa_nor_across_keys() -> None:
    transform = transform_for(12, 128, 12)
    ciphers = [transform.cipher(bytes([n]) * 16, bytes(32)) for n in range(4)]
    ivs = {cipher.iv(sequence) for cipher in ciphers for sequence in (*range(1, 200), 2**64 - 1)}
    assert len(ivs) == 4 * 200
    assert {len(iv) for iv in ivs} == {16}


@one_of_each
def test_high_half_of_the_sequence_number_is_authenticated(transform: Transform) -> None:
    outbound, inbound = pair(transform, esn=True)
    outbound.sequence = 7 << 32
    packet = protect(outbound, b"payload", 4)
    assert unprotect(inbound, packet) is DropReason.INTEGRITY
    inbound.replay.highest = 7 << 32
    assert payload_of(unprotect(inbound, packet)) == b"payload"
    _, without = pair(transform)
    assert unprotect(without, packet) is DropReason.INTEGRITY


@one_of_each
def test_traffic_goes_on_when_the_low_half_wraps(transform: Transform) -> None:
    outbound, inbound = pair(transform, esn=True, window=64)
    outbound.sequence = inbound.replay.highest = 2**32 - 4
    packets = [protect(outbound, bytes([n]), 4) for n in range(8)]
    order = [5, 0, 7, 3, 1, 2, 4, 6]
    for n in order:
        assert unprotect(inbound, packets[n]) == Opened(bytes([n]), 4, 2**32 - 3 + n)
    for packet in packets:
        assert unprotect(inbound, packet) is DropReason.REPLAY


# TFC padding, dummies, next headers


def test_tfc_padding_follows_the_payload() -> None:
    outbound, inbound = pair(ONE_OF_EACH[0])
    packet = protect(outbound, b"inner IP packet", 4, tfc_octets=100)
    assert len(packet) == outbound.transform.packet_octets(115)
    assert unprotect(inbound, packet) == Opened(b"inner IP packet" + bytes(100), 4, 1)
    assert outbound.octets == inbound.octets == 115


def test_dummy_packet_is_dropped_without_error_and_moves_the_window() -> None:
    outbound, inbound = pair(ONE_OF_EACH[0])
    dummy = protect(outbound, b"anything at all", DUMMY_NEXT_HEADER)
    assert unprotect(inbound, dummy) is DropReason.DUMMY
    assert unprotect(inbound, dummy) is DropReason.REPLAY
    assert inbound.replay.highest == 1
    assert inbound.packets == 0


def test_sa_carries_only_its_protocols() -> None:
    transform = ONE_OF_EACH[0]
    outbound, _ = pair(transform)
    inbound = InboundSa(SPI, transform, bytes(range(transform.key_octets)), accepts_next_headers={MPLS_IN_IP})
    assert unprotect(inbound, protect(outbound, b"x", 4)) is DropReason.NEXT_HEADER
    assert unprotect(inbound, protect(outbound, b"x", DUMMY_NEXT_HEADER)) is DropReason.DUMMY
    assert payload_of(unprotect(inbound, protect(outbound, b"x", MPLS_IN_IP))) == b"x"
    assert inbound.drops == {DropReason.NEXT_HEADER: 1, DropReason.DUMMY: 1}


# Attacks


@one_of_each
@with_and_without_esn
def test_every_truncation_is_dropped_and_changes_nothing(transform: Transform, esn: bool) -> None:
    outbound, inbound = pair(transform, esn=esn)
    packet = protect(outbound, b"a payload of some length", MPLS_IN_IP)
    for length in range(len(packet)):
        assert unprotect(inbound, packet[:length]) in (DropReason.TRUNCATED, DropReason.INTEGRITY)
    shortest = 8 + transform.iv_octets + 2 + transform.icv_octets
    assert inbound.drops[DropReason.TRUNCATED] >= shortest
    assert inbound.drops.total() == len(packet)
    assert inbound.replay.highest == 0
    assert payload_of(unprotect(inbound, packet)) == b"a payload of some length"


@one_of_each
@with_and_without_esn
def test_every_flipped_bit_is_noticed_and_changes_nothing(transform: Transform, esn: bool) -> None:
    outbound, inbound = pair(transform, esn=esn)
    packet = protect(outbound, b"payload", MPLS_IN_IP)
    for bit in range(8 * len(packet)):
        octets = bytearray(packet)
        octets[bit // 8] ^= 1 << bit % 8
        result = unprotect(inbound, bytes(octets))
        if bit < 32:
            assert result is DropReason.UNKNOWN_SPI
        else:
            # A flip in the sequence number may land before the window, or on the number zero.
            assert result in (DropReason.INTEGRITY, DropReason.TOO_OLD, DropReason.REPLAY)
            assert bit < 64 or result is DropReason.INTEGRITY
    assert inbound.replay.highest == 0
    assert inbound.packets == 0
    assert payload_of(unprotect(inbound, packet)) == b"payload"


@one_of_each
def test_replayed_packet_is_dropped(transform: Transform) -> None:
    outbound, inbound = pair(transform)
    packets = [protect(outbound, bytes([n]), 4) for n in range(70)]
    assert all(isinstance(unprotect(inbound, packet), Opened) for packet in reversed(packets))
    assert all(unprotect(inbound, packet) is DropReason.REPLAY for packet in packets)
    assert inbound.drops == {DropReason.REPLAY: 70}


def test_packet_left_of_the_window_is_dropped() -> None:
    outbound, inbound = pair(ONE_OF_EACH[0], window=64)
    packets = [protect(outbound, bytes([n]), 4) for n in range(66)]
    assert isinstance(unprotect(inbound, packets[-1]), Opened)
    assert [unprotect(inbound, p) for p in packets[:2]] == [DropReason.TOO_OLD] * 2
    assert isinstance(unprotect(inbound, packets[2]), Opened)


def test_forged_high_sequence_number_does_not_move_the_window() -> None:
    outbound, inbound = pair(ONE_OF_EACH[0], window=64)
    packet = protect(outbound, b"payload", 4)
    forged = packet[:4] + b"\xff\xff\xff\xff" + packet[8:]
    assert unprotect(inbound, forged) is DropReason.INTEGRITY
    assert payload_of(unprotect(inbound, packet)) == b"payload"


def test_without_a_replay_window_a_packet_may_come_twice() -> None:
    outbound, inbound = pair(ONE_OF_EACH[0], window=0)
    packet = protect(outbound, b"payload", 4)
    assert [payload_of(unprotect(inbound, packet)) for _ in range(2)] == [b"payload"] * 2


@one_of_each
@pytest.mark.parametrize("end", ["00010203 04", "020102 04", "010302 04", "ff04", "0f04", "010209 04"])
def test_wrong_padding_in_an_authentic_packet_is_dropped_and_counts_as_received(
    transform: Transform, end: str
) -> None:
    encr_key, integ_key = bytes(transform.key_octets), bytes(transform.integ_key_octets)
    inbound = InboundSa(SPI, transform, encr_key, integ_key)
    cipher = transform.cipher(encr_key, integ_key)
    plaintext = bytes.fromhex(end).rjust(16, b"\0")
    packet = cipher.seal(SPI + b"\0\0\0\1", b"", cipher.iv(1), plaintext)
    assert unprotect(inbound, packet) is DropReason.PADDING
    assert unprotect(inbound, packet) is DropReason.REPLAY
    assert inbound.packets == 0


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31])
def test_authentic_packet_with_a_broken_block_is_dropped(size: int) -> None:
    """Its sender has the keys; it still must not reach the block cipher."""
    transform = transform_for(12, 128, 12)
    inbound = InboundSa(SPI, transform, bytes(16), bytes(32))
    covered = SPI + b"\0\0\0\1" + bytes(16) + bytes(size)
    assert unprotect(inbound, covered + mac_for(12, bytes(32)).icv(covered)) is DropReason.TRUNCATED


@given(payload=st.binary(max_size=300), next_header=st.integers(0, 255), block=st.sampled_from([1, 4, 16]))
def test_trailer_comes_off_as_it_went_on(payload: bytes, next_header: int, block: int) -> None:
    plaintext = add_trailer(payload, next_header, block)
    assert len(plaintext) % block == 0
    assert strip_trailer(plaintext) == (payload, next_header)


@given(st.binary(min_size=2, max_size=300))
def test_trailer_that_comes_off_is_a_trailer(plaintext: bytes) -> None:
    stripped = strip_trailer(plaintext)
    if stripped is not None:
        payload, next_header = stripped
        pad = len(plaintext) - len(payload) - 2
        assert plaintext == payload + bytes(range(1, pad + 1)) + bytes((pad, next_header))


@pytest.mark.parametrize("pad", [0, 1, 4, 100, 255])
def test_more_padding_than_needed_is_accepted(pad: int) -> None:
    assert strip_trailer(b"payload" + bytes(range(1, pad + 1)) + bytes((pad, 4))) == (b"payload", 4)


@given(st.binary(max_size=120))
def test_no_octets_from_the_network_raise_or_pass(octets: bytes) -> None:
    sad = InboundSad()
    for last, transform in enumerate(ONE_OF_EACH, 1):
        _, inbound = pair(transform)
        inbound.spi = SPI[:3] + bytes([last])
        sad.add(inbound)
    for packet in (octets, *(SPI[:3] + bytes([n]) + octets for n in range(1, len(ONE_OF_EACH) + 1))):
        assert isinstance(sad.receive(packet), DropReason)


# The SAs


@pytest.mark.parametrize(("esn", "last"), [(False, 2**32 - 1), (True, 2**64 - 1)])
@one_of_each
def test_sequence_number_is_never_used_twice(transform: Transform, esn: bool, last: int) -> None:
    outbound, inbound = pair(transform, esn=esn)
    outbound.sequence = inbound.replay.highest = last - 1
    packet = protect(outbound, b"the last one", 4)
    assert outbound.sequence == last
    assert unprotect(inbound, packet) == Opened(b"the last one", 4, last)
    for _ in range(2):
        with pytest.raises(SequenceExhausted):
            protect(outbound, b"one more", 4)
    assert (outbound.sequence, outbound.packets) == (last, 1)
    assert outbound.drops == {DropReason.SEQUENCE_EXHAUSTED: 2}


@pytest.mark.parametrize("limits", [(3, 1000), (1000, 21), (1000, 15)])
def test_nothing_goes_through_after_the_hard_lifetime(limits: tuple[int, int]) -> None:
    """Three packets of 7 octets: the one that reaches the limit is the last."""
    outbound, inbound = pair(ONE_OF_EACH[0])
    packets = [protect(outbound, b"payload", 4) for _ in range(4)]
    outbound, _ = pair(ONE_OF_EACH[0])
    for sa in (outbound, inbound):
        sa.hard_packets, sa.hard_octets = limits
    for packet in packets[:3]:
        assert protect(outbound, b"payload", 4) == packet
        assert isinstance(unprotect(inbound, packet), Opened)
    for _ in range(2):
        with pytest.raises(LifetimeExpired, match="c0000001"):
            protect(outbound, b"payload", 4)
        assert unprotect(inbound, packets[3]) is DropReason.LIFETIME
    assert outbound.sequence == inbound.replay.highest == 3
    assert outbound.drops == inbound.drops == {DropReason.LIFETIME: 2}


def test_sa_may_be_told_to_stop_earlier() -> None:
    outbound, _ = pair(ONE_OF_EACH[0])
    outbound.last_sequence = 2
    protect(outbound, b"", 4)
    protect(outbound, b"", 4)
    with pytest.raises(SequenceExhausted, match="c0000001"):
        protect(outbound, b"", 4)


@one_of_each
def test_payload_that_fits_no_packet_is_refused_and_costs_no_sequence_number(transform: Transform) -> None:
    outbound, inbound = pair(transform)
    most = max(
        n
        for n in range(MAX_PACKET_OCTETS - 100, MAX_PACKET_OCTETS)
        if transform.packet_octets(n) <= MAX_PACKET_OCTETS
    )
    for size, next_header, tfc_octets in (
        (most + 1, 4, 0),
        (0, 4, most + 1),
        (0, 256, 0),
        (0, -1, 0),
        (0, 4, -1),
    ):
        with pytest.raises(EspError):
            protect(outbound, bytes(size), next_header, tfc_octets)
    assert outbound.sequence == 0
    assert payload_of(unprotect(inbound, protect(outbound, bytes(most), 4))) == bytes(most)


@pytest.mark.parametrize("spi", [bytes(4), b"\0\0\0\1", b"\0\0\0\xff", b"", b"\1\2\3", b"\1\2\3\4\5"])
def test_reserved_or_malformed_spi_is_refused(spi: bytes) -> None:
    transform = ONE_OF_EACH[0]
    for kind in (OutboundSa, InboundSa):
        with pytest.raises(EspError, match="SPI"):
            kind(spi, transform, bytes(transform.key_octets))
        assert kind(b"\0\0\1\0", transform, bytes(transform.key_octets)).spi == b"\0\0\1\0"


@every_transform
def test_keys_must_have_the_right_size(transform: Transform) -> None:
    right, integ = transform.key_octets, transform.integ_key_octets
    too_short = [(right - 1, integ)] if right else []
    for sizes in (*too_short, (right + 1, integ), (right, integ + 1), (0, 0)):
        with pytest.raises(EspError, match="keys"):
            OutboundSa(SPI, transform, bytes(sizes[0]), bytes(sizes[1]))


@pytest.mark.parametrize(
    ("encr", "key_bits", "integ"),
    [
        (20, None, 0),
        (20, 64, 0),
        (20, 256, 12),
        (28, 256, 0),
        (28, None, 12),
        (29, None, 0),
        (31, 256, 0),
        (31, None, 14),
        (16, 128, 12),
        (21, 128, 12),
        (12, 128, 0),
        (12, 128, 1),
        (12, None, 12),
        (13, 128, 0),
        (11, None, 0),
        (11, 128, 12),
        (4711, 128, 0),
    ],
)
def test_transform_that_we_do_not_have_is_refused(encr: int, key_bits: int | None, integ: int) -> None:
    with pytest.raises(EspError, match="no ESP transform"):
        transform_for(encr, key_bits, integ)


def test_sas_show_no_keys() -> None:
    outbound, inbound = pair(ONE_OF_EACH[3])
    for sa in (outbound, inbound):
        assert repr(sa).startswith(f"{type(sa).__name__}(c0000001")
        assert "cipher" not in repr(sa)


# The SAD


def test_sad_finds_the_sa_by_spi() -> None:
    sad = InboundSad()
    outbound, inbound = pair(ONE_OF_EACH[0])
    assert len(sad) == 0
    sad.add(inbound)
    packet = protect(outbound, b"payload", MPLS_IN_IP)
    assert sad.receive(packet) == Received(inbound, Opened(b"payload", MPLS_IN_IP, 1))
    assert sad.receive(packet) is DropReason.REPLAY
    assert (inbound.drops[DropReason.REPLAY], sad.drops.total()) == (1, 0)
    assert sad.get(SPI) is inbound
    with pytest.raises(EspError, match="taken"):
        sad.add(pair(ONE_OF_EACH[0])[1])
    assert sad.remove(SPI) is inbound
    assert sad.remove(SPI) is None
    assert sad.get(SPI) is None
    assert sad.receive(protect(outbound, b"late", MPLS_IN_IP)) is DropReason.UNKNOWN_SPI
    assert sad.drops == {DropReason.UNKNOWN_SPI: 1}


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", DropReason.TRUNCATED),
        (SPI, DropReason.TRUNCATED),
        (b"\1\2\3\4\0\0\0", DropReason.TRUNCATED),
        (struct.pack(">II", 0, 1), DropReason.RESERVED_SPI),
        (struct.pack(">II", 255, 1) + bytes(40), DropReason.RESERVED_SPI),
        (struct.pack(">II", 256, 1) + bytes(40), DropReason.UNKNOWN_SPI),
    ],
)
def test_packets_of_no_sa_are_counted_at_the_sad(packet: bytes, reason: DropReason) -> None:
    sad = InboundSad()
    assert sad.receive(packet) is reason
    assert sad.drops == {reason: 1}


def test_traffic_of_one_sa_is_nothing_to_another() -> None:
    transform = ONE_OF_EACH[0]
    outbound, inbound = pair(transform)
    other = InboundSa(b"\xc0\x00\x00\x02", transform, bytes(transform.key_octets))
    packet = protect(outbound, b"payload", 4)
    assert unprotect(other, packet) is DropReason.UNKNOWN_SPI
    assert unprotect(other, other.spi + packet[4:]) is DropReason.INTEGRITY
    assert payload_of(unprotect(inbound, packet)) == b"payload"
