"""A flood has its budget for each wake-up: IKE and the other VRFs have their turn between, whatever comes.

The flood never ends: whoever takes a batch of it sends more than a batch. The kernel's queues bound it.
"""

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from endpoint.config import FrontDoor
from endpoint.netns import in_namespace
from endpoint.raw import RECEIVES_PER_WAKE_UP as RAW_RECEIVES_PER_WAKE_UP
from endpoint.raw import RawSocket
from endpoint.sockets import Address, SocketDrop
from endpoint.tun import OCTETS_PER_WAKE_UP, READS_PER_WAKE_UP, Tun
from endpoint.udp import OCTETS_PER_WAKE_UP as ESP_OCTETS_PER_WAKE_UP
from endpoint.udp import RECEIVES_PER_WAKE_UP, EspBatch, IkeSocket, NatSocket
from mpls.models import OuterFields

pytestmark = pytest.mark.root
HERE = "127.0.0.1"
ESP = bytes.fromhex("c0ffee01") + bytes(1000)
TURNS = 4
"""So many batches of a flood may come before something else that was there already: a pass of the loop has one."""
RETRANSMISSIONS = 8
"""After so many without an answer IKE gives up."""


class Gateway:
    """Two VRFs' devices and all sockets of one endpoint, in one namespace; what came in, and when."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.red = Tun.create("red0", netns=namespace, addresses=["10.1.0.1/24"], mtu=1400)
        self.blue = Tun.create("blue0", netns=namespace, addresses=["10.3.0.1/24"], mtu=1400)
        self.turns: Counter[str] = Counter()
        self.waited: dict[str, int] = {}
        self.flood_of = ""
        self.more: Callable[[], None] = lambda: None
        self._others: Callable[[], list[str]] = list
        self._sent_at = 0
        self._expected: set[str] = set()
        self._finished = asyncio.Event()

    async def open(self) -> None:
        door = FrontDoor(netns=self.namespace)
        self.ike = await IkeSocket.open(HERE, 500, on_datagram=self.on_ike, front_door=door)
        self.nat = NatSocket.open(HERE, 4500, on_ike=self.on_ike, on_esp=self.on_esp, front_door=door)
        self.raw = RawSocket.open(HERE, 50, on_packets=self.on_raw, front_door=door)
        self.red.start(lambda batch: self.on_packets("red", batch))
        self.blue.start(lambda batch: self.on_packets("blue", batch))

    def on_packets(self, vrf: str, batch: list[bytes]) -> None:
        assert len(batch) <= READS_PER_WAKE_UP
        assert sum(map(len, batch[:-1])) < OCTETS_PER_WAKE_UP
        # The kernel itself says something on a new device, in IPv6.
        if any(packet[0] >> 4 == 4 for packet in batch):
            self._came(vrf)

    def on_esp(self, batch: EspBatch) -> None:
        packets = [packet for row, _, _ in batch for packet in row]
        assert len(packets) <= RECEIVES_PER_WAKE_UP
        assert sum(map(len, packets[:-1])) < ESP_OCTETS_PER_WAKE_UP
        self._came("esp")

    def on_raw(self, batch: list[tuple[bytes, str, str, OuterFields]]) -> None:
        assert len(batch) <= RAW_RECEIVES_PER_WAKE_UP
        self._came("raw")

    def on_ike(self, data: bytes, local: Address, peer: Address) -> None:
        if local == self.nat.local:
            self.nat.send_ike(b"answer to " + data, peer)
        self._came(f"ike {local[1]}")

    async def while_flooded(
        self, flood: str, more: Callable[[], None], others: Callable[[], list[str]]
    ) -> None:
        """`more` sends another batch of the flood, `others` the rest, and says what is to come of that."""
        self.flood_of, self.more, self._others = flood, more, others
        more()
        async with asyncio.timeout(10):
            await self._finished.wait()

    def _came(self, kind: str) -> None:
        self.turns[kind] += 1
        if kind == self.flood_of:
            if self.turns[kind] == TURNS:  # the flood is on: now the others come
                self._sent_at = self.turns[kind]
                self._expected = set(self._others())
            self.more()
        elif kind in self._expected and kind not in self.waited:
            self.waited[kind] = self.turns[self.flood_of] - self._sent_at
            if self._expected == set(self.waited):
                self.flood_of = ""
                self._finished.set()

    async def close(self) -> None:
        self.red.close()
        self.blue.close()
        self.nat.close()
        self.raw.close()
        await self.ike.close()


@pytest.fixture
def customer(namespace: str) -> Iterator[socket.socket]:
    """Sends into either VRF, and to the sockets, without ever waiting."""
    with in_namespace(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.setblocking(False)
        yield sock


def send_many(sock: socket.socket, data: bytes, target: Address) -> None:
    with contextlib.suppress(BlockingIOError):
        for _ in range(2 * READS_PER_WAKE_UP):
            sock.sendto(data, target)


async def test_a_vrf_that_floods_starves_neither_ike_nor_esp_nor_another_vrf(
    namespace: str, customer: socket.socket
) -> None:
    gateway = Gateway(namespace)
    await gateway.open()

    def others() -> list[str]:
        customer.sendto(b"x", ("10.3.0.9", 9))
        customer.sendto(b"a message", (HERE, 500))
        customer.sendto(bytes(4) + b"a message", (HERE, 4500))
        customer.sendto(ESP, (HERE, 4500))
        return ["blue", "ike 500", "ike 4500", "esp"]

    await gateway.while_flooded("red", lambda: send_many(customer, ESP, ("10.1.0.9", 9)), others)
    assert max(gateway.waited.values()) <= TURNS
    await gateway.close()


async def test_esp_that_floods_starves_neither_ike_nor_a_vrf(namespace: str, customer: socket.socket) -> None:
    gateway = Gateway(namespace)
    await gateway.open()

    def others() -> list[str]:
        customer.sendto(b"x", ("10.1.0.9", 9))
        customer.sendto(b"x", ("10.3.0.9", 9))
        customer.sendto(b"a message", (HERE, 500))
        return ["red", "blue", "ike 500"]

    await gateway.while_flooded("esp", lambda: send_many(customer, ESP, (HERE, 4500)), others)
    assert max(gateway.waited.values()) <= TURNS
    await gateway.close()


async def test_a_flood_on_protocol_50_starves_neither_ike_nor_a_vrf(
    namespace: str, customer: socket.socket
) -> None:
    gateway = Gateway(namespace)
    await gateway.open()
    with in_namespace(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 50)) as attacker:
        attacker.setblocking(False)

        def others() -> list[str]:
            customer.sendto(b"x", ("10.1.0.9", 9))
            customer.sendto(b"x", ("10.3.0.9", 9))
            customer.sendto(b"a message", (HERE, 500))
            customer.sendto(bytes(4) + b"a message", (HERE, 4500))
            customer.sendto(ESP, (HERE, 4500))
            return ["red", "blue", "ike 500", "ike 4500", "esp"]

        await gateway.while_flooded("raw", lambda: send_many(attacker, ESP, (HERE, 0)), others)
    assert max(gateway.waited.values()) <= TURNS
    await gateway.close()


async def test_ike_on_the_very_socket_that_esp_floods_is_answered(
    namespace: str, customer: socket.socket
) -> None:
    """The kernel's queue is full, and twice as much comes as is taken: a message is lost no more often than a packet.

    It is sent again with each batch, somewhere among the packets.
    """
    gateway, chance, answered = Gateway(namespace), random.Random(4500), asyncio.Event()
    await gateway.open()
    gateway.nat._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
    asked = 0
    with in_namespace(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as peer:
        peer.setblocking(False)

        def more() -> None:
            nonlocal asked
            count = 2 * RECEIVES_PER_WAKE_UP
            place = chance.randrange(count)
            is_full = bool(gateway.nat.all_drops()[SocketDrop.KERNEL_QUEUE])
            for number in range(count):
                if is_full and number == place:
                    peer.sendto(bytes(4) + b"message", gateway.nat.local)
                    asked += 1
                customer.sendto(ESP, gateway.nat.local)
            with contextlib.suppress(BlockingIOError):
                if peer.recv(100) == bytes(4) + b"answer to message":
                    gateway.flood_of = ""
                    answered.set()

        gateway.flood_of, gateway.more = "esp", more
        more()
        async with asyncio.timeout(10):
            await answered.wait()
    assert 0 < asked <= RETRANSMISSIONS
    await gateway.close()
