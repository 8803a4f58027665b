"""Boxes of maps drawn by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from has_dali.trainers.metrics.cam_boxes import cam_dt_box, cam_dt_boxes, component_boxes, largest_component_boxes

# Digits are tenths of the maximum.
TWO_PARTS = """
0000000000
0990000000
0990000660
0003000660
0000000660
0000000000
"""
CORNERS = """
90000
09000
00900
00066
"""


def drawn(text: str) -> np.ndarray:
    return np.array([[int(digit) for digit in row] for row in text.split()], np.float32) / 9


def test_largest_part_at_each_threshold() -> None:
    """Above .2: the 2 x 2 block with the 3 at its corner has 5 pixels, the other 6; above .7 only the first is left."""
    boxes = largest_component_boxes(drawn(TWO_PARTS), [0.2, 0.5, 0.7, 0.99])
    assert boxes.tolist() == [[7, 2, 8, 4], [7, 2, 8, 4], [1, 1, 2, 2], [1, 1, 2, 2]]
    assert boxes.dtype == np.int64


def test_pixels_that_touch_at_a_corner_are_connected() -> None:
    assert largest_component_boxes(drawn(CORNERS), [0.2]).tolist() == [[0, 0, 4, 3]]
    assert largest_component_boxes(drawn(CORNERS), [0.7]).tolist() == [[0, 0, 2, 2]]


def test_foreground_is_strictly_above() -> None:
    """Values are exact in binary: .25 of the maximum is not above .25 of it."""
    picture = np.array([[0, 0.25, 1, 0.5]], np.float32) * 8
    assert largest_component_boxes(picture, [0.24, 0.25, 0.5]).tolist() == [[1, 0, 3, 0], [2, 0, 3, 0], [2, 0, 2, 0]]


def test_of_equal_parts_the_upper_then_the_left_one() -> None:
    assert largest_component_boxes(drawn("00099\n99000"), [0.5]).tolist() == [[3, 0, 4, 0]]
    assert largest_component_boxes(drawn("000099\n990000"), [0.5]).tolist() == [[4, 0, 5, 0]]
    assert largest_component_boxes(drawn("990099"), [0.5]).tolist() == [[0, 0, 1, 0]]


def test_maps_that_localise_nothing() -> None:
    for picture in (np.zeros((3, 4)), np.full((3, 4), -1.0), np.array([[1, np.nan]]), np.array([[1, np.inf]])):
        assert largest_component_boxes(picture.astype(np.float32), [0.2, 0.9]).tolist() == [[0, 0, 0, 0]] * 2
        assert cam_dt_boxes(picture.astype(np.float32)).tolist() == [[0, 0, 0, 0]]
    assert largest_component_boxes(np.ones((3, 4), np.float32), [0.2]).tolist() == [[0, 0, 3, 2]]
    assert largest_component_boxes(np.ones((3, 4), np.float32), [1.0]).tolist() == [[0, 0, 0, 0]]
    assert component_boxes([], [0.2]).shape == (0, 1, 4)
    assert component_boxes([drawn(CORNERS), drawn(TWO_PARTS)], [0.2, 0.7]).shape == (2, 2, 4)


def flood(foreground: np.ndarray) -> list[list[tuple[int, int]]]:
    """Parts by a plain flood fill."""
    left = {(int(y), int(x)) for y, x in np.argwhere(foreground)}
    parts = []
    while left:
        part, queue = [], [left.pop()]
        while queue:
            y, x = queue.pop()
            part.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            queue += near
        parts.append(part)
    return parts


@settings(max_examples=150, deadline=None)
@given(arrays(np.float32, (7, 9), elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1]).map(np.float32)))
def test_box_is_that_of_a_flood_fill(picture: np.ndarray) -> None:
    thresholds = [0.0, 0.1, 0.3, 0.5, 0.9]
    for threshold, box in zip(thresholds, largest_component_boxes(picture, thresholds).tolist(), strict=True):
        parts = flood(picture > threshold * picture.max())
        if not parts:
            assert box == [0, 0, 0, 0]
            continue
        tight = [
            (
                -len(part),
                min(y for y, _ in part),
                min(x for _, x in part),
                max(x for _, x in part),
                max(y for y, _ in part),
            )
            for part in parts
        ]
        _, y0, x0, x1, y1 = min(tight, key=lambda part: part[:3])
        assert box == [x0, y0, x1, y1]


def block(height: int, width: int, *parts: tuple[int, int, int, int, float]) -> np.ndarray:
    picture = np.zeros((height, width), np.float32)
    for x0, y0, x1, y1, value in parts:
        picture[y0 : y1 + 1, x0 : x1 + 1] = value
    return picture


def test_released_tool_on_one_square() -> None:
    """A 9 x 9 square, the same at all three levels. The innermost pixel is 5 from the background and the outermost ring
    1, which is 51 of 255: nothing is cut. Far ends are one past the last pixel. Of three equal boxes the second is
    dropped, and the third, which would be compared next, is skipped.
    """
    assert cam_dt_boxes(block(40, 40, (10, 12, 18, 20, 1))).tolist() == [[10, 12, 19, 21]] * 2


def test_released_tool_drops_the_outermost_ring_of_a_large_part() -> None:
    """61 x 61: the innermost pixel is 31 away, a ring at distance 1 has 255 / 31 = 8.2, not above 10."""
    assert cam_dt_box(block(100, 100, (10, 10, 70, 70, 1))).tolist() == [11, 11, 70, 70]


def test_released_tool_ranks_the_boxes_of_all_levels() -> None:
    """A faint large square (above 20 of 255) around a bright small one (above 100 and 110): the larger comes first. The
    small one shares less than half of the larger's area, so it stays, and drops its own double.
    """
    picture = block(60, 60, (5, 5, 34, 34, 0.2), (10, 10, 19, 19, 1))
    assert cam_dt_boxes(picture).tolist() == [[5, 5, 35, 35], [10, 10, 20, 20]]
    # 28 x 28 of 30 x 30 is more than half: one is dropped, the second skipped.
    picture = block(60, 60, (5, 5, 34, 34, 0.2), (6, 6, 33, 33, 1))
    assert cam_dt_boxes(picture).tolist() == [[5, 5, 35, 35], [6, 6, 34, 34]]
    assert cam_dt_boxes(picture, levels=(20, 100)).tolist() == [[5, 5, 35, 35]]
    half = block(60, 60, (5, 5, 34, 34, 0.2), (5, 5, 34, 19, 1))  # exactly half is not more than half
    assert cam_dt_boxes(half, levels=(20, 100)).tolist() == [[5, 5, 35, 35], [5, 5, 35, 20]]


def test_released_tool_keeps_off_the_far_borders() -> None:
    """A part that fills a 30 x 20 picture: with no background there is no rim, and the box ends 5 before the end."""
    assert cam_dt_box(np.ones((20, 30), np.float32)).tolist() == [0, 0, 25, 15]
    assert cam_dt_box(np.ones((20, 30), np.float32), rim=0).tolist() == [0, 0, 30, 20]
    assert cam_dt_box(np.ones((3, 3), np.float32)).tolist() == [0, 0, 0, 0]  # smaller than the rim
