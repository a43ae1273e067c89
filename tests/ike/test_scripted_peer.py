"""The scripts of `mplsec peer` against our own engine, on virtual time: what each of them gets for an answer."""

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest

from endpoint.peer import load_script, shipped_scripts
from ike.config import Connection, EngineSettings, Path
from ike.engine import IkeEngine
from ike.events import ChildSaEstablished, ChildSaFailed, Event, IkeSaEstablished, IkeSaFailed
from ike.testing.clock import Clock
from ike.testing.entropy import ScriptedEntropy
from ike.testing.pair import LEFT_ADDRESS, RIGHT_ADDRESS, connections
from ike.testing.scripted import ScriptedPeer, ScriptError
from tests.ike.engine_kit import CHILD, QUIET

GATEWAY = Path((RIGHT_ADDRESS, 500), (LEFT_ADDRESS, 500))


class Gateway:
    """Our engine at the other end of a wire that loses nothing; time passes only while the script waits."""

    def __init__(self, ours: Sequence[Connection], settings: EngineSettings | None = None) -> None:
        self.path = Path(GATEWAY.peer, GATEWAY.local)
        self.clock = Clock()
        self.engine = IkeEngine(ours, entropy=ScriptedEntropy("gateway"), settings=settings)
        self.events: list[Event] = []
        self._sent: list[bytes] = []
        self.sent_at: list[float] = []

    def now(self) -> float:
        return self.clock.now

    async def pause(self, seconds: float) -> None:
        self.clock.advance_to(self.clock.now + max(0.0, seconds))

    async def send(self, data: bytes) -> None:
        self.sent_at.append(self.clock.now)
        self.engine.receive_datagram(data, GATEWAY, self.clock.now)
        self.collect()

    async def receive(self, seconds: float) -> bytes | None:
        end = self.clock.now + seconds
        while not self._sent:
            deadline = self.engine.next_deadline()
            self.clock.advance_to(min(end, deadline.at) if deadline else end)
            if deadline is None or deadline.at > end:
                return None
            self.engine.handle_timer(self.clock.now)
            self.collect()
        return self._sent.pop(0)

    def collect(self) -> None:
        while (event := self.engine.next_event()) is not None:
            self.events.append(event)
            if (
                isinstance(event, ChildSaEstablished)
                and event.replaces is None
                and not event.child.is_creator
            ):
                self.on_child(event)
        self._sent += [datagram.data for datagram in self.engine.datagrams_to_send(self.clock.now)]

    def on_child(self, event: ChildSaEstablished) -> None:
        """What the gateway does once the script has a child; a test may replace it."""

    def all(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


def scripted(settings: EngineSettings | None = None) -> tuple[ScriptedPeer, Gateway]:
    theirs, ours = connections(CHILD, right={**QUIET})
    gateway = Gateway(ours, settings)
    return ScriptedPeer(theirs[0], gateway, entropy=ScriptedEntropy("script")), gateway


def run(name: str, peer: ScriptedPeer) -> str:
    return asyncio.run(load_script(name).run(peer))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "count", "per_second"), [("half_open_flood", 200, 100), ("cookie_ignored", 48, 20)]
)
def test_a_flood_keeps_to_its_count_and_rate_though_it_is_answered_at_once(
    name: str, count: int, per_second: int
) -> None:
    peer, gateway = scripted()
    run(name, peer)
    apart = [after - before for before, after in pairwise(gateway.sent_at)]
    assert len(gateway.sent_at) == count and min(apart) > 0.999 / per_second


ANSWERS = {
    "bad_lengths": r"N\(INVALID_SYNTAX\); the IKE SA has ended",
    "cookie_ignored": r"32 answered, 16 asked for a cookie",
    "early_message": "ahead: no answer; due: an empty response; again: the same octets",
    "half_open_flood": r"168 asked for a cookie, 32 answered",
    "unfinished_fragments": "incomplete: no answer; whole: authenticated",
    "unknown_critical": r"N\(UNSUPPORTED_CRITICAL_PAYLOAD.*\)",
    "wide_request": r"N\(TS_UNACCEPTABLE\)",
    "wrong_auth": r"N\(AUTHENTICATION_FAILED\)",
    "wrong_order": r"N\(INVALID_SYNTAX\)|no answer",
}
"""What our own gateway answers to those that need no action of its owner."""


@pytest.mark.parametrize("name", ANSWERS)
def test_our_gateway_answers_a_script_as_the_text_says_and_serves_afterwards(name: str) -> None:
    peer, gateway = scripted()
    assert re.fullmatch(ANSWERS[name], run(name, peer))
    gateway.clock.advance_to(gateway.clock.now + 60.0)
    gateway.engine.handle_timer(gateway.clock.now)
    assert asyncio.run(peer.serves_after()) is not None


def test_our_gateway_repeats_ike_auth_octet_for_octet_and_gives_up_by_itself() -> None:
    peer, gateway = scripted()
    gateway.engine.initiate("peer", GATEWAY, gateway.clock.now)
    gateway.collect()
    assert run("missing_auth", peer) == "3 retransmissions, octet for octet"
    while asyncio.run(gateway.receive(60.0)):
        pass
    assert gateway.all(IkeSaFailed)


def test_our_gateway_refuses_wider_selectors_than_it_asked_for() -> None:
    peer, gateway = scripted()
    gateway.engine.initiate("peer", GATEWAY, gateway.clock.now)
    gateway.collect()
    assert run("widened_selectors", peer) == "it deleted the child"
    assert gateway.all(ChildSaFailed)
    assert not gateway.all(ChildSaEstablished)


def test_our_gateway_deletes_its_own_redundant_child_after_a_collision() -> None:
    peer, gateway = scripted()

    def rekey(event: ChildSaEstablished) -> None:
        gateway.engine.rekey_child(event.session, event.child.spi_in, gateway.clock.now)

    gateway.on_child = rekey  # type: ignore[method-assign]
    assert re.fullmatch(r"our rekey: .*; it deleted its own, redundant child", run("rekey_collision", peer))


def test_every_shipped_script_says_what_it_does() -> None:
    names = shipped_scripts()
    assert len(names) >= 10
    titles = {load_script(name).title for name in names}
    assert len(titles) == len(names)
    assert all(title.endswith((".", ":")) for title in titles)


def test_a_script_ends_with_the_reason_when_the_gateway_is_silent() -> None:
    peer, gateway = scripted()
    gateway.engine.receive_datagram = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(ScriptError, match="does not answer IKE_SA_INIT"):
        run("wrong_auth", peer)
    assert asyncio.run(peer.serves_after()) is None


def test_a_gateway_that_does_not_know_the_secret_is_not_taken_for_the_gateway() -> None:
    peer, gateway = scripted()
    peer._psk = b"another"  # the script's own AUTH is then wrong too
    with pytest.raises(ScriptError, match="did not authenticate"):
        run("early_message", peer)
    assert not gateway.all(IkeSaEstablished)
