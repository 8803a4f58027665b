"""How work on a CUDA device is timed: by events on its stream, and the host's share apart.

A turn first makes the device wait, so that the host can queue all calls ahead: the events then span work alone, not the
gaps that a slow host leaves between short kernels. Where the host took longer than the wait, the turn says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

HOLD_SECONDS = 0.02
_SPIN = """
extern "C" __global__ void spin(unsigned long long nanoseconds) {
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - start < nanoseconds);
}
"""


class Stream(Protocol):
    """What timing needs of a stream."""

    def wait(self) -> None:
        """Return when all queued work is done."""

    def hold(self, seconds: float) -> None:
        """Queue work that does nothing for some seconds."""

    def mark(self) -> Any:
        """Queue an event."""

    def seconds(self, first: Any, last: Any) -> float:
        """Device time between two events; waits for the second."""


class CupyStream:
    """The legacy default stream, which torch's default stream is too."""

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._stream = cupy.cuda.Stream.null
        self._spin = cupy.RawKernel(_SPIN, "spin")

    def wait(self) -> None:
        """Return when all queued work is done."""
        self._stream.synchronize()

    def hold(self, seconds: float) -> None:
        """One thread reads the clock until the time is over."""
        with self._stream:
            self._spin((1,), (1,), (self._cupy.uint64(round(seconds * 1e9)),))

    def mark(self) -> Any:
        """Queue an event."""
        event = self._cupy.cuda.Event()
        event.record(self._stream)
        return event

    def seconds(self, first: Any, last: Any) -> float:
        """Device time between two events; waits for the second."""
        last.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(first, last)) / 1e3


@dataclass(frozen=True)
class Turn:
    """Seconds of one call."""

    device: float
    """Between the events, over the calls."""
    host: float
    """Until the calls had returned, over the calls; nothing was waited for."""
    queued_ahead: bool
    """The host was done before the device began; else the device may have waited for it."""


def turn(stream: Stream, step: Callable[[], Any], calls: int, hold: float = HOLD_SECONDS) -> Turn:
    """Time ``calls`` calls of ``step``, which must queue its work on ``stream``."""
    stream.wait()
    begin = time.perf_counter()
    stream.hold(hold)
    first = stream.mark()
    start = time.perf_counter()
    for _ in range(calls):
        step()
    end = time.perf_counter()
    device = stream.seconds(first, stream.mark())
    return Turn(device / calls, (end - start) / calls, end - begin < hold)
