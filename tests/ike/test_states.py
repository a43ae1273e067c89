"""The tables of states and collisions against the sentences of RFC 7296 2.25."""

import pytest

from ike.errors import LocalError
from ike.states import TRANSITIONS, Ask, Doing, IkeSaState, Verdict, check_transition, is_redundant, judge

PROCEED, COMPARE = Verdict.PROCEED, Verdict.COMPARE_NONCES
NO_DELETE, LATER = Verdict.ANSWER_WITHOUT_DELETE, Verdict.TEMPORARY_FAILURE

RULES = [
    (Doing.DELETING_THAT_CHILD, Ask.REKEY_CHILD, LATER),
    (Doing.REKEYING_THAT_CHILD, Ask.REKEY_CHILD, COMPARE),
    (Doing.REKEYING_OTHER_CHILD, Ask.REKEY_CHILD, PROCEED),
    (Doing.DELETING_THAT_CHILD, Ask.DELETE_CHILD, NO_DELETE),
    (Doing.REKEYING_THAT_CHILD, Ask.DELETE_CHILD, PROCEED),
    (Doing.CREATING_CHILD, Ask.CREATE_CHILD, PROCEED),
    (Doing.CREATING_CHILD, Ask.REKEY_IKE_SA, LATER),
    (Doing.REKEYING_OTHER_CHILD, Ask.REKEY_IKE_SA, LATER),
    (Doing.DELETING_OTHER_CHILD, Ask.REKEY_IKE_SA, LATER),
    (Doing.REKEYING_IKE_SA, Ask.REKEY_IKE_SA, COMPARE),
    (Doing.REKEYED_IKE_SA, Ask.REKEY_IKE_SA, LATER),
    (Doing.DELETING_IKE_SA, Ask.REKEY_IKE_SA, LATER),
    (Doing.REKEYING_IKE_SA, Ask.DELETE_IKE_SA, PROCEED),
    (Doing.DELETING_IKE_SA, Ask.DELETE_IKE_SA, PROCEED),
    (Doing.REKEYING_IKE_SA, Ask.CREATE_CHILD, LATER),
    (Doing.REKEYING_IKE_SA, Ask.REKEY_CHILD, LATER),
    (Doing.REKEYED_IKE_SA, Ask.CREATE_CHILD, LATER),
    (Doing.REKEYED_IKE_SA, Ask.REKEY_CHILD, LATER),
    (Doing.REKEYING_IKE_SA, Ask.DELETE_CHILD, PROCEED),
    (Doing.REKEYED_IKE_SA, Ask.DELETE_CHILD, PROCEED),
]


@pytest.mark.parametrize(("doing", "ask", "verdict"), RULES)
def test_collision_is_judged_as_the_rfc_says(doing: Doing, ask: Ask, verdict: Verdict) -> None:
    assert judge(ask, [doing]) is verdict


def test_idle_end_does_what_it_is_asked() -> None:
    assert {judge(ask, []) for ask in Ask} == {PROCEED}


def test_the_strictest_of_several_reasons_counts() -> None:
    assert judge(Ask.REKEY_CHILD, [Doing.REKEYING_THAT_CHILD, Doing.REKEYING_IKE_SA]) is LATER


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ((b"\x01\xff", b"\x09"), (b"\x02", b"\x03"), True),
        ((b"\x05", b"\x06"), (b"\x07", b"\x04"), False),
        ((b"\x01" * 16,), (b"\x01" * 17,), True),
        ((b"\x01" * 17,), (b"\x01" * 16,), False),
        ((b"\x00\xff",), (b"\x01\x00",), True),
    ],
)
def test_lowest_nonce_is_found_octet_by_octet(
    ours: tuple[bytes, ...], theirs: tuple[bytes, ...], expected: bool
) -> None:
    assert is_redundant(ours, theirs) is expected


def test_transitions_only_go_forward() -> None:
    for old, news in TRANSITIONS.items():
        for new in IkeSaState:
            if new in news:
                check_transition(old, new)
                with pytest.raises(LocalError):
                    check_transition(new, old)
            else:
                with pytest.raises(LocalError):
                    check_transition(old, new)
