"""Worker processes for work that may crash: what one of them dies over is known, and the others go on."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

_BATCH = 16  # items handed over at a time
_PATIENCE = 120.0  # seconds for one item
_START_PATIENCE = 60.0  # more, for a process that has not begun yet
_FAILED_STARTS = 3  # in a row, after which no process is tried any more
_HOPELESS = 16  # items that failed while none went well, after which they are not to blame


@dataclass(frozen=True)
class Crash:
    """What an item did to the process that worked on it."""

    reason: str


@dataclass
class _Worker(Generic[Item]):
    process: Any
    pipe: connection.Connection
    deadline: float
    begun: bool = False  # it has imported the function, and said so
    batch: deque[tuple[int, Item]] = field(default_factory=deque)  # not answered yet


def run_apart(
    function: Callable[[Item], Any], items: Iterable[Item], jobs: int, patience: float = _PATIENCE
) -> Iterator[tuple[int, Any]]:
    """``function`` of each item, worked out in other processes.

    A process may end for reasons of the machine: want of memory, a disk that stalls. So the item it was at gets a
    process of its own when all the others are done, and is to blame if that one fails as well.

    Args:
        function: of a module, so that another process finds it; an exception counts as a crash.
        items: what can be pickled.
        jobs: processes.
        patience: seconds after which a process that does not answer is ended.

    Yields:
        Number of the item and its result, or a ``Crash``, in the order of completion.

    Raises:
        RuntimeError: processes cannot be started, or fail whatever they are given.
    """
    crew = _Crew(function, patience)
    with contextlib.closing(crew):
        yield from crew.work(enumerate(items), jobs)
    for entry, _ in crew.suspects:
        second = _Crew(function, patience, proven=True)
        with contextlib.closing(second):
            answers = list(second.work(iter([entry]), 1))
        yield answers[0] if answers else (entry[0], second.suspects[0][1])


class _Crew(Generic[Item]):
    """Processes that share work.

    Args:
        function, patience: as above.
        proven: other processes of the kind have worked.
    """

    def __init__(self, function: Callable[[Item], Any], patience: float, proven: bool = False) -> None:
        self.suspects: list[tuple[tuple[int, Item], Crash]] = []
        self._function, self._patience = function, patience
        self._workers: list[_Worker[Item]] = []
        self._again: deque[tuple[int, Item]] = deque()  # of batches whose process ended before it came to them
        self._proven, self._answered, self._failed_starts = proven, proven, 0

    def work(self, entries: Iterator[tuple[int, Item]], jobs: int) -> Iterator[tuple[int, Any]]:
        """Results by number; entries without one are among the suspects then."""
        while True:
            idle = [worker for worker in self._workers if not worker.batch]
            while batch := self._next_batch(entries, len(idle) + jobs - len(self._workers)):
                worker = idle.pop() if idle else self._started()
                worker.batch.extend(batch)
                worker.deadline = max(worker.deadline, time.monotonic() + self._patience)
                # A process that died meanwhile is noticed when its pipe is read.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    worker.pipe.send([item for _, item in batch])
            busy = {worker.pipe: worker for worker in self._workers if worker.batch}
            if not busy:
                return
            first = min(worker.deadline for worker in busy.values())
            ready = connection.wait(list(busy), max(first - time.monotonic(), 0.0))
            for pipe in ready:
                yield from self._heard(busy[pipe])  # type: ignore[index]
            if not ready:
                late = min(busy.values(), key=lambda worker: worker.deadline)
                self._lost(late, f"no answer within {self._patience:.0f} s")

    def close(self) -> None:
        """End all processes."""
        while self._workers:
            self._end(self._workers[0])

    def _next_batch(self, entries: Iterator[tuple[int, Item]], free: int) -> list[tuple[int, Item]]:
        if free < 1:
            return []
        batch: list[tuple[int, Item]] = []
        while len(batch) < _BATCH:
            entry = self._again.popleft() if self._again else next(entries, None)
            if entry is None:
                break
            batch.append(entry)
        return batch

    def _started(self) -> _Worker[Item]:
        """A new process; spawned, as a fork would copy the locks of this one's threads."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self._function, theirs), daemon=True)
        process.start()
        theirs.close()  # else the end of the process would go unnoticed
        worker = _Worker[Item](process, ours, time.monotonic() + self._patience + _START_PATIENCE)
        self._workers.append(worker)
        return worker

    def _heard(self, worker: _Worker[Item]) -> Iterator[tuple[int, Any]]:
        try:
            result = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            code = worker.process.exitcode
            self._lost(worker, signal.Signals(-code).name if code < 0 else f"exit code {code}")
            return
        worker.deadline = time.monotonic() + self._patience
        if not worker.begun:
            worker.begun = self._proven = True
            self._failed_starts = 0
            return
        entry = worker.batch.popleft()
        if isinstance(result, Crash):
            self._suspect(entry, result)
        else:
            self._answered = True
            yield entry[0], result

    def _lost(self, worker: _Worker[Item], reason: str) -> None:
        """End a process; what it was at is suspected, the rest of its batch is for another one."""
        self._end(worker)
        suspect = worker.batch.popleft() if worker.begun else None
        self._again.extend(worker.batch)
        if suspect is not None:
            self._suspect(suspect, Crash(reason))
            return
        self._failed_starts += 1
        if not self._proven or self._failed_starts == _FAILED_STARTS:
            raise RuntimeError(f"a process ends before it begins its work ({reason}): too little memory, or see above")

    def _suspect(self, entry: tuple[int, Item], crash: Crash) -> None:
        self.suspects.append((entry, crash))
        if not self._answered and len(self.suspects) == _HOPELESS:
            raise RuntimeError(
                f"{_HOPELESS} of {_HOPELESS} processes failed ({crash.reason}), whatever they were given: the machine"
                " or the installation is at fault; has-dali doctor looks at it"
            )

    def _end(self, worker: _Worker[Item]) -> None:
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()


def _serve(function: Callable[[Any], Any], pipe: connection.Connection) -> None:
    """What a worker process does until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends this process
    pipe.send(None)  # it has begun
    while True:
        try:
            batch = pipe.recv()
        except EOFError:
            return
        for item in batch:
            try:
                result = function(item)
            except Exception as error:
                result = Crash(f"{type(error).__name__}: {error}")
            pipe.send(result)
