"""ike.testing.entropy: what a seed and a queue decide."""

from ike.testing.entropy import ScriptedEntropy


def test_equal_seeds_give_equal_streams_and_others_do_not() -> None:
    first, second, other = ScriptedEntropy(7), ScriptedEntropy("7"), ScriptedEntropy(8)
    draws = [first.octets(n) for n in (1, 32, 100, 0, 8)]
    assert draws == [second.octets(n) for n in (1, 32, 100, 0, 8)]
    assert draws != [other.octets(n) for n in (1, 32, 100, 0, 8)]
    assert [len(draw) for draw in draws] == [1, 32, 100, 0, 8]


def test_the_stream_does_not_repeat() -> None:
    entropy = ScriptedEntropy()
    assert len({entropy.octets(16) for _ in range(1000)}) == 1000


def test_queued_values_are_drawn_by_size_first_in_first_out() -> None:
    entropy = ScriptedEntropy()
    entropy.queue(b"a" * 32, b"spi-", b"b" * 32)
    assert entropy.octets(32) == b"a" * 32
    assert entropy.octets(16) not in (b"a" * 16, b"b" * 16)
    assert entropy.octets(32) == b"b" * 32
    assert entropy.octets(4) == b"spi-"
    assert entropy.octets(32) != b"b" * 32


def test_queued_values_leave_the_stream_alone() -> None:
    plain, scripted = ScriptedEntropy(1), ScriptedEntropy(1)
    scripted.queue(b"nonce")
    assert scripted.octets(5) == b"nonce"
    assert scripted.octets(5) == plain.octets(5)


def test_a_skipped_draw_comes_from_the_stream() -> None:
    plain, scripted = ScriptedEntropy(1), ScriptedEntropy(1)
    scripted.skip(5, draws=2)
    scripted.queue(b"nonce")
    assert [scripted.octets(5), scripted.octets(5)] == [plain.octets(5), plain.octets(5)]
    assert scripted.octets(5) == b"nonce"


def test_numbers_stay_in_their_range() -> None:
    entropy = ScriptedEntropy()
    assert {entropy.below(3) for _ in range(100)} == {0, 1, 2}
    fractions = [entropy.fraction() for _ in range(1000)]
    assert 0 <= min(fractions) < 0.1
    assert 0.9 < max(fractions) < 1
