"""endpoint/raw.py, and what needs a path with an MTU: raw protocols and DF, in namespaces."""

import asyncio
from collections.abc import Callable

import pytest

from endpoint.config import FrontDoor
from endpoint.errors import SetupError
from endpoint.raw import RawSocket
from endpoint.sockets import Address, SocketDrop
from endpoint.udp import EspBatch, NatSocket
from mpls.models import OuterFields

Ip = Callable[..., str]
ESP = bytes.fromhex("c0ffee0100000001")
MPLS_IN_IP = 137

pytestmark = pytest.mark.root


class Received:
    def __init__(self) -> None:
        self.packets: list[tuple[bytes, str, str]] = []
        self.outer: list[OuterFields] = []
        self.ike: list[bytes] = []
        self.changed = asyncio.Event()

    def on_packets(self, batch: list[tuple[bytes, str, str, OuterFields]]) -> None:
        self.packets += [(payload, source, destination) for payload, source, destination, _ in batch]
        self.outer += [outer for *_, outer in batch]
        self.changed.set()

    def on_esp(self, batch: EspBatch) -> None:
        self.packets += [(packet, peer[0], "") for packets, peer, _ in batch for packet in packets]
        self.outer += [outer for packets, _, outer in batch for _ in packets]
        self.changed.set()

    def on_ike(self, data: bytes, local: Address, peer: Address) -> None:
        self.ike.append(data)
        self.changed.set()

    async def count(self, number: int) -> None:
        async with asyncio.timeout(5):
            while len(self.packets) + len(self.ike) < number:
                self.changed.clear()
                await self.changed.wait()


@pytest.mark.parametrize(("one", "two"), [("127.0.0.1", "127.0.0.2"), ("::1", "::1")])
@pytest.mark.parametrize("protocol", [50, MPLS_IN_IP, 47])
async def test_payload_arrives_with_both_addresses(namespace: str, one: str, two: str, protocol: int) -> None:
    received, door = Received(), FrontDoor(netns=namespace)
    sender = RawSocket.open(one, protocol, on_packets=Received().on_packets, front_door=door)
    receiver = RawSocket.open(two, protocol, on_packets=received.on_packets, front_door=door)
    packets = [ESP + bytes([number]) * number for number in range(100)]
    sender.send_batch(packets, two)
    await received.count(100)
    assert received.packets == [(packet, one, two) for packet in packets]
    sender.close()
    receiver.close()


async def test_other_protocols_are_not_delivered(namespace: str) -> None:
    received, door = Received(), FrontDoor(netns=namespace)
    watcher = RawSocket.open("127.0.0.2", MPLS_IN_IP, on_packets=received.on_packets, front_door=door)
    senders = [
        RawSocket.open("127.0.0.1", protocol, on_packets=Received().on_packets, front_door=door)
        for protocol in (50, MPLS_IN_IP)
    ]
    for sender in senders:
        sender.send_batch([b"protocol %d" % sender.protocol], "127.0.0.2", tos=0xB8)
    await received.count(1)
    assert [payload for payload, _, _ in received.packets] == [b"protocol 137"]
    for opened in (watcher, *senders):
        opened.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_esp_is_never_fragmented_and_too_big_is_counted(namespace: str, ip: Ip, address: str) -> None:
    ip("link", "set", "lo", "mtu", "1500", netns=namespace)
    received, door = Received(), FrontDoor(netns=namespace)
    raw = RawSocket.open(address, 50, on_packets=received.on_packets, front_door=door)
    nat = NatSocket.open(address, 4500, on_ike=received.on_ike, on_esp=received.on_esp, front_door=door)
    raw.send_batch([ESP + bytes(1600), ESP], address)
    nat.send_batch([ESP + bytes(1600)] * 2 + [ESP], nat.local)
    await received.count(2)
    assert [payload for payload, _, _ in received.packets] == [ESP, ESP]
    assert raw.drops == {SocketDrop.TOO_BIG: 1}
    assert nat.drops == {SocketDrop.TOO_BIG: 2}
    raw.close()
    nat.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_large_ike_message_is_fragmented_and_esp_after_it_is_not(
    namespace: str, ip: Ip, address: str
) -> None:
    ip("link", "set", "lo", "mtu", "1500", netns=namespace)
    received, door = Received(), FrontDoor(netns=namespace)
    nat = NatSocket.open(address, 4500, on_ike=received.on_ike, on_esp=received.on_esp, front_door=door)
    nat.send_ike(bytes(5000), nat.local)
    nat.send_batch([ESP + bytes(1600)], nat.local)
    await received.count(1)
    assert received.ike == [bytes(5000)]
    assert nat.drops == {SocketDrop.TOO_BIG: 1}
    nat.close()


async def test_unreachable_peer_is_counted(namespace: str) -> None:
    raw = RawSocket.open(
        "127.0.0.1", 50, on_packets=Received().on_packets, front_door=FrontDoor(netns=namespace)
    )
    raw.send_batch([ESP, ESP], "192.0.2.2")
    assert raw.drops == {SocketDrop.UNREACHABLE: 2}
    raw.close()


async def test_address_that_is_not_ours_is_said_with_the_remedy(namespace: str) -> None:
    door = FrontDoor(netns=namespace)
    with pytest.raises(SetupError, match=f"raw protocol 50 on 192.0.2.1: .*see `ip -n {namespace} address`"):
        RawSocket.open("192.0.2.1", 50, on_packets=Received().on_packets, front_door=door)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("udp", [False, True])
async def test_dscp_ecn_and_ttl_of_each_packet_are_sent_and_told(
    namespace: str, address: str, udp: bool
) -> None:
    received, door = Received(), FrontDoor(netns=namespace)
    packets = [ESP + bytes([number]) * 20 for number in range(12)]
    given = [OuterFields(0xB8 + number % 4, 9 + number // 6) for number in range(12)]
    if udp:
        nat = NatSocket.open(
            address,
            4500,
            on_ike=received.on_ike,
            on_esp=received.on_esp,
            front_door=door,
            watches_outer=True,
        )
        for packet, outer in zip(packets, given, strict=True):
            nat.send_batch([packet] * 3, nat.local, tos=outer.tos, ttl=outer.ttl)
        await received.count(36)
        nat.close()
        expected = [(packet, outer) for packet, outer in zip(packets, given, strict=True) for _ in range(3)]
    else:
        raw = RawSocket.open(address, 50, on_packets=received.on_packets, front_door=door, watches_outer=True)
        for packet, outer in zip(packets, given, strict=True):
            raw.send_batch([packet], address, tos=outer.tos, ttl=outer.ttl)
        await received.count(12)
        raw.close()
        expected = list(zip(packets, given, strict=True))
    assert [
        (packet, outer) for (packet, _, _), outer in zip(received.packets, received.outer, strict=True)
    ] == expected
