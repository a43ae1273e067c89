"""The label stack: RFC 3032 2.1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS

from mpls.drops import DropReason
from mpls.labels import MAX_ENTRIES, MAX_LABEL, LabelEntry, LabelStack, label_text

labels = st.integers(0, MAX_LABEL)
tcs = st.integers(0, 7)
ttls = st.integers(0, 255)


@st.composite
def stacks(draw: st.DrawFn) -> LabelStack:
    last = draw(st.integers(0, MAX_ENTRIES - 1))
    return LabelStack(
        tuple(LabelEntry(draw(labels), draw(tcs), n == last, draw(ttls)) for n in range(last + 1))
    )


def test_entry_has_the_layout_of_rfc_3032() -> None:
    assert LabelEntry(100001, 5, True, 64).encode() == bytes.fromhex("186a1b40")
    assert LabelEntry.parse(bytes.fromhex("186a1b40")) == LabelEntry(100001, 5, True, 64)


@given(labels, tcs, st.booleans(), ttls)
def test_scapy_reads_an_entry_alike(label: int, tc: int, bottom: bool, ttl: int) -> None:
    octets = LabelEntry(label, tc, bottom, ttl).encode()
    assert bytes(MPLS(label=label, cos=tc, s=int(bottom), ttl=ttl)) == octets
    theirs = MPLS(octets)
    assert (theirs.label, theirs.cos, bool(theirs.s), theirs.ttl) == (label, tc, bottom, ttl)


@given(stacks(), st.binary(max_size=8))
def test_stack_survives_the_wire_and_leaves_the_body(stack: LabelStack, body: bytes) -> None:
    octets = stack.encode() + body
    assert LabelStack.parse(octets) == stack
    assert octets[stack.octet_count :] == body


@given(stacks(), st.data())
def test_stack_cut_anywhere_is_truncated(stack: LabelStack, data: st.DataObject) -> None:
    octets = stack.encode()
    cut = data.draw(st.integers(0, len(octets) - 1))
    assert LabelStack.parse(octets[:cut]) is DropReason.STACK_TRUNCATED


@given(st.binary(max_size=80), st.integers(1, MAX_ENTRIES))
def test_any_octets_give_a_bounded_stack_or_a_reason(octets: bytes, bound: int) -> None:
    stack = LabelStack.parse(octets, bound)
    if isinstance(stack, LabelStack):
        assert len(stack) <= bound and octets.startswith(stack.encode())
    else:
        assert stack in (DropReason.STACK_TRUNCATED, DropReason.STACK_DEPTH)


def test_stack_deeper_than_the_bound_is_refused() -> None:
    two = LabelStack.push(100, 200).encode()
    assert LabelStack.parse(two, 1) is DropReason.STACK_DEPTH
    endless = LabelEntry(100, bottom=False).encode() * 1000
    assert LabelStack.parse(endless, 1000) is DropReason.STACK_DEPTH


@pytest.mark.parametrize(
    "values", [{"label": -1}, {"label": MAX_LABEL + 1}, {"tc": 8}, {"ttl": 256}, {"ttl": -1}]
)
def test_entry_out_of_range_cannot_be_made(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no label stack entry"):
        LabelEntry(**{"label": 16, **values})  # type: ignore[arg-type]


def test_short_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="4 octets"):
        LabelEntry.parse(b"\0\0\1")


def test_bottom_of_stack_stands_at_the_end_only() -> None:
    for entries in ((LabelEntry(16), LabelEntry(17)), (LabelEntry(16, bottom=False),)):
        with pytest.raises(ValueError, match="bottom-of-stack"):
            LabelStack(entries)
    with pytest.raises(ValueError, match="1 to 16"):
        LabelStack(())
    with pytest.raises(ValueError, match="1 to 16"):
        LabelStack.push(*range(16, 16 + MAX_ENTRIES + 1))


def test_special_labels_have_names() -> None:
    assert label_text(101) == "101"
    assert label_text(7) == "7 (entropy-label-indicator)"
    assert label_text(5) == "5 (unassigned)"
    assert str(LabelStack.push(1, 101, tc=5)) == ("1 (router-alert) TC 5 S 0 TTL 255 / 101 TC 5 S 1 TTL 255")
