"""The scope ``startup``: one real start in a process of its own, then what is made of many."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from has_dali.bench.peers import loader_first_batch
from has_dali.bench.peers.loader_all import DALI, FFCV, OURS, SPDL
from has_dali.bench.peers.loader_first_batch import STAGES, Start, job_file, start
from has_dali.bench.peers.loader_job import Job
from has_dali.bench.results import Result
from has_dali.bench.scopes import startup
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek

QUIET = Terminal(quiet=True)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    startup.add_options(parser)
    return parser.parse_args(words)


@pytest.fixture
def job(jpeg_folder: Path) -> Job:
    files = tuple(str(path) for path in sorted(jpeg_folder.glob("*/*")))
    return Job(files, (0,) * len(files), HideAndSeek((8,)), 4, 1, 32)


def test_a_real_start(job: Job) -> None:
    with job_file(job) as path:
        found = start(OURS, path)
    assert list(found.stages) == list(STAGES) and found.reason is None
    assert all(seconds > 0 for seconds in found.stages.values())
    assert found.stages["package"] < found.stages["pipelines"] < found.total < 300


def test_the_child_gets_the_cache_and_its_words_are_read(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    answer = SimpleNamespace(returncode=0, stdout='noise\n{"stages": {"build": 2.0}, "reason": null}\n', stderr="")

    def run(command: list[str], **keywords: Any) -> SimpleNamespace:
        seen.append((command, keywords))
        return answer

    monkeypatch.setattr(loader_first_batch.subprocess, "run", run)
    with job_file(job) as path:
        assert start(DALI, path, tmp_path) == Start({"build": 2.0})
        assert start(DALI, path).total == 2.0
        answer.returncode, answer.stderr = 1, "Traceback\nOSError: no such disk\n"
        with pytest.raises(RuntimeError, match="dali did not start: OSError: no such disk"):
            start(DALI, path)
    assert not path.exists()
    assert seen[0][0][:2] == [sys.executable, "-c"] and seen[0][0][3:5] == [DALI, str(path)]
    assert seen[0][1]["env"]["NUMBA_CACHE_DIR"] == str(tmp_path)
    assert seen[1][1]["env"].get("NUMBA_CACHE_DIR") != str(tmp_path)


def test_a_run(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch, assert_valid: Callable[[Result], None]) -> None:
    calls: list[tuple[str, Path | None]] = []

    def fake(key: str, job: Path, cache: Path | None = None) -> Start:
        assert job.exists() and cache is not None and cache.is_dir()
        calls.append((key, cache))
        if key == FFCV:
            return Start({}, "ffcv does not import")
        if key == SPDL:
            raise RuntimeError("spdl did not start: Segmentation fault")
        fresh = not any(cache.iterdir())
        (cache / "kernel").touch()
        scale = 2.0 if key == DALI else 1.0
        return Start(dict(zip(STAGES, (0.1, 0.1, 1.0, 20.0 if fresh else 0.5, 0.3 * scale), strict=True)))

    monkeypatch.setattr(startup, "start", fake)
    words = (str(jpeg_folder), "--rounds", "3", "--cold-rounds", "2", "--peers", f"{DALI},{SPDL},{FFCV}")
    result = startup.run(options(*words), QUIET)
    assert_valid(result)
    cached, compiled, loaders = result.tables
    assert [row.key for row in cached.rows] == [*STAGES, "total"]
    totals = [table.row("total") for table in (cached, compiled)]
    assert [row and row.value and row.value.values for row in totals] == [(2.0,) * 3, (21.5,) * 2]
    build = cached.row("build")
    assert build is not None and build.ratio is not None and build.ratio.median == pytest.approx(0.25)
    assert {row.key: row.status for row in loaders.rows} == {
        OURS: "measured", DALI: "measured", SPDL: "void", FFCV: "skipped",
    }  # fmt: skip
    dali, spdl = loaders.row(DALI), loaders.row(SPDL)
    assert dali is not None and dali.ratio is not None and dali.ratio.median == pytest.approx(2.3 / 2)
    assert spdl is not None and "Segmentation" in str(spdl.reason)
    assert result.bars[0].met and not result.bars[0].aim_met and "1.0 s" in result.bars[0].note
    assert sum(key == OURS for key, _ in calls) == 2 + 1 + 3
    assert len({cache for key, cache in calls if key == OURS}) == 3  # two cold starts and one shared cache


def test_a_loader_that_dies_later_is_void_and_ours_is_still_measured(
    jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fake(key: str, job: Path, cache: Path | None = None) -> Start:
        calls.append(key)
        if key == DALI and calls.count(DALI) == 3:
            raise RuntimeError("dali did not start: no more memory")
        return Start(dict.fromkeys(STAGES, 0.2))

    monkeypatch.setattr(startup, "start", fake)
    notes: list[str] = []
    starts, reasons = startup.warm_starts(
        jpeg_folder, [OURS, DALI], 4, lambda steps=1, note="": notes.extend([note] * steps)
    )
    assert len(starts[OURS]) == 4 and calls.count(DALI) == 3 and len(notes) == 2 * 5
    dali = startup.loader_table([OURS, DALI], starts, reasons, {}).rows[1]
    assert (dali.status, dali.reason, dali.value) == ("void", "dali did not start: no more memory", None)


def test_ours_that_cannot_run_is_an_error(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "start", lambda key, job, cache=None: Start({}, "no DALI"))
    with pytest.raises(RuntimeError, match="has_dali did not start: no DALI"):
        startup.warm_starts(jpeg_folder, [OURS], 1, lambda steps=1, note="": None)


def test_what_the_child_imports_outside_its_clock_is_the_benchmark_s_own() -> None:
    """After torch and NumPy, which are in the clock: what else a loader needs must not come in before it is built."""
    script = (
        "import sys, numpy, torch; before = set(sys.modules)\n"
        "import has_dali.bench.harness, has_dali.bench.peers.loader_all\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"has_dali", "numpy"}


def test_without_our_own_loader_there_is_nothing_to_report(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(key: str, job: Path, cache: Path | None = None) -> Start:
        raise RuntimeError(f"{key} did not start")

    monkeypatch.setattr(startup, "start", fails)
    with pytest.raises(RuntimeError, match="has_dali did not start"):
        startup.run(options(str(jpeg_folder), "--quick"), QUIET)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("nowhere",), FileNotFoundError, "nowhere"),
        (("--cold-rounds", "0"), ValueError, "--cold-rounds 0: expected a whole number from 1"),
        (("--peers", "read_ceiling"), ValueError, "--peers read_ceiling: expected some of has_dali, dali"),
    ],
)
def test_bad_options(words: tuple[str, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        startup.run(options(*words), QUIET)
