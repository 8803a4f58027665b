"""The thread pool outlives neither a fork nor the locks that were held during one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from has_dali.kernels import cpu, threads
from has_dali.kernels.policy import HideAndSeek

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no os.fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
POLICY = HideAndSeek((16,), seed=2)
BATCH = np.full((16, 3, 224, 224), 200, np.uint8)
IDS = np.arange(len(BATCH))


def hide_on_the_pool() -> bool:
    hidden = cpu.hide(BATCH, POLICY, IDS, 0, 0, "NCHW", BATCH.copy())
    return bool(np.array_equal(hidden == 0, np.repeat(POLICY.mask(IDS, 0, 224, 224)[:, None], 3, axis=1)))


def succeeds_in_a_fork(work: Callable[[], bool], seconds: float = 30.0) -> bool:
    """``work()`` in a forked child; False when it fails or hangs."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "default_threads", lambda: 2)


def test_a_forked_child_makes_a_pool_of_its_own() -> None:
    assert hide_on_the_pool()
    assert threads._pool is not None
    assert succeeds_in_a_fork(hide_on_the_pool)
    assert hide_on_the_pool()


def test_a_fork_while_another_thread_holds_the_lock() -> None:
    """The child inherits the lock taken, and the thread that would release it is not there."""
    assert hide_on_the_pool()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with threads._lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert succeeds_in_a_fork(hide_on_the_pool, seconds=10.0)
    finally:
        release.set()
        thread.join()
