"""From a fresh interpreter to the first batch of a loader.

Each start is a process of its own, because imports, compiled kernels and thread pools stay in the one they were made
in. The parent tells the child when it started it; both read the same clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from has_dali.bench.peers.loader_job import Job

INTERPRETER, PACKAGE, PIPELINES, BUILD, FIRST_BATCH = "interpreter", "package", "pipelines", "build", "first_batch"
STAGES = (INTERPRETER, PACKAGE, PIPELINES, BUILD, FIRST_BATCH)
_SECONDS = 600.0
# What is timed comes before anything of this module: nothing else may have imported it.
_CHILD = """
import time
begin = time.monotonic()
import has_dali
package = time.monotonic()
from has_dali.bench.peers.loader_first_batch import main
main(begin, package)
"""


@dataclass(frozen=True)
class Start:
    """Seconds of the stages of one start; ``reason``: why there is none."""

    stages: Mapping[str, float]
    reason: str | None = None

    @property
    def total(self) -> float:
        """Seconds from the start of the process to the first batch."""
        return sum(self.stages.values())


@contextlib.contextmanager
def job_file(job: Job) -> Iterator[Path]:
    """A temporary file that children read the job from."""
    with tempfile.TemporaryDirectory(prefix="has_dali_bench_") as folder:
        path = Path(folder) / "job.pickle"
        path.write_bytes(pickle.dumps(job))
        yield path


def start(key: str, job: Path, cache: Path | None = None) -> Start:
    """Start one loader in a fresh process and wait for its first batch.

    Args:
        key: of the loader, in ``loader_all.LOADERS``.
        job: what ``job_file`` gave.
        cache: folder of compiled kernels; None: the usual one.

    Raises:
        RuntimeError: the process failed.
    """
    environment = dict(os.environ)
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(cache)
    command = [sys.executable, "-c", _CHILD, key, str(job), repr(time.monotonic())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(f"{key} did not start: {lines[-1]}")
    record = json.loads(done.stdout.splitlines()[-1])
    return Start(record["stages"], record["reason"])


def main(begin: float, package: float) -> None:
    """The child: print the seconds of each stage as JSON.

    Args:
        begin: when its first line ran.
        package: when ``import has_dali`` was done.
    """
    key, job_path, started = sys.argv[1:]
    spans = {INTERPRETER: begin - float(started), PACKAGE: package - begin}
    with _timed(spans, PIPELINES):
        if key == "has_dali":  # loader_all.OURS, whose import would be counted
            from has_dali.pipelines import image_loader  # noqa: F401
        else:
            import numpy  # noqa: F401 - both are the only libraries that the next import loads, and each loader's own;
            import torch  # noqa: F401 - what else a loader needs, it imports when it is built
    from has_dali.bench.harness import Unavailable  # the benchmark's own modules are not counted
    from has_dali.bench.peers.loader_all import LOADERS

    job = pickle.loads(Path(job_path).read_bytes())
    reason = None
    try:
        with contextlib.ExitStack() as stack:
            with _timed(spans, BUILD):
                for module in LOADERS[key].requires:
                    __import__(module)
                batches = stack.enter_context(LOADERS[key].open(job))
            with _timed(spans, FIRST_BATCH):
                next(batches)
    except (Unavailable, ImportError) as missing:
        reason = str(missing)
    sys.stdout.write(json.dumps({"stages": spans, "reason": reason}) + "\n")


@contextlib.contextmanager
def _timed(spans: dict[str, float], stage: str) -> Iterator[None]:
    before = time.monotonic()
    yield
    spans[stage] = time.monotonic() - before
