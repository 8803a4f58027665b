"""The scope ``scale``: sweeps with tiny settings, memory in a real process, bad options."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from has_dali.bench import timing
from has_dali.bench.harness import Unavailable
from has_dali.bench.peers import loader_job, loader_memory
from has_dali.bench.peers.loader_all import DALI
from has_dali.bench.peers.loader_first_batch import job_file
from has_dali.bench.peers.loader_job import Job
from has_dali.bench.rendering import is_sweep
from has_dali.bench.scopes import scale
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek

SHORT = timing.Window(seconds=0.0, batches=1, discarded=0, stride=1)
QUIET = Terminal(quiet=True)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    scale.add_options(parser)
    return parser.parse_args(words)


def test_a_run(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "_WINDOW", SHORT)
    monkeypatch.setattr(scale, "_OP_WINDOW", SHORT)
    monkeypatch.setattr(scale, "BATCH_SIZE", 4)
    monkeypatch.setattr(loader_job, "EPOCH_IMAGES", 36)
    monkeypatch.setattr(scale, "peak_growth", lambda key, job: 10.0 if key == DALI else 5.0)
    points = ("--threads", "1,2", "--batches", "2,3", "--sizes", "24,32", "--patches", "8,16", "--prefetch", "1,2")
    result = scale.run(options(str(jpeg_folder), "--rounds", "2", *points), QUIET)
    axes = {"threads": [1, 2], "batch_size": [2, 3], "size": [24, 32], "patch_size": [8, 16]}
    keys = [f"{kind}-{axis}" for axis in axes for kind in ("loader", "operator")]
    assert [table.key for table in result.tables] == [*keys, "memory-prefetch", "memory-batch_size"]
    for table in result.tables:
        kind, _, axis = table.key.partition("-")
        assert table.parameters["x"] == axis and axis not in table.parameters and is_sweep(table)
        series: dict[str, list[int]] = {}
        for row in table.rows:
            assert row.status == "measured" and row.value is not None and row.ratio is not None, row.reason
            series.setdefault(row.extra["series"], []).append(row.extra["x"])
        assert len(series) == (1 if kind == "operator" else 2)
        assert all(xs == axes.get(axis, [1, 2]) for xs in series.values())
    memory = result.tables[-1]
    assert memory.better == "lower" and [row.ratio and row.ratio.median for row in memory.rows] == [1, 1, 2, 2]
    assert result.table("loader-patch_size").rows[2].label == "DALI's own operators, HaS by fn.erase, patch size 8"
    assert result.settings["sweeps"] == axes


def test_progress_reaches_its_end() -> None:
    advanced: list[int] = []
    files = ("nowhere",)
    sweep = scale.Sweep({"threads": [1, 2]}, {"prefetch": [1]}, 2)
    job = Job(files, (0,), HideAndSeek((8,)), 2, 1, 32)
    count = lambda steps=1, note="": advanced.append(steps)  # noqa: E731
    scale.operator_sweep(job, "threads", [1, 2], 2, SHORT, count)
    assert sum(advanced) == 2 * 3 and sweep.points() == 3 * 2 * 3 + 2


def test_memory_is_measured_in_a_process_of_its_own(jpeg_folder: Path) -> None:
    files = tuple(str(path) for path in sorted(jpeg_folder.glob("*/*")))
    job = Job(files, (0,) * len(files), HideAndSeek((8,)), 24, 1, 224)
    with job_file(job) as path:
        growth = loader_memory.peak_growth(DALI, path)
    batch = 24 * 3 * 224 * 224 * 4 / 2**20
    assert batch < growth < 30 * batch  # at least one batch, and a queue that does not grow over 16 batches


def test_memory_reports_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(key: str, job: Path) -> float:
        raise Unavailable("no /proc") if key == DALI else RuntimeError("has_dali did not run: MemoryError")

    monkeypatch.setattr(scale, "peak_growth", fails)
    job = Job(("a.jpg",), (0,), HideAndSeek((8,)), 2, 1, 32)
    table = scale.memory_sweep(job, "prefetch", [1], lambda steps=1, note="": None)
    assert [(row.status, row.reason) for row in table.rows] == [
        ("void", "has_dali did not run: MemoryError"),
        ("skipped", "no /proc"),
    ]
    with pytest.raises(RuntimeError, match=r"dali did not run: FileNotFoundError: .*gone\.pickle"):
        loader_memory.peak_growth(DALI, tmp_path / "gone.pickle")


def test_powers() -> None:
    assert [scale.powers(cores) for cores in (1, 2, 6, 16)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16]]


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("nowhere",), FileNotFoundError, "nowhere"),
        (("--sweeps", "threads,colour"), ValueError, "--sweeps colour: expected some of threads, batch, size, patch"),
        (("--patches", "0,8"), ValueError, "--patches 0: expected a whole number from 1"),
    ],
)
def test_bad_options(words: tuple[str, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scale.run(options(*words), QUIET)
