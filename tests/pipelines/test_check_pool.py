"""Processes that crash, hang or leave: what they died over is known, and the rest of the work is done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

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


def _unlucky(item: tuple[str, int]) -> int:
    """Ends the process, as the system does where memory is short, the first time that item 5 is worked on."""
    mark, number = item
    if number == 5 and not os.path.exists(mark):
        open(mark, "wb").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_what_goes_well_alone_is_not_to_blame(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    assert sorted(run_apart(_unlucky, [(mark, n) for n in range(20)], 2)) == [(n, n) for n in range(20)]
    assert os.path.exists(mark)


class _Unpicklable:
    """Ends the process before it has begun."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


def test_processes_that_never_begin_or_never_succeed_are_no_findings() -> None:
    with pytest.raises(RuntimeError, match=r"before it begins its work \(exit code 9\)"):
        list(run_apart(_Unpicklable(), range(4), 1))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"16 of 16 processes failed \(TypeError.*doctor"):
        list(run_apart(len, range(40), 1))  # type: ignore[arg-type]
    assert [number for number, result in run_apart(len, [3], 1) if isinstance(result, Crash)] == [0]  # type: ignore[list-item]
    assert not multiprocessing.active_children()
