"""Processes that crash, hang or leave: what they died over is known, and the rest of the work is done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from has_dali.pipelines.check_pool import Crash, run_apart


def _fatal(item: int) -> int:
    """Crashes, hangs or ends over some items."""
    if item == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 20:
        time.sleep(60)
    if item == 21:
        os._exit(7)
    if item == 22:
        raise RuntimeError("what a crash looks like from outside")
    return item * item


@pytest.mark.parametrize("jobs", [1, 3])
def test_what_a_process_dies_over_is_known_and_the_rest_goes_on(jobs: int) -> None:
    start = time.monotonic()
    results = dict(run_apart(_fatal, range(60), jobs, patience=0.5))
    crashed = {number: result for number, result in results.items() if isinstance(result, Crash)}
    assert sorted(crashed) == [3, 20, 21, 22] and len(results) == 60
    assert all(results[n] == n * n for n in range(60) if n not in crashed)
    assert crashed[3].reason == "SIGSEGV" and "0 s" in crashed[20].reason and crashed[21].reason == "exit code 7"
    assert crashed[22].reason == "RuntimeError: what a crash looks like from outside"
    assert time.monotonic() - start < 60
    assert not list(run_apart(_fatal, [], 2))


def test_leaving_early_ends_the_processes() -> None:
    results = run_apart(_fatal, iter(range(23, 10**9)), 2)
    next(results)
    assert len(multiprocessing.active_children()) >= 1
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()
