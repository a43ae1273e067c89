"""Vendor ID and N(MPLS_VRF_SUPPORTED) (WIRE 2, 4.1, 9)."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpls import capability, cbor
from mpls.capability import Capability, CapabilityError
from tests.mpls.golden import GOLDEN, golden_notify

GOLDEN_CAPABILITY = Capability(bindings=4096, features=7, bindings_per_message=1000)


def test_vendor_id_is_the_golden_one() -> None:
    assert capability.VENDOR_ID.hex() == GOLDEN["vendor_id"]
    named = hashlib.sha256(b"IKEv2 MPLS-VRF traffic selectors, version 1").digest()
    assert named[:16] + b"\x01" == capability.VENDOR_ID


def test_golden_capability_in_both_directions() -> None:
    notify_type, data = golden_notify("capability")
    assert notify_type == capability.MPLS_VRF_SUPPORTED
    assert Capability.parse(data) == GOLDEN_CAPABILITY
    assert GOLDEN_CAPABILITY.encode() == data


def test_reserved_feature_is_ignored_on_receipt_and_never_sent() -> None:
    assert Capability.parse(golden_notify("capability with reserved feature")[1]) == GOLDEN_CAPABILITY
    with pytest.raises(CapabilityError):
        Capability(bindings=4096, features=15, bindings_per_message=1000)


def test_feature_is_on_when_its_bit_is() -> None:
    assert GOLDEN_CAPABILITY.has(capability.LABEL_BINDINGS)
    assert not GOLDEN_CAPABILITY.has(capability.UNIFORM_MODEL)


@pytest.mark.parametrize(
    "change",
    [{1: 1 << 32}, {2: 1 << 32}, {3: 0}, {3: 65536}, {1: b""}, {2: [7]}, {3: {}}, {1: "4096"}],
)
def test_value_out_of_range_is_refused(change: dict[int, Any]) -> None:
    content: dict[int, Any] = {0: 1, 1: 4096, 2: 7, 3: 1000}
    with pytest.raises(CapabilityError):
        Capability.parse(cbor.encode(content | change))


@given(st.integers(0, (1 << 32) - 1), st.integers(0, 31), st.integers(1, 65535))
def test_capability_comes_back(bindings: int, features: int, per_message: int) -> None:
    ours = Capability(bindings, features & capability.FEATURES, per_message)
    assert Capability.parse(ours.encode()) == ours
