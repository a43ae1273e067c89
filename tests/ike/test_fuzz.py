"""20,000 broken inputs: only typed errors inside, nothing outside; `make soak` has a million (with test_wire_fuzz)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ike import IkeSaClosed, Message, SealedBody
from ike.errors import ParseError
from ike.testing.entropy import ScriptedEntropy
from ike.testing.mutators import mutate_body, mutate_inside, splice
from ike.wire.payloads import parse_payloads
from tests.ike.engine_kit import established
from tests.ike.fuzz import STATES, State, datagram_cases, parser_cases, sealed_cases, use
from tests.ike.wire_strategies import SAMPLE_MESSAGES


def test_parsers_take_broken_octets() -> None:
    assert 1000 < parser_cases("test", 4000) < 3900, (
        "the mutants meet the parsers' depths, and are refused there"
    )


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_datagrams_without_keys_change_nothing_in_any_state(state: State) -> None:
    datagram_cases(state, "test", 600)


@pytest.mark.parametrize("seed", range(4))
def test_sealed_nonsense_of_a_peer_never_raises_and_leaves_nothing_behind(seed: int) -> None:
    sealed_cases(seed, 450)


@given(st.integers(0, 255), st.binary(max_size=120), st.booleans())
@settings(max_examples=1000, deadline=None)
def test_any_octets_as_the_body_of_any_payload(payload_type: int, body: bytes, critical: bool) -> None:
    octets = bytes([0, critical << 7]) + (4 + len(body)).to_bytes(2, "big") + body
    try:
        use(parse_payloads(payload_type, octets))
    except ParseError:
        return


@given(st.integers(0, 255), st.binary(max_size=80), st.sampled_from(["request", "response"]))
@settings(max_examples=60, deadline=None)
def test_any_octets_sealed_by_the_peer(first_type: int, inner: bytes, kind: str) -> None:
    """Authentic, whatever it says: answered, or the end of that IKE SA; another one comes up at once."""
    says: list[bool] = []

    def rewrite(outgoing: Message) -> tuple[Message | SealedBody, ...]:
        if says and outgoing.is_response is (kind == "response"):
            return (SealedBody(first_type, inner),)
        return (outgoing,)

    pair, _ = established(left_options={"rewrite_outgoing": rewrite})
    says.append(True)
    side = pair.left if kind == "request" else pair.right
    side.engine.check_liveness(side.session, pair.now)
    pair.run(1)
    says.clear()
    pair.run(40)
    if not pair.right.engine.sessions():
        assert pair.right.last(IkeSaClosed)
        for snapshot in pair.left.engine.sessions():
            pair.left.engine.delete_ike_sa(snapshot.session, pair.now)
        pair.run(60)
        pair.initiate()
        pair.run(2)
    assert pair.right.engine.sessions()
    pair.right.engine.check_liveness(pair.right.engine.sessions()[0].session, pair.now)
    pair.run(2)
    assert pair.right.engine.is_quiet


def test_ike_sa_that_is_being_deleted_takes_a_malformed_answer() -> None:
    says: list[bool] = []

    def rewrite(outgoing: Message) -> tuple[Message | SealedBody, ...]:
        return (SealedBody(0, b"?"),) if says and outgoing.is_response else (outgoing,)

    pair, tap = established(right_options={"rewrite_outgoing": rewrite})
    says.append(True)
    tap.hold(lambda datagram: True, 1)
    pair.left.engine.check_liveness(pair.left.session, pair.now)
    pair.flush()
    pair.left.engine.delete_ike_sa(pair.left.session, pair.now)
    tap.release(pair)
    pair.run(100)
    assert not any(size for name, size in pair.left.engine.sizes.items())


def test_mutants_are_what_they_claim() -> None:
    entropy = ScriptedEntropy("mutants")
    message = SAMPLE_MESSAGES[0]
    bodies = {mutate_inside(message, entropy).octets for _ in range(50)}
    assert len(bodies) > 40
    assert splice(b"ab", b"cd", entropy)[:1] in (b"", b"a", b"c", b"d")
    mutant = mutate_body(b"\0\0\0\6ab", entropy)
    assert int.from_bytes(mutant[2:4], "big") == len(mutant)
