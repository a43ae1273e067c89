"""The Vendor ID and the content of N(MPLS_VRF_SUPPORTED), which turn the rest on (WIRE 2, 4.1).

It knows nothing of when they are sent or what their absence leads to.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from mpls import cbor

VERSION: Final = 1
VENDOR_ID: Final = hashlib.sha256(b"IKEv2 MPLS-VRF traffic selectors, version 1").digest()[:16] + bytes(
    (VERSION,)
)

# Status notifies, each with protocol ID 0 and SPI size 0.
MPLS_VRF_SUPPORTED: Final = 51137
LABEL_BINDING: Final = 51138
LABEL_STATUS: Final = 51139

# Features, a bit mask. What is not named here is reserved: sent as zero, ignored on receipt.
MPLS_IN_IP: Final = 1  # a hint, as the next: key 3 of the selector decides
MPLS_IN_GRE: Final = 2
LABEL_BINDINGS: Final = 4  # used only when both ends set it
UNIFORM_MODEL: Final = 16  # of TTL and DSCP; used only when both ends set it, otherwise the pipe model
FEATURES: Final = MPLS_IN_IP | MPLS_IN_GRE | LABEL_BINDINGS | UNIFORM_MODEL

_MAX_OCTETS: Final = 64
_KEYS: Final = frozenset((0, 1, 2, 3))
_HIGHEST: Final = (1 << 32) - 1


class CapabilityError(ValueError):
    """Octets or values that are no capability; such a notify counts as absent (WIRE 4.1)."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What the sender of the notify is able to take.

    `bindings` and `bindings_per_message` count the labels plus prefixes it takes, in all and in one message.
    """

    bindings: int
    features: int
    bindings_per_message: int

    def __post_init__(self) -> None:
        try:
            cbor.unsigned(self.bindings, "bindings", 0, _HIGHEST)
            cbor.unsigned(self.bindings_per_message, "bindings in one message", 1, 0xFFFF)
            if cbor.unsigned(self.features, "features") & ~FEATURES:
                raise CapabilityError(f"features {self.features:#x} have a reserved bit")
        except cbor.CborError as error:
            raise CapabilityError(str(error)) from error

    def has(self, feature: int) -> bool:
        return bool(self.features & feature)

    @classmethod
    def parse(cls, octets: bytes) -> "Capability":
        """The capability of a notify's data; reserved features are gone. CapabilityError otherwise."""
        try:
            item = cbor.decode_map(octets, _MAX_OCTETS)
            cbor.check_keys(item, required=_KEYS, optional=frozenset())
            cbor.unsigned(item[0], "version", VERSION, VERSION)
            return cls(
                bindings=cbor.unsigned(item[1], "bindings"),
                features=cbor.unsigned(item[2], "features", 0, _HIGHEST) & FEATURES,
                bindings_per_message=cbor.unsigned(item[3], "bindings in one message"),
            )
        except cbor.CborError as error:
            raise CapabilityError(str(error)) from error

    def encode(self) -> bytes:
        """The notify's data."""
        return cbor.encode({0: VERSION, 1: self.bindings, 2: self.features, 3: self.bindings_per_message})
