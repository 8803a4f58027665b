"""From finished runs to the paper's figures: which images are shown, and what the networks say about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from has_dali.trainers.evaluation import Ranks
from has_dali.trainers.figures.cam import Example, Found, cam_figure
from has_dali.trainers.localising import batch_maps
from has_dali.trainers.metrics.boxes import best_iou
from has_dali.trainers.metrics.cam import picture_maps
from has_dali.trainers.metrics.cam_boxes import cam_dt_box, largest_component_boxes
from has_dali.trainers.runs import Run, shown_image

_IOU = 0.5


@dataclass(frozen=True)
class _Located:
    """What one run's network found in all images: of the true class."""

    boxes: npt.NDArray[np.int64]
    heat: list[npt.NDArray[np.float32]]
    overlap: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]


def localisation_figure(runs: Sequence[Run], images: Any, count: int, failures: bool) -> Figure:
    """Fig. 5: images that the last run locates and the first does not; ``failures``, Fig. 6: the reverse.

    Of a single run, its best images (``failures``: its worst). Images are picked by the difference of the overlaps.

    Raises:
        ValueError: no image is of that kind.
    """
    found = [_located(run, images) for run in runs]
    if len(runs) == 1:
        score = found[0].overlap * (-1 if failures else 1)
        wanted = np.full(len(score), True)
        title = "Worst located images" if failures else "Best located images"
    else:
        winner, loser = (found[0], found[-1]) if failures else (found[-1], found[0])
        score = winner.overlap - loser.overlap
        wanted = (winner.overlap >= _IOU) & (loser.overlap < _IOU)
        names = (runs[0].name, runs[-1].name) if failures else (runs[-1].name, runs[0].name)
        title = f"Located by {names[0]}, missed by {names[1]} ({wanted.sum()} of {len(wanted)} images)"
    chosen = [i for i in np.argsort(-score, kind="stable").tolist() if wanted[i]][:count]
    if not chosen:
        raise ValueError("no image is located by one run and missed by the other; train longer or take other runs")
    names_of = images.classes
    examples = [
        Example(
            shown_image(images.val, i),
            images.val_boxes.of(i),
            names_of[images.val.labels[i]],
            [
                Found(one.boxes[i].tolist(), one.heat[i], f"IoU {one.overlap[i]:.2f}", bool(one.overlap[i] >= _IOU))
                for one in found
            ],
        )
        for i in chosen
    ]
    return cam_figure(examples, [run.name for run in runs], title=title, blocks=2 if len(runs) <= 2 else 1)


def _located(run: Run, images: Any) -> _Located:
    cam = run.task.settings.cam  # type: ignore[attr-defined]
    threshold = run.report["metrics"]["last"].get("cam_threshold", 0.2)
    boxes, heat, predicted, ids = [], [], [], []
    with torch.inference_mode():
        for batch in batch_maps(run.task, images.val, Ranks()):
            for _, true in picture_maps(batch.maps, images.val_boxes.sizes[batch.ids]):
                by_tool = cam.box == "cam_dt"
                boxes.append(cam_dt_box(true) if by_tool else largest_component_boxes(true, [threshold])[0])
                heat.append(np.maximum(true, 0))
            predicted.append(batch.ranked[:, 0])
            ids.append(batch.ids)
    order = np.concatenate(ids)
    found = np.stack(boxes)
    return _Located(found, heat, best_iou(found, images.val_boxes, order), np.concatenate(predicted))
