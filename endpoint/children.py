"""The Child SAs that are installed: ESP state, egress policy and encapsulation of each, and who sends on which.

Puts `ike`'s ChildSa into `esp` and `mpls`; it must not know sockets, and decides nothing about either protocol.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from endpoint.config import Config
from endpoint.lifetime import SoftLifetime, hard_lifetime
from endpoint.plan import ChildPlan, PeerPlan, Serves
from esp.engine import InboundSad
from esp.sa import InboundSa, OutboundSa
from esp.transforms import Transform, transform_for
from ike import ChildSa, Path
from ike.config import Mode
from ike.numbers import TransformType
from ike.selectors import AddressSelector, Selectors
from ike.wire.sa import Proposal
from mpls import encapsulation, mtu
from mpls.child_policy import AddressMatch, EgressPolicy, LabelMap, PlainMap
from mpls.path_mtu import MAX_ENTRIES
from mpls.selectors import ANY_DEPTH, ENTROPY_LABEL_INDICATOR, MplsVrfSelector

__all__ = ["Child", "ChildTable", "esp_transform", "install"]


@dataclass(slots=True)
class Child:
    """A pair of ESP SAs with one peer.

    may_send    False while the child that it replaces is still the one to send on (RFC 7296 2.8)
    replaces    the inbound SPI of that child
    is_deleting our Delete for it is on its way: it only receives
    path        where its packets go; it follows the peer's address
    soft        when a successor is asked for because of what went through
    retires_at  closed, and kept only to receive what is still under way
    sends_from  until then that which it replaces is sent on, or none, unless the peer sends on this one first
    drops       what this child's packets were dropped for, by `esp` and by `mpls`
    path_mtu    the largest IP packet that its path carries, if that is less than the link would
    tfc_octets  payloads are padded to so many octets, 0: not at all (RFC 4303 2.7)
    dummies_out ESP dummies that we have sent
    dummies     length of ESP dummies that came -> the largest fragment of each, 0 if whole; the last ones, until asked
    fragmented  ESP packets that came in fragments: their path has ignored DF, or the peer does not set it
    """

    session: int
    plan: PeerPlan
    kind: ChildPlan
    sa: ChildSa
    inbound: InboundSa
    outbound: OutboundSa
    policy: EgressPolicy
    outbound_map: LabelMap | None
    encapsulator: encapsulation.Encapsulator
    budget: mtu.Budget
    may_send: bool
    path: Path
    soft: SoftLifetime
    replaces: bytes | None = None
    is_deleting: bool = False
    retires_at: float | None = None
    sends_from: float | None = None
    drops: Counter[str] = field(default_factory=Counter)
    path_mtu: int | None = None
    tfc_octets: int = 0
    dummies_out: int = 0
    dummies: dict[int, int] = field(default_factory=dict)
    fragmented: int = 0

    @property
    def peer(self) -> str:
        return self.plan.peer.name

    def move(self, sa: ChildSa) -> None:
        """`sa` is the same Child SA over another path."""
        self.sa, self.path = sa, sa.path
        is_mobile = self.policy.peer_address is None
        self.policy = replace(
            self.policy,
            peer_address=None if is_mobile else sa.path.peer[0],
            peer_selectors=_peer_matches(self.plan, self.kind, sa),
        )
        self.set_path_mtu(None)

    def set_path_mtu(self, path_mtu: int | None) -> None:
        """What its path carries, None: as much as the link."""
        self.path_mtu = path_mtu
        self.budget = _budget(self.plan, self.sa, self.inbound.transform, self.encapsulator, path_mtu)
        self.tfc_octets = _tfc_octets(self.plan, self.sa, self.budget)

    def note_dummy(self, octets: int, fragment: int) -> None:
        """One came in, in fragments of at most so many octets, or whole."""
        self.dummies.pop(octets, None)
        if len(self.dummies) >= MAX_ENTRIES:
            del self.dummies[next(iter(self.dummies))]
        self.dummies[octets] = fragment

    @property
    def inbound_selector(self) -> MplsVrfSelector | None:
        """The map of packets that come to us; None without TS_MPLS_VRF."""
        return _map_of(self.sa.local_ts)

    @property
    def outbound_selector(self) -> MplsVrfSelector | None:
        """The map of packets that we send; None without TS_MPLS_VRF."""
        return _map_of(self.sa.peer_ts)


def install(
    config: Config,
    plan: PeerPlan,
    session: int,
    sa: ChildSa,
    *,
    may_send: bool,
    early: float = 0.0,
    is_mobile: bool = False,
) -> Child:
    """Everything that one Child SA needs. EspError for a transform or key that `esp` does not know.

    `early`, 0 to 1: how much of the jitter its soft lifetime ends earlier. `is_mobile`: the peer may send from any
    of its addresses, as it has MOBIKE; the ICV alone says that it is the peer.
    """
    kind = plan.child(sa.name)
    if kind is None:
        raise LookupError(f"peer {plan.peer.name} has no child {sa.name}")
    transform = esp_transform(sa.proposal)
    packets, octets = hard_lifetime(plan.peer.lifetime)
    outbound = OutboundSa(
        sa.spi_out, transform, *sa.keys_out, esn=sa.esn, hard_packets=packets, hard_octets=octets
    )
    inbound_map = _map_of(sa.local_ts)
    wrapping = plan.peer.encapsulation
    plain_map = _plain_map(config, kind, wrapping)
    mode = encapsulation.Mode(sa.mode.value)
    inner_local, inner_peer = _inner_addresses(kind, sa)
    vrf, label_class = _what_it_names(plan, kind)
    encapsulator = encapsulation.Encapsulator(wrapping, mode, ip_address(inner_local), ip_address(inner_peer))
    budget = _budget(plan, sa, transform, encapsulator)
    return Child(
        session=session,
        plan=plan,
        kind=kind,
        sa=sa,
        inbound=InboundSa(
            sa.spi_in,
            transform,
            *sa.keys_in,
            esn=sa.esn,
            window=plan.peer.replay_window,
            hard_packets=packets,
            hard_octets=octets,
        ),
        outbound=outbound,
        policy=EgressPolicy(
            peer=plan.peer.name,
            vrf=vrf,
            label_class=label_class,
            mode=mode,
            map=inbound_map or plain_map,
            peer_selectors=_peer_matches(plan, kind, sa),
            local_selectors=_matches(sa.local_ts),
            peer_address=None if is_mobile else sa.path.peer[0],
            local_addresses=frozenset(config.endpoint.addresses),
            strict=vrf is not None,
            session=session if kind.is_native else None,
            gre=plan.peer.gre,
            original_addresses=_original_addresses(sa),
        ),
        outbound_map=_map_of(sa.peer_ts) or plain_map,
        encapsulator=encapsulator,
        budget=budget,
        may_send=may_send,
        path=sa.path,
        soft=SoftLifetime(plan.peer.lifetime, outbound, early),
        tfc_octets=_tfc_octets(plan, sa, budget),
    )


def _inner_addresses(kind: ChildPlan, sa: ChildSa) -> tuple[str, str]:
    """What tunnel mode writes into the inner header: what is configured, else the two hosts of the selectors.

    These stay when the outer addresses change.
    """
    if kind.inner is not None:
        return kind.inner.local, kind.inner.peer
    return _host(sa.local_ts) or sa.path.local[0], _host(sa.peer_ts) or sa.path.peer[0]


def _host(selectors: Selectors) -> str | None:
    """The one address of all address selectors, if it is one."""
    ends = {end for one in selectors if isinstance(one, AddressSelector) for end in (one.start, one.end)}
    return str(ends.pop()) if len(ends) == 1 else None


def _original_addresses(sa: ChildSa) -> tuple[str, str] | None:
    return (sa.original_addresses.peer, sa.original_addresses.local) if sa.original_addresses else None


def _plain_map(config: Config, kind: ChildPlan, wrapping: encapsulation.Encapsulation) -> PlainMap | None:
    """Of a child without TS_MPLS_VRF: deeper than one entry only where a VRF keeps labels of its inside."""
    if wrapping is encapsulation.Encapsulation.NONE:
        return None
    vrfs = (config.vrf(name) for name, _ in kind.serves)
    if any(vrf is not None and vrf.keeps_labels for vrf in vrfs):
        return PlainMap(wrapping.mask, depth=ANY_DEPTH, special=ENTROPY_LABEL_INDICATOR)
    return PlainMap(wrapping.mask)


def esp_transform(proposal: Proposal) -> Transform:
    """The ESP transform of a proposal with one transform of each type. EspError for an unknown one."""
    chosen = {transform.type: transform for transform in proposal.transforms}
    encryption = chosen[TransformType.ENCR]
    integrity = chosen.get(TransformType.INTEG)
    return transform_for(encryption.id, encryption.key_bits, integrity.id if integrity else 0)


def _what_it_names(plan: PeerPlan, kind: ChildPlan) -> tuple[str | None, int | str | None]:
    """VRF and class that the egress check holds a label to, each None for "whatever the label says" (WIRE 7).

    A native child names both. Addresses of its own name the VRF, not the class; so does a child for plain IP. A
    security label names both, which is checked only for a peer that is known to separate them.
    """
    vrf, label_class = kind.serves[0]
    if kind.is_native or plan.peer.strict_child:
        return (vrf, label_class) if len(kind.serves) == 1 else (None, None)
    if plan.peer.encapsulation is encapsulation.Encapsulation.NONE:
        return vrf, label_class
    return (vrf if kind.inner is not None else None), None


def _map_of(selectors: Selectors) -> MplsVrfSelector | None:
    return next((one for one in selectors if isinstance(one, MplsVrfSelector)), None)


def _matches(selectors: Selectors) -> tuple[AddressMatch, ...]:
    return tuple(AddressMatch.of(one) for one in selectors if isinstance(one, AddressSelector))


def _peer_matches(plan: PeerPlan, kind: ChildPlan, sa: ChildSa) -> tuple[AddressMatch, ...]:
    """What may come from the peer. Route-based selectors are everything: then it is what is routed there (uRPF)."""
    granted = plan.peer.vrf(kind.serves[0][0])
    if granted is not None and granted.route_based:
        return tuple(AddressMatch.of_network(prefix) for prefix in granted.accept)
    return _matches(sa.peer_ts)


def _budget(
    plan: PeerPlan,
    sa: ChildSa,
    transform: Transform,
    encapsulator: encapsulation.Encapsulator,
    path_mtu: int | None = None,
) -> mtu.Budget:
    return mtu.budget(
        plan.peer.link_mtu,
        ipv6_underlay=ip_address(sa.path.peer[0]).version == 6,
        udp_encapsulation=sa.udp_encapsulation,
        iv_octets=transform.iv_octets,
        icv_octets=transform.icv_octets,
        block_octets=transform.block_octets,
        encapsulation=encapsulator.encapsulation,
        mode=encapsulator.mode,
        ipv6_inner=encapsulator.local.version == 6,
        access_octets=plan.peer.access_overhead,
        path_mtu=path_mtu,
    )


def _tfc_octets(plan: PeerPlan, sa: ChildSa, budget: mtu.Budget) -> int:
    """Only where the payload says its own length, only to a peer that takes it, only as far as the path goes."""
    if sa.mode is not Mode.TUNNEL or not sa.tfc_out_allowed:
        return 0
    return min(plan.peer.tfc_octets, budget.payload_octets)


class ChildTable:
    """The installed children: by SPI for what comes in, by (peer, VRF, class) for what goes out."""

    def __init__(self) -> None:
        self.sad = InboundSad()
        self._by_spi: dict[bytes, Child] = {}
        self._of_peer: defaultdict[str, dict[bytes, Child]] = defaultdict(dict)
        self._senders: dict[tuple[str, Serves], list[Child]] = {}
        self._closed: dict[bytes, Child] = {}
        self._held: dict[bytes, Child] = {}
        self.label_sessions: dict[tuple[str, int], int] = {}
        """(peer, label) -> the session in which the peer has given it to us: it is good on that one's children."""

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._by_spi.values()))

    def get(self, spi_in: bytes) -> Child | None:
        return self._by_spi.get(spi_in)

    def add(self, child: Child) -> None:
        self.sad.add(child.inbound)
        self._by_spi[child.sa.spi_in] = child
        self._of_peer[child.peer][child.sa.spi_in] = child
        for serves in child.kind.serves:
            self._senders.setdefault((child.peer, serves), []).append(child)

    def stop_sending(self, child: Child) -> None:
        """Nothing leaves by this child any more; what comes in on it is still taken."""
        for serves in child.kind.serves:
            senders = self._senders.get((child.peer, serves), [])
            if child in senders:
                senders.remove(child)

    def remove(self, child: Child) -> None:
        self.stop_sending(child)
        self.sad.remove(child.sa.spi_in)
        self._by_spi.pop(child.sa.spi_in, None)
        self._closed.pop(child.sa.spi_in, None)
        self._held.pop(child.sa.spi_in, None)
        self._of_peer[child.peer].pop(child.sa.spi_in, None)
        if not self._of_peer[child.peer]:
            del self._of_peer[child.peer]

    def sender(self, peer: str, vrf: str, label_class: int | str, label: int | None = None) -> Child | None:
        """The child to send on: of several that may, the one installed last of the label's session.

        Several sessions with one peer are there while it authenticates again.
        """
        session = self.label_sessions.get((peer, label)) if label is not None else None
        latest: Child | None = None
        for child in reversed(self._senders.get((peer, (vrf, label_class)), ())):
            if child.may_send:
                if session is None or child.session == session:
                    return child
                latest = latest or child
        return latest

    def forget_labels(self, session: int) -> None:
        """The session is over, and with it the labels that the peer gave us in it."""
        for key in [key for key, given_in in self.label_sessions.items() if given_in == session]:
            del self.label_sessions[key]

    def of_kind(self, peer: str, name: str) -> list[Child]:
        """The children of one kind that are not closed, in the order in which they were installed."""
        return [child for child in self.of_peer(peer) if child.kind.name == name]

    def of_peer(self, peer: str) -> list[Child]:
        """The children of a peer that are not closed, in the order in which they were installed."""
        return [child for child in self._of_peer.get(peer, {}).values() if child.retires_at is None]

    def close(self, child: Child, until: float) -> None:
        """Keep it until then, to receive what is still under way."""
        child.retires_at = until
        self._closed[child.sa.spi_in] = child

    def hold(self, child: Child, until: float) -> None:
        """Nothing leaves by it until then."""
        child.may_send, child.sends_from = False, until
        self._held[child.sa.spi_in] = child

    def release(self, now: float) -> list[Child]:
        """Those that were held until now, and are there to be sent on."""
        due = [
            child for child in self._held.values() if child.sends_from is not None and child.sends_from <= now
        ]
        for child in due:
            del self._held[child.sa.spi_in]
        return [
            child for child in due if child.retires_at is None and not (child.may_send or child.is_deleting)
        ]

    def retire(self, now: float) -> None:
        """Remove the closed children whose grace is over."""
        for child in list(self._closed.values()):
            if child.retires_at is not None and child.retires_at <= now:
                self.remove(child)

    def next_deadline(self) -> float | None:
        times = [child.retires_at for child in self._closed.values()]
        times += [child.sends_from for child in self._held.values()]
        return min((at for at in times if at is not None), default=None)
