"""GT-known and Top-1 Loc counted by hand, the curve, the choice of a threshold, and ranks put together."""

from __future__ import annotations

import numpy as np
import pytest

from has_dali.trainers.datasets import Boxes
from has_dali.trainers.metrics.localisation import THRESHOLDS, Localisation
from has_dali.trainers.metrics.samples import SampleTable

# Four images of 10 x 10 pixels; the third has two true boxes.
TRUTH = Boxes.from_lists([[(0, 0, 9, 9)], [(0, 0, 9, 9)], [(0, 0, 1, 1), (5, 5, 9, 9)], [(0, 0, 4, 4)]], [(10, 10)] * 4)
LABELS = [0, 1, 2, 3]
# Most likely first: right, right, wrong but among five, wrong altogether.
RANKED = [[0, 9, 8, 7, 6], [1, 9, 8, 7, 6], [9, 8, 7, 6, 2], [9, 8, 7, 6, 5]]
# Overlaps of the true class's boxes: .5 exactly, .3 exactly, 1 with the second box, 0.
TRUE = [[0, 0, 9, 4], [0, 0, 9, 2], [5, 5, 9, 9], [5, 5, 9, 9]]
# Of the predicted class's boxes: the same where the class is right; then 1 and 1, of the wrong classes.
PREDICTED = [[0, 0, 9, 4], [0, 0, 9, 2], [0, 0, 1, 1], [0, 0, 4, 4]]


def filled(**options: object) -> Localisation:
    meter = Localisation(TRUTH, LABELS, **options)  # type: ignore[arg-type]
    meter.update([0, 1, 2, 3], RANKED, PREDICTED, TRUE)
    return meter


def test_counted_by_hand() -> None:
    expected = {
        "top1": 50, "top5": 75,
        "gt_known@0.3": 75, "gt_known@0.5": 50, "gt_known@0.7": 25, "gt_known": 50,
        "top1_loc@0.3": 50, "top1_loc@0.5": 25, "top1_loc@0.7": 0, "top1_loc": 25,
    }  # fmt: skip
    assert filled().compute() == expected


def test_strictly_more() -> None:
    found = filled(strict=True).compute()
    assert (found["gt_known@0.3"], found["gt_known@0.5"], found["gt_known@0.7"]) == (50, 25, 25)
    assert (found["top1_loc@0.3"], found["top1_loc@0.5"]) == (25, 0)


def test_blacklist_leaves_the_denominator() -> None:
    meter = filled(blacklist=[1, 3])
    assert meter.compute()["gt_known"] == 50
    found = meter.compute(use_blacklist=True)
    assert (found["top1"], found["gt_known"], found["gt_known@0.7"], found["top1_loc"]) == (50, 100, 50, 50)


def test_results_per_image() -> None:
    state = filled().state()
    assert state["id"].tolist() == [0, 1, 2, 3] and state["predicted"].tolist() == [0, 1, 9, 9]
    assert state["iou_true"].tolist() == [0.5, 0.3, 1, 0] and state["iou_predicted"].tolist() == [0.5, 0.3, 1, 1]
    assert state["top1"].tolist() == [True, True, False, False]
    assert state["top5"].tolist() == [True, True, True, False]
    assert state["box_true"].tolist() == TRUE and state["box_predicted"].tolist() == PREDICTED


def test_the_sixth_class_is_not_among_five() -> None:
    meter = Localisation(TRUTH, LABELS)
    meter.update([0, 1], [[9, 8, 7, 6, 5, 0], [9, 8, 7, 6, 1, 5]], PREDICTED[:2], TRUE[:2])
    assert meter.compute()["top5"] == 50


def test_without_five_classes_there_is_no_top5() -> None:
    meter = Localisation(TRUTH, LABELS)
    meter.update([0], [[0]], [TRUE[0]], [TRUE[0]])
    assert "top5" not in meter.compute() and meter.compute()["top1"] == 100


def test_curve_and_best_threshold() -> None:
    """Rows are images, columns thresholds .1 .2 .3 .4: right at .2 and .3, at .3, at .3 and .4, never."""
    right, wrong = [0, 0, 9, 9], [9, 9, 9, 9]
    third, none = [5, 5, 9, 9], [3, 3, 3, 3]
    curve = [
        [wrong, right, right, wrong],
        [wrong, wrong, right, wrong],
        [none, none, third, third],
        [none, none, none, none],
    ]
    meter = Localisation(TRUTH, LABELS, thresholds=(0.1, 0.2, 0.3, 0.4))
    meter.update([0, 1, 2, 3], RANKED, PREDICTED, TRUE, curve)
    assert meter.curve()["gt_known"] == [(0.1, 0), (0.2, 25), (0.3, 75), (0.4, 25)]
    assert meter.curve()["top1_loc"] == [(0.1, 0), (0.2, 25), (0.3, 50), (0.4, 0)]
    assert meter.best_threshold() == 0.3
    flat = Localisation(TRUTH, LABELS, thresholds=(0.1, 0.2))
    flat.update([0], [[0]], [right], [right], [[right, right]])
    assert flat.best_threshold() == 0.1
    assert len(THRESHOLDS) == 19 and THRESHOLDS[0] == 0.05 and THRESHOLDS[-1] == 0.95


def test_ranks_put_together() -> None:
    """Any dealing out, padding and repeats give the same result and the same state."""
    whole = filled()
    first, second = Localisation(TRUTH, LABELS), Localisation(TRUTH, LABELS)
    first.update([3, -1], [RANKED[3], RANKED[0]], [PREDICTED[3], [0, 0, 0, 0]], [TRUE[3], [0, 0, 0, 0]])
    first.update([1], [RANKED[1]], [PREDICTED[1]], [TRUE[1]])
    second.update([2, 0, 1], *[[rows[i] for i in (2, 0, 1)] for rows in (RANKED, PREDICTED, TRUE)])
    first.merge(second.state())
    assert first.compute() == whole.compute()
    for name, values in whole.state().items():
        assert np.array_equal(values, first.state()[name]), name


def test_a_rank_without_images() -> None:
    meter = filled()
    meter.merge(Localisation(TRUTH, LABELS).state())
    assert meter.compute() == filled().compute()
    empty = Localisation(TRUTH, LABELS)
    empty.merge(meter.state())
    assert empty.compute() == meter.compute()
    only_padding = Localisation(TRUTH, LABELS)
    only_padding.update([-1], [[0]], [[0, 0, 0, 0]], [[0, 0, 0, 0]])
    with pytest.raises(ValueError, match="no images were taken in"):
        only_padding.compute()


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="labels: expected 4"):
        Localisation(TRUTH, [0, 1])
    meter = Localisation(TRUTH, LABELS)
    with pytest.raises(ValueError, match="sample 4 has no true box"):
        meter.update([4], [[0]], [[0, 0, 0, 0]], [[0, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"ranked: expected \(1, k\)"):
        meter.update([0], [0], [[0, 0, 0, 0]], [[0, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"curve_boxes: expected \(1, 19, 4\)"):
        meter.update([0], [[0]], [[0, 0, 0, 0]], [[0, 0, 0, 0]], [[[0, 0, 0, 0]]])
    with pytest.raises(ValueError, match="call update first"):
        meter.compute()
    meter.update([0], [[0]], [[0, 0, 0, 0]], [[0, 0, 0, 0]])
    with pytest.raises(ValueError, match="no curve_boxes were given"):
        meter.curve()


def test_table_drops_padding_and_repeats() -> None:
    table = SampleTable()
    assert table.state() == {}
    table.add([7, -1, 2], {"a": [70, 99, 20]})
    table.add([2, 5, -1], {"a": [21, 50, 98]})
    assert {name: values.tolist() for name, values in table.state().items()} == {"id": [2, 5, 7], "a": [20, 50, 70]}


def test_table_refuses_columns_that_change() -> None:
    table = SampleTable()
    table.add([0], {"a": [1]})
    with pytest.raises(ValueError, match="differ from those of earlier batches"):
        table.add([1], {"b": [1]})
    with pytest.raises(ValueError, match="a: expected 2 rows"):
        table.add([1, 2], {"a": [1]})
