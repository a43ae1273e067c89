"""Three kinds of fuzz for IKE, each a number of cases from a seed: parsers, whole datagrams, sealed messages.

Must not know what is right: that nothing but typed errors comes out, that counters move, that memory is bounded,
and that the SA still works afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ike import Message, NotifyPayload, Path, SealedBody
from ike.errors import ParseError
from ike.selectors import RawSelector, SelectorError, SelectorRegistry
from ike.testing.entropy import ScriptedEntropy
from ike.testing.mutators import mutate, mutate_body, mutate_inside, splice
from ike.testing.pair import Pair, Side
from ike.wire.message import HEADER_OCTETS, Header
from ike.wire.payloads import MAX_PAYLOADS, Payload, TsiPayload, TsrPayload, encode_payloads, parse_payloads
from tests.ike.engine_kit import CHILD, Tap, assert_in_sync, established, new_pair
from tests.ike.wire_strategies import SAMPLE_MESSAGES, SAMPLE_PAYLOADS

REGISTRY = SelectorRegistry()
BODIES = [encode_payloads([payload]) for payload in SAMPLE_PAYLOADS]
CHAINS = [encode_payloads(message.payloads) for message in SAMPLE_MESSAGES[:1]]
OCTETS = [message.encode() for message in SAMPLE_MESSAGES]
MOST = {"sessions": 64, "ike_sas": 256, "children": 256, "half_open": 1024, "timers": 4096, "requests": 512}
"""What a storm may make the tables of an engine grow to, whatever it says."""


def use(payloads: tuple[Payload, ...]) -> None:
    """Do with parsed payloads what a receiver does: print, interpret, send them back."""
    assert len(payloads) <= MAX_PAYLOADS
    for payload in payloads:
        repr(payload)
        if isinstance(payload, TsiPayload | TsrPayload):
            try:
                REGISTRY.interpret(payload.selectors)
            except SelectorError:
                assert any(isinstance(s, RawSelector) for s in payload.selectors)
    first_type, octets = encode_payloads(payloads)
    if all(payload.payload_type not in (46, 53) for payload in payloads):
        assert parse_payloads(first_type, octets) == payloads


def parser_cases(seed: int | str, count: int) -> int:
    """`count` mutants of payload bodies, of chains and of whole messages. Returns how many parsed."""
    entropy = ScriptedEntropy(f"parsers {seed}")
    parsed = 0
    for number in range(count):
        try:
            if number % 4:
                first_type, octets = BODIES[entropy.below(len(BODIES))]
                use(parse_payloads(first_type, mutate_body(octets, entropy)))
            elif number % 8:
                first_type, octets = CHAINS[0]
                use(parse_payloads(first_type, mutate(octets, entropy)))
            else:
                octets = mutate(OCTETS[entropy.below(len(OCTETS))], entropy)
                if entropy.below(2) and len(octets) >= HEADER_OCTETS:
                    octets = octets[:24] + len(octets).to_bytes(4, "big") + octets[28:]
                Header.parse(octets)
                use(Message.parse(octets).payloads)
        except ParseError:
            continue
        parsed += 1
    return parsed


# --- whole datagrams, by somebody who has no keys, to engines in every state


def _nothing(pair: Pair, tap: Tap) -> None:
    tap.open()


def _hold(sender: str, is_response: bool) -> Callable[[Pair, Tap], None]:
    def prepare(pair: Pair, tap: Tap) -> None:
        side: Side = getattr(pair, sender)
        tap.hold(lambda d: d.path.peer == side.path.local and Header.parse(d.data).is_response is is_response)

    return prepare


def _initiate(pair: Pair) -> None:
    pair.initiate()


def _rekey_both(pair: Pair) -> None:
    for side in (pair.left, pair.right):
        side.engine.rekey_ike_sa(side.session, pair.now)


def _rekey_children(pair: Pair) -> None:
    for side in (pair.left, pair.right):
        for spi_in in side.children:
            side.engine.rekey_child(side.session, spi_in, pair.now)


def _delete(pair: Pair) -> None:
    pair.left.engine.delete_ike_sa(pair.left.session, pair.now)


@dataclass(frozen=True, slots=True)
class State:
    """Where engines are when the storm comes: what is held on the way, then what is begun."""

    name: str
    is_up: bool
    prepare: Callable[[Pair, Tap], None]
    begin: Callable[[Pair], None]
    is_over: bool = False


STATES: Sequence[State] = (
    State("before anything", False, _hold("left", False), _initiate),
    State("IKE_SA_INIT answered, half open", False, _hold("right", True), _initiate),
    State("established", True, _nothing, lambda pair: None),
    State("both rekey the IKE SA, requests held", True, _hold("left", False), _rekey_both),
    State("both rekey the IKE SA, answers held", True, _hold("right", True), _rekey_both),
    State("both rekey a child, answers held", True, _hold("right", True), _rekey_children),
    State("deleting, the Delete held", True, _hold("left", False), _delete, is_over=True),
    State("closed, answers repeated", True, _nothing, _delete, is_over=True),
)


def datagram_cases(state: State, seed: int | str, count: int) -> None:
    """`count` datagrams without valid integrity to either end; afterwards the pair goes on as if nothing had come."""
    entropy = ScriptedEntropy(f"datagrams {state.name} {seed}")
    pair, tap = established(seed=seed) if state.is_up else new_pair(seed=seed)
    if state.is_up:
        for side in (pair.left, pair.right):
            side.engine.rekey_child(side.session, next(iter(side.children)), pair.now)
            pair.run(1)
    state.prepare(pair, tap)
    state.begin(pair)
    pair.run(0.1)
    templates = [datagram.data for datagram in tap.seen] or OCTETS
    before = sum(sum(side.engine.counters.values()) for side in (pair.left, pair.right))
    events = [len(side.events) for side in (pair.left, pair.right)]
    for _ in range(count):
        data = mutate(templates[entropy.below(len(templates))], entropy)
        if entropy.below(3) == 0:
            data = splice(data, templates[entropy.below(len(templates))], entropy)
        if entropy.below(2) and len(data) >= HEADER_OCTETS:
            data = data[:24] + len(data).to_bytes(4, "big") + data[28:]
        if data in templates:
            continue
        side = (pair.left, pair.right)[entropy.below(2)]
        path = Path(side.path.local, side.path.peer)
        side.engine.receive_datagram(data, path, pair.now)
        side.engine.datagrams_to_send(pair.now)
    for side, count_before in zip((pair.left, pair.right), events, strict=True):
        check_bounds(side)
        if state.is_up:  # nobody without keys makes anything happen
            pair.flush()
            assert len(side.events) == count_before, side.events[count_before:]
    assert sum(sum(side.engine.counters.values()) for side in (pair.left, pair.right)) > before
    tap.release(pair)
    pair.run(100)
    if state.is_over:
        assert not pair.left.engine.sessions()
        assert not pair.right.engine.sessions()
        return
    if not state.is_up and not pair.right.engine.sessions():
        pair.initiate()
        pair.run(60)
    for side in (pair.left, pair.right):
        assert side.engine.sessions(), f"{side.name} lost its session: {side.events[-3:]}"
    pair.left.engine.create_child(pair.left.engine.sessions()[-1].session, "net", pair.now)
    pair.run(10)
    assert pair.left.children


# --- sealed messages: a peer that has the keys and says what makes no sense


class Mutant:
    """A `rewrite_outgoing` that breaks what it is given, when it is on."""

    def __init__(self, entropy: ScriptedEntropy) -> None:
        self.entropy = entropy
        self.is_on = False
        self.cases = 0

    def __call__(self, message: Message) -> Iterable[Message | SealedBody]:
        if not self.is_on or self.entropy.below(3) == 0:
            return (message,)
        self.cases += 1
        return (mutate_inside(message, self.entropy),)


def sealed_cases(seed: int | str, count: int) -> int:
    """At least `count` broken messages of an authenticated left to right; returns how many IKE SAs that took.

    Right may end the session (RFC 7296 2.21.3); it never raises, never holds more than it may, and takes the next
    honest session at once.
    """
    entropy = ScriptedEntropy(f"sealed {seed}")
    mutant = Mutant(entropy)
    pair, _ = new_pair(CHILD, seed=seed, left_options={"rewrite_outgoing": mutant})
    sessions = 0
    while mutant.cases < count:
        mutant.is_on = entropy.below(4) == 0  # now and then the handshake, too
        if not pair.left.engine.sessions() or not pair.right.engine.sessions():
            for snapshot in pair.left.engine.sessions():
                pair.left.engine.delete_ike_sa(snapshot.session, pair.now)
            pair.run(1)
            pair.initiate()
            sessions += 1
            pair.run(2)
        mutant.is_on = True
        for _ in range(4):
            for side in (pair.left, pair.right):
                _command(side, entropy, pair.now)
            pair.run(0.2 + entropy.fraction())
        for side in (pair.left, pair.right):
            check_bounds(side)
            side.events.clear()
            side.trace.clear()
    mutant.is_on = False
    for snapshot in pair.left.engine.sessions():
        pair.left.engine.delete_ike_sa(snapshot.session, pair.now)
    for snapshot in pair.right.engine.sessions():
        if snapshot.established_at is not None:
            pair.right.engine.delete_ike_sa(snapshot.session, pair.now)
    pair.run(400)
    for side in (pair.left, pair.right):
        side.events.clear()
        held = {name: size for name, size in side.engine.sizes.items() if size}
        assert not held, f"{side.name} still holds {held}"
    pair.initiate()
    pair.run(2)
    pair.left.engine.create_child(pair.left.session, "net", pair.now)
    pair.run(2)
    assert_in_sync(pair, children=1)
    return sessions


def _command(side: Side, entropy: ScriptedEntropy, now: float) -> None:
    engine = side.engine
    for snapshot in engine.sessions():
        if snapshot.established_at is None:
            continue
        number = snapshot.session
        spis = [child.spi_in for child in snapshot.children]
        match entropy.below(8):
            case 0 | 1 if len(spis) < 4:
                engine.create_child(number, "net", now)
            case 2 | 3 if spis:
                engine.rekey_child(number, spis[0], now)
            case 4 if spis:
                engine.delete_child(number, spis[0], now)
            case 5:
                engine.rekey_ike_sa(number, now)
            case 6:
                engine.send_notify(number, [NotifyPayload(40961, entropy.octets(12))], now)
            case _:
                engine.check_liveness(number, now)


def check_bounds(side: Side) -> None:
    sizes = side.engine.sizes
    grown = {name: sizes[name] for name, most in MOST.items() if sizes[name] > most}
    assert not grown, f"{side.name}: {grown}"
