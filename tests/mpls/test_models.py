"""What of an outer header goes inward: Figure 4 of RFC 6040, the models of RFC 3443 and RFC 2983."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from mpls.drops import DropReason
from mpls.ip import remark, traffic_class_of, ttl_of
from mpls.models import Ecn, OuterFields, QosModel, TtlModel, copy_inward, is_alarming

FIGURE_4 = """
            +---------+---------+------------+------------+------------+
            | Inner   | Not-ECT | ECT(0)     | ECT(1)     |     CE     |
            | Not-ECT | Not-ECT |Not-ECT(!!!)|Not-ECT(!!!)| <drop>(!!!)|
            |  ECT(0) |  ECT(0) | ECT(0)     | ECT(1)     |     CE     |
            |  ECT(1) |  ECT(1) | ECT(1) (!) | ECT(1)     |     CE     |
            |    CE   |      CE |     CE     |     CE(!!!)|     CE     |
"""
CODES = {"Not-ECT": 0, "ECT(1)": 1, "ECT(0)": 2, "CE": 3}


def figure() -> dict[tuple[int, int], tuple[int | None, bool]]:
    """(inner, outer) -> (what goes on, whether it is alarming), read from the RFC's own drawing."""
    rows = [[cell.strip() for cell in line.strip(" |").split("|")] for line in FIGURE_4.splitlines()[2:]]
    cells = {}
    for inner, *outcomes in rows[1:]:
        for outer, text in zip(rows[0][1:], outcomes, strict=True):
            name = text.replace("(!!!)", "").replace("(!)", "").strip()
            cells[CODES[inner], CODES[outer]] = CODES.get(name), "(!!!)" in text
    return cells


def ip(tos: int = 0, ttl: int = 64, *, ipv6: bool = False) -> bytes:
    network = IPv6(tc=tos, hlim=ttl) if ipv6 else IP(tos=tos, ttl=ttl)
    return bytes(network / UDP(sport=1, dport=2) / b"data")


def inward(packet: bytes, outer: OuterFields, **models: Any) -> list[bytes] | DropReason:
    settings = {"ecn": Ecn.OFF, "qos": QosModel.PIPE, "ttl": TtlModel.PIPE, "label_ttl": 255, **models}
    return copy_inward([packet], outer, **settings)


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize(("pair", "outcome"), figure().items())
def test_every_cell_of_figure_4(pair: tuple[int, int], outcome: tuple[int | None, bool], ipv6: bool) -> None:
    (inner, outer), (marked, alarming) = pair, outcome
    packet, fields = ip(0xB8 | inner, ipv6=ipv6), OuterFields(outer)
    assert is_alarming(packet, fields) is alarming
    result = inward(packet, fields, ecn=Ecn.COPY)
    assert result == (DropReason.ECN if marked is None else [ip(0xB8 | marked, ipv6=ipv6)])
    assert inward(packet, fields) == [packet], "in compatibility mode nothing of the outer header counts"


@pytest.mark.parametrize("ipv6", [False, True])
def test_only_the_uniform_model_takes_the_dscp_of_the_outer_header(ipv6: bool) -> None:
    packet, zeroed = ip(0xB9, ipv6=ipv6), OuterFields(0, 60)
    assert inward(packet, zeroed) == inward(packet, zeroed, qos=QosModel.SHORT_PIPE) == [packet]
    assert inward(packet, zeroed, qos=QosModel.UNIFORM) == [ip(0x01, ipv6=ipv6)], "and leaves ECN alone"


@pytest.mark.parametrize(
    ("hops", "label_ttl", "outer_ttl", "left"),
    [
        (63, 255, 255, 63),
        (63, 64, 60, 59),
        (63, 50, 60, 49),
        (63, 0, 60, 59),  # plain IP
        (63, 64, 0, 63),  # the outer one is not known
        (5, 200, 250, 5),  # never raised
        (63, 64, 1, None),
        (63, 1, 60, None),
    ],
)
def test_uniform_ttl_is_the_lowest_of_all_and_never_rises(
    hops: int, label_ttl: int, outer_ttl: int, left: int | None
) -> None:
    packet, outer = ip(ttl=hops), OuterFields(0, outer_ttl)
    result = inward(packet, outer, ttl=TtlModel.UNIFORM, label_ttl=label_ttl)
    assert result == (DropReason.TTL_EXPIRED if left is None else [ip(ttl=left)])
    assert inward(packet, outer, label_ttl=label_ttl) == [packet]


@given(st.integers(0, 255), st.integers(1, 255), st.integers(0, 255), st.integers(1, 255), st.booleans())
def test_remarked_packet_is_as_if_it_was_made_so(
    tos: int, ttl: int, new_tos: int, new_ttl: int, ipv6: bool
) -> None:
    packet = remark(ip(tos, ttl, ipv6=ipv6), new_tos, new_ttl)
    assert packet == ip(new_tos, new_ttl, ipv6=ipv6)
    assert (traffic_class_of(packet), ttl_of(packet)) == (new_tos, new_ttl)
