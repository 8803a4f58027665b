"""Timing a training step: what is measured, on which networks and batches, and the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from has_dali.bench import train_step
from has_dali.bench.train_step import BARE, LABELS, PLAIN, SYNTHETIC, TRAINER
from has_dali.cli import main
from has_dali.trainers.arguments import RunOptions, parse_run
from has_dali.trainers.tasks import task_kind

SMALL = [
    "--loader.size", "16", "--loader.resize", "18", "--loader.batch_size", "8", "--loader.threads", "1",
    "--loader.held_out", "0", "--model.width", "0.25", "--trainer.precision", "32-true", "--trainer.max_epochs", "2",
    "--hide.patch_sizes", "[4]",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A step of tiny layers takes longest where many threads share it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for part, count in (("train", 40), ("val", 6)):
        images = rng.integers(0, 256, (count, 20, 20, 3), np.uint8)
        boxes = np.tile(np.int64([2, 2, 12, 12]), (count, 1))
        np.savez(folder / f"{part}.npz", images=images, labels=np.arange(count) % 2, boxes=boxes)
    return folder


def options(*words: str) -> RunOptions:
    argv = ["localisation", "--recipe", "small", *SMALL, *words]
    return parse_run("has-dali bench train", argv, "localisation", task_kind("localisation").settings)


def loop(squares: Path, way: str, *words: str) -> train_step._Loop:
    wanted = options(*words)
    return train_step._Loop(wanted, task_kind("localisation").open_data(squares, wanted.settings), way)


def test_the_report(squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "found.json"
    argv = ["bench", "train", "localisation", "--recipe", "small", "--data", str(squares), *SMALL, "--json", str(found)]
    assert main([*argv, "--rounds", "2", "--steps", "3"]) == 0
    shown = capsys.readouterr().out
    assert all(label in shown for label in LABELS.values()) and "trainer over bare loop" in shown
    report = json.loads(found.read_text())
    assert report["batch_size"] == 8 and report["argv"][:3] == ["has-dali", "bench", "train"]
    steps = report["seconds_per_step"]
    assert list(steps) == [TRAINER, BARE, PLAIN, SYNTHETIC]
    for summary in steps.values():
        assert len(summary["values"]) == 2 and min(summary["values"]) > 0
    pairs = {"trainer_over_bare": (TRAINER, BARE), "real_over_synthetic": (BARE, SYNTHETIC)}
    for name, (above, below) in {**pairs, "hiding_over_plain": (BARE, PLAIN)}.items():
        ratios = np.divide(steps[above]["values"], steps[below]["values"])
        assert report[name]["values"] == pytest.approx(ratios) and report[name]["median"] > 0
    assert all(0 <= share < 1 for share in report["input_stall"]["values"]) and "torch" in str(report["environment"])


def test_the_ways_differ_in_what_they_are_for(squares: Path) -> None:
    bare, plain, held = (loop(squares, way) for way in (BARE, PLAIN, SYNTHETIC))
    batches = {name: [next(one.batches) for _ in range(2)] for name, one in (("bare", bare), ("plain", plain))}
    shares = {
        name: torch.cat([(b["image"] == 0).all(1) for b in some]).float().mean() for name, some in batches.items()
    }
    assert 0.3 < shares["bare"] < 0.7 and shares["plain"] == 0  # 16 images of 16 cells: standard deviation .03
    assert torch.equal(batches["bare"][0]["id"], batches["plain"][0]["id"])
    visible = batches["bare"][0]["image"] != 0
    assert torch.equal(batches["bare"][0]["image"][visible], batches["plain"][0]["image"][visible])
    assert next(held.batches) is next(held.batches)
    states = [one.model.state_dict() for one in (bare, plain, held)]
    assert all(torch.equal(states[0][name], state[name]) for state in states for name in state)
    assert bare.turn(2) > 0
    assert not torch.equal(states[0]["classifier.weight"], held.model.state_dict()["classifier.weight"])


@pytest.mark.parametrize("words", [["--hide.method", "pixel-dropout", "--hide.patch_sizes", "null"],
                                   ["--hide.method", "random-erasing", "--hide.p_hide", "1"]])  # fmt: skip
def test_the_bare_loop_hides_on_batches_too_and_keeps_a_held_batch_whole(
    squares: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = loop(squares, SYNTHETIC, *words)
    before, seen = next(held.batches)["image"].clone(), []
    held.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    held.turn(1)
    assert torch.equal(next(held.batches)["image"], before)
    assert all((images == 0).any() for images in seen) and torch.equal(seen[0], seen[-1])


def test_conv1_hides_by_sample_as_in_training(squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = loop(squares, BARE, "--hide.method", "conv1", "--hide.patch_sizes", "[2]")
    given = []
    one.model.hide_conv1.register_forward_pre_hook(lambda module, inputs: given.append(inputs[1]))
    one.turn(1)
    assert all(len(ids) == 8 for ids in given) and loop(squares, PLAIN, "--hide.method", "conv1", "--hide.patch_sizes",
                                                        "[2]").model.hide_conv1 is None  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["localisation", "--recipe", "small", "--rounds", "0"], "--rounds 0: expected a whole number from 1"),
        (["localisation", "--recipe", "small", "--steps"], "--steps: expected a whole number from 1"),
        (["localisation", "--recipe", "small"], "--data DIR is missing"),
        (["--recipe", "small"], "TASK is missing"),
        (["localisation", "--recipe", "small", "--data", "nowhere"], "no such folder"),
        (["lokalisation", "--recipe", "small"], "task 'lokalisation' is unknown"),
    ],
)
def test_bad_words(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "train", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) <= 2


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, code in ((["bench", "train"], 2), (["bench", "train", "--help"], 0), (["bench", "train", "x", "-h"], 0)):
        assert main(argv) == code
        assert capsys.readouterr().out.startswith("usage: has-dali bench train TASK")
