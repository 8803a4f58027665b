"""Overlap, scaling and fixed boxes against counts of pixels and the data set's own figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from has_dali.trainers.datasets import Boxes, open_boxed
from has_dali.trainers.metrics.boxes import (
    baselines,
    best_centre_box,
    best_iou,
    centre_box,
    fixed_accuracy,
    hits,
    iou,
    scale_boxes,
    whole_image,
)

SIDE = 12


@st.composite
def boxes(draw: st.DrawFn) -> list[int]:
    x0, x1 = sorted((draw(st.integers(0, SIDE - 1)), draw(st.integers(0, SIDE - 1))))
    y0, y1 = sorted((draw(st.integers(0, SIDE - 1)), draw(st.integers(0, SIDE - 1))))
    return [x0, y0, x1, y1]


def pixels(box: list[int]) -> set[tuple[int, int]]:
    return {(x, y) for x in range(box[0], box[2] + 1) for y in range(box[1], box[3] + 1)}


def test_overlap_by_hand() -> None:
    """2 x 2 and 2 x 2 that share one pixel: 1 of 7; one pixel wide boxes have an area; neighbours share nothing."""
    assert iou([0, 0, 1, 1], [1, 1, 2, 2]) == 1 / 7
    assert iou([3, 0, 3, 9], [3, 0, 3, 4]) == 0.5
    assert iou([0, 0, 1, 1], [2, 0, 3, 1]) == 0
    assert iou([5, 5, 5, 5], [5, 5, 5, 5]) == 1
    assert iou(np.zeros((3, 1, 4), int), np.zeros((1, 2, 4), int)).shape == (3, 2)


@given(boxes(), boxes())
def test_overlap_counts_pixels(a: list[int], b: list[int]) -> None:
    assert iou(a, b) == len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)) == iou(b, a)


def test_exactly_half_counts_unless_strict() -> None:
    for at, a, b in (
        (0.5, [0, 0, 9, 9], [0, 0, 9, 4]),
        (0.3, [0, 0, 9, 9], [0, 0, 9, 2]),
        (0.7, [0, 0, 9, 9], [0, 0, 6, 9]),
    ):
        assert hits(iou(a, b), at) and not hits(iou(a, b), at, strict=True)
        assert not hits(np.nextafter(iou(a, b), 0), at)


def test_any_true_box_counts() -> None:
    truth = Boxes.from_lists([[(0, 0, 1, 1)], [(0, 0, 9, 9), (4, 4, 5, 5), (0, 0, 0, 0)]], [(10, 10)] * 2)
    assert best_iou([[4, 4, 5, 5], [0, 0, 1, 1]], truth, [1, 0]).tolist() == [1, 1]
    assert best_iou([[4, 4, 5, 4]], truth, [1]).tolist() == [0.5]
    several = best_iou([[[0, 0, 9, 9], [4, 4, 5, 5], [9, 9, 9, 9]]], truth, [1])
    assert several.tolist() == [[1, 1, 0.01]]
    assert best_iou(np.zeros((0, 4), int), truth, []).shape == (0,)


def test_scaling_by_hand() -> None:
    assert scale_boxes([0, 0, 63, 63], (64, 64), (224, 112)).tolist() == [0, 0, 111, 223]
    assert scale_boxes([2, 3, 5, 4], (10, 10), (20, 20)).tolist() == [4, 6, 11, 9]
    assert scale_boxes([[4, 6, 11, 9]], (20, 20), (10, 10)).tolist() == [[2, 3, 5, 4]]
    assert scale_boxes([7, 7, 7, 7], (64, 64), (8, 8)).tolist() == [1, 1, 1, 1]  # one pixel remains
    # The evaluator's own case: 1 2 4 3 of an image 10 wide and 20 high at 35 x 10.
    assert scale_boxes([1, 2, 4, 3], (20, 10), (10, 35), "truncate").tolist() == [3, 1, 14, 1]
    each = scale_boxes([[0, 0, 9, 9], [0, 0, 9, 9]], [(10, 10), (20, 20)], (40, 40))
    assert each.tolist() == [[0, 0, 39, 39], [0, 0, 19, 19]]


@given(boxes(), st.integers(1, 40), st.integers(1, 40))
def test_scaled_boxes_stay_inside(box: list[int], height: int, width: int) -> None:
    x0, y0, x1, y1 = scale_boxes(box, (SIDE, SIDE), (height, width)).tolist()
    assert 0 <= x0 <= x1 < width and 0 <= y0 <= y1 < height
    assert scale_boxes(box, (SIDE, SIDE), (SIDE, SIDE)).tolist() == box
    assert scale_boxes([0, 0, SIDE - 1, SIDE - 1], (SIDE, SIDE), (height, width)).tolist() == [
        0,
        0,
        width - 1,
        height - 1,
    ]


def test_fixed_boxes() -> None:
    assert whole_image([(48, 64)]).tolist() == [[0, 0, 63, 47]]
    assert centre_box([(64, 64)]).tolist() == [[8, 8, 55, 55]]
    assert centre_box([(5, 3)], 0.01).tolist() == [[1, 2, 1, 2]]  # the middle pixel
    assert centre_box([(4, 4)], 0.01).tolist() == [[1, 1, 2, 2]]
    for share in (0, 1.01):
        with pytest.raises(ValueError, match="share="):
            centre_box([(4, 4)], share)


def test_best_centre_box() -> None:
    """Three boxes of margin 16 and one full frame: margin 16 is right three times of four."""
    truth = Boxes.from_lists([[(16, 16, 47, 47)]] * 3 + [[(0, 0, 63, 63)]], [(64, 64)] * 4)
    best = best_centre_box(truth, at=0.99)
    assert best.share == 0.5 and best.accuracy == 75
    assert fixed_accuracy(whole_image(truth.sizes), truth) == 25


def test_figures_of_the_real_set(data_root: Path) -> None:
    images = open_boxed(data_root / "tiny-imagenet-20")
    assert images.train_boxes is not None
    found = baselines(images.val_boxes, train=images.train_boxes)
    expected = {"whole image": 50.1, "centre box 0.75": 56.1, "centre box chosen on train": 56.1}
    assert {name: round(value, 1) for name, value in found.items()} == expected
    best = best_centre_box(images.train_boxes)
    assert 64 * (1 - best.share) / 2 == 8 and round(best.accuracy, 1) == 57.0
    assert round(fixed_accuracy(whole_image(images.train_boxes.sizes), images.train_boxes), 1) == 51.5
