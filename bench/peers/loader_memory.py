"""How much memory a loader takes: peak growth of its anonymous memory, each in a process of its own.

What counts begins after the imports and after a loader of one image per batch has run, whose kernels, libraries and
thread pools stay; so the growth is what batches and the queue of batches take. Pages of files are left out: a reader
that maps them shows them in its resident set, although they are the page cache's, which one that reads them uses too.
"""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from has_dali.bench.harness import Unavailable

if TYPE_CHECKING:
    from has_dali.bench.peers.loader_job import Job

BATCHES = 16  # several times what any queue holds
_SECONDS = 600.0
_FIELD = "RssAnon"
_POLL_SECONDS = 0.002  # far below the time of a batch


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
    """A field of this process's status in MiB, such as ``RssAnon``, its resident memory that is no file's."""
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
    before = memory(_FIELD)
    with _Peak() as peak:
        _run(LOADERS[key].open, job, BATCHES)
    return max(0.0, peak.mebibytes - before)


def _run(opened: Any, job: Job, batches: int) -> None:
    with opened(job) as iterator:
        for _ in range(batches):
            next(iterator)


class _Peak:
    """The most anonymous memory of this process while it is entered; the kernel keeps no peak of that, so it polls."""

    def __init__(self) -> None:
        self.mebibytes = memory(_FIELD)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _poll(self) -> None:
        last = False
        while not last:
            last = self._over.wait(_POLL_SECONDS)
            self.mebibytes = max(self.mebibytes, memory(_FIELD))


if __name__ == "__main__":
    loader, path = sys.argv[1:]
    sys.stdout.write(f"{growth(pickle.loads(Path(path).read_bytes()), loader)}\n")
