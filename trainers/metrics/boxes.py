"""Boxes with both ends inside: overlap, change of image size, and the fixed boxes that every result stands beside."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from has_dali.trainers.datasets.boxes import Boxes

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CENTRE_SHARE = 0.75  # side of the centre box over the image's: 8 8 55 55 at 64 pixels


def iou(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Intersection over union of boxes (x0, y0, x1, y1) whose ends are inside, so a side is ``x1 - x0 + 1`` pixels.

    Args:
        a, b: (..., 4) integers; leading dimensions broadcast, so ``iou(a[:, None], b[None])`` is all pairs.

    Returns:
        (...) float64. Each value is the nearest float to the true ratio, so comparing it with 0.5 is exact.
    """
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    common = np.maximum(sides, 0).prod(axis=-1)
    return common / (_area(a) + _area(b) - common)


def best_iou(boxes: npt.ArrayLike, truth: Boxes, ids: npt.ArrayLike) -> Floats:
    """Largest overlap of each box with any true box of its image.

    Args:
        boxes: (n, ..., 4), one or more boxes for each of ``ids``.
        truth: true boxes, in the same pixels.
        ids: (n,) images.

    Returns:
        (n, ...) float64.
    """
    boxes, ids = np.asarray(boxes, np.int64), np.asarray(ids, np.int64)
    if not len(ids):
        return np.zeros(boxes.shape[:-1])
    chosen = truth.select(ids)
    repeated = np.repeat(boxes, np.diff(chosen.offsets), axis=0)
    true = chosen.values.reshape(-1, *[1] * (boxes.ndim - 2), 4)
    return np.maximum.reduceat(iou(repeated, true), chosen.offsets[:-1], axis=0)


def hits(overlap: npt.ArrayLike, at: float, strict: bool = False) -> npt.NDArray[np.bool_]:
    """Whether an overlap counts: at least ``at``, as both public evaluators have it; ``strict``: more than ``at``."""
    return np.asarray(overlap) > at if strict else np.asarray(overlap) >= at


def scale_boxes(
    boxes: npt.ArrayLike, sizes: npt.ArrayLike, new_sizes: npt.ArrayLike, rule: Literal["cover", "truncate"] = "cover"
) -> Ints:
    """Boxes in the pixels of a resized image.

    ``cover`` scales the region of the box, whose edges are at x0 and x1 + 1, and rounds both edges (half up), so a
    full frame stays a full frame; at least one pixel remains. ``truncate`` scales the four numbers and drops the
    fractions, as wsolevaluation does with true boxes.

    Args:
        boxes: (..., 4) integers.
        sizes, new_sizes: (..., 2) heights and widths, or one pair for all.
    """
    boxes = np.asarray(boxes, np.int64)
    old, new = np.asarray(sizes, np.int64)[..., ::-1], np.asarray(new_sizes, np.int64)[..., ::-1]
    low, high = boxes[..., :2], boxes[..., 2:]
    if rule == "truncate":
        ends = [(end * new.astype(np.float64) / old).astype(np.int64) for end in (low, high)]
        return np.concatenate(np.broadcast_arrays(*ends), axis=-1)
    first, last = ((2 * edge * new + old) // (2 * old) for edge in (low, high + 1))
    first = np.minimum(first, new - 1)
    return np.concatenate(np.broadcast_arrays(first, np.maximum(last - 1, first)), axis=-1)


def whole_image(sizes: npt.ArrayLike) -> Ints:
    """(N, 4): the full frame of images with sizes (N, 2), height first."""
    return centre_box(sizes, 1.0)


def centre_box(sizes: npt.ArrayLike, share: float = CENTRE_SHARE) -> Ints:
    """(N, 4): the centred box with ``share`` of each side; its margin is rounded to whole pixels, half up."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share!r}: expected a part of the side, above 0 and at most 1")
    ends = np.asarray(sizes, np.int64)[..., ::-1]
    margin = np.minimum(np.floor(ends * (1 - share) / 2 + 0.5).astype(np.int64), (ends - 1) // 2)
    return np.concatenate([margin, ends - 1 - margin], axis=-1)


class CentreBox(NamedTuple):
    """The best of the centre boxes: its share of the side, and its accuracy in percent on the boxes that chose it."""

    share: float
    accuracy: float


def best_centre_box(boxes: Boxes, at: float = 0.5, steps: int = 32) -> CentreBox:
    """The centre box that is right most often, of margins 0, 1/64, 2/64, ... of the side (for 32 steps).

    Choose it on training boxes; on 64-pixel images the margins are 0 to 31 pixels. Of equals, the largest box.
    """
    accuracy = [fixed_accuracy(centre_box(boxes.sizes, 1 - step / steps), boxes, at) for step in range(steps)]
    best = int(np.argmax(accuracy))
    return CentreBox(1 - best / steps, accuracy[best])


def fixed_accuracy(predicted: npt.ArrayLike, truth: Boxes, at: float = 0.5, strict: bool = False) -> float:
    """Percentage of images whose box (N, 4) overlaps any true box by ``at``: GT-known Loc without a network."""
    return float(100 * hits(best_iou(predicted, truth, np.arange(len(truth))), at, strict).mean())


def baselines(truth: Boxes, at: float = 0.5, train: Boxes | None = None, strict: bool = False) -> dict[str, float]:
    """GT-known Loc in percent of the boxes that need no network: whole image, centre box, and the centre box whose
    margin was chosen on the boxes of ``train``.
    """
    fixed = {"whole image": 1.0, f"centre box {CENTRE_SHARE:g}": CENTRE_SHARE}
    if train is not None:
        fixed["centre box chosen on train"] = best_centre_box(train, at).share
    return {name: fixed_accuracy(centre_box(truth.sizes, share), truth, at, strict) for name, share in fixed.items()}


def _area(boxes: Ints) -> Ints:
    return (boxes[..., 2:] - boxes[..., :2] + 1).prod(axis=-1)
