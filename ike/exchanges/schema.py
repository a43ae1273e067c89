"""Which payloads a message requires and allows: one table, checked before any meaning (RFC 7296 1.2-1.4, C).

Must not know keys, state or policy. Notify, Vendor ID and unknown payloads without the critical bit are
allowed everywhere (RFC 7296 2.5, 3.10, 3.12); what is in no rule is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ike.errors import SchemaError
from ike.numbers import ExchangeType, NotifyType, PayloadType, is_error_notify, name_of
from ike.wire.message import Message
from ike.wire.payloads import NotifyPayload, Payload, UnknownPayload

P = PayloadType


class UnsupportedCriticalPayload(SchemaError):  # noqa: N818 - RFC 7296's name
    """A payload that must be understood and is not (RFC 7296 2.5). `payload_type` goes into the answer."""

    def __init__(self, payload_type: int) -> None:
        super().__init__(f"critical payload {payload_type} is not understood")
        self.payload_type = payload_type


class Story(Enum):
    """What a message of an exchange is about."""

    INIT = "initiate an IKE SA"
    INIT_ERROR = "refuse to, or ask for another try"
    AUTH_WITH_CHILD = "authenticate and make the first child"
    AUTH_CHILDLESS = "authenticate (RFC 6023), or the child failed"
    AUTH_ERROR = "refuse to authenticate"
    NEW_CHILD = "make or rekey a child"
    REKEY_IKE_SA = "rekey the IKE SA"
    CREATE_ERROR = "refuse to make it"
    INFORMATIONAL = "delete, notify, or show to be alive"


@dataclass(frozen=True, slots=True)
class Rule:
    """`needs_error`: the story is only told by a message with an error notify or COOKIE in it."""

    story: Story
    required: frozenset[int]
    optional: frozenset[int] = frozenset()
    needs_error: bool = False


ANYWHERE = frozenset({P.NOTIFY, P.VENDOR_ID})
REPEATABLE = ANYWHERE | {P.CERT, P.CERTREQ, P.DELETE, P.CP}

_CERTS = frozenset({P.CERT, P.CERTREQ})
_CHILD = frozenset({P.SA, P.TSI, P.TSR})
_NEW_CHILD = Rule(Story.NEW_CHILD, frozenset({P.SA, P.NONCE, P.TSI, P.TSR}), frozenset({P.KE, P.CP}))
_REKEY_IKE_SA = Rule(Story.REKEY_IKE_SA, frozenset({P.SA, P.NONCE, P.KE}))
_INFORMATIONAL = Rule(Story.INFORMATIONAL, frozenset(), frozenset({P.DELETE, P.CP}))

SCHEMA: dict[tuple[int, bool], tuple[Rule, ...]] = {
    # HDR, [N(COOKIE)], SAi1, KEi, Ni, [N+], [V+]  -->
    (ExchangeType.IKE_SA_INIT, False): (Rule(Story.INIT, frozenset({P.SA, P.KE, P.NONCE})),),
    #                                <--  HDR, SAr1, KEr, Nr, [CERTREQ+], [N+], [V+]   or   HDR, N
    (ExchangeType.IKE_SA_INIT, True): (
        Rule(Story.INIT, frozenset({P.SA, P.KE, P.NONCE}), frozenset({P.CERTREQ})),
        Rule(Story.INIT_ERROR, frozenset(), needs_error=True),
    ),
    # HDR, SK {IDi, [CERT+], [CERTREQ+], [IDr], AUTH, [CP], [SAi2, TSi, TSr], [N+], [V+]}  -->
    (ExchangeType.IKE_AUTH, False): (
        Rule(Story.AUTH_WITH_CHILD, frozenset({P.IDI, P.AUTH}) | _CHILD, _CERTS | {P.IDR, P.CP}),
        Rule(Story.AUTH_CHILDLESS, frozenset({P.IDI, P.AUTH}), _CERTS | {P.IDR, P.CP}),
    ),
    #                                <--  HDR, SK {IDr, [CERT+], AUTH, [CP], [SAr2, TSi, TSr], [N+], [V+]}
    (ExchangeType.IKE_AUTH, True): (
        Rule(Story.AUTH_WITH_CHILD, frozenset({P.IDR, P.AUTH}) | _CHILD, frozenset({P.CERT, P.CP})),
        Rule(Story.AUTH_CHILDLESS, frozenset({P.IDR, P.AUTH}), frozenset({P.CERT, P.CP})),
        Rule(Story.AUTH_ERROR, frozenset(), needs_error=True),
    ),
    # HDR, SK {[N(REKEY_SA)], SA, Ni, [KEi], TSi, TSr}  -->   or   HDR, SK {SA, Ni, KEi}  -->
    (ExchangeType.CREATE_CHILD_SA, False): (_NEW_CHILD, _REKEY_IKE_SA),
    #                                <--  HDR, SK {SA, Nr, [KEr], TSi, TSr}   or   HDR, SK {SA, Nr, KEr}
    (ExchangeType.CREATE_CHILD_SA, True): (
        _NEW_CHILD,
        _REKEY_IKE_SA,
        Rule(Story.CREATE_ERROR, frozenset(), needs_error=True),
    ),
    # HDR, SK {[N+], [D+], [CP]}  -->                <--  HDR, SK {[N+], [D+], [CP]}
    (ExchangeType.INFORMATIONAL, False): (_INFORMATIONAL,),
    (ExchangeType.INFORMATIONAL, True): (_INFORMATIONAL,),
}


def story_of(message: Message) -> Story:
    """The first rule that `message` keeps. UnsupportedCriticalPayload or SchemaError if it keeps none."""
    for payload in message.payloads:
        if isinstance(payload, UnknownPayload) and payload.critical:
            raise UnsupportedCriticalPayload(payload.type)
    rules = SCHEMA.get((message.exchange, message.is_response))
    if rules is None:
        raise SchemaError(f"{name_of(ExchangeType, message.exchange)} is not known")
    kinds = [p.payload_type for p in message.payloads if not isinstance(p, UnknownPayload)]
    present = dict.fromkeys(kinds)
    for kind in present:
        if kind not in REPEATABLE and kinds.count(kind) > 1:
            raise SchemaError(f"more than one {name_of(PayloadType, kind)} payload")
    has_error = _has_error(message.payloads)
    for rule in rules:
        allowed = rule.required | rule.optional | ANYWHERE
        if rule.required <= present.keys() <= allowed and (has_error or not rule.needs_error):
            return rule.story
    names = " ".join(name_of(PayloadType, kind) for kind in present) or "nothing"
    raise SchemaError(f"{name_of(ExchangeType, message.exchange)} with {names}")


def _has_error(payloads: Sequence[Payload]) -> bool:
    return any(isinstance(p, NotifyPayload) and _ends_exchange(p.notify_type) for p in payloads)


def _ends_exchange(notify_type: int) -> bool:
    return is_error_notify(notify_type) or notify_type == NotifyType.COOKIE
