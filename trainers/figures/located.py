"""From finished runs to the paper's figures: which images are shown, and what the networks say about them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from has_dali.trainers.data import ALONE
from has_dali.trainers.figures.cam import Example, Found, cam_figure
from has_dali.trainers.localising import batch_maps
from has_dali.trainers.metrics.boxes import best_iou
from has_dali.trainers.metrics.cam import picture_maps
from has_dali.trainers.metrics.cam_boxes import cam_dt_box, largest_component_boxes
from has_dali.trainers.results.runs import Run, shown_image

_IOU = 0.5


@dataclass(frozen=True)
class _Located:
    """What one run's network found of the true class, by sample id."""

    boxes: npt.NDArray[np.int64]
    overlap: npt.NDArray[np.float64]


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
    heat = [_maps(run, images, chosen) for run in runs]
    examples = [
        Example(
            shown_image(images.val, i),
            images.val_boxes.of(i),
            images.classes[images.val.labels[i]],
            [
                Found(one.boxes[i].tolist(), maps[i], f"IoU {one.overlap[i]:.2f}", bool(one.overlap[i] >= _IOU))
                for one, maps in zip(found, heat, strict=True)
            ],
        )
        for i in chosen
    ]
    return cam_figure(examples, [run.name for run in runs], title=title, blocks=2 if len(runs) <= 2 else 1)


def _located(run: Run, images: Any) -> _Located:
    by_tool = run.task.settings.cam.box == "cam_dt"  # type: ignore[attr-defined]
    threshold = run.report["metrics"]["last"].get("cam_threshold", 0.2)
    boxes = []
    for true in _true_maps(run, images):
        boxes.append(cam_dt_box(true) if by_tool else largest_component_boxes(true, [threshold])[0])
    found = np.stack(boxes)
    return _Located(found, best_iou(found, images.val_boxes, np.arange(len(found))))


def _maps(run: Run, images: Any, ids: list[int]) -> dict[int, npt.NDArray[np.float32]]:
    """Maps of a few images, without their negative parts. Those of all images would not fit into memory."""
    wanted = itertools.islice(enumerate(_true_maps(run, images)), max(ids) + 1)
    return {i: np.maximum(true, 0) for i, true in wanted if i in ids}


def _true_maps(run: Run, images: Any) -> Iterator[npt.NDArray[np.float32]]:
    """The map of each image's own class, by sample id: one process evaluates in that order."""
    with torch.inference_mode():
        for batch in batch_maps(run.task, images.val, ALONE):
            for _, true in picture_maps(batch.maps, images.val_boxes.sizes[batch.ids]):
                yield true
