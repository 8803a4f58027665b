"""The scope ``arrays``: both sides do the job, the bar is against the fastest DataLoader, bad data is refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from has_dali.bench import timing
from has_dali.bench.peers import array_loaders
from has_dali.bench.results import Result, Row, Table
from has_dali.bench.scopes import arrays
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek

SHORT = timing.Window(seconds=0.0, batches=1, discarded=0, stride=1)
QUIET = Terminal(quiet=True)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    arrays.add_options(parser)
    return parser.parse_args(words)


def test_measured_in_turns() -> None:
    notes: list[str] = []
    table = arrays.measure(arrays.noise(300), 1, 1, SHORT, lambda steps=1, note="": notes.extend([note] * steps))
    keys = ["has_dali", "dataloader_0", "dataloader_1", "dataloader_2"]
    assert [row.key for row in table.rows] == keys and len(notes) == 2 * len(keys)
    for row in table.rows:
        assert row.status == "measured" and row.value is not None and min(row.value.values) > 0, row.reason
        assert row.check is not None and row.check["shape"] == (128, 3, 32, 32) and 0.15 < row.check["hidden"] < 0.35


@pytest.mark.parametrize("workers", [0, 1])
def test_the_dataloader_gives_every_image_of_an_epoch_once(workers: int) -> None:
    source, policy = arrays.noise(300), HideAndSeek.preset("cifar")
    with array_loaders.torchvision_loader(source, policy, workers) as batches:
        labels = torch.cat([next(batches)["label"] for _ in range(2)])
    assert len(labels) == 256 and labels.bincount().max() <= 30


def test_a_loader_that_does_not_hide_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_loaders, "hide_patches", lambda image, policy: image)
    table = arrays.measure(arrays.noise(300), 1, 1, SHORT)
    assert [row.status for row in table.rows] == ["measured", "void", "void", "void"]
    assert "hides 0.0%" in str(table.rows[1].reason)
    assert arrays.bar(table).met is None and "no DataLoader" in arrays.bar(table).note


def test_the_bar_is_against_the_fastest() -> None:
    table = Table("arrays", "t", "images/s", "higher", "has_dali")
    for key, rates in (("has_dali", (200.0, 220.0, 240.0)), ("slow", (9.0, 9.0, 9.0)), ("fast", (10.0, 11.0, 16.0))):
        table.rows.append(Row(key, key, value=timing.Summary(rates)))
    bar = arrays.bar(table)
    assert bar.value is not None and bar.value.values == (20.0, 20.0, 15.0) and bar.met and "fast" in bar.note
    table.rows[2].value = timing.Summary((30.0, 30.0, 30.0))
    assert arrays.bar(table).met is False


def test_a_run_with_data_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_valid: Callable[[Result], None]
) -> None:
    monkeypatch.setattr(arrays, "_QUICK_WINDOW", SHORT)
    monkeypatch.setattr(arrays, "_NOISE_IMAGES", 200)
    monkeypatch.setattr(arrays, "available_cores", lambda: 1)
    np.save(tmp_path / "mine.npy", arrays.noise(130).pixels.reshape(-1, 32, 32, 3))
    for words, name, images in (((), "noise", 200), ((str(tmp_path / "mine.npy"),), "mine.npy", 130)):
        result = arrays.run(options(*words, "--rounds", "1", "--quick"), QUIET)
        assert_valid(result)
        assert result.data is not None and (result.data["name"], result.data["images"]) == (name, images)
        assert result.bars[0].met is not None and result.settings["rounds"] == 1


def test_noise_is_the_same_in_every_run() -> None:
    assert arrays.noise(5).fingerprint() == arrays.noise(5).fingerprint() != arrays.noise(6).fingerprint()


def test_bad_input(tmp_path: Path, jpeg_folder: Path) -> None:
    np.save(tmp_path / "large.npy", np.zeros((200, 64, 64, 3), np.uint8))
    np.save(tmp_path / "few.npy", np.zeros((20, 32, 32, 3), np.uint8))
    for data, kind, message in (
        (jpeg_folder, ValueError, "a folder of files; expected CIFAR's python batches"),
        (tmp_path / "large.npy", ValueError, "expected at least 128 images of 32 x 32"),
        (tmp_path / "few.npy", ValueError, "expected at least 128 images"),
        (tmp_path / "gone.npz", FileNotFoundError, "no such file"),
    ):
        with pytest.raises(kind, match=message):
            arrays.run(options(str(data)), QUIET)
    with pytest.raises(ValueError, match="--rounds 0"):
        arrays.run(options(str(tmp_path / "few.npy"), "--rounds", "0"), QUIET)
