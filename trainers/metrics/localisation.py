"""GT-known and Top-1 localisation accuracy (paper section 4.2.1): one box per image against any true box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from has_dali.trainers.datasets.boxes import Boxes
from has_dali.trainers.metrics.boxes import best_iou, hits
from has_dali.trainers.metrics.samples import SampleTable, State

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
IOUS = (0.3, 0.5, 0.7)
PAPER_IOU = 0.5


class Localisation:
    """Collects predictions and boxes per image; computes percentages, 0 to 100.

    GT-known Loc: the box from the map of the true class is right. Top-1 Loc: the most likely class is the true one
    and the box from its map is right. A box is right if its overlap with any true box of the image is at least
    ``at`` (the paper says more than; both public evaluators use at least).

    Args:
        truth: true boxes, by sample id, in the pixels that predicted boxes are in.
        labels: (N,) true classes, by sample id.
        ious: overlaps to report; 0.5 is the paper's.
        strict: more than instead of at least.
        blacklist: sample ids that ``compute(use_blacklist=True)`` leaves out.
        thresholds: what the boxes of ``curve_boxes`` were cut at.

    Raises:
        ValueError: numbers of images differ.
    """

    def __init__(
        self,
        truth: Boxes,
        labels: npt.ArrayLike,
        *,
        ious: Sequence[float] = IOUS,
        strict: bool = False,
        blacklist: npt.ArrayLike = (),
        thresholds: Sequence[float] = THRESHOLDS,
    ) -> None:
        self.truth, self.labels = truth, np.asarray(labels, np.int64)
        if self.labels.shape != (len(truth),):
            raise ValueError(f"labels: expected {len(truth)}, one per image with boxes, got {self.labels.shape}")
        self.ious, self.strict, self.thresholds = tuple(ious), strict, tuple(thresholds)
        self.blacklist = np.asarray(blacklist, np.int64)
        self._table = SampleTable()

    def update(
        self,
        ids: npt.ArrayLike,
        ranked: npt.ArrayLike,
        predicted_boxes: npt.ArrayLike,
        true_boxes: npt.ArrayLike,
        curve_boxes: npt.ArrayLike | None = None,
    ) -> None:
        """Take in a batch.

        Args:
            ids: (n,) sample ids; -1: padding, ignored.
            ranked: (n, k) classes, most likely first; with k of at least 5, top-5 is computed too.
            predicted_boxes: (n, 4) boxes from the maps of the most likely class.
            true_boxes: (n, 4) boxes from the maps of the true class.
            curve_boxes: (n, T, 4) boxes from the maps of the true class at each of ``thresholds``; in all batches
                or in none.

        Raises:
            ValueError: shapes do not fit, or a sample id has no true box.
        """
        ids, ranked = np.asarray(ids, np.int64), np.asarray(ranked, np.int64)
        if ids.size and ids.max() >= len(self.truth):
            raise ValueError(f"ids: sample {ids.max()} has no true box; there are {len(self.truth)} images")
        if ranked.ndim != 2 or ranked.shape[0] != len(ids) or ranked.shape[1] < 1:
            raise ValueError(f"ranked: expected ({len(ids)}, k) classes, most likely first, got {ranked.shape}")
        real = ids >= 0
        ids, ranked = ids[real], ranked[real]
        predicted = np.asarray(predicted_boxes, np.int64)[real]
        true = np.asarray(true_boxes, np.int64)[real]
        right = ranked[:, :5] == self.labels[ids, None]
        columns: dict[str, npt.NDArray] = {
            "predicted": ranked[:, 0],
            "top1": right[:, 0],
            "box_predicted": predicted,
            "box_true": true,
            "iou_predicted": best_iou(predicted, self.truth, ids),
            "iou_true": best_iou(true, self.truth, ids),
        }
        if ranked.shape[1] >= 5:
            columns["top5"] = right.any(axis=1)
        if curve_boxes is not None:
            curve = np.asarray(curve_boxes, np.int64)[real]
            if curve.shape != (len(ids), len(self.thresholds), 4):
                raise ValueError(
                    f"curve_boxes: expected ({len(ids)}, {len(self.thresholds)}, 4), one box per threshold,"
                    f" got {curve.shape}"
                )
            columns["iou_curve"] = best_iou(curve, self.truth, ids)
        self._table.add(ids, columns)

    def state(self) -> State:
        """Results per image, by ascending ``id``: predicted class, ``top1``, ``top5``, boxes (n, 4) and their largest
        overlaps ``iou_predicted``, ``iou_true`` (n,), and ``iou_curve`` (n, T): for failure pictures and paired tests.
        """
        return self._table.state()

    def merge(self, state: State) -> None:
        """Take in another rank's ``state()``."""
        self._table.merge(state)

    def compute(self, use_blacklist: bool = False) -> dict[str, float]:
        """Percentages: ``top1``, ``top5``, and at each overlap ``gt_known@0.5``, ``top1_loc@0.5``; those of 0.5 also
        as ``gt_known`` and ``top1_loc``.

        Args:
            use_blacklist: leave the blacklisted images out of the count, as the ILSVRC kit does.

        Raises:
            ValueError: nothing was taken in.
        """
        results = self._kept(use_blacklist)
        top1 = results["top1"]
        values = {"top1": _percent(top1)}
        if "top5" in results:
            values["top5"] = _percent(results["top5"])
        for at in self.ious:
            known = _percent(hits(results["iou_true"], at, self.strict))
            top1_loc = _percent(top1 & hits(results["iou_predicted"], at, self.strict))
            values |= {f"gt_known@{at:g}": known, f"top1_loc@{at:g}": top1_loc}
            if at == PAPER_IOU:
                values |= {"gt_known": known, "top1_loc": top1_loc}
        return values

    def curve(self, at: float = PAPER_IOU, use_blacklist: bool = False) -> dict[str, list[tuple[float, float]]]:
        """``gt_known`` and ``top1_loc`` in percent at each threshold: (threshold, percentage) pairs.

        Where the predicted class is the true one, so is the map; so Top-1 Loc needs no boxes of its own.

        Raises:
            ValueError: no ``curve_boxes`` were taken in.
        """
        results = self._kept(use_blacklist)
        if "iou_curve" not in results:
            raise ValueError("curve: no curve_boxes were given to update; give boxes at each of thresholds")
        right = hits(results["iou_curve"], at, self.strict)
        known = 100 * right.mean(axis=0)
        top1_loc = 100 * (right & results["top1"][:, None]).mean(axis=0)
        named = {"gt_known": known.tolist(), "top1_loc": top1_loc.tolist()}
        return {name: list(zip(self.thresholds, values, strict=True)) for name, values in named.items()}

    def best_threshold(self, at: float = PAPER_IOU) -> float:
        """The threshold with the highest GT-known Loc, of equals the lowest. Choose it on held-out training images."""
        return max(self.curve(at)["gt_known"], key=lambda point: point[1])[0]

    def _kept(self, use_blacklist: bool) -> State:
        results = self.state()
        if results and use_blacklist:
            kept = ~np.isin(results["id"], self.blacklist)
            results = {name: values[kept] for name, values in results.items()}
        if not results or not len(results["id"]):
            raise ValueError("localisation: no images were taken in; call update first")
        return results


def _percent(flags: npt.NDArray[np.bool_]) -> float:
    return float(100 * flags.mean())
