"""A PE as one would explain it at a blackboard: dictionaries and loops, and no thought of speed (RFC 4023, 4364).

The compiled tables, caches and shortcuts of `outbound` and `inbound` are held equal to it. It takes apart octets by
itself, with `ipaddress` and `struct`; of `mpls` it knows the values that configurations are made of, and the names of
drops.
"""

import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from mpls.child_policy import EgressPolicy
from mpls.classes import LabelClass
from mpls.crypto_map import Bypass, Discard, Match, Rule
from mpls.drops import DropReason
from mpls.identifiers import ClassId
from mpls.models import QosModel, TtlModel
from mpls.vrf import Urpf, Vrf

Network = IPv4Network | IPv6Network
Outcome = tuple[object, ...]
"""("labelled", peer, VRF, class, label, tc, outer DSCP, ECN, outer TTL, body) or ("bypass",) or ("drop", reason)."""


@dataclass(frozen=True)
class Packet:
    """What an IP packet says; ports only of UDP, which is all that the tests send."""

    source: str
    destination: str
    dscp: int
    ecn: int
    ttl: int
    source_port: int
    destination_port: int

    @classmethod
    def read(cls, octets: bytes) -> "Packet":
        if octets[0] >> 4 == 4:
            source, destination = octets[12:16], octets[16:20]
            tos, ttl, start = octets[1], octets[8], 20
        else:
            source, destination = octets[8:24], octets[24:40]
            tos, ttl, start = octets[0] << 4 & 0xF0 | octets[1] >> 4, octets[7], 40
        ports = struct.unpack_from("!HH", octets, start)
        return cls(str(ip_address(source)), str(ip_address(destination)), tos >> 2, tos & 3, ttl, *ports)


def with_lower_ttl(octets: bytes) -> bytes:
    if octets[0] >> 4 == 6:
        return octets[:7] + bytes([octets[7] - 1]) + octets[8:]
    header = bytearray(octets[:20])
    header[8] -= 1
    header[10:12] = bytes(2)
    total = sum(struct.unpack("!10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(header) + octets[20:]


@dataclass
class ReferencePe:
    """`routes`: (VRF, class, prefix, peer, source) -> label or None; the rest as its name says."""

    vrfs: dict[str, Vrf]
    rules: list[Rule]
    preference: list[str]
    routes: dict[tuple[str, ClassId, Network, str, str], int | None] = field(default_factory=dict)
    vrf_labels: dict[tuple[str, str, ClassId], int] = field(default_factory=dict)
    candidates: set[tuple[str, ClassId, Network, str]] = field(default_factory=set)
    labels: dict[int, tuple[str, str, ClassId, int]] = field(default_factory=dict)
    """Given out: label -> (peer, VRF, class, payload mask)."""

    def forward(self, attachment: str, octets: bytes) -> Outcome:
        vrf = next(vrf for vrf in self.vrfs.values() if attachment in [a.name for a in vrf.attachments])
        packet = Packet.read(octets)
        if not self._source_is_right(vrf, attachment, packet.source):
            return "drop", DropReason.URPF
        rule = next(
            (rule for rule in self.rules if self._holds(rule.match, attachment, vrf.name, packet)), None
        )
        if rule is None:
            return "drop", DropReason.NO_CLASS
        if isinstance(rule.action, Discard):
            return "drop", rule.action.reason
        if isinstance(rule.action, Bypass):
            return ("bypass",)
        own = [str(address.ip) for a in vrf.attachments for address in a.addresses]
        body = octets
        if packet.source not in own:
            if packet.ttl == 0:
                return "drop", DropReason.TTL
            if packet.ttl == 1:
                return "drop", DropReason.TTL_EXPIRED
            body = with_lower_ttl(octets)
        name, class_id, peer = rule.action.vrf, rule.action.label_class, rule.action.peer
        found = self._route(name, class_id, packet.destination, peer)
        if isinstance(found, DropReason):
            return "drop", found
        label_class = self._label_class(name, class_id)
        tc = label_class.tc[0] if label_class.tc else packet.dscp >> 3
        outer = packet.dscp if label_class.outer_dscp is None else label_class.outer_dscp
        if label_class.qos_model is QosModel.UNIFORM:
            outer = packet.dscp
        ttl = (Packet.read(body).ttl or 1) if self.vrfs[name].ttl_model is TtlModel.UNIFORM else 0
        return "labelled", found[0], name, class_id, found[1], tc, outer, packet.ecn, ttl, body

    def _label_class(self, vrf: str, class_id: ClassId) -> LabelClass:
        return next(one for one in self.vrfs[vrf].classes if one.id == class_id)

    def _source_is_right(self, vrf: Vrf, attachment: str, source: str) -> bool:
        behind: dict[Network, set[str]] = {}
        for one in vrf.attachments:
            for prefix in [*one.prefixes, *(address.network for address in one.addresses)]:
                behind.setdefault(prefix, set()).add(one.name)
        for prefix in vrf.announce:
            behind.setdefault(prefix, {one.name for one in vrf.attachments})
        longest = max((p for p in behind if contains(p, source)), key=lambda p: p.prefixlen, default=None)
        if vrf.urpf is Urpf.STRICT:
            return longest is not None and attachment in behind[longest]
        if vrf.urpf is Urpf.LOOSE:
            return longest is not None or any(
                name == vrf.name and contains(prefix, source) for name, _, prefix, _, _ in self.routes
            )
        return True

    @staticmethod
    def _holds(match: Match, attachment: str, vrf: str, packet: Packet) -> bool:
        def within(networks: tuple[Network, ...] | None, address: str) -> bool:
            return networks is None or any(contains(network, address) for network in networks)

        def among(ports: tuple[int, int] | None, port: int) -> bool:
            return ports is None or port in range(ports[0], ports[1] + 1)

        return all(
            (
                match.attachment in (None, attachment),
                match.vrf in (None, vrf),
                match.labelled in (None, False),
                match.labels is None and match.tc is None and match.bottom is None,
                match.dscp is None or packet.dscp in match.dscp,
                match.protocol in (None, 17),
                within(match.sources, packet.source),
                within(match.destinations, packet.destination),
                among(match.source_ports, packet.source_port),
                among(match.destination_ports, packet.destination_port),
            )
        )

    def _route(
        self, vrf: str, class_id: ClassId, destination: str, peer: str | None
    ) -> tuple[str, int] | DropReason:
        mine = {
            (prefix, name, source): label
            for (of_vrf, of_class, prefix, name, source), label in self.routes.items()
            if (of_vrf, of_class) == (vrf, class_id)
            and contains(prefix, destination)
            and peer in (None, name)
        }
        if mine:
            length = max(prefix.prefixlen for prefix, _, _ in mine)
            best = [(name, source) for prefix, name, source in mine if prefix.prefixlen == length]
            for name, source in sorted(best, key=lambda one: (self._rank(one[0]), one[1] != "static")):
                (label,) = [
                    label
                    for (prefix, of, by), label in mine.items()
                    if (prefix.prefixlen, of, by) == (length, name, source)
                ]
                if label is None:
                    label = self.vrf_labels.get((name, vrf, class_id))
                if label is not None:
                    return name, label
            return DropReason.NO_LABEL
        may = any(
            (of_vrf, of_class) == (vrf, class_id) and contains(prefix, destination) and peer in (None, name)
            for of_vrf, of_class, prefix, name in self.candidates
        )
        return DropReason.NO_LABEL if may else DropReason.NO_ROUTE

    def _rank(self, peer: str) -> tuple[int, str]:
        known = self.preference.index(peer) if peer in self.preference else len(self.preference)
        return known, peer

    def deliver(self, policy: EgressPolicy, payload: bytes) -> Outcome:
        """What a child of MPLS-in-IP in transport mode delivers: ("deliver", VRF, class, packet) or a drop.

        One ordinary entry, depth 1 to 1; the rest of the egress check has tests of its own.
        """
        if len(payload) < 4:
            return "drop", DropReason.STACK_TRUNCATED
        (word,) = struct.unpack_from("!I", payload)
        label, tc, bottom, ttl = word >> 12, word >> 9 & 7, word >> 8 & 1, word & 0xFF
        if not bottom:
            return "drop", DropReason.STACK_DEPTH
        if label < 16:
            return "drop", DropReason.SPECIAL_LABEL
        if policy.map is None or not any(low <= label <= high for low, high in policy.map.ranges):
            return "drop", DropReason.LABEL_RANGE
        if label not in self.labels:
            return "drop", DropReason.LABEL_UNBOUND
        peer, vrf, class_id, payload_mask = self.labels[label]
        if peer != policy.peer or (policy.strict and (vrf, class_id) != (policy.vrf, policy.label_class)):
            return "drop", DropReason.LABEL_FOREIGN
        if tc not in [value for value in range(8) if policy.map.tc >> value & 1]:
            return "drop", DropReason.TC
        if ttl == 0:
            return "drop", DropReason.TTL
        if ttl == 1:
            return "drop", DropReason.TTL_EXPIRED
        body = payload[4:]
        version = body[0] >> 4 if body else 0
        if not ((version == 4 and payload_mask & 1) or (version == 6 and payload_mask & 2)):
            return "drop", DropReason.PAYLOAD
        packet = Packet.read(body)
        own = [str(a.ip) for one in self.vrfs[vrf].attachments for a in one.addresses]
        if packet.destination in own:
            return "deliver", vrf, class_id, body
        if packet.ttl == 0:
            return "drop", DropReason.TTL
        if packet.ttl == 1:
            return "drop", DropReason.TTL_EXPIRED
        return "deliver", vrf, class_id, with_lower_ttl(body)


def contains(network: Network, address: str) -> bool:
    one = ip_address(address)
    return one.version == network.version and one in network


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)
