"""`mplsec explain`: an explanation as text.

It must not know anything of its own: all is in the explanation.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from endpoint.explain import Explanation

__all__ = ["render_explanation"]

_WIDTH_COLUMNS: Final = 100


def render_explanation(found: Explanation) -> str:
    """What comes of one packet, line by line, and a table of every octet over every path."""
    output = StringIO()
    console = Console(file=output, width=_WIDTH_COLUMNS, color_system=None, highlight=False, markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for row in _rows(found):
        table.add_row(*row)
    console.print(table)
    if found.paths:
        console.print(_octets(found))
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines())


def _rows(found: Explanation) -> Iterator[tuple[str, str]]:
    yield f"packet {found.number}", found.packet
    yield "comes in by", f"attachment {found.attachment}, VRF {found.vrf}"
    if found.rule is not None:
        rule = found.rule
        yield "rule", f"{rule.number} {rule.name}: {rule.match} -> {rule.action}"
    if found.label_class is not None:
        yield "class", str(found.label_class)
    if found.child is not None:
        label = found.label_is if found.label is None else f"{found.label} ({found.label_is})"
        yield "route", f"{found.prefix} by peer {found.peer}"
        yield "label", str(label) + ("" if found.tc is None else f", TC {found.tc}")
        yield "child", f"{found.child} of peer {found.peer}, {found.mode} mode"
        headers = sorted({path.next_header for path in found.paths})
        yield "ESP carries", f"{found.encapsulation}, next header {' or '.join(map(str, headers))}"
        yield "outer DSCP", str(found.outer_dscp)
    verdict = found.outcome + ("" if found.reason is None else f": {found.reason}")
    if found.outcome == "protected" and found.reason is not None:
        verdict = f"protected, but {found.reason} over some paths"
    if found.leaves_by is not None:
        verdict += f", leaves by attachment {found.leaves_by}"
    yield "outcome", verdict
    for number, sentence in enumerate(found.why):
        yield "because" if number == 0 else "", sentence


def _octets(found: Explanation) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("octets")
    for path in found.paths:
        table.add_column(path.name, justify="right")
    for row in zip(*(path.octets for path in found.paths), strict=True):
        table.add_row(row[0][0], *(str(count) for _, count in row))
    table.add_section()
    table.add_row("on the wire", *(str(path.total) for path in found.paths))
    table.add_row("label stack and packet", *(str(path.mpls_octets) for path in found.paths))
    table.add_row("Tunnel MTU (RFC 4023 5.1)", *(str(path.tunnel_mtu) for path in found.paths))
    table.add_row("fits", *("yes" if path.fits else "no" for path in found.paths))
    table.add_row("ESP proposal", *(path.esp for path in found.paths))
    return table
