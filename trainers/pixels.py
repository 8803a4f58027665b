"""From images to PxAP, batch by batch: class activation maps against object masks, as in wsolevaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from has_dali.trainers.data import Share
from has_dali.trainers.datasets import MaskedImages
from has_dali.trainers.evaluation import Evaluation
from has_dali.trainers.localising import batch_maps, of_all_ranks
from has_dali.trainers.metrics.cam import upsampled
from has_dali.trainers.metrics.pxap import PxAP, centre_map
from has_dali.trainers.metrics.samples import SampleTable

if TYPE_CHECKING:
    from has_dali.trainers.classification import ClassificationTask

_TOP = 5


def evaluate_masks(task: ClassificationTask, images: MaskedImages, share: Share) -> Evaluation:
    """PxAP, top-1 and top-5 in percent: one view of the whole picture, the map of the true class, at the network's
    input size (224 in the benchmark), whatever cam.crops says. Thresholds are cam.wsol_step apart.

    Beside it stand two maps that need no network, the same for every image: a constant one, whose PxAP is the share of
    object pixels, and ``centre_map``.

    Args:
        task: with a ``Localiser`` as its model.
        images: its ``val`` is evaluated.
        share: who shares the work.

    Raises:
        ValueError: a mask cannot be read or is empty, or there is no object pixel at all.
    """
    settings = task.settings
    side = settings.loader.eval_size or settings.loader.size
    size = (side, side)
    step = settings.cam.wsol_step  # type: ignore[attr-defined]
    fixed = {"constant map": np.zeros(size, np.float32), "centre map": centre_map(size)}
    meter, trivial, answers = PxAP(step), {name: PxAP(step) for name in fixed}, SampleTable()
    labels = images.val.labels
    for found in batch_maps(task, images.val, share, "one"):
        masks = images.val_masks.batch(found.ids, size)
        meter.update(found.ids, upsampled(found.maps[:, 1:].float(), size)[:, 0].cpu().numpy(), masks)
        for name, one in fixed.items():
            trivial[name].update(found.ids, np.broadcast_to(one, masks.shape), masks)
        right = found.ranked[:, :_TOP] == labels[found.ids, None]
        columns = {"predicted": found.ranked[:, 0], "top1": right[:, 0]}
        if found.ranked.shape[1] >= _TOP:
            columns["top5"] = right.any(axis=1)
        answers.add(found.ids, columns)
    per_image = of_all_ranks(answers, share).state()
    metrics = {name: float(100 * per_image[name].mean()) for name in ("top1", "top5") if name in per_image}
    metrics["pxap"] = of_all_ranks(meter, share).compute()
    baselines = {name: {"pxap": of_all_ranks(one, share).compute()} for name, one in trivial.items()}
    return Evaluation(metrics, baselines, per_image=per_image)
