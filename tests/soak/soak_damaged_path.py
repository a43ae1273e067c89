"""1,000,000 repeated, cut, damaged and foreign ESP packets between two `mplsec run`: good traffic keeps 90 %.

The good traffic is one TCP connection that takes all that the receiving end carries: pe2 shares a processor with it,
whose idle time is on record. Beside it, in UDP as over protocol 50, 2,500 bad packets come in each second, made of what
was on the wire a moment ago, half of them with numbers that have not come yet, so that their ICV is looked at. For
a part of each case the same frames go to nobody's MAC address instead: what they cost then is what they cost all but
pe2. Bad packets take nothing but the processor's time from the good ones, so more of them a second take more. Each is
counted. No memory grows, nothing is logged as an error.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from endpoint.netns import in_namespace
from mpls.ip import internet_checksum
from tests.endpoint.running import ETH_P_ALL, OUTGOING
from tests.endpoint.running import Run as Process
from tests.soak.processes import Pair, pid_of, process_pair
from tests.soak.run import Run

NEEDS_ROOT = True
FAULTS_PER_S = 2500
TICK_S = 0.002
SECONDS = {False: 1.0, True: 2.0}
"""Of a case, without damage and with it."""
SHORTENED = 0.2
"""Of the seconds, where only a few cases are done."""
CASES = {"always": 160, "never": 40}
"""`udp` of the peers -> cases: a million faults in all."""
ENOUGH_CASES = 10
"""Of one kind, to say how much was kept."""
MIN_KEPT = 0.9
MAX_IDLE = 0.1
"""Of the processor of pe2: what it carries is the most that it can."""
MAX_GROWTH_OCTETS = 16 * 1024 * 1024
CHUNK_OCTETS = 256 * 1024
ETHERNET, IPV4, UDP = 14, 20, 8
AHEAD = 1 << 15
NOBODY = bytes.fromhex("020000000001")
_WITH = {False: "without damage", True: "with damage"}
DROPS = ("replay", "too_old", "truncated", "integrity", "unknown_spi")


def soak(run: Run) -> None:
    for udp, cases in CASES.items():
        with contextlib.ExitStack() as stack:
            pair = stack.enter_context(process_pair(udp=udp))
            stack.enter_context(_beside_pe2(pair))
            path = stack.enter_context(contextlib.closing(DamagedPath(pair, udp)))
            run.figures[f'udp = "{udp}"'] = _soak(run, pair, path, cases)


def _soak(run: Run, pair: Pair, path: DamagedPath, cases: int) -> dict[str, object]:
    shortened = 1.0 if cases * run.scale >= 1 else SHORTENED
    seconds = {damage: shortened * part for damage, part in SECONDS.items()}
    path.carry(seconds[False], damage=False)
    octets = {False: 0, True: 0}
    spent = {False: Counter[str](), True: Counter[str]()}
    growth, base, done = 0, 0, 0
    for number in run.cases(cases):
        # Neither part is always the first, nor always the second.
        for damage in (False, True) if number % 2 else (True, False):
            before = _processor_ticks(pair.pe[2])
            octets[damage] += path.carry(seconds[damage], damage=damage)
            after = _processor_ticks(pair.pe[2])
            after.subtract(before)
            spent[damage] += after
        base = base or _memory_octets(pair.pe[2])
        growth = _memory_octets(pair.pe[2]) - base
        done += 1
        run.step(f"{path.faults} faults, {growth // 1024} KB more memory")
    rates = {damage: octets[damage] / seconds[damage] / done for damage in seconds}
    kept = rates[True] / rates[False]
    counted = sum(pair.pe[2].drops().get(reason, 0) for reason in DROPS)
    figures = {
        "faults": path.faults,
        "faults_per_s": round(path.faults / seconds[True] / done),
        "drops": pair.pe[2].drops(),
        "not_counted": path.faults - counted,
        "kept": round(kept, 3),
        "mbit_per_s": {_WITH[damage]: round(8e-6 * rate) for damage, rate in rates.items()},
        "processor_of_pe2": {
            _WITH[damage]: {name: round(count / ticks["all"], 2) for name, count in ticks.items()}
            for damage, ticks in spent.items()
        },
        "octets_grown": growth,
    }
    run.say(str(figures))
    assert path.faults, "no ESP was seen on the wire"
    assert growth < MAX_GROWTH_OCTETS, f"{growth} octets more than after the first case"
    assert MIN_KEPT * path.faults <= counted <= path.faults, (
        f"{path.faults} bad packets, but counted: {figures}"
    )
    if done >= ENOUGH_CASES:
        assert kept >= MIN_KEPT, f"good traffic kept {kept:.3f}"
        for ticks in spent.values():
            assert ticks["idle"] <= MAX_IDLE * ticks["all"], f"pe2 had time to spare: {figures}"
    for pe in pair.pe.values():
        assert not re.search("Traceback|ERROR", pe.log()), pe.log()[-2000:]
        assert pe.stop() == 0
    return figures


def _memory_octets(pe: Process) -> int:
    return int(_proc(pe, "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _processor_ticks(pe: Process) -> Counter[str]:
    """Of the processor of pe2: all, those of the process itself, and the idle ones."""
    mine = _proc(pe, "stat").rpartition(")")[2].split()
    (processor,) = os.sched_getaffinity(pid_of(pe))
    lines = Path("/proc/stat").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"cpu{processor} "))
    # user nice system idle iowait irq softirq steal, and guest, which is in user
    ticks = [int(one) for one in line.split()[1:9]]
    return Counter(
        all=sum(ticks), pe2=int(mine[11]) + int(mine[12]), idle=ticks[3] + ticks[4], stolen=ticks[7]
    )


def _proc(pe: Process, name: str) -> str:
    return Path(f"/proc/{pid_of(pe)}/{name}").read_text()


class DamagedPath:
    """One TCP connection from red1 to red2, and what becomes bad of its ESP; `faults` have been sent to the peer."""

    def __init__(self, pair: Pair, udp: str) -> None:
        self.faults = 0
        self._headers = IPV4 + (UDP if udp == "always" else 0)
        self._some = random.Random("damaged path")
        self._template = b""
        self._received = 0
        self._ends = threading.Event()
        red1, red2, front = (pair.spaces.real(name) for name in ("red1", "red2", "front1"))
        server = in_namespace(red2, lambda: socket.create_server(("10.2.0.1", 5001)))
        self._sender = in_namespace(red1, lambda: socket.create_connection(("10.2.0.1", 5001), timeout=20))
        self._receiver, _ = server.accept()
        server.close()
        # One socket for both: it does not hear what it has said itself.
        self._wire = in_namespace(
            front, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        )
        # Room for as little as there may be, so that what is there is new.
        self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self._wire.bind(("wire", ETH_P_ALL))
        self._threads = [threading.Thread(target=one) for one in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._ends.set()
        for one in (self._sender, self._receiver):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (self._sender, self._receiver, self._wire):
            one.close()

    def carry(self, seconds: float, *, damage: bool) -> int:
        """How many octets arrived."""
        received = self._received
        begun = time.monotonic()
        end, due = begun + seconds, begun
        while (now := time.monotonic()) < end:
            self._listen()
            for _ in range(round(FAULTS_PER_S * TICK_S) if self._template else 0):
                self._wire.send(self._bad_frame(None if damage else NOBODY))
                self.faults += damage
            due = max(due + TICK_S, now - 5 * TICK_S)
            time.sleep(max(0.0, due - time.monotonic()))
        return self._received - received

    def _send(self) -> None:
        chunk = bytes(CHUNK_OCTETS)
        with contextlib.suppress(OSError):
            while not self._ends.is_set():
                self._sender.sendall(chunk)

    def _receive(self) -> None:
        room = bytearray(CHUNK_OCTETS)
        with contextlib.suppress(OSError):
            while count := self._receiver.recv_into(room):
                self._received += count

    def _listen(self) -> None:
        """Take what is on the wire now to make faults of."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (*_, direction, _, _) = self._wire.recvfrom(4096, socket.MSG_DONTWAIT)
                if direction == OUTGOING:
                    self._template = self._first_packet(frame) or self._template

    def _first_packet(self, frame: bytes) -> bytes:
        """A frame with the first of the ESP packets in it: a veth carries a row of datagrams as one."""
        at = ETHERNET + self._headers
        esp = frame[at:]
        if len(esp) < 256 or esp[:4] == bytes(4) or frame[ETHERNET + 9] not in (17, 50):
            return b""  # IKE, or small: there are better ones
        following = esp[:4] + (int.from_bytes(esp[4:8], "big") + 1).to_bytes(4, "big")
        length = esp.find(following)
        return frame[: at + (length if length > 0 else len(esp))]

    def _bad_frame(self, to: bytes | None) -> bytes:
        at = ETHERNET + self._headers
        header, esp = bytearray(self._template[:at]), bytearray(self._template[at:])
        some = self._some
        match some.randrange(4):
            case 0:  # a bit, anywhere behind the header
                _renumber(esp)
                esp[some.randrange(8, len(esp))] ^= 1 << some.randrange(8)
            case 1:
                _renumber(esp)
                del esp[some.randrange(8, len(esp)) :]
            case 2:
                esp[0:4] = b"\xff" + some.randbytes(3)
            # or once more as it was
        header[0:6] = to or header[0:6]
        header[16:18] = (self._headers + len(esp)).to_bytes(2, "big")
        header[24:26] = bytes(2)
        header[24:26] = internet_checksum(bytes(header[ETHERNET : ETHERNET + IPV4])).to_bytes(2, "big")
        if self._headers > IPV4:  # the length of UDP, and no checksum
            header[38:42] = (UDP + len(esp)).to_bytes(2, "big") + bytes(2)
        return bytes(header + esp)


def _renumber(esp: bytearray) -> None:
    """A number that has not come yet: only the ICV tells that the packet is bad, which is what costs most."""
    esp[4:8] = ((int.from_bytes(esp[4:8], "big") + AHEAD) % (1 << 32)).to_bytes(4, "big")


@contextlib.contextmanager
def _beside_pe2(pair: Pair) -> Iterator[None]:
    """On its processor is also what sends and takes the good traffic and makes the bad: threads that begin now."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, os.sched_getaffinity(pid_of(pair.pe[2])))
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)
