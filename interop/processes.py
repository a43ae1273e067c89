"""Programs run by the lab: commands with a time limit, and background programs that never outlive us.

Must not know: what the programs are for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

BYTECODE = Path("/run/mplsec-lab/bytecode")
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class LabError(Exception):
    """The lab itself could not do its work (a tool missing, a command that failed, a time limit)."""


class CommandError(LabError):
    """A command ended with another exit code than 0, or not at all within its time."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived: unwind everything."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every program of the lab: Debian's tools first, English messages, no prompts.

    Python keeps its bytecode, where a read-only or frugal surrounding keeps none: `mplsec run` starts in a third
    of the time.
    """
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPYCACHEPREFIX": str(BYTECODE),
        "PATH": SYSTEM_PATH,
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        **(extra or {}),
    }


def in_namespace(netns: str | None, argv: Sequence[str | Path]) -> list[str]:
    """`argv` as run inside the network namespace `netns` (None: where we are)."""
    prefix = ["ip", "netns", "exec", netns] if netns else []
    return [*prefix, *(str(arg) for arg in argv)]


def run(
    argv: Sequence[str | Path],
    *,
    netns: str | None = None,
    timeout_s: float = 60,
    stdin: str | None = None,
    extra_environment: Mapping[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `CommandError` with the tail of what it printed unless `check` is off."""
    command = in_namespace(netns, argv)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment(extra_environment),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise CommandError(f"{command[0]}: not installed") from error
    try:
        output, errors = process.communicate(stdin, timeout_s)
    except BaseException as error:
        kill_group(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise CommandError(f"{' '.join(command)}: not finished after {timeout_s:g} s") from error
        raise
    done = subprocess.CompletedProcess(command, process.returncode, output, errors)
    if check and done.returncode != 0:
        said = tail(output + errors, 20)
        raise CommandError(f"{' '.join(command)}: exit code {done.returncode}\n{said}")
    return done


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill a program that we started as the leader of its own session, with its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


class Background:
    """A program that runs until `stop()`; its output goes to a log file.

    The kernel kills it when the lab itself dies without having stopped it (PR_SET_PDEATHSIG by `setpriv`).
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        netns: str | None = None,
        extra_environment: Mapping[str, str] | None = None,
        death_signal: str = "KILL",
    ) -> None:
        self.log = log
        self.name = Path(str(argv[0])).name
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", death_signal, *in_namespace(netns, argv)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(extra_environment),
                start_new_session=True,
            )

    def is_running(self) -> bool:
        return self.process.poll() is None

    def require_running(self) -> None:
        """Raise `LabError` with the tail of the log when the program has ended."""
        if not self.is_running():
            raise LabError(f"{self.name} ended with code {self.process.returncode}\n{tail_of(self.log)}")

    def stop(self, *, timeout_s: float = 8, first: signal.Signals = signal.SIGTERM) -> int:
        """End the program: first politely, then for certain. Returns its exit code."""
        if self.is_running():
            self.process.send_signal(first)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                kill_group(self.process)
        return self.process.returncode


def wait_until(
    question: Callable[[], T | None],
    what: str,
    *,
    timeout_s: float = 20,
    every_s: float = 0.05,
) -> T:
    """Ask until the answer is true and return it; `LabError` naming `what` when the time is over."""
    end = time.monotonic() + timeout_s
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise LabError(f"not seen within {timeout_s:g} s: {what}")
        time.sleep(every_s)


def tail(text: str, lines: int = 25) -> str:
    """The last lines of `text`."""
    return "\n".join(text.splitlines()[-lines:])


def tail_of(path: Path, lines: int = 25) -> str:
    """The last lines of a file, or a note that there is none."""
    try:
        return tail(path.read_text(errors="replace"), lines)
    except OSError:
        return f"({path.name}: no such log)"


@contextlib.contextmanager
def time_limit(seconds: int, what: str) -> Iterator[None]:
    """Raise `LabError` when what is inside takes longer (SIGALRM: in the main thread only)."""

    def give_up(_number: int, _frame: object) -> None:
        raise LabError(f"{what}: not finished after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def signals_unwind() -> Iterator[None]:
    """While inside, SIGINT, SIGTERM and SIGHUP raise `Interrupted`, once: clean-up is not interrupted."""

    def interrupt(number: int, _frame: object) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
