"""CREATE_CHILD_SA for children, new ones and rekeyed ones (RFC 7296 1.3.1, 1.3.3, 2.8, 2.25.1).

    HDR, SK {[N(REKEY_SA)], [N+], SA, Ni, [KEi], TSi, TSr}  -->
                                                   <--  HDR, SK {[N+], SA, Nr, [KEr], TSi, TSr}

Must not know windows or timers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ike.child import (
    SPI_OCTETS,
    Agreement,
    Child,
    ChildTerms,
    agree,
    agree_to_rekey,
    ke_groups,
    keeps_selectors,
    make_child_sa,
    propose,
    propose_rekey,
)
from ike.config import ChildConfig, Mode
from ike.configuration import Ends
from ike.crypto.kex import KeyExchange, KeyExchangeError
from ike.events import AddressesUnused, ChildSa, ChildSaFailed, CloseReason
from ike.exchanges.configuration import Given, respond_configuration
from ike.exchanges.exchange import (
    NOTHING,
    AddChild,
    CloseChild,
    DeleteChild,
    Exchange,
    Outcome,
    Priority,
    Retry,
    error_in,
)
from ike.exchanges.informational import DeleteChildSa
from ike.exchanges.key_exchange import answer_key_exchange, group_asked_for
from ike.exchanges.refusal import Refused
from ike.exchanges.schema import Story
from ike.life import LifeKind
from ike.narrowing import is_acceptable_answer
from ike.numbers import ExchangeType, NotifyType, ProtocolId, name_of
from ike.proposals import is_valid_selection
from ike.selectors import TrafficSelectors
from ike.states import Ask, Doing, Verdict, is_redundant
from ike.wire.message import Message
from ike.wire.payloads import KePayload, NoncePayload, NotifyPayload, Payload

if TYPE_CHECKING:
    from ike.sa import IkeSa


MAX_EARLY_DELETES = 64


def check_grant(sa: IkeSa, asked: ChildTerms, granted: ChildTerms | None) -> ChildTerms:
    """The initiator's check that the answer is no more and nothing else than what was asked for.

    Returns it in this end's view (RFC 7296 2.23.1). Raises Refused.
    """
    if granted is None:
        raise Refused(NotifyType.INVALID_SYNTAX, "the answer has no SA, TSi and TSr")
    if not is_valid_selection(granted.proposals, asked.proposals):
        raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer selects what was not proposed")
    if len(granted.proposals[0].spi) != SPI_OCTETS:
        raise Refused(NotifyType.INVALID_SYNTAX, "the answer has no SPI")
    granted = granted.seen_from_here(sa.path, sa.nat, tsi_is_local=True)
    if granted.mode is not asked.mode:
        what = "the answer lacks" if asked.mode is Mode.TRANSPORT else "the answer has an unasked"
        raise Refused(NotifyType.TS_UNACCEPTABLE, f"{what} USE_TRANSPORT_MODE")
    if not is_acceptable_answer(asked.ts, granted.ts, sa.host.registry):
        raise Refused(NotifyType.TS_UNACCEPTABLE, f"asked for {asked.ts}, the answer is {granted.ts}")
    return granted


def install(
    sa: IkeSa,
    config: ChildConfig,
    spi_in: bytes,
    agreed: ChildTerms | Agreement,
    peer_accepts_tfc: bool,
    nonces: tuple[bytes, bytes],
    shared: bytes | None,
    *,
    is_creator: bool,
) -> Child:
    """The child that both ends have agreed on; `nonces` are (Ni, Nr) of the exchange."""
    proposal = agreed.proposal if isinstance(agreed, Agreement) else agreed.proposals[0]
    registry = sa.host.registry
    ts = TrafficSelectors(registry.interpret(agreed.ts.tsi), registry.interpret(agreed.ts.tsr))
    child_sa: ChildSa = make_child_sa(
        config,
        spi_in=spi_in,
        proposal=proposal,
        ts=ts,
        mode=agreed.mode,
        is_creator=is_creator,
        prf=sa.keyed.prf,
        sk_d=sa.keyed.keys.sk_d,
        nonces=nonces,
        shared=shared,
        path=sa.path,
        udp_encapsulation=sa.nat.udp_encapsulation,
        tfc_out_allowed=peer_accepts_tfc,
        originals=agreed.originals,
    )
    return Child(child_sa, config)


class MakeChildSa(Exchange):
    """What creating and rekeying share: the offer, the key exchange, the check of the answer."""

    exchange_type = ExchangeType.CREATE_CHILD_SA

    def __init__(self, tried: tuple[int, ...] = ()) -> None:
        self._tried = tried
        """Groups that were sent before this try, the one asked for by INVALID_KE_PAYLOAD last."""
        self._nonce = b""
        self._spi_in = b""
        self._asked: ChildTerms | None = None
        self._key_exchange: KeyExchange | None = None
        self._early_deletes: set[bytes] = set()

    def is_for(self, spi_in: bytes) -> bool:
        """Whether the child would receive on this SPI."""
        return spi_in == self._spi_in

    def note_early_delete(self, spi_out: bytes) -> None:
        """The peer may have granted this and deleted it again before its grant arrives."""
        if len(self._early_deletes) < MAX_EARLY_DELETES:
            self._early_deletes.add(spi_out)

    @abstractmethod
    def again(self, tried: tuple[int, ...]) -> Exchange:
        """The same request afresh."""

    @abstractmethod
    def child_config(self, sa: IkeSa) -> ChildConfig | None: ...

    def offer(self, sa: IkeSa, spi_in: bytes, asked: ChildTerms) -> tuple[Payload, ...]:
        """SA, Ni, [KEi], TSi, TSr with the notifies of a child before them."""
        self._spi_in, self._asked, self._nonce = spi_in, asked, sa.host.nonce()
        between: list[Payload] = [NoncePayload(self._nonce)]
        groups = ke_groups(asked.proposals)
        if groups:
            group = self._tried[-1] if self._tried else groups[0]
            self._key_exchange = KeyExchange(group)
            between.append(KePayload(group, self._key_exchange.generate(sa.host.entropy)))
        return asked.payloads(*between)

    def on_response(self, sa: IkeSa, message: Message, story: Story, now: float) -> Outcome:
        config = self.child_config(sa)
        error = error_in(message)
        if config is None or self._asked is None:
            return NOTHING
        if error:
            return self._on_error(sa, config, error)
        try:
            if story is not Story.NEW_CHILD:
                raise Refused(NotifyType.INVALID_SYNTAX, "the answer makes no child")
            child = self._granted(sa, config, self._asked, message)
        except Refused as refused:
            # Install nothing; the peer did, so it is told (RFC 7296 1.3.1, 2.21).
            delete = DeleteChildSa(self._spi_in, CloseReason.UNACCEPTABLE_ANSWER, is_installed=False)
            return Outcome(start=(delete,), events=(self._failure(sa, config, None, refused.detail),))
        outcome = self.on_granted(sa, child)
        if child.sa.spi_out in self._early_deletes:
            gone = CloseChild(child.sa.spi_in, CloseReason.DELETED_BY_PEER)
            outcome = replace(outcome, close=(gone,))
        return outcome

    def _granted(self, sa: IkeSa, config: ChildConfig, asked: ChildTerms, message: Message) -> Child:
        granted = check_grant(sa, asked, ChildTerms.read(message))
        self.check(asked, granted)
        nonce_r = message.get(NoncePayload)
        shared = self._shared(granted, message.get(KePayload))
        if nonce_r is None or self._spi_in in sa.session.children:
            raise Refused(NotifyType.INVALID_SYNTAX, "the answer has no nonce")
        nonces = (self._nonce, nonce_r.data)
        return install(
            sa, config, self._spi_in, granted, granted.accepts_tfc, nonces, shared, is_creator=True
        )

    def check(self, asked: ChildTerms, granted: ChildTerms) -> None:
        """What this kind of request demands beyond `check_grant`. Raises Refused."""

    def _shared(self, granted: ChildTerms, ke: KePayload | None) -> bytes | None:
        groups = ke_groups(granted.proposals)
        if not groups:
            return None
        ours = self._key_exchange
        if ke is None or ours is None or not ke.group == ours.group == groups[0]:
            raise Refused(NotifyType.INVALID_KE_PAYLOAD, "the answer's KE is not of the selected group")
        try:
            return ours.derive(ke.data)
        except KeyExchangeError as error:
            raise Refused(NotifyType.INVALID_SYNTAX, str(error)) from error

    @abstractmethod
    def on_granted(self, sa: IkeSa, child: Child) -> Outcome: ...

    def _on_error(self, sa: IkeSa, config: ChildConfig, error: NotifyPayload) -> Outcome:
        sent = self._key_exchange.group if self._key_exchange else None
        asked = self._asked
        if error.notify_type == NotifyType.INVALID_KE_PAYLOAD and sent is not None and asked is not None:
            tried = self._tried or (sent,)
            group = group_asked_for(error, ke_groups(asked.proposals), tried)
            if group is not None:
                return Outcome(start=(self.again((*tried, group)),))
        return self.on_error(sa, config, error)

    def on_error(self, sa: IkeSa, config: ChildConfig, error: NotifyPayload) -> Outcome:
        if error.notify_type == NotifyType.TEMPORARY_FAILURE:
            return Outcome(retry=Retry(self.again(self._tried)))
        name = name_of(NotifyType, error.notify_type)
        return Outcome(events=(self._failure(sa, config, error.notify_type, f"the peer answered {name}"),))

    def _failure(self, sa: IkeSa, config: ChildConfig, notify_type: int | None, detail: str) -> ChildSaFailed:
        return ChildSaFailed(sa.session.number, sa.session.name, config.name, notify_type, detail)


class CreateChildSa(MakeChildSa):
    """A child beside those that are there."""

    priority = Priority.CREATE

    def __init__(
        self,
        name: str,
        trigger: TrafficSelectors | None = None,
        tried: tuple[int, ...] = (),
        *,
        only_pair: bool = False,
    ) -> None:
        super().__init__(tried)
        self.name = name
        self._trigger = trigger
        self._only_pair = only_pair

    def again(self, tried: tuple[int, ...]) -> Exchange:
        return CreateChildSa(self.name, self._trigger, tried, only_pair=self._only_pair)

    def on_error(self, sa: IkeSa, config: ChildConfig, error: NotifyPayload) -> Outcome:
        if error.notify_type == NotifyType.SINGLE_PAIR_REQUIRED and self._trigger and not self._only_pair:
            # For the traffic that wants it, and once (RFC 7296 2.9).
            return Outcome(start=(CreateChildSa(self.name, self._trigger, only_pair=True),))
        return super().on_error(sa, config, error)

    def child_config(self, sa: IkeSa) -> ChildConfig | None:
        return next((child for child in sa.session.usable_children if child.name == self.name), None)

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        config = self.child_config(sa)
        if config is None:
            return None
        spi_in = sa.host.new_child_spi()
        asked = propose(
            config, spi_in, sa.session.ends, self._trigger, with_ke=True, only_pair=self._only_pair
        )
        return self.offer(sa, spi_in, asked)

    def on_granted(self, sa: IkeSa, child: Child) -> Outcome:
        return Outcome(add=AddChild(child))

    def on_lost(self, sa: IkeSa, *, session_is_over: bool) -> Outcome:
        if not session_is_over:
            return Outcome(start=(self.again(()),))
        session = sa.session
        detail = "the IKE SA went first"
        return Outcome(events=(ChildSaFailed(session.number, session.name, self.name, None, detail),))

    def doing(self, subject: bytes | None) -> Doing | None:
        return Doing.CREATING_CHILD


class RekeyChildSa(MakeChildSa):
    """A child in the place of the one that we receive on with `spi_in`."""

    priority = Priority.REKEY

    def __init__(self, spi_in: bytes, tried: tuple[int, ...] = ()) -> None:
        super().__init__(tried)
        self.spi_in = spi_in
        self.rival: ChildSa | None = None
        """What the peer's rekey of the same child made meanwhile."""
        self._old: Child | None = None

    def again(self, tried: tuple[int, ...]) -> Exchange:
        return RekeyChildSa(self.spi_in, tried)

    def child_config(self, sa: IkeSa) -> ChildConfig | None:
        return self._old.config if self._old else None

    def request(self, sa: IkeSa, now: float) -> Sequence[Payload] | None:
        self._old = sa.session.children.get(self.spi_in)
        if self._old is None or self._old.is_deleting or self._old.fate:
            return None
        spi_in = sa.host.new_child_spi()
        rekey = NotifyPayload(NotifyType.REKEY_SA, protocol=ProtocolId.ESP, spi=self.spi_in)
        return (rekey, *self.offer(sa, spi_in, propose_rekey(self._old, spi_in)))

    def check(self, asked: ChildTerms, granted: ChildTerms) -> None:
        if not keeps_selectors(asked.ts, granted.ts):
            raise Refused(NotifyType.TS_UNACCEPTABLE, f"the rekey of {asked.ts} was narrowed to {granted.ts}")

    def on_granted(self, sa: IkeSa, child: Child) -> Outcome:
        rival = self.rival
        if self._old and self._old.is_unwanted:
            return Outcome(
                add=AddChild(child, self.spi_in, use_outbound=False),
                delete=(DeleteChild(child.sa.spi_in, CloseReason.DELETED_LOCALLY),),
            )
        is_ours = rival is not None and is_redundant((child.sa.lowest_nonce,), (rival.lowest_nonce,))
        if rival:
            whose = "our" if is_ours else "the peer's"
            sa.host.note(LifeKind.NONCES, f"{whose} new child is redundant", sa=sa)
        if is_ours:
            return Outcome(
                add=AddChild(child, self.spi_in, use_outbound=False),
                delete=(DeleteChild(child.sa.spi_in, CloseReason.REDUNDANT),),
            )
        return Outcome(
            add=AddChild(child, self.spi_in, outlives=rival.spi_in if rival else None),
            delete=(DeleteChild(self.spi_in, CloseReason.REKEYED),),
        )

    def on_error(self, sa: IkeSa, config: ChildConfig, error: NotifyPayload) -> Outcome:
        old = sa.session.children.get(self.spi_in)
        is_settled = old is None or self.rival is not None
        if error.notify_type in (NotifyType.TEMPORARY_FAILURE, NotifyType.CHILD_SA_NOT_FOUND) and is_settled:
            return NOTHING
        if error.notify_type == NotifyType.CHILD_SA_NOT_FOUND:
            # The peer does not have it: no Delete, and another one in its place (RFC 7296 2.25).
            lost = CloseChild(self.spi_in, CloseReason.NOT_FOUND_BY_PEER)
            return Outcome(close=(lost,), start=(CreateChildSa(config.name),))
        return super().on_error(sa, config, error)

    def on_lost(self, sa: IkeSa, *, session_is_over: bool) -> Outcome:
        return NOTHING if session_is_over else Outcome(start=(self.again(()),))

    def doing(self, subject: bytes | None) -> Doing | None:
        return Doing.REKEYING_THAT_CHILD if subject == self.spi_in else Doing.REKEYING_OTHER_CHILD


def respond_create_child(sa: IkeSa, message: Message) -> Outcome:
    """The peer wants a child, or one in the place of another. Raises Refused."""
    terms, nonce_i = ChildTerms.read(message), message.get(NoncePayload)
    if terms is None or nonce_i is None:
        raise Refused(NotifyType.INVALID_SYNTAX, "no SA, Ni, TSi and TSr")
    terms = terms.seen_from_here(sa.path, sa.nat, tsi_is_local=False)
    rekey = message.notify(NotifyType.REKEY_SA)
    session = sa.session
    old = session.children.by_spi_out(rekey.spi) if rekey else None
    ask = Ask.REKEY_CHILD if rekey else Ask.CREATE_CHILD
    if sa.judge(ask, old.sa.spi_in if old else None) is Verdict.TEMPORARY_FAILURE or (old and old.fate):
        raise Refused(NotifyType.TEMPORARY_FAILURE, "busy with the same SA")
    if rekey and old is None:
        if any(isinstance(exchange, MakeChildSa) for exchange in sa.requests.exchanges):
            raise Refused(NotifyType.TEMPORARY_FAILURE, "perhaps the child that we are making")
        raise Refused(NotifyType.CHILD_SA_NOT_FOUND, "no such child", protocol=rekey.protocol, spi=rekey.spi)
    given = Given()
    try:
        if old is None:
            _check_room(sa)
            given = respond_configuration(sa, session.connection, session.peer_id, message, with_child=True)
            if given.refused:
                raise given.refused
            ends = Ends.of(sa.path, session.assigned, given.leased)
            agreed = agree(terms, session.usable_children, ends, sa.host.registry, in_auth=False)
        else:
            _check_room(sa, replaced=True)
            agreed = agree_to_rekey(terms, old, sa.host.registry)
        ke_r, shared = _answer_key_exchange(sa, agreed, message)
    except Refused:
        if session.leased is None and given.leased is not None:
            sa.host.emit(AddressesUnused(session.number))
        raise
    nonce_r, spi_in = NoncePayload(sa.host.nonce()), sa.host.new_child_spi()
    nonces = (nonce_i.data, nonce_r.data)
    child = install(sa, agreed.config, spi_in, agreed, terms.accepts_tfc, nonces, shared, is_creator=False)
    # Whoever answers a rekey sends on the old child until the new one is known to work (RFC 7296 2.8).
    add = AddChild(child, old.sa.spi_in if old else None, use_outbound=old is None)
    response = (*given.reply, *grant_terms(agreed, spi_in).payloads(nonce_r, *ke_r))
    return Outcome(response=response, leased=given.leased, add=add)


def _check_room(sa: IkeSa, *, replaced: bool = False) -> None:
    """Whether there may be one more child, or one in the place of another. Raises Refused."""
    children, connection = sa.session.children, sa.session.connection
    count, enough = len(children), connection.max_children if connection else 0
    # Those that were rekeyed live until the peer deletes them, or for a while: a temporary condition (2.25).
    if replaced and count >= 2 * enough:
        raise Refused(NotifyType.TEMPORARY_FAILURE, f"{count} children, the replaced ones not deleted")
    if not replaced and count >= enough:
        raise Refused(NotifyType.NO_ADDITIONAL_SAS, f"{count} children are enough")


def _answer_key_exchange(
    sa: IkeSa, agreed: Agreement, message: Message
) -> tuple[tuple[KePayload, ...], bytes | None]:
    """KEr and the shared secret, if the proposal has a key exchange. Raises Refused."""
    groups = ke_groups((agreed.proposal,))
    if not groups:
        return (), None
    public, shared = answer_key_exchange(sa.host, groups[0], message.get(KePayload))
    return (public,), shared


def grant_terms(agreed: Agreement, spi_in: bytes) -> ChildTerms:
    """What the answer says: the selected proposal with our SPI, the narrowed selectors."""
    return ChildTerms(
        (replace(agreed.proposal, spi=spi_in),),
        agreed.ts,
        agreed.mode,
        agreed.config.tfc_padding_supported,
        more_possible=agreed.more_possible,
    )
