"""From a class activation map to a box (paper section 4.2.1), and the box tool that was released with CAM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

# Thresholds over the maximum: by eye on training images, AlexNet .20 and GoogLeNet .30 (paper section 4.2.1).
ALEXNET_THRESHOLD, GOOGLENET_THRESHOLD = 0.20, 0.30
GREY_LEVELS = (20, 100, 110)
NOTHING = (0, 0, 0, 0)  # the box of a map without foreground: one pixel, hardly ever right
_DT_LEVEL = 10  # of 255 at the innermost pixel
_RIM = 5


def component_boxes(maps: Iterable[npt.NDArray], thresholds: Sequence[float]) -> npt.NDArray[np.int64]:
    """Boxes of many maps at several thresholds.

    Args:
        maps: N maps (height, width), of any sizes.
        thresholds: T shares of a map's maximum.

    Returns:
        (N, T, 4) int64, see ``largest_component_boxes``.
    """
    found = [largest_component_boxes(picture, thresholds) for picture in maps]
    return np.stack(found) if found else np.empty((0, len(thresholds), 4), np.int64)


def largest_component_boxes(picture: npt.NDArray, thresholds: Sequence[float]) -> npt.NDArray[np.int64]:
    """The tight box of the largest connected foreground at each threshold.

    Foreground is what is above ``threshold * max``; pixels that touch at a corner are connected (8 neighbours). Of
    components of the same size the one whose box starts higher up, then further left, is taken.

    Args:
        picture: (height, width) map.
        thresholds: T shares of the maximum, from 0 to 1.

    Returns:
        (T, 4) int64: x0, y0, x1, y1 with both ends inside; (0, 0, 0, 0) where there is no foreground: a map with a
        value that is not finite, or with no positive value.
    """
    boxes = np.zeros((len(thresholds), 4), np.int64)
    peak = float(picture.max())
    if not np.isfinite(picture).all() or peak <= 0:
        return boxes
    # Foregrounds are nested, so two with as many pixels are the same one.
    by_count: dict[int, npt.NDArray[np.int64]] = {}
    for row, threshold in enumerate(thresholds):
        foreground = (picture > threshold * peak).view(np.uint8)
        count = cv2.countNonZero(foreground)
        if count and count not in by_count:
            by_count[count] = _largest(foreground)
        if count:
            boxes[row] = by_count[count]
    return boxes


def _largest(foreground: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    _, _, stats, _ = cv2.connectedComponentsWithStats(foreground, connectivity=8, ltype=cv2.CV_32S)
    x, y, width, height, area = stats[1:].T.astype(np.int64)
    best = np.lexsort((x, y, -area))[0]
    return np.array([x[best], y[best], x[best] + width[best] - 1, y[best] + height[best] - 1])


def cam_dt_boxes(picture: npt.NDArray, levels: Sequence[int] = GREY_LEVELS, rim: int = _RIM) -> npt.NDArray[np.int64]:
    """Boxes as CAM's released tool finds them, largest first; its localisation numbers use the first.

    The map over its maximum is a grey picture of 0 to 255. For each grey level: pixels above it; of these only the ones
    whose distance to the background, scaled to 255 at the innermost, exceeds 10; the bounding rectangle of every
    outline of what remains, of holes too. The rectangles of all levels are ranked by area; then one that shares more
    than half of the larger's area with a higher ranked one is dropped (the tool skips the comparison that follows a
    drop, and so do we).

    The tool's coordinates are kept: the far end is one past the last pixel, and starts and ends are held ``rim`` pixels
    off the far borders. It also stores the grey picture as JPEG, which we do not.

    Args:
        picture: (height, width) map.
        levels: grey levels.
        rim: pixels that boxes keep off the right and lower border.

    Returns:
        (K, 4) int64, x0, y0, x1, y1; a single (0, 0, 0, 0) where nothing is found.
    """
    height, width = picture.shape
    peak = float(picture.max())
    if not np.isfinite(picture).all() or peak <= 0:
        return np.array([NOTHING])
    grey = np.rint(np.clip(picture / peak, 0, 1) * 255).astype(np.uint8)
    right, bottom = max(width - rim, 0), max(height - rim, 0)
    found: list[tuple[int, int, int, int]] = []
    for level in levels:
        contours, _ = cv2.findContours(_core(grey > level), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for contour in contours:
            x, y, w, h = cv2.boundingRect(contour)
            found.append((min(x, right), min(y, bottom), min(w, max(right - x, 0)), min(h, max(bottom - y, 0))))
    found.sort(key=lambda rectangle: -rectangle[2] * rectangle[3])
    i = 0
    while i < len(found):
        j = i + 1
        while j < len(found):
            if _share(found[i], found[j]):
                del found[j]
            j += 1
        i += 1
    return np.array([(x, y, x + w, y + h) for x, y, w, h in found] or [NOTHING], np.int64)


def cam_dt_box(picture: npt.NDArray, levels: Sequence[int] = GREY_LEVELS, rim: int = _RIM) -> npt.NDArray[np.int64]:
    """(4,): the first of ``cam_dt_boxes``."""
    return cam_dt_boxes(picture, levels, rim)[0]


def _core(foreground: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Foreground without its outermost rim, as 0 and 1; where there is no background there is no rim."""
    mask = foreground.astype(np.uint8)
    if mask.all() or not mask.any():
        return mask
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return (np.floor(distance * (255 / distance.max()) + 0.5) > _DT_LEVEL).astype(np.uint8)


def _share(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    across = max(0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    down = max(0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return across * down > int(max(a[2] * a[3], b[2] * b[3]) * 0.5)
