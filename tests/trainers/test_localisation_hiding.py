"""Localisation runs that hide in other ways than on the image, and runs that end early and are resumed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from run_support import evaluate, localise, one_thread, same, weights

CONV1 = ["--hide.method", "conv1", "--hide.patch_sizes", "[3]"]
DROPOUT = ["--hide.method", "pixel-dropout", "--hide.patch_sizes", "null", "--hide.p_hide", "0.5"]


@pytest.fixture(scope="module", autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


class ThrownError(Exception):
    """What a test throws into a run."""


def test_hiding_on_conv1_resumed_in_an_epoch_equals_the_uninterrupted_run(
    squares_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from has_dali.trainers.localisation import LocalisationTask

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    report = localise(squares_folder, whole, 3, *CONV1)
    straight, done = LocalisationTask.loss, []

    def loss(self: LocalisationTask, batch: dict) -> torch.Tensor:
        done.append(1)
        if len(done) == 8:  # the third batch of four in the second epoch
            raise ThrownError
        return straight(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(LocalisationTask, "loss", loss)
        patch.setenv("HAS_DALI_DEBUG", "1")
        with pytest.raises(ThrownError):
            localise(squares_folder, parts, 3, *CONV1, "--save_every", "1")
    assert torch.load(parts / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 7
    again = localise(squares_folder, parts, 3, *CONV1, "--save_every", "1", "--resume")
    assert same(weights(whole), weights(parts))
    assert again["metrics"]["last"] == report["metrics"]["last"]
    for name in ("train_loss", "val_loss", "top1"):
        assert again["curves"][name] == report["curves"][name]
    localise(squares_folder, tmp_path / "none", 3, "--hide.method", "none")
    assert not same(weights(whole), weights(tmp_path / "none"))
    # Nothing is hidden while testing.
    assert evaluate(whole, squares_folder, "hide.method=none")["metrics"] == report["metrics"]["last"]


@pytest.mark.parametrize("number", [1, 9])
def test_a_run_that_ends_in_a_validation_resumes_with_that_validation(
    squares_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from has_dali.trainers.localisation import LocalisationTask

    straight, done = LocalisationTask.validation_step, []

    def step(self: LocalisationTask, batch: dict, batch_idx: int) -> None:
        done.append(1)
        if len(done) == number:  # four batches in a validation
            raise ThrownError
        straight(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LocalisationTask, "validation_step", step)
        patch.setenv("HAS_DALI_DEBUG", "1")
        with pytest.raises(ThrownError):
            localise(squares_folder, tmp_path / "parts", 3, "--save_every", "1")
    again = localise(squares_folder, tmp_path / "parts", 3, "--save_every", "1", "--resume")
    report = localise(squares_folder, tmp_path / "whole", 3)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    for name in ("train_loss", "val_loss", "top1"):
        assert again["curves"][name] == report["curves"][name]


def test_a_run_that_ends_in_its_last_evaluation_resumes_there(
    squares_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from has_dali.trainers.localisation import LocalisationTask

    def throw(*_: object) -> None:
        raise ThrownError

    with monkeypatch.context() as patch:
        patch.setattr(LocalisationTask, "evaluate", throw)
        patch.setenv("HAS_DALI_DEBUG", "1")
        with pytest.raises(ThrownError):
            localise(squares_folder, tmp_path / "parts", 3)
    again = localise(squares_folder, tmp_path / "parts", 3, "--resume")
    report = localise(squares_folder, tmp_path / "whole", 3)
    assert again["metrics"] == report["metrics"] and again["curves"] == report["curves"]
    assert again["epochs"] == 3 and again["steps"] == 12


def test_pixels_dropped_while_testing_too(squares_folder: Path, tmp_path: Path) -> None:
    report = localise(squares_folder, tmp_path, 3, *DROPOUT, "--hide.at", "traintest")
    assert 0.45 < report["hidden_fraction"] < 0.55  # 3 looks at 16 x 441 pixels: standard deviation .003
    found = evaluate(tmp_path, squares_folder)
    assert found["metrics"] == report["metrics"]["last"]  # the same pixels each time
    tested_whole = evaluate(tmp_path, squares_folder, "hide.at=train")
    assert tested_whole["curves"] != found["curves"]
    train_only = localise(squares_folder, tmp_path / "other", 3, *DROPOUT, "--hide.at", "train")
    assert 0.45 < train_only["hidden_fraction"] < 0.55


def test_random_erasing_counts_as_hidden(squares_folder: Path, tmp_path: Path) -> None:
    options = ["--hide.method", "random-erasing", "--hide.p_hide", "1", "--hide.area", "[0.3,0.4]"]
    assert 0.25 < localise(squares_folder, tmp_path, 1, *options, "--optim.warmup_epochs", "0")["hidden_fraction"] < 0.4


def test_a_black_fill_counts_as_hidden(squares_folder: Path, tmp_path: Path) -> None:
    options = ["--hide.patch_sizes", "[7]", "--hide.image_fill", "[0,0,0]", "--optim.warmup_epochs", "0"]
    # A pixel of noise is black once in 90 ** 3. 64 images of 9 cells at p_hide .5: standard deviation .02
    report = localise(squares_folder, tmp_path, 1, *options)
    assert 0.4 < report["hidden_fraction"] < 0.6 and report["switches"]["fill"] == [0, 0, 0]
