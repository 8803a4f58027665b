"""What a trainer gets from a data set: two sources of images over the same classes, and where objects are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from has_dali.trainers.datasets.boxes import Boxes
from has_dali.trainers.datasets.masks import Masks

if TYPE_CHECKING:
    from has_dali.pipelines.arrays import ArraySource
    from has_dali.pipelines.sources import FileSource

Source: TypeAlias = "FileSource | ArraySource"


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Training and validation images over the same classes.

    Args:
        name: what reports call the data set.
        train, val: sources whose labels index ``classes``.
        classes: class names, by label.
    """

    name: str
    train: Source
    val: Source
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class BoxedImages(LabeledImages):
    """The same with the object boxes of each image's own class, by sample id.

    Args:
        val_boxes: boxes of ``val``.
        train_boxes: boxes of ``train``, where known; they may tune thresholds, never train a network.

    Raises:
        ValueError: a source and its boxes differ in length.
    """

    val_boxes: Boxes
    train_boxes: Boxes | None

    def __post_init__(self) -> None:
        for part, source, boxes in (("val", self.val, self.val_boxes), ("train", self.train, self.train_boxes)):
            if boxes is not None and len(boxes) != len(source):
                raise ValueError(f"{part}_boxes: {len(boxes)} images have boxes, but {part} has {len(source)} images")


@dataclass(frozen=True, eq=False)
class MaskedImages(LabeledImages):
    """The same with the object masks of each evaluation image's own class, by sample id.

    Args:
        val_masks: masks of ``val``. There are none of ``train``: PxAP has no threshold to be chosen on them.

    Raises:
        ValueError: ``val`` and its masks differ in length.
    """

    val_masks: Masks

    def __post_init__(self) -> None:
        if len(self.val_masks) != len(self.val):
            raise ValueError(f"val_masks: {len(self.val_masks)} images have masks, but val has {len(self.val)} images")


def check_same_classes(train: set[str], val: set[str], where: str) -> None:
    """Refuse classes that only one of the two parts has."""
    both = [("train", sorted(train - val)), ("val", sorted(val - train))]
    found = "; ".join(f"only in {part}: {some_names(names)}" for part, names in both if names)
    if found:
        raise ValueError(
            f"{where}: classes that differ between train and val ({found}); both parts need images of the same classes"
        )


def check_same_labels(images: LabeledImages, where: str) -> LabeledImages:
    """The same by the labels that occur."""
    train, val = ({images.classes[label] for label in np.unique(part.labels)} for part in (images.train, images.val))
    check_same_classes(train, val, where)
    return images


def some_names(names: list[str], most: int = 5) -> str:
    """Up to ``most`` names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
