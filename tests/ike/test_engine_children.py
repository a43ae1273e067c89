"""CREATE_CHILD_SA and deletion: terms, modes, groups, limits, rekeys (RFC 7296 1.3, 1.4.1, 2.8, 2.9)."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_network

import pytest

from ike import (
    AddressSelector,
    ChildSaClosed,
    ChildSaEstablished,
    ChildSaFailed,
    CloseReason,
    IkeSaClosed,
    LocalError,
    Message,
    Mode,
    SealedBody,
    TrafficPolicy,
    TrafficSelectors,
    parse_esp_proposal,
)
from ike.numbers import ExchangeType, NotifyType, TransformType
from ike.selectors import SecurityLabel
from ike.testing.pair import LEFT_ADDRESS, RIGHT_ADDRESS, Side
from ike.wire.payloads import NotifyPayload, SaPayload, TsPayload
from tests.ike.engine_kit import CHILD, assert_in_sync, established, new_pair, only_child

CREATE = ExchangeType.CREATE_CHILD_SA


def network(text: str, protocol: int = 0) -> AddressSelector:
    return AddressSelector.from_network(ip_network(text), protocol)


def summaries(side: Side) -> list[str]:
    return [record.summary for record in side.trace if record.direction.value == "sent"]


Rewrite = Callable[[Message], Iterable[Message | SealedBody]]


def in_responses(change: Callable[[Message], Message]) -> Rewrite:
    def rewrite(outgoing: Message) -> Iterable[Message | SealedBody]:
        is_meant = outgoing.exchange == CREATE and outgoing.is_response
        return (change(outgoing) if is_meant else outgoing,)

    return rewrite


def without_notify(kind: NotifyType) -> Callable[[Message], Message]:
    def change(outgoing: Message) -> Message:
        kept = (p for p in outgoing.payloads if not (isinstance(p, NotifyPayload) and p.notify_type == kind))
        return replace(outgoing, payloads=tuple(kept))

    return change


def test_dynamic_selectors_become_the_addresses_of_the_path() -> None:
    pair, _ = established()
    child = only_child(pair.left)
    assert child.local_ts == (network(f"{LEFT_ADDRESS}/32", 137),)
    assert child.peer_ts == (network(f"{RIGHT_ADDRESS}/32", 137),)
    assert child.mode is Mode.TRANSPORT
    assert not child.esn


def test_responder_narrows_and_both_store_the_answer() -> None:
    wide = replace(
        CHILD, mode=Mode.TUNNEL, local_ts=(network("10.1.0.0/16"),), peer_ts=(network("10.2.0.0/16"),)
    )
    narrow = replace(wide, local_ts=(network("10.2.5.0/24"),), peer_ts=(network("10.1.0.0/16"),))
    pair, _ = established(child=wide, right_child=narrow)
    assert only_child(pair.left).peer_ts == (network("10.2.5.0/24"),)
    old = only_child(pair.left)
    pair.left.engine.rekey_child(pair.left.session, old.spi_in, pair.now)
    pair.run(1)
    assert_in_sync(pair, children=1)
    assert only_child(pair.left).peer_ts == old.peer_ts


def test_packet_that_triggered_the_child_comes_first() -> None:
    wide = replace(
        CHILD, mode=Mode.TUNNEL, local_ts=(network("10.1.0.0/16"),), peer_ts=(network("10.2.0.0/16"),)
    )
    flipped = replace(wide, local_ts=wide.peer_ts, peer_ts=wide.local_ts)
    pair, _ = established(child=wide, right_child=flipped)
    trigger = TrafficSelectors((network("10.1.0.7/32", 17),), (network("10.2.0.9/32", 17),))
    pair.left.engine.create_child(pair.left.session, "net", pair.now, trigger)
    pair.run(1)
    assert_in_sync(pair, children=2)
    child = pair.left.last(ChildSaEstablished).child
    assert child.local_ts[0] == network("10.1.0.7/32", 17)


def test_accept_policies_bind_the_responder() -> None:
    accepting = replace(
        CHILD, accept=(TrafficPolicy((network("198.51.100.0/24"),), (network("0.0.0.0/0"),)),)
    )
    pair, _ = new_pair(right_child=accepting)
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    failed = pair.left.last(ChildSaFailed)
    assert failed.notify_type == NotifyType.TS_UNACCEPTABLE
    assert failed.child == "net"
    assert_in_sync(pair, children=0)


@pytest.mark.parametrize(("asked", "allowed"), [(Mode.TRANSPORT, Mode.TUNNEL), (Mode.TUNNEL, Mode.TRANSPORT)])
def test_responder_of_another_mode_says_ts_unacceptable(asked: Mode, allowed: Mode) -> None:
    pair, _ = new_pair(replace(CHILD, mode=asked), right_child=replace(CHILD, mode=allowed))
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    assert pair.left.last(ChildSaFailed).notify_type == NotifyType.TS_UNACCEPTABLE
    assert_in_sync(pair, children=0)


def test_answer_without_transport_mode_is_deleted_and_reported() -> None:
    rewrite = in_responses(without_notify(NotifyType.USE_TRANSPORT_MODE))
    pair, _ = new_pair(right_options={"rewrite_outgoing": rewrite})
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    assert "lacks USE_TRANSPORT_MODE" in pair.left.last(ChildSaFailed).detail
    assert_in_sync(pair, children=0)
    assert pair.right.last(ChildSaClosed).reason is CloseReason.DELETED_BY_PEER


def test_answer_that_is_wider_than_asked_is_deleted_and_reported() -> None:
    def widen(outgoing: Message) -> Message:
        everything = (network("0.0.0.0/0"),)
        payloads = tuple(
            replace(p, selectors=everything) if isinstance(p, TsPayload) else p for p in outgoing.payloads
        )
        return replace(outgoing, payloads=payloads)

    pair, _ = new_pair(right_options={"rewrite_outgoing": in_responses(widen)})
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    assert pair.left.last(ChildSaFailed).notify_type is None
    assert not pair.left.all(ChildSaEstablished)
    assert_in_sync(pair, children=0)


def test_answer_with_another_proposal_is_deleted_and_reported() -> None:
    def weaken(outgoing: Message) -> Message:
        def weak(p: SaPayload) -> SaPayload:
            (proposal,) = p.proposals
            transforms = tuple(
                replace(t, key_bits=128) if t.type == TransformType.ENCR else t for t in proposal.transforms
            )
            return SaPayload((replace(proposal, transforms=transforms),))

        payloads = tuple(weak(p) if isinstance(p, SaPayload) else p for p in outgoing.payloads)
        return replace(outgoing, payloads=payloads)

    pair, _ = new_pair(right_options={"rewrite_outgoing": in_responses(weaken)})
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    assert not pair.left.all(ChildSaEstablished)
    assert "not proposed" in pair.left.last(ChildSaFailed).detail


def test_tfc_padding_is_agreed_for_each_direction() -> None:
    pair, _ = established(right_child=replace(CHILD, tfc_padding_supported=True))
    assert only_child(pair.left).tfc_out_allowed
    assert not only_child(pair.right).tfc_out_allowed


def test_extended_sequence_numbers_are_negotiated() -> None:
    esn = replace(CHILD, proposals=(parse_esp_proposal("aes256gcm16-esn-noesn"),))
    pair, _ = established(child=esn)
    assert only_child(pair.left).esn
    pair, _ = established(child=esn, right_child=CHILD)
    assert not only_child(pair.left).esn
    assert not only_child(pair.right).esn


def test_pfs_group_is_corrected_by_invalid_ke_payload() -> None:
    left = replace(CHILD, proposals=(parse_esp_proposal("aes256gcm16-x25519-ecp256"),))
    right = replace(CHILD, proposals=(parse_esp_proposal("aes256gcm16-ecp256"),))
    pair, _ = established(child=left, right_child=right)
    assert any("INVALID_KE_PAYLOAD" in line for line in summaries(pair.right))
    assert only_child(pair.left).proposal.of_type(TransformType.KE)[0].id == 19
    pair.left.engine.rekey_child(pair.left.session, only_child(pair.left).spi_in, pair.now)
    pair.run(1)
    assert_in_sync(pair, children=1)


def test_invalid_ke_payload_is_followed_once_for_each_group() -> None:
    def insist(outgoing: Message) -> Message:
        notify = NotifyPayload(NotifyType.INVALID_KE_PAYLOAD, (19).to_bytes(2, "big"))
        return replace(outgoing, payloads=(notify,))

    child = replace(CHILD, proposals=(parse_esp_proposal("aes256gcm16-x25519-ecp256"),))
    pair, _ = new_pair(child, right_options={"rewrite_outgoing": in_responses(insist)})
    pair.initiate()
    pair.run(1)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(1)
    assert sum("CREATE_CHILD_SA" in line for line in summaries(pair.left)) == 2
    assert pair.left.last(ChildSaFailed).notify_type == NotifyType.INVALID_KE_PAYLOAD


def test_children_are_limited() -> None:
    pair, _ = established(right={"max_children": 2})
    for _ in range(3):
        pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(2)
    assert_in_sync(pair, children=2)
    assert [event.notify_type for event in pair.left.all(ChildSaFailed)] == [NotifyType.NO_ADDITIONAL_SAS] * 2
    pair.left.engine.rekey_child(pair.left.session, next(iter(pair.left.children)), pair.now)
    pair.run(1)
    assert_in_sync(pair, children=2)


def test_equal_children_stand_side_by_side() -> None:
    """Parallel SAs with equal selectors are legal and never "duplicates" (RFC 7296 2.8)."""
    pair, _ = established()
    pair.right.engine.create_child(pair.right.session, "net", pair.now)
    pair.run(1)
    assert_in_sync(pair, children=2)


def test_child_that_is_not_configured_is_wrong_use() -> None:
    pair, _ = established()
    with pytest.raises(LocalError):
        pair.left.engine.create_child(pair.left.session, "other", pair.now)
    with pytest.raises(LocalError):
        pair.left.engine.create_child(99, "net", pair.now)


def test_commands_for_what_has_just_gone_do_nothing() -> None:
    pair, _ = established()
    session, spi = pair.left.session, only_child(pair.left).spi_in
    pair.left.engine.delete_child(session, spi, pair.now)
    pair.run(1)
    pair.left.engine.delete_child(session, spi, pair.now)
    pair.left.engine.rekey_child(session, spi, pair.now)
    pair.left.engine.delete_ike_sa(session, pair.now)
    pair.left.engine.create_child(session, "net", pair.now)
    pair.left.engine.delete_ike_sa(session, pair.now)
    pair.run(1)
    assert len(pair.left.all(IkeSaClosed)) == 1


def test_rekey_carries_stored_selectors_octet_for_octet() -> None:
    label = SecurityLabel(b"mpls:vrf=red;class=gold")
    one = replace(
        CHILD,
        local_ts=(network(f"{LEFT_ADDRESS}/32", 137), label),
        peer_ts=(network(f"{RIGHT_ADDRESS}/32", 137), label),
    )
    other = replace(one, local_ts=one.peer_ts, peer_ts=one.local_ts)
    pair, _ = established(child=one, right_child=other)
    before = only_child(pair.left)
    assert before.local_ts[1] == label
    for side in (pair.right, pair.left, pair.right):
        side.engine.rekey_child(side.session, only_child(side).spi_in, pair.now)
        pair.run(1)
        assert_in_sync(pair, children=1)
    after = only_child(pair.left)
    assert after.spi_in != before.spi_in
    assert after.local_ts == before.local_ts


def test_rekey_that_asks_for_less_than_is_in_use_is_refused() -> None:
    def shrink(outgoing: Message) -> Iterable[Message | SealedBody]:
        if outgoing.is_response or not outgoing.notify(NotifyType.REKEY_SA):
            return (outgoing,)
        payloads = tuple(
            replace(p, selectors=(network("0.0.0.0/0", 17),)) if isinstance(p, TsPayload) else p
            for p in outgoing.payloads
        )
        return (replace(outgoing, payloads=payloads),)

    everything = (network("0.0.0.0/0"),)
    child = replace(CHILD, mode=Mode.TUNNEL, local_ts=everything, peer_ts=everything)
    pair, _ = established(child=child, left_options={"rewrite_outgoing": shrink})
    old = only_child(pair.left)
    pair.left.engine.rekey_child(pair.left.session, old.spi_in, pair.now)
    pair.run(1)
    assert pair.left.last(ChildSaFailed).notify_type == NotifyType.TS_UNACCEPTABLE
    assert only_child(pair.left) == old
    assert_in_sync(pair, children=1)


def test_rekey_that_the_peer_narrows_is_deleted_and_the_old_child_lives_on() -> None:
    def narrow(outgoing: Message) -> Message:
        payloads = tuple(
            replace(p, selectors=(network("0.0.0.0/0", 17),)) if isinstance(p, TsPayload) else p
            for p in outgoing.payloads
        )
        return replace(outgoing, payloads=payloads)

    everything = (network("0.0.0.0/0"),)
    child = replace(CHILD, mode=Mode.TUNNEL, local_ts=everything, peer_ts=everything)
    is_on = False
    rewrite = in_responses(lambda outgoing: narrow(outgoing) if is_on else outgoing)
    pair, _ = established(child=child, right_options={"rewrite_outgoing": rewrite})
    is_on = True
    old = only_child(pair.left)
    pair.left.engine.rekey_child(pair.left.session, old.spi_in, pair.now)
    pair.run(1)
    assert "narrowed" in pair.left.last(ChildSaFailed).detail
    assert only_child(pair.left) == old


def test_delete_names_the_spi_that_the_sender_receives_on() -> None:
    pair, _ = established()
    child = only_child(pair.left)
    pair.left.engine.delete_child(pair.left.session, child.spi_in, pair.now)
    pair.run(1)
    assert f"{{D(ESP {child.spi_in.hex()})}}" in summaries(pair.left)[-1]
    assert f"{{D(ESP {child.spi_out.hex()})}}" in summaries(pair.right)[-1]
    assert pair.left.last(ChildSaClosed).reason is CloseReason.DELETED_LOCALLY
    assert pair.right.last(ChildSaClosed).reason is CloseReason.DELETED_BY_PEER
    assert_in_sync(pair, children=0)


def test_deleting_the_ike_sa_closes_its_children_first() -> None:
    pair, _ = established()
    pair.left.engine.delete_ike_sa(pair.left.session, pair.now)
    pair.run(1)
    for side in (pair.left, pair.right):
        kinds = [type(event) for event in side.events[-2:]]
        assert kinds == [ChildSaClosed, IkeSaClosed]
        assert side.last(ChildSaClosed).reason is CloseReason.IKE_SA_CLOSED
