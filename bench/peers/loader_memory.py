"""How much memory a loader takes: peak growth of the resident set, each in a process of its own.

What counts begins after the imports and after a loader of one image per batch has run, whose kernels, libraries and
thread pools stay; so the growth is what batches and the queue of batches take.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from has_dali.bench.harness import Unavailable

if TYPE_CHECKING:
    from has_dali.bench.peers.loader_job import Job

BATCHES = 16  # several times what any queue holds
_SECONDS = 600.0


def peak_growth(key: str, job: Path) -> float:
    """MiB that a loader adds at its peak.

    Args:
        key: of the loader, in ``loader_all.LOADERS``.
        job: a file as ``loader_first_batch.job_file`` makes it.

    Raises:
        Unavailable: the system does not say how much memory a process uses.
        RuntimeError: the process failed.
    """
    if not Path("/proc/self/status").exists():
        raise Unavailable("the system has no /proc/self/status, which says how much memory a process uses")
    command = [sys.executable, "-m", __name__, key, str(job)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(f"{key} did not run: {lines[-1]}")
    return float(done.stdout.splitlines()[-1])


def memory(field: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise ValueError(f"/proc/self/status: no {field}")


def growth(job: Job, key: str) -> float:
    """MiB at the peak over MiB before, in this process."""
    from has_dali.bench.peers.loader_all import LOADERS

    _run(LOADERS[key].open, replace(job, batch_size=1), 2)
    gc.collect()
    _forget_peak()
    before = memory("VmRSS")
    _run(LOADERS[key].open, job, BATCHES)
    return max(0.0, memory("VmHWM") - before)


def _run(opened: Any, job: Job, batches: int) -> None:
    with opened(job) as iterator:
        for _ in range(batches):
            next(iterator)


def _forget_peak() -> None:
    """Start a new peak. Where the kernel refuses, the peak of the start counts, which is below that of the run."""
    try:
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(descriptor, b"5")
    except OSError:
        return
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    loader, path = sys.argv[1:]
    sys.stdout.write(f"{growth(pickle.loads(Path(path).read_bytes()), loader)}\n")
