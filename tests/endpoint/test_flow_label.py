"""The flow label of outer IPv6 headers, as the Linux kernel of the receiver reads it (RFC 6437, RFC 6438)."""

import socket
import struct

import pytest

from endpoint.config import FlowLabel, FrontDoor
from endpoint.errors import SetupError
from endpoint.netns import in_namespace
from endpoint.raw import RawSocket
from endpoint.sockets import check_flow_labels
from endpoint.udp import NatSocket

IPV6_FLOWINFO, IPV6_FLOWLABEL_MGR = 11, 32
SPIS = [bytes.fromhex(text) for text in ("c0ffee01", "c0ffee02", "00001000")]


def packets(spi: bytes, count: int = 1) -> list[bytes]:
    return [spi + bytes(number) for number in range(100, 100 + count)]


def listener(kind: int, protocol: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, kind, protocol)
    sock.bind(("::1", 0))
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FLOWINFO, 1)
    sock.settimeout(5)
    return sock


def received(sock: socket.socket) -> tuple[bytes, int]:
    """(SPI, flow label) of the next packet."""
    data, control, _, _ = sock.recvmsg(70_000, 256)
    told = [value for _, kind, value in control if kind == IPV6_FLOWINFO]
    return data[:4], int.from_bytes(told[0], "big") & 0xFFFFF if told else 0


def nat_socket(policy: FlowLabel) -> NatSocket:
    return NatSocket.open("::1", 0, on_ike=lambda *_: None, on_esp=lambda _: None, flow_labels=policy)


async def labels_of(policy: FlowLabel, *, joined: bool = True) -> list[tuple[bytes, int]]:
    sender = nat_socket(policy)
    sender.joins_sends = sender.joins_sends and joined
    with listener(socket.SOCK_DGRAM) as peer:
        for spi in (*SPIS, SPIS[0]):
            sender.send_batch([spi + bytes(100)] * 3, peer.getsockname()[:2], tos=0xB8, ttl=9)
        seen = [received(peer) for _ in range(12)]
    assert not sender.drops
    sender.close()
    return seen


@pytest.mark.parametrize("joined", [True, False])
async def test_each_sa_has_a_label_of_its_own_that_stays(joined: bool) -> None:
    seen = await labels_of(FlowLabel.SA, joined=joined)
    assert [spi for spi, _ in seen] == [spi for spi in (*SPIS, SPIS[0]) for _ in range(3)]
    assert len(set(seen)) == 3 and len({label for _, label in seen}) == 3
    assert 0 not in {label for _, label in seen}


async def test_zero_is_zero_and_the_systems_is_one_for_all() -> None:
    assert {label for _, label in await labels_of(FlowLabel.ZERO)} == {0}
    assert len({label for _, label in await labels_of(FlowLabel.SYSTEM)}) == 1


async def test_raw_esp_has_the_same_label_as_esp_in_udp(namespace: str) -> None:
    in_udp = dict(await labels_of(FlowLabel.SA))
    door = FrontDoor(netns=namespace)
    raw = RawSocket.open("::1", 50, on_packets=lambda _: None, front_door=door, flow_labels=FlowLabel.SA)
    with in_namespace(namespace, lambda: listener(socket.SOCK_RAW, 50)) as peer:
        for spi in SPIS:
            raw.send_batch(packets(spi), "::1", tos=0xB8)
            assert received(peer) == (spi, in_udp[spi])
    raw.close()


async def test_ipv4_sockets_have_none_and_take_no_harm() -> None:
    sender = NatSocket.open(
        "127.0.0.1", 0, on_ike=lambda *_: None, on_esp=lambda _: None, flow_labels=FlowLabel.SA
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(5)
        sender.send_batch(packets(SPIS[0]), peer.getsockname())
        assert peer.recv(200) == packets(SPIS[0])[0]
    sender.close()


async def test_a_namespace_where_somebody_owns_a_label_is_refused_at_the_start(namespace: str) -> None:
    """The kernel's rule, met for real: then every label has to be asked for."""
    door = FrontDoor(netns=namespace)
    check_flow_labels(door)
    with in_namespace(namespace, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as owner:
        # struct in6_flowlabel_req: destination, label, action GET, share EXCL, flags CREATE, expires, linger
        request = socket.inet_pton(socket.AF_INET6, "::1") + struct.pack("!I", 0x12345)
        request += struct.pack("=BBHHHI", 0, 1, 1, 0, 0, 0)
        owner.setsockopt(socket.IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, request)
        with pytest.raises(SetupError, match="exclusive label"):
            check_flow_labels(door)
