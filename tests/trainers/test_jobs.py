"""Runs as processes: what is skipped, refused, resumed, reported, stopped. A quick script stands for the training."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from has_dali.console import Terminal
from has_dali.kernels.threads import available_cores
from has_dali.trainers.sweeps import jobs
from has_dali.trainers.sweeps.jobs import Job, run_jobs

# Does what its first word says, and notes how it was called. "slow" saves its state when it is asked to stop; "pair"
# waits for a second one.
_SCRIPT = """
import json, os, pathlib, signal, sys, time
argv = sys.argv[1:]
out = pathlib.Path(argv[argv.index("--out") + 1])
call = {"argv": argv, "threads": os.environ["OMP_NUM_THREADS"], "pid": os.getpid(), "start": time.time()}
def save(*_):
    (out / "checkpoints").mkdir(exist_ok=True)
    (out / "checkpoints" / "last.ckpt").write_text("state")
    raise SystemExit(143)
if argv[0] == "slow":
    signal.signal(signal.SIGTERM, save)
if argv[0] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(out / "calls", "a") as file:
    file.write(json.dumps(call) + "\\n")
if argv[0] == "fail":
    print("the beginning", flush=True)
    print("the loss is nan", file=sys.stderr)
    raise SystemExit(1)
if argv[0] == "silent":
    os.kill(os.getpid(), signal.SIGKILL)
if argv[0] in ("slow", "deaf") and "--resume" not in argv:
    time.sleep(60)
while argv[0] == "pair" and len(list(out.parent.glob("*/calls"))) < 2 and time.time() < call["start"] + 30:
    time.sleep(0.02)
time.sleep(0.1)
(out / "report.json").write_text(json.dumps({"version": 1, "argv": ["has-dali", "train", *argv]}))
(out / "end").write_text(str(time.time()))
"""
QUIET = Terminal(quiet=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_TRAIN", (sys.executable, "-c", _SCRIPT))
    monkeypatch.setattr(jobs, "_POLL_SECONDS", 0.02)


def job(folder: Path, name: str, *words: str) -> Job:
    return Job(f"arm {name}", (words or ("ok", "--seed", "3")), folder / name)


def calls(one: Job) -> list[dict]:
    file = one.out / "calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def alive(one: Job) -> bool:
    try:
        os.kill(calls(one)[-1]["pid"], 0)
    except ProcessLookupError:
        return False
    return True


def test_as_many_at_a_time_as_allowed_and_the_cores_shared(tmp_path: Path) -> None:
    some = [job(tmp_path, str(i), "pair", "--seed", "3") for i in range(4)]
    run_jobs(some, 2, QUIET, "four")
    spans = [(calls(one)[0]["start"], float((one.out / "end").read_text())) for one in some]
    at_once = max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)
    assert at_once == 2
    threads = str(max(available_cores() // 2, 1))
    assert {calls(one)[0]["threads"] for one in some} == {threads}
    argv = ["pair", "--seed", "3", "--out", str(tmp_path / "0"), "--loader.threads", threads, "--quiet"]
    assert calls(some[0])[0]["argv"] == argv
    run_jobs([job(tmp_path, "own", "ok", "--loader.threads=7")], 2, QUIET, "one")
    assert calls(job(tmp_path, "own"))[0]["argv"][:2] == ["ok", "--loader.threads=7"]
    assert "--loader.threads" not in calls(job(tmp_path, "own"))[0]["argv"]


def test_finished_runs_are_not_run_again_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [job(tmp_path / "a", str(i)) for i in range(2)]
    run_jobs(some, 2, QUIET, "two")
    run_jobs(some, 2, QUIET, "two")
    assert [len(calls(one)) for one in some] == [1, 1]
    monkeypatch.chdir(tmp_path / "a")
    run_jobs([job(Path(), "0")], 1, QUIET, "the same, by a relative path")
    (tmp_path / "a").rename(tmp_path / "b")
    run_jobs([job(tmp_path / "b", "0"), job(tmp_path / "b", "2")], 1, QUIET, "moved")
    assert len(calls(job(tmp_path / "b", "0"))) == 1 and len(calls(job(tmp_path / "b", "2"))) == 1


def test_a_folder_of_another_run_is_refused_before_anything_runs(tmp_path: Path) -> None:
    run_jobs([job(tmp_path, "x")], 1, QUIET, "one")
    waiting = job(tmp_path, "y")
    with pytest.raises(ValueError, match=r"x: holds another run \(has-dali train ok --seed 3\); choose another --out"):
        run_jobs([waiting, job(tmp_path, "x", "ok", "--seed", "4")], 1, QUIET, "two")
    assert not calls(waiting)


def test_a_run_that_was_resumed_counts_as_the_same(tmp_path: Path) -> None:
    one = job(tmp_path, "x")
    (one.out / "checkpoints").mkdir(parents=True)
    (one.out / "checkpoints" / "last.ckpt").write_text("state")
    run_jobs([one], 1, QUIET, "one")
    assert "--resume" in calls(one)[0]["argv"]
    run_jobs([one], 1, QUIET, "one")
    assert len(calls(one)) == 1


def test_a_failing_run_is_named_with_its_last_words_when_the_others_have_run(tmp_path: Path) -> None:
    failing, waiting, second = job(tmp_path, "a", "fail"), job(tmp_path, "b"), job(tmp_path, "c", "fail")
    with pytest.raises(
        RuntimeError, match=r"^2 of 3 runs failed; the first, arm a: the loss is nan \(see .*a/log.txt\)$"
    ):
        run_jobs([failing, waiting, second], 1, QUIET, "three")
    assert (failing.out / "log.txt").read_text().splitlines() == ["the beginning", "the loss is nan"]
    assert waiting.finished() and not failing.finished() and not second.finished()


def test_words_of_an_earlier_attempt_are_not_the_last_ones(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the loss is nan"):
        run_jobs([job(tmp_path, "x", "fail")], 1, QUIET, "one")
    with pytest.raises(RuntimeError, match=r"the first, arm x: it said nothing; exit code -9"):
        run_jobs([job(tmp_path, "x", "silent")], 1, QUIET, "one")


def interrupted_when_started(monkeypatch: pytest.MonkeyPatch, some: list[Job], times: int = 1) -> None:
    """Waiting is where an interrupt arrives: the first in ``run_jobs``, a second while the runs stop."""
    sleep, done = time.sleep, []

    def interrupt(seconds: float) -> None:
        sleep(seconds)
        if len(done) < times and all(calls(one) for one in some):
            done.append(1)
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs.time, "sleep", interrupt)


def test_an_interrupt_lets_the_runs_save_their_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [job(tmp_path, name, "slow") for name in "ab"]
    with monkeypatch.context() as patch:
        interrupted_when_started(patch, some)
        with pytest.raises(KeyboardInterrupt):
            run_jobs(some, 2, QUIET, "two")
    assert not any(alive(one) for one in some)
    assert all((one.out / "checkpoints" / "last.ckpt").is_file() for one in some)
    run_jobs(some, 2, QUIET, "two")
    assert [["--resume" in call["argv"] for call in calls(one)] for one in some] == [[False, True]] * 2


def test_a_run_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PATIENCE_SECONDS", 0.2)
    deaf = job(tmp_path, "a", "deaf")
    interrupted_when_started(monkeypatch, [deaf])
    with pytest.raises(KeyboardInterrupt):
        run_jobs([deaf], 1, QUIET, "one")
    assert not alive(deaf)


def test_a_second_interrupt_ends_the_runs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [job(tmp_path, name, "deaf") for name in "ab"]
    interrupted_when_started(monkeypatch, some, times=2)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(some, 2, QUIET, "two")
    assert not any(alive(one) for one in some) and time.monotonic() - start < 30  # a run gets 60 s to save its state
