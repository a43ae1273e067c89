"""CREATE_CHILD_SA for the IKE SA itself (RFC 7296 1.3.2, 2.8.2, 2.18, 2.25.2).

    HDR, SK {SA, Ni, KEi}  -->
                              <--  HDR, SK {SA, Nr, KEr}

Must not know children: they belong to the session and follow by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ike.child import ke_groups
from ike.crypto.kex import KeyExchange, KeyExchangeError
from ike.crypto.keymat import derive_rekeyed_ike_keys
from ike.exchanges.exchange import NOTHING, Exchange, Outcome, Priority, Retry, Successor, error_in
from ike.exchanges.key_exchange import answer_key_exchange, group_asked_for
from ike.exchanges.refusal import Refused
from ike.exchanges.schema import Story
from ike.numbers import ExchangeType, NotifyType
from ike.proposals import is_valid_selection, number_proposals, select_proposal
from ike.states import Ask, Doing, Verdict
from ike.wire.message import NO_SPI, SPI_OCTETS, Message
from ike.wire.payloads import KePayload, NoncePayload, Payload, SaPayload
from ike.wire.sa import Proposal

if TYPE_CHECKING:
    from ike.sa import IkeSa

MAX_REPLACED = 4
"""IKE SAs of one session that may wait for the peer's Delete at a time."""


class RekeyIkeSa(Exchange):
    """Another IKE SA in the place of this one."""

    exchange_type = ExchangeType.CREATE_CHILD_SA
    priority = Priority.REKEY

    def __init__(self, tried: tuple[int, ...] = ()) -> None:
        self._tried = tried
        self._spi = b""
        self._nonce = b""
        self._offered: tuple[Proposal, ...] = ()
        self._key_exchange: KeyExchange | None = None

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        connection = sa.session.connection
        if connection is None:
            return None
        self._spi, self._nonce = sa.host.new_ike_spi(), sa.host.nonce()
        self._offered = number_proposals(connection.ike_proposals, self._spi)
        groups, in_use = ke_groups(self._offered), _group_in_use(sa)
        group = self._tried[-1] if self._tried else in_use if in_use in groups else groups[0]
        self._key_exchange = KeyExchange(group)
        ke = KePayload(group, self._key_exchange.generate(sa.host.entropy))
        return (SaPayload(self._offered), NoncePayload(self._nonce), ke)

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        error = error_in(message)
        ours = self._key_exchange
        if error is None:
            try:
                return Outcome(successor=self._made(sa, message))
            except Refused:
                # Nothing of it is installed here; the peer drops its half when it times out.
                return Outcome(rekey_failed=True)
        if error.notify_type == NotifyType.INVALID_KE_PAYLOAD and ours:
            tried = self._tried or (ours.group,)
            group = group_asked_for(error, ke_groups(self._offered), tried)
            if group is not None and sa.peer_successor is None:  # else the peer's rekey serves
                return Outcome(start=(RekeyIkeSa((*tried, group)),), rekey_failed=True)
        if error.notify_type == NotifyType.TEMPORARY_FAILURE and sa.peer_successor is None:
            return Outcome(retry=Retry(RekeyIkeSa(self._tried)))
        return Outcome(rekey_failed=True)

    def _made(self, sa: IkeSa, message: Message) -> Successor:
        answer, nonce_r, ke = message.get(SaPayload), message.get(NoncePayload), message.get(KePayload)
        ours = self._key_exchange
        if answer is None or nonce_r is None or ke is None or ours is None:
            raise Refused(NotifyType.INVALID_SYNTAX, "the answer makes no IKE SA")
        if not is_valid_selection(answer.proposals, self._offered):
            raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer selects what was not proposed")
        chosen = answer.proposals[0]
        if len(chosen.spi) != SPI_OCTETS or chosen.spi == NO_SPI:
            raise Refused(NotifyType.INVALID_SYNTAX, "the answer has no SPI")
        if not ke.group == ours.group == ke_groups((chosen,))[0]:
            raise Refused(NotifyType.INVALID_KE_PAYLOAD, "the answer's KE is not of the selected group")
        try:
            shared = ours.derive(ke.data)
        except KeyExchangeError as error:
            raise Refused(NotifyType.INVALID_SYNTAX, str(error)) from error
        nonces = (self._nonce, nonce_r.data)
        return _successor(sa, chosen, (self._spi, chosen.spi), nonces, shared, is_ours=True)

    def on_lost(self, sa: IkeSa, *, session_is_over: bool) -> Outcome:
        return NOTHING

    def doing(self, subject: bytes | None) -> Doing | None:
        return Doing.REKEYING_IKE_SA


def respond_rekey_ike(sa: IkeSa, message: Message) -> Outcome:
    """The peer rekeys this IKE SA. Raises Refused."""
    offer, nonce_i, ke = message.get(SaPayload), message.get(NoncePayload), message.get(KePayload)
    connection = sa.session.connection
    if offer is None or nonce_i is None or connection is None:
        raise Refused(NotifyType.INVALID_SYNTAX, "no SA and Ni")
    if sa.judge(Ask.REKEY_IKE_SA, None) is Verdict.TEMPORARY_FAILURE:
        raise Refused(NotifyType.TEMPORARY_FAILURE, "busy with this IKE SA or a child of it")
    if len(sa.session.others) >= MAX_REPLACED:
        raise Refused(NotifyType.TEMPORARY_FAILURE, f"{MAX_REPLACED} replaced IKE SAs are not deleted")
    chosen = select_proposal(offer.proposals, connection.ike_proposals)
    if chosen is None or len(chosen.spi) != SPI_OCTETS or chosen.spi == NO_SPI:
        raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "no proposal for the IKE SA fits")
    ke_r, shared = answer_key_exchange(sa.host, ke_groups((chosen,))[0], ke)
    spi, nonce_r = sa.host.new_ike_spi(), NoncePayload(sa.host.nonce())
    nonces = (nonce_i.data, nonce_r.data)
    made = _successor(sa, chosen, (chosen.spi, spi), nonces, shared, is_ours=False)
    answer = SaPayload((replace(chosen, spi=spi),))
    return Outcome(response=(answer, nonce_r, ke_r), successor=made)


def _successor(
    sa: IkeSa,
    proposal: Proposal,
    spis: tuple[bytes, bytes],
    nonces: tuple[bytes, bytes],
    shared: bytes,
    *,
    is_ours: bool,
) -> Successor:
    old = sa.keyed
    keys = derive_rekeyed_ike_keys(old.prf, old.keys.sk_d, proposal, *nonces, shared, *spis)
    made = sa.successor(*spis, replace(proposal, spi=b""), keys, is_initiator=is_ours)
    return Successor(made, nonces, is_ours)


def _group_in_use(sa: IkeSa) -> int | None:
    """What worked before; the connection that the peer's identity has chosen may not have it."""
    groups = ke_groups((sa.keyed.proposal,))
    return groups[0] if groups else None
