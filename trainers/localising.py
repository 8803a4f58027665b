"""From images to boxes, batch by batch: crops, class activation maps, boxes, and the meters that count them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from has_dali.trainers.datasets import blacklisted_ids
from has_dali.trainers.evaluation import Ranks, eval_batches
from has_dali.trainers.metrics.cam import crop_probabilities, merged_crops, picture_maps, ten_crops, upsampled
from has_dali.trainers.metrics.cam_boxes import cam_dt_box, largest_component_boxes
from has_dali.trainers.metrics.localisation import IOUS, THRESHOLDS, Localisation
from has_dali.trainers.metrics.wsol import MaxBoxAcc

if TYPE_CHECKING:
    from has_dali.trainers.classification import ClassificationTask

__all__ = ["IOUS", "BatchMaps", "batch_maps", "locate", "max_box_acc"]

_RANKED = 5


@dataclass(frozen=True)
class BatchMaps:
    """What the network says about a batch."""

    ids: npt.NDArray[np.int64]
    """(N,) sample ids."""
    ranked: npt.NDArray[np.int64]
    """(N, up to 5) classes, most likely first."""
    maps: torch.Tensor
    """(N, 2, h, w) maps of the most likely and of the true class, of the warped picture."""


def batch_maps(task: ClassificationTask, source: Any, ranks: Ranks, crops: str | None = None) -> Iterator[BatchMaps]:
    """Class activation maps of every image of a source that this rank has.

    Args:
        task: with a ``Localiser`` as its model.
        source: images with labels.
        ranks: who shares the work.
        crops: "ten" or "one"; None: the setting.
    """
    settings = task.settings
    model: Any = task.model
    cam = settings.cam  # type: ignore[attr-defined]
    side = settings.loader.eval_size or settings.loader.size
    ten = (crops or cam.crops) == "ten"
    big = round(side * 256 / 224) if ten else side
    for batch in eval_batches(task, source, ranks, crop="warp", size=big):
        images, labels = batch["image"], batch["label"]
        views = ten_crops(images, side) if ten else images[:, None]
        count, shown = views.shape[:2]
        ids = batch["id"].repeat_interleave(shown)
        epochs = np.tile(np.arange(shown), count)  # every crop has draws of its own where testing hides
        flat = task.hiding(views.flatten(0, 1), ids, epochs, training=False)
        if settings.model.channels_last:
            flat = flat.contiguous(memory_format=torch.channels_last)
        features = model.features(flat)
        logits = model.logits(features).float().unflatten(0, (count, shown))
        ranked = crop_probabilities(logits).topk(min(_RANKED, logits.shape[-1])).indices
        classes = torch.stack([ranked[:, 0], labels], 1)
        maps = model.class_maps(features, classes.repeat_interleave(shown, 0)).unflatten(0, (count, shown))
        merged = merged_crops(maps, big, side, cam.merge) if ten else maps[:, 0]
        yield BatchMaps(batch["id"].cpu().numpy(), ranked.cpu().numpy(), merged)


def locate(
    task: ClassificationTask, images: Any, threshold: float, ranks: Ranks, blacklist: str | None = None
) -> Localisation:
    """Boxes of all validation images by the paper's steps, of all ranks together.

    Args:
        task: with a ``Localiser`` as its model.
        images: a ``BoxedImages``; its ``val`` is located.
        threshold: share of a map's maximum that counts as foreground.
        ranks: who shares the work.
        blacklist: list of the ILSVRC kit: images that ``compute(use_blacklist=True)`` leaves out.
    """
    skipped = () if blacklist is None else blacklisted_ids(Path(blacklist), images.val)
    meter = Localisation(images.val_boxes, images.val.labels, blacklist=skipped)
    by_tool = task.settings.cam.box == "cam_dt"  # type: ignore[attr-defined]
    for found in batch_maps(task, images.val, ranks):
        sizes = images.val_boxes.sizes[found.ids]
        predicted, true, curve = [], [], []
        for first, second in picture_maps(found.maps, sizes):
            boxes = largest_component_boxes(second, (*THRESHOLDS, threshold))
            curve.append(boxes[:-1])
            if by_tool:
                predicted.append(cam_dt_box(first))
                true.append(cam_dt_box(second))
            else:
                predicted.append(largest_component_boxes(first, [threshold])[0])
                true.append(boxes[-1])
        meter.update(found.ids, found.ranked, np.stack(predicted), np.stack(true), np.stack(curve))
    return _gathered(meter, ranks)


def max_box_acc(task: ClassificationTask, images: Any, ranks: Ranks) -> MaxBoxAcc:
    """MaxBoxAcc and its like: one view of the whole picture, maps at the network's input size."""
    settings = task.settings
    side = settings.loader.eval_size or settings.loader.size
    meter = MaxBoxAcc(images.val_boxes, images.val.labels, step=settings.cam.wsol_step)  # type: ignore[attr-defined]
    for found in batch_maps(task, images.val, ranks, "one"):
        maps = upsampled(found.maps[:, 1:], (side, side))[:, 0]
        meter.update(found.ids, maps.float().cpu().numpy(), found.ranked[:, 0])
    return _gathered(meter, ranks)


def _gathered(meter: Any, ranks: Ranks) -> Any:
    for rank, state in enumerate(ranks.gathered(meter.state())):
        if rank != ranks.rank:
            meter.merge(state)
    return meter
