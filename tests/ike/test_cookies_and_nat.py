"""Cookies (RFC 7296 2.6) and NAT detection hashes (2.23)."""

import hashlib
from ipaddress import ip_address

from ike import Path
from ike.cookies import CookieJar
from ike.nat import NatState, detection_hash, floated, is_translated
from ike.testing.entropy import ScriptedEntropy

SPI, NONCE, PEER = b"initiate", bytes(range(32)), ("192.0.2.1", 500)


def jar() -> CookieJar:
    return CookieJar(ScriptedEntropy("jar"), lifetime_s=30.0)


def test_cookie_is_good_for_the_very_initiator_only() -> None:
    cookies = jar()
    cookie = cookies.bake(SPI, NONCE, PEER, 0.0)
    assert 1 <= len(cookie) <= 64
    assert cookies.is_good(cookie, SPI, NONCE, PEER, 1.0)
    assert not cookies.is_good(cookie, b"another!", NONCE, PEER, 1.0)
    assert not cookies.is_good(cookie, SPI, NONCE[:-1], PEER, 1.0)
    assert not cookies.is_good(cookie, SPI, NONCE, ("192.0.2.1", 501), 1.0)
    assert not cookies.is_good(cookie, SPI, NONCE, ("192.0.2.2", 500), 1.0)
    assert not cookies.is_good(cookie[:-1], SPI, NONCE, PEER, 1.0)
    assert not cookies.is_good(b"", SPI, NONCE, PEER, 1.0)


def test_cookie_outlives_one_change_of_the_secret_and_no_more() -> None:
    cookies = jar()
    cookie = cookies.bake(SPI, NONCE, PEER, 0.0)
    assert cookies.is_good(cookie, SPI, NONCE, PEER, 31.0)
    assert cookies.bake(SPI, NONCE, PEER, 31.0) != cookie
    assert not cookies.is_good(cookie, SPI, NONCE, PEER, 62.0)


def test_old_cookie_is_no_good_after_a_long_silence() -> None:
    cookies = jar()
    cookie = cookies.bake(SPI, NONCE, PEER, 0.0)
    assert not cookies.is_good(cookie, SPI, NONCE, PEER, 1000.0)


def test_detection_hash_is_sha1_of_spis_address_and_port() -> None:
    expected = hashlib.sha1(
        SPI + bytes(8) + ip_address("192.0.2.1").packed + b"\x01\xf4", usedforsecurity=False
    )
    assert detection_hash(SPI, bytes(8), PEER) == expected.digest()
    assert len(detection_hash(SPI, bytes(8), ("2001:db8::1", 4500))) == 20


def test_one_matching_hash_among_several_means_no_nat() -> None:
    hashes = [bytes(20), detection_hash(SPI, SPI, PEER)]
    assert not is_translated(hashes, SPI, SPI, PEER)
    assert is_translated(hashes[:1], SPI, SPI, PEER)
    assert not is_translated([], SPI, SPI, PEER), "a peer without NAT detection says nothing"


def test_only_500_floats() -> None:
    assert floated(Path(("a", 500), ("b", 500))) == Path(("a", 4500), ("b", 4500))
    assert floated(Path(("a", 500), ("b", 600))) == Path(("a", 4500), ("b", 600))
    assert floated(Path(("a", 4500), ("b", 4500))) == Path(("a", 4500), ("b", 4500))
    assert floated(Path(("a", 12345), ("b", 500))) == Path(("a", 12345), ("b", 500))


def test_each_reason_alone_encapsulates() -> None:
    assert not NatState().udp_encapsulation
    assert NatState(local_is_translated=True).udp_encapsulation
    assert NatState(peer_is_translated=True).udp_encapsulation
    assert NatState(is_forced=True).udp_encapsulation
