"""Holes of other augmentations cover what they are said to cover."""

from __future__ import annotations

import numpy as np
import pytest

from has_dali.bench.peers.op_holes import coarse_dropout, grid_dropout


@pytest.mark.parametrize("patch", [8, 16, 32, 44, 56])
@pytest.mark.parametrize("size", [96, 224])
def test_grid_dropout_hides_half_with_holes_of_about_the_patch(size: int, patch: int) -> None:
    cells, ratio, share = grid_dropout(size, patch, 0.5)
    assert share == pytest.approx(0.5, abs=0.01)
    assert 0 < ratio < 1
    assert size / cells * ratio == pytest.approx(patch, rel=0.35)


@pytest.mark.parametrize("patch", [8, 16, 56])
def test_coarse_dropout_covers_the_share_on_average(patch: int) -> None:
    size, rng = 96, np.random.default_rng(1)
    holes, expected = coarse_dropout(size, patch, 0.5)
    corners = rng.integers(0, size - patch + 1, (300, holes, 2))
    covered = np.zeros((300, size, size), bool)
    for image, places in zip(covered, corners, strict=True):
        for y, x in places:
            image[y : y + patch, x : x + patch] = True
    fractions = covered.mean(axis=(1, 2))
    assert fractions.mean() == pytest.approx(expected, abs=5 * fractions.std() / np.sqrt(300))
    assert expected == pytest.approx(0.5, abs=0.5 * (patch / size) ** 2 + 1e-3)  # half of what one hole adds
