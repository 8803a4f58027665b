"""How rates are measured: peers take turns, the queue of each is in its steady state, medians are reported.

A segment starts when the process is idle, throws away enough batches to bring the peer's prefetch queue to its
steady state, then counts whole batches for a fixed time. Ratios are taken round by round between neighbours
in time, so that a slow spell of the machine hits both sides.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_POLL_SECONDS = 0.03
_IDLE_SHARE = 0.2  # of one core, while polling
_MAX_SETTLE_SECONDS = 3.0


@dataclass(frozen=True)
class Summary:
    """Repeats of one measured quantity."""

    values: tuple[float, ...]
    """One value per round, in the order measured."""

    @property
    def median(self) -> float:
        """The reported value."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile; both the value itself when there is only one."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        first, _, third = statistics.quantiles(self.values, n=4, method="inclusive")
        return first, third

    @property
    def iqr(self) -> float:
        """Interquartile range."""
        first, third = self.quartiles
        return third - first

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        first, third = self.quartiles
        return {"median": self.median, "q1": first, "q3": third, "iqr": third - first, "values": list(self.values)}


def ratio(numerator: Summary, denominator: Summary) -> Summary:
    """Round-by-round ratio of two peers that were measured in turns."""
    return Summary(tuple(a / b for a, b in zip(numerator.values, denominator.values, strict=True)))


@dataclass(frozen=True)
class Window:
    """How long one segment is.

    Args:
        seconds: time counted, at least.
        batches: batches counted, at least.
        discarded: batches thrown away before the clock starts: more than any prefetch queue holds.
        stride: the count stops at a multiple of this; workers that take turns finish in bursts of their number.
    """

    seconds: float = 1.0
    batches: int = 8
    discarded: int = 8
    stride: int = 2


def endless(batches: Iterable[Any]) -> Iterator[Any]:
    """Epoch after epoch of a loader."""
    while True:
        yield from batches


def batches_per_second(batches: Iterator[Any], window: Window) -> float:
    """Rate of an endless iterator over one segment."""
    for _ in range(window.discarded):
        next(batches)
    count = 0
    start = time.perf_counter()
    while True:
        for _ in range(window.stride):
            next(batches)
        count += window.stride
        elapsed = time.perf_counter() - start
        if elapsed >= window.seconds and count >= window.batches:
            return count / elapsed


def rotated(names: Sequence[str], step: int) -> list[str]:
    """``names`` starting at another one in each round, so that no peer always follows the same neighbour's wake."""
    start = step % len(names)
    return [*names[start:], *names[:start]]


def settle() -> None:
    """Wait until this process's threads have filled their prefetch queues and gone idle."""
    deadline = time.perf_counter() + _MAX_SETTLE_SECONDS
    while time.perf_counter() < deadline:
        busy = time.process_time()
        time.sleep(_POLL_SECONDS)
        if time.process_time() - busy < _IDLE_SHARE * _POLL_SECONDS:
            return
