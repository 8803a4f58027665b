"""Several runs as processes of their own: in parallel, skipping what is finished, resuming what was interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from has_dali.console import Terminal
from has_dali.kernels.threads import available_cores
from has_dali.trainers.callbacks import LAST
from has_dali.trainers.results.report import REPORT, read_report
from has_dali.trainers.trainer_setup import CHECKPOINTS

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 60.0  # for runs that were asked to save their state and stop
_LOG = "log.txt"
_TRAIN = (sys.executable, "-m", "has_dali", "train")


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
        theirs = read_report(self.out)["argv"][2:]
        if "--out" in theirs:  # what follows is where and how it ran
            theirs = theirs[: theirs.index("--out")]
        if theirs != list(self.argv):
            raise ValueError(
                f"{self.out}: holds another run (has-dali train {' '.join(theirs)}); choose another --out or remove it"
            )
        return True


@dataclass
class _Running:
    """A job's process, its log, and where in the log it began."""

    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    start: int

    def last_words(self) -> str:
        """The last line that this process wrote."""
        written = (self.job.out / _LOG).read_bytes()[self.start :]
        lines = written.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it said nothing; exit code {self.process.returncode}"


def run_jobs(jobs: Sequence[Job], parallel: int, terminal: Terminal, title: str) -> None:
    """Run what is not finished, ``parallel`` at a time, each with its share of the cores.

    An interrupt asks the runs to save their state; the same call later goes on from there. A run that fails does not
    keep the others from running.

    Raises:
        ValueError: a folder holds another run.
        RuntimeError: some runs failed; names the first and its last words.
    """
    waiting = [job for job in jobs if not job.finished()]
    threads = max(1, available_cores() // max(1, min(parallel, len(waiting))))
    running: list[_Running] = []
    failures: list[str] = []
    with terminal.progress(title, len(jobs)) as advance:
        advance(len(jobs) - len(waiting))
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    running.append(_start(waiting.pop(0), threads))
                    advance(0, ", ".join(one.job.name for one in running))
                time.sleep(_POLL_SECONDS)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    one.log.close()
                    if one.process.returncode:
                        failures.append(f"{one.job.name}: {one.last_words()} (see {one.job.out / _LOG})")
                    advance()
        finally:
            _stop(running)
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(jobs)} runs failed; the first, {failures[0]}")


def _start(job: Job, threads: int) -> _Running:
    job.out.mkdir(parents=True, exist_ok=True)
    resume = ["--resume"] if (job.out / CHECKPOINTS / LAST).is_file() else []
    share = [] if any(word.startswith("--loader.threads") for word in job.argv) else ["--loader.threads", str(threads)]
    log = open(job.out / _LOG, "ab")  # noqa: SIM115  (closed when the process ends)
    start = log.tell()
    process = subprocess.Popen(
        [*_TRAIN, *job.command, *resume, *share, "--quiet"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        start_new_session=True,  # Ctrl-C comes to us; the runs are told once, by us
    )
    return _Running(job, process, log, start)


def _stop(running: Sequence[_Running]) -> None:
    """End what still runs: SIGTERM makes a run save its state first. A second interrupt ends it at once."""
    for one in running:
        one.process.terminate()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for one in running:
        try:
            one.process.wait(max(deadline - time.monotonic(), 0))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            deadline = 0.0
            one.process.kill()
            one.process.wait()
        one.log.close()
