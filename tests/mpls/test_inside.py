"""Which attachment of a shared link a packet is for, and which labels a router on the inside gets."""

from ipaddress import ip_network

import pytest

from mpls.crypto_map import compile_default
from mpls.drops import DropReason
from mpls.hop import Drop
from mpls.inside import attachment_of, stack_toward
from mpls.ip import build_ip
from mpls.label_space import LabelSpace
from mpls.labels import LabelEntry, LabelStack
from mpls.outbound import Labelled, Outbound
from mpls.routes import ForwardingTable
from mpls.vrf import Attachment, Labels, Urpf, Vrf

RED = Attachment("red", labels=Labels.POP, local_labels=((301, 301), (310, 319)), peer_label=401)
BLUE = Attachment("blue", labels=Labels.POP, local_labels=((302, 302),))
V4 = build_ip(bytes((10, 1, 0, 9)), bytes((10, 2, 0, 9)), 17, bytes(8))
V6 = build_ip(bytes(15) + b"\1", bytes(15) + b"\2", 17, bytes(8))


@pytest.mark.parametrize(
    ("label", "name"), [(301, "red"), (315, "red"), (302, "blue"), (303, "red"), (0, "red")]
)
def test_topmost_label_says_whose_a_packet_is_and_nobodys_goes_where_it_is_refused(
    label: int, name: str
) -> None:
    octets = LabelStack.push(label, 302).encode() + V4
    assert attachment_of((RED, BLUE), octets).name == name
    assert attachment_of((RED, BLUE), b"\0").name == "red"


def test_router_gets_kept_labels_its_own_label_or_explicit_null() -> None:
    kept = LabelStack.push(7000, 7001).encode()
    assert stack_toward(RED, kept, 5, V4) == kept
    assert stack_toward(RED, b"", 5, V4) == LabelEntry(401, 5, True, 255).encode()
    assert stack_toward(BLUE, b"", 5, V4) == LabelEntry(0, 5, True, 255).encode()
    assert stack_toward(BLUE, b"", 0, V6) == LabelEntry(2, 0, True, 255).encode()


def outcome(label: int) -> DropReason | None:
    space = LabelSpace(1000, 1999)
    space.reserve(310, "pe2", "red", 0)
    vrf = Vrf("red", "name:red", urpf=Urpf.OFF, attachments=(RED,))
    table = ForwardingTable()
    table.add("pe2", "red", 0, ip_network("10.2.0.0/16"), 501)
    walk = Outbound([vrf], compile_default([vrf], labelled=["red"]), table, space.is_for_peers)
    result = walk.forward_labelled("red", LabelStack.push(label, 16).encode() + V4)
    assert isinstance(result, Drop | Labelled)
    return result.reason if isinstance(result, Drop) else None


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (301, None),
        (319, None),
        (320, DropReason.LABEL_UNBOUND),
        (310, DropReason.CLEARTEXT_MPLS),
        (1000, DropReason.CLEARTEXT_MPLS),
        (1999, DropReason.CLEARTEXT_MPLS),
        (2000, DropReason.LABEL_UNBOUND),
    ],
)
def test_label_of_a_secured_peer_is_not_taken_in_clear(label: int, reason: DropReason | None) -> None:
    """RFC 4023 8.1: an unprotected MPLS packet whose top label is in that set MUST be discarded."""
    assert outcome(label) == reason
