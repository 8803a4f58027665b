"""MaxBoxAcc and MaxBoxAccV2 of the wsolevaluation benchmark, so that results compare with later papers.

A map over one crop is scaled to 0..1 by its minimum and maximum and cut to 8 bits; at each threshold tau the pixels
strictly above ``int(tau * 255)`` are outlined, holes too, and boxes are the outlines' bounding rectangles. Thresholds
that fall between the same two grey levels of a map give the same binary map, so at most 255 are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from has_dali.trainers.datasets.boxes import Boxes
from has_dali.trainers.metrics.boxes import iou, scale_boxes
from has_dali.trainers.metrics.samples import SampleTable, State

IOUS = (0.3, 0.5, 0.7)
CAM_TAU = 0.2
PEAK = 255


def min_max(maps: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Maps (N, H, W) scaled to 0..1 each; a constant map and one with a value that is not finite become zeros."""
    maps = np.asarray(maps, np.float32)
    usable = np.isfinite(maps).all(axis=(1, 2), keepdims=True)
    shifted = np.where(usable, maps, 0)
    shifted = shifted - shifted.min(axis=(1, 2), keepdims=True)
    peak = shifted.max(axis=(1, 2), keepdims=True)
    return np.divide(shifted, peak, out=np.zeros_like(shifted), where=peak > 0)


def over_max(maps: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Maps (N, H, W) over their maximum, negative values cut to 0; without a positive maximum: zeros."""
    maps = np.asarray(maps, np.float32)
    usable = np.isfinite(maps).all(axis=(1, 2), keepdims=True)
    positive = np.maximum(np.where(usable, maps, 0), 0)
    peak = positive.max(axis=(1, 2), keepdims=True)
    return np.divide(positive, peak, out=np.zeros_like(positive), where=peak > 0)


def thresholds(step: float = 0.001) -> npt.NDArray[np.float64]:
    """0, step, 2 step, ... below 1: .001 in the benchmark's training script, .01 in its evaluation script."""
    if not 0 < step <= 1:
        raise ValueError(f"step={step!r}: expected a number above 0 and at most 1")
    return np.arange(0, 1, step)


def outline_boxes(grey: npt.NDArray[np.uint8], level: int) -> tuple[list[tuple[int, int, int, int]], int]:
    """Boxes of all outlines of what is strictly above ``level``.

    Args:
        grey: (height, width) uint8.
        level: 0 to 255.

    Returns:
        Boxes x0, y0, x1, y1, where x1 and y1 are one past the last pixel but at most the picture's last, as the
        benchmark has it; one box (0, 0, 0, 0) where there is no outline. And the place of the outline with the largest
        area, of equals the first.
    """
    _, binary = cv2.threshold(grey, level, PEAK, cv2.THRESH_BINARY)
    contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if len(contours) == 0:
        return [(0, 0, 0, 0)], 0
    right, bottom = grey.shape[1] - 1, grey.shape[0] - 1
    rectangles = map(cv2.boundingRect, contours)
    boxes = [(x, y, min(x + w, right), min(y + h, bottom)) for x, y, w, h in rectangles]
    if len(boxes) == 1:
        return boxes, 0
    areas = list(map(cv2.contourArea, contours))
    return boxes, areas.index(max(areas))


def overlaps(
    scores: npt.NDArray[np.float32], true: npt.NDArray[np.int64], levels: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Overlap with the true boxes at each grey level.

    Args:
        scores: (height, width) map of 0..1.
        true: (k, 4) true boxes in its pixels.
        levels: (L,) ascending levels, 0 to 255.

    Returns:
        (2, L) float64: of the largest outline's box with any true box, and of any outline's with any.
    """
    grey = (scores * PEAK).astype(np.uint8)
    # Levels with the same number of grey values at or below them give the same binary map.
    below = np.searchsorted(np.flatnonzero(np.bincount(grey.ravel(), minlength=PEAK + 1)), levels, "right")
    _, first, map_of = np.unique(below, return_index=True, return_inverse=True)
    boxes: list[tuple[int, int, int, int]] = []
    starts, largest = [], []
    for level in levels[first].tolist():
        found, place = outline_boxes(grey, level)
        starts.append(len(boxes))
        largest.append(len(boxes) + place)
        boxes += found
    pairs = iou(np.array(boxes)[:, None], true[None]).max(axis=1)
    return np.stack([pairs[largest], np.maximum.reduceat(pairs, starts)])[:, map_of]


class MaxBoxAcc:
    """MaxBoxAcc (v1), MaxBoxAccV2, and the fixed threshold of CAM, with the true class's map.

    v1: the outline of the largest area at overlap .5; V2: any outline, the mean over overlaps .3, .5 and .7. Of each,
    accuracy over the whole set at each threshold, then the maximum over thresholds. The fixed number is v1 of the map
    over its maximum at tau .2. Top-1 variants also ask for the right class.

    Args:
        truth: true boxes by sample id, in the pixels of the pictures as stored; they are scaled to the maps' size and
            truncated.
        labels: (N,) true classes by sample id.
        step: distance of the thresholds.
        ious: overlaps of V2; .5 must be among them.

    Raises:
        ValueError: a value is out of range, or numbers of images differ.
    """

    def __init__(
        self,
        truth: Boxes,
        labels: npt.ArrayLike,
        *,
        step: float = 0.001,
        ious: Sequence[float] = IOUS,
    ) -> None:
        self.truth, self.labels, self.ious = truth, np.asarray(labels, np.int64), tuple(ious)
        if self.labels.shape != (len(truth),):
            raise ValueError(f"labels: expected {len(truth)}, one per image with boxes, got {self.labels.shape}")
        if 0.5 not in self.ious or len(self.ious) > 8:
            raise ValueError(f"ious={self.ious}: expected up to 8 overlaps, 0.5 among them")
        self.thresholds = thresholds(step)
        # A map has its peak at 255, or is all zeros and has no outline at any level.
        self._levels, self._level_of = np.unique((self.thresholds * PEAK).astype(np.int64), return_inverse=True)
        self._table = SampleTable()

    def update(self, ids: npt.ArrayLike, maps: npt.ArrayLike, predicted: npt.ArrayLike) -> None:
        """Take in a batch.

        Args:
            ids: (n,) sample ids; -1: padding, ignored.
            maps: (n, H, W) maps of the true class at the size to evaluate at (224 in the benchmark), in any range.
            predicted: (n,) most likely classes.
        """
        ids = np.asarray(ids, np.int64)
        real = ids >= 0
        ids, maps = ids[real], np.asarray(maps, np.float32)[real]
        true = [scale_boxes(self.truth.of(i), self.truth.sizes[i], maps.shape[1:], "truncate") for i in ids.tolist()]
        cam_level = np.array([int(CAM_TAU * PEAK)])
        by_level = np.empty((len(ids), 2, len(self._levels)))
        cam = np.empty(len(ids))
        for row, (ranged, peaked) in enumerate(zip(min_max(maps), over_max(maps), strict=True)):
            by_level[row] = overlaps(ranged, true[row], self._levels)
            cam[row] = overlaps(peaked, true[row], cam_level)[0, 0]
        self._table.add(
            ids,
            {
                "right": self._bits(by_level),
                "iou_cam": cam,
                "top1": np.asarray(predicted, np.int64)[real] == self.labels[ids],
            },
        )

    def state(self) -> State:
        """Per image: ``right`` (n, 2, levels) uint8, one bit per overlap, of v1 and V2; ``iou_cam``, ``top1`` (n,)."""
        return self._table.state()

    def merge(self, state: State) -> None:
        """Take in another rank's ``state()``."""
        self._table.merge(state)

    def compute(self) -> dict[str, float]:
        """Percentages: ``max_box_acc``, ``max_box_acc_v2``, ``max_box_acc_v2@0.3`` and so on, ``cam_box_acc``, the same
        with ``top1_`` in front, and the best thresholds ``max_box_acc_tau`` (0..1).

        Raises:
            ValueError: nothing was taken in.
        """
        results = self.state()
        if not results or not len(results["id"]):
            raise ValueError("MaxBoxAcc: no images were taken in; call update first")
        top1 = results["top1"]
        curve = self._curves(results, np.ones_like(top1))
        values = {
            **_maxima("", curve, self.ious),
            **_maxima("top1_", self._curves(results, top1), self.ious),
            "cam_box_acc": float(100 * (results["iou_cam"] >= 0.5).mean()),
            "top1_cam_box_acc": float(100 * ((results["iou_cam"] >= 0.5) & top1).mean()),
        }
        best = int(np.argmax(curve[0][self.ious.index(0.5)][self._level_of]))
        values["max_box_acc_tau"] = float(self.thresholds[best])
        return values

    def curve(self, at: float = 0.5) -> list[tuple[float, float]]:
        """(threshold, percentage) of v1 at one of ``ious``."""
        results = self.state()
        by_level = self._curves(results, np.ones_like(results["top1"]))[0][self.ious.index(at)]
        return list(zip(self.thresholds.tolist(), by_level[self._level_of].tolist(), strict=True))

    def _bits(self, overlap: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        bits = np.zeros(overlap.shape, np.uint8)
        for place, at in enumerate(self.ious):
            bits |= (overlap >= at).astype(np.uint8) << np.uint8(place)
        return bits

    def _curves(self, results: State, counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """(2, overlaps, levels): percentages of v1 and V2."""
        right = results["right"]
        flags = [((right >> np.uint8(place)) & 1) * counted[:, None, None] for place in range(len(self.ious))]
        return np.stack([100 * flag.mean(axis=0) for flag in flags], axis=1)


def _maxima(prefix: str, curves: npt.NDArray[np.float64], ious: Sequence[float]) -> dict[str, float]:
    v1, v2 = curves.max(axis=2)
    values = {f"{prefix}max_box_acc": float(v1[tuple(ious).index(0.5)]), f"{prefix}max_box_acc_v2": float(v2.mean())}
    return values | {f"{prefix}max_box_acc_v2@{at:g}": float(value) for at, value in zip(ious, v2, strict=True)}
