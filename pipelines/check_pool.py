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
_START_PATIENCE = 60.0  # more, for a process that is still importing


@dataclass(frozen=True)
class Crash:
    """What an item did to the process that worked on it."""

    reason: str


@dataclass
class _Worker(Generic[Item]):
    process: Any
    pipe: connection.Connection
    deadline: float = 0.0
    batch: deque[tuple[int, Item]] = field(default_factory=deque)  # not answered yet


def run_apart(
    function: Callable[[Item], Any], items: Iterable[Item], jobs: int, patience: float = _PATIENCE
) -> Iterator[tuple[int, Any]]:
    """``function`` of each item, worked out in other processes.

    Args:
        function: of a module, so that another process finds it; an exception counts as a crash.
        items: what can be pickled.
        jobs: processes.
        patience: seconds after which a process that does not answer is ended.

    Yields:
        Number of the item and its result, or a ``Crash``, in the order of completion.
    """
    queue = iter(enumerate(items))
    again: deque[tuple[int, Item]] = deque()  # items of a batch whose process died before it came to them
    workers: list[_Worker[Item]] = []
    try:
        while True:
            idle = [worker for worker in workers if not worker.batch]
            while batch := _next_batch(again, queue, len(idle) + jobs - len(workers)):
                worker = idle.pop() if idle else _started(function, workers, patience)
                worker.batch.extend(batch)
                worker.deadline = max(worker.deadline, time.monotonic() + patience)
                _hand_over(worker, batch)
            busy = {worker.pipe: worker for worker in workers if worker.batch}
            if not busy:
                return
            first = min(worker.deadline for worker in busy.values())
            ready = connection.wait(list(busy), max(first - time.monotonic(), 0.0))
            for pipe in ready:
                yield _answer(busy[pipe], workers, again, patience)  # type: ignore[index]
            if not ready:
                late = min(busy.values(), key=lambda worker: worker.deadline)
                yield _given_up(late, workers, again, f"no answer within {patience:.0f} s")
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def _next_batch(again: deque[tuple[int, Item]], queue: Iterator[tuple[int, Item]], free: int) -> list[tuple[int, Item]]:
    if free < 1:
        return []
    batch: list[tuple[int, Item]] = []
    while len(batch) < _BATCH:
        entry = again.popleft() if again else next(queue, None)
        if entry is None:
            break
        batch.append(entry)
    return batch


def _started(function: Callable[[Item], Any], workers: list[_Worker[Item]], patience: float) -> _Worker[Item]:
    """A new process; spawned, as a fork would copy the locks of this one's threads."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()  # else the end of the process would go unnoticed
    worker = _Worker[Item](process, ours, time.monotonic() + patience + _START_PATIENCE)
    workers.append(worker)
    return worker


def _hand_over(worker: _Worker[Item], batch: list[tuple[int, Item]]) -> None:
    # A process that died meanwhile is noticed when its pipe is read.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        worker.pipe.send([item for _, item in batch])


def _answer(
    worker: _Worker[Item], workers: list[_Worker[Item]], again: deque[tuple[int, Item]], patience: float
) -> tuple[int, Any]:
    try:
        result = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        code = worker.process.exitcode
        return _given_up(worker, workers, again, signal.Signals(-code).name if code < 0 else f"exit code {code}")
    worker.deadline = time.monotonic() + patience
    return worker.batch.popleft()[0], result


def _given_up(
    worker: _Worker[Item], workers: list[_Worker[Item]], again: deque[tuple[int, Item]], reason: str
) -> tuple[int, Crash]:
    """End a process; the item it was at is to blame, the rest of its batch is for another one."""
    workers.remove(worker)
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()
    number, _ = worker.batch.popleft()
    again.extend(worker.batch)
    return number, Crash(reason)


def _serve(function: Callable[[Any], Any], pipe: connection.Connection) -> None:
    """What a worker process does until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends this process
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
