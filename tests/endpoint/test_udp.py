"""endpoint/udp.py: real sockets on loopback addresses; what goes in comes out, in order, or is counted."""

import asyncio
import errno
import select
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint import sockets, udp
from endpoint.errors import SetupError
from endpoint.sockets import Address, SocketDrop
from endpoint.udp import EspBatch, IkeSocket, NatSocket, runs
from mpls.ip import UDP, build_ip, internet_checksum

ESP = bytes.fromhex("c0ffee0100000001")
ONE, TWO = "127.0.0.1", "127.0.0.2"


@dataclass
class Received:
    """What a socket delivered, as one list of (kind, octets, peer), and a way to wait for it."""

    all: list[tuple[str, bytes, Address]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_ike(self, data: bytes, local: Address, peer: Address) -> None:
        self.all.append(("ike", data, peer))
        self.changed.set()

    def on_esp(self, batch: EspBatch) -> None:
        self.all += [("esp", packet, peer) for packets, peer, _ in batch for packet in packets]
        self.batches.append(len(batch))
        self.changed.set()

    async def until(self, is_reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not is_reached():
                self.changed.clear()
                await self.changed.wait()

    async def count(self, number: int) -> None:
        await self.until(lambda: len(self.all) >= number)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[NatSocket, NatSocket, Received]]:
    """A sender, a receiver, and what the receiver got."""
    received, ignored = Received(), Received()
    sender = NatSocket.open(ONE, 0, on_ike=ignored.on_ike, on_esp=ignored.on_esp)
    receiver = NatSocket.open(TWO, 0, on_ike=received.on_ike, on_esp=received.on_esp)
    yield sender, receiver, received
    sender.close()
    receiver.close()


Pair = tuple[NatSocket, NatSocket, Received]


async def test_ike_socket_exchanges_datagrams_up_to_the_largest() -> None:
    received = Received()
    one = await IkeSocket.open(ONE, 0, on_datagram=received.on_ike)
    two = await IkeSocket.open(TWO, 0, on_datagram=received.on_ike)
    one.send(b"x" * 65507, two.local)
    await received.count(1)
    two.send(b"answer", one.local)
    await received.count(2)
    assert received.all == [("ike", b"x" * 65507, one.local), ("ike", b"answer", two.local)]
    await one.close()
    await two.close()


async def test_ike_socket_works_on_ipv6_and_gives_peers_of_two_parts() -> None:
    received = Received()
    one = await IkeSocket.open("::1", 0, on_datagram=received.on_ike)
    one.send(b"to myself", one.local)
    await received.count(1)
    assert received.all == [("ike", b"to myself", one.local)]
    await one.close()


async def test_ike_send_that_is_refused_is_counted_and_the_socket_lives() -> None:
    received = Received()
    one = await IkeSocket.open(ONE, 0, on_datagram=received.on_ike)
    one.send(b"x" * 65508, one.local)
    one.send(b"fits", one.local)
    await received.count(1)
    await received.until(lambda: bool(one.drops)) if not one.drops else None
    assert one.drops == {SocketDrop.TOO_BIG: 1}
    await one.close()


async def test_beyond_the_queue_the_oldest_datagrams_are_dropped_and_counted() -> None:
    received = Received()
    one = await IkeSocket.open(ONE, 0, on_datagram=received.on_ike)
    protocol = one._transport.get_protocol()
    for number in range(udp.QUEUE_DATAGRAMS + 5):
        protocol.datagram_received(b"%d" % number, (TWO, 1))
    await received.count(udp.QUEUE_DATAGRAMS)
    assert one.drops[SocketDrop.QUEUE_FULL] == 5
    assert [received.all[n][1] for n in (0, -1)] == [b"5", b"%d" % (udp.QUEUE_DATAGRAMS + 4)]
    await one.close()


async def test_what_the_kernel_has_no_room_for_is_counted() -> None:
    received = Received()
    nat = NatSocket.open(ONE, 0, on_ike=received.on_ike, on_esp=lambda batch: None)
    ike = await IkeSocket.open(ONE, 0, on_datagram=received.on_ike)
    for one, sock in ((nat, nat._socket), (ike, ike._socket)):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(100):  # nobody reads meanwhile
                sender.sendto(bytes(1000), one.local)
        assert 50 < one.all_drops()[SocketDrop.KERNEL_QUEUE] < 100
        assert not one.drops
    nat.close()
    await ike.close()


async def test_ike_socket_survives_a_handler_that_fails() -> None:
    received, reported = Received(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def on_datagram(data: bytes, local: Address, peer: Address) -> None:
        if data == b"bad":
            raise ZeroDivisionError
        received.on_ike(data, local, peer)

    one = await IkeSocket.open(ONE, 0, on_datagram=on_datagram)
    one.send(b"bad", one.local)
    one.send(b"good", one.local)
    await received.count(1)
    assert [type(error) for error in reported] == [ZeroDivisionError]
    await one.close()


async def test_port_in_use_is_said_with_the_remedy() -> None:
    one = await IkeSocket.open(ONE, 0, on_datagram=Received().on_ike)
    with pytest.raises(SetupError, match=r"UDP \d+ on 127.0.0.1: Address already in use; another program"):
        await IkeSocket.open(ONE, one.local[1], on_datagram=Received().on_ike)
    await one.close()


async def test_address_that_is_not_ours_is_said_with_the_remedy() -> None:
    with pytest.raises(SetupError, match="see `ip address`"):
        await IkeSocket.open("192.0.2.77", 0, on_datagram=Received().on_ike)
    with pytest.raises(SetupError, match="neither an IPv4 nor an IPv6 address"):
        await IkeSocket.open("pe1.example", 0, on_datagram=Received().on_ike)


async def test_nat_socket_tells_ike_esp_and_keepalives_apart(pair: Pair) -> None:
    sender, receiver, received = pair
    sender.send_keepalive(receiver.local)
    sender.send_batch([ESP], receiver.local)
    sender.send_ike(b"message", receiver.local)
    await received.count(2)
    assert received.all == [("esp", ESP, sender.local), ("ike", b"message", sender.local)]
    assert receiver.keepalives == 1


async def test_order_of_ike_and_esp_is_kept_within_a_wake_up(pair: Pair) -> None:
    sender, receiver, received = pair
    for number in range(3):
        sender.send_batch([ESP + bytes([number])], receiver.local)
        sender.send_ike(b"ike%d" % number, receiver.local)
    await received.count(6)
    assert [kind for kind, _, _ in received.all] == ["esp", "ike"] * 3


async def test_batch_of_mixed_lengths_arrives_in_order(pair: Pair) -> None:
    sender, receiver, received = pair
    packets = [
        ESP + bytes([n]) * size for n, size in enumerate([1400] * 70 + [20, 1400, 1400, 30, 30, 30, 5000])
    ]
    sender.send_batch(packets, receiver.local)
    await received.count(len(packets))
    assert [packet for _, packet, _ in received.all] == packets
    assert not sender.drops


async def test_batch_arrives_without_offloads_too(pair: Pair) -> None:
    sender, receiver, received = pair
    sender.joins_sends = False
    packets = [ESP + bytes([n]) * 100 for n in range(100)]
    sender.send_batch(packets, receiver.local)
    await received.count(len(packets))
    assert [packet for _, packet, _ in received.all] == packets


class OldKernel(socket.socket):
    """A socket of a kernel without some options of UDP: setsockopt(2) refuses, a control message is not looked at."""

    without: frozenset[int] = frozenset()
    longest_sent = longest_received = 0

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        if level == socket.IPPROTO_UDP and option in self.without:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        super().setsockopt(level, option, *value)

    def sendto(self, data: bytes, *rest: Any) -> int:  # type: ignore[override]
        self.longest_sent = max(self.longest_sent, len(data))
        return super().sendto(data, *rest)

    def sendmsg(self, buffers: Any, control: Any = (), *rest: Any) -> int:
        self.longest_sent = max(self.longest_sent, sum(map(len, buffers)))
        known = [one for one in control if one[0] != socket.IPPROTO_UDP or one[1] not in self.without]
        return super().sendmsg(buffers, known, *rest)

    def recvmsg(self, *sizes: int) -> Any:
        received = super().recvmsg(*sizes)
        self.longest_received = max(self.longest_received, len(received[0]))
        return received


@pytest.mark.parametrize(
    "without",
    [{udp._UDP_SEGMENT}, {udp._UDP_GRO}, {udp._UDP_SEGMENT, udp._UDP_GRO}],
    ids=["gso", "gro", "gso-gro"],
)
async def test_where_the_kernel_has_no_gso_or_gro_packets_go_both_ways_singly(
    monkeypatch: pytest.MonkeyPatch, without: set[int]
) -> None:
    """UDP_SEGMENT came with Linux 4.18, UDP_GRO with 5.0."""
    kernel: list[OldKernel] = []

    def open_socket(*arguments: Any) -> socket.socket:
        kernel.append(OldKernel(fileno=sockets.open_socket(*arguments).detach()))
        kernel[-1].without = frozenset(without)
        return kernel[-1]

    monkeypatch.setattr(udp, "open_socket", open_socket)
    received = Received(), Received()
    one, two = (
        NatSocket.open(address, 0, on_ike=came.on_ike, on_esp=came.on_esp)
        for address, came in zip((ONE, TWO), received, strict=True)
    )
    packets = [ESP + bytes([n]) * 100 for n in range(100)]
    expected = [*(("esp", packet) for packet in packets), ("ike", b"message")]
    with closing(one), closing(two):
        for sender, receiver, came in ((one, two, received[1]), (two, one, received[0])):
            sender.send_batch(packets, receiver.local)
            sender.send_ike(b"message", receiver.local)
            await came.count(len(expected))
            assert [(kind, data) for kind, data, _ in came.all] == expected
            assert not sender.all_drops()
    for each in kernel:
        assert (each.longest_sent == len(packets[0])) is (udp._UDP_SEGMENT in without)
        assert each.longest_received == len(packets[0])


class RefusesJoined:
    """A socket whose device cannot segment: what Linux answers to UDP_SEGMENT then."""

    def __init__(self, real: socket.socket, code: int) -> None:
        self.real, self.family, self.code, self.calls = real, real.family, code, 0

    def sendmsg(self, *_: object) -> int:
        self.calls += 1
        raise OSError(self.code, "refused")

    def sendto(self, data: bytes, peer: Address) -> int:
        return self.real.sendto(data, peer)


@pytest.mark.parametrize(("code", "calls"), [(errno.EIO, 1), (errno.EINVAL, 2), (errno.EMSGSIZE, 2)])
async def test_refused_segmentation_sends_each_packet_once(pair: Pair, code: int, calls: int) -> None:
    sender, receiver, received = pair
    real = sender._socket
    refusing = RefusesJoined(real, code)
    sender._socket = refusing  # type: ignore[assignment]
    packets = [ESP + bytes([n]) * 100 for n in range(100)]
    sender.send_batch(packets, receiver.local)
    sender._socket = real
    await received.count(len(packets))
    assert [packet for _, packet, _ in received.all] == packets
    assert refusing.calls == calls


async def test_of_a_joined_send_that_is_refused_every_packet_is_counted(pair: Pair) -> None:
    sender, receiver, _ = pair
    real = sender._socket
    sender._socket = RefusesJoined(real, errno.ENOBUFS)  # type: ignore[assignment]
    sender.send_batch([ESP + bytes(100)] * 7, receiver.local)
    sender._socket = real
    assert sender.drops == {SocketDrop.CONGESTED: 7}


async def test_joined_ike_and_esp_are_classified_segment_by_segment(pair: Pair) -> None:
    sender, receiver, received = pair
    # One UDP_SEGMENT send, as GRO would join one flow: an ESP packet, an IKE message and a keepalive.
    sender.send_batch([ESP + b"1234", bytes(4) + b"ike-1234", ESP + b"5678", b"\xff"], receiver.local)
    await received.count(3)
    assert [(kind, data) for kind, data, _ in received.all] == [
        ("esp", ESP + b"1234"),
        ("ike", b"ike-1234"),
        ("esp", ESP + b"5678"),
    ]
    assert receiver.keepalives == 1


async def test_short_and_empty_datagrams_are_counted(pair: Pair) -> None:
    sender, receiver, received = pair
    for data in (b"", b"\0\0\0", b"abc"):
        sender._socket.sendto(data, receiver.local)
    sender.send_batch([ESP], receiver.local)
    await received.count(1)
    assert received.all == [("esp", ESP, sender.local)]
    assert receiver.drops == {SocketDrop.SHORT: 3}


async def test_unreachable_peer_is_counted_and_never_raises(pair: Pair) -> None:
    sender, receiver, received = pair
    free = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    free.bind((TWO, 0))
    closed_port = free.getsockname()[1]
    free.close()
    for _ in range(3):
        sender.send_ike(b"anyone?", (TWO, closed_port))
        sender.send_batch([ESP, ESP], (TWO, closed_port))
    sender.send_batch([ESP], ("::1", 4500))
    sender.send_batch([ESP], receiver.local)
    await received.count(1)
    assert sum(sender.drops.values()) == 1


async def test_icmp_errors_are_taken_and_neither_lose_packets_nor_keep_the_socket_busy() -> None:
    received, sizes = Received(), list[tuple[str, int]]()
    watching = NatSocket.open(
        ONE,
        0,
        on_ike=received.on_ike,
        on_esp=received.on_esp,
        on_too_big=lambda address, mtu: sizes.append((address, mtu)),
    )
    other = NatSocket.open(TWO, 0, on_ike=received.on_ike, on_esp=received.on_esp)
    free = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    free.bind((TWO, 0))
    closed = free.getsockname()
    free.close()
    for _ in range(200):
        watching.send_batch([ESP], closed)
        other.send_batch([ESP], watching.local)
        watching.send_batch([ESP], other.local)
    await received.count(400)
    assert not watching.drops
    assert not sizes, "nobody said a size"
    poll = select.poll()
    poll.register(watching._socket, select.POLLIN)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not poll.poll(0)
    watching.close()
    other.close()


@pytest.mark.root
@pytest.mark.parametrize("code", range(16))
@pytest.mark.parametrize("count", [1, 5])
async def test_no_forged_icmp_unreachable_costs_a_packet(code: int, count: int) -> None:
    received = Received()
    watching = NatSocket.open(
        ONE, 0, on_ike=received.on_ike, on_esp=received.on_esp, on_too_big=lambda address, mtu: None
    )
    other = NatSocket.open(TWO, 0, on_ike=received.on_ike, on_esp=received.on_esp)
    ports = watching.local[1].to_bytes(2, "big") + other.local[1].to_bytes(2, "big")
    addresses = socket.inet_aton(ONE), socket.inet_aton(TWO)
    quote = build_ip(*addresses, UDP, ports + (8).to_bytes(2, "big") + bytes(2))
    head = bytes((3, code))
    checksum = internet_checksum(head + bytes(6) + quote).to_bytes(2, "big")
    forger = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with forger, closing(watching), closing(other):
        forger.sendto(head + checksum + bytes(4) + quote, (ONE, 0))
        watching.send_batch([ESP] * count, other.local)
        assert not watching.drops
        await received.count(count)


async def test_sending_after_close_is_counted() -> None:
    received = Received()
    nat = NatSocket.open(ONE, 0, on_ike=received.on_ike, on_esp=received.on_esp)
    ike = await IkeSocket.open(ONE, 0, on_datagram=received.on_ike)
    nat.close()
    await ike.close()
    nat.send_ike(b"late", ike.local)
    nat.send_keepalive(ike.local)
    nat.send_batch([ESP], ike.local)
    ike.send(b"late", nat.local)
    assert nat.drops == {SocketDrop.FAILED: 3}


async def test_traffic_class_is_set_on_single_and_joined_packets(pair: Pair) -> None:
    sender, _, _ = pair
    witness = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    witness.bind((TWO, 0))
    witness.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    witness.settimeout(5)
    sender.send_batch([ESP, ESP, ESP + b"longer"], witness.getsockname(), tos=0xB8)
    for _ in range(3):
        _, control, _, _ = witness.recvmsg(100, 100)
        assert [data[0] for _, kind, data in control if kind == socket.IP_TOS] == [0xB8]
    witness.close()


@given(st.lists(st.sampled_from([1, 2, 30000, 64000, 65507]), max_size=200))
def test_runs_are_what_one_segmented_send_can_carry(sizes: list[int]) -> None:
    packets = [bytes(size) for size in sizes]
    split = list(runs(packets))
    assert [packet for run in split for packet in run] == packets
    for run in split:
        lengths = [len(packet) for packet in run]
        assert len(run) <= 64
        assert len(run) == 1 or sum(lengths) <= 65000
        assert set(lengths[:-1]) <= {lengths[0]}
        assert lengths[-1] <= lengths[0]
    for run, following in pairwise(split):
        # No run ends early: what follows would not have fitted.
        fits = len(run) < 64 and sum(map(len, run)) + len(following[0]) <= 65000
        assert not (fits and len(run[-1]) == len(run[0]) >= len(following[0]))
