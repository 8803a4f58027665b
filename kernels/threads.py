"""One small thread pool per process for batch kernels that release the GIL, sized to the cores that are free to it."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

# Below this many bytes per thread, handing work over costs more than it saves.
BYTES_PER_THREAD = 1 << 20

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_process = 0


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """The cores available, or torch's own limit where torch is loaded: one inside its data loader workers."""
    torch = sys.modules.get("torch")
    cores = available_cores()
    return min(cores, torch.get_num_threads()) if torch is not None and hasattr(torch, "get_num_threads") else cores


def run_chunks(work: Callable[[int, int], None], count: int, nbytes: int, threads: int | None = None) -> None:
    """Call ``work(begin, end)`` over chunks of ``range(count)`` on up to ``threads`` threads, this one included."""
    limit = default_threads() if threads is None else threads
    parts = max(1, min(limit, count, nbytes // BYTES_PER_THREAD))
    if parts == 1:
        work(0, count)
        return
    bounds = [count * part // parts for part in range(parts + 1)]
    pool = _shared_pool(parts - 1)
    futures = [pool.submit(work, begin, end) for begin, end in itertools.pairwise(bounds[1:])]
    try:
        work(bounds[0], bounds[1])
    finally:
        for future in futures:
            future.result()


def _shared_pool(size: int) -> ThreadPoolExecutor:
    """The pool of this process; a forked child makes its own, since threads do not survive a fork."""
    global _pool, _pool_size, _pool_process
    with _lock:
        if _pool is None or _pool_size < size or _pool_process != os.getpid():
            _pool = ThreadPoolExecutor(size, thread_name_prefix="has_dali")
            _pool_size, _pool_process = size, os.getpid()
        return _pool


def _reset_after_fork() -> None:
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
