"""What covers images: shares, places, colours, and that nothing depends on the batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from has_dali import HideAndSeek
from has_dali.trainers.occlusion.paired import COVERS, LEVELS, cover_batch, cover_masks, texture

HEIGHT, WIDTH = 40, 56


@st.composite
def _boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    x0, y0 = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    return x0, y0, draw(st.integers(x0, WIDTH - 1)), draw(st.integers(y0, HEIGHT - 1))


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


@settings(max_examples=200, deadline=None)
@given(_boxes(), st.integers(-(2**63), 2**63 - 1), st.floats(0, 1), st.integers(0, 2**64 - 1))
def test_a_rectangle_inside_the_box_of_the_right_area(
    box: tuple[int, int, int, int], sample_id: int, level: float, seed: int
) -> None:
    (mask,) = cover_masks([box], [sample_id], HEIGHT, WIDTH, level=level, seed=seed)
    if level == 0:
        assert not mask.any()
        return
    y, x = np.nonzero(mask)
    rows, columns = y.max() - y.min() + 1, x.max() - x.min() + 1
    assert mask.sum() == rows * columns
    assert x.min() >= box[0] and x.max() <= box[2] and y.min() >= box[1] and y.max() <= box[3]
    # One side is rounded to whole pixels for the other: half a row or half a column off, and at least one pixel.
    assert abs(mask.sum() - level * _area(box)) <= max(rows, columns) / 2 + 1e-9 or mask.sum() == 1


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 8), st.integers(0, 8), st.integers(18, 47), st.integers(18, 31), st.integers(0, 10**6))
def test_higher_levels_cover_what_lower_ones_do(left: int, top: int, width: int, height: int, sample_id: int) -> None:
    """Up to rounding: an edge of the smaller rectangle is at most two pixels outside the larger one."""
    box = (left, top, left + width, top + height)
    edges = []
    for level in LEVELS:
        y, x = np.nonzero(cover_masks([box], [sample_id], HEIGHT, WIDTH, level=level)[0])
        edges.append((x.min(), y.min(), -x.max(), -y.max()))
    for small, large in itertools.pairwise(edges):
        assert all(b <= a + 2 for a, b in zip(small, large, strict=True))


def test_places_and_shapes_vary() -> None:
    box = (8, 4, 47, 35)
    masks = cover_masks([box] * 300, np.arange(300), HEIGHT, WIDTH, level=0.3)
    centres = np.array([[index.mean() for index in np.nonzero(mask)] for mask in masks])
    assert np.abs(centres.mean(0) - [19.5, 27.5]).max() < 1  # the box's centre
    heights = masks.any(2).sum(1) / 32
    assert heights.min() < 0.35 and heights.max() > 0.95  # from level to 1
    shares = np.stack([heights, masks.any(1).sum(1) / 40])
    assert abs(np.log(shares).mean(1) @ [1, -1]) < 0.1  # neither side is favoured


@pytest.mark.parametrize("cover", COVERS)
def test_pure_function_of_seed_and_sample(cover: str) -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(6, 3, HEIGHT, WIDTH)).astype(np.float32))
    boxes, ids = np.array([[4, 4, 40, 30], [0, 0, 55, 39]] * 3), np.array([5, -3, 2**40, 7, 8, 9])
    together, shares = cover_batch(images, boxes, ids, level=0.5, cover=cover, seed=3)
    for n in (5, 0, 3):
        alone, share = cover_batch(images[n : n + 1], boxes[n : n + 1], ids[n : n + 1], level=0.5, cover=cover, seed=3)
        assert torch.equal(alone[0], together[n]) and share[0] == shares[n]
    other, _ = cover_batch(images, boxes, ids, level=0.5, cover=cover, seed=4)
    assert not torch.equal(other, together)


@pytest.mark.parametrize("cover", COVERS)
def test_only_covered_pixels_change(cover: str) -> None:
    images = torch.full((2, 3, HEIGHT, WIDTH), 7.0)
    boxes = [[4, 4, 40, 30], [10, 0, 55, 20]]
    covered, shares = cover_batch(images, boxes, [1, 2], level=0.7, cover=cover)
    masks = cover_masks(boxes, [1, 2], HEIGHT, WIDTH, level=0.7, cover=cover)
    changed = (covered != 7).any(1).numpy()
    assert (changed == masks).all() and (images == 7).all()
    if cover != "texture":
        assert (covered.permute(0, 2, 3, 1)[torch.from_numpy(masks)] == 0).all()  # the mean colour
    areas = np.array([37 * 27, 46 * 21])
    assert np.allclose(shares, masks.sum((1, 2)) / areas)


def test_cells_are_those_of_the_policy_inside_the_box() -> None:
    boxes = np.array([[3, 5, 50, 36]] * 400)
    masks = cover_masks(boxes, np.arange(400), HEIGHT, WIDTH, level=0.3, cover="cells", seed=2, patch_size=6)
    expected = HideAndSeek(patch_sizes=(6,), p_hide=0.3, seed=2).mask(np.arange(400), 0, HEIGHT, WIDTH)
    expected[:, :5], expected[:, 37:], expected[:, :, :3], expected[:, :, 51:] = False, False, False, False
    assert (masks == expected).all()
    shares = masks.sum((1, 2)) / (48 * 32)
    assert abs(shares.mean() - 0.3) < 4 * shares.std() / 20


def test_cells_are_an_eighth_of_the_shorter_side_by_default() -> None:
    masks = [
        cover_masks([[0, 0, 55, 39]], [1], HEIGHT, WIDTH, level=0.5, cover="cells", patch_size=size)
        for size in (None, 5)
    ]
    assert (masks[0] == masks[1]).all()


def test_parts_of_a_box_outside_the_batch_do_not_count() -> None:
    images = torch.ones(3, 3, HEIGHT, WIDTH)
    boxes = [[-20, -20, 9, 9], [50, 30, 80, 90], [-30, -30, -2, -2]]
    covered, shares = cover_batch(images, boxes, [0, 1, 2], level=1.0)
    assert (covered[0, :, :10, :10] == 0).all() and covered[0].sum() == 3 * (HEIGHT * WIDTH - 100)
    assert (covered[1, :, 30:, 50:] == 0).all() and covered[1].sum() == 3 * (HEIGHT * WIDTH - 60)
    assert (covered[2] == 1).all()
    assert shares[0] == shares[1] == 1 and np.isnan(shares[2])


def test_texture_is_a_pattern_in_pixel_values() -> None:
    patterns = np.stack([texture(48, 64, 0, i) for i in range(20)])
    assert patterns.shape == (20, 48, 64, 3) and patterns.min() >= 0 and patterns.max() <= 255
    assert (patterns.std((1, 2)).max(-1) > 10).all()  # none is flat
    assert np.unique(patterns.mean((1, 2)), axis=0).shape == (20, 3)
    image = torch.zeros(1, 3, 48, 64)
    covered, _ = cover_batch(image, [[0, 0, 63, 47]], [3], level=1.0, cover="texture", mean=[10, 20, 30], std=[2, 4, 5])
    expected = (patterns[3] - [10, 20, 30]) / [2, 4, 5]
    assert np.allclose(covered[0].permute(1, 2, 0).numpy(), expected, atol=1e-3)


def test_dtype_is_kept() -> None:
    images = torch.ones(1, 3, 8, 8, dtype=torch.float16)
    assert cover_batch(images, [[0, 0, 7, 7]], [0], level=0.5, cover="texture")[0].dtype == torch.float16


def test_an_empty_batch() -> None:
    covered, shares = cover_batch(torch.ones(0, 3, 8, 8), np.empty((0, 4)), np.empty(0, np.int64), level=0.5)
    assert covered.shape == (0, 3, 8, 8) and shares.shape == (0,)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"boxes: expected shape \(2, 4\), one box per sample id, got \(1, 4\)"):
        cover_masks([[0, 0, 1, 1]], [0, 1], 8, 8, level=0.5)
    with pytest.raises(ValueError, match=r"level=1.5"):
        cover_masks([[0, 0, 1, 1]], [0], 8, 8, level=1.5)
    with pytest.raises(ValueError, match="cover='paint': expected one of mean, texture, cells"):
        cover_masks([[0, 0, 1, 1]], [0], 8, 8, level=0.5, cover="paint")
