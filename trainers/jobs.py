"""Several runs as processes of their own: in parallel, skipping what is finished, resuming what was interrupted."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from has_dali.console import Terminal
from has_dali.kernels.threads import available_cores
from has_dali.trainers.callbacks import LAST
from has_dali.trainers.report import REPORT, read_report
from has_dali.trainers.run import CHECKPOINTS

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 60  # for a run that was asked to save its state and stop
_LOG = "log.txt"


@dataclass(frozen=True)
class Job:
    """One ``has-dali train``.

    Args:
        name: shown while it runs.
        argv: arguments of ``train``, without --out, --resume and --quiet.
        out: folder of the run.
    """

    name: str
    argv: tuple[str, ...]
    out: Path

    @property
    def command(self) -> list[str]:
        """Arguments of ``train`` that name this run."""
        return [*self.argv, "--out", str(self.out)]

    def finished(self) -> bool:
        """Whether its report is there.

        Raises:
            ValueError: the folder holds the report of another run.
        """
        if not (self.out / REPORT).is_file():
            return False
        theirs = [word for word in read_report(self.out)["argv"][2:] if word not in ("--resume", "--quiet")]
        if theirs != self.command:
            raise ValueError(
                f"{self.out}: holds another run (has-dali train {' '.join(theirs)}); choose another --out or remove it"
            )
        return True


def run_jobs(jobs: Sequence[Job], parallel: int, terminal: Terminal, title: str) -> None:
    """Run what is not finished, ``parallel`` at a time, each with its share of the cores.

    An interrupt asks the runs to save their state; the same call later goes on from there.

    Raises:
        RuntimeError: a run failed; names it and its last words.
    """
    waiting = [job for job in jobs if not job.finished()]
    threads = max(1, available_cores() // max(1, min(parallel, len(waiting))))
    running: list[tuple[Job, subprocess.Popen[bytes], IO[bytes]]] = []
    with terminal.progress(title, len(jobs)) as advance:
        advance(len(jobs) - len(waiting))
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    job = waiting.pop(0)
                    running.append((job, *_start(job, threads)))
                    advance(0, ", ".join(job.name for job, *_ in running))
                time.sleep(_POLL_SECONDS)
                for entry in [entry for entry in running if entry[1].poll() is not None]:
                    running.remove(entry)
                    job, process, log = entry
                    log.close()
                    if process.returncode:
                        raise RuntimeError(f"{job.name} failed: {_last_words(job)} (see {job.out / _LOG})")
                    advance()
        finally:
            with _gently(running):
                pass


def _start(job: Job, threads: int) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    job.out.mkdir(parents=True, exist_ok=True)
    resume = ["--resume"] if (job.out / CHECKPOINTS / LAST).is_file() else []
    log = open(job.out / _LOG, "ab")  # noqa: SIM115  (closed when the process ends)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        [sys.executable, "-m", "has_dali", "train", *job.command, *resume, "--quiet"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,  # Ctrl-C comes to us; the runs are told once, by us
    )
    return process, log


@contextlib.contextmanager
def _gently(running: list[tuple[Job, subprocess.Popen[bytes], IO[bytes]]]) -> Iterator[None]:
    """End what still runs: SIGTERM makes a run save its state first."""
    yield
    for _, process, _log in running:
        process.terminate()
    for _, process, log in running:
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def _last_words(job: Job) -> str:
    lines = (job.out / _LOG).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
