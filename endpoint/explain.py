"""`mplsec explain`: what becomes of a packet from a customer, and why, by the configuration alone.

Takes the walk that `run` takes (mpls.outbound); it must not look at interfaces, peers or the network. What
only a running endpoint knows, a label that the peer binds, is said to be so, and a stand-in takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Final, Literal, TypeAlias

from endpoint.check import BudgetRow, peer_budgets
from endpoint.config import Config, PeerConfig, Selectors, Start
from endpoint.config import Mode as IkeMode
from endpoint.explain_drops import why_dropped
from endpoint.packets import GivenPacket
from endpoint.plan import plan_peers
from endpoint.tables import build_tables
from mpls.classes import dscp_text
from mpls.crypto_map import Flow, Protect, Row, Rule
from mpls.drops import DropReason
from mpls.encapsulation import Encapsulator, Mode
from mpls.fit import Fitting, fit
from mpls.hop import Drop
from mpls.identifiers import ClassId
from mpls.ip import IPV6_HEADER_OCTETS, IpHeader
from mpls.labels import FIRST_ORDINARY_LABEL, LabelStack
from mpls.outbound import Bypassed, Labelled, Outbound
from mpls.vrf import Labels, Vrf

__all__ = ["ExplainError", "Explainer", "Explanation", "PathOctets"]

Result: TypeAlias = Labelled | Bypassed | Drop
_STAND_IN: Final = FIRST_ORDINARY_LABEL
"""For a label that is bound at run time: all have the same length."""
_BEFORE_THE_RULES: Final = frozenset(
    {
        DropReason.MALFORMED_IP,
        DropReason.URPF,
        DropReason.INNER_LABEL,
        DropReason.STACK_TRUNCATED,
        DropReason.STACK_DEPTH,
        DropReason.SPECIAL_LABEL,
        DropReason.NO_SERVICE_LABEL,
        DropReason.CLEARTEXT_MPLS,
        DropReason.LABEL_UNBOUND,
        DropReason.PAYLOAD,
    }
)
_ANY_ADDRESS: Final = {4: ip_address("0.0.0.0"), 6: ip_address("::")}  # noqa: S104


class ExplainError(ValueError):
    """The question is not clear: no such attachment, or several that the packet can have come in by."""


@dataclass(frozen=True, slots=True)
class PathOctets:
    """The packet over one kind of path; `next_header` is that of the ESP trailer.

    esp           the proposal that leaves the least, if the peer may choose among several
    octets        (what, octets), every octet named, in the order of the wire; `total` is their sum
    mpls_octets   label stack and packet: what may be as long as the Tunnel MTU (RFC 4023 5.1)
    remedy        what is done with a packet that does not fit, by the policy of the peer; "" if it is dropped
    """

    name: str
    esp: str
    next_header: int
    octets: tuple[tuple[str, int], ...]
    total: int
    mpls_octets: int
    tunnel_mtu: int
    fits: bool
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of one packet; None is what it never came to. `why` are sentences.

    reason     the drop's name; too_big also when only some of the paths are too small
    rule       of the crypto map, the first that matches
    label      the service label: None without labels, and when it is bound at run time, see `label_is`
    leaves_by  the attachment, of a packet that bypasses ESP
    """

    number: int
    packet: str
    attachment: str
    vrf: str
    outcome: Literal["protected", "bypassed", "dropped"]
    reason: str | None
    why: tuple[str, ...]
    rule: Row | None = None
    label_class: ClassId | None = None
    tc: int | None = None
    prefix: str | None = None
    peer: str | None = None
    label: int | None = None
    label_is: Literal["static", "bound at run time", "none"] | None = None
    child: str | None = None
    mode: str | None = None
    encapsulation: str | None = None
    outer_dscp: str | None = None
    leaves_by: str | None = None
    paths: tuple[PathOctets, ...] = ()


@dataclass(frozen=True, slots=True)
class _Given:
    """The packet, taken apart: no stack where none can be read, no header where no IP packet can be."""

    octets: bytes
    stack: LabelStack | None
    header: IpHeader | None

    @classmethod
    def of(cls, given: GivenPacket) -> _Given:
        stack = LabelStack.parse(given.octets) if given.is_labelled else None
        if isinstance(stack, DropReason):
            return cls(given.octets, None, None)
        header = IpHeader.parse(given.octets[stack.octet_count if stack else 0 :])
        return cls(given.octets, stack, None if isinstance(header, DropReason) else header)

    def flow(self, attachment: str, vrf: Vrf, inside: str) -> Flow | None:
        """`inside`: the VRF in which the destination is."""
        if self.header is None:
            return None
        if self.stack is None:
            return Flow.of_packet(attachment, inside, self.header)
        are_kept = vrf.labels_of(attachment) is Labels.KEEP
        body = self.octets[self.stack.octet_count :]
        return Flow.of_labelled(attachment, inside, self.stack.entries, body, are_kept=are_kept)

    def comes_to_the_rules(self, result: Result) -> bool:
        """Whether the walk looks at the crypto map before it ends as it does."""
        if isinstance(result, Drop) and result.reason in _BEFORE_THE_RULES:
            return False
        return self.stack is None or self.stack.entries[0].ttl > 1

    def __str__(self) -> str:
        words = [f"{len(self.octets)} octets"]
        if self.stack is not None:
            words.append(f"labels {self.stack}")
        if self.header is None:
            words.append("no IP packet that can be read")
        else:
            source, destination = ip_address(self.header.source), ip_address(self.header.destination)
            words += [f"{source} to {destination}", f"protocol {self.header.protocol}"]
            if self.header.source_port is not None and self.header.protocol not in (1, 58):
                words.append(f"ports {self.header.source_port} to {self.header.destination_port}")
            words += [f"DSCP {dscp_text(self.header.dscp)}", f"TTL {self.header.ttl}"]
        return ", ".join(words)


class Explainer:
    """Explains packets by one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._walk = build_tables(config).outbound
        self._plans = {plan.peer.name: plan for plan in plan_peers(config)}

    def explain(self, given: GivenPacket, attachment: str | None = None) -> Explanation:
        """What becomes of the packet when it comes in by the attachment; None: by the only one it can be.

        ExplainError: that is none or several, or there is no such attachment.
        """
        packet = _Given.of(given)
        name = _attachment(self._walk, packet, given.is_labelled, attachment)
        vrf = next(one for one in self._walk.vrfs.values() if name in (a.name for a in one.attachments))
        forward = self._walk.forward_labelled if given.is_labelled else self._walk.forward
        result: Result = forward(name, given.octets)
        found = Explanation(given.number, str(packet), name, vrf.name, "dropped", None, ())
        rule: Rule | None = None
        inside = vrf if packet.header is None else self._walk.leads_to(vrf, packet.header.destination)
        flow = packet.flow(name, vrf, inside.name)
        leaked = (f"a leak leads to VRF {inside.name}",) if inside is not vrf else ()
        if flow is not None and packet.comes_to_the_rules(result):
            number, rule = self._walk.crypto_map.find(flow)
            found = replace(found, rule=Row(number, rule.name, str(rule.match), str(rule.action), ""))
            if isinstance(rule.action, Protect):
                found = replace(found, label_class=rule.action.label_class)
        match result:
            case Labelled():
                explained = self._protected(found, result, packet, is_bound=False)
                return replace(explained, why=(*leaked, *explained.why))
            case Bypassed():
                return _bypassed(found, inside, packet, leads_from=vrf)
            case Drop(reason=DropReason.NO_LABEL, peer=str(peer), vrf=str(into), label_class=label_class) if (
                label_class is not None and flow is not None
            ):
                # As if the peer had bound a label for exactly this destination.
                where = (peer, into, label_class, ip_network(flow.destination), _STAND_IN)
                self._walk.table.add(*where)
                bound = forward(name, given.octets)
                self._walk.table.remove(*where)
                if isinstance(bound, Labelled):
                    explained = self._protected(found, bound, packet, is_bound=True)
                    return replace(explained, why=(*leaked, *explained.why))
        reason = result.reason
        why = why_dropped(self._config, reason, rule, name, vrf, packet.stack, packet.header)
        return replace(found, reason=reason.value, why=(why,))

    def _protected(
        self, found: Explanation, result: Labelled, packet: _Given, *, is_bound: bool
    ) -> Explanation:
        plan = self._plans[result.peer]
        peer = plan.peer
        child = plan.child_for(result.vrf, result.label_class, native=_is_native(peer))
        if child is None:
            why = f"peer {peer.name} has no child for {result.vrf}/{result.label_class}"
            return replace(found, reason=DropReason.NO_CHILD.value, why=(why,))
        if (
            result.label is None
            and packet.header is not None
            and not self._is_selected(peer, result, packet.header)
        ):
            why = f"no traffic selector of child {child.name} has it: they are announce and accept"
            return replace(found, reason=DropReason.OUTSIDE_SELECTOR.value, why=(why,))
        paths = tuple(_paths(self._config, peer, result))
        large = [path for path in paths if not path.fits]
        small = [path for path in large if not path.remedy]
        prefix = self._prefix(peer, result, packet, is_bound)
        return replace(
            found,
            outcome="dropped" if small and len(small) == len(paths) else "protected",
            reason=DropReason.TOO_BIG.value if small else None,
            why=(
                *_why_label(peer, result, prefix, is_bound),
                _why_start(peer, child.name),
                *(_why_too_big(path) for path in large),
            ),
            tc=None if result.label is None else result.tc,
            prefix=prefix,
            peer=peer.name,
            label=None if is_bound else result.label,
            label_is="bound at run time" if is_bound else "none" if result.label is None else "static",
            child=child.name,
            mode=peer.mode.value,
            encapsulation=str(peer.encapsulation),
            outer_dscp=dscp_text(result.dscp),
            paths=paths,
        )

    def _is_selected(self, peer: PeerConfig, result: Labelled, header: IpHeader) -> bool:
        """Of plain IP packets: whether the child can be for them, as far as the configuration says."""
        vrf, granted = self._config.vrf(result.vrf), peer.vrf(result.vrf)
        if vrf is None or granted is None or granted.route_based:
            return True
        if peer.mode is IkeMode.TRANSPORT:
            local = tuple(ip_network(address) for address in self._config.endpoint.addresses)
        else:
            local = vrf.announce
        source, destination = ip_address(header.source), ip_address(header.destination)
        return any(source in one for one in local if one.version == source.version) and any(
            destination in one for one in granted.accept if one.version == destination.version
        )

    def _prefix(self, peer: PeerConfig, result: Labelled, packet: _Given, is_bound: bool) -> str:
        """The route's prefix; before there is a label, the one that the peer may announce inside."""
        destination = packet.header.destination if packet.header else b""
        granted = peer.vrf(result.vrf)
        if is_bound and granted is not None:
            address = ip_address(destination)
            inside = [one for one in granted.accept if one.version == address.version and address in one]
            return str(max(inside, key=lambda one: one.prefixlen))
        route = self._walk.table.route(result.vrf, result.label_class, destination, peer.name)
        return "" if isinstance(route, DropReason) else str(route.prefix)


def _attachment(walk: Outbound, packet: _Given, is_labelled: bool, named: str | None) -> str:
    every = [(one, vrf) for vrf in walk.vrfs.values() for one in vrf.attachments]
    if named is not None:
        if all(one.name != named for one, _ in every):
            known = ", ".join(one.name for one, _ in every) or "none"
            raise ExplainError(f"there is no attachment {named}; there are: {known}")
        return named
    source = packet.header.source if packet.header else None
    # A condition that none meets says nothing: the packet is then explained as the drop that it is.
    every = [(a, vrf) for a, vrf in every if is_labelled == (a.labels is not Labels.NONE)] or every
    if packet.stack is not None:
        topmost = packet.stack.entries[0].label
        every = [(a, vrf) for a, vrf in every if a.takes_label(topmost)] or every
        every = [(a, vrf) for a, vrf in every if a.local_labels] or every
    every = [(a, vrf) for a, vrf in every if source is not None and vrf.is_behind(a.name, source)] or every
    names = [one.name for one, _ in every]
    if len(names) == 1:
        return names[0]
    if not names:
        raise ExplainError("no VRF has an attachment")
    raise ExplainError(f"it can have come in by any of {', '.join(names)}; add --attachment {names[0]}")


def _bypassed(found: Explanation, vrf: Vrf, packet: _Given, *, leads_from: Vrf) -> Explanation:
    target = vrf.attachment_for(packet.header.destination) if packet.header else None
    if target is None or target == found.attachment:
        why = f"its rule lets it pass without ESP, but no other attachment of VRF {vrf.name} leads there"
        return replace(found, reason=DropReason.NO_ROUTE.value, why=(why,))
    if vrf is not leads_from:
        why = f"its destination is leaked into VRF {leads_from.name}: it is here, in VRF {vrf.name}, and needs no ESP"
        return replace(found, outcome="bypassed", leaves_by=target, why=(why,))
    why = f"its rule lets it pass without ESP inside VRF {vrf.name}; nothing of it reaches the underlay"
    return replace(found, outcome="bypassed", leaves_by=target, why=(why,))


def _is_native(peer: PeerConfig) -> bool:
    return peer.selectors in (Selectors.NATIVE, Selectors.NATIVE_OR_PLAIN)


def _paths(config: Config, peer: PeerConfig, result: Labelled) -> Iterator[PathOctets]:
    for row in peer_budgets(config, peer):
        if (row.vrf, row.class_id) != (result.vrf, result.label_class):
            continue
        octets = row.budget.of_packet(len(result.body), len(result.stack))
        mpls_octets = len(result.stack) + len(result.body)
        yield PathOctets(
            row.underlay + (" UDP" if row.is_udp else ""),
            row.esp,
            _next_header(peer, row, result),
            octets.rows(),
            octets.link_mtu,
            mpls_octets,
            row.budget.tunnel_mtu,
            mpls_octets <= row.budget.tunnel_mtu,
            _remedy(peer.fitting, result.body, row.budget.tunnel_mtu - len(result.stack)),
        )


def _remedy(policy: Fitting, body: bytes, room: int) -> str:
    if policy.may_be_fragmented(body):
        return "the tunnel packet goes without DF and may be fragmented on its way"
    fitting, too_big = fit(policy, [body], room)
    return "" if too_big or len(fitting) == 1 else f"cut into {len(fitting)} fragments before it is protected"


def _next_header(peer: PeerConfig, row: BudgetRow, result: Labelled) -> int:
    address = _ANY_ADDRESS[6 if row.budget.inner_ip == IPV6_HEADER_OCTETS else 4]
    wrapper = Encapsulator(peer.encapsulation, Mode(peer.mode.value), address, address)
    return wrapper.encapsulate(result.stack, result.body, result.dscp)[0]


def _why_label(peer: PeerConfig, result: Labelled, prefix: str, is_bound: bool) -> Iterator[str]:
    serves = f"{result.vrf}/{result.label_class}"
    if is_bound:
        yield (
            f"{prefix} is the longest prefix that a peer may announce in {serves}: {peer.name} binds a "
            "label for the destination, or for a prefix around it, when the child is up; until then the packet waits"
        )
        granted = peer.vrf(result.vrf)
        static = granted.labels_of(result.label_class) if granted else None
        if peer.selectors is Selectors.NATIVE_OR_PLAIN and static is not None:
            yield f"if {peer.name} turns out not to know bindings, the static label {static.peer} is used"
    elif result.label is None:
        yield f"{prefix} is the longest prefix in {serves}, behind {peer.name}, without labels"
    else:
        yield f"{prefix} is the longest prefix in {serves}, behind {peer.name} with a static label"


def _why_start(peer: PeerConfig, child: str) -> str:
    if peer.start is Start.NONE:
        return f"child {child} is not started by traffic (start = none): while it is not up, class_down"
    if peer.is_any:
        return f"while child {child} is not up, the packet waits for {peer.name} to call"
    by = "by this packet" if peer.start is Start.TRAFFIC else "as soon as mplsec runs"
    return f"child {child} is started {by} if it is not up; the packet waits for it"


def _why_too_big(path: PathOctets) -> str:
    return (
        f"over {path.name} the label stack and the packet have {path.mpls_octets} octets, the Tunnel MTU is "
        f"{path.tunnel_mtu}: {path.remedy or 'dropped there, and ICMP tells the sender'}"
    )
