"""PxAP from mask files: by hand, over ranks, and in runs from the command line."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from has_dali.cli import main
from has_dali.trainers import localising, pixels
from has_dali.trainers.data import ALONE, Share
from has_dali.trainers.datasets import MaskedImages, Masks, open_boxed
from has_dali.trainers.evaluation import Evaluation
from has_dali.trainers.localising import BatchMaps
from has_dali.trainers.saved import task_from_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from mask_support import write_lists, write_mask


@dataclass(frozen=True)
class ThreadShare(Share):
    """The share of a thread of this process; they meet at a barrier."""

    slots: Any = None
    barrier: Any = None


def gathered(value: Any, share: ThreadShare) -> list[Any]:
    """``has_dali.trainers.evaluation.gathered`` for threads."""
    share.slots[share.rank] = value
    share.barrier.wait(60)
    values = list(share.slots)
    share.barrier.wait(60)
    return values


def on_two_ranks(task: Any, images: Any) -> list[Evaluation]:
    slots, barrier, found = [None, None], threading.Barrier(2), {}

    def one(rank: int) -> None:
        with torch.inference_mode():
            found[rank] = pixels.evaluate_masks(task, images, ThreadShare(rank, 2, slots=slots, barrier=barrier))

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
    with patch.object(localising, "gathered", gathered):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [found[0], found[1]]


MAPS = torch.tensor([[[8, 6, 4], [8, 2, 0], [0, 0, 0]], [[5, 5, 5], [5, 5, 5], [5, 5, 5]]], dtype=torch.bfloat16)
RANKED = np.array([[2, 0, 1, 3, 4], [1, 5, 6, 7, 8]])


@pytest.fixture
def by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two images of 3 x 3 pixels, whose maps are above; the masks of the first are stored at 6 x 6.

    The first: object, not counted, background / object, object, background / background. One object pixel is in the
    region to ignore too and counts. The second: the object is the pixel in the centre.
    """
    large = np.zeros((3, 6, 6), np.uint8)
    large[0, :2, 0] = 1  # three of these are dropped or doubled by the change of size
    large[1, 2, [0, 2, 3]] = 1
    large[2, 0] = [1, 1, 1, 1, 0, 0]
    for name, marked in (("a", large[0]), ("b", large[1]), ("ignore", large[2]), ("c", np.eye(3) * [0, 1, 0])):
        write_mask(tmp_path / f"{name}.png", marked)
    a, b, ignore, c = (str(tmp_path / f"{name}.png") for name in ("a", "b", "ignore", "c"))
    labels = np.array([0, 1])
    source = SimpleNamespace(labels=labels, __len__=lambda: 2)
    images = SimpleNamespace(val=source, val_masks=Masks(((a, b), (c,)), ((ignore,), ())))

    def maps(task: Any, source: Any, share: Share, crops: str) -> Iterator[BatchMaps]:
        assert crops == "one"
        for image in range(share.rank, 2, share.world_size):
            true = MAPS[image]
            yield BatchMaps(np.array([image]), RANKED[image : image + 1], torch.stack([-true, true])[None])

    monkeypatch.setattr(pixels, "batch_maps", maps)
    cam = SimpleNamespace(wsol_step=0.25)
    task = SimpleNamespace(settings=SimpleNamespace(cam=cam, loader=SimpleNamespace(eval_size=None, size=3)))
    return task, images


def test_by_hand(by_hand: Any) -> None:
    """Of 4 object and 13 background pixels, 2 objects score 1, 1 background 1/2, 1 object 1/4, and the rest 0.

    Precision 1 over a recall of 1/2, 3/4 over 1/4, 4/17 over 1/4. The centre map: 2 objects in the centre; 1 object and
    6 background beside it; 1 and 7 in the corners.
    """
    found = pixels.evaluate_masks(*by_hand, ALONE)
    assert found.metrics["pxap"] == pytest.approx(100 * (1 / 2 + 3 / 16 + 1 / 17))
    assert found.metrics["top1"] == 50 and found.metrics["top5"] == 100
    assert found.baselines["constant map"]["pxap"] == pytest.approx(100 * 4 / 17)
    assert found.baselines["centre map"]["pxap"] == pytest.approx(100 * (1 / 2 + 1 / 12 + 1 / 17))
    assert found.per_image["id"].tolist() == [0, 1] and found.per_image["predicted"].tolist() == [2, 1]


def test_ranks_find_together_what_one_finds(by_hand: Any) -> None:
    alone = pixels.evaluate_masks(*by_hand, ALONE)
    for found in on_two_ranks(*by_hand):
        assert found.metrics == alone.metrics and found.baselines == alone.baselines
        assert found.per_image["top1"].tolist() == alone.per_image["top1"].tolist()


# From here on: files on disk, a run, and the same numbers from plain loops over them.


SIDE, CLASSES, VAL = 24, 3, 30


def write_squares(squares_folder: Path, root: Path) -> dict[str, npt.NDArray[np.uint8]]:
    """Images, masks and lists; the masks that val must have: a band does not count in every third."""
    truth: dict[str, npt.NDArray[np.uint8]] = {}
    for part, file in (("train", "train.npz"), ("test", "val.npz")):
        made, labels, lines = np.load(squares_folder / file), {}, []
        for n, (pixel, label, (x0, y0, x1, y1)) in enumerate(
            zip(made["images"], made["labels"], made["boxes"], strict=True)
        ):
            stem = f"{part}/c{label}/{n:03d}"
            (root / part / f"c{label}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixel).save(root / f"{stem}.png")
            labels[f"{stem}.png"] = int(label)
            if part == "train":
                continue
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[y0 : y1 + 1, x0 : x1 + 1] = 1
            middle = (x0 + x1) // 2
            left, right = mask.copy(), mask.copy()  # one object in two halves: their masks are united
            left[:, middle + 1 :] = 0
            right[:, : middle + 1] = 0
            write_mask(root / f"{stem}_left.png", left.repeat(2, 0).repeat(2, 1))
            write_mask(root / f"{stem}_right.png", right)
            band = np.zeros_like(mask)
            band[:10] = n % 3 == 0
            if n % 3 == 0:
                write_mask(root / f"{stem}_ignore.png", band)
            lines.append(f"{stem}.png,{stem}_left.png,{f'{stem}_ignore.png' if n % 3 == 0 else ''}")
            lines.append(f"{stem}.png,{stem}_right.png,")
            mask[(mask == 0) & (band == 1)] = 255
            truth[f"{stem}.png"] = mask
        write_lists(root / "lists" / part, labels, lines or None)
    return truth


TRAIN = [
    "train", "localisation", "--recipe", "small", "--seed", "0", "--quiet", "--loader.size", "24",
    "--loader.resize", "24", "--loader.eval_resize", "24", "--loader.batch_size", "16", "--loader.eval_batch_size", "7",
    "--loader.threads", "1", "--hide.patch_sizes", "[0,6]", "--model.width", "0.25", "--optim.lr", "0.05",
    "--trainer.precision", "32-true", "--trainer.max_epochs", "12", "--trainer.check_val_every_n_epoch", "6",
]  # fmt: skip


@dataclass(frozen=True)
class Trained:
    root: Path
    out: Path
    truth: dict[str, npt.NDArray[np.uint8]]
    report: dict[str, Any]


@pytest.fixture(scope="module")
def trained(squares_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    root = tmp_path_factory.mktemp("masks")
    truth, out = write_squares(squares_folder, root), root / "run"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    argv = [*TRAIN, "--data", str(root), "--out", str(out), "--loader.metadata", str(root / "lists")]
    assert main([*argv, "--loader.held_out", "0"]) == 0
    yield Trained(root, out, truth, json.loads((out / "report.json").read_text()))
    torch.set_num_threads(before)


def average_precision(scores: npt.NDArray[np.floating], masks: npt.NDArray[np.uint8], step: float) -> float:
    """PxAP in plain loops: precision and recall at every threshold."""
    total = (masks == 1).sum()
    area, recall = 0.0, 0.0
    for threshold in [1.0, *np.arange(0, 1, step)[::-1]]:
        above = masks[scores >= threshold]
        objects = (above == 1).sum()
        counted = objects + (above == 0).sum()
        if counted:
            area += objects / counted * (objects / total - recall)
            recall = objects / total
    return 100 * area


def test_a_run_reports_pxap_beside_maps_that_need_no_network(trained: Trained) -> None:
    report, masks = trained.report, np.stack(list(trained.truth.values()))
    last = report["metrics"]["last"]
    assert set(last) == {"top1", "pxap"}  # three classes have no top-5, masks no boxes and no threshold
    assert report["dataset"]["val_images"] == VAL and report["settings"]["cam"]["threshold"] == "held-out"
    constant = 100 * (masks == 1).sum() / (masks < 255).sum()
    assert report["baselines"]["constant map"]["pxap"] == pytest.approx(constant)
    y, x = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(x - 11.5, y - 11.5)
    centre = np.broadcast_to(1 - (distance / distance.max()), masks.shape).astype(np.float32)
    expected = average_precision(centre, masks, 0.01)
    assert report["baselines"]["centre map"]["pxap"] == pytest.approx(expected, abs=0.05)
    assert constant + 15 < expected < 60 and constant + 15 < last["pxap"] < 90  # both see something


def test_pxap_of_a_run_from_plain_loops(trained: Trained) -> None:
    """The network on each image by itself, OpenCV's bicubic maps, and masks as they were before they were files."""
    images = opened(trained)
    task = task_from_checkpoint(trained.out / "checkpoints" / "last.ckpt", "localisation", CLASSES).eval()
    loader, model = task.settings.loader, task.model
    scores, right = [], []
    for n, name in enumerate(trained.truth):
        with Image.open(trained.root / name) as file:
            picture = (np.asarray(file, np.float32) - loader.mean) / loader.std
        with torch.inference_mode():
            features = model.features(torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None])
            logits = model.classifier(features.mean((2, 3)))[0]
        weight = model.classifier.weight.detach()[images.val.labels[n]]
        small = torch.einsum("k,khw->hw", weight, features[0]).numpy()
        large = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        scores.append((large - large.min()) / (large.max() - large.min()))
        right.append(int(logits.argmax()) == images.val.labels[n])
    last = trained.report["metrics"]["last"]
    expected = average_precision(np.stack(scores), np.stack(list(trained.truth.values())), 0.01)
    assert last["pxap"] == pytest.approx(expected, abs=0.05)
    assert last["top1"] == pytest.approx(100 * np.mean(right))


def opened(trained: Trained) -> MaskedImages:
    images = open_boxed(trained.root, trained.root / "lists")
    assert isinstance(images, MaskedImages)
    return images


def test_eval_finds_the_same(trained: Trained, tmp_path: Path) -> None:
    argv = ["eval", "localisation", "--data", str(trained.root), "--device", "cpu", "--quiet"]
    argv += ["--ckpt", str(trained.out / "checkpoints" / "last.ckpt")]
    assert main([*argv, "--json", str(tmp_path / "e.json")]) == 0
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["metrics"] == pytest.approx(trained.report["metrics"]["last"], abs=1e-4)
    assert found["baselines"] == trained.report["baselines"]
    argv += ["--set", "loader.eval_batch_size=24", "--set", "cam.crops=one"]
    assert main([*argv, "--set", "cam.wsol=false", "--json", str(tmp_path / "f.json")]) == 0
    other = json.loads((tmp_path / "f.json").read_text())
    assert other["metrics"] == pytest.approx(found["metrics"], abs=1e-3)  # settings that do not matter


def test_two_ranks_of_a_run(trained: Trained) -> None:
    task = task_from_checkpoint(trained.out / "checkpoints" / "last.ckpt", "localisation", CLASSES).eval()
    for found in on_two_ranks(task, opened(trained)):
        assert found.metrics == pytest.approx(trained.report["metrics"]["last"], abs=1e-3)
        assert found.baselines == trained.report["baselines"] and len(found.per_image["id"]) == VAL


def test_holding_images_out_is_refused_before_training(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*TRAIN, "--data", str(trained.root), "--loader.metadata", str(trained.root / "lists")]
    assert main([*argv, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert "set loader.held_out to 0" in error and "\n" not in error
