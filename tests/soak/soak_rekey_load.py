"""60 s of 5,000 numbered packets a second each way, a Child rekey every 2 s and an IKE rekey every 10 s: none is lost.

Two whole endpoints on virtual time, a millisecond apart. Rekeys are begun by alternating sides and by both at once.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from mpls.ip import build_ip
from tests.endpoint.pair import NodePair, configuration
from tests.soak.run import Run

SECONDS = 60
PACKETS_PER_S = 5000
TICK_S = 0.01
CHILD_REKEY_S, IKE_REKEY_S = 2, 10


def soak(run: Run) -> None:
    """A second is a case."""
    pair = NodePair(configuration(1, 'start = "boot"'), configuration(2, 'start = "boot"')).start()
    pair.run(5.0)
    received: dict[int, list[int]] = {1: [], 2: []}
    for number, end in pair.ends.items():
        end.hosts["blue"].receive = _recorder(received[number])  # type: ignore[method-assign,assignment]
    sent = 0
    for second in run.cases(SECONDS):
        for tick in range(round(1 / TICK_S)):
            if tick == 50:
                _rekey(pair, second)
            burst = range(sent, sent + round(PACKETS_PER_S * TICK_S))
            for number in (1, 2):
                packets = [_packet(number, one) for one in burst]
                pair.ends[number].node.receive_packets("blue", packets, pair.now)
            sent += len(burst)
            pair.wire.clear()
            pair.run(TICK_S)
        run.step(f"second {second}")
    pair.run(1.0)
    for number, numbers in received.items():
        drops = pair.ends[number].node.dataplane.drops
        assert numbers == list(range(sent)), (
            f"pe{number}: {len(numbers)} of {sent} came, or out of order: {drops}"
        )


def _rekey(pair: NodePair, second: int) -> None:
    sides = ((1,), (2,), (1, 2))[second // 2 % 3]
    for side in sides:
        if second % CHILD_REKEY_S == 0:
            pair.ends[side].node.rekey(f"pe{3 - side}", "blue/0", pair.now)
        if second % IKE_REKEY_S == IKE_REKEY_S - 1:
            pair.ends[side].node.rekey(f"pe{3 - side}", None, pair.now, ike=True)


def _packet(number: int, count: int) -> bytes:
    source, destination = f"10.{number}.0.2", f"10.{3 - number}.0.2"
    udp = bytes.fromhex("03e8 03e9 0000 0000") + count.to_bytes(4, "big")
    return build_ip(ip_address(source).packed, ip_address(destination).packed, 17, udp)


def _recorder(numbers: list[int]) -> Callable[[bytes], None]:
    def receive(packet: bytes) -> None:
        numbers.append(int.from_bytes(packet[-4:], "big"))

    return receive
