"""Key exchange methods, transform type 4: X25519 (RFC 8031) and the NIST curves (RFC 5903, RFC 6989).

Must not know messages: it takes and gives the octets of the Key Exchange Data field (RFC 7296 3.4).
"""

from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ike.entropy import Entropy
from ike.errors import IkeError, LocalError
from ike.numbers import Ke, name_of

__all__ = ["GROUPS", "KeyExchange", "KeyExchangeError"]


class KeyExchangeError(IkeError):
    """The peer's public value cannot be used; an exchange that carries it has invalid syntax."""


class _PrivateKey(Protocol):
    def public(self) -> bytes: ...

    def shared(self, peer_public: bytes) -> bytes: ...


class _X25519:
    """32 octets each way, little-endian as RFC 7748 has it; the top bit of the peer's value is ignored."""

    def __init__(self, entropy: Entropy) -> None:
        self._key = X25519PrivateKey.from_private_bytes(entropy.octets(32))

    def public(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def shared(self, peer_public: bytes) -> bytes:
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError:
            # OpenSSL itself refuses a result of all zeros, that is a peer's point of small order.
            raise KeyExchangeError("X25519: public value of wrong length or of small order") from None
        if not any(shared):
            raise KeyExchangeError("X25519: shared secret is all zeros")
        return shared


class _Curve(NamedTuple):
    curve: ec.EllipticCurve
    order: int
    octets: int


_CURVES = {
    Ke.ECP_256: _Curve(
        ec.SECP256R1(), 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551, 32
    ),
    Ke.ECP_384: _Curve(
        ec.SECP384R1(),
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
        48,
    ),
    Ke.ECP_521: _Curve(
        ec.SECP521R1(),
        0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,
        66,
    ),
}


class _Ecp:
    """x | y without a leading octet (RFC 5903 7); the shared secret is x alone, in full length."""

    def __init__(self, curve: _Curve, entropy: Entropy) -> None:
        # 64 bits more than the order has, so that the remainder is as good as uniform (FIPS 186-5 A.2.1).
        wide = int.from_bytes(entropy.octets(curve.octets + 8), "big")
        self._curve = curve
        self._key = ec.derive_private_key(wide % (curve.order - 1) + 1, curve.curve)

    def public(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]

    def shared(self, peer_public: bytes) -> bytes:
        if len(peer_public) != 2 * self._curve.octets:
            raise KeyExchangeError(f"{self._curve.curve.name}: public value of {len(peer_public)} octets")
        try:
            # from_encoded_point checks range and curve equation; the curves have cofactor 1 (RFC 6989 2.3).
            peer = ec.EllipticCurvePublicKey.from_encoded_point(self._curve.curve, b"\x04" + peer_public)
        except ValueError:
            raise KeyExchangeError(f"{self._curve.curve.name}: public value is not on the curve") from None
        return self._key.exchange(ec.ECDH(), peer)


GROUPS: dict[int, int] = {Ke.CURVE25519: 32, **{group: 2 * c.octets for group, c in _CURVES.items()}}
"""Transform ID -> octets of the public value, for the methods that work here."""


class KeyExchange:
    """Our half of one key exchange.

    `generate` makes a key pair (fresh on every call) and returns the public value for the KE payload;
    `derive` takes the peer's and returns g^ir as RFC 7296 2.14 wants it, padded to its full length.
    LocalError if `group` is not in `GROUPS`, or for `derive` before `generate`.
    """

    __slots__ = ("_private", "group")

    def __init__(self, group: int) -> None:
        if group not in GROUPS:
            raise LocalError(f"no such key exchange here: {name_of(Ke, group)}")
        self.group = group
        self._private: _PrivateKey | None = None

    def __repr__(self) -> str:
        return f"KeyExchange({name_of(Ke, self.group)})"

    def generate(self, entropy: Entropy) -> bytes:
        if self.group == Ke.CURVE25519:
            self._private = _X25519(entropy)
        else:
            self._private = _Ecp(_CURVES[Ke(self.group)], entropy)
        return self._private.public()

    def derive(self, peer_public: bytes) -> bytes:
        """KeyExchangeError if the peer's value has the wrong length, is off the curve or leads to zero."""
        if self._private is None:
            raise LocalError("derive() before generate()")
        return self._private.shared(peer_public)
