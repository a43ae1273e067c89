"""Labelled attachments: the links to inner routers, by Ethernet frames or by RFC 4023 packets, and who shares them.

It must not know routes or Child SAs: packets with labels go in and out by callables.

    mpls                       Ethernet | label stack | packet          endpoint/frames.py
    mpls-in-ip, mpls-in-gre    IP | [GRE] | label stack | packet        a raw socket where the router is

Several attachments, of different VRFs, may share a link: the topmost label tells whose a packet is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import groupby
from typing import Final, Protocol

from endpoint.config import AttachConfig, AttachmentKind, Config, FrontDoor, LabelledConfig
from endpoint.frames import FrameLink
from endpoint.raw import RawSocket
from endpoint.sockets import SocketDrop
from endpoint.tables import build_attachment
from mpls.drops import DropReason
from mpls.encapsulation import GRE, MPLS_IN_IP, GreOptions, strip_gre
from mpls.inbound import check_cleartext
from mpls.inside import attachment_of
from mpls.models import OuterFields

__all__ = ["Inside", "TunnelLink"]

_GRE_MPLS: Final = bytes.fromhex("00008847")
_OnPackets = Callable[[list[bytes]], None]


class TunnelLink:
    """RFC 4023 packets of one inner router. What others send to the same address is MPLS in clear (8.1)."""

    def __init__(
        self, protocol: int, peer: str, gre: GreOptions, on_packets: _OnPackets, refused: Counter[str]
    ) -> None:
        self._protocol, self._peer, self._gre = protocol, peer, gre
        self._on_packets, self._refused = on_packets, refused
        self._raw: RawSocket

    @classmethod
    def open(
        cls,
        protocol: int,
        local: str,
        peer: str,
        *,
        on_packets: _OnPackets,
        refused: Counter[str],
        gre: GreOptions,
        netns: str | None = None,
        device: str | None = None,
    ) -> TunnelLink:
        """`refused` counts what is not taken, by reason. SetupError with the remedy."""
        link = cls(protocol, peer, gre, on_packets, refused)
        door = FrontDoor(netns=netns, device=device)
        link._raw = RawSocket.open(local, protocol, on_packets=link._on_raw, front_door=door)
        return link

    def send(self, octets: bytes) -> None:
        """Send a label stack and what it labels; the GRE header has no options (RFC 4023 4)."""
        self._raw.send_batch([octets if self._protocol == MPLS_IN_IP else _GRE_MPLS + octets], self._peer)

    def close(self) -> None:
        self._raw.close()

    @property
    def drops(self) -> Counter[SocketDrop]:
        return self._raw.drops

    def _on_raw(self, batch: list[tuple[bytes, str, str, OuterFields]]) -> None:
        taken: list[bytes] = []
        for payload, source, _, _ in batch:
            if source != self._peer:
                reason = check_cleartext(self._protocol, payload, source, (self._peer,))
                self._refused[reason or DropReason.NOT_MPLS] += 1
                continue
            opened = payload if self._protocol == MPLS_IN_IP else strip_gre(payload, self._gre)
            if isinstance(opened, DropReason):
                self._refused[opened] += 1
            else:
                taken.append(opened)
        if taken:
            self._on_packets(taken)


class _Link(Protocol):
    @property
    def drops(self) -> Counter[SocketDrop]: ...
    def send(self, octets: bytes) -> None: ...
    def close(self) -> None: ...


class Inside:
    """All links of a configuration. `open`, then `deliver`; `close` at the end."""

    def __init__(self) -> None:
        self._links: list[_Link] = []
        self._link_of: dict[str, _Link] = {}

    @classmethod
    def open(
        cls, config: Config, receive: Callable[[str, list[bytes]], None], refused: Counter[str]
    ) -> Inside:
        """`receive(attachment, packets)` takes label stacks with what they label; `refused` counts the rest.

        SetupError with the remedy; then nothing is left open.
        """
        inside = cls()
        links: dict[tuple[object, ...], list[AttachConfig]] = {}
        for attach in (one for vrf in config.vrfs for one in vrf.attach if one.labelled is not None):
            links.setdefault(attach.link, []).append(attach)
        try:
            for sharing in links.values():
                link = _open(sharing, receive, refused)
                inside._links.append(link)
                inside._link_of.update((attach.name, link) for attach in sharing)
        except BaseException:
            inside.close()
            raise
        return inside

    def has(self, attachment: str) -> bool:
        return attachment in self._link_of

    def deliver(self, attachment: str, octets: bytes) -> None:
        """Hand a label stack and what it labels to the router of an attachment."""
        self._link_of[attachment].send(octets)

    def drops(self) -> Counter[str]:
        """What the links could not send or take, by reason."""
        total: Counter[str] = Counter()
        for link in self._links:
            total.update({reason.value: count for reason, count in link.drops.items()})
        return total

    def close(self) -> None:
        for link in self._links:
            link.close()
        self._links.clear()
        self._link_of.clear()


def _open(
    sharing: list[AttachConfig], receive: Callable[[str, list[bytes]], None], refused: Counter[str]
) -> _Link:
    first = sharing[0]
    side = first.labelled or LabelledConfig()
    sides = [build_attachment(attach) for attach in sharing]

    def on_packets(batch: list[bytes]) -> None:
        for name, packets in groupby(batch, lambda octets: attachment_of(sides, octets).name):
            receive(name, list(packets))

    if first.kind is AttachmentKind.MPLS or side.tunnel is None:
        device = side.device or first.name
        return FrameLink.open(device, side.next_hop, netns=first.netns, on_frames=on_packets)
    return TunnelLink.open(
        MPLS_IN_IP if first.kind is AttachmentKind.MPLS_IN_IP else GRE,
        side.tunnel.local,
        side.tunnel.peer,
        on_packets=on_packets,
        refused=refused,
        gre=side.gre,
        netns=first.netns,
        device=side.device,
    )
