"""From images to boxes, batch by batch: crops, class activation maps, boxes, and the meters that count them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from has_dali.kernels.threads import default_threads
from has_dali.trainers.data import Share
from has_dali.trainers.datasets import blacklisted_ids
from has_dali.trainers.evaluation import eval_batches, gathered
from has_dali.trainers.metrics.cam import crop_probabilities, merged_crops, picture_maps, ten_crops, upsampled
from has_dali.trainers.metrics.cam_boxes import cam_dt_box, largest_component_boxes
from has_dali.trainers.metrics.localisation import IOUS, THRESHOLDS, Localisation
from has_dali.trainers.metrics.spread import MapSpread
from has_dali.trainers.metrics.wsol import MaxBoxAcc

if TYPE_CHECKING:
    from has_dali.trainers.classification import ClassificationTask

__all__ = ["IOUS", "BatchMaps", "batch_maps", "locate", "max_box_acc", "of_all_ranks"]

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


def batch_maps(task: ClassificationTask, source: Any, share: Share, crops: str | None = None) -> Iterator[BatchMaps]:
    """Class activation maps of every image of a source that this rank has.

    Args:
        task: with a ``Localiser`` as its model.
        source: images with labels.
        share: who shares the work.
        crops: "ten" or "one"; None: the setting.
    """
    settings = task.settings
    model: Any = task.model
    cam = settings.cam  # type: ignore[attr-defined]
    side = settings.loader.eval_size or settings.loader.size
    ten = (crops or cam.crops) == "ten"
    big = round(side * 256 / 224) if ten else side
    for batch in eval_batches(task, source, share, crop="warp", size=big):
        images, labels = batch["image"], batch["label"]
        views = ten_crops(images, side) if ten else images[:, None]
        # One forward pass per crop, each of the size of a batch: ten at once would need ten times the memory.
        features = [_features(task, views[:, k], batch["id"], k) for k in range(views.shape[1])]
        logits = torch.stack([model.logits(part).float() for part in features], 1)
        ranked = crop_probabilities(logits).topk(min(_RANKED, logits.shape[-1])).indices
        classes = torch.stack([ranked[:, 0], labels], 1)
        maps = torch.stack([model.class_maps(part, classes) for part in features], 1)
        merged = merged_crops(maps, big, side, cam.merge) if ten else maps[:, 0]
        yield BatchMaps(batch["id"].cpu().numpy(), ranked.cpu().numpy(), merged)


def _features(task: ClassificationTask, view: torch.Tensor, ids: torch.Tensor, number: int) -> torch.Tensor:
    """Last maps of one crop of a batch; every crop has draws of its own where testing hides."""
    memory_format = torch.channels_last if task.settings.model.channels_last else torch.contiguous_format
    shown = task.hiding(view.contiguous(memory_format=memory_format), ids, number, training=False)
    model: Any = task.model
    features: torch.Tensor = model.features(shown)
    return features


def locate(
    task: ClassificationTask, images: Any, threshold: float, share: Share, blacklist: str | None = None
) -> tuple[Localisation, MapSpread]:
    """Boxes of all validation images by the paper's steps, and how maps lie over the objects; of all ranks together.

    Args:
        task: with a ``Localiser`` as its model.
        images: a ``BoxedImages``; its ``val`` is located.
        threshold: share of a map's maximum that counts as foreground.
        share: who shares the work.
        blacklist: list of the ILSVRC kit: images that ``compute(use_blacklist=True)`` leaves out.
    """
    skipped = () if blacklist is None else blacklisted_ids(Path(blacklist), images.val)
    meter = Localisation(images.val_boxes, images.val.labels, blacklist=skipped)
    spread = MapSpread(images.val_boxes)
    by_tool = task.settings.cam.box == "cam_dt"  # type: ignore[attr-defined]

    def boxes(sample_id: int, maps: npt.NDArray[np.float32]) -> tuple[npt.NDArray, ...]:
        """Of one picture: box of the most likely class, of the true one, that at all thresholds, and its spread."""
        first, second = maps
        shares = np.array(spread.measure(sample_id, second))
        curve = largest_component_boxes(second, (*THRESHOLDS, threshold))
        if by_tool:
            return cam_dt_box(first), cam_dt_box(second), curve[:-1], shares
        return largest_component_boxes(first, [threshold])[0], curve[-1], curve[:-1], shares

    with ThreadPoolExecutor(default_threads()) as pool:  # OpenCV works without the GIL
        for found in batch_maps(task, images.val, share):
            pictures = picture_maps(found.maps, images.val_boxes.sizes[found.ids])
            answers = pool.map(boxes, found.ids.tolist(), pictures)
            predicted, true, curves, shares = (np.stack(part) for part in zip(*answers, strict=True))
            meter.update(found.ids, found.ranked, predicted, true, curves)
            spread.update(found.ids, shares)
    return of_all_ranks(meter, share), of_all_ranks(spread, share)


def max_box_acc(task: ClassificationTask, images: Any, share: Share) -> MaxBoxAcc:
    """MaxBoxAcc and its like: one view of the whole picture, maps at the network's input size."""
    settings = task.settings
    side = settings.loader.eval_size or settings.loader.size
    meter = MaxBoxAcc(images.val_boxes, images.val.labels, step=settings.cam.wsol_step)  # type: ignore[attr-defined]
    for found in batch_maps(task, images.val, share, "one"):
        maps = upsampled(found.maps[:, 1:], (side, side))[:, 0]
        meter.update(found.ids, maps.float().cpu().numpy(), found.ranked[:, 0])
    return of_all_ranks(meter, share)


def of_all_ranks(meter: Any, share: Share) -> Any:
    """A meter of this rank with what those of the others took in."""
    for rank, state in enumerate(gathered(meter.state(), share)):
        if rank != share.rank:
            meter.merge(state)
    return meter
