"""Keeps DALI pipelines from being freed on their own threads.

A pipeline in a reference cycle, as every one is whose error someone holds, is freed by Python's cyclic collector, and
that may run on any thread that allocates: also in a callback, so on a thread of the very pipeline. The thread then
waits for its own end, and DALI ends the process ("Resource deadlock avoided"; it takes a few dozen dropped pipelines
that still work ahead to see it). Once ``guard`` has run, what would be freed on a thread that Python did not start is
put aside, and freed by the next call of ``free`` on one that it did, or at exit.
"""

from __future__ import annotations

import atexit
import threading
from typing import Any

from nvidia.dali import Pipeline

_ASIDE: list[Any] = []
_original = Pipeline.__del__


def guard() -> None:
    """From now on; calling it again changes nothing."""
    pipeline: Any = Pipeline
    if pipeline.__del__ is not _put_aside_or_free:
        pipeline.__del__ = _put_aside_or_free
        atexit.register(free)


def free() -> None:
    """Free what was put aside, unless this is one of those threads."""
    while _ASIDE and not _foreign():
        _original(_ASIDE.pop())


def _put_aside_or_free(pipeline: Any) -> None:
    if _foreign():
        _ASIDE.append(pipeline)  # it lives again; its destructor has nothing left to wait for once it was shut down
    else:
        _original(pipeline)


def _foreign() -> bool:
    """This thread was not started by Python, so it may be one of DALI's."""
    return isinstance(threading.current_thread(), threading._DummyThread)
