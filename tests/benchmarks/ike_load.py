"""Many IKE SAs with a Child SA each, one after the other, from one process: the load of bench_ike.

    python -m tests.benchmarks.ike_load LOCAL PEER PORT FIRST COUNT SECRET

Must not know: what answers. Client n is c<n>.example and asks for 10.<n>.0/24 behind it; its IKE SA stays up.
"""

from __future__ import annotations

import asyncio
import sys
from ipaddress import ip_network

from endpoint.udp import IkeSocket
from esp.demux import NON_ESP_MARKER
from ike import (
    ChildConfig,
    Connection,
    Identity,
    Mode,
    Path,
    PskAuth,
    SystemEntropy,
    parse_esp_proposal,
    parse_ike_proposal,
)
from ike.selectors import AddressSelector
from ike.testing.scripted import ScriptedPeer

SUITE = "aes256gcm16-prfsha384-x25519"
NETWORK_OF_ALL = "10.255.0.0/16"


def network_of(client: int) -> str:
    """The client's own network."""
    return f"10.{client >> 8}.{client & 255}.0/24"


class Shared:
    """One socket on port 4500 for all clients: what comes belongs to the one that is talking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._socket: IkeSocket

    async def open(self) -> None:
        self._socket = await IkeSocket.open(*self.path.local, on_datagram=self._on_datagram)

    def _on_datagram(self, data: bytes, local: tuple[str, int], peer: tuple[str, int]) -> None:
        self._queue.put_nowait(data.removeprefix(NON_ESP_MARKER))

    async def close(self) -> None:
        await self._socket.close()

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    async def send(self, data: bytes) -> None:
        self._socket.send(NON_ESP_MARKER + data, self.path.peer)

    async def receive(self, seconds: float) -> bytes | None:
        try:
            return await asyncio.wait_for(self._queue.get(), seconds)
        except TimeoutError:
            return None


def connection(client: int, secret: bytes) -> Connection:
    child = ChildConfig(
        "net",
        (parse_esp_proposal("aes256gcm16"),),
        Mode.TUNNEL,
        (AddressSelector.from_network(ip_network(network_of(client))),),
        (AddressSelector.from_network(ip_network(NETWORK_OF_ALL)),),
    )
    ours, theirs = Identity.fqdn(f"c{client}.example"), Identity.fqdn("gateway.example")
    proposals = (parse_ike_proposal(SUITE),)
    return Connection("gateway", ours, theirs, PskAuth(secret), proposals, (child,), force_udp=True)


async def load(local: str, peer: str, port: int, first: int, count: int, secret: bytes) -> None:
    wire = Shared(Path((local, port), (peer, port)))
    await wire.open()
    for client in range(first, first + count):
        scripted = ScriptedPeer(connection(client, secret), wire, entropy=SystemEntropy(), wait_s=5.0)
        await scripted.establish()
    await wire.close()


if __name__ == "__main__":
    _, LOCAL, PEER, *numbers, SECRET = sys.argv
    PORT, FIRST, COUNT = map(int, numbers)
    asyncio.run(load(LOCAL, PEER, PORT, FIRST, COUNT, SECRET.encode()))
