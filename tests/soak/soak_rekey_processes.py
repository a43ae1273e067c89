"""60 s of 5,000 numbered packets a second each way between two `mplsec run` that rekey: every gap has a counter.

A Child rekey every 2 s and an IKE rekey every 10 s, by alternating sides and by both at once. The packets are paced,
one each way in 0.2 ms; where the machine stalls they are sent later, not in a heap, and the rate that came of it is in
the record. None is reordered. What did not arrive is, in each direction, what our counters say, and the kernel's:
devices, IP, UDP and its sockets, backlogs. At the end one of the two stands still, so that there is something to count.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import socket
import threading
import time
from bisect import bisect_left
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

from endpoint.netns import in_namespace
from endpoint.udp import SEGMENTS_PER_SEND
from tests.endpoint.namespaces import wait_until
from tests.endpoint.running import Run as Process
from tests.soak.processes import Pair, process_pair
from tests.soak.run import Run
from tests.soak.soak_rekey_load import CHILD_REKEY_S, IKE_REKEY_S, OUTBOUND, STARTERS

NEEDS_ROOT = True
SECONDS = 60
PACKETS_PER_S = 5000
PERIOD_S = 1 / PACKETS_PER_S
MOST_IN_ARREARS = 20
"""Packets: who is later than that gives up the rest of the delay."""
PAYLOAD = bytes(196)
PORT = 5000
STALL_S = 0.4
REKEY_S = 15.0
"""Until a rekey has happened; one that is put off is tried again after five seconds."""
NO_LOSS = frozenset({"dummy"})
"""Counted among the drops, but packets of nobody."""
OF_KERNEL = frozenset({"kernel_queue", "tun_queue"})
"""What `status` may read from the kernel: here it comes from there."""


def soak(run: Run) -> None:
    """A Child rekey with the two seconds around it is a case."""
    with process_pair() as pair, contextlib.closing(Traffic(pair)) as traffic:
        traffic.start()
        rekeys = Rekeys(pair)
        began = time.monotonic()
        for number in run.cases(SECONDS // CHILD_REKEY_S):
            at_s = number * CHILD_REKEY_S
            rekeys.do("child", STARTERS[number % 3], began + at_s)
            if at_s % IKE_REKEY_S == 8:
                rekeys.do("ike", STARTERS[number // 5 % 3], began + at_s + 1)
            _sleep_until(began + at_s + CHILD_REKEY_S)
            run.step(f"rekeys: {dict(rekeys.done)}")
        seconds = traffic.stop()
        run.figures.update(
            packets_each_way=traffic.sent,
            packets_per_s=round(traffic.sent / seconds),
            gaps={f"pe{sender}": dict(traffic.check(sender)) for sender in (1, 2)},
            rekeys={f"{kind} by {' and '.join(map(str, one))}": n for (kind, one), n in rekeys.done.items()},
            rekeys_that_met=sum("closed: redundant" in line for line in pair.pe[1].log().splitlines()),
            least_packets_while_rekeying=min(traffic.between(*span) for span in rekeys.spans),
        )
        traffic.close()
        missing = _stall(pair)
        run.figures["gaps_by_a_stall"] = {f"pe{sender}": dict(counted) for sender, counted in missing.items()}
        assert run.scale < 1 or missing[2]["missing"], "nothing was lost, so nothing was counted"
        for pe in pair.pe.values():
            assert not re.search("Traceback|ERROR", pe.log()), pe.log()[-2000:]
            assert pe.stop() == 0


def _stall(pair: Pair) -> dict[int, Counter[str]]:
    """pe2 stops for a while, and the kernel's queues run over: what each side's packets were dropped for."""
    with contextlib.closing(Traffic(pair)) as traffic:
        traffic.start()
        time.sleep(STALL_S)
        pair.pe[2].send_signal(signal.SIGSTOP)
        time.sleep(STALL_S)
        pair.pe[2].send_signal(signal.SIGCONT)
        time.sleep(STALL_S)
        traffic.stop()
        return {sender: traffic.check(sender) for sender in (1, 2)}


class Rekeys:
    """Begins rekeys by command and waits until they have happened.

    `done`: (kind, starters) -> how many; `spans`: when each was begun and seen to have happened.
    """

    def __init__(self, pair: Pair) -> None:
        self.done: Counter[tuple[str, tuple[int, ...]]] = Counter()
        self.spans: list[tuple[float, float]] = []
        self._pe = pair.pe
        self._some = random.Random("rekeys of processes")

    def do(self, kind: str, sides: tuple[int, ...], at: float) -> None:
        """Begin at some moment of the half second after `at`."""
        before = {number: _spis(pe, kind) for number, pe in self._pe.items()}
        _sleep_until(at + self._some.uniform(0, 0.5))
        begun = time.monotonic()
        self._command(kind, sides)
        wait_until(
            lambda: all(_has_rekeyed(before[number], _spis(pe, kind)) for number, pe in self._pe.items()),
            f"{kind} rekey by {sides}",
            REKEY_S,
        )
        self.spans.append((begun, time.monotonic()))
        if kind == "ike":
            roles = {number for number, pe in self._pe.items() if _role(pe) == "initiator"}
            assert len(roles) == 1 and roles <= set(sides), f"IKE rekey by {sides}: made by {roles}"
        self.done[kind, sides] += 1

    def _command(self, kind: str, sides: tuple[int, ...]) -> None:
        """To all of them as nearly at once as it goes."""
        with contextlib.ExitStack() as stack:
            clients = {side: stack.enter_context(socket.socket(socket.AF_UNIX)) for side in sides}
            for side, client in clients.items():
                client.settimeout(REKEY_S)
                client.connect(str(self._pe[side].control))
            time.sleep(0.02)  # by then they have been accepted
            requests = {
                side: {"command": "rekey", "peer": f"pe{3 - side}", "ike": kind == "ike"} for side in sides
            }
            lines = {side: json.dumps(request).encode() + b"\n" for side, request in requests.items()}
            for side, client in clients.items():
                client.sendall(lines[side])
            for side, client in clients.items():
                answer = json.loads(client.recv(65536))
                assert answer.get("count") == 1, f"{kind} rekey by pe{side}: {answer}"


class Traffic:
    """Numbered packets between `red1` and `red2`, sent and received by a thread of its own."""

    def __init__(self, pair: Pair) -> None:
        self.sent = 0
        self._pair = pair
        self._sockets = {number: _open(pair.spaces.real(f"red{number}"), number) for number in (1, 2)}
        self._received: dict[int, list[int]] = {1: [], 2: []}
        self._sent_at: list[float] = []
        self._refused: Counter[int] = Counter()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._before: dict[int, dict[str, Counter[str]]] = {}
        self._backlog = _backlog_drops()
        self._seconds = 0.0

    def start(self) -> None:
        self._before = {number: self._counters(number) for number in (1, 2)}
        self._thread.start()

    def stop(self) -> float:
        """Wait for what is under way; how long it was sent, in seconds."""
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join()
        return self._seconds

    def close(self) -> None:
        self.stop()
        for one in self._sockets.values():
            one.close()

    def between(self, begin: float, end: float) -> int:
        """How many a side sent in this time."""
        return bisect_left(self._sent_at, end) - bisect_left(self._sent_at, begin)

    def check(self, sender: int) -> Counter[str]:
        """What this side's packets were dropped for; asserts that it is all that is missing, and their order."""
        numbers = self._received[3 - sender]
        falls = [(one, other) for one, other in pairwise(numbers) if other <= one]
        assert not falls, f"pe{sender}: {len(falls)} out of order or twice, the first: {falls[0]}"
        ours, kernel = self._drops(sender)
        gap = self.sent - len(numbers)
        backlog = _backlog_drops() - self._backlog
        # What the kernel has joined it drops as one, and some of that it counts at both ends of the wire.
        joined = backlog + sum(count for name, count in kernel.items() if name.startswith("front "))
        most = ours.total() + kernel.total() + SEGMENTS_PER_SEND * joined
        assert ours.total() <= gap <= most, (
            f"pe{sender}: {gap} of {self.sent} are missing, counted: {dict(ours)}, kernel {dict(kernel)},"
            f" backlogs {backlog}"
        )
        return ours + kernel + Counter(missing=gap, backlogs_of_the_machine=backlog)

    def _drops(self, sender: int) -> tuple[Counter[str], Counter[str]]:
        """On the way from `sender` to the other: counted by us, and by the kernel."""
        after = {number: self._counters(number) for number in (1, 2)}
        ours: Counter[str] = Counter()
        kernel: Counter[str] = Counter()
        for number, side in after.items():
            is_sender = number == sender
            for group, counted in side.items():
                grown = counted - self._before[number][group]
                if group == "drops":
                    ours.update({name: n for name, n in grown.items() if (name in OUTBOUND) is is_sender})
                elif group == "sockets":
                    ours.update(grown if is_sender else {})
                elif group == ("kernel out" if is_sender else "kernel in"):
                    kernel.update(grown)
        kernel += Counter({"sender's socket": self._refused[sender]})
        return ours, kernel

    def _counters(self, number: int) -> dict[str, Counter[str]]:
        counters = self._pair.pe[number].status()["counters"]
        counted = {
            "drops": Counter({name: n for name, n in counters["drops"].items() if name not in NO_LOSS}),
            "sockets": Counter({name: n for name, n in counters["sockets"].items() if name not in OF_KERNEL}),
            "kernel out": Counter[str](),
            "kernel in": Counter[str](),
        }
        for name, device in (("red", "red0"), ("front", "wire")):
            out, into = in_namespace(
                self._pair.spaces.real(f"{name}{number}"), partial(_kernel_drops, device)
            )
            counted["kernel out"].update({f"{name} {one}": n for one, n in out.items()})
            counted["kernel in"].update({f"{name} {one}": n for one, n in into.items()})
        return counted

    def _run(self) -> None:
        began = due = last = time.monotonic()
        number = 0
        while not self._ends.is_set():
            now = time.monotonic()
            if now < due:
                self._drain()
                time.sleep(max(0.0, due - time.monotonic()))
                continue
            due = max(due + PERIOD_S, now - MOST_IN_ARREARS * PERIOD_S)
            octets = number.to_bytes(4, "big") + PAYLOAD
            for side, one in self._sockets.items():
                try:
                    one.sendto(octets, (f"10.{3 - side}.0.1", PORT))
                except BlockingIOError:
                    self._refused[side] += 1
            number += 1
            self._sent_at.append(now)
            last = now
        self._seconds = last - began
        quiet = time.monotonic()
        while time.monotonic() < quiet + 1.0:
            quiet = time.monotonic() if self._drain() else quiet
            time.sleep(0.01)
        self.sent = number

    def _drain(self) -> int:
        count = 0
        for side, one in self._sockets.items():
            received = self._received[side]
            with contextlib.suppress(BlockingIOError):
                while True:
                    received.append(int.from_bytes(one.recv(2048)[:4], "big"))
                    count += 1
        return count


def _open(netns: str, number: int) -> socket.socket:
    opened = in_namespace(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    opened.bind((f"10.{number}.0.1", PORT))
    opened.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
    opened.setblocking(False)
    return opened


def _spis(pe: Process, kind: str) -> set[str]:
    """Of what is there to send with."""
    (peer,) = pe.status()["peers"]
    if kind == "ike":
        return {one["spi_i"] for one in peer["sessions"]}
    return {one["spi_in"] for one in peer["children"] if one["sending"]}


def _has_rekeyed(before: set[str], after: set[str]) -> bool:
    return len(after) == 1 and not before & after


def _role(pe: Process) -> str:
    (peer,) = pe.status()["peers"]
    (session,) = peer["sessions"]
    return str(session["role"])


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.monotonic()))


def _kernel_drops(device: str) -> tuple[Counter[str], Counter[str]]:
    """What the kernel has dropped in this thread's namespace of what went out, and of what came in."""
    lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    snmp: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        group = names.split(":")[0]
        snmp |= dict(
            zip((f"{group} {one}" for one in names.split()[1:]), map(int, values.split()[1:]), strict=True)
        )
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == device:
            fields = [int(one) for one in rest.split()]
            into = {f"{device} rx_dropped": fields[3], f"{device} rx_errors": fields[2]}
            out = {f"{device} tx_dropped": fields[11], f"{device} tx_errors": fields[10]}
    out |= {one: snmp[one] for one in ("Ip OutDiscards", "Ip OutNoRoutes", "Udp SndbufErrors")}
    into |= {one: snmp[one] for one in ("Ip InDiscards", "Ip InHdrErrors", "Ip InAddrErrors")}
    into |= {one: snmp[one] for one in ("Ip ReasmFails", "Udp InErrors", "Udp NoPorts")}
    return Counter(out), Counter(into)


def _backlog_drops() -> int:
    """Frames that the machine's processors had no room for, in whatever namespace."""
    return sum(int(line.split()[1], 16) for line in Path("/proc/net/softnet_stat").read_text().splitlines())
