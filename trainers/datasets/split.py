"""A part of the training images kept back, to choose thresholds, grids and schedules on: val is for the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from has_dali.trainers.datasets.images import BoxedImages, LabeledImages, MaskedImages

Images = TypeVar("Images", bound=LabeledImages)


def held_out(images: Images, every: int = 10, fold: int = 0) -> Images:
    """The same data set with its training images split in two: ``train`` to fit, ``val`` held out.

    Whatever trains and evaluates on a data set does so here unchanged, and cannot see the real val. Of each class,
    every ``every``-th training image is held out, counted from number ``fold``: a pure function of the order of
    images, the same in each run; the ``every`` folds cut all images into disjoint parts.

    Args:
        images: labelled or boxed; with boxes, those of train are split along.
        every: one image in so many is held out, at least 2.
        fold: which one, from 0 to ``every`` - 1.

    Raises:
        ValueError: a number is out of range, a class has too few images, or a boxed data set has no boxes for train,
            or a data set has masks, which are for its evaluation images only.
    """
    if isinstance(images, MaskedImages):
        raise ValueError(
            f"held_out: {images.name} has masks, for its evaluation images only, and PxAP has no threshold to choose;"
            " set loader.held_out to 0"
        )
    if isinstance(images, BoxedImages) and images.train_boxes is None:
        raise ValueError(
            f"held_out: {images.name} has no boxes for its training images; set loader.held_out to 0 and give"
            " cam.threshold a number, or give lists with boxes (loader.metadata)"
        )
    fit, held = held_out_ids(images.train.labels, every, fold)
    parts: dict[str, Any] = {"train": images.train.select(fit), "val": images.train.select(held)}
    if isinstance(images, BoxedImages) and images.train_boxes is not None:
        parts |= {"train_boxes": images.train_boxes.select(fit), "val_boxes": images.train_boxes.select(held)}
    return replace(images, **parts)


def held_out_ids(
    labels: npt.NDArray[np.int64], every: int = 10, fold: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids to fit and ids held out, both ascending, of samples with these labels (N,)."""
    if every < 2 or not 0 <= fold < every:
        raise ValueError(f"every={every}, fold={fold}: expected every of at least 2, and fold from 0 to every - 1")
    order = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    if (few := np.flatnonzero(counts <= max(fold, 1))).size:
        label = int(labels[order[first[few[0]]]])
        raise ValueError(
            f"every={every}, fold={fold}: class {label} has {counts[few[0]]} images; each needs one in both parts"
        )
    place = np.empty(len(labels), np.int64)  # of a sample within its class
    place[order] = np.arange(len(labels)) - np.repeat(first, counts)
    held = place % every == fold
    return np.flatnonzero(~held), np.flatnonzero(held)


def fit_and_held_out(images: Images, every: int) -> tuple[Images, Images | None]:
    """The data to fit, and its held-out training images as a data set of their own (None where ``every`` is 0)."""
    if not every:
        return images, None
    tuning = held_out(images, every)
    parts = {name: getattr(tuning, name) for name in ("train", "train_boxes") if hasattr(tuning, name)}
    return replace(images, **parts), tuning
