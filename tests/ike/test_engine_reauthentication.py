"""Authenticating again: make before break, by timer, by the responder's wish, and what comes between (RFC 4478)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ike import (
    ChildSaEstablished,
    CloseReason,
    EngineSettings,
    FailureReason,
    Identity,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaFailed,
    LocalError,
    NullAuth,
    PskAuth,
)
from ike.directory import ConnectionDirectory
from ike.numbers import ExchangeType, NotifyType
from ike.testing.pair import Pair, Side
from ike.wire.payloads import NotifyPayload
from tests.ike.engine_kit import (
    NONCE_OCTETS,
    assert_in_sync,
    established,
    message,
    new_pair,
)

SETTINGS = EngineSettings(nonce_octets=NONCE_OCTETS)
OVERLAP_S = SETTINGS.reauth_overlap_s


def connection_of(side: Side, **changes: object) -> None:
    """Change the configuration of a side that is running already."""
    (old,) = side.engine._host.connections
    new = replace(old, **changes)  # type: ignore[arg-type]
    side.engine._host.directory = ConnectionDirectory((new,))
    side.engine._connections = {"peer": new}


def reauthenticated(pair: Pair) -> None:
    """One session on either side, and it is not the first; the children are there all the time."""
    first, second = pair.left.all(IkeSaEstablished)[0], pair.left.last(IkeSaEstablished)
    assert second.replaces == first.session
    assert [snapshot.session for snapshot in pair.left.engine.sessions()] == [second.session]
    assert_in_sync(pair)


@pytest.mark.parametrize("count", [1, 3])
def test_new_ike_sa_has_the_children_before_the_old_one_goes(count: int) -> None:
    pair, _ = established()
    for _ in range(count - 1):
        pair.left.engine.create_child(pair.left.session, "net", pair.now)
        pair.run(2)
    old = pair.left.session
    pair.left.engine.reauthenticate(old, pair.now)
    pair.run(OVERLAP_S - 1)
    assert len(pair.left.engine.sessions()) == len(pair.right.engine.sessions()) == 2
    for side in (pair.left, pair.right):
        assert len(side.children) == 2 * count
        assert not side.all(IkeSaClosed)
    pair.run(3)
    reauthenticated(pair)
    assert len(pair.left.children) == count
    assert pair.left.last(IkeSaClosed).reason is CloseReason.REPLACED
    assert pair.right.last(IkeSaClosed).reason is CloseReason.DELETED_BY_PEER


def test_no_initial_contact_while_the_old_one_is_there() -> None:
    pair, tap = established()
    pair.left.trace.clear()
    pair.left.engine.reauthenticate(pair.left.session, pair.now)
    pair.run(10)
    requests = [one.summary for one in pair.left.trace if one.summary.startswith("IKE_AUTH request")]
    assert requests
    assert not any("INITIAL_CONTACT" in one for one in requests)
    assert tap.seen


def test_second_command_while_one_is_under_way_does_nothing() -> None:
    pair, _ = established()
    old = pair.left.session
    pair.left.engine.reauthenticate(old, pair.now)
    pair.left.engine.reauthenticate(old, pair.now)
    pair.run(2)
    pair.left.engine.reauthenticate(old, pair.now)
    pair.run(10)
    reauthenticated(pair)
    assert len(pair.left.all(IkeSaEstablished)) == 2


def test_only_the_opener_can() -> None:
    pair, _ = established()
    with pytest.raises(LocalError, match="the other end has opened"):
        pair.right.engine.reauthenticate(pair.right.session, pair.now)


def test_nobody_has_nothing_to_prove_again() -> None:
    ids: dict[str, object] = {
        "local_id": Identity.null(), "peer_id": Identity.null(), "auth": NullAuth(), "peer_auth": (NullAuth(),)
    }  # fmt: skip
    pair, _ = new_pair(left=ids | {"reauth_s": 100.0}, right=ids)
    pair.initiate()
    pair.run(300)
    assert len(pair.left.all(IkeSaEstablished)) == 1
    with pytest.raises(LocalError, match="no identity"):
        pair.left.engine.reauthenticate(pair.left.session, pair.now)


# --- when


def test_lifetime_of_our_own_with_jitter() -> None:
    times = set()
    for seed in range(4):
        pair, _ = established(left={"reauth_s": 1000.0}, seed=seed)
        pair.run(1000, until=lambda: len(pair.left.all(IkeSaEstablished)) == 2)  # noqa: B023
        assert 800 < pair.now <= 910
        times.add(pair.now)
        pair.run(2 * OVERLAP_S)
        reauthenticated(pair)
    assert len(times) == 4


def test_it_comes_again_and_again() -> None:
    pair, _ = established(left={"reauth_s": 1000.0})
    pair.run(10_000)
    assert 10 <= len(pair.left.all(IkeSaEstablished)) <= 13
    assert_in_sync(pair, children=1)


def test_responder_says_when_and_the_opener_obeys() -> None:
    pair, _ = established(right={"reauth_s": 1000.0})
    pair.run(990)
    assert len(pair.left.all(IkeSaEstablished)) == 2
    reauthenticated(pair)
    pair.run(1000)
    assert len(pair.left.all(IkeSaEstablished)) == 3


def test_shorter_of_the_two_lifetimes_counts() -> None:
    pair, _ = established(left={"reauth_s": 5000.0}, right={"reauth_s": 1000.0})
    pair.run(990)
    assert len(pair.left.all(IkeSaEstablished)) == 2


def test_opener_that_does_not_come_again_loses_its_ike_sa() -> None:
    """RFC 4478 4: an opener that does not know the notify."""
    pair, _ = established(right={"reauth_s": 1000.0})
    pair.left.engine._host.timers.cancel_all(pair.left.engine._host.sessions[pair.left.session])
    pair.run(1090)
    assert not pair.right.all(IkeSaClosed)
    pair.run(30)
    closed = pair.right.last(IkeSaClosed)
    assert (closed.reason, closed.detail) == (
        CloseReason.LIFETIME,
        "the peer did not authenticate again in time",
    )
    assert not pair.left.engine.sessions()


@pytest.mark.parametrize(
    ("data", "comes"), [(b"\0\0\0\0", 20), (b"\0\0\3\xe8", 1000), (b"\xff" * 4, None), (b"1", None)]
)
def test_word_of_the_responder_later_on_counts_but_never_makes_a_storm(
    data: bytes, comes: int | None
) -> None:
    pair, _ = established()
    pair.right.engine.send_notify(
        pair.right.session, (NotifyPayload(NotifyType.AUTH_LIFETIME, data),), pair.now
    )
    begin = pair.now
    pair.run(2000, until=lambda: len(pair.left.all(IkeSaEstablished)) == 2)
    if comes is None:
        assert len(pair.left.all(IkeSaEstablished)) == 1
    else:
        assert 0.8 * comes < pair.now - begin <= comes


def test_word_of_the_opener_is_none_of_the_responders_business() -> None:
    pair, _ = established()
    pair.left.engine.send_notify(
        pair.left.session, (NotifyPayload(NotifyType.AUTH_LIFETIME, bytes(4)),), pair.now
    )
    pair.run(500)
    assert len(pair.right.all(IkeSaEstablished)) == 1
    assert not pair.right.all(IkeSaClosed)


@pytest.mark.parametrize("who_must", ["opener", "responder"])
def test_no_word_of_the_peer_puts_it_off(who_must: str) -> None:
    side = {"opener": "left", "responder": "right"}[who_must]
    pair, _ = established(**{side: {"reauth_s": 1000.0}})
    must, other = (pair.left, pair.right) if who_must == "opener" else (pair.right, pair.left)
    late = NotifyPayload(NotifyType.AUTH_LIFETIME, b"\xff" * 4)
    if who_must == "responder":
        # One that never comes of itself.
        pair.left.engine._host.timers.cancel_all(pair.left.engine._host.sessions[pair.left.session])
    for _ in range(3):
        other.engine.send_notify(other.session, (late,), pair.now)
        pair.run(300)
    other.engine.send_notify(other.session, (late,), pair.now)
    pair.run(210)
    if who_must == "opener":
        assert len(must.all(IkeSaEstablished)) == 2
    else:
        assert must.last(IkeSaClosed).detail == "the peer did not authenticate again in time"


def test_rekey_of_the_ike_sa_does_not_put_it_off() -> None:
    pair, _ = established(left={"reauth_s": 1000.0})
    pair.run(500)
    pair.left.engine.rekey_ike_sa(pair.left.session, pair.now)
    pair.run(450)
    reauthenticated(pair)


# --- when it goes wrong


def test_refused_reauthentication_leaves_the_old_ike_sa_and_is_tried_again() -> None:
    pair, _ = established(left={"reauth_s": 1000.0})
    old = pair.left.session
    connection_of(pair.right, auth=PskAuth(b"another secret"))
    pair.run(920)
    failed = pair.left.last(IkeSaFailed)
    assert (failed.reason, failed.replaces) == (FailureReason.AUTHENTICATION_FAILED, old)
    assert pair.left.session == old
    connection_of(pair.right, auth=pair.left.engine._host.connections[0].auth)
    pair.run(70)
    reauthenticated(pair)
    assert_in_sync(pair, children=1)


def test_silent_peer_fails_the_new_one_and_not_the_old_one() -> None:
    pair, tap = established()
    old = pair.left.session
    tap.hold(message(sent_by=pair.right, exchange=ExchangeType.IKE_SA_INIT))
    pair.left.engine.reauthenticate(old, pair.now)
    pair.run(200)
    assert pair.left.last(IkeSaFailed).replaces == old
    assert pair.left.session == old
    tap.held.clear()
    tap.open()
    pair.left.engine.reauthenticate(old, pair.now)
    pair.run(10)
    reauthenticated(pair)


def test_old_one_waits_for_children_that_are_late() -> None:
    pair, tap = established()
    pair.left.engine.reauthenticate(pair.left.session, pair.now)
    tap.hold(message(sent_by=pair.left, exchange=ExchangeType.CREATE_CHILD_SA), 3)
    pair.run(2.5 * OVERLAP_S, until=lambda: bool(pair.left.all(IkeSaClosed)))
    made = len(pair.left.all(ChildSaEstablished))
    assert made == 2
    pair.run(2 * OVERLAP_S)
    reauthenticated(pair)
    assert_in_sync(pair, children=1)


def test_old_one_deleted_by_the_peer_meanwhile() -> None:
    pair, _ = established()
    pair.left.engine.reauthenticate(pair.left.session, pair.now)
    pair.run(1)
    first = min(snapshot.session for snapshot in pair.right.engine.sessions())
    pair.right.engine.delete_ike_sa(first, pair.now)
    pair.run(3 * OVERLAP_S)
    assert_in_sync(pair, children=1)


def test_child_under_rekey_is_made_again_like_any_other() -> None:
    pair, _ = established()
    old = pair.left.session
    pair.left.engine.rekey_child(old, next(iter(pair.left.children)), pair.now)
    pair.left.engine.reauthenticate(old, pair.now)
    pair.run(3 * OVERLAP_S)
    assert_in_sync(pair, children=1)


def test_child_in_ike_auth_is_not_asked_for_twice() -> None:
    pair, _ = new_pair(left={"childless": False, "first_child": "net"})
    pair.initiate()
    pair.run(2)
    pair.left.engine.reauthenticate(pair.left.session, pair.now)
    pair.run(3 * OVERLAP_S)
    assert_in_sync(pair, children=len(pair.left.children))
    assert len(pair.left.children) == 1
