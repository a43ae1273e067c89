"""Cases side by side: each lane is a process of its own that runs one case after the other.

Must not know: what a case is, nor what running it means. A lane that is interrupted unwinds what it has begun,
and a lane never outlives us.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from .processes import Interrupted, LabError, signals_unwind

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Result = TypeVar("Result")
Pipe: TypeAlias = "Connection[Any, Any]"

PR_SET_PDEATHSIG = 1
UNWIND_S = 60


class Lanes(Generic[Result]):
    """`count` processes that run `work(lane, number)`; a context manager: on leaving none is left.

    They are forked: they see what was there when the lanes were made. What `work` returns is pickled.
    """

    def __init__(self, count: int, work: Callable[[int, int], Result]) -> None:
        self._count = count
        self._work = work
        self._pipes: list[Pipe] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []

    def __enter__(self) -> Lanes[Result]:
        forking = multiprocessing.get_context("fork")
        for lane in range(self._count):
            ours, theirs = forking.Pipe()
            process = forking.Process(target=self._run, args=(lane, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(UNWIND_S)
            process.kill()
            process.join()

    def results(self, numbers: Sequence[int], aside: Sequence[int] = ()) -> Iterator[Result]:
        """The result of each number, as they are done. `LabError` when a lane ends by itself.

        aside   numbers that are left to the last lane, which then does no others
        """
        left, left_aside = iter(numbers), iter(aside)
        busy: list[Pipe] = []

        def give(pipe: Pipe) -> None:
            number = next(left_aside if aside and pipe is self._pipes[-1] else left, None)
            if number is not None:
                pipe.send(number)
                busy.append(pipe)

        for pipe in self._pipes:
            give(pipe)
        while busy:
            ready = wait(busy)
            for pipe in [one for one in busy if one in ready]:
                busy.remove(pipe)
                try:
                    result = pipe.recv()
                except EOFError as error:
                    raise LabError("a lane of the lab ended by itself") from error
                give(pipe)
                yield result

    def _run(self, lane: int, pipe: Pipe) -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        try:
            with signals_unwind():
                while True:
                    number = pipe.recv()
                    pipe.send(self._work(lane, number))
        except (Interrupted, EOFError):
            pass
