"""Runs end to end on a tiny data set: what they leave behind, resuming, stopping, and bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from has_dali.cli import main
from tests.trainers.conftest import squares

SMALL = ["--loader.batch_size", "16", "--loader.threads", "1", "--trainer.precision", "32-true", "--quiet"]
CLASSIFY = [
    "train", "classification", "--recipe", "cifar10-small", "--loader.size", "24", "--loader.eval_resize", "24", *SMALL,
    "--hide.preset", "null", "--hide.patch_sizes", "[6]", "--model.name", "smallnet", "--model.dropout", "0.3",
    "--model.width", "0.5", "--optim.lr", "0.05", "--trainer.check_val_every_n_epoch", "1",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of convolutions on the CPU depend on the number of threads, which is the machine's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def classify(data: Path, out: Path, epochs: int, *options: str) -> dict:
    code = main([*CLASSIFY, "--data", str(data), "--out", str(out), "--trainer.max_epochs", str(epochs), *options])
    assert code == 0
    return json.loads((out / "report.json").read_text())


def test_the_last_checkpoint_is_the_last_even_when_an_earlier_one_is_better(
    squares_folder: Path, tmp_path: Path
) -> None:
    worse = ["--optim.schedule", "phases", "--optim.phases", "[[0,0.05,0.0],[2,3.0,0.0]]", "--optim.warmup_epochs", "0"]
    report = classify(squares_folder, tmp_path, 3, *worse)
    assert report["metrics"]["best"]["top1"] > report["metrics"]["last"]["top1"]
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 18
    assert torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] < 18


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(squares_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    classify(squares_folder, out, 3)
    return out


def test_the_report_of_a_run(whole: Path) -> None:
    report = json.loads((whole / "report.json").read_text())
    assert report["version"] == 1 and report["task"] == "classification" and report["recipe"] == "cifar10-small"
    assert report["dataset"]["train_images"] == 96 and report["dataset"]["val_images"] == 30
    assert report["dataset"]["classes"] == 3 and report["epochs"] == 3 and report["steps"] == 18
    assert report["metrics"]["last"]["top1"] > 60  # chance is 33
    assert [epoch for epoch, _ in report["curves"]["top1"]] == [1, 2, 3]
    assert report["curves"]["top1"][-1][1] == pytest.approx(report["metrics"]["last"]["top1"])
    assert max(point[1] for point in report["curves"]["top1"]) == pytest.approx(report["metrics"]["best"]["top1"])
    assert 0.4 < report["hidden_fraction"] < 0.6  # 48 images of 16 cells at p_hide .5: standard deviation .018
    assert report["images_per_second"] > 0 and 0 <= report["input_stall"] < 1
    assert torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 18  # whatever is best
    assert list((whole / "logs" / "csv").rglob("metrics.csv"))
    assert list((whole / "logs" / "tensorboard").rglob("events*"))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    whole: Path, squares_folder: Path, tmp_path: Path
) -> None:
    classify(squares_folder, tmp_path / "again", 3, "--loader.prefetch", "3")
    assert same(weights(whole), weights(tmp_path / "again"))
    classify(squares_folder, tmp_path / "other", 3, "--seed", "1")
    assert not same(weights(whole), weights(tmp_path / "other"))


class ThrownError(Exception):
    """What a test throws into a run."""


@pytest.mark.parametrize("steps", [1, 4, 5, 6, 11])
def test_a_resumed_run_equals_the_uninterrupted_one(
    whole: Path, squares_folder: Path, tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from has_dali.trainers.classification import ClassificationTask

    straight, done = ClassificationTask.loss, []

    def loss(self: ClassificationTask, batch: dict) -> torch.Tensor:
        if len(done) == steps + 1:
            raise ThrownError
        done.append(1)
        return straight(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "loss", loss)
        patch.setenv("HAS_DALI_DEBUG", "1")
        with pytest.raises(ThrownError):
            classify(squares_folder, tmp_path, 3, "--save_every", "1")
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] >= steps
    report = classify(squares_folder, tmp_path, 3, "--save_every", "1", "--resume")
    assert same(weights(whole), weights(tmp_path))
    before = json.loads((whole / "report.json").read_text())
    assert report["metrics"]["last"] == before["metrics"]["last"]
    assert [epoch for epoch, _ in report["curves"]["top1"]] == [1, 2, 3]


def test_a_signal_saves_the_run_and_resuming_ends_it_the_same(
    whole: Path, squares_folder: Path, tmp_path: Path
) -> None:
    argv = [*CLASSIFY, "--data", str(squares_folder), "--out", str(tmp_path), "--trainer.max_epochs", "3"]
    slow = (
        "import sys, time\nfrom has_dali.cli import main\n"
        "from has_dali.trainers.classification import ClassificationTask as T\nstraight = T.loss\n"
        "def loss(self, batch):\n    print('step', flush=True); time.sleep(0.3); return straight(self, batch)\n"
        "T.loss = loss\nsys.exit(main(sys.argv[1:]))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    for _ in range(8):
        assert "step" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1] == "has-dali train: interrupted"
    assert not (tmp_path / "report.json").exists()
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert 6 < saved["global_step"] < 18
    classify(squares_folder, tmp_path, 3, "--resume")
    assert same(weights(whole), weights(tmp_path))


def failing(data: Path, out: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> str:
    argv = [*CLASSIFY, "--data", str(data), "--out", str(out), "--trainer.max_epochs", "3", *options]
    assert main(argv) in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) <= 2, error
    return "\n".join(error)


def test_a_checkpoint_of_other_settings_is_refused(
    whole: Path, squares_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = failing(squares_folder, whole, "--resume", "--hide.p_hide", "0.3", capsys=capsys)
    assert "hide.p_hide: 0.3, None in the checkpoint" in error and "--out" in error
    error = failing(squares_folder, whole, "--resume", "--seed", "5", capsys=capsys)
    assert "seed: 5, 0 in the checkpoint" in error


def test_a_finished_run_is_not_overwritten(
    whole: Path, squares_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "report.json").read_bytes()
    error = failing(squares_folder, whole, "--seed", "1", capsys=capsys)
    assert "--out holds a run already" in error and "--resume" in error
    assert (whole / "report.json").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value"), [("--trainer.gradient_clip_val", "0.1"), ("--trainer.limit_train_batches", "0.5")]
)
def test_settings_of_the_trainer_that_decide_count_too(
    whole: Path, squares_folder: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = failing(squares_folder, whole, "--resume", option, value, capsys=capsys)
    assert f"trainer.{option.removeprefix('--trainer.')}: {value}, None in the checkpoint" in error


def test_resuming_on_other_data_is_refused(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "train.npz", **squares(96, 5))
    np.savez(tmp_path / "val.npz", **squares(30, 6))
    assert "data: " in failing(tmp_path, whole, "--resume", capsys=capsys)


def test_nothing_to_resume_from(squares_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no checkpoint to resume from" in failing(squares_folder, tmp_path / "new", "--resume", capsys=capsys)
    assert not (tmp_path / "new").exists()


def test_a_loss_that_is_not_finite_names_the_images_and_saves_the_state(
    squares_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = failing(squares_folder, tmp_path, "--optim.lr", "1e30", "--optim.warmup_epochs", "0", capsys=capsys)
    assert "the loss is" in error and "batch" in error and "Sample ids:" in error
    ids = [int(word) for word in error.partition("Sample ids:")[2].split(",")]
    assert len(ids) == 16 and all(0 <= i < 96 for i in ids)
    saved = torch.load(tmp_path / "checkpoints" / "nonfinite.ckpt", weights_only=True)
    assert saved["has_dali"]["task"] == "classification"


def test_out_of_memory_says_what_to_lower(
    squares_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from has_dali.trainers.classification import ClassificationTask

    def loss(self: object, batch: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(ClassificationTask, "loss", loss)
    error = failing(squares_folder, tmp_path, capsys=capsys)
    assert "raise trainer.accumulate_grad_batches (now 1;" in error and "loader.batch_size (now 16)" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--loader.batch_size", "17", "--trainer.accumulate_grad_batches", "2"],
            "expected a multiple of 1 processes x 2",
        ),
        (["--loader.sampling", "class-balanced"], "loader.steps=None"),
        (["--loader.sizes", "[[0,16],[3,24]]"], r"loader.sizes: [3, 24] never begins in trainer.max_epochs=3"),
        (["--hide.area", "[0.4,0.1]"], "hide.area=[0.4, 0.1]"),
        (["--hide.preset", "no"], "preset 'no' is unknown"),
        (["--model.name", "resnet999"], "resnet999"),
        (["--trainer.max_epochs", "0"], "trainer.max_epochs=0: expected a whole number from 1"),
    ],
)
def test_settings_that_cannot_be(
    squares_folder: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failing(squares_folder, tmp_path, *options, capsys=capsys)


def test_missing_words(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, message in (
        (["train"], "TASK is missing"),
        (["train", "clasification"], "task 'clasification' is unknown"),
        (["train", "classification"], "--recipe NAME is missing"),
        (["train", "classification", "--recipe", "cifar10-smal"], "did you mean cifar10-small?"),
        (["train", "classification", "--recipe", "cifar10-small"], "--data DIR is missing"),
    ):
        assert main(argv) == 2
        assert message in capsys.readouterr().err


def test_accumulation_takes_the_same_images_per_step(whole: Path, squares_folder: Path, tmp_path: Path) -> None:
    report = classify(squares_folder, tmp_path, 3, "--trainer.accumulate_grad_batches", "2", "--model.dropout", "0.0")
    assert report["steps"] == 18


def test_a_stop_waits_for_the_step_that_gathers_gradients(squares_folder: Path, tmp_path: Path) -> None:
    options = ["--trainer.accumulate_grad_batches", "4", "--model.dropout", "0.0"]
    classify(squares_folder, tmp_path / "whole", 2, *options)
    from has_dali.trainers.classification import ClassificationTask

    straight, done = ClassificationTask.loss, []

    def loss(self: ClassificationTask, batch: dict) -> torch.Tensor:
        done.append(1)
        if len(done) == 6:  # the second of four batches of a step
            signal.raise_signal(signal.SIGTERM)
        return straight(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationTask, "loss", loss)
        argv = [*CLASSIFY, "--data", str(squares_folder), "--out", str(tmp_path / "cut"), "--trainer.max_epochs", "2"]
        assert main([*argv, *options]) == 143
    assert len(done) == 8
    classify(squares_folder, tmp_path / "cut", 2, *options, "--resume")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_averaged_weights_survive_a_resume(squares_folder: Path, tmp_path: Path) -> None:
    from has_dali.trainers.classification import ClassificationTask

    options = ["--optim.ema", "0.8", "--save_every", "1"]
    report = classify(squares_folder, tmp_path / "whole", 2, *options)
    straight, done = ClassificationTask.loss, []

    def loss(self: ClassificationTask, batch: dict) -> torch.Tensor:
        done.append(1)
        if len(done) == 9:
            signal.raise_signal(signal.SIGTERM)
        return straight(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationTask, "loss", loss)
        argv = [*CLASSIFY, "--data", str(squares_folder), "--out", str(tmp_path / "cut"), "--trainer.max_epochs", "2"]
        assert main([*argv, *options]) == 143
    resumed = classify(squares_folder, tmp_path / "cut", 2, *options, "--resume")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert resumed["metrics"]["last"] == report["metrics"]["last"]


def write_files(root: Path) -> Path:
    """Class folders of 48 and 12 images."""
    from PIL import Image

    for split, count, seed in (("train", 48, 0), ("val", 12, 1)):
        data = squares(count, seed)
        for n, (image, label) in enumerate(zip(data["images"], data["labels"], strict=True)):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{n:03}.png")
    return root


def test_broken_files_end_a_run_or_are_skipped_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that a broken file stopped goes on without it; with two image sizes, so with two loaders."""
    data = write_files(tmp_path / "data")
    for name in ("train/class2/044.png", "val/class1/004.png"):
        (data / name).write_bytes(b"no image")
    options = ["--loader.crop", "random-resized", "--loader.sizes", "[[0,16],[1,24]]", "--save_every", "1"]
    options += ["--loader.eval_size", "24"]
    stopped = failing(data, tmp_path / "run", *options, capsys=capsys)
    assert "004.png" in stopped or "044.png" in stopped
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    skip = ["--loader.on_error", "skip", "--loader.error_budget", "0.1"]
    resumed = classify(data, tmp_path / "run", 3, *options, *skip, "--resume")
    report = classify(data, tmp_path / "whole", 3, *options, *skip)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "run"))
    assert report["loading"]["train"]["batches"] == 9 and report["loading"]["train"]["samples"] == 144
    assert report["loading"]["train"]["replaced"] == 3
    for part, name in (("train", "044.png"), ("val", "004.png")):
        broken = report["loading"][part]["broken"]
        assert [Path(file["name"]).name for file in broken] == [name] and broken[0]["reason"]
    assert report["loading"]["val"]["samples"] % 11 == 0  # padding does not count
    assert resumed["metrics"]["last"] == report["metrics"]["last"]
    correct = report["metrics"]["last"]["top1"] / 100 * 11  # the broken one is no image of the metrics
    assert correct == pytest.approx(round(correct), abs=1e-3)
    assert "error_budget=-1.0: expected a share" in failing(
        data, tmp_path / "x", "--loader.error_budget", "-1", *skip[:2], capsys=capsys
    )


def test_decoded_images_are_decoded_once(squares_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From files, with a part held out: the cache changes no batch, and nothing is decoded twice."""
    from has_dali.pipelines import decode

    write_files(tmp_path / "data")
    decoded: list[int] = []
    straight = decode.decoded_source

    def counted(source: object, *arguments: object) -> object:
        decoded.append(len(source))  # type: ignore[arg-type]
        return straight(source, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "decoded_source", counted)
    options = ["--loader.held_out", "4", "--loader.sizes", "[[0,16],[1,24]]", "--loader.crop", "random-resized"]
    options += ["--loader.eval_size", "24"]
    classify(tmp_path / "data", tmp_path / "files", 2, *options)
    assert not decoded
    classify(tmp_path / "data", tmp_path / "cached", 2, *options, "--loader.cache", "decoded")
    assert sorted(decoded) == [12, 12, 36]  # val, held out, fitted
    assert same(weights(tmp_path / "files"), weights(tmp_path / "cached"))


def test_compilation_happens_in_place_and_by_shape(
    squares_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []

    def compiled(self: torch.nn.Module, **options: object) -> None:
        asked.append(options)
        self._compiled_call_impl = torch.compile(self._call_impl, backend="eager", **options)  # type: ignore[call-overload]

    monkeypatch.setattr(torch.nn.Module, "compile", compiled)
    report = classify(squares_folder, tmp_path, 2, "--model.compile", "true")
    assert asked == [{"dynamic": False}] and report["metrics"]["last"]["top1"] > 33
    assert not any("_orig_mod" in name for name in weights(tmp_path))


def test_progressive_resolution_and_averaging_run(squares_folder: Path, tmp_path: Path) -> None:
    options = ["--loader.sizes", "[[0,16],[2,24]]", "--loader.crop", "random-resized", "--optim.ema", "0.9"]
    report = classify(squares_folder, tmp_path, 3, *options, "--loader.eval_size", "24")
    assert report["steps"] == 18 and report["metrics"]["last"]["top1"] > 33


def test_eval_gives_the_metrics_of_the_run(
    whole: Path, squares_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "eval.json"
    argv = ["eval", "classification", "--data", str(squares_folder), "--device", "cpu", "--json", str(found)]
    assert main([*argv, "--ckpt", str(whole / "checkpoints" / "last.ckpt")]) == 0
    expected = json.loads((whole / "report.json").read_text())["metrics"]["last"]
    assert json.loads(found.read_text())["metrics"] == pytest.approx(expected, abs=1e-4)
    capsys.readouterr()
    argv[1] = "localisation"
    assert main([*argv, "--ckpt", str(whole / "checkpoints" / "last.ckpt")]) == 2
    assert "a checkpoint of classification, expected one of localisation" in capsys.readouterr().err
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"not a checkpoint")
    assert main([*argv, "--ckpt", str(broken)]) == 2
    assert "not a checkpoint, or a damaged one" in capsys.readouterr().err


def test_two_processes_under_torchrun_take_the_steps_of_one(whole: Path, squares_folder: Path, tmp_path: Path) -> None:
    argv = [*CLASSIFY, "--data", str(squares_folder), "--out", str(tmp_path), "--trainer.max_epochs", "2"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "has_dali"]
    start = time.time()
    done = subprocess.run(
        [*command, *argv, "--trainer.accelerator", "cpu", "--model.dropout", "0.0"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["steps"] == 12 and report["metrics"]["last"]["top1"] > 0
    assert report["wall_seconds"] < time.time() - start
