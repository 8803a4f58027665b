"""Weakly supervised localisation (paper, section 4.3): trained on class labels, evaluated on boxes."""

from __future__ import annotations

from typing import Any

from has_dali.trainers.classification import ClassificationTask
from has_dali.trainers.evaluation import Evaluation, Ranks
from has_dali.trainers.localising import IOUS, locate, max_box_acc
from has_dali.trainers.metrics.boxes import baselines


class LocalisationTask(ClassificationTask):
    """Cross entropy on class labels, as ``ClassificationTask``; boxes are read off the class activation maps."""

    def evaluate(self, images: Any, held_out: Any, ranks: Ranks) -> Evaluation:
        """GT-known and Top-1 Loc as the paper computes them, and the metrics of wsolevaluation.

        The threshold of the maps is the setting, or chosen on the boxes of ``held_out``, never on the validation set.

        Raises:
            ValueError: cam.threshold is "held-out" and there is nothing held out.
        """
        cam = self.settings.cam  # type: ignore[attr-defined]
        threshold, chosen = cam.threshold, {}
        if threshold == "held-out":
            if held_out is None:
                raise ValueError("cam.threshold=held-out: loader.held_out is 0; set it to 10, or give a threshold")
            tuning = locate(self, held_out, 0.5, ranks)
            threshold = tuning.best_threshold()
            chosen = {"held_out_top1": tuning.compute()["top1"]}
            for name, curve in tuning.curve().items():
                chosen[f"held_out_{name}"] = dict(curve)[threshold]
        meter = locate(self, images, threshold, ranks, cam.blacklist)
        metrics = {**meter.compute(), "cam_threshold": threshold, **chosen}
        if cam.blacklist:
            kept = meter.compute(use_blacklist=True)
            metrics |= {f"{name}_without_blacklisted": kept[name] for name in ("gt_known", "top1_loc")}
        curves = {f"{name}_by_threshold": [list(point) for point in curve] for name, curve in meter.curve().items()}
        if cam.wsol:
            boxes = max_box_acc(self, images, ranks)
            metrics |= boxes.compute()
            curves["max_box_acc_by_threshold"] = [list(point) for point in boxes.curve()]
        return Evaluation(metrics, trivial_boxes(images), curves, meter.state())


def trivial_boxes(images: Any) -> dict[str, dict[str, float]]:
    """GT-known Loc of boxes that need no network, at every overlap; always shown beside a result."""
    found: dict[str, dict[str, float]] = {}
    for at in IOUS:
        for name, accuracy in baselines(images.val_boxes, at, images.train_boxes).items():
            row = found.setdefault(name, {})
            row[f"gt_known@{at:g}"] = accuracy
            if at == 0.5:
                row["gt_known"] = accuracy
    return found
