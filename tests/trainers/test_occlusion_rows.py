"""Occlusion end to end with models whose answers are known: predictions per condition, and the paired rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from has_dali.console import Terminal
from has_dali.trainers.metrics.paired import bootstrap_interval
from has_dali.trainers.occlusion.paired import Outcomes, evaluate, paired_rows, tables


def _bright(images: torch.Tensor) -> torch.Tensor:
    """Class 1 if any pixel is above 0, else class 0."""
    return torch.stack([torch.full((len(images),), 0.5), (images.amax((1, 2, 3)) > 0).float()], 1)


def _always_one(images: torch.Tensor) -> torch.Tensor:
    return torch.tensor([[0.0, 1.0]]).expand(len(images), 2)


def _batches() -> list[tuple[torch.Tensor, np.ndarray, np.ndarray, np.ndarray]]:
    """Four images with an object of ones in a box; class 1."""
    images = torch.zeros(4, 3, 16, 16)
    images[:, :, 4:12, 4:12] = 1.0
    boxes = np.tile([4, 4, 11, 11], (4, 1))
    ids = np.arange(4)
    ones = np.ones(4, np.int64)
    return [(images[:3], boxes[:3], ones[:3], ids[:3]), (images[3:], boxes[3:], ones[3:], ids[3:])]


def test_models_see_the_covered_images() -> None:
    conditions = [("mean", 0.5), ("mean", 1.0)]
    outcomes = evaluate({"bright": _bright, "one": _always_one}, _batches(), conditions=conditions)
    assert list(outcomes.predicted) == [("none", 0.0), *conditions]
    assert outcomes.ids.tolist() == [0, 1, 2, 3]
    assert outcomes.predicted["none", 0.0]["bright"].tolist() == [1] * 4
    assert outcomes.predicted["mean", 0.5]["bright"].tolist() == [1] * 4  # half of the object is left
    assert outcomes.predicted["mean", 1.0]["bright"].tolist() == [0] * 4
    assert outcomes.predicted["mean", 1.0]["one"].tolist() == [1] * 4
    assert outcomes.covered["mean", 1.0].tolist() == [1.0] * 4 and outcomes.covered["none", 0.0].tolist() == [0.0] * 4


def test_rows_of_a_certain_difference() -> None:
    outcomes = evaluate({"bright": _bright, "one": _always_one}, _batches(), conditions=[("mean", 1.0)])
    whole, covered = paired_rows(outcomes)
    assert (whole.first_top1, whole.second_top1, whole.difference, whole.p_value) == (100, 100, 0, 1)
    assert (covered.first, covered.second, covered.first_top1, covered.second_top1) == ("bright", "one", 0, 100)
    assert (covered.only_first, covered.only_second, covered.interval) == (0, 4, (100, 100))
    assert covered.p_value == 0.125  # 2 / 2**4
    assert (covered.cover, covered.level, covered.covered, covered.images) == ("mean", 1.0, 100, 4)


def _outcomes(first: list[int], second: list[int], covered: list[float]) -> Outcomes:
    labels = np.ones(len(first), np.int64)
    predicted = {("mean", 0.5): {"a": np.array(first), "b": np.array(second)}}
    return Outcomes(np.arange(len(first)), labels, predicted, {("mean", 0.5): np.array(covered)})


def test_rows_by_hand() -> None:
    """Ten images: both right on 3, only a on 1, only b on 4, neither on 2."""
    first, second = [1] * 4 + [0] * 6, [1] * 3 + [0] + [1] * 4 + [0] * 2
    (row,) = paired_rows(_outcomes(first, second, [0.5] * 10), seed=5)
    assert (row.first_top1, row.second_top1, row.images, row.covered) == (40, 70, 10, 50)
    assert row.difference == pytest.approx(30)
    assert (row.only_first, row.only_second, row.p_value) == (1, 4, 0.375)
    assert row.interval == pytest.approx([100 * end for end in bootstrap_interval(first, second, seed=5)])


def test_images_that_show_nothing_of_their_box_do_not_count() -> None:
    (row,) = paired_rows(_outcomes([1, 0, 0], [1, 1, 0], [0.4, 0.6, np.nan]))
    assert (row.images, row.covered, row.first_top1, row.second_top1) == (2, 50, 50, 100)
    with pytest.raises(ValueError, match="boxes: none lies inside its image"):
        paired_rows(_outcomes([1], [1], [np.nan]))


def test_every_model_is_put_against_the_first() -> None:
    models = {"gap": _bright, "has-16": _always_one, "has-32": _always_one}
    rows = paired_rows(evaluate(models, _batches(), conditions=[]))
    assert [(row.first, row.second) for row in rows] == [("gap", "has-16"), ("gap", "has-32")]


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = evaluate({"bright": _bright, "one": _always_one}, _batches(), conditions=[("mean", 1.0)])
    ((title, columns, cells),) = tables(paired_rows(outcomes))
    assert title == "Top-1 under occlusion, 4 images: one against bright" and columns[2:4] == ("bright", "one")
    assert cells[1] == ["mean 100 %", "100 %", "0.0", "100.0", "+100.0", "+100.0 to +100.0", "0 : 4", "0.125"]
    Terminal().table(title, columns, cells)
    assert "mean 100 %" in capsys.readouterr().out


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="cover='none': expected one of"):
        evaluate({"one": _always_one}, _batches(), conditions=[("none", 0.5)])
    with pytest.raises(ValueError, match="batches: expected at least one, got none"):
        evaluate({"one": _always_one}, [])
    with pytest.raises(ValueError, match="models: expected at least two to compare, got one alone"):
        paired_rows(evaluate({"one": _always_one}, _batches(), conditions=[]))
