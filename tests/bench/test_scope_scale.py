"""The scope ``scale``: sweeps with tiny settings, memory in a real process, bad options."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from has_dali.bench import timing
from has_dali.bench.harness import Contender, Unavailable
from has_dali.bench.peers import loader_job, loader_memory, op_job
from has_dali.bench.peers.loader_all import DALI, LOADERS
from has_dali.bench.peers.loader_first_batch import job_file
from has_dali.bench.peers.loader_job import Job
from has_dali.bench.peers.op_job import Buffers, OpJob
from has_dali.bench.rendering import is_sweep
from has_dali.bench.results import Result
from has_dali.bench.scopes import scale
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek

SHORT = timing.Window(seconds=0.0, batches=1, discarded=0, stride=1)
QUIET = Terminal(quiet=True)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    scale.add_options(parser)
    return parser.parse_args(words)


def test_a_run(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch, assert_valid: Callable[[Result], None]) -> None:
    monkeypatch.setattr(scale, "_WINDOW", SHORT)
    monkeypatch.setattr(scale, "_OP_WINDOW", SHORT)
    monkeypatch.setattr(scale, "BATCH_SIZE", 4)
    monkeypatch.setattr(loader_job, "EPOCH_IMAGES", 36)
    monkeypatch.setattr(scale, "peak_growth", lambda key, job: 10.0 if key == DALI else 5.0)
    points = ("--threads", "1,2", "--batches", "2,3", "--sizes", "24,32", "--patches", "8,16", "--prefetch", "1,2")
    result = scale.run(options(str(jpeg_folder), "--rounds", "2", *points), QUIET)
    assert_valid(result)
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
        assert kind == "memory" or all(row.check is not None for row in table.rows)
    memory = result.tables[-1]
    assert memory.better == "lower" and [row.ratio and row.ratio.median for row in memory.rows] == [1, 1, 2, 2]
    assert result.table("loader-patch_size").rows[2].label == "DALI's own operators, HaS by fn.erase, patch size 8"
    assert result.settings["sweeps"] == axes


def test_the_operator_s_batches_exceed_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op_job, "last_level_cache", lambda: 1 << 20)
    seen: list[Buffers] = []

    def contenders(work: OpJob, buffers: Buffers) -> list[Contender]:
        seen.append(buffers)
        return op_has_dali_contenders(work, buffers)

    op_has_dali_contenders = scale.op_has_dali.contenders
    monkeypatch.setattr(scale.op_has_dali, "contenders", contenders)
    job = Job(("nowhere",), (0,), HideAndSeek((8,)), 2, 1, 32)
    for axis, values in (("threads", [1, 2]), ("size", [32, 64])):
        scale.operator_sweep(job, axis, values, 1, SHORT)
    for buffers in seen:
        step = buffers.batch * buffers.size**2 * 3 * (1 + 4)
        assert buffers.count * step >= 4 << 20
    assert seen[0] is seen[1] and seen[2] is not seen[3]  # the same batches are held once


def test_a_loader_with_other_pixels_is_void(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_job, "EPOCH_IMAGES", 36)
    files = tuple(str(path) for path in sorted(jpeg_folder.glob("*/*")))
    job = Job(files, (0,) * len(files), HideAndSeek((8,)), 4, 1, 32)

    opened = LOADERS[DALI].open

    @contextlib.contextmanager
    def brighter(job: Job) -> Iterator[Iterator[Any]]:
        with opened(job) as batches:
            yield ({**batch, "image": batch["image"] + 1} for batch in batches)

    monkeypatch.setitem(scale.LOADERS, DALI, replace(LOADERS[DALI], open=brighter))
    table = scale.loader_sweep(job, "batch_size", [4, 6], 1, SHORT)
    assert [row.status for row in table.rows] == ["measured", "measured", "void", "void"]
    assert "ours" in str(table.rows[2].reason)


_MEMORY = """
import mmap, sys, time
import numpy as np
from has_dali.bench.peers import loader_memory

with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    begin = loader_memory.memory("VmRSS")
    with loader_memory._Peak() as peak:
        before = peak.mebibytes
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
    print(loader_memory.memory("VmRSS") - begin, peak.mebibytes - before)
with loader_memory._Peak() as peak:
    before = peak.mebibytes
    held = np.ones(64 << 20, np.uint8)
    time.sleep(0.1)
    del held
print(peak.mebibytes - before, loader_memory.memory("RssAnon") - before)
"""


def test_mapped_files_are_no_memory_of_a_loader(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(64 << 20))
    command = [sys.executable, "-c", _MEMORY, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    resident, anonymous, peak, left = map(float, done.stdout.split())
    assert resident > 60 and anonymous < 8
    assert 60 < peak < 72 and left < 8  # what is gone again counts


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
