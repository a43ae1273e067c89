"""The inside of a configuration for `mplsec check`: every attachment, what lies behind it, and what leaks.

Reads the configuration only; it must not look at interfaces, peers or the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_interface

from endpoint.config import AttachConfig, Config

__all__ = ["AttachmentRow", "attachment_rows", "leak_sentences"]


@dataclass(frozen=True, slots=True)
class AttachmentRow:
    """One attachment. `link`: what carries it, and where; `labels`: what becomes of labels there."""

    vrf: str
    name: str
    kind: str
    link: str
    labels: str
    behind: str


def attachment_rows(config: Config) -> Iterator[AttachmentRow]:
    for vrf in config.vrfs:
        for attach in vrf.attach:
            own = [str(ip_interface(address).network) for address in attach.address]
            behind = [*own, *map(str, attach.prefixes)]
            behind += [str(prefix) for prefix in vrf.announce if str(prefix) not in behind]
            yield AttachmentRow(
                vrf.name, attach.name, attach.kind.value, _link(attach), _labels(attach), " ".join(behind)
            )


def leak_sentences(config: Config) -> Iterator[str]:
    for leak in config.leaks:
        yield f"VRF {leak.target} reaches {' '.join(map(str, leak.prefixes))} in VRF {leak.source}"


def _link(attach: AttachConfig) -> str:
    words: list[str] = []
    side = attach.labelled
    if side is not None and side.tunnel is not None:
        words.append(f"{side.tunnel.local} to {side.tunnel.peer}")
    if side is not None and side.device is not None:
        words.append(side.device)
    if side is not None and side.next_hop:
        words.append(f"to {side.next_hop}")
    if attach.netns is not None:
        words.append(f"in {attach.netns}")
    return " ".join(words)


def _labels(attach: AttachConfig) -> str:
    side = attach.labelled
    if side is None:
        return ""
    ranges = [str(low) if low == high else f"{low}-{high}" for low, high in side.local_labels]
    taken = " ".join(ranges) or "all but those of peers"
    sent = "explicit null" if side.peer_label is None else str(side.peer_label)
    return f"{side.labels.value}: takes {taken}, sends {'them, else ' if side.labels == 'keep' else ''}{sent}"
