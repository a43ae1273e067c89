"""The states of an IKE SA, and what to answer when both ends act at once (RFC 7296 2.8, 2.25).

Every transition and every collision is here, as two tables; must not know payloads, keys or timers.
"Waiting for an answer" is no state: it is a request in flight.

    CONNECTING --> ESTABLISHED --> REKEYED --> CLOSED
         |              |             |          ^
         +--------------+-> DELETING -+----------+
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, IntEnum

from ike.errors import LocalError


class IkeSaState(Enum):
    CONNECTING = "connecting"
    """Before both ends are authenticated; as responder: half-open."""
    ESTABLISHED = "established"
    REKEYED = "rekeyed"
    """Another IKE SA carries the session on; waits for the Delete of whoever made that one."""
    DELETING = "deleting"
    """The session is over; our last request tells the peer."""
    CLOSED = "closed"
    """Only repeats its last response to retransmissions, for a while."""


TRANSITIONS: dict[IkeSaState, frozenset[IkeSaState]] = {
    IkeSaState.CONNECTING: frozenset({IkeSaState.ESTABLISHED, IkeSaState.DELETING, IkeSaState.CLOSED}),
    IkeSaState.ESTABLISHED: frozenset({IkeSaState.REKEYED, IkeSaState.DELETING, IkeSaState.CLOSED}),
    IkeSaState.REKEYED: frozenset({IkeSaState.DELETING, IkeSaState.CLOSED}),
    IkeSaState.DELETING: frozenset({IkeSaState.CLOSED}),
    IkeSaState.CLOSED: frozenset(),
}


def check_transition(old: IkeSaState, new: IkeSaState) -> None:
    """LocalError for a transition that the table does not have."""
    if new not in TRANSITIONS[old]:
        raise LocalError(f"an IKE SA never goes from {old.value} to {new.value}")


class Doing(Enum):
    """What we are about, seen from the thing that the peer's request is about."""

    CREATING_CHILD = "creating a child"
    REKEYING_THAT_CHILD = "rekeying that child"
    DELETING_THAT_CHILD = "deleting that child"
    REKEYING_OTHER_CHILD = "rekeying another child"
    DELETING_OTHER_CHILD = "deleting another child"
    REKEYING_IKE_SA = "rekeying the IKE SA"
    REKEYED_IKE_SA = "the IKE SA is replaced already"
    DELETING_IKE_SA = "deleting the IKE SA"


class Ask(Enum):
    """What the peer's request wants."""

    CREATE_CHILD = "create a child"
    REKEY_CHILD = "rekey a child"
    DELETE_CHILD = "delete a child"
    REKEY_IKE_SA = "rekey the IKE SA"
    DELETE_IKE_SA = "delete the IKE SA"


class Verdict(IntEnum):
    """What to do with the request; with several requests of ours in flight the highest one counts."""

    PROCEED = 0
    COMPARE_NONCES = 1
    """Do it, and let the lowest of the four nonces decide later which of the two new SAs stays."""
    ANSWER_WITHOUT_DELETE = 2
    """Do it, but name no SPI of ours: our own Delete already did."""
    TEMPORARY_FAILURE = 3


_WAIT = Verdict.TEMPORARY_FAILURE

COLLISIONS: dict[tuple[Doing, Ask], Verdict] = {
    # RFC 7296 2.25.1, Child SAs. One that does not exist: CHILD_SA_NOT_FOUND, or a response without Delete.
    (Doing.DELETING_THAT_CHILD, Ask.REKEY_CHILD): _WAIT,
    (Doing.REKEYING_THAT_CHILD, Ask.REKEY_CHILD): Verdict.COMPARE_NONCES,
    (Doing.DELETING_THAT_CHILD, Ask.DELETE_CHILD): Verdict.ANSWER_WITHOUT_DELETE,
    (Doing.CREATING_CHILD, Ask.REKEY_IKE_SA): _WAIT,
    (Doing.REKEYING_OTHER_CHILD, Ask.REKEY_IKE_SA): _WAIT,
    (Doing.DELETING_OTHER_CHILD, Ask.REKEY_IKE_SA): _WAIT,
    # RFC 7296 2.25.2 and 2.8.2, the IKE SA. A Delete of the IKE SA is always obeyed.
    (Doing.REKEYING_IKE_SA, Ask.REKEY_IKE_SA): Verdict.COMPARE_NONCES,
    (Doing.REKEYED_IKE_SA, Ask.REKEY_IKE_SA): _WAIT,
    (Doing.DELETING_IKE_SA, Ask.REKEY_IKE_SA): _WAIT,
    (Doing.REKEYING_IKE_SA, Ask.CREATE_CHILD): _WAIT,
    (Doing.REKEYING_IKE_SA, Ask.REKEY_CHILD): _WAIT,
    (Doing.REKEYED_IKE_SA, Ask.CREATE_CHILD): _WAIT,
    (Doing.REKEYED_IKE_SA, Ask.REKEY_CHILD): _WAIT,
    (Doing.DELETING_IKE_SA, Ask.CREATE_CHILD): _WAIT,
    (Doing.DELETING_IKE_SA, Ask.REKEY_CHILD): _WAIT,
}
"""What is not here goes on as if we were doing nothing."""


def judge(ask: Ask, doing: Iterable[Doing]) -> Verdict:
    """The answer to `ask` while we are `doing` these things."""
    return max((COLLISIONS.get((each, ask), Verdict.PROCEED) for each in doing), default=Verdict.PROCEED)


def is_redundant(ours: Iterable[bytes], theirs: Iterable[bytes]) -> bool:
    """Whether the SA that we made holds the lowest of the four nonces, so that we delete it (RFC 7296 2.8.1).

    Octets are compared one by one and a nonce that ends first is the lower one: the order of `bytes`.
    """
    return min(ours) < min(theirs)
