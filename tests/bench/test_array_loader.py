"""The benchmark of images in memory: both sides do the job, the report adds up, bad data is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from has_dali.bench import array_loader, same_job, timing
from has_dali.console import Terminal, json_text
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import ArraySource

SHORT = timing.Window(seconds=0.0, batches=1, discarded=0, stride=1)


@pytest.fixture(scope="module")
def images() -> ArraySource:
    """300 images of noise: every crop has the mean of the set, or nearly."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3)).astype(np.uint8)
    return ArraySource.from_images(pixels, np.arange(300) % 10)


def test_measured_in_turns(images: ArraySource) -> None:
    notes: list[str] = []
    report = array_loader.measure(images, 1, 2, SHORT, lambda steps=1, note="": notes.append(note))
    names = ["has_dali", "DataLoader, 0 workers", "DataLoader, 1 workers", "DataLoader, 2 workers"]
    assert list(report.rates) == list(report.checks) == names
    assert notes == [*names, *names[1:], names[0]]  # each round starts at another one
    assert all(len(rate.values) == 2 and min(rate.values) > 0 for rate in report.rates.values())
    assert all(check.shape == (128, 3, 32, 32) for check in report.checks.values())


@pytest.mark.parametrize("workers", [0, 1])
def test_the_dataloader_gives_every_image_of_an_epoch_once(images: ArraySource, workers: int) -> None:
    policy = HideAndSeek.preset("cifar")
    with array_loader.torchvision_loader(images, policy, workers) as batches:
        labels = torch.cat([next(batches)["label"] for _ in range(2)])
    assert len(labels) == 256 and labels.bincount().max() <= 30


def test_a_loader_that_does_not_hide_is_refused(images: ArraySource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_loader, "hide_patches", lambda image, policy: image)
    with pytest.raises(RuntimeError, match=r"DataLoader, 0 workers does not do the job: hides 0\.0%"):
        array_loader.measure(images, 1, 1, SHORT)


def test_ratio_and_bar(capsys: pytest.CaptureFixture[str]) -> None:
    report = array_loader.ArrayReport(300, HideAndSeek.preset("cifar"), 2)
    for key, rates in (("has_dali", (200.0, 220.0, 240.0)), ("slow", (9.0, 9.0, 9.0)), ("fast", (10.0, 11.0, 16.0))):
        report.rates[key] = timing.Summary(rates)
    report.checks["has_dali"] = same_job.Check("float32", (128, 3, 32, 32), "int64", 0.25, 0.0, 1.0)
    assert report.best == "fast" and report.ratio.values == (20.0, 20.0, 15.0)
    array_loader.show_report(Terminal(), report)
    out = capsys.readouterr().out
    assert "20.0 times fast; at least 10: met" in out and "24.4x" in out and "unstable" in out
    record = json.loads(json_text(report.to_dict()))
    assert record["ratio"]["met"] and record["best_dataloader"] == "fast" and record["unstable"]
    report.rates["fast"] = timing.Summary((30.0, 30.0, 30.0))
    array_loader.show_report(Terminal(), report)
    assert "7.3 times fast; at least 10: NOT met" in capsys.readouterr().out


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
            array_loader.main([str(data)])
    with pytest.raises(ValueError, match="--rounds 0"):
        array_loader.main([str(tmp_path / "few.npy"), "--rounds", "0"])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        array_loader.main([str(tmp_path / "few.npy"), "--json", str(tmp_path / "a" / "b.json")])
