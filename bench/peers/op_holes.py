"""Settings that make other augmentations hide as much as Hide-and-Seek does: holes as large, as many as it takes."""

from __future__ import annotations

import math

import numpy as np


def grid_dropout(size: int, patch: int, share: float) -> tuple[int, float, float]:
    """``(cells per axis, ratio, hidden share)`` of Albumentations' GridDropout: holes of about ``patch`` pixels.

    Every cell of its grid gets one hole of ``int(cell * ratio)`` pixels, and cells differ by a pixel where the grid
    does not divide the image, so shares are few: neighbouring grids are tried and the nearest share wins.
    """
    nominal = size * math.sqrt(share) / patch
    best = (math.inf, 1, share, share)
    nearest = max(1, round(nominal))
    for cells in range(min(nearest, math.ceil(nominal * 0.75)), max(nearest, math.floor(nominal * 1.25)) + 1):
        small, more = divmod(size, cells)
        if small < 2:
            break
        for ratio in np.linspace(math.sqrt(share) - 0.12, math.sqrt(share) + 0.12, 97).round(4):
            if not 0 < ratio <= 1:
                continue
            side = sum(
                count * min(max(int(edge * ratio), 1), edge - 1)
                for edge, count in ((small, cells - more), (small + 1, more))
            )
            hidden = (side / size) ** 2
            best = min(best, (abs(hidden - share), cells, float(ratio), hidden))
    return best[1:]


def coarse_dropout(size: int, patch: int, share: float) -> tuple[int, float]:
    """``(holes, hidden share)`` of CoarseDropout with square holes of ``patch`` pixels anywhere inside the image.

    Holes overlap and seldom reach the border, so it takes more of them than cells: the expected share is that of a
    pixel to be in one of k holes, averaged over the image.
    """
    places = size - patch + 1
    pixel = np.arange(size)
    reach = (np.minimum(pixel, places - 1) - np.maximum(pixel - patch + 1, 0) + 1) / places
    missed = np.log1p(-np.minimum(np.outer(reach, reach), 1 - 1e-12))
    hidden = {holes: 1 - float(np.exp(holes * missed).mean()) for holes in _bracket(missed, share)}
    holes = min(hidden, key=lambda count: abs(hidden[count] - share))
    return holes, hidden[holes]


def _bracket(missed: np.ndarray, share: float) -> tuple[int, int]:
    """The numbers of holes on either side of ``share``."""
    low, high = 1, 2
    while 1 - float(np.exp(high * missed).mean()) < share:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if 1 - float(np.exp(middle * missed).mean()) >= share else (middle, high)
    return low, high
