"""A node on a real clock with real sockets: `run` and `demo` stand on it (asyncio).

It must not know protocols: it calls the node with what arrives and with the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path as FilePath

from endpoint.capture import Capture
from endpoint.children import Child
from endpoint.config import Config
from endpoint.dataplane import Deliver, EspArrival
from endpoint.keylog import KeyLog
from endpoint.node import Node, Observers
from endpoint.state import EndpointState
from endpoint.underlay import Sockets
from ike import IkeKeyLogEntry, Path
from ike.entropy import SystemEntropy
from ike.numbers import TransformType

__all__ = ["Runtime", "now"]

ARM_DELAY_S = 0.01


def now() -> float:
    """Seconds on CLOCK_BOOTTIME: it goes on while the machine sleeps, and nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Runtime:
    """One running endpoint: call `open`, give it packets with `receive_packets`, `close` it."""

    def __init__(self, config: Config, sockets: Sockets) -> None:
        self.config = config
        self.sockets = sockets
        self.node: Node
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._arming: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    @classmethod
    async def open(
        cls,
        config: Config,
        deliver: Deliver,
        *,
        keys: KeyLog | None = None,
        capture: Capture | None = None,
        state_dir: FilePath | None = None,
        observers: Observers = Observers(),  # noqa: B008  frozen
    ) -> Runtime:
        """Open the sockets and start the node. `deliver(attachment, packets)` takes what is for customers."""
        state = EndpointState(state_dir)
        sockets = await Sockets.open(config, capture)
        runtime = cls(config, sockets)
        if keys is not None:
            observers = _with_keys(observers, keys)
        runtime.node = Node(
            config,
            sockets,
            deliver,
            entropy=SystemEntropy(),
            epoch=int(time.time()),
            state=state,
            observers=observers,
        )
        sockets.receiver = runtime
        return runtime

    def start(self) -> None:
        """Begin what is to start at boot."""
        self.node.start(now())
        self.arm()

    async def close(self) -> None:
        """Close the sockets; what is established stays so at the peers until they notice, see `shut_down`."""
        for timer in (self._timer, self._arming):
            if timer is not None:
                timer.cancel()
        self.node.close()
        await self.sockets.close()

    async def shut_down(self, patience_s: float = 2.0) -> None:
        """Delete every IKE SA, wait a little for the answers, close."""
        self.node.shut_down(now())
        self.arm()
        await self.wait_until(lambda: self.node.engine.is_quiet, patience_s)
        await self.close()

    async def wait_until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait for something that this node's inputs or timers bring about; whether it came in time."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    # --- what arrives

    def receive_ike(self, data: bytes, path: Path) -> None:
        self.node.receive_ike(data, path, now())
        self.arm()

    def receive_esp(self, packets: Sequence[EspArrival]) -> None:
        self.node.receive_esp(packets, now())
        self._arm_soon()

    def receive_cleartext(self, protocol: int, payload: bytes) -> None:
        self.node.receive_cleartext(protocol, payload)

    def receive_path_hint(self, address: str, mtu: int) -> None:
        self.node.receive_path_hint(address, mtu, now())
        self._arm_soon()

    def receive_packets(self, attachment: str, packets: Sequence[bytes]) -> None:
        """IP packets from a customer, with labels where the attachment is labelled."""
        self.node.receive_packets(attachment, packets, now())
        self._arm_soon()

    def set_local_addresses(self, addresses: Sequence[str]) -> None:
        """These of our addresses can be used now."""
        self.node.set_local_addresses(addresses, now())
        self.arm()

    # --- time

    def arm(self) -> None:
        """Set the one timer to the node's next deadline; called after whatever may have moved it."""
        if self._arming is not None:
            self._arming.cancel()
            self._arming = None
        self._changed.set()
        deadline = self.node.next_deadline()
        if self._timer is not None:
            if deadline is not None and deadline.at == self._timer_at:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer_at = deadline.at
            self._timer = self._loop.call_later(max(0.0, deadline.at - now()), self._on_timer)

    def _arm_soon(self) -> None:
        """After packets, which come many times a second and seldom move the deadline."""
        if self._arming is None:
            self._arming = self._loop.call_later(ARM_DELAY_S, self.arm)

    def _on_timer(self) -> None:
        self._timer = None
        self.node.handle_timer(now())
        self.arm()


def _with_keys(observers: Observers, keys: KeyLog) -> Observers:
    """The observers, and every key into Wireshark's tables."""

    def on_ike_keys(entry: IkeKeyLogEntry) -> None:
        chosen = {transform.type: transform for transform in entry.proposal.transforms}
        encryption, integrity = chosen[TransformType.ENCR], chosen.get(TransformType.INTEG)
        keys.add_ike_sa(
            entry.spi_i,
            entry.spi_r,
            entry.sk_ei,
            entry.sk_er,
            encryption.id,
            encryption.key_bits,
            integ=integrity.id if integrity else 0,
            sk_ai=entry.sk_ai,
            sk_ar=entry.sk_ar,
        )
        if observers.ike_keys is not None:
            observers.ike_keys(entry)

    def on_child(child: Child) -> None:
        sa, transform = child.sa, child.inbound.transform
        local, peer = sa.path.local[0], sa.path.peer[0]
        for spi, source, destination, (encryption, integrity) in (
            (sa.spi_in, peer, local, sa.keys_in),
            (sa.spi_out, local, peer, sa.keys_out),
        ):
            keys.add_esp_sa(
                spi,
                source,
                destination,
                transform.encr,
                encryption,
                integ=transform.integ,
                integ_key=integrity,
            )
        if observers.child is not None:
            observers.child(child)

    return replace(observers, ike_keys=on_ike_keys, child=on_child)
