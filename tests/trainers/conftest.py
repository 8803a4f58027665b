"""A tiny data set on disk that the trainers' tests share: coloured squares on noise, with their boxes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from run_support import LOCALISE, localise, one_thread

from has_dali.cli import main

SIDE, CLASSES = 24, 3


def squares(count: int, seed: int) -> dict[str, np.ndarray]:
    """Images (N, 24, 24, 3) of one bright square each; its colour is the class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 90, (count, SIDE, SIDE, 3), np.uint8)
    labels = np.arange(count) % CLASSES
    boxes = np.empty((count, 4), np.int64)
    for n, label in enumerate(labels):
        side = int(rng.integers(8, 15))
        x, y = rng.integers(0, SIDE - side + 1, 2)
        images[n, y : y + side, x : x + side, label] = 220
        boxes[n] = x, y, x + side - 1, y + side - 1
    return {"images": images, "labels": labels.astype(np.int64), "boxes": boxes}


@pytest.fixture(scope="session")
def squares_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.npz with 96 images and val.npz with 30."""
    folder = tmp_path_factory.mktemp("squares")
    np.savez(folder / "train.npz", **squares(96, 0))
    np.savez(folder / "val.npz", **squares(30, 1))
    return folder


@pytest.fixture(scope="session")
def runs(squares_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of two short runs of localisation: without hiding, and with it."""
    folder = tmp_path_factory.mktemp("runs")
    with one_thread():
        localise(squares_folder, folder / "plain", 6, "--hide.method", "none")
        localise(squares_folder, folder / "has", 6, "--hide.patch_sizes", "[0,6]")
    return str(folder / "plain"), str(folder / "has")


@pytest.fixture(scope="session")
def classified(squares_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of classification."""
    out = tmp_path_factory.mktemp("classified") / "run"
    words = [word for word in LOCALISE if word != "localisation"]
    words[words.index("small")] = "toy"
    argv = [words[0], "classification", *words[1:], "--data", str(squares_folder), "--out", str(out)]
    with one_thread():
        assert main([*argv, "--trainer.max_epochs", "2", "--hide.patch_sizes", "[6]"]) == 0
    return str(out)
