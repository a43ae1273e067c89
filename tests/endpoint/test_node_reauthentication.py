"""Two nodes authenticate again under traffic: children, labels and routes move to the new IKE SA, nothing is lost."""

from __future__ import annotations

import pytest

from ike import IkeSaClosed, IkeSaEstablished, LocalError
from tests.endpoint.pair import GRANTS, STATIC_GRANTS, NodePair, configuration

NATIVE = 'start = "boot"'
PLAIN = 'selectors = "plain"\nmode = "tunnel"\nstart = "boot"'


def up(settings: str, grants: str = GRANTS) -> NodePair:
    quiet = settings.replace("boot", "none")
    pair = NodePair(configuration(1, settings, grants=grants), configuration(2, quiet, grants=grants))
    pair.start().run(10)
    assert pair.pe1.node.is_up("pe2", None)
    return pair


def pinging(pair: NodePair, first: int, seconds: float, every_s: float = 0.05) -> list[int]:
    """A ping each way every 50 ms; the sequence numbers."""
    numbers = list(range(first, first + int(seconds / every_s)))
    for number in numbers:
        for end in (1, 2):
            pair.ping(end, "red", number, dscp=46 if number % 2 else 0)
        pair.run(every_s)
    return numbers


@pytest.mark.parametrize(
    ("settings", "grants"), [(NATIVE, GRANTS), (PLAIN, STATIC_GRANTS)], ids=["native", "plain"]
)
def test_no_packet_is_lost_while_the_ends_authenticate_again(settings: str, grants: str) -> None:
    pair = up(settings, grants)
    kinds = pair.pe1.children()
    sent = pinging(pair, 1, 1)
    assert pair.pe1.node.reauthenticate("pe2", pair.now) == 1
    sent += pinging(pair, 100, 0.04, every_s=0.0003)
    sent += pinging(pair, 400, 8)
    for end in (pair.pe1, pair.pe2):
        assert end.children() == kinds
        assert len([event for event in end.events if isinstance(event, IkeSaEstablished)]) == 2
        assert len([event for event in end.events if isinstance(event, IkeSaClosed)]) == 1
        assert len(end.node.engine.sessions()) == 1
    pair.run(2)
    for number in (1, 2):
        assert pair.pongs(number, "red") == sent
        assert not pair.ends[number].node.dataplane.drops


@pytest.mark.parametrize(
    ("settings", "grants"), [(NATIVE, GRANTS), (PLAIN, STATIC_GRANTS)], ids=["native", "plain"]
)
def test_the_new_child_is_not_sent_on_before_a_slow_peer_has_it(settings: str, grants: str) -> None:
    pair = up(settings, grants)
    pair.ike_delay_s = 0.03  # ESP overtakes the answer that makes its child
    assert pair.pe1.node.reauthenticate("pe2", pair.now) == 1
    sent = list(range(200))
    for number in sent:  # from the responder alone: nothing of the opener's tells it that the child is there
        pair.ping(2, "red", number)
        pair.run(0.002)
    pair.run(1)
    assert pair.pongs(2, "red") == sent
    assert not pair.pe1.node.dataplane.drops


def test_the_child_of_the_older_session_is_sent_on_for_two_seconds_at_most() -> None:
    pair = up(PLAIN, STATIC_GRANTS)
    kinds = sum(pair.pe2.children().values())
    old = {child.sa.spi_out for child in pair.pe2.node.children}

    def used(number: int) -> set[bytes]:
        pair.wire.clear()
        pair.ping(2, "red", number)
        return {octets[:4] for sender, octets in pair.wire if sender == 2}

    pair.pe1.node.reauthenticate("pe2", pair.now)
    while sum(pair.pe2.children().values()) < 2 * kinds:
        pair.run(0.0005)
    # The opener is gone: no Delete of its old IKE SA, no ESP on the new one.
    pair.lose = lambda sender, octets: True
    pair.run(1.5)
    assert used(1) <= old
    pair.run(1)
    assert used(2) and not used(3) & old


def test_lifetime_of_a_peer_is_obeyed_by_both_ends() -> None:
    pair = up(NATIVE + '\nlifetime = { reauth = "10m" }')
    pair.run(3600)
    for end in (pair.pe1, pair.pe2):
        count = len([event for event in end.events if isinstance(event, IkeSaEstablished)])
        assert 6 <= count <= 9
        assert len(end.node.engine.sessions()) == 1
    pinging(pair, 1, 1)
    pair.run(2)
    assert pair.pongs(1, "red") == list(range(1, 21))


def test_only_the_opener_can_be_told_to() -> None:
    pair = up(NATIVE)
    with pytest.raises(LocalError, match="the other end"):
        pair.pe2.node.reauthenticate("pe1", pair.now)
    assert pair.pe1.node.reauthenticate("pe2", pair.now) == 1


def test_peer_that_is_down_is_not_authenticated_again() -> None:
    pair = NodePair(configuration(1), configuration(2)).start()
    assert pair.pe1.node.reauthenticate("pe2", pair.now) == 0
