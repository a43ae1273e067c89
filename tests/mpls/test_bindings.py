"""LABEL_BINDING and LABEL_STATUS: golden octets, what spoils a message, what an entry (WIRE 5.1, 5.4, 9)."""

from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ike.wire.payloads import NotifyPayload, encode_payloads
from mpls import capability, cbor
from mpls.bindings import (
    BadEntry,
    BindingError,
    Entry,
    LabelBinding,
    LabelStatus,
    Operation,
    Prefix,
    Refusal,
    Status,
)
from mpls.identifiers import VrfId
from tests.mpls.golden import GOLDEN, golden_notify

RD = VrfId.parse_text("rd:65000:100")
EPOCH = 0x6921DE00
IPV4, IPV6 = IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8:1::/48")

GOLDEN_BINDINGS = {
    "add": LabelBinding(EPOCH, 1, Operation.ADD, RD, 10, (Entry(100001, 3, (IPV4, IPV6)), Entry(100002, 1))),
    "withdraw": LabelBinding(EPOCH, 2, Operation.WITHDRAW, RD, 10, (Entry(100001, 3, (IPV4,)),)),
    "snapshot-begin": LabelBinding(EPOCH, 3, Operation.SNAPSHOT_BEGIN),
}
GOLDEN_STATUS = {
    "status accepted": LabelStatus(EPOCH, 1, Status.ACCEPTED),
    "status some refused": LabelStatus(EPOCH, 1, Status.SOME_REFUSED, ((100002, Refusal.POLICY),)),
}


@pytest.mark.parametrize("name", GOLDEN_BINDINGS)
def test_golden_binding_in_both_directions(name: str) -> None:
    notify_type, data = golden_notify(name)
    assert notify_type == capability.LABEL_BINDING
    assert LabelBinding.parse(data) == GOLDEN_BINDINGS[name]
    assert GOLDEN_BINDINGS[name].encode() == data


@pytest.mark.parametrize("name", GOLDEN_STATUS)
def test_golden_status_in_both_directions(name: str) -> None:
    notify_type, data = golden_notify(name)
    assert notify_type == capability.LABEL_STATUS
    assert LabelStatus.parse(data) == GOLDEN_STATUS[name]
    assert GOLDEN_STATUS[name].encode() == data


def test_golden_notifies_are_whole_payloads() -> None:
    for name, octets in GOLDEN["notifies"].items():
        payload = NotifyPayload(*golden_notify(name))
        assert encode_payloads([payload])[1].hex() == octets


# What spoils a message.

ADD: dict[int, Any] = {0: 1, 1: [0, RD.octets], 2: 10, 3: EPOCH, 4: 1, 5: 0, 6: [[100001, 3, [], []]]}
BEGIN: dict[int, Any] = {0: 1, 3: EPOCH, 4: 1, 5: 2}
P24, P48 = [24, b"\xc6\x33\x64"], [48, bytes.fromhex("20010db80001")]


def without(content: dict[int, Any], key: int) -> dict[int, Any]:
    return {k: v for k, v in content.items() if k != key}


@pytest.mark.parametrize(
    "content",
    [
        *(without(ADD | {5: operation}, key) for operation in (0, 1) for key in (1, 2, 6)),
        *({**BEGIN, 5: operation, key: ADD[key]} for operation in (2, 3) for key in (1, 2, 6)),
        *({**ADD, 5: operation} for operation in (2, 3, 4, 255)),
        *({**BEGIN, 5: operation} for operation in (0, 1)),
        ADD | {6: []},
        BEGIN | {6: []},
        ADD | {6: [[100001, 3, [], []], [100001, 3, [P24], []]]},
        ADD | {6: [[100001, 3, [P24, P24], []]]},
        ADD | {6: [[100001, 3, [P24], []], [100002, 3, [P24], []]]},
        ADD | {6: [[100001, 3, [], [P48]], [100002, 3, [], [P48]]]},
        ADD | {6: [[3, 3, [], []], [3, 3, [], []]]},
    ],
)
def test_class_41_message_of_another_shape_or_with_a_duplicate_is_refused(content: dict[int, Any]) -> None:
    with pytest.raises(BindingError):
        LabelBinding.parse(cbor.encode(content))


@pytest.mark.parametrize(
    "entry",
    [
        *([], [100001], [100001, 3, []], [100001, 3, [], [], []], 100001, {}, "entry"),
        *(
            [1048576, 3, [], []],
            [100001, 256, [], []],
            ["100001", 3, [], []],
            [100001, 3, {}, []],
            [100001, 3, 0, []],
        ),
        *([100001, 3, [[129, b""]], []], [100001, 3, [[24]], []], [100001, 3, [[24, b"", 0]], []]),
        *([100001, 3, [["24", b""]], []], [100001, 3, [[24, "a"]], []], [100001, 3, [], [[128, bytes(17)]]]),
    ],
)
def test_entry_of_another_form_spoils_its_message(entry: Any) -> None:
    for operation in (0, 1):
        with pytest.raises(BindingError):
            LabelBinding.parse(cbor.encode(ADD | {5: operation, 6: [entry]}))


def test_sequence_begins_at_one_and_needs_64_bits_at_most() -> None:
    with pytest.raises(BindingError):
        LabelBinding.parse(cbor.encode(BEGIN | {4: 0}))
    last = LabelBinding((1 << 64) - 1, (1 << 64) - 1, Operation.SNAPSHOT_END)
    assert LabelBinding.parse(last.encode()) == last


def test_message_over_4096_octets_is_refused() -> None:
    entries = [[label, 1, [], []] for label in range(100000, 100600)]
    assert len(cbor.encode(ADD | {6: entries})) > 4096
    with pytest.raises(BindingError):
        LabelBinding.parse(cbor.encode(ADD | {6: entries}))
    assert LabelBinding.parse(cbor.encode(ADD | {6: entries[:400]}))


def test_constructor_refuses_content_that_does_not_belong_to_the_operation() -> None:
    with pytest.raises(BindingError):
        LabelBinding(EPOCH, 1, Operation.ADD)
    with pytest.raises(BindingError):
        LabelBinding(EPOCH, 1, Operation.SNAPSHOT_END, RD, 10, (Entry(100001, 3),))


# What spoils one entry only (class 42).

BAD_ENTRIES = [
    *([label, 3, [], []] for label in (1, *range(3, 16))),
    *([100001, payload, [], []] for payload in (0, 4, 7, 255)),
    [100001, 3, [[33, b"\x01"]], []],
    [100001, 3, [[128, b"\x01"]], []],
    [100001, 3, [[24, b"\xc6\x33\x64\x01\x01"]], []],
    [100001, 3, [[24, b"\xc6\x33\x64\x01"]], []],
    [100001, 3, [[20, b"\xc6\x33\x64"]], []],
    [100001, 3, [[0, b"\x01"]], []],
    [100001, 3, [[24, b"\xc6\x33\x00"]], []],
    [100001, 3, [[24, b"\x00"]], []],
    [100001, 3, [], [[48, bytes.fromhex("20010db800010000")]]],
    [100001, 3, [], [[47, bytes.fromhex("20010db80001")]]],
]
OF_ANOTHER_FAMILY = [[100001, 2, [P24], []], [100001, 1, [], [P48]], [0, 1, [P24], [P48]]]


@pytest.mark.parametrize("entry", BAD_ENTRIES)
@pytest.mark.parametrize("operation", [Operation.ADD, Operation.WITHDRAW])
def test_class_42_bad_value_spoils_its_entry_alone(entry: list[Any], operation: Operation) -> None:
    good = [[200000, 1, [], []], entry, [200001, 1, [], []]]
    message = LabelBinding.parse(cbor.encode(ADD | {5: int(operation), 6: good}))
    first, bad, last = message.entries
    assert (first, last) == (Entry(200000, 1), Entry(200001, 1))
    assert isinstance(bad, BadEntry)
    assert bad.label == entry[0]
    assert bad.weight == 1 + len(entry[2]) + len(entry[3])
    with pytest.raises(BindingError):
        message.encode()


@pytest.mark.parametrize("entry", OF_ANOTHER_FAMILY)
def test_class_42_family_outside_the_payload_is_bad_in_an_add_and_ignored_in_a_withdraw(
    entry: list[Any],
) -> None:
    (added,) = LabelBinding.parse(cbor.encode(ADD | {6: [entry]})).entries
    assert isinstance(added, BadEntry)
    (withdrawn,) = LabelBinding.parse(cbor.encode(ADD | {5: 1, 6: [entry]})).entries
    assert isinstance(withdrawn, Entry)


def test_default_prefix_has_no_octets() -> None:
    entry = Entry(100001, 3, (IPv4Network("0.0.0.0/0"), IPv6Network("::/0")))
    message = LabelBinding(EPOCH, 1, Operation.ADD, RD, 10, (entry,))
    assert entry.item() == [100001, 3, [[0, b""]], [[0, b""]]]
    assert LabelBinding.parse(message.encode()) == message


@pytest.mark.parametrize(
    ("label", "payload"), [(1, 1), (3, 1), (15, 1), (1 << 20, 1), (100001, 0), (100001, 4)]
)
def test_constructor_refuses_a_label_or_payload_that_cannot_be_bound(label: int, payload: int) -> None:
    with pytest.raises(BindingError):
        Entry(label, payload)


# Status.


@pytest.mark.parametrize(
    "change",
    [
        *(
            {5: 4},
            {5: 255},
            {5: 3},
            {5: 3, 6: []},
            {5: 0, 6: []},
            {5: 0, 6: [[100001, 1]]},
            {5: 2, 6: [[100001, 1]]},
        ),
        *({5: 3, 6: [[100001, code]]} for code in (0, 6)),
        *({5: 3, 6: [pair]} for pair in ([100001], [100001, 1, 1], [1048576, 1], 100001, ["100001", 1])),
        *({4: 0}, {1: [0, RD.octets]}, {2: 10}),
    ],
)
def test_status_of_another_shape_is_refused(change: dict[int, Any]) -> None:
    with pytest.raises(BindingError):
        LabelStatus.parse(cbor.encode({0: 1, 3: EPOCH, 4: 1, 5: 0} | change))


def test_refused_labels_belong_to_status_3_alone() -> None:
    with pytest.raises(BindingError):
        LabelStatus(EPOCH, 1, Status.ACCEPTED, ((100001, Refusal.POLICY),))
    with pytest.raises(BindingError):
        LabelStatus(EPOCH, 1, Status.SOME_REFUSED)


# Properties.

prefixes = st.one_of(
    st.tuples(st.integers(0, 32), st.binary(min_size=4, max_size=4)).map(
        lambda p: IPv4Network((p[1], p[0]), strict=False)
    ),
    st.tuples(st.integers(0, 128), st.binary(min_size=16, max_size=16)).map(
        lambda p: IPv6Network((p[1], p[0]), strict=False)
    ),
)


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 2, 16, 100001, 1048575]), st.lists(prefixes, max_size=4)), min_size=1
    ),
    st.sampled_from([Operation.ADD, Operation.WITHDRAW]),
    st.sampled_from([0, 65535, "gold"]),
)
def test_binding_comes_back(
    content: list[tuple[int, list[Prefix]]], operation: Operation, label_class: int | str
) -> None:
    seen: set[Prefix] = set()
    entries: dict[int, Entry] = {}
    for label, candidates in content:
        new = [prefix for prefix in dict.fromkeys(candidates) if prefix not in seen]
        seen.update(new)
        entries[label] = Entry(label, 3, tuple(new))
    message = LabelBinding(EPOCH, 7, operation, RD, label_class, tuple(entries.values()))
    assert LabelBinding.parse(message.encode()) == message


@given(st.binary(max_size=60).map(lambda tail: bytes.fromhex("a70001018200480000fde80000006402") + tail))
def test_random_octets_behind_a_good_beginning_raise_only_binding_error(octets: bytes) -> None:
    try:
        message = LabelBinding.parse(octets)
    except BindingError:
        return
    if not any(isinstance(entry, BadEntry) for entry in message.entries):
        assert message.encode() == octets
