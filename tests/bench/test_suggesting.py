"""Suggestions come from what was measured, the smallest setting that is not clearly beaten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from has_dali.bench import suggest_sweeps, suggesting
from has_dali.bench.results import Row, Table
from has_dali.bench.suggest_sweeps import Setting, smallest_close, thread_counts
from has_dali.bench.timing import Summary, Window
from has_dali.cli import main
from has_dali.pipelines import ArraySource, open_source

SHORT = Window(seconds=0.0, batches=1, discarded=0, stride=1)


def test_threads_that_are_tried() -> None:
    assert thread_counts(1) == [1, 2] and thread_counts(2) == [1, 2, 3]
    assert thread_counts(48) == [1, 2, 4, 8, 16, 32, 48, 49]


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({1: (100.0,) * 3, 2: (190.0,) * 3, 3: (191.0,) * 3}, 2),  # 0.5 % for another thread
        ({1: (100.0,) * 3, 2: (190.0,) * 3, 3: (210.0,) * 3}, 3),
        ({1: (100.0, 150.0, 200.0), 2: (140.0, 190.0, 240.0)}, 2),  # the machine became faster, for both
        ({1: (100.0, 150.0, 200.0), 2: (180.0, 101.0, 210.0)}, 1),  # noise
        ({1: (190.0, 150.0, 100.0, 100.0), 2: (150.0, 140.0, 145.0, 145.0)}, 1),  # faster in two rounds of four only
        ({4: (100.0,) * 3, 1: (100.0,) * 3}, 1),  # whatever the order
    ],
)
def test_the_smallest_setting_that_is_not_clearly_beaten(rates: dict[int, tuple[float, ...]], chosen: int) -> None:
    rows = [Row(f"{x}", "a", "ours", value=Summary(values), extra={"x": x}) for x, values in rates.items()]
    rows.append(Row("bound", "b", "bound", value=Summary((1e6,))))
    place, figure, fastest = smallest_close(Table("t", "T", "images/s", "higher", "1", rows=rows))
    assert place == chosen and figure == Summary(rates[chosen]).median
    assert fastest == max(Summary(values).median for values in rates.values())


@pytest.mark.parametrize(
    ("gpu", "chosen"),
    [((200.0, 210.0, 220.0), "cuda"), ((102.0, 102.0, 102.0), "cpu"), ((90.0, 101.0, 150.0), "cpu")],
)
def test_the_gpu_must_be_clearly_faster(
    gpu: tuple[float, ...], chosen: str, jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps = suggest_sweeps.Sweeps(open_source(jpeg_folder), 64, 3, SHORT, lambda steps=1, note="": None)

    def measured(key: str, title: str, contenders: Any, parameters: Any) -> Table:
        rows = [Row("cpu", "cpu", value=Summary((100.0,) * 3)), Row("cuda", "cuda", value=Summary(gpu))]
        return Table(key, title, "images/s", "higher", "cpu", rows=rows)

    monkeypatch.setattr("has_dali.pipelines.device.choose_device", lambda name: (SimpleNamespace(type="cuda"), ""))
    monkeypatch.setattr(sweeps, "_measure", measured)
    device, reason = sweeps.device()
    assert device == chosen and f"device {chosen}: cpu 100 images/s, cuda" in reason
    assert ("no faster beyond noise" in reason) == (chosen == "cpu")


def test_ready_batches_do_not_count_for_deep_queues(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Window] = {}

    def measured(key: str, *_: Any, window: Window, **__: Any) -> Table:
        seen[key] = window
        rows = [Row(f"{key}-1", "a", "ours", value=Summary((1.0,)), extra={"x": 1, "series": "a"})]
        return Table(key, key, "images/s", "higher", f"{key}-1", rows=rows)

    monkeypatch.setattr(suggest_sweeps, "measure_table", measured)
    sweeps = suggest_sweeps.Sweeps(open_source(jpeg_folder), 64, 3, Window(discarded=4), lambda steps=1, note="": None)
    for name in ("batch_size", "prefetch"):
        sweeps.over(name, (1, 2, 3, 4), Setting(1))
    assert seen["batch_size"].discarded == 4 and seen["prefetch"].discarded == 10


def test_a_machine_of_known_speed_is_understood(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads are as good as three, batches of 128 as 256, and one batch ahead is enough."""
    opened: list[Setting] = []

    @contextmanager
    def steps(source: Any, setting: Setting, size: int) -> Iterator[Any]:
        opened.append(setting)
        rate = 40000 * min(setting.threads, 2) * (0.5 if setting.batch_size < 128 else 1.0)
        yield lambda: setting.batch_size / rate

    monkeypatch.setattr(suggest_sweeps, "_steps", steps)
    monkeypatch.setattr(suggest_sweeps.timing, "segment", lambda step, window: [step()] * 4)  # no clock in this test
    monkeypatch.setattr(suggest_sweeps, "available_cores", lambda: 2)
    monkeypatch.setattr(suggesting, "available_cores", lambda: 2)
    monkeypatch.setattr(suggest_sweeps.Sweeps, "decode_share", lambda self: "")
    monkeypatch.setattr(suggest_sweeps.Sweeps, "_ceiling", lambda self: self._contender("c", Setting(9), None))
    monkeypatch.setattr(suggest_sweeps.Sweeps, "packing", lambda self, best: "packing: not asked")
    found, tables = suggesting.suggest(open_source(jpeg_folder), 64, 5, SHORT)
    assert found.setting == Setting(threads=2, batch_size=128, prefetch=1, device="cpu")
    assert [table.key for table in tables] == ["threads", "batch_size", "prefetch"]
    assert found.images_per_second == pytest.approx(80000)
    assert found.batch_mebibytes == pytest.approx(128 * 3 * 64 * 64 * 4 / 2**20)
    assert {one.threads for one in opened} >= {1, 2, 3} and {one.batch_size for one in opened} >= {32, 64, 128, 256}
    text = "\n".join(found.reasons)
    assert "threads 2: " in text and "batch size 128: " in text and "prefetch 1: " in text and "device cpu" in text
    code = found.code("photos")
    assert code.startswith("image_loader('photos', 128, train=True") and "threads=2, prefetch=1)" in code


def test_the_real_loader_the_ceiling_and_packing(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggesting, "_BATCH_SIZES", (8,))
    monkeypatch.setattr(suggesting, "_PREFETCHES", (1,))
    monkeypatch.setattr(suggest_sweeps, "USUAL_BATCH", 8)
    monkeypatch.setattr(suggesting, "USUAL_BATCH", 8)
    notes: list[str] = []
    found, tables = suggesting.suggest(
        open_source(jpeg_folder), 64, 1, SHORT, lambda steps=1, note="": notes.append(note)
    )
    assert [table.key for table in tables][:3] == ["threads", "batch_size", "prefetch"]
    assert all(row.status == "measured" for table in tables for row in table.rows)
    text = "\n".join(found.reasons)
    assert "decoding alone reaches" in text and "memory: a float32 batch of 8" in text and "packing" in text
    assert found.setting.device in ("cpu", "cuda") and len(notes) >= 5


def test_few_images_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggesting, "_PREFETCHES", (1,))
    source = ArraySource.from_images(np.zeros((10, 32, 32, 3), np.uint8), np.zeros(10, int))
    found, tables = suggesting.suggest(source, 32, 1, SHORT)
    assert found.setting.batch_size == 10
    assert all(table.row("decode-ceiling") is None for table in tables)


def test_the_command(jpeg_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(suggesting, "_BATCH_SIZES", (8,))
    monkeypatch.setattr(suggesting, "_PREFETCHES", (1,))
    monkeypatch.setattr(suggesting.timing, "Window", lambda **_: SHORT)
    monkeypatch.setattr(suggest_sweeps.Sweeps, "packing", lambda self, best: "")
    out = tmp_path / "s.json"
    words = ["bench", "--suggest", str(jpeg_folder), "--size", "32", "--quick", "--rounds", "1", "--json", str(out)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    record = json.loads(out.read_text())
    assert record["code"].startswith(f"image_loader('{jpeg_folder.name}', ")
    assert str(jpeg_folder.parent) not in str(record)
    assert record["recommended"]["threads"] >= 1 and record["reasons"] and record["run"]["scope"] == "suggest"
    assert "train=True, policy=HideAndSeek()" in shown
    assert main(["bench", "--suggest", str(tmp_path / "none")]) == 2
    assert main(["bench", "--suggest", str(jpeg_folder), "--size", "x"]) == 2
    assert "--size x: expected a whole number" in capsys.readouterr().err
