"""The scope ``train``: its options, and what its figures mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from has_dali.bench.results import Result
from has_dali.bench.scopes import train
from has_dali.bench.timing import Summary
from has_dali.bench.train_step import BARE, PLAIN, SYNTHETIC, TRAINER, StepReport
from has_dali.console import Terminal


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A step of tiny images takes longest where many threads share it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _report() -> StepReport:
    steps = {TRAINER: (1.05, 1.08, 1.07), BARE: (1.0, 1.0, 1.0), PLAIN: (1.0, 0.99, 1.0), SYNTHETIC: (0.98, 0.95, 0.99)}
    summaries = {name: Summary(values) for name, values in steps.items()}
    return StepReport(summaries, {BARE: [1.0, 1.0, 1.1]}, Summary((0.001, 0.002, 0.003)), 16)


def test_what_the_figures_mean() -> None:
    report = _report()
    assert train.stall(report).values == pytest.approx((0.02, 0.05, 0.01))
    assert train.cost(report, BARE, PLAIN).values == pytest.approx((0, 1 / 0.99 - 1, 0))
    bars = {bar.what.partition(": ")[2]: bar for bar in train.report_bars(report, "net")}
    assert "input stall" not in bars or torch.cuda.is_available()
    assert bars["share of the time that the trainer waits for batches"].met is True
    assert bars["cost of hiding"].met is True
    assert bars["cost of the trainer"].met is False


def test_bars_carry_their_interval_and_say_whether_it_decides() -> None:
    bars = {bar.what.partition(": ")[2]: bar for bar in train.report_bars(_report(), "net")}
    dear = bars["cost of the trainer"]  # 5, 8 and 7 %: mean 6.7 %, half width 3.8 %, so 3 % lies below it by little
    assert dear.interval is not None and dear.interval.mean == pytest.approx(0.2 / 3)
    assert dear.interval.low == pytest.approx(0.2 / 3 - 4.3027 * 0.015275 / 3**0.5, abs=1e-4)
    assert dear.resolved is False and "95 % CI" in dear.note
    assert train.percent(Summary((0.02,))) == "+2.0% (one round: no confidence interval)"


def test_a_folder_of_classes(tmp_path: Path, assert_valid: Callable[[Result], None]) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "photographs" / f"class_{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number}.jpg")
    words = [str(tmp_path / "photographs"), "--networks", "resnet18", "--batch", "4", "--size", "32"]
    options = train.parse([*words, "--rounds", "2", "--steps", "1", "--quiet"])
    assert (options.rounds, options.steps, options.quiet, options.quick) == (2, 1, True, False)
    result = train.run(options, Terminal(quiet=True))
    (table,) = result.tables
    assert result.data is not None and result.data["images"] == 12 and result.data["name"] == "photographs"
    assert [row.key for row in table.rows] == [TRAINER, BARE, PLAIN, SYNTHETIC] and table.baseline == BARE
    assert all(row.status == "measured" and row.value is not None and len(row.value.values) == 2 for row in table.rows)
    assert len(result.bars) == 3 and "input stall" in table.note
    assert [row.kind for row in table.rows] == ["ours", "ours", "ours", "bound"]
    assert_valid(result)


def test_a_recipe_on_data_of_its_own(tmp_path: Path, assert_valid: Callable[[Result], None]) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        images = rng.integers(0, 256, (count, 20, 20, 3), np.uint8)
        boxes = np.tile(np.int64([2, 2, 12, 12]), (count, 1))
        np.savez(tmp_path / f"{part}.npz", images=images, labels=np.arange(count) % 2, boxes=boxes)
    words = ["localisation", "--recipe", "small", "--data", str(tmp_path), "--rounds", "1", "--steps", "1", "--quiet"]
    words += ["--loader.size", "16", "--loader.resize", "18", "--loader.batch_size", "4", "--loader.held_out", "0"]
    words += ["--model.width", "0.25", "--trainer.precision", "32-true", "--hide.patch_sizes", "[4]"]
    words += ["--loader.threads", "1"]
    result = train.run(train.parse(words), Terminal(quiet=True))
    assert result.data is not None and result.data["images"] == 12 and result.data["name"] == tmp_path.name
    assert len(str(result.data["fingerprint"])) == 16
    assert all(bar.interval is None and "one round" in bar.note for bar in result.bars)
    assert_valid(result)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["localisation", "--recipe", "small", "--rounds", "0"], "--rounds 0: expected a whole number from 1"),
        (["localisation", "--recipe", "small", "--steps"], "--steps: expected a whole number from 1"),
        (["localisation", "--recipe", "small"], "--data DIR is missing"),
        (["--recipe", "small"], "TASK is missing"),
        (["lokalisation", "--recipe", "small"], "task 'lokalisation' is unknown"),
        (["one", "two"], "two: expected at most one DATA"),
        (["--size", "large"], "--size large: expected a whole number"),
    ],
)
def test_bad_words(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train.parse(words)


def test_missing_data(tmp_path: Path) -> None:
    options = train.parse([str(tmp_path / "nowhere"), "--networks", "resnet18"])
    with pytest.raises(OSError, match="no such folder"):
        train.run(options, Terminal(quiet=True))


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.parse(["x", "-h"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith("usage: has-dali bench train")
