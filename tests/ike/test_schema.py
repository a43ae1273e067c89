"""The table of payloads, row by row (RFC 7296 1.2-1.4, 2.5)."""

import pytest

from ike.errors import SchemaError
from ike.exchanges.schema import SCHEMA, Story, UnsupportedCriticalPayload, story_of
from ike.numbers import ExchangeType, NotifyType
from ike.proposals import parse_ike_proposal
from ike.wire.identity import Identity
from ike.wire.message import Message
from ike.wire.payloads import (
    AuthPayload,
    CertPayload,
    CertreqPayload,
    DeletePayload,
    EapPayload,
    IdiPayload,
    IdrPayload,
    KePayload,
    NoncePayload,
    NotifyPayload,
    Payload,
    SaPayload,
    TsiPayload,
    TsrPayload,
    UnknownPayload,
    VendorIdPayload,
)

SA = SaPayload((parse_ike_proposal("aes256gcm16-prfsha256-x25519"),))
KE, NI = KePayload(31, bytes(32)), NoncePayload(bytes(32))
TSI, TSR = TsiPayload(()), TsrPayload(())
IDI, IDR = IdiPayload(Identity.fqdn("a.example")), IdrPayload(Identity.fqdn("b.example"))
AUTH, D, V = AuthPayload(2, bytes(32)), DeletePayload(1), VendorIdPayload(b"v")
ERROR, STATUS = NotifyPayload(NotifyType.TS_UNACCEPTABLE), NotifyPayload(NotifyType.INITIAL_CONTACT)
COOKIE = NotifyPayload(NotifyType.COOKIE, b"c")
CERT, CERTREQ = CertPayload(4, b"c"), CertreqPayload(4, b"")
EAP = EapPayload(b"\x01\x01\x00\x04")

INIT, AUTHX = ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH
CREATE, INFO = ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL


def make(exchange: int, is_response: bool, *payloads: Payload) -> Message:
    return Message(bytes(8), bytes(8), exchange, True, is_response, 0, payloads)


ACCEPTED = [
    (INIT, False, (SA, KE, NI), Story.INIT),
    (INIT, False, (COOKIE, SA, KE, NI, STATUS, V, V), Story.INIT),
    (INIT, True, (SA, KE, NI, CERTREQ, STATUS, V), Story.INIT),
    (INIT, True, (COOKIE,), Story.INIT_ERROR),
    (INIT, True, (ERROR,), Story.INIT_ERROR),
    (AUTHX, False, (IDI, IDR, AUTH, SA, TSI, TSR), Story.AUTH_WITH_CHILD),
    (AUTHX, False, (IDI, CERT, CERT, CERTREQ, AUTH), Story.AUTH_CHILDLESS),
    (AUTHX, True, (IDR, CERT, AUTH, SA, TSI, TSR), Story.AUTH_WITH_CHILD),
    (AUTHX, True, (IDR, AUTH, ERROR), Story.AUTH_CHILDLESS),
    (AUTHX, True, (ERROR,), Story.AUTH_ERROR),
    (CREATE, False, (STATUS, SA, NI, TSI, TSR), Story.NEW_CHILD),
    (CREATE, False, (SA, NI, KE, TSI, TSR), Story.NEW_CHILD),
    (CREATE, False, (SA, NI, KE), Story.REKEY_IKE_SA),
    (CREATE, True, (SA, NI, KE), Story.REKEY_IKE_SA),
    (CREATE, True, (SA, NI, TSI, TSR), Story.NEW_CHILD),
    (CREATE, True, (ERROR,), Story.CREATE_ERROR),
    (CREATE, True, (NotifyPayload(8191),), Story.CREATE_ERROR),
    (INFO, False, (), Story.INFORMATIONAL),
    (INFO, False, (D, D, STATUS), Story.INFORMATIONAL),
    (INFO, True, (), Story.INFORMATIONAL),
    (INFO, False, (UnknownPayload(200, b""),), Story.INFORMATIONAL),
]
REFUSED = [
    (INIT, False, (SA, KE)),
    (INIT, False, (SA, NI)),
    (INIT, False, (SA, SA, KE, NI)),
    (INIT, False, (SA, KE, NI, AUTH)),
    (INIT, False, (COOKIE,)),
    (INIT, True, ()),
    (INIT, True, (STATUS,)),
    (INIT, True, (SA, NI)),
    (AUTHX, False, (IDI,)),
    (AUTHX, False, (AUTH,)),
    (AUTHX, False, (IDI, AUTH, SA)),
    (AUTHX, False, (IDI, AUTH, NI)),
    (AUTHX, False, (IDI, EAP)),
    (AUTHX, True, (IDR,)),
    (AUTHX, True, (IDR, IDR, AUTH)),
    (AUTHX, True, ()),
    (CREATE, False, (SA, NI)),
    (CREATE, False, (SA, NI, TSI)),
    (CREATE, False, (SA, TSI, TSR)),
    (CREATE, False, (ERROR,)),
    (CREATE, True, ()),
    (CREATE, True, (STATUS,)),
    (INFO, False, (SA,)),
    (INFO, True, (NI,)),
    (ExchangeType.IKE_INTERMEDIATE, False, (KE,)),
    (240, False, ()),
]


@pytest.mark.parametrize(("exchange", "is_response", "payloads", "story"), ACCEPTED)
def test_story_is_told(exchange: int, is_response: bool, payloads: tuple[Payload, ...], story: Story) -> None:
    assert story_of(make(exchange, is_response, *payloads)) is story


@pytest.mark.parametrize(("exchange", "is_response", "payloads"), REFUSED)
def test_anything_else_is_refused(exchange: int, is_response: bool, payloads: tuple[Payload, ...]) -> None:
    with pytest.raises(SchemaError):
        story_of(make(exchange, is_response, *payloads))


def test_critical_payload_is_refused_before_anything_else() -> None:
    with pytest.raises(UnsupportedCriticalPayload) as caught:
        story_of(make(INFO, False, UnknownPayload(199, b""), UnknownPayload(200, b"", critical=True), NI))
    assert caught.value.payload_type == 200


def test_critical_bit_on_a_known_payload_is_ignored() -> None:
    """RFC 7296 2.5: it must be zero there, and receivers must ignore it."""
    assert story_of(make(INFO, False, NotifyPayload(16384, critical=True))) is Story.INFORMATIONAL


def test_every_rule_is_told_by_some_row() -> None:
    told = {(exchange, is_response, story) for exchange, is_response, _, story in ACCEPTED}
    rules = {(exchange, flag, rule.story) for (exchange, flag), rows in SCHEMA.items() for rule in rows}
    assert told == rules
