"""Timing a training step: what is measured, on which networks and batches, and the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from has_dali.bench import train_step
from has_dali.bench.train_step import BARE, PLAIN, SYNTHETIC, TRAINER
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


def test_the_report(squares: Path) -> None:
    report = train_step.measure(options(), squares, rounds=2, steps=3)
    assert report.batch_size == 8 and list(report.steps) == [TRAINER, BARE, PLAIN, SYNTHETIC]
    for summary in report.steps.values():
        assert len(summary.values) == 2 and min(summary.values) > 0
    assert {name: len(seconds) for name, seconds in report.durations.items()} == {BARE: 6, PLAIN: 6, SYNTHETIC: 6}
    for name, seconds in report.durations.items():  # turns of three steps, round by round
        assert [sum(seconds[:3]) / 3, sum(seconds[3:]) / 3] == pytest.approx(report.steps[name].values, rel=0.05)
    assert all(0 <= share < 1 for share in report.input_stall.values)


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
