"""MaxBoxAcc and PxAP on maps drawn by hand, and against a plain loop over every threshold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from has_dali.trainers.datasets import Boxes
from has_dali.trainers.metrics.boxes import iou
from has_dali.trainers.metrics.pxap import PxAP, centre_map
from has_dali.trainers.metrics.wsol import MaxBoxAcc, min_max, outline_boxes, over_max, overlaps, thresholds


def test_scaling_of_maps() -> None:
    maps = [[[-2, 0, 2]], [[3, 3, 3]], [[0, np.nan, 1]], [[0, np.inf, 1]], [[-1, -3, -2]]]
    assert min_max(maps)[:, 0].tolist() == [[0, 0.5, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0.5]]
    assert over_max(maps)[:, 0].tolist() == [[0, 0, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_thresholds() -> None:
    assert len(thresholds()) == 1000 and thresholds()[-1] == pytest.approx(0.999)
    assert len(thresholds(0.01)) == 100 and thresholds(0.25).tolist() == [0, 0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match="step=0"):
        thresholds(0)


def test_outlines_by_hand() -> None:
    """A ring of 5 x 5 with a hole of 3 x 3 is two outlines; the hole's rectangle goes along the pixels around it, which
    are the ring itself. A block of 2 x 3 in the corner: far ends are one past the last pixel, but in the picture.
    """
    grey = np.zeros((8, 12), np.uint8)
    grey[1:6, 1:6] = 200
    grey[2:5, 2:5] = 0
    grey[6:8, 9:12] = 100
    boxes, largest = outline_boxes(grey, 99)
    assert sorted(boxes) == [(1, 1, 6, 6), (1, 1, 6, 6), (9, 6, 11, 7)] and boxes[largest] == (1, 1, 6, 6)
    assert outline_boxes(grey, 100)[0] == [(1, 1, 6, 6)] * 2  # strictly above
    assert outline_boxes(grey, 200) == ([(0, 0, 0, 0)], 0)


# Three images of 8 x 8. Digits are eighths of the maximum.
MAPS = np.array(
    [
        [[8 if 1 <= x <= 4 and 1 <= y <= 4 else 0 for x in range(8)] for y in range(8)],
        [[8 if x < 2 and y < 2 else 4 if x >= 4 and y >= 4 else 0 for x in range(8)] for y in range(8)],
        [[0] * 8] * 8,
    ],
    np.float32,
)
# True boxes at 16 x 16 pixels; they are halved and truncated.
TRUTH = Boxes.from_lists([[(2, 2, 11, 11)], [(0, 0, 5, 5)], [(0, 0, 1, 1)]], [(16, 16)] * 3)


def test_max_box_acc_by_hand() -> None:
    """Image 0: the box 1 1 5 5 is the true one at every threshold. Image 1: below 1/2 of the maximum the larger block
    4 4 7 7 misses the true box 0 0 2 2; from there on the small block is all there is and hits; V2, which may choose,
    always hits. Image 2: a constant map gives the box 0 0 0 0, the true one.
    """
    meter = MaxBoxAcc(TRUTH, [5, 6, 7], step=0.25)
    meter.update([0, 1, 2], MAPS, [5, 6, 0])
    third = pytest.approx(100 / 3)
    found = meter.compute()
    assert found["max_box_acc"] == 100 and found["max_box_acc_tau"] == 0.5
    assert found["max_box_acc_v2"] == 100
    assert found["top1_max_box_acc"] == pytest.approx(200 / 3)
    assert found["cam_box_acc"] == pytest.approx(200 / 3)  # at .2 image 1 misses
    assert found["top1_cam_box_acc"] == third
    below, at_half = pytest.approx(200 / 3), pytest.approx(100)
    assert [value for _, value in meter.curve()] == [below, below, at_half, at_half]
    assert [tau for tau, _ in meter.curve()] == [0, 0.25, 0.5, 0.75]


def test_overlaps_at_three_levels() -> None:
    """The true box grows, so that overlap falls to 25/64: right at .3, wrong at .5 and .7; V2 is the mean."""
    truth = Boxes.from_lists([[(0, 0, 7, 7)]], [(8, 8)])
    meter = MaxBoxAcc(truth, [0], step=0.5)
    meter.update([0], MAPS[:1], [0])
    found = meter.compute()
    assert [found[f"max_box_acc_v2@{at}"] for at in (0.3, 0.5, 0.7)] == [100, 0, 0]
    assert found["max_box_acc_v2"] == pytest.approx(100 / 3) and found["max_box_acc"] == 0


def test_exactly_half_counts() -> None:
    """The box 0 0 4 1 (one past the end in y too) is 10 pixels, half of the true 20."""
    picture = np.zeros((1, 4, 5), np.float32)
    picture[0, 0] = 1
    assert iou([0, 0, 4, 1], [0, 0, 4, 3]) == 0.5
    meter = MaxBoxAcc(Boxes.from_lists([[(0, 0, 4, 3)]], [(4, 5)]), [0], step=0.5)
    meter.update([0], picture, [0])
    assert meter.compute()["max_box_acc"] == 100


def slow(scores: np.ndarray, true: np.ndarray, taus: np.ndarray) -> np.ndarray:
    """Every threshold on its own."""
    grey = (scores * 255).astype(np.uint8)
    result = np.zeros((2, len(taus)))
    for column, tau in enumerate(taus):
        binary = (grey > int(tau * grey.max())).astype(np.uint8)
        contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        boxes = []
        for contour in contours:
            x, y = contour[..., 0], contour[..., 1]
            ends = min(x.max() + 1, grey.shape[1] - 1), min(y.max() + 1, grey.shape[0] - 1)
            boxes.append([x.min(), y.min(), *ends])
        largest = max(range(len(contours)), key=lambda row: cv2.contourArea(contours[row])) if contours else 0
        each = [max(float(iou(box, wanted)) for wanted in true) for box in boxes or [[0, 0, 0, 0]]]
        result[:, column] = each[largest], max(each)
    return result


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (9, 11), elements=st.floats(-1, 1, width=32)),
    st.sampled_from([0.001, 0.01, 0.3]),
)
def test_overlaps_are_those_of_every_threshold(raw: np.ndarray, step: float) -> None:
    true = np.array([[2, 3, 6, 7], [0, 0, 3, 2]])
    scores = min_max(raw[None])[0]
    taus = thresholds(step)
    levels, level_of = np.unique((taus * 255).astype(np.int64), return_inverse=True)
    assert np.array_equal(overlaps(scores, true, levels)[:, level_of], slow(scores, true, taus))


def test_ranks_put_together() -> None:
    whole = MaxBoxAcc(TRUTH, [5, 6, 7], step=0.01)
    whole.update([0, 1, 2], MAPS, [5, 6, 0])
    first, second = (MaxBoxAcc(TRUTH, [5, 6, 7], step=0.01) for _ in range(2))
    first.update([2, -1], MAPS[[2, 0]], [0, 0])
    second.update([1, 0], MAPS[[1, 0]], [6, 5])
    first.merge(second.state())
    assert first.compute() == whole.compute()
    with pytest.raises(ValueError, match="call update first"):
        MaxBoxAcc(TRUTH, [5, 6, 7]).compute()
    with pytest.raises(ValueError, match=r"0\.5 among them"):
        MaxBoxAcc(TRUTH, [5, 6, 7], ious=(0.3,))


def test_pxap_by_hand() -> None:
    """Scores 1, 3/4, 1/2, 1/4, 0 with object, background, object, not counted, background.

    From the top: precision 1 at recall 1/2, then 1/2 at 1/2, 2/3 at 1, 2/4 at 1: 1 * 1/2 + 2/3 * 1/2 = 5/6.
    """
    meter = PxAP(0.25)
    meter.update([0], [[[8, 6, 4, 2, 0]]], [[[1, 0, 1, 255, 0]]])
    assert meter.compute() == pytest.approx(100 * 5 / 6)


def test_pxap_of_perfect_and_constant_maps() -> None:
    mask = np.zeros((1, 4, 5), np.uint8)
    mask[0, 1:3, 1:4] = 1
    perfect = PxAP()
    perfect.update([0], mask.astype(np.float32), mask)
    assert perfect.compute() == 100
    constant = PxAP()
    constant.update([0], np.full((1, 4, 5), 7.0), mask)
    assert constant.compute() == pytest.approx(100 * 6 / 20)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from([0, 1, 255])), min_size=3, max_size=40))
def test_pxap_is_average_precision(pixels: list[tuple[int, int]]) -> None:
    """Scores are eighths, so thresholds of 1/8 part all of them: the usual average precision of the ranking."""
    values = [(8, 1), (0, 0), *pixels]
    score, mask = (np.array(column).reshape(1, 1, -1) for column in zip(*values, strict=True))
    meter = PxAP(0.125)
    meter.update([0], score.astype(np.float32), mask.astype(np.uint8))
    counted = sorted(((s, m) for s, m in values if m != 255), reverse=True)
    objects = sum(m for _, m in counted)
    expected, recall = 0.0, 0.0
    for level in range(8, -1, -1):
        above = [m for s, m in counted if s >= level]
        if above:
            expected += sum(above) / len(above) * (sum(above) / objects - recall)
            recall = sum(above) / objects
    assert meter.compute() == pytest.approx(100 * expected)


def test_pxap_over_ranks() -> None:
    generator = np.random.default_rng(0)
    maps, masks = generator.random((4, 5, 6)), generator.integers(0, 2, (4, 5, 6)).astype(np.uint8)
    whole, first, second = PxAP(), PxAP(), PxAP()
    whole.update(range(4), maps, masks)
    first.update([0, 1, -1], maps[:3], masks[:3])
    second.update([2, 3], maps[2:], masks[2:])
    first.merge(second.state())
    assert first.compute() == whole.compute() and first.state()["id"].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="image 2 was counted on two ranks"):
        first.merge(second.state())
    with pytest.raises(ValueError, match="no object pixel"):
        PxAP().compute()
    with pytest.raises(ValueError, match=r"masks: expected 0 \(background\)"):
        first.update([9], maps[:1], masks[:1] + 1)
    with pytest.raises(ValueError, match="masks: expected the maps' shape"):
        first.update([9], maps[:1], masks[:2])


def test_centre_map() -> None:
    """Of 2 x 4 pixels the rows are 1/2 from the centre, the columns 3/4 and 1/4."""
    near, far = np.hypot(0.5, 0.25), np.hypot(0.5, 0.75)
    assert centre_map((2, 4)) == pytest.approx(np.array([[0, 1 - near / far, 1 - near / far, 0]] * 2))
    odd = centre_map((3, 5))
    assert odd[1, 2] == 1 and odd[0, 0] == 0 and np.array_equal(odd, odd[::-1, ::-1])
