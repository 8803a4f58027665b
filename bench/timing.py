"""How rates are measured: peers take turns, the queue of each is in its steady state, medians are reported.

A segment starts when the process is idle, throws away enough batches to bring the peer's prefetch queue to its
steady state, then counts whole batches for a fixed time. Ratios are taken round by round between neighbours
in time, so that a slow spell of the machine hits both sides.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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


@dataclass(frozen=True)
class Interval:
    """Where the mean of a figure over the rounds lies, with 95 % confidence."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, summary: Summary) -> Interval | None:
        """By Student's t; None for a single round, which says nothing about its spread."""
        values = summary.values
        if len(values) < 2:
            return None
        from scipy.stats import t

        half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
        mean = statistics.fmean(values)
        return cls(mean, mean - half, mean + half)

    def to_dict(self) -> dict[str, float]:
        """JSON-able form."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


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
        warm_up_seconds: time of the steps before the first turn, at least.
    """

    seconds: float = 1.0
    batches: int = 8
    discarded: int = 8
    stride: int = 2
    warm_up_seconds: float = 0.0


def endless(batches: Iterable[Any]) -> Iterator[Any]:
    """Epoch after epoch of a loader."""
    while True:
        yield from batches


def segment(step: Callable[[], Any], window: Window) -> list[float]:
    """Seconds of each step of one turn, after the discarded ones; their sum is the time of the turn."""
    for _ in range(window.discarded):
        step()
    durations: list[float] = []
    start = before = time.perf_counter()
    while True:
        for _ in range(window.stride):
            step()
            now = time.perf_counter()
            durations.append(now - before)
            before = now
        if before - start >= window.seconds and len(durations) >= window.batches:
            return durations


def warm_up(step: Callable[[], Any], window: Window) -> None:
    """Run steps until ``warm_up_seconds`` have passed and ``discarded`` steps are done, whichever comes later."""
    start, count = time.perf_counter(), 0
    while count < window.discarded or time.perf_counter() - start < window.warm_up_seconds:
        step()
        count += 1


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
