"""Engines that fragment: long certificate chains over small MTUs, loss, attackers, bounds (RFC 7383)."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from cryptography import x509

from ike import (
    Datagram,
    EngineSettings,
    IkeSaEstablished,
    IkeSaFailed,
    Message,
    NotifyAnswered,
    ProbeAnswered,
    RetransmitPolicy,
    SealedBody,
    parse_ike_proposal,
)
from ike.events import DropReason
from ike.numbers import ExchangeType, NotifyType, PayloadType
from ike.testing.link import ImpairedLink
from ike.testing.pair import Pair, Side
from ike.wire.message import Header
from ike.wire.payloads import NotifyPayload
from tests.ike.engine_kit import SETTINGS, Tap, assert_in_sync, established, message, new_pair
from tests.ike.pki import issue, leaf, root, signature_auth, trust

FRAGMENTED = "IKEV2_FRAGMENTATION_SUPPORTED"
ROOT = root()
CHAIN = [ROOT]
NAMES = [x509.DNSName(f"responsible-for-site-{site}.example.net") for site in range(60)]
for level in range(5):
    CHAIN.append(issue(f"Level {level}", CHAIN[-1], number=200 + level, is_ca=True, sans=NAMES))
STORE = trust(ROOT)
LONG = {
    side: signature_auth(
        leaf(f"{side}.example", CHAIN[-1], number=90 + number), *reversed(CHAIN[1:]), trusts=STORE
    )
    for number, side in enumerate(("left", "right"))
}


def chained(
    *, left: dict[str, object] | None = None, right: dict[str, object] | None = None, **options: object
) -> tuple[Pair, Tap]:
    """Both ends prove themselves by a chain of six large certificates."""
    return new_pair(
        left=LONG["left"].fields() | (left or {}),
        right=LONG["right"].fields() | (right or {}),
        **options,  # type: ignore[arg-type]
    )


def connect(pair: Pair, seconds: float = 200) -> None:
    pair.initiate()
    pair.run(seconds, until=lambda: bool(pair.left.all(IkeSaFailed)) or bool(pair.left.all(IkeSaEstablished)))
    pair.run(1)


def is_fragment(datagram: Datagram) -> bool:
    return Header.parse(datagram.data).next_payload == PayloadType.SKF


def number_of(datagram: Datagram) -> int:
    encrypted = Message.parse(datagram.data).encrypted
    return encrypted.fragment_number if encrypted else 0


def fragments(tap: Tap, sender: Side) -> list[Datagram]:
    rule = message(sent_by=sender, exchange=ExchangeType.IKE_AUTH)
    return [datagram for datagram in tap.seen if rule(datagram) and is_fragment(datagram)]


def big_notify(pair: Pair, side: Side, octets: int = 3000) -> int:
    notify = NotifyPayload(40_999, bytes(octets))
    return side.engine.send_notify(side.session, (notify,), pair.now)


# --- what it is for


def test_chain_of_ten_fragments_passes_an_mtu_of_1280() -> None:
    pair, tap = chained(link=ImpairedLink(mtu_octets=1280))
    connect(pair)
    assert_in_sync(pair)
    assert pair.link.counters["too_big"] == 0
    for side in (pair.left, pair.right):
        assert len(fragments(tap, side)) >= 10
        assert max(len(datagram.data) for datagram in fragments(tap, side)) == 1280 - 20 - 8 - 4
        (record,) = [r for r in side.trace if r.summary.startswith("IKE_AUTH request")]
        assert record.datagrams == len(fragments(tap, pair.left))
    pair.run(SETTINGS.reassembly_s + 1)
    assert all(DropReason.FRAGMENT_TIMEOUT not in side.engine.counters for side in (pair.left, pair.right))


@pytest.mark.parametrize("seed", range(12))
def test_chain_arrives_in_fragments_through_loss_reordering_and_duplication(seed: int) -> None:
    link = ImpairedLink(seed, mtu_octets=1280, loss=0.2, reorder=0.4, duplicate=0.2, reorder_s=0.5)
    pair, _ = chained(link=link, seed=seed)
    connect(pair)
    assert_in_sync(pair)


def test_without_fragmentation_the_same_chain_never_arrives() -> None:
    pair, _ = chained(link=ImpairedLink(mtu_octets=1280), left={"fragment_octets": None})
    connect(pair)
    assert pair.left.last(IkeSaFailed)
    assert pair.link.counters["too_big"] > 0


@pytest.mark.parametrize(
    "suite",
    [
        "aes256gcm8-prfsha384-x25519",
        "aes128ccm12-prfsha256-x25519",
        "chacha20poly1305-prfsha256-x25519",
        "aes256-sha512-x25519",
        "aes128-sha1-x25519",
        "aes256ctr-sha384-x25519",
    ],
)
def test_every_kind_of_cipher_protects_fragments(suite: str) -> None:
    proposals: dict[str, object] = {"ike_proposals": (parse_ike_proposal(suite),)}
    pair, tap = chained(link=ImpairedLink(mtu_octets=576), left=proposals, right=proposals)
    connect(pair)
    assert pair.left.all(IkeSaFailed), "1280 is too large for this link"
    small: dict[str, object] = proposals | {"fragment_octets": 576}
    pair, tap = chained(link=ImpairedLink(mtu_octets=576), left=small, right=small)
    connect(pair)
    assert_in_sync(pair)
    assert len(fragments(tap, pair.left)) >= 20


def test_over_ipv6_the_larger_header_is_taken_into_account() -> None:
    pair, tap = chained(link=ImpairedLink(mtu_octets=1280))
    for side, own, peer in ((pair.left, 1, 2), (pair.right, 2, 1)):
        side.path = replace(side.path, local=(f"2001:db8::{own}", 500), peer=(f"2001:db8::{peer}", 500))
    connect(pair)
    assert_in_sync(pair)
    assert max(len(datagram.data) for datagram in tap.seen if is_fragment(datagram)) == 1280 - 40 - 8 - 4


# --- negotiation


@pytest.mark.parametrize("off", ["left", "right"])
def test_end_without_fragmentation_neither_announces_nor_uses_it(off: str) -> None:
    pair, tap = chained(**{off: {"fragment_octets": None}})  # type: ignore[arg-type]
    connect(pair)
    assert_in_sync(pair)
    assert not any(is_fragment(datagram) for datagram in tap.seen)
    init = [r.summary for r in pair.left.trace if r.summary.startswith("IKE_SA_INIT")]
    assert [FRAGMENTED in summary for summary in init] == [off == "right", False]


def test_announcement_survives_cookie_and_another_group() -> None:
    both = tuple(parse_ike_proposal(f"aes256gcm16-prfsha384-{group}") for group in ("x25519", "ecp256"))
    pair, tap = chained(
        link=ImpairedLink(mtu_octets=1280),
        left={"ike_proposals": both},
        right={"ike_proposals": both[1:]},
        settings=replace(SETTINGS, cookie_threshold=0),
    )
    connect(pair)
    assert_in_sync(pair)
    requests = [r.summary for r in pair.left.trace if r.summary.startswith("IKE_SA_INIT request")]
    assert len(requests) >= 3
    assert all(FRAGMENTED in summary for summary in requests)
    assert fragments(tap, pair.left)
    assert fragments(tap, pair.right)


def test_fragments_from_a_peer_that_did_not_announce_them_are_refused() -> None:
    def without_notify(outgoing: Message) -> Iterable[Message | SealedBody]:
        kept = tuple(
            payload
            for payload in outgoing.payloads
            if not (
                isinstance(payload, NotifyPayload)
                and payload.notify_type == NotifyType.IKEV2_FRAGMENTATION_SUPPORTED
            )
        )
        return (replace(outgoing, payloads=kept),)

    pair, _ = chained(left_options={"rewrite_outgoing": without_notify})
    connect(pair)
    assert_in_sync(pair)
    # The right end did not hear of it, so it said nothing itself and the left end sent everything whole.
    assert not any(is_fragment(datagram) for datagram in pair.link.on_path.seen)  # type: ignore[union-attr]

    left_sa = pair.left.engine._host.ike_sas()[0]
    left_sa.fragment_octets = 576
    big_notify(pair, pair.left)
    pair.run(0.5)
    assert pair.right.engine.counters[DropReason.FRAGMENT_REFUSED] >= 6


def test_rekeyed_ike_sa_goes_on_fragmenting() -> None:
    pair, tap = established()
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(2)
    tap.seen.clear()
    big_notify(pair, pair.left)
    pair.run(2)
    assert sum(is_fragment(datagram) for datagram in tap.seen) == 3
    assert_in_sync(pair, children=1)


# --- retransmission


def test_retransmission_sends_the_same_fragments_again() -> None:
    pair, tap = chained()
    tap.hold(message(sent_by=pair.left, exchange=ExchangeType.IKE_AUTH), 15)
    pair.initiate()
    pair.run(3, until=lambda: bool(pair.left.all(IkeSaEstablished)))
    sent = [datagram.data for datagram in fragments(tap, pair.left)]
    count = len(set(sent))
    assert count >= 10
    assert sent[:count] == sent[count : 2 * count]
    assert_in_sync(pair)


def test_fragments_of_two_transmissions_complete_each_other() -> None:
    pair, tap = chained()
    rule = message(sent_by=pair.left, exchange=ExchangeType.IKE_AUTH)
    tap.hold(lambda datagram: rule(datagram) and number_of(datagram) == 4, 1)
    connect(pair)
    assert_in_sync(pair)
    total = len({datagram.data for datagram in fragments(tap, pair.left)})
    assert pair.right.engine.counters[DropReason.FRAGMENT_REPEATED] == total - 1, "all but 4 came twice"


def test_response_is_repeated_for_fragment_1_alone() -> None:
    pair, tap = chained()
    connect(pair)
    requests = fragments(tap, pair.left)
    tap.seen.clear()
    for datagram in requests[1:]:
        pair.right.engine.receive_datagram(datagram.data, datagram.path, pair.now)
        pair.flush()
    assert tap.seen == []
    assert pair.right.engine.counters[DropReason.FRAGMENT_REPEATED] == len(requests) - 1
    pair.right.engine.receive_datagram(requests[0].data, requests[0].path, pair.now)
    pair.flush()
    assert len(tap.seen) >= 10
    assert all(is_fragment(datagram) for datagram in tap.seen)


def test_response_is_repeated_for_fragment_1_of_a_finer_division() -> None:
    """RFC 7383 2.5.2: the peer looks for the path MTU while our response got lost."""
    pair, tap = established()
    tap.hold(message(sent_by=pair.right))
    big_notify(pair, pair.left)
    pair.run(0.5)
    assert len(tap.held) == 1
    left_sa = pair.left.engine._host.ike_sas()[0]
    left_sa.fragment_octets = 576
    request = Message(
        left_sa.spi_i,
        left_sa.spi_r,
        ExchangeType.INFORMATIONAL,
        True,
        False,
        3,
        (NotifyPayload(40_999, bytes(3000)),),
    )
    finer = left_sa.keyed.protection.seal_datagrams(request, 500)
    tap.open()
    tap.seen.clear()
    to_right = Datagram(finer[0], pair.right.path)
    for data in (finer[1], bytes([*finer[0][:-1], finer[0][-1] ^ 1])):
        pair.right.engine.receive_datagram(data, to_right.path, pair.now)
    pair.flush()
    assert tap.seen == []
    pair.right.engine.receive_datagram(to_right.data, to_right.path, pair.now)
    pair.flush()
    assert [datagram.data for datagram in tap.seen] == [tap.held[0].data]


def test_finer_division_of_a_new_request_replaces_the_coarser_one() -> None:
    pair, tap = established()
    tap.hold(lambda datagram: is_fragment(datagram) and number_of(datagram) == 2, 1)
    big_notify(pair, pair.left)
    pair.run(0.5)
    left_sa = pair.left.engine._host.ike_sas()[0]
    request = Message(
        left_sa.spi_i,
        left_sa.spi_r,
        ExchangeType.INFORMATIONAL,
        True,
        False,
        3,
        (NotifyPayload(40_999, bytes(3000)),),
    )
    for data in left_sa.keyed.protection.seal_datagrams(request, 500):
        pair.right.engine.receive_datagram(data, pair.right.path, pair.now)
    pair.run(0.5)
    assert pair.right.trace[-1].summary.startswith("INFORMATIONAL response 3")
    (received,) = [r for r in pair.right.trace if r.datagrams > 1]
    assert received.datagrams == 7


# --- bounds and attackers


def test_forged_fragments_hold_no_memory_and_do_no_harm() -> None:
    """Copies with one bit changed, in front of each true fragment; and one that says there are more."""
    pair, tap = chained()

    def forge(datagram: Datagram) -> Iterable[Datagram]:
        tap(datagram)
        if is_fragment(datagram):
            for at in (-1, 35, 33):
                octets = bytearray(datagram.data)
                octets[at] ^= 0x10
                yield replace(datagram, data=bytes(octets))
        yield datagram

    pair.link.on_path = forge
    connect(pair)
    assert_in_sync(pair)
    for side in (pair.left, pair.right):
        assert side.engine.counters[DropReason.INTEGRITY] >= 20
        assert side.engine._host.reassembly_budget.used_octets == 0


def test_incomplete_message_is_forgotten_in_time() -> None:
    pair, tap = chained(left={"retransmit": RetransmitPolicy(tries=1, first_s=100.0)})
    tap.hold(lambda datagram: is_fragment(datagram) and number_of(datagram) == 3)
    pair.initiate()
    pair.run(1)
    budget = pair.right.engine._host.reassembly_budget
    assert budget.used_octets > 5000
    pair.run(SETTINGS.reassembly_s + 1)
    assert budget.used_octets == 0


def test_reassembly_timer_is_not_moved_by_later_fragments() -> None:
    pair, tap = established(settings=replace(SETTINGS, reassembly_s=3.0))
    tap.hold(lambda datagram: is_fragment(datagram) and number_of(datagram) == 2)
    tap.hold(lambda datagram: is_fragment(datagram) and number_of(datagram) == 3, 1)
    big_notify(pair, pair.left)
    pair.run(0.5)
    held_octets = pair.right.engine._host.reassembly_budget.used_octets
    pair.run(2.4)
    assert pair.right.engine._host.reassembly_budget.used_octets > held_octets, "3 has come meanwhile"
    assert pair.right.engine._host.reassembly_budget.used_octets > 0
    assert pair.right.engine.counters[DropReason.FRAGMENT_TIMEOUT] == 0
    pair.run(0.2)
    assert pair.right.engine.counters[DropReason.FRAGMENT_TIMEOUT] == 1
    assert pair.right.engine._host.reassembly_budget.used_octets == 0
    tap.open()
    pair.run(10)
    assert_in_sync(pair, children=1)


def test_message_that_is_too_long_for_us_is_not_gathered() -> None:
    pair, _ = established(settings=replace(SETTINGS, max_message_octets=2000))
    big_notify(pair, pair.left)
    pair.run(2)
    assert pair.right.engine.counters[DropReason.FRAGMENT_LIMIT] > 0
    assert pair.right.engine._host.reassembly_budget.used_octets <= 2000


def test_all_peers_together_hold_no_more_than_the_budget() -> None:
    settings = EngineSettings(nonce_octets=SETTINGS.nonce_octets, max_incomplete_octets=4000)
    pair, tap = chained(settings=settings)
    tap.hold(lambda datagram: is_fragment(datagram) and number_of(datagram) == 12)
    for _ in range(3):
        pair.initiate()
    budget = pair.right.engine._host.reassembly_budget
    for _ in range(10):
        pair.run(0.1)
        assert budget.used_octets <= 4000
    assert pair.right.engine.counters[DropReason.FRAGMENT_LIMIT] > 0


def test_strangers_leave_room_for_who_is_established() -> None:
    """Each half-open IKE SA can hold a whole message; together they could shut all others out."""
    settings = EngineSettings(nonce_octets=SETTINGS.nonce_octets, max_incomplete_octets=32_000)
    pair, tap = chained(settings=settings)
    connect(pair)
    session = pair.left.session
    tap.hold(lambda datagram: is_fragment(datagram) and number_of(datagram) == 12)
    for _ in range(3):
        pair.initiate()
    pair.run(1)
    budget = pair.right.engine._host.reassembly_budget
    assert 14_000 < budget.used_octets <= 16_000
    notify = NotifyPayload(40_999, bytes(3500))
    pair.left.engine.send_notify(session, (notify,), pair.now)
    pair.run(0.5)
    assert pair.left.last(NotifyAnswered).session == session
    pair.run(100)
    assert budget.used_octets == 0 == pair.right.engine._host.stranger_budget.used_octets


def test_forgotten_ike_sa_gives_its_octets_back() -> None:
    settings = EngineSettings(nonce_octets=SETTINGS.nonce_octets, half_open_s=5.0)
    pair, tap = chained(settings=settings)
    tap.hold(lambda datagram: is_fragment(datagram) and number_of(datagram) == 3)
    pair.initiate()
    pair.run(1)
    budget = pair.right.engine._host.reassembly_budget
    assert budget.used_octets > 0
    pair.run(5)
    assert budget.used_octets == 0
    assert pair.right.engine.next_deadline() is None


def inner(change: Callable[[Message], SealedBody]) -> Callable[[Message], Iterable[Message | SealedBody]]:
    def rewrite(outgoing: Message) -> Iterable[Message | SealedBody]:
        return (change(outgoing),) if outgoing.exchange == ExchangeType.IKE_AUTH else (outgoing,)

    return rewrite


def test_fragments_of_an_authentic_but_malformed_message_fail_the_ike_sa_cleanly() -> None:
    broken = inner(lambda _: SealedBody(PayloadType.IDI, b"\xff" * 3000))
    pair, _ = chained(left_options={"rewrite_outgoing": broken})
    connect(pair)
    assert pair.left.last(IkeSaFailed)
    assert pair.right.engine.counters[DropReason.MALFORMED] == 1
    assert pair.right.engine._host.reassembly_budget.used_octets == 0


# --- messages of a length, to see what the path carries


def probe(pair: Pair, octets: int) -> bool | None:
    """Whether an IP packet of that size arrived; None if nobody knows."""
    token = pair.left.engine.send_probe(pair.left.session, 40_999, octets - 28 - 4, pair.now)
    pair.run(10, until=lambda: pair.left.all(ProbeAnswered)[-1:] != [] and _answer(pair).token == token)
    return _answer(pair).arrived


def _answer(pair: Pair) -> ProbeAnswered:
    return pair.left.last(ProbeAnswered)


@pytest.mark.parametrize("suite", ["aes256gcm16-prfsha384-x25519", "aes256-sha512-x25519"])
def test_a_probe_that_fits_arrives_whole_and_a_larger_one_costs_a_retransmission(suite: str) -> None:
    proposals: dict[str, object] = {"ike_proposals": (parse_ike_proposal(suite),)}
    pair, tap = established(link=ImpairedLink(mtu_octets=1400), left=proposals, right=proposals)
    before = pair.now
    tap.seen.clear()
    assert [probe(pair, octets) for octets in (1300, 1384)] == [True, True]
    assert pair.now - before < 0.9
    whole = [len(datagram.data) + 32 for datagram in tap.seen if datagram.dont_fragment]
    assert len(whole) == 4 and whole[0] in range(1300, 1316) and whole[2] in range(1384, 1400)
    assert [probe(pair, octets) for octets in (1405, 9000)] == [False, False]
    assert_in_sync(pair)
    assert pair.now - before < 5
    again = [len(datagram.data) for datagram in tap.seen if not datagram.dont_fragment]
    assert min(again) < 200, "that passes whatever the path is"
    assert not any(is_fragment(datagram) for datagram in tap.seen)


def test_a_probe_that_is_the_first_request_of_a_rekeyed_ike_sa_is_as_long_as_was_asked() -> None:
    pair, tap = established()
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(1)
    tap.seen.clear()
    assert probe(pair, 1300)
    assert [len(datagram.data) + 32 for datagram in tap.seen if datagram.dont_fragment] == [1300, 1300]


def test_no_probe_is_sent_to_a_peer_that_takes_no_fragments() -> None:
    pair, tap = established(right={"fragment_octets": None})
    tap.seen.clear()
    assert not pair.left.engine.can_probe(pair.left.session)
    assert probe(pair, 1300) is None
    assert not tap.seen


def test_a_probe_whose_ike_sa_goes_says_that_nothing_is_known() -> None:
    pair, _ = established(link=ImpairedLink(mtu_octets=1400))
    pair.left.engine.send_probe(pair.left.session, 40_999, 1500, pair.now)
    pair.left.engine.delete_ike_sa(pair.left.session, pair.now)
    pair.run(60)
    assert _answer(pair).arrived is None


def test_no_probe_is_larger_than_peers_put_together() -> None:
    pair, tap = established()
    tap.seen.clear()
    assert probe(pair, 10_000) is None
    assert not tap.seen
