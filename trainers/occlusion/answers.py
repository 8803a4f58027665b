"""Runs on occluded images (paper, section 4.6 and Fig. 7): the batches, the answers, and pictures of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from has_dali.pipelines.sources import FileSource
from has_dali.trainers.data import ALONE, eval_loader, without_padding
from has_dali.trainers.datasets import BoxedImages, LabeledImages
from has_dali.trainers.figures.occlusion import Answers
from has_dali.trainers.metrics.boxes import scale_boxes
from has_dali.trainers.occlusion.paired import (
    CONDITIONS,
    Outcomes,
    PairedRow,
    choose_images,
    cover_batch,
    evaluate,
    paired_rows,
    read_image_list,
)
from has_dali.trainers.results.runs import Run, open_runs

_BATCH = 100


def occlude(options: Any) -> list[PairedRow]:
    """What ``has-dali occlusion`` prints: every pair of runs under every condition.

    Raises:
        ValueError: fewer than two runs, or runs that do not fit together.
    """
    if len(options.runs) < 2:
        raise ValueError("RUN: expected at least two runs, the baseline first; one alone has nothing to be paired with")
    runs, images = open_runs(options.runs, options.data, options.device)
    if options.image_list is not None:
        outcomes = answers_to_list(runs, images, options.image_list)
    else:
        outcomes = answers_when_covered(runs, images, options.classes, options.per_class, options.seed)
    return paired_rows(outcomes, options.seed)


def answers_to_list(runs: Sequence[Run], images: LabeledImages, file: Path) -> Outcomes:
    """Answers to a list of images that are occluded as they are."""
    paths, labels = read_image_list(file, images.classes)
    source = FileSource(paths, labels, images.classes)
    return evaluate(_models(runs), _batches(runs[0], source, None, None), conditions=())


def answers_when_covered(runs: Sequence[Run], images: Any, classes: int, per_class: int, seed: int) -> Outcomes:
    """Answers to some validation images, whole and with parts of their boxes covered.

    Raises:
        ValueError: the data set has no boxes.
    """
    ids, source, boxes = _chosen(images, classes, per_class, seed)
    loader = runs[0].task.settings.loader
    batches = _batches(runs[0], source, boxes, ids)
    return evaluate(
        _models(runs), batches, conditions=CONDITIONS, seed=seed, patch_size=_cell(loader), mean=loader.mean,
        std=loader.std,
    )  # fmt: skip


def occlusion_examples(runs: Sequence[Run], images: Any, count: int, level: float = 0.5) -> list[Answers]:
    """Covered images with every run's answer; those first that the last run knows and the first does not."""
    ids, source, boxes = _chosen(images, len(images.classes), 10**6, 0)
    loader = runs[0].task.settings.loader
    names = [run.name for run in runs]
    found: dict[int, list[Answers]] = {-1: [], 0: [], 1: []}  # by who is right: the last run, both or none, the first
    for (views, places, labels, numbers), cover in zip(
        _batches(runs[0], source, boxes, ids), itertools.cycle(("mean", "cells")), strict=False
    ):
        shown, _ = cover_batch(
            views, places, numbers, level=level, cover=cover, patch_size=_cell(loader), mean=loader.mean, std=loader.std
        )
        with torch.inference_mode():
            answers = [model(shown).argmax(1).cpu().numpy() for model in _models(runs).values()]
        for n, picture in enumerate(_pixels(shown, loader.mean, loader.std)):
            right = [answer[n] == labels[n] for answer in answers]
            said = {name: images.classes[answer[n]] for name, answer in zip(names, answers, strict=True)}
            kind = found[int(right[0]) - int(right[-1])]
            if len(kind) < count:
                kind.append(Answers(picture, images.classes[labels[n]], said))
    won = found[-1][: (count + 1) // 2]
    lost = found[1][: count - len(won)]
    return [*won, *lost, *found[0][: count - len(won) - len(lost)]]


def _chosen(images: Any, classes: int, per_class: int, seed: int) -> tuple[npt.NDArray[np.int64], Any, Any]:
    if not isinstance(images, BoxedImages):
        raise ValueError("--data: covering parts of objects needs boxes: give runs of localisation, or --image-list")
    ids = choose_images(images.val.labels, classes, per_class, seed)
    return ids, images.val.select(ids), images.val_boxes.select(ids)


def _models(runs: Sequence[Run]) -> dict[str, Any]:
    """The networks by name.

    Raises:
        ValueError: they want images of different sizes or normalisation, so they cannot be shown the same ones.
    """
    for name in ("size", "eval_size", "mean", "std"):
        values = [getattr(run.task.settings.loader, name) for run in runs]
        if any(value != values[0] for value in values):
            raise ValueError(f"RUN: expected runs on the same images, got loader.{name} of {values}")
    return {run.name: run.task for run in runs}


def _batches(
    run: Run, source: Any, boxes: Any, ids: npt.NDArray[np.int64] | None
) -> Iterator[tuple[torch.Tensor, npt.NDArray, npt.NDArray, npt.NDArray]]:
    """Warped images with their boxes in the pixels of the batch; ids are those of the whole data set."""
    settings = run.task.settings
    side = settings.loader.eval_size or settings.loader.size
    for padded in eval_loader(source, settings, run.task.device, crop="warp", size=side, batch_size=_BATCH):
        batch = without_padding(padded, settings, ALONE)
        own = batch["id"].cpu().numpy()
        places = np.zeros((len(own), 4), np.int64)
        if boxes is not None:
            first = boxes.values[boxes.offsets[own]]
            places = scale_boxes(first, boxes.sizes[own], (side, side))
        yield batch["image"], places, batch["label"].cpu().numpy(), own if ids is None else ids[own]


def _cell(loader: Any) -> int:
    """Edge of the cells of the cover "cells": an eighth of the image."""
    return max((loader.eval_size or loader.size) // 8, 1)


def _pixels(batch: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> npt.NDArray[np.uint8]:
    """(N, H, W, 3) uint8 of a normalised batch."""
    shape = (1, 3, 1, 1)
    raw = batch.float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    return np.asarray(raw.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())
