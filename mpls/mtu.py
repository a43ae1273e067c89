"""The Tunnel MTU: every octet between the link and the customer's packet, by name (RFC 4023 5.1, RFC 4303 2).

Knows nothing of path MTU discovery: the link MTU is handed in.

    link MTU = [access] + [lost] + outer IP + [UDP] + ESP header + IV
               + ( [inner IP] + [GRE or UDP 6635] + labels + packet + padding + trailer ) + ICV

Access is what the line takes before IP (PPPoE: 8); lost is what a path that is narrower than the link takes.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

from mpls.encapsulation import UDP_HEADER_OCTETS, Encapsulation, Mode
from mpls.ip import IPV4_HEADER_OCTETS, IPV6_HEADER_OCTETS
from mpls.labels import ENTRY_OCTETS

ESP_HEADER_OCTETS: Final = 8
ESP_TRAILER_OCTETS: Final = 2
ESP_ALIGNMENT_OCTETS: Final = 4
LOWEST_LINK_MTU: Final = {False: 576, True: 1280}
"""No path MTU below this is believed (key: IPv6 underlay). An ICMP message that says less may be forged."""

_MOVED: Final = "IP header of the packet, now the outer one"


@dataclass(frozen=True, slots=True)
class Budget:
    """Where the octets of a full-size packet go. All but `link_mtu` and `vrf_mtu` is in between.

    `padding` is what alignment leaves over at this size: a full-size packet needs no more, a smaller one
    up to one block less one. What ESP encrypts is a multiple of `alignment`. `inner_ip` is negative where the packet's
    own header becomes the outer one: plain IP in transport mode.
    """

    link_mtu: int
    access: int
    lost: int
    outer_ip: int
    udp: int
    esp_header: int
    iv: int
    inner_ip: int
    shim: int
    labels: int
    vrf_mtu: int
    padding: int
    esp_trailer: int
    icv: int
    alignment: int = ESP_ALIGNMENT_OCTETS

    @property
    def tunnel_mtu(self) -> int:
        """The largest MPLS packet, labels included (RFC 4023 5.1)."""
        return self.labels + self.vrf_mtu

    @property
    def payload_octets(self) -> int:
        """The largest payload of ESP, inner IP header and TFC padding included."""
        return self.inner_ip + self.shim + self.tunnel_mtu

    @property
    def path_mtu(self) -> int:
        """The largest IP packet of the path, headers included."""
        return self.link_mtu - self.access - self.lost

    @property
    def overhead(self) -> int:
        """What a full-size packet of the customer gains on its way."""
        return self.link_mtu - self.vrf_mtu

    def of_packet(self, octet_count: int, label_octets: int) -> Self:
        """The same for one packet of the VRF under so many octets of labels; `link_mtu` is their sum."""
        content = self.inner_ip + self.shim + label_octets + octet_count + self.esp_trailer
        padding = -content % self.alignment
        clear = self.access + self.outer_ip + self.udp + self.esp_header + self.iv + self.icv
        return replace(
            self,
            link_mtu=clear + content + padding,
            lost=0,
            labels=label_octets,
            vrf_mtu=octet_count,
            padding=padding,
        )

    def rows(self) -> tuple[tuple[str, int], ...]:
        """(name, octets) in the order of the wire; they add up to `link_mtu`."""
        return (
            ("access line (PPPoE and the like)", self.access),
            ("lost to a narrower path", self.lost),
            ("outer IP header", self.outer_ip),
            ("UDP header (RFC 3948)", self.udp),
            ("ESP SPI and sequence number", self.esp_header),
            ("ESP IV", self.iv),
            ("inner IP header (tunnel mode)" if self.inner_ip >= 0 else _MOVED, self.inner_ip),
            ("GRE or UDP header of the encapsulation", self.shim),
            ("label stack", self.labels),
            ("packet of the VRF", self.vrf_mtu),
            ("ESP padding", self.padding),
            ("ESP pad length and next header", self.esp_trailer),
            ("ESP ICV", self.icv),
        )


def budget(
    link_mtu: int,
    *,
    ipv6_underlay: bool,
    udp_encapsulation: bool,
    iv_octets: int,
    icv_octets: int,
    block_octets: int,
    encapsulation: Encapsulation,
    mode: Mode,
    labels: int = 1,
    ipv6_inner: bool = False,
    access_octets: int = 0,
    path_mtu: int | None = None,
) -> Budget:
    """The budget of one Child SA. `labels` counts entries and is 0 for encapsulation none whatever is given.

    `path_mtu`: the largest IP packet that the path is known to carry, if that is less than the link would.

    ValueError when nothing is left for a packet.
    """
    is_labelled = encapsulation is not Encapsulation.NONE
    outer_ip = IPV6_HEADER_OCTETS if ipv6_underlay else IPV4_HEADER_OCTETS
    udp = UDP_HEADER_OCTETS if udp_encapsulation else 0
    inner_ip = 0
    if mode is Mode.TUNNEL and is_labelled:
        inner_ip = IPV6_HEADER_OCTETS if ipv6_inner else IPV4_HEADER_OCTETS
    elif mode is Mode.TRANSPORT and not is_labelled:
        inner_ip = -outer_ip
    label_octets = ENTRY_OCTETS * labels if is_labelled else 0
    clear = outer_ip + udp + ESP_HEADER_OCTETS + iv_octets + icv_octets
    usable = link_mtu - access_octets
    if path_mtu is not None:
        usable = min(usable, path_mtu)
    sealed = max(0, usable - clear)
    # What ESP encrypts, trailer included, is a multiple of the cipher's block and of 4 octets (RFC 4303 2.4).
    alignment = max(block_octets, ESP_ALIGNMENT_OCTETS)
    padding = sealed % alignment
    vrf_mtu = sealed - padding - ESP_TRAILER_OCTETS - inner_ip - encapsulation.shim_octets - label_octets
    if vrf_mtu <= 0:
        raise ValueError(f"a link MTU of {link_mtu} leaves nothing for a packet of the VRF")
    return Budget(
        link_mtu,
        access_octets,
        link_mtu - access_octets - usable,
        outer_ip,
        udp,
        ESP_HEADER_OCTETS,
        iv_octets,
        inner_ip,
        encapsulation.shim_octets,
        label_octets,
        vrf_mtu,
        padding,
        ESP_TRAILER_OCTETS,
        icv_octets,
        alignment,
    )
