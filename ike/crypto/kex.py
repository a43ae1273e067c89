"""Key exchange methods, transform type 4: X25519 and X448 (RFC 8031), curves (RFC 5903, 6954), MODP (RFC 3526).

Must not know messages: it takes and gives the octets of the Key Exchange Data field (RFC 7296 3.4).
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ike.crypto.modp import MODP_GROUPS, ModpGroup
from ike.entropy import Entropy
from ike.errors import IkeError, LocalError
from ike.numbers import Ke, name_of

__all__ = ["GROUPS", "KeyExchange", "KeyExchangeError"]


class KeyExchangeError(IkeError):
    """The peer's public value cannot be used; an exchange that carries it has invalid syntax."""


class _PrivateKey(Protocol):
    def public(self) -> bytes: ...

    def shared(self, peer_public: bytes) -> bytes: ...


class _Montgomery:
    """X25519 and X448: as long as the field, little-endian as RFC 7748 has it."""

    def __init__(self, name: str, public: bytes, exchange: Callable[[bytes], bytes]) -> None:
        self._name, self._public, self._exchange = name, public, exchange

    def public(self) -> bytes:
        return self._public

    def shared(self, peer_public: bytes) -> bytes:
        try:
            shared = self._exchange(peer_public)
        except ValueError:
            # OpenSSL itself refuses a result of all zeros, that is a peer's point of small order.
            raise KeyExchangeError(f"{self._name}: public value of wrong length or of small order") from None
        if not any(shared):
            raise KeyExchangeError(f"{self._name}: shared secret is all zeros")
        return shared


def _x25519(entropy: Entropy) -> _PrivateKey:
    key = X25519PrivateKey.from_private_bytes(entropy.octets(32))
    return _Montgomery(
        "X25519",
        key.public_key().public_bytes_raw(),
        lambda peer: key.exchange(X25519PublicKey.from_public_bytes(peer)),
    )


def _x448(entropy: Entropy) -> _PrivateKey:
    key = X448PrivateKey.from_private_bytes(entropy.octets(56))
    return _Montgomery(
        "X448",
        key.public_key().public_bytes_raw(),
        lambda peer: key.exchange(X448PublicKey.from_public_bytes(peer)),
    )


class _Curve(NamedTuple):
    curve: ec.EllipticCurve
    order: int
    octets: int


_CURVES: dict[int, _Curve] = {
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
    Ke.BRAINPOOL_P256R1: _Curve(
        ec.BrainpoolP256R1(), 0xA9FB57DBA1EEA9BC3E660A909D838D718C397AA3B561A6F7901E0E82974856A7, 32
    ),
    Ke.BRAINPOOL_P384R1: _Curve(
        ec.BrainpoolP384R1(),
        0x8CB91E82A3386D280F5D6F7E50E641DF152F7109ED5456B31F166E6CAC0425A7CF3AB6AF6B7FC3103B883202E9046565,
        48,
    ),
    Ke.BRAINPOOL_P512R1: _Curve(
        ec.BrainpoolP512R1(),
        0xAADD9DB8DBE9C48B3FD4E6AE33C9FC07CB308DB3B3C9D20ED6639CCA70330870553E5C414CA92619418661197FAC10471DB1D381085DDADDB58796829CA90069,
        64,
    ),
}


class _Ecp:
    """x | y without a leading octet (RFC 5903 7, RFC 6954 2.3); the shared secret is x alone, in full length."""

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


class _Modp:
    """Diffie-Hellman modulo a safe prime; both values big-endian and as long as the prime (RFC 7296 3.4).

    Python's own arithmetic, because the cryptography library is about to give up these groups. It does not run
    in constant time; but an exponent is new for every exchange and serves for two computations only, so that
    nobody can measure any of them twice.
    """

    def __init__(self, group: ModpGroup, entropy: Entropy) -> None:
        self._group = group
        # The top bit is set: never a small exponent, and all are of one length.
        top = 1 << 8 * group.exponent_octets - 1
        self._exponent = top | int.from_bytes(entropy.octets(group.exponent_octets), "big")

    def public(self) -> bytes:
        return self._power(2)

    def shared(self, peer_public: bytes) -> bytes:
        value = int.from_bytes(peer_public, "big")
        # A safe prime leaves no small subgroups but {1} and {1, p - 1} (RFC 6989 2.1).
        if len(peer_public) != self._group.octets or not 1 < value < self._group.prime - 1:
            raise KeyExchangeError(f"MODP: public value of {len(peer_public)} octets is out of range")
        return self._power(value)

    def _power(self, base: int) -> bytes:
        return pow(base, self._exponent, self._group.prime).to_bytes(self._group.octets, "big")


class _Method(NamedTuple):
    octets: int
    make: Callable[[Entropy], _PrivateKey]


def _ecp(curve: _Curve) -> _Method:
    return _Method(2 * curve.octets, lambda entropy: _Ecp(curve, entropy))


def _modp(group: ModpGroup) -> _Method:
    return _Method(group.octets, lambda entropy: _Modp(group, entropy))


class _Ones:
    def octets(self, count: int) -> bytes:
        return b"\1" * count


def _works(method: _Method) -> bool:
    """Whether this build of the cryptography library has what the method needs; not all have every curve."""
    try:
        method.make(_Ones())
    except UnsupportedAlgorithm:
        return False
    return True


_METHODS: dict[int, _Method] = {
    group: method
    for group, method in {
        Ke.CURVE25519: _Method(32, _x25519),
        Ke.CURVE448: _Method(56, _x448),
        **{group: _ecp(curve) for group, curve in _CURVES.items()},
        **{group: _modp(modp) for group, modp in MODP_GROUPS.items()},
    }.items()
    if _works(method)
}
GROUPS: dict[int, int] = {group: method.octets for group, method in _METHODS.items()}
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
        self._private = _METHODS[self.group].make(entropy)
        return self._private.public()

    def derive(self, peer_public: bytes) -> bytes:
        """KeyExchangeError if the peer's value has the wrong length or range, is off the curve or leads to zero."""
        if self._private is None:
            raise LocalError("derive() before generate()")
        return self._private.shared(peer_public)
