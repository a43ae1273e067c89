"""Fragments of IKE messages: dividing, sealing each, and putting them together within bounds (RFC 7383)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ike.errors import LocalError
from ike.events import DropReason
from ike.fragments import MAX_FRAGMENTS, Budget, Fragment, Reassembled, Reassembly, udp_payload_octets
from ike.numbers import ExchangeType, NotifyType, PayloadType
from ike.protection import IntegrityError, Protection
from ike.wire.message import Message, SealedBody
from ike.wire.payloads import EncryptedPayload, NotifyPayload, encode_payloads
from tests.ike.test_protection import GCM, ONE_OF_EACH, SUITES, both_ends

KEY = (False, 1)


def message(octets: int) -> Message:
    notify = NotifyPayload(NotifyType.INITIAL_CONTACT, bytes(range(256)) * (octets // 256 + 1))
    payload = NotifyPayload(NotifyType.INITIAL_CONTACT, notify.data[:octets])
    return Message(b"initiatr", b"respondr", ExchangeType.IKE_AUTH, True, False, 1, (payload,))


def sealed(datagram: bytes) -> EncryptedPayload:
    payload = Message.parse(datagram).encrypted
    assert payload is not None
    return payload


def fragment(number: int, total: int, chunk: bytes = b"chunk", raw: bytes = b"datagram") -> Fragment:
    return Fragment(number, total, 41 if number == 1 else 0, chunk, raw)


def reassembly(limit: int = 1000, message_limit: int = 500) -> tuple[Reassembly, Budget]:
    budget = Budget(limit)
    return Reassembly(budget, message_limit), budget


# --- dividing


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("limit", [548, 1233])
def test_every_fragment_fits_and_is_as_full_as_the_cipher_allows(suite: str, limit: int) -> None:
    initiator, responder = both_ends(suite)
    whole = message(5000)
    datagrams = initiator.seal_datagrams(whole, limit)
    _, block, _ = SUITES[suite]
    assert all(limit - block < len(datagram) <= limit for datagram in datagrams[:-1])
    assert len(datagrams[-1]) <= limit
    chunks = [responder.open_fragment(datagram)[1] for datagram in datagrams]
    assert b"".join(chunks) == encode_payloads(whole.payloads)[1]


def test_message_that_fits_is_one_datagram_with_sk() -> None:
    initiator, responder = both_ends()
    small = message(100)
    exact = len(initiator.seal(small))
    (one,) = initiator.seal_datagrams(small, exact)
    assert responder.open(one) == encode_payloads(small.payloads)
    assert len(initiator.seal_datagrams(small, exact - 1)) == 2


def test_fragments_are_numbered_and_only_the_first_tells_the_payload_type() -> None:
    initiator, _ = both_ends()
    datagrams = initiator.seal_datagrams(message(3000), 1000)
    assert [(p.fragment_number, p.total_fragments) for p in map(sealed, datagrams)] == [
        (number, 4) for number in range(1, 5)
    ]
    assert [sealed(d).first_inner_type for d in datagrams] == [PayloadType.NOTIFY, 0, 0, 0]
    assert {d[16] for d in datagrams} == {PayloadType.SKF}
    assert {Message.parse(d).message_id for d in datagrams} == {1}


def test_each_fragment_has_an_iv_of_its_own() -> None:
    initiator, _ = both_ends()
    datagrams = initiator.seal_datagrams(message(5000), 600)
    assert len({sealed(datagram).body[:8] for datagram in datagrams}) == len(datagrams)


def test_octets_given_by_hand_are_divided_too() -> None:
    initiator, responder = both_ends()
    datagrams = initiator.seal_datagrams(message(0), 300, SealedBody(PayloadType.SA, b"x" * 1000))
    assert responder.open_fragment(datagrams[0])[0] == PayloadType.SA
    assert b"".join(responder.open_fragment(d)[1] for d in datagrams) == b"x" * 1000


def test_what_cannot_be_divided_is_an_error_of_ours() -> None:
    initiator, _ = both_ends()
    with pytest.raises(LocalError, match="fragments of 40"):
        initiator.seal_datagrams(message(5000), 40)
    with pytest.raises(LocalError, match="fragments of 100"):
        initiator.seal_datagrams(message(60_000), 100)
    with pytest.raises(LocalError, match="message of 65"):
        initiator.seal_datagrams(message(65_520), 1200)


def test_the_longest_message_fits_into_the_smallest_ipv4_packets() -> None:
    for suite in SUITES:
        initiator, _ = both_ends(suite)
        datagrams = initiator.seal_datagrams(message(65_400), udp_payload_octets(576, "192.0.2.1"))
        assert len(datagrams) <= MAX_FRAGMENTS


def test_room_for_ip_udp_and_the_marker_of_port_4500() -> None:
    assert udp_payload_octets(1280, "2001:db8::1") == 1280 - 40 - 8 - 4
    assert udp_payload_octets(576, "192.0.2.1") == 576 - 20 - 8 - 4


# --- integrity of a single fragment


@pytest.mark.parametrize("suite", ONE_OF_EACH)
def test_every_flipped_bit_of_a_fragment_is_noticed(suite: str) -> None:
    """The numbers of the fragment too: they are associated data (RFC 7383 2.5)."""
    initiator, responder = both_ends(suite)
    raw = initiator.seal_datagrams(message(300), 200)[0]
    for position in range(len(raw) * 8):
        octets = bytearray(raw)
        octets[position // 8] ^= 1 << position % 8
        with pytest.raises(IntegrityError):
            responder.open_fragment(bytes(octets))


def test_sk_is_no_fragment_and_a_fragment_is_no_sk() -> None:
    initiator, responder = both_ends()
    with pytest.raises(IntegrityError):
        responder.open_fragment(initiator.seal(message(10)))
    with pytest.raises(IntegrityError):
        responder.open(initiator.seal_datagrams(message(300), 200)[0])


def test_empty_fragment_is_legal() -> None:
    """RFC 7383 2.5.3: it may be there only to say that fragmentation is used."""
    initiator, responder = both_ends()
    raw = initiator._seal(message(0), PayloadType.SKF, 41, bytes.fromhex("00010002"), b"")
    assert responder.open_fragment(raw) == (41, b"")


# --- putting together


@given(
    octets=st.integers(1000, 8000),
    limit=st.integers(300, 900),
    suite=st.sampled_from(ONE_OF_EACH),
    data=st.data(),
)
def test_fragments_in_any_order_and_number_make_the_message(
    octets: int, limit: int, suite: str, data: st.DataObject
) -> None:
    initiator, responder = both_ends(suite)
    whole = message(octets)
    datagrams = initiator.seal_datagrams(whole, limit)
    order = data.draw(st.permutations(range(len(datagrams))))
    repeats = data.draw(st.lists(st.sampled_from(order), max_size=5))
    parts, budget = reassembly(100_000, 100_000)
    result = None
    arrivals = [*repeats[: len(order) - 1], *order]
    for index in arrivals:
        number, total = sealed(datagrams[index]).fragment_number, len(datagrams)
        if result or parts.why_not(KEY, number, total):
            continue
        first_type, chunk = responder.open_fragment(datagrams[index])
        result = parts.add(KEY, Fragment(number, total, first_type, chunk, datagrams[index]))
    assert isinstance(result, Reassembled)
    assert (result.first_type, result.inner) == encode_payloads(whole.payloads)
    assert result.first_raw == datagrams[0]
    assert budget.used_octets == 0


def test_repeated_fragment_is_not_even_authenticated() -> None:
    parts, _ = reassembly()
    parts.add(KEY, fragment(2, 3))
    assert parts.why_not(KEY, 2, 3) is DropReason.FRAGMENT_REPEATED
    assert parts.why_not(KEY, 3, 3) is None


def test_smaller_total_is_ignored_and_a_larger_one_starts_over() -> None:
    parts, budget = reassembly()
    parts.add(KEY, fragment(1, 2, b"first"))
    assert parts.why_not(KEY, 1, 1) is DropReason.FRAGMENT_OUTDATED
    assert parts.why_not(KEY, 1, 3) is None
    assert parts.add(KEY, fragment(2, 3, b"-b-")) is None
    assert budget.used_octets == 3
    assert parts.why_not(KEY, 2, 2) is DropReason.FRAGMENT_OUTDATED
    parts.add(KEY, fragment(3, 3, b"c"))
    result = parts.add(KEY, fragment(1, 3, b"a"))
    assert isinstance(result, Reassembled)
    assert result.inner == b"a-b-c"


def test_messages_are_told_apart_by_id_and_direction() -> None:
    parts, _ = reassembly()
    for key in ((False, 1), (False, 2), (True, 1)):
        assert parts.add(key, fragment(1, 2, str(key).encode())) is None
    result = parts.add((True, 1), fragment(2, 2, b""))
    assert isinstance(result, Reassembled)
    assert result.inner == b"(True, 1)"


def test_number_of_fragments_is_bounded() -> None:
    parts, _ = reassembly()
    assert parts.why_not(KEY, 1, MAX_FRAGMENTS) is None
    assert parts.why_not(KEY, 1, MAX_FRAGMENTS + 1) is DropReason.FRAGMENT_LIMIT


def test_octets_of_one_message_are_bounded() -> None:
    parts, budget = reassembly(message_limit=500)
    assert parts.add(KEY, fragment(2, 4, bytes(400))) is None
    assert parts.add(KEY, fragment(3, 4, bytes(101))) is DropReason.FRAGMENT_LIMIT
    assert parts.add(KEY, fragment(3, 4, bytes(100))) is None
    assert budget.used_octets == 500


def test_octets_of_all_incomplete_messages_are_bounded() -> None:
    budget = Budget(1000)
    ends = [Reassembly(budget, 500) for _ in range(3)]
    assert ends[0].add(KEY, fragment(2, 2, bytes(500))) is None
    assert ends[1].add(KEY, fragment(2, 2, bytes(500))) is None
    assert ends[2].add(KEY, fragment(2, 2, bytes(1))) is DropReason.FRAGMENT_LIMIT
    ends[0].clear()
    assert ends[2].add(KEY, fragment(2, 2, bytes(1))) is None
    assert budget.used_octets == 501


def test_a_larger_total_that_is_refused_discards_nothing() -> None:
    parts, budget = reassembly()
    parts.add(KEY, fragment(2, 2, b"kept"))
    assert parts.add(KEY, fragment(2, 3, bytes(501))) is DropReason.FRAGMENT_LIMIT
    assert budget.used_octets == 4
    assert isinstance(parts.add(KEY, fragment(1, 2)), Reassembled)


def test_only_the_datagram_of_fragment_1_is_kept() -> None:
    parts, budget = reassembly()
    second = fragment(2, 3, b"", b"x" * 100)
    parts.add(KEY, second)
    assert budget.used_octets == len(second.raw) == 0
    parts.add(KEY, fragment(1, 3, b"", b"x" * 100))
    assert budget.used_octets == 100


def test_what_is_forgotten_begins_again() -> None:
    parts, budget = reassembly()
    parts.add(KEY, fragment(1, 2))
    assert parts.forget(KEY)
    assert not parts.forget(KEY)
    assert budget.used_octets == 0
    assert parts.add(KEY, fragment(2, 2)) is None


def test_protection_of_the_other_direction_does_not_open() -> None:
    initiator, _ = both_ends(GCM)
    assert isinstance(initiator, Protection)
    with pytest.raises(IntegrityError):
        initiator.open_fragment(initiator.seal_datagrams(message(300), 200)[0])
