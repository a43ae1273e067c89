"""Asking for an address inside the peer's network, and giving one (RFC 7296 2.19, 3.15.4).

    HDR, SK {IDi, …, AUTH, CP(CFG_REQUEST), SAi2, TSi, TSr}  -->
                                        <--  HDR, SK {IDr, …, AUTH, CP(CFG_REPLY), SAr2, TSi, TSr}

CFG_REQUEST is also answered beside a new child and in INFORMATIONAL. CFG_SET is ignored, which 3.15.1 allows, and
APPLICATION_VERSION never told. Must not know where addresses come from: the owner of the engine has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ike.config import Connection
from ike.configuration import (
    AddressRequest,
    Configuration,
    Ends,
    encode_reply,
    encode_request,
    read_reply,
    read_request,
)
from ike.events import FailureReason
from ike.exchanges.exchange import Fail
from ike.exchanges.refusal import Refused
from ike.numbers import CfgType, NotifyType, ProtocolId
from ike.wire.identity import Identity
from ike.wire.message import Message
from ike.wire.payloads import ConfigPayload, DeletePayload

if TYPE_CHECKING:
    from ike.sa import IkeSa


_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


def request_configuration(sa: IkeSa, connection: Connection) -> tuple[ConfigPayload, ...]:
    """CP for IKE_AUTH if the connection needs an address. What another session with the peer has is asked for again."""
    if not connection.request_addresses:
        return ()
    held = {
        one.version: one.ip
        for other in sa.host.sessions.values()
        if other.connection is connection and other.assigned is not None
        for one in other.assigned.addresses
    }
    return (encode_request(held.get(any_of.version, any_of) for any_of in connection.request_addresses),)


def ends_of_request(sa: IkeSa, connection: Connection) -> Ends:
    """While our address is not known yet, a DynamicSelector of ours stands for every one (RFC 7296 2.19)."""
    ends = Ends.of(sa.path)
    everywhere = tuple(_EVERYWHERE[any_of.version] for any_of in connection.request_addresses)
    return Ends(everywhere or ends.local, ends.peer)


def read_configuration(connection: Connection, message: Message) -> Configuration | Fail | None:
    """What the response gives us; None if we did not ask. Without an address the IKE SA is of no use."""
    if not connection.request_addresses:
        return None
    payload = _payload(message, CfgType.CFG_REPLY)
    given = read_reply(payload, connection.request_addresses) if payload else None
    if given is not None:
        return given
    refused = message.notify(NotifyType.INTERNAL_ADDRESS_FAILURE) is not None
    detail = "the peer has no address for us" if refused else "the peer's answer holds no address for us"
    return Fail(FailureReason.NO_ADDRESS, detail, (DeletePayload(ProtocolId.IKE),), connection)


@dataclass(frozen=True, slots=True)
class Given:
    """What a responder does about addresses: the reply, or why there can be no child."""

    reply: tuple[ConfigPayload, ...] = ()
    leased: Configuration | None = None
    refused: Refused | None = None


def respond_configuration(
    sa: IkeSa,
    connection: Connection | None,
    peer_id: Identity | None,
    message: Message,
    *,
    with_child: bool,
) -> Given:
    """Answer a CFG_REQUEST where the connection gives addresses; elsewhere it is ignored.

    `with_child`: the message asks for a child, which cannot be had without an address. Once the session is over
    nobody would take an address back.
    """
    if connection is None or peer_id is None or sa.session.is_over:
        return Given()
    if with_child and connection.request_addresses and sa.session.assigned is None:
        return Given(
            refused=Refused(NotifyType.TS_UNACCEPTABLE, "our end has no address: it has to call itself")
        )
    if not connection.assigns_addresses:
        return Given()
    session, request = sa.session, _payload(message, CfgType.CFG_REQUEST)
    leased = session.leased
    wanted = read_request(request) if request else ()
    if request is None or (leased is None and not wanted):
        if leased is not None or not with_child:
            return Given(leased=leased)
        return Given(refused=Refused(NotifyType.FAILED_CP_REQUIRED, "the peer asks for no address"))
    if leased is None and sa.host.configure is not None:
        is_only_one = message.notify(NotifyType.INITIAL_CONTACT) is not None
        leased = sa.host.configure(
            AddressRequest(session.number, connection.name, peer_id, wanted, is_only_one)
        )
    if leased is None or not leased.addresses:
        return Given(refused=Refused(NotifyType.INTERNAL_ADDRESS_FAILURE, "no address for the peer"))
    return Given((encode_reply(leased, request),), leased)


def _payload(message: Message, cfg_type: CfgType) -> ConfigPayload | None:
    payloads: Sequence[ConfigPayload] = message.all(ConfigPayload)
    return next((payload for payload in payloads if payload.cfg_type == cfg_type), None)
