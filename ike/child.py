"""Child SAs: what is proposed, what is accepted, and what comes out (RFC 7296 1.3.1, 2.8, 2.9, 2.17).

Must not know exchanges, windows or collisions; it takes terms and gives terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ike.config import ChildConfig, Mode, Path
from ike.configuration import Ends
from ike.crypto.keymat import derive_child_keys
from ike.crypto.prf import Prf
from ike.events import ChildSa, CloseReason
from ike.exchanges.refusal import Refused
from ike.granting import includes_first_choice, is_covered, restricted_to_pair, to_one_pair
from ike.narrowing import narrow_selectors
from ike.nat import NatState
from ike.numbers import NotifyType, Sn, TransformType
from ike.proposals import number_proposals, select_proposal, without_ke
from ike.selectors import (
    AddressSelector,
    Selector,
    SelectorRegistry,
    TrafficSelectors,
    resolve_dynamic,
)
from ike.transport_nat import OriginalAddresses, is_host_to_host, moved, seen_from_here
from ike.wire.message import Message
from ike.wire.payloads import NotifyPayload, Payload, SaPayload, TsiPayload, TsrPayload
from ike.wire.sa import Proposal

SPI_OCTETS = 4
FIRST_FREE_SPI = 256
"""RFC 4303 2.1: 0 is for local use, 1 to 255 are reserved."""


@dataclass(slots=True)
class Child:
    """A Child SA with what is needed to rekey and to delete it. Changed by the session alone."""

    sa: ChildSa
    config: ChildConfig
    is_deleting: bool = False
    """Our Delete for it is queued or in flight."""
    is_unwanted: bool = False
    """The owner has asked for its end: what a rekey that is under way makes of it goes, too."""
    fate: CloseReason | None = None
    """Why the peer will delete it or we do, once a rekey has made its successor."""


def move_child(sa: ChildSa, path: Path, nat: NatState) -> ChildSa:
    """The same child over another path. In transport mode the selectors of an end behind a NAT follow its address."""
    local_ts, peer_ts = sa.local_ts, sa.peer_ts
    if sa.mode is Mode.TRANSPORT and nat.peer_is_translated:
        peer_ts = moved(peer_ts, sa.path.peer[0], path.peer[0])
    return replace(sa, path=path, local_ts=local_ts, peer_ts=peer_ts, udp_encapsulation=nat.udp_encapsulation)


@dataclass(frozen=True, slots=True)
class ChildTerms:
    """The content of one message that asks for a child or grants it. `ts.tsi` is the creator's end."""

    proposals: tuple[Proposal, ...]
    ts: TrafficSelectors
    mode: Mode
    accepts_tfc: bool
    originals: OriginalAddresses | None = None
    """What the addresses in `ts` were when they arrived, if NATs made them others."""
    more_possible: bool = False
    """Other selectors of the request would be granted too, in a Child SA of their own."""

    def seen_from_here(self, path: Path, nat: NatState, *, tsi_is_local: bool) -> ChildTerms:
        """The peer's terms with the addresses that its ends have for us (RFC 7296 2.23.1)."""
        if self.mode is not Mode.TRANSPORT:
            return self
        ts, originals = seen_from_here(self.ts, path, nat, tsi_is_local=tsi_is_local)
        return replace(self, ts=ts, originals=originals)

    @classmethod
    def read(cls, message: Message) -> ChildTerms | None:
        """None if the message has no SA, TSi and TSr."""
        sa, tsi, tsr = message.get(SaPayload), message.get(TsiPayload), message.get(TsrPayload)
        if sa is None or tsi is None or tsr is None:
            return None
        transport = message.notify(NotifyType.USE_TRANSPORT_MODE) is not None
        return cls(
            sa.proposals,
            TrafficSelectors(tsi.selectors, tsr.selectors),
            Mode.TRANSPORT if transport else Mode.TUNNEL,
            message.notify(NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED) is None,
        )

    def payloads(self, *between: Payload) -> tuple[Payload, ...]:
        """[N(USE_TRANSPORT_MODE)], [N(…)], SA, `between`, TSi, TSr."""
        notifies = []
        if self.mode is Mode.TRANSPORT:
            notifies.append(NotifyPayload(NotifyType.USE_TRANSPORT_MODE))
        if not self.accepts_tfc:
            notifies.append(NotifyPayload(NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED))
        if self.more_possible:
            notifies.append(NotifyPayload(NotifyType.ADDITIONAL_TS_POSSIBLE))
        ts = (TsiPayload(self.ts.tsi), TsrPayload(self.ts.tsr))
        return (*notifies, SaPayload(self.proposals), *between, *ts)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a responder grants: one proposal with the peer's SPI in it, and selectors."""

    config: ChildConfig
    proposal: Proposal
    ts: TrafficSelectors
    mode: Mode
    originals: OriginalAddresses | None = None
    more_possible: bool = False


def propose(
    config: ChildConfig,
    spi_in: bytes,
    ends: Ends,
    trigger: TrafficSelectors | None,
    *,
    with_ke: bool,
    only_pair: bool = False,
) -> ChildTerms:
    """What we ask for. `trigger`: the packet that started it, as first selectors (RFC 7296 2.9).

    TSi is ours. `only_pair`: for the packet's pair of addresses alone, as with `single_pair`.
    """
    ts = TrafficSelectors(
        resolve_dynamic(config.local_ts, *ends.local), resolve_dynamic(config.peer_ts, *ends.peer)
    )
    pair = restricted_to_pair(ts, trigger) if trigger and (only_pair or config.single_pair) else None
    if pair:
        ts = pair
    elif trigger:
        ts = TrafficSelectors(_with_first(trigger.tsi, ts.tsi), _with_first(trigger.tsr, ts.tsr))
    return _terms(config, config.proposals, spi_in, ts, config.mode, with_ke)


def propose_rekey(child: Child, spi_in: bytes) -> ChildTerms:
    """The same again: the selectors in use, octet for octet (RFC 7296 2.8, 2.9.2)."""
    ts = TrafficSelectors(child.sa.local_ts, child.sa.peer_ts)
    return _terms(child.config, child.config.proposals, spi_in, ts, child.sa.mode, with_ke=True)


def _terms(
    config: ChildConfig,
    proposals: Sequence[Proposal],
    spi_in: bytes,
    ts: TrafficSelectors,
    mode: Mode,
    with_ke: bool,
) -> ChildTerms:
    offered = proposals if with_ke else without_ke(proposals)
    return ChildTerms(number_proposals(offered, spi_in), ts, mode, config.tfc_padding_supported)


def _with_first(first: Sequence[Selector], selectors: tuple[Selector, ...]) -> tuple[Selector, ...]:
    return (*first, *(s for s in selectors if s not in first))


def ke_groups(proposals: Iterable[Proposal]) -> tuple[int, ...]:
    """The key exchange methods that are offered, NONE left out, in their order."""
    groups = [t.id for proposal in proposals for t in proposal.of_type(TransformType.KE) if t.id]
    return tuple(dict.fromkeys(groups))


def agree(
    terms: ChildTerms,
    configs: Iterable[ChildConfig],
    ends: Ends,
    registry: SelectorRegistry,
    *,
    in_auth: bool,
) -> Agreement:
    """The first of our children that fits what the peer asks for, above all what it names first.

    Raises Refused.
    """
    failure: Refused | None = None
    fits: list[tuple[ChildConfig, TrafficSelectors]] = []
    is_possible = terms.mode is not Mode.TRANSPORT or is_host_to_host(terms.ts)
    for config in configs if is_possible else ():
        for policy in config.policies if config.mode is terms.mode else ():
            allowed = TrafficSelectors(
                resolve_dynamic(policy.peer_ts, *ends.peer), resolve_dynamic(policy.local_ts, *ends.local)
            )
            ts = narrow_selectors(terms.ts, allowed, registry)
            if ts is not None:
                fits.append((config, ts))
    asked = terms.ts.interpreted(registry) if fits else terms.ts
    for config, possible in sorted(fits, key=lambda fit: not includes_first_choice(asked, fit[1])):
        ts = to_one_pair(asked, possible) if config.single_pair else possible
        if ts is None:
            failure = Refused(
                NotifyType.SINGLE_PAIR_REQUIRED, f"child {config.name} is for one pair at a time"
            )
            continue
        offered, ours = terms.proposals, config.proposals
        if in_auth:
            offered, ours = without_ke(offered), without_ke(ours)
        proposal = select_proposal(offered, ours)
        if proposal is None or len(proposal.spi) != SPI_OCTETS:
            failure = Refused(NotifyType.NO_PROPOSAL_CHOSEN, f"no proposal of child {config.name}")
            continue
        more_possible = not all(is_covered(other, ts) for _, other in fits)
        return Agreement(config, proposal, ts, terms.mode, terms.originals, more_possible)
    raise failure or Refused(
        NotifyType.TS_UNACCEPTABLE, f"no child for {terms.ts} in {terms.mode.value} mode"
    )


def agree_to_rekey(terms: ChildTerms, child: Child, registry: SelectorRegistry) -> Agreement:
    """The peer rekeys `child`: it gets what is in use, no less and no more (RFC 7296 2.9.2).

    Raises Refused.
    """
    in_use = TrafficSelectors(child.sa.peer_ts, child.sa.local_ts)
    ts = narrow_selectors(terms.ts, in_use, registry)
    if ts is None or not (_same(ts, in_use) and terms.mode is child.sa.mode):
        raise Refused(NotifyType.TS_UNACCEPTABLE, f"a rekey of {in_use} asks for {terms.ts}")
    if not (_restricts_equally(terms.ts.tsi, in_use.tsi) and _restricts_equally(terms.ts.tsr, in_use.tsr)):
        raise Refused(NotifyType.TS_UNACCEPTABLE, f"a rekey of {in_use} asks for {terms.ts}")
    proposal = select_proposal(terms.proposals, child.config.proposals)
    if proposal is None or len(proposal.spi) != SPI_OCTETS:
        raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, f"no proposal of child {child.config.name}")
    return Agreement(child.config, proposal, in_use, terms.mode, terms.originals)


def _same(ours: TrafficSelectors, theirs: TrafficSelectors) -> bool:
    return _octets(ours.tsi) == _octets(theirs.tsi) and _octets(ours.tsr) == _octets(theirs.tsr)


def _octets(selectors: Iterable[Selector]) -> set[bytes]:
    return {selector.encode() for selector in selectors}


def _restricts_equally(asked: Iterable[Selector], in_use: Iterable[Selector]) -> bool:
    """What is beside the addresses is rekeyed octet for octet: wider than in use is not the same child."""
    ours, theirs = (
        _octets(s for s in selectors if not isinstance(s, AddressSelector)) for selectors in (in_use, asked)
    )
    return ours == theirs


def keeps_selectors(proposed: TrafficSelectors, answer: TrafficSelectors) -> bool:
    """Whether the answer to a rekey covers all that is in use."""
    return _same(proposed, answer)


def make_child_sa(
    config: ChildConfig,
    *,
    spi_in: bytes,
    proposal: Proposal,
    ts: TrafficSelectors,
    mode: Mode,
    is_creator: bool,
    prf: Prf,
    sk_d: bytes,
    nonces: tuple[bytes, bytes],
    shared: bytes | None,
    path: Path,
    udp_encapsulation: bool,
    tfc_out_allowed: bool,
    originals: OriginalAddresses | None,
) -> ChildSa:
    """Derive the keys of a pair.

    `proposal` is the selected one with the peer's SPI; `nonces` are (Ni, Nr).
    """
    keys = derive_child_keys(prf, sk_d, nonces[0], nonces[1], shared, proposal)
    creator = (keys.initiator_encr, keys.initiator_integ)
    other = (keys.responder_encr, keys.responder_integ)
    sn = [t.id for t in proposal.of_type(TransformType.SN)]
    return ChildSa(
        name=config.name,
        spi_in=spi_in,
        spi_out=proposal.spi,
        mode=mode,
        proposal=proposal,
        keys_in=other if is_creator else creator,
        keys_out=creator if is_creator else other,
        local_ts=ts.tsi if is_creator else ts.tsr,
        peer_ts=ts.tsr if is_creator else ts.tsi,
        is_creator=is_creator,
        esn=sn == [Sn.PARTIALLY_TRANSMITTED_64],
        udp_encapsulation=udp_encapsulation,
        path=path,
        lowest_nonce=min(nonces),
        tfc_out_allowed=tfc_out_allowed,
        original_addresses=originals,
    )
