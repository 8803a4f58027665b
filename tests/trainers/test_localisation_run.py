"""Localisation runs end to end on a tiny data set: metrics, thresholds, crops, two processes, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.measure import label, regionprops

sys.path.insert(0, str(Path(__file__).parent))
from run_support import LOCALISE, arrays, evaluate, localise, one_thread, report_of, write

from has_dali.cli import main
from has_dali.trainers.data import eval_loader
from has_dali.trainers.datasets import open_boxed
from has_dali.trainers.saved import evaluate_checkpoint, task_from_checkpoint

OVERLAPS = ("0.3", "0.5", "0.7")


@pytest.fixture(scope="module", autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def run(squares_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("localisation") / "run"
    localise(squares_folder, out, 8, "--hide.patch_sizes", "[0,6]")
    return out


@pytest.fixture(scope="module")
def held(run: Path, squares_folder: Path) -> np.ndarray:
    """Numbers of the held-out training images: of each class the first, fifth, ..."""
    labels = arrays(squares_folder, "train")["labels"]
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[::4] for c in range(3)]))


def test_every_metric_of_the_paper_and_of_wsolevaluation_is_reported(run: Path) -> None:
    report = report_of(run)
    wanted = {"top1", "gt_known", "top1_loc", "cam_threshold", "max_box_acc", "max_box_acc_v2", "cam_box_acc"}
    wanted |= {f"{name}@{at}" for name in ("gt_known", "top1_loc", "max_box_acc_v2") for at in OVERLAPS}
    wanted |= {"held_out_top1", "held_out_gt_known", "held_out_top1_loc"}
    for which in ("best", "last"):
        metrics = report["metrics"][which]
        assert wanted <= metrics.keys()
        for name in ("gt_known", "top1_loc"):
            assert metrics[name] == metrics[f"{name}@0.5"]
            assert metrics[f"{name}@0.3"] >= metrics[f"{name}@0.5"] >= metrics[f"{name}@0.7"]
        assert all(metrics["gt_known" + at] >= metrics["top1_loc" + at] for at in ("", "@0.3", "@0.5", "@0.7"))
        assert metrics["max_box_acc_v2"] == pytest.approx(np.mean([metrics[f"max_box_acc_v2@{at}"] for at in OVERLAPS]))
    last = report["metrics"]["last"]
    assert last["top1"] > 60 and last["gt_known@0.3"] > 20  # chance is 33, and nothing
    assert last["max_box_acc"] == max(value for _, value in report["curves"]["max_box_acc_by_threshold"])
    assert [epoch for epoch, _ in report["curves"]["train_loss"]] == list(range(1, 9))
    assert report["curves"]["train_loss"][-1][1] < report["curves"]["train_loss"][0][1]
    assert report["switches"] == {
        "pool": "gap", "fill": "mean", "merge": "mean_by_coverage",
        "box": "component", "crops": "ten",
    }  # fmt: skip
    assert report["dataset"]["train_images"] == 72 and report["dataset"]["val_images"] == 30


def test_baselines_that_need_no_network(run: Path, squares_folder: Path) -> None:
    baselines = report_of(run)["baselines"]
    x0, y0, x1, y1 = arrays(squares_folder, "val")["boxes"].T
    area = (x1 - x0 + 1) * (y1 - y0 + 1)
    # Of 24 pixels the middle three quarters are 3 to 20.
    across = np.clip(np.minimum(x1, 20) - np.maximum(x0, 3) + 1, 0, None)
    common = across * np.clip(np.minimum(y1, 20) - np.maximum(y0, 3) + 1, 0, None)
    for at in OVERLAPS:
        whole, centre = baselines["whole image"], baselines["centre box 0.75"]
        assert whole[f"gt_known@{at}"] == pytest.approx(100 * (area / 576 >= float(at)).mean())
        assert centre[f"gt_known@{at}"] == pytest.approx(100 * (common / (area + 324 - common) >= float(at)).mean())
        assert centre["gt_known"] == centre["gt_known@0.5"]
    assert "gt_known" in baselines["centre box chosen on train"]


def test_one_view_by_hand(run: Path, squares_folder: Path) -> None:
    """Map, box and overlap of every image computed anew, with another library's components."""
    found = evaluate(run, squares_folder, "cam.crops=one", "cam.threshold=0.6")["metrics"]
    task = task_from_checkpoint(run / "checkpoints" / "last.ckpt", "localisation", 3).eval()
    data = open_boxed(squares_folder)
    right, located, known = [], [], []
    for batch in eval_loader(data.val, task.settings, "cpu", crop="warp", size=21, batch_size=30):
        with torch.inference_mode():
            features = task.model.trunk(task.model.stem(batch["image"]))
            weight, bias = task.model.classifier.weight, task.model.classifier.bias
            predicted = (features.mean((2, 3)) @ weight.T + bias).argmax(1)
            maps = F.interpolate(torch.einsum("ck,nkhw->nchw", weight, features), (24, 24), mode="bicubic").numpy()
        for n, (true, said) in enumerate(zip(batch["label"].tolist(), predicted.tolist(), strict=True)):
            overlaps = []
            for which in (true, said):
                parts = regionprops(label(maps[n, which] > 0.6 * maps[n, which].max(), connectivity=2))
                y0, x0, y1, x1 = max(parts, key=lambda part: part.area).bbox  # ends outside
                a = np.zeros((24, 24), bool)
                a[y0:y1, x0:x1] = True
                b = np.zeros((24, 24), bool)
                left, top, far, low = data.val_boxes.of(int(batch["id"][n]))[0]
                b[top : low + 1, left : far + 1] = True
                overlaps.append((a & b).sum() / (a | b).sum())
            right.append(true == said)
            known.append(overlaps[0] >= 0.3)
            located.append(true == said and overlaps[1] >= 0.3)
    assert len(right) == 30
    assert found["top1"] == pytest.approx(100 * np.mean(right))
    assert found["gt_known@0.3"] == pytest.approx(100 * np.mean(known))
    assert found["top1_loc@0.3"] == pytest.approx(100 * np.mean(located))
    assert 0 < np.mean(located) < 1


def test_eval_equals_the_report(run: Path, squares_folder: Path) -> None:
    report, found = report_of(run), evaluate(run, squares_folder)
    assert found["metrics"] == report["metrics"]["last"]
    assert found["baselines"] == report["baselines"]
    assert found["curves"] == {name: report["curves"][name] for name in found["curves"]}
    assert evaluate(run, squares_folder, file="best.ckpt")["metrics"] == report["metrics"]["best"]


def test_eval_equals_the_report_of_a_run_in_bfloat16(squares_folder: Path, tmp_path: Path) -> None:
    report = localise(squares_folder, tmp_path, 3, "--trainer.precision", "bf16-mixed")
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["has_dali"]["precision"] == "bf16-mixed"
    found = evaluate(tmp_path, squares_folder)
    assert found["metrics"] == report["metrics"]["last"] and found["curves"].items() <= report["curves"].items()


def test_the_threshold_is_chosen_on_held_out_training_boxes_alone(
    run: Path, squares_folder: Path, held: np.ndarray, tmp_path: Path
) -> None:
    train, val = arrays(squares_folder, "train"), arrays(squares_folder, "val")
    before = evaluate(run, squares_folder)["metrics"]
    chosen = [name for name in before if name.startswith("held_out_") or name == "cam_threshold"]

    elsewhere = np.tile(np.int64([0, 0, 3, 3]), (30, 1))
    other_val = evaluate(run, write(tmp_path / "val", train, {**val, "boxes": elsewhere}))["metrics"]
    assert [other_val[name] for name in chosen] == [before[name] for name in chosen]
    assert other_val["gt_known@0.3"] < before["gt_known@0.3"]

    fitted = np.setdiff1d(np.arange(96), held)
    boxes = train["boxes"].copy()
    boxes[fitted] = 0, 0, 3, 3
    other_fitted = evaluate(run, write(tmp_path / "fitted", {**train, "boxes": boxes}, val))["metrics"]
    assert other_fitted == before

    boxes = train["boxes"].copy()
    boxes[held] = 0, 0, 23, 23  # the lowest threshold gives the largest boxes
    other_held = evaluate(run, write(tmp_path / "held", {**train, "boxes": boxes}, val))["metrics"]
    assert other_held["cam_threshold"] < before["cam_threshold"]

    images = {name: values[held] for name, values in train.items()}
    as_val = evaluate(run, write(tmp_path / "as_val", train, images), "cam.threshold=0.5")
    curve = as_val["curves"]["gt_known_by_threshold"]
    assert before["cam_threshold"] == max(curve, key=lambda point: point[1])[0]
    assert before["held_out_gt_known"] == max(value for _, value in curve) > 0
    assert before["held_out_top1"] == as_val["metrics"]["top1"]


def test_a_fixed_threshold_needs_nothing_held_out(run: Path, squares_folder: Path) -> None:
    found = evaluate(run, squares_folder, "cam.threshold=0.7", "loader.held_out=0")
    metrics = found["metrics"]
    assert metrics["cam_threshold"] == 0.7 and not any(name.startswith("held_out") for name in metrics)
    assert metrics["gt_known"] == dict(found["curves"]["gt_known_by_threshold"])[0.7]
    assert metrics["top1_loc"] == dict(found["curves"]["top1_loc_by_threshold"])[0.7]


def test_crops_merges_and_boxes_are_what_was_asked_for(run: Path, squares_folder: Path) -> None:
    def found(*changes: str) -> dict[str, np.ndarray]:
        checkpoint = run / "checkpoints" / "last.ckpt"
        changes = ("cam.threshold=0.6", "cam.wsol=false", *changes)
        result = evaluate_checkpoint("localisation", checkpoint, squares_folder, "cpu", changes)
        assert "max_box_acc" not in result.metrics
        return result.per_image

    ten, again = found(), found()
    assert all(np.array_equal(ten[name], again[name], equal_nan=True) for name in ten)
    boxes = {change: found(change)["box_true"] for change in ("cam.crops=one", "cam.merge=sum_abs", "cam.box=cam_dt")}
    sets = [ten["box_true"], *boxes.values()]
    assert all((a != b).any() for i, a in enumerate(sets) for b in sets[:i])
    for values in sets:
        assert values.shape == (30, 4) and (values >= 0).all() and (values < 24).all()
    # More crops cover the centre: sums grow there, so boxes reach less far to the border than means do.
    inner = np.abs(boxes["cam.merge=sum_abs"] - 11.5).max(1).mean()
    assert inner < np.abs(ten["box_true"] - 11.5).max(1).mean()


def test_maximum_pooling(squares_folder: Path, tmp_path: Path) -> None:
    report = localise(squares_folder, tmp_path, 2, "--model.pool", "gmp")
    assert report["switches"]["pool"] == "gmp" and "gt_known" in report["metrics"]["last"]
    task = task_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt", "localisation", 3).eval()
    images = torch.randn(2, 3, 21, 21)
    features = task.model.features(images)
    expected = features.flatten(2).max(2).values @ task.model.classifier.weight.T + task.model.classifier.bias
    assert torch.allclose(task(images), expected, atol=1e-5)
    assert evaluate(tmp_path, squares_folder)["metrics"] == report["metrics"]["last"]


def test_two_processes_find_what_one_finds(squares_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "has_dali"]
    argv = [*LOCALISE, "--data", str(squares_folder), "--out", str(tmp_path), "--trainer.max_epochs", "3"]
    done = subprocess.run(
        [*command, *argv, "--trainer.accelerator", "cpu", "--loader.eval_batch_size", "7"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = report_of(tmp_path)
    found = evaluate(tmp_path, squares_folder)
    assert found["metrics"] == pytest.approx(report["metrics"]["last"]) and found["metrics"]["gt_known@0.3"] > 0
    for name, curve in found["curves"].items():
        assert np.allclose(curve, report["curves"][name])
    assert found["baselines"] == report["baselines"]


def failing(data: Path, out: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> str:
    argv = [*LOCALISE, "--data", str(data), "--out", str(out), "--trainer.max_epochs", "3", *options]
    assert main(argv) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) <= 2, error
    return "\n".join(error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--loader.held_out", "0"], "cam.threshold=held-out: loader.held_out is 0"),
        (["--cam.threshold", "7"], "cam.threshold=7.0: expected a number between 0 and 1"),
        (["--cam.wsol_step", "0"], "cam.wsol_step=0.0: expected a number above 0"),
        (["--cam.blacklist", "list.txt"], "cam.blacklist=list.txt: numbers files of ILSVRC"),
        (["--cam.crops", "five"], "cam.crops"),
        (["--hide.patch_sizes", "[0]", "--hide.p_hide", "2"], "p_hide"),
        (["--model.name", "vit_b_16", "--model.width", "1"], "has no convolutional trunk"),
        (["--model.name", "alexnet_gap", "--model.width", "1"], "raise the size or take 'smallnet'"),
        (["--loader.metadata", "nowhere"], "metadata='nowhere': no such folder"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_training(
    squares_folder: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failing(squares_folder, tmp_path / "out", *options, capsys=capsys)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_data_that_cannot_be(squares_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, val = arrays(squares_folder, "train"), arrays(squares_folder, "val")
    out = tmp_path / "out"

    def without(part: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
        return {key: value for key, value in part.items() if key != name}

    def refused(data: Path, *options: str) -> str:
        error = failing(data, out, *options, capsys=capsys)
        assert not out.exists()
        return error

    assert "missing boxes" in refused(write(tmp_path / "a", train, without(val, "boxes")))
    error = refused(write(tmp_path / "b", without(train, "boxes"), val))
    assert "set loader.held_out to 0 and give cam.threshold a number" in error
    two = {**val, "labels": val["labels"] % 2}
    assert "classes that differ between train and val (only in train: 2)" in refused(write(tmp_path / "c", train, two))
    outside = {**val, "boxes": val["boxes"] + 20}
    assert "image 0: " in refused(write(tmp_path / "d", train, outside))
    (tmp_path / "e").mkdir()
    assert "no known layout with boxes" in refused(tmp_path / "e")
    assert "no such folder" in refused(tmp_path / "f")
