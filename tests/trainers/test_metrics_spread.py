"""Shares of maps and boxes counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from has_dali.trainers.datasets.boxes import Boxes
from has_dali.trainers.metrics.spread import MapSpread

# On pictures of 4 x 5: a box of 2 x 3 pixels; and two boxes that overlap in one pixel, 7 in all.
TRUTH = Boxes.from_lists([[(1, 0, 3, 1)], [(0, 0, 1, 1), (1, 1, 4, 1)]], [(4, 5), (4, 5)])


def picture(*strong: tuple[int, int]) -> np.ndarray:
    """A map of .5 (not strong: half of the maximum), with 1 at the given (row, column)."""
    values = np.full((4, 5), 0.5, np.float32)
    for row, column in strong:
        values[row, column] = 1
    return values


def test_by_hand() -> None:
    spread = MapSpread(TRUTH)
    assert spread.measure(0, picture((0, 1), (1, 2), (3, 4))) == pytest.approx((3 / 20, 2 / 3, 2 / 6))
    assert spread.measure(1, picture((0, 0), (1, 1), (1, 4), (2, 2))) == pytest.approx((4 / 20, 3 / 4, 3 / 7))
    spread.update([0, 1, -1], [(0.1, 0.2, 0.3), (0.3, 0.4, 0.9), (9, 9, 9)])
    assert spread.compute() == pytest.approx({"map_area": 20, "map_inside_box": 30, "box_under_map": 60})


def test_maps_without_a_maximum() -> None:
    spread = MapSpread(TRUTH)
    for values in (np.zeros((4, 5)), np.full((4, 5), -1.0), np.full((4, 5), np.nan)):
        assert spread.measure(0, values.astype(np.float32)) == (0, 0, 0)
    assert spread.measure(0, np.full((4, 5), 2, np.float32)) == pytest.approx((1, 6 / 20, 1))


def test_ranks_are_put_together() -> None:
    whole, first, second = MapSpread(TRUTH), MapSpread(TRUTH), MapSpread(TRUTH)
    rows = [(0.1, 0.2, 0.3), (0.5, 0.4, 0.1)]
    whole.update([0, 1], rows)
    first.update([1], rows[1:])
    second.update([0], rows[:1])
    first.merge(second.state())
    assert first.compute() == pytest.approx(whole.compute())
