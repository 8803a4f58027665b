"""Weakly supervised localisation (paper, section 4.3): trained on class labels, evaluated on boxes or masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from has_dali.pipelines.sources import FileSource
from has_dali.trainers.classification import ClassificationTask
from has_dali.trainers.data import Share
from has_dali.trainers.datasets import MaskedImages, blacklisted_ids
from has_dali.trainers.evaluation import Evaluation
from has_dali.trainers.localising import IOUS, locate, max_box_acc
from has_dali.trainers.metrics.boxes import baselines
from has_dali.trainers.pixels import evaluate_masks


class LocalisationTask(ClassificationTask):
    """Cross entropy on class labels, as ``ClassificationTask``; objects are read off its class activation maps."""

    def check(self, images: Any, held_out: Any) -> None:
        """Refuse a threshold, step or list that no box could be had with; images with masks take only the step."""
        cam = self.settings.cam  # type: ignore[attr-defined]
        if not 0 < cam.wsol_step <= 1:
            raise ValueError(f"cam.wsol_step={cam.wsol_step}: expected a number above 0 and at most 1")
        if isinstance(images, MaskedImages):
            return
        if cam.threshold == "held-out":
            if held_out is None:
                raise ValueError("cam.threshold=held-out: loader.held_out is 0; set it to 10, or give a threshold")
        elif not 0 < cam.threshold < 1:
            raise ValueError(f"cam.threshold={cam.threshold}: expected a number between 0 and 1, or held-out")
        if cam.blacklist is not None:
            if not isinstance(images.val, FileSource):
                raise ValueError(f"cam.blacklist={cam.blacklist}: numbers files of ILSVRC, but {images.name} has none")
            blacklisted_ids(Path(cam.blacklist), images.val)

    def evaluate(self, images: Any, held_out: Any, share: Share) -> Evaluation:
        """GT-known and Top-1 Loc as the paper computes them, and the metrics of wsolevaluation.

        The threshold of the maps is the setting, or chosen on the boxes of ``held_out``, never on the validation set.
        Images with masks have PxAP instead (see ``evaluate_masks``), which takes all thresholds: cam.threshold, like
        the other settings of boxes, does not matter there.
        """
        if isinstance(images, MaskedImages):
            return evaluate_masks(self, images, share)
        cam = self.settings.cam  # type: ignore[attr-defined]
        threshold, chosen = cam.threshold, {}
        if threshold == "held-out":
            tuning, _ = locate(self, held_out, 0.5, share)
            threshold = tuning.best_threshold()
            chosen = {"held_out_top1": tuning.compute()["top1"]}
            for name, curve in tuning.curve().items():
                chosen[f"held_out_{name}"] = dict(curve)[threshold]
        meter, spread = locate(self, images, threshold, share, cam.blacklist)
        metrics = {**meter.compute(), **spread.compute(), "cam_threshold": threshold, **chosen}
        if cam.blacklist:
            kept = meter.compute(use_blacklist=True)
            metrics |= {f"{name}_without_blacklisted": kept[name] for name in ("gt_known", "top1_loc")}
        curves = {f"{name}_by_threshold": [list(point) for point in curve] for name, curve in meter.curve().items()}
        if cam.wsol:
            boxes = max_box_acc(self, images, share)
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
